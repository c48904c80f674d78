"""Time limits hold, whatever a server does: each kind of server here never ends what it began.

These tests take real time, because sockets know nothing of a client's clock. The limits are short,
and what counts as too late is far beyond them, so that a busy machine does not matter.
"""

from __future__ import annotations

import ssl
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import anyio
import httpx
import pytest
from callers import BACKENDS, NOW, Caller
from raw_server import (
    ACCEPTED,
    EARLY_HINTS,
    TUNNEL,
    RawServer,
    answer,
    each,
    encode,
    over_tls,
)

from intercom_data_events import (
    APIConnectionError,
    APITimeoutError,
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
    IntercomError,
)
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Seconds of a time limit.
SHORT = 0.1
#: Seconds after which it did not hold. The server goes on for twice as long.
LATE = 2.0

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def sending(backend):
    """A client as a program has it: with connections of its own, and with real time."""
    return Caller(backend, {"clock": Clock(), "max_retries": 0})


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path, authority):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return monkeypatch


def create(client):
    return client.create("placed-order", user_id="1")


def first_page(client):
    return client.list(user_id="1")


@contextmanager
def in_time(late=LATE):
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < late


def too_late(sending, use, url, **options):
    """What a client's request ends in, in time."""
    with in_time(), pytest.raises(APITimeoutError) as caught:
        sending(use, base_url=url, **options)
    return caught.value


# Servers that answer without an end. Each is a script for the time after the request was read.

CHUNKED = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n"
ZIPPED = b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\nContent-Length: 100000\r\n\r\n"
# The header of a gzip file, after which its name follows.
NAMED = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"
# An empty block of a deflate stream, which is not the last one.
EMPTY_BLOCK = b"\0\0\0\xff\xff"


def nothing(connection):
    connection.hold()


def rows_of_interim_answers(connection):
    connection.repeat([EARLY_HINTS])


