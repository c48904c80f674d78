"""What is tracked has one owner: `track`, `flush` and `close` can be called from anywhere.

From finalizers while threads are being born, from `on_error`, from the code that sends, from signal
handlers, and from many threads at once. Each event for which `track` returned is sent, or handed to
`on_error`, or stays in the outbox.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import anyio
import finalizers
import httpx
import pytest
from children import Child
from programs import UNMEASURED, Program

from intercom_data_events import AsyncDataEventsClient, Clock, DataEventsClient, QueueFullError
from intercom_data_events import tracker as tracker_module
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import AsyncTracker, Tracker

pytestmark = [
    pytest.mark.ends,
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
LOGGER = "intercom_data_events"
PACKAGE = str(Path(tracker_module.__file__).parent)

REJECTION = {"type": "error.list", "errors": [{"code": "parameter_invalid", "message": "no"}]}


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


in_memory = pytest.mark.parametrize("outbox", ["memory"], indirect=True)


class Server(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Accepts events, and rejects those of users called "rejected …".

    It calls `inside` first, with each user, where a hook or a transport of the caller's runs.
    """

    def __init__(self, inside=None):
        self.inside = inside
        self.users = []

    @property
    def accepted(self):
        return [user for user in self.users if not user.startswith("rejected")]

    def _answer(self, user):
        self.users.append(user)
        if user.startswith("rejected"):
            return httpx.Response(400, json=REJECTION)
        return httpx.Response(202)

    def handle_request(self, request):
        user = json.loads(request.content)["user_id"]
        if self.inside is not None:
            self.inside(user)
        return self._answer(user)

    async def handle_async_request(self, request):
        user = json.loads(request.content)["user_id"]
        if self.inside is not None:
            await self.inside(user)
        return self._answer(user)


class Held(Server):
    """Answers no request before it is told to."""

    def __init__(self):
        super().__init__(lambda user: self.told.wait(PATIENCE))
        self.told = threading.Event()


class Given:
    """What `on_error` was called with."""

    def __init__(self):
        self.all = []

    def __call__(self, event, error):
        self.all.append((event.user_id, error))

    @property
    def users(self):
        return [user for user, _ in self.all]


