"""Tracked events in a file, until Intercom has accepted them.

The file is an SQLite database in WAL mode that several processes may share. An event is written
before ``track`` returns, is claimed by the process that sends it, and leaves the file when it is
accepted. A process keeps renewing its claims; those of one that died end by themselves, and the
events are free for others. What Intercom refuses stays as a *dead letter*, with the error.

What was written outlasts the process, however it ends. Of what was written in the last moments
before the machine itself loses power, something can be missing: nothing waits for the disk.
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
import weakref
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from attrs import frozen

from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import (
    APIStatusError,
    ConfigurationError,
    IntercomError,
    OutboxError,
    OutboxLockedError,
)
from intercom_data_events.event import Event
from intercom_data_events.tracker._queue import LONGEST_HELD, RECENT, TURNS, QueuedEvent

log = logging.getLogger("intercom_data_events")

#: Events that a file holds at most, unless told otherwise.
MOST = 1_000_000
# Seconds after which a claim ends that nobody renews, and between two renewals.
_STALLED_AFTER = 30.0
_HEARTBEAT = 10.0
# Seconds between two counts of all events, at least; and as many as are counted for each second
# between, since a count reads the whole file.
_COUNTING = 1.0
_COUNTED = 50_000
# Bytes of the log beyond which it is worked into the database when no events come, beyond which
# also while they do, and beyond which writers have to wait for that.
_SHORT_LOG = 256 * 1024
_LONG_LOG = 32 * 1024 * 1024
_TOO_LONG_LOG = 256 * 1024 * 1024
# Milliseconds that they may wait for others who are reading.
_WAITING_FOR_READERS = 100
# Bytes of a page, which is what is written to the log of an event however small that is.
_PAGE = 1024
# Seconds to wait for others while a file is opened, which they may be making, or working on.
_OPENING = 5.0
# Dead letters that are brought back, or forgotten, before others may write again.
_AT_ONCE = 500
# Seconds for which a fork waits for who is using the file.
_FORK_PATIENCE = 5.0

#: Says that a database is an outbox: "IDEO".
_APPLICATION = 0x4944454F
# What brings a file from each version to the next.
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
)

_PUT = "INSERT INTO events (event, tracked_at) VALUES (?, ?)"
_OLDEST = "SELECT id FROM events WHERE held_until IS NULL ORDER BY tracked_at, id LIMIT 1"
_OLDEST_RECENT = _OLDEST.replace("WHERE", "WHERE tracked_at > :recent AND")
_CLAIM_IT = (
    "UPDATE events SET held_until = :until, owner = :owner WHERE id = ({}) "
    # Not as text, which it may not be.
    "RETURNING id, CAST(event AS BLOB), tracked_at, tries"
)
_TAKE_OLDEST = _CLAIM_IT.format(_OLDEST)
_TAKE = _CLAIM_IT.format(f"coalesce(({_OLDEST_RECENT}), ({_OLDEST}))")
_ANY_OVER = "SELECT EXISTS (SELECT 1 FROM events WHERE held_until <= ? OR held_until > ?)"
_END_OVER = (
    "UPDATE events SET held_until = NULL, owner = NULL WHERE held_until <= ? OR held_until > ?"
)
_STATUS = (
    "SELECT count(*), count(owner) FILTER (WHERE held_until > :now), "
    "count(*) FILTER (WHERE owner IS NULL AND held_until > :now), min(tracked_at) FROM events"
)
_REVIVE = "INSERT INTO events (event, tracked_at) SELECT event, tracked_at FROM dead WHERE id = ?"
_FORGET = "DELETE FROM dead WHERE id = ?"
_BURY = (
    "INSERT OR REPLACE INTO dead SELECT id, event, tracked_at, tries, ?, ?, ?, ?, ? "
    "FROM events WHERE id = ?"
)


def token_digest(token: str, salt: str) -> str:
    """Returns a salt and a digest that identify a token without revealing it."""
    # Imported only where a file is written, so that programs start faster.
    import hashlib

    digest = hashlib.blake2b(f"{salt}:{token}".encode(), digest_size=8).hexdigest()
    return f"{salt}:{digest}"


@frozen
class Binding:
    """Which workspace the events of a file are for.

    Attributes:
        address: Where Intercom is.
        token: The access token, of which a digest is kept; None where it is not known.
        workspace: A name of your own for the workspace; the same name outlasts new tokens.
        token_renewed: Whether it is known that the token is for the same workspace as before.
    """

    address: str
    token: str | None = None
    workspace: str | None = None
    token_renewed: bool = False


@frozen
class DeadLetter:
    """An event that was refused, and why.

    Attributes:
        id: Its number in the file.
        event: Its fields, as the API names them.
        tracked_at: When it was tracked, in Unix seconds.
        died_at: When it was refused, in Unix seconds.
        error: The kind of error, such as "NotFoundError".
        message: What the error said.
        status: The HTTP status, or None where no answer said so.
        request_id: What Intercom's support asks for, or None.
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
        queued: Events that wait, or are on their way.
        claimed: Those of them that a process has taken to send.
        held: Those of them that failed for the time being, and wait for their next try.
        dead: Events that were refused.
        oldest: When the event that waits longest was tracked, in Unix seconds, or None.
        address: Where Intercom is, or None before a tracker has used the file.
        workspace: The name that was given to the workspace, or None.
        size: Bytes that the file and its log take.
    """

    queued: int
    claimed: int
    held: int
    dead: int
    oldest: float | None
    address: str | None
    workspace: str | None
    size: int


class Outbox:
    """A file of tracked events; for the threads of one process.

    Every method raises an OutboxError where the file cannot be used, with the remedy; what was
    written before stays in it.

    Args:
        path: Where it is. What is not there is made, for its owner alone (mode 0600).
        binding: Which workspace it is for; None to look at it only.
        most: How many events it holds; about, where several processes write to it.
        patience: Seconds to wait where another process is writing, once the file is open.
        create: Whether to make it where it is not there.

    Raises:
        OutboxError: It cannot be used.
        ConfigurationError: There are events for another workspace in it.
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
        # Entered again by a signal's handler that tracks an event.
        self._lock = threading.RLock()
        # Held while the file is open a second time.
        self._tidying = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        # Which file it is, and which binding, to know them again.
        self._place: tuple[int, int] | None = None
        self._bound: str | None = None
        # Whether it was moved or deleted while it was in use.
        self._missing = False
        # Whether another program keeps it locked: one has waited for it, and the others need not.
        self._locked = False
        self._closed = False
        self._turn = 0
        self._size = 0
        # When the log was, as far as tidy() knows.
        self._changed = 0
        # Whether the disk was full, of which the log may take a part.
        self._crowded = False
        self._counted = self._renewed = 0.0
        # Accepted, but still in the file, as that could not be written.
        self._leaving: set[int] = set()
        _watch_forks()
        # From now on, no process forks while it is being used.
        with _forking:
            _open.add(self)
        try:
            with self._lock, self._told():
                opening = max(patience, _OPENING)
                connection = self._connection = self._connect(opening, create=create)
                self._place = self._where()
                self._migrate(connection, opening, create=create)
                if binding is not None:
                    self._bind(connection, binding, opening)
                self._size = _one(connection, "SELECT count(*) FROM events")
                connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        except BaseException:
            self._disconnect()
            raise

    @property
    def size(self) -> int:
        """How many events there are, as far as this process knows."""
        return self._size

    @property
    def lock(self) -> threading.RLock:
        """What every use of it holds, for who has to wait in the midst of one to let go of it."""
        return self._lock

    def enqueue(self, event: Event, now: float) -> bool:
        """Writes an event; False where there are too many."""
        if self._size >= self._most:
            return False
        if self._missing:
            self._look_for_it()
        if self._missing:
            raise OutboxError(f"the outbox {self.path} {_MISSING}")
        text = json.dumps(event.to_dict(), ensure_ascii=False, separators=(",", ":"))
        with self._using() as connection:
            connection.execute(_PUT, (text, now))
            self._size += 1
        return True

    def claim(self, now: float) -> QueuedEvent | None:
        """Claims the next to send, or None; see :class:`~intercom_data_events.tracker.Queue`."""
        with self._using() as connection:
            while True:
                self._turn += 1
                statement = _TAKE_OLDEST if self._turn % TURNS == 0 else _TAKE
                bounds = {
                    "until": now + _STALLED_AFTER,
                    "owner": self._owner,
                    "recent": now - RECENT,
                }
                row = next(iter(connection.execute(statement, bounds).fetchall()), None)
                if row is None:
                    return None
                number, text, tracked_at, tries = row
                try:
                    event = Event.from_dict(json.loads(text))
                except (ValueError, TypeError, RecursionError) as error:
                    failure = error if isinstance(error, IntercomError) else _unreadable(error)
                    self._bury(connection, number, failure, now)
                    log.warning("an event in %s cannot be read: a dead letter now", self.path)
                else:
                    return QueuedEvent(number, event, tracked_at, tries, unsure=tries > 0)

    def ack(self, entry: QueuedEvent) -> None:
        """Removes it."""
        self._leaving.add(entry.id)
        with self._using() as connection:
            self._remove(connection)

    def dead_letter(self, entry: QueuedEvent, error: IntercomError, now: float) -> None:
        """Makes it a dead letter, unless another process saw it accepted."""
        with self._using() as connection:
            self._bury(connection, entry.id, error, now)

    def nack(self, entry: QueuedEvent, delay: float, now: float) -> None:
        """Ends its claim, and holds it back."""
        with self._using() as connection:
            connection.execute(
                "UPDATE events SET held_until = ?, owner = NULL, tries = tries + 1 "
                "WHERE id = ? AND owner = ?",
                (now + delay, entry.id, self._owner),
            )

    def release(self, entry: QueuedEvent) -> None:
        """Ends its claim."""
        with self._using() as connection:
            connection.execute(
                "UPDATE events SET held_until = NULL, owner = NULL WHERE id = ? AND owner = ?",
                (entry.id, self._owner),
            )

    def run_maintenance(self, now: float, in_flight: Collection[QueuedEvent]) -> bool:
        """Renews the claims on what is in flight, ends those nobody renews; whether any is free.

        To be called every second or so, also while nothing happens.
        """
        self._look_for_it()
        with self._using() as connection:
            if self._leaving:
                self._remove(connection)
            if abs(now - self._renewed) >= _HEARTBEAT:
                connection.executemany(
                    "UPDATE events SET held_until = ? WHERE id = ? AND owner = ?",
                    [(now + _STALLED_AFTER, entry.id, self._owner) for entry in in_flight],
                )
                self._renewed = now
            bounds = (now, now + LONGEST_HELD)
            # Looked for first, as looking keeps nobody from writing.
            if _one(connection, _ANY_OVER, *bounds):
                connection.execute(_END_OVER, bounds)
            # Where it is full, others may have made room.
            rarer = self._size / _COUNTED if self._size < self._most else 0.0
            if abs(now - self._counted) >= max(_COUNTING, rarer):
                self._size = _one(connection, "SELECT count(*) FROM events")
                self._counted = now
            return bool(_one(connection, f"SELECT EXISTS ({_OLDEST})"))

    def _look_for_it(self) -> None:
        """Sees whether the next process would find the file; what it holds is sent in any case."""
        with self._lock:
            if self._connection is not None:
                missing = self._where() != self._place
                if missing and not self._missing:
                    log.error("the outbox %s %s", self.path, _MISSING)
                self._missing = missing

    def _where(self) -> tuple[int, int] | None:
        """What tells the file from others; None where there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def checkpoint(self) -> None:
        """Works the log into the database; waits for the disk, so not while somebody waits for it.

        On a connection of its own, beside which others write on.
        """
        # SQLite writes it beside the file that a link leads to.
        log = Path(f"{os.path.realpath(self.path)}-wal")
        with suppress(OSError):
            found = log.stat()
            length, changed = found.st_size, found.st_mtime_ns
            # Whoever writes next waits for the disk once, so not between two events of many.
            rests, self._changed = changed == self._changed and not self._size, changed
            long = 0 if self._crowded else _SHORT_LOG if rests else _LONG_LOG
            if self._closed or length <= long:
                return
            with self._tidying, self._told(), closing(self._connect(_OPENING)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                if rests or self._crowded or length > _TOO_LONG_LOG:
                    # Others write on only after it; but all is done that takes long.
                    connection.execute(f"PRAGMA busy_timeout = {_WAITING_FOR_READERS}")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self._crowded = False

    def release_delayed(self) -> None:
        """Lets go of everything that is held back and that nobody has claimed."""
        with self._using() as connection:
            connection.execute(
                "UPDATE events SET held_until = NULL WHERE held_until IS NOT NULL AND owner IS NULL"
            )

    def high_watermark(self) -> int:
        """The number of the event that came last."""
        with self._using() as connection:
            return _one(connection, "SELECT coalesce(max(id), 0) FROM events")

    def is_drained(self, mark: int) -> bool:
        """Whether every event up to this one has left."""
        with self._using() as connection:
            return not _one(connection, "SELECT EXISTS (SELECT 1 FROM events WHERE id <= ?)", mark)

    def oldest(self) -> float | None:
        """When the event that waits longest was tracked, in Unix seconds."""
        with self._using() as connection:
            row = connection.execute("SELECT tracked_at FROM events ORDER BY id LIMIT 1").fetchone()
            return None if row is None else float(row[0])

    def remaining(self) -> Iterator[QueuedEvent]:
        """What is lost when this process ends: nothing."""
        return iter(())

    def status(self, now: float | None = None) -> Status:
        """Says what is in the file.

        Args:
            now: The present, in Unix seconds, for what nobody has looked after since its claim
                ended or its next try was due; None to count that as claimed or held.
        """
        with self._using() as connection:
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
        """Yields the fields of the events that wait or are on their way, oldest first."""
        return (
            _fields(text)
            for _, text in self._each(
                "SELECT id, CAST(event AS BLOB) FROM events WHERE id > ? ORDER BY id"
            )
        )

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yields the events that were refused, oldest first."""
        rows = self._each(
            "SELECT id, CAST(event AS BLOB), tracked_at, died_at, error, message, status, "
            "request_id FROM dead WHERE id > ? ORDER BY id"
        )
        return (DeadLetter(number, _fields(text), *rest) for number, text, *rest in rows)

    def revive(self, numbers: Iterable[int] | None = None) -> int:
        """Puts dead letters back into the queue; all of them, or those of these numbers.

        Returns:
            How many there were.
        """
        revived = self._each_dead(numbers, _REVIVE, _FORGET)
        with self._lock:
            self._size += revived
        return revived

    def forget(self, numbers: Iterable[int] | None = None) -> int:
        """Deletes dead letters; all of them, or those of these numbers.

        Returns:
            How many there were.
        """
        return self._each_dead(numbers, _FORGET)

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def pause(self) -> bool:
        """Lets go of the file, and keeps everybody from it until :meth:`resume`; for a fork.

        Returns:
            Whether it did: False where somebody went on using it for too long.
        """
        if not self._tidying.acquire(timeout=_FORK_PATIENCE):
            return False
        if not self._lock.acquire(timeout=_FORK_PATIENCE):
            self._tidying.release()
            return False
        self._disconnect()
        return True

    def resume(self) -> None:
        """Ends :meth:`pause`."""
        self._lock.release()
        self._tidying.release()

    def inherit(self) -> None:
        """Makes it another's than the process' that this one was forked from; once paused."""
        self._owner = uuid.uuid4().hex
        self._leaving = set()

    def abandon(self) -> sqlite3.Connection | None:
        """Returns the connection, which another process goes on using, to be left alone."""
        # Whoever held them is not in this process.
        self._lock = threading.RLock()
        self._tidying = threading.Lock()
        connection, self._connection = self._connection, None
        return connection

    def _each_dead(self, numbers: Iterable[int] | None, *statements: str) -> int:
        chosen = self._all_dead() if numbers is None else iter(numbers)
        found = 0
        while some := list(islice(chosen, _AT_ONCE)):
            with self._using() as connection, _transaction(connection):
                for number in some:
                    # The last statement deletes it, and so tells whether it was there.
                    changed = [connection.execute(one, (number,)).rowcount for one in statements]
                    found += changed[-1]
        return found

    def _all_dead(self) -> Iterator[int]:
        """The numbers of the dead letters that there are, not of those that become some."""
        with self._using() as connection:
            last = _one(connection, "SELECT coalesce(max(id), 0) FROM dead")
        numbers = (row[0] for row in self._each("SELECT id FROM dead WHERE id > ? ORDER BY id"))
        return takewhile(lambda number: number <= last, numbers)

    def _each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yields rows by their first column, some at a time: nobody is kept from writing."""
        last = 0
        while True:
            with self._using() as connection:
                rows = connection.execute(f"{query} LIMIT 500", (last,)).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def _remove(self, connection: sqlite3.Connection) -> None:
        """Removes what was accepted, also where another process saw it refused in the meantime."""
        for number in list(self._leaving):
            if connection.execute("DELETE FROM events WHERE id = ?", (number,)).rowcount:
                self._size -= 1
            else:
                connection.execute(_FORGET, (number,))
            self._leaving.discard(number)

    def _bury(
        self, connection: sqlite3.Connection, number: int, error: IntercomError, now: float
    ) -> None:
        status = request_id = None
        if isinstance(error, APIStatusError):
            status, request_id = error.status_code, _plain(error.request_id)
        kind, message = type(error).__name__, _plain(str(error))
        if error.may_have_been_processed:
            message = f"{message} (an earlier try may have been processed all the same)"
        described = (now, kind, message, status, request_id, number)
        with _transaction(connection):
            connection.execute(_BURY, described)
            self._size -= connection.execute("DELETE FROM events WHERE id = ?", (number,)).rowcount

    @contextmanager
    def _using(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._told():
            if self._closed:
                raise RuntimeError(f"the outbox {self.path} is closed")
            # A signal's handler may close it in the midst of this.
            connection = self._connection
            if connection is None:
                connection = self._connection = self._reconnected()
            try:
                yield connection
            except sqlite3.Error as error:
                self._crowded = self._crowded or _code(error) == "SQLITE_FULL"
                # What was opened while it could only be read, say, would stay so.
                if _code(error) not in _PASSING:
                    self._disconnect()
                elif _code(error) != "SQLITE_FULL" and not self._locked:
                    self._locked = True
                    connection.execute("PRAGMA busy_timeout = 0")
                raise
            finally:
                if self._closed:
                    self._disconnect()
            if self._locked and self._connection is not None:
                self._locked = False
                self._connection.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")

    def _reconnected(self) -> sqlite3.Connection:
        """Opens it again, if it is still the same."""
        connection = self._connect(self._patience)
        try:
            same = self._bound in (None, _bound(connection).get("mark"))
        except sqlite3.Error:
            connection.close()
            raise
        if not same:
            connection.close()
            raise OutboxError(
                f"the outbox {self.path} is another one than before: end what replaced it, put "
                "back the one that there was, with its -wal file, and restart"
            )
        self._locked = self._missing = False
        self._place = self._where()
        return connection

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _explained(error, self.path) from error

    def _connect(self, patience: float, *, create: bool = False) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 35):
            raise OutboxError(
                "an outbox needs SQLite 3.35 or newer, and this Python has "
                f"{sqlite3.sqlite_version}"
            )
        self._prepare(create=create)
        connection = sqlite3.connect(
            # Not made by SQLite, which would let others read it.
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # Waiting for the disk, and working the log into the database, are left to tidy().
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {_LONG_LOG}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, *, create: bool) -> None:
        """Makes the file if it is to be made, and looks at what is there."""
        try:
            if create:
                # Closing a file ends the locks that others in this process have on it.
                with _making, suppress(FileExistsError):
                    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
                    os.close(os.open(self.path, flags, 0o600))
            found = self.path.stat()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise OutboxError(
                f"the outbox {self.path} cannot be opened ({reason}): name a file in a "
                "folder that is there and that this process may write to"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise OutboxError(f"the outbox {self.path} is no file: name one")
        if (found.st_dev, found.st_ino) in _torn:
            raise OutboxError(
                f"the outbox {self.path} was being written to as this process was forked, so that "
                "it cannot be used in it: fork while nothing uses it"
            )

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _migrate(self, connection: sqlite3.Connection, patience: float, *, create: bool) -> None:
        """Brings the file to the present version; several processes may begin with it at once."""
        self._check_kind(connection)
        if not create and _pragma(connection, "application_id") != _APPLICATION:
            raise OutboxError(f"{self.path} is empty: no tracker has used it as an outbox yet")
        # Heeded by SQLite as long as there is nothing in the file.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        # Also where it is an outbox: a process may have ended in the midst of binding it anew.
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
        # In this order, as somebody may be making it: its kind is there as soon as its tables are.
        tables = _one(connection, "SELECT count(*) FROM sqlite_schema")
        if tables and _pragma(connection, "application_id") != _APPLICATION:
            raise OutboxError(f"{self.path} is a database of something else: name another file")
        if version > len(_MIGRATIONS):
            raise OutboxError(
                f"the outbox {self.path} was written by a newer version of intercom-data-events: "
                "install that, or name another file"
            )

    def _bind(self, connection: sqlite3.Connection, binding: Binding, patience: float) -> None:
        """Binds it to a workspace, unless it is bound to another one and still in use.

        Raises:
            ConfigurationError: It holds events for another one, or another process uses it.
        """
        with _transaction(connection):
            problem = self._problem(_bound(connection), binding)
            if problem is None:
                self._bound = _note_binding(connection, binding)
        if problem is not None:
            if not self._is_free(connection):
                raise ConfigurationError(f"the outbox {self.path} {problem}")
            # Nobody has it open, so that nobody is deceived.
            try:
                with _transaction(connection):
                    connection.execute("DELETE FROM binding")
                    self._bound = _note_binding(connection, binding)
            finally:
                _in_turn(connection, "PRAGMA journal_mode = WAL", patience)

    def _is_free(self, connection: sqlite3.Connection) -> bool:
        """Whether there is nothing in it, and nobody else has it open, as WAL mode can tell."""
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
        """Why what it is bound to may be another workspace; None where it is the same."""
        address, workspace, digest = (known.get(one) for one in ("address", "workspace", "token"))
        if address is None:
            return None
        if address != binding.address:
            return (
                f"is for {address}, not for {binding.address}: name another file, or send there "
                "what is in it, with intercom-events outbox drain"
            )
        if workspace is not None and binding.workspace is not None:
            if workspace == binding.workspace:
                return None
            return f"is for the workspace {workspace!r}, not {binding.workspace!r}: name another"
        if binding.token_renewed:
            return None
        if digest is None or binding.token is None:
            same = digest is None and binding.token is None and workspace == binding.workspace
        else:
            same = digest == token_digest(binding.token, digest.partition(":")[0])
        if same:
            return None
        if workspace is not None:
            return f"is for the workspace {workspace!r}: pass workspace={workspace!r} if this is it"
        return (
            "is for another access token, and so perhaps for another workspace: if that is the "
            "same and its token was renewed, run intercom-events outbox drain with "
            "--token-renewed once, and pass workspace= from then on; else name another file"
        )


def _note_binding(connection: sqlite3.Connection, binding: Binding) -> str:
    """Writes what a file is bound to; returns what tells this binding from others."""
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
    """The one whole number that a query yields."""
    return int(connection.execute(query, values).fetchone()[0])


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return _one(connection, f"PRAGMA {name}")


def _in_turn(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Does what SQLite does not wait for its turn with."""
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
    """What UTF-8 can hold of a text; what a server says may be anything."""
    return None if text is None else text.encode(errors="backslashreplace").decode()


