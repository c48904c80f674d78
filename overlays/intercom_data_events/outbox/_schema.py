"""The tables of an outbox, and what keeps a file that only looks like one from being used."""

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
# Bytes of a page. The log takes a page at least for each event, however small.
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
# Entries of a schema; ours has far fewer.
_MOST_ENTRIES = 50
# Characters of an entry's statement; ours are shorter.
_LONGEST_STATEMENT = 5_000
# What may be in any database: SQLite's own statistics. Which type and name an entry says it has is
# of no account to SQLite, but its statement is.
_STATISTICS = {
    "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
_FIRST_WORDS = re.compile(r"\s*CREATE\s+(UNIQUE\s+)?(TABLE|INDEX)\s", re.IGNORECASE)
#: The query for the last number that an event has got.
LAST_NUMBER = (
    "SELECT coalesce(max(CAST(seq AS INTEGER)), 0) FROM sqlite_sequence WHERE name = 'events'"
)
_GREATEST = "SELECT coalesce(max(id), 0) FROM events"

# A type, a name and a statement.
_Entry = tuple[str, str, str]


#: Whether SQLite can be told to run no triggers and views of a file: from Python 3.12 on.
CAN_REFUSE = sys.version_info >= (3, 12)


def secure(connection: sqlite3.Connection) -> None:
    """Keeps whatever is in a file from running code; before any other statement."""
    if sys.version_info >= (3, 12):
        for name, value in (("DEFENSIVE", True), ("ENABLE_TRIGGER", False), ("ENABLE_VIEW", False)):
            # Not our own temporary trigger, which SQLite runs all the same.
            if (option := getattr(sqlite3, f"SQLITE_DBCONFIG_{name}", None)) is not None:
                connection.setconfig(option, value)
    connection.execute("PRAGMA trusted_schema = OFF")


def unlock(connection: sqlite3.Connection) -> None:
    """Has what is left of a damaged file be read; its schema was checked before."""
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, False)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA writable_schema = ON")


def check(connection: sqlite3.Connection, path: Path) -> int:
    """Compares the schema with what the migrations make; returns the version, 0 of an empty file.

    Raises:
        OutboxError: It is something else, or of a newer version.
    """
    # Until nothing changed meanwhile: a transaction would be in the way of what a finalizer writes.
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
            f"the outbox {path} is not as this library makes it: its {kind} {short_repr(name)} "
            "differs; move it aside, or choose another path"
        )
    return version


def check_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Checks of a file that a newer version has changed that it has tables and indexes alone.

    Raises:
        OutboxError: It has something that would run within our statements, as triggers do.
    """
    for kind, name, sql in sorted(_entries(connection)):
        if sql and not _FIRST_WORDS.match(sql):
            raise OutboxError(
                f"the outbox {path} has a {kind} {short_repr(name)}, which no version of this "
                "library makes; move it aside, or choose another path"
            )


def check_numbers(connection: sqlite3.Connection, path: Path) -> None:
    """Tells a full disk from a file without a number for another event: SQLite says the same.

    Raises:
        OutboxError: An event had the highest number that SQLite has.
    """
    if max(last_number(connection), one(connection, _GREATEST)) >= 2**63 - 1:
        raise OutboxError(
            f"the outbox {path} has no number left for another event, because another program has "
            "given the highest one; send its events with: intercom-events outbox drain; then move "
            "it aside, or choose another path"
        ) from None


@lru_cache
def _made_by(migrations: tuple[str, ...]) -> Counter[_Entry]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _run(connection, migrations)
        return _entries(connection)


def _entries(connection: sqlite3.Connection) -> Counter[_Entry]:
    """Returns the entries of a schema, each with its statement, but for SQLite's statistics."""
    rows = connection.execute(
        "SELECT substr(type, 1, 100), substr(name, 1, 100), substr(sql, 1, ?) FROM sqlite_schema "
        "LIMIT ?",
        (_LONGEST_STATEMENT, _MOST_ENTRIES),
    ).fetchall()
    # Of the indexes that SQLite makes itself, there is no statement.
    entries = ((str(kind), str(name), " ".join(str(sql or "").split())) for kind, name, sql in rows)
    return Counter(entry for entry in entries if entry[2] not in _STATISTICS)


def _run(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    for statements in migrations:
        for statement in statements.split(";"):
            connection.execute(statement)


def migrate(connection: sqlite3.Connection, path: Path, patience: float, *, create: bool) -> None:
    """Brings a file to the present version; several processes may do so at once.

    Raises:
        OutboxError: It is empty and not to be made, or something else than an outbox.
    """
    version = check(connection, path)
    if not version and not create:
        raise OutboxError(f"{path} is empty; choose a file that a tracker has used")
    if not version:
        # SQLite heeds these as long as the file is empty.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # Of an outbox, too: a process may have ended while it was binding it anew.
    in_turn(connection, "PRAGMA journal_mode = WAL", patience)
    if version == len(_MIGRATIONS):
        return
    with transaction(connection):
        version = check(connection, path)
        _run(connection, _MIGRATIONS[version:])
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    # So that the tables are there where the log is lost.
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def latest() -> int:
    """Returns the version of the files that this library makes."""
    return len(_MIGRATIONS)


def one(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """Returns the integer that a query yields."""
    return int(connection.execute(query, values).fetchone()[0])


def last_number(connection: sqlite3.Connection) -> int:
    """Returns the last number that an event has got."""
    return one(connection, LAST_NUMBER)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Returns the value of a setting."""
    return one(connection, f"PRAGMA {name}")


def in_turn(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Executes a statement for which SQLite itself does not wait until the file is free."""
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
    """Makes one change of several statements."""
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
