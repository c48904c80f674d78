"""Sending without claims, while a full disk has no room for them: one process at a time.

What was accepted, rejected and delayed meanwhile is remembered, and written when there is room.
Processes that die meanwhile have accepted events sent again.
"""

from __future__ import annotations

import heapq
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from intercom_data_events._sending.runtime import guard_forks

if TYPE_CHECKING:
    from pathlib import Path

    from intercom_data_events.tracker._queue import QueuedEvent

try:
    import fcntl
except ImportError:  # Windows: there, a full disk stops everything.
    fcntl = None  # type: ignore[assignment]

_BEGIN: tuple[Any, int] = (-1e300, -(2**63))
_SELECT = "SELECT id, CAST(event AS BLOB), tracked_at, tries, rejected_at"
_NEXT_FREE = (
    f"{_SELECT} FROM events WHERE held_until IS NULL AND (tracked_at, id) > (?, ?) "
    "ORDER BY tracked_at, id LIMIT 1"
)
_NEXT_DUE = (
    f"{_SELECT}, held_until FROM events WHERE held_until <= ? AND owner IS NULL "
    "AND (held_until, id) > (?, ?) ORDER BY held_until, id LIMIT 1"
)


class Alone:
    """What one process sends without claims.

    Attributes:
        handed: The events in flight, by their numbers.
    """

    def __init__(self) -> None:
        self.handed: dict[int, QueuedEvent] = {}
        self._delayed: list[tuple[float, int, QueuedEvent]] = []
        # Rows up to these were handed out: removing them has to wait.
        self._free, self._due = _BEGIN, _BEGIN

    def next_row(self, connection: sqlite3.Connection, now: float) -> tuple[Any, ...] | None:
        """Returns the next row that was not handed out."""
        row = connection.execute(_NEXT_FREE, self._free).fetchone()
        if row is not None:
            self._free = row[2], row[0]
            return tuple(row)
        row = connection.execute(_NEXT_DUE, (now, *self._due)).fetchone()
        if row is not None:
            self._due = row[5], row[0]
            return tuple(row[:5])
        return None

    def next_delayed(self, now: float) -> QueuedEvent | None:
        """Returns an event whose delay is over."""
        if self._delayed and self._delayed[0][0] <= now:
            queued = heapq.heappop(self._delayed)[2]
            self.handed[queued.id] = queued
            return queued
        return None

    def delay(self, queued: QueuedEvent, until: float) -> None:
        """Has an event be returned again later."""
        self.handed.pop(queued.id, None)
        heapq.heappush(self._delayed, (until, queued.id, queued))

    def end_delays(self) -> None:
        """Ends all delays."""
        self._delayed = [(-1e300, number, queued) for _, number, queued in self._delayed]
        heapq.heapify(self._delayed)

    def has_due(self, connection: sqlite3.Connection, now: float) -> bool:
        """Whether there is anything to return."""
        return bool(
            (self._delayed and self._delayed[0][0] <= now)
            or connection.execute(_NEXT_FREE, self._free).fetchone()
            or connection.execute(_NEXT_DUE, (now, *self._due)).fetchone()
        )


class Lock:
    """The right to send alone: an advisory lock on the database, that ends with its process.

    Args:
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> bool:
        """Takes the right; returns whether nobody else has it."""
        place, descriptor = self._descriptor()
        if descriptor is None or _holders.get(place) not in (None, self):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        _holders[place] = self
        return True

    def release(self) -> None:
        """Gives the right back."""
        for place in [place for place, holder in _holders.items() if holder is self]:
            del _holders[place]
            fcntl.flock(_descriptors[place], fcntl.LOCK_UN)

    @property
    def is_others(self) -> bool:
        """Whether somebody else has it."""
        place, descriptor = self._descriptor()
        if descriptor is None:
            return False
        if (holder := _holders.get(place)) is not None:
            return holder is not self
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    def _descriptor(self) -> tuple[tuple[int, int], int | None]:
        if fcntl is None:
            return (0, 0), None
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0), None
        place = found.st_dev, found.st_ino
        if place not in _descriptors:
            try:
                _descriptors[place] = os.open(self._path, os.O_RDONLY)
            except OSError:
                return place, None
        return place, _descriptors[place]


# Never closed while this process has the database open: that would end SQLite's locks on it.
_descriptors: dict[tuple[int, int], int] = {}
_holders: dict[tuple[int, int], Lock] = {}


class _Children:
    """A forked child would hold the lock for its parent."""

    def before_fork(self) -> bool:
        return True

    def after_fork(self, *, in_child: bool, waited: bool) -> None:  # noqa: ARG002  # as all guards
        if in_child:
            _holders.clear()
            while _descriptors:
                os.close(_descriptors.popitem()[1])


_children = _Children()
guard_forks(_children)
