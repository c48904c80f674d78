"""The file of an outbox: its connections, who may use it, and what happens where it is taken away.

In WAL mode, a database is three files, which belong together: the database, its log (``-wal``) and
the log's index (``-shm``). A process that has them open goes on with them after they were deleted
or replaced, and no other process sees what it writes. So each use looks whether they are still
those that it opened; where they are not, what only the old ones hold is copied, they are closed
without a checkpoint, and the copy's events are inserted into the new ones.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from intercom_data_events import _files
from intercom_data_events._sending import runtime
from intercom_data_events._sending.runtime import ForkLock, guard_forks
from intercom_data_events._validation import printable
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import OutboxError, OutboxLockedError
from intercom_data_events.outbox import _permissions, _rescue, _schema
from intercom_data_events.outbox._binding import Binding, bound
from intercom_data_events.outbox._errors import UNHARMED, code_of, explained, is_busy, unopened
from intercom_data_events.outbox._schema import last_number, one, pragma

try:
    import fcntl
except ImportError:  # Windows lets no process delete a file that is open.
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("intercom_data_events")

# Seconds to wait while a file is opened, because another process may be making it.
OPENING = 5.0
# Seconds that close() waits for each thread that uses the file. One that is interrupted, as by the
# signal handler that closes it, closes its connection itself later.
_CLOSING = 0.2
# Seconds at least to wait for other threads of this process where the file was taken away.
_GATHERING = 0.05
# Nanoseconds after which a change of a folder is certain to give it another time than before: file
# systems keep times in steps of some milliseconds, or of whole seconds, up to two.
_SETTLING = 100_000_000
_COARSE = 3_000_000_000
#: Bytes to which SQLite cuts the log after a checkpoint.
LONG_LOG = 32 * 1024 * 1024

# The inode of each file, and None for one that is not there.
_Inodes = tuple[tuple[int, int] | None, ...]

_MISSING = (
    "was moved or deleted while it was in use, so no event is tracked; put it back with its -wal "
    "file"
)


class SlotInUseError(OutboxLockedError):
    """Other threads of this process keep a slot."""


class Slot:
    """A connection that one thread uses at a time.

    Attributes:
        lock: Held during its use; a signal handler or a finalizer may enter it again.
        connection: The connection; None until its first use, and around forks and failures.
        uses: How many uses of it have begun and not ended, one within the other.
        is_unsure: Whether it may have written after the files were taken away.
        reserved: The number of events that it was given a place for.
        inserted: The number of those that are in the file.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connection: sqlite3.Connection | None = None
        self.uses = 0
        self.is_unsure = False
        self.reserved = self.inserted = 0

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


