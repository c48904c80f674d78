"""An answer belongs to its request: what a server sends unasked is nobody's answer.

The server's list of the requests that it read is the judge: an event is accepted only if the server
read it, and a listing shows only the events of the contact that it was asked for.
"""

from __future__ import annotations

import contextlib
import math
import re
import ssl
from collections import Counter

import anyio
import attrs
import pytest
from callers import BACKENDS, Caller, every_library
from raw_server import (
    ACCEPTED,
    EARLY_HINTS,
    NO_CONTENT,
    Bytes,
    RawServer,
    after_greeting,
    answer,
    each,
    encode,
    first_connection,
    greet,
    listing_of,
    over_tls,
    through_tunnel,
)

from intercom_data_events import (
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
    Event,
    IntercomError,
    NotFoundError,
    UnprocessableEntityError,
)
from intercom_data_events._sending.engines.attempt import ATTEMPT, Attempt
from intercom_data_events._sending.engines.connections import guard
from intercom_data_events.tracker import AsyncTracker, Tracker

HOST = "api.example"
#: Bytes that HTTP libraries read at once.
PIECE = 65536
SUMMARY = {"event_name": "invited-friend", "count": 3, "first": 1389913941, "last": 1671028894}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def sending(backend):
    """A client with connections of its own, as a program has it."""
    return Caller(backend, {"timeout": 3})


@attrs.frozen
class Way:
    """How a client reaches the server, with a script in between where that needs one."""

    kind: str
    context: ssl.SSLContext
    environment: pytest.MonkeyPatch

    def serve(self, script):
        if self.kind in ("https", "tunnel"):
            script = over_tls(script, self.context)
        if self.kind == "tunnel":
            script = through_tunnel(script)
        server = RawServer(script, scheme="https" if self.kind == "https" else "http")
        if self.kind == "proxy":
            self.environment.setenv("HTTP_PROXY", server.url)
            self.environment.setenv("INTERCOM_ALLOW_HTTP", "1")
            server.url = f"http://{HOST}"
        elif self.kind == "tunnel":
            self.environment.setenv("HTTPS_PROXY", server.url)
            server.url = f"https://{HOST}"
        return server


@pytest.fixture(scope="module")
def trusted(authority, tmp_path_factory):
    """The file of the authority that clients trust, and what a server needs for that."""
    path = tmp_path_factory.mktemp("trusted") / "authority.pem"
    authority.cert_pem.write_to_path(path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", HOST).configure_cert(context)
    return path, context


@pytest.fixture(params=["http", "https", "proxy", "tunnel"])
def way(request, monkeypatch, trusted):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    path, context = trusted
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return Way(request.param, context, monkeypatch)


#: Where what is tried does not depend on how the server is reached.
directly = pytest.mark.parametrize("way", ["http"], indirect=True)
encrypted = pytest.mark.parametrize("way", ["https"], indirect=True)


# Answers as a server may give them, of different shapes.


def plain(request):
    return answer(request)


def chunked(request):
    if request.method == "GET":
        return encode("200 OK", listing_of(request.user_id), chunked=True)
    return encode("202 Accepted", chunked=True)


def chunked_with_trailers(request):
    if request.method == "GET":
        return encode("200 OK", listing_of(request.user_id), chunked=True, trailers=True)
    return encode("202 Accepted", b"{}", chunked=True, trailers=True)


def without_body(request):
    return answer(request) if request.method == "GET" else NO_CONTENT


def after_interim(request):
    return EARLY_HINTS + EARLY_HINTS + answer(request)


def with_answers_inside(request):
    """A body that contains the end of a head, and what looks like an answer."""
    if request.method != "GET":
        return encode("202 Accepted", b"\r\n\r\n" + ACCEPTED)
    body = listing_of(request.user_id, metadata={"note": ACCEPTED.decode()})
    return encode("200 OK", body.replace(b"{", b"\r\n\r\n{\r\n\r\n"))


def after_interim_with_length(request):
    """An interim answer has no body, whatever its head says."""
    return b"HTTP/1.1 103 Early Hints\r\nContent-Length: 100000\r\n\r\n" + answer(request)


def with_length(pattern: bytes) -> Bytes:
    """Answers with an odd way to write their length."""

    def odd(request):
        return re.sub(rb"Content-Length: (\d+)\r\n", pattern, answer(request), flags=re.IGNORECASE)

    return odd


def in_chunks_with_extensions(request):
    return re.sub(rb"\r\n([0-9a-f]+)\r\n", rb"\r\n000\1;a=b\r\n", chunked(request))


ODD_HEADS = {
    "an interim answer with a length": after_interim_with_length,
    "a length of many digits": with_length(rb"Content-Length: 0000000000000000000\1\r\n"),
    "a length on a line of its own": with_length(rb"Content-Length:\r\n \1\r\n"),
    "a length that is said twice": with_length(rb"Content-Length: \1\r\nContent-Length: \1\r\n"),
    "a length in another spelling": with_length(rb"cOnTeNt-LeNgTh:\1\t\r\n"),
    "a length that is ignored": lambda request: chunked(request).replace(
        b"\r\n", b"\r\nX-Content-Length: 3\r\n", 1
    ),
    "chunks with extensions": in_chunks_with_extensions,
}
SHAPES = [plain, chunked, chunked_with_trailers, without_body, after_interim, with_answers_inside]
any_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)


