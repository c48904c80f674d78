"""Where an outbox's files are deleted, moved or replaced while processes have them open."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from test_outbox import (
    FORKING,
    NOW,
    Process,
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

from intercom_data_events import DataEventsClient, OutboxError, OutboxLockedError
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox as Look
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import Tracker

__all__ = ["box", "opened", "path", "refusal"]  # fixtures

#: What is taken away, by the endings of the files.
TAKEN = [("-wal",), ("-shm",), ("-wal", "-shm")]

taken = pytest.mark.parametrize("endings", TAKEN, ids="+".join)


def files(path, endings):
    return [Path(f"{path}{ending}") for ending in endings]


def delete(path, endings):
    for one in files(path, endings):
        one.unlink()


def rows(path, table="events"):
    """What any other program finds in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = f"SELECT json_extract(event, '$.user_id') FROM {table} ORDER BY 1"
        return sorted(int(user) for (user,) in connection.execute(query))


#: Another process, which opens the file when it is told, and says what it did.
OTHER = """
    box = Outbox(sys.argv[1], patience=5)
    for line in sys.stdin:
        what, *numbers = line.split()
        numbers = list(map(int, numbers))
        if what == "track":
            for number in range(*numbers):
                box.enqueue(event(number), NOW)
        elif what == "send":
            sent = []
            for _ in range(*numbers):
                entry = box.claim(NOW)
                box.ack(entry)
                sent.append(entry.event.user_id)
            say(*sent)
        elif what == "look":
            box.run_maintenance(NOW, ())
        elif what == "checkpoint":
            with contextlib.closing(__import__("sqlite3").connect(sys.argv[1])) as connection:
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        elif what == "close":
            box.close()
        elif what == "end":
            break
        say("done")
"""


class Another(Process):
    """Another process that has the file open."""

    def __init__(self, path):
        super().__init__(OTHER, path)

    def do(self, what, *numbers):
        print(what, *numbers, file=self._process.stdin, flush=True)
        said = []
        while (line := self.said()) != "done":
            said += map(int, line.split())
        return said


@taken
@pytest.mark.parametrize("many", [1, 383])
@pytest.mark.parametrize("then", ["track", "look", "close", "status", "claim"])
def test_what_was_tracked_is_in_the_file_that_others_see(opened, path, endings, many, then):
    box = opened(binding=here)
    for number in range(many):
        box.enqueue(event(number), NOW)
    delete(path, endings)

    if then == "track":
        box.enqueue(event(many), NOW)
        many += 1
    elif then == "look":
        box.run_maintenance(NOW, ())
    elif then == "status":
        assert box.status().queued == many
    elif then == "claim":
        assert box.claim(NOW).event.user_id == "0"
    else:
        box.close()
    assert rows(path) == [*range(many)]
    box.close()
    assert rows(path) == [*range(many)]
    assert users(opened().waiting()) == [*range(many)]


@pytest.mark.costly
@taken
@pytest.mark.parametrize(
    ("checkpointed", "ends", "mine", "theirs"),
    [
        (False, "goes on", 344, 470),
        (False, "closes", 3, 470),
        (False, "ends", 470, 2),
        (False, "is killed", 3, 2),
        (True, "goes on", 3, 2),
        (True, "closes", 344, 470),
        (True, "ends", 3, 470),
        (True, "is killed", 470, 2),
    ],
)
@pytest.mark.processes
def test_nothing_is_lost_beside_a_process_that_opened_the_file_afterwards(
    opened, path, endings, checkpointed, ends, mine, theirs
):
    box = opened(binding=here)
    for number in range(mine):
        box.enqueue(event(number), NOW)
    if checkpointed:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for number in range(mine, mine + 5):
            box.enqueue(event(number), NOW)
        mine += 5
    delete(path, endings)
    if endings == ("-wal",):
        # Nobody can open it as long as the index of the log is there.
        box.run_maintenance(NOW, ())
    with Another(path) as other:
        other.do("track", 1000, 1000 + theirs)
        other.do("checkpoint")
        if ends == "closes":
            other.do("close")
        elif ends == "ends":
            print("end", file=other._process.stdin, flush=True)
            other.end()
        elif ends == "is killed":
            other.kill()
        box.enqueue(event(999), NOW)
        if ends == "goes on":
            other.do("track", 2000, 2001)
        expected = {*range(mine), 999, *range(1000, 1000 + theirs)}
        if ends == "goes on":
            expected.add(2000)
        assert rows(path) == sorted(expected)
        sent = everything(box)
        assert sorted(sent) == sorted(expected)


