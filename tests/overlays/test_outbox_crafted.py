"""Files that only look like an outbox, and rows that are no events: they hold up nothing.

Each is used through a tracker, `Outbox` and the command line.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from intercom_data_events import DataEventsClient, Event, OutboxError
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox
from intercom_data_events.outbox._queue import OutboxQueue
from intercom_data_events.tracker import Tracker
from memory import peak_below

COMMAND = "import sys; from intercom_data_events.cli import main; sys.exit(main())"
#: Seconds that any use of a small file may take, on a machine that is busy.
SECONDS = 20
EVENT = {"event_name": "placed-order", "created_at": 1_671_028_894, "user_id": "1"}
#: A query that never ends, with all columns of our tables.
ENDLESS = """
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers)
    SELECT n AS id, 'x' AS event, 0 AS tracked_at, 0 AS tries, NULL AS held_until, NULL AS owner,
      NULL AS rejected_at, 0 AS died_at, 'x' AS error, 'x' AS message, 1 AS status,
      'x' AS request_id, 'x' AS name, 'x' AS value FROM numbers
"""
#: A trigger's body that never ends.
SLOW = f"BEGIN SELECT count(*) FROM ({ENDLESS}); END"
TABLES = ("events", "dead", "binding")


@contextlib.contextmanager
def tracking(path, **options):
    """A tracker of a token's process, whose Intercom takes every event."""
    emulator = Emulator(rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path, unknown_contact_patience=0, **options) as tracker,
    ):
        yield tracker


@pytest.fixture(autouse=True)
def in_time():
    """Fails where something takes longer than a person waits."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < SECONDS


@pytest.fixture
def path(tmp_path):
    """An outbox with three events and two dead letters."""
    path = tmp_path / "outbox.db"
    emulator = Emulator(contacts=[], rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path, unknown_contact_patience=0) as tracker,
    ):
        for number in range(2):
            tracker.track("placed-order", user_id=f"dead-{number}")
        assert tracker.flush(SECONDS)
    craft(path, *(insert(user) for user in "abc"))
    return path


def insert(user="1", **columns):
    """The statement for an event of a user, in which columns have other values."""
    values = {"event": literal(json.dumps(EVENT | {"user_id": user})), "tracked_at": time.time()}
    values |= columns
    return (
        f"INSERT INTO events ({', '.join(values)}) VALUES ({', '.join(map(str, values.values()))})"
    )


def literal(text):
    return "'" + text.replace("'", "''") + "'"


def craft(path, *statements):
    """Has another program write to a file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.executescript(statement)


