"""Intercom's own SDK sends events that our client reads, and reads events that our client sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import attrs
import httpx

from intercom_data_events import DataEventsClient, IntercomError, MonetaryAmount, RichLink
from intercom_data_events.emulator import EmulatedContact, Emulator

from .reporting import Report

_TOKEN = "token"  # noqa: S105  # any will do
_CONTACTS = (
    EmulatedContact(user_id="314159", email="frodo.baggins@example.com", id="63a0979a5eeebeaf28dd"),
    EmulatedContact(id="63a0979a5eeebeaf28dd56ba"),
)
#: The parameters that name a contact: in the SDK, and in a listing.
_WHOSE = (
    ("user_id", "314159", "user_id"),
    ("email", "frodo.baggins@example.com", "email"),
    ("id", "63a0979a5eeebeaf28dd56ba", "intercom_user_id"),
)
#: What the SDK cannot do.
_NOT_COMPARED = (
    "not compared: pages and types of listed events, because the SDK reads a list as a summary",
    "not compared: numbers, links and amounts in metadata, because the SDK's models reject them",
    "not compared: the version, because the SDK sends no Intercom-Version",
    "not compared: lists of the SDK's unstable client, because it sends unknown parameters",
)


@attrs.define
class _Comparison:
    """Compares, and counts."""

    violations: list[str] = attrs.field(factory=list[str])
    compared: int = 0

    def same(self, what: str, found: Any, expected: Any) -> None:
        """Records a violation if a value is not the expected one."""
        self.compared += 1
        if found != expected:
            self.violations.append(f"{what}: must be {expected!r}, not {found!r}")


@contextmanager
def _noting(comparison: _Comparison, kind: str) -> Iterator[None]:
    """Reports an unexpected error as a violation; later answers are not compared."""
    from intercom.core.api_error import ApiError

    try:
        yield
    except (IntercomError, ApiError) as error:
        comparison.violations.append(f"{kind}: {type(error).__name__}: {error}")


def run() -> Report:
    """Sends and reads in both directions."""
    report = Report(f"python-intercom {version('python-intercom')}")
    theirs, ours, failures = _Comparison(), _Comparison(), _Comparison()
    begin = int(time.time()) - 10_000
    for kind, call in {"Intercom": _call_blocking, "AsyncIntercom": _call_awaited}.items():
        emulator = Emulator(contacts=_CONTACTS, rate_limit=None)
        with emulator.serve() as url, DataEventsClient(_TOKEN, base_url=url) as client:
            official = _Official(kind, url, call)
            with _noting(theirs, kind):
                _sent_by_theirs(official, client, emulator, begin, theirs)
            with _noting(ours, kind):
                _sent_by_ours(official, client, begin + 5_000, ours)
            with _noting(failures, kind):
                _failing(official, failures)
    report.compared = [
        f"sent by the SDK (sync and async), read by our client: {theirs.compared} values",
        f"sent by our client, read by the SDK: {ours.compared} values",
        f"error responses, read by the SDK: {failures.compared} values",
        *_NOT_COMPARED,
    ]
    report.violations = [
        *(f"sent by the SDK: {one}" for one in theirs.violations),
        *(f"sent by our client: {one}" for one in ours.violations),
        *(f"failing: {one}" for one in failures.violations),
    ]
    return report


@attrs.frozen
class _Official:
    """The SDK's sync or async client, with the same calls."""

    kind: str
    url: str
    call: Callable[..., Any]

    def __call__(self, verb: str, *, token: str = _TOKEN, **arguments: Any) -> Any:
        return self.call(self.url, token, verb, arguments)


def _call_blocking(url: str, token: str, verb: str, arguments: dict[str, Any]) -> Any:
    from intercom import Intercom

    with httpx.Client(trust_env=False) as connections:
        client = Intercom(token=token, base_url=url, httpx_client=connections)
        return getattr(client.events, verb)(**arguments)


def _call_awaited(url: str, token: str, verb: str, arguments: dict[str, Any]) -> Any:
    from intercom import AsyncIntercom

    async def call() -> Any:
        async with httpx.AsyncClient(trust_env=False) as connections:
            client = AsyncIntercom(token=token, base_url=url, httpx_client=connections)
            return await getattr(client.events, verb)(**arguments)

    return asyncio.run(call())


