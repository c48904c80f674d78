"""Clocks for many tasks or threads at once, whose time passes as soon as all of them wait."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import selectors
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import trio
import trio.testing

from intercom_data_events import Clock


class EventLoopClock(Clock):
    """The time of an event loop, which :func:`run_in_no_time` lets pass without waiting."""

    def __init__(self, now: float) -> None:
        # Simulations ask hundreds of thousands of times; anyio would look for the loop each time.
        loop = anyio.lowlevel.current_token().native_token
        self._current_time: Callable[[], float] = getattr(loop, "time", trio.current_time)
        self._begin = now - self._current_time()

    def time(self) -> float:
        return self._begin + self._current_time()

    def monotonic(self) -> float:
        return self._current_time()

    def set_back(self, seconds: float) -> None:
        self._begin -= seconds


class _EagerSelector(selectors.DefaultSelector):
    """Instead of waiting until the next timer is due, moves the time of the loop there."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def run_in_no_time(function: Callable[[], Awaitable[Any]], backend: str) -> Any:
    """Runs an async function; whenever all its tasks wait, their time passes at once."""
    if backend == "trio":
        return trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))
    selector = _EagerSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(function())  # type: ignore[arg-type]


class ThreadsClock(Clock):
    """A clock for so many threads; when all of them wait, time passes to the first that is due."""

    def __init__(self, now: float, threads: int) -> None:
        self._now = now
        self._running = threads
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, _ThreadsAlarm]] = []
        self._numbers = itertools.count()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def alarm(self) -> _ThreadsAlarm:
        return _ThreadsAlarm(self)

    def done(self) -> None:
        """A thread waits no more."""
        with self._changed:
            self._running -= 1
            self._pass()

    def wait(self, alarm: _ThreadsAlarm, seconds: float) -> None:
        with self._changed:
            if alarm.rung:
                return
            alarm.waits = True
            heapq.heappush(self._due, (self._now + seconds, next(self._numbers), alarm))
            self._running -= 1
            self._pass()
            self._changed.wait_for(lambda: alarm.rung)

    def ring(self, alarm: _ThreadsAlarm) -> None:
        with self._changed:
            self._ring(alarm)

    def _ring(self, alarm: _ThreadsAlarm) -> None:
        if not alarm.rung:
            alarm.rung = True
            if alarm.waits:
                self._running += 1
                self._changed.notify_all()

    def _pass(self) -> None:
        while self._running == 0 and self._due:
            due, _, alarm = heapq.heappop(self._due)
            if alarm.rung:
                continue
            assert due < math.inf, "every thread waits for another"
            self._now = max(self._now, due)
            self._ring(alarm)


class _ThreadsAlarm:
    def __init__(self, clock: ThreadsClock) -> None:
        self._clock = clock
        self.rung = False
        self.waits = False

    def set(self) -> None:
        self._clock.ring(self)

    def wait(self, seconds: float, /) -> None:
        self._clock.wait(self, seconds)


class SteppedClock(Clock):
    """Stands still until a test advances it; the waits of threads and of tasks end as they are due.

    Also from the thread of the test, while others wait.
    """

    def __init__(self, now: float) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._waiting: dict[object, tuple[float, Callable[[], object]]] = {}

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds
            due = [alarm for alarm, (until, _) in self._waiting.items() if until <= self._now]
            ends = [self._waiting.pop(alarm)[1] for alarm in due]
        for end in ends:
            end()

    def waits(self) -> int:
        """How many wait at the moment."""
        return len(self._waiting)

    def alarm(self) -> _SteppedAlarm:
        return _SteppedAlarm(self)

    def async_alarm(self) -> _AsyncSteppedAlarm:
        return _AsyncSteppedAlarm(self)

    def wait(self, alarm: object, seconds: float, end: Callable[[], object]) -> None:
        with self._lock:
            self._waiting[alarm] = self._now + seconds, end

    def over(self, alarm: object) -> None:
        with self._lock:
            self._waiting.pop(alarm, None)


class _SteppedAlarm:
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self._ends = threading.Event()
        self.set = self._ends.set

    def wait(self, seconds: float, /) -> None:
        self._clock.wait(self, seconds, self._ends.set)
        try:
            self._ends.wait()
        finally:
            self._clock.over(self)


class _AsyncSteppedAlarm:
    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self._ends = anyio.Event()
        self.set = self._ends.set

    async def wait(self, seconds: float, /) -> None:
        loop = anyio.lowlevel.current_token().native_token
        call = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        self._clock.wait(self, seconds, lambda: call(self._ends.set))
        try:
            await self._ends.wait()
        finally:
            self._clock.over(self)