def padded(shape: Bytes, size: int) -> Bytes:
    """The same answer with a body that makes the whole of it so many bytes long."""

    def pad(request):
        body = listing_of(request.user_id) if request.method == "GET" else b""
        status = "200 OK" if request.method == "GET" else "202 Accepted"
        bare = len(encode(status, body + b" " * (size - 200))) - (size - 200)
        whole = encode(status, body + b" " * (size - bare))
        assert len(whole) == size
        return whole

    return pad


# What a server sends beyond an answer, in one piece with it; over TLS in so many records.


def surplus(name: str, extra):
    return pytest.param(extra, id=name)


SURPLUS = [
    *(surplus(one.__name__, lambda r, one=one: (one(r) + one(r),)) for one in SHAPES),
    *(surplus(name, lambda r, one=one: (one(r) + one(r),)) for name, one in ODD_HEADS.items()),
    surplus("two records", lambda r: (answer(r), answer(r))),
    surplus("three answers", lambda r: (answer(r) * 3,)),
    surplus("an answer to a query", lambda r: (answer(r) + encode("200 OK", listing_of("1")),)),
    surplus("an interim answer", lambda r: (answer(r) + EARLY_HINTS,)),
    surplus("ends at a piece", lambda r: (padded(answer, PIECE)(r) + answer(r),)),
    surplus("ends before a piece", lambda r: (padded(answer, PIECE - 20)(r) + answer(r),)),
    surplus("ends at a record", lambda r: (padded(answer, PIECE // 4)(r), answer(r))),
    surplus("longer than a piece", lambda r: (padded(answer, PIECE + 100)(r) + answer(r),)),
]
# The ways differ in the network stream, not in what is read of it: some cases do for a proxy.
WAYS = [
    pytest.param(way, *extra.values, id=f"{way}-{extra.id}")
    for way, cases in {
        "http": SURPLUS,
        "https": [one for one in SURPLUS if one.id not in ODD_HEADS],
        "proxy": [SURPLUS[0], SURPLUS[-4]],
        "tunnel": [SURPLUS[0], SURPLUS[-4]],
    }.items()
    for extra in cases
]
any_surplus = pytest.mark.parametrize(("way", "extra"), WAYS, indirect=["way"])


def mute_after(extra):
    """The first connection answers its first request, and reads nothing after that."""

    def script(connection):
        connection.send(*extra(connection.request()))
        connection.hold()

    return first_connection(script)


def create_two(client):
    yield client.create("placed-order", user_id="1")
    yield client.create("placed-order", user_id="2")


def list_two(client):
    first = yield client.list(user_id="1")
    second = yield client.list(user_id="7")
    return [[event.event_name for event in found] for found in (first, second)]


@any_surplus
def test_an_event_is_accepted_only_if_the_server_read_it(sending, way, extra):
    with way.serve(mute_after(extra)) as server:
        sending.steps(create_two, base_url=server.url)

        assert server.users == ["1", "2"]


@any_surplus
def test_a_listing_shows_only_the_events_of_its_contact(sending, way, extra):
    def wrongly(connection):
        # It reads on, as a server does that has lost count of its answers.
        each(extra)(connection)

    with way.serve(first_connection(wrongly)) as server:
        found = sending.steps(list_two, base_url=server.url)

        assert found == [["of-1"], ["of-7"]]


@directly
def test_a_listing_that_was_answered_twice_does_not_accept_an_event(sending, way):
    def use(client):
        yield client.list(user_id="1")
        yield client.create("placed-order", user_id="2")

    with way.serve(mute_after(lambda request: (answer(request) * 2,))) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


@directly
def test_a_failure_that_was_answered_twice_does_not_refuse_the_next_event(sending, way):
    refused = encode("404 Not Found", b'{"type":"error.list","errors":[{"code":"not_found"}]}')

    def use(client):
        with pytest.raises(NotFoundError):
            yield client.create("placed-order", user_id="1")
        yield client.create("placed-order", user_id="2")

    with way.serve(mute_after(lambda request: (refused * 2,))) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


def test_a_summary_counts_once_where_an_answer_came_twice(sending, way):
    """Repeating it is safe, as nothing of it was sent on the connection with the stale answer."""

    def use(client):
        yield client.create("placed-order", user_id="1")
        yield client.create_summary(user_id="2", **SUMMARY)

    with way.serve(mute_after(lambda request: (answer(request) * 2,))) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


@pytest.mark.parametrize("rest", [b"}", b"\r\n", b" " * 70_000], ids=["1", "2", "70000"])
def test_a_body_that_is_longer_than_it_said_does_no_harm_to_the_next_request(sending, way, rest):
    def use(client):
        yield client.list(user_id="1")
        yield client.create_summary(user_id="2", **SUMMARY)

    with way.serve(mute_after(lambda request: (answer(request) + rest,))) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


# An answer that is cut.


@pytest.mark.parametrize("cut", [b"HTTP", b"HTTP/1.1 202 Accepted\r\nX-Cut: ", ACCEPTED[:-1]])
def test_the_next_answer_does_not_complete_a_stale_one(sending, way, cut):
    """The stale head would swallow the head of the refusal that follows it."""
    refusal = encode("422 Unprocessable Entity", b'{"type":"error.list","errors":[{"code":"x"}]}')

    def script(connection):
        connection.send(answer(connection.request()) + cut)
        connection.request()
        connection.send(cut[4:] if cut == b"HTTP" else b"")
        connection.send(refusal)
        connection.hold()

    def use(client):
        yield client.create("placed-order", user_id="1")
        with pytest.raises(UnprocessableEntityError):
            yield client.create("placed-order", user_id="2")

    with way.serve(first_connection(script, each(lambda request: refusal))) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


@pytest.mark.parametrize("cut", [b"H", b"HTTP/1.1 202 Acc", ACCEPTED[:-1]])
def test_no_request_waits_for_the_rest_of_a_stale_answer(sending, way, cut):
    """No attempt is made where its answer could not be told from the stale one."""

    def use(client):
        yield client.create("placed-order", user_id="1")
        yield client.create_summary(user_id="2", **SUMMARY)

    with way.serve(mute_after(lambda request: (answer(request) + cut,))) as server:
        sending.steps(use, base_url=server.url, timeout=0.5)

        assert server.users == ["1", "2"]


# Answers before a request, and after a while.


def test_an_answer_on_an_idle_connection_is_no_answer(sending, way):
    def script(connection):
        request = connection.request()
        connection.send(answer(request))
        connection.pause(0.05)
        connection.send(answer(request))
        connection.server.tell("sent late")
        connection.hold()

    with way.serve(first_connection(script)) as server:

        def use(client):
            yield client.create("placed-order", user_id="1")
            server.wait("sent late")
            yield client.create("placed-order", user_id="2")

        sending.steps(use, base_url=server.url)

        assert server.users == ["1", "2"]


def test_a_part_of_an_answer_on_an_idle_connection_is_no_answer(sending, way):
    """Its rest comes in one piece with what the server says of the next request."""

    def script(connection):
        connection.send(answer(connection.request()))
        connection.pause(0.05)
        connection.send(ACCEPTED[:30])
        connection.server.tell("sent late")
        connection.hold()

    with way.serve(first_connection(script)) as server:

        def use(client):
            yield client.create("placed-order", user_id="1")
            server.wait("sent late")
            yield client.create_summary(user_id="2", **SUMMARY)

        sending.steps(use, base_url=server.url, timeout=0.5)

        assert server.users == ["1", "2"]


@directly
@pytest.mark.parametrize("greeting", [ACCEPTED, EARLY_HINTS + ACCEPTED, ACCEPTED * 2, b"220 "])
def test_a_server_that_speaks_first_has_accepted_nothing(sending, way, monkeypatch, greeting):
    def script(connection):
        greet(connection, greeting)
        connection.drain()

    with way.serve(script) as server, after_greeting(server, monkeypatch) as delayed:
        with pytest.raises(IntercomError) as caught:
            sending(lambda client: client.create("placed-order", user_id="1"), base_url=server.url)

        assert delayed
        assert server.users == []
        assert caught.value.may_have_been_processed is False


@directly
@pytest.mark.parametrize("greeting", [ACCEPTED, EARLY_HINTS, ACCEPTED[:20]])
def test_a_summary_goes_over_another_connection_where_the_server_spoke_first(
    sending, way, monkeypatch, greeting
):
    def script(connection):
        greet(connection, greeting if connection.number == 0 else b"")
        first_connection(lambda connection: connection.hold())(connection)

    with way.serve(script) as server, after_greeting(server, monkeypatch) as delayed:
        sending(
            lambda client: client.create_summary(user_id="1", **SUMMARY),
            base_url=server.url,
            timeout=0.5,
        )

        assert delayed
        assert server.users == ["1"]


@encrypted
@pytest.mark.parametrize("greeting", [ACCEPTED, ACCEPTED[:20], EARLY_HINTS])
def test_an_answer_that_comes_with_the_handshake_is_no_answer(sending, way, greeting):
    """With TLS 1.2, the server ends the handshake, and may send at once."""
    way.context.maximum_version = ssl.TLSVersion.TLSv1_2

    def script(connection):
        connection.start_tls(way.context, greeting if connection.number == 0 else b"")
        first_connection(lambda connection: connection.hold())(connection)

    with RawServer(script, scheme="https") as server:
        sending(
            lambda client: client.create_summary(user_id="1", **SUMMARY),
            base_url=server.url,
            timeout=0.5,
        )

        assert server.users == ["1"]


# Many at once.


class Accepting:
    """Creates events in one of several manners, and says which of them were accepted."""

    def __init__(self, call: Caller) -> None:
        self.call = call

    def create_many(self, url: str, users: list[str]) -> list[str]:
        events = [Event("placed-order", user_id=user) for user in users]
        outcomes = self.call(lambda client: client.create_many(events), base_url=url)
        return [events[one.position].user_id for one in outcomes if one.status == "accepted"]

    def tracker(self, url: str, users: list[str]) -> list[str]:
        lost = []
        options = {"access_token": "token", "base_url": url, "clock": Clock()}

        async def run() -> None:
            async with (
                AsyncDataEventsClient(**options) as client,
                AsyncTracker(client, on_error=lambda event, _: lost.append(event)) as tracker,
            ):
                for user in users:
                    await tracker.track("placed-order", user_id=user)
                assert await tracker.flush(20)

        if self.call.backend != "blocking":
            import anyio

            anyio.run(run, backend=self.call.backend)
        else:
            with (
                DataEventsClient(**options) as client,
                Tracker(client, on_error=lambda event, _: lost.append(event)) as tracker,
            ):
                for user in users:
                    tracker.track("placed-order", user_id=user)
                assert tracker.flush(20)
        gone = {event.user_id for event in lost}
        return [user for user in users if user not in gone]


@directly
@pytest.mark.parametrize("manner", ["create_many", "tracker"])
def test_of_many_events_those_are_accepted_that_the_server_read(sending, way, manner):
    def script(connection):
        """Every third connection is one that answers twice and reads no more."""
        if connection.number % 3 == 0:
            connection.send(answer(connection.request()) * 2)
            connection.hold()
        each()(connection)

    users = [str(number) for number in range(40)]
    with way.serve(script) as server:
        accepted = getattr(Accepting(sending), manner)(server.url, users)

        assert Counter(accepted) == Counter(users)
        assert set(users) - set(server.users) == set()


# What is legal stays as it was: connections are used again.


@any_shape
def test_a_connection_serves_many_requests(sending, way, shape):
    def use(client):
        for number in range(4):
            yield client.create("placed-order", user_id=str(number))
            (event,) = yield client.list(user_id=str(number))
            assert event.event_name == f"of-{number}"

    with way.serve(each(shape)) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == [str(number) for number in range(4) for _ in range(2)]
        assert server.connections == 1


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_connection_serves_further_requests_after_a_long_listing(sending, way, size):
    with way.serve(each(padded(answer, size))) as server:
        assert sending.steps(list_two, base_url=server.url) == [["of-1"], ["of-7"]]

        assert server.connections == 1


@pytest.mark.parametrize("interim", [EARLY_HINTS, b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_an_interim_answer_belongs_to_its_request(sending, way, interim):
    """Whether it comes in one piece with the answer, or before it."""

    def script(connection):
        while True:
            request = connection.request()
            connection.send(interim + interim + answer(request))
            request = connection.request()
            connection.send(interim)
            connection.pause(0.01)
            connection.send(answer(request))

    def use(client):
        for number in range(4):
            yield client.create("placed-order", user_id=str(number))

    with way.serve(script) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["0", "1", "2", "3"]
        assert server.connections == 1


def test_an_answer_may_come_one_byte_at_a_time(sending, way):
    def script(connection):
        while True:
            content = answer(connection.request())
            for at in range(len(content)):
                connection.send(content[at : at + 1])

    with way.serve(script) as server:
        assert sending.steps(list_two, base_url=server.url) == [["of-1"], ["of-7"]]

        assert server.connections == 1


@pytest.mark.parametrize("status", ["404 Not Found", "422 Unprocessable Entity", "409 Conflict"])
def test_a_connection_serves_further_requests_after_a_failure(sending, way, status):
    refused = encode(status, b'{"type":"error.list","errors":[{"code":"x"}]}')

    def use(client):
        for number in range(3):
            with pytest.raises(IntercomError):
                yield client.create("placed-order", user_id=str(number))

    with way.serve(each(lambda request: refused)) as server:
        sending.steps(use, base_url=server.url)

        assert server.users == ["0", "1", "2"]
        assert server.connections == 1


@encrypted
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_tls_itself_sends_is_no_answer_before_its_time(sending, way, version):
    """A server of TLS 1.3 sends session tickets before it has read anything."""
    way.context.minimum_version = way.context.maximum_version = version
    if version is ssl.TLSVersion.TLSv1_3:
        way.context.num_tickets = 4

    with way.serve(each()) as server:
        sending.steps(create_two, base_url=server.url)

        assert server.users == ["1", "2"]
        assert server.connections == 1


@directly
def test_a_connection_that_the_server_closed_while_idle_costs_nothing(sending, way):
    def script(connection):
        connection.send(answer(connection.request()))
        connection.sock.close()
        connection.server.tell(f"closed {connection.number}")

    with way.serve(script) as server:

        def use(client):
            for number in range(3):
                yield client.create_summary(user_id=str(number), **SUMMARY)
                server.wait(f"closed {number}")

        sending.steps(use, base_url=server.url)

        assert server.users == ["0", "1", "2"]


# Where the network streams are put in. Own connections are httpx's; httpx2's have the same place.


@contextlib.contextmanager
def attempt():
    running = ATTEMPT.set(Attempt(math.inf, Clock()))
    try:
        yield
    finally:
        ATTEMPT.reset(running)


@every_library
@directly
def test_the_network_streams_have_their_place_in_either_library(backend, library, way):
    async def send(url):
        transport = library.AsyncHTTPTransport()
        guard(transport)
        async with library.AsyncClient(transport=transport) as client:
            for user in ("1", "2"):
                with attempt():
                    await client.post(f"{url}/events", json={"user_id": user})

    with way.serve(mute_after(lambda request: (answer(request) * 2,))) as server:
        if backend != "blocking":
            anyio.run(send, server.url, backend=backend)
        else:
            transport = library.HTTPTransport()
            guard(transport)
            with library.Client(transport=transport) as client:
                for user in ("1", "2"):
                    with attempt():
                        client.post(f"{server.url}/events", json={"user_id": user})

        assert server.users == ["1", "2"]
