"""What reviewers tried on an outbox, and what did not hold at first."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from test_outbox import (
    NOW,
    VERSION_1_PUTS,
    at_each_line,
    box,
    event,
    everything,
    here,
    log_of,
    opened,
    path,
    refusal,
    users,
)
from test_outbox_taken import Another, delete, rows

from intercom_data_events import ConfigurationError, OutboxError
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._rescue import Copy

__all__ = ["box", "opened", "path", "refusal"]  # fixtures


# A folder that is moved or deleted with the whole outbox in it


@pytest.fixture
def folder(tmp_path):
    """A folder for an outbox alone."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def put(box, *numbers):
    for number in numbers:
        assert box.enqueue(event(number), NOW)


def test_what_was_sent_from_a_moved_file_is_not_sent_again_when_it_is_back(opened, folder):
    box = opened(folder / "outbox.db")
    put(box, *range(10))
    folder.rename(folder.with_name("moved"))
    for _ in range(8):
        box.ack(box.claim(NOW))
    box.close()
    folder.with_name("moved").rename(folder)

    assert everything(opened(folder / "outbox.db")) == [8, 9]


def test_no_event_is_tracked_to_a_file_that_is_gone_also_not_the_first_one(opened, folder, caplog):
    box = opened(folder / "outbox.db")
    put(box, 0)
    shutil.rmtree(folder)

    with pytest.raises(OutboxError, match="was moved or deleted while it was in use"):
        box.enqueue(event(1), NOW)
    box.run_maintenance(NOW, ())
    box.run_maintenance(NOW, ())
    (line,) = caplog.records
    assert "so events cannot be tracked; put it back" in line.getMessage()
    assert everything(box) == [0]


@pytest.mark.parametrize("noticed", [False, True])
def test_what_a_file_that_is_gone_held_unsent_is_told_at_the_end(opened, folder, noticed, caplog):
    box = opened(folder / "outbox.db")
    put(box, *range(3))
    box.ack(box.claim(NOW))
    shutil.rmtree(folder)
    if noticed:
        box.run_maintenance(NOW, ())
    box.close()

    assert "with 2 events not sent" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 1 + noticed


def test_the_end_of_a_file_that_is_gone_and_held_nothing_is_silent(opened, folder, caplog):
    box = opened(folder / "outbox.db")
    shutil.rmtree(folder)
    box.run_maintenance(NOW, ())
    caplog.clear()
    box.close()

    assert not caplog.records


# A log that is deleted again before all processes have found out


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("endings", [("-wal",), ("-wal", "-shm")], ids="+".join)
@pytest.mark.processes
def test_a_process_that_finds_out_late_sends_nothing_again(opened, path, endings, again):
    box = opened()
    with Another(path) as other:
        other.do("track", 0, 60)
        put(box, 60)
        delete(path, endings)
        sent = other.do("send", 40)
        if again:
            delete(path, endings)
        else:
            other.do("checkpoint")
        put(box, 61)
        box.run_maintenance(NOW, ())
        other.do("look")

        assert sorted(sent + rows(path)) == [*range(62)]
    assert sorted(sent + everything(box)) == [*range(62)]


@pytest.mark.processes
def test_a_claim_on_an_event_that_another_process_has_claimed_in_the_new_log_is_none(opened, path):
    box = opened()
    put(box, *range(3))
    sent = []
    with Another(path) as other:
        other.do("look")

        def take(statement):
            if statement.startswith("UPDATE events SET held_until") and not sent:
                delete(path, ("-wal",))
                sent.extend(other.do("send", 1))

        box._file.main.connection.set_trace_callback(take)
        assert everything(box) == [1, 2]
    assert sent == [0]


