"""One client in several processes, threads and tasks, also where they are broken off midway."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import httpx
import httpx2
import pytest
from callers import every_driver, threads_and_tasks
from children import PATIENCE, Child

from intercom_data_events import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.emulator import Emulator, Fault, ManualClock, random_faults
from intercom_data_events.tracker import Tracker

# What may go wrong where there are several threads is what is tested.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


class Workers:
    """Threads that call functions; for good, as OpenSSL minds a fork while one of its users ends.

    Nobody waits for them at the end: they may be stuck.
    """

    def __init__(self):
        self._work = queue.SimpleQueue()
        for _ in range(20):
            threading.Thread(target=self._run, daemon=True).start()

    def submit(self, function):
        future = Future()
        self._work.put((function, future))
        return future

    def _run(self):
        while True:
            function, future = self._work.get()
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001  # told to who waits for it
                future.set_exception(error)
            del function, future


def called(function):
    future = Future()
    future.set_result(function())
    return future


@functools.cache
def workers_of(process):
    return Workers()


class Runner:
    """Calls the methods of a client in other threads: in many, or in the one of an event loop.

    In a child, which is guarded anyway, a blocking client's are called here: a new thread can have
    the number of one that is gone, and with it an RLock that was held.
    """

    def __init__(self, backend, *, here=False):
        self._backend = backend
        self._here = here
        self._running = contextlib.ExitStack()

    def __enter__(self):
        if self._backend == "blocking":
            self._submit = called if self._here else workers_of(os.getpid()).submit
        else:
            portal = anyio.from_thread.start_blocking_portal(self._backend)
            self._submit = self._running.enter_context(portal).start_task_soon
        return self

    def __exit__(self, *raised):
        return self._running.__exit__(*raised)

    def start(self, method, **arguments):
        return self._submit(functools.partial(method, **arguments))

    def call(self, method, **arguments):
        return self.start(method, **arguments).result(PATIENCE)

    @contextlib.contextmanager
    def using(self, **options):
        """A client of the runner's kind, closed at the end."""
        kind = DataEventsClient if self._backend == "blocking" else AsyncDataEventsClient
        client = kind("token", **options)
        yield client
        self.call(getattr(client, "close" if self._backend == "blocking" else "aclose"))


def create(runner, client, user, second=0):
    runner.call(client.create, event_name="a", user_id=user, created_at=1_671_028_890 + second)


def started(runner, client, user):
    return runner.start(client.create, event_name="a", user_id=user, created_at=1_671_028_890)


def in_child(backend, client, user, events=1):
    """Forks a child that creates events with a client from before the fork."""

    def use():
        with Runner(backend, here=True) as runner:
            for second in range(events):
                create(runner, client, user, second)
        return "done"

    return Child(use)


class HeldClock(ManualClock):
    """A clock whose waits, in the process that made it, go on until a test lets them end."""

    def __init__(self):
        super().__init__()
        self.home = os.getpid()
        self.begun = queue.SimpleQueue()
        #: What the next wait that is let go ends in, in place of its time.
        self.interruption = None
        #: What the next wait ends in as soon as it begins.
        self.interrupting = None
        self._lock = threading.Lock()
        self._held = []
        self._goes_on = False

    def somebody_waits(self, *, endlessly=False):
        """Returns once somebody waits: for a time, or for others however long they take."""
        while (self.begun.get(timeout=PATIENCE) == math.inf) is not endlessly:
            pass

    def hold(self):
        """What a wait holds on to until it is let go."""
        held = threading.Event()
        with self._lock:
            self._held.append(held)
            if self._goes_on:
                held.set()
        return held

    def let_go(self):
        """Lets all waits pass their time, also those to come."""
        with self._lock:
            self._goes_on = True
            for held in self._held:
                held.set()

    def alarm(self):
        return _HeldAlarm(self, super().alarm())

    def async_alarm(self):
        return _AsyncHeldAlarm(self, super().async_alarm())

    def pass_by(self, seconds):
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            raise interruption
        super().pass_by(seconds)


