"""Recording events: `track` returns at once, everything arrives, and whatever does not is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import logging
import math
import sqlite3
import sys
import threading
import time
from collections import Counter, defaultdict

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest
from callers import NOW, Answers, every_driver, threads_and_tasks
from clocks import EventLoopClock, SteppedClock, run_in_no_time
from trackers import unusable

from intercom_data_events import (
    AsyncDataEventsClient,
    AuthenticationError,
    Clock,
    ConfigurationError,
    DataEventsClient,
    Event,
    InvalidInputError,
    InvalidVersionError,
    NotFoundError,
    NotSentError,
    OutboxError,
    PermissionDeniedError,
    QueueFullError,
    UnprocessableEntityError,
)
from intercom_data_events.emulator import EmulatedContact, Emulator, Fault
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import AsyncTracker, Counters, Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
LOGGER = "intercom_data_events"


each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
#: With each kind of queue.
every_kind = pytest.mark.parametrize(
    ("backend", "outbox"),
    [("blocking", "memory"), ("blocking", "file"), ("asyncio", "file"), ("trio", "memory")],
    indirect=["outbox"],
)
each_kind_of_tasks = pytest.mark.parametrize(
    ("event_loop", "outbox"), [("asyncio", "file"), ("trio", "memory")], indirect=["outbox"]
)


class Blocking:
    """The methods of an async tracker, called from any thread."""

    def __init__(self, portal, tracker):
        self._portal = portal
        self.tracker = tracker

    def _call(self, method, *arguments, **fields):
        return self._portal.call(functools.partial(method, *arguments, **fields))

    def track(self, *arguments, **fields):
        self._call(self.tracker.track, *arguments, **fields)

    def track_event(self, event):
        self._call(self.tracker.track_event, event)

    def flush(self, timeout=None):
        return self._call(self.tracker.flush, timeout)

    def close(self, timeout=None):
        return self._call(self.tracker.aclose, timeout)

    @property
    def counters(self):
        return self._portal.call(lambda: self.tracker.counters)


class Tracking:
    """Makes trackers of one kind: ``with tracking(transport) as tracker``."""

    def __init__(self, backend):
        self.backend = backend

    @property
    def kinds(self):
        if self.backend == "blocking":
            return DataEventsClient, Tracker
        return AsyncDataEventsClient, AsyncTracker

    @contextlib.contextmanager
    def __call__(self, transport=None, outbox=None, *, token="token", client=(), **options):
        client = {"transport": transport, **dict(client)}
        # An emulator that knows no contact rejects events at once.
        options.setdefault("unknown_contact_patience", 0)
        kind, tracker_kind = self.kinds
        if self.backend == "blocking":
            with kind(token, **client) as made, tracker_kind(made, outbox, **options) as tracker:
                yield tracker
            return
        with anyio.from_thread.start_blocking_portal(self.backend) as portal:
            made = kind(token, **client)
            tracker = tracker_kind(made, outbox, **options)
            with portal.wrap_async_context_manager(tracker):
                yield Blocking(portal, tracker)
            portal.call(made.aclose)

    def on_error(self, function):
        """A function for `on_error` of either kind; called in a thread where it may block."""
        if self.backend == "blocking":
            return function

        async def awaited(event, error):
            await anyio.to_thread.run_sync(function, event, error)

        return awaited


@pytest.fixture
def tracking(backend):
    return Tracking(backend)


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


@pytest.fixture
def event_loop():
    return "asyncio"


class Given:
    """What `on_error` was called with."""

    def __init__(self):
        self.all = []

    def __call__(self, event, error):
        self.all.append((event, error))

    @property
    def users(self):
        return [event.user_id for event, _ in self.all]

    @property
    def errors(self):
        return [error for _, error in self.all]


class Held(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers once it is told to, of all users or of one; an emulator's answer, or of a status."""

    def __init__(self, status=202):
        self._status = status
        self._told = defaultdict(threading.Event)
        self._all = threading.Event()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._at_once = 0
        self.most_at_once = 0
        self.asked = []
        self.answered = []

    def wait_for(self, number):
        """Waits until so many requests have arrived."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.asked) >= number, PATIENCE)

    def let_go(self, user=None):
        if user is None:
            self._all.set()
            for told in list(self._told.values()):
                told.set()
        else:
            self._told[user].set()

    def handle_request(self, request):
        user = json.loads(request.content)["user_id"]
        with self._lock:
            self.asked.append(user)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._arrived.notify_all()
        told = self._told[user]
        if not self._all.is_set():
            told.wait(PATIENCE)
        with self._lock:
            self._at_once -= 1
            self.answered.append(user)
        return httpx.Response(self._status)

    async def handle_async_request(self, request):
        return await anyio.to_thread.run_sync(
            self.handle_request, request, abandon_on_cancel=True, limiter=_limiter()
        )


@functools.cache
def _limiters(_loop):
    return anyio.CapacityLimiter(1000)


def _limiter():
    return _limiters(anyio.lowlevel.current_token())


@pytest.fixture
def held():
    """A transport that holds requests back, at most until the test has ended."""
    with contextlib.ExitStack() as afterwards:

        def make(*arguments):
            transport = Held(*arguments)
            afterwards.callback(transport.let_go)
            return transport

        yield make


def eventually(holds):
    """Waits until something is so."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.002)


def track(tracker, *users, **fields):
    for user in users:
        tracker.track("placed-order", user_id=str(user), **fields)


def users_of(emulator):
    return sorted(event.user_id for event in emulator.events)


def lines(caplog, containing):
    return [record for record in caplog.records if containing in record.getMessage()]


# Taking in.


@every_kind
def test_what_is_tracked_arrives_as_it_was_given(tracking, emulator, outbox):
    with tracking(emulator.transport(), outbox) as tracker:
        tracker.track(
            "placed-order",
            user_id="314159",
            email="frodo@example.com",
            created_at=NOW - 60,
            metadata={"plan": "pro", "price": {"currency": "usd", "amount": 999}},
        )
        tracker.track("left", id="abc", metadata=dict.fromkeys("abcdefghijkl", 1),
                      drop_excess_metadata=True)  # fmt: skip

    first, second = sorted(emulator.requests, key=lambda request: len(request.json), reverse=True)
    assert first.json == {
        "event_name": "placed-order",
        "created_at": NOW - 60,
        "user_id": "314159",
        "email": "frodo@example.com",
        "metadata": {"plan": "pro", "price": {"currency": "usd", "amount": 999}},
    }
    assert second.json["id"] == "abc"
    assert list(second.json["metadata"]) == list("abcdefghij")


def test_an_event_that_was_made_before_can_be_tracked(tracking, emulator, outbox):
    event = Event("left", user_id="1", created_at=NOW)
    with tracking(emulator.transport(), outbox) as tracker:
        tracker.track_event(event)

    assert [request.json for request in emulator.requests] == [event.to_dict()]


def test_an_event_is_stamped_when_it_is_tracked_and_not_when_it_is_sent(tracking, outbox):
    clock = SteppedClock(NOW)
    emulator = Emulator(clock=clock, faults=[Fault.failing(503)])
    begun = int(time.time())
    with tracking(
        emulator.transport(), outbox, client={"clock": clock, "max_retries": 0}
    ) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.failing)
        tracked = time.time()
        clock.advance(86_400)
        assert tracker.flush(PATIENCE)

    first, second = (request.json for request in emulator.requests)
    assert first == second
    assert begun <= first["created_at"] <= tracked


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"event_name": "left"}, "has no contact: pass user_id, email or id"),
        ({"event_name": " ", "user_id": "1"}, "event_name"),
        ({"event_name": "left", "user_id": 1}, "user_id must be a string"),
        ({"event_name": "left", "user_id": "1", "created_at": "soon"}, "created_at"),
        ({"event_name": "left", "user_id": "1", "metadata": {"a": [1]}}, "metadata"),
    ],
    ids=str,
)
def test_what_intercom_would_refuse_is_an_error_at_once(tracking, emulator, fields, error):
    with tracking(emulator.transport()) as tracker:
        with pytest.raises(InvalidInputError, match=error):
            tracker.track(**fields)
        assert tracker.counters == Counters()

    assert not emulator.requests


