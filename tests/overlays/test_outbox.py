"""The outbox: a file that several processes share, and that outlasts whatever ends them."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from callers import Answers
from hypothesis import given, settings
from hypothesis import strategies as st

from intercom_data_events import (
    ConfigurationError,
    DataEventsClient,
    Event,
    InvalidInputError,
    NotFoundError,
    OutboxError,
    OutboxLockedError,
)
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import _queue as outbox_module
from intercom_data_events.outbox import _schema
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker._memory import MemoryQueue

#: A Wednesday in December 2022, in Unix seconds, when events are tracked here.
NOW = 1_671_028_900.0
#: Seconds after which a process that has not come to an end is stuck.
PATIENCE = 30
#: Somebody who may do less than the one who runs the tests, where that is root.
NOBODY = 65534

here = Binding("https://api.intercom.io", "the token")
# Of the programs that these tests run: what measures them takes part in how they end.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def event(number=0, **fields):
    return Event("placed-order", user_id=str(number), created_at=1_671_028_894, **fields)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
def opened(path):
    """Opens outboxes, one for each process that a test speaks of, and closes them at the end."""
    with contextlib.ExitStack() as opening:

        def open_(at=path, binding=None, **options):
            box = Outbox(at, binding, **options)
            opening.callback(box.close)
            return box

        yield open_


@pytest.fixture
def box(opened):
    return opened()


@pytest.fixture
def refusal():
    """What Intercom says of somebody whom it does not know."""
    client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
    with client, pytest.raises(NotFoundError) as raised:
        client.create("placed-order", user_id="314159")
    return raised.value


@contextlib.contextmanager
def another_program(path, statement="BEGIN IMMEDIATE"):
    """Uses the file otherwise, and holds on to it."""
    with contextlib.closing(
        sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    ) as connection:
        connection.execute(statement).fetchone()
        yield connection


class Process:
    """Another process, which runs a script; each line that it prints can be waited for."""

    def __init__(self, script, *arguments, command=(sys.executable, "-W", "error")):
        head = """
            import contextlib, itertools, os, signal, sys, threading, time
            from intercom_data_events import Event, OutboxError
            from intercom_data_events.outbox import _queue as outbox_module
            from intercom_data_events._sending import runtime
            from intercom_data_events.outbox._binding import Binding
            from intercom_data_events.outbox._queue import OutboxQueue as Outbox

            NOW = 1_671_028_900.0

            def event(number=0):
                return Event("placed-order", user_id=str(number), created_at=1_671_028_894)

            def say(*words):
                # In one piece, as several processes may say something.
                sys.stdout.write(" ".join(map(str, words)) + "\\n")
                sys.stdout.flush()
        """
        self._process = subprocess.Popen(
            [*command, "-c", textwrap.dedent(head) + textwrap.dedent(script), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=UNMEASURED,
            start_new_session=True,
        )  # fmt: skip
        self._too_late = threading.Timer(PATIENCE, self._end)
        self._too_late.start()

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._too_late.cancel()
        self._end()
        self._process.communicate()
        self._too_late.join()

    def said(self):
        """The next line."""
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read() or "it is stuck"
        return line.rstrip("\n")

    def kill(self):
        """Ends it as nothing can prevent; returns what it had said until then."""
        self._end()
        return self._process.stdout.read().splitlines()

    def end(self):
        """Waits for its end, which is a good one; returns what it had said until then."""
        said, errors = self._process.stdout.read(), self._process.stderr.read()
        assert not errors, errors
        assert self._process.wait(PATIENCE) == 0
        return said.splitlines()

    def _end(self):
        # With its children.
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)


#: What a script begins with that forks.
FORKING = """
    import warnings
    # Of several threads, which are what is tested.
    warnings.simplefilter("ignore", DeprecationWarning)

    @contextlib.contextmanager
    def children():
        running = []

        def fork(function):
            process = os.fork()
            if process:
                running.append(process)
                return
            code = 1
            try:
                function()
                code = 0
            except BaseException as error:
                say(repr(error))
            finally:
                os._exit(code)

        yield fork
        ends = time.monotonic() + 20
        for process in running:
            while not (ended := os.waitpid(process, os.WNOHANG))[0]:
                if time.monotonic() > ends:
                    os.kill(process, signal.SIGKILL)
                    raise SystemExit("a child is stuck")
                time.sleep(0.001)
            if ended[1]:
                raise SystemExit("a child failed")
