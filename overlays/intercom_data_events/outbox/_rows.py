"""Reads rows of a file that may be damaged or crafted, and so may contain anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from intercom_data_events._validation import decode_json
from intercom_data_events.errors import IntercomError, OutboxError
from intercom_data_events.event import Event

# The largest number of failed attempts; more would take decades.
_MOST_TRIES = 1_000_000
# The largest number of bytes of an event, of another string, and of the rows read at once.
_LONGEST = 16 * 1024 * 1024
_LONGEST_TEXT = 100_000
_MOST_BYTES = 32 * 1024 * 1024
# The maximum nesting of an event's JSON; our events have four levels.
_DEEPEST = 20
# The first and the last second that a datetime can express, in Unix seconds.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799

#: Less than the number of any row.
BEGIN = -math.inf
#: The SQL that reads an event, which may be missing, not a string, or not UTF-8.
EVENT = f"substr(CAST(event AS BLOB), 1, {_LONGEST + 1})"


def number(column: str) -> str:
    """Returns the SQL that reads a number, or NULL if a row holds something else."""
    return f"CASE WHEN typeof({column}) IN ('integer', 'real') THEN {column} END"


def string(column: str) -> str:
    """Returns the SQL that reads a string, as bytes that :func:`text` decodes."""
    return f"substr(CAST({column} AS BLOB), 1, {_LONGEST_TEXT})"


def some(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Returns the first rows, limited by their size in bytes, but at least one."""
    found: list[tuple[Any, ...]] = []
    room = _MOST_BYTES
    for row in rows:
        found.append(row)
        room -= sum(len(value) for value in row if isinstance(value, bytes))
        if room <= 0:
            break
    return found


def fields(text: bytes | None) -> Mapping[str, object]:
    """Returns the fields of an event, or its text if that is not a JSON object."""
    try:
        decoded = decode_json(text or b"")
    except (ValueError, RecursionError):
        decoded = None
    if decoded is None or _is_deep(decoded, _DEEPEST):
        return {"event": (text or b"").decode(errors="replace")}
    return decoded if isinstance(decoded, dict) else {"event": decoded}


def _is_deep(value: object, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(inner, Iterable) or isinstance(inner, str):
        return False
    return not levels or any(_is_deep(one, levels - 1) for one in inner)


def event(text: bytes | None) -> Event:
    """Returns the event of a row.

    Raises:
        IntercomError: The row does not hold an event.
    """
    if text is not None and len(text) > _LONGEST:
        raise OutboxError(f"the row's event must have at most {_LONGEST:,} bytes")
    try:
        decoded: Any = decode_json(text or b"")
        if isinstance(decoded, dict) and "created_at" not in decoded:
            # Each attempt would count as another event.
            raise OutboxError("created_at is missing from the row's event")
        return Event.from_dict(decoded)
    except IntercomError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise OutboxError(f"the row does not hold an event: {error}") from error


def check(tracked_at: object, tries: object, rejected_at: object) -> None:
    """Checks the other columns of an event's row.

    Raises:
        OutboxError: A value has the wrong type, or is out of range.
    """
    if seconds(tracked_at) is None:
        raise OutboxError("the row's tracked_at must be a time in Unix seconds")
    if not isinstance(tries, int) or not 0 <= tries <= _MOST_TRIES:
        raise OutboxError(f"the row's tries must be an integer from 0 to {_MOST_TRIES:,}")
    if rejected_at is not None and seconds(rejected_at) is None:
        raise OutboxError("the row's rejected_at must be a time in Unix seconds")


def seconds(value: Any) -> float | None:
    """Returns a value if it is a time in Unix seconds, else None."""
    if not isinstance(value, int | float) or not _FIRST <= value <= _LAST:
        return None
    return float(value)


def text(value: Any) -> str | None:
    """Decodes a value if it is a string, read as bytes; returns None otherwise."""
    return value.decode(errors="replace") if isinstance(value, bytes) else None