@pytest.mark.parametrize("event", [None, "left", {"event_name": "left", "user_id": "1"}], ids=str)
def test_what_is_no_event_is_an_error_at_once(tracking, emulator, event):
    with (
        tracking(emulator.transport()) as tracker,
        pytest.raises(InvalidInputError, match="event must be an Event, not"),
    ):
        tracker.track_event(event)


@every_kind
def test_tracking_does_not_wait_for_a_server_that_does_not_answer(tracking, held, outbox):
    transport = held()
    with tracking(transport, outbox, concurrency=8) as tracker:
        track(tracker, *range(100))
        eventually(lambda: len(transport.asked) == 8)
        assert transport.answered == []
        assert tracker.counters.queued == 100
        transport.let_go()
        assert tracker.flush(PATIENCE)

    assert sorted(map(int, transport.answered)) == list(range(100))
    assert transport.most_at_once == 8


def test_everything_arrives_that_many_threads_track(tracking, emulator, outbox):
    with tracking(emulator.transport(), outbox) as tracker:
        threads = [
            threading.Thread(target=track, args=(tracker, *range(number, 200, 4)))
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(map(int, users_of(emulator))) == list(range(200))
    assert emulator.counts.requests == 200


# Settings.


@threads_and_tasks
def test_a_client_of_the_other_kind_is_refused(backend, tracking):
    other = AsyncDataEventsClient if backend == "blocking" else DataEventsClient
    with pytest.raises(ConfigurationError, match=r"client must be an? (Async)?DataEv"):
        tracking.kinds[1](other("token"))


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("outbox", [1, True, b"outbox"]),
        ("workspace", ["", 1]),
        ("concurrency", [0, -1, 1001, 2.0, "2", True, None]),
        ("max_queued", [0, -1, 1.5, "9", True]),
        ("when_full", ["wait", None, 1]),
        ("on_error", ["print", 1]),
        ("close_timeout", [-1, math.nan, "1", None, True]),
        ("unknown_contact_patience", [-1, math.nan, "1", None, True]),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(backend, tracking, setting, values):
    client = tracking.kinds[0]("token", transport=Answers(httpx.Response(202)))
    for value in values:
        with pytest.raises(ConfigurationError, match=f"^{setting} must be "):
            tracking.kinds[1](client, **{setting: value})


def test_an_async_on_error_is_for_the_async_tracker():
    async def on_error(event, error):
        pass

    with (
        DataEventsClient("token") as client,
        pytest.raises(ConfigurationError, match="on_error must not be an async function"),
    ):
        Tracker(client, on_error=on_error)


@threads_and_tasks
def test_a_disabled_client_checks_and_counts_and_sends_nothing(tracking, emulator, tmp_path):
    path = tmp_path / "outbox"
    with Tracking("blocking")(Answers(httpx.Response(401)), path, close_timeout=0) as tracker:
        track(tracker, "earlier")

    with tracking(outbox=path, client={"enabled": False}) as tracker:
        track(tracker, 1, 2)
        with pytest.raises(InvalidInputError):
            tracker.track("left")
        assert tracker.flush(PATIENCE)
        assert tracker.counters == Counters(sent=2)

    with contextlib.closing(Outbox(path)) as box:
        assert [fields["user_id"] for fields in box.waiting()] == ["earlier"]


# A full queue.


@every_kind
def test_what_finds_no_room_is_dropped_and_told(tracking, held, outbox, caplog):
    transport, given, number = held(), Given(), 5
    with tracking(transport, outbox, concurrency=1, max_queued=3, on_error=given) as tracker:
        track(tracker, *range(3 + number))
        assert tracker.counters.dropped == number
        assert tracker.counters.queued == 3
        transport.let_go()

    assert sorted(transport.answered) == ["0", "1", "2"]
    assert given.users == [str(3 + n) for n in range(number)]
    assert {type(error) for error in given.errors} == {QueueFullError}
    assert "max_queued=" in str(given.errors[0])
    assert not given.errors[0].may_have_been_processed
    told = [record.args[-1] for record in lines(caplog, "dropped so far")]
    assert told == [1, 2, 4]


@every_kind
def test_where_that_is_asked_for_it_is_an_error(tracking, held, outbox):
    transport, given = held(), Given()
    with tracking(transport, outbox, max_queued=1, when_full="raise", on_error=given) as tracker:
        track(tracker, 1)
        with pytest.raises(QueueFullError, match=r"the queue is full \(1 event\)"):
            track(tracker, 2)
        assert tracker.counters.dropped == 1
        transport.let_go()

    assert transport.answered == ["1"]
    assert given.all == []


@every_kind
def test_where_that_is_asked_for_it_waits_for_room(tracking, held, outbox):
    transport = held()
    with tracking(transport, outbox, concurrency=1, max_queued=2, when_full="block") as tracker:
        track(tracker, 1, 2)
        blocked = threading.Thread(target=track, args=(tracker, 3))
        blocked.start()
        eventually(lambda: transport.asked == ["1"])
        blocked.join(0.05)
        assert blocked.is_alive()
        transport.let_go("1")
        blocked.join(PATIENCE)
        assert not blocked.is_alive()
        transport.let_go()

    assert transport.answered == ["1", "2", "3"]


@every_kind
def test_who_waits_for_room_is_told_when_the_tracker_is_closed(tracking, held, outbox):
    transport, raised = held(), []

    def blocked():
        with pytest.raises(RuntimeError, match="the tracker is closed") as caught:
            track(tracker, 2)
        raised.append(caught.value)

    with tracking(transport, outbox, max_queued=1, when_full="block") as tracker:
        track(tracker, 1)
        thread = threading.Thread(target=blocked)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        closing = threading.Thread(target=tracker.close, args=(PATIENCE,))
        closing.start()
        thread.join(PATIENCE / 2)
        assert raised
        # What is queued is sent nevertheless.
        assert closing.is_alive()
        transport.let_go()
        closing.join(PATIENCE)

    assert transport.answered == ["1"]


# Flushing.


@every_kind
def test_a_flush_waits_until_everything_has_arrived(tracking, emulator, outbox):
    with tracking(emulator.transport(), outbox) as tracker:
        assert tracker.flush()
        track(tracker, *range(30))
        assert tracker.flush(PATIENCE)
        assert emulator.counts.stored == 30
        assert tracker.counters == Counters(sent=30)
        assert tracker.flush(0)


@every_kind
def test_a_flush_waits_no_longer_than_it_may(tracking, held, outbox):
    transport = held()
    with tracking(transport, outbox) as tracker:
        track(tracker, 1)
        assert not tracker.flush(0.05)
        assert tracker.counters.queued == 1
        transport.let_go()

    assert transport.answered == ["1"]


@every_kind
def test_a_flush_does_not_wait_for_what_is_tracked_after_it_began(tracking, held, outbox):
    transport = held()
    with tracking(transport, outbox) as tracker:
        track(tracker, "before")
        flushed = []
        thread = threading.Thread(target=lambda: flushed.append(tracker.flush(PATIENCE)))
        thread.start()
        eventually(lambda: transport.asked)
        thread.join(0.05)
        track(tracker, "after")
        transport.let_go("before")
        thread.join(PATIENCE)
        assert flushed == [True]
        assert transport.answered == ["before"]
        transport.let_go()


@every_kind
def test_several_can_flush_at_once(tracking, held, outbox):
    transport = held()
    with tracking(transport, outbox) as tracker:
        track(tracker, *range(10))
        flushed = []
        threads = [
            threading.Thread(target=lambda: flushed.append(tracker.flush(PATIENCE)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        transport.let_go()
        for thread in threads:
            thread.join(PATIENCE)

    assert flushed == [True] * 4


def test_a_flush_sends_at_once_what_was_held_back(tracking, outbox):
    clock = SteppedClock(NOW)
    emulator = Emulator(clock=clock, faults=[Fault.failing(503)])
    with tracking(
        emulator.transport(), outbox, client={"clock": clock, "max_retries": 0}
    ) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.failing)
        assert tracker.counters.queued == 1
        assert tracker.flush(PATIENCE)
        assert tracker.counters.failing is None

    assert users_of(emulator) == ["1"]


@pytest.mark.parametrize(
    ("backend", "outbox", "doing", "concurrency"),
    [
        ("blocking", "memory", "flush", 1),
        ("blocking", "file", "flush", 2),
        ("blocking", "memory", "close", 2),
        ("blocking", "file", "close", 1),
        ("asyncio", "memory", "flush", 1),
        ("asyncio", "file", "close", 1),
        ("trio", "memory", "close", 2),
    ],
    indirect=["outbox"],
)
def test_on_error_can_flush_and_close(tracking, outbox, doing, concurrency):
    emulator = Emulator(contacts=[EmulatedContact(user_id=str(n)) for n in range(10)])
    tracked, done = threading.Event(), []

    def on_error(event, error):
        tracked.wait(PATIENCE)
        done.append(getattr(tracker, doing)(PATIENCE))

    async def awaited(event, error):
        await anyio.to_thread.run_sync(tracked.wait, PATIENCE)
        done.append(await getattr(tracker.tracker, doing.replace("close", "aclose"))(PATIENCE))

    on_error = on_error if tracking.backend == "blocking" else awaited
    with tracking(
        emulator.transport(), outbox, concurrency=concurrency, on_error=on_error
    ) as tracker:
        track(tracker, "nobody", *range(10))
        tracked.set()
        eventually(lambda: done)

    assert done == [True]
    assert len(emulator.events) == 10


@every_kind
def test_a_flush_has_on_error_called_before_it_returns(tracking, outbox):
    let_go, called = threading.Event(), []

    def on_error(event, error):
        let_go.wait(PATIENCE)
        called.append(event)

    with tracking(
        Emulator(contacts=[]).transport(), outbox, on_error=tracking.on_error(on_error)
    ) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.refused)
        assert not tracker.flush(0.05)
        let_go.set()
        assert tracker.flush(PATIENCE)
        assert called


# Closing.


@every_kind
def test_closing_sends_what_is_queued(tracking, emulator, outbox):
    with tracking(emulator.transport(), outbox) as tracker:
        track(tracker, *range(100))
        assert tracker.close()
        assert emulator.counts.stored == 100
        assert tracker.close()
        with pytest.raises(RuntimeError, match="the tracker is closed; create a new one"):
            track(tracker, 1)
        assert tracker.flush()
        assert tracker.counters == Counters(sent=100)


@threads_and_tasks
def test_closing_what_was_never_used_is_nothing(tracking, emulator):
    with tracking(emulator.transport()) as tracker:
        assert tracker.close()
        assert tracker.counters == Counters()
        with pytest.raises(RuntimeError, match="the tracker is closed"):
            track(tracker, 1)


@every_driver
def test_what_is_left_in_memory_is_told_and_counted(tracking, held, caplog):
    transport, given = held(), Given()
    with tracking(transport, concurrency=1, on_error=given) as tracker:
        track(tracker, "begun", "waiting", "behind")
        eventually(lambda: transport.asked)
        assert not tracker.close(0.05)
        assert not tracker.close(), "what was lost stays lost"
        assert not tracker.flush()
        assert tracker.counters == Counters(dropped=3)
        transport.let_go()

    assert transport.answered[:1] in ([], ["begun"])
    assert given.users == ["begun", "waiting", "behind"]
    assert {type(error) for error in given.errors} == {NotSentError}
    assert [error.may_have_been_processed for error in given.errors] == [True, False, False]
    (line,) = lines(caplog, "3 events could not be sent")
    assert line.levelno == logging.ERROR


@pytest.mark.parametrize(
    ("answer", "possibly"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ReadError("cut off"), True),
        (httpx.Response(503), True),
        (httpx.Response(429), False),
        (httpx.Response(401), False),
    ],
    ids=str,
)
def test_what_is_left_says_whether_it_may_have_arrived(tracking, answer, possibly):
    given, transport = Given(), Answers(answer)
    client = {"max_retries": 0, "clock": SteppedClock(NOW)}
    with tracking(transport, client=client, on_error=given) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.failing)
        tracker.close(0)

    assert [error.may_have_been_processed for error in given.errors] == [possibly]


