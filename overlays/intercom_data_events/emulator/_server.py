"""Serves answers on real sockets: HTTP/1.1 on asyncio, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from email.utils import formatdate
from functools import lru_cache, partial
from types import TracebackType

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import h11
import httpx

from intercom_data_events._validation import printable
from intercom_data_events.clock import SYSTEM, Clock

from ._faults import Fault, body_of, fault_of
from ._plain import PlainRequest, Reply, read_head, write_reply
from ._reading import BODY_LIMIT
from ._wire import Idle, Piece

log = logging.getLogger("intercom_data_events.emulator")

_CHUNK = 64 * 1024

# How long a refused upload may go on, so that the client sends it to its end and then reads the
# answer; closing with bytes unread would reset the connection and lose the answer.
_LINGER_SECONDS = 2.0

# How long to wait for connections to close where no more can be opened.
_BREATH_SECONDS = 0.05

Answering = Callable[[httpx.Request], httpx.Response]
Replying = Callable[[PlainRequest], Reply]
Answered = Callable[[PlainRequest | httpx.Request], bytes | httpx.Response]


class EmulatorServer:
    """A context manager, plain or async, that serves while it is entered and yields the base URL.

    Both forms run the server in a thread of its own, so that code which blocks its event loop
    still gets answers. Leaving stops the server, closes its connections and joins its thread.

    Args:
        answer: The function from a request, its body read, to its answer.
        host: Name or address of the interface to listen on.
        port: The port, or 0 for a free one.
        tls: The server's certificate and key, to serve https.
        clock: What delays are waited for with.
        reply: A function that answers plain requests as `answer` does, at less cost.

    Raises:
        OSError: On entering, where the address cannot be had.

    Example:
        >>> with EmulatorServer(lambda request: httpx.Response(202)) as url:
        ...     httpx.post(f"{url}/events")
        <Response [202 Accepted]>
    """

    def __init__(
        self,
        answer: Answering,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM,
        reply: Replying | None = None,
    ) -> None:
        self._serving = partial(serving, partial(_answered, answer, reply), host, port, tls, clock)
        self._running = ExitStack()

    def __enter__(self) -> str:
        """Start serving."""
        with ExitStack() as starting:
            portal = starting.enter_context(anyio.from_thread.start_blocking_portal("asyncio"))
            url = starting.enter_context(portal.wrap_async_context_manager(self._serving()))
            self._running = starting.pop_all()
        return url

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving."""
        self._running.close()

    async def __aenter__(self) -> str:
        """Start serving, without blocking the event loop."""
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop serving, even where the caller is being cancelled."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._running.close)


@asynccontextmanager
async def serving(
    answered: Answered, host: str, port: int, tls: ssl.SSLContext | None, clock: Clock
) -> AsyncGenerator[str, None]:
    """Serve in the running event loop, which is asyncio's, and yield the base URL."""
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    open_sockets = set[socket.socket]()

    async def converse(accepted: socket.socket) -> None:
        # Whoever does not speak TLS, breaks off or leaves is none of a server's business.
        with suppress(OSError):
            async with _connected(accepted, tls, clock) as connection:
                await _converse(answered, connection)
        open_sockets.discard(accepted)

    async with listener:
        try:
            async with anyio.create_task_group() as connections:
                for one in listener.listeners:
                    raw = one.extra(anyio.abc.SocketAttribute.raw_socket)
                    connections.start_soon(_accept, raw, converse, connections, open_sockets)
                bound = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
                scheme = "http" if tls is None else "https"
                yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
                connections.cancel_scope.cancel()
        finally:
            # A conversation that was cancelled before its first step has closed nothing.
            for accepted in open_sockets:
                accepted.close()


async def _accept(
    listening: socket.socket,
    converse: Callable[[socket.socket], Coroutine[None, None, None]],
    connections: anyio.abc.TaskGroup,
    open_sockets: set[socket.socket],
) -> None:
    """Accept connections for ever, also after there were more than files can be opened."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            accepted, _ = await loop.sock_accept(listening)
        except OSError:
            await anyio.sleep(_BREATH_SECONDS)
        else:
            open_sockets.add(accepted)
            connections.start_soon(converse, accepted)


@asynccontextmanager
async def _connected(
    accepted: socket.socket, tls: ssl.SSLContext | None, clock: Clock
) -> AsyncGenerator[_Connection, None]:
    """A connection that is closed in peace after its last answer, at once where it is cut off.

    These are asyncio's own streams, as anyio's take several times as long.

    Raises:
        OSError: The client does not speak TLS, or is gone.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls)
    # So that to have sent is to have handed it to the system. With a limit of 0, asyncio's TLS
    # would pause the writer where nothing is left to write, and nothing would wake it.
    transport.set_write_buffer_limits(high=1, low=0)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        yield _Connection(reader, writer, accepted, tls=tls is not None, clock=clock)
        writer.close()
        with anyio.move_on_after(_LINGER_SECONDS):
            await writer.wait_closed()
    finally:
        transport.abort()
        with anyio.CancelScope(shield=True), suppress(OSError):
            await writer.wait_closed()


