"""Faults of trackers that reviews found, and that stay fixed."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import json
import logging
import math
import pickle
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
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from programs import Program
from simulation import NOT_FOUND, simulated, track, until
from trackers import every_tracker, opened, unusable

from intercom_data_events import (
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    NotFoundError,
)
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
        await track(run, "before")
        await anyio.sleep(11)
        # So many at once that 429 begins a pause, which is over before the window is.
        await track(run, *range(30))
        await until(lambda: run.tracker.counters.sent == 31)

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
    assert len(lines(caplog, "sending resumed with")) == 1


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
    (line,) = lines(caplog, "could not be sent")
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


# Events that are not tracked.


class TrackingServer(Server):
    """Tracks an event for each request, as an instrumented transport may; accepts all."""

    def __init__(self):
        super().__init__()
        self.tracker = None

    def handle_request(self, request):
        if self.tracker is not None:
            self.tracker.track("was-sent", user_id="2")
        return super().handle_request(request)

    async def handle_async_request(self, request):
        if self.tracker is not None:
            await self.tracker.track("was-sent", user_id="2")
        return super().handle_request(request)


def leave_out(event):
    return None


def fail(event):
    raise ValueError("it is wrong")


@every_tracker
@pytest.mark.parametrize("prepare", [leave_out, fail])
def test_what_is_dropped_because_something_is_being_sent_is_not_prepared(backend, prepare):
    server, told, prepared = TrackingServer(), [], []

    def before_send(event):
        prepared.append(event.event_name)
        return prepare(event) if event.event_name == "was-sent" else event

    def on_error(event, error):
        told.append(event)

    with opened(backend, server, before_send=before_send, on_error=on_error) as tracker:
        server.tracker = getattr(tracker, "_tracker", tracker)
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(PATIENCE)
        counters = tracker.counters

    assert prepared == ["placed-order"]
    assert (counters.sent, counters.dropped, counters.filtered) == (1, 1, 0)
    assert told == []


@every_tracker
@pytest.mark.parametrize("prepare", [leave_out, fail])
def test_tracking_with_a_closed_tracker_is_an_error_whatever_before_send_does(backend, prepare):
    told = []
    with opened(
        backend, Server(), before_send=prepare, on_error=lambda event, _: told.append(event)
    ) as tracker:
        tracker.track("placed-order", user_id="1")
        tracker.close()
        before = tracker.counters, list(told)
        with pytest.raises(RuntimeError, match="closed"):
            tracker.track("placed-order", user_id="2")
        assert (tracker.counters, told) == before


# What one event leaves to the next.

said = contextvars.ContextVar("said", default=None)


class Saying(Server):
    """Notes what the context of each request says, and says something in it."""

    def __init__(self):
        super().__init__()
        self.heard = []

    def handle_request(self, request):
        self.heard.append(said.get())
        said.set("something")
        return super().handle_request(request)


@every_tracker
def test_each_event_is_sent_in_an_empty_context_whatever_the_one_before_did(backend):
    server, number = Saying(), 30
    with opened(backend, server, concurrency=2) as tracker:
        for user in range(number):
            tracker.track("placed-order", user_id=str(user))
        assert tracker.flush(PATIENCE)

    assert server.heard == [None] * number


@pytest.mark.parametrize(
    ("backend", "kind"),
    [("blocking", "plain")]
    + [(backend, kind) for backend in ("asyncio", "trio") for kind in ("plain", "async")],
)
def test_on_error_is_called_in_an_empty_context_whatever_the_call_before_did(backend, kind):
    heard, number = [], 5

    def note(event, error):
        heard.append(said.get())
        said.set("something")

    async def note_later(event, error):
        await anyio.lowlevel.checkpoint()
        note(event, error)

    on_error = note_later if kind == "async" else note
    with opened(backend, Server(), on_error=on_error) as tracker:
        for user in range(number):
            tracker.track("placed-order", user_id=f"rejected {user}")
        assert tracker.flush(PATIENCE)

    assert heard == [None] * number


@each_event_loop
def test_a_call_of_on_error_is_not_cut_short_at_once_where_closing_has_no_time(event_loop):
    told = []

    async def on_error(event, error):
        await anyio.sleep(0.01)
        told.append(event.user_id)

    async def main():
        async with AsyncDataEventsClient("token", transport=Silent()) as client:
            tracker = AsyncTracker(client, on_error=on_error, close_timeout=0)
            async with tracker:
                for number in range(5):
                    await tracker.track("placed-order", user_id=str(number))

    run_in_no_time(main, event_loop)

    assert told == list("01234")


# Code of the caller's that fails in other ways.


class Failing(logging.Handler):
    """A handler that raises an exception itself, as handlers should not."""

    def emit(self, record):
        if record.name == LOGGER and record.levelno >= logging.WARNING:
            raise OSError("the disk is full")


@pytest.fixture
def failing_lines():
    handler = Failing()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@every_tracker
def test_a_log_handler_that_fails_ends_nothing(backend, failing_lines, capsys):
    server, told = Server(), []
    with opened(backend, server, on_error=lambda event, _: told.append(event.user_id)) as tracker:
        for number in range(3):
            for user in (f"rejected {number}", f"accepted {number}"):
                tracker.track("placed-order", user_id=user)
            assert tracker.flush(PATIENCE)

    assert sorted(told) == [f"rejected {number}" for number in range(3)]
    assert sorted(server.users) == sorted(
        f"{kind} {n}" for kind in ("accepted", "rejected") for n in range(3)
    )
    assert "the disk is full" in capsys.readouterr().err


def test_closing_tells_of_all_that_is_left_although_a_log_handler_fails(failing_lines, threads):
    told = []

    class Hanging(httpx.BaseTransport):
        def handle_request(self, request):
            raise httpx.ReadTimeout("no answer")

    threads.are_refused = True
    with DataEventsClient("token", transport=Hanging(), max_retries=0) as client:
        tracker = Tracker(client, on_error=lambda event, _: told.append(event.user_id))
        for number in range(5):
            tracker.track("placed-order", user_id=str(number))
        assert not tracker.close(0.1)

    assert sorted(told) == list("01234")


class Cancelled(Server):
    """Awaits what another task cancelled, for the first request."""

    async def handle_async_request(self, request):
        if not self.users:
            self.users.append("cancelled")
            await await_a_cancelled_task()
        return await super().handle_async_request(request)


class Exiting(Server):
    async def handle_async_request(self, request):
        if not self.users:
            self.users.append("exited")
            sys.exit(1)
        return await super().handle_async_request(request)


@pytest.mark.parametrize("kind", [Cancelled, Exiting])
def test_an_async_transport_that_raises_what_ends_tasks_ends_nothing(kind, caplog):
    server, told = kind(), []

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client, on_error=lambda event, _: told.append(event)) as tracker,
        ):
            for user in "123":
                await tracker.track("placed-order", user_id=user)
            assert await tracker.flush(PATIENCE)
            await tracker.track("placed-order", user_id="4")
            assert await tracker.flush(PATIENCE)
            return tracker.counters

    counters = asyncio.run(main())

    assert sorted(server.users[1:]) == list("1234")
    assert (counters.sent, counters.failing) == (4, None)
    assert told == []


@each_event_loop
@pytest.mark.parametrize("waits", [False, True])
def test_where_the_event_loop_ends_before_the_tracker_an_async_on_error_is_told(event_loop, waits):
    told = []

    async def on_error(event, error):
        if waits:
            await anyio.sleep(0.001)
        told.append(event.user_id)

    async def main():
        client = AsyncDataEventsClient("token", transport=Silent())
        tracker = AsyncTracker(client, concurrency=2, on_error=on_error)
        await tracker.__aenter__()
        for number in range(5):
            await tracker.track("placed-order", user_id=str(number))

    anyio.run(main, backend=event_loop)

    assert sorted(told) == list("01234")


# Pickles.


def test_a_pickle_holds_the_metadata_that_the_tracker_adds(monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
    emulator = Emulator()
    with emulator.serve() as url, DataEventsClient(base_url=url) as client:
        given = {"release": "1"}
        for user, metadata in (("1", given), ("2", types.MappingProxyType({"release": "1"}))):
            with Tracker(client, metadata=metadata) as tracker:
                given["release"] = "2"
                copy = pickle.dumps(tracker)
            with pickle.loads(copy) as other:
                other.track("placed-order", user_id=user)

    assert [dict(event.metadata) for event in emulator.events] == [{"release": "1"}] * 2


class Service:
    """Has its own tracker, which calls its method."""

    def __init__(self, client):
        self.tracker = Tracker(client, on_error=self.lost)

    def lost(self, event, error):
        pass


def test_a_tracker_whose_on_error_refers_to_it_says_in_few_words_that_it_cannot_be_pickled():
    with DataEventsClient("token") as client, pytest.raises(TypeError, match="on_error") as raised:
        pickle.dumps(Service(client))

    assert len(str(raised.value)) < 500


# Metrics.


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider
    provider.shutdown()


def gauges(reader):
    """The values of the tracker's gauges."""
    return {
        metric.name.rpartition(".")[2]: [point.value for point in metric.data.data_points]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


class Unavailable(httpx.BaseTransport):
    def handle_request(self, request):
        return httpx.Response(503)


class Refusing(AnyMeterProvider):
    """Makes no meter the first time."""

    def __init__(self, provider):
        self.provider = provider
        self.is_asked = False

    def get_meter(self, *arguments, **options):
        if not self.is_asked:
            self.is_asked = True
            raise OSError("no meter")
        return self.provider.get_meter(*arguments, **options)


def test_a_tracker_that_cannot_be_made_begins_nothing(provider, threads, tmp_path):
    path = tmp_path / "outbox"
    with DataEventsClient("token", transport=Unavailable()) as client:
        with Tracker(client, path, close_timeout=0) as tracker:
            tracker.track("placed-order", user_id="1")
        before = threads.started
        for wrong, error in ((object(), ConfigurationError), (Refusing(provider), OSError)):
            with pytest.raises(error):
                Tracker(client, path, meter_provider=wrong)
        assert threads.started == before


def test_a_provider_that_failed_once_shows_the_next_tracker(provider, reader):
    refusing = Refusing(provider)
    with DataEventsClient("token", transport=Server()) as client:
        with pytest.raises(OSError, match="no meter"):
            Tracker(client, meter_provider=refusing)
        with Tracker(client, meter_provider=refusing) as tracker:
            tracker.track("placed-order", user_id="1")
            assert tracker.flush(PATIENCE)
            assert gauges(reader)["sent"] == [1]


def test_a_closed_tracker_shows_no_old_values_of_a_file_that_another_uses(
    provider, reader, tmp_path
):
    server = Server()
    with DataEventsClient("token", transport=Unavailable(), max_retries=0) as away:
        closed = Tracker(away, tmp_path / "outbox", workspace="w", meter_provider=provider)
        for user in "123":
            closed.track("placed-order", user_id=user)
        closed.flush(0.1)
        closed.close(0)
    assert gauges(reader)["queued"] == [3]
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, tmp_path / "outbox", workspace="w", meter_provider=provider) as tracker,
    ):
        assert tracker.flush(PATIENCE)
        now = gauges(reader)

    assert (now["queued"], now["failing"]) == ([0], [0])
    assert closed.counters.queued == 3