class _HeldAlarm:
    def __init__(self, clock, alarm):
        self.clock = clock
        self.alarm = alarm
        self.held = clock.hold()

    def set(self):
        self.alarm.set()
        self.held.set()

    def wait(self, seconds):
        interruption, self.clock.interrupting = self.clock.interrupting, None
        if interruption is not None:
            raise interruption
        if os.getpid() == self.clock.home:
            self.clock.begun.put(seconds)
            # Who is not the first in the queue is woken by who is.
            assert seconds == math.inf or self.held.wait(PATIENCE)
        self.alarm.wait(seconds)


class _AsyncHeldAlarm(_HeldAlarm):
    async def wait(self, seconds):
        if os.getpid() == self.clock.home:
            self.clock.begun.put(seconds)
            if seconds < math.inf:
                held = functools.partial(self.held.wait, PATIENCE)
                assert await anyio.to_thread.run_sync(held, abandon_on_cancel=True)
        await self.alarm.wait(seconds)


class Connections:
    """An emulator's answers on real sockets, and who sent events over which connection.

    A request for the user "held" is answered once it is let go.
    """

    def __init__(self, emulator):
        self._emulator = emulator
        self._numbers = itertools.count()
        self.users = {}
        self.held = threading.Event()
        self.let_go = threading.Event()

    def answer(self, connection, request):
        user = json.loads(request.content)["user_id"]
        self.users.setdefault(connection, []).append(user)
        if user == "held":
            self.held.set()
            assert self.let_go.wait(PATIENCE)
        return self._emulator.answer(request)

    @contextlib.contextmanager
    def serve(self):
        connections = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                self.number = next(connections._numbers)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                url = f"http://api.example{self.path}"
                headers = list(self.headers.items())
                request = httpx.Request("POST", url, headers=headers, content=body)
                response = connections.answer(self.number, request)
                self.send_response_only(response.status_code)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                if not response.content:
                    self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.write(response.content)

            def handle(self):
                # Who is cancelled does not wait for the answer.
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *arguments):
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                self.let_go.set()
                server.shutdown()
                thread.join()


def users_of(emulator):
    return sorted(event.user_id for event in emulator.events)


# Forks.


@pytest.fixture(params=["own numbers", "one number"])
def _numbers(request, monkeypatch):
    """The processes of a test have one number, as those of several containers can, or later ones.

    It is asked for in Python alone: what is in C has that of the system.
    """
    if request.param == "one number":
        monkeypatch.setattr(os, "getpid", lambda: 7)


whatever_the_numbers = pytest.mark.usefixtures("_numbers")


@pytest.mark.processes
@whatever_the_numbers
@every_driver
def test_parent_and_children_use_one_client_over_connections_of_their_own(backend, emulator):
    connections = Connections(emulator)
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url) as client,
    ):
        create(runner, client, "parent", 0)
        children = [in_child(backend, client, f"child {n}", events=10) for n in range(3)]
        for second in range(1, 10):
            create(runner, client, "parent", second)
        assert [child.said() for child in children] == [{"returned": "done"}] * 3
        create(runner, client, "parent", 10)

    assert users_of(emulator) == sorted(
        ["parent"] * 11 + [f"child {n}" for n in range(3) for _ in range(10)]
    )
    # One each, and on each the events of one process.
    assert sorted(map(len, connections.users.values())) == [10, 10, 10, 11]
    assert all(len(set(users)) == 1 for users in connections.users.values())


@pytest.mark.processes
@whatever_the_numbers
@threads_and_tasks
def test_the_child_of_a_child_has_connections_of_its_own_too(backend, emulator):
    connections = Connections(emulator)
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url) as client,
    ):
        create(runner, client, "parent")

        def child():
            with Runner(backend, here=True) as runner:
                create(runner, client, "child", 0)
                said = in_child(backend, client, "grandchild").said()
                create(runner, client, "child", 1)
                return said

        assert Child(child).said() == {"returned": {"returned": "done"}}

    assert sorted(connections.users.values()) == [["child"] * 2, ["grandchild"], ["parent"]]


