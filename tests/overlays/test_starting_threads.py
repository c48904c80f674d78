"""A thread that starts another one waits for it, which may run anything before: nothing is held.

Python's ``Thread.start()`` returns once the new thread is alive, and the garbage collector can run
in that one before; with it the finalizers of objects, which may use whatever they refer to. Here a
thread of its own runs them as each thread is started, which is the same every time.
"""

from __future__ import annotations

import contextlib
import threading

import pytest
from children import Child

from intercom_data_events import DataEventsClient
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.tracker import Tracker

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: Seconds after which a use that has not ended is stuck.
PATIENCE = 10


class Finalizers:
    """What runs in each new thread before the thread that starts it goes on."""

    def __init__(self):
        self.function = None
        self.runs = 0
        self._start = threading.Thread.start
        self._turn = threading.Lock()

    def run_at_start(self, thread):
        # What a finalizer starts itself, if only by another thread, is started as ever: else each
        # one that starts a thread would run the next one, without end.
        if (function := self.function) is not None and self._turn.acquire(blocking=False):
            self.runs += 1
            collecting = threading.Thread(target=self._run, args=(function,))
            self._start(collecting)
            collecting.join()
            self._turn.release()
        self._start(thread)

    def _run(self, function):
        # As of a finalizer's, nothing becomes of its errors, such as that a tracker is closed.
        with contextlib.suppress(RuntimeError):
            function()


@pytest.fixture
def finalizers(monkeypatch):
    finalizers = Finalizers()
    monkeypatch.setattr(threading.Thread, "start", lambda thread: finalizers.run_at_start(thread))
    return finalizers


def done(function):
    said = Child(function).said(PATIENCE)
    assert "returned" in said, said
    return said["returned"]


def events(number):
    return [{"event_name": "a", "user_id": str(user)} for user in range(number)]


# What finalizers can do to a bulk whose thread is being started.


def test_a_bulk_can_be_closed_while_it_starts_a_thread(finalizers):
    def use():
        with DataEventsClient("token", transport=Emulator().transport()) as client:
            outcomes = client.create_many(events(20))
            finalizers.function = outcomes.close
            got = [outcome.status for outcome in outcomes]
            return finalizers.runs > 0, set(got) <= {"accepted"}

    assert done(use) == [True, True]


def test_a_bulk_can_be_closed_by_the_finalizer_of_what_refers_to_it(finalizers):
    class Report:
        def __init__(self, outcomes):
            self.outcomes = outcomes

        def __del__(self):
            self.outcomes.close()

    def use():
        with DataEventsClient("token", transport=Emulator().transport()) as client:
            outcomes = client.create_many(events(20))
            reports = [Report(outcomes)]
            finalizers.function = reports.clear
            return len(list(outcomes)) <= 20 and finalizers.runs > 0

    assert done(use) is True


def test_another_bulk_can_be_forgotten_while_one_starts_a_thread(finalizers):
    def use():
        with DataEventsClient("token", transport=Emulator().transport()) as client:
            left = [client.create_many(events(20))]
            next(left[0])
            outcomes = client.create_many(events(20))
            finalizers.function = left.clear
            return [len(list(outcomes)), finalizers.runs > 0]

    assert done(use) == [20, True]


def test_a_client_can_be_used_while_its_bulk_starts_a_thread(finalizers):
    emulator = Emulator()

    def use():
        with DataEventsClient("token", transport=emulator.transport()) as client:
            outcomes = client.create_many(events(5), concurrency=2)

            def send():
                client.create("finalized", user_id=str(finalizers.runs))
                list(client.create_many([{"event_name": "b", "user_id": "7"}]))

            finalizers.function = send
            return [len(list(outcomes)), finalizers.runs > 0]

    assert done(use) == [5, True]


def test_a_client_can_be_closed_while_its_bulk_starts_a_thread(finalizers):
    def use():
        client = DataEventsClient("token", transport=Emulator().transport())
        outcomes = client.create_many(events(5), concurrency=2)
        finalizers.function = client.close
        try:
            return len(list(outcomes)) <= 5
        except RuntimeError as error:
            return str(error)

    assert done(use) in (True, "the client is closed; create a new one")


def test_no_more_threads_start_than_a_bulk_may_have_while_others_take_their_time(finalizers):
    """As the lock is free meanwhile, a thread that ends its work may see to the next one too."""
    emulator = Emulator()

    def use():
        names = []
        with DataEventsClient("token", transport=emulator.transport()) as client:
            outcomes = client.create_many(events(60), concurrency=3)

            def count():
                names.append(
                    sum(thread.name.startswith("create_many") for thread in threading.enumerate())
                )

            finalizers.function = count
            got = len(list(outcomes))
        return [got, bool(names), max(names) <= 3]

    assert done(use) == [60, True, True]


# And to a tracker.


def uses_of(tracker):
    return {
        "track": lambda: tracker.track("finalized", user_id="7"),
        "counters": lambda: tracker.counters,
        "flush": lambda: tracker.flush(0.01),
        "close": lambda: tracker.close(0.01),
    }


@pytest.mark.parametrize("kept", ["in memory", "in a file"])
@pytest.mark.parametrize("use_of", ["track", "counters", "flush", "close"])
def test_a_tracker_can_be_used_while_it_starts_a_thread(finalizers, tmp_path, use_of, kept):
    def use():
        with DataEventsClient("token", transport=Emulator().transport()) as client:
            tracker = Tracker(client, tmp_path / "outbox" if kept == "in a file" else None)
            finalizers.function = uses_of(tracker)[use_of]
            closed = 0
            for number in range(3):
                try:
                    tracker.track("a", user_id=str(number))
                except RuntimeError:  # It is closed.
                    closed += 1
            tracker.close(PATIENCE / 2)
            finalizers.function = None
            return [finalizers.runs > 0, closed > 0 and use_of != "close"]

    assert done(use) == [True, False]


def test_a_tracker_can_be_used_while_its_first_thread_in_a_child_starts(finalizers, tmp_path):
    """It has an outbox with events, for which a child starts a thread as it first uses it."""
    client = DataEventsClient(
        "token", transport=Emulator(faults=[Fault.failing(503)] * 99).transport()
    )
    tracker = Tracker(client, tmp_path / "outbox")
    tracker.track("a", user_id="7")
    tracker.flush(0.01)

    def use():
        finalizers.function = lambda: tracker.track("finalized", user_id="7")
        tracker.track("b", user_id="7")
        tracker.close(0.1)
        finalizers.function = None
        return finalizers.runs > 0

    try:
        assert done(use) is True
    finally:
        tracker.close(0.1)
        client.close()
