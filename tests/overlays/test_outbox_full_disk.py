"""A full disk stops no event that is in the outbox: one process sends, and writes it down later."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import sqlite3
import textwrap
import threading
from pathlib import Path

import httpx
import pytest
from test_outbox import (
    FORKING,
    NOW,
    Process,
    another_program,
    box,
    event,
    everything,
    is_sound,
    log_of,
    opened,
    path,
    refusal,
    small_disk,
    users,
)
from trackers import every_tracker
from trackers import opened as tracking

from intercom_data_events import ConfigurationError, OutboxError
from intercom_data_events.cli.app import run
from intercom_data_events.emulator import Emulator, EmulatorServer
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox

__all__ = ["box", "opened", "path", "refusal", "small_disk"]

#: Bytes that a page takes in the log.
PAGE = 1024 + 24


@contextlib.contextmanager
def full_disk(path):
    """Leaves the log no room; yields what makes room in it for some pages."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def make_room(pages):
        most = log_of(path).stat().st_size + pages * PAGE
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nothing in the log can be written over, and it is longer than what a test prints.
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        connection.execute("PRAGMA synchronous = OFF")
        for _ in range(100):
            connection.execute("PRAGMA user_version = 2")
        # Who reads keeps it from being emptied.
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM events").fetchone()
        make_room(0)
        try:
            yield make_room
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def in_file(path, table="events"):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(f"SELECT event FROM {table} ORDER BY id").fetchall()
    return users(json.loads(text) for (text,) in rows)


def put(box, *numbers):
    for number in numbers:
        assert box.enqueue(event(number), NOW)


def number_of(entry):
    return None if entry is None else int(entry.event.user_id)


# One process sends, and no other one.


def test_one_process_sends_what_is_there_and_the_others_nothing(opened, path):
    one, other = opened(), opened()
    put(one, *range(3))

    with full_disk(path):
        assert everything(one) == [0, 1, 2]
        assert everything(other) == everything(one) == []
        assert not other.run_maintenance(NOW, ())
        with pytest.raises(OutboxError, match="the disk is full"):
            other.enqueue(event(3), NOW)


def test_what_was_accepted_is_removed_when_there_is_room_and_never_sent_again(opened, path):
    one, other = opened(), opened()
    put(one, *range(3))
    with full_disk(path):
        for entry in list(iter(lambda: one.claim(NOW), None)):
            one.ack(entry)
        assert in_file(path) == [0, 1, 2]

    # Before the one that knows has written it.
    assert not other.run_maintenance(NOW + 40, ())
    assert everything(other, NOW + 40) == []
    one.run_maintenance(NOW + 40, ())

    assert in_file(path) == []
    put(other, 4)
    other.run_maintenance(NOW + 41, ())
    assert everything(other, NOW + 41) == [4]


@pytest.mark.parametrize("pages", range(0, 40, 3))
@pytest.mark.parametrize("asked", [0, 1])
def test_room_for_a_part_has_nothing_sent_twice(opened, path, pages, asked, refusal):
    boxes = opened(), opened()
    put(boxes[0], *range(6))
    ended = []

    def send(box, entry):
        ended.append(number_of(entry))
        if ended[-1] % 3:
            box.ack(entry)
        else:
            box.dead_letter(entry, refusal, NOW)

    def work(now):
        taken = [(box, box.claim(now)) for box in boxes for _ in range(3)]
        for box, entry in taken:
            if entry is not None:
                send(box, entry)
        for box in boxes[asked], boxes[1 - asked]:
            box.run_maintenance(now, ())

    with full_disk(path) as make_room:
        sending = [(box, entry) for box in boxes if (entry := box.claim(NOW)) is not None]
        make_room(pages)
        for box, entry in sending:
            send(box, entry)
        for second in range(0, 100, 10):
            work(NOW + second)
    for second in range(100, 200, 10):
        work(NOW + second)

    assert sorted(ended) == list(range(6))
    assert (in_file(path), in_file(path, "dead")) == ([], [0, 3])
    assert [box.size for box in boxes] == [0, 0]


def test_claims_that_a_live_process_could_not_renew_are_not_ended(opened, path):
    slow, other = opened(), opened()
    put(slow, 0)
    entry = slow.claim(NOW)
    with full_disk(path):
        slow.run_maintenance(NOW + 20, [entry])
        assert everything(other, NOW + 40) == []

    other.run_maintenance(NOW + 40, ())
    assert everything(other, NOW + 40) == []
    slow.run_maintenance(NOW + 41, [entry])
    other.run_maintenance(NOW + 60, ())
    assert everything(other, NOW + 60) == []
    slow.ack(entry)
    assert in_file(path) == []