class OutboxFile:
    """The file, for the threads of one process.

    Args:
        path: The path. A missing file is made, for its owner alone (mode 0600).
        binding: The workspace of the events; None to only look at the file.
        patience: Seconds to wait for another process that writes, once the file is open.
        create: Whether to make a missing file.

    Attributes:
        path: The absolute path.
        main: The connection of the dispatcher, which readers share.
        inserts: That of enqueue.
        spare: One in case that a finalizer keeps the thread that uses enqueue's.
        logged: The last number that is known to be in the log or in the database.
        is_crowded: Whether the disk was full; the log may take a part of it.
        on_child: Called in each forked child.
        on_rescue: Called when events may have got other numbers, as the file was taken away.

    Raises:
        OutboxError: The file cannot be used.
        ConfigurationError: It holds events of another workspace.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        binding: Binding | None,
        *,
        patience: float,
        create: bool,
    ) -> None:
        try:
            self.path = Path(path).absolute()
        except OSError as error:
            raise OutboxError(
                f"the outbox {os.fspath(path)} cannot be found, because the working directory of "
                "this process is gone; pass an absolute path"
            ) from error
        self.patience = patience
        self.main, self.inserts, self.spare = self._slots = Slot(), Slot(), Slot()
        # It only reads, so that closing it last makes no checkpoint.
        self._guards: list[sqlite3.Connection] = []
        # Held while a checkpoint has a connection of its own.
        self.checkpointing = threading.Lock()
        # The forks that wait until no connection is open.
        self._forks = 0
        # What identifies the database, and all three files while they are open.
        self._place: tuple[int, int] | None = None
        self._paths: tuple[str, ...] = ()
        self._inodes: _Inodes = ()
        self.logged = 0
        # What their folder was when they were looked at, if each later change of it shows.
        self._folder = ""
        self._settled: tuple[int, int, int] | None = None
        # When the database itself was written, and the last number in it then: only what is beyond
        # can be lost with the log.
        self._written = 0
        self._saved = 0
        # Whether the log is there, but cannot be read, or has something else than was written.
        self._is_cut = False
        # What is to be logged when no lock is held.
        self._remarks: list[str] = []
        self._schema_version = -1
        # What identifies its binding.
        self._bound: str | None = None
        self._binding = binding
        # Whether it was logged that the database was moved or deleted while it was in use.
        self._told_missing = False
        # Whether another program holds the lock: one caller has waited, the next ones need not.
        self._locked = False
        # Copies of what was taken away, until their events are in the file.
        self._copies: list[_rescue.Copy] = []
        self.is_crowded = False
        self.is_closed = False
        self.on_child: Callable[[], object] = lambda: None
        self.on_rescue: Callable[[sqlite3.Connection], object] = lambda _: None
        # No fork copies this process from now on while a connection is in use.
        guard_forks(self)
        _open_files[id(self)] = self
        try:
            self.prepare(self.main, patience=max(patience, OPENING), create=create)
            with self.main.lock, self.explaining():
                self.main_connection.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")
        except BaseException:
            self._disconnect()
            raise
        _files.tell(self.path, "the outbox")

    def __del__(self) -> None:
        """Closes the file, where an error of a signal handler has lost the outbox."""
        # One whose opening was interrupted may have no connections to close.
        with suppress(AttributeError):
            self._disconnect()

    @property
    def main_connection(self) -> sqlite3.Connection:
        """The dispatcher's connection, while it is open."""
        return self.main.connection or self.open(self.main)

    @property
    def log_path(self) -> str:
        """The path of the log, which is beside the file that a symbolic link leads to."""
        return f"{os.path.realpath(self.path)}-wal"

    @property
    def name(self) -> str:
        """The path, printable, as log lines have it."""
        return printable(str(self.path), None)

    def place(self) -> tuple[int, int] | None:
        """Returns which file the database is that was opened."""
        return self._place

    def log_place(self) -> tuple[int, int] | None:
        """Returns which file the log is that is open, if one is."""
        return self._inodes[1] if self._inodes else None

    def _find_paths(self) -> tuple[str, str, str]:
        """Returns the paths of the database, of its log, and of the log's index."""
        log_path = self.log_path
        return str(self.path), log_path, f"{log_path[:-3]}shm"

    @contextmanager
    def using(self, slot: Slot, seconds: float = -1) -> Generator[sqlite3.Connection]:
        """Gives the connection of a slot to one thread.

        Args:
            slot: The slot.
            seconds: How long to wait for other threads; for ever, if it is negative.

        Raises:
            SlotInUseError: Other threads kept the slot for longer.
            OutboxError: The file cannot be used.
            RuntimeError: It is closed.
        """
        self.prepare(slot)
        with _held(slot.lock, seconds) as held, self.explaining():
            if not held:
                raise self.in_use(seconds)
            self.check_open()
            slot.uses += 1
            slot.is_unsure = True
            connection, locked = None, False
            try:
                connection, locked = self._ready(slot)
                self.check_open()
                yield connection
                self._locked = False
            except (sqlite3.Error, UnicodeError) as error:
                code = code_of(error)
                if code == "SQLITE_FULL" and connection is not None:
                    _schema.check_numbers(connection, self.path)
                self.is_crowded |= code == "SQLITE_FULL"
                # A connection that was opened read-only would stay so, for example.
                if code not in _PASSING:
                    self._is_cut |= code in ("SQLITE_IOERR", "SQLITE_CORRUPT")
                    slot.disconnect()
                elif code != "SQLITE_FULL":
                    if slot.uses > 1:
                        # What the interrupted use reads may be older than what others have written.
                        raise self.in_use(self.patience) from error
                    self._locked = True
                raise
            finally:
                self._end_use(slot)
                if locked and connection is not None and slot.connection is connection:
                    connection.execute(f"PRAGMA busy_timeout = {round(self.patience * 1000)}")
            slot.is_unsure = not self.is_intact
        self.save()
        if self._remarks and slot is self.main:
            self._log_remarks()

    def in_use(self, seconds: float) -> SlotInUseError:
        return SlotInUseError(
            f"the outbox {self.path} must be free within {seconds:g} s, but other threads of this "
            f"process use it; try again{UNHARMED}"
        )

    def _log_remarks(self) -> None:
        # A log handler may wait for a thread that enqueues.
        if not any(slot.uses for slot in self._slots):
            # At once, as a log handler or a finalizer may come here, too.
            remarks, self._remarks = self._remarks, []
            for remark in remarks:
                log.error("%s", printable(remark, None))

    def is_ready(self, slot: Slot) -> bool:
        """Whether a slot can be used as it is, by a thread that holds its lock."""
        if slot.connection is None or self._locked or self._copies or self._is_rescuing:
            return False
        return not (self._forks or self._is_cut or self.is_closed) and self.is_intact

    def execute(
        self, slot: Slot, statement: str, values: tuple[object, ...]
    ) -> sqlite3.Cursor | None:
        """Executes a statement on a slot that is ready, in less time than by :meth:`using`.

        Where `is_unsure` is set afterwards, :meth:`save` is to be called without its lock.

        Returns:
            None where it failed, so that it is to be executed by :meth:`using`.
        """
        slot.uses += 1
        slot.is_unsure = True
        try:
            connection = slot.connection
            if connection is None:
                return None
            if not _schema.CAN_REFUSE:
                self._check_schema(connection)
            cursor = connection.execute(statement, values)
            slot.is_unsure = not self.is_intact
        except (sqlite3.Error, UnicodeError) as error:
            self._locked |= is_busy(error) and slot.uses == 1  # It has waited.
            return None
        else:
            return cursor
        finally:
            self._end_use(slot)

    def _ready(self, slot: Slot) -> tuple[sqlite3.Connection, bool]:
        """Returns the connection of a slot, and whether it waits for no other process now."""
        while True:
            # A signal handler or a finalizer may close it, or fork, at any line from here on.
            try:
                connection, locked = slot.connection or self.open(slot), self._locked
                if locked:
                    connection.execute("PRAGMA busy_timeout = 0")
                if not _schema.CAN_REFUSE:
                    self._check_schema(connection)
            except sqlite3.ProgrammingError:
                self.check_open()  # If it is, it was closed in between.
            else:
                return connection, locked

    @property
    def _is_rescuing(self) -> bool:
        """Whether this thread is about to save what was taken away, so that a finalizer cannot."""
        return bool(_rescuing) and (threading.get_ident(), self._place) in _rescuing

    def check_open(self) -> None:
        if self.is_closed:
            raise RuntimeError(f"the outbox {self.name} is closed; open it again")
        if self._is_rescuing:
            raise OutboxLockedError(
                f"the outbox {self.name} cannot be used by a finalizer or signal handler while its "
                f"thread moves events into a new log; try again{UNHARMED}"
            )

    def check_place(self) -> None:
        """Looks whether the next process would find the file.

        Raises:
            OutboxError: It would not.
        """
        if self.is_missing:
            raise OutboxError(f"the outbox {self.path} {_MISSING}")

    def watch(self) -> None:
        """Looks at the file, every second or so: where it is, and whether its schema changed.

        What is in a file that was moved is sent in any case.

        Raises:
            OutboxError: It is not an outbox any longer.
        """
        with self.main.lock:
            missing = self.is_missing
            if missing and not self._told_missing:
                self._remarks.append(f"the outbox {self.path} {_MISSING}")
            self._told_missing = missing
        if missing:
            # Without the lock: a log handler may wait for another thread.
            self._log_remarks()
            return
        with self.using(self.main) as connection:
            self._check_schema(connection)
            self.look_at_database(connection)
            known, logged = self.logged, last_number(connection)
            if self.is_intact:
                self.logged = max(self.logged, logged)
                # Another program has written something earlier over what is in it.
                self._is_cut |= logged < known

    def look_at_database(self, connection: sqlite3.Connection) -> None:
        """Learns the last number that is in the database itself, whatever becomes of the log."""
        try:
            written = os.stat(self.path).st_mtime_ns
            if written == self._written:
                return
            with closing(
                sqlite3.connect(f"{self.path.as_uri()}?mode=ro&immutable=1", uri=True)
            ) as alone:
                saved = last_number(alone)
                newest = one(alone, _NEWEST, saved)
        except (OSError, sqlite3.Error):
            return
        # A checkpoint that goes on, or has ended early, may have written the number alone.
        is_whole = saved <= last_number(connection) and newest >= one(connection, _NEWEST, saved)
        if self.is_intact and is_whole:
            self._written, self._saved = written, max(self._saved, saved)

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        version = pragma(connection, "schema_version")
        if version != self._schema_version:
            # A process of a later version may have brought it up to date.
            if pragma(connection, "user_version") <= _schema.latest():
                _schema.check(connection, self.path)
            else:
                _schema.check_newer(connection, self.path)
            self._schema_version = version

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Raises an OutboxError for errors of SQLite's."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            raise explained(error, self.path) from error

    @property
    def is_intact(self) -> bool:
        """Whether the files are still those that were opened."""
        if not self._inodes:
            return True
        # One look at the folder instead of three: each file that comes or goes changes its time.
        folder = _folder(self._folder)
        if folder is not None and folder == self._settled:
            return True
        if _inodes(self._paths) != self._inodes:
            return False
        settles = folder is not None and (
            time.time_ns() - folder[2] > (_SETTLING if folder[2] % 1_000_000_000 else _COARSE)
        )
        self._settled = folder if settles and not self._is_link else None
        return True

    @property
    def is_missing(self) -> bool:
        """Whether the database was moved or deleted; its events are sent, as long as it is open."""
        return not self.is_intact and _inode(self.path) != self._place

    def close(self) -> None:
        """Closes the file."""
        self.is_closed = True
        if self._is_rescuing:
            return  # It is closed afterwards.
        self._close()
        self._say_lost()
        self._log_remarks()

    def _close(self) -> None:
        held = [slot for slot in self._slots if slot.lock.acquire(timeout=_CLOSING)]
        try:
            # Closing a connection within its use, in a finalizer, could crash the interpreter; and
            # a thread may keep its slot for longer. Then the end of that use closes it.
            if len(held) == len(self._slots) and not any(slot.uses for slot in held):
                self._save_and_disconnect()
            else:
                for slot in held:
                    if not slot.uses:
                        slot.disconnect()
        finally:
            for slot in held:
                slot.lock.release()

    # Opening.

    @contextmanager
    def beside(self, patience: float) -> Generator[sqlite3.Connection]:
        """Opens a connection for long work, so that other threads go on with theirs.

        Raises:
            OutboxError: The file cannot be used.
        """
        with self.explaining():
            self.save()
            with self.checkpointing, closing(self.connect(patience)) as connection:
                # That has it open the log, which must be that of the index.
                pragma(connection, "schema_version")
                if not self.is_intact:
                    raise sqlite3.OperationalError("locking protocol")
                yield connection

    def connect(
        self, patience: float, *, create: bool = False, cached_statements: int = 128
    ) -> sqlite3.Connection:
        """Opens a connection.

        Raises:
            OutboxError: There is no file that may be used.
        """
        if sqlite3.sqlite_version_info < (3, 35):
            raise OutboxError(
                f"an outbox needs SQLite 3.35 or newer, not {sqlite3.sqlite_version}; use a Python "
                "that has one"
            )
        self._prepare(create=create)
        return self._connect(patience, cached_statements)

    def _connect(
        self, patience: float, cached_statements: int, *, reads: bool = False
    ) -> sqlite3.Connection:
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
            opened.extend(map(connect, (f"{self.path.as_uri()}?mode={'ro' if reads else 'rw'}",)))
            (connection,) = opened
            _schema.secure(connection)
            # Waiting for the disk and checkpoints are left to checkpoint().
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {LONG_LOG}")
            # Of the temporary trigger, no file is made.
            connection.execute("PRAGMA temp_store = MEMORY")
            return connection  # noqa: TRY300  # so that an error below closes it
        except BaseException:
            for connection in opened:
                connection.close()
            raise

    def open(
        self, slot: Slot, *, patience: float | None = None, create: bool = False
    ) -> sqlite3.Connection:
        """Opens the file for a slot, if it is still the same one.

        Raises:
            OutboxError: It is not, or it cannot be used.
        """
        patience = self.patience if patience is None else patience
        # Prepared statements are not safe to share, and threads share enqueue's connection.
        cached = 128 if slot is self.main else 0
        is_first, connection = not self._guards, None
        try:
            if self._copies:
                self._restore(patience)
            connection = self.connect(patience, create=create, cached_statements=cached)
            slot.disconnect()  # What a finalizer has opened meanwhile.
            slot.connection = connection
            _schema.migrate(connection, self.path, patience, create=create or bool(self._copies))
            self._check_binding(connection, patience)
            if self._place not in (None, _inode(self.path)) and any(
                slot.connection not in (None, connection) for slot in self._slots
            ):
                raise OutboxError(f"the outbox {self.path} {_MISSING}")
            self._complete(connection)
            if not self.is_intact:
                # It may have opened the new log with the index of the old one.
                raise sqlite3.OperationalError("locking protocol")
            return connection  # noqa: TRY300  # so that no error of a handler loses it
        except BaseException:
            slot.disconnect()
            if connection is not None:
                connection.close()  # A handler may have interrupted this before it was the slot's.
            if is_first:
                self._disconnect()
            raise

    def _check_binding(self, connection: sqlite3.Connection, patience: float) -> None:
        """Binds the file when it is first opened, and where it has lost its binding with its log.

        Raises:
            OutboxError: It is another file.
            ConfigurationError: It holds events of another workspace.
        """
        mark = bound(connection, self.path).get("mark")
        binding, is_first = self._binding, self._place is None
        is_lost = bool(self._copies) and self._bound not in (None, mark)
        if binding is not None and (is_first or (is_lost and binding.fits(connection, self.path))):
            self._bound = binding.bind(connection, self.path, patience)
            if mark is None:
                # So that the file is known again where the log is lost.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        elif self._bound not in (None, mark):
            raise OutboxError(
                f"the outbox {self.path} was replaced by another one; stop the program that "
                "replaced it, put the earlier one back with its -wal file, and restart"
            )

    def _complete(self, connection: sqlite3.Connection) -> None:
        """Prepares a connection to a file that was found to be an outbox."""
        connection.execute(_REMOVE_BURIED)
        if not self._guards:
            self._paths = self._find_paths()
            connect = partial(self._connect, self.patience, 0, reads=True)
            # One step, as in that, so that neither an error of a handler loses it nor a finalizer.
            self._guards.extend(starmap(connect, ((),)))
            for guard in self._guards:
                # That has it open the log.
                self._schema_version = pragma(guard, "schema_version")
            _permissions.check(self._paths)
            self._is_link = os.path.islink(self.path)
            self._folder = os.path.dirname(self._paths[1])
            self._settled = None
            self._inodes = _inodes(self._paths)
            self._place = self._inodes[0]
            self.look_at_database(connection)

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
            raise unopened(error, self.path) from error
        if not stat.S_ISREG(found.st_mode):
            raise OutboxError(f"the outbox {self.path} is not a regular file; choose another path")
        paths = self._find_paths()
        _permissions.check(paths)
        if _inode(paths[1]) is None and (shm := _inode(paths[2])) is not None:
            # SQLite makes the log first, and deletes it last: this index is that of one that is
            # gone, and a process that has not found out yet may still use it.
            self._remove_index(paths[2], shm)
        if (found.st_dev, found.st_ino) in _unusable:
            raise OutboxError(
                f"the outbox {self.path} was in use when this process was forked, so this process "
                "cannot use it; fork while no thread uses it"
            )

    # Closing.

    def _disconnect(self) -> None:
        """Closes all connections; makes no checkpoint of a log that was taken away or cut."""
        guards, self._guards = self._guards, []
        taken = self._is_cut or not self.is_intact
        if guards and self.is_missing:
            self._say_left(guards[0])
        self._inodes = ()
        for guard in guards if not taken else ():
            guard.close()
        for slot in self._slots:
            slot.disconnect()
        for guard in guards:
            guard.close()

    def _end_use(self, slot: Slot) -> None:
        """Ends a use; closes what was to be closed meanwhile, the file with its last connection."""
        slot.uses -= 1
        if not (self.is_closed and not slot.uses) and not self._forks:
            if slot is self.spare and not slot.uses:
                slot.disconnect()
            return
        if any(other.connection for other in self._slots if other is not slot):
            slot.disconnect()
        else:
            self._save_and_disconnect()

    def _save_and_disconnect(self) -> None:
        try:
            self.save()
        except OutboxError as error:
            self._remarks.append(str(error))
        self._disconnect()

    # Where it is taken away.

    def prepare(self, slot: Slot, *, patience: float | None = None, create: bool = False) -> None:
        """Has a slot be open, after what was taken away was saved; before its lock is taken.

        Who saves waits for all who use a slot, so a thread that waits for that uses none.

        Args:
            slot: The slot.
            patience: Seconds to wait for another process that writes; None for those of the file.
            create: Whether to make a missing file.

        Raises:
            OutboxError: It could not be opened, or what was taken away not saved, or not yet.
        """
        with self.explaining():
            self.check_open()
            _retried(partial(self._prepare_slot, slot, patience, create=create))

    def _prepare_slot(self, slot: Slot, patience: float | None, *, create: bool) -> None:
        is_left = self.save()
        if slot.connection is not None:
            return
        with _held(slot.lock, self.patience) as held:
            if not held or slot.connection is not None or self.is_closed or self._forks:
                return
            if is_left and not self.is_missing:
                # It would open the new log with the index of the old one.
                raise sqlite3.OperationalError("locking protocol")
            slot.uses += 1
            try:
                self.open(slot, patience=patience, create=create)
            finally:
                self._end_use(slot)

    def save(self, *, forks: bool = False) -> bool:
        """Saves what only this process sees, where the log was deleted or replaced.

        As :meth:`prepare`, it is for threads that hold no slot.

        Returns:
            Whether there is still something to be saved.

        Raises:
            OutboxError: It could not be saved, or not yet.
        """
        if self._forks or self._is_rescuing or self.is_missing:
            return True
        with self.explaining():
            if not self._inodes:
                self._rescue_others()
        if self._is_well:
            return False
        with self.explaining(), self._gathered(forks=forks) as files:
            if files:
                self._rescue(files)
            return not (files or self._is_well)

    @property
    def _is_well(self) -> bool:
        """Whether there is nothing to be saved."""
        return self.is_intact and not (self._copies or self._is_cut)

    def _rescue_others(self) -> None:
        """Has other outboxes of this process close what was taken away, before this one opens."""
        place = _inode(self.path)
        for file in _living():
            if file is self or file._place != place:
                continue
            if file.is_intact and not file._is_rescuing:
                continue
            if file.save() and not file.is_missing:
                # This one would open the new log with the index of the old one.
                raise sqlite3.OperationalError("locking protocol")

    def _rescue(self, files: Collection[OutboxFile]) -> None:
        inodes = _inodes(self._paths) if self._inodes else ()
        if inodes and inodes[0] != self._place:
            return  # It was moved in between.
        failure = None
        if inodes != self._inodes:
            failure = self._copy_and_close(inodes, files)
        elif self._is_cut:
            self._open_cut(files)
        self._is_cut = False
        self._insert_copies(files)
        if failure is not None:
            raise OutboxError(failure)

    def _open_cut(self, files: Collection[OutboxFile]) -> None:
        """Opens the files again, after their log could not be read."""
        for file in files:
            file._disconnect()
        lost = self.logged - last_number(_retried(partial(self.open, self.main)))
        self.logged -= max(lost, 0)
        if lost > 0:
            self._remarks.append(
                f"the log of the outbox {self.path} was cut or overwritten while it was in use; up "
                f"to {lost} events could not be saved"
            )

    def _copy_and_close(self, inodes: _Inodes, files: Collection[OutboxFile]) -> str | None:
        """Copies what the old files hold, and closes them, so that they can be opened anew.

        Returns:
            What could not be saved, or None.
        """
        source = next((slot.connection for slot in self._slots if slot.connection), None)
        source = source or next(iter(self._guards), None)
        _, wal, shm = self._inodes
        failure, unsure, lost = None, True, wal
        saved = max(file._saved for file in files)
        if inodes[1] == wal:
            # Others find in the log what was in it when its index was taken away.
            lost = shm
            saved = max(saved, *(file.logged for file in files))
            unsure = any(slot.is_unsure for file in files for slot in file._slots)
        if source is not None and unsure:
            try:
                self._copies.append(_rescue.Copy(source, str(lost and lost[1]), saved))
            except sqlite3.Error as error:
                if code_of(error) not in _UNREADABLE:
                    raise  # Such as a full disk: the old files stay open, and it is tried again.
                self.logged = 0
                failure = f"{self._taken} could not be saved ({error})"
        if shm is not None and inodes[1] != wal and inodes[2] == shm:
            # It is the index of the log that is gone, and others would take it for that of theirs.
            self._remove_index(self._paths[2], shm)
        # SQLite keeps one index of the log for all connections of a process to a database.
        for file in files:
            file._disconnect()
            for slot in file._slots:
                slot.is_unsure = False
        if unsure:
            self._remarks.append(failure or f"{self._taken} is being moved into the new one")
        return failure

    @property
    def _taken(self) -> str:
        return (
            f"the log of the outbox {self.path} was deleted or replaced while it was in use; "
            "what it held"
        )

    @staticmethod
    def _remove_index(path: str, shm: tuple[int, int]) -> None:
        with suppress(OSError), _folder_lock(os.path.dirname(path)):
            # Unless another process has done so, and that of the new log is there.
            if _inode(path) == shm:
                os.unlink(path)

    def _restore(self, patience: float) -> None:
        """Writes a copy over a database of which a checkpoint that ended early wrote some pages.

        Such a database is damaged without its log. It is left as it is where another process has
        written to the new log.
        """
        self._prepare(create=False)
        address = f"{self.path.as_uri()}?mode=rw"
        with (
            suppress(OSError),
            # Of several processes that have a copy, one writes it.
            _folder_lock(os.path.dirname(self.log_path)),
            closing(sqlite3.connect(address, timeout=patience, uri=True)) as connection,
        ):
            _schema.secure(connection)
            is_damaged = not _rescue.is_sound(connection)
            is_ours = _inode(self.path) == self._place
            if is_damaged and is_ours and not os.stat(self.log_path).st_size:
                self._copies[0].restore(connection)

    def _insert_copies(self, files: Collection[OutboxFile]) -> None:
        whole = True
        while self._copies:
            copy = self._copies[0]
            try:
                connection = self.main.connection or _retried(partial(self.open, self.main))
                whole &= copy.insert(connection, lambda: self.is_intact)
            except sqlite3.OperationalError:
                if self.is_intact:
                    raise
                self._rescue(files)  # They were taken away again.
                return
            for file in files:
                file.on_rescue(connection)
            self.logged = last_number(connection)
            self._copies.pop(0)
            copy.close()
            # So that others, who may have the old log open, find it where the new one is lost.
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.look_at_database(connection)
        if not whole:
            self._remarks.append(
                f"a part of what the log of the outbox {self.path} held could not be saved, "
                "because another program has written to the database meanwhile"
            )
            raise OutboxError(self._remarks[-1])

    def _say_left(self, guard: sqlite3.Connection) -> None:
        """Says which events are not sent, unless the file is put back."""
        number: int | str = "some"
        with suppress(sqlite3.Error):
            number = one(guard, "SELECT count(*) FROM events")
        if number:
            self._remarks.append(
                f"{number} events of the outbox {self.path}, which was moved or deleted while it "
                "was in use, are not sent; if it was moved, put it back with its -wal file"
            )

    def _say_lost(self) -> None:
        """Logs what could not be saved until the file was closed."""
        while self._copies:
            copy = self._copies.pop()
            number = copy.count()
            copy.close()
            self._remarks.append(
                f"{'some' if number is None else number} events of the outbox {self.path} could "
                "not be saved"
            )

    @contextmanager
    def _gathered(self, *, forks: bool) -> Generator[Collection[OutboxFile]]:
        """Has this thread alone use the file, if that is soon possible.

        Yields:
            What this process has open of the file; nothing if other threads, or a use that this
            thread has begun, go on.
        """
        rescuing = threading.get_ident(), self._place
        files = [
            file
            for file in _living()
            if file is self or (file._place == self._place and not file.is_closed)
        ]
        with ExitStack() as held:
            held.callback(_rescuing.discard, rescuing)
            for file in files:
                held.callback(file._close_after_rescue)
            _rescuing.add(rescuing)
            ends = SYSTEM.monotonic() + max(self.patience, _GATHERING)
            for file in sorted(files, key=id):
                # A fork has got the first one already.
                locks = file._locks()[forks and (file is self or bool(file._forks)) :]
                if not all(
                    held.enter_context(_held(lock, max(ends - SYSTEM.monotonic(), 0)))
                    for lock in locks
                ):
                    break
                # Not within a use of its own thread, which goes on after a handler; and another
                # thread may have done it meanwhile.
                if any(slot.uses for slot in file._slots) or self._is_well:
                    break
            else:
                yield files
                return
            yield ()

    def _close_after_rescue(self) -> None:
        if self.is_closed:  # Meanwhile, by a finalizer.
            self._close()

    # Forks.

    def before_fork(self) -> bool:
        """Closes the connections, and keeps other threads from new ones.

        SQLite keeps for each process which locks it has on a file. A forked child inherits that
        list without the locks, so a fork waits until no connection is open.
        """
        if self._is_rescuing:
            return False
        ends = SYSTEM.monotonic() + runtime.FORK_PATIENCE
        held: list[threading.Lock | threading.RLock] = []
        for lock in self._locks():
            if not lock.acquire(timeout=max(0.0, ends - SYSTEM.monotonic())):
                for each in held:
                    each.release()
                return False
            held.append(lock)
        if not any(slot.uses for slot in self._slots):
            with suppress(OutboxError):
                self.save(forks=True)
        self._forks += 1
        self._disconnect()
        return True

    def after_fork(self, *, in_child: bool, waited: bool) -> None:
        """Lets other threads go on."""
        if in_child:
            self.on_child()
            # What was taken away is the parent's to save. Its other threads do not exist here, but
            # new ones may have their numbers.
            here = threading.get_ident()
            _rescuing.difference_update([one for one in _rescuing if one[0] != here])
            _leaked.extend(self._copies)
            self._copies = []
        if waited:
            self._forks -= 1
            for lock in self._locks():
                lock.release()
        elif in_child:
            # Closing a connection that the parent goes on using would end the parent's locks.
            _leaked.extend([*self._guards, *(slot.connection for slot in self._slots)])
            self._guards = []
            self.main, self.inserts, self.spare = self._slots = Slot(), Slot(), Slot()
            self.checkpointing = threading.Lock()
            with suppress(OSError):
                found = self.path.stat()
                _unusable.add((found.st_dev, found.st_ino))

    def _locks(self) -> tuple[threading.Lock | threading.RLock, ...]:
        return self.checkpointing, *(slot.lock for slot in self._slots)


