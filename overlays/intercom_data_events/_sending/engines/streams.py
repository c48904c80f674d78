"""Blocking guarded network streams.

httpx's parser keeps bytes that arrive after an answer and reads them as the next answer. It also
restarts the time limit with each read. These streams pass on at most one answer, refuse to write
while bytes are unread, and bound each step by the time left for the attempt.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from intercom_data_events._sending.engines.attempt import ATTEMPT, Attempt, time_left
from intercom_data_events._sending.secret import Secret

if TYPE_CHECKING:
    import ssl

# Bytes. A longer head is not searched for its end; httpx's parser rejects it.
_LONGEST_HEAD = 128 * 1024
# Digits. No body is that long.
_LONGEST_LENGTH = 100
#: The message of a connection that cannot be used for a request.
OUT_OF_STEP = "the server closed the connection or sent bytes on it before the request was sent"
#: Seconds to wait for a byte that may not come.
PEEK_TIMEOUT = 0.001


# What the next byte of a connection belongs to. A chunk size is the line before a chunk; the rest
# is a body that ends with the connection, or another protocol.
_HEAD, _BODY, _CHUNK_SIZE, _CHUNK, _TRAILERS, _REST, _UNCLEAR = range(7)


class ReceiveBuffer:
    """Received bytes, cut into pieces that never extend beyond the end of an answer.

    The ends found here are only hints where to cut. If an answer continues after one, httpx's
    parser asks for the next piece, so the parser alone decides where an answer ends. If the end is
    not known, bytes are passed on one by one, so that none beyond the end is.

    Attributes:
        waiting: The received bytes; empty once all are passed on.
    """

    __slots__ = ("_at", "_left", "_line", "_part", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        # How many of these bytes were passed on.
        self._at = 0
        self._part = _HEAD
        # The remaining bytes of a body or chunk.
        self._left = 0
        # The part of a head or line that was passed on.
        self._line = b""

    def start_answer(self) -> None:
        """Expects the head of an answer."""
        self._part, self._left, self._line = _HEAD, 0, b""

    def add(self, data: bytes) -> None:
        """Adds received bytes. All bytes before them must have been passed on."""
        self.waiting, self._at = data, 0

    def next_piece(self, most: int) -> bytes:
        """Returns the next piece, of at most `most` bytes."""
        begin = self._at
        end = self._at = self._end(self.waiting, begin, min(len(self.waiting), begin + most))
        piece = self.waiting[begin:end]
        if end == len(self.waiting):
            self.waiting, self._at = b"", 0
        return piece

    def _end(self, data: bytes, at: int, stop: int) -> int:
        """Returns the end of the piece that begins at a position."""
        while at < stop:
            part = self._part
            if part == _HEAD:
                return self._end_of_head(data, at, stop)
            if part == _REST:
                return stop
            if part == _UNCLEAR:
                return at + 1
            if part in {_BODY, _CHUNK}:
                step = min(self._left, stop - at)
                self._left -= step
                at += step
                if self._left:
                    continue
                if part == _BODY:
                    self.start_answer()
                    return at
                self._part = _CHUNK_SIZE
                continue
            line_end = data.find(b"\n", at, stop)
            line = self._line + data[at : stop if line_end < 0 else line_end + 1]
            at += len(line) - len(self._line)
            self._line = line
            if line_end < 0:
                if len(line) > _LONGEST_HEAD:
                    self._part = _UNCLEAR
                continue
            self._line = b""
            if part == _TRAILERS:
                if not line.strip(b"\r\n"):
                    self.start_answer()
                    return at
            elif (left := _chunk_size(line)) is None:
                self._part = _UNCLEAR
                return at
            elif left:
                self._part, self._left = _CHUNK, left + len(b"\r\n")
            else:
                self._part = _TRAILERS
        return at

    def _end_of_head(self, data: bytes, at: int, stop: int) -> int:
        handed = len(self._line)
        block = self._line + data[at:stop]
        # The blank line may have begun in earlier bytes.
        ends = [
            found + len(blank)
            for blank in (b"\n\n", b"\n\r\n")
            if (found := block.find(blank, max(0, handed - 2))) >= 0
        ]
        if not ends:
            self._line = block
            if not block.startswith(b"HTTP/"[: len(block)]) or len(block) > _LONGEST_HEAD:
                self._part = _UNCLEAR
                return at + 1
            return stop
        end, self._line = min(ends), b""
        self._part, self._left = _after(block[:end])
        return at + end - handed


def _after(head: bytes) -> tuple[int, int]:
    """Returns what follows the head of an answer, and its number of bytes."""
    status = head[9:12]
    if not head.startswith(b"HTTP/1."):
        return _UNCLEAR, 0
    if status == b"101":
        return _REST, 0
    if status in {b"204", b"304"} or status.startswith(b"1"):
        return _HEAD, 0
    head = head.lower()
    if b"\ntransfer-encoding" in head:
        return _CHUNK_SIZE, 0
    mentioned = head.count(b"\ncontent-length")
    if not mentioned:
        return _REST, 0
    at = head.find(b"\ncontent-length") + len(b"\ncontent-length")
    colon, length = head[at : at + 1], head[at + 1 : head.find(b"\n", at)].strip()
    # A folded header is empty in its first line.
    if mentioned > 1 or colon != b":" or not length.isdigit() or len(length) > _LONGEST_LENGTH:
        return _UNCLEAR, 0
    return (_BODY, int(length)) if int(length) else (_HEAD, 0)


def _chunk_size(line: bytes) -> int | None:
    """Reads the line before a chunk; None if it is not a chunk size."""
    digits = line.partition(b";")[0].strip()
    try:
        return int(digits, 16) if digits.isalnum() else None
    except ValueError:
        return None


def has_arrived(number: int) -> bool:
    """Whether a socket has bytes to read, or the other side has closed it."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([number], [], [], 0)[0])  # Windows