"""


def users(fields):
    return [int(one["user_id"]) for one in fields]


def everything(box, now=NOW):
    """Whose events come out, one after the other."""
    return [int(entry.event.user_id) for entry in iter(lambda: box.claim(now), None)]


def is_sound(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def log_of(path):
    return Path(f"{path}-wal")


# The file


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077, 0o177])
def test_a_file_that_is_made_is_for_its_owner_alone(path, umask):
    before = os.umask(umask)
    try:
        with contextlib.closing(Outbox(path)) as box:
            box.enqueue(event(), NOW)
            modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    finally:
        os.umask(before)

    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}


@pytest.mark.parametrize(
    "name",
    [
        "what?mode=memory", "a#b", "100%41", "with space", "año 中文", "file:x", ":memory:", "-",
        os.fsdecode(b"no \xff text"),
    ],
)  # fmt: skip
def test_a_file_can_have_any_name(opened, tmp_path, name):
    box = opened(tmp_path / name)
    box.enqueue(event(7), NOW)
    box.close()

    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert everything(opened(tmp_path / name)) == [7]


def test_a_relative_path_stays_where_it_was_when_the_process_goes_elsewhere(
    opened, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    box = opened("outbox.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    # As around a fork, after which it is opened anew.
    box._file.before_fork()
    box._file.after_fork(in_child=False, waited=True)
    box.enqueue(event(), NOW)
    tidy(box)

    assert box.path == tmp_path / "outbox.db"
    assert users(opened(tmp_path / "outbox.db").waiting()) == [0]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):
        one.bind(path.name)


def a_device(path):
    path.symlink_to(os.devnull)


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_socket, a_device])
def test_what_is_no_file_is_refused(path, make):
    make(path)

    with pytest.raises(OutboxError, match=r"outbox\.db is not a regular file; choose"):
        Outbox(path)


def test_a_link_that_leads_nowhere_is_refused_and_not_followed(path, tmp_path):
    path.symlink_to(tmp_path / "planted")

    with pytest.raises(OutboxError, match="is a symbolic link to a file that does not exist"):
        Outbox(path)
    assert not (tmp_path / "planted").exists()


def test_a_link_to_a_file_is_that_file(opened, path, tmp_path):
    (tmp_path / "shared").mkdir()
    real = tmp_path / "shared" / "outbox.db"
    opened(real).close()
    path.symlink_to(real)
    box = opened()
    for number in range(100):
        box.enqueue(event(number), NOW)
        box.ack(box.claim(NOW))
    written = log_of(real).stat().st_size

    assert written > 256 * 1024
    assert box.status().size == real.stat().st_size + written
    tidy(box)
    tidy(box)
    assert log_of(real).stat().st_size == 0


def test_a_folder_that_is_not_there_is_not_made(path):
    with pytest.raises(OutboxError, match=r"cannot be opened \(No such file or directory\)"):
        Outbox(path.parent / "nowhere" / "outbox.db")
    assert not (path.parent / "nowhere").exists()


def test_who_only_looks_makes_nothing(path):
    with pytest.raises(OutboxError, match="does not exist"):
        Outbox(path, create=False)
    assert not path.exists()

    path.touch()
    with pytest.raises(OutboxError, match="is empty"):
        Outbox(path, create=False)
    assert path.read_bytes() == b""


def test_an_empty_file_becomes_an_outbox(opened, path):
    path.touch()
    box = opened()

    assert box.enqueue(event(), NOW)
    assert box.size == 1


def test_what_is_closed_says_so(box, path):
    box.close()
    box.close()

    for use in (lambda: box.enqueue(event(), NOW), lambda: box.claim(NOW), box.status):
        with pytest.raises(RuntimeError, match="is closed"):
            use()
    tidy(box)


# What was written is there


@pytest.mark.processes
def test_what_was_written_outlasts_a_process_that_is_killed(opened, path):
    script = """
        box = Outbox(sys.argv[1])
        for number in range(int(sys.argv[2]), 10**9):
            box.enqueue(event(number), NOW)
            say(number)
    """
    written = []
    for round_ in range(3):
        with Process(script, path, round_ * 1000) as process:
            written += [process.said() for _ in range(20)]
            written += process.kill()

    box = opened()
    found = users(box.waiting())
    # Of each process, one may have been written before it was said.
    assert len(written) <= len(found) <= len(written) + 3
    assert set(map(int, written)) <= set(found)
    assert box.size == len(found)
    assert is_sound(path)


def test_an_event_comes_back_as_it_was_written(opened, path):
    one = Event(
        "placed-order",
        user_id="ÄÖ\u2028\0'\"",
        email="frodo@example.com",
        id="5f7f0d217289f8d2f4262080",
        created_at=1_671_028_894,
        metadata={
            "price": {"amount": 1050, "currency": "eur"},
            "link": {"url": "https://example.org/?a=1&b=😀", "value": "order"},
            "big": 2**62,
            "share": 0.1,
        },
    )
    first = opened()
    first.enqueue(one, NOW)
    first.close()
    entry = opened().claim(NOW + 100)

    assert entry.event == one
    assert (entry.tracked_at, entry.tries) == (NOW, 0)


# Several processes


@pytest.mark.processes
def test_each_event_is_claimed_by_one_process(opened, path):
    script = (
        FORKING
        + """
    going, go = os.pipe()

    def drain():
        os.close(go)
        os.read(going, 1)
        with contextlib.closing(Outbox(sys.argv[1], patience=20)) as box:
            while (entry := box.claim(NOW)) is not None:
                say(entry.event.user_id)
                box.ack(entry)

    with children() as fork:
        for _ in range(4):
            fork(drain)
        os.close(go)
    """
    )
    box = opened()
    for number in range(200):
        box.enqueue(event(number), NOW)
    with Process(script, path) as process:
        taken = process.end()

    assert sorted(map(int, taken)) == list(range(200))
    assert list(box.waiting()) == []


def test_each_event_is_claimed_by_one_thread(opened, path):
    boxes = opened(), opened()

    def work(box):
        for number in range(50):
            box.enqueue(event(number), NOW)
        taken = [entry.id for entry in iter(lambda: box.claim(NOW), None)]
        for number in taken[::2]:
            box.nack(entry_of(number), 5, NOW)
        return taken

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(work, boxes * 4))

    numbers = list(itertools.chain(*taken))
    assert len(set(numbers)) == len(numbers) == 400
    assert [box.run_maintenance(NOW + 1, ()) for box in boxes] == [False, False]
    assert [box.size for box in boxes] == [400, 400]


def entry_of(number):
    from intercom_data_events.tracker._queue import QueuedEvent

    return QueuedEvent(number, event(), NOW)


@pytest.mark.processes
def test_a_process_that_died_leaves_its_claims_to_others_once_they_end(opened, path):
    script = """
        box = Outbox(sys.argv[1])
        box.enqueue(event(1), NOW)
        say(box.claim(NOW).event.user_id)
        sys.stdin.readline()
    """
    with Process(script, path) as process:
        assert process.said() == "1"
        process.kill()
    box = opened()

    assert box.claim(NOW) is None
    assert not box.run_maintenance(NOW + 29, ())
    assert box.claim(NOW + 29) is None
    assert box.run_maintenance(NOW + 30, ())
    assert box.claim(NOW + 30).event == event(1)


def test_a_slow_process_renews_its_claims(opened, path):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)

    for seconds in range(0, 300, 9):
        slow.run_maintenance(NOW + seconds, {entry})
        assert not other.run_maintenance(NOW + seconds, ())
        assert other.claim(NOW + seconds) is None
    assert other.run_maintenance(NOW + 330, ())


def test_a_renewal_that_failed_is_tried_again_with_the_next_look(opened, path):
    slow, other = opened(patience=0), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)
    slow.run_maintenance(NOW, {entry})

    with another_program(path), pytest.raises(OutboxLockedError):
        slow.run_maintenance(NOW + 29, {entry})
    slow.run_maintenance(NOW + 29.5, {entry})

    assert not other.run_maintenance(NOW + 31, ())


def test_what_nobody_holds_any_longer_is_taken_by_one_of_those_who_held_it(opened, path):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)
    other.run_maintenance(NOW + 30, ())
    again = other.claim(NOW + 30)

    # It is the other's now, which the first one can neither hold back nor give back.
    slow.nack(entry, 5, NOW + 31)
    slow.release(entry)
    slow.run_maintenance(NOW + 31, {entry})
    assert not slow.run_maintenance(NOW + 59, {entry})
    assert again.tries == 0
    assert slow.claim(NOW + 59) is None
    # Nor did it renew the other's claim.
    assert slow.run_maintenance(NOW + 60, ())
    # But it was accepted, whoever sent it.
    slow.ack(entry)
    assert other.is_drained(entry.id)


def test_a_clock_that_is_set_forward_ends_claims_and_loses_nothing(opened, path):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)

    assert other.run_maintenance(NOW + 86_400, ())
    other.ack(other.claim(NOW + 86_400))
    slow.ack(entry)
    assert slow.run_maintenance(NOW + 86_401, ()) is False
    assert slow.status().queued == slow.status().dead == 0


@pytest.mark.parametrize("seconds", [60, 3600, 10 * 365 * 86_400])
def test_a_clock_that_is_set_back_keeps_nothing_for_long(opened, path, seconds):
    dead, other = opened(), opened()
    dead.enqueue(event(1), NOW)
    dead.enqueue(event(2), NOW)
    dead.claim(NOW)
    dead.nack(dead.claim(NOW), 600, NOW)
    dead.close()

    now = NOW - seconds
    other.enqueue(event(3), now)
    other.ack(other.claim(now))
    other.run_maintenance(now + 15 * 60, ())
    assert sorted(everything(other, now + 15 * 60)) == [1, 2]


def test_who_renews_its_claims_keeps_them_as_the_clock_is_set_back(opened, path):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)
    slow.run_maintenance(NOW, {entry})

    slow.run_maintenance(NOW - 86_400, {entry})
    assert not other.run_maintenance(NOW - 86_400, ())
    assert other.run_maintenance(NOW - 86_400 + 30, ())


def test_what_others_write_and_remove_is_counted_every_second(opened, path):
    mine, other = opened(), opened()
    for number in range(3):
        other.enqueue(event(number), NOW)
    mine.run_maintenance(NOW, ())
    assert mine.size == 3

    other.ack(other.claim(NOW))
    mine.run_maintenance(NOW + 1, ())
    assert (mine.size, other.size) == (2, 2)


@pytest.mark.costly
def test_what_others_add_to_many_is_known_at_once_and_what_they_remove_after_a_while(opened, path):
    mine = opened()
    fill(path, 40_000)
    mine.run_maintenance(NOW, ())
    assert mine.size == 40_000

    other = opened()
    for number in range(3):
        assert other.enqueue(event(number), NOW)
    mine.run_maintenance(NOW, ())
    assert mine.size == 40_003
    with another_program(path) as connection:
        connection.execute("DELETE FROM events WHERE id % 4 = 2")
        connection.execute("COMMIT")
    for _ in range(20):
        mine.run_maintenance(NOW, ())
    assert mine.size == len(everything(mine)) == 30_002


def fill(path, events):
    """Writes many events at once, as nobody does but a test."""
    with another_program(path) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            "INSERT INTO events (event, tracked_at) SELECT ?, ? + i / 1000.0 FROM n",
            (events, json.dumps(event().to_dict()), NOW - 100),
        )
        connection.execute("COMMIT")


# What becomes of an event


def test_what_was_accepted_is_gone(box):
    box.enqueue(event(1), NOW)
    box.enqueue(event(2), NOW + 1)
    mark = box.high_watermark()
    first, second = box.claim(NOW), box.claim(NOW)

    box.ack(first)
    assert (box.size, box.oldest(), box.is_drained(mark)) == (1, NOW + 1, False)
    box.ack(second)
    assert (box.size, box.oldest(), box.is_drained(mark)) == (0, None, True)
    box.ack(second)
    assert box.size == 0


def test_a_mark_is_not_about_what_comes_after_it(box):
    assert box.is_drained(box.high_watermark())
    box.enqueue(event(1), NOW)
    mark = box.high_watermark()
    box.enqueue(event(2), NOW)
    assert not box.is_drained(mark)
    box.ack(box.claim(NOW))
    assert box.is_drained(mark)


def test_what_was_refused_is_kept_with_the_error(opened, box, refusal):
    box.enqueue(event(5), NOW)
    box.dead_letter(box.claim(NOW), refusal, NOW + 3)

    assert (box.size, box.claim(NOW + 3), box.is_drained(1)) == (0, None, True)
    (letter,) = opened().dead_letters()
    assert letter.event == event(5).to_dict()
    assert (letter.tracked_at, letter.died_at) == (NOW, NOW + 3)
    assert (letter.error, letter.status) == ("NotFoundError", 404)
    assert letter.message == str(refusal)
    assert letter.request_id == refusal.request_id is not None


def test_what_no_answer_refused_has_no_status(box):
    box.enqueue(event(), NOW)
    box.dead_letter(box.claim(NOW), InvalidInputError("no request can hold it"), NOW)

    (letter,) = box.dead_letters()
    assert (letter.error, letter.message) == ("InvalidInputError", "no request can hold it")
    assert letter.status is letter.request_id is None


def test_an_answer_may_say_what_utf_8_cannot_hold(box):
    answer = httpx.Response(404, content=b'{"request_id": "a \\ud800", "errors": []}')
    client = DataEventsClient("token", transport=Answers(answer))
    with client, pytest.raises(NotFoundError) as raised:
        client.create("placed-order", user_id="314159")
    box.enqueue(event(), NOW)
    box.dead_letter(box.claim(NOW), raised.value, NOW)

    (letter,) = box.dead_letters()
    assert letter.request_id == r"a \ud800"


def test_a_refusal_after_another_processs_acceptance_is_none(opened, path, refusal):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)
    other.run_maintenance(NOW + 30, ())
    other.ack(other.claim(NOW + 30))

    slow.dead_letter(entry, refusal, NOW + 31)
    assert list(slow.dead_letters()) == []
    slow.run_maintenance(NOW + 31, ())
    assert slow.size == 0


def test_an_acceptance_after_another_processs_refusal_removes_the_dead_letter(
    opened, path, refusal
):
    slow, other = opened(), opened()
    slow.enqueue(event(), NOW)
    entry = slow.claim(NOW)
    other.run_maintenance(NOW + 30, ())
    other.dead_letter(other.claim(NOW + 30), refusal, NOW + 30)
    assert len(list(slow.dead_letters())) == 1

    slow.ack(entry)
    assert list(other.dead_letters()) == []
    slow.run_maintenance(NOW + 31, ())
    assert slow.size == 0


def test_an_acceptance_that_cannot_be_written_is_written_with_the_next_look(opened, path):
    box = opened(patience=0)
    box.enqueue(event(), NOW)
    entry = box.claim(NOW)

    with another_program(path), pytest.raises(OutboxLockedError):
        box.ack(entry)
    assert opened().status().queued == 1
    box.run_maintenance(NOW + 1, ())
    assert opened().status().queued == box.size == 0


def test_what_failed_for_the_time_being_waits_for_its_time(opened, box):
    box.enqueue(event(), NOW)
    box.nack(box.claim(NOW), 5, NOW)

    assert not box.run_maintenance(NOW + 4, ())
    assert box.claim(NOW + 4) is None
    assert box.size == 1
    assert box.run_maintenance(NOW + 5, ())
    assert opened().claim(NOW + 5).tries == 1


def test_what_was_not_sent_is_free_at_once_for_any_process(opened, box):
    box.enqueue(event(), NOW)
    box.release(box.claim(NOW))

    assert box.run_maintenance(NOW, ())
    assert opened().claim(NOW).tries == 0


def test_hurry_frees_what_waits_for_its_time_and_not_what_is_on_its_way(opened, box):
    other = opened()
    for number in range(3):
        box.enqueue(event(number), NOW)
    box.claim(NOW)
    box.nack(box.claim(NOW), 600, NOW)
    box.nack(box.claim(NOW), 600, NOW)

    other.release_delayed()
    assert everything(other) == [1, 2]


def test_as_many_are_held_as_were_said(opened, path):
    mine, other = opened(most=2), opened(most=2)
    assert [mine.enqueue(event(number), NOW) for number in range(3)] == [True, True, False]
    assert [other.enqueue(event(number), NOW) for number in range(3)] == [True, True, False]
    mine.run_maintenance(NOW, ())
    assert mine.size == 4

    for entry in [other.claim(NOW) for _ in range(3)]:
        other.ack(entry)
    mine.run_maintenance(NOW + 1, ())
    assert mine.enqueue(event(), NOW)
    assert not mine.enqueue(event(), NOW)


def test_room_that_others_make_in_a_large_file_is_known_within_a_second(opened, path):
    opened()
    fill(path, 200_000)
    mine, other = opened(most=200_000), opened()
    mine.run_maintenance(NOW, ())
    assert not mine.enqueue(event(), NOW)

    # One of four is the oldest.
    for _ in range(4):
        other.ack(other.claim(NOW))
    mine.run_maintenance(NOW + 1, ())
    assert mine.enqueue(event(), NOW)


def test_status_says_what_is_in_the_file(opened, path, refusal):
    box = opened(binding=Binding("https://api.eu.intercom.io", "token", "shop"))
    for number in range(7):
        box.enqueue(event(number), NOW + number)
    box.claim(NOW)
    box.nack(box.claim(NOW), 60, NOW)
    box.dead_letter(box.claim(NOW), refusal, NOW)
    box.ack(box.claim(NOW))
    status = opened(create=False).status(NOW)

    assert (status.queued, status.claimed, status.held, status.dead) == (5, 1, 1, 1)
    assert status.oldest == NOW
    assert (status.address, status.workspace) == ("https://api.eu.intercom.io", "shop")
    assert status.size == path.stat().st_size + log_of(path).stat().st_size


def bury(box, refusal, events):
    for number in range(events):
        box.enqueue(event(number), NOW + number)
        box.dead_letter(box.claim(NOW + number), refusal, NOW + number)


def test_dead_letters_can_be_sent_again(opened, box, refusal):
    events = 1_200
    bury(box, refusal, events)

    assert box.retry() == events
    assert box.size == events
    assert list(box.dead_letters()) == []
    assert box.oldest() == NOW
    assert everything(opened(), NOW + 1e6) == list(range(events))


def test_dead_letters_can_be_forgotten(box, refusal):
    bury(box, refusal, 1_200)

    assert box.forget() == 1_200
    assert (box.size, list(box.dead_letters()), list(box.waiting())) == (0, [], [])


def test_dead_letters_can_be_chosen(box, refusal):
    bury(box, refusal, 5)
    first, second, third, *others = [letter.id for letter in box.dead_letters()]

    assert box.retry([second, 4711]) == 1
    assert box.forget(iter([first, first, third])) == 2
    assert [letter.id for letter in box.dead_letters()] == others
    assert users(box.waiting()) == [1]


def test_a_revived_letter_that_is_refused_again_is_not_revived_again_at_once(box, refusal):
    bury(box, refusal, 1)
    (before,) = box.dead_letters()
    box.retry()
    box.dead_letter(box.claim(NOW), refusal, NOW + 9)

    (letter,) = box.dead_letters()
    assert letter.event == before.event
    assert letter.id > before.id
    assert (letter.tracked_at, letter.died_at) == (NOW, NOW + 9)


def test_what_is_in_a_file_can_be_read_while_others_write(opened, box):
    for number in range(1_100):
        box.enqueue(event(number), NOW)
    reading = opened(patience=0).waiting()

    assert int(next(reading)["user_id"]) == 0
    for entry in [box.claim(NOW) for _ in range(1_100)]:
        box.ack(entry)
    box.enqueue(event(1_100), NOW)
    # What was read already, and what is there now.
    assert users(reading)[-1] == 1_100


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("nonsense", {"event": "nonsense"}),
        (b'{"event_name": "\xff"}', {"event": '{"event_name": "\ufffd"}'}),
        ('["placed-order"]', {"event": ["placed-order"]}),
        ("[" * 100_000, {"event": "[" * 100_000}),
        ('{"event_name": "a"}', {"event_name": "a"}),
        ('{"event_name": "a", "user_id": ""}', {"event_name": "a", "user_id": ""}),
        ('{"user_id": "1", "color": 1}', {"user_id": "1", "color": 1}),
        ("", {"event": ""}),
    ],
)
def test_what_is_no_event_becomes_a_dead_letter_and_stops_nothing(opened, box, path, text, reads):
    box.enqueue(event(1), NOW)
    with another_program(path) as connection:
        statement = "INSERT INTO events (event, tracked_at) VALUES (CAST(? AS TEXT), ?)"
        connection.execute(statement, (text, NOW))
        connection.execute("COMMIT")
    box.enqueue(event(2), NOW)
    box.run_maintenance(NOW, ())

    assert list(box.waiting())[1] == reads
    assert everything(box) == [1, 2]
    assert box.size == 2
    (letter,) = opened().dead_letters()
    assert letter.event == reads
    assert letter.message
    assert letter.died_at == NOW
    # Nor does it, once it is sent again.
    assert box.retry() == 1
    assert box.claim(NOW) is None
    assert [letter.event for letter in box.dead_letters()] == [reads]


# Order


def test_first_come_is_first_served(box):
    for number in range(10):
        box.enqueue(event(number), NOW + number)

    assert everything(box, NOW + 10) == list(range(10))


def test_after_an_outage_what_is_new_has_three_turns_of_four(box):
    for number in range(8):
        box.enqueue(event(number), NOW)
    for number in range(100, 110):
        box.enqueue(event(number), NOW + 3600)

    assert everything(box, NOW + 3601) == [
        100, 101, 102, 0, 103, 104, 105, 1, 106, 107, 108, 2, 109, 3, 4, 5, 6, 7,
    ]  # fmt: skip


def test_what_is_older_than_a_minute_is_not_new(box):
    box.enqueue(event(0), NOW)
    box.enqueue(event(1), NOW + 1)

    assert everything(box, NOW + 60) == [1, 0]


class Both:
    """An outbox and a queue in memory, to which the same things happen."""

    def __init__(self, file):
        self._file = file
        self._memory = MemoryQueue(1_000)
        self._now = NOW
        self._numbers = itertools.count()
        # What was taken, from either, and is on its way.
        self._taken = []

    def enqueue(self, events):
        new = [event(next(self._numbers)) for _ in range(events)]
        return [[queue.enqueue(one, self._now) for one in new] for queue in self._queues]

    def claim(self, events):
        taken = [[queue.claim(self._now) for _ in range(events)] for queue in self._queues]
        self._taken += [entries for entries in zip(*taken, strict=True) if all(entries)]
        return [
            [entry and (entry.event, entry.tracked_at, entry.tries) for entry in entries]
            for entries in taken
        ]

    def ack(self, which):
        self._end(which, "ack")

    def dead_letter(self, which):
        self._end(which, "dead_letter", InvalidInputError("of the test"), self._now)

    def release(self, which):
        self._end(which, "release")

    def nack(self, which, seconds):
        self._end(which, "nack", seconds, self._now)

    def let_pass(self, seconds):
        self._now += seconds

    def run_maintenance(self):
        theirs = zip(*self._taken, strict=True) if self._taken else ((), ())
        pairs = zip(self._queues, theirs, strict=True)
        return [queue.run_maintenance(self._now, entries) for queue, entries in pairs]

    def release_delayed(self):
        for queue in self._queues:
            queue.release_delayed()

    def look(self):
        return [
            (one.size, one.oldest(), one.is_drained(one.high_watermark())) for one in self._queues
        ]

    @property
    def _queues(self):
        return self._file, self._memory

    def _end(self, which, how, *more):
        if self._taken:
            entries = self._taken.pop(which % len(self._taken))
            for queue, entry in zip(self._queues, entries, strict=True):
                getattr(queue, how)(entry, *more)


one_of_them = st.integers(0, 9)
seconds = st.sampled_from([0, 1, 30, 60, 61, 90])
moves = st.one_of(
    st.tuples(st.just("enqueue"), st.integers(1, 5)),
    st.tuples(st.just("claim"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["ack", "dead_letter"]), one_of_them),
    st.tuples(st.just("release"), one_of_them),
    st.tuples(st.just("nack"), one_of_them, seconds),
    st.tuples(st.just("let_pass"), seconds),
    st.tuples(st.sampled_from(["run_maintenance", "run_maintenance", "release_delayed"])),
)


@pytest.mark.costly
@given(st.lists(moves, min_size=20, max_size=40))
def test_events_leave_a_file_in_the_order_in_which_they_leave_memory(history):
    with tempfile.TemporaryDirectory() as folder:
        file = Outbox(Path(folder) / "outbox.db")
        with contextlib.closing(file):
            both = Both(file)
            for move, *arguments in history:
                said = getattr(both, move)(*arguments)
                assert said is None or said[0] == said[1]
                seen = both.look()
                assert seen[0] == seen[1]


# One workspace


def test_a_file_is_for_one_address(opened, path):
    opened(binding=here).enqueue(event(), NOW)

    with pytest.raises(ConfigurationError, match=r"is for https://api\.intercom\.io, "):
        Outbox(path, Binding("https://api.eu.intercom.io", "the token"))
    opened(binding=here)


def test_a_file_is_for_one_access_token(opened, path):
    opened(binding=here).enqueue(event(), NOW)

    with pytest.raises(ConfigurationError, match="--token-renewed once"):
        Outbox(path, Binding(here.address, "another token"))
    opened(binding=here)


def test_dead_letters_are_for_one_workspace_too(opened, path, refusal):
    bury(opened(binding=here), refusal, 1)

    with pytest.raises(ConfigurationError, match="another access token"):
        Outbox(path, Binding(here.address, "another token"))


def test_a_token_that_is_known_to_be_renewed_takes_the_place_of_the_one_before(opened, path):
    opened(binding=here).enqueue(event(), NOW)
    opened(binding=Binding(here.address, "a new token", token_renewed=True))

    opened(binding=Binding(here.address, "a new token"))
    with pytest.raises(ConfigurationError, match="another access token"):
        Outbox(path, here)


def test_a_workspace_that_has_a_name_outlasts_its_tokens(opened, path):
    opened(binding=Binding(here.address, "the token", "shop")).enqueue(event(), NOW)
    opened(binding=Binding(here.address, "a new token", "shop"))

    with pytest.raises(ConfigurationError, match="for the workspace 'shop', not 'other'"):
        Outbox(path, Binding(here.address, "a new token", "other"))
    with pytest.raises(ConfigurationError, match="for the workspace 'shop', not 'other'"):
        Outbox(path, Binding(here.address, "a new token", "other", token_renewed=True))
    # Without the name, it is the token that counts, which is the last one.
    opened(binding=Binding(here.address, "a new token"))
    with pytest.raises(ConfigurationError, match="workspace 'shop'; pass workspace='shop'"):
        Outbox(path, here)
    with pytest.raises(ConfigurationError, match="workspace 'shop'; pass workspace='shop'"):
        Outbox(path, Binding(here.address))
    assert opened().status().workspace == "shop"


def test_a_name_is_given_with_the_token_that_the_events_are_for(opened, path):
    opened(binding=here).enqueue(event(), NOW)

    with pytest.raises(ConfigurationError, match="another access token"):
        Outbox(path, Binding(here.address, "another token", "shop"))
    opened(binding=Binding(here.address, "the token", "shop"))
    opened(binding=Binding(here.address, "another token", "shop"))


def test_a_token_that_is_not_known_beforehand_may_be_another(opened, path):
    opened(binding=here).enqueue(event(), NOW)

    with pytest.raises(ConfigurationError, match="another access token"):
        Outbox(path, Binding(here.address))
    opened(binding=Binding(here.address, token_renewed=True))


def test_tokens_that_are_not_known_beforehand_are_taken_for_one(opened):
    opened(binding=Binding(here.address)).enqueue(event(), NOW)
    opened(binding=Binding(here.address))


def test_a_file_without_events_is_not_taken_from_who_uses_it(opened, path):
    box = opened(binding=Binding(here.address, "the token", "shop"))

    for other in (
        Binding("https://api.eu.intercom.io"),
        Binding(here.address, "the token", "other"),
        Binding(here.address, "another token"),
    ):
        with pytest.raises(ConfigurationError, match="outbox"):
            Outbox(path, other)

    assert box.enqueue(event(), NOW)
    assert box.status().workspace == "shop"
    assert opened().status().queued == 1


def test_a_file_that_was_replaced_is_not_written_to(opened, path, caplog):
    box = opened(binding=here)
    box.enqueue(event(1), NOW)
    path.rename(path.with_name("elsewhere"))
    for ending in ("-wal", "-shm"):
        path.with_name(f"{path.name}{ending}").rename(path.with_name(f"elsewhere{ending}"))

    box.run_maintenance(NOW, ())
    with pytest.raises(OutboxError, match="was moved or deleted while it was in use, so events"):
        box.enqueue(event(2), NOW)
    other = opened(binding=Binding(here.address, "another token"))
    with pytest.raises(OutboxError, match="was moved or deleted"):
        box.enqueue(event(3), NOW)

    assert other.status().queued == 0
    assert [one.message.count(str(path)) for one in caplog.records] == [1]
    # What it holds is sent nevertheless.
    assert everything(box) == [1]


def test_a_file_that_is_put_back_is_used_again(opened, path):
    box = opened(binding=here)
    box.enqueue(event(1), NOW)
    kept = path.parent / "kept"
    kept.mkdir()
    for ending in ("", "-wal"):
        path.with_name(f"{path.name}{ending}").rename(kept / f"{path.name}{ending}")
    box.run_maintenance(NOW, ())
    with pytest.raises(OutboxError, match="was moved or deleted"):
        box.enqueue(event(2), NOW)

    for one in kept.iterdir():
        one.rename(path.with_name(one.name))
    box.enqueue(event(2), NOW)
    assert users(box.waiting()) == [1, 2]


def test_a_file_that_became_anothers_around_a_fork_is_not_written_to(opened, path):
    box = opened(binding=here)
    box._file.before_fork()
    with contextlib.closing(Outbox(path, Binding(here.address, "another token"))) as other:
        other.enqueue(event(1), NOW)
    box._file.after_fork(in_child=False, waited=True)

    with pytest.raises(OutboxError, match="was replaced by another file; stop"):
        box.enqueue(event(2), NOW)
    assert users(opened().waiting()) == [1]


def test_a_file_that_nobody_could_share_any_longer_is_shared_again(opened, path):
    opened(binding=here).close()
    # As while it becomes another's, should that process end just then.
    with another_program(path, "PRAGMA journal_mode = DELETE"):
        pass
    opened(binding=here).enqueue(event(), NOW)

    with another_program(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_without_events_that_nobody_uses_is_for_whoever_comes(opened, path):
    with contextlib.closing(Outbox(path, Binding(here.address, "the token", "shop"))) as box:
        box.enqueue(event(), NOW)
        box.ack(box.claim(NOW))

    other = opened(binding=Binding("https://api.eu.intercom.io"))
    assert other.status().address == "https://api.eu.intercom.io"
    assert other.status().workspace is None
    other.enqueue(event(), NOW)
    # Of whom it was for before, nothing is left: neither the name nor the token.
    opened(binding=Binding("https://api.eu.intercom.io"))
    # And it can be shared as before.
    with another_program(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_who_only_looks_is_not_asked_for_a_workspace(opened, path):
    opened(binding=here).enqueue(event(), NOW)

    assert opened(create=False).status().address == here.address
    opened(binding=here)


def test_no_part_of_a_token_is_in_the_file(opened, path):
    secret = "dG9rOmE0NTVhMWM0X2JiZDhfNDJlMV84NDk1X2YwMTE4NjU4OGQ0NToxOjA="
    box = opened(binding=Binding(here.address, secret))
    box.enqueue(event(), NOW)

    during = b"".join(one.read_bytes() for one in path.parent.iterdir())
    box.close()
    written = during + path.read_bytes()
    assert here.address.encode() in written
    assert not any(secret[at : at + 8].encode() in written for at in range(len(secret) - 8))


def test_two_files_tell_nothing_of_having_one_token(opened, tmp_path):
    bound = []
    for name in ("one", "two"):
        box = opened(tmp_path / name, here)
        with another_program(box.path) as connection:
            query = "SELECT value FROM binding WHERE name = 'token'"
            bound.append(connection.execute(query).fetchone())

    assert bound[0] != bound[1]


# Versions


#: What version 1 made; every later version opens it. Not to be changed.
VERSION_1 = """
    PRAGMA journal_mode = WAL;
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
    CREATE TABLE binding (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    PRAGMA application_id = 0x4944454F;
    PRAGMA user_version = 1;
    INSERT INTO events (event, tracked_at, tries, held_until, owner) VALUES
      ('{"event_name":"placed-order","created_at":1671028894,"user_id":"1"}', 1671028890, 0,
       NULL, NULL),
      ('{"event_name":"placed-order","created_at":1671028894,"user_id":"2"}', 1671028891, 3,
       1671028930, NULL),
      ('{"event_name":"placed-order","created_at":1671028894,"user_id":"3",
        "metadata":{"price":{"amount":1050,"currency":"eur"}}}', 1671028892, 0,
       1671028930, 'a1b2');
    INSERT INTO dead VALUES
      (17, '{"event_name":"placed-order","created_at":1671028894,"user_id":"4"}', 1671028890, 0,
       1671028893, 'NotFoundError', '404 for POST /events', 404, 'req-1');
    INSERT INTO binding VALUES
      ('address', 'https://api.intercom.io'),
      ('token', '0011223344556677:21e130412b5f2da1');
