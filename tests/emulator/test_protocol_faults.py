"""Answers that break HTTP's rules, as bytes on a socket and as clients of every kind meet them."""

from __future__ import annotations

import asyncio
import math
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import anyio
import httpx
import pytest

from intercom_data_events import APITimeoutError, DataEventsClient
from intercom_data_events.clock import Clock
from intercom_data_events.emulator import (
    PROTOCOL_FAULTS,
    Emulator,
    Fault,
    Idle,
    ManualClock,
    random_faults,
)

from .conftest import NOW
from .drivers import DRIVERS, PATIENCE, SOCKETS, Drive, create

IN_PROCESS = [name for name in DRIVERS if name not in SOCKETS]
SHORT_PATIENCE = 0.05
ENDLESS = [Fault.interim(math.inf, every=0.5), Fault.trickling_head(0.5, endless=True)]

#: A fault, what a client meets that creates an event, and whether the event is stored.
OUTCOMES: list[tuple[Fault, int | str, bool]] = [
    (Fault.answered_twice(), 202, True),
    (Fault.answered_twice(after=math.inf), 202, True),
    (Fault.interim(), 202, True),
    (Fault.interim(2, every=0.5), 202, True),
    (Fault.trickling_head(0.01), 202, True),
    (Fault.wrong_length("too long"), "ReadTimeout", True),
    (Fault.wrong_length("too short"), 202, True),
    (Fault.wrong_length("not a number"), "RemoteProtocolError", True),
    (Fault.wrong_length("two"), "RemoteProtocolError", True),
    (Fault.wrong_length("cut chunk"), "RemoteProtocolError", True),
    (Fault.dropped(math.inf), 202, True),
    (Fault.redirected(), 307, False),
    (Fault.redirected("http://elsewhere.example/events", status=302), 302, False),
]


def faulty(*faults: Fault | None, clock: Clock | None = None) -> Emulator:
    return Emulator(clock=clock or ManualClock(float(NOW)), faults=faults)


def met_by(drive: Drive, fault: Fault, patience: float) -> tuple[int | str | None, bool]:
    emulator = faulty(fault)
    (met,) = drive(emulator, create(patience=patience))
    return met.status if met.failure is None else type(met.failure).__name__, bool(emulator.events)


@pytest.mark.parametrize(
    ("fault", "outcome", "stored"), OUTCOMES, ids=[fault.name for fault, _, _ in OUTCOMES]
)
@pytest.mark.parametrize("name", DRIVERS)
def test_clients_meet_a_fault_as_their_library_tells_of_it(
    name: str, fault: Fault, outcome: int | str, stored: bool
) -> None:
    patience = SHORT_PATIENCE if outcome == "ReadTimeout" else PATIENCE
    assert met_by(DRIVERS[name], fault, patience) == (outcome, stored)


@pytest.mark.parametrize("fault", ENDLESS, ids=lambda fault: str(fault.name))
@pytest.mark.parametrize("name", IN_PROCESS)
def test_in_process_a_head_without_end_ends_with_the_clients_patience(
    name: str, fault: Fault
) -> None:
    clock = ManualClock(float(NOW))
    (met,) = DRIVERS[name](faulty(fault, clock=clock), create(patience=3))
    assert (type(met.failure).__name__, sum(clock.waits)) == ("ReadTimeout", 3)


def test_in_process_the_client_makes_an_error_of_it_that_leaves_open_what_became_of_the_event() -> (
    None
):
    clock = ManualClock(float(NOW))
    emulator = faulty(*ENDLESS, clock=clock)
    client = DataEventsClient(
        "token", transport=emulator.transport(), clock=clock, timeout=5, max_retries=1
    )

    with pytest.raises(APITimeoutError) as raised:
        client.create("placed-order", user_id="314159")

    assert raised.value.may_have_been_processed
    assert (len(emulator.events), emulator.counts.requests) == (1, 2)


def test_one_of_each_kind_is_among_the_protocol_faults() -> None:
    tried = {fault.name for fault, _, _ in OUTCOMES} | {fault.name for fault in ENDLESS}
    assert {fault.name for fault in PROTOCOL_FAULTS} == tried
    assert len(PROTOCOL_FAULTS) == len(tried)
    plan = random_faults(1, seed=1, among=PROTOCOL_FAULTS)
    assert {fault.name for fault, _ in zip(plan, range(500), strict=False) if fault} == tried


