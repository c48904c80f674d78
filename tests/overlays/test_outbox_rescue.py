"""What an outbox does where moving events into a new log meets a failure or another use."""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from test_outbox import (
    NOW,
    VERSION_1_PUTS,
    Process,
    box,
    event,
    everything,
    here,
    opened,
    path,
    refusal,
    users,
)
from test_outbox_taken import Another, rows

from intercom_data_events import OutboxError, OutboxLockedError
from intercom_data_events._sending import runtime
from intercom_data_events.outbox import _alone, _rescue

__all__ = ["box", "opened", "path", "refusal"]  # fixtures


def delete_log(path):
    for ending in ("-wal", "-shm"):
        Path(f"{path}{ending}").unlink()


def put(box, *numbers):
    for number in numbers:
        assert box.enqueue(event(number), NOW)


# Failures


@pytest.mark.parametrize("count", ["3 events", "some events"])
def test_what_could_not_be_moved_until_the_end_is_counted(opened, path, monkeypatch, caplog, count):
    box = opened(binding=here)
    put(box, *range(3))
    delete_log(path)

    def fail(*_arguments):
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(_rescue.Copy, "insert", fail)
    if count == "some events":
        monkeypatch.setattr(_rescue, "one", fail)
    with pytest.raises(OutboxLockedError):
        box.run_maintenance(NOW, ())
    box.close()
    assert f"{count} of the outbox {path} could not be saved" in caplog.text


def test_a_log_of_which_nothing_can_be_read_is_told(opened, path, monkeypatch, caplog):
    box = opened(binding=here)
    put(box, 0)
    delete_log(path)

    def fail(*_arguments):
        raise sqlite3.DatabaseError("database disk image is malformed")

    with monkeypatch.context() as patch:
        patch.setattr(_rescue, "Copy", fail)
        with pytest.raises(OutboxError, match="its events could not be saved"):
            box.enqueue(event(1), NOW)
    put(box, 2)
    box.run_maintenance(NOW, ())
    assert users(box.waiting()) == [2]
    assert "its events could not be saved" in caplog.text


def test_a_log_of_which_a_part_can_be_read_is_told(opened, path, monkeypatch, caplog):
    box = opened(binding=here)
    put(box, 0)
    delete_log(path)
    insert = _rescue.Copy.insert

    def insert_a_part(*arguments):
        insert(*arguments)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(_rescue.Copy, "insert", insert_a_part)
        with pytest.raises(OutboxError, match="some events in the log of the outbox"):
            box.run_maintenance(NOW, ())
    put(box, 1)
    box.run_maintenance(NOW, ())
    assert users(box.waiting()) == [0, 1]
    assert "some events in the log" in caplog.text


# A checkpoint that ended early: the database is damaged without its log


@contextlib.contextmanager
def most_bytes(most):
    """Lets nothing be written beyond some bytes of each file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def checkpoint(path, pages=None):
    """Moves the log into the database, or of its pages the first ones alone."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if pages is None:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
            return
        with most_bytes(pages * 1024), pytest.raises(sqlite3.OperationalError, match="disk I/O"):
            connection.execute("PRAGMA wal_checkpoint").fetchone()


#: How many events are in the database, and how many only in the log: the file grows, or not.
@pytest.mark.parametrize(("saved", "logged"), [(0, 40), (40, 3)])
@pytest.mark.parametrize("ends", ["goes on", "closes"])
def test_what_a_checkpoint_has_half_written_is_whole_again(opened, tmp_path, saved, logged, ends):
    for pages in range(1, 14):
        path = tmp_path / f"{pages}.outbox"
        box, other = (opened(path, here) for _ in range(2))
        put(box, *range(saved))
        checkpoint(path)
        put(box, *range(saved, saved + logged))
        checkpoint(path, pages)
        for one in (box, other):
            one.run_maintenance(NOW, ())
        delete_log(path)

        if ends == "goes on":
            put(box, saved + logged)
            assert users(other.waiting()) == [*range(saved + logged + 1)]
        box.close()
        assert rows(path) == [*range(saved + logged + (ends == "goes on"))]


@pytest.mark.processes
@pytest.mark.parametrize("first", ["mine", "theirs"])
def test_one_of_several_processes_writes_what_a_checkpoint_has_not(opened, path, first):
    box = opened(binding=here)
    put(box, *range(40))
    with Another(path) as other:
        other.do("look")
        checkpoint(path, 10)
        delete_log(path)
        if first == "mine":
            put(box, 40)
            for _ in range(10):
                box.ack(box.claim(NOW))
            checkpoint(path)
            other.do("look")
        else:
            other.do("track", 40, 41)
            assert other.do("send", 10) == [*range(10)]
            other.do("checkpoint")
            box.run_maintenance(NOW, ())
        # The second one does not write its copy over what the first one has done since.
        assert rows(path) == [*range(10, 41)]