@threads_and_tasks
def test_what_is_left_in_a_file_is_sent_by_the_next(tracking, held, emulator, tmp_path):
    transport, given = held(), Given()
    with tracking(transport, tmp_path / "outbox", concurrency=1, on_error=given) as tracker:
        track(tracker, "begun", "waiting", "behind")
        eventually(lambda: transport.asked)
        assert not tracker.close(0.05)
        assert tracker.counters.queued == 3
        transport.let_go()
    assert given.all == []
    answered = set(transport.answered)
    eventually(lambda: answered | set(transport.answered) >= {"begun"} or not transport.asked)

    with tracking(emulator.transport(), tmp_path / "outbox") as tracker:
        assert tracker.flush(PATIENCE)

    # What had been answered after all need not be sent again.
    assert set(users_of(emulator)) | {"begun"} == {"begun", "waiting", "behind"}


@threads_and_tasks
def test_closing_does_not_wait_while_intercom_is_away_for_what_a_file_keeps(tracking, tmp_path):
    transport = Answers(httpx.ConnectError("no route"))
    begun = time.monotonic()
    with tracking(
        transport, tmp_path / "outbox", close_timeout=60, client={"max_retries": 0}
    ) as tracker:
        track(tracker, *range(50))

    assert time.monotonic() - begun < 5
    with contextlib.closing(Outbox(tmp_path / "outbox")) as box:
        assert box.status().queued == 50


@threads_and_tasks
def test_nor_for_answers_that_do_not_come_then(tracking, tmp_path, held):
    transport = held()

    class PartlyAway(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request):
            if b"away" in request.content:
                raise httpx.ConnectError("no route")
            return transport.handle_request(request)

        async def handle_async_request(self, request):
            if b"away" in request.content:
                raise httpx.ConnectError("no route")
            return await transport.handle_async_request(request)

    begun = time.monotonic()
    with tracking(
        PartlyAway(), tmp_path / "outbox", close_timeout=60, client={"max_retries": 0}
    ) as tracker:
        track(tracker, "hanging", "away 1", "away 2", "away 3")
        eventually(lambda: transport.asked)

    assert time.monotonic() - begun < 5


@threads_and_tasks
def test_closing_does_not_wait_for_what_another_process_is_sending(tracking, held, tmp_path):
    transport = held()
    with Tracking("blocking")(transport, tmp_path / "outbox") as other:
        track(other, 1)
        eventually(lambda: transport.asked)
        begun = time.monotonic()
        with tracking(Answers(httpx.Response(202)), tmp_path / "outbox", close_timeout=60):
            pass
        assert time.monotonic() - begun < 5
        transport.let_go()


