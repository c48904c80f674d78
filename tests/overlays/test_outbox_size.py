"""How much is in an outbox: no number of events makes anything slow, and the file shrinks again."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import test_outbox
from test_outbox import (
    NOW,
    PATIENCE,
    VERSION_1_PUTS,
    Process,
    another_program,
    at_each_line,
    event,
    everything,
    here,
    is_sound,
    log_of,
    pass_through,
    tidy,
    users,
    written_by_version_1,
)

from intercom_data_events import DataEventsClient, NotFoundError, OutboxLockedError
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox
from intercom_data_events.outbox._queue import OutboxQueue
from intercom_data_events.tracker import Tracker

# A fixture.
small_disk = test_outbox.small_disk

FEW, MANY = 10_000, 100_000
#: Bytes of a file with hardly anything in it; free pages of 256 KiB may stay.
SMALL = 400_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
def opened(path):
    """Opens outboxes, one for each process that a test speaks of, and closes them at the end."""
    with contextlib.ExitStack() as opening:
        yield lambda at=path, **options: opening.enter_context(OutboxQueue(at, **options))


@pytest.fixture
def refusal():
    """What Intercom says of a contact that it does not know."""
    client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
    with client, pytest.raises(NotFoundError) as raised:
        client.create("placed-order", user_id="314159")
    return raised.value


def fill(path, events, held_until=None, owner=None):
    """Writes many events at once, as only a test does."""
    with another_program(path) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?) "
            "INSERT INTO events (event, tracked_at, held_until, owner) "
            "SELECT ?, ? + i / 1000.0, ?, ? FROM n",
            (events, json.dumps(event().to_dict()), NOW - 100, held_until, owner),
        )
        connection.execute("COMMIT")


def change(path, statement, *values):
    """What another process does."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def number_in(path):
    return change(path, "SELECT count(*) FROM events")[0][0]


# What each use takes


def as_they_wait(path, events):
    fill(path, events)


def as_they_are_delayed(path, events):
    fill(path, 100)
    fill(path, events, held_until=NOW + 600)


def as_others_claimed_them(path, events):
    fill(path, events, held_until=NOW + 25, owner="another process")
    fill(path, 100)


def as_they_are_dead(path, events):
    fill(path, 100)
    fill(path, events)
    change(
        path,
        "INSERT INTO dead (id, event, tracked_at, tries, died_at, error, message) "
        "SELECT id, event, tracked_at, tries, 0, '', '' FROM events WHERE id > 100",
    )
    change(path, "DELETE FROM events WHERE id > 100")


def as_most_were_sent(path, events):
    fill(path, events)
    change(path, "DELETE FROM events WHERE id <= ?", events - 6_000)


@contextlib.contextmanager
def steps_counted(monkeypatch):
    """Counts what SQLite's virtual machine does, on all connections: no matter of time."""
    done = itertools.count()

    class Counted(sqlite3.Connection):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.set_progress_handler(lambda: next(done) and None, 1)

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3,
            "connect",
            lambda *arguments, **options: connect(*arguments, factory=Counted, **options),
        )

        def steps(use):
            before = next(done)
            use()
            return next(done) - before - 1

        yield steps


def steps_of_uses(box, steps, refusal):
    """Returns the steps of each use, by its name."""
    entries = []
    avoid = {("user_id", "7")}
    uses = {
        "claim": lambda: entries.append(box.claim(NOW)),
        "claim in turn": lambda: entries.append(box.claim(NOW)),
        "claim another person's": lambda: entries.append(box.claim(NOW, avoid)),
        "claim the oldest": lambda: entries.append(box.claim(NOW)),
        "enqueue": lambda: box.enqueue(event(), NOW),
        "ack": lambda: box.ack(entries[0]),
        "dead_letter": lambda: box.dead_letter(entries[1], refusal, NOW),
        "nack": lambda: box.nack(entries[2], 60, NOW),
        "release": lambda: box.release(entries[3]),
        "high_watermark": box.high_watermark,
        "is_drained": lambda: box.is_drained(1),
        "oldest": box.oldest,
        "size": lambda: box.size,
        "needs_checkpoint": box.needs_checkpoint,
    }
    return {name: steps(use) for name, use in uses.items()}


