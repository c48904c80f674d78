"""Real uses, for type checkers: each must be accepted, and give the type that is asserted."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, assert_type

import httpx
import httpx2

from intercom_data_events import (
    APIResponse,
    APIStatusError,
    AsyncContact,
    AsyncDataEventsClient,
    AsyncEventList,
    AsyncOutcomes,
    Clock,
    Contact,
    ContactSummary,
    Counts,
    DataEventsClient,
    Event,
    EventLike,
    EventList,
    EventSummary,
    IntercomError,
    IntercomVersion,
    ListedEvent,
    Metadata,
    MonetaryAmount,
    Outcome,
    Outcomes,
    Page,
    RateLimit,
    RichLink,
)
from intercom_data_events.emulator import (
    Emulator,
    EmulatorCounts,
    Fault,
    ManualClock,
    random_faults,
)
from intercom_data_events.outbox import DeadLetter, Outbox, Status

metadata: Metadata = {
    "order_date": datetime.now(UTC),
    "load": 3.67,
    "seats": 4,
    "source": "desktop",
    "order_number": RichLink(url="https://example.org/orders/3434", value="3434"),
    "price": MonetaryAmount.from_decimal("29.99", "usd"),
    "as_json": {"amount": 2999, "currency": "usd"},
}


async def rotating() -> str:
    return "token"


def blocking() -> None:
    emulator = Emulator()
    client = DataEventsClient(
        lambda: "token", version="2.14", region="eu", timeout=5, transport=emulator.transport()
    )
    known: IntercomVersion = "2.7"
    with DataEventsClient("token", version=known) as opened:
        assert_type(opened, DataEventsClient)
    DataEventsClient(http_client=httpx.Client(), timeout=httpx.Timeout(5))
    DataEventsClient(base_url="http://10.0.0.1:8125", allow_http=True, deadline=60)
    DataEventsClient(http_client=httpx2.Client(), timeout=httpx2.Timeout(5))
    DataEventsClient(transport=httpx2.HTTPTransport()).with_options(timeout=httpx2.Timeout(5))
    httpx.Client(transport=emulator.transport())
    httpx2.Client(transport=emulator.transport())
    client.create("placed-order", user_id="314159", metadata=metadata)
    client.create("placed-order", email="a@b.co", created_at="2014-01-16T23:12:21Z")
    client.create("placed-order", id="63a0", created_at=1389913941, drop_excess_metadata=True)
    client.send(Event("placed-order", user_id="314159", created_at=datetime.now(UTC)))
    for event in client.list(user_id="314159"):
        assert_type(event, ListedEvent)
        assert_type(event.event_name, str | None)
        assert_type(event.created_at, datetime | None)
        assert_type(event.user_id, str | None)
        assert_type(event.to_event(), Event)
        assert_type(event.to_json(), str)
    assert_type(client.list(user_id="314159", limit=5).first(), ListedEvent | None)
    for page in client.list(email="a@b.co", per_page=50).pages():
        assert_type(page, Page)
        assert_type(page.since, str | None)
        assert_type(page.events, tuple[ListedEvent, ...])
    assert_type(client.summary(intercom_user_id="63a0"), ContactSummary)
    assert_type(client.summary(user_id="1").events, tuple[EventSummary, ...])
    assert_type(client.summary(user_id="1").events[0].first, datetime | None)
    for item in client.summary(user_id="1"):
        assert_type(item, EventSummary)
    client.create_summary(
        user_id="1", event_name="a", count=1, first=1389913941, last=datetime.now(UTC)
    )
    contact = client.contact(user_id="314159")
    assert_type(contact, Contact)
    assert_type(contact.create("invited-friend", metadata=metadata), None)
    assert_type(contact.list(per_page=5), EventList)
    assert_type(contact.summary(), ContactSummary)
    contact.create_summary(event_name="a", count=1, first=1389913941, last=datetime.now(UTC))
    contact.create("invited-friend", user_id="1")  # type: ignore[call-arg]
    client.create(user_id="1")  # type: ignore[call-arg]
    client.summary(user="1")  # type: ignore[call-arg]
    view = client.with_options(version="2.14", timeout=5, max_retries=0, headers={"X-Trace": "1"})
    assert_type(view, DataEventsClient)
    client.with_options(deadline=math.inf, pace=False, quota_share=0.5)
    clock = ManualClock()
    faults = itertools.chain([Fault.reset(processed=True), None], random_faults(0.2, seed=1))
    misbehaving = Emulator(clock=clock, faults=faults, rate_limit=None)
    DataEventsClient("token", transport=misbehaving.transport(), clock=clock, deadline=30)
    AsyncDataEventsClient("token", clock=Clock(), max_retries=9, pace=True, quota_share=1)
    AsyncDataEventsClient("token", http_client=httpx2.AsyncClient(), timeout=httpx2.Timeout(5))
    AsyncDataEventsClient("token", transport=httpx2.AsyncHTTPTransport())
    httpx2.AsyncClient(transport=misbehaving.transport())
    assert_type(misbehaving.counts, EmulatorCounts)
    assert_type(misbehaving.counts.faults, Mapping[str, int])
    assert_type(client.with_raw_response.create("a", user_id="1"), APIResponse[None])
    assert_type(client.with_raw_response.list(user_id="1"), APIResponse[Page])
    assert_type(client.with_raw_response.summary(user_id="1").parsed, ContactSummary)
    assert_type(client.rate_limit, RateLimit | None)
    assert_type(client.base_url, str)
    assert_type(client.version, str)
    assert_type(client.region, Literal["us", "eu", "au"] | None)
    assert_type(client.timeout, float | httpx.Timeout | httpx2.Timeout | None)
    assert_type(client.deadline, float)
    assert_type(client.max_retries, int)
    assert_type(client.enabled, bool)
    assert_type(view.is_closed, bool)
    client.version = "2.14"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    many = client.create_many({"event_name": "left", "user_id": str(n)} for n in range(3))
    assert_type(many, Outcomes)
    for outcome in many:
        assert_type(outcome.status, Literal["accepted", "refused", "failed", "duplicate"])
        assert_type(outcome.event, Event | None)
    counts = many.run()
    assert_type(counts, Counts)
    assert_type(counts.accepted + counts.refused + counts.failed + counts.duplicate, int)
    assert_type(counts.problems, tuple[Outcome, ...])
    assert_type(many.counts, Counts)
    try:
        client.create("placed-order", user_id="314159")
    except APIStatusError as error:
        assert_type(error.status_code, int)
        assert_type(error.codes, tuple[str, ...])
        assert_type(error.request_id, str | None)
        assert_type(error.response, APIResponse[None])
        assert_type(error.may_have_been_processed, bool)
        assert_type(error.tries, int)
        assert_type(error.elapsed, float)


async def awaiting() -> None:
    async with AsyncDataEventsClient(rotating, region="au") as client:
        await client.create("placed-order", user_id="314159", metadata=metadata)
        await client.send(Event("placed-order", user_id="314159"))
        async for event in client.list(user_id="314159"):
            assert_type(event, ListedEvent)
        assert_type(await client.list(user_id="314159", limit=5).first(), ListedEvent | None)
        async for page in client.list(since="user_id=1&since=5").pages():
            assert_type(page, Page)
        assert_type(await client.summary(user_id="1"), ContactSummary)
        contact = client.contact(id="63a0")
        assert_type(contact, AsyncContact)
        await contact.create("invited-friend")
        assert_type(await contact.summary(), ContactSummary)
        assert_type(contact.list(), AsyncEventList)
        assert_type(client.list(user_id="1"), AsyncEventList)
        await asyncio.create_task(client.create("placed-order", user_id="1"))
        asyncio.run(client.summary(user_id="1"))
        assert_type(await client.with_raw_response.create("a", user_id="1"), APIResponse[None])
        assert_type(await client.with_raw_response.list(user_id="1"), APIResponse[Page])
        assert_type(client.with_options(timeout=5), AsyncDataEventsClient)
        async with client.create_many(listen(), concurrency=8, max_rate=100) as outcomes:
            assert_type(outcomes, AsyncOutcomes)
            async for outcome in outcomes:
                assert_type(outcome, Outcome)
        async for outcome in client.create_many([Event("a", user_id="1")]):
            assert_type(outcome.error, IntercomError | None)
        assert_type(await client.create_many(listen()).run(), Counts)
        assert_type(await client.close(), None)
        assert_type(client.is_closed, bool)


async def listen() -> AsyncIterator[EventLike]:
    yield Event("placed-order", user_id="1")
    yield {"event_name": "placed-order", "user_id": "1", "created_at": 1671028894}


def look_into() -> None:
    with Outbox(Path("events.outbox")) as outbox:
        assert_type(outbox.status(), Status)
        assert_type(outbox.status().oldest, float | None)
        assert_type(outbox.path, Path)
        for letter in outbox.dead_letters():
            assert_type(letter, DeadLetter)
            assert_type(letter.event, Mapping[str, object])
            assert_type(letter.status, int | None)
        for fields in outbox.waiting():
            assert_type(fields, Mapping[str, object])
        assert_type(outbox.retry(), int)
        assert_type(outbox.forget([17, 18]), int)
        assert_type(outbox.compact(), int)
