"""Where a client's time comes from, and how it waits: one place, for a test to control both."""

from __future__ import annotations

import threading
import time
from typing import Protocol

# Longer waits overflow what threads and event loops can hold.
_LONGEST_WAIT = 24 * 60 * 60.0


class Alarm(Protocol):
    """What one thread waits on: for some seconds, or until another sets it."""

    def set(self) -> None:
        """Ends the wait, also one that has not begun."""

    def wait(self, seconds: float, /) -> object:
        """Waits until it is set, or the seconds are over."""


class AsyncAlarm(Protocol):
    """What one task waits on: for some seconds, or until another of its event loop sets it."""

    def set(self) -> None:
        """Ends the wait, also one that has not begun."""

    async def wait(self, seconds: float, /) -> object:
        """Waits until it is set, or the seconds are over."""


class Clock:
    """The system's time, and real waiting.

    A client asks it for every time and every wait, so a subclass can control them, in tests above
    all: :class:`intercom_data_events.emulator.ManualClock` never waits.

    Example:
        >>> Clock().time() > 1_671_028_894
        True
    """

    def time(self) -> float:
        """Seconds since 1970, to compare with what a server says."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since any moment, for how long something takes."""
        return time.monotonic()

    def alarm(self) -> Alarm:
        """Something for a thread to wait on once."""
        return _ThreadAlarm()

    def async_alarm(self) -> AsyncAlarm:
        """Something for a task to wait on once, under asyncio and trio."""
        return _TaskAlarm()


class _ThreadAlarm:
    """A bare lock, as the collector, or a signal's handler, may set it in the midst of its wait."""

    __slots__ = ("_rung",)

    def __init__(self) -> None:
        self._rung = threading.Lock()
        self._rung.acquire()

    def set(self) -> None:
        try:
            self._rung.release()
        except RuntimeError:
            return  # It has been set before.

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


#: The clock of every client that is given none.
SYSTEM = Clock()
