"""Serves answers on real sockets: HTTP/1.1 by h11 on asyncio, in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import time
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

from ._access import record
from ._faults import Fault, body_of, fault_of
from ._reading import BODY_LIMIT
from ._wire import Idle, Piece

log = logging.getLogger("intercom_data_events.emulator")

_CHUNK = 64 * 1024

# Seconds for which the rest of a refused upload is read, so that the client can read the answer:
# closing with unread bytes would reset the connection and lose the answer.
_LINGER_SECONDS = 2.0

# Seconds to wait for connections to close when no more can be opened.
_BREATH_SECONDS = 0.05

Answering = Callable[[httpx.Request], httpx.Response]


class EmulatorServer:
    """A sync and async context manager that serves while it is entered, and yields the base URL.

    :meth:`Emulator.serve` returns one. The server runs in a separate thread, so that code that
    blocks its event loop still gets answers. Leaving the block stops the server, closes its
    connections and joins its thread.

    Args:
        answer: A function that takes a request, with its body, and returns the answer.
        host: The name or address of the interface to listen on.
        port: The port, or 0 for a free one.
        tls: The certificate and key of the server, to serve https.
        clock: The clock on which delays wait.

    Raises:
        OSError: On entering, if the server cannot listen on the address.

    Example:
        >>> import httpx
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
    ) -> None:
        self._serving = partial(serving, answer, host, port, tls, clock)
        self._running = ExitStack()

    def __enter__(self) -> str:
        """Starts the server, and returns the base URL."""
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
        """Stops the server."""
        self._running.close()

    async def __aenter__(self) -> str:
        """Starts the server without blocking the event loop, and returns the base URL."""
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stops the server, even while the caller is being cancelled."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._running.close)


@asynccontextmanager
async def serving(
    answer: Answering, host: str, port: int, tls: ssl.SSLContext | None, clock: Clock
) -> AsyncGenerator[str, None]:
    """Serve in the running event loop, which is asyncio's, and yield the base URL."""
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    open_sockets = set[socket.socket]()

    async def converse(accepted: socket.socket) -> None:
        # The server continues if a client does not use TLS or disconnects.
        with suppress(OSError):
            async with _connected(accepted, tls, clock) as connection:
                await _converse(answer, connection)
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
            # A task that was cancelled before its first step has not closed its socket.
            for accepted in open_sockets:
                accepted.close()


