"""One async client in several event loops, one after another; at the same time, it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import anyio.from_thread
import httpx
import pytest
import trio
from callers import NOW
from children import Child

from intercom_data_events import (
    AsyncDataEventsClient,
    AuthenticationError,
    ConfigurationError,
    ServerError,
)
from intercom_data_events.emulator import Emulator, Fault, ManualClock
from intercom_data_events.tracker import AsyncTracker

pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

#: Seconds after which a use that has not ended is stuck.
PATIENCE = 10
#: A second after which the events of this module happen, each in one of its own.
SECONDS = itertools.count(NOW - 1_000_000)


@pytest.fixture(autouse=True, scope="module")
def _known():
    """What is there before these tests is not collected over and over, which would take long."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, caplog, capfd):
    """Nothing is warned of, printed, or logged by asyncio, by the end of a test and of its objects.

    Python turns warnings into errors here, and those of finalizers go to its hook.
    """
    gc.collect()
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: heard.append(repr(one.exc_value)))
    yield
    gc.collect()
    heard += [one.getMessage() for one in caplog.records if one.name in ("asyncio", "trio")]
    assert (heard, capfd.readouterr().err) == ([], "")


class Server:
    """An emulator's answers on real sockets, and how many connections it has.

    A request for the user "held" is answered once it is let go.
    """

    def __init__(self, emulator, *, keeps_alive=True):
        self.emulator = emulator
        self._keeps_alive = keeps_alive
        self._changed = threading.Condition()
        self._open = 0
        #: The users of the requests that arrived, answered or not.
        self.users = []
        self.most_open = 0
        self.held = threading.Event()
        self.let_go = threading.Event()

    def has_closed(self, *, but=0):
        """Whether, in the end, all connections but so many are closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open <= but, PATIENCE)

    def _count(self, more):
        with self._changed:
            self._open += more
            self.most_open = max(self.most_open, self._open)
            self._changed.notify_all()

    def _answer(self, request):
        content = json.loads(request.content) if request.content else {}
        self.users.append(content.get("user_id"))
        if self.users[-1] == "held":
            self.held.set()
            assert self.let_go.wait(PATIENCE)
        return self.emulator.answer(request)

    @contextlib.contextmanager
    def serve(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                url = f"http://{self.headers['Host']}{self.path}"
                headers = list(self.headers.items())
                response = server._answer(
                    httpx.Request(self.command, url, headers=headers, content=body)
                )
                self.send_response_only(response.status_code)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                if not response.content:
                    self.send_header("Content-Length", "0")
                if not server._keeps_alive:
                    self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(response.content)

            def do_GET(self):
                self.do_POST()

            def handle(self):
                server._count(1)
                # Who is cancelled does not wait for the answer.
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def finish(self):
                with contextlib.suppress(ConnectionError):
                    super().finish()
                server._count(-1)

            def log_message(self, *arguments):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{listening.server_port}"
            finally:
                self.let_go.set()
                listening.shutdown()
                thread.join()


@pytest.fixture
def emulator():
    return Emulator(clock=lambda: float(NOW), rate_limit=None)


@pytest.fixture
def server(emulator):
    return Server(emulator)


@pytest.fixture
def url(server):
    with server.serve() as url:
        yield url


@pytest.fixture
def client(url):
    """A client that is closed in a loop of its own."""
    client = AsyncDataEventsClient("token", base_url=url)
    yield client
    asyncio.run(client.aclose())


# Event loops, one after another: each yields functions that run an async function in a loop.


def runs(*runners):
    """A loop for each, closed before the next one."""
    yield from runners


def in_threads(*runners):
    """Each in a thread that has ended before the next one begins."""

    def run(runner, function):
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(runner, function).result(PATIENCE)

    for runner in runners:
        yield functools.partial(run, runner)


def left_open():
    """Two loops of one thread that take turns, each open and idle meanwhile."""
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        for loop in loops * 2:
            yield lambda function, loop=loop: loop.run_until_complete(function())
    finally:
        for loop in loops:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


class Loop:
    """A loop that runs in a thread of its own."""

    def __init__(self, portal):
        self._portal = portal

    @classmethod
    @contextlib.contextmanager
    def running(cls, backend):
        with anyio.from_thread.start_blocking_portal(backend) as portal:
            yield cls(portal)

    def start(self, function, *arguments):
        return self._portal.start_task_soon(function, *arguments)

    def call(self, function, *arguments):
        return self.start(function, *arguments).result(PATIENCE)


def running(*backends):
    """Loops that run all the time, and take turns."""
    with contextlib.ExitStack() as stack:
        loops = [stack.enter_context(Loop.running(backend)) for backend in backends]
        for loop in loops * 2:
            yield loop.call


def within():
    """A loop that has another thread run one, and waits for it; then goes on."""
    with asyncio.Runner() as outer:
        yield lambda function: outer.run(function())
        yield lambda function: outer.run(asyncio.to_thread(asyncio.run, function()))
        yield lambda function: outer.run(function())


def run_asyncio(function):
    return asyncio.run(function())


WAYS = {
    "asyncio": lambda: runs(*[run_asyncio] * 3),
    "trio": lambda: runs(*[trio.run] * 3),
    "asyncio and trio": lambda: runs(run_asyncio, trio.run, run_asyncio, trio.run),
    "asyncio in threads": lambda: in_threads(*[run_asyncio] * 3),
    "trio in threads": lambda: in_threads(*[trio.run] * 3),
    "both in threads": lambda: in_threads(trio.run, run_asyncio, trio.run),
    "left open": left_open,
    "running": lambda: running("asyncio", "asyncio"),
    "running trio": lambda: running("trio", "trio"),
    "running both": lambda: running("asyncio", "trio"),
    "one within another": within,
}

in_every_way = pytest.mark.parametrize("way", WAYS)
in_some_ways = pytest.mark.parametrize("way", ["asyncio", "left open", "running both"])
in_two_ways = pytest.mark.parametrize("way", ["asyncio and trio", "running"])


# What a client does in each of them; each returns how many events it created.


async def create(client, user="a"):
    await client.create("a", user_id=user, created_at=next(SECONDS))
    return 1


async def create_at_once(client, number=5):
    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(create, client)
    return number


async def create_in_turn(client):
    for _ in range(5):
        await create(client)
    return 5


async def create_through_views(client):
    await create(client.with_options(timeout=5))
    await create(client)
    async with client.with_options(max_retries=0) as view:
        await create(view)
    await client.contact(user_id="a").create("a", created_at=next(SECONDS))
    return 4


async def create_and_list(client):
    await create(client)
    assert [event async for event in client.list(user_id="a", per_page=2)]
    return 1


async def create_and_leave_a_listing(client):
    await create_at_once(client)
    async for _ in client.list(user_id="a", per_page=1):
        break
    return 5


def some_events(number):
    return [{"event_name": "a", "user_id": "a", "created_at": next(SECONDS)} for _ in range(number)]


async def create_many(client):
    async with client.create_many(some_events(20)) as outcomes:
        assert {outcome.status async for outcome in outcomes} == {"accepted"}
    return 20


async def create_one_and_many(client):
    return await create(client) + await create_many(client) + await create(client)


async def track(client):
    async with AsyncTracker(client) as tracker:
        for _ in range(5):
            await tracker.track("a", user_id="a", created_at=next(SECONDS))
        assert await tracker.flush(PATIENCE)
    return 5


USES = [
    create_at_once,
    create_through_views,
    create_and_list,
    create_and_leave_a_listing,
    create_many,
    create_one_and_many,
    track,
]


# One after another.


@in_every_way
def test_a_client_creates_events_in_several_loops(client, server, way):
    users = []
    for run in WAYS[way]():
        for _ in range(2):
            users.append(f"user {len(users)}")
            assert run(functools.partial(create, client, users[-1])) == 1

    assert [event.user_id for event in server.emulator.events] == users


@in_two_ways
@pytest.mark.parametrize("use", USES)
def test_whatever_a_client_does_it_does_in_several_loops(client, server, use, way):
    created = sum([run(functools.partial(use, client)) for run in WAYS[way]()])

    assert len(server.emulator.events) == created


@in_some_ways
def test_a_server_that_closes_each_connection_is_used_in_several_loops(emulator, way):
    with Server(emulator, keeps_alive=False).serve() as url:
        client = AsyncDataEventsClient("token", base_url=url)
        created = sum([run(functools.partial(create_at_once, client)) for run in WAYS[way]()])
        trio.run(client.aclose)

    assert len(emulator.events) == created


@in_two_ways
def test_a_client_of_an_emulators_server_is_used_in_several_loops(emulator, way):
    with emulator.serve() as url:
        client = AsyncDataEventsClient("token", base_url=url)
        created = sum([run(functools.partial(create_one_and_many, client)) for run in WAYS[way]()])
        asyncio.run(client.aclose())

    assert len(emulator.events) == created


@in_two_ways
def test_an_emulators_transport_is_used_in_several_loops(emulator, way):
    client = AsyncDataEventsClient("token", transport=emulator.transport())
    created = sum([run(functools.partial(create_at_once, client)) for run in WAYS[way]()])
    asyncio.run(client.aclose())

    assert len(emulator.events) == created


@in_two_ways
@pytest.mark.parametrize("use", [create_in_turn, create_many, track])
def test_requests_wait_for_the_rate_limit_in_several_loops(use, way):
    clock = ManualClock()
    emulator = Emulator(clock=clock, rate_limit=3)
    with Server(emulator).serve() as url:
        client = AsyncDataEventsClient("token", base_url=url, clock=clock, deadline=10_000)
        created = sum([run(functools.partial(use, client)) for run in WAYS[way]()])
        asyncio.run(client.aclose())

    assert len(emulator.events) == created
    assert clock.waits


def test_connections_of_earlier_loops_are_closed(url, server):
    client = AsyncDataEventsClient("token", base_url=url)
    for _ in range(5):
        asyncio.run(create_at_once(client))
        # In the end, those of this loop are left.
        assert server.has_closed(but=5)
    assert server.most_open <= 10
    trio.run(client.aclose)

    assert server.has_closed()


@pytest.mark.parametrize("at", ["left open", "running both"])
def test_connections_of_an_idle_loop_are_closed_once_another_one_is_used(client, server, at):
    for run in WAYS[at]():
        run(functools.partial(create_at_once, client))
        run(functools.partial(create, client))
        assert server.has_closed(but=5)


# Closing.


@in_every_way
def test_a_client_is_closed_in_another_loop_than_it_was_used_in(url, server, way):
    client = AsyncDataEventsClient("token", base_url=url)
    ways = WAYS[way]()
    next(ways)(functools.partial(create_at_once, client))
    next(ways)(client.aclose)

    assert server.has_closed()
    for run in ways:
        with pytest.raises(RuntimeError, match="the client is closed"):
            run(functools.partial(create, client))
    assert len(server.emulator.events) == 5


@in_some_ways
def test_a_client_is_closed_in_the_last_of_several_loops(url, server, way):
    async def create_and_close():
        await create_at_once(client)
        await client.aclose()

    client = AsyncDataEventsClient("token", base_url=url)
    with contextlib.closing(WAYS[way]()) as ways:
        next(ways)(functools.partial(create_at_once, client))
        next(ways)(create_and_close)
        assert server.has_closed()

    assert len(server.emulator.events) == 10


def test_a_block_of_a_client_ends_in_another_loop_than_it_began_in(url, server):
    client = AsyncDataEventsClient("token", base_url=url)
    asyncio.run(client.__aenter__())
    asyncio.run(create(client))
    asyncio.run(client.__aexit__(None, None, None))

    assert server.has_closed()


def test_a_client_that_is_closed_twice_in_two_loops_stays_closed(url, server):
    client = AsyncDataEventsClient("token", base_url=url)
    asyncio.run(create(client))
    asyncio.run(client.aclose())
    trio.run(client.aclose)

    assert server.has_closed()


# What ends badly in one loop does not count in the next.


def test_a_loop_whose_requests_failed_is_no_longer_in_use():
    emulator = Emulator(rate_limit=None, tokens=["right"], faults=[Fault.failing(503)])
    tokens = iter(["right", "wrong"])
    with Server(emulator).serve() as url:
        client = AsyncDataEventsClient(lambda: next(tokens, "right"), base_url=url, max_retries=0)
        with Loop.running("asyncio") as loop:
            for kind in (ServerError, AuthenticationError):
                with pytest.raises(kind):
                    loop.call(create, client)
            trio.run(create, client)
            loop.call(create, client)
        asyncio.run(client.aclose())

    assert len(emulator.events) == 2


def test_a_loop_whose_setting_failed_is_no_longer_in_use(url, server):
    def token():
        if failures:
            raise failures.pop()
        return "token"

    failures = [LookupError("the vault is closed")]
    client = AsyncDataEventsClient(token, base_url=url)
    with Loop.running("asyncio") as loop:
        with pytest.raises((ConfigurationError, LookupError)):
            loop.call(create, client)
        assert trio.run(create, client) == loop.call(create, client) == 1
    asyncio.run(client.aclose())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_whose_request_was_cancelled_is_no_longer_in_use(client, server, backend):
    async def give_up():
        async with anyio.create_task_group() as group:
            group.start_soon(create, client, "held")
            await anyio.to_thread.run_sync(server.held.wait, PATIENCE)
            group.cancel_scope.cancel()

    with Loop.running(backend) as loop:
        loop.call(give_up)
        assert asyncio.run(create(client, "next")) == 1
        assert loop.call(create, client, "last") == 1

    assert server.users == ["held", "next", "last"]


@pytest.mark.parametrize("ending", ["break", "aclose", "end of the loop"])
def test_a_bulk_that_was_left_early_holds_up_no_other_loop(client, server, ending):
    async def leave():
        outcomes = client.create_many(some_events(50), concurrency=3)
        async for _ in outcomes:
            break
        if ending == "aclose":
            await outcomes.aclose()
        return outcomes if ending == "end of the loop" else None

    left = asyncio.run(leave())
    before = len(server.emulator.events)
    assert asyncio.run(create(client)) + trio.run(create_many, client) == 21
    assert len(server.emulator.events) >= before + 21
    del left


class StuckClock(ManualClock):
    """Its waits never end, as long as it is stuck."""

    stuck = True

    def async_alarm(self):
        return _Stuck(self) if self.stuck else super().async_alarm()


class _Stuck:
    def __init__(self, clock):
        self._clock = clock
        self.set = lambda: None

    async def wait(self, seconds, /):
        asyncio.get_running_loop().stop()
        await asyncio.Event().wait()


@pytest.mark.processes
@pytest.mark.parametrize("doing", ["sending", "waiting for the rate limit", "waiting to try again"])
def test_a_loop_that_was_closed_during_requests_holds_up_no_other_one(doing):
    """In a process of its own, as what is left of the requests is never to be collected."""
    clock = StuckClock()
    faults = [None, Fault.failing(503)] if doing == "waiting to try again" else []
    # The emulator is in the parent, whose clock stands still, and has room for all of them.
    server = Server(Emulator(clock=clock, rate_limit=10, faults=faults))
    share = 0.1 if doing == "waiting for the rate limit" else 1

    def use():
        client = AsyncDataEventsClient("token", base_url=url, clock=clock, quota_share=share)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(create(client))
        task = loop.create_task(create(client, "held" if doing == "sending" else "b"))
        if doing == "sending":
            loop.add_reader(arrived, loop.stop)
        loop.run_forever()  # Until it arrives, or the wait begins.
        if doing == "sending":
            loop.remove_reader(arrived)
        assert not task.done()
        loop.close()
        clock.stuck = False
        clock.advance(10)
        return asyncio.run(create(client, "next")) + trio.run(create, client, "last")

    def tell():
        server.held.wait()
        os.write(telling, b".")

    arrived, telling = os.pipe()
    telling_thread = threading.Thread(target=tell)
    telling_thread.start()
    with server.serve() as url:
        child = Child(use)
        try:
            assert child.said(PATIENCE) == {"returned": 2}
        finally:
            server.held.set()
            telling_thread.join()
            os.close(arrived)
            os.close(telling)

    assert Counter(server.users)["next"] == Counter(server.users)["last"] == 1


# At the same time.

REFUSED = r"(?s)event loop.*\b(make|use|create|pass)\b.*\bclient"


@pytest.mark.parametrize(
    ("first", "second", "use"),
    [
        ("asyncio", "asyncio", create),
        ("asyncio", "trio", create),
        ("trio", "asyncio", create),
        ("asyncio", "asyncio", create_through_views),
        ("asyncio", "asyncio", create_and_list),
        ("asyncio", "asyncio", create_many),
        ("asyncio", "trio", create_many),
    ],
)
def test_two_loops_at_the_same_time_are_an_error_before_anything_is_sent(
    client, server, first, second, use
):
    with (
        Loop.running(first) as one,
        Loop.running(second) as other,
    ):
        busy = one.start(create, client, "held")
        assert server.held.wait(PATIENCE)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=REFUSED):
                other.call(use, client)
        assert server.users == ["held"]
        server.let_go.set()
        assert busy.result(PATIENCE) == 1
        assert len(server.emulator.events) == 1
        created = other.call(use, client) + one.call(use, client)

    assert len(server.emulator.events) == 1 + created


def test_a_loop_is_in_use_until_the_last_of_its_requests_has_ended(client, server):
    with (
        Loop.running("asyncio") as one,
        Loop.running("trio") as other,
    ):
        busy = one.start(create, client, "held")
        assert server.held.wait(PATIENCE)
        # Others of its own go on, and do not end its use.
        assert one.call(create_at_once, client) == 5
        with pytest.raises(ConfigurationError, match=REFUSED):
            other.call(create, client, "refused")
        server.let_go.set()
        busy.result(PATIENCE)
        assert other.call(create, client, "next") == 1

    assert "refused" not in server.users


def test_a_refused_loop_leaves_the_client_to_the_one_that_uses_it(client, server):
    with Loop.running("asyncio") as one:
        busy = one.start(create, client, "held")
        assert server.held.wait(PATIENCE)
        for run in in_threads(run_asyncio, trio.run):
            with pytest.raises(ConfigurationError, match=REFUSED):
                run(functools.partial(create, client, "refused"))
            assert one.call(create, client, "more") == 1
        server.let_go.set()
        busy.result(PATIENCE)

    assert sorted(server.users) == ["held", "more", "more"]


class WaitingClock(ManualClock):
    """Its first wait goes on until a test lets it end."""

    def __init__(self):
        super().__init__()
        self.begun = threading.Event()
        self.goes_on = threading.Event()

    def async_alarm(self):
        return _Waiting(self, super().async_alarm())


class _Waiting:
    def __init__(self, clock, alarm):
        self._clock = clock
        self._alarm = alarm
        self.set = alarm.set

    async def wait(self, seconds, /):
        self._clock.begun.set()
        await anyio.to_thread.run_sync(self._clock.goes_on.wait, PATIENCE)
        await self._alarm.wait(seconds)


@pytest.mark.parametrize("doing", ["waiting for the rate limit", "waiting to try again"])
def test_a_loop_whose_requests_wait_is_in_use(doing):
    clock = WaitingClock()
    faults = [None, Fault.failing(503)] if doing == "waiting to try again" else []
    share = 0.01 if doing == "waiting for the rate limit" else 1
    server = Server(Emulator(clock=clock, rate_limit=100, faults=faults))
    with (
        server.serve() as url,
        Loop.running("asyncio") as one,
        Loop.running("asyncio") as other,
    ):
        client = AsyncDataEventsClient("token", base_url=url, clock=clock, quota_share=share)
        one.call(create, client)
        busy = one.start(create, client)
        assert clock.begun.wait(PATIENCE)
        with pytest.raises(ConfigurationError, match=REFUSED):
            other.call(create, client, "refused")
        clock.goes_on.set()
        assert busy.result(PATIENCE) == 1
        assert other.call(create, client, "next") == 1
        other.call(client.aclose)

    assert "refused" not in server.users


def test_of_many_loops_at_once_each_sends_or_is_refused(client, server):
    def use(number):
        users = []
        for turn in range(8):
            user = f"{number} {turn}"
            with contextlib.suppress(ConfigurationError):
                runner = run_asyncio if (number + turn) % 3 else trio.run
                runner(functools.partial(create, client, user))
                users.append(user)
        return users

    together = threading.Barrier(4)
    with ThreadPoolExecutor(4, initializer=together.wait) as threads:
        created = list(itertools.chain(*threads.map(use, range(4))))

    assert created
    assert Counter(event.user_id for event in server.emulator.events) == Counter(created)
