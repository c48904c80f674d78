"""Where no thread can be had, events wait, that is said, and whoever waits sends them."""

from __future__ import annotations

import _thread
import contextlib
import json
import logging
import queue
import threading
import time

import httpx
import pytest
from programs import Program

from intercom_data_events import DataEventsClient
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
LOGGER = "intercom_data_events"

REJECTION = {"type": "error.list", "errors": [{"code": "parameter_invalid", "message": "no"}]}


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


class Scarce:
    """Threads, of which a number can be had; None for as many as anybody wants."""

    #: Each way to start one, of all Pythons.
    WAYS = (
        (_thread, "start_new_thread"),
        (_thread, "start_joinable_thread"),
        (threading, "_start_new_thread"),
        (threading, "_start_joinable_thread"),
    )

    def __init__(self, monkeypatch):
        self.left = None
        self.refused = 0
        for module, name in self.WAYS:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, self._scarce(getattr(module, name)))

    def _scarce(self, start):
        def start_if_there_is_one(*arguments, **options):
            if self.left is not None:
                if self.left == 0:
                    self.refused += 1
                    raise RuntimeError("can't start new thread")
                self.left -= 1
            return start(*arguments, **options)

        return start_if_there_is_one


@pytest.fixture
def threads(monkeypatch):
    return Scarce(monkeypatch)


class Server(httpx.BaseTransport):
    """Accepts events, and rejects those of users called "rejected …"; notes who sends each."""

    def __init__(self):
        self.users = []
        self.senders = set()

    def handle_request(self, request):
        user = json.loads(request.content)["user_id"]
        self.users.append(user)
        self.senders.add(threading.get_ident())
        if user.startswith("rejected"):
            return httpx.Response(400, json=REJECTION)
        return httpx.Response(202)