"""


#: What version 2 added to it. Not to be changed.
VERSION_2 = """
    ALTER TABLE events ADD COLUMN rejected_at REAL;
    PRAGMA user_version = 2;
"""
#: What a process of version 1 does while it has a file open. Not to be changed.
VERSION_1_PUTS = "INSERT INTO events (event, tracked_at) VALUES (?, ?)"
VERSION_1_TAKES = """
    UPDATE events SET held_until = :until, owner = :owner WHERE id = coalesce(
      (SELECT id FROM events WHERE tracked_at > :recent AND held_until IS NULL
       ORDER BY tracked_at, id LIMIT 1),
      (SELECT id FROM events WHERE held_until IS NULL ORDER BY tracked_at, id LIMIT 1)
    ) RETURNING id, CAST(event AS BLOB), tracked_at, tries
"""
VERSION_1_DELAYS = """
    UPDATE events SET held_until = ?, owner = NULL, tries = tries + 1 WHERE id = ? AND owner = ?
"""
VERSION_1_BURIES = """
    INSERT OR REPLACE INTO dead SELECT id, event, tracked_at, tries, ?, ?, ?, ?, ?
    FROM events WHERE id = ?
"""
VERSION_1_REVIVES = """
    INSERT INTO events (event, tracked_at) SELECT event, tracked_at FROM dead WHERE id = ?