@every_driver
def test_two_that_close_at_once_tell_of_what_is_left_once(tracking, held):
    given, closed = Given(), []
    with tracking(held(), on_error=given) as tracker:
        track(tracker, 1, 2, 3)
        threads = [
            threading.Thread(target=lambda: closed.append(tracker.close(0.1))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

    assert closed == [False, False]
    assert sorted(given.users) == ["1", "2", "3"]


@every_kind
def test_closing_waits_for_on_error(tracking, outbox):
    let_go, called = threading.Event(), []

    def on_error(event, error):
        let_go.wait(PATIENCE)
        called.append(event)

    with tracking(
        Emulator(contacts=[]).transport(), outbox, on_error=tracking.on_error(on_error)
    ) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.refused)
        threading.Timer(0.05, let_go.set).start()
        assert tracker.close()
        assert len(called) == 1


@every_kind
def test_nothing_is_left_of_a_tracker_that_was_closed(tracking, outbox):
    emulator = Emulator()
    before = set(threading.enumerate())
    with emulator.serve() as url:
        served = set(threading.enumerate())
        with tracking(outbox=outbox, client={"base_url": url}) as tracker:
            track(tracker, *range(50))
            tracker.close()
            if tracking.backend == "blocking":
                assert set(threading.enumerate()) <= served
    eventually(lambda: set(threading.enumerate()) <= before)
    # What is left of a connection is warned of, which is an error here.
    gc.collect()

    assert len(emulator.events) == 50


# Refusals.


def refusing(status):
    """A transport that answers with a status, and words of its own, for users called no-one."""
    accepting = Answers(httpx.Response(202))

    class Refusing(httpx.MockTransport):
        pass

    def answer(request):
        if json.loads(request.content)["user_id"] != "no-one":
            return accepting.handle_request(request)
        body = {"type": "error.list", "errors": [{"code": "x", "message": "no: no-one"}]}
        return httpx.Response(status, json=body)

    return Refusing(answer)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFoundError), (422, UnprocessableEntityError)]
)
def test_what_intercom_refuses_is_told_and_counted(tracking, outbox, caplog, status, kind):
    given, token = Given(), "a-secret-token-of-some-length"
    with tracking(refusing(status), outbox, token=token, on_error=given) as tracker:
        track(tracker, 1, "no-one", 2)
        assert tracker.flush(PATIENCE)
        assert tracker.counters == Counters(sent=2, refused=1)

    ((event, error),) = given.all
    assert (event.user_id, type(error)) == ("no-one", kind)
    (line,) = lines(caplog, "rejected")
    assert line.getMessage() == f"placed-order was rejected: {kind.__name__} {status} x"
    assert line.levelno == logging.WARNING
    assert "no-one" not in caplog.text
    assert token not in caplog.text
    if outbox is not None:
        with contextlib.closing(Outbox(outbox)) as box:
            (letter,) = box.dead_letters()
        assert (letter.event["user_id"], letter.status) == ("no-one", status)


@every_kind
def test_an_on_error_that_fails_is_logged_and_stops_nothing(tracking, outbox, caplog):
    def on_error(event, error):
        raise ValueError("a bug")

    with tracking(
        refusing(404), outbox, concurrency=1, on_error=tracking.on_error(on_error)
    ) as tracker:
        track(tracker, "no-one", 1, "no-one", 2)
        assert tracker.flush(PATIENCE)
        assert tracker.counters.sent == 2

    told = lines(caplog, "on_error failed for placed-order")
    assert len(told) == 2
    assert told[0].exc_info[0] is ValueError


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_on_error_that_ends_its_thread_holds_up_nobody(outbox):
    def on_error(event, error):
        raise SystemExit

    with Tracking("blocking")(refusing(404), outbox, concurrency=1, on_error=on_error) as tracker:
        track(tracker, "no-one", 1, "no-one", 2, created_at=NOW)
        assert tracker.flush(PATIENCE)
        assert tracker.counters == Counters(sent=2, refused=2, collisions=1)


@each_event_loop
def test_an_async_on_error_is_awaited(event_loop):
    given = Given()

    async def on_error(event, error):
        await anyio.lowlevel.checkpoint()
        given(event, error)

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=refusing(404)) as client,
            AsyncTracker(client, on_error=on_error) as tracker,
        ):
            await tracker.track("left", user_id="no-one")

    anyio.run(main, backend=event_loop)

    assert given.users == ["no-one"]


def test_what_handles_a_log_line_can_wait_for_whoever_tracks(held):
    """A handler has a lock of its own, which another thread may hold while it tracks an event."""
    tracked = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            if "dropped" in record.getMessage():
                thread = threading.Thread(target=self.track)
                thread.start()
                thread.join(PATIENCE)
                assert tracked.is_set()

        def track(self):
            assert tracker.counters.dropped
            tracked.set()

    handler, transport = Handler(), held()
    logging.getLogger(LOGGER).addHandler(handler)
    try:
        with Tracking("blocking")(transport, max_queued=1) as tracker:
            track(tracker, 1, 2)
            transport.let_go()
    finally:
        logging.getLogger(LOGGER).removeHandler(handler)

    assert tracked.is_set()


# While Intercom is away.


class Away(httpx.AsyncBaseTransport):
    """An emulator that cannot be reached at times, and what was asked of it when.

    Args:
        clock: Tells the time.
        emulator: Who answers.
        failing: Says what goes wrong with a user's event at a time; None where nothing does.
    """

    def __init__(self, clock, emulator, failing=None):
        self._clock = clock
        self._transport = emulator.transport()
        self._failing = failing or (lambda user, now: None)
        self.asked = []
        self.arrived = {}
        self.at_once = self.most_at_once = 0

    async def handle_async_request(self, request):
        user, now = json.loads(request.content)["user_id"], self._clock.time() - NOW
        self.asked.append((now, user))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            # Answers take their time, during which others are asked for.
            await anyio.sleep(0.01)
            failure = self._failing(user, now)
            if isinstance(failure, Exception):
                raise failure
            if failure is not None:
                return httpx.Response(failure)
            response = await self._transport.handle_async_request(request)
            if response.status_code == 202:
                self.arrived.setdefault(user, self._clock.time() - NOW)
            return response
        finally:
            self.at_once -= 1

    def times(self, user=None):
        return [now for now, asked in self.asked if user in (None, asked)]


def never(user, now):
    """Nothing goes wrong."""


def simulated(event_loop, use, failing=never, *, emulator=(), client=(), **options):
    """Runs a function of a tracker and a transport in no time, and returns the transport."""

    async def main():
        clock = EventLoopClock(NOW)
        emulated = Emulator(clock=clock, record=False, **dict(emulator))
        transport = Away(clock, emulated, failing)
        given = {"access_token": "token", "transport": transport, "max_retries": 0}
        async with (
            AsyncDataEventsClient(clock=clock, **{**given, **dict(client)}) as made,
            AsyncTracker(made, **options) as tracker,
        ):
            await use(tracker)
        return transport, emulated

    return run_in_no_time(main, event_loop)


async def atrack(tracker, *users):
    for user in users:
        await tracker.track("placed-order", user_id=str(user))


def gaps(times):
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def test_an_event_that_fails_is_tried_again_after_growing_waits(event_loop):
    async def use(tracker):
        await atrack(tracker, "unlucky")
        await anyio.sleep(3 * 3600)
        assert tracker.counters.queued == 1

    transport, _ = simulated(event_loop, use, lambda user, now: 503, close_timeout=0)

    waits = gaps(now for now in transport.times() if now < 3 * 3600)
    for number, wait in enumerate(waits[:9]):
        # Up to a quarter less, so that not all come back at once; and up to a second until a look.
        assert 0.75 * 2.0 ** (number + 1) <= wait <= 2.0 ** (number + 1) + 1.1
    assert all(450 <= wait <= 601.1 for wait in waits[9:])
    assert len(waits) > 20


