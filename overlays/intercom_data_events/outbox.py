"""Tracked events in a file, until Intercom has accepted them.

The file is an SQLite database in WAL mode that several processes may share. ``track`` writes an
event before it returns. A process claims an event to send it, and removes it once it is accepted.
A process renews its claims; those of a process that died end by themselves, and others send its
events. A rejected event stays as a *dead letter*, with its error.

A written event outlasts the process, however that ends. A loss of power can take those of the last
moments: no call waits for the disk.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import stat
import threading
import time
import uuid
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from attrs import frozen

from intercom_data_events._sending import runtime
from intercom_data_events._sending.runtime import ForkLock, guard_forks
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import (
    APIStatusError,
    ConfigurationError,
    IntercomError,
    OutboxError,
    OutboxLockedError,
)
from intercom_data_events.event import Event, person
from intercom_data_events.tracker._queue import LONGEST_HELD, RECENT, TURNS, QueuedEvent

log = logging.getLogger("intercom_data_events")

#: The default number of events that a file holds.
MOST = 1_000_000
# Seconds after which a claim that its process does not renew ends, and between two renewals.
_STALLED_AFTER = 30.0
_HEARTBEAT = 10.0
# Seconds between two counts of all events, at least; and the number of events that are counted for
# each second in between, because a count reads the whole file.
_COUNTING = 1.0
_COUNTED = 50_000
# Bytes of the log: beyond the first, it is checkpointed when no events come; beyond the second,
# also when they do; beyond the third, writers wait for that.
_SHORT_LOG = 256 * 1024
_LONG_LOG = 32 * 1024 * 1024
_TOO_LONG_LOG = 256 * 1024 * 1024
# Milliseconds that writers wait then for a process that is reading.
_WAITING_FOR_READERS = 100
# Bytes of a page. The log takes a page at least for each event, however small.
_PAGE = 1024
# Seconds to wait while a file is opened, because another process may be making it.
_OPENING = 5.0
# Seconds that close() waits for each thread that uses the file. One that is interrupted, as by the
# signal handler that closes it, closes its connection itself later.
_CLOSING = 0.2
# Rows that are changed in one transaction, and seconds until the next one: other writers' turn.
_AT_ONCE = 500
_BREAK = 0.001
# Seconds that a write of the dispatcher waits for enqueue's lock.
_TURN = 0.05
# Free events that claim() looks through for another person's.
_LOOKED_THROUGH = 500

#: Marks a database as an outbox: "IDEO".
_APPLICATION = 0x4944454F
# The statements that bring a file from each version to the next.
_MIGRATIONS = (
    """
    CREATE TABLE events (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      event TEXT NOT NULL,
      tracked_at REAL NOT NULL,
      tries INTEGER NOT NULL DEFAULT 0,
      held_until REAL,
      owner TEXT
    );
    CREATE INDEX free ON events (tracked_at, id) WHERE held_until IS NULL;
    CREATE INDEX held ON events (held_until) WHERE held_until IS NOT NULL;
    CREATE TABLE dead (
      id INTEGER PRIMARY KEY,
      event TEXT NOT NULL,
      tracked_at REAL NOT NULL,
      tries INTEGER NOT NULL,
      died_at REAL NOT NULL,
      error TEXT NOT NULL,
      message TEXT NOT NULL,
      status INTEGER,
      request_id TEXT
    );
    CREATE TABLE binding (name TEXT PRIMARY KEY, value TEXT NOT NULL)
    """,
    # When Intercom first did not know the contact of an event, in Unix seconds.
    "ALTER TABLE events ADD COLUMN rejected_at REAL",
)

# Processes of an earlier version may use the same file, so every statement names its columns.
_INSERT = "INSERT INTO events (event, tracked_at) VALUES (?, ?)"
_FREE = (
    # An event may be no string in a damaged file.
    "SELECT id, CAST(event AS BLOB), tracked_at, tries, rejected_at FROM events "
    "WHERE held_until IS NULL ORDER BY tracked_at, id LIMIT ?"
)
_FREE_RECENT = _FREE.replace("WHERE", "WHERE tracked_at > ? AND")
_ANY_FREE = "SELECT EXISTS (SELECT 1 FROM events WHERE held_until IS NULL)"
# Each of the dispatcher's writes is one statement that returns no row. UPDATE ... RETURNING and
# BEGIN hold the write lock while Python runs, and so may finalizers that enqueue.
_CLAIM = (
    "UPDATE events SET held_until = ?, owner = ? WHERE id = ? AND held_until IS NULL AND tries = ?"
)
_RENEW = "UPDATE events SET held_until = ? WHERE id = ? AND owner = ?"
_NACK = (
    "UPDATE events SET held_until = ?, owner = NULL, tries = tries + 1, rejected_at = ? "
    "WHERE id = ? AND owner = ?"
)
_RELEASE = "UPDATE events SET held_until = NULL, owner = NULL WHERE id = ? AND owner = ?"
_RELEASE_DELAYED = (
    "UPDATE events SET held_until = NULL WHERE id IN (SELECT id FROM events "
    "WHERE held_until IS NOT NULL AND owner IS NULL LIMIT ?)"
)
_ANY_OVER = "SELECT EXISTS (SELECT 1 FROM events WHERE held_until <= ? OR held_until > ?)"
# A claim or delay that ends much later was made by a clock that has been set back since.
_END_OVER = (
    "UPDATE events SET held_until = NULL, owner = NULL WHERE id IN (SELECT id FROM events "
    "WHERE held_until <= ? OR held_until > ? LIMIT ?)"
)
_REMOVE = "DELETE FROM events WHERE id = ?"
_COUNT = "SELECT count(*) FROM events"
_STATUS = (
    "SELECT count(*), count(owner) FILTER (WHERE held_until > :now), "
    "count(*) FILTER (WHERE owner IS NULL AND held_until > :now), min(tracked_at) FROM events"
)
_REVIVE = "INSERT INTO events (event, tracked_at) SELECT event, tracked_at FROM dead WHERE id = ?"
_FORGET = "DELETE FROM dead WHERE id = ?"
_BURY = (
    "INSERT OR REPLACE INTO dead (id, event, tracked_at, tries, died_at, error, message, status, "
    "request_id) SELECT id, event, tracked_at, tries, ?, ?, ?, ?, ? FROM events WHERE id = ?"
)
# Makes one statement of _BURY and the removal; only on the connection that has the trigger.
_REMOVE_BURIED = (
    "CREATE TEMP TRIGGER buried AFTER INSERT ON main.dead "
    "BEGIN DELETE FROM events WHERE id = NEW.id; END"
)


def token_digest(token: str, salt: str) -> str:
    """Returns a salt and a digest that identify a token without revealing it."""
    # Imported only when a file is bound, so that programs start faster.
    import hashlib

    digest = hashlib.blake2b(f"{salt}:{token}".encode(), digest_size=8).hexdigest()
    return f"{salt}:{digest}"


@frozen
class Binding:
    """The workspace that the events of a file are for.

    Attributes:
        address: The address of Intercom.
        token: The access token, of which a digest is kept; None if it is unknown.
        workspace: A name of your own for the workspace; it stays the same when tokens change.
        token_renewed: Whether the caller knows that the token is for the same workspace as before.
    """

    address: str
    token: str | None = None
    workspace: str | None = None
    token_renewed: bool = False


@frozen
class DeadLetter:
    """A rejected event, and its error.

    Attributes:
        id: Its number in the file.
        event: Its fields, as the API names them.
        tracked_at: When it was tracked, in Unix seconds.
        died_at: When it was rejected, in Unix seconds.
        error: The kind of error, such as "NotFoundError".
        message: The message of the error.
        status: The HTTP status, or None if no answer rejected it.
        request_id: The id that Intercom's support asks for, or None.
    """

    id: int
    event: Mapping[str, object]
    tracked_at: float
    died_at: float
    error: str
    message: str
    status: int | None
    request_id: str | None


@frozen
class Status:
    """What is in a file.

    Attributes:
        queued: Events that wait or are in flight.
        claimed: Those of them that a process has claimed to send.
        held: Those of them that failed temporarily, and wait for their next attempt.
        dead: Dead letters.
        oldest: When the oldest event was tracked, in Unix seconds, or None.
        address: The address of Intercom, or None before a tracker has used the file.
        workspace: The name of the workspace, or None.
        size: Bytes of the file and its log.
    """

    queued: int
    claimed: int
    held: int
    dead: int
    oldest: float | None
    address: str | None
    workspace: str | None
    size: int


class _Slot:
    """A connection that one thread uses at a time.

    Attributes:
        lock: Held during its use; a signal handler or a finalizer may enter it again.
        connection: The connection; None until its first use, and around forks and failures.
        uses: How many uses of it have begun and not ended, one within the other.
        reserved: The number of events that it was given a place for.
        inserted: The number of those that are in the file.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.uses = 0
        self.reserved = self.inserted = 0

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


