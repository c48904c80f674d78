# ruff: noqa: S608  # the parts of the statements are our own
"""Sends without claims, in one process at a time, while a full disk has no room for claims.

The process remembers which events were accepted, rejected or delayed, and writes that when there is
room. If it ends before that, the accepted events are sent again.
"""

from __future__ import annotations

import errno
import heapq
import math
import os
import sqlite3
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from intercom_data_events._sending.runtime import guard_forks
from intercom_data_events.outbox import _rows

if TYPE_CHECKING:
    from intercom_data_events.tracker._queue import QueuedEvent

if sys.platform == "linux":
    import fcntl

# The largest number of rows whose numbers are read at once, and of rows skipped in one turn.
_AT_ONCE = 500
_PASSED_OVER = 5_000
# Seconds until the search for rows that were added or released starts at the beginning again.
_AGAIN = 60.0
_BEGIN: tuple[Any, int] = (-1e300, -(2**63))
_FREE = (
    "SELECT tracked_at, id FROM events WHERE held_until IS NULL AND (tracked_at, id) > (?, ?) "
    # Other rows become dead letters once there is room.
    "AND typeof(tracked_at) IN ('integer', 'real') ORDER BY tracked_at, id LIMIT ?"
)
_DUE = (
    "SELECT held_until, id FROM events WHERE held_until <= ? AND (owner IS NULL OR ?) "
    "AND (held_until, id) > (?, ?) ORDER BY held_until, id LIMIT ?"
)
_ROW = (
    f"SELECT id, {_rows.EVENT}, {_rows.number('tracked_at')}, {_rows.number('tries')}, "
    f"{_rows.number('rejected_at')} FROM events WHERE id = ?"
)
#: The device and the inode of a file; None for a missing file.
Place = tuple[int, int] | None
# Seconds between attempts to get a lock, which a process that only checks it holds for a moment.
_PAUSES = (0.0005, 0.001, 0.002, 0.0)


class Alone:
    """The events that one process sends without claims.

    Attributes:
        handed: The events in flight, by their numbers.
        delayed: The events that failed, by their numbers.
    """

    def __init__(self) -> None:
        self.handed: dict[int, QueuedEvent] = {}
        self.delayed: dict[int, QueuedEvent] = {}
        self._ends: list[tuple[float, int]] = []
        # Rows up to these were handed out; they cannot be removed yet.
        self._free, self._due = _BEGIN, _BEGIN
        self._numbers = deque[int]()
        self._hurries = False
        self._began_at: float | None = None

    def next_row(
        self,
        connection: sqlite3.Connection,
        now: float,
        is_known: Callable[[int], bool],
        *,
        others_died: bool,
    ) -> tuple[Any, ...] | None:
        """Returns the next row that was not handed out.

        Args:
            connection: The file.
            now: The current time in Unix seconds.
            is_known: Whether this process knows more about an event than the file does.
            others_died: Whether the owners of expired claims have ended.
        """
        passed_over = 0
        while passed_over < _PASSED_OVER and self._has_numbers(connection, now, others_died):
            number = self._numbers.popleft()
            if number in self.handed or number in self.delayed or is_known(number):
                passed_over += 1
            elif (row := connection.execute(_ROW, (number,)).fetchone()) is not None:
                return tuple(row)
        return None

    def _has_numbers(self, connection: sqlite3.Connection, now: float, others_died: bool) -> bool:
        if self._began_at is None:
            self._began_at = now
        if not self._numbers and abs(now - self._began_at) >= _AGAIN:
            self._free, self._due, self._began_at = _BEGIN, _BEGIN, now
        if not self._numbers and (
            rows := connection.execute(_FREE, (*self._free, _AT_ONCE)).fetchall()
        ):
            self._free = rows[-1]
            self._numbers.extend(row[1] for row in rows)
        if not self._numbers:
            due = math.inf if self._hurries else now
            # After end_delays(), all delays have ended, but no claims.
            if rows := connection.execute(
                _DUE, (due, others_died and not self._hurries, *self._due, _AT_ONCE)
            ).fetchall():
                self._due = rows[-1]
                self._numbers.extend(row[1] for row in rows)
            elif self._hurries:
                self._hurries, self._due = False, _BEGIN
        return bool(self._numbers)

    def next_delayed(self, now: float) -> QueuedEvent | None:
        """Returns an event whose delay is over, if there is one."""
        while self._ends and self._ends[0][0] <= now:
            queued = self.delayed.pop(heapq.heappop(self._ends)[1], None)
            if queued is not None:
                self.handed[queued.id] = queued
                return queued
        return None

    def delay(self, queued: QueuedEvent, until: float) -> None:
        """Delays an event, so that it is returned again later."""
        self.handed.pop(queued.id, None)
        self.delayed[queued.id] = queued
        heapq.heappush(self._ends, (until, queued.id))

    def end_delays(self) -> None:
        """Ends all delays."""
        self._ends = [(-math.inf, number) for number in self.delayed]
        self._hurries, self._due = True, _BEGIN

    def has_due(self, connection: sqlite3.Connection, now: float, *, others_died: bool) -> bool:
        """Whether there may be an event to return."""
        return bool(self._ends and self._ends[0][0] <= now) or self._has_numbers(
            connection, now, others_died
        )


