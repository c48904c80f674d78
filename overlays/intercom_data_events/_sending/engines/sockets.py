"""Network streams for own connections: an answer belongs to its request, and time limits hold.

httpx reads a connection through a network stream. What a server sends in one piece beyond an answer
stays in httpx's parser, and is taken for the answer to the next request; and each read has the time
limit anew, so that bytes that trickle in have no end. The streams here hand on no byte beyond what
may be the end of an answer before they are asked again, refuse to write a request where bytes
already wait, and bound each step by what is left of the attempt.
"""

from __future__ import annotations

import math
import re
import select
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

    from intercom_data_events.clock import Clock

# Ends the head of an answer, and a body in chunks.
_BLANK_LINE = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})", re.IGNORECASE)
_IN_CHUNKS = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
# Bytes. A head that is longer is not read for its length; httpx's parser refuses it.
_LONGEST_HEAD = 128 * 1024
#: Says why a connection is not used.
OUT_OF_STEP = "the connection was closed, or the server sent bytes on it, before the request"
#: Seconds to look for a byte where there may be none.
GLANCE = 0.001


class Attempt:
    """The attempt that uses a stream now, and when it ends.

    Args:
        ends: A time of the monotonic clock.
        clock: The client's clock.
        transport: The transport that sends it, on own connections.
    """

    __slots__ = ("_clock", "_ends", "transport")

    def __init__(self, ends: float, clock: Clock, transport: Any = None) -> None:
        self._ends = ends
        self._clock = clock
        self.transport = transport

    def left(self, timeout: float | None) -> float | None:
        """Returns the time limit of the next step, in seconds; 0 or less if there is no time."""
        if self._ends == math.inf:
            return timeout
        left = self._ends - self._clock.monotonic()
        return left if timeout is None else min(left, timeout)


#: The attempt of the running thread or task.
ATTEMPT: ContextVar[Attempt | None] = ContextVar("ATTEMPT", default=None)


def time_left(timeout: float | None, late: type[Exception]) -> float | None:
    """Returns the time limit of the next step of the running attempt.

    Args:
        timeout: The limit that the library has for the step, in seconds.
        late: The error to raise where no time is left.
    """
    attempt = ATTEMPT.get()
    left = timeout if attempt is None else attempt.left(timeout)
    if left is not None and left <= 0:
        raise late("no time is left")
    return left


class Received:
    """Bytes that were received, in pieces that go no further than an answer may.

    The ends found here are hints for where to cut. Where one is not the end of an answer, the
    parser asks for the next piece at once; so it alone decides what an answer is.
    """

    __slots__ = ("_block", "_counted", "waiting")

    def __init__(self) -> None:
        self.waiting = b""
        # The part of a head, or of lines, that was handed on.
        self._block = b""
        # Bytes of a body of known length that are left.
        self._counted = 0

    def begin(self) -> None:
        """The next byte begins an answer."""
        self._block, self._counted = b"", 0

    def take(self, most: int) -> bytes:
        """Returns the next piece."""
        data = self.waiting
        if self._counted:
            end = min(self._counted, len(data), most)
            self._counted -= end
        else:
            end = self._end_of_block(data, most)
        self.waiting = data[end:]
        return data[:end]

    def _end_of_block(self, data: bytes, most: int) -> int:
        handed = len(self._block)
        block = self._block + data
        # It may have begun in the bytes before.
        found = _BLANK_LINE.search(block, max(0, handed - 2))
        end = len(data) if found is None else found.end() - handed
        if end > most or found is None:
            end = min(end, most)
            self._block = block[: handed + end]
            # Of anything but a head, the end is enough.
            if not self._block.startswith(b"HTTP/") or len(self._block) > _LONGEST_HEAD:
                self._block = b"\0" + self._block[-2:]
            return end
        head, self._block = block[: found.end()], b""
        if head.startswith(b"HTTP/") and not _IN_CHUNKS.search(head):
            length = _LENGTH.search(head)
            self._counted = int(length[1]) if length else 0
        return end


def has_arrived(number: int) -> bool:
    """Whether there is something to read from a socket, or the other side has closed it."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([number], [], [], 0)[0])  # Windows


@contextmanager
def translated(errors: Mapping[type[Exception], type[Exception]]) -> Generator[None]:
    """Raises an error of the library for one of the system."""
    try:
        yield
    except tuple(errors) as error:
        kind = next(to for of, to in errors.items() if isinstance(error, of))
        said = str(error) or ("timed out" if isinstance(error, TimeoutError) else "")
        raise kind(said) from error


class GuardedStream:
    """A network stream of httpcore, blocking.

    Args:
        stream: The stream of the library.
        core: The library, for its errors.
    """

    def __init__(self, stream: Any, core: ModuleType) -> None:
        self._stream = stream
        self._core = core
        self._received = Received()
        self._attempt: Attempt | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads a piece of an answer."""
        left = time_left(timeout, self._core.ReadTimeout)
        if not self._received.waiting:
            data: bytes = self._stream.read(max_bytes, timeout=left)
            if not data:
                return data
            self._received.waiting = data
        return self._received.take(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Writes a part of a request."""
        if (attempt := ATTEMPT.get()) is not self._attempt:
            self._attempt = attempt
            if self._received.waiting or self._is_readable():
                # Not an error of writing, after which the library would read that as the answer.
                raise self._core.ConnectError(OUT_OF_STEP)
            self._received.begin()
        self._stream.write(buffer, timeout=time_left(timeout, self._core.WriteTimeout))

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
            raise self._core.ConnectError("the server sent bytes before the handshake")
        left = time_left(timeout, self._core.ConnectTimeout)
        return GuardedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._core)

    def get_extra_info(self, info: str) -> Any:
        """Returns what the stream below says; "is_readable" also of what waits here."""
        if info == "is_readable" and self._received.waiting:
            return True
        return self._stream.get_extra_info(info)

    def _is_readable(self) -> bool:
        if not self._stream.get_extra_info("is_readable"):
            return False
        try:
            # With TLS it may be a session ticket, which is not for us.
            self._stream.read(1, timeout=GLANCE)
        except self._core.ReadTimeout:
            return False
        except self._core.ReadError:
            return True
        return True


class GuardedBackend:
    """Makes guarded connections, blocking.

    Args:
        core: httpcore or httpcore2.
    """

    def __init__(self, core: ModuleType) -> None:
        self._core = core
        self._backend = core.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> GuardedStream:
        """Connects to the first address that answers, in the time limit for all of them."""
        core = self._core
        with translated({OSError: core.ConnectError}):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for tried, (*_, address) in enumerate(found, 1):
            left = time_left(timeout, core.ConnectTimeout)
            last = tried == len(found)
            # Half of it for each but the last, as an address may swallow everything.
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
        """Is not for own connections."""
        raise self._core.UnsupportedProtocol(f"not a connection of ours: {path}")

    def sleep(self, seconds: float) -> None:
        """Waits before another attempt to connect, of which own connections make none."""
        self._backend.sleep(seconds)
