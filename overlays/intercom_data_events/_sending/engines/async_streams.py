# ruff: noqa: ASYNC109  # the interface of httpcore
"""Async guarded network streams, under asyncio and trio.

Their sockets do not belong to an event loop, so they can be closed like files after it has ended.
The module of the blocking ones, `streams`, explains the guard.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import chain, zip_longest
from types import ModuleType
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.tls import TLSAttribute, TLSStream

from intercom_data_events._sending.engines.attempt import ATTEMPT, Attempt, time_left
from intercom_data_events._sending.engines.streams import (
    OUT_OF_STEP,
    PEEK_TIMEOUT,
    ReceiveBuffer,
    numeric_addresses,
    translated,
)
from intercom_data_events._sending.secret import Secret

# Seconds until the next address is tried in parallel ("happy eyeballs", RFC 8305).
_NEXT_ADDRESS = 0.25


class LooplessSocket(anyio.abc.ByteStream):
    """A connected socket that belongs to no event loop.

    Args:
        raw: The socket, which does not block.
        registry: All open sockets of a backend; this one is among them until it is closed.
    """

    def __init__(self, raw: socket.socket, registry: set[LooplessSocket]) -> None:
        self.raw = raw
        self._registry = registry
        registry.add(self)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receives at least one byte.

        Raises:
            EndOfStream: The other side has closed the connection.
            OSError: The connection failed.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        data = _received_now(self.raw, max_bytes)
        if data is not None:
            # Shielded: a cancellation here would lose the bytes, and TLS its position.
            await anyio.lowlevel.cancel_shielded_checkpoint()
        while data is None:
            await anyio.wait_readable(self.raw)
            data = _received_now(self.raw, max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Sends all bytes.

        Raises:
            OSError: The connection failed.
        """
        # A view, because its repr does not show the access token.
        rest, item = memoryview(item), b""
        # Without a checkpoint first, because the guard has just checked for unread bytes.
        while (sent := _sent_now(self.raw, rest)) is None or sent < len(rest):
            rest = rest[sent or 0 :]
            await anyio.wait_writable(self.raw)
        # No checkpoint: every request waits for its answer, which is one.

    async def send_eof(self) -> None:
        """Ends sending."""
        self.raw.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Closes it."""
        self.close()

    def close(self, *, waking: bool = True) -> None:
        """Closes the socket.

        Args:
            waking: Whether to wake the tasks of the running event loop that wait for it.
        """
        self._registry.discard(self)
        if waking and self.raw.fileno() >= 0:
            anyio.notify_closing(self.raw)
        self.raw.close()


class AsyncGuardedStream:
    """An async guarded network stream; it raises the same errors as the blocking one.

    Args:
        stream: The socket, or TLS on it.
        raw: The socket.
        core: httpcore or httpcore2, for its errors.
    """

    def __init__(self, stream: anyio.abc.ByteStream, raw: LooplessSocket, core: ModuleType) -> None:
        self._stream = stream
        self._socket = raw
        self._core = core
        self._received = ReceiveBuffer()
        self._attempt: Attempt | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads a piece of an answer."""
        if not self._received.waiting:
            self._received.add(await self._read(max_bytes, timeout))
        else:
            time_left(timeout, self._core.ReadTimeout)
        return self._received.next_piece(max_bytes)

    async def _read(self, most: int, timeout: float | None) -> bytes:
        core = self._core
        left = time_left(timeout, core.ReadTimeout)
        with translated(self._errors(core.ReadTimeout, core.ReadError)):
            try:
                with anyio.fail_after(left):
                    return await self._stream.receive(most)
            except anyio.EndOfStream:
                return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes a part of a request."""
        core = self._core
        held, buffer = Secret(buffer), b""  # It may contain the access token.
        if (attempt := ATTEMPT.get()) is not self._attempt:
            self._attempt = attempt
            if self._received.waiting or await self._is_readable():
                # Not a WriteError, after which httpcore reads the unread bytes as the answer.
                raise core.ConnectError(OUT_OF_STEP)
            self._received.start_answer()
        if not held.value:
            return  # The end of a request whose length is known.
        left = time_left(timeout, core.WriteTimeout)
        with translated(self._errors(core.WriteTimeout, core.WriteError)), anyio.fail_after(left):
            await self._stream.send(held.value)

    async def aclose(self) -> None:
        """Closes it."""
        self._socket.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> AsyncGuardedStream:
        """Returns an encrypted stream on this one."""
        core = self._core
        if self._received.waiting:
            raise core.ConnectError("the server sent bytes before the TLS handshake")
        left = time_left(timeout, core.ConnectTimeout)
        errors = self._errors(core.ConnectTimeout, core.ConnectError)
        try:
            with translated(errors), anyio.fail_after(left):
                stream = await TLSStream.wrap(
                    self._stream,
                    hostname=server_hostname,
                    ssl_context=ssl_context,
                    server_side=False,
                    standard_compatible=False,
                )
        except BaseException:
            self._socket.close()
            raise
        return AsyncGuardedStream(stream, self._socket, core)

    def get_extra_info(self, info: str) -> Any:
        """Returns a fact about the stream, if it is one that httpcore asks for."""
        if info == "is_readable":
            return bool(self._received.waiting) or _is_readable(self._socket.raw)
        if info == "socket":
            return self._socket.raw
        if info == "ssl_object":
            return self._tls()
        return None

    def _tls(self) -> Any:
        if self._stream is self._socket:
            return None
        return self._stream.extra(TLSAttribute.ssl_object, None)

    async def _is_readable(self) -> bool:
        tls = self._tls()
        if tls is not None:
            try:
                tls.read(1)  # Bytes that were received but not decrypted.
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return True
            else:
                return True
        if not _is_readable(self._socket.raw):
            return False
        if tls is None:
            return True
        try:
            await self._read(1, PEEK_TIMEOUT)  # The bytes may be a session ticket.
        except self._core.ReadTimeout:
            return False
        except self._core.ReadError:
            return True
        return True

    @staticmethod
    def _errors(
        timeout: type[Exception], other: type[Exception]
    ) -> Mapping[type[Exception], type[Exception]]:
        return {
            TimeoutError: timeout,
            OSError: other,  # Errors of TLS are among these.
            anyio.BrokenResourceError: other,
            anyio.ClosedResourceError: other,
            anyio.EndOfStream: other,
        }


class AsyncGuardedBackend:
    """Makes async guarded connections.

    Args:
        core: httpcore or httpcore2.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._open = set[LooplessSocket]()
        self._errors: Mapping[type[Exception], type[Exception]] = {
            TimeoutError: core.ConnectTimeout,
            OSError: core.ConnectError,
        }

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002  # own connections have none
        socket_options: Iterable[tuple[int, int, int]] | None = None,
    ) -> AsyncGuardedStream:
        """Connects to the address that answers first; raises what the blocking backend raises."""
        core = self._core
        left = time_left(timeout, core.ConnectTimeout)
        with translated(self._errors), anyio.fail_after(left):
            connected = await _connect(host, port)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            connected.setsockopt(*option)
        opened = LooplessSocket(connected, self._open)
        return AsyncGuardedStream(opened, opened, core)

    async def connect_unix_socket(self, path: str, **_: Any) -> AsyncGuardedStream:
        """Raises an error: own connections do not use Unix sockets."""
        raise self._core.UnsupportedProtocol(f"Unix sockets are not supported: {path}")

    async def sleep(self, seconds: float) -> None:
        """Waits before the library connects again, which it never does on own connections."""
        await anyio.sleep(seconds)

    def drop(self, *, waking: bool = False) -> None:
        """Closes all connections, even outside their event loop.

        Args:
            waking: Whether to wake the tasks of the running event loop that wait for them.
        """
        for opened in list(self._open):
            opened.close(waking=waking)