class Lock:
    """An advisory lock on a file, which ends with its process.

    Args:
        path: The file.
        place: Returns the file's device and inode when the outbox opened it, because another file
            may have replaced it.
        is_kept: Whether SQLite has locks on the file, which closing it would end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        place: Callable[[], Place],
        is_kept: Callable[[Place], bool] = lambda _: False,
    ) -> None:
        self._path = path
        self._wanted = place
        self._is_kept = is_kept
        self._descriptor: int | None = None
        self._place: Place = None
        self._process = 0
        self.is_held = False
        _locks[id(self)] = self
        # Open it now, because it may be moved later.
        self._is_open()

    def __del__(self) -> None:
        """Closes the file."""
        with suppress(Exception):  # The interpreter may be ending.
            self.close()

    def acquire(self, *, shared: bool = False) -> bool:
        """Takes the lock if it is free soon; returns whether this process has it."""
        if not self._is_open():
            return False
        for pause in _PAUSES:
            if self.is_held or self._try(shared=shared):
                self.is_held = True
                break
            time.sleep(pause)
        return self.is_held

    def release(self) -> None:
        """Releases the lock."""
        if self.is_held and self._process == os.getpid():
            self._unlock()
        self.is_held = False

    @contextmanager
    def sharing(self) -> Generator[bool]:
        """Keeps others from taking the lock in a block; yields whether no other process has it."""
        result = None if self.is_held or not self._is_open() else self._try(shared=True)
        try:
            yield result is not False
        finally:
            # It may have been acquired since.
            if result and not self.is_held:
                self._unlock()

    @property
    def is_others(self) -> bool:
        """Whether another process or queue has the lock, exclusive or shared."""
        if self.is_held or not self._is_open():
            return False
        result = self._try(shared=False)
        if result:
            self._unlock()
        return result is False

    def _try(self, *, shared: bool) -> bool | None:
        """Tries to take the lock; returns whether it was free, or None if locks do not work."""
        descriptor = self._descriptor
        if sys.platform != "linux" or descriptor is None:
            return None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
        return True

    def _unlock(self) -> None:
        # A finalizer may have closed it.
        if sys.platform == "linux" and (descriptor := self._descriptor) is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _is_open(self) -> bool:
        """Opens the file if needed, even if the outbox now uses another file."""
        if sys.platform != "linux":
            # Windows has no such locks, and on BSD and macOS they conflict with SQLite's locks.
            return False
        if self._process != os.getpid():
            # This process was forked without Python's hooks, and the lock belongs to the parent.
            self._descriptor, self._process, self.is_held = None, os.getpid(), False
        wanted = self._wanted()
        if self._descriptor is None or wanted not in (None, self._place):
            with suppress(OSError):
                found = os.stat(self._path)
                place = found.st_dev, found.st_ino
                if wanted in (None, place):
                    self.close()
                    self._descriptor = _opened(self._path, place)
                    self._place = place
        return self._descriptor is not None

    def close(self) -> None:
        """Releases the lock, and closes the file."""
        self.release()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or self._process != os.getpid():
            return
        if self._is_kept(self._place):
            _parked.setdefault(self._place, []).append(descriptor)
            return
        for each in (descriptor, *_parked.pop(self._place, ())):
            os.close(each)

    def forget(self) -> None:
        """Closes the file in a forked child; the lock belongs to the parent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self.is_held = None, False


def _opened(path: str | os.PathLike[str], place: Place) -> int:
    with suppress(LookupError):
        return _parked[place].pop()
    return os.open(path, os.O_RDONLY)


_locks = weakref.WeakValueDictionary[int, Lock]()
# Descriptors of open databases, whose locks are not needed.
_parked: dict[Place, list[int]] = {}


class _Children:
    """Closes the descriptors in a forked child, which would keep its parent's locks."""

    def before_fork(self) -> bool:
        return True

    def after_fork(self, *, in_child: bool, waited: bool) -> None:  # noqa: ARG002  # like all guards
        if not in_child:
            return
        for reference in _locks.valuerefs():
            if (lock := reference()) is not None:
                lock.forget()
        while _parked:
            for descriptor in _parked.popitem()[1]:
                os.close(descriptor)


_children = _Children()
guard_forks(_children)