async def _accept(
    listening: socket.socket,
    converse: Callable[[socket.socket], Coroutine[None, None, None]],
    connections: anyio.abc.TaskGroup,
    open_sockets: set[socket.socket],
) -> None:
    """Accept connections forever, even after reaching the limit of open files."""
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
    """A connection that is closed gracefully after its last answer, or at once if it is cut off.

    It uses asyncio's own streams, because anyio's take several times as long.

    Raises:
        OSError: The client does not use TLS, or has disconnected.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=tls)
    # A send ends when the system has all bytes. With a limit of 0, asyncio's TLS would pause the
    # writer when nothing is left to write, and nothing would wake it.
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


async def _converse(answer: Answering, connection: _Connection) -> None:
    """Answer the requests of one connection, one after the other."""
    try:
        while (request := await connection.receive()) is not None:
            began, before = time.perf_counter(), connection.sent
            response = _answered(answer, request)
            fault = fault_of(response)
            try:
                if fault is None:
                    goes_on = await connection.send(response)
                else:
                    goes_on = await connection.misbehave(response, fault)
            finally:
                size, seconds = connection.sent - before, time.perf_counter() - began
                record(request, response.status_code, size, seconds, fault)
            if not goes_on:
                break
    except (h11.RemoteProtocolError, httpx.InvalidURL) as error:
        await connection.refuse(error)
    except h11.LocalProtocolError:
        # A fault can produce anything; the server continues.
        log.exception("an answer is not valid HTTP and cannot be sent")


def _answered(answer: Answering, request: httpx.Request) -> httpx.Response:
    """The answer, or a 500 if `answer` raises, so that one request cannot stop the server."""
    try:
        return answer(request)
    except Exception:
        log.exception("%s %s cannot be answered", request.method, printable(request.url.path))
        return httpx.Response(500)


class _Connection:
    """One connection as a series of requests and answers.

    Attributes:
        sent: The number of bytes sent so far.
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
        self.sent = 0
        self._reader = reader
        self._writer = writer
        self._socket = accepted
        self._scheme = "https" if tls else "http"
        self._clock = clock
        self._idle: Idle | None = None
        self._pieces: Iterator[Piece] = iter(())
        self._fault: Fault | None = None
        self._http = h11.Connection(h11.SERVER)
        self._unread = False

    async def receive(self) -> httpx.Request | None:
        """The next request, or None when the client, or a fault, ends the connection."""
        while self._idle is not None and await self._is_idle_for(self._idle.seconds):
            if not await self._play():
                return None
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        headers = httpx.Headers(head.headers.raw_items())
        declared = int(headers.get("content-length", "0"))
        body = bytearray()
        # Reading stops as soon as the body is known to be too large: a client that waits for
        # `100 Continue` is refused before it sends, and any other while it sends.
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

    async def send(self, response: httpx.Response) -> bool:
        """Sends an answer; returns whether the connection stays open."""
        await self._send(self._head(response) + self._body(response.content))
        return await self._finish()

    async def misbehave(self, response: httpx.Response, fault: Fault) -> bool:
        """Sends an answer with a fault; returns whether the connection stays open."""
        if fault.delay > 0:
            await self._clock.async_alarm().wait(fault.delay)
        if fault.connection == "reset":
            # An immediate close, which the client sees as a reset.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
            return False
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
        """Sends a fault's pieces up to the next `Idle`; returns whether the connection stays."""
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
        """Whether the connection stays open after a fault; a deaf one reads until its end first."""
        if fault.connection == "deaf":
            while await self._reader.read(_CHUNK):
                pass
        return fault.connection == "kept"

    async def _is_idle_for(self, seconds: float) -> bool:
        """Whether no byte arrives for some seconds."""
        if self._http.trailing_data[0]:
            return False
        arrived, ended = b"", False
        async with anyio.create_task_group() as waiting:

            async def pass_time() -> None:
                await self._clock.async_alarm().wait(seconds)
                waiting.cancel_scope.cancel()

            waiting.start_soon(pass_time)
            # The next read raises the error again.
            with suppress(OSError):
                arrived = await self._reader.read(_CHUNK)
            ended = not waiting.cancel_scope.cancel_called
            waiting.cancel_scope.cancel()
        if arrived:
            self._http.receive_data(arrived)
        return not (ended or arrived or self._has_arrived())

    def _has_arrived(self) -> bool:
        """Whether the system has received bytes that the event loop has not seen yet."""
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
        self._http.start_next_cycle()
        return True

    async def refuse(self, error: h11.RemoteProtocolError | httpx.InvalidURL) -> None:
        """Answer invalid HTTP as a proxy in front of the API would: without a document."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        headers = [("Date", formatdate(usegmt=True)), ("Content-Length", "0")]
        head = h11.Response(status_code=status, headers=[*headers, ("Connection", "close")])
        answer = self._written(head, h11.EndOfMessage())
        await self._send(answer)
        record(None, status, len(answer))
        await self._drain()

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
        self.sent += len(data)
        self._writer.write(data)
        await self._writer.drain()

    async def _drain(self) -> None:
        with anyio.move_on_after(_LINGER_SECONDS):
            # TLS cannot end one direction alone; there the client closes after it has read.
            if self._writer.can_write_eof():
                self._writer.write_eof()
            while await self._reader.read(_CHUNK):
                pass

    def _local_host(self) -> str:
        # HTTP/1.0 has no Host header.
        return f"localhost:{self._socket.getsockname()[1]}"


# Most clients use one address only.
@lru_cache(maxsize=64)
def _url(scheme: str, target: bytes, host: str) -> httpx.URL:
    """The URL of a request, as its client wrote it.

    Raises:
        httpx.InvalidURL: It is not a URL.
    """
    # HTTP allows other bytes here, for which httpx would raise another error.
    if not host.isascii():
        raise httpx.InvalidURL("the host must be ASCII")
    if target.startswith(b"/"):
        return httpx.URL(scheme=scheme, netloc=host.encode(), raw_path=target)
    # A client that uses the emulator as a proxy sends the whole URL.
    if target.startswith((b"http://", b"https://")):
        return httpx.URL(target.decode("ascii"))
    raise httpx.InvalidURL("the target must be a path or a URL")
