"""Times between Python and the API, which counts Unix seconds on the wire."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TypeAlias, TypeGuard

from intercom_data_events.checks import shown, whole_number
from intercom_data_events.errors import TimestampError

#: What stands for a time: an aware datetime, whole Unix seconds, or text in ISO 8601 that carries
#: an offset, such as ``2026-01-31T12:00:00Z``.
Timestamp: TypeAlias = datetime | int | float | str

# The year 1, as the first that a datetime can hold, and the year 5138: from there on a number is
# more likely in milliseconds, which reached it in March 1973.
_FIRST = -62_135_596_800
_LAST = 99_999_999_999


def to_unix(value: Timestamp, name: str = "timestamp") -> int:
    """Returns whole Unix seconds.

    What is left of a second in a datetime is cut off, as the API counts whole seconds.

    Args:
        value: An aware datetime, whole seconds, or text that carries an offset.
        name: What the value is, for messages.

    Raises:
        TimestampError: A naive datetime, milliseconds, a fraction of a second as a number, a bool,
            NaN, or text that says no offset or no time.

    Example:
        >>> to_unix("2014-01-16T23:12:21Z")
        1389913941
    """
    if isinstance(value, datetime):
        seconds = _from_datetime(value, name)
    elif isinstance(value, str):
        seconds = _from_datetime(_parse(value, name), name)
    elif isinstance(value, float):
        seconds = _whole(value, name)
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = int(value)
    elif (number := whole_number(value)) is not None:
        seconds = number  # A whole number of numpy's, say.
    else:
        remedy = (
            "combine it with a time and a time zone"
            if isinstance(value, date)
            else "pass an aware datetime, Unix seconds or ISO 8601 text"
        )
        raise TimestampError(f"{name} is a {type(value).__name__}: {remedy}")
    if not _FIRST <= seconds <= _LAST:
        raise TimestampError(
            f"{name} is {shown(value)}, which is not between the years 1 and 5138: "
            "if it is in milliseconds, divide it by 1000 (value // 1000)"
        )
    return seconds


def from_unix(seconds: float) -> datetime:
    """Returns Unix seconds as an aware datetime in UTC.

    Raises:
        ValueError: No datetime can hold it.
        TypeError: It is no number.

    Example:
        >>> from_unix(1389913941).isoformat()
        '2014-01-16T23:12:21+00:00'
    """
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is beyond what a datetime can hold") from error


def is_unix(value: object) -> TypeGuard[int]:
    """Whether a value read from the API is whole Unix seconds that a datetime can hold."""
    return type(value) is int and _FIRST <= value <= _LAST


def read(value: object, name: str) -> datetime | None:
    """Reads a time from an answer: ISO 8601 text, trailing blanks and all, or Unix seconds.

    Intercom's own example of a summary ends in a blank. Text without an offset is taken as UTC,
    which the documentation assumes throughout.

    Raises:
        ValueError: The text is no time.
        TypeError: It is neither text nor a number.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(f"its {name} is {shown(value)}, which is no time")
    if not isinstance(value, str):
        return from_unix(value)
    try:
        moment = _isoparse(value.strip())
    except (ValueError, OverflowError) as error:
        raise ValueError(f"its {name} is {shown(value)}, which is no time") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _from_datetime(moment: datetime, name: str) -> int:
    try:
        # Cut off before it becomes a float, which would round: upwards for times before 1970, and
        # microseconds in the far future.
        seconds = math.floor(moment.replace(microsecond=0).timestamp())
        naive = moment.utcoffset() is None
    except (ValueError, TypeError, OverflowError) as error:  # pandas.NaT, the end of the year 9999
        raise TimestampError(f"{name} is {shown(moment)}, which is no time: {error}") from error
    if naive:
        raise TimestampError(
            f"{name} is a datetime without a time zone: "
            "say which, with datetime.now(UTC) or value.replace(tzinfo=UTC), say"
        )
    return seconds


def _parse(text: str, name: str) -> datetime:
    try:
        moment = _isoparse(text.strip())
    except (ValueError, OverflowError) as error:
        raise TimestampError(
            f"{name} is {shown(text)}, which is no ISO 8601 time: write 2026-01-31T12:00:00Z, say"
        ) from error
    if moment.tzinfo is None:
        raise TimestampError(
            f"{name} is {shown(text)}, which carries no offset: write 2026-01-31T12:00:00Z, or "
            "+02:00 in place of Z, say"
        )
    return moment


def _whole(value: float, name: str) -> int:
    if not math.isfinite(value):
        raise TimestampError(f"{name} is {value}, which is no time")
    if value != int(value):
        raise TimestampError(
            f"{name} is {value!r}, and the API counts whole seconds: "
            f"decide what becomes of the fraction, with int({name}), say"
        )
    return int(value)


def _isoparse(text: str) -> datetime:
    # Imported when first needed: most programs pass datetimes, and it costs 10 ms.
    from dateutil.parser import isoparse

    return isoparse(text)
