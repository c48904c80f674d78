"""The source of time and of waits for a client, which tests can replace to control both."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Protocol

__all__ = ["Alarm", "AsyncAlarm", "Clock"]

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
    """Lets one thread wait until a time has passed, or until another thread ends the wait.

    Example:
        >>> from intercom_data_events.clock import Clock
        >>> alarm = Clock().alarm()
        >>> alarm.set()
        >>> alarm.wait(60)  # Returns at once.
    """

    def set(self) -> None:
        """Ends the wait; a wait that begins later ends at once."""

    def wait(self, seconds: float, /) -> object:
        """Waits until :meth:`set` is called, but at most for the given seconds."""


class AsyncAlarm(Protocol):
    """Lets one task wait until a time has passed, or until another task ends the wait.

    Both tasks run in the same event loop.

    Example:
        >>> import asyncio
        >>> from intercom_data_events.clock import Clock
        >>> async def main():
        ...     alarm = Clock().async_alarm()
        ...     alarm.set()
        ...     await alarm.wait(60)  # Returns at once.
        >>> asyncio.run(main())
    """

    def set(self) -> None:
        """Ends the wait; a wait that begins later ends at once."""

    async def wait(self, seconds: float, /) -> object:
        """Waits until :meth:`set` is called, but at most for the given seconds."""


class Clock:
    """The system's time, and real waits.

    A client takes all times and waits from its clock. A subclass can change them, mostly for tests:
    :class:`intercom_data_events.emulator.ManualClock` never waits.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> class LateClock(Clock):
        ...     def time(self):
        ...         return super().time() + 3600  # As on a machine whose clock is an hour fast.
        >>> client = DataEventsClient("token", clock=LateClock())
    """

    def time(self) -> float:
        """Returns the Unix time in seconds, to compare with a server's times."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds since an arbitrary moment, to measure durations."""
        return _monotonic()

    def alarm(self) -> Alarm:
        """Returns a new alarm, on which one thread can wait once."""
        return _ThreadAlarm()

    def async_alarm(self) -> AsyncAlarm:
        """Returns a new alarm, on which one task can wait once, under asyncio or trio."""
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