def test_a_row_without_end_needs_a_pause() -> None:
    with pytest.raises(
        ValueError, match="every must be greater than 0 if number is infinite, not "
    ):
        Fault.interim(math.inf)


def test_a_redirect_says_where_to(sent: Drive) -> None:
    faults = [Fault.redirected(), Fault.redirected("http://elsewhere.example/", status=308)]
    met = sent(faulty(*faults), create(), create())
    assert [(one.status, one.headers["Location"]) for one in met] == [
        (307, "/events"),
        (308, "http://elsewhere.example/"),
    ]


@pytest.fixture(params=["in process", "in process, asyncio", "socket"])
def sent(request: pytest.FixtureRequest) -> Drive:
    return DRIVERS[request.param]


def test_a_head_trickles_byte_by_byte(sent: Drive) -> None:
    clock = ManualClock(float(NOW))
    (met,) = sent(faulty(Fault.trickling_head(0.25), clock=clock), create(patience=None))
    head = sum(len(f"{name}: {value}\r\n") for name, value in met.headers.items())
    assert clock.waits == [0.25] * (head + len("HTTP/1.1 202 Accepted\r\n"))


# As bytes.


class Wait:
    """A wait of the server's, which a test lets end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ended = anyio.Event()
        self._loop = asyncio.get_running_loop()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self.ended.set)


class HeldClock(Clock):
    """A clock on which each wait begins to be seen by a test, which lets it end."""

    def __init__(self) -> None:
        self._begun: SimpleQueue[Wait] = SimpleQueue()

    def next(self) -> Wait:
        return self._begun.get(timeout=PATIENCE)

    def async_alarm(self) -> HeldClock:
        return self

    def set(self) -> None:
        raise AssertionError("nobody else ends these waits")

    async def wait(self, seconds: float, /) -> None:
        wait = Wait(seconds)
        self._begun.put(wait)
        await wait.ended.wait()


class Peer:
    """A client that sees bytes, and takes nothing in them for granted."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def post(self, second: int) -> None:
        body = b'{"event_name": "placed-order", "created_at": %d, "user_id": "1"}' % (NOW + second)
        head = b"POST /events HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer token\r\n"
        head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._socket.sendall(head + body)

    def read(self, until: Callable[[bytes], object]) -> bytes:
        """Reads until a condition is true, or to the end."""
        read = b""
        while not until(read) and (more := self._socket.recv(1)):
            read += more
        return read

    def answer(self) -> bytes:
        """Reads an answer whose body is empty."""
        head = self.read(lambda read: read.endswith(b"\r\n\r\n"))
        chunked = b"\r\nTransfer-Encoding: chunked" in head
        return head + (self.read(lambda read: read == b"0\r\n\r\n") if chunked else b"")

    def rest(self) -> bytes:
        """Ends its own direction, and reads to the end."""
        self._socket.shutdown(socket.SHUT_WR)
        return self.read(lambda _: False)


@contextmanager
def peer(emulator: Emulator) -> Iterator[Peer]:
    with emulator.serve() as url:
        at = httpx.URL(url)
        with socket.create_connection((at.host, at.port or 0), timeout=PATIENCE) as connected:
            yield Peer(connected)


def stored(emulator: Emulator) -> list[int]:
    return [event.created_at - NOW for event in emulator.events]


def test_of_a_connection_that_was_answered_twice_nothing_more_is_read() -> None:
    emulator = faulty(Fault.answered_twice())
    with peer(emulator) as client:
        client.post(1)
        first, second = client.answer(), client.answer()
        client.post(2)
        assert (first, client.rest()) == (second, b"")
    assert first.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert stored(emulator) == [1]