@pytest.mark.costly
@pytest.mark.parametrize(
    "there",
    [
        as_they_wait,
        as_they_are_delayed,
        as_others_claimed_them,
        as_they_are_dead,
        as_most_were_sent,
    ],
)
def test_no_use_takes_longer_because_many_events_are_there(
    there, opened, tmp_path, refusal, monkeypatch
):
    taken = []
    with steps_counted(monkeypatch) as steps:
        for events in (FEW, MANY):
            path = tmp_path / f"{events}.db"
            box = opened(path)
            box.enqueue(event(), NOW)
            there(path, events)
            box.run_maintenance(NOW, ())
            uses = steps_of_uses(box, steps, refusal)
            # Of a count of all events, each round is a part.
            rounds = [steps(lambda: box.run_maintenance(NOW + n, ())) for n in range(25)]  # noqa: B023
            taken.append({**uses, "run_maintenance": max(rounds)})

    few, many = taken
    assert min(few[name] for name in few.keys() - {"size", "needs_checkpoint"}) > 0
    assert many == pytest.approx(few, rel=0.2, abs=10)


def test_maintenance_reads_no_more_where_more_events_wait(opened, tmp_path):
    # SQLite counts rows in one step of its machine, so seconds of the processor tell.
    def seconds(events):
        path = tmp_path / f"{events}.db"
        with contextlib.closing(OutboxQueue(path)) as box:
            fill(path, events)
            taken = []
            for number in range(120):
                begin = time.thread_time()
                box.run_maintenance(NOW + number, ())
                taken.append(time.thread_time() - begin)
            # Of what the machine does at times, one in ten.
            return sorted(taken)[-12:-2]

    few, many = seconds(FEW), seconds(400_000)
    assert sum(many) < 4 * sum(few)


def test_counters_do_not_depend_on_how_many_events_wait(tmp_path, monkeypatch):
    taken = []
    with steps_counted(monkeypatch) as steps:
        for events in (FEW, MANY):
            path = tmp_path / f"{events}.db"
            OutboxQueue(path).close()
            fill(path, events, held_until=NOW + 1e9, owner="another process")
            client = DataEventsClient("token", transport=Emulator().transport())
            with client:
                tracker = Tracker(client, path)
                assert tracker.counters.queued == events
                taken.append(min(steps(lambda: tracker.counters) for _ in range(5)))  # noqa: B023
                tracker.close(0)

    few, many = taken
    assert 0 < many <= few + 5


# How many there are


REMOVALS = {
    "none": "id < 0",
    "the first": "id <= 300",
    "some in the middle": "id BETWEEN 5000 AND 7000",
    "the last": "id > 11900",
    "each other one": "id % 2",
    "all": "true",
}


