"""What each driver does itself: send, receive, wait, iterate, give up and close.

Every test runs through the blocking client, and through the async one under asyncio and trio. What
is decided without I/O is the same for all three, and is tested elsewhere, once.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import pickle
import re
import socket
import ssl
import threading

import anyio
import httpx
import httpx2
import pytest
from callers import BACKENDS, NOW, NeverClock, Refusing, every_library, with_own
from clocks import EventLoopClock, run_in_no_time
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from secrecy import (
    EMAIL,
    LOGGER,
    TOKEN,
    logged_secrets,
    package_records,
    reachable,
    shown_token,
)

from intercom_data_events import (
    API_VERSION,
    APIConnectionError,
    APITimeoutError,
    AsyncDataEventsClient,
    ConfigurationError,
    Event,
    IntercomError,
    InvalidInputError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
    ServerError,
)
from intercom_data_events.emulator import FAULTS, EmulatedContact, Emulator, Fault, ManualClock

HERE = "https://api.intercom.io/events"
ACCEPTED = httpx.Response(202)
OTHER = "2.13" if API_VERSION == "2.14" else "2.14"
CREATE = {"event_name": "placed-order", "user_id": "1"}
SUMMARY = {"event_name": "invited-friend", "count": 3, "first": 1389913941, "last": 1671028894}

# httpx leaves generators of its own to the collector where a body is not read to its end, which
# trio reports.
leaves_to_the_collector = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def create(client):
    return client.create(**CREATE)


def create_summary(client):
    return client.create_summary(user_id="1", **SUMMARY)


def summary(client):
    return client.summary(user_id="1")


def raised(call, use=create, **options):
    with pytest.raises(IntercomError) as caught:
        call(use, **options)
    return caught.value


def page(*names, next_page=None):
    events = [{"event_name": name, "created_at": 1671028894} for name in names]
    return httpx.Response(
        200, json={"type": "event.list", "events": events, "pages": {"next": next_page}}
    )


@pytest.fixture
def history(call):
    """Seven events of one contact, the newest last."""

    def send(client):
        for number in range(7):
            yield client.create(
                "invited-friend",
                user_id="1",
                created_at=NOW - 100 + number,
                metadata={"number": number},
            )

    call.steps(send)


def numbers(events):
    return [event.metadata["number"] for event in events]


# The verbs.


def test_each_verb_sends_one_request_and_returns_what_the_answer_says(call, emulator):
    def use(client):
        sent = [
            (yield client.create("a", user_id="1", created_at=NOW - 2)),
            (yield client.send(Event("a", user_id="1", created_at=NOW - 1))),
            (yield client.create_summary(user_id="1", **SUMMARY)),
        ]
        summary = yield client.summary(user_id="1")
        events = yield client.list(user_id="1")
        return sent, summary, events

    sent, summary, events = call.steps(use)

    assert [(request.method, request.path) for request in emulator.requests] == [
        ("POST", "/events"),
        ("POST", "/events"),
        ("POST", "/events/summaries"),
        ("GET", "/events"),
        ("GET", "/events"),
    ]
    assert sent == [None, None, None]
    assert {(item.name, item.count) for item in summary.events} == {("a", 2), ("invited-friend", 3)}
    assert [event.created_at.timestamp() for event in events] == [NOW - 1, NOW - 2]


@pytest.mark.parametrize(
    ("identity", "asked"),
    [
        ({"user_id": "1"}, {"user_id": "1"}),
        ({"email": "a+b@example.org"}, {"email": "a+b@example.org"}),
        ({"id": "63a0"}, {"intercom_user_id": "63a0"}),
    ],
    ids=["user_id", "email", "id"],
)
def test_each_verb_is_about_the_contact_that_it_is_given(call, emulator, identity, asked):
    def use(client):
        contact = client.contact(**identity)
        for about, given, sought in (
            (client, identity, asked),
            (client.with_raw_response, identity, asked),
            (contact, {}, {}),
        ):
            yield about.create("a", **given)
            yield about.list(**sought, per_page=5)
            yield about.summary(**sought)

    call.steps(use)

    for number in (0, 3, 6):
        create, listing, summing = emulator.requests[number : number + 3]
        assert {name: create.json[name] for name in identity} == identity
        assert not {"user_id", "email", "id"} - {*identity} & {*create.json}
        assert dict(listing.query) == {"type": "user", **asked, "per_page": "5"}
        assert dict(summing.query) == {"type": "user", **asked, "summary": "true"}


def test_a_contact_binds_each_verb(call, emulator):
    def use(client):
        contact = client.contact(user_id="1")
        yield contact.create(
            "invited-friend", created_at=1671028894, metadata={"invite_code": "ADDAFRIEND"}
        )
        yield contact.create_summary(**SUMMARY)
        (page,) = yield contact.list().pages()
        summary = yield contact.summary()
        newer = yield contact.list(since=page.since)
        return page, summary, newer

    page, summary, newer = call.steps(use)

    create, importing, *_ = emulator.requests
    assert create.json == {
        "event_name": "invited-friend",
        "created_at": 1671028894,
        "user_id": "1",
        "metadata": {"invite_code": "ADDAFRIEND"},
    }
    assert importing.json["user_id"] == "1"
    assert [event.metadata for event in page.events] == [{"invite_code": "ADDAFRIEND"}]
    assert [(item.name, item.count) for item in summary.events] == [("invited-friend", 4)]
    assert newer == []


def test_a_raw_client_returns_the_whole_answer_of_each_verb(call):
    def use(client):
        raw = client.with_raw_response
        return [
            (yield raw.create(**CREATE, created_at=NOW - 2)),
            (yield raw.send(Event(**CREATE, created_at=NOW - 1))),
            (yield raw.create_summary(user_id="1", **SUMMARY)),
            (yield raw.summary(user_id="1")),
            (first := (yield raw.list(user_id="1", per_page=1))),
            (yield raw.list(since=first.parsed.since)),
        ]

    answers = call.steps(use)

    assert [answer.status_code for answer in answers] == [202, 202, 200, 200, 200, 200]
    assert all(answer.headers["intercom-version"] == API_VERSION for answer in answers)
    assert all(answer.request_id == answer.headers["x-request-id"] for answer in answers)
    assert all(answer.headers["X-RateLimit-Limit"] == "1667" for answer in answers)
    assert [answer.parsed for answer in answers[:3]] == [None] * 3
    assert [(answer.content, answer.text) for answer in answers[:2]] == [(b"", "")] * 2
    *_, summary, listing, newer = answers
    assert {item.name for item in summary.parsed.events} == {"placed-order", "invited-friend"}
    assert b"event.summary" in summary.content
    # One page, not the whole listing.
    assert len(listing.parsed.events) == 1
    assert listing.parsed.next
    assert b"event.list" in listing.content
    assert newer.parsed.events == ()


def test_excess_metadata_can_be_dropped_wherever_events_are_created(call, emulator):
    metadata = {f"key_{number}": number for number in range(12)}
    arguments = {"metadata": metadata, "drop_excess_metadata": True, "created_at": 1671028894}

    def use(client):
        yield client.create("a", user_id="1", **arguments)
        yield client.with_raw_response.create("b", user_id="1", **arguments)
        yield client.contact(user_id="1").create("c", **arguments)

    call.steps(use)

    assert [list(request.json["metadata"]) for request in emulator.requests] == [
        list(metadata)[:10]
    ] * 3


def test_what_is_wrong_with_a_call_is_raised_before_anything_is_sent(call, emulator):
    uses = {
        "create": lambda client: client.create("", user_id="1"),
        "send": lambda client: client.send("a"),
        "create_summary": lambda client: client.create_summary(user_id="", **SUMMARY),
        "summary": lambda client: client.summary(),
        "list": lambda client: client.list(user_id="1", per_page=0),
        "contact": lambda client: client.contact(user_id=1),
        "contact's summary": lambda client: client.contact(email="a@b.co").create_summary(
            **SUMMARY
        ),
        "raw": lambda client: client.with_raw_response.create("", user_id="1"),
        "raw list": lambda client: client.with_raw_response.list(),
    }

    kinds = {name: raised(call, use) for name, use in uses.items()}

    assert {name for name, error in kinds.items() if isinstance(error, InvalidInputError)} == set(
        uses
    )
    assert emulator.requests == ()


def test_an_answer_that_is_not_as_described_is_an_error_that_holds_it(answering):
    uses = {
        "list": lambda client: client.list(user_id="1"),
        "summary": lambda client: client.summary(user_id="1"),
        "create": create,
        "raw": lambda client: create(client.with_raw_response),
    }
    for name, use in uses.items():
        call, _ = answering(httpx.Response(200, content=b"<html>Sign in</html>"))

        error = raised(call, use)

        assert type(error) is InvalidResponseError, name
        assert error.response.content == b"<html>Sign in</html>", name
        assert error.may_have_been_processed is (name in ("create", "raw")), name


def test_the_settings_of_a_client_hold_for_its_requests(answering):
    call, transport = answering(ACCEPTED)
    shown = []

    def use(client):
        shown.append(repr(client))
        return create(client)

    call(use)
    call(
        use, version=OTHER, base_url="https://proxy.example", timeout=5, deadline=4, max_retries=0,
        pace=False, quota_share=0.5, headers={"X-Trace": "1"},
    )  # fmt: skip
    call(use, region="eu")

    usual, own, eu = shown
    assert "timeout=30, deadline=120, max_retries=4, pace=True, quota_share=1.0" in usual
    assert "timeout=5, deadline=4, max_retries=0, pace=False, quota_share=0.5" in own
    assert "api.eu.intercom.io" in eu
    assert [
        (
            str(request.url),
            request.headers["intercom-version"],
            request.extensions["timeout"]["read"],
            request.headers.get("x-trace"),
        )
        for request in transport.requests
    ] == [
        (HERE, API_VERSION, 30, None),
        ("https://proxy.example/events", OTHER, 4, "1"),
        ("https://api.eu.intercom.io/events", API_VERSION, 30, None),
    ]


def test_a_client_that_cannot_be_made_is_an_error_that_names_the_setting(calling):
    wrong = {
        "version": "latest",
        "region": "mars",
        "base_url": "api.intercom.io",
        "timeout": 0,
        "deadline": 0,
        "max_retries": -1,
        "pace": 1,
        "quota_share": 0,
        "headers": {"Host": "a"},
        "enabled": "false",
        "transport": "a transport",
        "http_client": "a client",
        "clock": 5,
    }
    for name, value in wrong.items():
        with pytest.raises(ConfigurationError, match="base_url" if name == "headers" else name):
            calling(None)(create, **{"access_token": "token", name: value})
    with pytest.raises(ConfigurationError, match="INTERCOM_ACCESS_TOKEN"):
        calling(None)(create, access_token=None)


def test_options_hold_for_their_view_alone(answering):
    call, transport = answering(ACCEPTED)

    def use(client):
        view = client.with_options(
            version=OTHER, timeout=5, deadline=4, max_retries=0, pace=False, quota_share=0.5,
            headers={"X-Trace": "1"},
        )  # fmt: skip
        assert "timeout=5, deadline=4, max_retries=0, pace=False, quota_share=0.5" in repr(view)
        further = view.with_options(headers={"X-Span": "2"})
        for one in (view, further.with_raw_response, client):
            yield create(one)

    call.steps(use)

    assert [
        (
            request.headers["intercom-version"],
            request.extensions["timeout"]["read"],
            request.headers.get("x-trace"),
            request.headers.get("x-span"),
        )
        for request in transport.requests
    ] == [(OTHER, 4, "1", None), (OTHER, 4, "1", "2"), (API_VERSION, 30, None, None)]


# Listings.


def test_a_listing_goes_from_page_to_page_newest_first(call, history):
    events = call(lambda client: client.list(user_id="1", per_page=2))
    pages = call(lambda client: client.list(user_id="1", per_page=3).pages())

    assert numbers(events) == [6, 5, 4, 3, 2, 1, 0]
    assert [numbers(page.events) for page in pages] == [[6, 5, 4], [3, 2, 1], [0]]
    assert pages[-1].next is None


def test_each_iteration_starts_anew_and_requests_pages_as_it_gets_to_them(call, emulator, history):
    before = len(emulator.requests)

    async def first(events):
        async for event in events:
            return event
        return None

    def use(client):
        events = client.list(user_id="1", per_page=2)
        assert repr(events)
        assert len(emulator.requests) == before
        return first(events) if hasattr(events, "__aiter__") else next(iter(events))

    assert numbers([call(use)]) == [6]
    assert len(emulator.requests) == before + 1

    def twice(client):
        listing = client.list(user_id="1")
        first = yield listing
        yield create(client)
        return len(first), len((yield listing))

    assert call.steps(twice) == (7, 8)


def test_pages_without_events_are_passed_through(answering):
    call, _ = answering(
        page("a", next_page=f"{HERE}?before=5"),
        page(next_page=f"{HERE}?before=4"),
        page(next_page=f"{HERE}?before=3"),
        page("b"),
    )

    events = call(lambda client: client.list(user_id="1"))

    assert [event.event_name for event in events] == ["a", "b"]


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (httpx.Response(404), NotFoundError),
        (httpx.Response(200, content=b"<html>"), InvalidResponseError),
        (page("b", next_page=f"{HERE}?before=5"), PaginationError),
    ],
    ids=["a failure", "an unreadable page", "a circle"],
)
def test_an_error_ends_the_iteration_after_the_events_before_it(answering, second, kind):
    call, transport = answering(page("a", next_page=f"{HERE}?before=5"), second, page("c"))
    before = 2 if kind is PaginationError else 1

    def take(pages):
        names = [next(pages).events[0].event_name for _ in range(before)]
        with pytest.raises(kind):
            next(pages)
        assert next(pages, "ended") == "ended"
        return names

    async def async_take(pages):
        names = [(await anext(pages)).events[0].event_name for _ in range(before)]
        with pytest.raises(kind):
            await anext(pages)
        assert await anext(pages, "ended") == "ended"
        return names

    def use(client):
        pages = client.list(user_id="1").pages()
        return async_take(pages) if hasattr(pages, "__anext__") else take(pages)

    assert call(use, max_retries=0) == ["a", "b"][:before]
    assert len(transport.requests) == 2


# Attempts, and the waits between them.


@every_library
def test_a_failed_attempt_is_repeated_as_the_same_request_after_a_wait_on_the_clock(
    answering, library
):
    asks_for_seven = library.Response(503, headers={"Retry-After": "7"})
    call, transport = answering(asks_for_seven, library.ReadError("no"), library.Response(202))

    assert call(create) is None

    assert call.clock.waits[0] == 7
    assert 0 <= call.clock.waits[1] <= 1
    first, *others = transport.requests
    assert len(others) == 2
    for request in others:
        assert request is not first
        assert (request.method, request.url, request.content, request.headers) == (
            first.method, first.url, first.content, first.headers,
        )  # fmt: skip


def test_a_summary_that_may_have_been_added_is_not_added_after_any_kind_of_failure(answering):
    failures = {
        "status": httpx.Response(500),
        "cut off": httpx.ReadError("no"),
        "system's own error": ConnectionResetError("gone"),
        "certainly not": httpx.Response(429),
        "not connected": httpx.ConnectError("no"),
    }
    requests = {}
    for name, failure in failures.items():
        call, transport = answering(failure, httpx.Response(200))
        with contextlib.suppress(IntercomError):
            call(create_summary)
        requests[name] = len(transport.requests)

    assert requests == {
        "status": 1, "cut off": 1, "system's own error": 1, "certainly not": 2, "not connected": 2,
    }  # fmt: skip


def test_a_failure_of_the_connection_says_whether_the_event_may_have_arrived(answering):
    failures = {
        httpx.ConnectError("refused"): (APIConnectionError, False),
        httpx.ConnectTimeout("slow"): (APITimeoutError, False),
        httpx.PoolTimeout("full"): (APITimeoutError, False),
        httpx.ReadError("reset"): (APIConnectionError, True),
        httpx.ReadTimeout(""): (APITimeoutError, True),
        httpx.WriteError("reset"): (APIConnectionError, True),
        httpx.RemoteProtocolError("cut short"): (APIConnectionError, True),
        # What httpx leaves as the system's own error.
        ConnectionResetError("gone"): (APIConnectionError, True),
        TimeoutError("late"): (APITimeoutError, True),
    }
    for problem, (kind, possible) in failures.items():
        call, transport = answering(problem)

        error = raised(call, max_retries=1)

        assert (type(error), error.may_have_been_processed) == (kind, possible), problem
        assert error.__cause__ is problem
        assert len(transport.requests) == 2, problem


def test_a_request_waits_for_room_within_the_rate_limit(calling, call, logged):
    emulator = Emulator(clock=call.clock, rate_limit=1)

    def use(client):
        assert client.rate_limit is None
        yield create(client)
        assert (client.rate_limit.limit, client.rate_limit.remaining) == (1, 0)
        yield create(client)

    calling(emulator.transport()).steps(use, clock=call.clock)

    assert emulator.counts.limited == 0
    assert call.clock.waits == [10.0]
    assert [(level, message.split(" in 0.")[0]) for level, message in logged()] == [
        ("DEBUG", "POST /events 202"),
        ("INFO", "POST /events waits up to 10.00 s for the rate limit"),
        ("DEBUG", "POST /events 202"),
    ]


@every_library
def test_an_attempt_gets_what_is_left_of_the_deadline(answering, library):
    asks_for_sixty = library.Response(503, headers={"Retry-After": "60"})
    call, transport = answering(asks_for_sixty, library.Response(202))

    call(create, deadline=70)

    assert [request.extensions["timeout"]["read"] for request in transport.requests] == [30, 10]


@every_library
@leaves_to_the_collector
@pytest.mark.parametrize("deadline", [5, 50])
def test_a_trickling_answer_is_cut_off_in_time(call, library, deadline):
    clock = call.clock
    emulator = Emulator(
        clock=clock,
        contacts=[EmulatedContact(user_id="1")],
        faults=itertools.repeat(Fault.trickling(0.75)),
    )

    own = call.http_client(transport=emulator.transport())
    error = raised(call, summary, http_client=own, deadline=deadline, timeout=20)

    assert type(error) is APITimeoutError
    assert deadline - 3 < error.elapsed <= deadline + 1
    assert error.tries == emulator.counts.requests == {5: 1, 50: 3}[deadline]


@every_library
@leaves_to_the_collector
def test_an_event_whose_answer_trickles_was_accepted_and_is_waited_for_no_longer(call, library):
    clock = call.clock
    emulator = Emulator(clock=clock, faults=itertools.repeat(Fault.trickling(0.75)))
    own = call.http_client(transport=emulator.transport())

    assert call(create, http_client=own, deadline=50, timeout=20) is None

    assert clock.time() - NOW <= 21
    assert (emulator.counts.requests, emulator.counts.stored) == (1, 1)


@every_library
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("part", ["head", "body of a reading", "body of a failure"])
def test_awaiting_a_server_that_says_nothing_more_ends_at_the_deadline(backend, library, part):
    class Silent(library.AsyncBaseTransport):
        async def handle_async_request(self, request):
            if part == "head":
                await anyio.sleep_forever()
            return library.Response(200 if part == "body of a reading" else 503, stream=Endless())

    class Endless(library.AsyncByteStream):
        async def __aiter__(self):
            yield b"It is "
            await anyio.sleep_forever()

    async def main():
        clock = EventLoopClock(float(NOW))
        client = AsyncDataEventsClient(
            "token", transport=Silent(), clock=clock, deadline=40, timeout=library.Timeout(None)
        )
        with pytest.raises(IntercomError) as caught:
            await (summary if part == "body of a reading" else create)(client)
        return caught.value, clock.time() - NOW

    error, seconds = run_in_no_time(main, backend)

    assert 40 <= seconds <= 40.1
    assert error.may_have_been_processed is (part != "body of a reading")
    if part == "body of a failure":
        assert type(error) is ServerError
        assert error.response.content == b"It is "
    else:
        assert type(error) is APITimeoutError


@every_library
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_awaiting_the_body_of_an_accepted_event_ends_at_the_deadline_in_success(backend, library):
    asked = []

    class Silent(library.AsyncBaseTransport):
        async def handle_async_request(self, request):
            asked.append(request)
            return library.Response(202, stream=Endless())

    class Endless(library.AsyncByteStream):
        async def __aiter__(self):
            yield b"It is "
            await anyio.sleep_forever()

    async def main():
        clock = EventLoopClock(float(NOW))
        client = AsyncDataEventsClient(
            "token", transport=Silent(), clock=clock, deadline=40, timeout=library.Timeout(None)
        )
        assert await create(client) is None
        return clock.time() - NOW

    assert run_in_no_time(main, backend) <= 40.1
    assert len(asked) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_wait_leaves_nothing_stuck(backend):
    async def main():
        clock = EventLoopClock(NOW + 3.3)
        emulator = Emulator(clock=clock, rate_limit=5)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        begin = clock.time()
        for number in range(5):
            await client.create("a", user_id=str(number))
        # The first and others in the queue give up, in whatever order.
        async with anyio.create_task_group() as group:
            for number in range(5, 15):
                seconds = [0.5, 100, 0.2][number % 3]

                async def send(number=number, seconds=seconds):
                    with anyio.move_on_after(seconds):
                        await client.create("a", user_id=str(number))

                group.start_soon(send)
        return [int(event.user_id) for event in emulator.events], clock.time() - begin

    stored, seconds = run_in_no_time(main, backend)

    assert sorted(stored) == [*range(5), 7, 10, 13]
    assert seconds < 10


# Bodies.


class Flood(
    httpx.SyncByteStream, httpx.AsyncByteStream, httpx2.SyncByteStream, httpx2.AsyncByteStream
):
    """A body without end."""

    sent = 0

    def __iter__(self):
        while True:
            self.sent += 1
            yield b" " * 2**20

    async def __aiter__(self):
        for part in self:
            yield part


@every_library
@leaves_to_the_collector
@pytest.mark.parametrize(
    ("status", "kind", "mebibytes"), [(200, InvalidResponseError, 65), (404, NotFoundError, 2)]
)
def test_a_body_without_end_is_not_read_to_it(calling, library, status, kind, mebibytes):
    flood = Flood()
    call = calling(library.MockTransport(lambda _: library.Response(status, stream=flood)))

    error = raised(call, lambda client: client.summary(user_id="1"))

    assert type(error) is kind
    assert flood.sent == mebibytes
    assert error.tries == 1


@every_library
@pytest.mark.parametrize("status", [404, 503])
def test_a_failure_whose_body_is_cut_short_is_still_that_failure(call, library, status):
    fault = Fault(name="cut", status=status, body=b'{"errors": [', connection="cut")
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(fault))

    error = raised(call, http_client=call.http_client(transport=emulator.transport()))

    assert type(error) is {404: NotFoundError, 503: ServerError}[status]
    assert error.response.content == b'{"erro'
    assert error.tries == {404: 1, 503: 5}[status]


@every_library
@leaves_to_the_collector
@pytest.mark.parametrize(
    ("status", "kind"), [(200, InvalidResponseError), (404, NotFoundError), (503, ServerError)]
)
def test_of_a_body_that_cannot_be_decompressed_the_status_still_counts(
    calling, library, status, kind
):
    def answer(request):
        return library.Response(
            status, headers={"Content-Encoding": "gzip"}, stream=library.ByteStream(b"not gzip")
        )

    error = raised(calling(library.MockTransport(answer)))

    assert type(error) is kind
    assert error.response.status_code == status
    assert error.may_have_been_processed is (status != 404)


# The token.


def test_each_attempt_asks_for_the_token_anew(backend, answering):
    call, transport = answering(httpx.Response(503), httpx.Response(503), ACCEPTED)
    tokens = (f"token-{number}" for number in itertools.count())

    def token():
        return next(tokens)

    async def token_to_await():
        return next(tokens)

    call(create, access_token=token)
    call(create, access_token=token if backend == "blocking" else token_to_await)

    assert [request.headers["authorization"] for request in transport.requests] == [
        f"Bearer token-{number}" for number in range(4)
    ]


def test_a_token_function_that_fails_is_not_intercoms_fault_and_sends_nothing(answering, backend):
    def token():
        raise httpx.ReadTimeout("vault slow")

    async def token_to_await():
        raise httpx.ReadTimeout("vault slow")

    call, transport = answering(ACCEPTED)
    for function in [token] if backend == "blocking" else [token, token_to_await]:
        with pytest.raises(ConfigurationError, match="vault slow") as caught:
            call(create, access_token=function)
        assert not caught.value.may_have_been_processed

    def failing():
        raise KeyError("an error of its own")

    with pytest.raises(KeyError, match="an error of its own"):
        call(create, access_token=failing)

    assert transport.requests == []
    assert call.clock.waits == []


# Opening and closing.


def close(client):
    return client.close() if hasattr(client, "close") else client.aclose()


def test_a_closed_client_sends_no_more_and_neither_do_its_views(call, emulator):
    def never_used(client):
        yield close(client)
        with pytest.raises(RuntimeError, match="closed"):
            yield create(client)

    def used(client):
        view = client.with_options(timeout=5)
        yield close(view)
        yield create(view)
        yield create(client)
        yield close(client)
        for closed in (client, view):
            with pytest.raises(RuntimeError, match="closed"):
                yield create(closed)
        # Twice does no harm; and the block around this closes it again.
        yield close(client)

    call.steps(never_used)
    assert emulator.requests == ()
    call.steps(used)
    assert len(emulator.requests) == 2


def test_leaving_the_block_of_a_view_leaves_the_client_open(call, emulator):
    def use(client):
        with client.with_options(timeout=5) as view:
            create(view)
        return create(client)

    async def async_use(client):
        async with client.with_options(timeout=5) as view:
            await create(view)
        await create(client)

    call(use if call.backend == "blocking" else async_use)

    assert len(emulator.requests) == 2


@every_library
def test_a_disabled_client_checks_and_logs_and_sends_nothing(answering, library, logged):
    call, transport = answering(ACCEPTED)

    def use(client):
        assert (yield create(client)) is None
        assert (yield client.list(user_id="1")) == []
        assert (yield client.summary(user_id="1")).events == ()
        yield create_summary(client)
        with pytest.raises(ValueError, match="event_name"):
            yield client.create("", user_id="1")

    call.steps(use, access_token=None, enabled=False)

    assert transport.requests == []
    assert logged() == [
        ("INFO", "POST /events not sent: the client is disabled"),
        ("INFO", "GET /events not sent: the client is disabled"),
        ("INFO", "GET /events not sent: the client is disabled"),
        ("INFO", "POST /events/summaries not sent: the client is disabled"),
    ]

    own = call.http_client(transport=transport.of(library))
    call(create, http_client=own, enabled=False)
    assert transport.requests == []


# The caller's own http_client; more of it is in test_libraries.py.


@every_library
def test_an_error_of_a_hook_is_raised_as_it_is_and_says_what_may_have_happened(call, library):
    emulator = Emulator(clock=call.clock)

    def unwilling(subject):
        raise KeyError("unwilling")

    notes = {}
    for kind in ("request", "response"):
        own = call.http_client(
            transport=emulator.transport(), event_hooks={kind: [call.hook(unwilling)]}
        )
        with pytest.raises(KeyError, match="unwilling") as caught:
            call(create, http_client=own)
        notes[kind] = getattr(caught.value, "__notes__", [])

    # A hook of a request runs when the token is on it, so nothing tells how far it came.
    assert notes["response"] == ["POST /events may have been processed."]
    assert call.clock.waits == []
    assert emulator.counts.processed == 1


# Over real sockets.


@pytest.fixture
def sending(calling):
    """A client with connections of its own, as a program has it."""
    return calling(None)


@pytest.fixture
def misbehaving(sending):
    """An emulator whose first three answers go wrong, one way after the other."""
    faults = [Fault.failing(503), Fault.reset(processed=True), Fault.cut_short(), None]
    return Emulator(clock=sending.clock, faults=faults)


def test_an_event_gets_through_whatever_goes_wrong_with_its_first_three_attempts(
    sending, misbehaving
):
    with misbehaving.serve() as url:
        sending(create, base_url=url)

    assert len(misbehaving.events) == 1
    counts = misbehaving.counts
    assert (counts.requests, counts.stored, counts.duplicates) == (4, 1, 2)
    assert len(sending.clock.waits) == 3


def test_a_server_that_cannot_be_reached_is_tried_again_and_has_processed_nothing(sending):
    with Refusing() as url:
        error = raised(sending, base_url=url)

    assert type(error) is APIConnectionError
    assert isinstance(error.__cause__, httpx.ConnectError)
    assert (error.tries, error.may_have_been_processed) == (5, False)
    assert len(sending.clock.waits) == 4
    assert "tried 5 times" in str(error)


def test_a_server_that_speaks_another_protocol_is_tried_again_and_gets_no_event(
    sending, emulator, server_context
):
    with emulator.serve() as plain:
        error = raised(sending, base_url=plain.replace("http:", "https:"))
    assert (error.tries, error.may_have_been_processed) == (5, False)

    with emulator.serve(tls=server_context) as secure:
        error = raised(sending, base_url=secure.replace("https:", "http:"))
    assert error.tries == 5

    assert emulator.requests == ()


def test_an_answer_that_takes_longer_than_an_attempt_may_is_not_waited_for(sending):
    emulator = Emulator(clock=NeverClock(), faults=[Fault.slow(3600), None])
    with emulator.serve() as url:
        sending(create, base_url=url, timeout=0.2)

    # The server did its work in both, and took the second for the first; on a busy machine, it may
    # take too long for more of them.
    assert emulator.counts.stored == 1
    assert emulator.counts.duplicates >= 1
    assert len(sending.clock.waits) >= 1


@every_library
def test_hooks_of_the_callers_own_client_see_each_attempt_and_each_answer(
    sending, library, misbehaving
):
    sent, answered = [], []
    made = {
        "headers": {"X-App": "shop"},
        "event_hooks": {
            "request": [sending.hook(sent.append)],
            "response": [sending.hook(lambda response: answered.append(response.status_code))],
        },
    }
    with misbehaving.serve() as url:
        with_own(sending, create, made, base_url=url)

    *attempts, _ = sent
    assert [request.headers["authorization"] for request in attempts] == ["Bearer token"] * 4
    # The next two attempts end without an answer.
    assert answered == [503, 202, 401]
    *requests, _ = misbehaving.requests
    assert [request.headers["x-app"] for request in requests] == ["shop"] * 4
    # Each attempt sends the same event.
    assert len({request.body for request in requests}) == 1
    assert len(misbehaving.events) == 1


def test_the_proxy_of_the_environment_is_used_for_each_attempt(sending, misbehaving, monkeypatch):
    with misbehaving.serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        sending(create, base_url="http://api.example", allow_http=True)

    assert [request.headers["host"] for request in misbehaving.requests] == ["api.example"] * 4
    assert len(misbehaving.events) == 1


def test_a_proxy_that_leads_no_further_has_handed_nothing_on(sending, emulator, monkeypatch):
    with emulator.serve() as url:
        # For https it is asked for a tunnel, which the emulator does not dig.
        monkeypatch.setenv("HTTPS_PROXY", url)
        error = raised(sending, base_url="https://api.example")

    assert isinstance(error.__cause__, httpx.ProxyError)
    assert not error.may_have_been_processed
    assert emulator.requests == ()


@every_library
def test_the_authority_of_the_environment_or_of_the_callers_own_client_is_trusted(
    sending, library, misbehaving, authority, server_context, monkeypatch, tmp_path
):
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with misbehaving.serve(tls=server_context) as url:
        assert url.startswith("https://")
        with_own(sending, create, {"verify": trusting}, base_url=url)
        # Four attempts, and the one that checks what stays open.
        assert misbehaving.counts.requests == 5

        authority.cert_pem.write_to_path(tmp_path / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        sending(lambda client: client.create("another", user_id="1"), base_url=url)

    assert len(misbehaving.events) == 2


def test_a_certificate_that_cannot_be_verified_is_an_error_at_once_that_says_why(
    sending, emulator, server_context
):
    with emulator.serve(tls=server_context) as url:
        error = raised(sending, base_url=url)

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, False)
    # Under trio, httpx's own error says nothing; what led to it does.
    assert "certificate verify failed" in str(error)
    assert sending.clock.waits == []
    assert emulator.requests == ()


def test_under_tracing_each_attempt_is_a_span_without_the_token(sending, misbehaving):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        with misbehaving.serve() as url:
            sending(create, base_url=url, access_token=TOKEN)
    finally:
        instrumentor.uninstrument()

    spans = exporter.get_finished_spans()
    attributes = [span.attributes for span in spans]
    assert [
        given.get("http.status_code", given.get("http.response.status_code"))
        for given in attributes
    ] == [503, None, None, 202]
    assert [span.status.is_ok for span in spans] == [False, False, False, True]
    assert not [span for span in spans if TOKEN in span.to_json() + repr(span.events)]


# What is logged.


def test_failed_attempts_and_what_is_made_of_them_are_logged_in_their_order(call, calling, logged):
    faults = [Fault.failing(503), Fault.reset(), Fault.slow(60), None]
    emulator = Emulator(clock=call.clock, faults=faults)

    calling(emulator.transport())(create, clock=call.clock)

    records = logged()
    assert [level for level, _ in records] == ["DEBUG", "INFO"] * 3 + ["DEBUG"]
    attempts = [message for level, message in records if level == "DEBUG"]
    assert attempts[0].startswith("POST /events 503 in ")
    assert attempts[1:3] == ["POST /events ReadError", "POST /events ReadTimeout"]
    assert attempts[3].startswith("POST /events 202 in ")
    # The emulator's slow answer was waited for as well.
    waits = [wait for wait in call.clock.waits if wait < 30]
    assert [message for level, message in records if level == "INFO"] == [
        f"POST /events: 503, retrying in {waits[0]:.2f} s (1 of 4)",
        f"POST /events: ReadError, retrying in {waits[1]:.2f} s (2 of 4)",
        f"POST /events: ReadTimeout, retrying in {waits[2]:.2f} s (3 of 4)",
    ]


def test_answers_for_another_version_are_one_warning_of_the_client(calling, call, logged):
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(Fault.other_version("1.0")))

    def use(client):
        for one in (client, client, client.with_options(timeout=5)):
            yield create(one)

    calling(emulator.transport()).steps(use, clock=call.clock)

    records = logged()
    assert [message for level, message in records if level == "WARNING"] == [
        f"Intercom answered with API version 1.0, but the request asked for {API_VERSION}"
    ]
    assert [level for level, _ in records].count("DEBUG") == 3


# What is never shown.


@leaves_to_the_collector
def test_no_fault_gives_a_secret_away_through_any_driver(calling, caplog):
    """Each fault hits every attempt; where a fault is not an error, the contact is unknown."""
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    for fault in FAULTS:
        clock = ManualClock()
        emulator = Emulator(clock=clock, contacts=[], faults=itertools.repeat(fault))
        shown = []

        def use(client, shown=shown):
            shown.append(repr(client))
            return client.create("placed-order", email=EMAIL, created_at=1_671_028_890)

        error = raised(
            calling(emulator.transport()), use, access_token=TOKEN, clock=clock, timeout=0.1
        )

        records = package_records(caplog)
        assert error.tries == len(emulator.requests), fault.name
        assert all(TOKEN in request.headers["authorization"] for request in emulator.requests)
        attempts = [record for record in records if record.levelname == "DEBUG"]
        assert len(attempts) == error.tries, fault.name
        assert logged_secrets(records) == [], fault.name
        assert shown_token(error) == [], fault.name
        assert TOKEN not in shown[0]


def echoing(reply):
    """A server that answers with what it makes of the bytes of the `Authorization` header."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                found = re.search(rb"(?i)authorization: (.*)\r\n", received)
                connection.sendall(reply(found.group(1)))

    threading.Thread(target=serve, daemon=True).start()
    return listening


