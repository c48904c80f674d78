"""Reads rows, in which a damaged or made-up file may have anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from intercom_data_events.errors import IntercomError, OutboxError
from intercom_data_events.event import Event

# Failed attempts; more would take decades.
_MOST_TRIES = 1_000_000


def fields(text: bytes) -> Mapping[str, object]:
    """Returns the fields of an event, or what can be read of them."""
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return {"event": text.decode(errors="replace")}
    return decoded if isinstance(decoded, dict) else {"event": decoded}


def event(text: bytes) -> Event:
    """Returns an event that the file holds.

    Raises:
        IntercomError: It is not an event.
    """
    try:
        return Event.from_dict(json.loads(text))
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
        raise OutboxError("the file holds an event whose tracked_at is no time")
    if not isinstance(tries, int) or not 0 <= tries <= _MOST_TRIES:
        raise OutboxError("the file holds an event whose tries is no number of attempts")
    if rejected_at is not None and seconds(rejected_at) is None:
        raise OutboxError("the file holds an event whose rejected_at is no time")


def seconds(value: Any) -> float | None:
    """Returns a time that a file holds; None where it is none."""
    if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 1e12:
        return None
    return float(value)


def text(value: Any) -> str | None:
    """Returns a text that a file holds; None where it is none."""
    return value.decode(errors="replace") if isinstance(value, bytes) else None