@pytest.mark.processes
@whatever_the_numbers
@threads_and_tasks
def test_closing_a_client_in_a_child_leaves_it_open_in_the_parent(backend, emulator):
    connections = Connections(emulator)
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url) as client,
    ):
        create(runner, client, "parent", 0)

        def close():
            with Runner(backend, here=True) as runner:
                runner.call(client.close if backend == "blocking" else client.aclose)

        assert Child(close).said() == {"returned": None}
        create(runner, client, "parent", 1)

    assert list(connections.users.values()) == [["parent", "parent"]]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("backend", "doing"),
    [
        ("blocking", "sending"),
        ("blocking", "waiting for the rate limit"),
        ("blocking", "waiting to try again"),
        ("asyncio", "sending"),
        ("asyncio", "waiting for the rate limit"),
        ("trio", "waiting to try again"),
    ],
)
def test_a_child_is_not_held_up_by_what_the_parent_is_doing(backend, doing):
    clock = HeldClock()
    # Half of 4 is for this client, the rest for the child's.
    faults = [None, Fault.failing(503)] if doing == "waiting to try again" else []
    emulator = Emulator(clock=clock, rate_limit=4, faults=faults)
    connections = Connections(emulator)
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url, clock=clock, quota_share=0.5) as client,
    ):
        create(runner, client, "parent", 0)
        if doing == "waiting for the rate limit":
            create(runner, client, "parent", 1)
        busy = started(runner, client, "held" if doing == "sending" else "busy")
        if doing == "sending":
            assert connections.held.wait(PATIENCE)
        else:
            clock.somebody_waits()
        assert in_child(backend, client, "child").said() == {"returned": "done"}
        assert not busy.done()
        clock.let_go()
        connections.let_go.set()
        busy.result(PATIENCE)

    assert users_of(emulator).count("child") == 1
    assert {"held", "busy"} & set(users_of(emulator))


@pytest.mark.processes
@whatever_the_numbers
def test_a_child_does_not_share_connections_of_the_callers_own(emulator):
    with emulator.serve() as url, httpx.Client() as own:
        client = DataEventsClient("token", base_url=url, http_client=own)
        client.create("a", user_id="parent")
        said = in_child("blocking", client, "child").said()
        assert (said.get("raised"), "fork" in said["message"]) == ("ConfigurationError", True)
        client.create("b", user_id="parent")

    assert users_of(emulator) == ["parent", "parent"]


@pytest.mark.processes
@whatever_the_numbers
def test_a_bulk_of_the_parent_is_refused_in_a_child_and_goes_on_in_the_parent(emulator):
    events = [{"event_name": "a", "user_id": str(number)} for number in range(200)]
    with emulator.serve() as url, DataEventsClient("token", base_url=url) as client:
        outcomes = client.create_many(events, concurrency=2)
        next(outcomes)
        said = Child(lambda: repr(next(outcomes))).said()
        assert (said.get("raised"), "fork" in said["message"]) == ("ConfigurationError", True)
        # Nor does a child end it, as it forgets it.
        assert Child(outcomes.close).said() == {"returned": None}
        assert len(list(outcomes)) == 199

    assert len(emulator.events) == 200


@pytest.mark.processes
@whatever_the_numbers
@pytest.mark.parametrize("kept", ["in memory", "in a file"])
def test_a_child_sends_what_it_tracks_itself(emulator, tmp_path, kept):
    outbox = tmp_path / "outbox" if kept == "in a file" else None
    with emulator.serve() as url, DataEventsClient("token", base_url=url) as client:
        tracker = Tracker(client, outbox)
        tracker.track("a", user_id="parent")
        assert tracker.flush(PATIENCE)

        def track(user):
            before = tracker.counters.sent
            tracker.track("a", user_id=user)
            flushed = tracker.flush(PATIENCE)
            return [before, flushed, tracker.counters.sent, tracker.close(PATIENCE)]

        for user in ("child", "other child"):
            said = Child(functools.partial(track, user)).said()
            assert said == {"returned": [0, True, 1, True]}
        tracker.track("b", user_id="parent")
        assert tracker.close(PATIENCE)

    assert users_of(emulator) == ["child", "other child", "parent", "parent"]