@pytest.mark.parametrize("accepted", [True, False])
def test_what_a_process_could_not_write_is_not_sent_by_others_when_its_claim_is_over(
    opened, path, refusal, accepted
):
    holder, slow, third = opened(), opened(), opened()
    put(holder, 0, 1)
    entry = slow.claim(NOW)
    with full_disk(path):
        assert everything(holder) == [1]
        if accepted:
            slow.ack(entry)
        else:
            slow.dead_letter(entry, refusal, NOW)
        holder.run_maintenance(NOW + 40, ())
        assert everything(holder, NOW + 40) == []
        holder.close()  # As at its end, however that comes.

    third.run_maintenance(NOW + 80, ())
    assert everything(third, NOW + 80) == [1]
    slow.run_maintenance(NOW + 81, ())
    assert in_file(path) == [1]
    assert in_file(path, "dead") == ([] if accepted else [0])


def test_what_a_dead_process_had_claimed_is_sent_once_its_claims_are_over(opened, path):
    dead, one = opened(), opened()
    put(one, 0, 1)
    assert number_of(dead.claim(NOW)) == 0
    dead.close()  # It ends no claim.
    with full_disk(path):
        assert everything(one) == [1]
        assert not one.run_maintenance(NOW + 29, ())
        assert one.run_maintenance(NOW + 31, ())
        entry = one.claim(NOW + 31)
        assert number_of(entry) == 0
        one.ack(entry)

    one.run_maintenance(NOW + 32, ())
    assert in_file(path) == [1]


def test_events_in_flight_are_claimed_when_there_is_room(opened, path):
    one, other = opened(), opened()
    put(one, 0)
    with full_disk(path):
        entry = one.claim(NOW)
        one.run_maintenance(NOW + 40, [entry])
    one.run_maintenance(NOW + 41, [entry])

    other.run_maintenance(NOW + 70, ())
    assert everything(other, NOW + 70) == []
    other.run_maintenance(NOW + 72, ())
    assert everything(other, NOW + 72) == [0]


def test_events_that_were_claimed_before_are_renewed_at_once_when_there_is_room(opened, path):
    one, other = opened(), opened()
    put(one, 0, 1)
    entries = [one.claim(NOW)]
    with full_disk(path):
        entries.append(one.claim(NOW))
        one.run_maintenance(NOW + 25, entries)
    one.run_maintenance(NOW + 26, entries)

    other.run_maintenance(NOW + 50, ())
    assert everything(other, NOW + 50) == []


def test_what_another_process_releases_is_sent_meanwhile(opened, path):
    one, other = opened(), opened()
    put(one, 0, 1)
    entry = other.claim(NOW)
    with full_disk(path):
        assert everything(one) == [1]
    other.release(entry)
    with full_disk(path):
        assert not one.run_maintenance(NOW + 1, ())
        assert one.run_maintenance(NOW + 70, ())
        assert everything(one, NOW + 70) == [0]


def test_a_process_that_looks_keeps_no_other_from_sending_alone(opened, path):
    one, other = opened(), opened()
    put(one, 0)
    with full_disk(path), other._lock.sharing():
        # It claims at this moment.
        assert one.claim(NOW) is None
    with full_disk(path):
        assert number_of(one.claim(NOW)) == 0


# What else becomes of events.


def test_what_was_rejected_has_left_and_becomes_a_dead_letter_when_there_is_room(
    opened, path, refusal
):
    one, other = opened(), opened()
    put(one, 0, 1)
    mark = one.high_watermark()
    with full_disk(path):
        for _ in range(2):
            assert not one.is_drained(mark)
            one.dead_letter(one.claim(NOW), refusal, NOW)
        assert one.is_drained(mark)
        assert one.size == 0
        assert not other.is_drained(mark)
        assert list(one.dead_letters()) == []
    one.run_maintenance(NOW + 1, ())

    assert in_file(path) == []
    assert [letter.error for letter in other.dead_letters()] == ["NotFoundError"] * 2
    assert one.size == 0


def test_what_failed_temporarily_waits_in_memory(opened, path):
    one, other = opened(), opened()
    put(one, 0)
    with full_disk(path):
        for second in (0, 10):
            entry = one.claim(NOW + second)
            assert (number_of(entry), entry.tries) == (0, second / 10)
            one.nack(entry, 10, NOW + second)
            assert one.claim(NOW + second + 9) is None
            assert not one.run_maintenance(NOW + second + 9, ())
        assert one.run_maintenance(NOW + 20, ())
    one.run_maintenance(NOW + 16, ())

    assert everything(other, NOW + 16) == []
    other.run_maintenance(NOW + 20, ())
    entry = other.claim(NOW + 20)
    assert (number_of(entry), entry.tries) == (0, 2)