async def _converse(answered: Answered, connection: _Connection) -> None:
    """Answer the requests of one connection, one after the other."""
    try:
        while (request := await connection.receive()) is not None:
            response = answered(request)
            if isinstance(response, bytes):
                goes_on = await connection.send_plain(response)
            elif (fault := fault_of(response)) is None:
                goes_on = await connection.send(response)
            else:
                goes_on = await connection.misbehave(response, fault)
            if not goes_on:
                break
    except (h11.RemoteProtocolError, httpx.InvalidURL) as error:
        await connection.refuse(error)
    except h11.LocalProtocolError:
        # A fault can ask for anything; it does not end the server either.
        log.exception("an answer is no HTTP, and cannot be sent")


def _answered(
    answer: Answering, reply: Replying | None, request: PlainRequest | httpx.Request
) -> bytes | httpx.Response:
    """The answer, written if it is plain, or a 500 where there is none.

    One request does not end the server.
    """
    try:
        if isinstance(request, httpx.Request):
            return answer(request)
        if reply is None:
            return answer(request.as_httpx())
        replied = reply(request)
        return write_reply(replied) or replied.as_httpx(request.as_httpx())
    except Exception:
        path = printable(request.url.path)
        log.exception("%s %s cannot be answered", request.method, path)
        return httpx.Response(500)