# Processes.


@pytest.mark.processes
@pytest.mark.parametrize("place", ["transport", "on_error"])
def test_a_process_that_is_forked_where_something_is_sent_or_told_sends_its_own(place, tmp_path):
    script = f"""
        import httpx, json

        class Forking(httpx.BaseTransport):
            def handle_request(self, request):
                user = json.loads(request.content)["user_id"]
                if user == "first":
                    fork("transport")
                    errors = {{"type": "error.list", "errors": [{{"code": "parameter_invalid"}}]}}
                    return httpx.Response(400, json=errors)
                note("sent", user)
                return httpx.Response(202)

        def fork(place):
            if place == "{place}":
                child = multiprocessing.get_context("fork").Process(target=work)
                child.start()
                child.join()
                note("ended", child.exitcode)

        def work():
            track(tracker, "child")
            note("flushed", tracker.flush({PATIENCE}))

        logging.disable()
        tracker = Tracker(
            DataEventsClient("token", transport=Forking()),
            on_error=lambda event, error: fork("on_error"),
        )
        track(tracker, "first")
        tracker.flush()
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        assert program.end() == ["sent child", "flushed True", "ended 0"]


@pytest.mark.processes
def test_what_a_close_in_on_error_left_is_told_before_the_program_ends(tmp_path):
    script = """
        import httpx, json

        closed = threading.Event()

        class Hanging(httpx.BaseTransport):
            def handle_request(self, request):
                if json.loads(request.content)["user_id"] == "first":
                    errors = {"type": "error.list", "errors": [{"code": "parameter_invalid"}]}
                    return httpx.Response(400, json=errors)
                threading.Event().wait()

        def on_error(event, error):
            if event.user_id == "first":
                tracker.close(0)
                closed.set()
            threading.Event().wait(0.002)  # As it takes to write down what is lost.
            note(event.user_id)

        logging.disable()
        tracker = Tracker(
            DataEventsClient("token", transport=Hanging()), concurrency=1, on_error=on_error
        )
        track(tracker, "first", *range(100))
        closed.wait()
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        told = program.end()

    assert sorted(told) == sorted(["first", *map(str, range(100))])