@pytest.mark.parametrize("removed", REMOVALS.values(), ids=REMOVALS)
def test_what_others_add_and_remove_is_counted_while_threads_enqueue(removed, opened, path):
    opened()
    fill(path, 12_000)
    box = opened()
    begun, ended = threading.Event(), threading.Event()

    def enqueue():
        for number in itertools.count():
            box.enqueue(event(number), NOW)
            begun.set()
            if ended.is_set():
                return
            time.sleep(0)

    with ThreadPoolExecutor(2) as threads:
        enqueuing = [threads.submit(enqueue) for _ in range(2)]
        try:
            assert begun.wait(PATIENCE)
            box.run_maintenance(NOW, ())
            change(path, f"DELETE FROM events WHERE {removed}")
            fill(path, 40)
            for _ in range(20):
                box.run_maintenance(NOW, ())
        finally:
            ended.set()
        for one in enqueuing:
            one.result(PATIENCE)
    # Two counts of all, of which the first began before the last change.
    for _ in range(2 * (number_in(path) // 5_000 + 1)):
        box.run_maintenance(NOW, ())

    assert box.size == number_in(path)


def test_the_oldest_that_others_remove_are_never_counted_again(opened, path):
    opened()
    fill(path, 12_000)
    box = opened()
    for _ in range(9):
        change(path, "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT 7)")
        box.run_maintenance(NOW, ())
        assert box.size == number_in(path)


@pytest.mark.costly
def test_what_is_enqueued_at_any_line_of_a_count_is_counted_once(opened, path):
    opened()
    fill(path, 11_000)
    box = opened()
    for _ in range(8):
        at_each_line(
            lambda: box.run_maintenance(NOW, ()), lambda: box.enqueue(event(), NOW), step="opcode"
        )
        # What no other process changed was right before, and is so after each round.
        assert box.size == number_in(path)


@pytest.mark.parametrize("ends", ["ack", "dead_letter"])
def test_an_outbox_holds_no_more_than_said_whatever_is_enqueued_as_events_leave(
    ends, opened, path, refusal
):
    box = opened(most=20)
    while box.enqueue(event(), NOW):
        pass
    for _ in range(10):
        entry = box.claim(NOW)
        arguments = (refusal, NOW) if ends == "dead_letter" else ()
        at_each_line(
            lambda: getattr(box, ends)(entry, *arguments),  # noqa: B023
            lambda: box.enqueue(event(), NOW),
            step="opcode",
        )
        box.enqueue(event(), NOW)
        assert box.size == number_in(path) == 20


def test_the_bound_is_kept_while_events_are_counted(opened, path):
    opened()
    fill(path, 5_200)
    box = opened(most=6_000)
    filled = threading.Event()

    def enqueue():
        taken = 0
        while not filled.is_set():
            taken += box.enqueue(event(), NOW)
        return taken

    with ThreadPoolExecutor(3) as threads:
        enqueuing = [threads.submit(enqueue) for _ in range(3)]
        try:
            for number in range(150):
                box.run_maintenance(NOW, ())
                if number % 3 == 0:
                    box.ack(box.claim(NOW))
            assert number_in(path) <= 6_000
        finally:
            filled.set()
        for one in enqueuing:
            one.result(PATIENCE)
    while box.enqueue(event(), NOW):
        pass

    assert box.size == number_in(path) == 6_000


def test_dead_letters_that_are_put_back_are_counted_at_once(opened, refusal):
    box, other = opened(), opened()
    for number in range(10):
        box.enqueue(event(number), NOW)
    for _ in range(4):
        box.dead_letter(box.claim(NOW), refusal, NOW)

    assert (box.size, box.retry([1, 2])) == (6, 2)
    assert box.size == 8
    assert other.retry() == 2
    box.run_maintenance(NOW, ())
    other.run_maintenance(NOW, ())
    assert (box.size, other.size) == (10, 10)


def test_a_process_of_an_earlier_version_is_counted_too(opened, path):
    written_by_version_1(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as before:
        before.execute("SELECT * FROM events").fetchall()
        box = opened(binding=here)
        assert box.size == 3
        for number in range(20):
            before.execute(VERSION_1_PUTS, (json.dumps(event(number).to_dict()), NOW))
        box.enqueue(event(), NOW)
        box.run_maintenance(NOW, ())
        assert box.size == 24
        before.execute("DELETE FROM events WHERE id BETWEEN 2 AND 9")
        for _ in range(2):
            box.run_maintenance(NOW, ())
        assert box.size == number_in(path) == 16


# The size of the file


def rest(box, looks=25):
    """What the dispatcher does while nothing happens; returns as soon as nothing is to be done."""
    for _ in range(looks):
        box.run_maintenance(NOW, ())
        tidy(box)


def sizes(path):
    return path.stat().st_size + log_of(path).stat().st_size


def full_before(path, events, left):
    """Has so many events pass through a file, of which some are left."""
    fill(path, events)
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    change(path, "DELETE FROM events WHERE id <= ?", events - left)
    return size


@pytest.mark.parametrize("left", [0, 1, 2_000])
def test_a_file_at_rest_shrinks_to_what_is_in_it(left, opened, path):
    box = opened()
    size = full_before(path, MANY, left)
    assert size > 10 * 2**20

    rest(box)
    assert sizes(path) < SMALL + 300 * left
    assert box.size == number_in(path) == left
    assert is_sound(path)


def test_events_from_any_part_of_a_file_can_be_left(opened, path):
    box = opened()
    full_before(path, MANY, MANY)
    change(path, "DELETE FROM events WHERE id % 100")

    rest(box)
    assert sizes(path) < SMALL + 300 * 1_000
    assert users(box.waiting()) == [0] * 1_000
    assert is_sound(path)


def test_a_file_shrinks_while_a_few_events_come(opened, path):
    box, other = opened(), opened()
    size = full_before(path, MANY, 20)
    for _ in range(100):
        pass_through(other, 1)
        box.run_maintenance(NOW, ())
        tidy(box)
    assert change(path, "PRAGMA page_count")[0][0] * 1024 < size / 10

    rest(box)
    assert sizes(path) < SMALL


def test_a_file_in_use_keeps_the_room_that_its_events_need(opened, path):
    box = opened()
    full_before(path, 20_000, 15_000)
    pages = change(path, "PRAGMA page_count")
    for _ in range(20):
        pass_through(box, 1)
        box.run_maintenance(NOW, ())
        tidy(box)

    assert change(path, "PRAGMA page_count") == pages


def test_no_writer_waits_for_long_while_a_file_shrinks(opened, path):
    box = opened()
    # Pages of what is left, at the end of the file, take longest.
    full_before(path, 3 * MANY, 5_000)
    writing = opened(patience=0.05)
    ended = threading.Event()

    def write():
        written = 0
        while not ended.is_set():
            writing.enqueue(event(), NOW)
            written += 1
            time.sleep(0.003)
        return written

    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(write)
        try:
            for _ in range(20):
                box.run_maintenance(NOW, ())
                tidy(box)
        finally:
            ended.set()
        assert written.result(PATIENCE) > 50
    assert change(path, "PRAGMA freelist_count")[0][0] < 50_000


def test_what_is_enqueued_at_any_line_while_a_file_shrinks_waits_for_nothing(opened, path):
    box = opened(patience=0.01)
    full_before(path, 5_000, 1_000)
    for _ in range(12):
        box.run_maintenance(NOW, ())
        tracked = itertools.count()
        at_each_line(lambda: tidy(box), lambda: box.enqueue(event(next(tracked)), NOW))  # noqa: B023

    assert box.size == number_in(path) > 1_000
    assert is_sound(path)


def test_a_file_that_another_process_reads_shrinks_after_that(opened, path):
    box = opened()
    size = full_before(path, MANY, 0)
    with another_program(path, "BEGIN") as reading:
        reading.execute("SELECT * FROM events").fetchall()
        rest(box, 12)
        assert path.stat().st_size == size

    rest(box)
    assert sizes(path) < SMALL


# Files of the version before, and compact()


def of_the_version_before(path, events, left):
    """A file that cannot give back pages, with many free ones, events and a dead letter."""
    written_by_version_1(path)
    fill(path, events)
    change(path, "DELETE FROM events WHERE id > 3 AND id <= ?", events - left + 3)
    path.chmod(0o600)
    return path.stat().st_size


def settings_of(path):
    names = "journal_mode", "user_version", "application_id", "page_size"
    return {
        **{name: change(path, f"PRAGMA {name}")[0][0] for name in names},
        "events": change(path, "SELECT * FROM events ORDER BY id"),
        "dead": change(path, "SELECT * FROM dead ORDER BY id"),
        "binding": change(path, "SELECT * FROM binding ORDER BY name"),
        "sequence": change(path, "SELECT * FROM sqlite_sequence"),
        "schema": change(path, "SELECT type, name, sql FROM sqlite_schema ORDER BY name"),
        "mode": oct(path.stat().st_mode),
        "inode": path.stat().st_ino,
    }


def test_a_file_of_the_version_before_is_taken_over_as_it_is(opened, path):
    size = of_the_version_before(path, MANY, 500)
    box = opened(binding=here)
    rest(box)

    # Nothing was moved, so opening it took no longer than that of a small one.
    assert path.stat().st_size == size
    assert change(path, "PRAGMA auto_vacuum") == [(0,)]
    assert len(everything(box, NOW + 1e6)) == 503 - 2


def test_compact_keeps_all_but_the_size(opened, path):
    size = of_the_version_before(path, MANY, 500)
    box = opened(binding=here)
    before = settings_of(path)
    with Outbox(path) as looking:
        compacted = looking.compact()

    assert compacted == sizes(path) < size / 10
    assert settings_of(path) == before
    assert is_sound(path)
    # Who has it open goes on, and from now on the file shrinks by itself.
    fill(path, MANY)
    change(path, "DELETE FROM events WHERE id > 200000 - 100")
    change(path, "DELETE FROM events WHERE id > 3")
    rest(box)
    assert sizes(path) < 2 * SMALL
    assert box.enqueue(event(), NOW)
    box.run_maintenance(NOW, ())
    assert box.size == number_in(path)


def test_a_process_of_an_earlier_version_goes_on_with_a_compacted_file(opened, path):
    of_the_version_before(path, 20_000, 10)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as before:
        before.execute("SELECT * FROM events").fetchall()
        with Outbox(path) as looking:
            looking.compact()
        for number in range(1_000):
            before.execute(VERSION_1_PUTS, (json.dumps(event(number).to_dict()), NOW))
        before.execute("DELETE FROM events WHERE id % 2")
        assert is_sound(path)
        rest(opened(binding=here))
        before.execute(VERSION_1_PUTS, (json.dumps(event(7).to_dict()), NOW))
        assert is_sound(path)


@pytest.mark.parametrize("use", ["BEGIN", "BEGIN IMMEDIATE"])
def test_compact_is_refused_while_another_process_reads_or_writes(use, opened, path, monkeypatch):
    of_the_version_before(path, 5_000, 10)
    box = opened(binding=here, patience=0.05)
    with another_program(path, use) as using:
        using.execute("SELECT * FROM events").fetchall()
        with pytest.raises(OutboxLockedError, match=r"outbox\.db must not be in use while"):
            box.compact()
        using.execute("ROLLBACK")

    size = sizes(path)
    assert box.compact() < size / 10


def test_compact_waits_for_a_short_write(opened, path):
    of_the_version_before(path, 5_000, 10)
    box = opened(binding=here, patience=PATIENCE)
    with another_program(path) as writing, ThreadPoolExecutor(1) as threads:
        compacting = threads.submit(box.compact)
        writing.execute(VERSION_1_PUTS, (json.dumps(event(7).to_dict()), NOW))
        assert not compacting.done()
        writing.execute("COMMIT")
        assert compacting.result(PATIENCE) == sizes(path)
    assert number_in(path) == 14


def test_what_is_closed_is_not_compacted(opened):
    box = opened()
    box.close()
    with pytest.raises(RuntimeError, match="is closed"):
        box.compact()


@pytest.mark.processes
def test_compact_without_room_leaves_the_file_and_the_room_as_they_were(tmp_path, small_disk):
    script = """
        import sqlite3
        path, ballast = sys.argv[1:]
        box = Outbox(path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 7000) "
                "INSERT INTO events (event, tracked_at) SELECT ?, 0 FROM n", ("x" * 100,)
            )
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with open(ballast, "wb") as file:
            file.write(bytes(2_600_000))
        before = os.stat(path).st_size, os.stat(path + "-wal").st_size
        try:
            box.compact()
        except OutboxError as error:
            say(error)
        assert (os.stat(path).st_size, os.stat(path + "-wal").st_size) == before
        box.enqueue(event(), NOW)
        os.unlink(ballast)
        assert box.compact() <= before[0] + 1024
        assert box.status().queued == 7_001
        box.close()
        say("well")
    """
    files = tmp_path / "outbox.db", tmp_path / "ballast"
    with Process(script, *files, command=small_disk) as process:
        said, well = process.end()

    assert "cannot be written because the disk is full; free some space" in said
    assert well == "well"
