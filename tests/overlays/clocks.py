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
import trio
import trio.testing

from intercom_data_events import Clock


class EventLoopClock(Clock):
    """The time of an event loop, which :func:`run_in_no_time` lets pass without waiting."""

    def __init__(self, now: float) -> None:
        self._begin = now - anyio.current_time()

    def time(self) -> float:
        return self._begin + anyio.current_time()

    def monotonic(self) -> float:
        return anyio.current_time()


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