def uses(box, refusal):
    """What a dispatcher and its callers do with a file that has eight events."""
    entries = [box.claim(NOW) for _ in range(4)]
    return {
        "enqueue": lambda: box.enqueue(event(100), NOW),
        "claim": lambda: box.claim(NOW),
        "ack": lambda: box.ack(entries[0]),
        "dead_letter": lambda: box.dead_letter(entries[1], refusal, NOW),
        "nack": lambda: box.nack(entries[2], 60, NOW),
        "release": lambda: box.release(entries[3]),
        "run_maintenance": lambda: box.run_maintenance(NOW, ()),
        "checkpoint": box.checkpoint,
        "status": box.status,
    }


USES = [
    "enqueue", "claim", "ack", "dead_letter", "nack", "release", "run_maintenance", "checkpoint",
    "status",
]  # fmt: skip


@taken
@pytest.mark.costly
@pytest.mark.parametrize("name", USES)
def test_the_files_can_be_taken_between_any_two_steps(tmp_path, refusal, endings, name):
    # Each one with the profile "nightly", and some here: others for each use and each file.
    between = max(1, 1_900 // settings().max_examples)
    for step in itertools.count(len(name + "".join(endings)) % between, between):
        path = tmp_path / f"{step}.db"
        with contextlib.closing(Outbox(path, here)) as box:
            for number in range(8):
                box.enqueue(event(number), NOW)
            box.needs_checkpoint()
            box._file.is_crowded = name == "checkpoint"
            use, steps = uses(box, refusal)[name], itertools.count()

            def take(path=path, step=step, steps=steps):
                if next(steps) == step:
                    delete(path, endings)

            at_each_line(use, take)
            # What the tracker does next.
            box.run_maintenance(NOW, ())
            box.enqueue(event(101), NOW)
            gone = {"ack": {0}, "dead_letter": {1}}.get(name, set())
            expected = {*range(8), 101, *([100] if name == "enqueue" else ())} - gone
            assert rows(path) == sorted(expected)
            assert rows(path, "dead") == ([1] if name == "dead_letter" else [])
        if next(steps) <= step:
            break
    assert step > 20


@pytest.mark.costly
@taken
def test_the_files_can_be_taken_while_a_connection_opens(tmp_path, endings):
    for step in itertools.count(0, 17):
        path, steps = tmp_path / f"{step}.db", itertools.count()

        def take(path=path, step=step, steps=steps):
            if next(steps) == step:
                delete(path, endings)

        with contextlib.closing(Outbox(path, here)) as box:
            # The first one opens the connection.
            at_each_line(lambda: box.enqueue(event(0), NOW), take)
            box.enqueue(event(1), NOW)
            assert rows(path) == [0, 1]
        if next(steps) <= step:
            break
    assert step > 200


@pytest.mark.costly
@taken
@pytest.mark.parametrize("use", ["enqueue", "status", "close"])
def test_a_finalizer_can_use_or_close_the_outbox_during_a_rescue(tmp_path, endings, use):
    for step in itertools.count(0, 101):
        path, steps = tmp_path / f"{step}.db", itertools.count()
        box = Outbox(path, here)
        tracked = [box.enqueue(event(number), NOW) and number for number in range(2)]
        delete(path, endings)

        def finalize(box=box, step=step, steps=steps, tracked=tracked):
            if next(steps) != step:
                return
            with contextlib.suppress(OutboxLockedError):
                if use == "enqueue":
                    box.enqueue(event(2), NOW)
                    tracked.append(2)
                else:
                    getattr(box, use)()

        with contextlib.suppress(RuntimeError):  # It is closed.
            at_each_line(lambda: box.run_maintenance(NOW, ()), finalize)  # noqa: B023
        box.close()
        assert rows(path) == tracked
        if next(steps) <= step:
            break
    assert step > 500


@taken
def test_compact_comes_after_the_rescue(opened, path, endings):
    box = opened(binding=here)
    for number in range(30):
        box.enqueue(event(number), NOW)
    delete(path, endings)

    box.compact()
    assert rows(path) == [*range(30)]


def test_a_file_is_the_same_one_after_any_number_of_rescues(opened, path):
    box, other = opened(binding=here), opened(binding=here)
    for number in range(60):
        box.enqueue(event(number), NOW)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        delete(path, ("-wal", "-shm"))
    box.run_maintenance(NOW, ())

    for _ in range(2):
        assert opened(binding=here).size == 60
    delete(path, ("-wal", "-shm"))
    assert other.enqueue(event(60), NOW)
    assert rows(path) == [*range(61)]


@pytest.mark.parametrize("use", ["enqueue", "close", "before_fork"])
def test_a_rescue_that_fails_is_an_outbox_error_and_made_later(
    opened, path, monkeypatch, caplog, use
):
    class Full(sqlite3.Connection):
        def backup(self, *_arguments, **_options):
            raise sqlite3.OperationalError("database or disk is full")

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3, "connect", lambda *a, **options: connect(*a, factory=Full, **options)
        )
        box, other = opened(binding=here), opened(binding=here)
        box.enqueue(event(0), NOW)
        delete(path, ("-wal", "-shm"))
        if use == "enqueue":
            with pytest.raises(OutboxError, match="the disk is full"):
                box.enqueue(event(1), NOW)
        elif use == "before_fork":
            assert box._file.before_fork()
            box._file.after_fork(in_child=False, waited=True)
        else:
            box.close()
            assert "the disk is full" in caplog.text
    other.close()