def without_constraints(path, *statements):
    """Writes rows as a program can that does not heed the constraints of our tables."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        made = connection.execute("SELECT sql, name FROM sqlite_schema").fetchall()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table'"
        )
    craft(path, *statements)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.executemany("UPDATE sqlite_schema SET sql = ? WHERE name = ?", made)


def rewritten(before, after, table="events"):
    """Has a table say something else of itself."""
    return (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET "
        f"sql = replace(sql, {literal(before)}, {literal(after)}) WHERE name = '{table}';"
    )


def entry(kind, name, table, sql):
    """Adds to the schema what has another type or name than its statement."""
    return (
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema (type, name, tbl_name, rootpage, "
        f"sql) VALUES ('{kind}', '{name}', '{table}', 0, {literal(sql)});"
    )


def command(*arguments):
    """Runs the command line as a process of its own, as one that hangs cannot be interrupted."""
    environment = {name: value for name, value in os.environ.items() if "COV" not in name}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=SECONDS,
        env={**environment, "INTERCOM_ACCESS_TOKEN": "token"},
    )  # fmt: skip


# Files

CRAFTED = {
    **{
        f"{table} is an endless view": f"DROP TABLE {table}; CREATE VIEW {table} AS {ENDLESS}"
        for table in TABLES
    },
    **{
        f"{table} is a view of a table": (
            f"ALTER TABLE {table} RENAME TO kept; CREATE VIEW {table} AS SELECT * FROM kept"
        )
        for table in TABLES
    },
    **{
        f"a trigger {moment} {action} on {table}": (
            f"CREATE TRIGGER slow {moment} {action} ON {table} {SLOW}"
        )
        for moment in ("BEFORE", "AFTER")
        for action in ("INSERT", "UPDATE", "DELETE")
        for table in TABLES
    },
    "a trigger on a view": (
        f"CREATE VIEW v AS SELECT * FROM events; CREATE TRIGGER x INSTEAD OF INSERT ON v {SLOW}"
    ),
    "a trigger that says it is a statistic": entry(
        "trigger",
        "sqlite_stat1",
        "events",
        f"CREATE TRIGGER sqlite_stat1 BEFORE INSERT ON events {SLOW}",
    ),
    "a trigger that says it is a table": entry(
        "table", "sqlite_stat1", "events", f"CREATE TRIGGER slow BEFORE INSERT ON events {SLOW}"
    ),
    "a trigger that says it is ours": entry(
        "table", "events", "events", f"CREATE TRIGGER slow BEFORE INSERT ON events {SLOW}"
    ),
    **{f"{table} has another name": f"ALTER TABLE {table} RENAME TO other" for table in TABLES},
    **{f"{table} is not there": f"DROP TABLE {table}" for table in TABLES},
    **{f"{table} has a column more": f"ALTER TABLE {table} ADD COLUMN more" for table in TABLES},
    "a generated column": "ALTER TABLE events ADD COLUMN more AS (abs(tries))",
    "another table": "CREATE TABLE more (a)",
    "1,000 other tables": "".join(f"CREATE TABLE more{number} (a);" for number in range(1_000)),
    "another index": "CREATE INDEX more ON events (owner)",
    "an index of an expression": "CREATE INDEX more ON events (upper(owner))",
    "an index that allows one attempt": "CREATE UNIQUE INDEX more ON dead (tries, id)",
    "no index": "DROP INDEX free",
    "an index of other events": (
        "DROP INDEX free; CREATE INDEX free ON events (tracked_at, id) WHERE held_until IS NOT NULL"
    ),
    "a virtual table": "CREATE VIRTUAL TABLE more USING fts5(a)",
    "a check": rewritten("event TEXT NOT NULL", "event TEXT NOT NULL CHECK (randomblob(9) > '')"),
    "a default": rewritten("DEFAULT 0", "DEFAULT (abs(random()))"),
    "a collation": rewritten("owner TEXT", "owner TEXT COLLATE NOCASE"),
    "a collation that is not there": rewritten("owner TEXT", "owner TEXT COLLATE nowhere"),
    "a conflict clause": rewritten("event TEXT NOT NULL", "event TEXT NOT NULL ON CONFLICT IGNORE"),
    "numbers that come again": rewritten(" AUTOINCREMENT", ""),
    "version 0": "PRAGMA user_version = 0",
    "version 1": "PRAGMA user_version = 1",
    "version -1": "PRAGMA user_version = -1",
    "a version to come": "PRAGMA user_version = 2147483647",
    "another application": "PRAGMA application_id = 1",
    "no application": "PRAGMA application_id = 0",
    "a schema that is no UTF-8": (
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = CAST(x'ff' AS TEXT) "
        "WHERE name = 'dead'"
    ),
}  # fmt: skip


@pytest.mark.parametrize("statements", CRAFTED.values(), ids=CRAFTED)
def test_a_file_that_only_looks_like_an_outbox_is_refused_and_left_alone(path, statements):
    craft(path, statements)
    before = path.read_bytes()

    for use in (
        lambda: tracking(path).__enter__().track("placed-order", user_id="1"),
        lambda: Outbox(path),
    ):
        with pytest.raises(OutboxError) as raised:
            use()
        assert remedied(str(raised.value))
    assert path.read_bytes() == before


def remedied(message):
    """Whether a message says what to do."""
    return (
        "move it aside, or choose another path" in message
        or "choose another path" in message
        or "recover its events with sqlite3's .recover" in message
    )


@pytest.mark.costly
@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments",
    [["status"], ["dead"], ["retry", "--all"], ["forget", "--all"], ["export"], ["drain"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_the_command_line_says_in_a_line_what_is_wrong_with_a_file(path, arguments):
    craft(path, f"CREATE TRIGGER slow BEFORE DELETE ON dead {SLOW}", *(
        f"ALTER TABLE events RENAME TO kept; CREATE VIEW events AS {ENDLESS}",
    ))  # fmt: skip

    first, *rest = arguments
    done = command("outbox", first, path, *rest)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "does not have the schema of an outbox" in done.stderr


@pytest.mark.parametrize(
    "statements",
    [
        "ANALYZE",
        (
            "ANALYZE; DELETE FROM sqlite_stat1; INSERT INTO sqlite_stat1 VALUES "
            "('events', 'free', 'x y'), ('events', NULL, '-1'), ('more', 'x', '1')"
        ),
        "DELETE FROM sqlite_sequence",
        "INSERT INTO sqlite_sequence SELECT * FROM sqlite_sequence",
        "UPDATE sqlite_sequence SET seq = 'many'",
        "UPDATE sqlite_sequence SET seq = x'ff'",
        "UPDATE sqlite_sequence SET seq = NULL",
        "UPDATE sqlite_sequence SET seq = -9223372036854775808",
        "VACUUM",
        "REINDEX",
        rewritten("event TEXT", "event  TEXT"),
    ],
)
def test_what_sqlite_itself_keeps_in_a_file_does_no_harm(path, statements):
    craft(path, statements)

    with tracking(path) as tracker:
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(SECONDS)
        assert tracker.counters.sent == 4
        assert tracker.counters.queued == 0
    with Outbox(path) as box:
        assert box.status().dead == 2


@pytest.mark.parametrize(
    "statements",
    [
        *(
            f"CREATE TRIGGER slow {moment} {action} ON {table} {SLOW}"
            for moment in ("BEFORE", "AFTER")
            for action, table in (("INSERT", "events"), ("UPDATE", "events"), ("DELETE", "events"))
        ),
        # As a version to come would, which may have other columns, but no triggers.
        f"CREATE TRIGGER slow BEFORE INSERT ON events {SLOW}; PRAGMA user_version = 3",
        f"ALTER TABLE events RENAME TO kept; CREATE VIEW events AS {ENDLESS}",
        "DROP TABLE events",
        "ALTER TABLE events RENAME TO kept",
        "ALTER TABLE dead ADD COLUMN more",
    ],
)
def test_what_another_program_adds_to_an_open_file_runs_in_no_use_of_it(path, statements):
    with tracking(path, on_error=lambda *_: None) as tracker, Outbox(path) as box:
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(SECONDS)
        craft(path, statements)

        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            try:
                problem = tracker.counters.failing
                tracker.track("placed-order", user_id="1")
            except OutboxError as error:
                problem = error
            if problem is not None:
                break
            time.sleep(0.02)  # Its threads look every second or so.
        else:
            pytest.fail("it goes on as before")
        assert remedied(str(problem))
        for use in (box.status, box.retry, box.forget, lambda: list(box.waiting())):
            with contextlib.suppress(OutboxError):
                use()
        tracker.close(0)


def test_a_file_whose_numbers_are_used_up_is_told_from_a_full_disk(path):
    craft(path, insert("d", id=2**63 - 1))

    with tracking(path) as tracker:
        with pytest.raises(OutboxError, match="no number left for another event") as raised:
            tracker.track("placed-order", user_id="1")
        assert "intercom-events outbox drain" in str(raised.value)
        # What is in it is sent, though.
        assert tracker.flush(SECONDS)
        assert tracker.counters.sent == 4


# Rows


#: Values that SQLite can have in any column.
ODD = {
    "NULL": "NULL",
    "a string": "'abc'",
    "an empty string": "''",
    "no UTF-8": "CAST(x'ff' AS TEXT)",
    "a blob": "x'ff00'",
    "an empty blob": "x''",
    "infinity": "9e999",
    "minus infinity": "-9e999",
    "huge": "1e300",
    "the greatest integer": "9223372036854775807",
    "the least integer": "-9223372036854775808",
    "a fraction": "0.5",
    "below zero": "-1",
    "digits": f"'{'9' * 100}'",
    "a year to come": "253402300800",
}
#: What is in a column of an event makes it none; in the others it is of no account.
COLUMNS = ("event", "tracked_at", "tries", "held_until", "owner", "rejected_at")


@pytest.mark.costly
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_with_any_value_in_a_column_is_sent_or_becomes_a_dead_letter(path, column, value):
    without_constraints(path, insert("odd", **{column: value}), insert("last"))

    with tracking(path) as tracker:
        # Delays are over, as a person wants them to be.
        tracker.flush(0)
        assert tracker.flush(SECONDS)
        assert tracker.counters.queued == 0
    with Outbox(path) as box:
        status = box.status(time.time())
        letters = list(box.dead_letters())
        assert (status.queued, status.claimed, status.held) == (0, 0, 0)
        assert [letter.id for letter in letters[:2]] == [1, 2]
        for letter in letters[2:]:
            assert letter.error in ("OutboxError", "InvalidInputError")
            assert letter.message
        # A letter can be sent again, and is one again; or it is an event after all.
        assert box.retry() == len(letters)
        assert box.status().queued == len(letters)
    assert tracker.counters.sent == 5 - (len(letters) - 2)
    if column in ("event", "tries"):
        assert len(letters) == 3 or value == "0"


def test_rows_with_any_values_are_saved_where_the_log_is_deleted(path):
    dead = {
        "tracked_at": 0, "tries": 0, "died_at": 0, "error": "'x'", "message": "'x'",
        "status": 404, "request_id": "'x'",
    }  # fmt: skip
    letters = [
        f"INSERT INTO dead (id, event, {', '.join(dead)}) VALUES ({number}, 'x', "
        f"{', '.join(map(str, (dead | {column: value}).values()))})"
        for number, (column, value) in enumerate(itertools.product(dead, ODD.values()), 1_000)
    ]
    events = [
        insert(**{column: value}) for column, value in itertools.product(COLUMNS, ODD.values())
    ]
    craft(
        path,
        "INSERT INTO binding VALUES ('generation', 'x'), ('rescued events x', 'abc'), "
        "('rescued dead x', x'ff')",
    )
    with contextlib.closing(OutboxQueue(path)) as box:
        box.enqueue(Event(**EVENT), time.time())
        without_constraints(path, ";".join(["BEGIN", *events, *letters, "COMMIT"]))
        Path(f"{path}-wal").unlink()
        box.enqueue(Event(**EVENT), time.time())
        status = box.status()
    assert (status.queued, status.dead) == (3 + 2 + len(events), 2 + len(letters))


#: Texts that are no events.
TEXTS = {
    "no JSON": "nonsense",
    "half of it": '{"event_name": "a", "us',
    "a list": "[1]",
    "a string": '"a"',
    "null": "null",
    "not a number": "NaN",
    "an unknown field": json.dumps(EVENT | {"color": 1}),
    "no person": '{"event_name": "a", "created_at": 1671028894}',
    "no time": '{"event_name": "a", "user_id": "1"}',
    "a person of another type": json.dumps(EVENT | {"user_id": ["1"]}),
    "a name of another type": json.dumps(EVENT | {"event_name": {"a": 1}}),
    "a time beyond all": json.dumps(EVENT | {"created_at": 10**30}),
    "a time that is infinite": '{"event_name": "a", "user_id": "1", "created_at": 1e999}',
    "a number of 5,000 digits": '{"event_name": "a", "user_id": "1", "created_at": %s}'
    % ("9" * 5_000),
    "half a character": json.dumps(EVENT | {"user_id": "\ud800"}),
    "deep": '{"event_name":' * 900 + "1" + "}" * 900,
    "deeper": "[" * 1_000_000,
    "20 MB": json.dumps(EVENT | {"metadata": {"note": "x" * 20_000_000}}),
}  # fmt: skip


@pytest.mark.costly
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_event_that_is_none_stops_none_of_the_others(path, text):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        good = [(json.dumps(EVENT | {"user_id": f"user-{n}"}), time.time()) for n in range(60)]
        statement = "INSERT INTO events (event, tracked_at) VALUES (?, ?)"
        for rows in (good, [(text, time.time())], good):
            connection.executemany(statement, rows)

    with tracking(path) as tracker:
        assert tracker.flush(SECONDS)
        assert (tracker.counters.sent, tracker.counters.queued) == (123, 0)
    with Outbox(path) as box:
        *_, letter = box.dead_letters()
        assert letter.message
        # It can be shown, too.
        json.dumps(dict(letter.event))
        assert box.status().dead == 3


def test_an_event_of_many_values_is_not_decoded(path):
    text = "[" + "{}," * 3_000_000 + "{}]"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events (event, tracked_at) VALUES (?, ?)", (text, 0))

    # The text, and its copies on the way.
    with Outbox(path) as box, peak_below(40_000_000):
        *_, last = box.waiting()
    assert last == {"event": text}


@pytest.mark.costly
@pytest.mark.processes
@pytest.mark.parametrize(
    "text", [TEXTS["deep"], TEXTS["20 MB"], "\x1b[2J"], ids=["deep", "20 MB", "control"]
)
def test_the_command_line_shows_what_is_no_event(path, text):
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        statement = "INSERT INTO dead VALUES (?, ?, 0, 0, ?, 'NotFoundError', 'no', 404, NULL)"
        connection.execute(statement, (17, text, 1e12))

    for arguments in (["dead"], ["dead", "--json"], ["export", "--dead"], ["status"]):
        first, *rest = arguments
        done = command("outbox", first, path, *rest)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert "\x1b[2J" not in done.stdout
    assert command("outbox", "forget", path, "17").returncode == 0


LETTER = ("event", "tracked_at", "tries", "died_at", "error", "message", "status", "request_id")


@pytest.mark.costly
@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("column", LETTER)
def test_a_dead_letter_with_any_value_in_a_column_is_listed_and_can_be_sent_again(
    path, column, value
):
    without_constraints(path, f"UPDATE dead SET {column} = {value} WHERE id = 1")

    with Outbox(path) as box:
        first, second = box.dead_letters()
        assert (first.id, second.id) == (1, 2)
        assert isinstance(first.tracked_at, float)
        assert isinstance(first.died_at, float)
        assert isinstance(first.status, int | None)
        assert box.retry([1]) == 1
        assert box.forget() == 1
        assert (box.status().queued, box.status().dead) == (4, 0)


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**63 - 1])
def test_a_row_may_have_any_number(path, number):
    craft(
        path,
        insert("first", id=number),
        f"UPDATE dead SET id = {number} WHERE id = 1",
    )

    with Outbox(path) as box:
        assert len(list(box.waiting())) == 4
        assert {letter.id for letter in box.dead_letters()} == {number, 2}
        assert box.forget() == 2
    with tracking(path) as tracker:
        assert tracker.flush(SECONDS)
        assert (tracker.counters.sent, tracker.counters.queued) == (4, 0)


@pytest.mark.parametrize(
    "value", ["NULL", "x'ff'", "CAST(x'ff' AS TEXT)", "9e999", f"'{'x' * 1_000_000}'"]
)
@pytest.mark.parametrize("column", ["name", "value"])
def test_a_binding_with_any_value_is_refused_or_that_of_another_workspace(path, column, value):
    without_constraints(path, f"UPDATE binding SET {column} = {value} WHERE name = 'token'")

    with pytest.raises(Exception, match=r"move it|choose another path") as raised:
        tracking(path).__enter__()
    assert type(raised.value).__name__ in ("OutboxError", "ConfigurationError")
    with contextlib.suppress(OutboxError), Outbox(path) as box:
        assert box.status().queued == 3


def test_an_index_that_says_what_is_not_so_ends_in_an_error(path):
    """The index of free events has one that a process has claimed."""
    craft(path, *(insert(f"user-{number}") for number in range(50)))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        page, size = (
            connection.execute(statement).fetchone()[0]
            for statement in (
                "SELECT rootpage FROM sqlite_schema WHERE name = 'free'",
                "PRAGMA page_size",
            )
        )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.read_bytes()
        connection.execute("UPDATE events SET held_until = ?, owner = 'x'", (time.time() + 100,))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # The index as it was before, the table as it is.
    contents = bytearray(path.read_bytes())
    contents[(page - 1) * size : page * size] = before[(page - 1) * size : page * size]
    path.write_bytes(contents)

    with tracking(path, on_error=lambda *_: None) as tracker:
        assert not tracker.flush(2)
        assert "is damaged; move it and its -wal file aside" in str(tracker.counters.failing)
        tracker.close(0)