def test_an_event_that_always_fails_holds_up_no_other(event_loop):
    delays = []

    async def use(tracker):
        await atrack(tracker, "poison")
        for number in range(200):
            await anyio.sleep(5)
            await atrack(tracker, number)
        await anyio.sleep(1)

    transport, _ = simulated(
        event_loop, use, lambda user, now: 500 if user == "poison" else None, close_timeout=0
    )

    assert len(transport.times("poison")) >= 8
    delays = [transport.arrived[str(n)] - 5 * (n + 1) for n in range(200)]
    assert max(delays) < 0.1


def test_several_events_that_always_fail_hold_up_others_for_a_while_only(event_loop):
    async def use(tracker):
        await atrack(tracker, *(f"poison {n}" for n in range(5)))
        for number in range(200):
            await anyio.sleep(5)
            await atrack(tracker, number)
        await anyio.sleep(5)

    transport, _ = simulated(
        event_loop, use, lambda user, now: 500 if "poison" in user else None, close_timeout=0
    )

    delays = [transport.arrived[str(n)] - 5 * (n + 1) for n in range(200)]
    # Until they are told from an outage.
    assert max(delays) < 120
    assert max(delays[30:]) < 5
    assert sorted(delays)[170] < 0.1


@each_event_loop
def test_while_intercom_is_away_one_event_at_a_time_finds_out_whether_it_is_back(event_loop):
    back = 1800

    async def use(tracker):
        await atrack(tracker, *range(100))
        await anyio.sleep(back - 1)
        counters = tracker.counters
        assert counters.queued == 100
        assert counters.oldest_age == pytest.approx(back - 1)
        assert ": no route; check " in str(counters.failing)
        await anyio.sleep(40)
        assert tracker.counters.failing is None
        assert tracker.counters.queued == 0

    def failing(user, now):
        return httpx.ConnectError("no route") if now < back else None

    transport, _ = simulated(event_loop, use, failing, concurrency=10)

    # Those that were on their way together, and then one after the other.
    probes = [now for now in transport.times() if 1 < now < back]
    waits = gaps(probes)
    assert len(transport.times()) - len(probes) <= 12 + 100
    assert waits[:3] == sorted(waits[:3])
    assert max(waits) <= 30 + 1.1
    assert min(waits[6:]) >= 0.75 * 30
    # The first one that goes through is followed by all.
    arrived = sorted(transport.arrived.values())
    assert arrived[0] <= back + 31.1
    assert arrived[-1] - arrived[0] < 1


def test_what_intercom_refuses_shows_that_it_is_back(event_loop):
    async def use(tracker):
        await atrack(tracker, *range(10))
        await anyio.sleep(300)
        assert tracker.counters == Counters(refused=10)

    simulated(event_loop, use, lambda user, now: 503 if now < 60 else 422)


@pytest.mark.costly
def test_an_hour_without_intercom_loses_nothing_and_holds_up_nothing_new(event_loop):
    """An app tracks a quarter of what its quota allows, during an outage and after it."""
    back, quota, window = 3600, 10, 10
    apart = 4 * window / quota
    tracked = {}

    async def use(tracker):
        # Until all has been caught up with, and a little longer.
        for number in range(int(1.5 * back / apart)):
            tracked[str(number)] = anyio.current_time() - begun[0]
            await atrack(tracker, number)
            await anyio.sleep(apart)
            if number + 1 == back // apart:
                assert tracker.counters.queued == number + 1
        counters = tracker.counters
        assert counters.queued <= quota
        assert (counters.dropped, counters.refused, counters.failing) == (0, 0, None)

    async def timed(tracker):
        begun.append(anyio.current_time())
        await use(tracker)

    begun = []
    transport, emulator = simulated(
        event_loop,
        timed,
        lambda user, now: httpx.ConnectError("no route") if now < back else None,
        emulator={"rate_limit": quota, "window": window},
    )

    arrived = transport.arrived
    assert arrived.keys() == tracked.keys()
    assert emulator.counts.limited <= 2
    # What came while it was away leaves as fast as the quota has it.
    backlog = [user for user, at in tracked.items() if at < back - 60]
    windows = Counter(math.floor((NOW + at) / window) for at in arrived.values())
    caught_up = math.floor((NOW + max(arrived[user] for user in backlog)) / window)
    whole = [windows[n] for n in range(min(windows) + 1, caught_up)]
    assert len(whole) > 0.3 * back / window
    assert min(whole) >= 0.95 * quota
    # It leaves in its order, but for what is on its way at once.
    order = sorted(backlog, key=arrived.__getitem__)
    assert max(abs(place - int(user)) for place, user in enumerate(order)) <= 20
    # What comes then does not wait behind it.
    noticed = min(arrived.values())
    new = {at: arrived[user] - at for user, at in tracked.items() if at > noticed}
    assert max(new.values()) <= 5 * window
    # At first, there is what came in the minute before.
    assert max(wait for at, wait in new.items() if at > noticed + 120) <= 2 * window


GENERAL = [
    (401, AuthenticationError),
    (403, PermissionDeniedError),
    ("version", InvalidVersionError),
]


@pytest.mark.parametrize(("answer", "kind"), GENERAL, ids=str)
def test_what_every_event_meets_is_waited_for_and_said_once(event_loop, caplog, answer, kind):
    async def use(tracker):
        await atrack(tracker, *range(20))
        await anyio.sleep(600)
        assert type(tracker.counters.failing) is kind
        assert tracker.counters.queued == 20
        await atrack(tracker, 20)
        await anyio.sleep(600)
        assert tracker.counters == Counters(sent=21)

    if answer == "version":
        emulator = {"versions": ["1.0"], "version": "1.0"}
        with pytest.raises(AssertionError):
            simulated(event_loop, use, emulator=emulator, close_timeout=0)
    else:
        transport, emulated = simulated(
            event_loop, use, lambda user, now: answer if now < 900 else None
        )
        assert len(emulated.events) == 21
        assert len(transport.times()) < 100

    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().startswith("sending failed with ") for record in said][:1] == [True]
    assert len(lines(caplog, "retrying in")) > 1
    assert sum("retrying in" in record.getMessage() for record in said) == 1


def test_a_code_of_another_server_is_not_logged(event_loop, caplog):
    """It may repeat what was sent."""

    async def use(tracker):
        await atrack(tracker, "frodo-7")
        await anyio.sleep(60)

    def answer(_):
        return httpx.Response(403, json={"error": {"code": "frodo-7"}})

    client = {"transport": httpx.MockTransport(answer)}
    simulated(event_loop, use, client=client, close_timeout=0)

    assert lines(caplog, "PermissionDeniedError 403")
    assert "frodo" not in caplog.text


def test_events_wait_until_the_function_gives_a_good_token(event_loop):
    tokens = {"now": "revoked"}

    async def use(tracker):
        await atrack(tracker, *range(20))
        await anyio.sleep(100)
        assert isinstance(tracker.counters.failing, AuthenticationError)
        tokens["now"] = "good"
        await anyio.sleep(40)
        assert tracker.counters == Counters(sent=20)

    simulated(
        event_loop, use, emulator={"tokens": ["good"]},
        client={"access_token": lambda: tokens["now"]},
    )  # fmt: skip


