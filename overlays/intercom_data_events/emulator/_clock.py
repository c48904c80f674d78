"""A clock that a test controls, for an emulator and for the clients that use it."""

from __future__ import annotations

import math
from collections.abc import Callable

from intercom_data_events.clock import Alarm, AsyncAlarm, Clock


class ManualClock(Clock):
    """A clock that stands still but for those who wait on it: each wait moves it forward, at once.

    So a test of retries, of the rate limit or of a slow server takes no time. It is made for one
    thread or task at a time; of several that wait, each moves it on by its own wait. httpx's own
    time-outs on a real socket know nothing of it.

    Args:
        now: The time to begin at, in Unix seconds.

    Attributes:
        waits: How long each wait was, in seconds.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault, ManualClock
        >>> clock = ManualClock()
        >>> emulator = Emulator(clock=clock, faults=[Fault.rate_limited(retry_after=7)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
        >>> client.create("placed-order", user_id="314159")
        >>> clock.waits
        [7.0]
    """

    def __init__(self, now: float = 1_671_028_900.0) -> None:
        self.waits: list[float] = []
        self._now = self._begun = now

    def time(self) -> float:
        """Seconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since it began."""
        return self._now - self._begun

    def advance(self, seconds: float) -> None:
        """Lets time pass, without anybody waiting."""
        self._now += seconds

    def alarm(self) -> Alarm:
        """What a thread waits on; it does not wait, but for what has no end of its own."""
        return _ManualAlarm(self)

    def async_alarm(self) -> AsyncAlarm:
        """What a task waits on; likewise."""
        return _AsyncManualAlarm(self)

    def pass_by(self, seconds: float) -> None:
        """Takes note of a wait, and lets its time pass."""
        self.waits.append(seconds)
        self._now += seconds


class _ManualAlarm:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._alarm = Clock.alarm(clock)
        self._set = False

    def set(self) -> None:
        self._set = True
        self._alarm.set()

    def wait(self, seconds: float, /) -> None:
        if self._set:
            return
        if seconds == math.inf:
            self._alarm.wait(seconds)
        else:
            self._clock.pass_by(seconds)


class _AsyncManualAlarm:
    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self._alarm = Clock.async_alarm(clock)
        self._set = False

    def set(self) -> None:
        self._set = True
        self._alarm.set()

    async def wait(self, seconds: float, /) -> None:
        import anyio.lowlevel

        await anyio.lowlevel.checkpoint()
        if self._set:
            return
        if seconds == math.inf:
            await self._alarm.wait(seconds)
        else:
            self._clock.pass_by(seconds)


class FunctionClock(Clock):
    """A clock whose time comes from a function; its waits are real."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time

    def time(self) -> float:
        """What the function says."""
        return self._time()
