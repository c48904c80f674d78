"""Reads rows, in which a damaged or made-up file may have anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from intercom_data_events._validation import decode_json
from intercom_data_events.errors import IntercomError, OutboxError
from intercom_data_events.event import Event

# Failed attempts; more would take decades.
_MOST_TRIES = 1_000_000
# Bytes of an event, of another text, and of the rows that are read at once.
_LONGEST = 16 * 1024 * 1024
_LONGEST_TEXT = 100_000
_MOST_BYTES = 32 * 1024 * 1024
# Levels of an event's JSON; one of ours has four.
_DEEPEST = 20
# The first and the last second that a datetime can be, in Unix seconds.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799

#: Before the first number of a row.
BEGIN = -math.inf
#: The SQL that reads an event: it may not be a string, or be missing, or not be UTF-8.
EVENT = f"substr(CAST(event AS BLOB), 1, {_LONGEST + 1})"


def number(column: str) -> str:
    """Returns the SQL that reads a number; None where a row has something else."""
    return f"CASE WHEN typeof({column}) IN ('integer', 'real') THEN {column} END"


def string(column: str) -> str:
    """Returns the SQL that reads a string, as bytes that :func:`text` decodes."""
    return f"substr(CAST({column} AS BLOB), 1, {_LONGEST_TEXT})"


def some(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Returns the first rows, as many as a process can well hold; one at least."""
    found: list[tuple[Any, ...]] = []
    room = _MOST_BYTES
    for row in rows:
        found.append(row)
        room -= sum(len(value) for value in row if isinstance(value, bytes))
        if room <= 0:
            break
    return found


def fields(text: bytes | None) -> Mapping[str, object]:
    """Returns the fields of an event, or what can be read of them."""
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
    """Returns an event that the file holds.

    Raises:
        IntercomError: It is not an event.
    """
    if text is not None and len(text) > _LONGEST:
        raise OutboxError(f"the file holds an event of more than {_LONGEST:,} bytes")
    try:
        decoded: Any = decode_json(text or b"")
        if isinstance(decoded, dict) and "created_at" not in decoded:
            # It would be another one with each attempt.
            raise OutboxError("the file holds an event without created_at")
        return Event.from_dict(decoded)
    except IntercomError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise OutboxError(f"the file holds something that is not an event: {error}") from error


def check(tracked_at: object, tries: object, rejected_at: object) -> None:
    """Checks what a row says beside its event.

    Raises:
        OutboxError: It is of another type, or beyond any reason.
    """
    if seconds(tracked_at) is None:
        raise OutboxError("the file holds an event whose tracked_at is not a time")
    if not isinstance(tries, int) or not 0 <= tries <= _MOST_TRIES:
        raise OutboxError("the file holds an event whose tries is not a number of attempts")
    if rejected_at is not None and seconds(rejected_at) is None:
        raise OutboxError("the file holds an event whose rejected_at is not a time")


def seconds(value: Any) -> float | None:
    """Returns a time that a file holds; None where it is none."""
    if not isinstance(value, int | float) or not _FIRST <= value <= _LAST:
        return None
    return float(value)


def text(value: Any) -> str | None:
    """Returns a text that a file holds; None where it is none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else None
