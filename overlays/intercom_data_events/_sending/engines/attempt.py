"""The time limit of a running attempt, which the network streams enforce."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intercom_data_events.clock import Clock


class Attempt:
    """A running attempt, which bounds each step of its network stream.

    Args:
        ends: When the attempt ends, by the clock's monotonic time.
        clock: The client's clock.
        transport: The transport of its own connection; None on a caller's connections.
    """

    __slots__ = ("_clock", "_ends", "transport")

    def __init__(self, ends: float, clock: Clock, transport: Any = None) -> None:
        self._ends = ends
        self._clock = clock
        self.transport = transport

    def left(self, timeout: float | None) -> float | None:
        """Returns the time limit of the next step in seconds; 0 or less if no time is left."""
        if self._ends == math.inf:
            return timeout
        left = self._ends - self._clock.monotonic()
        return left if timeout is None else min(left, timeout)


#: The attempt of the running thread or task.
ATTEMPT: ContextVar[Attempt | None] = ContextVar("ATTEMPT", default=None)


def time_left(timeout: float | None, late: type[Exception]) -> float | None:
    """Returns the time limit of the next step of the running attempt.

    Args:
        timeout: The library's limit of the step in seconds; None for none.
        late: The error to raise if no time is left.
    """
    attempt = ATTEMPT.get()
    left = timeout if attempt is None else attempt.left(timeout)
    if left is not None and left <= 0:
        raise late("no time is left")
    return left