def _fields(text: bytes) -> Mapping[str, object]:
    """The fields of an event, or what there is of them."""
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError):
        return {"event": text.decode(errors="replace")}
    return decoded if isinstance(decoded, dict) else {"event": decoded}


def _unreadable(error: Exception) -> OutboxError:
    return OutboxError(f"what the file has is no event: {error}")


_LOCKED = "is locked by another program: end what holds it"
_ALLOW = "let this process write to it, to its -wal and -shm files, and to their folder"
_MISSING = (
    "was moved or deleted while it was in use: nothing is tracked until it is put back, with its "
    "-wal file"
)
_UNHARMED = "; nothing that was in it is lost"
_REMEDIES = {
    "SQLITE_FULL": "cannot be written, as the disk is full: make room",
    "SQLITE_READONLY": f"cannot be written: {_ALLOW}",
    "SQLITE_PERM": f"cannot be opened: {_ALLOW}",
    "SQLITE_CANTOPEN": f"cannot be opened: {_ALLOW}",
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_PROTOCOL": _LOCKED,
    "SQLITE_NOTADB": "is no outbox, or damaged: move it aside, or name another file",
    "SQLITE_CORRUPT": (
        "is damaged: move it and its -wal file aside; what is left of it, sqlite3's .recover reads"
    ),
    "SQLITE_IOERR": "cannot be read or written, as the disk failed: look at the system's log",
}
# Those that say nothing about the events in the file.
_HARMLESS = {code for code in _REMEDIES if code not in ("SQLITE_NOTADB", "SQLITE_CORRUPT")}
# Those that end without opening the file anew.
_PASSING = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"}


