"""Events are sent in no context of those who track them, and what sending itself tracks is dropped.

A context is what `contextvars` holds: of a request that a server handles, of a span, of an event
that is being sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import json
import logging
import threading
import time

import anyio
import anyio.from_thread
import anyio.lowlevel
import httpx
import programs
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from intercom_data_events import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
LOGGER = "intercom_data_events"

REJECTION = {"type": "error.list", "errors": [{"code": "parameter_invalid", "message": "no"}]}

#: What a server keeps of the request that it handles.
REQUEST = contextvars.ContextVar("REQUEST", default=None)

each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


class Server(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Accepts events, or rejects all; notes in which context each is sent."""

    def __init__(self, status=202, seconds=0.0):
        self._answer = {202: httpx.Response(202)}.get(status, httpx.Response(400, json=REJECTION))
        self._seconds = seconds
        self.users = []
        self.contexts = []

    def _note(self, request):
        self.users.append(json.loads(request.content)["user_id"])
        self.contexts.append(REQUEST.get())
        return httpx.Response(self._answer.status_code, content=self._answer.content)

    def handle_request(self, request):
        return self._note(request)

    async def handle_async_request(self, request):
        # So that the others are in flight meanwhile.
        await anyio.sleep(self._seconds)
        return self._note(request)


def eventually(holds):
    """Waits until something is so."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.002)


def track(tracker, *users):
    for user in users:
        tracker.track("placed-order", user_id=str(user))


# on_error that tracks.


@each_event_loop
def test_an_async_on_error_is_called_for_what_it_tracked_itself(event_loop, outbox):
    most, called = 102, []

    async def main():
        reached = anyio.Event()

        async def on_error(event, error):
            called.append(event.user_id)
            # The first two are tracked below, and each of their successors by this.
            if len(called) <= most - 2:
                await tracker.track("placed-order", user_id=f"again {len(called)}")
                # As one that writes it down somewhere does.
                await anyio.sleep(0.001)
            if len(called) == most:
                reached.set()

        async with (
            AsyncDataEventsClient("token", transport=Server(400)) as client,
            AsyncTracker(client, outbox, on_error=on_error) as tracker,
        ):
            await tracker.track("placed-order", user_id="1")
            await tracker.track("placed-order", user_id="2")
            with anyio.move_on_after(PATIENCE / 4):
                await reached.wait()
            await tracker.flush(PATIENCE)
            return tracker.counters

    counters = anyio.run(main, backend=event_loop)

    assert len(called) == most == len(set(called))
    assert (counters.refused, counters.dropped, counters.queued) == (most, 0, 0)


def test_on_error_is_called_for_what_it_tracked_itself(outbox):
    most, called = 102, []

    def on_error(event, error):
        called.append(event.user_id)
        if len(called) <= most - 2:
            track(tracker, f"again {len(called)}")

    with (
        DataEventsClient("token", transport=Server(400)) as client,
        Tracker(client, outbox, on_error=on_error) as tracker,
    ):
        track(tracker, 1, 2)
        eventually(lambda: len(called) == most)
        assert tracker.flush(PATIENCE)
        counters = tracker.counters

    assert len(called) == most == len(set(called))
    assert (counters.refused, counters.dropped, counters.queued) == (most, 0, 0)


# In whose context it is sent.


@each_event_loop
@pytest.mark.parametrize("status", [202, 400])
def test_no_request_is_sent_in_the_context_of_a_task_that_tracks(event_loop, outbox, status):
    told, server = [], Server(status, seconds=0.001)

    def on_error(event, error):
        told.append(REQUEST.get())

    async def handle(tracker, number):
        REQUEST.set(number)
        await tracker.track("placed-order", user_id=str(number))
        await anyio.lowlevel.checkpoint()
        assert REQUEST.get() == number

    async def main():
        REQUEST.set("start")
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client, outbox, concurrency=5, on_error=on_error) as tracker,
        ):
            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(handle, tracker, number)
            REQUEST.set("flushes")
            assert await tracker.flush(PATIENCE)
            REQUEST.set("closes")

    anyio.run(main, backend=event_loop)

    assert sorted(map(int, server.users)) == list(range(40))
    assert set(server.contexts) == {None}
    assert told == [None] * (40 if status == 400 else 0)


@pytest.mark.parametrize("status", [202, 400])
def test_no_request_is_sent_in_the_context_of_a_thread_that_tracks(outbox, status):
    told, server = [], Server(status)

    def on_error(event, error):
        told.append(REQUEST.get())

    def handle(number):
        REQUEST.set(number)
        track(tracker, number)
        assert tracker.flush(PATIENCE)
        assert REQUEST.get() == number

    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox, on_error=on_error) as tracker,
    ):
        for number in range(10):
            contextvars.Context().run(handle, number)

    assert sorted(map(int, server.users)) == list(range(10))
    assert set(server.contexts) == {None}
    assert told == [None] * (10 if status == 400 else 0)


@pytest.mark.processes
def test_nor_where_threads_inherit_the_context_of_who_starts_them(tmp_path, monkeypatch):
    """As those of free-threaded Python do from 3.14 on; before, this asks for nothing."""
    monkeypatch.setitem(programs.UNMEASURED, "PYTHON_THREAD_INHERIT_CONTEXT", "1")
    script = """
        import contextvars, httpx

        REQUEST = contextvars.ContextVar("REQUEST", default=None)

        class Server(httpx.BaseTransport):
            def handle_request(self, request):
                note(REQUEST.get())
                return httpx.Response(202)

        client = DataEventsClient("token", transport=Server())
        tracker = Tracker(client)
        REQUEST.set("mine")
        track(tracker, *range(10))
        tracker.flush(10)
        tracker.close(10)
    """
    with programs.Program(script, "http://127.0.0.1:9", None, tmp_path) as program:
        assert program.end() == ["None"] * 10


@pytest.fixture
def spans():
    """The spans of all that is sent with httpx, and a tracer for spans around it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    yield exporter, provider.get_tracer("test")
    instrumentor.uninstrument()