@taken
def test_events_in_flight_end_as_they_do_otherwise(opened, path, refusal, endings):
    box = opened(binding=here)
    for number in range(6):
        box.enqueue(event(number), NOW)
    accepted, rejected, failed, unsent, kept = (box.claim(NOW) for _ in range(5))
    delete(path, endings)

    box.ack(accepted)
    box.dead_letter(rejected, refusal, NOW)
    box.nack(failed, 60, NOW)
    box.release(unsent)
    assert rows(path) == [2, 3, 4, 5]
    assert rows(path, "dead") == [1]
    other = opened()
    # One is in flight, and one is delayed.
    assert sorted(everything(other)) == [3, 5]
    box.ack(kept)
    assert rows(path) == [2, 3, 5]


@pytest.mark.processes
@pytest.mark.parametrize("endings", [("-wal", "-shm")])
def test_numbers_that_others_have_got_meanwhile_are_theirs(opened, path, refusal, endings):
    box = opened(binding=here)
    for number in range(6):
        box.enqueue(event(number), NOW)
    accepted, rejected, failed = (box.claim(NOW) for _ in range(3))
    dead = box.claim(NOW)
    box.dead_letter(dead, refusal, NOW)
    delete(path, endings)
    with Another(path) as other:
        other.do("track", 1000, 1010)
        assert other.do("send", 2) == [1000, 1001]
        box.ack(accepted)
        box.dead_letter(rejected, refusal, NOW)
        box.nack(failed, 60, NOW)
        other.do("checkpoint")
        assert rows(path) == [2, 4, 5, *range(1002, 1010)]
        assert rows(path, "dead") == [1, 3]
        assert sorted(everything(box)) == [4, 5, *range(1002, 1010)]


@taken
def test_what_had_left_does_not_come_back(opened, path, refusal, endings):
    box = opened(binding=here)
    for number in range(20):
        box.enqueue(event(number), NOW)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    box.run_maintenance(NOW, ())
    for number in range(10):
        entry = box.claim(NOW)
        if number % 2:
            box.ack(entry)
        else:
            box.dead_letter(entry, refusal, NOW)
    in_flight = box.claim(NOW)
    delete(path, endings)

    box.run_maintenance(NOW, ())
    assert rows(path) == [*range(10, 20)]
    assert rows(path, "dead") == [*range(0, 10, 2)]
    assert sorted(everything(opened())) == [*range(11, 20)]
    box.ack(in_flight)
    assert rows(path) == [*range(11, 20)]


@pytest.mark.costly
@taken
@pytest.mark.processes
@pytest.mark.parametrize("ends", ["goes on", "closes", "is killed"])
@pytest.mark.parametrize("first", ["mine", "theirs"])
def test_processes_that_had_the_file_open_save_each_event_once(opened, path, endings, ends, first):
    box = opened(binding=here)
    box.enqueue(event(0), NOW)
    with Another(path) as other:
        other.do("track", 1000, 1100)
        for number in range(1, 50):
            box.enqueue(event(number), NOW)
        assert other.do("send", 1) == [0]
        delete(path, endings)
        if first == "theirs":
            other.do("look")
        box.enqueue(event(50), NOW)
        if ends == "closes":
            other.do("close")
        elif ends == "is killed":
            other.kill()
        else:
            other.do("look")
            other.do("track", 1100, 1110)
        expected = {*range(1, 51), *range(1000, 1110 if ends == "goes on" else 1100)}
        assert rows(path) == sorted(expected)
        assert sorted(everything(box)) == sorted(expected)