@pytest.mark.processes
def test_what_a_process_has_written_since_is_not_written_over(opened, path):
    box = opened(binding=here)
    put(box, *range(40))
    checkpoint(path)
    put(box, *range(40, 43))
    checkpoint(path, 10)
    delete_log(path)
    with Another(path) as other:
        other.do("track", 1000, 1001)
        with contextlib.suppress(OutboxError):
            box.run_maintenance(NOW, ())
        assert 1000 in users(box.waiting())


@pytest.mark.processes
def test_a_damaged_file_that_is_locked_is_whole_again_later(opened, path):
    box = opened(binding=here, patience=0)
    put(box, *range(40))
    checkpoint(path)
    put(box, *range(40, 43))
    checkpoint(path, 10)
    delete_log(path)
    locks = """
        connection = __import__("sqlite3").connect(sys.argv[1], isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        say("locked")
        sys.stdin.read()
    """
    with Process(locks, path) as other:
        assert other.said() == "locked"
        with pytest.raises(OutboxLockedError):
            box.run_maintenance(NOW, ())
    box.run_maintenance(NOW, ())
    assert rows(path) == [*range(43)]


def test_a_damaged_file_on_a_full_disk_is_whole_again_later(opened, path):
    box = opened(binding=here)
    put(box, *range(40))
    checkpoint(path, 10)
    delete_log(path)
    with most_bytes(10 * 1024), pytest.raises(OutboxError, match="the disk is full"):
        box.run_maintenance(NOW, ())
    box.run_maintenance(NOW, ())
    assert rows(path) == [*range(40)]


def test_a_damaged_file_of_which_the_copy_is_damaged_too_is_left_as_it_is(opened, path):
    box = opened(binding=here)
    put(box, *range(40))
    checkpoint(path)
    put(box, *range(40, 80))
    checkpoint(path, path.stat().st_size // 1024)
    # A page that is not in the log.
    page = path.read_bytes().index(b'"user_id":"1"') // 1024
    with path.open("r+b") as file:
        file.seek(page * 1024)
        file.write(b"\xff" * 1024)
    damaged = path.read_bytes()
    delete_log(path)
    with pytest.raises(OutboxError, match="is damaged"):
        box.run_maintenance(NOW, ())
    assert path.read_bytes() == damaged


def test_a_damaged_file_that_another_program_put_there_is_left_as_it_is(opened, path, tmp_path):
    box, another = opened(binding=here), opened(tmp_path / "another.outbox", here)
    for one, at in ((box, path), (another, tmp_path / "another.outbox")):
        put(one, *range(40))
        checkpoint(at, 10)
    delete_log(path)
    with most_bytes(10 * 1024), pytest.raises(OutboxError, match="the disk is full"):
        box.run_maintenance(NOW, ())
    damaged = (tmp_path / "another.outbox").read_bytes()
    path.rename(tmp_path / "aside.outbox")
    path.write_bytes(damaged)
    with pytest.raises(OutboxError, match="is damaged"):
        box.run_maintenance(NOW, ())
    assert path.read_bytes() == damaged


# Failures of what comes afterwards


def test_a_file_that_cannot_be_opened_again_is_told_after_some_attempts(opened, monkeypatch):
    box, attempts = opened(binding=here), []
    put(box, 0)

    def fail(*_arguments, **_options):
        attempts.append(None)
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _seconds: None)
        patch.setattr(box._file, "open", fail)
        box._file.inserts.disconnect()
        with pytest.raises(OutboxError, match="because the disk failed; see the system log"):
            box.enqueue(event(1), NOW)
    assert len(attempts) > 2
    put(box, 2)
    assert everything(box) == [0, 2]


# Other uses


def test_a_log_that_is_deleted_as_an_event_is_written_loses_none(opened, path, monkeypatch):
    box = opened(binding=here)
    put(box, 0, 1)
    execute = box._file.execute

    def execute_and_delete(*arguments):
        cursor = execute(*arguments)
        monkeypatch.undo()
        delete_log(path)
        box._file.inserts.is_unsure = True
        return cursor

    monkeypatch.setattr(box._file, "execute", execute_and_delete)
    put(box, 2, 3)
    assert users(box.waiting()) == [0, 1, 2, 3]


