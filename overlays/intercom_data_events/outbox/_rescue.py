# ruff: noqa: S608  # the names of tables and columns are our own
"""Saves events that are only in a log that was deleted or replaced while processes had it open.

All these processes see the same events, and each inserts the events that no other process has
inserted before. The file notes up to which number the events of each log were inserted. A log is
identified by its inode, which is not reused as long as a process has it open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from typing import Any

from intercom_data_events.outbox import _pages
from intercom_data_events.outbox._binding import BOUND
from intercom_data_events.outbox._errors import code_of
from intercom_data_events.outbox._schema import last_number, one, pragma, transaction, unlock

# A note for each log and table says up to which number the rows were inserted.
_NOTE = "rescued "
_MOST_NOTES = 200
_LATEST_NOTES = f"FROM binding WHERE name GLOB '{_NOTE}*' ORDER BY rowid DESC LIMIT {_MOST_NOTES}"
_NOTES = f"SELECT CAST(name AS TEXT), CAST(value AS INTEGER) {_LATEST_NOTES}"
_KEPT = f"SELECT rowid {_LATEST_NOTES}"
_FORGET_NOTES = f"DELETE FROM binding WHERE name GLOB '{_NOTE}*' AND rowid NOT IN ({_KEPT})"
# The largest number of rows changed in one transaction; other processes can write in between.
_AT_ONCE = 500
# The largest number of rows whose numbers are compared at once.
_COMPARED = 5_000
_NUMBERS_BEGIN = -(2**63)
# SQLite's error code while another process writes.
_BUSY = 5

_COLUMNS = {
    "events": "tracked_at, tries, held_until, owner, rejected_at",
    "dead": "tracked_at, tries, died_at, error, message, status, request_id",
}
# In a damaged file, columns may be NULL although the schema forbids it.
_INSERT = {
    "events": f"INSERT INTO events (id, event, {_COLUMNS['events']}) "
    "VALUES (?, CAST(coalesce(?, '') AS TEXT), coalesce(?, 0), coalesce(?, 0), ?, ?, ?)",
    "dead": f"INSERT INTO dead (id, event, {_COLUMNS['dead']}) "
    "VALUES (?, CAST(coalesce(?, '') AS TEXT), coalesce(?, 0), coalesce(?, 0), coalesce(?, 0), "
    "coalesce(?, ''), coalesce(?, ''), ?, ?)",
}
_DONE = "SELECT coalesce((SELECT CAST(value AS INTEGER) FROM binding WHERE name = ?), ?)"
# Of two claims or delays, the later one stays.
_STATE = (
    "UPDATE events SET tries = max(tries, coalesce(?, 0)), held_until = ?, owner = ?, "
    "rejected_at = ? WHERE id = ? AND event = CAST(? AS TEXT) AND tracked_at = ? "
    "AND (held_until IS NULL OR held_until < ?)"
)


class Copy:
    """A copy of what a connection sees in files that were deleted or replaced.

    Args:
        source: The connection.
        name: A name that is the same in all processes that have these files open.
        saved: The last number that is known to be in the files that replaced them.

    Raises:
        sqlite3.Error: The files cannot be read.
    """

    def __init__(self, source: sqlite3.Connection, name: str, saved: int) -> None:
        self._name, self._saved = name, saved
        # Other processes may have given numbers up to this one to events in the new file.
        self._given: int | None = None
        # A temporary file, which is deleted with the copy.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            # Others may have made the database larger since; SQLite still reads it then.
            unlock(source)
            source.backup(self._rows)
            unlock(self._rows)
        except BaseException:
            self._rows.close()
            raise

    def close(self) -> None:
        self._rows.close()

    def count(self) -> int | None:
        """Returns how many of its events may be in no file; None if the copy is damaged."""
        query = "SELECT count(*) FROM events WHERE NOT id BETWEEN 1 AND ?"
        try:
            return one(self._rows, query, self._saved)
        except sqlite3.DatabaseError:
            return None

    def restore(self, connection: sqlite3.Connection) -> None:
        """Overwrites a damaged file in one transaction, unless the copy is damaged, too."""
        if self._is_sound:
            unlock(connection)
            self._rows.backup(connection, progress=_end_if_busy)

    def insert(self, connection: sqlite3.Connection, is_intact: Callable[[], bool]) -> bool:
        """Inserts events into a file, except those that another process has already processed.

        Events keep their numbers, unless other events have these numbers now.

        Args:
            connection: The file.
            is_intact: Whether its files are still those that the connection has open.

        Returns:
            Whether all events could be read. If another process has written to the database
            in the meantime, a part of the copy may be damaged.
        """
        self._is_intact = is_intact
        with self._writing(connection):
            self._begin(connection)
        whole = True
        for table in _COLUMNS:
            whole &= self._insert_table(connection, table)
        self._copy_states(connection)
        self._remove_gone(connection)
        with self._writing(connection):
            self._copy_notes(connection)
        return whole

    @contextmanager
    def _writing(self, connection: sqlite3.Connection) -> Generator[None]:
        with transaction(connection):
            yield
            if not self._is_intact():
                # Others, with another index of the log, would write to the same place in it.
                raise sqlite3.OperationalError("locking protocol")

    def _begin(self, connection: sqlite3.Connection) -> None:
        known = self._read_all(BOUND)
        connection.executemany("INSERT OR IGNORE INTO binding VALUES (?, ?)", known)
        if self._given is None:
            self._given = last_number(connection)
        # A new event must not get the number of one that left, which may not be noted yet.
        try:
            last = last_number(self._rows)
        except sqlite3.DatabaseError:
            return
        if last_number(connection) < last:
            _reserve(connection, last)

    def _read_all(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return self._rows.execute(query).fetchall()
        except (sqlite3.DatabaseError, UnicodeError):
            return []

    def _copy_notes(self, connection: sqlite3.Connection) -> None:
        """Copies the notes about earlier logs, because others may still have these logs open."""
        for name, value in self._read_all(_NOTES):
            if value > one(connection, _DONE, name, _NUMBERS_BEGIN):
                _note(connection, name, str(value))
        connection.execute(_FORGET_NOTES)

    def _insert_table(self, connection: sqlite3.Connection, table: str) -> bool:
        note = f"{_NOTE}{table} {self._name}"
        last = _NUMBERS_BEGIN
        while True:
            with self._writing(connection):
                # Whatever the note says, this is an integer that SQLite can hold.
                done = one(connection, _DONE, note, _NUMBERS_BEGIN)
                rows, damaged = self._next(table, max(last, done))
                for row in rows:
                    self._insert_row(connection, table, row)
                if rows:
                    last = rows[-1][0]
                    _note(connection, note, str(last))
            if damaged:
                break
            if not rows:
                with self._writing(connection):
                    _note(connection, note, str(max(done, last, self._saved)))
                return True
        rows = self._scattered(table, max(last, done))
        for start in range(0, len(rows), _AT_ONCE):
            with self._writing(connection):
                for row in rows[start : start + _AT_ONCE]:
                    self._insert_row(connection, table, row)
        return hasattr(self._rows, "serialize")

    def _next(self, table: str, last: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Returns the next rows, and whether damage prevents reading more."""
        if table == "events" and 0 <= last < self._saved:
            last = self._saved
        rows: list[tuple[Any, ...]] = []
        query = (
            f"SELECT id, CAST(event AS BLOB), {_COLUMNS[table]} FROM {table} "
            f"WHERE id > ? AND NOT (? AND id BETWEEN 1 AND ?) ORDER BY id LIMIT {_AT_ONCE}"
        )
        try:
            with closing(self._rows.cursor()) as cursor:
                rows.extend(cursor.execute(query, (last, table == "events", self._saved)))
        except sqlite3.DatabaseError as error:
            if code_of(error) in ("SQLITE_NOMEM", "SQLITE_FULL"):
                raise
            return rows, True
        # In a damaged copy, the rows may be unordered.
        return rows, bool(rows) and rows[-1][0] <= last

    def _scattered(self, table: str, last: int) -> list[tuple[Any, ...]]:
        """Returns the rows of all pages, which need not belong to one database."""
        if not hasattr(self._rows, "serialize"):
            return []  # PyPy
        found: dict[int, tuple[Any, ...]] = {}
        for number, (key, *values) in _pages.rows(self._rows.serialize()):
            # The number of our rows is their key, which is NULL in the row itself.
            if key is not None or number <= max(last, self._saved):
                continue
            if table == "events" and len(values) == 5:
                values.append(None)  # A row of the previous version has no rejected_at.
            if len(values) == _INSERT[table].count("?") - 1:
                found[number] = number, values[0], *map(_decoded, values[1:])
        return [found[number] for number in sorted(found)]

    def _insert_row(self, connection: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
        number, event, tracked_at, *_ = row
        given = self._given or 0
        known = (event, tracked_at)
        if _found(connection, table, number) == known:
            return
        if table == "events":
            if _found(connection, "dead", number) == known:
                return
            if 0 < number <= given or _found(connection, "events", number):
                number = _reserve(connection)
        elif _found(connection, "events", number) == known:
            connection.execute("DELETE FROM events WHERE id = ?", (number,))
        elif 0 < number <= self._saved:
            return  # Another process saw it accepted, retried it or deleted it.
        elif 0 < number <= given or any(_found(connection, t, number) for t in _COLUMNS):
            number = _reserve(connection)
        connection.execute(_INSERT[table], (number, *row[1:]))

    def _copy_states(self, connection: sqlite3.Connection) -> None:
        """Copies claims and delays of events that are also in the new file."""
        last = _NUMBERS_BEGIN
        query = (
            "SELECT id, CAST(event AS BLOB), tracked_at, tries, held_until, owner, rejected_at "
            "FROM events WHERE id > ? AND (held_until IS NOT NULL OR tries > 0) "
            f"ORDER BY id LIMIT {_AT_ONCE}"
        )
        while True:
            try:
                rows = self._rows.execute(query, (last,)).fetchall()
            except sqlite3.DatabaseError:
                return
            if not rows or rows[-1][0] <= last:
                return
            with self._writing(connection):
                connection.executemany(_STATE, [(*row[3:], *row[:3], row[4]) for row in rows])
            last = rows[-1][0]

    @property
    def _is_sound(self) -> bool:
        return is_sound(self._rows) and pragma(self._rows, "page_count") > 0

    def _remove_gone(self, connection: sqlite3.Connection) -> None:
        """Removes events that are in the new file again, although they left the old one."""
        sound: bool | None = None
        last = 0
        numbers = "SELECT id FROM events WHERE id {0} UNION SELECT id FROM dead WHERE id {0}"
        some = f"{numbers.format('> ? AND id <= ?')} ORDER BY id LIMIT {_COMPARED}"
        between = numbers.format("BETWEEN ? AND ?")
        while True:
            present = [row[0] for row in connection.execute(some, (last, self._saved) * 2)]
            # In a damaged file, the numbers may be unordered.
            if not present or present[-1] <= last:
                return
            try:
                known = self._rows.execute(between, (present[0], present[-1]) * 2).fetchall()
                gone = sorted({*present} - {row[0] for row in known})
                if gone and sound is None:
                    sound = self._is_sound
            except sqlite3.DatabaseError:
                return
            for start in range(0, len(gone), _AT_ONCE) if sound else ():
                with self._writing(connection):
                    some_gone = [(number,) for number in gone[start : start + _AT_ONCE]]
                    for table in _COLUMNS:
                        connection.executemany(f"DELETE FROM {table} WHERE id = ?", some_gone)
            last = present[-1]


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether the pages of a database belong together."""
    try:
        return connection.execute("PRAGMA integrity_check(1)").fetchall() == [("ok",)]
    except sqlite3.DatabaseError as error:
        if code_of(error) != "SQLITE_CORRUPT":
            raise
        return False


def _end_if_busy(status: int, _remaining: int, _total: int) -> None:
    """Ends a backup that SQLite would retry forever."""
    if status == _BUSY:
        raise sqlite3.OperationalError("database is locked")


def _decoded(value: _pages.Value) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _found(connection: sqlite3.Connection, table: str, number: int) -> tuple[bytes, float] | None:
    query = f"SELECT CAST(event AS BLOB), tracked_at FROM {table} WHERE id = ?"
    row = connection.execute(query, (number,)).fetchone()
    return None if row is None else tuple(row)


def _reserve(connection: sqlite3.Connection, number: int | None = None) -> int:
    """Reserves a number that no event has had: the given one, or the next one."""
    connection.execute("INSERT INTO events (id, event, tracked_at) VALUES (?, '', 0)", (number,))
    number = one(connection, "SELECT last_insert_rowid()")
    connection.execute("DELETE FROM events WHERE id = ?", (number,))
    return number


def _note(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO binding VALUES (?, ?)", (name, value))