def test_notes_of_many_lost_logs_do_not_push_out_what_a_file_is_for(opened, path):
    box = opened(binding=here)
    notes = [(f"rescued {table} {n}", 0) for n in range(60) for table in ("events", "dead")]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany("INSERT INTO binding VALUES (?, ?)", notes)
    put(box, 0)
    delete(path, ("-wal",))
    put(box, 1)
    box.close()

    for _ in range(2):
        opened(binding=here).close()
    with pytest.raises(ConfigurationError, match="is for https://api"):
        opened(binding=Binding("https://elsewhere.example", "the token"))


# A log that is cut while it is in use


def test_a_log_that_was_cut_and_written_to_again_does_no_harm_to_the_database(opened, path, caplog):
    box = opened(binding=here)
    put(box, *range(20))
    os.truncate(log_of(path), 0)
    # Of what SQLite has in memory, it reads nothing again.
    put(box, *range(20, 30))
    with pytest.raises(OutboxError, match="is damaged"):
        box.status()
    put(box, 30)
    box.run_maintenance(NOW, ())

    assert "up to 30 events could not be saved" in caplog.text
    assert rows(path) == [30]
    box.close()
    assert everything(opened(binding=here)) == [30]


def test_no_event_is_said_to_be_safe_where_the_log_cannot_be_read(opened, path):
    box = opened(binding=here)
    put(box, *range(20))
    os.truncate(log_of(path), 0)

    with pytest.raises(OutboxError) as raised:
        box.status()
    assert "safe" not in str(raised.value)


@pytest.mark.processes
def test_an_index_that_is_deleted_while_events_are_moved_has_nothing_written_over(
    opened, path, monkeypatch
):
    box = opened()
    put(box, *range(20))
    insert, inserted = Copy._insert_row, []
    with Another(path) as other:
        other.do("look")

        def insert_row(self, *row):
            inserted.append(row)
            if len(inserted) == 10:
                delete(path, ("-shm",))
                other.do("track", 100, 120)
            insert(self, *row)

        monkeypatch.setattr(Copy, "_insert_row", insert_row)
        delete(path, ("-wal",))
        put(box, 20)
        other.do("look")
    assert rows(path) == [*range(21), *range(100, 120)]


def test_what_was_closed_keeps_no_file_open(opened, tmp_path):
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(3):
        path = tmp_path / f"{number}.db"
        first, second = opened(path), opened(path)
        put(first, 1)
        first.close()
        put(second, 2)
        assert everything(second) == [1, 2]
        second.close()
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_an_event_that_a_handler_tracks_within_enqueue_is_stored_whatever_others_write(
    opened, path
):
    box = opened(path, patience=5)
    put(box, 0)
    numbers = itertools.count(1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:

        def interrupt():
            # Of what the interrupted use has read, the end is not the present any longer.
            other.execute(VERSION_1_PUTS, (json.dumps(event(next(numbers)).to_dict()), NOW))
            put(box, next(numbers))

        at_each_line(lambda: put(box, -1), interrupt, step="opcode")

    assert sorted(users(box.waiting())) == [-1, *range(next(numbers))]


@pytest.mark.costly
@pytest.mark.parametrize("does", ["release_delayed", "run_maintenance", "nack", "dead_letter"])
def test_what_a_finalizer_does_within_maintenance_is_done_whatever_others_write(
    opened, path, refusal, does
):
    box = opened(path)
    put(box, *range(3))
    entry = box.claim(NOW)
    use = {
        "release_delayed": box.release_delayed,
        "run_maintenance": lambda: box.run_maintenance(NOW + 60, ()),
        "nack": lambda: box.nack(entry, 0, NOW),
        "dead_letter": lambda: box.dead_letter(entry, refusal, NOW),
    }[does]
    numbers = itertools.count(3)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:

        def interrupt():
            other.execute(VERSION_1_PUTS, (json.dumps(event(next(numbers)).to_dict()), NOW))
            use()

        at_each_line(lambda: box.run_maintenance(NOW, ()), interrupt, step="opcode")

    waiting, dead = users(box.waiting()), [letter.id for letter in box.dead_letters()]
    assert len(waiting) + len(dead) == next(numbers)
    assert dead == ([1] if does == "dead_letter" else [])