@pytest.mark.processes
@pytest.mark.parametrize("outage", ["passes", "stays"])
def test_a_handler_that_ends_the_program_while_it_ends_loses_nothing_silently(outage, tmp_path):
    script = f"""
        import httpx, json

        begun, ending, signalled = threading.Event(), threading.Event(), threading.Event()

        class Slow(httpx.BaseTransport):
            def handle_request(self, request):
                begun.set()
                ending.wait()
                if not signalled.is_set():
                    threading.Event().wait(0.1)  # So the tracker is being closed.
                    os.kill(os.getpid(), signal.SIGTERM)
                    signalled.wait()
                if "{outage}" == "stays":
                    threading.Event().wait()
                threading.Event().wait(0.05)
                note("sent", json.loads(request.content)["user_id"])
                return httpx.Response(202)

        def end(*_):
            signalled.set()
            sys.exit(0)

        signal.signal(signal.SIGTERM, end)
        logging.disable()
        tracker = Tracker(
            DataEventsClient("token", transport=Slow()), concurrency=1, close_timeout=2,
            on_error=lambda event, error: note("told", event.user_id),
        )
        track(tracker, *range(5))
        begun.wait()  # At the exit, no thread might be started, and the main thread would send.
        atexit.register(ending.set)
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        ends = [line.split() for line in program.end()]

    assert sorted(user for _, user in ends) == list("01234")
    assert {end for end, _ in ends} == {"sent" if outage == "passes" else "told"}
    assert program.seconds < 2 + 5


# Clocks, and threads that tasks need.


def test_a_clock_that_is_set_back_holds_up_no_event_in_memory():
    known, seconds = [], []

    async def use(run):
        await track(run, "new")
        await until(lambda: run.server.attempts)
        run.clock.set_back(300)
        known.append("new")
        begin = anyio.current_time()
        await until(lambda: run.tracker.counters.sent)
        seconds.append(anyio.current_time() - begin)

    simulated(use, lambda event, now: None if known else NOT_FOUND)

    assert seconds[0] < 10


@each_event_loop
def test_an_outbox_is_opened_in_an_event_loop_where_no_thread_can_be_started(
    event_loop, threads, tmp_path
):
    server = Server()

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            threads.are_refused = True
            async with AsyncTracker(client, tmp_path / "outbox") as tracker:
                await tracker.track("placed-order", user_id="1")
                done = await tracker.flush(PATIENCE)
            threads.are_refused = False
            return done

    assert anyio.run(main, backend=event_loop)
    assert server.users == ["1"]


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("ending", ["loop.close()", "pass"])
def test_where_the_program_ends_without_closing_an_async_tracker_nothing_is_lost_silently(
    kind, ending, tmp_path
):
    script = f"""
        import anyio, asyncio, httpx, json
        from intercom_data_events import AsyncDataEventsClient
        from intercom_data_events.tracker import AsyncTracker

        class Slow(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request):
                await anyio.sleep(0.2)
                note("sent", json.loads(request.content)["user_id"])
                return httpx.Response(202)

        {kind} on_error(event, error):
            note("told", event.user_id)

        async def main():
            global tracker
            client = AsyncDataEventsClient("token", transport=Slow())
            tracker = AsyncTracker(client, concurrency=2, on_error=on_error)
            await tracker.__aenter__()
            for number in range(5):
                await tracker.track("placed-order", user_id=str(number))
            flushes.append(asyncio.create_task(tracker.flush()))
            await asyncio.sleep(0.01)

        flushes = []
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        {ending}
        logging.disable()
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        said = [line.split() for line in program.end()]

    assert sorted(user for _, user in said) == list("01234")
    assert {end for end, _ in said} == {"sent" if ending == "pass" else "told"}