async def _connect(host: str, port: int) -> socket.socket:
    """Connects to the address of a host that answers first."""
    found = numeric_addresses(host, port)
    if found is None:
        found = list(await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    # IPv6 and IPv4 alternate, because one of them may be unreachable.
    families = [
        [one for one in found if one[0] == family]
        for family in dict.fromkeys(one[0] for one in found)
    ]
    addresses = [one for one in chain.from_iterable(zip_longest(*families)) if one is not None]
    connected: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(
        family: int, kind: int, protocol: int, address: tuple[Any, ...], failed: anyio.Event
    ) -> None:
        one: socket.socket | None = None
        try:
            one = socket.socket(family, kind, protocol)
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(address)
            await anyio.wait_writable(one)
            if number := one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                errors.append(OSError(number, os.strerror(number)))
            elif not connected:
                connected.append(one)
                group.cancel_scope.cancel()
        except OSError as error:
            errors.append(error)
        finally:
            if one is not None and one not in connected:
                one.close()
            failed.set()

    try:
        async with anyio.create_task_group() as group:
            for family, kind, protocol, _, address in addresses:
                failed = anyio.Event()
                group.start_soon(attempt, family, kind, protocol, address, failed)
                with anyio.move_on_after(_NEXT_ADDRESS):
                    await failed.wait()
    except BaseException:
        for one in connected:
            one.close()
        raise
    if not connected:
        raise errors[0] if errors else OSError(f"{host} has no address")
    return connected[0]


# Separate functions, so that a BlockingIOError does not become the context of an error in the wait
# that follows.


def _received_now(raw: socket.socket, most: int) -> bytes | None:
    """Returns the received bytes; None if there are none yet."""
    try:
        return raw.recv(most)
    except (BlockingIOError, InterruptedError):
        return None


def _sent_now(raw: socket.socket, data: memoryview) -> int | None:
    """Returns the number of bytes that were sent; None if the buffer was full."""
    try:
        return raw.send(data)
    except (BlockingIOError, InterruptedError):
        return None


def _is_readable(raw: socket.socket) -> bool:
    """Whether a socket has bytes to read, or the other side has closed it."""
    try:
        raw.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    return True
