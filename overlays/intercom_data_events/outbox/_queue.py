# ruff: noqa: S608  # the parts of the statements are our own
"""A tracker's queue in an outbox."""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

from intercom_data_events._counting import counted
from intercom_data_events._identity import person
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import (
    APIStatusError,
    IntercomError,
    OutboxError,
)
from intercom_data_events.event import Event
from intercom_data_events.outbox import Outbox, _rows
from intercom_data_events.outbox._alone import Alone, Lock
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._errors import is_busy, is_full
from intercom_data_events.outbox._file import (
    LONG_LOG,
    OPENING,
    OutboxFile,
    Slot,
    SlotInUseError,
    is_open,
)
from intercom_data_events.outbox._schema import LAST_NUMBER, one, pragma
from intercom_data_events.tracker._queue import LONGEST_HELD, RECENT, TURNS, QueuedEvent

log = logging.getLogger("intercom_data_events")

_UNREADABLE = (
    "an unreadable event in %s is now a dead letter; to see why, run: "
    "intercom-events outbox dead %s"
)

#: The default number of events that a file holds.
MOST = 1_000_000
# Seconds after which a claim expires unless its process renews it, and between two renewals.
_STALLED_AFTER = 30.0
_HEARTBEAT = 10.0
# The value of SQLite's setting "auto_vacuum" in files that can return free pages to the disk.
_INCREMENTAL = 2
# The largest number of rows to count at once: counting all rows takes longer the more there are.
_COUNTED = 5_000
# Checks, about one a second, after which an unchanged log is checkpointed, however short it is. The
# next writer then waits for the disk, so this should not happen between the events of a burst.
_LONG_REST = 10
# Bytes of the log: above the first limit, it is checkpointed when no events come; above the second,
# also while events come; above the third, writers wait for the checkpoint.
_SHORT_LOG = 256 * 1024
_LONG_LOG = LONG_LOG
_TOO_LONG_LOG = 256 * 1024 * 1024
# Milliseconds that writers then wait for a process that is reading.
_WAITING_FOR_READERS = 100
# Free pages that a file may keep, and the largest number to return to the disk at once.
_FREE_PAGES = 256
_GIVEN_BACK = 1_000
# Seconds that returning pages may take at once, because writers wait, and seconds until the next
# pages. To move a page, SQLite searches the list of free pages: 0.1 ms if there are 50,000.
_GIVING_BACK = 0.001
_NEXT_BACK = 0.004
# How many times in a row pages are returned while others write.
_BESIDE_WRITERS = 20
# The largest number of rows to change in one transaction, and seconds until the next one, for other
# writers.
_AT_ONCE = 500
_BREAK = 0.001
# Seconds that a write of the dispatcher waits for enqueue's lock.
_TURN = 0.05
# Seconds between two log lines about a full disk.
_SELDOM = 60.0
# The largest number of free events that claim() searches for one of another contact.
_LOOKED_THROUGH = 500
# If claim() fails for this many events in a row that are free by the index, the index is damaged.
_MOST_MISSED = 1_000

