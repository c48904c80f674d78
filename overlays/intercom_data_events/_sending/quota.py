"""Reads from an answer the app's quota and the server's time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from intercom_data_events._sending.retry import read_date

# Larger than the Unix seconds of the year 5138, and than any number of requests.
_NONSENSE = 10**11


class Quota(NamedTuple):
    """The quota in an answer; `reset` is in Unix seconds, by the server's clock."""

    limit: int
    remaining: int
    reset: int


def read_quota(headers: Mapping[str, str]) -> Quota | None:
    """Reads the headers; returns None if they are missing, not numbers, or out of range."""
    if "x-ratelimit-limit" not in headers:
        return None  # An error for it takes a while.
    try:
        said = Quota(*(int(headers[f"x-ratelimit-{name}"]) for name in Quota._fields))
    except (KeyError, ValueError):
        return None
    return said if max(map(abs, said)) < _NONSENSE else None


class ClockSkew:
    """How far the server's clock is ahead of ours, learned from answers.

    ``Date`` has whole seconds only, so each answer gives an interval for the difference. The
    intervals of several answers are intersected. As long as the intersection contains 0, the clocks
    count as equal: correcting by a difference that is not certain costs quota (tried).
    """

    def __init__(self) -> None:
        self._low = -math.inf
        self._high = math.inf
        self._read: tuple[str | None, float | None] = (None, None)

    @property
    def ahead(self) -> float:
        """Seconds; the lower end of the interval, or 0 if it contains 0: never too early."""
        return 0.0 if self._low <= 0.0 <= self._high else self._low

    def learn(self, date: str | None, reset: int | None, sent: float, received: float) -> None:
        """Learns from one answer.

        Args:
            date: Its ``Date``.
            reset: The end of the window in the answer, which by the server's clock is later than
                now.
            sent: When the request was sent, by our clock.
            received: When the answer arrived, by our clock.
        """
        if date != self._read[0]:
            self._read = (date, read_date(date))
        begin = self._read[1]
        if begin is None:
            return
        end = begin + 1 if reset is None else min(begin + 1, max(reset, begin))
        low, high = begin - received, end - sent
        if low > self._high or high < self._low:
            # One of the clocks was set, or stood still: earlier intervals are void.
            self._low, self._high = low, high
        else:
            self._low, self._high = max(self._low, low), min(self._high, high)