def test_the_second_answer_comes_when_the_connection_is_idle() -> None:
    clock = HeldClock()
    emulator = faulty(Fault.answered_twice(after=0.05), clock=clock)
    with peer(emulator) as client:
        client.post(1)
        first = client.answer()
        wait = clock.next()
        wait.end()
        second = client.answer()
        # This is a request that crosses the second answer.
        crossed = clock.next()
        client.post(2)
        assert client.answer().startswith(b"HTTP/1.1 202 Accepted\r\n")
        clock.next().end()
        assert client.rest() == b""
    assert first == second
    assert (wait.seconds, crossed.seconds) == (0.05, 0.05)
    assert stored(emulator) == [1, 2]


def test_requests_of_a_connection_that_is_not_idle_are_answered_before_the_second_answer() -> None:
    clock = HeldClock()
    emulator = faulty(Fault.answered_twice(after=0.05), clock=clock)
    with peer(emulator) as client:
        client.post(1)
        first = client.answer()
        clock.next()
        client.post(2)
        own = client.answer()
        clock.next().end()
        again = client.answer()
    # By the id of its request.
    assert first == again != own
    assert stored(emulator) == [1, 2]


def test_a_connection_is_dropped_when_it_is_idle() -> None:
    clock = HeldClock()
    with peer(faulty(Fault.dropped(20), clock=clock)) as client:
        client.post(1)
        answer = client.answer()
        wait = clock.next()
        wait.end()
        assert client.read(lambda _: False) == b""
    assert answer.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert b"close" not in answer.lower()
    assert wait.seconds == 20


def test_interim_answers_come_before_the_answer() -> None:
    with peer(faulty(Fault.interim(3))) as client:
        client.post(1)
        *interim, last = (client.answer() for _ in range(4))
        assert client.rest() == b""
    assert {one.partition(b"\r\n")[0] for one in interim} == {b"HTTP/1.1 103 Early Hints"}
    assert last.startswith(b"HTTP/1.1 202 Accepted\r\n")


@pytest.mark.parametrize(
    ("fault", "enough"),
    [
        (ENDLESS[0], lambda read: read.count(b"HTTP/1.1 103 ") == 50),
        (ENDLESS[1], lambda read: read.endswith(b"\r\nX-Trickle: " + b"." * 50)),
    ],
    ids=["1xx answers", "head"],
)
def test_a_server_goes_on_without_end_and_is_left_all_the_same(
    fault: Fault, enough: Callable[[bytes], object]
) -> None:
    emulator = faulty(fault)
    with peer(emulator) as client:
        client.post(1)
        read = client.read(enough)
    assert enough(read)
    assert b"HTTP/1.1 202 Accepted\r\n\r\n" not in read
    assert stored(emulator) == [1]


@pytest.mark.parametrize(
    ("length", "declared", "body"),
    [
        ("too long", [rb"Content-Length: 80"], rb" {60}"),
        ("too short", [rb"Content-Length: 30"], rb" {60}"),
        ("not a number", [rb"Content-Length: many"], rb" {60}"),
        ("two", [rb"Content-Length: 60", rb"Content-Length: 62"], rb" {60}"),
        ("cut chunk", [rb"Transfer-Encoding: chunked"], rb"50\r\n {60}"),
    ],
)
def test_a_length_is_wrong_and_nothing_else(
    length: str, declared: list[bytes], body: bytes
) -> None:
    with peer(faulty(Fault.wrong_length(length))) as client:  # type: ignore[arg-type]
        client.post(1)
        head = client.read(lambda read: read.endswith(b"\r\n\r\n"))
        assert re.fullmatch(body, client.rest())
    framing = [
        line
        for line in head.split(b"\r\n")
        if line.lower().startswith((b"content-length", b"transfer-encoding"))
    ]
    assert framing == declared


def test_a_fault_of_ones_own_says_byte_by_byte_what_is_sent() -> None:
    clock = ManualClock(float(NOW))
    late = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"

    def answer_and_time_out(answer: bytes) -> Iterator[bytes | float | Idle]:
        yield answer
        yield 2.5
        yield Idle(60)
        yield late

    fault = Fault(name="408 when idle", wire=answer_and_time_out, connection="closed")
    with peer(faulty(fault, clock=clock)) as client:
        client.post(1)
        read = client.read(lambda _: False)
    assert read.startswith(b"HTTP/1.1 202 Accepted\r\n")
    assert read.endswith(late)
    assert clock.waits == [2.5, 60]