def eventually(holds):
    """Waits until something is so."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.002)


def track(tracker, *users):
    for user in users:
        tracker.track("placed-order", user_id=str(user))


def done(function):
    """What a function returns in a child process, which is killed where it is stuck."""
    said = Child(function).said(PATIENCE)
    assert "returned" in said, said
    return said["returned"]


def in_threads(*functions):
    """Runs functions at once, and waits for all, which are to end without an error."""
    errors = []

    def run(function):
        barrier.wait(PATIENCE)
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # told below
            errors.append(error)

    barrier = threading.Barrier(len(functions))
    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not errors, errors
    assert not any(thread.is_alive() for thread in threads), "a thread is stuck"


def left_in(outbox):
    """The users whose events wait in an outbox, if there is one."""
    if outbox is None:
        return []
    with contextlib.closing(Outbox(outbox)) as box:
        return [fields["user_id"] for fields in box.waiting()]


# Finalizers.


@pytest.mark.costly
@pytest.mark.parametrize(("kind", "rounds"), [("track", 5), ("flush", 5), ("close", 15)])
def test_finalizers_can_use_a_tracker_while_threads_are_born(outbox, kind, rounds):
    """In whatever thread the collector runs them; `tests/endurance/finalizers.py` says how."""
    options = ["--rounds", str(rounds), "--only", kind, "--patience", str(PATIENCE)]
    if outbox is not None:
        options += ["--outbox", str(outbox)]
    program = subprocess.run(
        [sys.executable, finalizers.__file__, *options],
        capture_output=True, text=True, env=UNMEASURED, check=False,
    )  # fmt: skip

    assert program.returncode == 0, program.stdout + program.stderr
    counted = json.loads(program.stdout)
    assert counted["rounds"] == rounds
    assert counted["tracked"] > 200
    assert counted["missing"] <= counted["dropped"]


# What on_error may do.


class HandlerError(Exception):
    pass


def use_of(tracker, doing):
    """What an `on_error` does."""

    def fail(error):
        raise error

    return {
        "track": lambda number: track(tracker, f"again {number}"),
        "flush": lambda number: tracker.flush(1),
        "raise": lambda number: fail(HandlerError(number)),
        "exit": lambda number: fail(SystemExit(number)),
        "interrupt": lambda number: fail(KeyboardInterrupt(number)),
    }[doing]


@pytest.mark.parametrize("doing", ["track", "flush", "raise", "exit", "interrupt"])
def test_whatever_on_error_does_all_is_sent_and_told(outbox, doing):
    def use():
        server, called = Server(), []

        def on_error(event, error):
            try:
                use_of(tracker, doing)(len(called) + 1)
            finally:
                called.append(event.user_id)

        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox, concurrency=1, on_error=on_error)
            track(tracker, *(f"rejected {n}" for n in range(3)), *range(3))
            # Without anybody asking for it, such as a flush.
            eventually(lambda: len(called) == 3 and len(server.accepted) >= 3)
            flushed = [tracker.flush(PATIENCE), tracker.flush(PATIENCE)]
            track(tracker, "rejected later", "later")
            eventually(lambda: len(called) == 4)
            return [sorted(called), flushed, tracker.close(PATIENCE), sorted(server.accepted)]

    again = [f"again {n}" for n in range(1, 5)] if doing == "track" else []
    assert done(use) == [
        ["rejected 0", "rejected 1", "rejected 2", "rejected later"],
        [True, True],
        True,
        sorted(["0", "1", "2", "later", *again]),
    ]


@pytest.mark.parametrize("error", [HandlerError("told"), SystemExit("told")], ids=repr)
def test_an_on_error_that_fails_is_logged_each_time(caplog, error):
    def on_error(event, cause):
        raise error

    with (
        DataEventsClient("token", transport=Server()) as client,
        Tracker(client, on_error=on_error) as tracker,
    ):
        track(tracker, "rejected 1", "rejected 2")
        assert tracker.flush(PATIENCE)

    said = [record for record in caplog.records if "on_error failed" in record.getMessage()]
    assert len(said) == 2
    assert {record.levelno for record in said} == {logging.ERROR}


def test_an_on_error_that_blocks_keeps_nothing_from_being_sent(outbox):
    server, given, entered, go_on = Server(), Given(), threading.Event(), threading.Event()

    def on_error(event, error):
        given(event, error)
        entered.set()
        go_on.wait(PATIENCE)

    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox, concurrency=1, on_error=on_error) as tracker,
    ):
        track(tracker, "rejected 1", "rejected 2")
        assert entered.wait(PATIENCE)
        track(tracker, *range(10))
        try:
            eventually(lambda: len(server.accepted) == 10)
            assert given.users == ["rejected 1"]
        finally:
            go_on.set()

    assert given.users == ["rejected 1", "rejected 2"]


def test_an_on_error_that_never_returns_keeps_closing_no_longer_than_it_may(outbox):
    def use():
        entered, never = threading.Event(), threading.Event()

        def on_error(event, error):
            entered.set()
            never.wait()

        with DataEventsClient("token", transport=Server()) as client:
            tracker = Tracker(client, outbox, on_error=on_error)
            track(tracker, "rejected 1", "rejected 2")
            entered.wait(PATIENCE)
            begin = time.monotonic()
            return [tracker.close(0.2), time.monotonic() - begin < PATIENCE / 2]

    # Two calls of on_error have not ended.
    assert done(use) == [False, True]


def test_on_error_can_close_while_another_thread_tracks(outbox):
    def use():
        server, given = Server(), Given()

        def on_error(event, error):
            given(event, error)
            if not event.user_id.startswith("late"):
                tracker.close(PATIENCE / 2)

        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox, concurrency=2, on_error=on_error)
            taken = ["rejected"]
            track(tracker, "rejected")
            try:
                for number in itertools.count():
                    track(tracker, f"late {number}")
                    taken.append(f"late {number}")
            except RuntimeError as error:
                closed = "closed" in str(error)
            tracker.close(PATIENCE / 2)
        lost = set(taken) - {*server.users, *given.users, *left_in(outbox)}
        return [closed, sorted(lost)]

    assert done(use) == [True, []]


# The code that sends.


@pytest.mark.parametrize("doing", ["flush", "close"])
def test_a_transport_that_flushes_or_closes_does_not_wait_for_itself(outbox, doing):
    def use():
        results, seconds, tracked = [], [], threading.Event()

        def inside(user):
            if user == "first":
                tracked.wait(PATIENCE)
                begin = time.monotonic()
                results.append(getattr(tracker, doing)())
                seconds.append(time.monotonic() - begin)

        server = Server(inside)
        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox, concurrency=1, close_timeout=PATIENCE / 2)
            track(tracker, "first", "second")
            tracked.set()
            eventually(lambda: "second" in server.users)
            closed = tracker.close()
        return [results, max(seconds) < 1, closed, server.users]

    assert done(use) == [[False], True, True, ["first", "second"]]


def test_a_hook_and_a_token_function_that_flush_do_not_wait_for_themselves():
    def use():
        results = []

        def flush(*_):
            results.append(tracker.flush())

        def token():
            flush()
            return "token"

        server = Server()
        with (
            httpx.Client(transport=server, event_hooks={"request": [flush]}) as http,
            DataEventsClient(token, http_client=http) as client,
        ):
            tracker = Tracker(client, concurrency=1)
            track(tracker, "first")
            eventually(lambda: server.users)
            return [set(results) == {False}, len(results) >= 2, tracker.close(PATIENCE)]

    assert done(use) == [True, True, True]


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
@pytest.mark.parametrize("doing", ["flush", "aclose"])
def test_an_async_transport_that_flushes_or_closes_does_not_wait_for_itself(event_loop, doing):
    async def main():
        results, tracked, sent = [], anyio.Event(), anyio.Event()

        async def inside(user):
            if user == "first":
                await tracked.wait()
                results.append(await getattr(tracker, doing)())
            else:
                sent.set()

        server = Server(inside)
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client, concurrency=1, close_timeout=PATIENCE / 2) as tracker,
        ):
            await tracker.track("placed-order", user_id="first")
            await tracker.track("placed-order", user_id="second")
            tracked.set()
            with anyio.fail_after(PATIENCE / 4):
                await sent.wait()
        return [results, server.users]

    assert done(lambda: anyio.run(main, backend=event_loop)) == [[False], ["first", "second"]]


# Many threads.


@pytest.mark.costly
def test_what_is_tracked_while_another_thread_closes_is_sent_or_told_or_an_error(outbox):
    def use():
        lost, wrong, taken_late = [], [], 0
        for round_ in range(4):
            server, given, taken, rejected = Server(), Given(), [], []
            closing = threading.Event()

            def hammer(number):
                for n in itertools.count():
                    user = f"{round_} {number} {n}"  # noqa: B023  # ends within the round
                    late = closing.is_set()  # noqa: B023
                    try:
                        track(tracker, user)  # noqa: B023
                    except RuntimeError:
                        rejected.append(user)  # noqa: B023
                        return
                    taken.append((user, late))  # noqa: B023

            def close():
                eventually(lambda: len(taken) > 20 * round_)  # noqa: B023
                closing.set()  # noqa: B023
                tracker.close(PATIENCE)  # noqa: B023

            with DataEventsClient("token", transport=server) as client:
                tracker = Tracker(client, outbox, on_error=given, concurrency=4)
                in_threads(close, *(functools.partial(hammer, n) for n in range(4)))
                tracker.close(PATIENCE)
                counters = tracker.counters
            users = {user for user, _ in taken}
            taken_late += sum(late for _, late in taken)
            left = left_in(outbox)
            lost += users - {*server.users, *given.users, *left}
            # Once each, and nothing of what was an error.
            wrong += [user for user, n in Counter(server.users).items() if n > 1]
            wrong += {*server.users, *given.users} & set(rejected) if outbox is None else set()
            wrong += set(given.users) & set(server.users)
            if outbox is None and counters.sent + counters.dropped != len(users):
                wrong.append(f"{counters} of {len(users)}")
        return [lost, wrong]

    assert done(use) == [[], []]


@pytest.mark.costly
def test_several_threads_track_flush_and_close_at_once(outbox):
    def use():
        said = []
        for round_ in range(8):
            server, given, taken, flushed, closed = Server(), Given(), [], [], []

            def hammer(number):
                with contextlib.suppress(RuntimeError):
                    for n in range(30):
                        user = f"{round_} {number} {n}"  # noqa: B023  # ends within the round
                        track(tracker, user)  # noqa: B023
                        taken.append(user)  # noqa: B023

            def flush():
                flushed.extend(tracker.flush(PATIENCE / 2) for _ in range(5))  # noqa: B023

            def close():
                eventually(lambda: len(taken) >= 30)  # noqa: B023
                closed.append(tracker.close(PATIENCE / 2))  # noqa: B023

            with DataEventsClient("token", transport=server) as client:
                tracker = Tracker(client, outbox, on_error=given, concurrency=4)
                in_threads(
                    flush, flush, close, close, close, hammer_of(hammer, 0), hammer_of(hammer, 1)
                )
                closed.append(tracker.close())
            lost = set(taken) - {*server.users, *given.users, *left_in(outbox)}
            said.append([sorted(lost), set(flushed) == {True}, closed == [True] * 4])
        return said

    assert done(use) == [[[], True, True]] * 8


class Slow:
    """Uses a tracker in a thread of its own, which is held before one line of the tracker's code.

    Args:
        use: What it does.
        line: Before which of all lines that it runs.
    """

    def __init__(self, use, line):
        self._left = line
        self._reached, self._freed = threading.Event(), threading.Event()
        self._use = use
        self.is_held = self.has_returned = False
        self.returned = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._reached.wait(PATIENCE)

    def _run(self):
        sys.settrace(self._trace)
        try:
            self.returned = self._use()
            self.has_returned = True
        except RuntimeError:
            pass
        finally:
            sys.settrace(None)
            self._reached.set()

    def _trace(self, frame, kind, _):
        if PACKAGE not in frame.f_code.co_filename:
            return None
        if kind == "line":
            self._left -= 1
            if self._left < 0:
                sys.settrace(None)
                self.is_held = True
                self._reached.set()
                self._freed.wait(PATIENCE)
                return None
        return self._trace

    def go_on(self):
        self._freed.set()
        self._thread.join(PATIENCE)


@in_memory
def test_a_first_track_that_is_slow_at_any_line_cuts_no_close_short(outbox):
    def use_at(line):
        server, given, tracked, closed = Held(), Given(), [], []
        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox, on_error=given)
            slow = Slow(functools.partial(track, tracker, "slow"), line)
            closing = threading.Thread(target=lambda: closed.append(tracker.close(PATIENCE)))
            for number in itertools.count():
                try:
                    track(tracker, number)
                except RuntimeError:
                    break
                tracked.append(str(number))
                if number == 1:
                    closing.start()
            slow.go_on()
            server.told.set()
            closing.join(PATIENCE)
        # The slow one may come too late to be sent.
        late = slow.has_returned and "slow" not in server.users
        is_good = (
            closed == [True] and set(tracked) <= {*server.users} and given.users == ["slow"] * late
        )
        return slow.is_held, None if is_good else [line, closed, tracked, server.users, given.users]

    def use():
        for line in itertools.count():
            is_held, wrong = use_at(line)
            if wrong is not None or not is_held:
                return [line > 100, wrong]
        return None

    assert done(use) == [True, None]


@in_memory
def test_a_close_that_has_no_time_and_is_slow_at_any_line_says_that_events_are_lost(outbox):
    def use_at(line):
        server = Held()
        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox)
            track(tracker, "lost")
            slow = Slow(functools.partial(tracker.close, 0), line)
            # Meanwhile, the dispatcher gives the event up, if the slow thread has told it to.
            ends = time.monotonic() + 0.02
            while slow.is_held and not tracker.counters.dropped and time.monotonic() < ends:
                time.sleep(0.001)
            slow.go_on()
            dropped = tracker.counters.dropped
            server.told.set()
        return slow.is_held, slow.returned is False and dropped == 1

    def use():
        for line in itertools.count():
            is_held, is_good = use_at(line)
            if not is_good or not is_held:
                return [line > 20, is_good]
        return None

    assert done(use) == [True, True]


def hammer_of(hammer, number):
    return functools.partial(hammer, number)


@pytest.mark.parametrize("when_full", ["drop", "raise", "block"])
def test_as_many_wait_as_may_and_not_one_more_whatever_number_of_threads_tracks(outbox, when_full):
    most, threads, each = 100, 8, 50
    server, given, raised, returned = Held(), Given(), [], []

    def use(number):
        for n in range(each):
            try:
                track(tracker, f"{number} {n}")
            except QueueFullError:
                raised.append(n)
            else:
                returned.append(n)

    uses = [functools.partial(use, number) for number in range(threads)]
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(
            client, outbox, max_queued=most, when_full=when_full, on_error=given, concurrency=3
        ) as tracker,
    ):
        dropped = threads * each - most
        if when_full == "block":
            running = threading.Thread(target=in_threads, args=uses)
            running.start()
            eventually(lambda: len(returned) == most)
            # All the others wait, and room for three is room for three.
            running.join(0.1)
            assert running.is_alive()
            assert tracker.counters.queued == most == len(returned)
            server.told.set()
            running.join(PATIENCE)
            assert not running.is_alive()
            dropped = 0
        else:
            in_threads(*uses)
            assert tracker.counters.queued == most
            assert tracker.counters.dropped == dropped
        server.told.set()
        assert tracker.flush(PATIENCE)
        # There is room for as many again.
        server.told.clear()
        sent = len(server.users)
        before = len(given.users), len(raised)
        more = threading.Thread(target=track, args=(tracker, *range(most)))
        more.start()
        more.join(PATIENCE)
        assert not more.is_alive()
        assert (len(given.users), len(raised)) == before
        server.told.set()

    assert sent == threads * each - dropped
    assert len(server.users) == sent + most
    assert len(given.users) == (dropped if when_full == "drop" else 0)
    assert len(raised) == (dropped if when_full == "raise" else 0)


# Signals.


@pytest.fixture
def begin(outbox, tmp_path):
    """Begins a program that sends to an emulator; it is killed with the test."""
    emulator = Emulator(rate_limit=None)
    with emulator.serve() as url, contextlib.ExitStack() as programs:
        begin = lambda script: programs.enter_context(Program(script, url, outbox, tmp_path))  # noqa: E731
        yield begin, emulator


@pytest.mark.costly
@pytest.mark.parametrize("main", ["track", "flush", "close"])
def test_a_handler_can_do_anything_while_the_main_thread_does(begin, outbox, main):
    program, emulator = begin
    said = program(f"""
        def on_error(event, error):
            note("told", event.user_id)

        def handler(*_):
            # It can be interrupted by itself; on a slow machine, again and again.
            if len(inside) < 3:
                inside.append(None)
                doing = source.choice(["track"] * 6 + ["flush", "flush", "close"])
                if doing == "track":
                    use(f"{{number}} handler {{next(numbers)}}")
                elif doing == "flush":
                    tracker.flush(0.02)
                elif number % 2:
                    tracker.close(5)
                inside.pop()

        def use(user):
            try:
                track(tracker, user)
            except RuntimeError as error:
                note("closed", user)
            else:
                note("tracked", user)

        logging.disable()
        source, inside, numbers = random.Random(7), [], itertools.count()
        signal.signal(signal.SIGALRM, handler)
        for number in range(8):
            tracker = Tracker(client, outbox, concurrency=2, close_timeout=30, on_error=on_error)
            use(f"{{number}} first")
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
            for n in range(40):
                if "{main}" == "track":
                    use(f"{{number}} main {{n}}")
                elif "{main}" == "flush":
                    use(f"{{number}} main {{n}}")
                    tracker.flush(0.01)
            if "{main}" == "close":
                for n in range(40):
                    use(f"{{number}} main {{n}}")
                tracker.close(20)
            signal.setitimer(signal.ITIMER_REAL, 0)
            closed = tracker.close(20)
            note("end", number, closed, tracker.counters.dropped)
    """).end()

    words = [line.split(" ", 1) for line in said]
    by = {kind: {rest for word, rest in words if word == kind} for kind in ("tracked", "told")}
    ends = [line.split() for line in said if line.startswith("end")]
    assert len(ends) == 8
    sent = {event.user_id for event in emulator.events}
    assert len(by["tracked"]) > 100
    lost = by["tracked"] - sent - by["told"] - set(left_in(outbox))
    assert sorted(lost) == []


# The exit.


@in_memory
@pytest.mark.parametrize("number", [3, 50])
@pytest.mark.parametrize("when", ["before the end", "at the end"])
def test_what_a_server_that_hangs_leaves_at_the_exit_is_told(begin, number, when):
    program, emulator = begin
    emulator._faults = itertools.repeat(Fault.slow(3600, processed=False))
    tracking = f"track(tracker, *range({number}))"
    if when == "at the end":
        tracking = f"atexit.register(lambda: {tracking})"
    said = program(f"""
        def on_error(event, error):
            note(event.user_id, type(error).__name__)

        tracker = Tracker(client, close_timeout=0.3, on_error=on_error)
        {tracking}
    """).end(errors=f"{number} events could not be sent before the tracker was closed\n")

    assert sorted(said) == sorted(f"{n} NotSentError" for n in range(number))


# How busy it is.


class Counting(Clock):
    """The system's clock, which counts how often dispatchers' threads ask for the time."""

    def __init__(self):
        self.asked = 0

    def monotonic(self):
        self.asked += threading.current_thread().name.endswith("dispatcher")
        return super().monotonic()


def test_the_dispatcher_does_not_ask_again_and_again_while_a_worker_takes_its_turn(tmp_path):
    """A worker whose answer came runs the dispatcher, and waits for another program's lock."""
    clock, held, asked = Counting(), threading.Event(), threading.Semaphore(0)

    def answer(request):
        asked.release()
        assert held.wait(PATIENCE)
        return httpx.Response(202)

    transport = httpx.MockTransport(answer)
    with (
        DataEventsClient("token", transport=transport, clock=clock) as client,
        Tracker(client, tmp_path / "outbox.db") as tracker,
    ):
        # Each goes a while after the one before, as none is answered: something is always due.
        for number in range(20):
            tracker.track("placed-order", user_id=str(number))
        for _ in range(3):
            assert asked.acquire(timeout=PATIENCE)
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            held.set()
            before = clock.asked
            # Real time, as SQLite waits in it. Without a wait, thousands are asked.
            assert not threading.Event().wait(0.4)
            assert clock.asked - before < 200
            other.execute("ROLLBACK")
        assert tracker.flush(PATIENCE)
        assert tracker.counters.sent == 20
