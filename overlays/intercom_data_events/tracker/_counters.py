"""The counters of trackers."""

from __future__ import annotations

import sys
from operator import length_hint

from attrs import frozen

from intercom_data_events.errors import IntercomError


@frozen
class Counters:
    """What a tracker has done, in this process.

    Attributes:
        queued: Events that wait or are in flight; in an outbox, those of all its processes.
        sent: Events that Intercom has accepted.
        refused: Events that were rejected; `on_error` was called for each.
        dropped: Events that were given up, because the queue was full, or the tracker was closed
            before they were sent, or `before_send` failed: `on_error` was called for each. Events
            that were tracked by code that runs while an event is sent, or by `on_error` while the
            queue was full, are counted here, too, without a call of `on_error`.
        collisions: Events that are the same to Intercom as one tracked shortly before: the same
            person, name and second. They are sent; Intercom keeps one.
        oldest_age: Seconds since the event that waits longest was tracked; 0 if none waits, and
            once the tracker is closed.
        failing: Why nothing is sent at the moment, or None.
        filtered: Events that `before_send` returned None for.
    """

    queued: int = 0
    sent: int = 0
    refused: int = 0
    dropped: int = 0
    collisions: int = 0
    oldest_age: float = 0.0
    failing: IntercomError | None = None
    filtered: int = 0


class Count:
    """A counter that any thread can increment without a lock, even during another increment."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        # One call of a C function increments it, and another one reads it.
        self._left = iter(range(sys.maxsize))

    def add(self) -> int:
        """Adds one, and returns the new count."""
        return next(self._left) + 1

    @property
    def value(self) -> int:
        """The count."""
        return sys.maxsize - length_hint(self._left)


def is_worth_a_line(count: int) -> bool:
    """Whether to log this occurrence of something frequent: the 1st, 2nd, 4th, 8th and so on."""
    return count & (count - 1) == 0
