"""Questions about the use of Intercom's quota, in simulated time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from itertools import repeat, takewhile
from typing import Any

import httpx
import trio
import trio.testing

from intercom_data_events import AsyncDataEventsClient, Clock
from intercom_data_events.emulator import Emulator, Fault
from measuring.events import HEADERS, TOKEN, different, installed, official
from measuring.figures import HTTPX, OFFICIAL, OURS, Question
from measuring.servers import LATENCY, LIMIT, WINDOW

AT_ONCE = 50
_URL = "https://api.intercom.io"
# In the middle of a window, because most programs begin there.
_BEGIN = 1_671_028_894 + 3.3
_Events = Iterator[dict[str, Any]]
_Client = Callable[[httpx.AsyncClient, Clock, _Events], Coroutine[Any, Any, None]]


def questions(windows: int) -> Iterator[Question]:
    """Yields the questions about the quota.

    Args:
        windows: The number of windows in which events are sent.
    """
    limited: dict[str, float] = {}

    def used(name: str) -> float:
        share, limited[name] = trio.run(
            _used,
            clients[name],
            windows * WINDOW,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
        return share

    clients: dict[str, _Client] = {HTTPX: _by_httpx, OURS: _by_ours}
    if installed(OFFICIAL):
        clients[OFFICIAL] = _by_official
    yield Question(
        f"lowest use of the quota in {windows - 1} windows, {LATENCY * 1000:.0f} ms per answer",
        "%",
        {name: partial(used, name) for name in clients},
        scale=100,
        more_is_better=True,
        most=0,
    )
    yield Question(
        f"requests answered with 429, {AT_ONCE} at once",
        "%",
        {name: partial(limited.__getitem__, name) for name in clients},
        scale=100,
        most=0,
        headline=True,
    )


async def _used(send: _Client, seconds: float) -> tuple[float, float]:
    """Returns the use of the least used whole window, and the share of 429 among the answers."""
    clock = _EventLoopClock()
    emulator = Emulator(
        clock=clock, rate_limit=LIMIT, window=WINDOW, faults=repeat(Fault.slow(LATENCY)),
        record=False,
    )  # fmt: skip
    accepted = Counter[int]()

    async def count(response: httpx.Response) -> None:
        accepted[int(response.headers["X-RateLimit-Reset"])] += (
            response.status_code == httpx.codes.ACCEPTED
        )

    async with httpx.AsyncClient(
        transport=emulator.transport(), event_hooks={"response": [count]}
    ) as http:
        await send(http, clock, takewhile(lambda _: trio.current_time() < seconds, different()))
    counts = emulator.counts
    # The first and the last window are incomplete.
    whole = range(min(accepted) + WINDOW, max(accepted), WINDOW)
    return min(accepted[reset] / LIMIT for reset in whole), counts.limited / counts.requests


async def _by_httpx(http: httpx.AsyncClient, _: Clock, events: _Events) -> None:
    async def send(one: dict[str, Any]) -> None:
        await http.post(f"{_URL}/events", json=one, headers=HEADERS)

    await _at_once(send, events)


async def _by_official(http: httpx.AsyncClient, _: Clock, events: _Events) -> None:
    from intercom import AsyncIntercom
    from intercom.core.api_error import ApiError

    client = AsyncIntercom(token=TOKEN, base_url=_URL, httpx_client=http)

    async def send(one: dict[str, Any]) -> None:
        # The SDK raises the errors that it does not retry.
        with suppress(ApiError):
            await client.events.create(request=official(one))

    await _at_once(send, events)


async def _by_ours(http: httpx.AsyncClient, clock: Clock, events: _Events) -> None:
    client = AsyncDataEventsClient(TOKEN, http_client=http, clock=clock)
    async for outcome in client.create_many(events, concurrency=AT_ONCE):
        if outcome.error is not None:
            raise outcome.error


async def _at_once(
    send: Callable[[dict[str, Any]], Coroutine[Any, Any, None]], events: _Events
) -> None:
    async def take() -> None:
        for one in events:
            await send(one)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(take)


class _EventLoopClock(Clock):
    """The simulated time of an event loop."""

    def __init__(self) -> None:
        self._begin = _BEGIN - trio.current_time()

    def time(self) -> float:
        return self._begin + trio.current_time()

    def monotonic(self) -> float:
        return trio.current_time()