@each_event_loop
def test_no_request_is_part_of_a_span_of_who_tracks(event_loop, spans):
    exporter, tracer = spans

    async def handle(tracker, number):
        with tracer.start_as_current_span("request"):
            await tracker.track("placed-order", user_id=str(number))
            await anyio.lowlevel.checkpoint()

    async def main(url):
        with tracer.start_as_current_span("request"):
            async with (
                AsyncDataEventsClient("token", base_url=url) as client,
                AsyncTracker(client) as tracker,
                anyio.create_task_group() as group,
            ):
                for number in range(10):
                    group.start_soon(handle, tracker, number)

    with Emulator().serve() as url:
        anyio.run(main, url, backend=event_loop)

    sent = [span for span in exporter.get_finished_spans() if span.name != "request"]
    assert len(sent) == 10
    assert [span.parent for span in sent] == [None] * 10


# A log handler that tracks.


#: For each of its own, the most that one line of the application may have sent; and so many lines
#: that there is no end to them.
FEW, MANY = 3, 300


class TrackingHandler(logging.Handler):
    """Tracks each line that is logged."""

    def __init__(self, track):
        super().__init__(logging.INFO)
        self.lines = []
        self._track = track

    def emit(self, record):
        # As one does who does not think of what is logged by this very call.
        self.lines.append((record.name, record.levelname, record.getMessage()))
        if len(self.lines) < MANY:
            self._track()

    def own(self, containing):
        """The lines of the package that contain something."""
        return [line for name, _, line in self.lines if name == LOGGER and containing in line]


