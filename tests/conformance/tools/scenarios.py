"""Scenarios for both clients: the documentation's requests, listings, and every failure."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import attrs
import httpx

from intercom_data_events import (
    APIStatusError,
    AsyncDataEventsClient,
    DataEventsClient,
    Event,
    IntercomError,
    MonetaryAmount,
    RichLink,
)

from .fixture import BROKEN, FORBIDDEN, FULL, GOOD, LIMITED, WRONG

#: The kinds of clients: the sync one, and the async one on each event loop.
KINDS = ("blocking", "asyncio", "trio")

#: Is called with each answer before the client reads it.
Watch = Callable[[httpx.Response], None]

_ORDER = {
    "order_date": datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC),
    "load": 3.67,
    "stripe_invoice": "inv_3434343434",
    "order_number": RichLink(value="3434-3434", url="https://example.org/orders/3434-3434"),
    "price": MonetaryAmount(currency="usd", amount=2999),
}
_INVITATION = {
    "event_name": "invited-friend",
    "created_at": 1671028894,
    "user_id": "314159",
    "id": "8a88a590-e1c3-41e2-a502-e0649dbf721c",
    "email": "frodo.baggins@example.com",
    "metadata": {"invite_code": "ADDAFRIEND"},
}
_SUMMARY = {
    "user_id": "314159",
    "event_name": "invited-friend",
    "count": 3,
    "first": 1671028894,
    "last": 1671028894,
}
_NOBODY = {"user_id": "nobody"}
_SHARED = {"email": "shared@example.org"}
_ACTIVE_NAMES = 120

UNNUMBERED = (
    "the description lists only numbered versions, up to its own; the documentation says that "
    "the API also accepts this one"
)


@attrs.frozen(kw_only=True)
class Scenario:
    """One use of a client, and its expected result.

    Attributes:
        name: What it is.
        use: Uses the client. Its result is awaited, or iterated to the end, as the client requires.
        gives: Returns whether the result is as expected.
        fails: The status of the expected error instead.
        token: The beginning of the access token.
        options: The options of the client.
        beyond: Why the description does not allow the request; None if it does.
    """

    name: str
    use: Callable[[Any], Any]
    gives: Callable[[Any], bool] = lambda found: found is None
    fails: int | None = None
    token: str = GOOD
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    beyond: str | None = None


@attrs.frozen
class Outcome:
    """The result of a scenario; `wrong` says how it differs from what was expected."""

    scenario: Scenario
    name: str
    error: IntercomError | None
    wrong: str | None


def _each(client: Any, verb: str, **arguments: Any) -> Any:
    return getattr(client.with_raw_response, verb)(**arguments)


def _scenarios() -> Iterator[Scenario]:
    yield from _creating()
    yield from _reading()
    yield from _failing()


def _creating() -> Iterator[Scenario]:
    for name, arguments in {
        "an order": {"user_id": "314159", "created_at": 1389913941},
        "the Ruby payload": {"email": "customer@example.org", "created_at": 1391691571},
        "the PHP payload": {"user_id": "20413", "created_at": 1500907515},
        "the Java payload": {"user_id": "314159", "created_at": "2014-01-16T23:12:21Z"},
        "a lead's": {"id": "63a0979a5eeebeaf28dd56ba", "created_at": 1389913941},
        "before 1970": {"user_id": "314159", "created_at": datetime(1912, 6, 23, tzinfo=UTC)},
        "stamped with the current time": {"user_id": "314159"},
    }.items():
        yield Scenario(
            name=f"create: {name}",
            use=lambda client, arguments=arguments: client.create(
                "placed-order", metadata=_ORDER, **arguments
            ),
        )
    for version, beyond in {"2.14": None, "Preview": UNNUMBERED, "Unstable": UNNUMBERED}.items():
        yield Scenario(
            name=f"create: an invitation, with version {version}",
            use=lambda client: client.send(Event.from_dict(_INVITATION)),
            options={"version": version},
            beyond=beyond,
        )
    for verb, status, arguments in (
        ("create", 202, {"event_name": "invited-friend", "user_id": "314159"}),
        ("create_summary", 200, _SUMMARY),
        ("list", 200, {"user_id": "314159"}),
        ("summary", 200, {"user_id": "314159"}),
    ):
        yield Scenario(
            name=f"with_raw_response.{verb}",
            use=lambda client, verb=verb, arguments=arguments: _each(client, verb, **arguments),
            gives=lambda answer, status=status: answer.status_code == status,
        )


def _reading() -> Iterator[Scenario]:
    begin = int(time.time()) - 10_000
    events = [
        Event("read-book", user_id="20413", created_at=begin + number, metadata={"number": number})
        for number in range(40)
    ]
    yield Scenario(
        name="create_many: 40 events",
        use=lambda client: client.create_many(events),
        gives=lambda outcomes: len(outcomes) == 40 and all(not one.error for one in outcomes),
    )
    for identity in ({"user_id": "20413"}, {"email": "customer@example.org"}):
        for size, sizes in (
            ({}, [15, 15, 10]),
            ({"per_page": 7}, [7, 7, 7, 7, 7, 5]),
            ({"per_page": 500}, [40]),
        ):
            arguments = {**identity, **size}
            yield Scenario(
                name=f"list: pages, with {' '.join(map(str, arguments.values()))}",
                use=lambda client, arguments=arguments: client.list(**arguments).pages(),
                gives=lambda pages, sizes=sizes: (
                    [len(page.events) for page in pages] == sizes
                    and [one.metadata["number"] for page in pages for one in page.events]
                    == list(reversed(range(40)))
                ),
            )
    yield Scenario(
        name="list: a lead without events",
        use=lambda client: client.list(intercom_user_id="63a0979a5eeebeaf28dd56ba"),
        gives=lambda found: found == [],
    )
    yield Scenario(
        name="list: events newer than a page",
        use=lambda client: client.list(since="/events?type=user&user_id=20413&since=40"),
        gives=lambda found: [one.metadata.get("number") for one in found] == [39, 38],
    )
    yield Scenario(
        name="create_summary",
        use=lambda client: client.create_summary(**_SUMMARY),
    )
    for identity in (
        {"user_id": "314159"},
        {"email": "frodo.baggins@example.com"},
        {"intercom_user_id": "63a0979a5eeebeaf28dd"},
    ):
        yield Scenario(
            name=f"summary: by {', '.join(identity)}",
            use=lambda client, identity=identity: client.summary(**identity),
            # One documented example, one stamped event, and two summaries of three.
            gives=lambda summary: (
                {item.name: item.count for item in summary}
                == {"placed-order": 3, "invited-friend": 8}
            ),
        )


def _failing() -> Iterator[Scenario]:
    verbs: dict[str, Callable[..., Any]] = {
        "create": lambda client, **who: client.create("invited-friend", **who),
        "list": lambda client, **who: client.list(**who),
        "summary": lambda client, **who: client.summary(**who),
        "create_summary": lambda client, **who: client.create_summary(**{**_SUMMARY, **who}),
    }
    for verb, use in verbs.items():
        yield _failure(f"{verb}: an unknown contact", use, 404, **_NOBODY)
        for token, status in {WRONG: 401, FORBIDDEN: 403, BROKEN: 500}.items():
            yield _failure(f"{verb}: with a {token} token", use, status, token, user_id="314159")
        if verb != "create_summary":
            yield _failure(f"{verb}: an email of two contacts", use, 409, **_SHARED)
        yield Scenario(
            name=f"{verb}: the only request that a window allows",
            use=lambda client, use=use: use(client, user_id="314159"),
            gives=lambda _: True,
            token=f"{LIMITED}-{verb}",
        )
        yield _failure(
            f"{verb}: beyond the rate limit", use, 429, f"{LIMITED}-{verb}", user_id="314159"
        )
    for verb in ("create", "create_summary"):
        yield _failure(
            f"{verb}: an unknown version", verbs[verb], 400,
            options={"version": "9.9"}, beyond="this version does not exist", user_id="314159",
        )  # fmt: skip
    yield _failure(
        "list: an invalid cursor in since",
        lambda client: client.list(since="/events?type=user&user_id=314159&since=999999"),
        400,
    )
    names = [Event(f"name-{number}", user_id="314159") for number in range(_ACTIVE_NAMES)]
    yield Scenario(
        name=f"create_many: {_ACTIVE_NAMES} names",
        use=lambda client: client.create_many(names),
        gives=lambda outcomes: all(not one.error for one in outcomes),
        token=FULL,
    )
    for verb in ("create", "create_summary"):
        yield _failure(f"{verb}: one name too many", verbs[verb], 422, FULL, user_id="314159")


def _failure(
    name: str,
    use: Callable[..., Any],
    status: int,
    token: str = GOOD,
    options: Mapping[str, Any] | None = None,
    beyond: str | None = None,
    **who: str,
) -> Scenario:
    return Scenario(
        name=name, use=lambda client: use(client, **who), fails=status, token=token,
        options=options or {}, beyond=beyond,
    )  # fmt: skip


#: All scenarios. The order matters: later ones read what earlier ones create.
SCENARIOS: Sequence[Scenario] = tuple(_scenarios())


def perform(
    url: str, kind: str, before: Callable[[str], None], watch: Watch | None = None
) -> Iterator[Outcome]:
    """Runs all scenarios with one kind of client.

    Args:
        url: The base URL.
        kind: One of `KINDS`; each has a workspace of its own.
        before: Is called with the name of each scenario before it runs.
        watch: Is called with each answer. Without it, the clients choose their connections.
    """
    for scenario in SCENARIOS:
        name = f"{kind}: {scenario.name}"
        before(name)
        options = {
            # The wrong token is matched as a whole.
            "access_token": WRONG if scenario.token == WRONG else f"{scenario.token}-{kind}",
            "base_url": url,
            # A retry would hide a failure.
            "max_retries": 0,
            "pace": False,
            **scenario.options,
        }
        found, error = None, None
        try:
            if kind == "blocking":
                found = _use_blocking(scenario.use, options, watch)
            else:
                found = anyio.run(_use_awaited, scenario.use, options, watch, backend=kind)
        except IntercomError as raised:
            error = raised
        yield Outcome(scenario, name, error, _judge(scenario, found, error))


def _use_blocking(use: Callable[[Any], Any], options: dict[str, Any], watch: Watch | None) -> Any:
    if watch is None:
        with DataEventsClient(**options) as client:
            return _to_the_end(use(client))

    def told(response: httpx.Response) -> None:
        response.read()
        watch(response)

    with (
        httpx.Client(event_hooks={"response": [told]}, trust_env=False) as http_client,
        DataEventsClient(http_client=http_client, **options) as client,
    ):
        return _to_the_end(use(client))


async def _use_awaited(
    use: Callable[[Any], Any], options: dict[str, Any], watch: Watch | None
) -> Any:
    if watch is None:
        async with AsyncDataEventsClient(**options) as client:
            return await _awaited_to_the_end(use(client))

    async def told(response: httpx.Response) -> None:
        await response.aread()
        watch(response)

    async with (
        httpx.AsyncClient(event_hooks={"response": [told]}, trust_env=False) as http_client,
        AsyncDataEventsClient(http_client=http_client, **options) as client,
    ):
        return await _awaited_to_the_end(use(client))


def _to_the_end(found: Any) -> Any:
    return list(found) if hasattr(found, "__iter__") else found


async def _awaited_to_the_end(found: Any) -> Any:
    if hasattr(found, "__aiter__"):
        return [item async for item in found]
    return await found if inspect.isawaitable(found) else found


def _judge(scenario: Scenario, found: Any, error: IntercomError | None) -> str | None:
    if scenario.fails is not None:
        status = error.status_code if isinstance(error, APIStatusError) else None
        if status != scenario.fails:
            return f"it must fail with {scenario.fails}, but {_said(found, error)}"
    elif error is not None or not scenario.gives(found):
        return f"it {_said(found, error)}"
    return None


def _said(found: Any, error: IntercomError | None) -> str:
    if error is None:
        return f"gives {found!r:.300}"
    return f"fails: {type(error).__name__}: {error}"