# Processes of earlier versions may use the same file, so every statement names its columns.
_INSERT = "INSERT INTO events (event, tracked_at) VALUES (?, ?)"
_FREE = (
    f"SELECT id, {_rows.EVENT}, {_rows.number('tracked_at')}, {_rows.number('tries')}, "
    f"{_rows.number('rejected_at')} FROM events WHERE held_until IS NULL "
    "ORDER BY tracked_at, id LIMIT ?"
)
_FREE_RECENT = _FREE.replace("WHERE held_until", "WHERE tracked_at > ? AND held_until")
_ANY_FREE = "SELECT EXISTS (SELECT 1 FROM events WHERE held_until IS NULL)"
# Each of the dispatcher's writes is one statement that returns no row. UPDATE ... RETURNING and
# BEGIN hold the write lock while Python code runs, including finalizers that enqueue.
_CLAIM = (
    "UPDATE events SET held_until = ?, owner = ? WHERE id = ? AND held_until IS NULL AND tries = ?"
)
# For events that were handed out without a claim while the disk was full.
_CLAIM_HANDED = "UPDATE events SET held_until = ?, owner = ? WHERE id = ?"
_NACK_HANDED = (
    "UPDATE events SET held_until = ?, owner = NULL, tries = ?, rejected_at = ? WHERE id = ?"
)
_RENEW = "UPDATE events SET held_until = ? WHERE owner = ? AND id = ?"
_NACK = (
    "UPDATE events SET held_until = ?, owner = NULL, tries = tries + 1, rejected_at = ? "
    "WHERE owner IS ? AND id = ?"
)
_RELEASE = "UPDATE events SET held_until = NULL, owner = NULL WHERE owner IS ? AND id = ?"
_RELEASE_DELAYED = (
    "UPDATE events SET held_until = NULL WHERE id IN (SELECT id FROM events "
    "WHERE held_until IS NOT NULL AND owner IS NULL LIMIT ?)"
)
_ANY_OVER = "SELECT EXISTS (SELECT 1 FROM events WHERE held_until <= ? OR held_until > ?)"
# Claims and delays that end much later were made by a clock that has been set back since.
_END_OVER = (
    "UPDATE events SET held_until = NULL, owner = NULL WHERE id IN (SELECT id FROM events "
    "WHERE held_until <= ? OR held_until > ? LIMIT ?)"
)
_REMOVE = "DELETE FROM events WHERE id = ?"
_FORGET = "DELETE FROM dead WHERE id = ?"
_OLDEST = f"SELECT {_rows.number('tracked_at')} FROM events ORDER BY id LIMIT 1"
_COUNT = f"SELECT count(*), ({LAST_NUMBER}) FROM events"
# In one statement, because a transaction would block a finalizer that writes.
_COUNT_SOME = (
    f"SELECT ({LAST_NUMBER}), count(*), max(id), "
    "coalesce((SELECT max(id) FROM events) - (SELECT min(id) FROM events) + 1, 0) "
    "FROM (SELECT id FROM events WHERE id > ? ORDER BY id LIMIT ?)"
)
_DRAINED = "SELECT count(*) FROM (SELECT 1 FROM events WHERE id <= ? LIMIT ?)"
_LEFT = "SELECT id FROM events WHERE id <= ?"
# The connection's trigger also removes the event.
_BURY = (
    "INSERT OR REPLACE INTO dead (id, event, tracked_at, tries, died_at, error, message, status, "
    "request_id) SELECT id, coalesce(event, ''), coalesce(tracked_at, 0), coalesce(tries, 0), "
    "?, ?, ?, ?, ? FROM events WHERE id = ?"
)