@pytest.mark.parametrize("use", ["flush", "aclose"])
def test_waiting_in_another_event_loop_than_the_trackers_is_an_error_and_does_not_hang(use):
    server = Server()
    loop = asyncio.new_event_loop()

    async def enter():
        client = AsyncDataEventsClient("token", transport=server)
        tracker = await AsyncTracker(client).__aenter__()
        await tracker.track("placed-order", user_id="1")
        return tracker

    tracker = loop.run_until_complete(enter())

    async def wait_elsewhere():
        await asyncio.wait_for(getattr(tracker, use)(0.01), PATIENCE)

    with pytest.raises(RuntimeError, match="event loop in which it was entered"):
        asyncio.run(wait_elsewhere())
    assert loop.run_until_complete(tracker.aclose())
    loop.close()

    assert server.users == ["1"]


# Ctrl-C.


@pytest.mark.processes
@pytest.mark.parametrize("place", ["transport", "async on_error", "on_error"])
@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_an_interrupt_that_comes_as_a_task_of_the_tracker_runs_ends_the_program_alone(
    event_loop, place, tmp_path
):
    script = f"""
        import anyio, httpx, json
        from intercom_data_events import AsyncDataEventsClient
        from intercom_data_events.tracker import AsyncTracker

        interrupted = []

        def interrupt(place):
            if place == "{place}" and not interrupted:
                interrupted.append(place)
                signal.raise_signal(signal.SIGINT)

        class Server(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request):
                await tracked.wait()
                interrupt("transport")
                errors = {{"type": "error.list", "errors": [{{"code": "parameter_invalid"}}]}}
                return httpx.Response(400, json=errors)

        def on_error(event, error):
            interrupt("on_error")
            note(event.user_id, type(error).__name__)

        async def on_error_later(event, error):
            interrupt("async on_error")
            await anyio.sleep(0)
            on_error(event, error)

        async def main():
            global tracked
            tracked = anyio.Event()
            async with (
                AsyncDataEventsClient("token", transport=Server()) as client,
                AsyncTracker(
                    client, concurrency=1,
                    on_error=on_error_later if "{place}" == "async on_error" else on_error,
                ) as tracker,
            ):
                for number in range(5):
                    await tracker.track("placed-order", user_id=str(number))
                tracked.set()
                await anyio.sleep(60)

        logging.disable()
        try:
            anyio.run(main, backend="{event_loop}")
        except KeyboardInterrupt:
            note("ended")
    """
    with Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        said = program.end()

    assert said == [f"{number} BadRequestError" for number in range(5)] + ["ended"]