"""


def written_by_version_1(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)


def test_a_file_of_version_1_is_opened(opened, path):
    written_by_version_1(path)
    with pytest.raises(ConfigurationError, match="another access token"):
        Outbox(path, Binding(here.address, "another token"))
    box = opened(binding=here)

    status = box.status(NOW)
    assert (status.queued, status.claimed, status.held, status.dead) == (3, 1, 1, 1)
    assert status.oldest == NOW - 10
    (letter,) = box.dead_letters()
    assert letter.event == event(4).to_dict()
    assert (letter.id, letter.tracked_at, letter.died_at) == (17, NOW - 10, NOW - 7)
    assert (letter.error, letter.message) == ("NotFoundError", "404 for POST /events")
    assert (letter.status, letter.request_id) == (404, "req-1")
    first = box.claim(NOW)
    assert first.event == event(1)
    assert box.claim(NOW) is None
    box.ack(first)
    box.run_maintenance(NOW + 30, ())
    second, third = box.claim(NOW + 30), box.claim(NOW + 30)
    assert (second.event, second.tries, second.tracked_at) == (event(2), 3, NOW - 9)
    assert third.event == event(3, metadata={"price": {"amount": 1050, "currency": "eur"}})
    assert box.enqueue(event(5), NOW)


def test_what_is_made_today_is_version_2(opened, path, tmp_path):
    def schema(file):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
            made = sorted(" ".join(row[0].split()) for row in rows)
            return made, [
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("user_version", "application_id", "journal_mode")
            ]

    opened()
    written_by_version_1(tmp_path / "migrated.db")
    opened(tmp_path / "migrated.db")
    written_by_version_1(tmp_path / "before.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "before.db")) as connection:
        connection.executescript(VERSION_2)

    assert schema(path) == schema(tmp_path / "before.db") == schema(tmp_path / "migrated.db")


def test_a_process_of_version_1_goes_on_with_a_file_that_was_brought_up_to_date(opened, path):
    written_by_version_1(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as before:
        assert before.execute("SELECT count(*) FROM events").fetchone() == (3,)
        box = opened(binding=here)

        before.execute(VERSION_1_PUTS, (json.dumps(event(5).to_dict()), NOW))
        bounds = {"until": NOW + 30, "owner": "c3d4", "recent": NOW - 60}
        taken = [before.execute(VERSION_1_TAKES, bounds).fetchall()[0] for _ in range(2)]
        assert [(number, json.loads(text)["user_id"]) for number, text, *_ in taken] == [
            (1, "1"),
            (4, "5"),
        ]
        before.execute(VERSION_1_DELAYS, (NOW + 5, 1, "c3d4"))
        before.execute(VERSION_1_BURIES, (NOW, "NotFoundError", "no", 404, None, 4))
        assert before.execute("DELETE FROM events WHERE id = 4").rowcount == 1
        before.execute(VERSION_1_REVIVES, (17,))
        assert before.execute("DELETE FROM dead WHERE id = 17").rowcount == 1

    (letter,) = box.dead_letters()
    assert (letter.id, letter.event) == (4, event(5).to_dict())
    assert sorted(users(box.waiting())) == [1, 2, 3, 4]
    box.run_maintenance(NOW + 30, ())
    claimed = [box.claim(NOW + 30) for _ in range(4)]
    assert {(one.event.user_id, one.tries) for one in claimed} == {
        ("1", 1),
        ("2", 3),
        ("3", 0),
        ("4", 0),
    }
    assert [one.rejected_at for one in claimed] == [None] * 4


def later_version(monkeypatch, statements):
    monkeypatch.setattr(_schema, "_MIGRATIONS", (*_schema._MIGRATIONS, statements))


def test_a_later_version_brings_a_file_up_to_date(opened, path, monkeypatch):
    written_by_version_1(path)
    later_version(
        monkeypatch, "ALTER TABLE events ADD COLUMN sent_at REAL; CREATE TABLE more (name TEXT)"
    )
    for _ in range(2):
        box = opened(binding=here)
        assert len(list(box.waiting())) == 3

    with another_program(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT sent_at FROM events").fetchall() == [(None,)] * 3
        assert connection.execute("SELECT * FROM more").fetchall() == []


@pytest.mark.parametrize("migrated", [False, True])
def test_a_migration_that_fails_changes_nothing(opened, path, monkeypatch, migrated):
    written_by_version_1(path)
    if migrated:
        opened(binding=here)
    with monkeypatch.context() as later:
        later_version(later, "CREATE TABLE more (name TEXT); SELECT * FROM nowhere")
        with pytest.raises(OutboxError, match="no such table: nowhere"):
            Outbox(path)

    with another_program(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2 if migrated else 1,)
        with pytest.raises(sqlite3.OperationalError, match="no such table: more"):
            connection.execute("SELECT * FROM more")
    assert len(list(opened(binding=here).waiting())) == 3


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path):
    written_by_version_1(path)
    with another_program(path, "PRAGMA user_version = 99"):
        pass
    before = path.read_bytes()

    with pytest.raises(OutboxError, match="written by a newer version of intercom-data-events"):
        Outbox(path, here)
    assert path.read_bytes() == before


# What can be wrong with a file


def a_text(path):
    path.write_text("What is left to do:\n")


def a_long_text(path):
    path.write_text("What is left to do:\n" * 10_000)


def another_database(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE orders (id INTEGER); PRAGMA user_version = 1")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_text, "is damaged or not an outbox; move it aside, or choose another path"),
        (a_long_text, "is damaged or not an outbox; move it aside, or choose another path"),
        (another_database, "is an SQLite database but not an outbox; choose another path"),
    ],
)
def test_something_else_is_refused_and_left_alone(path, make, said):
    make(path)
    before = path.read_bytes()

    with pytest.raises(OutboxError, match=said) as raised:
        Outbox(path, here)
    assert path.read_bytes() == before
    assert "the events in it are safe" not in str(raised.value)


def damaged(path, *, keep=None, at=0, garbage=b"", events=2_000):
    """A file of many events, of which something was cut off or overwritten."""
    with contextlib.closing(Outbox(path, here)) as box:
        fill(path, events)
        assert box.status().queued == events
    contents = bytearray(path.read_bytes()[:keep])
    contents[at : at + len(garbage)] = garbage
    path.write_bytes(contents)
    return contents


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"garbage": b"\xff" * 100}, "is damaged or not an outbox"),
        ({"keep": 100_000}, "is damaged; move it and its -wal file aside"),
        ({"keep": 50}, "is damaged; move it and its -wal file aside"),
        ({"at": 4096, "garbage": b"\xff" * 300_000}, "is damaged; move it and its -wal file aside"),
    ],
    ids=["header", "truncated", "truncated within the header", "middle"],
)
def test_a_damaged_file_is_refused_and_left_alone(path, damage, said):
    contents = damaged(path, **damage)

    with pytest.raises(OutboxError, match=said) as raised:
        Outbox(path, here)
    assert not isinstance(raised.value, OutboxLockedError)
    assert "the events in it are safe" not in str(raised.value)
    assert path.read_bytes() == contents


@pytest.mark.processes
def test_what_a_damaged_log_says_is_true_up_to_the_damage(opened, path):
    script = """
        box = Outbox(sys.argv[1])
        for number in range(100):
            box.enqueue(event(number), NOW)
        say("written")
        sys.stdin.readline()
    """
    with Process(script, path) as process:
        process.said()
        process.kill()
    contents = bytearray(log_of(path).read_bytes())
    middle = len(contents) // 2
    contents[middle : middle + 100] = b"\xff" * 100
    log_of(path).write_bytes(contents)

    found = users(opened().waiting())
    assert found == list(range(len(found)))
    assert 30 < len(found) < 70
    assert is_sound(path)


def test_what_another_program_keeps_locked_is_there_afterwards(opened, path):
    box = opened(patience=1)
    box.enqueue(event(1), NOW)
    with another_program(path):
        begun = time.monotonic()
        for use in (
            lambda: box.enqueue(event(2), NOW),
            lambda: box.claim(NOW),
            box.release_delayed,
        ):
            with pytest.raises(OutboxLockedError, match="is locked by another program; end the"):
                use()
            # One has waited, and the others need not.
            assert time.monotonic() - begun > 1
        assert time.monotonic() - begun < 1.9
        # Who only reads is kept from nothing.
        assert users(box.waiting()) == [1]
        assert box.status().queued == box.high_watermark() == 1

    assert box.enqueue(event(3), NOW)
    assert everything(box) == [1, 3]


def test_a_file_that_others_are_working_on_is_waited_for_as_it_is_opened(opened, path):
    opened()
    with another_program(path) as connection:
        ending = threading.Timer(0.1, connection.execute, ["ROLLBACK"])
        ending.start()
        box = opened(binding=here, patience=0)
        ending.join()

    assert box.enqueue(event(), NOW)
    begun = time.monotonic()
    with another_program(path), pytest.raises(OutboxLockedError):
        box.enqueue(event(), NOW)
    # Once it is open, it is waited for as long as was said.
    assert time.monotonic() - begun < 3


def test_a_short_lock_is_waited_for(box, path):
    with another_program(path) as connection:
        ending = threading.Timer(0.1, connection.execute, ["ROLLBACK"])
        ending.start()
        assert box.enqueue(event(), NOW)
        ending.join()


def put_until_there_is_no_room(limiting, making_room):
    """What a process does that has room for some hundred events, and says of it."""
    return f"""
    box = Outbox(sys.argv[1])
    {limiting}
    written = 0
    try:
        while True:
            box.enqueue(event(written), NOW)
            written += 1
    except OutboxError as error:
        say(error)
    assert written > 20
    # What reads needs no room.
    assert len(list(box.waiting())) == box.size == written
    {making_room}
    box.enqueue(event(written), NOW)
    taken = [int(entry.event.user_id) for entry in iter(lambda: box.claim(NOW), None)]
    assert taken == list(range(written + 1)), taken
    box.close()
    say("well")
    """


#: Mounts 4 MB at a folder, visible to this process alone, then executes a program in its place.
ON_A_SMALL_DISK = """
import ctypes, os, sys
from pathlib import Path