@pytest.mark.processes
@whatever_the_numbers
def test_a_child_does_not_send_what_its_parent_still_has_in_memory(emulator):
    connections = Connections(emulator)
    with connections.serve() as url, DataEventsClient("token", base_url=url) as client:
        tracker = Tracker(client, concurrency=1)
        tracker.track("a", user_id="held")
        tracker.track("a", user_id="parent")
        assert connections.held.wait(PATIENCE)
        assert Child(lambda: [tracker.flush(PATIENCE), tracker.close(PATIENCE)]).said() == {
            "returned": [True, True]
        }
        assert users_of(emulator) == []
        connections.let_go.set()
        assert tracker.close(PATIENCE)

    assert users_of(emulator) == ["held", "parent"]


class Stops:
    """Where a thread called "stopping" stops, each time, until it is told to go on."""

    def __init__(self):
        self.reached = queue.SimpleQueue()
        self.go_on = threading.Semaphore(0)

    def stop(self, place):
        if threading.current_thread().name == "stopping":
            self.reached.put(place)
            assert self.go_on.acquire(timeout=PATIENCE)

    def run(self, use):
        """Runs it to its end, and says so."""
        try:
            use()
        finally:
            self.reached.put(None)

    def clock(self):
        stop = self.stop

        class StoppingClock(ManualClock):
            def time(self):
                stop("asking for the time")
                return super().time()

            def monotonic(self):
                stop("asking for the time")
                return super().monotonic()

            def alarm(self):
                stop("making an alarm")
                return super().alarm()

        return StoppingClock()

    def http_client(self):
        stop = self.stop

        class StoppingClient(httpx.Client):
            def __init__(self, **options):
                stop("making connections")
                super().__init__(**options)

        return StoppingClient


@pytest.mark.processes
@whatever_the_numbers
@pytest.mark.parametrize("use", ["first", "second", "waiting"])
def test_a_child_is_not_held_up_by_any_lock_that_a_thread_of_the_parent_holds(
    emulator, monkeypatch, use
):
    """A fork at any moment when a thread is asking for what it is given from outside."""
    stops = Stops()
    monkeypatch.setattr(httpx, "Client", stops.http_client())
    places = []
    with (
        emulator.serve() as url,
        # Most of the quota is for others, such as the children.
        DataEventsClient("token", base_url=url, clock=stops.clock(), quota_share=0.001) as client,
        contextlib.ExitStack() as afterwards,
    ):
        afterwards.callback(stops.go_on.release, 1000)
        if use != "first":
            client.create("a", user_id="before")
        if use == "second":
            client = client.with_options(quota_share=1)
        thread = threading.Thread(
            target=stops.run,
            args=(lambda: client.create("a", user_id="thread"),),
            name="stopping",
        )
        thread.start()
        while (place := stops.reached.get(timeout=PATIENCE)) is not None:
            places.append(place)
            said = in_child("blocking", client, f"child {len(places)}").said()
            assert said == {"returned": "done"}
            stops.go_on.release()
        thread.join(PATIENCE)

    assert ("making connections" in places) is (use == "first")
    assert ("making an alarm" in places) is (use == "waiting")
    assert places.count("asking for the time") > 3
    children = [f"child {number + 1}" for number in range(len(places))]
    assert set(users_of(emulator)) - {"before"} == {"thread", *children}


@pytest.mark.processes
@threads_and_tasks
def test_forks_while_many_threads_send_lose_nothing(backend):
    clock = ManualClock()
    patient = {"clock": clock, "timeout": 86_400, "deadline": math.inf, "max_retries": 50}
    failing = Fault.failing(503)
    plan = itertools.chain([failing], random_faults(0.2, seed=2, among=[failing]))
    emulator = Emulator(clock=clock, faults=plan)
    connections = Connections(emulator)
    stop = threading.Event()
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url, **patient) as client,
        ThreadPoolExecutor(4) as threads,
    ):
        # A fork while another thread imports a module for the first time is beyond Python.
        create(runner, client, "parent")

        def send(number):
            sent = 0
            while not stop.is_set():
                create(runner, client, f"thread {number}", sent)
                sent += 1
            return sent

        sending = [threads.submit(send, number) for number in range(4)]
        try:
            said = [in_child(backend, client, f"child {n}", events=3).said() for n in range(10)]
        finally:
            stop.set()
        sent = sum(future.result(PATIENCE) for future in sending)

    assert said == [{"returned": "done"}] * 10
    assert len(emulator.events) == emulator.counts.stored == 1 + sent + 30
    # A process sends nothing over the connections of another.
    for users in connections.users.values():
        assert len({user if user.startswith("child") else "parent" for user in users}) == 1


