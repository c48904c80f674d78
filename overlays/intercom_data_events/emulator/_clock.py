"""A clock that a test controls, for an emulator and its clients."""

from __future__ import annotations

import math
from collections.abc import Callable

from intercom_data_events.clock import Alarm, AsyncAlarm, Clock


class ManualClock(Clock):
    """A clock for tests, which advances at once with each wait instead of taking time.

    So a test of retries, of the rate limit or of a slow server takes no time. Use it in one thread
    or task at a time: if several wait, each advances it by its own wait. It does not affect the
    time limits of httpx on a real socket.

    Args:
        now: The time at the start, in Unix seconds.

    Attributes:
        waits: The length of each wait so far, in seconds.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault, ManualClock
        >>> clock = ManualClock()
        >>> emulator = Emulator(clock=clock, faults=[Fault.rate_limited(retry_after=7)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
        >>> client.create("placed-order", user_id="314159")
        >>> clock.waits
        [7.0]
        >>> clock.advance(60)
        >>> clock.monotonic()
        67.0
    """

    def __init__(self, now: float = 1_671_028_900.0) -> None:
        self.waits: list[float] = []
        self._now = self._begun = now

    def time(self) -> float:
        """Returns the Unix time in seconds."""
        return self._now

    def monotonic(self) -> float:
        """Returns the seconds since the clock was made."""
        return self._now - self._begun

    def advance(self, seconds: float) -> None:
        """Advances the time without recording a wait.

        Args:
            seconds: Seconds to add.
        """
        self._now += seconds

    def alarm(self) -> Alarm:
        """Returns an alarm for a thread. Only a wait without a time limit takes time."""
        return _ManualAlarm(self)

    def async_alarm(self) -> AsyncAlarm:
        """Returns an alarm for a task. Only a wait without a time limit takes time."""
        return _AsyncManualAlarm(self)

    def pass_by(self, seconds: float) -> None:
        """Records a wait, and advances the time by it.

        Args:
            seconds: Seconds to add.

        Example:
            >>> clock = ManualClock()
            >>> clock.pass_by(5)
            >>> clock.waits
            [5]
        """
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
    """A clock whose time comes from a function; its waits take time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time

    def time(self) -> float:
        """The function's result."""
        return self._time()