def call(function, *arguments):
    if function(*arguments):
        raise OSError(number := ctypes.get_errno(), os.strerror(number), function.__name__)

folder, *program = sys.argv[1:]
user, group = os.geteuid(), os.getegid()
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 0x40000
try:
    call(libc.unshare, CLONE_NEWNS | CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    call(libc.mount, None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    call(libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), b"size=4m")
except (AttributeError, OSError) as error:  # Other systems; containers that forbid it.
    sys.exit(f"forbidden: {error}")
os.execv(program[0], program)
"""


@pytest.fixture
def small_disk(tmp_path):
    """The command of a Python that has a file system of 4 MB at `tmp_path` to itself."""
    command = [sys.executable, "-I", "-S", "-c", ON_A_SMALL_DISK, str(tmp_path), sys.executable]
    tried = subprocess.run([*command, "-c", ""], capture_output=True, text=True, check=False)
    if tried.stderr.startswith("forbidden: "):
        pytest.skip(f"a process cannot mount a file system of its own here: {tried.stderr.strip()}")
    assert (tried.returncode, tried.stderr) == (0, "")
    return [*command, "-W", "error"]


@pytest.mark.processes
def test_what_a_full_disk_has_no_room_for_is_refused_and_the_rest_is_kept(tmp_path, small_disk):
    script = put_until_there_is_no_room(
        "with open(sys.argv[2], 'wb') as ballast: ballast.write(bytes(3_500_000))",
        "os.unlink(sys.argv[2])",
    )
    files = tmp_path / "outbox.db", tmp_path / "ballast"
    with Process(script, *files, command=small_disk) as process:
        said, well = process.end()

    assert "cannot be written because the disk is full; free some space" in said
    assert said.endswith("; the events in it are safe")
    assert well == "well"


@pytest.mark.processes
def test_a_disk_that_is_full_of_the_log_alone_has_room_again_once_that_is_tidied(
    tmp_path, small_disk
):
    script = """
        box = Outbox(sys.argv[1])
        box.enqueue(event(), NOW)
        # So that all of the file is there, and nothing of it in the log.
        box.close()
        box = Outbox(sys.argv[1])
        for _ in range(3):
            # Until there is no room for a claim, or for its end.
            while not box._alone and (entry := box.claim(NOW)) is not None:
                box.release(entry)
            say(box.needs_checkpoint())
            # The claim that may not have been given back ends.
            box.needs_checkpoint() and box.checkpoint()
            box.run_maintenance(NOW + 30, ())
        assert box.claim(NOW + 30).event == event()
        box.close()
    """
    script = "import logging\nlogging.disable()\n" + textwrap.dedent(script)
    with Process(script, tmp_path / "outbox.db", command=small_disk) as process:
        said = process.end()

    assert said == ["True"] * 3


@pytest.mark.processes
def test_what_a_limit_has_no_room_for_is_refused_and_the_rest_is_kept(path):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))"
    script = put_until_there_is_no_room(
        f"import resource; {limit.format(500_000)}", limit.format("resource.RLIM_INFINITY")
    )
    with Process(script, path) as process:
        said, well = process.end()

    assert "cannot be written because the disk is full, a quota or limit is reached, or" in said
    assert said.endswith("; the events in it are safe")
    assert well == "well"
    assert is_sound(path)


@pytest.fixture
def shared_folder():
    """A folder of who may not do all that root may; tests can run as either."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield Path(folder)


UNPRIVILEGED = f"""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid({NOBODY})
        os.setuid({NOBODY})
    path = sys.argv[1]
    folder = os.path.dirname(path)

    @contextlib.contextmanager
    def failing():
        try:
            yield
        except OutboxError as error:
            say(error)
        else:
            raise SystemExit("it went well")
"""


@pytest.mark.processes
def test_a_file_that_may_not_be_written_says_so_and_is_kept(shared_folder):
    script = (
        UNPRIVILEGED
        + """
    box = Outbox(path, Binding("https://api.intercom.io"))
    box.enqueue(event(1), NOW)
    # As around a fork, after which it is opened anew.
    box._file.before_fork()
    os.chmod(path, 0o400)
    box._file.after_fork(in_child=False, waited=True)
    with failing():
        box.enqueue(event(2), NOW)
    with failing():
        Outbox(path, Binding("https://api.intercom.io"))
    # What is made beside it may be no more than it.
    for name in os.listdir(folder):
        os.chmod(os.path.join(folder, name), 0o600)
    box.enqueue(event(3), NOW)
    say(*(fields["user_id"] for fields in box.waiting()))
    box.close()
    """
    )
    with Process(script, shared_folder / "outbox.db") as process:
        *said, there = process.end()

    assert there == "1 3"
    assert len(said) == 2
    for one in said:
        assert (
            "cannot be written; allow this process to write to it, to its -wal and -shm files, and"
            in one
        )
        assert one.endswith("; the events in it are safe")


@pytest.mark.processes
def test_a_folder_that_may_not_be_written_says_so(shared_folder):
    script = (
        UNPRIVILEGED
        + """
    box = Outbox(path)
    box.enqueue(event(1), NOW)
    box.close()
    os.chmod(folder, 0o500)
    with failing():
        Outbox(path)
    with failing():
        Outbox(path + "2")
    os.chmod(path, 0)
    with failing():
        Outbox(path)
    os.chmod(folder, 0o700)
    os.chmod(path, 0o600)
    box = Outbox(path)
    say(*(fields["user_id"] for fields in box.waiting()))
    box.close()
    """
    )
    with Process(script, shared_folder / "outbox.db") as process:
        folder, new, file, there = process.end()

    assert there == "1"
    assert (
        "cannot be written; allow this process to write to it, to its -wal and -shm files, and"
        in folder
    )
    assert "cannot be opened (Permission denied); choose a path in an existing folder" in new
    assert "cannot be opened; allow this process to write to it" in file


# Forks


@pytest.mark.processes
def test_parent_and_children_go_on_after_forks(opened, path):
    script = (
        FORKING
        + """
    # The log is worked in all the time.
    outbox_module._LONG_LOG = -1
    box = Outbox(sys.argv[1], patience=20)
    going_on = True
    written = 0

    def write():
        global written
        while going_on:
            box.enqueue(event(1000 + written), NOW)
            written += 1
            box.ack(box.claim(NOW))

    def tidy():
        while going_on:
            box.needs_checkpoint() and box.checkpoint()

    def use(number):
        if number % 2:
            box.enqueue(event(number), NOW)
            return
        with contextlib.closing(Outbox(sys.argv[1], patience=20)) as own:
            own.enqueue(event(number), NOW)

    threads = [threading.Thread(target=write), threading.Thread(target=tidy)]
    for thread in threads:
        thread.start()
    with children() as fork:
        for number in range(50):
            fork(lambda: use(number))
    while written <= 50 and threads[0].is_alive():  # A busy machine may have run it rarely.
        threads[0].join(0.01)
    going_on = False
    for thread in threads:
        thread.join()
    box.close()
    say(written)
    """
    )
    with Process(script, path) as process:
        written = int(process.end()[-1])

    assert written > 50
    # As many were removed as the parent wrote, and whose they were does not matter.
    assert len(users(opened().waiting())) == 50
    assert is_sound(path)


@pytest.mark.processes
def test_nothing_that_a_child_writes_is_lost_or_there_twice(opened, path):
    script = (
        FORKING
        + """
    box = Outbox(sys.argv[1], patience=20)
    box.enqueue(event(), NOW)
    entry = box.claim(NOW)
    box.run_maintenance(NOW, ())

    def use(number):
        for step in range(3):
            box.enqueue(event(number * 10 + step), NOW)
        # Not its own.
        box.release(entry)
        # A child of a child.
        with children() as fork:
            fork(lambda: box.enqueue(event(number * 10 + 3), NOW))
        box.enqueue(event(number * 10 + 4), NOW)

    with children() as fork:
        for number in range(1, 9):
            fork(lambda: use(number))
            box.enqueue(event(number * 10 + 5), NOW)
    box.nack(entry, 0, NOW)
    box.close()
    """
    )
    with Process(script, path) as process:
        process.end()

    box = opened()
    expected = [0, *(ten * 10 + one for ten in range(1, 9) for one in range(6))]
    assert sorted(users(box.waiting())) == expected
    box.run_maintenance(NOW, ())
    # It was the parent that gave it back, and not before the end.
    assert box.claim(NOW).tries == 1
    assert is_sound(path)


@pytest.mark.processes
def test_a_child_of_a_child_goes_on_when_nobody_else_does(opened, path):
    script = (
        FORKING
        + """
    going, go = os.pipe()

    def child():
        box.enqueue(event(1), NOW)
        with children() as fork:
            fork(grandchild)
            # The last one of those who know how to share it, if the other one does not.
            box.close()
            os.write(go, b"!")

    def grandchild():
        os.read(going, 1)
        box.enqueue(event(2), NOW)

    box = Outbox(sys.argv[1])
    with children() as fork:
        fork(child)
    """
    )
    with Process(script, path) as process:
        assert process.end() == []

    assert users(opened().waiting()) == [1, 2]


@pytest.mark.processes
@pytest.mark.parametrize("busy", ["writing", "tidying"])
def test_a_child_of_a_fork_that_could_not_wait_any_longer_leaves_the_file_alone(
    opened, path, busy, tmp_path
):
    script = (
        FORKING
        + """
    runtime.FORK_PATIENCE = 0.1
    box = Outbox(sys.argv[1], patience=20)
    another = Outbox(sys.argv[2])

    def use():
        for use in (
            lambda: box.enqueue(event(2), NOW),
            lambda: Outbox(sys.argv[1]),
            box.checkpoint,
            box.close,
            lambda: another.enqueue(event(3), NOW),
            another.close,
        ):
            try:
                use()
            except OutboxError as error:
                say(error)
        say("the child is done")

    writing = threading.Thread(target=lambda: box.enqueue(event(1), NOW))
    writing.start()
    # Until it waits for who has locked the file.
    while box._file.before_fork():
        box._file.after_fork(in_child=False, waited=True)
    with children() as fork:
        fork(use)
    say("forked")
    writing.join()
    box.enqueue(event(4), NOW)
    another.close()
    box.close()
    """
    )
    if busy == "tidying":
        # It waits as a writer does, but is the only one to.
        script = script.replace("lambda: box.enqueue(event(1), NOW)", "tidy").replace(
            "    writing = ",
            """
    def tidy():
        outbox_module._SHORT_LOG = outbox_module._LONG_LOG = outbox_module._TOO_LONG_LOG = -1
        outbox_module._WAITING_FOR_READERS = 20_000
        box.needs_checkpoint() and box.checkpoint()

    writing = """,
            1,
        )
    opened().enqueue(event(0), NOW)
    with another_program(path) as connection, Process(script, path, tmp_path / "2.db") as process:
        said = list(iter(process.said, "forked"))
        connection.execute("ROLLBACK")
        assert process.end() == []

    refused = "was in use when this process was forked, so this process cannot use it; fork while"
    assert all(refused in one for one in said[:-1])
    # Nothing is there to be tidied where somebody is writing.
    assert len(said[:-1]) == {"writing": 2, "tidying": 3}[busy]
    assert said[-1] == "the child is done"
    assert users(opened().waiting()) == [0, *[1] * (busy == "writing"), 4]
    assert users(opened(tmp_path / "2.db").waiting()) == [3]
    assert is_sound(path)


@pytest.mark.processes
def test_a_child_leaves_alone_what_another_thread_was_opening(opened, path):
    script = (
        FORKING
        + """
    import functools, sqlite3

    runtime.FORK_PATIENCE = 0.1
    opening, go_on = threading.Event(), threading.Event()

    class Waiting(sqlite3.Connection):
        def execute(self, *arguments):
            opening.set()
            go_on.wait(20)
            return super().execute(*arguments)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Waiting)

    def use():
        try:
            Outbox(sys.argv[1])
        except OutboxError as error:
            say(error)

    def open_():
        with contextlib.closing(Outbox(sys.argv[1])) as box:
            box.enqueue(event(), NOW)

    thread = threading.Thread(target=open_)
    thread.start()
    opening.wait(20)
    with children() as fork:
        fork(use)
    go_on.set()
    thread.join()
    """
    )
    with Process(script, path) as process:
        (said,) = process.end()

    assert "was in use when this process was forked" in said
    assert users(opened().waiting()) == [0]


# A file that is made by several at once


@pytest.mark.processes
def test_several_processes_can_begin_with_a_file_at_the_same_moment(opened, tmp_path):
    script = (
        FORKING
        + """
    def begin(path, number):
        os.close(go)
        os.read(going, 1)
        box = Outbox(path, Binding("https://api.intercom.io", "token"))
        box.enqueue(event(number), NOW)
        # Who is the last to close it works the log in, and removes it; others are just gone.
        if number % 2:
            box.close()

    for round_ in range(10):
        going, go = os.pipe()
        with children() as fork:
            for number in range(8):
                fork(lambda: begin(f"{sys.argv[1]}/{round_}.db", number))
            os.close(go)
        os.close(going)
    """
    )
    with Process(script, tmp_path) as process:
        assert process.end() == []

    for path in sorted(tmp_path.glob("*.db")):
        assert sorted(users(opened(path).waiting())) == list(range(8))
        assert is_sound(path)


def test_several_threads_can_begin_with_a_file_at_the_same_moment(opened, tmp_path):
    beginning = threading.Barrier(4)

    def begin(path):
        beginning.wait(PATIENCE)
        with contextlib.closing(Outbox(path, here)) as box:
            return box.enqueue(event(), NOW)

    with ThreadPoolExecutor(4) as threads:
        for round_ in range(30):
            path = tmp_path / f"{round_}.db"
            assert list(threads.map(begin, [path] * 4)) == [True] * 4
            with contextlib.closing(Outbox(path)) as box:
                assert box.size == 4


def test_another_process_can_make_the_file_between_any_two_steps(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Stepping))
    for step in range(16):
        path, steps = tmp_path / f"{step}.db", itertools.count()

        def interrupt(connection, path=path, steps=steps, step=step):
            if next(steps) == step and not connection.in_transaction:
                opened(path, here).enqueue(event(1), NOW)

        monkeypatch.setattr(Stepping, "before", staticmethod(interrupt))
        box = opened(path, here)
        assert box.enqueue(event(2), NOW), step
        assert 2 in users(box.waiting()), step
        assert next(steps) > 16
        assert is_sound(path), step


