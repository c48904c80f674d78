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
    """The useful number of requests in flight, learned from their latency.

    Requests that wait for each other, in this process, on the network or at the server, take longer
    without raising throughput. So each round compares the average latency with the lowest average
    so far. A significant difference is waiting time, from which the number of waiting requests
    follows (as in TCP Vegas). If few wait, more requests are sent at once; if many wait, fewer are.
    From time to time, all of this is learned again, because networks and servers change.

    Args:
        most: The upper bound for any latency.
        few: Requests that may wait, to keep every part of the path busy.
        cost: The interpreter's seconds for a request, divided by the share of its time that
            requests may take: 0.002 for 1 ms and a half. Latency divided by it bounds the number of
            requests. 0 for no such bound.
        first: The number of requests that are sent at once in the beginning.
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
        """Learns from the seconds that one answer took."""
        if self._cost:
            # Weighted towards quick answers, because the others waited for each other.
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
    """Spaces events evenly.

    Args:
        rate: Events per second, or None for no such bound.
        clock: The client's clock.
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._seconds = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._next = -math.inf

    def wait(self) -> float:
        """Returns the seconds until the next event may be sent; 0 for now."""
        return max(0.0, self._next - self._clock.monotonic()) if self._seconds else 0.0

    def note(self) -> None:
        """Notes that an event is sent now."""
        if self._seconds:
            self._next = max(self._next, self._clock.monotonic()) + self._seconds