def test_events_wait_while_the_function_gives_no_token(event_loop):
    sealed = [True]

    def token():
        if sealed:
            raise OSError("the vault is sealed")
        return "token"

    async def use(tracker):
        await atrack(tracker, *range(20))
        await anyio.sleep(100)
        assert "the vault is sealed" in str(tracker.counters.failing)
        sealed.clear()
        await anyio.sleep(40)
        assert tracker.counters == Counters(sent=20)

    simulated(event_loop, use, client={"access_token": token})


@every_kind
def test_events_wait_in_vain_for_a_client_that_was_closed(tracking, outbox, caplog):
    given = Given()
    made = []

    def hold(client):
        made.append(client)
        return client

    transport = Answers(httpx.Response(202))
    with tracking(transport, outbox, on_error=given, close_timeout=0) as tracker:
        parts = tracker if tracking.backend == "blocking" else tracker.tracker
        parts._options.session._state.closed = True
        track(tracker, 1, 2)
        eventually(lambda: tracker.counters.failing)
        assert "the client is closed" in str(tracker.counters.failing)

    assert given.users == (["1", "2"] if outbox is None else [])
    assert (
        len([one for one in lines(caplog, "sending failed") if one.levelno == logging.ERROR]) == 1
    )


class HookError(Exception):
    pass


def hooked(clock, emulator, hook):
    """An async client's connections, whose hook is called with each user."""

    async def on_request(request):
        hook(json.loads(request.content)["user_id"], clock.time() - NOW)

    return httpx.AsyncClient(transport=emulator.transport(), event_hooks={"request": [on_request]})


@pytest.mark.parametrize("poison", [True, False])
def test_a_hook_that_fails_loses_nothing_and_for_one_event_holds_up_none(event_loop, poison):
    arrived = {}

    def hook(user, now):
        if user == "poison" if poison else now < 100:
            raise HookError(user)
        arrived[user] = now

    async def main():
        clock = EventLoopClock(NOW)
        emulator = Emulator(clock=clock)
        async with (
            hooked(clock, emulator, hook) as http,
            AsyncDataEventsClient("token", http_client=http, clock=clock) as client,
            AsyncTracker(client, close_timeout=0) as tracker,
        ):
            await atrack(tracker, "poison")
            for number in range(100):
                await atrack(tracker, number)
                await anyio.sleep(5)
            return tracker.counters

    counters = run_in_no_time(main, event_loop)

    if poison:
        assert counters.queued == 1
        assert sorted(arrived[str(n)] - 5 * n for n in range(100))[95] < 0.1
        assert max(arrived[str(n)] - 5 * n for n in range(100)) < 5
    else:
        assert counters == Counters(sent=101)
        assert len(arrived) == 101


# Pace.


def test_a_small_quota_is_kept(event_loop):
    async def use(tracker):
        await atrack(tracker, *range(100))
        assert await tracker.flush()

    transport, emulator = simulated(event_loop, use, emulator={"rate_limit": 10})

    assert emulator.counts.stored == emulator.counts.requests == 100
    # Ten windows, of which the first had begun.
    assert max(transport.times()) <= 91


@pytest.mark.parametrize(("seconds", "most"), [(0.0005, 2), (0.01, 6), (1.0, 20)])
def test_as_many_are_on_their_way_as_the_answers_take_time(event_loop, seconds, most):
    """Quick answers come one after the other, so that the application has the processor."""

    class Timed(httpx.AsyncBaseTransport):
        at_once, most_at_once, answered = 0, 0, 0

        async def handle_async_request(self, request):
            self.at_once += 1
            # The first ones had nobody to learn from.
            if self.answered > 20:
                self.most_at_once = max(self.most_at_once, self.at_once)
            await anyio.sleep(seconds)
            self.at_once -= 1
            self.answered += 1
            return httpx.Response(202)

    transport = Timed()

    async def main():
        clock = EventLoopClock(NOW)
        async with (
            AsyncDataEventsClient("token", transport=transport, clock=clock) as client,
            AsyncTracker(client) as tracker,
        ):
            await atrack(tracker, *range(200))
            await tracker.flush()

    run_in_no_time(main, event_loop)

    assert transport.most_at_once == most


def test_connections_that_hang_do_not_hold_up_those_that_are_quick(event_loop):
    arrived = {}

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            user = json.loads(request.content)["user_id"]
            await anyio.sleep(600 if user.startswith("hanging") else 0.001)
            arrived[user] = anyio.current_time()
            return httpx.Response(202)

    async def main():
        clock = EventLoopClock(NOW)
        async with (
            AsyncDataEventsClient(
                "token", transport=Hanging(), clock=clock, timeout=700, deadline=800
            ) as client,
            AsyncTracker(client, close_timeout=0) as tracker,
        ):
            await atrack(tracker, *range(50))
            await tracker.flush()
            await atrack(tracker, *(f"hanging {n}" for n in range(5)))
            tracked = anyio.current_time()
            for number in range(50, 100):
                await atrack(tracker, number)
            await anyio.sleep(60)
            assert tracker.counters.queued == 5
            return max(arrived[str(n)] for n in range(50, 100)) - tracked

    assert run_in_no_time(main, event_loop) < 5


@each_event_loop
def test_all_of_many_tracked_in_a_row_are_sent_meanwhile(event_loop):
    """Though nothing else makes whoever tracks them wait."""

    async def use(tracker):
        await atrack(tracker, *range(500))
        assert tracker.counters.dropped == 0

    _, emulator = simulated_at_once(event_loop, use, max_queued=100)

    assert emulator.counts.stored == 500


def simulated_at_once(event_loop, use, **options):
    """Likewise, with answers that take no time."""

    async def main():
        emulator = Emulator(rate_limit=None, record=False)
        async with (
            AsyncDataEventsClient("token", transport=emulator.transport()) as client,
            AsyncTracker(client, **options) as tracker,
        ):
            await use(tracker)
        return client, emulator

    return anyio.run(main, backend=event_loop)


# Figures.


def test_what_is_one_event_to_intercom_is_counted_and_sent(tracking, emulator, outbox, caplog):
    with tracking(emulator.transport(), outbox) as tracker:
        for name in (
            "Placed.order",
            "placed-order",
            "PLACED$ORDER",
            "placed-order",
            "Placed-order",
        ):
            tracker.track(name, email="Frodo@example.com", created_at=NOW)
        tracker.track("placed-order", email="frodo@example.com", created_at=NOW + 1)
        tracker.track("placed-order", user_id="frodo@example.com", created_at=NOW)
        tracker.track("left", email="frodo@example.com", created_at=NOW)
        # Not known to be one event to Intercom.
        tracker.track("placed-order", email="frodo@example.com", created_at=NOW)
        for name in ("STRASSE", "straße"):
            tracker.track(name, email="frodo@example.com", created_at=NOW)
        assert tracker.flush(PATIENCE)
        assert tracker.counters == Counters(sent=11, collisions=4)

    assert emulator.counts.requests == 11
    told = [record.args[-1] for record in lines(caplog, "tracked twice for one contact")]
    assert told == [1, 2, 4]
    assert "frodo" not in caplog.text.lower()


def test_counters_tell_what_there_is(tracking, outbox):
    clock = SteppedClock(NOW)
    transport = Answers(httpx.ConnectError("no route"))
    with tracking(
        transport, outbox, client={"clock": clock, "max_retries": 0}, close_timeout=0
    ) as tracker:
        assert tracker.counters == Counters()
        track(tracker, 1)
        clock.advance(5)
        track(tracker, 2)
        eventually(lambda: tracker.counters.failing)
        assert tracker.counters.queued == 2
        assert tracker.counters.oldest_age == 5
        clock.advance(60)
        assert tracker.counters.oldest_age == 65


# Within an event loop.


