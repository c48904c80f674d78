"""Faults of trackers that reviews found, and that stay fixed."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import json
import logging
import math
import sqlite3
import sys
import threading
import types
from collections import Counter

import anyio
import httpx
import pytest
from callers import NOW
from clocks import EventLoopClock, run_in_no_time
from programs import Program
from simulation import simulated, track, until

from intercom_data_events import AsyncDataEventsClient, DataEventsClient, NotFoundError
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
LOGGER = "intercom_data_events"

REJECTION = {"type": "error.list", "errors": [{"code": "parameter_invalid", "message": "no"}]}

each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])


class Server(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Rejects events of users called "rejected …", and accepts others; notes whose they are."""

    def __init__(self):
        self.users = []

    def handle_request(self, request):
        user = json.loads(request.content)["user_id"]
        self.users.append(user)
        if user.startswith("rejected"):
            return httpx.Response(400, json=REJECTION)
        return httpx.Response(202)

    async def handle_async_request(self, request):
        return self.handle_request(request)


class Silent(httpx.AsyncBaseTransport):
    """Never answers."""

    async def handle_async_request(self, request):
        await anyio.sleep_forever()


def lines(caplog, containing):
    """What the package logged."""
    return [
        record for record in caplog.records
        if record.name == LOGGER and containing in record.getMessage()
    ]  # fmt: skip


def locked(path):
    """Keeps others from writing to an outbox while it lasts."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return contextlib.closing(connection)


@contextlib.contextmanager
def unusable(path):
    """While it lasts, whatever is done with an outbox fails."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE events RENAME TO missing")
        try:
            yield
        finally:
            connection.execute("ALTER TABLE missing RENAME TO events")


# What events take from others.


@pytest.mark.parametrize(("fails", "seconds"), [(locked, 1), (unusable, 300)])
def test_events_that_cannot_be_claimed_take_no_quota(fails, seconds, tmp_path):
    path, quota = tmp_path / "outbox", 5

    async def main():
        clock = EventLoopClock(NOW)
        emulator = Emulator(clock=clock, rate_limit=quota)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        async with client, AsyncTracker(client, path) as tracker:
            await tracker.track("placed-order", user_id="1")
            with fails(path):
                await anyio.sleep(seconds)
            assert await tracker.flush()
            await anyio.sleep(20)
            # Those of one window, all of which the application has now.
            begin = anyio.current_time()
            with anyio.move_on_after(60):
                for number in range(quota):
                    await client.create("left", user_id=str(number))
            return anyio.current_time() - begin

    assert run_in_no_time(main, "asyncio") < 1


def test_events_of_unknown_contacts_that_exceed_the_quota_are_refused_after_a_while():
    # One attempt of each window is theirs; in all, they would need them for longer than 15 minutes.
    quota, window, unknown = 4, 10, [f"new {number}" for number in range(120)]

    async def use(run):
        await track(run, *unknown)
        await until(lambda: len(run.told) == len(unknown))

    run = simulated(
        use, emulator={"rate_limit": quota, "window": window, "contacts": []}, close_timeout=0,
        concurrency=1,
    )  # fmt: skip

    assert sorted(run.users_told.elements()) == sorted(unknown)
    assert {type(error) for _, error in run.told} == {NotFoundError}
    first = {}
    for one in run.server.attempts:
        first.setdefault(one.user, one.at)
    for (event, _), at in zip(run.told, run.told_at, strict=True):
        assert at - first[event.user_id] >= 120
    again = Counter(
        math.floor((NOW + one.at) / window)
        for one in run.server.attempts
        if one.at != first[one.user]
    )
    assert max(again.values()) <= quota / 4


def test_a_probe_that_waits_for_quota_lets_time_pass():
    """Otherwise the dispatcher would run step after step, until the window ends."""

    async def use(run):
        # So many at once that 429 begins a pause, which is over before the window is.
        await track(run, *range(30))
        await until(lambda: run.tracker.counters.sent == 30)

    run = simulated(use, emulator={"rate_limit": 4, "window": 10})

    assert run.emulator.counts.limited
    assert run.told == []


