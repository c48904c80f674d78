"""What was tracked arrives as a process ends, forks, and is interrupted anywhere."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections import Counter

import pytest
from programs import Program

from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.outbox._queue import OutboxQueue as Outbox

pytestmark = [pytest.mark.costly, pytest.mark.ends, pytest.mark.processes]


@pytest.fixture
def emulator():
    return Emulator(rate_limit=None)


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "outbox"


@pytest.fixture
def begin(emulator, outbox, tmp_path):
    """Begins a program that sends to the emulator; it is ended with the test."""
    with emulator.serve() as url, contextlib.ExitStack() as programs:
        yield lambda script: programs.enter_context(Program(script, url, outbox, tmp_path))


def users_of(emulator):
    return Counter(event.user_id for event in emulator.events)


def once(*users):
    return Counter(map(str, users))


in_memory = pytest.mark.parametrize("outbox", ["memory"], indirect=True)


# Ends.


def test_as_the_interpreter_exits_what_is_queued_is_sent(begin, emulator):
    begin("track(Tracker(client, outbox), *range(200))").end()

    assert users_of(emulator) == once(*range(200))
    assert emulator.counts.requests == 200


@in_memory
def test_so_is_what_was_tracked_in_other_threads_alone(begin, emulator):
    begin("""
        tracker = Tracker(client, outbox)
        for number in range(4):
            users = range(number, 40, 4)
            threading.Thread(target=track, args=(tracker, *users)).start()
    """).end()

    assert users_of(emulator) == once(*range(40))


def test_so_is_what_is_tracked_as_it_exits(begin, emulator):
    """When no thread can be had any more, as Python has it from 3.12 on."""
    begin("""
        tracker = Tracker(client, outbox)
        atexit.register(lambda: track(tracker, *range(20)))
    """).end()

    assert users_of(emulator) == once(*range(20))


@pytest.mark.parametrize(
    ("outbox", "ending", "code", "errors"),
    [("memory", "sys.exit(3)", 3, ""), ("file", "sys.exit('enough')", 1, "enough\n")],
    indirect=["outbox"],
)
def test_so_it_is_however_the_program_ends(begin, emulator, ending, code, errors):
    begin(f"""
        track(Tracker(client, outbox), *range(20))
        {ending}
    """).end(code, errors)

    assert users_of(emulator) == once(*range(20))


@pytest.mark.parametrize(
    ("outbox", "when"),
    [("memory", "before the end"), ("memory", "at the end"), ("file", "before the end")],
    indirect=["outbox"],
)
def test_an_exit_takes_no_longer_than_closing_may(begin, emulator, outbox, when):
    emulator._faults = itertools.repeat(Fault.slow(3600, processed=False))
    tracking = "track(tracker, *range(100))"
    if when == "at the end":
        tracking = f"atexit.register(lambda: {tracking})"
    program = begin(f"""
        tracker = Tracker(client, outbox, close_timeout=0.5)
        atexit.register(lambda: note(time.time()))
        {tracking}
        begun = time.time()
        atexit.register(lambda: note(time.time()))
    """)
    lost = "100 events could not be sent before the tracker was closed\n"
    program.end(errors=lost if outbox is None else "")

    assert program.seconds < 10
    if outbox is not None:
        with contextlib.closing(Outbox(outbox)) as box:
            assert box.status().queued == 100


def test_what_is_terminated_sends_what_it_tracked(begin, emulator):
    program = begin("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        tracker = Tracker(client, outbox, when_full="block", max_queued=200, close_timeout=60)
        number = 0
        while True:
            track(tracker, number)
            note(number)
            number += 1
    """)
    program.read(300)
    program.terminate()
    noted = program.end()

    assert len(noted) >= 300
    # The one in whose midst it came may have been tracked, too.
    assert users_of(emulator) - once(*noted) in (Counter(), once(len(noted)))
    assert once(*noted) - users_of(emulator) == Counter()


# Forks.


def test_what_was_tracked_before_a_fork_is_sent_once_and_each_process_sends_its_own(
    begin, emulator, outbox
):
    emulator._faults = itertools.repeat(Fault.slow(0.02))
    said = begin("""
        tracker = Tracker(client, outbox)
        track(tracker, *range(100))
        children = []
        for number in range(3):
            child = os.fork()
            if not child:
                note(tracker.counters.sent, tracker.flush(0) or outbox is not None)
                track(tracker, *(f"child {number} {n}" for n in range(20)))
                sys.exit()
            children.append(child)
        track(tracker, *range(100, 120))
        for child in children:
            note(os.waitpid(child, 0)[1])
    """).end()

    assert said.count("0") == 3
    assert said.count("0 True") == 3
    children = (f"child {number} {n}" for number in range(3) for n in range(20))
    assert users_of(emulator) == once(*range(120), *children)
    assert emulator.counts.requests == 180


def test_a_child_that_tracks_nothing_sends_and_waits_for_nothing(begin, emulator):
    begin("""
        tracker = Tracker(client, outbox)
        track(tracker, 1)
        if not os.fork():
            assert tracker.counters.queued == 0
            assert tracker.flush() and tracker.close()
            os._exit(0)
        os.wait()
        assert tracker.flush(30)
        assert tracker.counters.sent == 1
    """).end()

    assert users_of(emulator) == once(1)