def _code(error: sqlite3.Error) -> str:
    """The kind of an error, such as SQLITE_IOERR; empty where it is not SQLite's own."""
    name = getattr(error, "sqlite_errorname", "") or ""
    return "_".join(name.split("_")[:2])


def _explained(error: sqlite3.Error, path: Path) -> OutboxError:
    code = _code(error)
    remedy = _REMEDIES.get(code, "cannot be used")
    kind = OutboxLockedError if remedy == _LOCKED else OutboxError
    return kind(f"the outbox {path} {remedy} ({error}){_UNHARMED if code in _HARMLESS else ''}")


# SQLite keeps, for each process, which of its files are locked how. A forked child gets a copy of
# that, of locks that it does not have; so nothing of SQLite is open while a process forks.
_open = weakref.WeakSet[Outbox]()
_paused: list[Outbox] = []
# Held while it forks, so that one fork comes after the other, and nothing is opened meanwhile.
_forking = threading.RLock()
# Held while a file is made.
_making = threading.RLock()
#: Files that were in use nevertheless, and their connections, which are never to be closed.
_torn: set[tuple[int, int]] = set()
_leaked: list[sqlite3.Connection | None] = []


def _before_fork() -> None:
    _forking.acquire()
    _paused.extend(outbox for outbox in list(_open) if outbox.pause())
    _making.acquire()


def _after_fork() -> None:
    while _paused:
        _paused.pop().resume()
    _forking.release()
    _making.release()


def _in_child() -> None:
    for outbox in list(_open):
        if outbox in _paused:
            outbox.inherit()
            continue
        _leaked.append(outbox.abandon())
        with suppress(OSError):
            found = outbox.path.stat()
            _torn.add((found.st_dev, found.st_ino))
    _after_fork()


@cache
def _watch_forks() -> None:
    """Once for each process, as it cannot be taken back."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
        )