def test_an_outbox_that_is_locked_as_an_outage_ends_does_not_have_it_told_twice(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, logger=LOGGER)
    path, connect, back, attempts = tmp_path / "outbox", sqlite3.connect, 60, 5
    answered, refused = [], []

    def decide(event, now):
        if now < back:
            return 503, b""
        answered.append(event)
        return None

    with contextlib.closing(connect(path, isolation_level=None)) as other:

        def watch(statement):
            """Locks the file after the event is removed; unlocks it after a few attempts."""
            if not answered or len(refused) == attempts:
                return
            if statement.startswith("UPDATE" if not refused else ("DELETE", "UPDATE")):
                if not refused:
                    other.execute("BEGIN IMMEDIATE")
                refused.append(statement)
                if len(refused) == attempts:
                    other.rollback()

        def watched(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_trace_callback(watch)
            return connection

        monkeypatch.setattr(sqlite3, "connect", watched)

        async def use(run):
            await track(run, "1", "2", "3", "4")
            await until(lambda: run.tracker.counters.sent == 4)

        simulated(use, decide, outbox=path)

    assert len(refused) == attempts
    assert len(lines(caplog, "answers again")) == 1


# An on_error that does not do as it should.


@each_event_loop
def test_closing_takes_little_longer_than_it_may_where_on_error_does_not_end(event_loop):
    async def on_error(event, error):
        await anyio.sleep(3600)

    async def main():
        async with AsyncDataEventsClient("token", transport=Server()) as client:
            tracker = AsyncTracker(client, on_error=on_error, close_timeout=1)
            async with tracker:
                for number in range(3):
                    await tracker.track("placed-order", user_id=f"rejected {number}")
                begin = anyio.current_time()
                await tracker.aclose()
                return anyio.current_time() - begin

    assert run_in_no_time(main, event_loop) <= 1 + 2


async def await_a_cancelled_task():
    task = asyncio.create_task(asyncio.sleep(3600))
    task.cancel()
    await task


async def exit_the_program():
    sys.exit(1)


@pytest.mark.parametrize("fail", [await_a_cancelled_task, exit_the_program])
def test_an_async_on_error_that_raises_what_ends_tasks_is_logged_and_ends_nothing(fail, caplog):
    server, told = Server(), []

    async def on_error(event, error):
        told.append(event.user_id)
        if event.user_id == "rejected first":
            await fail()

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client, on_error=on_error) as tracker,
        ):
            await tracker.track("placed-order", user_id="rejected first")
            await tracker.flush(PATIENCE)
            for user in ("rejected later", "accepted"):
                await tracker.track("placed-order", user_id=user)
            assert await tracker.flush(PATIENCE)
            return tracker.counters

    counters = asyncio.run(main())

    assert told == ["rejected first", "rejected later"]
    assert server.users[-1] == "accepted"
    assert (counters.sent, counters.refused, counters.dropped) == (1, 2, 0)
    assert len(lines(caplog, "on_error failed")) == 1


@pytest.mark.parametrize("is_sending", [True, False])
def test_where_the_event_loop_ends_before_the_tracker_on_error_is_told(is_sending, caplog):
    told = []

    async def main():
        client = AsyncDataEventsClient("token", transport=Silent())
        tracker = AsyncTracker(
            client,
            concurrency=2 if is_sending else 10,
            on_error=lambda event, error: told.append(event.user_id),
        )
        await tracker.__aenter__()
        for number in range(5):
            await tracker.track("placed-order", user_id=str(number))
        if not is_sending:
            # The loop ends before the first step of the tracker's own task.
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    asyncio.run(main())

    assert sorted(told) == list("01234")
    (line,) = lines(caplog, "were not sent")
    assert line.levelno == logging.ERROR


class Tracking(logging.Handler):
    """Tracks each line that is logged, as long as the tracker is open and a test is not stuck."""

    MOST = 40

    def __init__(self):
        super().__init__()
        self.tracker = None
        self.tracked = 0

    def emit(self, record):
        if self.tracker is not None and self.tracked < self.MOST:
            self.tracked += 1
            self.tracker.track("logged", user_id=f"rejected {self.tracked}")


@pytest.fixture
def tracking_lines(caplog):
    """A handler of the root logger, which handles all lines from level INFO on."""
    caplog.set_level(logging.INFO)
    handler = Tracking()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def flush_often(tracker):
    """Waits for events, for those that these have tracked, and so on."""
    for _ in range(Tracking.MOST):
        assert tracker.flush(PATIENCE)


