"""Reading rows from single pages of a database, against what SQLite itself reads."""

from __future__ import annotations

import contextlib
import math
import sqlite3

import pytest

from intercom_data_events.outbox import _pages

VALUES = [
    None, 0, 1, -1, 127, -128, 128, 32_767, -32_768, 2**23 - 1, -(2**23), 2**31 - 1, -(2**31),
    2**47 - 1, -(2**47), 2**63 - 1, -(2**63), 0.0, 1.5, -1e300, "", "ä", "x" * 100, "x" * 977,
    "x" * 5_000, "x" * 300_000, b"", b"\xff\x00",
]  # fmt: skip


def bytes_of(value):
    """As pages have it: strings are bytes, and a REAL that is a small integer is one."""
    return value.encode() if isinstance(value, str) else value


@pytest.fixture(params=[512, 1_024, 4_096, 65_536])
def database(request):
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {request.param}")
        connection.execute("CREATE TABLE made (id INTEGER PRIMARY KEY, one, two)")
        numbers = [1, 2, 127, 128, 300, 70_000, 2**40, 2**56, 2**62, 2**63 - 1, -1, -(2**63)]
        rows = [(None, value, VALUES[-at]) for at, value in enumerate(VALUES)]
        rows += [(number, "numbered", None) for number in numbers[3:]]
        connection.executemany("INSERT OR IGNORE INTO made VALUES (?, ?, ?)", rows[: len(VALUES)])
        connection.executemany("INSERT INTO made VALUES (?, ?, ?)", rows[len(VALUES) :])
        yield connection


def test_each_row_is_read_as_sqlite_reads_it(database):
    found = {
        number: values[1:]
        for number, values in _pages.rows(database.serialize())
        if len(values) == 3
    }
    expected = {
        number: [bytes_of(one), bytes_of(two)]
        for number, one, two in database.execute("SELECT * FROM made")
    }
    assert found == expected
    assert any(isinstance(value, float) for values in found.values() for value in values)
    assert not any(math.isnan(v) for vs in found.values() for v in vs if isinstance(v, float))


def test_pages_of_another_database_yield_no_error(database):
    content = bytearray(database.serialize())
    expected = len(list(_pages.rows(bytes(content))))
    for place in range(100, len(content), 97):
        content[place] ^= 0xFF
    assert len(list(_pages.rows(bytes(content)))) < expected * 40
    assert list(_pages.rows(bytes(content[:100]) + bytes(len(content) - 100))) == []