# Forks, and connections of one's own.


own_connections_of_each = pytest.mark.parametrize(
    ("backend", "kind", "library"),
    [
        ("blocking", "http_client", httpx),
        ("blocking", "transport", httpx),
        ("asyncio", "http_client", httpx),
        ("trio", "transport", httpx),
        ("blocking", "transport", httpx2),
        ("asyncio", "http_client", httpx2),
    ],
)


def own_connections(backend, kind, library):
    """An option that gives a client connections of the caller's own, and those."""
    name = "Client" if kind == "http_client" else "HTTPTransport"
    made = getattr(library, name if backend == "blocking" else f"Async{name}")()
    return {kind: made}, made


@pytest.mark.processes
@own_connections_of_each
def test_connections_of_ones_own_that_were_used_before_a_fork_are_refused_after_it(
    backend, emulator, kind, library
):
    with emulator.serve() as url, Runner(backend) as runner:
        options, own = own_connections(backend, kind, library)
        with runner.using(base_url=url, **options) as client:
            create(runner, client, "parent", 0)
            said = in_child(backend, client, "child").said()
            view = in_child(backend, client.with_options(timeout=5), "child").said()
            create(runner, client, "parent", 1)
        runner.call(own.close if backend == "blocking" else own.aclose)

    assert said == view
    assert said["raised"] == "ConfigurationError"
    assert kind in said["message"]
    assert "after the fork" in said["message"]
    assert users_of(emulator) == ["parent", "parent"]


@pytest.mark.processes
@own_connections_of_each
def test_connections_of_ones_own_that_were_not_used_before_a_fork_work_after_it(
    backend, emulator, kind, library
):
    connections = Connections(emulator)
    with connections.serve() as url, Runner(backend) as runner:
        options, own = own_connections(backend, kind, library)
        with runner.using(base_url=url, **options) as client:
            children = [in_child(backend, client, f"child {n}", events=2) for n in range(2)]
            assert [child.said() for child in children] == [{"returned": "done"}] * 2
            create(runner, client, "parent")
        runner.call(own.close if backend == "blocking" else own.aclose)

    users = sorted(connections.users.values())
    assert users == [["child 0"] * 2, ["child 1"] * 2, ["parent"]]


# Many at once.


@pytest.mark.parametrize(
    ("backend", "rate_limit"),
    [("blocking", 1667), ("blocking", 10), ("asyncio", 10), ("trio", 10)],
)
def test_one_client_serves_many_threads_or_tasks_at_once(backend, rate_limit):
    # Each wait moves it on for all, so no attempt may end by it.
    clock = ManualClock()
    patient = {"clock": clock, "timeout": 86_400, "deadline": math.inf, "max_retries": 50}
    among = [Fault.failing(503), Fault.failing(500, processed=True), Fault.reset(processed=True)]
    emulator = Emulator(
        clock=clock, rate_limit=rate_limit, faults=random_faults(0.2, seed=1, among=among)
    )

    def use(client, number):
        for second in range(10):
            client.create("a", user_id=f"{number}", created_at=1_671_028_890 + second)

    async def async_use(client, number):
        for second in range(10):
            await client.create("a", user_id=f"{number}", created_at=1_671_028_890 + second)

    with (
        emulator.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url, **patient) as client,
    ):
        using = use if backend == "blocking" else async_use
        futures = [runner.start(using, client=client, number=number) for number in range(16)]
        for future in futures:
            future.result(PATIENCE)

    assert users_of(emulator) == sorted(f"{number}" for number in range(16) for _ in range(10))
    assert emulator.counts.stored == 160
    assert sum(emulator.counts.faults.values()) > 10


# Broken off midway.


def broken_off(runner, backend, clock, waiting):
    """Breaks off what waits: cancels a task, and lets a thread's wait end in an exception."""
    if backend == "blocking":
        clock.interruption = KeyboardInterrupt("enough")
        clock.let_go()
        with pytest.raises(KeyboardInterrupt, match="enough"):
            waiting.result(PATIENCE)
    else:
        waiting.cancel()
        # Nothing else ends the wait of whoever waits from here on.
        runner.call(anyio.lowlevel.checkpoint)