def interim_answers_in_small_pieces(connection):
    connection.trickle(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def a_status_line(connection):
    connection.send(b"HTTP/1.1 202 ")
    connection.trickle(b"Accepted ")


def a_header(connection):
    connection.send(ACCEPTED[:-2] + b"X-Long: ")
    connection.trickle(b"a")


def many_headers(connection):
    connection.send(ACCEPTED[:-2])
    connection.repeat([b"X-More: a\r\n"])


def a_body(connection):
    connection.send(encode("202 Accepted", b"{")[:-1].replace(b": 1\r", b": 100000\r"))
    connection.trickle(b" ")


def a_body_without_length(connection):
    connection.send(b"HTTP/1.1 202 Accepted\r\n\r\n")
    connection.trickle(b" ")


def small_chunks(connection):
    connection.send(CHUNKED)
    connection.repeat([b"1\r\n \r\n"])


def a_chunk_extension(connection):
    connection.send(CHUNKED + b"1;extension=")
    connection.trickle(b"a")


def a_trailer(connection):
    connection.send(CHUNKED + b"0\r\nX-Trailer: ")
    connection.trickle(b"a")


def a_body_that_decompresses_to_nothing(connection):
    connection.send(ZIPPED + NAMED)
    connection.trickle(b"a")


def empty_blocks(connection):
    connection.send(ZIPPED + NAMED.replace(b"\x08\x08", b"\x08\0"))
    connection.repeat([EMPTY_BLOCK])


WITHOUT_HEAD = [
    nothing,
    rows_of_interim_answers,
    interim_answers_in_small_pieces,
    a_status_line,
    a_header,
    many_headers,
]
WITHOUT_BODY = [
    a_body,
    a_body_without_length,
    small_chunks,
    a_chunk_extension,
    a_trailer,
    a_body_that_decompresses_to_nothing,
    empty_blocks,
]


def endless_answers(*scripts, awaiting=()):
    """Runs a test with the blocking driver for all of them, and with the others for some."""
    cases = [("blocking", *scripts), ("asyncio", *awaiting), ("trio", *awaiting)]
    return pytest.mark.parametrize(
        ("backend", "endless"),
        [
            pytest.param(backend, script, id=f"{backend}-{script.__name__}")
            for backend, *chosen in cases
            for script in chosen
        ],
        indirect=["backend"],
    )


some_endless = endless_answers(rows_of_interim_answers, a_header, awaiting=[a_header])
# httpx leaves generators of its own to the collector where a body is not read to its end, which
# trio reports.
leaves_to_the_collector = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def after_request(endless):
    def script(connection):
        connection.request()
        endless(connection)

    return script


@endless_answers(*WITHOUT_HEAD, awaiting=WITHOUT_HEAD[:3])
def test_an_attempt_ends_in_time(sending, endless):
    with RawServer(after_request(endless)) as server:
        error = too_late(sending, create, server.url, timeout=SHORT)

        assert error.tries <= 1
        # On a busy machine, the time may be over before the request was sent.
        assert error.may_have_been_processed or server.users == []


@some_endless
def test_all_attempts_end_within_the_deadline(sending, endless):
    with RawServer(after_request(endless)) as server:
        too_late(sending, create, server.url, deadline=SHORT)


@some_endless
def test_retries_end_within_the_deadline(sending, endless):
    with RawServer(after_request(endless)) as server:
        too_late(
            sending, create, server.url, deadline=3 * SHORT, timeout=SHORT, max_retries=4
        )  # fmt: skip


@some_endless
def test_a_deadline_holds_where_the_phases_of_an_attempt_have_limits(sending, endless):
    with RawServer(after_request(endless)) as server:
        too_late(sending, create, server.url, deadline=SHORT, timeout=httpx.Timeout(10))


@leaves_to_the_collector
@endless_answers(*WITHOUT_BODY, awaiting=[a_body, a_trailer])
def test_a_query_ends_in_time(sending, endless):
    with RawServer(after_request(endless)) as server:
        too_late(sending, first_page, server.url, timeout=SHORT)


@leaves_to_the_collector
@endless_answers(a_body, a_trailer, empty_blocks, awaiting=[a_body])
def test_an_event_whose_acceptance_has_no_end_is_accepted_in_time(sending, endless):
    """Its status says all; no more is made of the time limit than that it ends the reading."""
    with RawServer(after_request(endless)) as server:
        with in_time():
            sending(create, base_url=server.url, timeout=3 * SHORT)

        assert len(server.requests) == 1


@some_endless
def test_an_attempt_on_a_kept_connection_ends_in_time(sending, endless):
    def script(connection):
        connection.send(answer(connection.request()))
        connection.request()
        endless(connection)

    def use(client):
        yield client.create("placed-order", user_id="1")
        with in_time(), pytest.raises(APITimeoutError):
            yield client.with_options(timeout=SHORT).create("placed-order", user_id="2")

    with RawServer(script) as server:
        sending.steps(use, base_url=server.url)


@some_endless
def test_an_attempt_over_tls_ends_in_time(sending, server_context, endless):
    with RawServer(over_tls(after_request(endless), server_context), scheme="https") as server:
        too_late(sending, create, server.url, timeout=3 * SHORT)


@some_endless
def test_an_attempt_through_a_proxy_ends_in_time(sending, environment, endless):
    with RawServer(after_request(endless)) as server:
        environment.setenv("HTTP_PROXY", server.url)
        environment.setenv("INTERCOM_ALLOW_HTTP", "1")
        too_late(sending, create, "http://api.example", timeout=SHORT)


# Before a request is sent.


def no_handshake(connection):
    connection.hold()


def half_a_handshake(connection):
    """The server gets the client's first message, and says nothing to it."""
    connection.await_bytes()
    connection.hold()


def a_slow_handshake(connection):
    """A record of TLS, whose bytes come one at a time."""
    connection.await_bytes()
    connection.send_raw(b"\x16\x03\x03\x3f\xff\x02")
    for _ in range(200):
        connection.send_raw(b"\0")
        connection.pause(0.02)


slow_handshakes = pytest.mark.parametrize(
    "script", [no_handshake, half_a_handshake, a_slow_handshake], ids=lambda one: one.__name__
)


@slow_handshakes
def test_a_handshake_that_does_not_end_is_given_up_in_time(sending, script):
    with RawServer(script, scheme="https") as server:
        error = too_late(sending, create, server.url, timeout=SHORT)

    assert error.may_have_been_processed is False


@endless_answers(*WITHOUT_HEAD[:4], awaiting=WITHOUT_HEAD[:2])
def test_a_tunnel_that_does_not_open_is_given_up_in_time(sending, environment, endless):
    with RawServer(after_request(endless)) as server:
        environment.setenv("HTTPS_PROXY", server.url)
        too_late(sending, create, "https://api.example", timeout=SHORT)


def test_a_handshake_within_a_tunnel_is_given_up_in_time(sending, environment):
    def tunnelled(connection):
        connection.request()
        connection.send(TUNNEL)
        a_slow_handshake(connection)

    with RawServer(tunnelled) as server:
        environment.setenv("HTTPS_PROXY", server.url)
        too_late(sending, create, "https://api.example", timeout=SHORT)


# The phases of an attempt share its time.


def test_the_time_of_a_handshake_counts_for_the_attempt(sending, server_context):
    """Each phase is within the limit, but all together are not."""

    def script(connection):
        connection.pause(0.25)
        connection.start_tls(server_context)
        connection.request()
        connection.pause(0.25)
        connection.send(ACCEPTED)
        connection.hold()

    with RawServer(script, scheme="https") as server:
        too_late(sending, create, server.url, timeout=0.4)


def test_the_time_of_opening_a_tunnel_counts_for_the_attempt(sending, environment, authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example").configure_cert(context)

    def script(connection):
        connection.request()
        connection.pause(0.25)
        connection.send(TUNNEL)
        connection.start_tls(context)
        connection.request()
        connection.pause(0.25)
        connection.send(ACCEPTED)
        connection.hold()

    with RawServer(script) as server:
        environment.setenv("HTTPS_PROXY", server.url)
        too_late(sending, create, "https://api.example", timeout=0.4)


def test_the_parts_of_an_answer_share_the_time_of_the_attempt(sending):
    def script(connection):
        connection.request()
        for piece in (EARLY_HINTS, ACCEPTED[:20], ACCEPTED[20:]):
            connection.pause(0.15)
            connection.send(piece)
        connection.hold()

    with RawServer(script) as server:
        too_late(sending, create, server.url, timeout=0.3)


def test_a_slow_answer_within_the_limit_is_an_answer(sending):
    """Also where a phase that has a limit of its own takes longer than the others."""

    def script(connection):
        while True:
            request = connection.request()
            content = EARLY_HINTS + answer(request)
            for at in range(0, len(content), 10):
                connection.send(content[at : at + 10])
                connection.pause(0.01)

    with RawServer(script) as server:
        sending(create, base_url=server.url, timeout=20)
        assert len(sending(first_page, base_url=server.url, timeout=20)) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_token_that_does_not_come_in_time_is_asked_for_no_more_often_than_retries_allow(
    sending, retries
):
    called = []

    async def token():
        called.append(1)
        await anyio.sleep(LATE)

    options = {"access_token": token, "timeout": 0.01, "max_retries": retries}
    error = too_late(sending, create, "http://127.0.0.1:9", **options)

    assert (len(called), error.tries) == (1 + retries, 0)


# Many events.


@some_endless
def test_create_many_ends_in_time(sending, endless):
    events = [
        {"event_name": "placed-order", "user_id": str(n), "created_at": NOW} for n in range(3)
    ]
    with RawServer(after_request(endless)) as server, in_time():
        outcomes = sending(
            lambda client: client.create_many(events), base_url=server.url, timeout=SHORT
        )

    assert [outcome.status for outcome in outcomes] == ["failed"] * 3
    assert all(isinstance(outcome.error, APITimeoutError) for outcome in outcomes)


@some_endless
def test_create_many_keeps_to_the_deadline(sending, endless):
    events = [
        {"event_name": "placed-order", "user_id": str(n), "created_at": NOW} for n in range(3)
    ]
    with RawServer(after_request(endless)) as server, in_time():
        outcomes = sending(
            lambda client: client.create_many(events),
            base_url=server.url,
            deadline=SHORT,
            max_retries=4,
        )

    assert [outcome.status for outcome in outcomes] == ["failed"] * 3


@some_endless
def test_a_tracker_is_closed_in_time(backend, endless):
    """An attempt that began before the tracker was closed has its own time limit."""
    lost = []
    options = {"access_token": "token", "timeout": SHORT}
    keeping = {"close_timeout": SHORT, "on_error": lambda *given: lost.append(given)}

    async def run(url):
        async with (
            AsyncDataEventsClient(base_url=url, **options) as client,
            AsyncTracker(client, **keeping) as tracker,
        ):
            await tracker.track("placed-order", user_id="1")

    with RawServer(after_request(endless)) as server, in_time():
        if backend != "blocking":
            anyio.run(run, server.url, backend=backend)
        else:
            with DataEventsClient(base_url=server.url, **options) as client:
                tracker = Tracker(client, **keeping)
                tracker.track("placed-order", user_id="1")
                assert tracker.close() is False

    ((event, error),) = lost
    assert event.user_id == "1"
    assert isinstance(error, IntercomError)


PROGRAM = """
    import sys, threading, time, _thread
    from intercom_data_events import DataEventsClient
    from intercom_data_events.tracker import Tracker

    def start_new_thread(*arguments, **named):
        raise RuntimeError("can't start new thread")

    if sys.argv[2] == "without threads":
        threading._start_new_thread = _thread.start_new_thread = start_new_thread
    client = DataEventsClient("token", base_url=sys.argv[1])
    tracker = Tracker(client, close_timeout=0.3)
    tracker.track("placed-order", user_id="1")
    print(time.time(), flush=True)
"""


@pytest.mark.processes
@pytest.mark.parametrize("threads", ["with threads", "without threads"])
@pytest.mark.parametrize("backend", ["blocking"])
def test_an_interpreter_ends_in_time(backend, threads):
    """Where no thread can be started any more, the thread that closes the tracker sends."""
    with RawServer(after_request(rows_of_interim_answers)) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROGRAM), server.url, threads],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        assert time.time() - float(done.stdout) < LATE + 0.5


# A server that is gone.


def test_a_connection_that_breaks_is_no_question_of_time(sending):
    """A guard over time limits tells what they are not."""

    def script(connection):
        connection.request()
        connection.send(ACCEPTED[:20])

    with RawServer(script) as server, pytest.raises(APIConnectionError) as caught:
        sending(create, base_url=server.url, timeout=20)

    assert not isinstance(caught.value, APITimeoutError)
    assert caught.value.may_have_been_processed is True


def test_no_time_limit_of_one_request_is_that_of_the_next(sending):
    """A kept connection keeps nothing of the time that a request before it had."""

    def use(client):
        yield client.with_options(timeout=0.4).create("placed-order", user_id="1")
        yield client.create("placed-order", user_id="2")

    def script(connection):
        connection.send(answer(connection.request()))
        request = connection.request()
        connection.pause(0.6)
        connection.send(answer(request))
        each()(connection)

    with RawServer(script) as server:
        sending.steps(use, base_url=server.url, timeout=20)

        assert server.users == ["1", "2"]
        assert server.connections == 1