class _Connection:
    """One connection, seen as requests and answers.

    A plain request is read without h11; any other, or an answer that is not plain, begins an h11
    conversation, which lasts until that request is answered.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        accepted: socket.socket,
        *,
        tls: bool,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._socket = accepted
        self._scheme = "https" if tls else "http"
        self._clock = clock
        self._idle: Idle | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._fault: Fault | None = None
        self._received = b""
        self._plain = b""
        self._http = h11.Connection(h11.SERVER)
        self._unread = False

    async def receive(self) -> PlainRequest | httpx.Request | None:
        """The next request, or None when the client, or a fault, has no more."""
        while self._idle is not None and await self._is_idle_for(self._idle.seconds):
            if not await self._play():
                return None
        received = self._received or await self._reader.read(_CHUNK)
        head = read_head(received)
        if head is None or head.end - head.begin > BODY_LIMIT:
            return await self._receive_by_h11(received)
        while len(received) < head.end:
            if not (more := await self._reader.read(_CHUNK)):
                return await self._receive_by_h11(received)
            received += more
        self._plain, self._received = received[: head.end], received[head.end :]
        url = _url(self._scheme, head.target, head.headers["host"])
        return PlainRequest(head, url, received[head.begin : head.end])

    async def _receive_by_h11(self, received: bytes) -> httpx.Request | None:
        self._begin_h11(received)
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        headers = httpx.Headers(head.headers.raw_items())
        declared = int(headers.get("content-length", "0"))
        body = bytearray()
        # No more is read than it takes to see that it is too much: a client that waits for
        # `100 Continue` is refused before it sends, any other while it does.
        self._unread = True
        while self._unread and declared <= BODY_LIMIT and len(body) <= BODY_LIMIT:
            event = await self._next_event()
            if isinstance(event, h11.Data):
                body += event.data
            self._unread = not isinstance(event, h11.EndOfMessage)
        return httpx.Request(
            head.method.decode(),
            _url(self._scheme, head.target, headers.get("host", self._local_host())),
            headers=headers,
            content=bytes(body),
            extensions={"truncated": self._unread},
        )

    def _begin_h11(self, received: bytes) -> None:
        self._plain = self._received = b""
        self._http = h11.Connection(h11.SERVER)
        if received:
            self._http.receive_data(received)

    async def send_plain(self, answer: bytes) -> bool:
        """Answer a plain request; the connection can go on."""
        await self._send(answer)
        return True

    async def send(self, response: httpx.Response) -> bool:
        """Answer; whether the connection can go on."""
        self._catch_up()
        await self._send(self._head(response) + self._body(response.content))
        return await self._finish()

    async def misbehave(self, response: httpx.Response, fault: Fault) -> bool:
        """Answer as a fault has it; whether the connection can go on."""
        if fault.delay > 0:
            await self._clock.async_alarm().wait(fault.delay)
        if fault.connection == "reset":
            # Closed at once instead of in peace, which the client sees as a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            return False
        self._catch_up()
        head, body = self._head(response), body_of(response)
        if fault.wire is not None:
            self._pieces, self._fault = fault.wire(head + self._body(body)), fault
            return await self._play() and await self._finish()
        if fault.connection != "cut":
            body = self._body(body)
        elif len(body) > 1:
            body = body[: len(body) // 2]
        else:
            head, body = head[: len(head) // 2], b""
        if fault.trickle:
            await self._send(head)
            for number in range(len(body)):
                await self._clock.async_alarm().wait(fault.trickle)
                await self._send(body[number : number + 1])
        else:
            await self._send(head + body)
        return await self._goes_on(fault) and await self._finish()

    async def _play(self) -> bool:
        """Send what a fault has in store, up to where it waits; whether the connection goes on."""
        self._idle = None
        for piece in self._pieces:
            if isinstance(piece, Idle):
                self._idle = piece
                return True
            if isinstance(piece, bytes):
                await self._send(piece)
            else:
                await self._clock.async_alarm().wait(piece)
        return self._fault is None or await self._goes_on(self._fault)

    async def _goes_on(self, fault: Fault) -> bool:
        """Whether the connection goes on after a fault's last byte; a deaf one is held first."""
        if fault.connection == "deaf":
            while await self._reader.read(_CHUNK):
                pass
        return fault.connection == "kept"

    async def _is_idle_for(self, seconds: float) -> bool:
        """Whether no byte arrives for so long."""
        if self._received:
            return False
        ended = False
        async with anyio.create_task_group() as waiting:

            async def pass_time() -> None:
                await self._clock.async_alarm().wait(seconds)
                waiting.cancel_scope.cancel()

            waiting.start_soon(pass_time)
            # An error comes again with the next read.
            with suppress(OSError):
                self._received = await self._reader.read(_CHUNK)
            ended = not waiting.cancel_scope.cancel_called
            waiting.cancel_scope.cancel()
        return not (ended or self._received or self._has_arrived())

    def _has_arrived(self) -> bool:
        """Whether the system has received what the event loop has not seen yet."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _head(self, response: httpx.Response) -> bytes:
        headers = response.headers.raw
        if self._unread:
            headers.append((b"Connection", b"close"))
        head = h11.Response(
            status_code=response.status_code,
            headers=headers,
            reason=response.reason_phrase.encode(),
        )
        return self._http.send(head) or b""

    def _body(self, content: bytes) -> bytes:
        data = self._http.send(h11.Data(content)) or b""
        return data + (self._http.send(h11.EndOfMessage()) or b"")

    async def _finish(self) -> bool:
        if self._unread:
            await self._drain()
        if self._http.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            return False
        self._received, _ = self._http.trailing_data
        return True

    async def refuse(self, error: h11.RemoteProtocolError | httpx.InvalidURL) -> None:
        """Answer what is no HTTP, as a proxy in front of the API would: without a document."""
        self._catch_up()
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        headers = [("Date", formatdate(usegmt=True)), ("Content-Length", "0")]
        head = h11.Response(status_code=status, headers=[*headers, ("Connection", "close")])
        await self._send(self._written(head, h11.EndOfMessage()))
        await self._drain()

    def _catch_up(self) -> None:
        """Let h11 see a request that was read without it."""
        if self._plain:
            rest = self._received
            self._begin_h11(self._plain + rest)
            while not isinstance(self._http.next_event(), h11.EndOfMessage):
                pass

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(
                    self._written(h11.InformationalResponse(status_code=100, headers=[]))
                )
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event

    def _written(self, *events: h11.Event) -> bytes:
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _drain(self) -> None:
        with anyio.move_on_after(_LINGER_SECONDS):
            # TLS cannot end one direction alone; there the client closes once it has read.
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while await self._reader.read(_CHUNK):
                pass

    def _local_host(self) -> str:
        # HTTP/1.0 has no Host header.
        return f"localhost:{self._socket.getsockname()[1]}"


# Clients post to one address only.
@lru_cache(maxsize=64)
def _url(scheme: str, target: bytes, host: str) -> httpx.URL:
    """Where a request came to, as its client wrote it.

    Raises:
        httpx.InvalidURL: What it wrote is no address.
    """
    # HTTP lets other bytes through here, for which httpx raises what is no InvalidURL.
    if not host.isascii():
        raise httpx.InvalidURL("the host is not ASCII")
    if target.startswith(b"/"):
        return httpx.URL(scheme=scheme, netloc=host.encode(), raw_path=target)
    # A client that takes the emulator for a proxy sends the whole URL.
    if target.startswith((b"http://", b"https://")):
        return httpx.URL(target.decode("ascii"))
    raise httpx.InvalidURL("neither a path nor a URL")
