"""Serves answers on real sockets: HTTP/1.1 by h11 on anyio, in a thread of its own."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager, suppress
from email.utils import formatdate
from functools import partial
from types import TracebackType

import anyio
import anyio.abc
import anyio.from_thread
import anyio.streams.tls
import anyio.to_thread
import h11
import httpx

from intercom_data_events.clock import SYSTEM, Clock

from ._faults import Fault, body_of, fault_of
from ._reading import BODY_LIMIT

log = logging.getLogger("intercom_data_events.emulator")

_CHUNK = 64 * 1024

# How long a refused upload may go on, so that the client sends it to its end and then reads the
# answer; closing with bytes unread would reset the connection and lose the answer.
_LINGER_SECONDS = 2.0

# How long to wait for connections to close where no more can be opened.
_BREATH_SECONDS = 0.05

Answering = Callable[[httpx.Request], httpx.Response]


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
    ) -> None:
        self._serving = partial(serving, answer, host, port, tls, clock)
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
    answer: Answering, host: str, port: int, tls: ssl.SSLContext | None, clock: Clock
) -> AsyncGenerator[str, None]:
    """Serve in the running event loop, and yield the base URL."""
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
    streams = set[anyio.abc.SocketStream]()

    async def converse(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            # Whoever does not speak TLS, or breaks off, is none of a server's business.
            with suppress(ssl.SSLError, OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                await _converse(answer, stream if tls is None else await _wrap(stream, tls), clock)
        streams.discard(stream)

    async with listener:
        try:
            async with anyio.create_task_group() as connections:
                for one in listener.listeners:
                    connections.start_soon(_accept, one, converse, connections, streams)
                bound = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]()
                scheme = "http" if tls is None else "https"
                yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
                connections.cancel_scope.cancel()
        finally:
            # A conversation that was cancelled before its first step has closed nothing.
            for stream in streams:
                await anyio.aclose_forcefully(stream)


async def _accept(
    listener: anyio.abc.Listener[anyio.abc.SocketStream],
    converse: Callable[[anyio.abc.SocketStream], Coroutine[None, None, None]],
    connections: anyio.abc.TaskGroup,
    streams: set[anyio.abc.SocketStream],
) -> None:
    """Accept connections for ever, also after there were more than files can be opened."""
    while True:
        try:
            stream = await listener.accept()  # type: ignore[attr-defined]  # of sockets, all have it
        except OSError:
            await anyio.sleep(_BREATH_SECONDS)
        else:
            streams.add(stream)
            connections.start_soon(converse, stream)


async def _wrap(
    stream: anyio.abc.ByteStream, context: ssl.SSLContext
) -> anyio.streams.tls.TLSStream:
    return await anyio.streams.tls.TLSStream.wrap(
        stream, server_side=True, ssl_context=context, standard_compatible=False
    )


async def _converse(answer: Answering, stream: anyio.abc.ByteStream, clock: Clock) -> None:
    """Answer the requests of one connection, one after the other."""
    connection = _Connection(stream)
    # A client may leave whenever it likes.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        try:
            while (request := await connection.receive()) is not None:
                response = _answered(answer, request)
                if (fault := fault_of(response)) is None:
                    goes_on = await connection.send(response)
                else:
                    goes_on = await connection.misbehave(response, fault, clock)
                if not goes_on:
                    break
        except (h11.RemoteProtocolError, httpx.InvalidURL) as error:
            await connection.refuse(error)
        except h11.LocalProtocolError:
            # A fault can ask for anything; it does not end the server either.
            log.exception("an answer is no HTTP, and cannot be sent")


def _answered(answer: Answering, request: httpx.Request) -> httpx.Response:
    """The answer, or a 500 where there is none: one request does not end the server."""
    try:
        return answer(request)
    except Exception:
        log.exception("%s %s cannot be answered", request.method, request.url.path)
        return httpx.Response(500)


class _Connection:
    """One connection, seen as requests and answers."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._tls = isinstance(stream, anyio.streams.tls.TLSStream)
        self._http = h11.Connection(h11.SERVER)
        self._unread = False

    async def receive(self) -> httpx.Request | None:
        """The next request, or None when the client has no more."""
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
        scheme = "https" if self._tls else "http"
        url = _url(scheme, head.target, headers.get("host", self._local_host()))
        return httpx.Request(
            head.method.decode(),
            url,
            headers=headers,
            content=bytes(body),
            extensions={"truncated": self._unread},
        )

    async def send(self, response: httpx.Response) -> bool:
        """Answer; whether the connection can go on."""
        await self._stream.send(self._head(response) + self._body(response.content))
        return await self._finish()

    async def misbehave(self, response: httpx.Response, fault: Fault, clock: Clock) -> bool:
        """Answer as a fault has it; whether the connection can go on."""
        if fault.delay > 0:
            await clock.async_alarm().wait(fault.delay)
        if fault.connection == "reset":
            # Closed at once instead of in peace, which the client sees as a reset.
            raw = self._stream.extra(anyio.abc.SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(self._stream)
            return False
        head, body = self._head(response), body_of(response)
        if fault.connection == "kept":
            body = self._body(body)
        elif len(body) > 1:
            body = body[: len(body) // 2]
        else:
            head, body = head[: len(head) // 2], b""
        if fault.trickle:
            await self._stream.send(head)
            for number in range(len(body)):
                await clock.async_alarm().wait(fault.trickle)
                await self._stream.send(body[number : number + 1])
        else:
            await self._stream.send(head + body)
        return fault.connection == "kept" and await self._finish()

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
        """Answer what is no HTTP, as a proxy in front of the API would: without a document."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        headers = [("Date", formatdate(usegmt=True)), ("Content-Length", "0")]
        head = h11.Response(status_code=status, headers=[*headers, ("Connection", "close")])
        await self._send(head, h11.EndOfMessage())
        await self._drain()

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                received = await self._stream.receive(_CHUNK)
            except anyio.EndOfStream:
                received = b""
            self._http.receive_data(received)
        return event

    async def _send(self, *events: h11.Event) -> None:
        await self._stream.send(b"".join(self._http.send(event) or b"" for event in events))

    async def _drain(self) -> None:
        with anyio.move_on_after(_LINGER_SECONDS), suppress(anyio.EndOfStream):
            # TLS cannot end one direction alone; there the client closes once it has read.
            if not self._tls:
                await self._stream.send_eof()
            while True:
                await self._stream.receive(_CHUNK)

    def _local_host(self) -> str:
        # HTTP/1.0 has no Host header.
        return f"localhost:{self._stream.extra(anyio.abc.SocketAttribute.local_port)}"


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
