"""The journal of an import: what was read, and what became of it, so that the next run resumes.

An SQLite file. Before any event of a piece of text is sent, a row of ``reads`` says up to where it
was read, what it was, and the second that events without a time of their own are stamped with.
``done`` has a bit for each line whose event has an outcome, in pages of 512 lines, so that a
million of them take 200 kB. What has no such bit was in flight, or failed, and is sent again.

The file is in WAL mode: a transaction is one append, which neither a kill nor a power cut can tear.
In exclusive locking mode, a second import is refused, and there is no third file. As the journal is
closed, the log is written back, so that what people copy and delete is one file; only a kill leaves
a log beside it, which the next run takes in, or SQLite removes if the journal is gone.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, Self, cast

from attrs import define, field

from intercom_data_events import _files
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events._validation import printable
from intercom_data_events.outbox import _schema
from intercom_data_events.outbox._binding import token_digest
from intercom_data_events.outbox._errors import code_of, is_busy

# Marks a database as a journal: "IDEJ".
_APPLICATION = 0x4944454A
_VERSION = 2
_SCHEMA = (
    "CREATE TABLE import (file TEXT, address TEXT, token TEXT)",
    "CREATE TABLE reads (position INTEGER, line INTEGER, digest TEXT, stamp INTEGER)",
    "CREATE TABLE done (page INTEGER PRIMARY KEY, bits BLOB, refused INTEGER)",
)
_BEGIN = "INSERT INTO import VALUES (?, ?, ?)"
_READ = "INSERT INTO reads VALUES (?, ?, ?, ?)"
_GET = "SELECT bits, refused FROM done WHERE page = ?"
_SAVE = "INSERT OR REPLACE INTO done VALUES (?, ?, ?)"
_MAGIC = b"SQLite format 3\0"
# Lines of a page, and its bytes.
_PAGE = 512
_BYTES = _PAGE // 8
# Pages that are held, and pieces of text; a run of several days has fewer pieces.
_MOST_PAGES = 64
_MOST_READS = 300_000
# Bytes of a value, beyond which SQLite itself reads nothing.
_LONGEST = 100_000
# Bytes between two places where the text can be compared; further on, a thousandth of the text.
_APART = 64 * 1024
# Rows that no version writes: a row of `reads` has a place beyond the one before, and a line has a
# byte at least, but for the last one.
_WRONG_READS = """
    SELECT count(*) FROM (
      SELECT position, line, digest, stamp, lag(position, 1, 0) OVER (ORDER BY rowid) AS start,
        lag(line, 1, 0) OVER (ORDER BY rowid) AS first FROM reads
    ) WHERE typeof(position) || typeof(line) || typeof(digest) || typeof(stamp)
      <> 'integerintegertextinteger' OR position < start OR line < first OR line > position + 1
"""
_WRONG_PAGES = """
    SELECT count(*) FROM done WHERE typeof(bits) || typeof(refused) <> 'blobinteger'
      OR length(bits) <> ? OR refused < 0 OR refused > ? OR page < 0
      OR page * ? > (SELECT coalesce(max(line), -1) FROM reads)
