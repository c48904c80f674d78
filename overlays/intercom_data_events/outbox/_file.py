"""The file of an outbox: its connections, and what happens if it is deleted or replaced.

In WAL mode, a database is three files that belong together: the database, its log (``-wal``) and
the log's index (``-shm``). If they are deleted or replaced, a process that has them open continues
with the old files, and no other process sees what it writes. So each use checks whether they are
still the files that were opened. If not, it copies the old files, closes them without a checkpoint,
and inserts the events that only the copy holds into the new files.
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
from intercom_data_events._counting import counted
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
except ImportError:  # On Windows, no process can delete an open file.
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("intercom_data_events")

# Seconds to wait while a file is opened, because another process may be creating it.
OPENING = 5.0
# Seconds that close() waits for each thread that uses the file. A thread that is interrupted, for
# example by the signal handler that closes the file, closes its connection itself later.
_CLOSING = 0.2
# The minimum number of seconds to wait for other threads of this process if the log was deleted or
# replaced.
_GATHERING = 0.05
# Nanoseconds after which a change of a folder is certain to change its time: file systems keep
# times in steps of some milliseconds, or of full seconds, at most two.
_SETTLING = 100_000_000
_COARSE = 3_000_000_000
#: Bytes to which SQLite truncates the log after a checkpoint.
LONG_LOG = 32 * 1024 * 1024

# The device and the inode of each file; None for a missing file.
_Inodes = tuple[tuple[int, int] | None, ...]

_MISSING = (
    "was moved or deleted while it was in use, so events cannot be tracked; put it back with its "
    "-wal file"
)


class SlotInUseError(OutboxLockedError):
    """Other threads of this process are using a slot."""


class Slot:
    """A connection that one thread uses at a time.

    Attributes:
        lock: Held while the slot is used; a signal handler or a finalizer may acquire it again.
        connection: The connection; None until its first use, and around forks and failures.
        uses: The number of nested uses.
        is_unsure: Whether it may have written after the files were deleted or replaced.
        reserved: The number of events for which it has reserved a place.
        inserted: The number of those events that are in the file.
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
        path: The path. A missing file is created for its owner alone (mode 0600).
        binding: The workspace of the events; None to only inspect the file.
        patience: Seconds to wait for another process that writes, once the file is open.
        create: Whether to create a missing file.

    Attributes:
        path: The absolute path.
        main: The slot of the dispatcher, which readers share.
        inserts: The slot of enqueue.
        spare: A slot for enqueue when a finalizer interrupts the thread that uses `inserts`.
        logged: The last number that is known to be in the log or in the database.
        is_crowded: Whether the disk was full, perhaps because of the log.
        on_child: Called in each forked child.
        on_rescue: Called when events were moved, and may have other numbers now.

    Raises:
        OutboxError: The file cannot be used.
        ConfigurationError: The file holds events of another workspace.
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
                f"the outbox {os.fspath(path)} cannot be found because the working directory of "
                "this process was deleted; pass an absolute path"
            ) from error
        self.patience = patience
        self.main, self.inserts, self.spare = self._slots = Slot(), Slot(), Slot()
        # A read-only connection: closing it last makes no checkpoint.
        self._guards: list[sqlite3.Connection] = []
        # Held while a checkpoint has a separate connection.
        self.checkpointing = threading.Lock()
        # The number of forks that wait until no connection is open.
        self._forks = 0
        # What identifies the database, and all three files while they are open.
        self._place: tuple[int, int] | None = None
        self._paths: tuple[str, ...] = ()
        self._inodes: _Inodes = ()
        self.logged = 0
        # Their folder, and its state when they were last checked, if any later change shows in it.
        self._folder = ""
        self._settled: tuple[int, int, int] | None = None
        # When the database itself was last written, and the last number in it: only later events
        # can be lost with the log.
        self._written = 0
        self._saved = 0
        # Whether the log exists, but cannot be read or has other content than was written.
        self._is_cut = False
        # Lines to log when no lock is held.
        self._remarks: list[str] = []
        self._schema_version = -1
        # The mark of its binding.
        self._bound: str | None = None
        self._binding = binding
        # Whether it was logged that the database was moved or deleted while it was in use.
        self._told_missing = False
        # Whether another program holds the lock. One caller has waited for it; later ones do not.
        self._locked = False
        # Copies of deleted or replaced files, until their events are in the new file.
        self._copies: list[_rescue.Copy] = []
        self.is_crowded = False
        self.is_closed = False
        self.on_child: Callable[[], object] = lambda: None
        self.on_rescue: Callable[[sqlite3.Connection], object] = lambda _: None
        # From now on, no fork copies this process while a connection is in use.
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
        """Closes the file if a signal handler's error has lost the outbox."""
        # If opening was interrupted, there may be no connections to close.
        with suppress(AttributeError):
            self._disconnect()

    @property
    def main_connection(self) -> sqlite3.Connection:
        """The dispatcher's connection, while it is open."""
        return self.main.connection or self.open(self.main)

    @property
    def log_path(self) -> str:
        """The path of the log, which is beside the target of a symbolic link."""
        return f"{os.path.realpath(self.path)}-wal"

    @property
    def name(self) -> str:
        """The path, printable, for log lines."""
        return printable(str(self.path), None)

    def place(self) -> tuple[int, int] | None:
        """Returns the device and the inode of the database that was opened."""
        return self._place

    def log_place(self) -> tuple[int, int] | None:
        """Returns the device and the inode of the open log, if one is open."""
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
            seconds: How long to wait for other threads; forever if it is negative.

        Raises:
            SlotInUseError: Other threads used the slot for longer.
            OutboxError: The file cannot be used.
            RuntimeError: The file is closed.
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
                # For example, a connection that was opened read-only would stay read-only.
                if code not in _PASSING:
                    self._is_cut |= code in ("SQLITE_IOERR", "SQLITE_CORRUPT")
                    slot.disconnect()
                elif code != "SQLITE_FULL":
                    if slot.uses > 1:
                        # The interrupted use may have read an older state of the file.
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
            f"the outbox {self.path} is still in use by other threads of this process after "
            f"{seconds:g} s; try again{UNHARMED}"
        )

    def _log_remarks(self) -> None:
        # A log handler may wait for a thread that enqueues.
        if not any(slot.uses for slot in self._slots):
            # In one step, because a log handler or a finalizer may also run this.
            remarks, self._remarks = self._remarks, []
            for remark in remarks:
                log.error("%s", printable(remark, None))

    def is_ready(self, slot: Slot) -> bool:
        """Whether a thread that holds a slot's lock can use the slot without preparing it."""
        if slot.connection is None or self._locked or self._copies or self._is_rescuing:
            return False
        return not (self._forks or self._is_cut or self.is_closed) and self.is_intact

    def execute(
        self, slot: Slot, statement: str, values: tuple[object, ...]
    ) -> sqlite3.Cursor | None:
        """Executes a statement on a slot that is ready, faster than :meth:`using`.

        If `is_unsure` is set afterwards, call :meth:`save` without the slot's lock.

        Returns:
            None if it failed; then execute it with :meth:`using`.
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
            self._locked |= is_busy(error) and slot.uses == 1  # This call has waited already.
            return None
        else:
            return cursor
        finally:
            self._end_use(slot)

    def _ready(self, slot: Slot) -> tuple[sqlite3.Connection, bool]:
        """Returns the connection of a slot, and whether it does not wait for other processes."""
        while True:
            # From here on, a signal handler or a finalizer may close it, or fork, at any line.
            try:
                connection, locked = slot.connection or self.open(slot), self._locked
                if locked:
                    connection.execute("PRAGMA busy_timeout = 0")
                if not _schema.CAN_REFUSE:
                    self._check_schema(connection)
            except sqlite3.ProgrammingError:
                self.check_open()  # If the file is open, only the connection was closed.
            else:
                return connection, locked

    @property
    def _is_rescuing(self) -> bool:
        """Whether this thread is moving events into new files, so that a finalizer cannot."""
        return bool(_rescuing) and (threading.get_ident(), self._place) in _rescuing

    def check_open(self) -> None:
        if self.is_closed:
            raise RuntimeError(f"the outbox {self.name} is closed; open it again")
        if self._is_rescuing:
            raise OutboxLockedError(
                f"the outbox {self.name} cannot be used by a finalizer or signal handler while the "
                f"interrupted thread is moving events into a new log; try again{UNHARMED}"
            )

    def check_place(self) -> None:
        """Checks that the next process would find the file.

        Raises:
            OutboxError: The file was moved or deleted.
        """
        if self.is_missing:
            raise OutboxError(f"the outbox {self.path} {_MISSING}")

    def watch(self) -> None:
        """Checks, about once a second, whether the file was moved and whether its schema changed.

        The events of a file that was moved are still sent.

        Raises:
            OutboxError: The file is no longer an outbox.
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
                # Another program has overwritten the file with an earlier state.
                self._is_cut |= logged < known

    def look_at_database(self, connection: sqlite3.Connection) -> None:
        """Reads the last number that is in the database itself, without its log."""
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
        # A checkpoint that is running, or has ended early, may have written only the number.
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
        """Raises an OutboxError for errors of SQLite."""
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:
            raise explained(error, self.path) from error

    @property
    def is_intact(self) -> bool:
        """Whether the files are still those that were opened."""
        if not self._inodes:
            return True
        # One look at the folder replaces three: each file that appears or disappears changes its
        # time.
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
        """Whether the database was moved or deleted; its events are sent while it is open."""
        return not self.is_intact and _inode(self.path) != self._place

    def close(self) -> None:
        """Closes the file."""
        self.is_closed = True
        if self._is_rescuing:
            return  # The rescue closes it afterwards.
        self._close()
        self._say_lost()
        self._log_remarks()

    def _close(self) -> None:
        held = [slot for slot in self._slots if slot.lock.acquire(timeout=_CLOSING)]
        try:
            # Closing a connection in a finalizer during its use could crash the interpreter, and a
            # thread may use its slot for longer. In these cases, the end of the use closes it.
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
        """Opens a separate connection for long work, so that other threads can continue.

        Raises:
            OutboxError: The file cannot be used.
        """
        with self.explaining():
            self.save()
            with self.checkpointing, closing(self.connect(patience)) as connection:
                # This opens the log, which must belong to the index.
                pragma(connection, "schema_version")
                if not self.is_intact:
                    raise sqlite3.OperationalError("locking protocol")
                yield connection

    def connect(
        self, patience: float, *, create: bool = False, cached_statements: int = 128
    ) -> sqlite3.Connection:
        """Opens a connection.

        Raises:
            OutboxError: The file is missing, or must not be used.
        """
        if sqlite3.sqlite_version_info < (3, 35):
            raise OutboxError(
                f"SQLite must be 3.35 or newer for an outbox, not {sqlite3.sqlite_version}; use a "
                "Python with a newer SQLite"
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
            # SQLite itself would create a file that others can read. In one step, so that an error
            # of a signal handler cannot lose the connection.
            opened.extend(map(connect, (f"{self.path.as_uri()}?mode={'ro' if reads else 'rw'}",)))
            (connection,) = opened
            _schema.secure(connection)
            # Waiting for the disk and checkpoints are left to checkpoint().
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {LONG_LOG}")
            # So that the temporary trigger needs no file.
            connection.execute("PRAGMA temp_store = MEMORY")
            return connection  # noqa: TRY300  # so that an error below closes it
        except BaseException:
            for connection in opened:
                connection.close()
            raise

    def open(
        self, slot: Slot, *, patience: float | None = None, create: bool = False
    ) -> sqlite3.Connection:
        """Opens the file for a slot, if it is still the same file.

        Raises:
            OutboxError: It is another file, or it cannot be used.
        """
        patience = self.patience if patience is None else patience
        # Prepared statements are not thread-safe, and threads share enqueue's connection.
        cached = 128 if slot is self.main else 0
        is_first, connection = not self._guards, None
        try:
            if self._copies:
                self._restore(patience)
            connection = self.connect(patience, create=create, cached_statements=cached)
            slot.disconnect()  # A finalizer may have opened a connection.
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
            return connection  # noqa: TRY300  # so that an error of a handler cannot lose it
        except BaseException:
            slot.disconnect()
            if connection is not None:
                connection.close()  # A handler may have interrupted this before the slot had it.
            if is_first:
                self._disconnect()
            raise

    def _check_binding(self, connection: sqlite3.Connection, patience: float) -> None:
        """Binds the file when it is first opened, and when it has lost its binding with its log.

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
                # So that the file can be recognized even if the log is lost.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        elif self._bound not in (None, mark):
            raise OutboxError(
                f"the outbox {self.path} was replaced by another file; stop the program that "
                "replaced it, put the earlier file back with its -wal file, and restart this "
                "process"
            )

    def _complete(self, connection: sqlite3.Connection) -> None:
        """Prepares a connection to a file that has been checked."""
        connection.execute(_REMOVE_BURIED)
        if not self._guards:
            self._paths = self._find_paths()
            connect = partial(self._connect, self.patience, 0, reads=True)
            # In one step, so that neither a handler's error nor a finalizer can lose it.
            self._guards.extend(starmap(connect, ((),)))
            for guard in self._guards:
                # This opens the log.
                self._schema_version = pragma(guard, "schema_version")
            _permissions.check(self._paths)
            self._is_link = os.path.islink(self.path)
            self._folder = os.path.dirname(self._paths[1])
            self._settled = None
            self._inodes = _inodes(self._paths)
            self._place = self._inodes[0]
            self.look_at_database(connection)

    def _prepare(self, *, create: bool) -> None:
        """Checks the path; creates a missing file if `create` is set."""
        try:
            if create:
                # Closing a file ends the locks of this process's other connections to it.
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
            # SQLite creates the log first, and deletes it last. So this index belongs to a log that
            # was deleted, and a process that has not noticed yet may still use it.
            self._remove_index(paths[2], shm)
        if (found.st_dev, found.st_ino) in _unusable:
            raise OutboxError(
                f"the outbox {self.path} was in use when this process was forked, so this process "
                "cannot use it; fork while no thread is using it"
            )

    # Closing.

    def _disconnect(self) -> None:
        """Closes all connections, without a checkpoint if the log was replaced or truncated."""
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
        """Ends a use; closes the slot, or with the last one the file, if that was requested."""
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

    # Deleted and replaced files.

    def prepare(self, slot: Slot, *, patience: float | None = None, create: bool = False) -> None:
        """Opens a slot whose lock is not held yet, after events of a lost log were saved.

        Saving waits for all threads that use a slot, so the caller must not hold any.

        Args:
            slot: The slot.
            patience: Seconds to wait for another process that writes; None for the file's default.
            create: Whether to create a missing file.

        Raises:
            OutboxError: The slot could not be opened, or the events could not be saved yet.
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
                # The slot would open the new log with the index of the old one.
                raise sqlite3.OperationalError("locking protocol")
            slot.uses += 1
            try:
                self.open(slot, patience=patience, create=create)
            finally:
                self._end_use(slot)

    def save(self, *, forks: bool = False) -> bool:
        """Saves events that only this process sees, if the log was deleted or replaced.

        As for :meth:`prepare`, the caller must not hold a slot.

        Returns:
            Whether something is still to be saved.

        Raises:
            OutboxError: The events could not be saved, or not yet.
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
        """Whether there is nothing to save."""
        return self.is_intact and not (self._copies or self._is_cut)

    def _rescue_others(self) -> None:
        """Makes other outboxes of this process close lost files before this one opens new ones."""
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
            return  # The database was moved in between.
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
        """Opens the files again after their log could not be read."""
        for file in files:
            file._disconnect()
        lost = self.logged - last_number(_retried(partial(self.open, self.main)))
        self.logged -= max(lost, 0)
        if lost > 0:
            self._remarks.append(
                f"the log of the outbox {self.path} was truncated or overwritten while it was in "
                f"use; up to {counted(lost)} could not be saved"
            )

    def _copy_and_close(self, inodes: _Inodes, files: Collection[OutboxFile]) -> str | None:
        """Copies the old files, and closes them, so that the new files can be opened.

        Returns:
            The message about what could not be saved, or None.
        """
        source = next((slot.connection for slot in self._slots if slot.connection), None)
        source = source or next(iter(self._guards), None)
        _, wal, shm = self._inodes
        failure, unsure, lost = None, True, wal
        saved = max(file._saved for file in files)
        if inodes[1] == wal:
            # Others find in the log what was in it when its index was deleted or replaced.
            lost = shm
            saved = max(saved, *(file.logged for file in files))
            unsure = any(slot.is_unsure for file in files for slot in file._slots)
        if source is not None and unsure:
            try:
                self._copies.append(_rescue.Copy(source, str(lost and lost[1]), saved))
            except sqlite3.Error as error:
                if code_of(error) not in _UNREADABLE:
                    raise  # For example on a full disk: the old files stay open for a retry.
                self.logged = 0
                failure = f"{self._taken} could not be saved ({error})"
        if shm is not None and inodes[1] != wal and inodes[2] == shm:
            # The index belongs to the old log, and others would use it for the new one.
            self._remove_index(self._paths[2], shm)
        # SQLite has one index of the log for all connections of a process to a database.
        for file in files:
            file._disconnect()
            for slot in file._slots:
                slot.is_unsure = False
        if unsure:
            self._remarks.append(failure or f"{self._taken} are being moved into the new log")
        return failure

    @property
    def _taken(self) -> str:
        return (
            f"the log of the outbox {self.path} was deleted or replaced while it was in use; "
            "its events"
        )

    @staticmethod
    def _remove_index(path: str, shm: tuple[int, int]) -> None:
        with suppress(OSError), _folder_lock(os.path.dirname(path)):
            # Another process may have removed it, and this may be the index of the new log.
            if _inode(path) == shm:
                os.unlink(path)

    def _restore(self, patience: float) -> None:
        """Overwrites a database that an interrupted checkpoint has damaged with a copy.

        After a checkpoint that wrote only some pages, a database is damaged without its log. The
        database is left unchanged if another process has written to the new log.
        """
        self._prepare(create=False)
        address = f"{self.path.as_uri()}?mode=rw"
        with (
            suppress(OSError),
            # If several processes have a copy, only one writes it.
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
                self._rescue(files)  # The files were deleted or replaced again.
                return
            for file in files:
                file.on_rescue(connection)
            self.logged = last_number(connection)
            self._copies.pop(0)
            copy.close()
            # So that other processes, which may have the old log open, find the events even if the
            # new log is lost.
            with suppress(sqlite3.Error):
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.look_at_database(connection)
        if not whole:
            self._remarks.append(
                f"some events in the log of the outbox {self.path} could not be saved because "
                "another program has written to the database in the meantime"
            )
            raise OutboxError(self._remarks[-1])

    def _say_left(self, guard: sqlite3.Connection) -> None:
        """Logs how many events are not sent unless the file is put back."""
        number: int | None = None
        with suppress(sqlite3.Error):
            number = one(guard, "SELECT count(*) FROM events")
        if number != 0:
            self._remarks.append(
                f"the outbox {self.path} was moved or deleted while it was in use, with "
                f"{_some(number)} not sent; if it was moved, put it back with its -wal file"
            )

    def _say_lost(self) -> None:
        """Logs how many events could not be saved before the file was closed."""
        while self._copies:
            copy = self._copies.pop()
            number = copy.count()
            copy.close()
            self._remarks.append(f"{_some(number)} of the outbox {self.path} could not be saved")

    @contextmanager
    def _gathered(self, *, forks: bool) -> Generator[Collection[OutboxFile]]:
        """Gives this thread exclusive use of the file in this process, if that is soon possible.

        Yields:
            All outboxes of this process that have the file open; none if another thread, or an
            earlier use of this thread, is still using it.
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
                # A fork has acquired the first lock already.
                locks = file._locks()[forks and (file is self or bool(file._forks)) :]
                if not all(
                    held.enter_context(_held(lock, max(ends - SYSTEM.monotonic(), 0)))
                    for lock in locks
                ):
                    break
                # Not during a use by this thread, which continues after a handler. Another thread
                # may have saved the events since.
                if any(slot.uses for slot in file._slots) or self._is_well:
                    break
            else:
                yield files
                return
            yield ()

    def _close_after_rescue(self) -> None:
        if self.is_closed:  # A finalizer has closed it.
            self._close()

    # Forks.

    def before_fork(self) -> bool:
        """Closes the connections, and keeps other threads from opening new ones.

        SQLite keeps a list of the locks that a process has on a file. A forked child inherits the
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
        """Lets other threads continue."""
        if in_child:
            self.on_child()
            # The parent saves the events of a lost log. Its other threads do not exist here, but
            # new threads may have their identifiers.
            here = threading.get_ident()
            _rescuing.difference_update([one for one in _rescuing if one[0] != here])
            _leaked.extend(self._copies)
            self._copies = []
        if waited:
            self._forks -= 1
            for lock in self._locks():
                lock.release()
        elif in_child:
            # Closing a connection that the parent is still using would end the parent's locks.
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
    """Holds a lock if it can be acquired in time; yields whether it was."""
    held: list[bool] = []
    try:
        # In one step, so that a handler's error can neither lose the lock nor release it twice.
        held.extend(map(lock.acquire, (True,), (seconds,)))
        yield held == [True]
    finally:
        if held == [True]:
            lock.release()


@contextmanager
def _folder_lock(path: str) -> Generator[None]:
    """Makes processes that lost their log replace it one after the other."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _some(events: int | None) -> str:
    return "some events" if events is None else counted(events)


def _inodes(paths: tuple[str, ...]) -> _Inodes:
    return tuple(map(_inode, paths))


def _retried(open_: Callable[[], Any]) -> Any:
    """Opens a file, with retries if it or its log is deleted or replaced in the meantime."""
    for wait in (0.0, 0.01, 0.1, 0.3, 0.6, 1.0):
        try:
            return open_()
        except (sqlite3.Error, OutboxError) as error:
            # A finalizer may have forked, which closed the connection.
            is_closed = isinstance(error, sqlite3.ProgrammingError)
            if not is_closed and code_of(error) not in ("SQLITE_IOERR", "SQLITE_PROTOCOL"):
                raise
        time.sleep(wait)
    return open_()


# So that one statement inserts a dead letter and removes its event.
_REMOVE_BURIED = (
    "CREATE TEMP TRIGGER buried AFTER INSERT ON main.dead "
    "BEGIN DELETE FROM events WHERE id = NEW.id; END"
)
# The number of the newest event up to a given number.
_NEWEST = "SELECT coalesce(max(id), 0) FROM events WHERE id <= ?"
# The errors that pass without opening the file again.
_PASSING = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL"}
# The errors of a file that cannot be read at all.
_UNREADABLE = {"SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB"}
# Held while a file is created.
_making = ForkLock()
# By their ids: unlike a WeakSet, it can be iterated while another thread adds an item.
_open_files = weakref.WeakValueDictionary[int, OutboxFile]()
# Files that were in use when this process was forked, and their connections, which stay open.
_unusable: set[tuple[int, int]] = set()
_leaked: list[object] = []
# The threads that are moving events into new files, each with the file.
_rescuing: set[tuple[int, tuple[int, int] | None]] = set()