class Outbox:
    """A file of tracked events, for the threads of one process.

    ``enqueue`` is safe from any thread, signal handler and finalizer. It has a connection of its
    own, because CPython's connections are not safe to share between threads: 129 of 96,000
    acknowledged INSERTs of 8 threads were missing on 3.12 (python/cpython#118172). Claims, and what
    becomes of them, are for one dispatcher. Each of its writes is one statement that returns no
    row, so a finalizer that tracks in between never waits for its own thread.

    Every method raises an OutboxError, with the remedy, if the file cannot be used; earlier events
    stay in it.

    Args:
        path: The path. A missing file is made, for its owner alone (mode 0600).
        binding: The workspace of the events; None to only look at the file.
        most: The number of events that it holds; exact in one process, about in several.
        patience: Seconds to wait for another process that writes, once the file is open.
        create: Whether to make a missing file.

    Raises:
        OutboxError: The file cannot be used.
        ConfigurationError: It holds events of another workspace.
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
        self.path = Path(path).absolute()
        self._most = most
        self._patience = patience
        self._owner = uuid.uuid4().hex
        # The dispatcher's connection, which readers share; that of enqueue; and one in case that a
        # finalizer keeps the thread that uses enqueue's.
        self._main, self._inserts, self._spare = self._slots = _Slot(), _Slot(), _Slot()
        # Held while checkpoint() has a connection of its own.
        self._checkpointing = threading.Lock()
        # The forks that wait until no connection is open.
        self._forks = 0
        # What identifies the file, and its binding.
        self._place: tuple[int, int] | None = None
        self._bound: str | None = None
        # Whether the file was moved or deleted while it was in use.
        self._missing = False
        # Whether another program holds the lock: one caller has waited, the next ones need not.
        self._locked = False
        # Whether a thread has kept enqueue's lock for long.
        self._kept = False
        self._closed = False
        self._turn = 0
        # The number of events without those of this process' enqueue.
        self._others = 0
        # When the log was last written, as checkpoint() saw it.
        self._changed = 0
        self._rests = False
        self._log_length = 0
        # Whether the disk was full; the log may take a part of it.
        self._crowded = False
        self._counted = self._renewed = 0.0
        # Accepted events whose removal failed.
        self._leaving: set[int] = set()
        # No fork copies this process from now on while a connection is in use.
        guard_forks(self)
        try:
            with self._main.lock, self._explaining():
                opening = max(patience, _OPENING)
                connection = self._main.connection = self._connect(opening, create=create)
                self._place = self._where()
                self._migrate(connection, opening, create=create)
                if binding is not None:
                    self._bind(connection, binding, opening)
                self._others = _one(connection, _COUNT)
                connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
                connection.execute(_REMOVE_BURIED)
        except BaseException:
            self._main.disconnect()
            raise

    def __del__(self) -> None:
        """Closes the file, where an error of a signal handler has lost the outbox."""
        for slot in getattr(self, "_slots", ()):
            slot.disconnect()

    @property
    def size(self) -> int:
        """The number of events, as far as this process knows."""
        return self._others + self._inserts.reserved + self._spare.reserved

    def enqueue(self, event: Event, now: float) -> bool:
        """Writes an event; returns False if the outbox is full.

        Raises:
            OutboxLockedError: Another program, or another thread, kept the file for too long.
        """
        if self._missing:
            self._missing = self._where() != self._place
            if self._missing:
                raise OutboxError(f"the outbox {self.path} {_MISSING}")
        text = json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":"))
        # Without patience, the caller tries again.
        for slot in (self._inserts, self._spare) if self._patience else (self._inserts,):
            held: list[bool] = []
            try:
                # One step: a handler's error can neither lose the lock nor release it twice.
                held.extend(map(slot.lock.acquire, (True,), (self._patience,)))
                if held == [True]:
                    return self._insert(slot, text, now)
            finally:
                if held == [True]:
                    slot.lock.release()
        raise OutboxLockedError(
            f"the outbox {self.path} must be free within {self._patience:g} s, but other threads "
            f"of this process use it; try again{_UNHARMED}"
        )

    def _insert(self, slot: _Slot, text: str, now: float) -> bool:
        # Before the INSERT, so that a finalizer in between does not take the same place.
        if self.size >= self._most:
            return False
        slot.reserved += 1
        done = False
        try:
            with self._using(slot) as connection:
                try:
                    connection.execute(_INSERT, (text, now))
                except sqlite3.ProgrammingError:
                    if slot.connection is connection:
                        raise
                    self._check_open()
                    # A finalizer forked in between, and closed it.
                    self._open(slot).execute(_INSERT, (text, now))
                done = True
        finally:
            if done:
                slot.inserted += 1
            else:
                slot.reserved -= 1
            if slot is self._spare:
                slot.disconnect()
        return True

    def claim(
        self, now: float, avoid: Collection[tuple[str, str]] = frozenset()
    ) -> QueuedEvent | None:
        """Claims the next event to send, or returns None; the queue's docstring has the order.

        Args:
            now: The present, in Unix seconds.
            avoid: The persons, as :func:`~intercom_data_events.event.person` returns them, whose
                events another person's goes before, if one of the next 500 is another person's.
        """
        while True:
            with self._using(self._main) as connection:
                rows = self._free(connection, now, _LOOKED_THROUGH if avoid else 1)
                if not rows:
                    return None
                number, text, tracked_at, tries, rejected_at = _chosen(rows, avoid)
                claim = (now + _STALLED_AFTER, self._owner, number, tries)
                if not self._write(connection, _CLAIM, *claim):
                    continue  # Another process was faster.
            try:
                event = _event(text)
            except IntercomError as error:
                self._bury(number, error, now)
                log.warning("an event in %s is unreadable; it is a dead letter now", self.path)
                continue
            return QueuedEvent(
                number, event, tracked_at, tries, unsure=tries > 0, rejected_at=rejected_at
            )

    def ack(self, queued: QueuedEvent) -> None:
        """Removes an accepted event."""
        self._leaving.add(queued.id)
        with self._using(self._main) as connection:
            self._remove(connection)

    def dead_letter(self, queued: QueuedEvent, error: IntercomError, now: float) -> None:
        """Makes a rejected event a dead letter, unless another process saw it accepted."""
        self._bury(queued.id, error, now)

    def nack(self, queued: QueuedEvent, delay: float, now: float) -> None:
        """Ends the claim on an event, and delays its next attempt.

        Args:
            queued: The event, of which the file keeps `rejected_at`, too.
            delay: Seconds until the next attempt.
            now: The present, in Unix seconds.
        """
        with self._using(self._main) as connection:
            self._write(connection, _NACK, now + delay, queued.rejected_at, queued.id, self._owner)

    def release(self, queued: QueuedEvent) -> None:
        """Ends the claim on an event."""
        with self._using(self._main) as connection:
            self._write(connection, _RELEASE, queued.id, self._owner)

    def run_maintenance(self, now: float, in_flight: Collection[QueuedEvent]) -> bool:
        """Renews the claims of this process, and ends stalled ones and delays that are over.

        The dispatcher calls it every second or so, also when nothing happens.

        Args:
            now: The present, in Unix seconds.
            in_flight: The events that this process has claimed.

        Returns:
            Whether an event is free to be claimed.
        """
        self._watch_file()
        bounds = (now, now + LONGEST_HELD)
        with self._using(self._main) as connection:
            if self._leaving:
                self._remove(connection)
            if abs(now - self._renewed) >= _HEARTBEAT:
                for queued in in_flight:
                    self._write(connection, _RENEW, now + _STALLED_AFTER, queued.id, self._owner)
                self._renewed = now
            # A look keeps no process from writing.
            over = _one(connection, _ANY_OVER, *bounds)
        if over:
            self._update_all(_END_OVER, *bounds)
        with self._using(self._main) as connection:
            # Other processes may have made room in a full file.
            rarer = self.size / _COUNTED if self.size < self._most else 0.0
            if abs(now - self._counted) >= max(_COUNTING, rarer):
                self._recount(connection)
                self._counted = now
            return bool(_one(connection, _ANY_FREE))

    def needs_checkpoint(self) -> bool:
        """Returns whether the log is so long that :meth:`checkpoint` has something to do."""
        # SQLite writes it beside the file that a symbolic link leads to.
        try:
            found = Path(f"{os.path.realpath(self.path)}-wal").stat()
        except OSError:
            return False
        self._log_length, changed = found.st_size, found.st_mtime_ns
        # The next writer waits for the disk once, so not between two events of many.
        self._rests, self._changed = changed == self._changed and not self.size, changed
        longest = 0 if self._crowded else _SHORT_LOG if self._rests else _LONG_LOG
        return not self._closed and self._log_length > longest

    def checkpoint(self) -> None:
        """Moves the log into the database; waits for the disk, beside the use of the file.

        It has a connection of its own, so that other threads go on writing.
        """
        if not self.needs_checkpoint():
            return
        rests = self._rests
        with (
            self._checkpointing,
            self._explaining(),
            closing(self._connect(_OPENING)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if rests or self._crowded or self._log_length > _TOO_LONG_LOG:
                # Writers wait for this one, but what takes long is done.
                connection.execute(f"PRAGMA busy_timeout = {_WAITING_FOR_READERS}")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                self._crowded = False

    def release_delayed(self) -> None:
        """Ends all delays."""
        self._update_all(_RELEASE_DELAYED)

    def high_watermark(self) -> int:
        """Returns the number of the latest event."""
        with self._using(self._main) as connection:
            return _one(connection, "SELECT coalesce(max(id), 0) FROM events")

    def is_drained(self, mark: int) -> bool:
        """Whether all events up to this number have left."""
        with self._using(self._main) as connection:
            return not _one(connection, "SELECT EXISTS (SELECT 1 FROM events WHERE id <= ?)", mark)

    def oldest(self) -> float | None:
        """Returns when the oldest event was tracked, in Unix seconds."""
        with self._using(self._main) as connection:
            row = connection.execute("SELECT tracked_at FROM events ORDER BY id LIMIT 1").fetchone()
            return None if row is None else float(row[0])

    def remaining(self) -> Iterator[QueuedEvent]:
        """Yields the events that are lost when this process ends: none."""
        return iter(())

    def status(self, now: float | None = None) -> Status:
        """Returns what is in the file.

        Args:
            now: The present, in Unix seconds: claims and delays that are over do not count. None
                to count all that no process has ended yet.
        """
        with self._using(self._main) as connection:
            queued, claimed, held, oldest = connection.execute(
                _STATUS, {"now": -math.inf if now is None else now}
            ).fetchone()
            dead = _one(connection, "SELECT count(*) FROM dead")
            bound = _bound(connection)
        size = 0
        for ending in ("", "-wal"):
            with suppress(OSError):
                size += Path(f"{os.path.realpath(self.path)}{ending}").stat().st_size
        return Status(
            queued, claimed, held, dead, oldest, bound.get("address"), bound.get("workspace"), size
        )

    def waiting(self) -> Iterator[Mapping[str, object]]:
        """Yields the fields of the events that wait or are in flight, oldest first."""
        return (
            _fields(text)
            for _, text in self._each(
                "SELECT id, CAST(event AS BLOB) FROM events WHERE id > ? ORDER BY id"
            )
        )

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yields the rejected events, oldest first."""
        rows = self._each(
            "SELECT id, CAST(event AS BLOB), tracked_at, died_at, error, message, status, "
            "request_id FROM dead WHERE id > ? ORDER BY id"
        )
        return (DeadLetter(number, _fields(text), *rest) for number, text, *rest in rows)

    def revive(self, numbers: Iterable[int] | None = None) -> int:
        """Puts dead letters back into the queue; all of them, or those with these numbers.

        Returns:
            The number of events that were put back.
        """
        revived = self._each_dead(numbers, _REVIVE, _FORGET)
        with self._main.lock:
            self._others += revived
        return revived

    def forget(self, numbers: Iterable[int] | None = None) -> int:
        """Deletes dead letters; all of them, or those with these numbers.

        Returns:
            The number of events that were deleted.
        """
        return self._each_dead(numbers, _FORGET)

    def close(self) -> None:
        """Closes the file."""
        self._closed = True
        for slot in self._slots:
            # Closing a connection within its use, in a finalizer, could crash the interpreter; and
            # a thread may keep its slot for longer. Then the end of that use closes it.
            if slot.lock.acquire(timeout=_CLOSING):
                try:
                    if not slot.uses:
                        slot.disconnect()
                finally:
                    slot.lock.release()

    def before_fork(self) -> bool:
        """Closes the connections, and keeps other threads from new ones.

        SQLite keeps for each process which locks it has on a file. A forked child inherits that
        list without the locks, so a fork waits until no connection is open.
        """
        ends = SYSTEM.monotonic() + runtime.FORK_PATIENCE
        held: list[threading.Lock | threading.RLock] = []
        for lock in self._locks():
            if not lock.acquire(timeout=max(0.0, ends - SYSTEM.monotonic())):
                for each in held:
                    each.release()
                return False
            held.append(lock)
        self._forks += 1
        for slot in self._slots:
            slot.disconnect()
        return True

    def after_fork(self, *, in_child: bool, waited: bool) -> None:
        """Lets other threads go on; the claims stay the parent's."""
        if in_child:
            self._owner = uuid.uuid4().hex
            self._leaving = set()
        if waited:
            self._forks -= 1
            for lock in self._locks():
                lock.release()
        elif in_child:
            # Closing a connection that the parent goes on using would end the parent's locks.
            _leaked.extend(slot.connection for slot in self._slots)
            self._others = self.size
            self._main, self._inserts, self._spare = self._slots = _Slot(), _Slot(), _Slot()
            self._checkpointing = threading.Lock()
            with suppress(OSError):
                found = self.path.stat()
                _torn.add((found.st_dev, found.st_ino))

    def _locks(self) -> tuple[threading.Lock | threading.RLock, ...]:
        return self._checkpointing, *(slot.lock for slot in self._slots)

    def _free(self, connection: sqlite3.Connection, now: float, most: int) -> list[tuple[Any, ...]]:
        """Returns the first free events of those that are next."""
        self._turn += 1
        rows: list[tuple[Any, ...]] = []
        if self._turn % TURNS:
            rows = connection.execute(_FREE_RECENT, (now - RECENT, most)).fetchall()
        if len(rows) < most:
            rows += connection.execute(_FREE, (most,)).fetchall()
        return rows

    def _watch_file(self) -> None:
        """Looks whether the next process would find the file; its events are sent in any case."""
        with self._main.lock:
            before = self._missing
            if self._main.connection is not None:
                self._missing = self._where() != self._place
        # Without the lock: a log handler may wait for another thread.
        if self._missing and not before:
            log.error("the outbox %s %s", self.path, _MISSING)

    def _where(self) -> tuple[int, int] | None:
        """Returns what identifies the file; None if it is missing."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _recount(self, connection: sqlite3.Connection) -> None:
        inserted = self._inserts.inserted + self._spare.inserted
        counted = _one(connection, _COUNT)
        size = self.size
        # Events that other threads enqueue meanwhile may be in both numbers.
        meanwhile = self._inserts.reserved + self._spare.reserved - inserted
        self._others += max(counted, min(size, counted + meanwhile)) - size

    def _each_dead(self, numbers: Iterable[int] | None, *statements: str) -> int:
        chosen = self._all_dead() if numbers is None else iter(numbers)
        found = 0
        while some := list(islice(chosen, _AT_ONCE)):
            with self._using(self._main) as connection, _transaction(connection):
                for number in some:
                    # The last statement deletes it, and so tells whether it was there.
                    changed = [connection.execute(one, (number,)).rowcount for one in statements]
                    found += changed[-1]
        return found

    def _all_dead(self) -> Iterator[int]:
        """Yields the numbers of the present dead letters, not of later ones."""
        with self._using(self._main) as connection:
            last = _one(connection, "SELECT coalesce(max(id), 0) FROM dead")
        numbers = (row[0] for row in self._each("SELECT id FROM dead WHERE id > ? ORDER BY id"))
        return takewhile(lambda number: number <= last, numbers)

    def _each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yields rows by their first column, some at a time, so that no statement takes long."""
        last = 0
        while True:
            with self._using(self._main) as connection:
                rows = connection.execute(f"{query} LIMIT 500", (last,)).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def _remove(self, connection: sqlite3.Connection) -> None:
        """Removes accepted events, also those that another process saw rejected meanwhile."""
        for number in list(self._leaving):
            if self._write(connection, _REMOVE, number):
                self._others -= 1
            else:
                self._write(connection, _FORGET, number)
            self._leaving.discard(number)

    def _bury(self, number: int, error: IntercomError, now: float) -> None:
        status = request_id = None
        if isinstance(error, APIStatusError):
            status, request_id = error.status_code, _plain(error.request_id)
        kind, message = type(error).__name__, _plain(str(error))
        if error.may_have_been_processed:
            message = f"{message} (an earlier attempt may have been processed)"
        described = (now, kind, message, status, request_id, number)
        with self._using(self._main) as connection:
            self._others -= self._write(connection, _BURY, *described)

    def _update_all(self, statement: str, *values: float) -> None:
        """Updates events some at a time, so that a large backlog does not keep enqueue waiting."""
        while True:
            with self._using(self._main) as connection:
                if self._write(connection, statement, *values, _AT_ONCE) < _AT_ONCE:
                    return
            time.sleep(_BREAK)

    def _write(self, connection: sqlite3.Connection, statement: str, *values: object) -> int:
        """Executes one of the dispatcher's writes; returns the number of rows that it changes.

        Within a process, enqueue's lock decides whose turn it is. SQLite's own waiting sleeps for 1
        to 100 ms and then looks again.
        """
        held: list[bool] = []
        # A handler that waits for the dispatcher may keep the lock: one write waits for it, once.
        seconds = 0.0 if self._kept else min(self._patience, _TURN)
        try:
            held.extend(map(self._inserts.lock.acquire, (True,), (seconds,)))
            self._kept = held == [False]
            return connection.execute(statement, values).rowcount
        finally:
            if held == [True]:
                self._inserts.lock.release()

    @contextmanager
    def _using(self, slot: _Slot) -> Generator[sqlite3.Connection]:
        with slot.lock, self._explaining():
            self._check_open()
            slot.uses += 1
            connection, locked = None, self._locked
            try:
                # A signal handler or a finalizer may close it, or fork, at any line from here on.
                connection = slot.connection
                if connection is None:
                    connection = self._open(slot)
                self._check_open()
                if locked:
                    connection.execute("PRAGMA busy_timeout = 0")
                yield connection
                self._locked = False
            except sqlite3.Error as error:
                code = _code(error)
                self._crowded = self._crowded or code == "SQLITE_FULL"
                # A connection that was opened read-only would stay so, for example.
                if code not in _PASSING:
                    slot.disconnect()
                elif code != "SQLITE_FULL":
                    self._locked = True
                raise
            finally:
                slot.uses -= 1
                if (self._closed and not slot.uses) or self._forks:
                    slot.disconnect()
                elif locked and connection is not None and slot.connection is connection:
                    connection.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"the outbox {self.path} is closed; open it again")

    def _open(self, slot: _Slot) -> sqlite3.Connection:
        """Opens the file again, if it is still the same one."""
        # Prepared statements are not safe to share, and threads share enqueue's connection.
        cached = 128 if slot is self._main else 0
        try:
            connection = slot.connection = self._connect(self._patience, cached_statements=cached)
            place = self._checked_place(connection)
            if slot is self._main:
                connection.execute(_REMOVE_BURIED)
        except BaseException:
            slot.disconnect()
            raise
        self._missing = False
        self._place = place
        return connection

    def _checked_place(self, connection: sqlite3.Connection) -> tuple[int, int] | None:
        if self._bound not in (None, _bound(connection).get("mark")):
            raise OutboxError(
                f"the outbox {self.path} was replaced by another one; stop the program that "
                "replaced it, put the earlier one back with its -wal file, and restart"
            )
        place = self._where()
        if place != self._place and any(
            slot.connection not in (None, connection) for slot in self._slots
        ):
            raise OutboxError(f"the outbox {self.path} {_MISSING}")
        return place

    @contextmanager
    def _explaining(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error

    def _connect(
        self, patience: float, *, create: bool = False, cached_statements: int = 128
    ) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 35):
            raise OutboxError(
                f"an outbox needs SQLite 3.35 or newer, not {sqlite3.sqlite_version}; use a Python "
                "that has one"
            )
        self._prepare(create=create)
        connect = partial(
            sqlite3.connect,
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=cached_statements,
        )
        opened: list[sqlite3.Connection] = []
        try:
            # SQLite itself would make a file that others can read. One step: no error of a signal
            # handler loses the connection.
            opened.extend(map(connect, (f"{self.path.as_uri()}?mode=rw",)))
            (connection,) = opened
            # Waiting for the disk and checkpoints are left to checkpoint().
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {_LONG_LOG}")
            # Of the temporary trigger, no file is made.
            connection.execute("PRAGMA temp_store = MEMORY")
            return connection  # noqa: TRY300  # so that an error below closes it
        except BaseException:
            for connection in opened:
                connection.close()
            raise

    def _prepare(self, *, create: bool) -> None:
        """Makes a missing file if it is to be made, and checks the path."""
        try:
            if create:
                # Closing a file ends the locks of this process' other connections to it.
                with _making, suppress(FileExistsError):
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                    os.close(os.open(self.path, flags, 0o600))
            found = self.path.stat()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OutboxError(
                f"the outbox {self.path} cannot be opened ({reason}); choose a path in an existing "
                "folder that this process may write to"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise OutboxError(f"the outbox {self.path} is not a regular file; choose another path")
        if (found.st_dev, found.st_ino) in _torn:
            raise OutboxError(
                f"the outbox {self.path} was in use when this process was forked, so this process "
                "cannot use it; fork while no thread uses it"
            )

    def _migrate(self, connection: sqlite3.Connection, patience: float, *, create: bool) -> None:
        """Brings the file to the present version; several processes may do so at once."""
        self._check_kind(connection)
        if not create and _pragma(connection, "application_id") != _APPLICATION:
            raise OutboxError(f"{self.path} is empty; choose a file that a tracker has used")
        # SQLite heeds it as long as the file is empty.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        # Of an outbox, too: a process may have ended while it was binding it anew.
        _in_turn(connection, "PRAGMA journal_mode = WAL", patience)
        if _pragma(connection, "user_version") == len(_MIGRATIONS):
            return
        with _transaction(connection):
            version = _pragma(connection, "user_version")
            self._check_kind(connection)
            for statements in _MIGRATIONS[version:]:
                for statement in statements.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        version = _pragma(connection, "user_version")
        # In this order: while another process makes it, its kind appears together with its tables.
        tables = _one(connection, "SELECT count(*) FROM sqlite_schema")
        if tables and _pragma(connection, "application_id") != _APPLICATION:
            raise OutboxError(
                f"{self.path} is an SQLite database but not an outbox; choose another path"
            )
        if version > len(_MIGRATIONS):
            raise OutboxError(
                f"the outbox {self.path} was written by a newer version of intercom-data-events; "
                "install that version, or choose another path"
            )

    def _bind(self, connection: sqlite3.Connection, binding: Binding, patience: float) -> None:
        """Binds the file to a workspace, unless it is bound to another one and still in use.

        Raises:
            ConfigurationError: It holds events of another one, or another process uses it.
        """
        with _transaction(connection):
            problem = self._problem(_bound(connection), binding)
            if problem is None:
                self._bound = _note_binding(connection, binding)
        if problem is not None:
            if not self._is_free(connection):
                raise ConfigurationError(f"the outbox {self.path} {problem}")
            # No other process has it open.
            try:
                with _transaction(connection):
                    connection.execute("DELETE FROM binding")
                    self._bound = _note_binding(connection, binding)
            finally:
                _in_turn(connection, "PRAGMA journal_mode = WAL", patience)

    def _is_free(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is empty and no other connection is open, as WAL mode can tell."""
        if _one(connection, "SELECT EXISTS (SELECT 1 FROM events UNION SELECT 1 FROM dead)"):
            return False
        try:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        except sqlite3.OperationalError as error:
            if _code(error) == "SQLITE_BUSY":
                return False
            raise
        return True

    def _problem(self, known: Mapping[str, str], binding: Binding) -> str | None:
        """Returns why the file may be bound to another workspace; None if it is not."""
        address, workspace, digest = (known.get(one) for one in ("address", "workspace", "token"))
        if address is None:
            return None
        if address != binding.address:
            return (
                f"is for {address}, not for {binding.address}; choose another path, or send its "
                "events to that address with: intercom-events outbox drain"
            )
        if workspace is not None and binding.workspace is not None:
            if workspace == binding.workspace:
                return None
            return (
                f"is for the workspace {workspace!r}, not {binding.workspace!r}; choose another "
                "path"
            )
        if binding.token_renewed:
            return None
        if digest is None or binding.token is None:
            same = digest is None and binding.token is None and workspace == binding.workspace
        else:
            same = digest == token_digest(binding.token, digest.partition(":")[0])
        if same:
            return None
        if workspace is not None:
            return (
                f"is for the workspace {workspace!r}; pass workspace={workspace!r} if that is the "
                "workspace of this token"
            )
        return (
            "is for another access token, and so perhaps for another workspace; if the token was "
            "renewed, run intercom-events outbox drain with --token-renewed once, and pass "
            "workspace= from then on; else choose another path"
        )


def _note_binding(connection: sqlite3.Connection, binding: Binding) -> str:
    """Writes what a file is bound to; returns what identifies this binding."""
    mark = _bound(connection).get("mark") or uuid.uuid4().hex
    given = {"mark": mark, "address": binding.address, "workspace": binding.workspace}
    if binding.token is not None:
        given["token"] = token_digest(binding.token, os.urandom(8).hex())
    connection.executemany(
        "INSERT OR REPLACE INTO binding VALUES (?, ?)",
        [(name, value) for name, value in given.items() if value is not None],
    )
    return mark


def _bound(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT name, value FROM binding").fetchall())


def _one(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """Returns the integer that a query yields."""
    return int(connection.execute(query, values).fetchone()[0])


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return _one(connection, f"PRAGMA {name}")


def _in_turn(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Executes a statement for which SQLite itself does not wait until the file is free."""
    ends = SYSTEM.monotonic() + patience
    while True:
        try:
            connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or SYSTEM.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # The failure may have rolled it back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _plain(text: str | None) -> str | None:
    """Returns what UTF-8 can hold of a string; a server's may hold anything."""
    return None if text is None else text.encode(errors="backslashreplace").decode()


def _fields(text: bytes) -> Mapping[str, object]:
    """Returns the fields of an event, or what can be read of them."""
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return {"event": text.decode(errors="replace")}
    return decoded if isinstance(decoded, dict) else {"event": decoded}


def _event(text: bytes) -> Event:
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


def _chosen(rows: Sequence[tuple[Any, ...]], avoid: Collection[tuple[str, str]]) -> tuple[Any, ...]:
    """Returns the first row whose event is of no person to avoid, else the first one."""
    for row in rows if avoid else ():
        try:
            if person(_event(row[1])) not in avoid:
                return row
        except IntercomError:
            return row
    return rows[0]


_LOCKED = "is locked by another program; end the program that holds the lock"
_ALLOW = "allow this process to write to it, to its -wal and -shm files, and to their folder"
_MISSING = (
    "was moved or deleted while it was in use, so no event is tracked; put it back with its -wal "
    "file"
)
_UNHARMED = "; the events in it are safe"
_REMEDIES = {
    "SQLITE_FULL": "cannot be written, because the disk is full; make room",
    "SQLITE_READONLY": f"cannot be written; {_ALLOW}",
    "SQLITE_PERM": f"cannot be opened; {_ALLOW}",
    "SQLITE_CANTOPEN": f"cannot be opened; {_ALLOW}",
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_PROTOCOL": _LOCKED,
    "SQLITE_NOTADB": "is damaged or not an outbox; move it aside, or choose another path",
    "SQLITE_CORRUPT": (
        "is damaged; move it and its -wal file aside, and read what is left with sqlite3's .recover"
    ),
    "SQLITE_IOERR": "cannot be read or written, because the disk failed; see the system's log",
}
# The errors that do no harm to the events in the file.
_HARMLESS = {code for code in _REMEDIES if code not in ("SQLITE_NOTADB", "SQLITE_CORRUPT")}
# The errors that end without opening the file again.
_PASSING = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"}


def _code(error: sqlite3.Error) -> str:
    """Returns the kind of an error, such as SQLITE_IOERR; "" if it is not SQLite's own."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return "_".join(name.split("_")[:2])


def _explained(error: sqlite3.Error, path: Path) -> OutboxError:
    code = _code(error)
    remedy = _REMEDIES.get(code, "cannot be used")
    kind = OutboxLockedError if remedy == _LOCKED else OutboxError
    return kind(f"the outbox {path} {remedy} ({error}){_UNHARMED if code in _HARMLESS else ''}")


# Held while a file is made.
_making = ForkLock()
#: Files that were in use during the fork of this process, and their connections: never closed.
_torn: set[tuple[int, int]] = set()
_leaked: list[sqlite3.Connection | None] = []