def test_a_failing_on_error_whose_line_is_tracked_has_few_events_sent(tracking_lines, caplog):
    server = Server()

    def on_error(event, error):
        raise ValueError("on_error is wrong")

    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, on_error=on_error) as tracker,
    ):
        tracking_lines.tracker = tracker
        tracker.track("placed-order", user_id="rejected")
        flush_often(tracker)
        tracking_lines.tracker = None

    assert len(lines(caplog, "on_error failed")) >= 1
    assert len(server.users) <= 3


# Threads.


class Threads:
    """Counts the threads that are started, or refuses them."""

    #: Each way to start one, of all Pythons.
    WAYS = (
        (_thread, "start_new_thread"),
        (_thread, "start_joinable_thread"),
        (threading, "_start_new_thread"),
        (threading, "_start_joinable_thread"),
    )

    def __init__(self, monkeypatch):
        self.started = 0
        self.are_refused = False
        for module, name in self.WAYS:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, start):
        def start_counted(*arguments, **options):
            if self.are_refused:
                raise RuntimeError("can't start new thread")
            self.started += 1
            return start(*arguments, **options)

        return start_counted


@pytest.fixture
def threads(monkeypatch):
    return Threads(monkeypatch)


def test_a_thread_that_assists_sends_few_events_of_lines_that_are_tracked(threads, tracking_lines):
    class Logging(Server):
        def handle_request(self, request):
            logging.getLogger("application").warning("a request is sent")
            return super().handle_request(request)

    server = Logging()
    threads.are_refused = True
    with DataEventsClient("token", transport=server) as client, Tracker(client) as tracker:
        tracking_lines.tracker = tracker
        tracker.track("placed-order", user_id="1")
        flush_often(tracker)
        tracking_lines.tracker = None
        threads.are_refused = False

    assert tracking_lines.tracked >= 1
    assert len(server.users) <= 3


def test_many_events_that_closing_loses_are_told_by_few_threads(threads):
    told, number, let_go = [], 5_000, threading.Event()

    class Held(httpx.BaseTransport):
        def handle_request(self, request):
            let_go.wait(PATIENCE)
            return httpx.Response(202)

    with DataEventsClient("token", transport=Held()) as client:
        tracker = Tracker(
            client, concurrency=1, max_queued=number, on_error=lambda event, _: told.append(event)
        )
        for user in range(number):
            tracker.track("placed-order", user_id=str(user))
        before = threads.started
        assert not tracker.close(0)
        started = threads.started - before
        let_go.set()

    assert len(told) == number
    assert started <= 10


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_no_thread_is_started_where_uwsgi_loads_the_application(
    kind, threads, tmp_path, monkeypatch
):
    uwsgi = types.SimpleNamespace(worker_id=lambda: 0, mule_id=lambda: 0, opt={})
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    server, told = Server(), []
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(
            client,
            tmp_path / "outbox" if kind == "file" else None,
            on_error=lambda event, error: told.append(event.user_id),
        ) as tracker,
    ):
        for user in ("1", "2", "rejected"):
            tracker.track("placed-order", user_id=user)
        assert tracker.flush(PATIENCE)
        assert threads.started == 0

    assert sorted(server.users) == ["1", "2", "rejected"]
    assert told == ["rejected"]


# Ends of programs.


@pytest.mark.processes
@pytest.mark.parametrize("answers", [True, False])
def test_what_a_close_in_a_transport_left_is_sent_or_told_as_the_program_ends(answers, tmp_path):
    script = f"""
        import httpx, json

        closed = threading.Event()

        class Closing(httpx.BaseTransport):
            def handle_request(self, request):
                user = json.loads(request.content)["user_id"]
                if not closed.is_set():
                    tracker.close()
                    closed.set()
                elif not {answers}:
                    threading.Event().wait()
                threading.Event().wait(0.05)  # As a server takes its time.
                note("sent", user)
                return httpx.Response(202)

        logging.disable()
        tracker = Tracker(
            DataEventsClient("token", transport=Closing()), concurrency=1, close_timeout=0.5,
            on_error=lambda event, error: note("told", event.user_id),
        )
        track(tracker, *range(5))
        closed.wait()
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        ends = [line.split() for line in program.end()]

    assert sorted(user for _, user in ends) == list("01234")
    assert sum(end == "sent" for end, _ in ends) == (5 if answers else 1)
