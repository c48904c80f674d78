"""What a tracker does with an event before it stores it: default metadata, and before_send."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, datetime

import httpx
import pytest
from attrs import evolve
from secrecy import EMAIL, package_records
from trackers import every_tracker, opened

from intercom_data_events import (
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    Event,
    InvalidInputError,
    MetadataError,
    MonetaryAmount,
    NotSentError,
)
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import AsyncTracker, Tracker

DEFAULTS = {"plan": "pro", "region": "eu"}
TEN = {f"key-{number}": number for number in range(10)}


def fail(event):
    raise KeyError(f"no such contact: {EMAIL}")


def drop(event):
    return None


class Recorded:
    """What was called with an event, in order."""

    def __init__(self, result=lambda event: event):
        self.events = []
        self._result = result

    def __call__(self, event, *_):
        self.events.append(event)
        return self._result(event)


@pytest.fixture
def tracking(backend, emulator):
    """Makes a tracker of the emulator; at the end, all that it tracked has arrived."""
    return functools.partial(opened, backend, emulator.transport())


@pytest.fixture
def metadata(emulator):
    """Returns the metadata of the events that have arrived."""
    return lambda: [event.metadata for event in emulator.events]


# Default metadata


@every_tracker
def test_the_trackers_metadata_are_defaults_of_every_event(tracking, metadata):
    with tracking(metadata=DEFAULTS) as tracker:
        tracker.track("placed-order", user_id="1")
        tracker.track("placed-order", user_id="2", metadata={"price": 3, "plan": "free"})
        tracker.track_event(Event("placed-order", user_id="3", metadata={"plan": "free"}))

    assert sorted(metadata(), key=len) == [
        {"plan": "pro", "region": "eu"},
        {"plan": "free", "region": "eu"},
        {"price": 3, "plan": "free", "region": "eu"},
    ]


@every_tracker
def test_an_events_own_keys_come_first(tracking, metadata):
    with tracking(metadata={"a": 1, "b": 2}) as tracker:
        tracker.track("placed-order", user_id="1", metadata={"z": 3, "b": 4})

    assert [list(each.items()) for each in metadata()] == [[("z", 3), ("b", 4), ("a", 1)]]


@every_tracker
def test_defaults_are_of_every_type_that_metadata_has(tracking, emulator):
    at = datetime(2022, 12, 14, tzinfo=UTC)
    given = {
        "link": {"url": "https://example.org", "value": "order"},
        "price": MonetaryAmount(1, "eur"),
        "trial_end_at": at,
        "load": 3.5,
    }
    with tracking(metadata=given) as tracker:
        tracker.track("placed-order", user_id="1")

    (request,) = emulator.requests
    assert request.json["metadata"] == {
        "link": {"url": "https://example.org", "value": "order"},
        "price": {"amount": 1, "currency": "eur"},
        "trial_end_at": int(at.timestamp()),
        "load": 3.5,
    }


@every_tracker
def test_defaults_are_copied(tracking, metadata):
    given = dict(DEFAULTS)
    with tracking(metadata=given) as tracker:
        given["email"] = EMAIL
        tracker.track("placed-order", user_id="1")

    assert metadata() == [DEFAULTS]


@every_tracker
def test_an_event_that_was_made_before_stays_as_it_is(tracking, metadata):
    event = Event("placed-order", user_id="1", metadata={"price": 3})
    with tracking(metadata=DEFAULTS) as tracker:
        tracker.track_event(event)

    assert event.metadata == {"price": 3}
    assert metadata() == [{"price": 3, **DEFAULTS}]


@every_tracker
def test_more_than_ten_keys_in_all_are_an_error_that_says_whose_they_are(tracking, metadata):
    eight = dict(list(TEN.items())[:8])
    with tracking(metadata=DEFAULTS) as tracker:
        tracker.track("placed-order", user_id="1", metadata=eight)
        with pytest.raises(MetadataError) as caught:
            tracker.track("placed-order", user_id="2", metadata={**eight, "price": 3})
        with pytest.raises(
            MetadataError, match="not 12: 10 from the event and 2 from the tracker's"
        ):
            tracker.track_event(Event("placed-order", user_id="3", metadata=TEN))

    assert str(caught.value) == (
        "metadata must have at most 10 keys, not 11: 9 from the event and 2 from the tracker's "
        "metadata= ('plan', 'region'); remove 1 of them, or pass drop_excess_metadata=True to "
        "track(), which drops the tracker's last keys"
    )
    assert caught.value.key == "region"
    assert metadata() == [{**eight, **DEFAULTS}]


@every_tracker
def test_a_default_that_the_event_has_itself_does_not_count(tracking, metadata):
    own = {**dict(list(TEN.items())[:8]), "plan": "free", "region": "us"}
    with tracking(metadata=DEFAULTS) as tracker:
        tracker.track("placed-order", user_id="1", metadata=own)

    assert metadata() == [own]


@every_tracker
@pytest.mark.parametrize(("own", "added"), [(9, ["plan"]), (10, []), (12, [])])
def test_excess_metadata_is_dropped_from_the_end_if_asked_for(tracking, metadata, own, added):
    given = {f"key-{number}": number for number in range(own)}
    with tracking(metadata=DEFAULTS) as tracker:
        tracker.track("placed-order", user_id="1", metadata=given, drop_excess_metadata=True)

    assert [list(each) for each in metadata()] == [[*list(given)[:10], *added]]


KINDS = [(DataEventsClient, Tracker), (AsyncDataEventsClient, AsyncTracker)]
each_kind = pytest.mark.parametrize(("client", "tracker"), KINDS)


@each_kind
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**TEN, "plan": "pro"}, "a tracker's metadata must have at most 10 keys, not 11"),
        ({"plan": None}, "is None, which the API does not support"),
        ({"": "pro"}, "must be a non-empty string"),
        ({"a": {"b": 1}}, "is an object"),
        ([("plan", "pro")], "metadata must be a mapping, not a value of type list"),
        (3, "metadata must be a mapping, not a value of type int"),
    ],
)
def test_metadata_that_the_api_refuses_is_an_error_when_the_tracker_is_made(
    client, tracker, given, message
):
    with pytest.raises(MetadataError, match=message):
        tracker(client("token"), metadata=given)


# before_send


@each_kind
@pytest.mark.parametrize("wrong", ["scrub", 3, {}])
def test_before_send_is_a_function(client, tracker, wrong):
    with pytest.raises(
        ConfigurationError, match="before_send must be a function that takes an event, not"
    ):
        tracker(client("token"), before_send=wrong)


class AsyncFunction:
    async def __call__(self, event):
        return event


async def async_function(event):
    return event


@each_kind
@pytest.mark.parametrize(
    "wrong", [async_function, AsyncFunction(), functools.partial(async_function)]
)
def test_before_send_is_not_an_async_function(client, tracker, wrong):
    with pytest.raises(ConfigurationError, match="before_send must not be an async function"):
        tracker(client("token"), before_send=wrong)


@every_tracker
def test_before_send_is_given_each_event_with_its_defaults_and_what_it_returns_is_sent(
    tracking, emulator
):
    given = Recorded(lambda event: evolve(event, metadata={**event.metadata, "seen": 1}))
    with tracking(metadata=DEFAULTS, before_send=given) as tracker:
        tracker.track("placed-order", user_id="1", created_at=1671028894, metadata={"price": 3})
        counters = tracker.counters

    assert [event.metadata for event in given.events] == [{"price": 3, **DEFAULTS}]
    (event,) = emulator.events
    assert event.metadata == {"price": 3, **DEFAULTS, "seen": 1}
    assert event.created_at == given.events[0].created_at.timestamp() == 1671028894
    assert (counters.filtered, counters.dropped) == (0, 0)


@every_tracker
def test_before_send_runs_in_the_callers_thread_and_context(tracking, backend):
    request = ContextVar("request", default=None)
    seen = []

    def note(event):
        seen.append((threading.get_ident(), request.get()))
        return event

    with tracking(before_send=note) as tracker:
        request.set("the caller's")
        tracker.track("placed-order", user_id="1")

    ((thread, value),) = seen
    assert value == "the caller's"
    assert (thread == threading.get_ident()) is (backend == "blocking")


@every_tracker
def test_an_event_keeps_its_second_if_before_send_changes_it(tracking, emulator):
    with tracking(before_send=lambda event: evolve(event, user_id="2")) as tracker:
        tracker.track("placed-order", user_id="1", created_at=1671028894)

    assert [(one.user_id, one.created_at) for one in emulator.events] == [("2", 1671028894)]


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "events.outbox"


@every_tracker
def test_what_before_send_drops_is_counted_and_nothing_else_happens(
    tracking, emulator, outbox, caplog
):
    lost = Recorded()
    with tracking(outbox, before_send=drop, on_error=lost) as tracker:
        tracker.track("placed-order", user_id="1")
        tracker.track_event(Event("placed-order", user_id="2"))
        assert tracker.flush(20)
        counters = tracker.counters

    assert (counters.filtered, counters.dropped, counters.queued, counters.sent) == (2, 0, 0, 0)
    assert (emulator.requests, lost.events, package_records(caplog)) == ((), [], [])


@pytest.mark.processes
@every_tracker
def test_what_before_send_drops_or_removes_is_never_in_an_outbox(backend, tmp_path):
    """No file of it, whatever SQLite keeps of what was deleted; nor does draining need the hook."""
    path = tmp_path / "events.outbox"

    def scrub(event):
        if "drop" in event.metadata:
            return None
        return evolve(event, email=None, metadata={"plan": event.metadata["plan"]})

    away = httpx.MockTransport(lambda request: httpx.Response(503))
    emulator = Emulator()
    with emulator.serve() as url:
        options = {"client": {"base_url": url}, "before_send": scrub, "close_timeout": 0}
        with opened(backend, away, path, **options) as tracker:
            tracker.track("placed-order", user_id="1", metadata={"drop": EMAIL, "plan": "pro"})
            private = {"email": EMAIL, "plan": "pro"}
            tracker.track("placed-order", user_id="2", email=EMAIL, metadata=private)
            kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
            assert b"placed-order" in kept
            assert EMAIL.encode() not in kept
        command = [sys.executable, "-c", "from intercom_data_events.cli import main; main()"]
        settings = {"INTERCOM_ACCESS_TOKEN": "token", "INTERCOM_BASE_URL": url}
        subprocess.run(
            [*command, "outbox", "drain", str(path)],
            env={**os.environ, **settings},
            check=True,
            timeout=60,
        )

    assert [(one.user_id, one.email, one.metadata) for one in emulator.events] == [
        ("2", None, {"plan": "pro"})
    ]


def returned(value):
    return lambda event: value


async def nothing():
    pass


def tampering(metadata):
    def tamper(event):
        event.metadata.update(metadata)
        return event

    return tamper


FAILURES = {
    "raises": (
        fail,
        r"before_send raised KeyError in test_tracker_preparation\.fail, line \d+",
    ),
    "takes no event": (lambda: None, "before_send raised TypeError"),
    "returns a bool": (
        returned(True),
        "before_send must return an Event or None, not a value of type bool",
    ),
    "returns a dict": (
        lambda event: event.to_dict(),
        "before_send must return an Event or None, not a value of type dict",
    ),
    "returns a coroutine": (
        lambda event: nothing(),
        "before_send must return an Event or None, not a value of type coroutine",
    ),
    "puts a value into the metadata that the API refuses": (
        tampering({"email": [EMAIL]}),
        "before_send returned metadata that the API does not accept",
    ),
    "puts an eleventh key into the metadata": (
        tampering(TEN),
        "before_send returned metadata that the API does not accept",
    ),
}


@every_tracker
@pytest.mark.parametrize("failure", FAILURES)
def test_an_event_that_before_send_fails_for_is_dropped_counted_and_logged_once(
    backend, emulator, outbox, caplog, failure
):
    before_send, reason = FAILURES[failure]
    lost = []
    with opened(
        backend,
        emulator.transport(),
        outbox,
        before_send=before_send,
        metadata={"plan": "pro"},
        on_error=lambda *told: lost.append(told),
    ) as tracker:
        for number in range(3):
            tracker.track("placed-order", user_id=str(number), email=EMAIL)
        counters = tracker.counters

    assert (counters.dropped, counters.filtered, counters.queued) == (3, 0, 0)
    assert not emulator.requests
    (record,) = package_records(caplog)
    assert re.fullmatch(f".*event 'placed-order' was dropped: {reason}", record.getMessage())
    assert record.exc_info is None
    assert EMAIL not in caplog.text
    # on_error is told of each, as it was tracked.
    assert [(event.user_id, event.email, event.metadata) for event, _ in lost] == [
        (str(number), EMAIL, {}) for number in range(3)
    ]
    for _, error in lost:
        assert isinstance(error, NotSentError)
        assert re.search(reason, str(error))
        assert EMAIL not in str(error)
        assert not error.may_have_been_processed


@every_tracker
def test_on_error_gets_what_before_send_raised_as_the_cause(tracking):
    causes = []
    with tracking(
        before_send=fail, on_error=lambda event, error: causes.append(error.__cause__)
    ) as tracker:
        tracker.track("placed-order", user_id="1")

    (cause,) = causes
    assert isinstance(cause, KeyError)
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)] == ["fail"]


@every_tracker
def test_events_after_a_failure_of_before_send_are_tracked(tracking, emulator):
    def fail_for_one(event):
        return fail(event) if event.user_id == "1" else event

    with tracking(before_send=fail_for_one) as tracker:
        for number in range(3):
            tracker.track("placed-order", user_id=str(number))

    assert sorted(event.user_id for event in emulator.events) == ["0", "2"]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_to_end_a_program_passes_through(emulator, interrupt):
    def interrupted(event):
        if event.user_id == "1":
            raise interrupt
        return event

    with opened("blocking", emulator.transport(), before_send=interrupted) as tracker:
        # More often than events may be tracked while before_send runs.
        for _ in range(9):
            with pytest.raises(interrupt):
                tracker.track("placed-order", user_id="1")
        tracker.track("placed-order", user_id="2")
        counters = tracker.counters

    assert (counters.dropped, counters.filtered) == (0, 0)
    assert [event.user_id for event in emulator.events] == ["2"]


@every_tracker
def test_the_callers_event_stays_as_it_is_whatever_before_send_does_to_it(tracking, metadata):
    event = Event("placed-order", user_id="1", metadata={"plan": "pro"})

    with tracking(before_send=tampering({"seen": 1})) as tracker:
        tracker.track_event(event)
        tracker.track_event(evolve(event, user_id="2"))

    assert event.metadata == {"plan": "pro"}
    assert metadata() == [{"plan": "pro", "seen": 1}] * 2


def test_wrong_input_is_an_error_before_before_send_is_called(emulator):
    given = Recorded()
    with opened("blocking", emulator.transport(), before_send=given) as tracker:
        with pytest.raises(MetadataError, match="is None"):
            tracker.track("placed-order", user_id="1", metadata={"plan": None})
        with pytest.raises(InvalidInputError, match="event must be an Event, not"):
            tracker.track_event({"event_name": "placed-order"})

    assert given.events == []


def test_a_before_send_that_tracks_ends_and_is_logged_once(emulator, caplog):
    numbers = itertools.count()

    def track_too(event):
        tracker.track("called-before-send", user_id=f"of {next(numbers)}")
        return event

    with opened("blocking", emulator.transport(), before_send=track_too) as tracker:
        for number in range(5):
            tracker.track("placed-order", user_id=str(number))
        counters = tracker.counters

    names = Counter(event.event_name for event in emulator.events)
    assert names["placed-order"] == 5
    assert names["called-before-send"] + counters.dropped == next(numbers) <= 5 * 4
    assert counters.dropped == 5
    assert [record.getMessage() for record in package_records(caplog)] == [
        "event 'called-before-send' was dropped: before_send must not track events recursively"
    ]


class Tracks:
    """Tracks an event when the collector finds it."""

    def __init__(self, tracker):
        self._tracker = tracker
        self._itself = self

    def __del__(self):
        self._tracker.track("collected", user_id="1")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such signals")
def test_finalizers_and_signal_handlers_can_track_while_before_send_runs(emulator):
    """Such events come from elsewhere; they are passed to before_send, too."""
    names = []

    def note(event):
        names.append(event.event_name)
        if event.event_name == "placed-order":
            Tracks(tracker)
            gc.collect()
        if event.event_name == "collected":
            signal.raise_signal(signal.SIGUSR1)
        return event

    def handle(*_):
        tracker.track("signalled", user_id="1")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with opened("blocking", emulator.transport(), before_send=note) as tracker:
            tracker.track("placed-order", user_id="1")
            counters = tracker.counters
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert names == ["placed-order", "collected", "signalled"]
    assert counters.dropped == 0
    assert {event.event_name for event in emulator.events} == set(names)


def test_before_send_is_called_by_several_threads_at_once(emulator):
    together = threading.Barrier(4)

    def wait(event):
        together.wait(20)
        return event

    with opened("blocking", emulator.transport(), before_send=wait) as tracker:
        threads = [
            threading.Thread(target=tracker.track, args=("a",), kwargs={"user_id": str(number)})
            for number in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(emulator.events) == 4
