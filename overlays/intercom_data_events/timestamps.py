"""Times: from Python values to the API's Unix seconds, and back."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from typing import TypeAlias, TypeGuard

from intercom_data_events._validation import (
    LONGEST_NUMBER,
    dtype_kind,
    flawed,
    invalid,
    invalid_type,
    number,
    read_number,
    short_repr,
)
from intercom_data_events.errors import TimestampError

__all__ = ["Timestamp"]

#: A time, as callers pass it: an aware datetime, integer Unix seconds, or an ISO 8601 string with
#: an offset. Intercom counts integer seconds: a datetime or string loses its fraction of a second.
#:
#: Example:
#:     >>> from datetime import UTC, datetime
#:     >>> from intercom_data_events import Event
#:     >>> for time in (datetime(2026, 1, 31, tzinfo=UTC), 1769817600, "2026-01-31T01:00:00+01:00"):
#:     ...     print(Event("ran", user_id="314159", created_at=time).created_at)
#:     2026-01-31 00:00:00+00:00
#:     2026-01-31 00:00:00+00:00
#:     2026-01-31 00:00:00+00:00
Timestamp: TypeAlias = datetime | int | float | str

# The year 1, which is the first of datetime, and the year 5138. A larger number is more likely in
# milliseconds: it would be a time after March 1973.
_FIRST = -62_135_596_800
_LAST = 99_999_999_999
_EPOCH = datetime.fromtimestamp(0, UTC)
_EXAMPLE = "2026-01-31T12:00:00Z"

#: What to do with a datetime of numpy, which has no time zone.
DATETIME64 = "pass value.astype('datetime64[s]').item().replace(tzinfo=UTC) if it is in UTC"


def to_unix(value: Timestamp, name: str = "timestamp") -> int:
    """Returns a time in integer Unix seconds.

    A datetime loses its fraction of a second, because the API counts integer seconds.

    Args:
        value: An aware datetime, integer Unix seconds, or an ISO 8601 string with an offset.
        name: The name of the value in messages.

    Raises:
        TimestampError: The value is a naive datetime, in milliseconds, a number with a fraction, a
            bool, NaN, or a string without an offset or without a time.

    Example:
        >>> to_unix("2014-01-16T23:12:21Z")
        1389913941
    """
    moment = _parse(value, name) if isinstance(value, str) else value
    if isinstance(moment, datetime):
        seconds = _from_datetime(moment, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = int(value)
    elif (found := number(value)) is not None:
        seconds = _whole(found, name)
    else:
        remedy = ""
        if isinstance(value, date):
            remedy = "combine it with a time and a time zone"
        elif dtype_kind(value) == "M":
            remedy = DATETIME64
        must = f"{name} must be an aware datetime, Unix seconds or an ISO 8601 string"
        plain = f"must be Unix seconds or an ISO 8601 time such as {_EXAMPLE}"
        raise invalid_type(TimestampError, must, value, remedy, plain=plain)
    if not _FIRST <= seconds <= _LAST:
        remedy = "if it is in milliseconds, divide it by 1000 and drop the fraction"
        raise invalid(TimestampError, f"{name} must be between the years 1 and 5138", value, remedy)
    return seconds


def from_unix(seconds: float) -> datetime:
    """Returns Unix seconds as an aware datetime in UTC.

    Raises:
        ValueError: `seconds` is out of range for datetime.
        TypeError: `seconds` is not a number.

    Example:
        >>> from_unix(1389913941).isoformat()
        '2014-01-16T23:12:21+00:00'
    """
    try:
        return _EPOCH + timedelta(0, seconds)
    except OverflowError as error:
        raise ValueError(f"{seconds} is out of range for datetime") from error


def is_unix(value: object) -> TypeGuard[int]:
    """Whether a value from the API is an integer of Unix seconds in the range of datetime."""
    return type(value) is int and _FIRST <= value <= _LAST


def read(value: object) -> datetime | None:
    """Returns a time from an answer in UTC, or None if it is not a time.

    It accepts Unix seconds and milliseconds, distinguished by their size, as numbers or as digits
    in a string, and ISO 8601. Spaces around a string are ignored: a documented example of a summary
    ends in one. A string without an offset is read as UTC, which the documentation assumes
    throughout.
    """
    if type(value) is int and _FIRST <= value <= _LAST:  # Most are, and need no other check.
        return _EPOCH + timedelta(0, value)
    number = read_number(value)
    try:
        if number is not None:
            is_seconds = _FIRST <= number <= _LAST
            return _EPOCH + (timedelta(0, number) if is_seconds else timedelta(0, 0, 0, number))
        if not isinstance(value, str) or len(text := value.strip()) > LONGEST_NUMBER:
            return None
        moment = _isoparse(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        return None


def _from_datetime(moment: datetime, name: str) -> int:
    try:
        # The fraction is cut off first, because a float would round: up for times before 1970, and
        # in the far future by microseconds.
        seconds = math.floor(moment.replace(microsecond=0).timestamp())
        naive = moment.utcoffset() is None
    except (ValueError, TypeError, OverflowError) as error:  # pandas.NaT, the end of the year 9999
        said = f"must be a valid time, not {short_repr(moment)}: {error}"
        raise flawed(TimestampError, name, said) from error
    if naive:
        remedy = "use datetime.now(UTC), or value.replace(tzinfo=UTC) if it is in UTC"
        raise invalid(TimestampError, f"{name} must be a datetime with a time zone", moment, remedy)
    return seconds


def _parse(text: str, name: str) -> datetime:
    try:
        moment = _isoparse(text.strip())
    except (ValueError, OverflowError) as error:
        must = f"{name} must be an ISO 8601 time such as {_EXAMPLE}"
        raise invalid(TimestampError, must, text) from error
    if moment.tzinfo is None:
        must = f"{name} must have an offset, as in {_EXAMPLE} or 2026-01-31T12:00:00+02:00"
        raise invalid(TimestampError, must, text)
    return moment


def _whole(value: float, name: str) -> int:
    if not math.isfinite(value):
        raise flawed(TimestampError, name, f"must be a finite number, not {value}")
    if value != int(value):
        must = f"{name} must be in whole seconds"
        raise invalid(TimestampError, must, value, "drop the fraction")
    return int(value)


def _isoparse(text: str) -> datetime:
    # Imported when needed: it takes 10 ms, and most programs pass datetimes.
    from dateutil.parser import isoparse

    return isoparse(text)
