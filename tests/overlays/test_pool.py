"""Many calls at once: none of them can spoil the connections for those that come later.

A client of its own has as many connections as it needs, and 100 places for direct calls. Waiting
for a place takes time of the deadline, and none of an attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import anyio
import anyio.to_thread
import pytest
import trio
from callers import BACKENDS
from raw_server import RawServer, answer

from intercom_data_events import (
    APITimeoutError,
    AsyncDataEventsClient,
    DataEventsClient,
    IntercomError,
)
from intercom_data_events.tracker import AsyncTracker

MANY = 250
PLACES = 100
#: Seconds that are enough for any of these requests on a busy machine.
AMPLE = 20.0

# httpx leaves generators of its own to the collector where a request is cancelled, which trio
# reports.
pytestmark = [
    pytest.mark.costly,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]
either_loop = pytest.mark.parametrize("backend", ["asyncio", "trio"])
every_backend = pytest.mark.parametrize("backend", BACKENDS)


class Service(RawServer):
    """A server that delays or withholds its answers, and counts those that it owes.

    Attributes:
        delays: Seconds before the answers, in turn.
        withholds: Whether it answers nothing at the moment.
        in_flight: Requests that were read and have no answer.
        most: The largest number of those.
    """

    def __init__(self, *delays):
        super().__init__(self._serve)
        self.delays = delays
        self.withholds = False
        self.in_flight = self.most = 0

    def _serve(self, connection):
        while True:
            request = connection.request()
            with self.changed:
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
                self.changed.notify_all()
            delays = self.delays or (0,)
            connection.pause(delays[len(self.requests) % len(delays)])
            with self.changed:
                self.changed.wait_for(lambda: not self.withholds or self.closing.is_set(), AMPLE)
                self.in_flight -= 1
            connection.send(answer(request))

    def withhold(self):
        """Answers nothing from now on."""
        self.withholds = True

    def go_on(self, *delays):
        """Answers everything, after these delays."""
        with self.changed:
            self.delays, self.withholds = delays, False
            self.changed.notify_all()

    def meet(self, number):
        """Answers nothing until so many requests are in flight."""

        def release():
            self.wait_for(lambda: self.in_flight >= number or self.closing.is_set())
            self.go_on(0.1)

        self.withhold()
        threading.Thread(target=release, daemon=True).start()

    def __exit__(self, *raised):
        self.closing.set()
        self.go_on()
        super().__exit__(*raised)


class Crowd:
    """Makes many calls of one client at once, and returns the error of each, or None."""

    def __init__(self, backend, url, **options):
        self.backend = backend
        self.options = {"access_token": "token", "base_url": url, "pace": False, **options}

    def __call__(self, *crowds):
        """Takes tuples of a function to call first, a number of calls, and options of a view."""
        if self.backend != "blocking":
            return anyio.run(self._tasks, crowds, backend=self.backend)
        found = []
        with DataEventsClient(**self.options) as client, ThreadPoolExecutor(MANY) as threads:
            for before, number, options in crowds:
                before()
                view = client.with_options(**options)
                found.append(list(threads.map(lambda n, view=view: create(view, n), range(number))))
        return found

    async def _tasks(self, crowds):
        found = []
        async with AsyncDataEventsClient(**self.options) as client:
            for before, number, options in crowds:
                before()
                found.append(await at_once(client.with_options(**options), number))
        return found


def nothing():
    pass


def create(client, number):
    try:
        client.create("placed-order", user_id=str(number))
    except IntercomError as error:
        return error
    return None


async def at_once(client, number, limit=contextlib.nullcontext):
    """So many calls, each with a time limit of the caller's own."""
    found = [None] * number

    async def one(index):
        async with limit():
            try:
                await client.create("placed-order", user_id=str(index))
            except IntercomError as error:
                found[index] = error

    async with anyio.create_task_group() as group:
        for index in range(number):
            group.start_soon(one, index)
    return found


@contextlib.asynccontextmanager
async def asyncio_limit(seconds):
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            yield


@contextlib.asynccontextmanager
async def trio_limit(seconds):
    with trio.move_on_after(seconds):
        yield