class Stepping(sqlite3.Connection):
    """A connection, each step of which something can come before."""

    @staticmethod
    def before(connection):
        pass

    def execute(self, *arguments):
        self.before(self)
        return super().execute(*arguments)


def test_who_makes_a_file_waits_for_its_turn(opened, path):
    path.touch()
    with another_program(path) as connection:
        ending = threading.Timer(0.1, connection.execute, ["ROLLBACK"])
        ending.start()
        box = opened(patience=0)
        ending.join()

    assert box.enqueue(event(), NOW)


# The log


def tidy(box):
    """What the dispatcher does every second."""
    if box.needs_checkpoint():
        box.checkpoint()


def pass_through(box, events):
    for number in range(events):
        box.enqueue(event(number), NOW)
        box.ack(box.claim(NOW))


@pytest.mark.costly
def test_the_log_does_not_grow_under_steady_load(box, path):
    longest = 0
    for _ in range(6):
        pass_through(box, 900)
        longest = max(longest, log_of(path).stat().st_size)
        # As every second.
        tidy(box)
    # Half as much again as one would be left alone, far less than all that was written.
    assert 16 * 2**20 < longest < 64 * 2**20

    tidy(box)
    assert log_of(path).stat().st_size == 0
    assert path.stat().st_size < 2**20