"""


class JournalError(Exception):
    """The journal cannot be used, or not be written any further; says what to do."""


class NoJournalError(JournalError):
    """What is there is not a journal, or a damaged one."""


class Read(NamedTuple):
    """How far the text had been read.

    Attributes:
        position: In bytes, of the decompressed text.
        line: The number of the last line.
        digest: Of the text up to there.
        stamp: Unix seconds, for the events of this piece that have no time of their own.
    """

    position: int
    line: int
    digest: str
    stamp: int


class Done:
    """Numbers of lines that are done: a bit each, in pages, of which few are in memory at a time.

    Args:
        fetch: Returns a page that was written: its bits, and how many of the lines were refused.
    """

    def __init__(self, fetch: Callable[[int], tuple[int, int]] = lambda _: (0, 0)) -> None:
        self._fetch = fetch
        self._pages: dict[int, tuple[int, int]] = {}
        self._changed: set[int] = set()

    def __contains__(self, line: int) -> bool:
        page, bit = divmod(line, _PAGE)
        return bool(self._page(page)[0] >> bit & 1)

    def add(self, line: int, *, refused: bool = False) -> None:
        """Takes in a line."""
        page, bit = divmod(line, _PAGE)
        bits, count = self._page(page)
        self._pages[page] = bits | 1 << bit, count + (refused and not bits >> bit & 1)
        self._changed.add(page)

    def unwritten(self) -> list[tuple[int, bytes, int]]:
        """Returns the rows that differ from what was written."""
        changed = ((page, *self._pages[page]) for page in sorted(self._changed))
        return [(page, bits.to_bytes(_BYTES, "little"), refused) for page, bits, refused in changed]

    def written(self) -> None:
        """Takes in that these rows were written."""
        self._changed.clear()

    def _page(self, page: int) -> tuple[int, int]:
        found = self._pages.get(page)
        if found is None:
            if len(self._pages) >= _MOST_PAGES and not self._changed:
                self._pages.clear()
            found = self._pages[page] = self._fetch(page)
        return found


@define
class Journal:
    """What earlier runs noted, and where this one does.

    Attributes:
        path: Where it is.
        done: The lines that need not be sent again.
        reads: The pieces that earlier runs had read, in their order.
        before: How many lines earlier runs have done.
        refused: How many of them were refused.
    """

    path: Path
    _connection: sqlite3.Connection
    done: Done = field(init=False)
    reads: list[Read] = field(factory=list[Read])
    before: int = 0
    refused: int = 0
    # Whether this run has begun it, and has noted anything.
    _begun: bool = False
    _noted: bool = False
    # Where the last row of `reads` begins, if this run has made it, and its stamp.
    _start: int | None = None
    _stamp: int = 0

    def __attrs_post_init__(self) -> None:
        self.done = Done(self._page)

    @classmethod
    def open(
        cls,
        path: Path,
        source: str,
        address: str,
        token: str | Secret[str],
        *,
        restart: bool = False,
        token_renewed: bool = False,
    ) -> Self:
        """Opens the journal of a file, or begins it.

        Args:
            path: Where it is, or is to be.
            source: What is imported.
            address: Where Intercom is, or what stands for it.
            token: The access token, of which only a digest is kept.
            restart: Whether to forget what is in it.
            token_renewed: Whether it is known that another token is for the same workspace.

        Raises:
            NoJournalError: It cannot be written there, something else is there, it is damaged, of
                an import to elsewhere, or another user may have written it.
            JournalError: It is in use by another import, or there is no room for it.
        """
        held, token = cast("Secret[str]", hold(token)), ""
        with _explaining(path, "or name another place with --journal", NoJournalError):
            place = _checked(path, restart=restart)
            journal = cls(path, _connected(place))
            try:
                journal._load(restart=restart)
                begun_for = journal._begun_for()
                if begun_for is not None:
                    journal._check(*begun_for, address, None if token_renewed else held)
                else:
                    digest = token_digest(held, os.urandom(8).hex())
                    with _schema.transaction(journal._connection):
                        journal._connection.execute(
                            _BEGIN, (printable(source, None), address, digest)
                        )
                    journal._begun = True
            except BaseException:
                journal._connection.close()
                raise
        return journal

    def stamp(self, line: int) -> int | None:
        """The second that an event on a line was stamped with by an earlier run, if it was read."""
        place = bisect_left(self.reads, line, key=lambda read: read.line)
        return self.reads[place].stamp if place < len(self.reads) else None

    @property
    def position(self) -> int:
        """Up to where earlier runs had read, in bytes of the text."""
        return self.reads[-1].position if self.reads else 0

    def note_read(self, read: Read, *, lasting: bool) -> None:
        """Notes a piece of the text before any of it is sent.

        Args:
            read: Up to where.
            lasting: Whether events are stamped: what they are stamped with has to outlast even the
                machine.

        Raises:
            JournalError: It cannot be written.
        """
        start = self._start
        # Many small pieces, as of a pipe, become one.
        grows = (
            start is not None
            and read.position - start < max(_APART, start // 1000)
            and (read.stamp == self._stamp or not lasting)
        )
        with self._writing(lasting=lasting):
            if grows:
                last = "(SELECT max(rowid) FROM reads)"
                self._connection.execute(f"DELETE FROM reads WHERE rowid = {last}")  # noqa: S608  # our own
            else:
                self._start = read.position
            self._connection.execute(_READ, read)
        self._stamp = read.stamp
        self._noted = True

    def note(self, status: Literal["accepted", "duplicate", "refused"], line: int) -> None:
        """Takes in what became of an event, which :meth:`save` writes.

        Raises:
            JournalError: It cannot be read.
        """
        with self._told():
            self.done.add(line, refused=status == "refused")

    def save(self) -> None:
        """Writes what was taken in; what is written outlasts this process.

        Raises:
            JournalError: It cannot be written.
        """
        with self._writing():
            pass

    def close(self) -> None:
        """Closes it; what was noted is on the disk then, and one with nothing in it is gone."""
        with suppress(JournalError, sqlite3.ProgrammingError):  # Told before; or it is closed.
            self.save()
        self._connection.close()
        if self._begun and not self._noted:
            self.path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self, *, lasting: bool = False) -> Generator[None]:
        with self._told():
            # Full: the log is on the disk before this returns.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            with _schema.transaction(self._connection):
                self._connection.executemany(_SAVE, self.done.unwritten())
                yield
            self.done.written()

    def _page(self, page: int) -> tuple[int, int]:
        row = self._connection.execute(_GET, (page,)).fetchone()
        return (int.from_bytes(row[0], "little"), row[1]) if row else (0, 0)

    def _told(self) -> AbstractContextManager[None]:
        return _explaining(self.path, "then run the same command again to resume", JournalError)

    def _load(self, *, restart: bool) -> None:
        """Checks and reads what there is."""
        connection, path = self._connection, self.path
        found, application = (
            _schema.entries(connection),
            _schema.pragma(connection, "application_id"),
        )
        if not found and not application:
            with _schema.transaction(connection):
                _make(connection)
            return
        if application != _APPLICATION:
            raise unusable(path, "is an SQLite database but not a journal of an import")
        if _schema.pragma(connection, "user_version") > _VERSION:
            raise unusable(path, "was written by a newer version of intercom-data-events")
        if found != _made():
            raise unusable(path, "is damaged: its tables are not as this version makes them")
        if restart:
            with _schema.transaction(connection):
                for table in ("import", "reads", "done"):
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608  # our own names
            return
        pieces = _schema.one(connection, "SELECT count(*) FROM reads")
        wrong = _schema.one(connection, _WRONG_READS) if pieces <= _MOST_READS else pieces
        if wrong or _schema.one(connection, _WRONG_PAGES, _BYTES, _PAGE, _PAGE):
            raise unusable(path, "is damaged: it has rows that no import writes")
        rows = connection.execute("SELECT position, line, digest, stamp FROM reads ORDER BY rowid")
        self.reads = [Read(*row) for row in rows]
        for bits, refused in connection.execute("SELECT bits, refused FROM done"):
            self.before += int.from_bytes(bits, "little").bit_count()
            self.refused += refused

    def _begun_for(self) -> tuple[str, str] | None:
        """Returns the address and the digest of the token; None of a new journal."""
        rows = self._connection.execute("SELECT address, token FROM import LIMIT 2").fetchall()
        if len(rows) > 1 or (self.reads and not rows):
            raise unusable(self.path, "is damaged: it does not say which import it is of")
        return (str(rows[0][0]), str(rows[0][1])) if rows else None

    def _check(self, begun_for: str, known: str, address: str, token: Secret[str] | None) -> None:
        if begun_for != address:
            raise unusable(self.path, f"is of an import to {begun_for}, not to {address}")
        if token is not None and known != token_digest(token, known.partition(":")[0]):
            raise unusable(
                self.path,
                "is of an import with another access token; if that is for the same workspace and "
                "was renewed, pass --token-renewed; otherwise",
            )


def serialized(begun_for: tuple[str, str, str] | None, reads: list[Read], done: Done) -> bytes:
    """Returns the bytes of a journal.

    Args:
        begun_for: The file, the address and the digest of the token; None of an import that has not
            begun.
        reads: The pieces that were read.
        done: The lines that are done.
    """
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make(connection)
        connection.executemany(_BEGIN, [begun_for] if begun_for else [])
        connection.executemany(_READ, reads)
        connection.executemany(_SAVE, done.unwritten())
        return connection.serialize()


def unusable(path: Path, why: str) -> NoJournalError:
    """Returns the error to raise for what cannot be used as a journal, and stays as it is."""
    return NoJournalError(
        f"{path} {why}: move it away to begin anew, or name another place with --journal"
    )


def busy(path: Path) -> JournalError:
    """Returns the error to raise where another import has the journal."""
    return JournalError(f"another import is using the journal {path}: wait for it to end")


def _make(connection: sqlite3.Connection) -> None:
    for statement in (
        *_SCHEMA,
        f"PRAGMA application_id = {_APPLICATION}",
        f"PRAGMA user_version = {_VERSION}",
    ):
        connection.execute(statement)


@cache
def _made() -> Counter[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _make(connection)
        return _schema.entries(connection)


def _checked(path: Path, *, restart: bool) -> Path:
    """Makes a missing file, or checks what is there; returns its place, behind our own links."""
    descriptor = _files.open_checked(path, "the journal", NoJournalError)
    place = _files.followed(path, NoJournalError)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NoJournalError(
                f"{path} is not a file that a journal can be kept in: name another"
            )
        for suffix in ("-wal", "-journal"):
            beside = Path(f"{place}{suffix}")
            if os.path.lexists(beside):
                if beside.is_symlink():
                    raise NoJournalError(
                        f"{beside}, which SQLite would write, is a symbolic link: remove it"
                    )
                _files.check(beside, beside.lstat(), "the journal's log", NoJournalError)
        head = os.pread(descriptor, len(_MAGIC), 0)
        if head and head != _MAGIC:
            from intercom_data_events.cli.importer import text_journal

            text_journal.take_over(path, place, descriptor, restart=restart)
    finally:
        # Before SQLite locks the file: a process that closes any descriptor of it loses its locks.
        os.close(descriptor)
    return place


def _connected(place: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{place.absolute().as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        _schema.secure(connection)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        connection.execute("PRAGMA page_size = 1024")  # Of a new file: small appends.
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _explaining(path: Path, remedy: str, kind: type[JournalError]) -> Generator[None]:
    """Raises the error of ours that an error of SQLite or of the system means."""
    try:
        yield
    except OSError as error:
        raise kind(f"{_cannot(path, error.strerror)}, {remedy}") from error
    except (sqlite3.Error, UnicodeError) as error:
        code = code_of(error)
        if is_busy(error):
            raise busy(path) from error
        if code in ("SQLITE_FULL", "SQLITE_IOERR"):
            full = "no room is left, or the disk failed"
            raise JournalError(
                f"{_cannot(path, full)}, then run the same command again to resume"
            ) from error
        if code in ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"):
            raise kind(f"{_cannot(path, printable(str(error), None))}, {remedy}") from error
        raise unusable(path, "is damaged") from error


def _cannot(path: Path, why: object) -> str:
    return f"the journal {path} cannot be written ({why}): make room or allow it"