@taken
def test_it_can_happen_again_and_again(opened, path, endings):
    box = opened(binding=here)
    for number in range(12):
        box.enqueue(event(number), NOW)
        delete(path, endings)
        if number % 3:
            box.ack(box.claim(NOW))
            delete(path, endings)
        if number % 2:
            box.run_maintenance(NOW, ())
    box.close()
    assert rows(path) == [*range(8, 12)]


@taken
def test_several_outboxes_of_one_process_go_on(opened, path, endings):
    boxes = [opened(binding=here) for _ in range(3)]
    look = Look(path)
    for number, each in enumerate(boxes * 4):
        each.enqueue(event(number), NOW)
    entry = boxes[1].claim(NOW)
    delete(path, endings)

    assert look.status().queued == 12
    boxes[0].enqueue(event(12), NOW)
    boxes[1].ack(entry)
    boxes[2].enqueue(event(13), NOW)
    look.close()
    for each in boxes:
        each.close()
    assert rows(path) == [*range(1, 14)]


@taken
def test_an_outbox_that_is_opened_afterwards_in_the_same_process_sees_all(opened, path, endings):
    box = opened(binding=here)
    for number in range(30):
        box.enqueue(event(number), NOW)
    delete(path, endings)

    other = opened(binding=here)
    assert users(other.waiting()) == [*range(30)]
    delete(path, endings)
    box.enqueue(event(30), NOW)
    assert rows(path) == [*range(31)]


@taken
def test_a_program_that_only_looks_saves_what_it_sees(opened, path, endings):
    box = opened(binding=here)
    for number in range(30):
        box.enqueue(event(number), NOW)
    with Look(path) as look:
        delete(path, endings)
        assert users(look.waiting()) == [*range(30)]
    assert rows(path) == [*range(30)]


@pytest.mark.costly
@taken
def test_eight_threads_go_on_tracking(opened, path, endings):
    box = opened(binding=here, patience=20)
    returned, ends = [], threading.Event()

    def track(first):
        for number in itertools.count(first):
            if ends.is_set():
                return
            box.enqueue(event(number), NOW)
            returned.append(number)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(track, 100_000 * one) for one in range(8)]
        try:
            for _ in range(4):
                many = len(returned)
                while len(returned) < many + 50 and not any(one.done() for one in running):
                    box.run_maintenance(NOW, ())
                with contextlib.suppress(FileNotFoundError):
                    delete(path, endings)
        finally:
            ends.set()
        for one in running:
            one.result()
    box.close()
    assert rows(path) == sorted(returned)


@taken
@pytest.mark.processes
def test_a_fork_comes_after_the_rescue(opened, path, endings):
    script = (
        FORKING
        + """
    __import__("logging").disable()
    box = Outbox(sys.argv[1])
    for number in range(40):
        box.enqueue(event(number), NOW)
    for ending in sys.argv[2:]:
        os.unlink(sys.argv[1] + ending)
    with children() as fork:
        fork(lambda: box.enqueue(event(40), NOW))
        box.enqueue(event(41), NOW)
    box.close()
    """
    )
    with Process(script, path, *endings) as process:
        process.end()
    assert rows(path) == [*range(42)]


@pytest.mark.processes
def test_a_child_does_not_take_its_threads_for_one_of_the_parent_that_waits_to_save(path):
    """Threads of the child have the numbers of threads that the parent has."""
    script = (
        FORKING
        + """
    __import__("logging").disable()
    waits, go_on, failures = threading.Event(), threading.Event(), []

    class Slow:
        def __init__(self, lock):
            self.lock = lock

        def acquire(self, *arguments, **options):
            if threading.current_thread() is saving:
                waits.set()
                go_on.wait(20)
            return self.lock.acquire(*arguments, **options)

        def release(self):
            self.lock.release()

    def enqueue(number):
        try:
            box.enqueue(event(number), NOW)
        except Exception as error:
            failures.append(error)

    def in_the_child():
        for number in range(10, 20):
            thread = threading.Thread(target=enqueue, args=(number,))
            thread.start()
            thread.join()
        assert failures == [], failures

    box = Outbox(sys.argv[1])
    enqueue(0)
    os.unlink(sys.argv[1] + "-wal")
    box._file.checkpointing = Slow(box._file.checkpointing)
    saving = threading.Thread(target=enqueue, args=(1,))
    saving.start()
    waits.wait()
    with children() as fork:
        fork(in_the_child)
        go_on.set()
        saving.join()
    assert failures == [], failures
    box.close()
    """
    )
    with Process(script, path) as process:
        process.end()
    assert rows(path) == [0, 1, *range(10, 20)]