def test_the_log_is_left_alone_while_little_is_in_it_or_events_come(box, path):
    pass_through(box, 3)
    tidy(box)
    tidy(box)
    assert log_of(path).stat().st_size > 0

    before = path.stat()
    for _ in range(3):
        pass_through(box, 50)
        tidy(box)
        assert log_of(path).stat().st_size > 256 * 1024
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_tidying_beside_a_writer_makes_it_neither_fail_nor_wait(opened, path, monkeypatch):
    monkeypatch.setattr(outbox_module, "_LONG_LOG", 0)
    # The looks follow faster than the time of the log changes, which is no rest.
    monkeypatch.setattr(outbox_module, "_LONG_REST", 1_000)
    # Opening a log that is being written takes SQLite's lock for a moment.
    writing = opened(patience=1)
    writing.enqueue(event(), NOW)
    # To whom events are there that wait, so that it is no time of rest.
    other = opened()
    ended = threading.Event()

    def write():
        written = 0
        while not ended.is_set():
            pass_through(writing, 10)
            written += 10
        return written

    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(write)
        try:
            for _ in range(30):
                tidy(other)
                # Cutting it would have made the writer wait.
                assert log_of(path).stat().st_size > 0
        finally:
            ended.set()
        assert written.result(PATIENCE)
    assert is_sound(path)


def test_the_log_rests_only_where_no_process_writes(opened, path):
    box, other = opened(), opened()
    for _ in range(4):
        pass_through(other, 50)
        tidy(box)
        assert log_of(path).stat().st_size > 256 * 1024
    tidy(box)

    assert log_of(path).stat().st_size == 0


def test_a_log_that_is_too_long_is_cut_while_events_come(box, path, monkeypatch):
    monkeypatch.setattr(outbox_module, "_LONG_LOG", 2**20)
    monkeypatch.setattr(outbox_module, "_TOO_LONG_LOG", 2**20)
    pass_through(box, 200)
    assert log_of(path).stat().st_size > 2**20

    box.enqueue(event(7), NOW)
    tidy(box)
    assert log_of(path).stat().st_size == 0
    assert everything(box) == [7]


def test_who_reads_for_long_keeps_nobody_from_writing_while_the_log_is_tidied(opened, path):
    box, writing = opened(), opened(patience=2)
    pass_through(writing, 100)
    with another_program(path, "BEGIN") as reading, ThreadPoolExecutor(1) as threads:
        reading.execute("SELECT * FROM events").fetchall()
        pass_through(writing, 1)
        tidy(box)
        tidied = threads.submit(tidy, box)
        while not tidied.done():
            pass_through(writing, 1)
        tidied.result()
        assert log_of(path).stat().st_size > 256 * 1024
    tidy(box)
    tidy(box)

    assert log_of(path).stat().st_size == 0


# Many events, and interruptions


def steps(box, use):
    """What a use comes to, and how much SQLite's virtual machine does for it: no matter of time."""
    done = itertools.count()
    connections = [slot.connection for slot in box._file._slots if slot.connection is not None]
    for connection in connections:
        connection.set_progress_handler(lambda: next(done) and None, 1)
    result = use()
    for connection in connections:
        connection.set_progress_handler(None, 0)
    return result, next(done)


def steps_of_everything(box, refusal):
    box.run_maintenance(NOW, ())
    taking = [steps(box, lambda: box.claim(NOW)) for _ in range(8)]
    entries = [entry for entry, _ in taking]
    uses = [
        lambda: box.enqueue(event(), NOW),
        lambda: box.ack(entries[0]),
        lambda: box.dead_letter(entries[1], refusal, NOW),
        lambda: box.nack(entries[2], 60, NOW),
        lambda: box.nack(entries[3], 0, NOW),
        lambda: box.release(entries[4]),
        lambda: box.run_maintenance(NOW, entries[5:]),
        box.release_delayed,
        box.high_watermark,
        lambda: box.is_drained(entries[5].id),
        box.oldest,
    ]
    return [*(count for _, count in taking), *(steps(box, use)[1] for use in uses)]


def test_nothing_takes_longer_because_many_events_wait(opened, tmp_path, refusal):
    counted = []
    for name, events in (("few", 10_000), ("many", 100_000)):
        box = opened(tmp_path / name)
        assert box.enqueue(event(), NOW)
        fill(tmp_path / name, events)
        counted.append(steps_of_everything(box, refusal))

    few, many = counted
    assert min(few) > 0
    assert many == pytest.approx(few, rel=0.2, abs=5)


@pytest.mark.processes
def test_a_signals_handler_can_track_while_the_same_thread_does(opened, path):
    script = """
        box = Outbox(sys.argv[1])
        interrupted = []
        numbers = itertools.count(100_000)

        def interrupt(*_):
            # It may itself be interrupted.
            number = next(numbers)
            box.enqueue(event(number), NOW)
            interrupted.append(number)

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        removed = []
        for number in range(1500):
            box.enqueue(event(number), NOW)
            entry = box.claim(NOW)
            if number % 3 == 0:
                box.dead_letter(entry, OutboxError("of the test"), NOW)
            elif number % 3 == 1:
                box.ack(entry)
            else:
                box.release(entry)
                continue
            removed.append(int(entry.event.user_id))
        signal.setitimer(signal.ITIMER_REAL, 0)
        box.run_maintenance(NOW, ())
        left = [int(fields["user_id"]) for fields in box.waiting()]
        assert box.size == len(left)
        assert len(interrupted) > 20, interrupted
        assert sorted(left + removed) == [*range(1500), *sorted(interrupted)]
        box.close()
        say("well")
    """
    with Process(script, path) as process:
        assert process.end() == ["well"]
    assert is_sound(path)


# Any thread, any line


def at_each_line(use, between, *, step="line"):
    """Carries out a use, and something else in its thread before each line of the outbox's code.

    So do signal handlers, and finalizers, which the collector runs anywhere; before each "opcode",
    where one line does several things.
    """

    def trace(frame, kind, _argument):
        if not frame.f_code.co_filename.startswith(str(Path(outbox_module.__file__).parent)):
            return None
        frame.f_trace_opcodes = step == "opcode"
        if kind == step:
            sys.settrace(None)
            try:
                between()
            finally:
                sys.settrace(trace)
        return trace

    before = sys.gettrace()
    # Python 3.12 traces opcodes only if a frame asked for them before tracing began.
    sys._getframe().f_trace_opcodes = step == "opcode"
    sys.settrace(trace)
    try:
        return use()
    finally:
        sys.settrace(before)


# A connection that only looks is left to the collector by an interrupt, which says so.
@pytest.mark.costly
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_no_transaction_open(opened, path, refusal):
    box = opened(binding=here)
    box.enqueue(event(), NOW)
    box.dead_letter(box.claim(NOW), refusal, NOW)
    uses = {
        "retry": lambda: box.retry([7]),
        "run_maintenance": lambda: box.run_maintenance(NOW, ()),
    }
    for use in uses.values():
        for step in itertools.count():
            steps = itertools.count()

            def interrupt(step=step, steps=steps):
                if next(steps) == step:
                    raise KeyboardInterrupt

            with contextlib.suppress(KeyboardInterrupt):
                at_each_line(use, interrupt)
            with contextlib.closing(sqlite3.connect(path, timeout=0)) as another:
                assert another.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            if next(steps) <= step:
                break
        assert step > 30


def test_no_finalizer_waits_for_a_claim_or_its_end_in_its_own_thread(opened, path, refusal):
    box = opened(binding=here)
    for number in range(8):
        box.enqueue(event(number), NOW)
    box.run_maintenance(NOW, ())
    entries = [box.claim(NOW) for _ in range(6)]
    uses = {
        "claim": lambda: box.claim(NOW),
        "ack": lambda: box.ack(entries[0]),
        "dead_letter": lambda: box.dead_letter(entries[1], refusal, NOW),
        "nack": lambda: box.nack(entries[2], 60, NOW),
        "release": lambda: box.release(entries[3]),
        "run_maintenance": lambda: box.run_maintenance(NOW + 30, entries[4:]),
        "release_delayed": box.release_delayed,
    }
    numbers = itertools.count(100)
    with another_program(path, "SELECT 1") as connection:
        # It waits for nothing: a lock that is held by this thread is an error at once.
        connection.execute("PRAGMA busy_timeout = 0")

        def track():
            number = next(numbers)
            if number % 2:
                assert box.enqueue(event(number), NOW)
                return
            text = json.dumps(event(number).to_dict())
            connection.execute(VERSION_1_PUTS, (text, NOW))

        for name, use in uses.items():
            first = next(numbers)
            at_each_line(use, track, step="opcode")
            assert next(numbers) > first + 50, name

    # Between two uses, two numbers are not tracked.
    waiting = users(box.waiting())
    assert len(waiting) == len(set(waiting))
    assert [int(letter.event["user_id"]) for letter in box.dead_letters()] == [1]
    skipped = {*range(100, next(numbers))} - set(waiting)
    assert len(skipped) == 2 * len(uses)
    assert {*range(2, 8)} <= set(waiting)
    box.run_maintenance(NOW + 60, ())
    assert box.size == len(waiting)


