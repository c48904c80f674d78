"""The counters of trackers."""

from __future__ import annotations

import sys
from operator import length_hint

from attrs import frozen

from intercom_data_events.errors import IntercomError


@frozen
class Counters:
    """The number of events that a tracker has tracked and sent in this process.

    Attributes:
        queued: Events that are waiting or in flight, across all processes of an outbox.
        sent: Events that Intercom has accepted.
        refused: Events that were rejected. `on_error` was called for each.
        dropped: Events that were dropped because the queue was full, the tracker was closed before
            they were sent, or `before_send` failed. `on_error` was called for each, except for
            events that were dropped because the queue was full while they were tracked by
            `on_error`, or by code that runs while an event is sent.
        collisions: Events that Intercom treats as duplicates of one tracked shortly before: same
            contact, name and second. They are sent; Intercom keeps one.
        oldest_age: Seconds since the oldest waiting event was tracked; 0 if none is waiting or the
            tracker is closed.
        failing: The error that prevents sending at the moment, or None.
        filtered: Events for which `before_send` returned None.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.tracker import Tracker
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> with Tracker(client) as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        >>> tracker.counters.sent, tracker.counters.queued, tracker.counters.failing
        (1, 0, None)
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