@taken
def test_a_tracker_sends_what_it_tracked_and_says_so_once(path, caplog, endings):
    emulator = Emulator(rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path) as tracker,
    ):
        for number in range(300):
            if number in (100, 101, 200):
                with contextlib.suppress(FileNotFoundError):
                    delete(path, endings)
            tracker.track("placed-order", user_id=str(number))
    assert sorted(int(one.user_id) for one in emulator.events) == [*range(300)]
    assert rows(path) == []
    if "-wal" in endings:
        assert "its events are being moved into the new log" in caplog.text


def swapped(path, endings, tmp_path):
    """Puts the files of another outbox in the place of those of this one."""
    with contextlib.closing(Outbox(tmp_path / "other.db", here)) as other:
        other.enqueue(event(7_000), NOW)
        other.enqueue(event(7_001), NOW)
        for one in files(path, endings):
            ending = one.name.removeprefix(path.name)
            aside = one.with_name(f"aside{ending}")
            one.rename(aside)
            shutil.copy(tmp_path / f"other.db{ending}", one)


@taken
@pytest.mark.parametrize("many", [1, 300])
def test_files_of_another_outbox_are_not_taken_for_its_own(opened, path, tmp_path, endings, many):
    box = opened(binding=here)
    for number in range(many):
        box.enqueue(event(number), NOW)
    swapped(path, endings, tmp_path)

    box.enqueue(event(many), NOW)
    box.run_maintenance(NOW, ())
    assert {*range(many + 1)} <= set(rows(path))
    assert {*range(many + 1)} <= set(everything(box))


@taken
def test_files_that_are_moved_away_and_back_are_used_again(opened, path, endings):
    box = opened(binding=here)
    for number in range(20):
        box.enqueue(event(number), NOW)
    for used in (False, True):
        for one in files(path, endings):
            one.rename(one.with_name(f"aside{one.name}"))
        if used:
            box.enqueue(event(20), NOW)
        for one in files(path, endings):
            one.with_name(f"aside{one.name}").replace(one)
        box.run_maintenance(NOW, ())
    box.enqueue(event(21), NOW)
    box.close()
    assert rows(path) == [*range(22)]


def test_a_log_that_was_cut_is_no_reason_to_stop(opened, path, caplog):
    box = opened(binding=here)
    for number in range(20):
        box.enqueue(event(number), NOW)
    os.truncate(log_of(path), 0)

    with pytest.raises(OutboxError):
        box.status()
    box.enqueue(event(20), NOW)
    box.run_maintenance(NOW, ())
    assert rows(path) == [20]
    assert users(box.waiting()) == [20]
    assert "could not be saved" in caplog.text


def test_a_backup_that_is_written_over_a_file_in_use_is_told(opened, path, caplog):
    box = opened(binding=here)
    for number in range(5):
        box.enqueue(event(number), NOW)
    backup = {one: one.read_bytes() for one in files(path, ("", "-wal", "-shm"))}
    for number in range(5, 35):
        box.enqueue(event(number), NOW)
    box.run_maintenance(NOW, ())
    for one, content in backup.items():
        one.write_bytes(content)

    with contextlib.suppress(OutboxError):
        box.run_maintenance(NOW, ())
    box.run_maintenance(NOW, ())
    box.enqueue(event(35), NOW)
    assert "up to 30 events could not be saved" in caplog.text
    assert rows(path) == [*range(5), 35]


@pytest.mark.parametrize("tracked", [0, 5, 400])
def test_a_database_that_is_deleted_with_all_its_files_is_not_tracked_to(
    opened, path, tracked, caplog
):
    box = opened(binding=here)
    for number in range(tracked):
        box.enqueue(event(number), NOW)
    delete(path, ("", "-wal", "-shm"))

    box.run_maintenance(NOW, ())
    with pytest.raises(OutboxError, match="was moved or deleted while it was in use"):
        box.enqueue(event(tracked), NOW)
    assert len(caplog.records) == 1
    assert everything(box) == [*range(tracked)]
