"""When a failed request is made again, and how long to wait before it: a policy without I/O."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

import httpx

#: Answers after which the same request may well succeed: those that say so (408, 429), and failures
#: of the server and of proxies in front of it, with Cloudflare's own numbers.
RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504, *range(520, 528)})

# Seconds: what the first wait is at most, doubled with each try, and where doubling ends.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
#: Seconds. Documented windows are 10 seconds long, of limits that are told by the minute; what ends
#: later than this is no window.
LONGEST_WINDOW = 60.0
# A server that asks for more than a day is not taken at its word.
_LONGEST_ASKED = 24 * 60 * 60.0


class Effect(Enum):
    """What it does to send a request twice."""

    #: A question; nothing changes.
    NONE = "none"
    #: Intercom takes the second for the first: an event, whose time is fixed when it is made.
    SAME = "same"
    #: It counts twice, as far as is known: a summary.
    MORE = "more"


# Nothing of the request was sent, or nothing of it was understood as one.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)
# The same request meets the same end.
_LASTING = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)


def possibly_sent(error: Exception) -> bool:
    """Whether the server may have got the request that ended in this error of httpx."""
    return not isinstance(error, _NOT_SENT)


def is_temporary(error: Exception) -> bool:
    """Whether a request that ended in this error of httpx may succeed when it is made again."""
    return (
        isinstance(error, httpx.TransportError)
        and not isinstance(error, _LASTING)
        # Looked for by name: importing ssl takes longer than everything else here.
        and not any(type(one).__name__ == "SSLCertVerificationError" for one in causes(error))
    )


def is_repeatable(effect: Effect, *, possibly_processed: bool) -> bool:
    """Whether a request that failed can be made again without doing harm."""
    return effect is not Effect.MORE or not possibly_processed


def seconds_to_wait(tries: int, headers: Mapping[str, str], *, limited: bool, now: float) -> float:
    """How long to wait before the next try.

    As long as ``Retry-After`` says, else until the rate limit's window resets, else for a random
    part of a time that doubles with each try ("full jitter"), so that clients which failed together
    do not come back together.

    Args:
        tries: How many there have been, 1 or more.
        headers: Of the answer, by their names in lower case; empty where there was none.
        limited: Whether the rate limit is why the try failed.
        now: Unix seconds, for an answer that does not say its own ``Date``.
    """
    asked = retry_after(headers, now)
    if asked is None and limited:
        asked = _until_reset(headers, now)
    if asked:
        return asked
    # Also where it says that there is nothing to wait for, which all clients hear.
    longest = min(_LONGEST_WAIT, math.ldexp(_FIRST_WAIT, min(tries - 1, 10)))
    return random.uniform(0, longest)  # noqa: S311  # spreads load, guards nothing


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Reads ``Retry-After``, seconds or a date, as seconds from now; None where it is neither.

    A date counts from the answer's own ``Date``: the server's clock may be askew.
    """
    asked = headers.get("retry-after")
    if asked is None:
        return None
    try:
        # The first, where there are several.
        seconds = float(asked.partition(",")[0]) if asked.isascii() else math.nan
    except ValueError:
        until = read_date(asked)
        sent = read_date(headers.get("date"))
        seconds = math.nan if until is None else until - (now if sent is None else sent)
    if math.isnan(seconds):
        return None
    return min(max(0.0, seconds), _LONGEST_ASKED)


def read_date(text: str | None) -> float | None:
    """Reads a date of HTTP as Unix seconds; None where it is none."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
        # "-0000" is UTC as well, of which Python makes a datetime without a zone.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until the window is over, a part of one more than needed as ``Date`` has no parts."""
    try:
        reset = float(headers.get("x-ratelimit-reset", ""))
    except ValueError:
        return None
    sent = read_date(headers.get("date"))
    seconds = reset - (now if sent is None else sent)
    return seconds if 0 < seconds <= LONGEST_WINDOW else None


def causes(error: BaseException) -> Iterator[BaseException]:
    """What led to an error, itself included."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
