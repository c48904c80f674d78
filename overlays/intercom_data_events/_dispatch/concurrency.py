"""How many requests are sent at once, and how fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError

if TYPE_CHECKING:
    from intercom_data_events.clock import Clock


def check_concurrency(concurrency: object) -> int:
    """Returns how many requests a caller allows at once.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        must = "concurrency must be an integer from 1 to 1000"
        raise invalid(ConfigurationError, must, concurrency)
    return concurrency


class Concurrency:
    """How many requests are worth having in flight at once, learned from their latency.

    Requests that wait for each other, in this process, on the line or at the server, are answered
    later without more of them being answered. So round by round, the average latency is compared
    with the lowest average so far. What it is longer by, and not by chance, is waiting, and tells
    how many requests wait (as in TCP Vegas). Where only a few wait, more go at once; where many
    wait, fewer do. From time to time all of this is forgotten and learned anew, because lines and
    servers change.

    Args:
        most: The bound, whatever the latency.
        few: Requests that may wait, to keep every part of the line busy.
        cost: Seconds; the interpreter's time for a request, times the share of it that is to stay
            free for others: 0.002 for 1 ms and a half. No more requests go at once than take that
            time together. 0 for no such bound.
        first: The number of requests that go at once in the beginning.
    """

    _SAMPLE = 16
    _ROUNDS = 50

    def __init__(self, most: int, few: float = 2.0, *, cost: float = 0.0, first: int = 2) -> None:
        self._most = most
        self._few = few
        self._cost = cost
        self._limit = min(first, most)
        self.limit = self._limit
        self._typical = math.inf
        self._lowest = math.inf
        self._doubling = True
        self._answers = 0
        self._seconds = self._squares = 0.0
        self._rounds = 0

    def note(self, latency: float) -> None:
        """Takes in how many seconds one answer took."""
        if self._cost:
            # Rather that of quick answers, because the others waited for each other.
            slower = latency > self._typical
            self._typical += (latency - self._typical) / 16 if slower else 0.0
            self._typical = self._typical if slower else latency
        self._learn(latency)
        self.limit = self._limit
        if self._cost and self._typical < math.inf:
            self.limit = min(self._limit, math.ceil(0.99 + self._typical / self._cost))

    def _learn(self, latency: float) -> None:
        self._answers += 1
        self._seconds += latency
        self._squares += latency * latency
        if self._answers < max(self._SAMPLE, 2 * self._limit):
            return
        average = self._seconds / self._answers
        variance = max(0.0, self._squares / self._answers - average * average)
        by_chance = 2 * math.sqrt(variance / self._answers)
        self._answers, self._seconds, self._squares = 0, 0.0, 0.0
        self._rounds += 1
        if self._rounds % self._ROUNDS == 0:
            self._lowest = math.inf
            self._limit = max(1, self._limit // 2)
            return
        self._lowest = min(self._lowest, average)
        surely = max(average - by_chance, self._lowest)
        waiting = self._limit * (1 - self._lowest / surely) if surely > 0 else 0.0
        if waiting < self._few:
            more = self._limit if self._doubling else max(1, self._limit // 8)
            self._limit = min(self._most, self._limit + more)
        else:
            self._doubling = False
            if waiting > 2 * self._few:
                self._limit -= max(1, self._limit // 8)


class Rate:
    """Spaces what is sent evenly.

    Args:
        rate: Events a second, or None for no such bound.
        clock: The client's clock.
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._seconds = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._next = -math.inf

    def wait(self) -> float:
        """Returns the seconds until the next may be sent; 0 if it may be sent now."""
        return max(0.0, self._next - self._clock.monotonic()) if self._seconds else 0.0

    def note(self) -> None:
        """Takes in that one is sent now."""
        if self._seconds:
            self._next = max(self._next, self._clock.monotonic()) + self._seconds
