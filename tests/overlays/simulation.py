"""Trackers in simulated time, a server that answers them as a test decides, and its record.

A tracker of an event loop runs in no time (:func:`simulated`): what happens is the same each time.
A tracker of threads runs with a clock that a test advances until something is so (:func:`stepped`):
such a test says what comes to be, and not exactly when.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, TypeAlias

import anyio
import attrs
import httpx
from callers import NOW
from clocks import EventLoopClock, SteppedClock, _EagerSelector, run_in_no_time

from intercom_data_events import AsyncDataEventsClient, Clock, DataEventsClient, Event
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Real seconds after which whatever has not happened is stuck.
PATIENCE = 20
#: Real seconds for which simulated time stands still while a thread writes to a file.
_A_MOMENT = 0.001

HTML = b"<html><h1>Not here</h1></html>"

#: An answer as its status, its body and its headers.
Answer: TypeAlias = tuple[Any, ...]
#: Decides what an event gets at a time, in seconds since the test began; None is the emulator's.
Decide: TypeAlias = Callable[[dict[str, Any], float], Answer | None]
#: Says how many seconds the answer to an event takes, if it is one of a task.
Latency: TypeAlias = Callable[[dict[str, Any]], float]


def listed(*codes: str) -> bytes:
    """Intercom's own list of errors."""
    errors = [{"code": code, "message": "No"} for code in codes]
    return json.dumps({"type": "error.list", "request_id": "b3ae", "errors": errors}).encode()


NOT_FOUND: Answer = 404, listed("not_found")


@attrs.frozen
class Attempt:
    """One request, and its answer.

    Attributes:
        name: The event's name.
        user: The contact's user_id, or its other identity.
        at: When it arrived, in seconds since the test began.
        begun: Its place among everything that arrived and was answered.
        ended: The place of its answer.
        status: The answer's status.
        event: What was sent.
    """

    name: str
    user: str
    at: float
    begun: int
    ended: int
    status: int
    event: dict[str, Any]


