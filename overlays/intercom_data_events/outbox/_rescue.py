# ruff: noqa: S608  # the names of tables and columns are our own
"""Saves what is only in a log that was deleted or replaced while processes had it open.

All that had it open see the same events, and each inserts those that no other one has inserted
before. A log has a name of its own, its *generation*, which the first to insert replaces.
"""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any

from intercom_data_events.outbox._schema import secure, transaction

# Rows that are inserted in one transaction: in between, others can write.
_AT_ONCE = 500
_NUMBERS_BEGIN = -(2**63)

_COLUMNS = {
    "events": "tracked_at, tries, held_until, owner, rejected_at",
    "dead": "tracked_at, tries, died_at, error, message, status, request_id",
}


def copied(source: sqlite3.Connection) -> sqlite3.Connection:
    """Returns a copy, in a file of its own that is deleted with it, of what a connection sees."""
    copy = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        source.backup(copy)
        secure(copy)
    except BaseException:
        copy.close()
        raise
    return copy


def insert(copy: sqlite3.Connection, connection: sqlite3.Connection) -> None:
    """Inserts the events and dead letters of a copy that are not in the file.

    They keep their numbers, unless others have got these meanwhile.
    """
    generation = _note(copy, "generation") or ""
    with transaction(connection):
        for name, value in copy.execute("SELECT name, value FROM binding LIMIT 100").fetchall():
            if not name.startswith(("generation", "rescued")):
                connection.execute("INSERT OR IGNORE INTO binding VALUES (?, ?)", (name, value))
        if (_note(connection, "generation") or "") == generation:
            _set(connection, "generation", uuid.uuid4().hex)
    for table in _COLUMNS:
        while _insert_some(copy, connection, table, f"rescued {table} {generation}"):
            pass


def _insert_some(
    copy: sqlite3.Connection, connection: sqlite3.Connection, table: str, note: str
) -> bool:
    """Inserts the next rows; returns False where there are none."""
    columns = _COLUMNS[table]
    with transaction(connection):
        last = int(_note(connection, note) or _NUMBERS_BEGIN)
        rows = copy.execute(
            f"SELECT id, CAST(event AS BLOB), {columns} FROM {table} WHERE id > ? ORDER BY id "
            f"LIMIT {_AT_ONCE}",
            (last,),
        ).fetchall()
        for row in rows:
            _insert_row(connection, table, columns, row)
        if rows:
            _set(connection, note, str(rows[-1][0]))
    return bool(rows)


def _insert_row(
    connection: sqlite3.Connection, table: str, columns: str, row: tuple[Any, ...]
) -> None:
    number, event, tracked_at, *_ = row
    found = connection.execute(
        f"SELECT CAST(event AS BLOB), tracked_at FROM {table} WHERE id = ?", (number,)
    ).fetchone()
    if found == (event, tracked_at):
        return
    if found is not None:
        # Of an event that others have tracked meanwhile.
        connection.execute("INSERT INTO events (event, tracked_at) VALUES ('', 0)")
        number = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
        connection.execute("DELETE FROM events WHERE id = ?", (number,))
    marks = ", ".join("?" * (len(row) - 2))
    connection.execute(
        f"INSERT INTO {table} (id, event, {columns}) VALUES (?, CAST(? AS TEXT), {marks})",
        (number, *row[1:]),
    )


def _note(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute("SELECT value FROM binding WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _set(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO binding VALUES (?, ?)", (name, value))
