"""How many requests are sent at once, and how fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intercom_data_events.clock import Clock


class Concurrency:
    """How many requests are worth having in flight at once, learned from their latency.

    Requests that wait for each other, in this process, on the line or at the server, are answered
    later without more of them being answered. So round by round, the average latency is compared
    with the lowest average so far: what it is longer by, and not by chance, is waiting, and tells
    how many requests wait (as TCP Vegas has it). Where that is only a few, more go at once; where
    it is many, fewer do. From time to time all of it is forgotten and learned anew, since lines and
    servers change.

    Args:
        most: The bound, whatever the latency.
        few: Requests that may wait, to keep every part of the line busy.
    """

    _SAMPLE = 16
    _ROUNDS = 50

    def __init__(self, most: int, few: float = 2.0) -> None:
        self.limit = min(2, most)
        self._most = most
        self._few = few
        self._lowest = math.inf
        self._doubling = True
        self._answers = 0
        self._seconds = self._squares = 0.0
        self._rounds = 0

    def note(self, latency: float) -> None:
        """Takes in how many seconds one answer took."""
        self._answers += 1
        self._seconds += latency
        self._squares += latency * latency
        if self._answers < max(self._SAMPLE, 2 * self.limit):
            return
        average = self._seconds / self._answers
        variance = max(0.0, self._squares / self._answers - average * average)
        by_chance = 2 * math.sqrt(variance / self._answers)
        self._answers, self._seconds, self._squares = 0, 0.0, 0.0
        self._rounds += 1
        if self._rounds % self._ROUNDS == 0:
            self._lowest = math.inf
            self.limit = max(1, self.limit // 2)
            return
        self._lowest = min(self._lowest, average)
        surely = max(average - by_chance, self._lowest)
        waiting = self.limit * (1 - self._lowest / surely) if surely > 0 else 0.0
        if waiting < self._few:
            more = self.limit if self._doubling else max(1, self.limit // 8)
            self.limit = min(self._most, self.limit + more)
        else:
            self._doubling = False
            if waiting > 2 * self._few:
                self.limit -= max(1, self.limit // 8)


class Rate:
    """Spaces what is sent evenly."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._seconds = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._next = -math.inf

    def reserve(self) -> float:
        """Seconds to wait before sending the next."""
        if not self._seconds:
            return 0.0
        now = self._clock.monotonic()
        self._next = max(self._next, now) + self._seconds
        return self._next - self._seconds - now