def test_a_finalizer_is_refused_while_its_thread_moves_events(opened, path, monkeypatch):
    box = opened(binding=here)
    put(box, 0)
    delete_log(path)
    insert, refused = _rescue.Copy.insert, []

    def finalize_and_insert(*arguments):
        try:
            box.enqueue(event(9), NOW)
        except OutboxLockedError as error:
            refused.append(str(error))
        box.close()
        return insert(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(_rescue.Copy, "insert", finalize_and_insert)
        with pytest.raises(RuntimeError, match="is closed"):
            box.enqueue(event(1), NOW)
    assert len(refused) == 1
    assert "while the interrupted thread is moving events into a new log; try again" in refused[0]
    assert users(opened().waiting()) == [0]


@pytest.mark.parametrize("slot", ["main", "inserts"])
def test_a_use_within_a_use_that_reads_the_past_writes_all_the_same(opened, path, slot, refusal):
    box = opened(path, patience=5)
    put(box, 0, 1)
    entry = box.claim(NOW)
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other,
        box._file.using(getattr(box._file, slot)) as connection,
    ):
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM events").fetchone()
        other.execute(VERSION_1_PUTS, (json.dumps(event(2).to_dict()), NOW))
        if slot == "inserts":
            put(box, 3)
        else:
            box.dead_letter(entry, refusal, NOW)
        connection.execute("COMMIT")
    if slot == "inserts":
        assert users(box.waiting()) == [0, 1, 2, 3]
    else:
        assert (users(box.waiting()), box.status().dead) == ([1, 2], 1)


# Forks


def test_a_fork_waits_no_longer_than_it_says_for_a_thread_that_uses_a_file(opened, monkeypatch):
    box = opened(binding=here)
    monkeypatch.setattr(runtime, "FORK_PATIENCE", 0.01)
    entered, leave = threading.Event(), threading.Event()

    def use():
        with box._file.using(box._file.inserts):
            entered.set()
            leave.wait()

    thread = threading.Thread(target=use)
    thread.start()
    entered.wait()
    assert not box._file.before_fork()
    leave.set()
    thread.join()
    put(box, 0)
    assert box._file.before_fork()
    box._file.after_fork(in_child=False, waited=True)
    assert everything(box) == [0]


@pytest.mark.parametrize("waited", [True, False])
def test_what_a_forked_child_keeps_of_an_outbox(opened, path, tmp_path, waited):
    """As a fork calls it; the child of a real one is measured by no coverage."""
    box = opened(path)
    opened(path).close()
    put(box, *range(3))
    box.claim(NOW)
    owner = box._owner
    if waited:
        assert box._file.before_fork()
    box._file.after_fork(in_child=True, waited=waited)
    _alone._children.after_fork(in_child=True, waited=waited)
    assert box._owner != owner
    if waited:
        assert box.claim(NOW).event.user_id == "1"
    else:
        with pytest.raises(OutboxError, match="was in use when this process was forked"):
            box.status()


# A full disk


@pytest.mark.parametrize("tracked_at", [NOW - 1, NOW])
def test_an_unreadable_event_is_passed_over_while_the_disk_is_full(
    opened, path, caplog, tracked_at
):
    box = opened(path)
    put(box, 0, 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(VERSION_1_PUTS, ("no event", tracked_at))
    put(box, 2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path(f"{path}-wal").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        sent = []
        while (entry := box.claim(NOW)) is not None:
            box.ack(entry)
            sent.append(int(entry.event.user_id))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    box.run_maintenance(NOW, ())
    assert sent == [0, 1, 2]
    assert (box.status().queued, box.status().dead) == (0, 1)
    assert "is now a dead letter" in caplog.text


@pytest.mark.processes
def test_what_a_full_disk_kept_is_found_under_new_numbers_where_the_log_is_lost(
    opened, path, refusal
):
    box = opened(binding=here)
    put(box, *range(5))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path(f"{path}-wal").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        entries = [box.claim(NOW) for _ in range(5)]
        box.ack(entries[0])
        box.dead_letter(entries[1], refusal, NOW)
        box.nack(entries[2], 60, NOW)
        box.release(entries[3])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    delete_log(path)
    with Another(path) as other:
        other.do("track", 1_000, 1_007)
        other.do("close")

    for _ in range(3):
        box.run_maintenance(NOW, entries[4:])
    # What became of an event is not taken for that of another one with its number.
    assert users(box.waiting()) == [*range(1_000, 1_007), 2, 3, 4]
    assert [letter.event["user_id"] for letter in box.dead_letters()] == ["1"]
    box.ack(entries[4])
    assert users(box.waiting()) == [*range(1_000, 1_007), 2, 3]


def test_an_event_is_stored_though_its_connection_is_closed_in_between(opened, monkeypatch):
    box = opened(binding=here)
    put(box, 0)
    file, looks = box._file, []

    def check_place():
        looks.append(None)
        if len(looks) == 2:
            file.inserts.disconnect()  # As a fork does.

    monkeypatch.setattr(file, "check_place", check_place)
    file.inserts.disconnect()
    put(box, 1)
    assert len(looks) == 2
    assert users(box.waiting()) == [0, 1]
