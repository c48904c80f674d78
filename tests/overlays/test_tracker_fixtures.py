"""An async tracker is entered in one task and left in another, as fixtures are set up and ended.

Each event loop runs in a process of its own: where cancel scopes are left in the wrong order, it
can be busy for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json

import anyio
import anyio.abc
import httpx
import pytest
import trio
from children import Child

from intercom_data_events import AsyncDataEventsClient
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import AsyncTracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


class Server(httpx.AsyncBaseTransport):
    """Accepts events after a while."""

    def __init__(self, seconds=0.0):
        self._seconds = seconds
        self.users = []

    async def handle_async_request(self, request):
        await anyio.sleep(self._seconds)
        self.users.append(json.loads(request.content)["user_id"])
        return httpx.Response(202)


async def track(tracker, *users):
    for user in users:
        await tracker.track("placed-order", user_id=str(user))


def done(function):
    """What a function returns in a child process, which is killed where it is stuck."""
    said = Child(function).said(PATIENCE)
    assert "returned" in said, said
    return said["returned"]


async def in_a_task(function, *arguments):
    """Awaits a function in a task of its own, and returns or raises what it does."""
    results = []

    async def run():
        try:
            results.append((await function(*arguments), None))
        except Exception as error:  # noqa: BLE001  # raised below
            results.append((None, error))

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
    ((result, error),) = results
    if error is not None:
        raise error
    return result


@each_event_loop
def test_a_tracker_is_entered_in_one_task_and_left_in_another(event_loop, outbox):
    server = Server(0.001)

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            tracker = AsyncTracker(client, outbox)
            assert await in_a_task(tracker.__aenter__) is tracker
            await in_a_task(track, tracker, *range(5))
            assert await in_a_task(tracker.flush, PATIENCE)
            await track(tracker, *range(5, 10))
            await in_a_task(tracker.__aexit__, None, None, None)
            with pytest.raises(RuntimeError, match="closed"):
                await track(tracker, "late")
            return [sorted(map(int, server.users)), tracker.counters.sent]

    assert done(lambda: anyio.run(main, backend=event_loop)) == [list(range(10)), 10]


@each_event_loop
def test_several_are_entered_and_left_in_any_order(event_loop, tmp_path):
    server = Server()

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            trackers = [AsyncTracker(client, tmp_path / f"outbox{n}") for n in range(3)]
            for tracker in trackers:
                await in_a_task(tracker.__aenter__)
            for number, tracker in enumerate(trackers):
                await track(tracker, number)
            # As fixtures of different scopes end: the first one may be the last.
            for number in (1, 2, 0):
                await in_a_task(trackers[number].__aexit__, None, None, None)
            return sorted(server.users)

    assert done(lambda: anyio.run(main, backend=event_loop)) == ["0", "1", "2"]


@each_event_loop
def test_many_in_a_row_leave_nothing_behind(event_loop):
    server = Server()

    def tasks():
        if event_loop == "asyncio":
            return len(asyncio.all_tasks())
        return trio.lowlevel.current_statistics().tasks_living

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            before = None
            for number in range(20):
                tracker = AsyncTracker(client)
                await in_a_task(tracker.__aenter__)
                await track(tracker, number)
                await in_a_task(tracker.__aexit__, None, None, None)
                await anyio.wait_all_tasks_blocked()
                # The first one may set up what all share.
                before = tasks() if before is None else before
            return [tasks() == before, sorted(map(int, server.users))]

    assert done(lambda: anyio.run(main, backend=event_loop)) == [True, list(range(20))]


@each_event_loop
def test_an_error_of_the_block_comes_out_as_it_is(event_loop):
    server = Server()

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            tracker = AsyncTracker(client)
            await in_a_task(tracker.__aenter__)
            await track(tracker, 1)
            error = ValueError("of the block")
            # It does not swallow it, either.
            assert not await in_a_task(tracker.__aexit__, ValueError, error, None)
            return server.users

    assert done(lambda: anyio.run(main, backend=event_loop)) == ["1"]


@each_event_loop
def test_a_scope_that_is_entered_around_it_ends_meanwhile(event_loop, outbox):
    """Its own tasks are in no scope of the caller's, which may be cancelled or left."""
    server = Server(0.01)

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            tracker = AsyncTracker(client, outbox)
            with anyio.CancelScope() as scope:
                await tracker.__aenter__()
                await track(tracker, *range(5))
                scope.cancel()
            await track(tracker, *range(5, 10))
            assert await tracker.flush(PATIENCE)
            await tracker.__aexit__(None, None, None)
            return sorted(map(int, server.users))

    assert done(lambda: anyio.run(main, backend=event_loop)) == list(range(10))