def _sent_by_theirs(
    official: _Official,
    client: DataEventsClient,
    emulator: Emulator,
    begin: int,
    comparison: _Comparison,
) -> None:
    from intercom.events.types import CreateDataEventSummariesRequestEventSummaries
    from intercom.types.create_data_event_request_with_email import CreateDataEventRequestWithEmail
    from intercom.types.create_data_event_request_with_id import CreateDataEventRequestWithId
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    kinds: dict[str, Callable[..., Any]] = {
        "user_id": CreateDataEventRequestWithUserId,
        "email": CreateDataEventRequestWithEmail,
        "id": CreateDataEventRequestWithId,
    }
    metadata = {"invite_code": "ADDAFRIEND", "source": "Überweisung"}
    for number, (field, value, asked) in enumerate(_WHOSE):
        moment, name = begin + number, f"invited-by-{field}"
        request = kinds[field](
            **{field: value}, event_name=name, created_at=moment, metadata=metadata
        )
        for _ in range(2):  # The second is a duplicate.
            official("create", request=request)
        found = [one for one in client.list(**{asked: value}) if one.event_name == name]
        what = f"{official.kind}, {field}"
        comparison.same(f"{what}: how many", len(found), 1)
        for one in found:
            comparison.same(f"{what}: when", one.created_at, datetime.fromtimestamp(moment, UTC))
            comparison.same(f"{what}: metadata", dict(one.metadata), metadata)
            whose = {"user_id": one.user_id, "email": one.email, "id": one.intercom_user_id}
            comparison.same(f"{what}: whose", whose[field], value)
    tally = CreateDataEventSummariesRequestEventSummaries(
        event_name="logged-in", count=7, first=begin, last=begin + 60
    )
    official("summaries", user_id="314159", event_summaries=tally)
    items = {item.name: item for item in client.summary(user_id="314159").events}
    comparison.same(
        f"{official.kind}, names in the summary",
        set(items),
        {"invited-by-user_id", "invited-by-email", "logged-in"},
    )
    if "logged-in" in items:
        item = items["logged-in"]
        comparison.same(f"{official.kind}, count", item.count, 7)
        times = [datetime.fromtimestamp(one, UTC) for one in (begin, begin + 60)]
        comparison.same(f"{official.kind}, times", [item.first, item.last], times)
    counts = emulator.counts
    comparison.same(
        f"{official.kind}, stored and duplicates", (counts.stored, counts.duplicates), (3, 3)
    )


def _sent_by_ours(
    official: _Official, client: DataEventsClient, begin: int, comparison: _Comparison
) -> None:
    metadata = {
        "source": "desktop",
        "load": 3.67,
        "order_date": datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC),
        "order_number": RichLink(value="3434", url="https://example.org/orders/3434"),
        "price": MonetaryAmount(currency="usd", amount=2999),
    }
    written = {
        "source": "desktop",
        "load": 3.67,
        "order_date": 1392036272,
        "order_number": {"value": "3434", "url": "https://example.org/orders/3434"},
        "price": {"currency": "usd", "amount": 2999},
    }
    for field, value, asked in _WHOSE:
        name = f"ordered-by-{field}"
        for number in range(3):
            client.create(name, **{field: value}, created_at=begin + number, metadata=metadata)
        what = f"{official.kind}, {field}"
        listed = official("list", type="user", **{asked: value}, per_page=50)
        found = [one for one in listed.events if getattr(one, "event_name", None) == name]
        comparison.same(
            f"{what}: when",
            [getattr(one, "created_at", None) for one in found],
            [begin + 2, begin + 1, begin],
        )
        for one in found:
            comparison.same(f"{what}: metadata", getattr(one, "metadata", None), written)
        summary = official("list", type="user", **{asked: value}, summary=True)
        items = {item.name: item for item in summary.events}
        comparison.same(f"{what}: type", summary.type, "event.summary")
        if name not in items:
            comparison.violations.append(f"{what}: missing from the summary")
            continue
        comparison.same(f"{what}: count", items[name].count, 3)
        times = [datetime.fromisoformat(one) for one in (items[name].first, items[name].last)]
        expected = [datetime.fromtimestamp(one, UTC) for one in (begin, begin + 2)]
        comparison.same(f"{what}: times", times, expected)
    client.create_summary(
        user_id="314159", event_name="paid", count=5, first=begin, last=begin + 60
    )
    items = {
        item.name: item.count
        for item in official("list", type="user", user_id="314159", summary=True).events
    }
    comparison.same(f"{official.kind}, count of an imported summary", items.get("paid"), 5)


def _failing(official: _Official, comparison: _Comparison) -> None:
    from intercom.core.api_error import ApiError

    for what, status, code, arguments in (
        ("nobody", 404, "not_found", {"type": "user", "user_id": "nobody"}),
        ("no type", 400, "parameter_invalid", {"type": "contact", "user_id": "314159"}),
    ):
        try:
            official("list", **arguments)
        except ApiError as error:
            comparison.same(f"{official.kind}, {what}", error.status_code, status)
            comparison.same(f"{official.kind}, {what}: code", _code(error.body), code)
        else:
            comparison.violations.append(f"{official.kind}, {what}: must fail, but succeeded")


def _code(body: Any) -> Any:
    """Returns the code of the first error, or the whole body if it has none."""
    try:
        return body["errors"][0]["code"]
    except (KeyError, IndexError, TypeError):
        return body