def is_open(place: tuple[int, int] | None) -> bool:
    """Whether this process has a database open."""
    return any(file._place == place and file._guards for file in _living())


def _living() -> list[OutboxFile]:
    return [file for reference in _open_files.valuerefs() if (file := reference()) is not None]


def _inode(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _folder(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


@contextmanager
def _held(lock: threading.Lock | threading.RLock, seconds: float) -> Generator[bool]:
    """Holds a lock, if that is possible in time; yields whether it is."""
    held: list[bool] = []
    try:
        # One step: a handler's error can neither lose the lock nor release it twice.
        held.extend(map(lock.acquire, (True,), (seconds,)))
        yield held == [True]
    finally:
        if held == [True]:
            lock.release()


@contextmanager
def _folder_lock(path: str) -> Generator[None]:
    """Has one process after the other replace a log that it lost."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _inodes(paths: tuple[str, ...]) -> _Inodes:
    return tuple(map(_inode, paths))


def _retried(open_: Callable[[], Any]) -> Any:
    """Opens a file, again where it is taken away meanwhile, or another process replaces its log."""
    for wait in (0.0, 0.01, 0.1, 0.3, 0.6, 1.0):
        try:
            return open_()
        except (sqlite3.Error, OutboxError) as error:
            # Or a finalizer forked, and so closed the connection.
            is_closed = isinstance(error, sqlite3.ProgrammingError)
            if not is_closed and code_of(error) not in ("SQLITE_IOERR", "SQLITE_PROTOCOL"):
                raise
        time.sleep(wait)
    return open_()


# Makes one statement of a burial and the removal.
_REMOVE_BURIED = (
    "CREATE TEMP TRIGGER buried AFTER INSERT ON main.dead "
    "BEGIN DELETE FROM events WHERE id = NEW.id; END"
)
# The number of the newest event up to one.
_NEWEST = "SELECT coalesce(max(id), 0) FROM events WHERE id <= ?"
# The errors that end without opening the file again.
_PASSING = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"}
# The errors of a file of which nothing can be read.
_UNREADABLE = {"SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB"}
# Held while a file is made.
_making = ForkLock()
# By their ids: unlike that of a WeakSet, its iteration allows that another thread adds one.
_open_files = weakref.WeakValueDictionary[int, OutboxFile]()
# Files that were in use during the fork of this process, and their connections: never closed.
_unusable: set[tuple[int, int]] = set()
_leaked: list[object] = []
# The threads that save what was taken away, each with the file.
_rescuing: set[tuple[int, tuple[int, int] | None]] = set()