class OutboxQueue(Outbox):
    """The events of a tracker in a file, for the threads of one process.

    ``enqueue`` may be called from any thread, signal handler or finalizer. It has a separate
    connection, because CPython's connections are not thread-safe: 129 of 96,000 acknowledged
    INSERTs of 8 threads were missing on 3.12 (python/cpython#118172). The other methods are for one
    dispatcher. Each of its writes is one statement that returns no row, so a finalizer that tracks
    in between never waits for its own thread.

    Every method raises an OutboxError, with the remedy, if the file cannot be used; earlier events
    stay in it.

    Args:
        path: The path. A missing file is created for its owner alone (mode 0600).
        binding: The workspace of the events; None to only inspect the file.
        most: The largest number of events in the file; exact in one process, approximate in
            several.
        patience: Seconds to wait for another process that writes, once the file is open.
        create: Whether to create a missing file.

    Raises:
        OutboxError: The file cannot be used.
        ConfigurationError: The file holds events of another workspace.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        binding: Binding | None = None,
        *,
        most: int = MOST,
        patience: float = 1.0,
        create: bool = True,
    ) -> None:
        self._most = most
        self._patience = patience
        self._owner = uuid.uuid4().hex
        # Whether a thread has kept enqueue's lock for too long.
        self._kept = False
        self._turn = 0
        # The log when it was last checked: its time, its length, and for how many checks it has not
        # changed.
        self._changed = self._log_length = self._resting = 0
        # The pages that could be returned to the disk, and whether they are most of the file.
        self._free_pages, self._mostly_free = 0, False
        self._renewed = 0.0
        # How often events were moved, because the log was deleted or replaced.
        self._rescues = 0
        # Accepted events whose removal is not written yet, and claimed events, with their JSON in
        # the file.
        self._leaving: set[int] = set()
        self._claimed: dict[int, tuple[QueuedEvent, bytes]] = {}
        # Writes that a full disk had no room for: dead letters, and updates of events that stay,
        # each without the event's number.
        self._dying: dict[int, tuple[object, ...]] = {}
        self._unwritten: dict[int, tuple[str, tuple[object, ...]]] = {}
        self._alone: Alone | None = None
        self._warned_at = -math.inf
        file = self._file = OutboxFile(path, binding, patience=patience, create=create)
        # The one process that sends without claims holds the first lock. Processes that have
        # something to write, or cannot renew their claims, share the second one: while they do, no
        # claim expires.
        self._lock = Lock(file.path, file.place, is_open)
        self._pending = Lock(file.log_path, file.log_place)
        with file.using(file.main) as connection:
            # The events at the start minus those that have left since, and those that others added.
            self._counted: int
            self._first: int
            self._counted, self._first = connection.execute(_COUNT).fetchone()
            self._added = 0
            # How far the current count has come.
            self._swept, self._swept_to = 0, _rows.BEGIN
        file.on_rescue, file.on_child = self._renumber, self._leave_to_parent

    @property
    def size(self) -> int:
        """The number of events, as far as this process knows."""
        present = self._counted + self._added + self._reserved
        # Events that others added may have been sent before they were counted.
        return max(0, present - len(self._leaving) - len(self._dying))

    @property
    def _reserved(self) -> int:
        return self._file.inserts.reserved + self._file.spare.reserved

    @property
    def _inserted(self) -> int:
        return self._file.inserts.inserted + self._file.spare.inserted

    def enqueue(self, event: Event, now: float) -> bool:
        """Writes an event; returns False if the outbox is full.

        Raises:
            OutboxLockedError: Another program or thread locked the file for too long.
        """
        file = self._file
        text = json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":"))
        try:
            return self._insert(file.inserts, text, now)
        except SlotInUseError:
            # Without patience, the caller retries, unless its own thread uses the slot.
            if not (self._patience or file.inserts.uses):
                raise
        return self._insert(file.spare, text, now)

    def _insert(self, slot: Slot, text: str, now: float) -> bool:
        is_stored = self._insert_fast(slot, text, now) if self._file.is_ready(slot) else None
        return self._insert_slowly(slot, text, now) if is_stored is None else is_stored

    def _insert_fast(self, slot: Slot, text: str, now: float) -> bool | None:
        """Returns whether the event was stored; None if :meth:`_insert_slowly` has to store it."""
        file, number = self._file, None
        held: list[bool] = []
        try:
            # In one step, so that a handler's error can neither lose the lock nor release it twice.
            held.extend(map(slot.lock.acquire, (True,), (self._patience,)))
            if held == [False]:
                raise file.in_use(self._patience)
            if self.size >= self._most:
                return False
            # Before the INSERT, so that a finalizer in between cannot take the same place.
            slot.reserved += 1
            try:
                cursor = file.execute(slot, _INSERT, (text, now))
                number = None if cursor is None else cursor.lastrowid
            finally:
                self._settle(slot, number)
            is_unsure = slot.is_unsure
        finally:
            if held == [True]:
                slot.lock.release()
        if number is None:
            return None
        if is_unsure:
            file.save()
        return True

    def _insert_slowly(self, slot: Slot, text: str, now: float) -> bool:
        file, number = self._file, None
        file.check_place()
        with file.using(slot, self._patience) as connection:
            file.check_place()
            if self.size >= self._most:
                return False
            slot.reserved += 1
            try:
                number = connection.execute(_INSERT, (text, now)).lastrowid
            except sqlite3.ProgrammingError:
                if slot.connection is connection:
                    raise
                file.check_open()
                # A finalizer forked in between, which closed the connection.
                number = file.open(slot).execute(_INSERT, (text, now)).lastrowid
            finally:
                self._settle(slot, number)
        return True

    def _settle(self, slot: Slot, number: int | None) -> None:
        """Counts an event that was stored, or releases its reserved place."""
        if number is None:
            slot.reserved -= 1
        else:
            slot.inserted += 1
            self._file.logged = max(self._file.logged, number)

    def claim(
        self, now: float, avoid: Collection[tuple[str, str]] = frozenset()
    ) -> QueuedEvent | None:
        """Claims the next event to send, or returns None; the queue's docstring has the order.

        Args:
            now: The current time in Unix seconds.
            avoid: Contacts, as :func:`intercom_data_events._identity.person` returns them. If one
                of the next 500 events is of another contact, it goes first.
        """
        if self._alone is None:
            try:
                # Meanwhile, no other process can start to send alone.
                with self._lock.sharing() as allowed:
                    # Only the process that sends alone knows which events were accepted.
                    return self._claim(now, avoid) if allowed else None
            except OutboxError as error:
                if not self._is_full(error):
                    raise
                if self._alone is None:
                    if self._lock.is_others:
                        return None
                    raise
        return None if self._alone is None else self._next_unclaimed(self._alone, now)

    def _claim(self, now: float, avoid: Collection[tuple[str, str]]) -> QueuedEvent | None:
        missed = 0
        while True:
            claimed, rescues = 0, self._rescues
            with self._file.using(self._file.main) as connection:
                if missed > _MOST_MISSED:
                    raise sqlite3.DatabaseError("database disk image is malformed")
                rows = self._free(connection, now, _LOOKED_THROUGH if avoid else 1)
                if not rows:
                    return None
                number, text, *others = _chosen(rows, avoid)
                queued = _queued(number, text, *others)
                if isinstance(queued, QueuedEvent):
                    claim = (now + _STALLED_AFTER, self._owner, number, queued.tries)
                    claimed = self._write(connection, _CLAIM, *claim)
                    if claimed:
                        self._claimed[number] = queued, text
            if isinstance(queued, QueuedEvent):
                # The claim may be in a log that was deleted, and the new log may have another one.
                if claimed and (self._rescues == rescues or self._is_claimed(queued)):
                    return queued
                self._claimed.pop(queued.id, None)
                missed += 1  # Another process was faster.
                continue
            if not self._bury_row(number, queued, now, rescues):
                continue
            log.warning(_UNREADABLE, self._file.name, self._file.name)
            if number in self._dying:  # The disk is full.
                return None if self._alone is None else self._next_unclaimed(self._alone, now)

    def _is_claimed(self, queued: QueuedEvent) -> bool:
        query = "SELECT owner FROM events WHERE id = ?"
        with self._file.using(self._file.main) as connection:
            row = connection.execute(query, (queued.id,)).fetchone()
        return row is not None and row[0] == self._owner

    def _next_unclaimed(self, alone: Alone, now: float) -> QueuedEvent | None:
        if (delayed := alone.next_delayed(now)) is not None:
            self._unwritten.pop(delayed.id, None)
            return delayed
        others_died = not self._pending.is_others
        while True:
            rescues = self._rescues
            with self._file.using(self._file.main) as connection:
                row = alone.next_row(connection, now, self._is_known, others_died=others_died)
            if row is None:
                return None
            queued = _queued(*row)
            if not isinstance(queued, QueuedEvent):
                if self._bury_row(row[0], queued, now, rescues):
                    log.warning(_UNREADABLE, self._file.name, self._file.name)
                continue
            alone.handed[queued.id] = queued
            self._claimed[queued.id] = queued, row[1]
            return queued

    def _is_known(self, number: int) -> bool:
        """Whether this process knows more about an event than the file does."""
        return number in self._claimed or number in self._dying or number in self._unwritten

    def _is_full(self, error: OutboxError) -> bool:
        """Whether the disk is full; if so, this process sends alone, unless another one does."""
        if not is_full(error):
            return False
        if self._alone is None and self._lock.acquire():
            self._alone = Alone()
            now = SYSTEM.monotonic()
            if now - self._warned_at >= _SELDOM:
                self._warned_at = now
                log.warning(
                    "the disk of the outbox %s is full, so only this process sends its events; "
                    "free some space",
                    self._file.name,
                )
        elif self._alone is None:
            self._pending.acquire(shared=True)
        return True

    @contextmanager
    def _unless_full(self) -> Generator[None]:
        """Postpones a write if the disk is full."""
        try:
            yield
        except OutboxError as error:
            if not self._is_full(error):
                raise

    def ack(self, queued: QueuedEvent) -> None:
        """Removes an accepted event; later, if the disk is full."""
        self._leaving.add(queued.id)
        self._end_unclaimed(queued)
        with self._unless_full(), self._file.using(self._file.main) as connection:
            self._remove(connection)

    def dead_letter(self, queued: QueuedEvent, error: IntercomError, now: float) -> None:
        """Makes a rejected event a dead letter, unless another process saw it accepted."""
        self._end_unclaimed(queued)
        self._bury(lambda: queued.id, error, now)

    def nack(self, queued: QueuedEvent, delay: float, now: float) -> None:
        """Ends the claim on an event, and delays its next attempt.

        Args:
            queued: The event; its `rejected_at` is written, too.
            delay: Seconds until the next attempt.
            now: The current time in Unix seconds.
        """
        until = now + delay
        if self._alone is not None and queued.id in self._alone.handed:
            self._write_about(queued, _NACK_HANDED, until, queued.tries + 1, queued.rejected_at)
        else:
            self._write_about(queued, _NACK, until, queued.rejected_at, self._owner)
        if self._alone is not None:
            queued.tries += 1
            self._alone.delay(queued, until)

    def release(self, queued: QueuedEvent) -> None:
        """Ends the claim on an event."""
        self._write_about(queued, _RELEASE, self._owner)
        if self._alone is not None:
            self._alone.delay(queued, -math.inf)

    def run_maintenance(self, now: float, in_flight: Collection[QueuedEvent]) -> bool:
        """Renews the claims of this process, and ends expired claims and delays.

        The dispatcher calls it about once a second, even if nothing happens.

        Args:
            now: The current time in Unix seconds.
            in_flight: The events that this process has claimed.

        Returns:
            Whether an event is free to be claimed.
        """
        file = self._file
        file.watch()
        with self._unless_full():
            self._write_delayed(now, in_flight)
            if self._alone is None:
                self._end_over(now)
        if self._alone is not None:
            others_died = not self._pending.is_others
            with file.using(file.main) as connection:
                return self._alone.has_due(connection, now, others_died=others_died)
        with file.using(file.main) as connection:
            self._count(connection)
            # Files of earlier versions do not shrink until compact() has rewritten them.
            shrinks = pragma(connection, "auto_vacuum") == _INCREMENTAL
            self._free_pages = pragma(connection, "freelist_count") if shrinks else 0
            self._mostly_free = self._free_pages > pragma(connection, "page_count") / 2
            any_free = bool(one(connection, _ANY_FREE))
        with self._lock.sharing() as allowed:
            return any_free and allowed

    def _end_over(self, now: float) -> None:
        """Ends claims and delays that are over."""
        bounds = (now, now + LONGEST_HELD)
        with self._file.using(self._file.main) as connection:
            # Unlike the update, this query does not block other processes.
            over = one(connection, _ANY_OVER, *bounds)
        if over and not self._pending.is_others:
            with self._lock.sharing() as allowed:
                if allowed:
                    self._update_all(_END_OVER, *bounds)

    def _write_delayed(self, now: float, in_flight: Collection[QueuedEvent]) -> None:
        """Writes what was postponed while the disk was full, and renews claims."""
        alone = self._alone
        with self._file.using(self._file.main) as connection:
            if abs(now - self._renewed) >= _HEARTBEAT:
                for queued in in_flight:
                    self._write(connection, _RENEW, now + _STALLED_AFTER, self._owner, queued.id)
                self._renewed = now
            for number in list(alone.handed) if alone is not None else ():
                claim = (now + _STALLED_AFTER, self._owner, number)
                self._write(connection, _CLAIM_HANDED, *claim)
            if self._leaving:
                self._remove(connection)
            for number, described in list(self._dying.items()):
                changed = self._write(connection, _BURY, *described, number)
                self._dying.pop(number, None)
                self._left(number, changed)
            for number, (statement, values) in list(self._unwritten.items()):
                self._write(connection, statement, *values, number)
                self._unwritten.pop(number, None)
                self._claimed.pop(number, None)
        if self._leaving:
            return  # The log was deleted or replaced, so the rest is written to the new one later.
        if alone is not None:
            for number in alone.delayed:
                self._claimed.pop(number, None)
            self._alone = None
        self._lock.release()
        self._pending.release()

    def needs_checkpoint(self) -> bool:
        """Returns whether :meth:`checkpoint` has something to do."""
        try:
            found = os.stat(self._file.log_path)
        except OSError:
            return False
        self._resting = self._resting + 1 if found.st_mtime_ns == self._changed else 0
        self._log_length, self._changed = found.st_size, found.st_mtime_ns
        return self._has_checkpoint()

    @property
    def _rests(self) -> bool:
        return self._resting >= (_LONG_REST if self.size else 1)

    @property
    def _longest_log(self) -> int:
        if self._file.is_crowded or self._resting >= _LONG_REST:
            return 0
        return _SHORT_LOG if self._resting and not self.size else _LONG_LOG

    @property
    def _is_loose(self) -> bool:
        """Whether to return pages to the disk, because most are free or no events come."""
        if self._file.is_crowded or self._free_pages <= _FREE_PAGES:
            return False
        return self._rests or self._mostly_free

    def _has_checkpoint(self) -> bool:
        return not self._file.is_closed and (self._log_length > self._longest_log or self._is_loose)

    def checkpoint(self) -> None:
        """Moves the log into the database, and waits for the disk.

        It uses a separate connection, so that other threads can write in the meantime.
        """
        file = self._file
        if not self._has_checkpoint() or not file.is_intact:
            return
        rests = self._rests
        try:
            with file.beside(OPENING) as connection:
                self._checkpoint(connection, rests=rests)
                file.look_at_database(connection)
        except OutboxError:
            if file.is_intact:
                raise

    def _checkpoint(self, connection: sqlite3.Connection, *, rests: bool) -> None:
        file = self._file
        if self._is_loose:
            rests = self._give_back_pages(connection) and rests
        if rests or self._log_length > self._longest_log:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        if file.is_intact and (rests or file.is_crowded or self._log_length > _TOO_LONG_LOG):
            # Writers wait for this checkpoint, but the slow part is done.
            connection.execute(f"PRAGMA busy_timeout = {_WAITING_FOR_READERS}")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            file.is_crowded = False

    def _give_back_pages(self, connection: sqlite3.Connection) -> bool:
        """Shrinks the file by a few pages at a time; returns whether no other process wrote."""
        lock = self._file.inserts.lock
        writes = pragma(connection, "data_version")
        pages, parts = 1, 0
        while pragma(connection, "freelist_count") > _FREE_PAGES:
            is_written = pragma(connection, "data_version") != writes
            if self._file.is_closed or not self._file.is_intact:
                return False
            if is_written and parts >= _BESIDE_WRITERS:
                return False
            # Threads of this process take turns by this lock; see _write().
            if not lock.acquire(timeout=_TURN):
                return False
            try:
                begin = SYSTEM.monotonic()
                # In one step, because no finalizer may run while SQLite's lock is held.
                connection.executescript(f"PRAGMA incremental_vacuum({pages})")
                fits = SYSTEM.monotonic() - begin < _GIVING_BACK
            finally:
                lock.release()
            pages = min(pages * 2, _GIVEN_BACK) if fits else max(pages // 2, 1)
            parts += 1
            time.sleep(_NEXT_BACK)
        self._free_pages = 0
        return pragma(connection, "data_version") == writes

    def release_delayed(self) -> None:
        """Ends all delays."""
        with self._unless_full():
            self._update_all(_RELEASE_DELAYED)
        if self._alone is not None:
            self._alone.end_delays()

    def high_watermark(self) -> int:
        """Returns the number of the latest event."""
        with self._file.using(self._file.main) as connection:
            return one(connection, "SELECT coalesce(max(id), 0) FROM events")

    def is_drained(self, mark: int) -> bool:
        """Whether all events up to this number have left."""
        most = len(self._leaving) + len(self._dying)
        with self._file.using(self._file.main) as connection:
            left = one(connection, _DRAINED, mark, most + 1)
            if not left or left > most:
                return not left
            # Other processes may have removed some of these events.
            numbers = connection.execute(_LEFT, (mark,)).fetchall()
        return all(number in self._leaving or number in self._dying for (number,) in numbers)

    def counts_to(self, mark: int) -> tuple[int, int]:
        """Returns how many events up to this number are left, and how many are dead letters."""
        leaving = sum(number <= mark for number in self._leaving)
        dying = sum(number <= mark for number in self._dying)
        with self._file.using(self._file.main) as connection:
            left = one(connection, "SELECT count(*) FROM events WHERE id <= ?", mark)
            dead = one(connection, "SELECT count(*) FROM dead WHERE id <= ?", mark)
        return max(0, left - leaving - dying), dead + dying

    def oldest(self) -> float | None:
        """Returns when the oldest event was tracked, in Unix seconds."""
        with self._file.using(self._file.main) as connection:
            row = connection.execute(_OLDEST).fetchone()
        return None if row is None else _rows.seconds(row[0])

    def remaining(self) -> Iterator[QueuedEvent]:
        """Yields the events that are lost when this process ends; an outbox loses none."""
        return iter(())

    def retry(self, numbers: Iterable[int] | None = None) -> int:
        """Puts dead letters back into the queue; see :meth:`Outbox.retry`."""
        revived = super().retry(numbers)
        self._added += revived
        return revived

    def close(self) -> None:
        """Closes the file."""
        if not self._file.is_closed and (self._leaving or self._dying or self._unwritten):
            try:
                self._write_delayed(self._renewed, ())
            except OutboxError as error:
                if left := len(self._leaving) + len(self._dying):
                    log.error(
                        "%s could not be removed from the outbox %s and will be sent again: %s",
                        counted(left), self._file.name, error,
                    )  # fmt: skip
        self._lock.release()
        self._pending.release()
        super().close()
        self._lock.close()
        self._pending.close()

    def _leave_to_parent(self) -> None:
        """Forgets the claims, in a forked child."""
        self._owner = uuid.uuid4().hex
        self._leaving = set()
        self._claimed, self._dying, self._unwritten = {}, {}, {}
        self._alone = None

    def _free(self, connection: sqlite3.Connection, now: float, most: int) -> list[tuple[Any, ...]]:
        """Returns the next free events, in the order in which they are sent."""
        self._turn += 1
        rows: list[tuple[Any, ...]] = []
        if self._turn % TURNS:
            with closing(connection.execute(_FREE_RECENT, (now - RECENT, most))) as cursor:
                rows = _rows.some(cursor)
        if len(rows) < most:
            with closing(connection.execute(_FREE, (most,))) as cursor:
                rows += _rows.some(cursor)
        return rows

    def _count(self, connection: sqlite3.Connection) -> None:
        """Counts what others have added and removed, in a bounded time for any number of events.

        The last number shows what others added. If they removed the oldest events, that shows at
        once; other removals show after the rounds that it takes to count all events in parts.
        """
        # Events that other threads enqueue in the meantime may or may not be counted.
        before = self._inserted
        bounds = (self._swept_to, _COUNTED)
        number, rows, last, span = connection.execute(_COUNT_SOME, bounds).fetchone()
        added = number - self._first
        reserved = self._reserved
        meanwhile = reserved - before
        self._added = min(max(self._added, added - reserved), added - before)
        self._swept += rows
        if rows == _COUNTED:
            self._swept_to = last
        else:
            self._correct(reserved, self._swept, self._swept + meanwhile)
            self._swept, self._swept_to = 0, _rows.BEGIN
        # Afterwards, because others may have removed the oldest events since they were counted.
        self._correct(reserved, 0, span + meanwhile)

    def _correct(self, reserved: int, least: int, most: int) -> None:
        present = self._counted + self._added + reserved
        self._counted += min(max(present, least), most) - present

    def _left(self, number: int, changed: int) -> None:
        """Counts events that this process removed."""
        self._counted -= changed
        if number <= self._swept_to:
            self._swept -= changed
        self._claimed.pop(number, None)

    def _remove(self, connection: sqlite3.Connection) -> None:
        """Removes accepted events, even if another process saw them rejected."""
        # Not all at once, because each ack on a full disk starts here.
        while numbers := list(islice(self._leaving, _AT_ONCE)):
            if not self._remove_some(connection, numbers):
                return  # Retried in the new file, where another process may have saved the events.

    def _remove_some(self, connection: sqlite3.Connection, numbers: Collection[int]) -> bool:
        for number in numbers:
            changed = self._write(connection, _REMOVE, number)
            if not changed:
                self._write(connection, _FORGET, number)
            if not (self._file.is_intact or self._file.is_missing):
                return False
            # In this order, so that enqueue never finds more room than there is.
            self._leaving.discard(number)
            self._left(number, changed)
        return True

    def _bury_row(self, number: int, error: IntercomError, now: float, rescues: int) -> bool:
        """Makes an unreadable event a dead letter; returns whether it still has its number."""
        self._bury(lambda: number if self._rescues == rescues else None, error, now)
        return self._rescues == rescues

    def _bury(self, find: Callable[[], int | None], error: IntercomError, now: float) -> None:
        """Makes an event a dead letter; `find` returns its number, which a rescue may change."""
        described = _described(error, now)
        try:
            with self._file.using(self._file.main) as connection:
                if (number := find()) is not None:
                    self._left(number, self._write(connection, _BURY, *described, number))
        except OutboxError as failure:
            if not self._is_full(failure):
                raise
            if (number := find()) is not None:
                self._dying[number] = described

    def _write_about(self, queued: QueuedEvent, statement: str, *values: object) -> None:
        """Writes the outcome of an event; later, if the disk is full."""
        try:
            with self._file.using(self._file.main) as connection:
                self._write(connection, statement, *values, queued.id)
            if self._alone is None:
                self._claimed.pop(queued.id, None)
        except OutboxError as error:
            if not self._is_full(error):
                raise
            self._unwritten[queued.id] = statement, values

    def _end_unclaimed(self, queued: QueuedEvent) -> None:
        self._unwritten.pop(queued.id, None)
        if self._alone is not None:
            self._alone.handed.pop(queued.id, None)

    def _update_all(self, statement: str, *values: float) -> None:
        """Updates events in parts, so that a large backlog does not keep enqueue waiting."""
        while True:
            with self._file.using(self._file.main) as connection:
                if self._write(connection, statement, *values, _AT_ONCE) < _AT_ONCE:
                    return
            time.sleep(_BREAK)

    def _write(self, connection: sqlite3.Connection, statement: str, *values: object) -> int:
        """Executes one of the dispatcher's writes; returns the number of rows that it changes.

        Threads of one process take turns by enqueue's lock, because SQLite itself polls, and sleeps
        for 1 to 100 ms in between.
        """
        held: list[bool] = []
        # A handler that waits for the dispatcher may keep the lock, so only one write waits for it.
        seconds = 0.0 if self._kept else min(self._patience, _TURN)
        lock = self._file.inserts.lock
        try:
            held.extend(map(lock.acquire, (True,), (seconds,)))
            self._kept = held == [False]
            return connection.execute(statement, values).rowcount
        except sqlite3.OperationalError as error:
            # The use that this one interrupts may have read an older state of the file.
            if not is_busy(error) or self._file.main.uses == 1:
                raise
        finally:
            if held == [True]:
                lock.release()
        with self._file.using(self._file.spare) as another:
            return another.execute(statement, values).rowcount

    def _renumber(self, connection: sqlite3.Connection) -> None:
        """Finds the events of this process again after they were moved into a new file."""
        self._rescues += 1
        claimed, self._claimed = list(self._claimed.items()), {}
        moved: list[tuple[int, tuple[QueuedEvent, bytes]]] = []
        for number, (queued, text) in claimed:
            found = connection.execute(
                "SELECT CAST(event AS BLOB), tracked_at FROM events WHERE id = ?", (number,)
            ).fetchone()
            if found == (text, queued.tracked_at):
                self._claimed[number] = queued, text
            else:
                moved.append((number, (queued, text)))
        for number, (queued, text) in moved:
            rows = connection.execute(
                "SELECT id FROM events WHERE event = CAST(? AS TEXT) AND tracked_at = ? "
                "ORDER BY id DESC LIMIT ?",
                (text, queued.tracked_at, len(claimed) + 1),
            )
            # If there is no row, another process has processed the event.
            queued.id = next((n for (n,) in rows if n not in self._claimed), -number)
            self._claimed[queued.id] = queued, text
            if number in self._leaving:
                self._leaving.remove(number)
                self._leaving.add(queued.id)
            if number in self._dying:
                self._dying[queued.id] = self._dying.pop(number)
            if self._alone is not None and number in self._alone.handed:
                self._alone.handed[queued.id] = self._alone.handed.pop(number)
            if number in self._unwritten:
                statement, values = self._unwritten.pop(number)
                values = tuple(queued.id if value == number else value for value in values)
                self._unwritten[queued.id] = statement, values


def _queued(
    number: int, text: bytes | None, tracked_at: Any, tries: Any, rejected_at: float | None
) -> QueuedEvent | IntercomError:
    """Returns the event of a row, or the error if the row does not hold one."""
    try:
        event = _rows.event(text)
        _rows.check(tracked_at, tries, rejected_at)
    except IntercomError as error:
        return error
    return QueuedEvent(number, event, tracked_at, tries, unsure=tries > 0, rejected_at=rejected_at)


def _described(error: IntercomError, now: float) -> tuple[object, ...]:
    """Returns the columns of a dead letter that describe its error."""
    status = request_id = None
    if isinstance(error, APIStatusError):
        status, request_id = error.status_code, _plain(error.request_id)
    kind, message = type(error).__name__, _plain(str(error))
    if error.may_have_been_processed:
        message = f"{message} (an earlier attempt may have been processed)"
    return now, kind, message, status, request_id


def _plain(text: str | None) -> str | None:
    """Returns a string that UTF-8 can encode; a string of a server may contain anything."""
    return None if text is None else text.encode(errors="backslashreplace").decode()


def _chosen(rows: Sequence[tuple[Any, ...]], avoid: Collection[tuple[str, str]]) -> tuple[Any, ...]:
    """Returns the first row whose contact is not to be avoided, or the first row if none is."""
    for row in rows if avoid else ():
        try:
            if person(_rows.event(row[1])) not in avoid:
                return row
        except IntercomError:
            return row
    return rows[0]