def test_a_claim_that_failed_as_the_disk_became_full_is_tried_again(opened, path):
    box = opened()
    put(box, 0)
    entry = box.claim(NOW)
    with full_disk(path):
        box.nack(entry, 10, NOW)
        assert box.claim(NOW + 9) is None
        assert number_of(box.claim(NOW + 10)) == 0
        box.release(entry)
        assert number_of(box.claim(NOW + 10)) == 0
        box.ack(entry)
    box.run_maintenance(NOW + 11, ())
    assert in_file(path) == []


def test_a_hurry_ends_delays_of_before_the_disk_was_full_and_no_claims(opened, path):
    one, other = opened(), opened()
    put(one, 0, 1, 2)
    one.nack(one.claim(NOW), 600, NOW)
    assert number_of(other.claim(NOW)) == 1
    with full_disk(path):
        assert everything(one) == [2]
        one.release_delayed()
        assert everything(one) == [0]
        assert everything(one) == []


def test_what_is_no_event_stops_nothing_and_becomes_a_dead_letter_when_there_is_room(opened, path):
    box = opened()
    put(box, 0, 1)
    with another_program(path, "UPDATE events SET event = 'garbage' WHERE id = 1"):
        pass
    with full_disk(path):
        entry = box.claim(NOW)
        assert number_of(entry) == 1
        box.ack(entry)
        assert box.is_drained(2)
        assert everything(box) == []
    box.run_maintenance(NOW, ())
    assert in_file(path) == []
    assert [letter.error for letter in box.dead_letters()] == ["OutboxError"]


def test_what_others_removed_meanwhile_is_not_taken_for_what_is_left(opened, path):
    box = opened()
    put(box, 0, 1, 2)
    entry = box.claim(NOW)
    with full_disk(path):
        box.ack(entry)
        assert not box.is_drained(3)
        with contextlib.suppress(OutboxError):
            box.run_maintenance(NOW, ())
    with another_program(path, "DELETE FROM events WHERE id = 1"):
        pass
    with full_disk(path):
        assert not box.is_drained(2)


def test_what_cannot_be_written_at_the_end_is_logged(opened, path, caplog, refusal):
    box = opened()
    put(box, 0, 1, 2, 3)
    with full_disk(path):
        box.ack(box.claim(NOW))
        box.dead_letter(box.claim(NOW), refusal, NOW)
        box.nack(box.claim(NOW), 10, NOW)
        box.release(box.claim(NOW))
        caplog.clear()
        box.close()
        (record,) = caplog.records
    assert record.getMessage().startswith("2 events could not be removed from the outbox")
    assert "the disk is full" in record.getMessage()
    assert in_file(path) == [0, 1, 2, 3]


def test_an_end_at_which_nothing_was_to_be_written_is_silent(opened, path, caplog):
    box = opened()
    put(box, 0, 1)
    with full_disk(path):
        box.nack(box.claim(NOW), 10, NOW)
        caplog.clear()
        box.close()
    assert not caplog.records


def test_an_end_writes_what_there_is_room_for(opened, path, caplog):
    box = opened()
    put(box, 0, 1)
    with full_disk(path):
        box.ack(box.claim(NOW))
    caplog.clear()
    box.close()
    assert not caplog.records
    assert in_file(path) == [1]


def test_after_an_end_another_process_sends(opened, path):
    one, other = opened(), opened()
    put(one, 0, 1)
    with full_disk(path):
        one.ack(one.claim(NOW))
        assert everything(other) == []
        one.close()
        # Also what the one that ended could not write down.
        assert everything(other) == [0, 1]


def test_many_events_are_sent_and_removed(opened, path):
    box = opened()
    numbers = list(range(2000))
    put(box, *numbers)
    with full_disk(path):
        taken = list(iter(lambda: box.claim(NOW), None))
        assert list(map(number_of, taken)) == numbers
        for entry in taken:
            box.ack(entry)
        assert box.is_drained(box.high_watermark())
        assert box.size == 0
        assert everything(box, NOW + 70) == []
    box.run_maintenance(NOW, ())
    assert in_file(path) == []
    assert is_sound(path)


