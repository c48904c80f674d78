"""A client's source of time and of waits: one place, so that a test can control both."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Protocol

# Observed: freezegun stops time.monotonic, and with it every time limit, but not clock_gettime.
# Windows lacks clock_gettime.
_monotonic = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_MONOTONIC")
    else time.monotonic
)
# Seconds. Longer waits overflow in threads and event loops.
_LONGEST_WAIT = 24 * 60 * 60.0


class Alarm(Protocol):
    """One thread waits on it for some seconds, or until another thread sets it."""

    def set(self) -> None:
        """Ends the wait, also one that has not begun."""

    def wait(self, seconds: float, /) -> object:
        """Waits until it is set, or the seconds have passed."""


class AsyncAlarm(Protocol):
    """One task waits on it for some seconds, or until another task of its event loop sets it."""

    def set(self) -> None:
        """Ends the wait, also one that has not begun."""

    async def wait(self, seconds: float, /) -> object:
        """Waits until it is set, or the seconds have passed."""


class Clock:
    """The system's time, and real waits.

    A client takes every time and every wait from its clock, so a subclass can control them, mostly
    in tests: :class:`intercom_data_events.emulator.ManualClock` never waits.

    Example:
        >>> Clock().time() > 1_671_028_894
        True
    """

    def time(self) -> float:
        """Seconds since 1970, to compare with a server's times."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment, to measure how long something takes."""
        return _monotonic()

    def alarm(self) -> Alarm:
        """An alarm on which one thread can wait once."""
        return _ThreadAlarm()

    def async_alarm(self) -> AsyncAlarm:
        """An alarm on which one task can wait once, under asyncio and trio."""
        return _TaskAlarm()


class _ThreadAlarm:
    """A bare lock: the garbage collector or a signal handler may set it during its wait."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung = threading.Lock()
        self._rung.acquire()

    def set(self) -> None:
        try:
            self._rung.release()
        except RuntimeError:
            return  # It is already set.

    def wait(self, seconds: float, /) -> None:
        self._rung.acquire(timeout=max(0.0, min(seconds, _LONGEST_WAIT)))


class _TaskAlarm:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        import anyio

        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float, /) -> None:
        import anyio

        with anyio.move_on_after(min(seconds, _LONGEST_WAIT)):
            await self._event.wait()


#: The default clock of clients.
SYSTEM = Clock()