LIMITS = {"asyncio": asyncio_limit, "trio": trio_limit}


def behind(backend, server, number, hold=None, **options):
    """Has calls wait behind others that have all places, and then has all places taken again.

    Returns the errors of those that had the places, of those that waited, and of the last.

    Args:
        backend: The driver.
        server: The server, which answers none of the first calls for a while.
        number: How many calls wait.
        hold: Seconds for which they wait; None for as long as they do.
        options: The options of those that wait.
    """
    settings = {"access_token": "token", "base_url": server.url, "pace": False, "timeout": AMPLE}

    def all_taken():
        server.wait_for(lambda: server.in_flight >= PLACES)

    async def run():
        found = [], [], []

        async def call(errors, client, number):
            errors.extend(await at_once(client, number))

        async with AsyncDataEventsClient(**settings) as client:
            async with anyio.create_task_group() as holding:
                holding.start_soon(call, found[0], client, PLACES)
                await anyio.to_thread.run_sync(all_taken)
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(call, found[1], client.with_options(**options), number)
                    if hold is not None:
                        await anyio.sleep(hold)
                        server.go_on()
                server.go_on()
            server.meet(PLACES)
            await call(found[2], client, PLACES)
        return found

    server.withhold()
    if backend != "blocking":
        return anyio.run(run, backend=backend)
    with DataEventsClient(**settings) as client, ThreadPoolExecutor(PLACES + number) as threads:
        view = client.with_options(**options)
        first = [threads.submit(create, client, index) for index in range(PLACES)]
        all_taken()
        late = [threads.submit(create, view, index) for index in range(number)]
        wait(late, hold)
        server.go_on()
        wait(first + late)
        server.meet(PLACES)
        again = [threads.submit(create, client, index) for index in range(PLACES)]
        return [[one.result() for one in calls] for calls in (first, late, again)]


async def all_places_are_free(client, server):
    """The client can have as many requests in flight as ever."""
    server.meet(PLACES)
    assert await at_once(client, PLACES) == [None] * PLACES


# What an overload leaves behind.


@either_loop
def test_later_calls_succeed_after_many_ran_out_of_time(backend):
    async def run():
        options = {"base_url": server.url, "pace": False, "timeout": 5, "max_retries": 0}
        async with AsyncDataEventsClient("token", **options) as client:
            server.withhold()
            hasty = client.with_options(timeout=0.2, deadline=0.4)
            for _ in range(2):
                errors = await at_once(hasty, MANY)
                assert all(isinstance(error, APITimeoutError) for error in errors)
            server.go_on()
            for number in range(5):
                await client.create("placed-order", user_id=str(number))
            await all_places_are_free(client, server)

    with Service() as server:
        anyio.run(run, backend=backend)


@either_loop
def test_later_calls_succeed_after_answers_came_at_about_the_time_limit(backend):
    async def run():
        options = {"base_url": server.url, "pace": False, "timeout": 5, "max_retries": 0}
        async with AsyncDataEventsClient("token", **options) as client:
            hasty = client.with_options(timeout=0.25, deadline=0.6)
            for delay in (0.2, 0.3):
                server.go_on(delay)
                await at_once(hasty, MANY)
            server.go_on()
            for number in range(5):
                await client.create("placed-order", user_id=str(number))
            await all_places_are_free(client, server)

    with Service() as server:
        anyio.run(run, backend=backend)


@either_loop
def test_later_calls_succeed_after_callers_cancelled_many(backend):
    """As asyncio.timeout() and trio.move_on_after() do, with the client's default settings."""

    async def run():
        async with AsyncDataEventsClient("token", base_url=server.url) as client:
            # It learns that no rate limit holds it up.
            await client.create("placed-order", user_id="0")
            server.withhold()
            for seconds in (0.3, 0.2):
                await at_once(client, MANY, functools.partial(LIMITS[backend], seconds))
            server.go_on()
            quick = client.with_options(timeout=5, max_retries=0)
            for number in range(5):
                await quick.create("placed-order", user_id=str(number))
            await all_places_are_free(quick, server)

    with Service() as server:
        anyio.run(run, backend=backend)