def test_the_full_disk_is_logged_once(opened, path, caplog):
    box = opened()
    put(box, 0, 1)
    for second in range(5):
        with full_disk(path):
            box.release(box.claim(NOW + second))
        box.run_maintenance(NOW + second, ())
    lines = [record.getMessage() for record in caplog.records]
    (line,) = lines
    assert line == (
        f"the disk of the outbox {path} is full, so only this process sends its events; "
        "free some space"
    )


def test_no_descriptors_are_left_open(opened, path):
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(5):
        boxes = [Outbox(path), Outbox(path)]
        put(boxes[0], number, number)
        with full_disk(path):
            boxes[0].ack(boxes[0].claim(NOW))
            everything(boxes[1])
            boxes[1].run_maintenance(NOW + 40, ())
        for each in boxes:
            each.close()
    # One is kept for each queue that was open at once.
    assert len(list(Path("/dev/fd").iterdir())) <= before + 2


# Trackers


@every_tracker
def test_a_tracker_sends_what_it_can_and_says_the_truth(backend, path):
    emulator, opening = Emulator(), threading.Event()

    def answer(request):
        opening.wait(10)
        return emulator.answer(request)

    with contextlib.closing(Outbox(path)) as box:
        put(box, *range(60))
        with tracking(backend, httpx.MockTransport(answer), path) as tracker:
            with full_disk(path):
                opening.set()
                assert tracker.flush(10)
                assert (tracker.counters.sent, tracker.counters.queued) == (60, 0)
                with pytest.raises(OutboxError, match="the disk is full"):
                    tracker.track("placed-order", user_id="refused")
                assert tracker.counters.failing is None
                assert in_file(path) == list(range(60))
            assert tracker.flush(10)
            assert in_file(path) == []
            tracker.track("placed-order", user_id="60")
            assert tracker.flush(10)
    assert sorted(int(one.user_id) for one in emulator.events) == list(range(61))
    assert not emulator.counts.duplicates


def test_two_trackers_of_one_process_send_each_event_once(path):
    emulator = Emulator()
    with contextlib.ExitStack() as enter:
        trackers = [
            enter.enter_context(tracking("blocking", emulator.transport(), path)) for _ in range(2)
        ]
        box = Outbox(path)
        put(box, *range(50))
        with full_disk(path):
            drained = [tracker.flush(3) for tracker in trackers]
            assert drained in ([True, False], [False, True])
        while in_file(path):
            for tracker in trackers:
                tracker.flush(0.1)
        box.close()
    assert sorted(int(one.user_id) for one in emulator.events) == list(range(50))
    assert not emulator.counts.duplicates