@each_event_loop
def test_an_async_tracker_is_used_within_its_block_and_once(event_loop):
    async def main():
        async with AsyncDataEventsClient("token") as client:
            tracker = AsyncTracker(client)
            for use in (
                lambda: tracker.track("left", user_id="1"), tracker.flush, tracker.aclose
            ):  # fmt: skip
                with pytest.raises(RuntimeError, match="must be entered first; use: async with"):
                    await use()
            async with tracker:
                with pytest.raises(RuntimeError, match="entered only once"):
                    await tracker.__aenter__()
            with pytest.raises(RuntimeError, match="entered only once"):
                await tracker.__aenter__()
            with pytest.raises(RuntimeError, match="the tracker is closed"):
                await tracker.track("left", user_id="1")

    anyio.run(main, backend=event_loop)


class BlockError(Exception):
    pass


@each_kind_of_tasks
def test_an_error_that_ends_the_block_comes_out_as_it_is(event_loop, outbox):
    async def use(tracker):
        await atrack(tracker, 1, 2, 3)
        raise BlockError

    emulator = Emulator()

    async def main():
        async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
            with pytest.raises(BlockError):
                async with AsyncTracker(client, outbox) as tracker:
                    await use(tracker)

    anyio.run(main, backend=event_loop)

    assert users_of(emulator) == ["1", "2", "3"]


def slow_emulator(seconds):
    return Emulator(faults=itertools.repeat(Fault.slow(seconds)))


@each_kind_of_tasks
def test_what_was_tracked_is_sent_though_the_block_is_cancelled(event_loop, outbox):
    emulator = slow_emulator(0.05)

    async def main():
        async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
            with anyio.move_on_after(0.02) as scope:
                async with AsyncTracker(client, outbox, concurrency=5) as tracker:
                    await atrack(tracker, *range(20))
                    await anyio.sleep_forever()
            assert scope.cancelled_caught
            return tracker.counters

    assert anyio.run(main, backend=event_loop).sent == 20
    assert len(emulator.events) == 20


def test_what_was_tracked_is_sent_though_the_task_is_cancelled():
    emulator = slow_emulator(0.05)

    async def serve(tracked):
        async with (
            AsyncDataEventsClient("token", transport=emulator.transport()) as client,
            AsyncTracker(client, concurrency=5) as tracker,
        ):
            await atrack(tracker, *range(20))
            tracked.set()
            await asyncio.sleep(3600)

    async def main():
        tracked = asyncio.Event()
        task = asyncio.create_task(serve(tracked))
        await tracked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert len(emulator.events) == 20


@each_event_loop
def test_a_cancelled_block_is_left_within_the_time_that_closing_may_take(event_loop, outbox):
    given = Given()

    async def main():
        transport = slow_emulator(3600).transport()
        async with AsyncDataEventsClient("token", transport=transport) as client:
            with anyio.move_on_after(0.02):
                async with AsyncTracker(
                    client, outbox, close_timeout=0.1, on_error=given
                ) as tracker:
                    await atrack(tracker, *range(5))
                    await anyio.sleep_forever()

    begun = time.monotonic()
    anyio.run(main, backend=event_loop)

    assert time.monotonic() - begun < 5
    if outbox is None:
        assert sorted(given.users) == ["0", "1", "2", "3", "4"]
    else:
        with contextlib.closing(Outbox(outbox)) as box:
            assert (box.status().queued, box.status().claimed) == (5, 0)


@each_kind_of_tasks
def test_a_tracker_can_be_closed_before_its_block_ends(event_loop, outbox):
    emulator, reached = Emulator(), []

    async def main():
        async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
            async with AsyncTracker(client, outbox) as tracker:
                await atrack(tracker, 1)
                assert await tracker.aclose()
                await anyio.lowlevel.checkpoint()
                reached.append("the end of the block")
            reached.append("what follows")

    anyio.run(main, backend=event_loop)

    assert reached == ["the end of the block", "what follows"]


@each_kind_of_tasks
def test_many_tasks_track_at_once(event_loop, outbox):
    emulator = Emulator()

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=emulator.transport()) as client,
            AsyncTracker(client, outbox) as tracker,
            anyio.create_task_group() as group,
        ):
            for number in range(20):
                group.start_soon(atrack, tracker, *range(number, 200, 20))

    anyio.run(main, backend=event_loop)

    assert sorted(map(int, users_of(emulator))) == list(range(200))


@each_event_loop
def test_who_is_cancelled_while_it_waits_for_room_has_tracked_nothing(event_loop, held):
    transport = held()

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=transport) as client,
            AsyncTracker(client, max_queued=1, when_full="block") as tracker,
        ):
            await atrack(tracker, 1)
            with anyio.move_on_after(0.02):
                await atrack(tracker, 2)
            transport.let_go()

    anyio.run(main, backend=event_loop)

    assert transport.answered == ["1"]


def another_program(path):
    """A connection that keeps others from writing to an outbox."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


@each_event_loop
def test_the_event_loop_goes_on_while_another_process_has_the_file_locked(event_loop, tmp_path):
    path, emulator = tmp_path / "outbox", Emulator()
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await anyio.sleep(0.005)

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=emulator.transport()) as client,
            AsyncTracker(client, path) as tracker,
            anyio.create_task_group() as group,
        ):
            await atrack(tracker, "before")
            await tracker.flush()
            with contextlib.closing(another_program(path)) as other:
                group.start_soon(tick)
                threading.Timer(0.3, other.rollback).start()
                await atrack(tracker, "meanwhile")
                assert not other.in_transaction
            await tracker.flush()
            group.cancel_scope.cancel()

    anyio.run(main, backend=event_loop)

    assert users_of(emulator) == ["before", "meanwhile"]
    assert len(ticks) >= 20
    assert max(gaps(ticks)) < 0.15


def test_a_file_that_stays_locked_is_an_error_after_a_while(event_loop, tmp_path):
    path = tmp_path / "outbox"

    async def main():
        async with (
            AsyncDataEventsClient("token", transport=Emulator().transport()) as client,
            AsyncTracker(client, path, close_timeout=0.1) as tracker,
        ):
            with contextlib.closing(another_program(path)):
                begun = anyio.current_time()
                with pytest.raises(OutboxError, match="locked"):
                    await atrack(tracker, 1)
                return anyio.current_time() - begun

    assert 5 <= run_in_no_time(main, event_loop) < 6


# In threads.


class Interrupted(Clock):
    """Calls a function when the time is asked for next, as a signal's handler might then."""

    handler = None

    def time(self):
        if self.handler is not None and threading.current_thread() is threading.main_thread():
            handler, self.handler = self.handler, None
            handler()
        return super().time()


@pytest.mark.parametrize("doing", ["track", "flush", "close"])
def test_a_handler_can_use_the_tracker_in_whose_midst_it_comes(emulator, outbox, doing):
    clock, given = Interrupted(), Given()
    with Tracking("blocking")(
        emulator.transport(), outbox, client={"clock": clock}, on_error=given
    ) as tracker:
        track(tracker, "before")
        clock.handler = {
            "track": lambda: track(tracker, "handler"),
            "flush": lambda: tracker.flush(PATIENCE),
            "close": lambda: tracker.close(PATIENCE),
        }[doing]
        if doing == "close" and outbox is not None:
            with pytest.raises((OutboxError, RuntimeError), match="closed"):
                track(tracker, "interrupted")
        else:
            track(tracker, "interrupted")

    expected = {"before", "interrupted"} | ({"handler"} if doing == "track" else set())
    if doing == "close":
        expected.discard("interrupted")
        assert given.users == ([] if outbox else ["interrupted"])
        assert tracker.counters.dropped == len(given.users)
    assert set(users_of(emulator)) == expected