@pytest.fixture
def handling(monkeypatch):
    """Has everything that is logged tracked, also what httpx says of each request."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", logging.INFO)
    monkeypatch.setattr(logging.getLogger("httpx"), "level", logging.INFO)
    monkeypatch.setattr(logging.getLogger(LOGGER), "level", logging.INFO)
    logging.Logger.manager._clear_cache()

    @contextlib.contextmanager
    def handle(track):
        handler = TrackingHandler(track)
        root.addHandler(handler)
        try:
            yield handler
        finally:
            root.removeHandler(handler)

    yield handle
    logging.Logger.manager._clear_cache()


@pytest.mark.parametrize("status", [202, 400])
def test_a_line_is_tracked_and_not_what_sending_it_logs(handling, outbox, status):
    server, told = Server(status), []
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox, on_error=lambda *given: told.append(given)) as tracker,
        handling(functools.partial(track, tracker, "logged")) as handler,
    ):
        logging.getLogger("app").info("something happened")
        # Whatever follows from it is over after so many; endless is more than that.
        for _ in range(20):
            assert tracker.flush(PATIENCE)
        counters = tracker.counters

    assert ("app", "INFO", "something happened") in handler.lines
    assert 1 <= len(server.users) <= FEW
    assert counters.sent + counters.refused == len(server.users)
    assert counters.dropped >= 1
    # What httpx says of each request, and what the package says itself.
    assert any(name == "httpx" for name, _, _ in handler.lines)
    assert len(handler.own("dropped")) == 1
    assert len(handler.lines) <= 5 * FEW


def test_many_lines_are_tracked_each_and_what_was_dropped_is_said_once(handling, outbox):
    server = Server()
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox) as tracker,
        handling(functools.partial(track, tracker, "logged")) as handler,
    ):
        for number in range(50):
            logging.getLogger("app").info("line %d", number)
        for _ in range(20):
            assert tracker.flush(PATIENCE)
        counters = tracker.counters

    assert 50 <= counters.sent == len(server.users) <= 50 + FEW
    assert counters.dropped >= 50
    assert len(handler.own("dropped")) == 1


def test_what_a_transport_tracks_is_dropped_and_counted_and_said_once(outbox, caplog):
    """A context of a caller's own, such as a span, is no context of sending."""
    told = []

    class Tracking(Server):
        def handle_request(self, request):
            track(tracker, "from inside")
            return super().handle_request(request)

    server = Tracking()
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox, on_error=lambda *given: told.append(given)) as tracker,
    ):
        track(tracker, *range(5))
        assert tracker.flush(PATIENCE)
        assert tracker.flush(PATIENCE)
        counters = tracker.counters

    assert sorted(server.users) == list("01234")
    assert (counters.sent, counters.dropped) == (5, 5)
    assert len([one for one in caplog.records if "dropped" in one.getMessage()]) == 1


@each_event_loop
@pytest.mark.parametrize("status", [202, 400])
def test_with_tasks_a_line_is_tracked_and_not_what_sending_it_logs(handling, event_loop, status):
    server = Server(status)

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client) as tracker,
            anyio.create_task_group() as group,
        ):
            tasks = []

            async def track_line():
                await tracker.track("placed-order", user_id="logged")
                tasks.append("ended")

            def handle():
                tasks.append("begun")
                group.start_soon(track_line)

            with handling(handle) as handler:
                logging.getLogger("app").info("something happened")
                for _ in range(20):
                    await anyio.wait_all_tasks_blocked()
                    assert await tracker.flush(PATIENCE)
            await anyio.wait_all_tasks_blocked()
            return handler, tracker.counters

    handler, counters = anyio.run(main, backend=event_loop)

    assert 1 <= len(server.users) <= FEW
    assert counters.sent + counters.refused == len(server.users)
    assert counters.dropped >= 1
    assert len(handler.own("dropped")) == 1


def test_what_an_async_transport_tracks_is_dropped_and_counted(outbox):
    class Tracking(Server):
        async def handle_async_request(self, request):
            await tracker.track("placed-order", user_id="from inside")
            return await super().handle_async_request(request)

    server = Tracking()

    async def main():
        nonlocal tracker
        async with (
            AsyncDataEventsClient("token", transport=server) as client,
            AsyncTracker(client, outbox) as tracker,
        ):
            for number in range(5):
                await tracker.track("placed-order", user_id=str(number))
            with anyio.move_on_after(PATIENCE / 4):
                assert await tracker.flush()
                assert await tracker.flush()
            return tracker.counters

    tracker = None
    counters = asyncio.run(main())

    assert sorted(server.users) == list("01234")
    assert (counters.sent, counters.dropped) == (5, 5)


def test_what_another_thread_tracks_meanwhile_is_not_dropped(outbox):
    entered, go_on = threading.Event(), threading.Event()

    class Waiting(Server):
        def handle_request(self, request):
            entered.set()
            go_on.wait(PATIENCE)
            return super().handle_request(request)

    server = Waiting()
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox) as tracker,
    ):
        track(tracker, 1)
        assert entered.wait(PATIENCE)
        track(tracker, 2)
        go_on.set()
        assert tracker.flush(PATIENCE)
        assert tracker.counters.dropped == 0

    assert sorted(server.users) == ["1", "2"]