def test_no_server_that_repeats_the_token_where_it_is_not_http_gets_it_shown(caplog, sending):
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    head = b"HTTP/1.1 401 No\r\n"
    replies = {
        "bare": lambda secret: secret,
        "status": lambda secret: b"HTTP/1.1 4 " + secret + b"\r\n\r\n",
        "reason": lambda secret: b"HTTP/1.1 401 " + secret + b"\r\nContent-Length: 0\r\n\r\n",
        "bad header": lambda secret: head + b"Authorization : " + secret + b"\r\n\r\n",
        "length": lambda secret: head + b"Content-Length: " + secret + b"\r\n\r\n",
        "chunk": lambda secret: (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + secret.split()[-1]
            + b"\r\n\r\n"
        ),
        "location": lambda secret: (
            b"HTTP/1.1 307 No\r\nContent-Length: 0\r\nLocation: http://a.example:"
            + secret.split()[-1]
            + b"/\r\n\r\n"
        ),
    }
    for name, reply in replies.items():
        with echoing(reply) as server:
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            # An event would be accepted by the status alone.
            use = summary if name == "chunk" else create
            error = raised(sending, use, access_token=TOKEN, base_url=url, max_retries=1)

        assert logged_secrets(package_records(caplog)) == [], name
        assert shown_token(error) == [], name


def test_an_error_holds_no_token_and_no_headers_and_can_be_pickled_and_copied(answering):
    answers = {
        "a refusal": httpx.Response(401, json={"errors": [{"code": "a", "message": "No"}]}),
        "a failure": httpx.Response(500),
        "no JSON": httpx.Response(200, content=b"<html>"),
        "a redirect": httpx.Response(302, headers={"Location": "https://evil.example"}),
        "no answer": httpx.ReadTimeout("slow"),
        "no connection": httpx.ConnectError("refused"),
    }
    for name, answer in answers.items():
        call, _ = answering(answer)
        for use in (create, lambda client: client.list(email="a@b.co")):
            error = raised(call, use, access_token=TOKEN)

            assert shown_token(error) == [], name
            assert not [thing for thing in reachable(error) if TOKEN in repr(thing)], name
            for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
                assert (type(twin), str(twin), twin.tries, twin.may_have_been_processed) == (
                    type(error), str(error), error.tries, error.may_have_been_processed,
                ), name  # fmt: skip