class Between:
    """Calls a function before the n-th line of trackers that is run; a signal's handler might.

    The collector does not run meanwhile: what a handler raises in a finalizer goes nowhere.
    """

    def __init__(self, number, function):
        self._left = number
        self._function = function

    def __enter__(self):
        self._collects = gc.isenabled()
        gc.disable()
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_):
        sys.settrace(self._before)
        if self._collects:
            gc.enable()

    def _trace(self, frame, what, _):
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(("intercom_data_events.tracker", "intercom_data_events.outbox")):
            return None
        if module == "intercom_data_events.tracker._queue":
            return None  # No handler comes between its lines, as they call nothing in Python.
        if what == "line":
            self._left -= 1
            if self._left == 0:
                self._function()
        return self._trace


def test_a_handler_can_end_the_first_track_between_any_two_lines(emulator, outbox):
    class EndedError(Exception):
        pass

    def end():
        ended.append(line)
        raise EndedError

    taken = []
    for line in itertools.count(1):
        ended = []
        with Tracking("blocking")(emulator.transport(), outbox) as tracker:
            with contextlib.suppress(EndedError), Between(line, end):
                track(tracker, line)
                taken.append(str(line))
            track(tracker, f"after {line}")
            taken.append(f"after {line}")
            begin = time.monotonic()
            assert tracker.close(PATIENCE)
            # It waits for no thread that never was.
            assert time.monotonic() - begin < PATIENCE
        if not ended:
            break

    assert line > 50
    assert set(users_of(emulator)) >= set(taken)
    assert Counter(users_of(emulator)).most_common(1)[0][1] == 1


def closed_before(line, emulator, outbox):
    """Closes a tracker in the midst of its first event; whether so, and whether that is taken."""
    given, closed, taken = Given(), [], True
    with DataEventsClient("token", transport=emulator.transport()) as client:
        tracker = Tracker(client, outbox, on_error=given)
        with Between(line, lambda: closed.append(tracker.close(PATIENCE))):
            try:
                track(tracker, line)
            except (OutboxError, RuntimeError):
                taken = False
        if closed:
            with pytest.raises(RuntimeError, match="closed"):
                track(tracker, "late")
        else:
            assert tracker.close()
    assert given.users in ([], [str(line)])
    return bool(closed), taken and not given.all


def test_a_handler_can_close_between_any_two_lines_of_the_first_track(emulator, outbox):
    taken = []
    for line in itertools.count(1):
        closed, is_taken = closed_before(line, emulator, outbox)
        if is_taken:
            taken.append(str(line))
        if not closed:
            break
    with Tracking("blocking")(emulator.transport(), outbox) as tracker:
        assert tracker.flush()  # What was written as it was closed is the next one's.

    assert line > 50
    assert set(users_of(emulator)) >= set(taken)
    assert Counter(users_of(emulator)).most_common(1)[0][1] == 1


def test_its_threads_are_no_more_than_requests_and_end_with_the_program(held):
    transport = held()
    with Tracking("blocking")(transport, concurrency=3) as tracker:
        before = set(threading.enumerate())
        track(tracker, *range(50))
        transport.wait_for(3)
        threads = set(threading.enumerate()) - before
        assert sorted(thread.name for thread in threads) == [
            *["intercom-tracker"] * 3,
            "intercom-tracker-dispatcher",
        ]
        assert all(thread.daemon for thread in threads)
        transport.let_go()


def test_a_tracker_that_is_not_used_has_no_threads(outbox):
    before = set(threading.enumerate())
    with Tracking("blocking")(Answers(httpx.Response(202)), outbox) as tracker:
        assert tracker.flush()
        assert tracker.counters == Counters()
        assert set(threading.enumerate()) <= before


def test_what_is_answered_after_closing_need_not_be_sent_again(held, tmp_path):
    transport, path = held(), tmp_path / "outbox"
    with Tracking("blocking")(transport, path) as tracker:
        track(tracker, 1)
        eventually(lambda: transport.asked)
        assert not tracker.close(0)
        assert tracker.counters.queued == 1
        transport.let_go()
        eventually(lambda: tracker.counters.queued == 0)


@every_kind
def test_what_waits_for_the_rate_limit_is_given_back_as_the_tracker_is_closed(tracking, outbox):
    clock, given = SteppedClock(NOW), Given()
    emulator = Emulator(clock=clock, rate_limit=1)
    # A test that failed may have left a thread that waits.
    before = set(threading.enumerate())
    with tracking(emulator.transport(), outbox, client={"clock": clock}, on_error=given) as tracker:
        track(tracker, 0)
        assert tracker.flush(PATIENCE)
        track(tracker, *range(1, 5))
        eventually(lambda: clock.waits() == 1)
        assert not tracker.close(0)
        if outbox is None:
            assert len(given.all) == 4
            assert not any(error.may_have_been_processed for error in given.errors)
        else:
            with contextlib.closing(Outbox(outbox)) as box:
                assert (box.status().queued, box.status().claimed) == (4, 0)
        # A thread that waits notices as the window resets.
        clock.advance(10)
        eventually(
            lambda: (
                "intercom-tracker"
                not in [one.name for one in threading.enumerate() if one not in before]
            )
        )

    assert emulator.counts.requests == 1


# A file that cannot be used.


@threads_and_tasks
def test_what_is_in_a_file_is_sent_once_it_can_be_used_again(tracking, emulator, tmp_path, caplog):
    path, clock = tmp_path / "outbox", SteppedClock(NOW)
    transport = Answers(httpx.ConnectError("no route"), httpx.Response(202))
    with tracking(
        transport, path, concurrency=1, client={"clock": clock, "max_retries": 0}
    ) as tracker:
        track(tracker, 1)
        eventually(lambda: tracker.counters.failing)
        with unusable(path):
            with pytest.raises(OutboxError, match="does not have the schema of an outbox"):
                track(tracker, 2)
            with pytest.raises(OutboxError, match="does not have the schema of an outbox"):
                tracker.flush(PATIENCE)
            with pytest.raises(OutboxError, match="does not have the schema of an outbox"):
                tracker.counters  # noqa: B018  # to ask is to read the file
            for _ in range(20):
                clock.advance(1)
                # It has looked around, and waits again.
                eventually(lambda: clock.waits() == 1)
        track(tracker, 3)
        assert tracker.flush(PATIENCE)
        assert tracker.counters == Counters(sent=2)

    assert len(transport.requests) == 3
    # At growing intervals, as for everything that is waited for.
    assert 2 <= len(lines(caplog, "does not have the schema of an outbox")) <= 6


@threads_and_tasks
def test_an_answer_that_cannot_be_written_down_counts_and_is_so_later(
    tracking, held, tmp_path, caplog
):
    transport, path = held(), tmp_path / "outbox"
    with tracking(transport, path) as tracker:
        track(tracker, 1)
        eventually(lambda: transport.asked)
        with unusable(path):
            transport.let_go()
            eventually(lambda: lines(caplog, "does not have the schema of an outbox"))
        assert tracker.flush(PATIENCE)
        assert tracker.counters.sent == 1

    assert transport.asked == ["1"]


@threads_and_tasks
def test_closing_while_a_file_cannot_be_used_leaves_everything_in_it(tracking, held, tmp_path):
    transport, path = held(), tmp_path / "outbox"
    before = set(threading.enumerate())
    with tracking(transport, path, concurrency=1, close_timeout=0.5) as tracker:
        track(tracker, 1, 2)
        eventually(lambda: transport.asked)
        with unusable(path):
            assert not tracker.close()
        transport.let_go()
    eventually(lambda: set(threading.enumerate()) <= before)
    gc.collect()

    with contextlib.closing(Outbox(path)) as box:
        assert {fields["user_id"] for fields in box.waiting()} >= {"2"}
