"""The tables of an outbox, and the checks that reject other files."""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

from intercom_data_events._validation import short_repr
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import OutboxError
from intercom_data_events.outbox._errors import is_busy

#: Marks a database as an outbox: "IDEO".
APPLICATION = 0x4944454F
# Bytes of a page. Each event takes at least one page of the log, however small it is.
_PAGE = 1024
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
# The largest number of entries to read from a schema; ours has far fewer.
_MOST_ENTRIES = 50
# The largest number of characters of an entry's statement; ours are shorter.
_LONGEST_STATEMENT = 5_000
# SQLite's own statistics, which any database may have. They are known by their statements, because
# SQLite ignores the type and the name of an entry.
_STATISTICS = {
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
_FIRST_WORDS = re.compile(r"\s*CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\s", re.IGNORECASE)
#: The query for the last number that was given to an event.
LAST_NUMBER = (
    "SELECT coalesce(max(CAST(seq AS INTEGER)), 0) FROM sqlite_sequence WHERE name = 'events'"
)
_GREATEST = "SELECT coalesce(max(id), 0) FROM events"

# A type, a name and a statement.
_Entry = tuple[str, str, str]


#: Whether SQLite can disable the triggers and views of a file, as it can from Python 3.12 on.
CAN_REFUSE = sys.version_info >= (3, 12)


def secure(connection: sqlite3.Connection) -> None:
    """Keeps a file's schema from running code; it must be called before any other statement."""
    if sys.version_info >= (3, 12):
        for name, value in (("DEFENSIVE", True), ("ENABLE_TRIGGER", False), ("ENABLE_VIEW", False)):
            # SQLite still runs our own temporary trigger.
            if (option := getattr(sqlite3, f"SQLITE_DBCONFIG_{name}", None)) is not None:
                connection.setconfig(option, value)
    connection.execute("PRAGMA trusted_schema = OFF")


def unlock(connection: sqlite3.Connection) -> None:
    """Makes the rest of a damaged file readable; its schema must have been checked before."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA writable_schema = ON")


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Compares the schema with that of the migrations; returns the version, 0 of an empty file.

    Raises:
        OutboxError: The file is not an outbox, or a newer version wrote it.
    """
    # Repeated until nothing changes in between: a transaction would block a finalizer that writes.
    changed, found, application, version = -1, Counter[_Entry](), 0, 0
    while changed != (changed := pragma(connection, "schema_version")):
        found = _entries(connection)
        application = pragma(connection, "application_id")
        version = pragma(connection, "user_version")
    if not found and application in (0, APPLICATION):
        return 0
    if application != APPLICATION:
        raise OutboxError(f"{path} is an SQLite database but not an outbox; choose another path")
    if version > len(_MIGRATIONS):
        raise OutboxError(
            f"the outbox {path} was written by a newer version of intercom-data-events; "
            "install that version, or choose another path"
        )
    expected = _made_by(_MIGRATIONS[: max(version, 0)])
    # An entry that is there twice differs, too.
    difference = (expected - found) + (found - expected)
    if difference:
        kind, name, _ = min(difference)
        raise OutboxError(
            f"the outbox {path} does not have the schema of an outbox: its {kind} "
            f"{short_repr(name)} differs; move it aside, or choose another path"
        )
    return version


def check_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Checks that a file that a newer version has changed has only tables and indexes.

    Raises:
        OutboxError: It has something that would run within our statements, such as a trigger.
    """
    for kind, name, sql in sorted(_entries(connection)):
        if sql and not _FIRST_WORDS.match(sql):
            raise OutboxError(
                f"the outbox {path} must have only tables and indexes, not the {kind} "
                f"{short_repr(name)}; move it aside, or choose another path"
            )


def check_numbers(connection: sqlite3.Connection, path: Path) -> None:
    """Checks that numbers for new events are left; if none is, SQLite reports a full disk.

    Raises:
        OutboxError: An event has had SQLite's highest row number.
    """
    if max(last_number(connection), one(connection, _GREATEST)) >= 2**63 - 1:
        raise OutboxError(
            f"the outbox {path} has no number left for another event because another program used "
            "the highest one; send its events with intercom-events outbox drain, then move it "
            "aside, or choose another path"
        ) from None


@lru_cache
def _made_by(migrations: tuple[str, ...]) -> Counter[_Entry]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _run(connection, migrations)
        return _entries(connection)


def _entries(connection: sqlite3.Connection) -> Counter[_Entry]:
    """Returns the entries of a schema, each with its statement, except SQLite's statistics."""
    rows = connection.execute(
        "SELECT substr(type, 1, 100), substr(name, 1, 100), substr(sql, 1, ?) FROM sqlite_schema "
        "LIMIT ?",
        (_LONGEST_STATEMENT, _MOST_ENTRIES),
    ).fetchall()
    # Indexes that SQLite creates itself have no statement.
    entries = ((str(kind), str(name), " ".join(str(sql or "").split())) for kind, name, sql in rows)
    return Counter(entry for entry in entries if entry[2] not in _STATISTICS)


def _run(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    for statements in migrations:
        for statement in statements.split(";"):
            connection.execute(statement)


def migrate(connection: sqlite3.Connection, path: Path, patience: float, *, create: bool) -> None:
    """Migrates a file to the current version; several processes may do so at once.

    Raises:
        OutboxError: The file is not an outbox, or is empty and `create` is False.
    """
    version = check(connection, path)
    if not version and not create:
        raise OutboxError(f"{path} is empty; choose a file that a tracker has used")
    if not version:
        # SQLite applies these settings only to an empty file.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # For an existing outbox, too: a process may have ended while it was binding the file again.
    in_turn(connection, "PRAGMA journal_mode = WAL", patience)
    if version == len(_MIGRATIONS):
        return
    with transaction(connection):
        version = check(connection, path)
        _run(connection, _MIGRATIONS[version:])
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    # So that the tables are in the database even if the log is lost.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def latest() -> int:
    """Returns the version of the files that this library creates."""
    return len(_MIGRATIONS)


def one(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """Returns the integer that a query yields."""
    return int(connection.execute(query, values).fetchone()[0])


def last_number(connection: sqlite3.Connection) -> int:
    """Returns the last number that was given to an event."""
    return one(connection, LAST_NUMBER)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Returns the value of a setting."""
    return one(connection, f"PRAGMA {name}")


def in_turn(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Executes a statement that SQLite does not retry itself while the file is locked."""
    ends = SYSTEM.monotonic() + patience
    while True:
        try:
            connection.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or SYSTEM.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """Makes one transaction of several statements."""
    is_outer = not connection.in_transaction
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # The failure may have rolled it back already.
        if is_outer and connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