def test_a_thread_that_tracks_holds_up_no_fork_and_no_child(begin, emulator):
    (said,) = begin("""
        tracker = Tracker(client, outbox, when_full="block", max_queued=100, close_timeout=60)
        tracked, enough = [], threading.Event()

        def go_on():
            while not enough.is_set():
                track(tracker, f"thread {len(tracked)}")
                tracked.append(1)

        track(tracker, "first")
        tracker.flush()
        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        for number in range(8):
            child = os.fork()
            if not child:
                signal.alarm(30)
                track(tracker, f"child {number}")
                # Of a file, it may be another process that sends it.
                os._exit(not tracker.close() and not outbox)
            assert os.waitpid(child, 0)[1] == 0, number
        enough.set()
        thread.join()
        note(len(tracked))
    """).end()

    expected = once("first", *(f"child {n}" for n in range(8)))
    assert users_of(emulator) == expected + once(*(f"thread {n}" for n in range(int(said))))


@pytest.mark.parametrize(
    ("outbox", "method"),
    [
        (outbox, method)
        for outbox, method in [
            ("memory", "fork"), ("file", "fork"), ("memory", "spawn"), ("file", "forkserver")
        ]
        if method in multiprocessing.get_all_start_methods()
    ],
    indirect=["outbox"],
)  # fmt: skip
def test_what_multiprocessing_begins_sends_what_it_tracked(begin, emulator, method):
    begin(f"""
        tracker = None

        def work(number):
            global tracker
            tracker = tracker or Tracker(client, outbox)
            track(tracker, *(f"{{number}} {{n}}" for n in range(20)))

        if __name__ == "__main__":
            context = multiprocessing.get_context("{method}")
            tracker = Tracker(client, outbox)
            track(tracker, "parent")
            processes = [context.Process(target=work, args=(number,)) for number in range(3)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0, 0]
    """).end()

    users = (f"{number} {n}" for number in range(3) for n in range(20))
    assert users_of(emulator) == once("parent", *users)


# Interrupted.


def test_a_handler_can_track_while_its_thread_does(begin, emulator):
    (said,) = begin("""
        handled, inside = [], []

        def handler(*_):
            # It can be interrupted by itself; on a slow machine, again and again.
            if len(inside) == 20:
                return
            inside.append(None)
            number = next(numbers)
            track(tracker, f"handler {number}")
            handled.append(number)
            inside.pop()

        numbers = itertools.count()

        signal.signal(signal.SIGALRM, handler)
        tracker = Tracker(client, outbox, close_timeout=60)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        track(tracker, *range(500))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        tracker.close()
        note(len(handled))
    """).end()

    assert int(said) > 0
    assert users_of(emulator) == once(*range(500), *(f"handler {n}" for n in range(int(said))))


def test_a_handler_can_flush_while_its_thread_tracks(begin, emulator):
    said = begin("""
        def handler(*_):
            note(tracker.flush(30))
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.005))

        signal.signal(signal.SIGALRM, handler)
        tracker = Tracker(client, outbox, concurrency=1, close_timeout=60)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        track(tracker, *range(300))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    """).end()

    assert set(said) == {"True"}
    assert users_of(emulator) == once(*range(300))


def test_a_handler_can_close_while_its_thread_tracks(begin, emulator):
    said = begin("""
        def on_error(event, error):
            note("lost", event.user_id)

        logging.disable()
        for number in range(20):
            tracker = Tracker(client, outbox, concurrency=1, close_timeout=30, on_error=on_error)
            handler = lambda *_: note("closed", tracker.close())
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.003))
            n = 0
            try:
                while True:
                    track(tracker, f"{number}-{n}")
                    note("tracked", f"{number}-{n}")
                    n += 1
            except Exception as error:
                # A file may have been closed while writing to it.
                assert isinstance(error, RuntimeError) or "closed" in str(error), error
    """).end()

    assert said.count("closed True") == 20
    tracked = [line.split()[1] for line in said if line.startswith("tracked")]
    lost = [line.split()[1] for line in said if line.startswith("lost")]
    # The one that was being tracked, of each.
    assert len(lost) <= 20
    assert set(tracked) - set(lost) <= users_of(emulator).keys()


def test_a_handler_that_ends_the_program_anywhere_loses_nothing(begin, emulator):
    said = begin("""
        # A child for each moment.
        for number in range(8):
            child = os.fork()
            if not child:
                tracker = Tracker(client, outbox, concurrency=2, close_timeout=15)
                signal.signal(signal.SIGALRM, lambda *_: sys.exit(0))
                n = 0
                if number % 2:
                    # On a slow machine, it would come before there is anything to lose.
                    track(tracker, f"{number}-{n}")
                    note(f"{number}-{n}")
                    n += 1
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.005))
                while True:
                    track(tracker, f"{number}-{n}")
                    note(f"{number}-{n}")
                    n += 1
            assert os.waitpid(child, 0)[1] == 0
    """).end()

    assert len(said) >= 4
    assert once(*said) - users_of(emulator) == Counter()


def test_what_the_collector_ends_can_track_wherever_that_is(begin, emulator):
    (said,) = begin("""
        class Ending:
            def __init__(self):
                self.itself = self

            def __del__(self):
                # In whatever thread the collector runs.
                number = next(numbers)
                track(tracker, f"ended {number}")
                ended.append(number)

        numbers, ended = itertools.count(), []
        tracker = Tracker(client, outbox, close_timeout=60)
        gc.set_threshold(7)
        for number in range(300):
            Ending()
            track(tracker, number)
        while len(ended) < 300:
            gc.collect()
        note(*sorted(ended))
    """).end()

    assert said == " ".join(map(str, range(300)))
    assert users_of(emulator) == once(*range(300), *(f"ended {n}" for n in range(300)))