def test_what_is_enqueued_within_enqueue_is_written_too(box):
    numbers = itertools.count(100)

    at_each_line(lambda: box.enqueue(event(1), NOW), lambda: box.enqueue(event(next(numbers)), NOW))

    last = next(numbers)
    assert last > 110
    assert sorted(users(box.waiting())) == [1, *range(100, last)]
    assert box.size == last - 99


def test_a_full_outbox_takes_no_event_more_from_within_enqueue(opened, tmp_path):
    for most in range(1, 6):
        box = opened(tmp_path / f"{most}.db", most=most)
        taken = []
        at_each_line(
            lambda box=box, taken=taken: taken.append(box.enqueue(event(1), NOW)),
            lambda box=box, taken=taken: taken.append(box.enqueue(event(2), NOW)),
        )
        assert taken.count(True) == box.size == len(list(box.waiting())) == most


@pytest.mark.processes
def test_a_finalizer_can_fork_within_enqueue(opened, path):
    script = (
        FORKING
        + """
    box = Outbox(sys.argv[1], patience=20)
    box.enqueue(event(0), NOW)

    def at_line(which, use, between):
        lines = itertools.count()
        def trace(frame, kind, argument):
            if not frame.f_code.co_filename.startswith(os.path.dirname(outbox_module.__file__)):
                return None
            if kind == "line" and next(lines) == which:
                sys.settrace(None)
                between()
                return None
            return trace
        sys.settrace(trace)
        use()
        sys.settrace(None)
        return next(lines) > which

    with children() as fork:
        for number in itertools.count(1):
            child = lambda: box.enqueue(event(1000 + number), NOW)
            if not at_line(number, lambda: box.enqueue(event(number), NOW), lambda: fork(child)):
                break
    box.close()
    say(number)
    """
    )
    with Process(script, path) as process:
        last = int(process.end()[-1])

    assert last > 20
    found = sorted(users(opened().waiting()))
    # The child goes on within the enqueue that it was forked in, and so writes that event as well.
    assert set(found) == {*range(last + 1), *range(1001, 1000 + last)}
    assert is_sound(path)


@pytest.mark.parametrize("step", ["line", pytest.param("opcode", marks=pytest.mark.costly)])
def test_an_outbox_that_is_closed_within_enqueue_has_the_event_unless_that_raises(
    opened, tmp_path, step
):
    # Each line, and some opcodes, or each one with the profile "nightly".
    between = 1 if step == "line" else max(1, 250 // settings().max_examples)
    for closing in itertools.count(0, between):
        path, steps, taken = tmp_path / f"{closing}.db", itertools.count(), []
        box = opened(path)
        box.enqueue(event(1), NOW)

        def close(box=box, steps=steps, closing=closing):
            if next(steps) == closing:
                box.close()

        with contextlib.suppress(RuntimeError):
            at_each_line(
                lambda box=box, taken=taken: taken.append(box.enqueue(event(2), NOW)),
                close,
                step=step,
            )
        if next(steps) <= closing:
            break  # It had ended before.
        with pytest.raises(RuntimeError):
            box.enqueue(event(3), NOW)
        with contextlib.closing(Outbox(path)) as again:
            assert again.size == 1 + len(taken), closing
        assert len(list(path.parent.glob(f"{path.name}*"))) == 1, "no connection is left open"

    assert closing > 20


def test_no_connection_is_open_while_a_process_forks(opened, path):
    box = opened(binding=here)
    box.enqueue(event(1), NOW)
    assert box._file.before_fork()
    # In the thread that forks, handlers and finalizers go on until it does.
    box.enqueue(event(2), NOW)
    assert box.oldest() == NOW
    with another_program(path, "SELECT 1") as connection:
        # Only one connection alone can do that.
        assert connection.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    box._file.after_fork(in_child=False, waited=True)

    box.enqueue(event(3), NOW)
    assert everything(box) == [1, 2, 3]


def test_a_thread_that_is_kept_within_enqueue_keeps_no_other_from_it(opened):
    box = opened(patience=0.02)
    numbers = itertools.count(1)
    with ThreadPoolExecutor(1) as threads:

        def use_elsewhere():
            # As a finalizer does that waits for another thread.
            threads.submit(box.enqueue, event(next(numbers)), NOW).result(PATIENCE)
            threads.submit(lambda: box.release(box.claim(NOW))).result(PATIENCE)
            assert threads.submit(box.oldest).result(PATIENCE) == NOW

        at_each_line(lambda: box.enqueue(event(0), NOW), use_elsewhere)

    last = next(numbers)
    assert last > 10
    assert sorted(users(box.waiting())) == [*range(last)]
    assert box.size == last


def test_without_patience_it_says_at_once_that_another_thread_writes(opened):
    box = opened(patience=0)
    said = []
    with ThreadPoolExecutor(1) as threads:

        def enqueue_elsewhere():
            try:
                said.append(threads.submit(box.enqueue, event(1), NOW).result(PATIENCE))
            except OutboxLockedError as error:
                said.append(str(error))

        assert at_each_line(lambda: box.enqueue(event(0), NOW), enqueue_elsewhere)

    errors = {one for one in said if one is not True}
    assert len(errors) == 1
    assert "is still in use by other threads of this process after 0 s; try again" in errors.pop()
    assert sorted(users(box.waiting())) == [0, *[1] * said.count(True)]
    assert True in said


def test_threads_that_enqueue_at_once_fill_an_outbox_to_the_last_event(opened):
    box = opened(most=500)
    beginning = threading.Barrier(8)

    def enqueue(thread):
        beginning.wait(PATIENCE)
        return sum(box.enqueue(event(thread * 1000 + number), NOW) for number in range(100))

    with ThreadPoolExecutor(8) as threads:
        taken = sum(threads.map(enqueue, range(8)))

    assert taken == box.size == len(set(users(box.waiting()))) == 500
    box.run_maintenance(NOW, ())
    assert box.size == 500


def test_nothing_is_lost_or_there_twice_where_threads_enqueue_beside_a_dispatcher(box):
    acked = []
    ended = threading.Event()

    def dispatch():
        for turn in itertools.count():
            over = ended.is_set()
            if turn % 50 == 0:
                box.run_maintenance(NOW + turn, ())
            entry = box.claim(NOW)
            if entry is not None:
                box.ack(entry)
                acked.append(int(entry.event.user_id))
            elif over:
                return

    def enqueue(thread):
        return all(box.enqueue(event(thread * 1000 + number), NOW) for number in range(300))

    with ThreadPoolExecutor(5) as threads:
        dispatching = threads.submit(dispatch)
        try:
            assert all(threads.map(enqueue, range(4)))
        finally:
            ended.set()
        dispatching.result(PATIENCE)

    assert sorted(acked) == [thread * 1000 + number for thread in range(4) for number in range(300)]
    assert box.size == 0


def test_a_large_backlog_is_released_some_events_at_a_time(opened, path):
    box = opened(binding=here)
    fill(path, 1_300)
    with another_program(path, "UPDATE events SET held_until = 1671029000") as connection:
        seen = set()

        def look():
            query = "SELECT count(*) FROM events WHERE held_until IS NULL"
            seen.add(connection.execute(query).fetchone()[0])

        at_each_line(box.release_delayed, look)
        assert seen == {0, 500, 1_000, 1_300}

        connection.execute("UPDATE events SET held_until = 1671028800, owner = 'a1b2'")
        seen.clear()
        at_each_line(lambda: box.run_maintenance(NOW, ()), look)
        assert seen == {0, 500, 1_000, 1_300}


def test_no_line_is_logged_while_an_event_is_enqueued(opened, path, caplog):
    box = opened(binding=here)
    box.enqueue(event(1), NOW)
    path.rename(path.with_name("elsewhere"))

    box.run_maintenance(NOW, ())
    assert len(caplog.records) == 1
    for _ in range(2):
        with pytest.raises(OutboxError, match="was moved or deleted"):
            box.enqueue(event(2), NOW)
    assert len(caplog.records) == 1


# Contacts that Intercom does not know yet


def test_it_is_kept_when_intercom_first_did_not_know_a_contact(opened):
    box, other = opened(), opened()
    box.enqueue(event(1), NOW)
    entry = box.claim(NOW)
    assert entry.rejected_at is None
    entry.rejected_at = NOW + 1
    box.nack(entry, 5, NOW + 1)

    other.run_maintenance(NOW + 6, ())
    again = other.claim(NOW + 6)
    assert (again.tries, again.rejected_at) == (1, NOW + 1)
    other.nack(again, 5, NOW + 7)
    box.run_maintenance(NOW + 12, ())
    third = box.claim(NOW + 12)
    assert (third.tries, third.rejected_at) == (2, NOW + 1)
    third.rejected_at = NOW + 13
    box.nack(third, 5, NOW + 13)
    box.release_delayed()
    assert box.claim(NOW + 13).rejected_at == NOW + 13


def test_an_event_of_another_person_is_claimed_first(box):
    for number in (1, 1, 2, 1, 3):
        box.enqueue(event(number), NOW + number)
    avoided = {("user_id", "1")}

    claimed = [box.claim(NOW + 5, avoided) for _ in range(4)]
    assert [int(one.event.user_id) for one in claimed] == [2, 3, 1, 1]
    assert everything(box) == [1]


def test_avoiding_persons_keeps_to_the_order_of_events(box):
    # Of an hour ago, and of now.
    for number, at in ((1, NOW), (2, NOW + 1), (3, NOW + 3600), (4, NOW + 3601)):
        box.enqueue(event(number), at)
    avoided = {("user_id", "3"), ("user_id", "1")}

    assert int(box.claim(NOW + 3602, avoided).event.user_id) == 4
    assert int(box.claim(NOW + 3602, avoided).event.user_id) == 2
    assert int(box.claim(NOW + 3602, avoided).event.user_id) == 3


def test_no_more_events_than_500_are_looked_through(box):
    for number in [0] * 500 + [1]:
        box.enqueue(event(number), NOW)

    assert int(box.claim(NOW, {("user_id", "0")}).event.user_id) == 0
    # One less is before it now.
    assert int(box.claim(NOW, {("user_id", "0")}).event.user_id) == 1


def test_an_event_that_cannot_be_read_is_of_nobody_to_avoid(box, path):
    box.enqueue(event(1), NOW)
    with another_program(path, "UPDATE events SET event = 'nonsense'"):
        pass
    box.enqueue(event(1), NOW + 1)
    box.enqueue(event(2), NOW + 2)

    assert int(box.claim(NOW + 2, {("user_id", "1")}).event.user_id) == 2
    assert [letter.id for letter in box.dead_letters()] == [1]
