"""A server of raw sockets: a test says which bytes it sends, when, and in which pieces.

A *script* is a function that a thread runs for each connection. It reads requests and sends bytes
as the test needs them; the server keeps what it read, in the order in which it was read.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import attrs

Script = Callable[["Connection"], object]
Bytes = Callable[["Request"], bytes]

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"

# Seconds for which a server sends a trickle, to end tests of clients that would read it for ever.
_TRICKLE = 4.0
# Seconds between two bytes of a trickle.
_DRIP = 0.02
# Seconds after which a test is stuck.
_PATIENCE = 60.0


class Ended(Exception):  # noqa: N818  # the end of a connection is not an error
    """The client closed the connection, or the server ends."""


@attrs.frozen
class Request:
    """A request as the server read it."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def user_id(self) -> str | None:
        """The contact that it is about."""
        if self.method == "GET":
            return parse_qs(urlsplit(self.target).query).get("user_id", [None])[0]
        return json.loads(self.body)["user_id"]


class Connection:
    """One connection, as a script sees it.

    Attributes:
        number: 0 for the first connection of the server.
    """

    def __init__(self, server: RawServer, number: int, sock: socket.socket) -> None:
        self.server, self.number, self.sock = server, number, sock
        self._received = b""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def start_tls(self, context: ssl.SSLContext, greeting: bytes = b"") -> None:
        """Does the handshake; a greeting goes in one piece with the handshake's last bytes."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self._receive_raw())
            except ssl.SSLError as error:
                raise Ended from error
        if greeting:
            self._tls.write(greeting)
        self._flush()

    def request(self) -> Request:
        """Reads one whole request, and keeps it in the server's list.

        Raises:
            Ended: There is none, or not a whole one.
        """
        head = self._read_until(b"\r\n\r\n").decode("latin-1")
        first, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
        }
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            self._received += self._receive()
        body, self._received = self._received[:length], self._received[length:]
        request = Request(self.number, method, target, headers, body)
        with self.server.changed:
            # A tunnel is not a request to the API.
            if method != "CONNECT":
                self.server.requests.append(request)
            self.server.changed.notify_all()
        return request

    def send(self, *pieces: bytes) -> None:
        """Sends all at once; over TLS, each argument in a record of its own."""
        if self._tls is None:
            self.send_raw(b"".join(pieces))
            return
        for piece in pieces:
            self._tls.write(piece)
        self._flush()

    def send_raw(self, content: bytes) -> None:
        """Sends bytes as they are, also where the connection has TLS."""
        try:
            self.sock.sendall(content)
        except OSError as error:
            raise Ended from error

    def trickle(self, content: bytes) -> None:
        """Sends the bytes one at a time, again and again, for some seconds or until it ends."""
        self.repeat([content[at : at + 1] for at in range(len(content))])

    def repeat(self, pieces: list[bytes]) -> None:
        """Sends the pieces one at a time, again and again, for some seconds or until it ends."""
        for turn in range(round(_TRICKLE / _DRIP)):
            self.send(pieces[turn % len(pieces)])
            self.pause(_DRIP)

    def pause(self, seconds: float) -> None:
        """Waits, but not longer than the server lives."""
        if self.server.closing.wait(seconds):
            raise Ended

    def hold(self) -> None:
        """Neither reads nor sends, until the server ends."""
        self.pause(_PATIENCE)

    def await_bytes(self) -> None:
        """Waits until something has arrived, and leaves it alone."""
        select.select([self.sock], [], [], _PATIENCE)

    def drain(self) -> None:
        """Reads what else comes, which is no request that the server takes, until the end."""
        while True:
            self._receive_raw()

    def _read_until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._received += self._receive()
        end = self._received.index(mark) + len(mark)
        found, self._received = self._received[:end], self._received[end:]
        return found

    def _receive(self) -> bytes:
        if self._tls is None:
            return self._receive_raw()
        while True:
            try:
                found = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self._receive_raw())
            except ssl.SSLError as error:
                raise Ended from error
            else:
                if not found:
                    raise Ended
                return found

    def _receive_raw(self) -> bytes:
        try:
            found = self.sock.recv(65536)
        except OSError as error:
            raise Ended from error
        if not found:
            raise Ended
        return found

    def _flush(self) -> None:
        self.send_raw(self._outgoing.read())


class RawServer:
    """Runs a script for each connection, each in a thread.

    Use it in a ``with`` block, whose end closes all connections and raises what a script raised.

    Args:
        script: What to do with a connection.
        scheme: The scheme of ``url``.

    Attributes:
        url: The server's address.
        requests: What was read so far.
        connections: How many clients connected so far.
        closing: Set when the server ends.
        changed: Notified when a request was read or :meth:`tell` was called.
    """

    def __init__(self, script: Script, *, scheme: str = "http") -> None:
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self._listening.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.requests: list[Request] = []
        self.connections = 0
        self.closing = threading.Event()
        self.changed = threading.Condition()
        self._told: set[str] = set()
        self._errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.closing.set()
        # Waking a thread that waits in accept() takes a connection.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._threads[0].join()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()
        if self._errors and raised[0] is None:
            raise self._errors[0]

    @property
    def users(self) -> list[str | None]:
        """The contacts of the requests that were read, in their order."""
        return [request.user_id for request in list(self.requests)]

    def tell(self, what: str) -> None:
        """Says to the test that something has happened."""
        with self.changed:
            self._told.add(what)
            self.changed.notify_all()

    def has_told(self, *what: str) -> bool:
        """Whether a script has said any of this."""
        return not self._told.isdisjoint(what)

    def wait(self, what: str) -> None:
        """Waits until a script has said it."""
        self.wait_for(lambda: self.has_told(what))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds that changes with a request or with :meth:`tell`."""
        with self.changed:
            assert self.changed.wait_for(condition, _PATIENCE)

    def _accept(self) -> None:
        while True:
            sock, _ = self._listening.accept()
            if self.closing.is_set():
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(self, self.connections, sock)
            self.connections += 1
            self._open.add(sock)
            thread = threading.Thread(target=self._run, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self._script(connection)
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001  # raised where the server ends
            self._errors.append(error)
        finally:
            self._open.discard(connection.sock)
            connection.sock.close()


# Answers


def encode(
    status: str,
    body: bytes = b"",
    *,
    chunked: bool = False,
    trailers: bool = False,
    extra: str = "",
) -> bytes:
    """Returns an answer, as bytes."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}"
    if not chunked:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    middle = len(body) // 2
    chunks = [b"%x\r\n%b\r\n" % (len(one), one) for one in (body[:middle], body[middle:]) if one]
    end = b"0\r\nX-Checksum: 17\r\n\r\n" if trailers else b"0\r\n\r\n"
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(chunks) + end


def listing_of(user_id: str | None, **more: Any) -> bytes:
    """Returns a listing with one event, whose name says whose it is."""
    event = {"event_name": f"of-{user_id}", "created_at": 1671028894, "user_id": user_id}
    page = {"type": "event.list", "events": [event | more], "pages": {"next": None}}
    return json.dumps(page).encode()


def answer(request: Request) -> bytes:
    """Returns what a server answers that does as it should."""
    if request.method == "GET":
        return encode("200 OK", listing_of(request.user_id))
    return ACCEPTED


# Scripts


def each(reply: Callable[[Request], bytes | tuple[bytes, ...]] = answer) -> Script:
    """Answers each request of a connection, one after another."""

    def script(connection: Connection) -> None:
        while True:
            replied = reply(connection.request())
            connection.send(*((replied,) if isinstance(replied, bytes) else replied))

    return script


def first_connection(script: Script, others: Script | None = None) -> Script:
    """Treats the first connection by one script, and all others by another one."""
    otherwise = others or each()
    return lambda connection: (script if connection.number == 0 else otherwise)(connection)


def over_tls(script: Script, context: ssl.SSLContext, greeting: bytes = b"") -> Script:
    """Does the handshake first."""

    def secured(connection: Connection) -> None:
        connection.start_tls(context, greeting)
        script(connection)

    return secured


def through_tunnel(script: Script) -> Script:
    """Plays the proxy that opens a tunnel, and what is at the tunnel's other end."""

    def tunnelled(connection: Connection) -> None:
        assert connection.request().method == "CONNECT"
        connection.send(TUNNEL)
        script(connection)

    return tunnelled


@contextlib.contextmanager
def after_greeting(server: RawServer, patched: Any) -> Iterator[list[int]]:
    """Delays each client of a server, once it is connected, until :func:`greet` has been called.

    Otherwise it would be chance whether the greeting or the request came first. Every client sets
    ``TCP_NODELAY`` when it is connected and before it sends anything.

    Args:
        server: The server.
        patched: A ``pytest.MonkeyPatch``.

    Yields:
        The ports of the clients that were delayed.
    """
    real = socket.socket.setsockopt
    delayed: list[int] = []

    def setsockopt(self: socket.socket, level: int, name: int, *value: Any) -> None:
        real(self, level, name, *value)
        if (level, name) != (socket.IPPROTO_TCP, socket.TCP_NODELAY):
            return
        with contextlib.suppress(OSError):
            if self.getpeername()[1] != server.port:
                return
            port = self.getsockname()[1]
            server.wait_for(lambda: server.has_told(f"{port}", f"silent {port}"))
            if server.has_told(f"{port}"):
                # What was sent has arrived.
                assert select.select([self], [], [], _PATIENCE)[0]
            delayed.append(port)

    with patched.context() as patch:
        patch.setattr(socket.socket, "setsockopt", setsockopt)
        yield delayed


def greet(connection: Connection, greeting: bytes) -> None:
    """Sends what was not asked for, if anything, before the client can send its request."""
    port = connection.sock.getpeername()[1]
    if greeting:
        connection.send(greeting)
    connection.server.tell(f"{port}" if greeting else f"silent {port}")
