"""The emulator on real sockets: what httpx does, and what no proper client would send."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from intercom_data_events.emulator import Emulator
from intercom_data_events_api import API_VERSION

from .conftest import NOW

HEAD = b"Host: api.example\r\nAuthorization: Bearer token\r\nContent-Type: application/json\r\n"
BODY = b'{"event_name": "placed-order", "created_at": 1671028894, "user_id": "314159"}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
EVENT = {"event_name": "placed-order", "created_at": NOW, "user_id": "314159"}


@pytest.fixture
def url(emulator: Emulator) -> Iterator[str]:
    with emulator.serve() as url:
        yield url


@pytest.fixture
def connection(url: str) -> Iterator[socket.socket]:
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        yield connection


def read_head(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, received
        received += byte
    return received


def read_to_the_end(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def test_events_go_over_one_connection_and_are_listed(emulator: Emulator, url: str) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer token"}) as client:
        streams = set[object]()
        for second in range(3):
            response = client.post("/events", json={**EVENT, "created_at": NOW + second})
            assert response.status_code == 202
            streams.add(response.extensions["network_stream"].get_extra_info("client_addr"))
        query = {"type": "user", "user_id": "314159", "per_page": "2"}
        first = client.get("/events", params=query).json()
        assert first["pages"]["next"].startswith(f"{url}/events?")
        second_page = client.get(first["pages"]["next"]).json()
    assert len(streams) == 1
    assert len(first["events"]) + len(second_page["events"]) == len(emulator.events) == 3


@pytest.mark.anyio
async def test_async_callers_enter_the_same_server_without_blocking(emulator: Emulator) -> None:
    async with emulator.serve() as url, httpx.AsyncClient() as client:
        headers = {"Authorization": "Bearer token"}
        response = await client.post(f"{url}/events", json=EVENT, headers=headers)
        assert response.status_code == 202
    assert len(emulator.events) == 1


def test_leaving_joins_the_thread_closes_connections_and_frees_the_port(
    emulator: Emulator,
) -> None:
    before = set(threading.enumerate())
    with emulator.serve() as url:
        address = (httpx.URL(url).host, httpx.URL(url).port or 0)
        idle = socket.create_connection(address, timeout=10)
        assert set(threading.enumerate()) - before
    with idle:
        assert idle.recv(1) == b""
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)
    with emulator.serve(port=address[1]) as again:
        assert again == url


def test_a_port_in_use_is_an_os_error_and_leaves_no_thread(emulator: Emulator, url: str) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"), emulator.serve(port=httpx.URL(url).port or 0):
        pass
    assert set(threading.enumerate()) <= before


def test_pipelined_requests_are_answered_in_order(
    emulator: Emulator, connection: socket.socket
) -> None:
    post = b"POST /events HTTP/1.1\r\n" + HEAD + LENGTH + b"\r\n" + BODY
    get = b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n"
    connection.sendall(post + post + get)
    received = read_to_the_end(connection)
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert [line.split()[1] for line in lines] == [b"202", b"202", b"404"]
    assert len(emulator.events) == 1


def test_a_client_that_expects_100_continue_gets_it(
    emulator: Emulator, connection: socket.socket
) -> None:
    connection.sendall(
        b"POST /events HTTP/1.1\r\n" + HEAD + LENGTH + b"Expect: 100-continue\r\n\r\n"
    )
    assert read_head(connection).startswith(b"HTTP/1.1 100 ")
    connection.sendall(BODY)
    assert read_head(connection).startswith(b"HTTP/1.1 202 ")
    assert emulator.requests[0].body == BODY


def test_a_chunked_body_is_read(emulator: Emulator, connection: socket.socket) -> None:
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (7, BODY[:7], len(BODY) - 7, BODY[7:])
    connection.sendall(
        b"POST /events HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    )
    assert read_head(connection).startswith(b"HTTP/1.1 202 ")
    assert emulator.requests[0].body == BODY


@pytest.mark.parametrize(
    ("extra", "parts"),
    [
        (b"", 1),
        (b"Connection: Keep-Alive\r\n", 1),
        (b"Connection: keep-alive, x\r\nX: y\r\n", 1),
        (b"X-Twice: 1\r\nX-Twice: 2\r\n", 1),
        (b"X-Folded: 1\r\n 2\r\n", 1),
        (b"X-Empty:\r\n", 1),
        (b"x_y: \xe9\r\n", 1),
        (b"", 2),
        (b"X-Twice: 1\r\nX-Twice: 2\r\n", 5),
    ],
)
def test_a_request_is_answered_alike_whatever_its_headers_and_in_how_many_parts_it_comes(
    emulator: Emulator, connection: socket.socket, extra: bytes, parts: int
) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = b"POST /events?a=%20b HTTP/1.1\r\n" + HEAD + LENGTH + extra + b"\r\n" + BODY
    answers: list[bytes] = []
    for _ in range(2):
        size = -(-len(sent) // parts)
        for begin in range(0, len(sent), size):
            connection.sendall(sent[begin : begin + size])
            time.sleep(0.005 if parts > 1 else 0)
        answers.append(read_head(connection) + connection.recv(len(b"0\r\n\r\n")))

    expected = [
        f"HTTP/1.1 202 Accepted\r\nDate: Wed, 14 Dec 2022 14:41:40 GMT\r\n"
        f"X-Request-Id: 0000000{number}-0000-4000-9000-000000000000\r\n"
        f"Intercom-Version: {API_VERSION}\r\nX-RateLimit-Limit: 1667\r\n"
        f"X-RateLimit-Remaining: {1667 - number}\r\nX-RateLimit-Reset: 1671028910\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        for number in (1, 2)
    ]
    assert [answer.decode() for answer in answers] == expected
    assert [request.query["a"] for request in emulator.requests] == [" b", " b"]
    assert [request.body for request in emulator.requests] == [BODY, BODY]
    assert ("X-Twice" in emulator.requests[0].headers) == (b"X-Twice" in extra)


@pytest.mark.parametrize("method", [b"BREW", b"DELETE", b"OPTIONS", b"HEAD"])
def test_other_methods_are_not_allowed_and_keep_the_connection(
    connection: socket.socket, method: bytes
) -> None:
    connection.sendall(method + b" /events HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert read_head(connection).startswith(b"HTTP/1.1 405 ")
    connection.sendall(b"GET /nowhere HTTP/1.1\r\n" + HEAD + b"Connection: close\r\n\r\n")
    assert b"HTTP/1.1 404 " in read_to_the_end(connection)


def test_an_oversized_body_is_refused_before_it_is_sent(connection: socket.socket) -> None:
    connection.sendall(
        b"POST /events HTTP/1.1\r\n"
        + HEAD
        + b"Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n"
    )
    received = read_to_the_end(connection)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in received


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_an_oversized_body_still_reads_the_answer(
    url: str, chunked: bool
) -> None:
    body = b" " * 8 * 1024 * 1024
    content = iter([body[:65536]] * 128) if chunked else body
    headers = {"Authorization": "Bearer token"}
    assert httpx.post(f"{url}/events", content=content, headers=headers).status_code == 413


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /events HTTP/1.1\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: api.example:http\r\nAuthorization: Bearer token\r\n\r\n",
        b"GET /events HTTP/1.1\r\nHost: \xe9\r\nAuthorization: Bearer token\r\n\r\n",
        b"POST /events HTTP/1.1\r\n" + HEAD + b"Content-Length: many\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\n" + HEAD + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=["no HTTP", "no host", "wrong port", "wrong host", "wrong length", "a tunnel", "TLS"],
)
def test_malformed_http_is_answered_with_400_and_the_connection_closed(
    url: str, connection: socket.socket, sent: bytes
) -> None:
    connection.sendall(sent)
    assert read_to_the_end(connection).startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{url}/events").status_code == 401


def test_a_body_cut_short_is_answered_with_400_and_not_stored(
    emulator: Emulator, connection: socket.socket
) -> None:
    connection.sendall(b"POST /events HTTP/1.1\r\n" + HEAD + LENGTH + b"\r\n" + BODY[:-1])
    connection.shutdown(socket.SHUT_WR)
    assert read_to_the_end(connection).startswith(b"HTTP/1.1 400 ")
    assert emulator.requests == ()


def test_a_client_that_hangs_up_does_not_disturb_others(url: str) -> None:
    address = httpx.URL(url)
    for sent in (b"", b"POST /ev", b"POST /events HTTP/1.1\r\n" + HEAD + LENGTH + b"\r\n{"):
        gone = socket.create_connection((address.host, address.port or 0), timeout=10)
        gone.sendall(sent)
        # Closed with a reset rather than politely.
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
    assert httpx.get(f"{url}/events").status_code == 401


def test_a_request_written_for_a_proxy_and_an_old_one_are_answered(
    emulator: Emulator, url: str
) -> None:
    address = httpx.URL(url)
    for line, rest in [
        (b"POST http://api.example/events HTTP/1.1\r\n", b"Connection: close\r\n" + HEAD),
        (b"POST /events HTTP/1.0\r\n", HEAD.partition(b"\r\n")[2]),
    ]:
        with socket.create_connection((address.host, address.port or 0), timeout=10) as old:
            old.sendall(line + rest + LENGTH + b"\r\n" + BODY)
            assert b" 202 " in read_to_the_end(old).split(b"\r\n")[0]
    assert [request.path for request in emulator.requests] == ["/events", "/events"]


def test_an_answer_that_fails_is_a_500_and_the_server_goes_on(caplog: pytest.LogCaptureFixture):
    times = iter([float(NOW), float("nan"), float(NOW)])
    emulator = Emulator(clock=lambda: next(times))
    with (
        emulator.serve() as url,
        httpx.Client(base_url=url, headers={"Authorization": "Bearer token"}) as client,
    ):
        statuses = [client.post("/events", json=EVENT).status_code for _ in range(3)]

    assert statuses == [202, 500, 202]
    assert "POST /events cannot be answered" in caplog.text


@pytest.mark.processes
def test_more_connections_than_files_can_be_opened_do_not_end_the_server() -> None:
    program = """
import resource, socket, httpx
from intercom_data_events.emulator import Emulator
from intercom_data_events_api import API_VERSION
import anyio._backends._asyncio, httpcore, h11
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, hard))
with Emulator().serve() as url, httpx.Client(base_url=url, trust_env=False) as client:
    client.get("/events")
    address = httpx.URL(url)
    held = []
    try:
        while True:
            held.append(socket.create_connection((address.host, address.port), timeout=10))
    except OSError:
        pass
    for connection in held:
        connection.close()
    # It reads no certificates, for which there may be no descriptor yet.
    with httpx.Client(base_url=url, trust_env=False, verify=False) as another:
        for _ in range(1000):
            try:
                print(another.get("/events").status_code)
            except httpx.ConnectError:
                continue  # The server has not closed its side yet.
            break
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "401", done.stderr[-2000:]
