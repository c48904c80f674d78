"""Reads the app's quota, the time to wait and the server's time from an answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple, TypeAlias

# Seconds. Windows last 10 seconds (documented), and up to 60 (observed). A longer one in an answer
# without ``Date`` more likely comes from a wrong clock.
_LONGEST_UNDATED = 60.0
# Seconds. A server cannot make a client wait for more than a day.
LONGEST_ASKED = 24 * 60 * 60.0
# The longest reset that counts as seconds from now. A larger number may be milliseconds.
_LONGEST_AHEAD = 60 * 60
# Above the Unix seconds of the year 5138, and above any number of requests. A larger time is in
# milliseconds or a smaller unit, down to nanoseconds.
_NONSENSE = 10**11
_LAST_NANOSECOND = 10**20

# The last four of a quota's attributes.
_End: TypeAlias = tuple[float, float, float, float | None]


class Quota(NamedTuple):
    """The quota in an answer.

    Attributes:
        limit: How many requests the window allows.
        remaining: How many it still allows.
        reset: When it ends, in Unix seconds by the server's clock.
        first: The earliest time at which it may end: a reset in seconds from now is usually
            rounded, and the answer took some time.
        last: The latest such time.
        seconds: The seconds from the answer to the reset, at most one too many, because ``Date``
            and most resets are in whole seconds; None if they are not credible.
    """

    limit: int
    remaining: int
    reset: float
    first: float
    last: float
    seconds: float | None


def read_quota(headers: Mapping[str, str], now: float, latency: float = 0.0) -> Quota | None:
    """Reads the headers; returns None if they are missing, not numbers, or out of range.

    Args:
        headers: The headers of the answer, with names in lower case.
        now: Unix seconds by the server's clock, to which seconds from now are added.
        latency: The largest number of seconds for which the answer may have existed.
    """
    if "x-ratelimit-limit" not in headers:
        return None  # Most answers of other servers.
    limit, remaining = _number(headers, "limit"), _number(headers, "remaining")
    ends = _read_reset(headers, now, latency)
    if ends is None or not (abs(limit) < _NONSENSE and abs(remaining) < _NONSENSE):  # Or NaN.
        return None
    return Quota(int(limit), int(remaining), *ends)


def seconds_until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Reads the seconds until the window ends; None if they are missing or not credible."""
    ends = _read_reset(headers, now)
    return ends and ends[-1]


def _number(headers: Mapping[str, str], name: str) -> float:
    """Reads the first value of a header as a number; NaN if it is not one."""
    try:
        return float(headers.get(f"x-ratelimit-{name}", "").partition(",")[0])
    except ValueError:
        return math.nan


def _read_reset(headers: Mapping[str, str], now: float, latency: float = 0.0) -> _End | None:
    """Reads the reset; returns None if it is not a valid number."""
    reset = _number(headers, "reset")
    if not 0 < reset < _LAST_NANOSECOND:
        return None
    if reset <= _LONGEST_AHEAD:
        rounded = float(reset.is_integer())  # Up or down.
        end = now + reset
        return end, end - rounded - latency, end + rounded, reset + rounded
    while reset >= _NONSENSE:
        reset /= 1000
    reset = math.ceil(reset)
    sent = read_date(headers.get("date"))
    seconds = reset - (now if sent is None else sent)
    longest = _LONGEST_UNDATED if sent is None else LONGEST_ASKED
    return reset, reset, reset, seconds if 0 < seconds <= longest else None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Reads ``Retry-After``, seconds or a date, as seconds from now; None if it is neither.

    A date is compared with the answer's own ``Date``, because the server's clock may be wrong.
    """
    asked = headers.get("retry-after")
    if asked is None:
        return None
    try:
        # The first value of several.
        seconds = float(asked.partition(",")[0]) if asked.isascii() else math.nan
    except ValueError:
        until = read_date(asked)
        sent = read_date(headers.get("date"))
        seconds = math.nan if until is None else until - (now if sent is None else sent)
    if math.isnan(seconds):
        return None
    return min(max(0.0, seconds), LONGEST_ASKED)


@lru_cache(maxsize=8)  # Answers within one second have the same date.
def read_date(text: str | None) -> float | None:
    """Reads an HTTP date as Unix seconds; None if it is not one."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
        # "-0000" also means UTC, but Python returns a naive datetime for it.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


class ClockSkew:
    """How far the server's clock is ahead of ours, learned from answers.

    ``Date`` has only whole seconds, so each answer gives an interval for the difference. The
    intervals of several answers are intersected. As long as the intersection contains 0, the clocks
    count as equal: correcting by an uncertain difference costs quota (measured).
    """

    def __init__(self) -> None:
        self._low = -math.inf
        self._high = math.inf

    @property
    def ahead(self) -> float:
        """Seconds: the lower end of the interval, or 0 if it contains 0, so never too early."""
        return 0.0 if self._low <= 0.0 <= self._high else self._low

    def learn(self, date: str | None, sent: float, received: float) -> None:
        """Learns from one answer.

        Args:
            date: Its ``Date``.
            sent: When the request was sent, by our clock.
            received: When the answer arrived, by our clock.
        """
        begin = read_date(date)
        if begin is None:
            return
        low, high = begin - received, begin + 1 - sent
        if low > self._high or high < self._low:
            # One of the clocks was set or stopped, so earlier intervals are void.
            self._low, self._high = low, high
        else:
            self._low, self._high = max(self._low, low), min(self._high, high)