class Server(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """An emulator, and whatever a test has in front of it; keeps a record of all answers."""

    def __init__(
        self,
        clock: Clock,
        emulator: Emulator,
        decide: Decide,
        latency: Latency = lambda event: 0.01,
    ) -> None:
        self._clock = clock
        self._begin = clock.time()
        self._transport = emulator.transport()
        self._decide = decide
        self._latency = latency
        self._steps = itertools.count()
        self._lock = threading.Lock()
        self._at_once: list[float] = []
        #: How many requests were in flight as each arrived, and when.
        self.in_flight: list[tuple[float, int]] = []
        #: Whose events have arrived, whether or not they were answered.
        self.asked: list[str] = []
        self.attempts: list[Attempt] = []

    def now(self) -> float:
        return self._clock.time() - self._begin

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._attempt(request) as (event, answered):
            response = self._prepared(event) or self._transport.handle_request(request)
            answered(response)
        return response

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with self._attempt(request) as (event, answered):
            # Answers take their time, during which others are asked for.
            await anyio.sleep(self._latency(event))
            response = self._prepared(event)
            if response is None:
                response = await self._transport.handle_async_request(request)
            answered(response)
        return response

    def of(self, name_or_user: str) -> list[Attempt]:
        """The attempts for one event, by its name, or for one contact."""
        found = list(self.attempts)
        return [one for one in found if name_or_user in (one.name, one.user)]

    def accepted(self) -> list[str]:
        """Whose events were accepted, in the order of the answers."""
        return [one.user for one in list(self.attempts) if one.status == 202]

    def accepted_between(self, first: Attempt, last: Attempt) -> int:
        """How many events were accepted after an answer, and before another request."""
        return sum(
            one.status == 202 and first.ended < one.ended < last.begun for one in self.attempts
        )

    def _prepared(self, event: dict[str, Any]) -> httpx.Response | None:
        answer = self._decide(event, self.now())
        if answer is None:
            return None
        status, content, headers = (*answer, b"", {})[:3] if len(answer) < 3 else answer
        return httpx.Response(status, content=content, headers=headers)

    @contextlib.contextmanager
    def _attempt(
        self, request: httpx.Request
    ) -> Generator[tuple[dict[str, Any], Callable[[httpx.Response], None]]]:
        event = json.loads(request.content)
        user = event.get("user_id") or event.get("email") or event["id"]
        with self._lock:
            self.asked.append(user)
            at, begun = self.now(), next(self._steps)
            self._at_once.append(at)
            self.in_flight.append((at, len(self._at_once)))

        def answered(response: httpx.Response) -> None:
            name, status = event["event_name"], response.status_code
            with self._lock:
                ended = next(self._steps)
                self.attempts.append(Attempt(name, user, at, begun, ended, status, event))

        try:
            yield event, answered
        finally:
            with self._lock:
                self._at_once.remove(at)


@attrs.define
class Run:
    """A tracker that is simulated, and what is around it."""

    tracker: Any
    server: Server
    emulator: Emulator
    #: What on_error was called with, and when.
    told: list[tuple[Event, Exception]]
    told_at: list[float]
    clock: Any

    @property
    def users_told(self) -> Counter[str | None]:
        return Counter(event.user_id for event, _ in self.told)

    @property
    def now(self) -> float:
        return self.server.now()

    @property
    def users_stored(self) -> list[str]:
        """Whose events the emulator has, each once."""
        return sorted(str(event.user_id) for event in self.emulator.events)

    def until(self, holds: Callable[[], object], *, step: float = 0.25) -> None:
        """Lets time pass in threads, step by step, until something is so."""
        ends = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < ends, "it never came to be"
            self.clock.advance(step)
            time.sleep(0.001)


def never(event: dict[str, Any], now: float) -> Answer | None:
    """Has the emulator answer."""


def simulated(
    use: Callable[[Run], Awaitable[Any]],
    decide: Decide = never,
    *,
    event_loop: str = "asyncio",
    outbox: Any = None,
    emulator: Emulator | Iterable[tuple[str, Any]] | dict[str, Any] = (),
    client: Iterable[tuple[str, Any]] | dict[str, Any] = (),
    latency: Latency = lambda event: 0.01,
    **options: Any,
) -> Run:
    """Runs an async function of an AsyncTracker in no time.

    With an outbox, time stands still for a moment wherever all tasks wait, as a thread may write.
    """

    async def main() -> Run:
        clock = EventLoopClock(NOW)
        emulated = emulator
        if not isinstance(emulated, Emulator):
            emulated = Emulator(clock=clock, record=False, **dict(emulated))
        server = Server(clock, emulated, decide, latency)
        told: list[Any] = []
        told_at: list[float] = []

        def on_error(event: Event, error: Exception) -> None:
            told.append((event, error))
            told_at.append(server.now())

        made = AsyncDataEventsClient(
            **{"access_token": "token", "max_retries": 0, **dict(client)},
            clock=clock,
            transport=server,
        )
        async with made, AsyncTracker(made, outbox, on_error=on_error, **options) as tracker:
            run = Run(tracker, server, emulated, told, told_at, clock)
            await use(run)
        return run

    if outbox is None:
        return run_in_no_time(main, event_loop)
    assert event_loop == "asyncio"
    return _run_in_little_time(main)


class _PatientSelector(_EagerSelector):
    """Leaves threads a moment to end what the loop waits for, before each second passes."""

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            return super(_EagerSelector, self).select()
        # What takes a thread longer does not make time leap to what else the loop waits for.
        ready = super(_EagerSelector, self).select(_A_MOMENT if timeout > 0 else 0)
        if not ready:
            self.now += min(timeout, 1.0)
        return ready


def _run_in_little_time(main: Callable[[], Any]) -> Any:
    selector = _PatientSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main())


@contextlib.contextmanager
def stepped(
    decide: Decide = never,
    *,
    outbox: Any = None,
    emulator: Iterable[tuple[str, Any]] | dict[str, Any] = (),
    client: Iterable[tuple[str, Any]] | dict[str, Any] = (),
    **options: Any,
) -> Generator[Run]:
    """A Tracker, for which time passes as a test has it: see :meth:`Run.until`."""
    clock = SteppedClock(NOW)
    emulated = Emulator(clock=clock, record=False, **dict(emulator))
    server = Server(clock, emulated, decide)
    told: list[Any] = []
    told_at: list[float] = []

    def on_error(event: Event, error: Exception) -> None:
        told_at.append(server.now())
        told.append((event, error))

    made = DataEventsClient(
        **{"access_token": "token", "max_retries": 0, **dict(client)},
        clock=clock,
        transport=server,
    )
    with made, Tracker(made, outbox, on_error=on_error, **options) as tracker:
        yield Run(tracker, server, emulated, told, told_at, clock)


async def track(run: Run, *users: object, name: str = "placed-order", **fields: Any) -> None:
    """Tracks an event of each user."""
    for user in users:
        await run.tracker.track(name, user_id=str(user), **fields)


async def until(holds: Callable[[], object]) -> None:
    """Waits in simulated time until something is so, for an hour at most."""
    for _ in range(36_000):
        if holds():
            return
        await anyio.sleep(0.1)
    raise AssertionError("it never came to be")


def track_now(run: Run, *users: object, name: str = "placed-order", **fields: Any) -> None:
    """Likewise, with a tracker of threads."""
    for user in users:
        run.tracker.track(name, user_id=str(user), **fields)


def gaps(times: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]