def test_a_tracker_that_is_closed_on_a_full_disk_says_what_is_sent_again(path, caplog):
    emulator = Emulator()
    with contextlib.ExitStack() as use:
        with tracking("blocking", emulator.transport(), path):
            box = use.enter_context(contextlib.closing(Outbox(path)))
            put(box, *range(3))
            use.enter_context(full_disk(path))
        (line,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert line.getMessage().startswith("3 events could not be removed from the outbox")
    assert len(emulator.events) == 3
    assert in_file(path) == [0, 1, 2]


# A file system that is really full

#: What another process does: it flushes for as many seconds as it is told, and then tracks.
TRACKING = """
import sys
from intercom_data_events import DataEventsClient, OutboxError
from intercom_data_events.tracker import Tracker
client = DataEventsClient("token", base_url=sys.argv[2])
tracker = Tracker(client, sys.argv[1], close_timeout=0.5)
print("open", flush=True)
for seconds in sys.stdin:
    print(tracker.flush(float(seconds)), flush=True)
try:
    tracker.track("placed-order", user_id=sys.argv[3])
    print("tracked", flush=True)
except OutboxError as error:
    print(error, flush=True)
tracker.close()
"""
ON_A_FULL_DISK = f"""
    import subprocess
    path, url, ballast = sys.argv[1:]

    class Tracking:
        def __init__(self, user):
            self.process = subprocess.Popen(
                [sys.executable, "-c", {TRACKING!r}, path, url, user],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self.said() == "open"

        def said(self):
            return self.process.stdout.readline().strip()

        def flush(self, seconds):
            print(seconds, file=self.process.stdin, flush=True)
            return self.said()

        def end(self):
            said = self.process.communicate()[0].strip()
            assert self.process.returncode == 0
            return said

    def fill():
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    box = Outbox(path)
    first = Tracking("101")
    for number in range(100):
        box.enqueue(event(number), NOW)
    # The log cannot be written anew as long as it is read.
    connection = box._file.main.connection
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM events").fetchone()
    fill()
"""


@contextlib.contextmanager
def on_a_full_disk(script, folder, command):
    """Runs a script; yields it and the emulator to which its processes send."""
    emulator = Emulator()
    script = textwrap.dedent(ON_A_FULL_DISK) + textwrap.dedent(script)
    with (
        EmulatorServer(emulator.answer) as url,
        Process(script, folder / "outbox.db", url, folder / "ballast", command=command) as process,
    ):
        yield process, emulator


@pytest.mark.processes
def test_after_the_death_of_the_process_that_sends_another_one_does(tmp_path, small_disk):
    script = """
        say(first.flush(20))
        second = Tracking("102")
        say(second.flush(0.3))
        first.process.kill()
        first.process.communicate()
        say(second.flush(20))
        say(second.end())
        connection.execute("ROLLBACK")
        os.unlink(ballast)
        third = Tracking("103")
        say(third.flush(20))
        say(len(list(box.waiting())))
        third.end()
        box.close()
    """
    with on_a_full_disk(script, tmp_path, small_disk) as (process, emulator):
        said = process.end()

    assert [*said[:3], *said[4:]] == ["True", "False", "True", "True", "0"], said
    assert "the disk is full" in said[3]
    assert {int(one.user_id) for one in emulator.events} == {*range(100), 103}
    # What a process had accepted is not written down as it ends, but for some: a page that a file
    # has begun has room.
    assert 180 < emulator.counts.duplicates <= 200


@pytest.mark.processes
def test_room_that_comes_back_has_nothing_sent_twice(tmp_path, small_disk):
    script = """
        say(first.flush(20))
        second = Tracking("102")
        say(second.flush(0.3))
        connection.execute("ROLLBACK")
        os.unlink(ballast)
        say(first.flush(20))
        say(second.flush(20))
        say(first.end(), second.end())
        box.close()
    """
    with on_a_full_disk(script, tmp_path, small_disk) as (process, emulator):
        said = process.end()

    assert said == ["True", "False", "True", "True", "tracked tracked"]
    assert {int(one.user_id) for one in emulator.events} == {*range(100), 101, 102}
    assert not emulator.counts.duplicates


@pytest.mark.processes
def test_a_child_of_the_process_that_sends_alone_does_not_hold_its_lock(opened, path):
    script = """
        import resource
        box = Outbox(sys.argv[1])
        for number in range(3):
            box.enqueue(event(number), NOW)
        most = os.stat(f"{sys.argv[1]}-wal").st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        entry = box.claim(NOW)
        box.ack(entry)
        say(entry.event.user_id)
        reading, writing = os.pipe()

        def wait():
            # It does not send what its parent has not written.
            assert box.claim(NOW) is None
            os.close(writing)
            say("child")
            os.read(reading, 1)

        with children() as fork:
            fork(wait)
            time.sleep(60)
    """
    other = opened()
    put(other, 100)
    script = textwrap.dedent(FORKING) + textwrap.dedent(script)
    with Process(script, path) as process:
        assert [process.said(), process.said()] == ["100", "child"]
        assert other.claim(NOW) is None
        os.kill(process._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process._process.pid, os.WEXITED | os.WNOWAIT)
        assert everything(other) == [100, 0, 1, 2]


def test_a_process_that_begins_on_a_full_disk_sends(opened, path):
    here = Binding("https://api.intercom.io", "the token", "shop")
    first = opened(binding=here)
    put(first, 0)
    with full_disk(path):
        second = opened(binding=here)
        assert everything(second) == [0]
        with pytest.raises(ConfigurationError):
            Outbox(path, Binding("https://api.eu.intercom.io", "the token", "shop"))


def test_outbox_drain_sends_what_it_can_and_says_what_is_left(path, capsys, monkeypatch):
    emulator = Emulator()
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
    with EmulatorServer(emulator.answer) as url, contextlib.ExitStack() as use:
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        box = use.enter_context(contextlib.closing(Outbox(path, Binding(url, "token"))))
        put(box, 0, 1, 2)
        with full_disk(path):
            code = run(["outbox", "drain", str(path), "--max-time", "1", "--json"])
            assert len(emulator.events) == 3
            assert in_file(path) == [0, 1, 2]
            said = json.loads(capsys.readouterr().out)
            # Intercom has them, and so has the file, from which they are sent again.
            assert (code, said["sent"], said["left"]) == (3, 0, 3)
            assert said["accepted_and_left"] == 3
        assert run(["outbox", "drain", str(path)]) == 0
    assert in_file(path) == []
