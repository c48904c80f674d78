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
from callers import NOW, Answers
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