@each_event_loop
def test_it_is_left_in_another_task_that_is_being_cancelled(event_loop, outbox):
    server = Server(0.02)

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            tracker = AsyncTracker(client, outbox, concurrency=5)
            await in_a_task(tracker.__aenter__)
            await track(tracker, *range(20))

            async def leave():
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await tracker.__aexit__(None, None, None)

            await in_a_task(leave)
            return [tracker.counters.sent, sorted(map(int, server.users))]

    assert done(lambda: anyio.run(main, backend=event_loop)) == [20, list(range(20))]


@each_event_loop
def test_it_is_left_within_the_time_that_closing_may_take(event_loop, outbox):
    told = []

    async def main():
        transport = Emulator(faults=itertools.repeat(Fault.slow(3600))).transport()
        async with AsyncDataEventsClient("token", transport=transport) as client:
            tracker = AsyncTracker(
                client, outbox, close_timeout=0.1, on_error=lambda event, _: told.append(event)
            )
            await in_a_task(tracker.__aenter__)
            await track(tracker, *range(5))
            with anyio.fail_after(PATIENCE / 4):
                await in_a_task(tracker.__aexit__, None, None, None)
        return sorted(event.user_id for event in told)

    said = done(lambda: anyio.run(main, backend=event_loop))

    assert said == (list("01234") if outbox is None else [])
    if outbox is not None:
        with contextlib.closing(Outbox(outbox)) as box:
            assert (box.status().queued, box.status().claimed) == (5, 0)


def test_an_asyncio_task_that_is_cancelled_leaves_what_another_entered():
    server = Server(0.02)

    async def main():
        async with AsyncDataEventsClient("token", transport=server) as client:
            tracker = AsyncTracker(client, concurrency=5)
            await asyncio.create_task(tracker.__aenter__())
            tracked = asyncio.Event()

            async def serve():
                try:
                    await track(tracker, *range(20))
                    tracked.set()
                    await asyncio.sleep(3600)
                finally:
                    await tracker.__aexit__(None, None, None)

            serving = asyncio.create_task(serve())
            await tracked.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        return sorted(map(int, server.users))

    assert done(lambda: asyncio.run(main())) == list(range(20))


class Fixtures:
    """Runs async generators as plugins of pytest do: each step is a task of its own, in one loop.

    pytest-asyncio runs each in its `asyncio.Runner`, with a context that all share.
    """

    def __init__(self, runner):
        self._runner = runner
        self._generators = []

    def set_up(self, function, *arguments):
        generator = function(*arguments)
        self._generators.append(generator)

        async def step():
            return await anext(generator)

        return self._runner.run(step())

    def run(self, function, *arguments):
        return self._runner.run(function(*arguments))

    def tear_down(self):
        while self._generators:
            generator = self._generators.pop()

            async def step(generator=generator):
                with pytest.raises(StopAsyncIteration):
                    await anext(generator)

            self._runner.run(step())


async def client_fixture(server):
    async with AsyncDataEventsClient("token", transport=server) as client:
        yield client


async def tracker_fixture(client, outbox):
    async with AsyncTracker(client, outbox) as tracker:
        yield tracker


def test_a_fixture_gives_each_test_a_tracker(outbox):
    async def a_test(tracker, number):
        await track(tracker, f"{number} a", f"{number} b")

    def session():
        server, numbers = Server(0.001), []
        with asyncio.Runner() as runner:
            fixtures = Fixtures(runner)
            for number in range(3):
                client = fixtures.set_up(client_fixture, server)
                tracker = fixtures.set_up(tracker_fixture, client, outbox)
                fixtures.run(a_test, tracker, number)
                fixtures.tear_down()
                numbers.append(len(server.users))
        return numbers

    assert done(session) == [2, 4, 6]


def test_a_fixture_of_a_session_gives_all_tests_the_same(outbox):
    def session():
        server, numbers = Server(0.001), []
        with asyncio.Runner() as runner:
            fixtures = Fixtures(runner)
            client = fixtures.set_up(client_fixture, server)
            tracker = fixtures.set_up(tracker_fixture, client, outbox)
            for number in range(3):
                fixtures.run(track, tracker, number)
                assert fixtures.run(tracker.flush, PATIENCE)
                numbers.append(len(server.users))
            fixtures.run(track, tracker, "last")
            fixtures.tear_down()
        return [numbers, server.users]

    assert done(session) == [[1, 2, 3], ["0", "1", "2", "last"]]


def test_a_test_that_fails_ends_its_fixture_all_the_same():
    async def a_test(tracker):
        await track(tracker, 1)
        raise AssertionError("it failed")

    def session():
        server = Server(0.001)
        with asyncio.Runner() as runner:
            fixtures = Fixtures(runner)
            client = fixtures.set_up(client_fixture, server)
            tracker = fixtures.set_up(tracker_fixture, client, None)
            with pytest.raises(AssertionError, match="it failed"):
                fixtures.run(a_test, tracker)
            fixtures.tear_down()
        return server.users

    assert done(session) == ["1"]