def eventually(holds):
    """Waits until something is so."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.002)


def track(tracker, *users):
    for user in users:
        tracker.track("placed-order", user_id=str(user))


def lines(caplog, containing="thread"):
    return [
        record for record in caplog.records
        if record.name == LOGGER and record.levelno >= logging.WARNING
        and containing in record.getMessage()
    ]  # fmt: skip


def test_events_wait_and_that_is_said_once(threads, outbox, caplog):
    server = Server()
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox, close_timeout=PATIENCE) as tracker,
    ):
        threads.left = 0
        track(tracker, *range(3))
        assert threads.refused
        assert "thread" in str(tracker.counters.failing)
        assert tracker.counters.queued == 3
        track(tracker, *range(3, 6))
        assert "thread" in str(tracker.counters.failing)
        assert not server.users
        # It is said by whoever comes next that may log, which `track` may not.
        assert len(lines(caplog)) <= 1
        assert tracker.flush(5)
        track(tracker, *range(6, 9))
        assert tracker.flush(5)
        assert len(lines(caplog)) == 1

    assert sorted(server.users) == list("012345678")


def test_a_flush_sends_everything_itself(threads, outbox):
    server, told = Server(), []
    with DataEventsClient("token", transport=server) as client:
        threads.left = 0
        tracker = Tracker(client, outbox, on_error=lambda event, error: told.append(event.user_id))
        track(tracker, *range(5), "rejected")
        assert tracker.flush(5)
        assert sorted(server.users) == [*"01234", "rejected"]
        assert server.senders == {threading.get_ident()}
        assert told == ["rejected"]
        assert (tracker.counters.sent, tracker.counters.refused) == (5, 1)
        threads.left = None
        tracker.close(PATIENCE)


def test_so_does_closing(threads, outbox, caplog):
    server, told = Server(), []
    with DataEventsClient("token", transport=server) as client:
        threads.left = 0
        tracker = Tracker(client, outbox, on_error=lambda event, error: told.append(event.user_id))
        track(tracker, *range(5), "rejected")
        assert tracker.close(5)
        assert sorted(server.users) == [*"01234", "rejected"]
        assert server.senders == {threading.get_ident()}
        assert told == ["rejected"]
        assert len(lines(caplog)) == 1
        with pytest.raises(RuntimeError, match="closed"):
            track(tracker, "late")


def test_what_closing_has_no_time_for_is_told_or_kept(threads, outbox):
    told, never = [], threading.Event()

    class Hanging(httpx.BaseTransport):
        def handle_request(self, request):
            never.wait(request.extensions["timeout"]["read"])
            raise httpx.ReadTimeout("it takes too long")

    with DataEventsClient("token", transport=Hanging()) as client:
        threads.left = 0
        tracker = Tracker(client, outbox, on_error=lambda event, error: told.append(event.user_id))
        track(tracker, *range(5))
        begin = time.monotonic()
        assert not tracker.close(0.3)
        assert time.monotonic() - begin < 5

    if outbox is None:
        assert sorted(told) == list("01234")
    else:
        assert told == []
        with contextlib.closing(Outbox(outbox)) as box:
            assert box.status().queued == 5


@pytest.mark.parametrize("doing", ["track", "flush"])
def test_once_threads_can_be_had_again_they_send(threads, outbox, doing):
    server = Server()
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(client, outbox) as tracker,
    ):
        threads.left = 0
        track(tracker, *range(3))
        assert "thread" in str(tracker.counters.failing)
        threads.left = None
        if doing == "track":
            track(tracker, 3)
            # Without a flush: there are threads now that do.
            eventually(lambda: len(server.users) == 4)
            assert threading.get_ident() not in server.senders
        else:
            assert tracker.flush(PATIENCE)
        eventually(lambda: tracker.counters.failing is None)
        track(tracker, "later")
        eventually(lambda: "later" in server.users)

    assert server.users.count("0") == 1


def test_a_second_time_without_threads_is_said_again(threads, outbox, caplog):
    server = Server()
    with DataEventsClient("token", transport=server) as client:
        for number in range(2):
            with Tracker(client, outbox) as tracker:
                threads.left = 0
                track(tracker, f"{number} a", f"{number} b")
                assert tracker.flush(5)
                assert len(lines(caplog)) == number + 1
                threads.left = None
                track(tracker, f"{number} c")
                eventually(lambda: len(server.users) == 3 * (number + 1))  # noqa: B023


@pytest.mark.parametrize("left", [1, 2, 3])
def test_with_fewer_threads_than_there_is_work_for_all_is_sent_in_the_end(threads, outbox, left):
    """The threads that are missing start without anybody tracking, flushing or closing."""
    server, told = Server(), []
    with (
        DataEventsClient("token", transport=server) as client,
        Tracker(
            client, outbox, on_error=lambda event, error: told.append(event.user_id)
        ) as tracker,
    ):
        threads.left = left
        track(tracker, *range(10), "rejected")
        eventually(lambda: len(server.users) == 11 or tracker.counters.failing is not None)
        threads.left = None
        eventually(lambda: len(server.users) == 11)
        eventually(lambda: told == ["rejected"])
        eventually(lambda: tracker.counters.failing is None)
        eventually(lambda: tracker.counters.sent == 10)

    assert sorted(server.users) == [*map(str, range(10)), "rejected"]


@pytest.mark.parametrize("left", [1, 2, 3])
def test_with_fewer_threads_than_there_is_work_for_a_flush_sends(threads, outbox, left):
    server, told = Server(), []
    with DataEventsClient("token", transport=server) as client:
        tracker = Tracker(client, outbox, on_error=lambda event, error: told.append(event.user_id))
        threads.left = left
        track(tracker, *range(10), "rejected")
        assert tracker.flush(5)
        assert sorted(server.users) == [*map(str, range(10)), "rejected"]
        assert told == ["rejected"]
        assert tracker.close(5)


class Unreliable(queue.SimpleQueue):
    """As on Python 3.11 and 3.12, where a timeout can pass without an end of the wait."""

    def get(self, block=True, timeout=None):
        assert timeout is None, "it can wait forever"
        return super().get(block)


def test_a_flush_without_threads_does_not_rely_on_the_timeout_of_a_queue(
    threads, outbox, monkeypatch
):
    monkeypatch.setattr(queue, "SimpleQueue", Unreliable)
    server = Server()
    with DataEventsClient("token", transport=server) as client:
        tracker = Tracker(client, outbox)
        threads.left = 0
        track(tracker, *range(10))

        assert tracker.flush(5)
        assert tracker.close(5)

    assert sorted(server.users) == [*map(str, range(10))]


@pytest.mark.processes
@pytest.mark.parametrize("again", [False, True])
def test_the_exit_sends_what_waits_for_threads(outbox, tmp_path, again):
    emulator = Emulator(rate_limit=None)
    script = f"""
        import _thread

        def refuse(*arguments, **options):
            raise RuntimeError("can't start new thread")

        logging.disable()
        tracker = Tracker(client, outbox)
        ways = [
            (module, name, getattr(module, name))
            for module in (_thread, threading)
            for name in dir(module)
            if name.lstrip("_").startswith(("start_new_thread", "start_joinable_thread"))
        ]
        for module, name, _ in ways:
            setattr(module, name, refuse)
        track(tracker, *range(10))
        note(tracker.counters.queued)
        if {again}:
            for module, name, way in ways:
                setattr(module, name, way)
    """
    with emulator.serve() as url, Program(script, url, outbox, tmp_path) as program:
        assert program.end() == ["10"]

    assert sorted(int(event.user_id) for event in emulator.events) == list(range(10))
