"""The bytes of answers that break HTTP's rules or make a connection unusable.

Each function here takes the bytes of a well-formed answer and yields the bytes that a server sends
instead. The server writes them to a socket; the transport reads them as a client does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import repeat
from types import ModuleType
from typing import Any, Literal

import attrs
import h11
import httpx

WrongLength = Literal["too long", "too short", "not a number", "two", "cut chunk"]

#: A body that trickles or has a wrong length, where the answer has none of its own.
BLANKS = b" " * 60
_LENGTH = re.compile(rb"Content-Length: \d+\r\n", re.IGNORECASE)
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload; as=style\r\n\r\n"


@attrs.frozen
class Idle:
    r"""A wait until a connection has been idle for some seconds, for the `wire` of a `Fault`.

    Requests that arrive during the wait are answered, and the wait begins again.

    Args:
        seconds: Seconds without a request.

    Example:
        >>> from intercom_data_events.emulator import Fault
        >>> def answer_and_time_out(answer):
        ...     yield answer
        ...     yield Idle(60)
        ...     yield b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"
        >>> Fault(name="408 when idle", wire=answer_and_time_out, connection="closed").name
        '408 when idle'
    """

    seconds: float


Piece = bytes | float | Idle
#: Takes the bytes of an answer; yields the bytes to send, and the seconds to wait between them.
Wire = Callable[[bytes], Iterator[Piece]]


def answer_twice(answer: bytes, *, after: float | None) -> Iterator[Piece]:
    """The answer twice: in one piece, or again when the connection has been idle."""
    if after is None:
        yield answer * 2
        return
    yield answer
    yield Idle(after)
    yield answer
    # A request that was sent before the second answer arrives is answered, too, because no client
    # could tell the two apart.
    yield Idle(after)


def interim(answer: bytes, *, number: float, every: float) -> Iterator[Piece]:
    """Several 1xx answers, and then the answer."""
    hints = repeat(_HINTS) if number == math.inf else repeat(_HINTS, int(number))
    if not every:
        yield _HINTS * int(number)
    else:
        for one in hints:
            yield one
            yield every
    yield answer


def trickle_head(answer: bytes, *, seconds: float, endless: bool) -> Iterator[Piece]:
    """The status line and the headers byte by byte; the last header can be endless."""
    end = answer.index(b"\r\n\r\n") + 2
    head = answer[:end] + b"X-Trickle: " if endless else answer[:end]
    for number in range(len(head)):
        yield head[number : number + 1]
        yield seconds
    while endless:
        yield b"."
        yield seconds
    yield answer[end:]


def misdeclare(answer: bytes, *, length: WrongLength) -> Iterator[Piece]:
    """The answer with a body whose declared length is wrong."""
    head, _, body = answer.partition(b"\r\n\r\n")
    body = body or BLANKS
    size = len(body)
    declared = {
        "too long": b"Content-Length: %d\r\n" % (size + 20),
        "too short": b"Content-Length: %d\r\n" % (size // 2),
        "not a number": b"Content-Length: many\r\n",
        "two": b"Content-Length: %d\r\nContent-Length: %d\r\n" % (size, size + 2),
        "cut chunk": b"Transfer-Encoding: chunked\r\n",
    }[length]
    chunk = b"%x\r\n" % (size + 20) if length == "cut chunk" else b""
    yield _LENGTH.sub(b"", head + b"\r\n") + declared + b"\r\n" + chunk + body


def drop_when_idle(answer: bytes, *, after: float) -> Iterator[Piece]:
    """The answer, and nothing more once the connection has been idle."""
    yield answer
    yield Idle(after)


class WireReader:
    """Reads the pieces of a fault as an HTTP client does, with a time limit for each byte.

    Args:
        pieces: The bytes that are sent, and the seconds to wait between them.
        ended: Whether the connection ends afterwards.
        library: httpx or httpx2, whose errors are raised.
        request: The request that is answered, which is the library's.
        patience: Seconds that the client waits: without a byte, and for the whole head.
    """

    def __init__(
        self,
        pieces: Iterator[Piece],
        *,
        ended: bool,
        library: ModuleType,
        request: Any,
        patience: float,
    ) -> None:
        self._pieces = pieces
        self._ended = ended
        self._library = library
        self._request = request
        self._patience = patience
        self._http = h11.Connection(h11.CLIENT)
        asked = h11.Request(method=request.method, target="/", headers=[("Host", "emulator")])
        self._http.send(asked)
        self._http.send(h11.EndOfMessage())

    def head(self) -> Iterator[float | httpx.Response]:
        """Yields seconds to wait, and finally the answer without its body."""
        waited = 0.0
        for event in self._events():
            if isinstance(event, h11.Response):
                yield httpx.Response(event.status_code, headers=event.headers.raw_items())
                return
            if isinstance(event, float):
                waited += event
                yield event
                if waited >= self._patience:
                    raise self._late()

    def body(self) -> Iterator[float | bytes]:
        """Yields seconds to wait, and the parts of the body."""
        for event in self._events():
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            elif isinstance(event, float):
                yield event

    def _events(self) -> Iterator[h11.Event | float]:
        """Yields the events of HTTP in the pieces, and seconds to wait.

        Raises:
            ReadTimeout: Nothing arrives for longer than the client's patience.
            RemoteProtocolError: The pieces are not HTTP, or end too early.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise self._library.RemoteProtocolError(
                    str(error), request=self._request
                ) from error
            if isinstance(event, h11.Event):
                yield event
                continue
            # The parser needs data. The caller reads nothing after the end of an answer.
            piece = next(self._pieces, None)
            if isinstance(piece, bytes):
                self._http.receive_data(piece)
            elif piece is None and self._ended:
                self._http.receive_data(b"")
            else:
                seconds = math.inf if piece is None else piece
                seconds = seconds.seconds if isinstance(seconds, Idle) else seconds
                yield float(min(seconds, self._patience))
                if seconds > self._patience:
                    raise self._late()

    def _late(self) -> Exception:
        late: Exception = self._library.ReadTimeout(
            "The read operation timed out", request=self._request
        )
        return late


def written(response: httpx.Response, body: bytes) -> bytes:
    """Returns the bytes of an answer in HTTP/1.1."""
    lines = [b"HTTP/1.1 %d %s" % (response.status_code, response.reason_phrase.encode())]
    lines += (name + b": " + value for name, value in response.headers.raw)
    return b"\r\n".join([*lines, b"", body])