@pytest.mark.parametrize(
    ("backend", "waiting_for"),
    [
        ("blocking", "the rate limit"),
        ("blocking", "another try"),
        ("asyncio", "the rate limit"),
        ("asyncio", "another try"),
        ("trio", "the rate limit"),
    ],
)
def test_who_is_broken_off_while_waiting_leaves_nothing_stuck(backend, waiting_for):
    clock = HeldClock()
    faults = [None, Fault.failing(503)] if waiting_for == "another try" else []
    emulator = Emulator(
        clock=clock, rate_limit=1 if waiting_for == "the rate limit" else 10, faults=faults
    )
    with (
        Runner(backend) as runner,
        runner.using(transport=emulator.transport(), clock=clock, deadline=math.inf) as client,
    ):
        create(runner, client, "first")
        waiting = started(runner, client, "broken off")
        clock.somebody_waits()
        broken_off(runner, backend, clock, waiting)
        clock.let_go()
        create(runner, client, "second")
        create(runner, client, "third")

    assert users_of(emulator) == ["first", "second", "third"]
    assert emulator.counts.limited == 0


@every_driver
def test_who_waits_behind_one_that_is_broken_off_is_next(backend):
    clock = HeldClock()
    emulator = Emulator(clock=clock, rate_limit=1)
    with (
        Runner(backend) as runner,
        runner.using(transport=emulator.transport(), clock=clock, deadline=math.inf) as client,
    ):
        create(runner, client, "first")
        waiting = started(runner, client, "broken off")
        clock.somebody_waits()
        behind = [started(runner, client, user) for user in ("second", "third")]
        for _ in behind:
            clock.somebody_waits(endlessly=True)
        broken_off(runner, backend, clock, waiting)
        clock.let_go()
        for future in behind:
            future.result(PATIENCE)

    assert users_of(emulator) == ["first", "second", "third"]
    assert emulator.counts.limited == 0


@every_driver
def test_who_is_broken_off_behind_others_leaves_them_their_places(backend):
    clock = HeldClock()
    emulator = Emulator(clock=clock, rate_limit=1)
    with (
        Runner(backend) as runner,
        runner.using(transport=emulator.transport(), clock=clock, deadline=math.inf) as client,
    ):
        create(runner, client, "first")
        head = started(runner, client, "second")
        clock.somebody_waits()
        if backend == "blocking":
            clock.interrupting = KeyboardInterrupt("enough")
            with pytest.raises(KeyboardInterrupt, match="enough"):
                create(runner, client, "broken off")
        else:
            behind = started(runner, client, "broken off")
            clock.somebody_waits(endlessly=True)
            broken_off(runner, backend, clock, behind)
        last = started(runner, client, "third")
        clock.somebody_waits(endlessly=True)
        clock.let_go()
        head.result(PATIENCE)
        last.result(PATIENCE)

    assert [event.user_id for event in emulator.events] == ["first", "second", "third"]


@every_driver
def test_who_is_broken_off_while_sending_takes_up_no_room(backend):
    clock = HeldClock()
    emulator = Emulator(clock=clock, rate_limit=2)
    connections = Connections(emulator)

    class Unplugged(httpx.BaseTransport):
        """Interrupts a thread where a task would be cancelled."""

        def __init__(self):
            self.through = httpx.HTTPTransport()

        def handle_request(self, request):
            if b"held" in request.content:
                raise KeyboardInterrupt("enough")
            return self.through.handle_request(request)

        def close(self):
            self.through.close()

    options = {"transport": Unplugged()} if backend == "blocking" else {}
    with (
        connections.serve() as url,
        Runner(backend) as runner,
        runner.using(base_url=url, clock=clock, **options) as client,
    ):
        create(runner, client, "first")
        sending = started(runner, client, "held")
        if backend == "blocking":
            with pytest.raises(KeyboardInterrupt, match="enough"):
                sending.result(PATIENCE)
        else:
            assert connections.held.wait(PATIENCE)
            sending.cancel()
            runner.call(anyio.lowlevel.checkpoint)
        # The server never counted it, so there is room for one more.
        create(runner, client, "second")

    assert set(users_of(emulator)) >= {"first", "second"}