@contextmanager
def translated(errors: Mapping[type[Exception], type[Exception]]) -> Generator[None]:
    """Translates an error of the system or of anyio to one of httpcore."""
    try:
        yield
    except tuple(errors) as error:
        kind = next(to for of, to in errors.items() if isinstance(error, of))
        said = str(error) or ("timed out" if isinstance(error, TimeoutError) else "")
        raise kind(said) from error


class GuardedStream:
    """A blocking guarded network stream.

    Args:
        stream: The underlying network stream of httpcore or httpcore2.
        core: That library, for its errors.
    """

    def __init__(self, stream: Any, core: ModuleType) -> None:
        self._stream = stream
        self._core = core
        self._received = ReceiveBuffer()
        self._attempt: Attempt | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads a piece of an answer; nothing at the end of the connection.

        Raises:
            ReadTimeout: The time limit, or that of the attempt, has passed.
            ReadError: The connection failed.
        """
        left = time_left(timeout, self._core.ReadTimeout)
        if not self._received.waiting:
            self._received.add(self._stream.read(max_bytes, timeout=left))
        return self._received.next_piece(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes a part of a request.

        Raises:
            ConnectError: The connection has unread bytes, or was closed, before the request.
            WriteTimeout: The time limit, or that of the attempt, has passed.
            WriteError: The connection failed.
        """
        held, buffer = Secret(buffer), b""  # It may contain the access token.
        if (attempt := ATTEMPT.get()) is not self._attempt:
            self._attempt = attempt
            if self._received.waiting or self._is_readable():
                # Not a WriteError, after which httpcore reads the unread bytes as the answer.
                raise self._core.ConnectError(OUT_OF_STEP)
            self._received.start_answer()
        if not held.value:
            return  # The end of a request whose length is known.
        self._stream.write(held.value, timeout=time_left(timeout, self._core.WriteTimeout))

    def close(self) -> None:
        """Closes it."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> GuardedStream:
        """Returns an encrypted stream on this one."""
        if self._received.waiting:
            raise self._core.ConnectError("the server sent bytes before the TLS handshake")
        left = time_left(timeout, self._core.ConnectTimeout)
        return GuardedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._core)

    def get_extra_info(self, info: str) -> Any:
        """Returns a fact about the stream; "is_readable" is also true while bytes wait here."""
        if info == "is_readable" and self._received.waiting:
            return True
        return self._stream.get_extra_info(info)

    def _is_readable(self) -> bool:
        if not self._stream.get_extra_info("is_readable"):
            return False
        try:
            # With TLS, the bytes may be a session ticket, which the read processes.
            self._stream.read(1, timeout=PEEK_TIMEOUT)
        except self._core.ReadTimeout:
            return False
        except self._core.ReadError:
            return True
        return True


class GuardedBackend:
    """Makes blocking guarded connections.

    Args:
        core: httpcore or httpcore2.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._backend = core.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> GuardedStream:
        """Connects to the first address that answers.

        Args:
            host: A name or an IP address.
            port: The port.
            timeout: Seconds for resolving the name and trying all addresses.
            options: Other arguments of httpcore.

        Raises:
            ConnectTimeout: The time limit, or that of the attempt, has passed.
            ConnectError: There is no address, or none answers.
        """
        core = self._core
        with translated({TimeoutError: core.ConnectTimeout, OSError: core.ConnectError}):
            found = _addresses(host, port, time_left(timeout, core.ConnectTimeout))
        for tried, (*_, address) in enumerate(found, 1):
            left = time_left(timeout, core.ConnectTimeout)
            last = tried == len(found)
            # Half of the remaining time for each address but the last, because one may never
            # answer.
            share = left if left is None or last else left / 2
            try:
                stream = self._backend.connect_tcp(str(address[0]), port, timeout=share, **options)
            except (core.ConnectError, core.ConnectTimeout):
                if last:
                    raise
            else:
                return GuardedStream(stream, core)
        raise core.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, path: str, **_: Any) -> GuardedStream:
        """Raises an error: own connections do not use Unix sockets."""
        raise self._core.UnsupportedProtocol(f"Unix sockets are not supported: {path}")

    def sleep(self, seconds: float) -> None:
        """Waits before the library connects again, which it never does on own connections."""
        self._backend.sleep(seconds)


def numeric_addresses(host: str, port: int) -> list[Any] | None:
    """Returns the addresses of a host that is an IP address; None for a name."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None


def _addresses(host: str, port: int, seconds: float | None) -> list[Any]:
    """Resolves a host in another thread, because name resolution has no time limit.

    Raises:
        TimeoutError: It took longer than the seconds.
        OSError: The host has no address.
    """
    if (found := numeric_addresses(host, port)) is not None:
        return found
    from queue import Empty, SimpleQueue

    results = SimpleQueue[list[Any] | OSError]()

    def look_up() -> None:
        try:
            results.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except OSError as error:
            results.put(error)

    try:
        threading.Thread(target=look_up, name="look-up", daemon=True).start()
    except RuntimeError:
        look_up()  # The interpreter is exiting, or the system cannot start more threads.
    try:
        result = results.get(timeout=seconds)
    except Empty:
        result = TimeoutError(f"the name {host} was not resolved in time")
    if isinstance(result, OSError):
        raise result
    return result