@either_loop
def test_later_calls_succeed_after_calls_were_cancelled_in_turn(backend):
    """While some wait for a place, some connect, and some wait for their answer."""

    async def run():
        async with AsyncDataEventsClient("token", base_url=server.url) as client:
            await client.create("placed-order", user_id="0")
            server.go_on(0.05)
            async with anyio.create_task_group() as group:
                for number in range(MANY):
                    limit = functools.partial(LIMITS[backend], 0.001 * number)
                    group.start_soon(at_once, client, 1, limit)
            server.go_on()
            quick = client.with_options(timeout=5, max_retries=0)
            for number in range(5):
                await quick.create("placed-order", user_id=str(number))
            await all_places_are_free(quick, server)

    with Service() as server:
        anyio.run(run, backend=backend)


def test_later_calls_of_threads_succeed_after_many_ran_out_of_time():
    with Service() as server:
        crowd = Crowd("blocking", server.url, max_retries=0, timeout=5)
        hasty = {"timeout": 0.2, "deadline": 0.4}
        first, second, third = crowd(
            (server.withhold, MANY, hasty),
            (server.go_on, 5, {}),
            (lambda: server.meet(PLACES), PLACES, {"timeout": AMPLE}),
        )

        assert all(isinstance(error, APITimeoutError) for error in first)
        assert second == [None] * 5
        assert third == [None] * PLACES


@either_loop
def test_a_tracker_delivers_after_an_overload(backend):
    """Some answers come in time, and many do not, so that it goes on sending all the while."""

    async def run():
        options = {"base_url": server.url, "pace": False, "timeout": 0.4}
        async with (
            AsyncDataEventsClient("token", **options) as client,
            AsyncTracker(client, concurrency=200, close_timeout=0.1) as tracker,
        ):
            for number in range(600):
                await tracker.track("placed-order", user_id=str(number))
            await tracker.flush(0.5)
            server.go_on()
            # What was in flight ends, one way or the other.
            await tracker.flush(0.5)
            before = tracker.counters.sent
            for _ in range(10):
                if await tracker.flush(0.5) or tracker.counters.sent > before + 50:
                    return
            raise AssertionError(f"it sent {before} events, and then {tracker.counters}")

    with Service(0.2, 0.5, 0.6) as server:
        anyio.run(run, backend=backend)


# Places.


@every_backend
def test_at_most_100_direct_calls_are_on_the_wire_at_once(backend):
    with Service() as server:
        crowd = Crowd(backend, server.url, max_retries=0, timeout=AMPLE)
        (errors,) = crowd((lambda: server.meet(PLACES), 3 * PLACES // 2, {}))

        assert errors == [None] * (3 * PLACES // 2)
        assert server.most == PLACES


@every_backend
def test_waiting_for_a_place_takes_nothing_of_an_attempt(backend):
    with Service() as server:
        first, late, again = behind(backend, server, 10, hold=1.5, timeout=1, max_retries=0)

        assert first == again == [None] * PLACES
        assert late == [None] * 10


@every_backend
def test_a_call_without_a_place_in_time_was_not_sent(backend):
    with Service() as server:
        first, late, again = behind(backend, server, 10, deadline=0.5)

        assert first == again == [None] * PLACES
        assert len(server.requests) == 2 * PLACES
        for error in late:
            assert isinstance(error, APITimeoutError)
            assert (error.tries, error.may_have_been_processed) == (0, False)
            assert "was not sent" in str(error)
            # That has another cause, and another remedy.
            assert "rate limit" not in str(error)


@pytest.mark.parametrize("backend", ["blocking", "asyncio"])
def test_views_of_a_client_share_its_places(backend):
    with Service() as server:
        crowd = Crowd(backend, server.url, max_retries=0)
        (errors,) = crowd(
            (lambda: server.meet(PLACES), 3 * PLACES // 2, {"version": "2.13", "timeout": AMPLE})
        )

        assert errors == [None] * (3 * PLACES // 2)
        assert server.most == PLACES
