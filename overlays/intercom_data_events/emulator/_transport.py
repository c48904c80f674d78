"""Answers a client of httpx or httpx2 in the same process, without a socket.

The emulator uses requests and answers of httpx. This module translates those of httpx2, so that an
answer, its body and its errors belong to the library of the request.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import httpx

from intercom_data_events.clock import SYSTEM, Clock

from ._faults import Fault, body_of, fault_of
from ._wire import WireReader, written

if TYPE_CHECKING:
    import httpx2

    class _OfHttpx2(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
        """The declared type of transports of httpx2's clients."""

else:

    class _OfHttpx2:
        """Empty: httpx2's clients do not check the type of a transport."""


class EmulatorTransport(httpx.BaseTransport, httpx.AsyncBaseTransport, _OfHttpx2):
    """A transport for blocking and async clients of httpx and httpx2, without a socket.

    :meth:`Emulator.transport` returns one. It stays usable after a client is closed, so several
    clients can share it.

    Args:
        answer: A function that takes a request, with its body, and returns the answer. Both are
            objects of httpx, even if the client is one of httpx2.
        clock: The clock on which delays wait.

    Example:
        >>> import asyncio, httpx
        >>> transport = EmulatorTransport(lambda request: httpx.Response(202))
        >>> request = httpx.Request("POST", "https://api.intercom.io/events")
        >>> transport.handle_request(request)
        <Response [202 Accepted]>
        >>> asyncio.run(transport.handle_async_request(request))
        <Response [202 Accepted]>
        >>> httpx.Client(transport=transport).send(request)
        <Response [202 Accepted]>
    """

    def __init__(
        self, answer: Callable[[httpx.Request], httpx.Response], clock: Clock = SYSTEM
    ) -> None:
        self._answer = answer
        self._clock = clock

    # Both libraries declare these alike, each with classes of its own.

    def __enter__(self) -> Self:
        """Return the transport itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave it usable."""

    async def __aenter__(self) -> Self:
        """Return the transport itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Leave it usable."""

    @overload
    def handle_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    def handle_request(self, request: httpx2.Request) -> httpx2.Response: ...
    def handle_request(self, request: Any) -> Any:
        """Answers a request; a blocking client calls it.

        Args:
            request: The request of httpx or httpx2. Its body may be an iterable.

        Raises:
            httpx.TransportError: A fault is played that ends without an answer.
        """
        request.read()
        course = self._course(request)
        for seconds in course.before():
            self._clock.alarm().wait(seconds)
        return course.answer()

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Answers a request without blocking the event loop; an async client calls it.

        Args:
            request: The request of httpx or httpx2. Its body may be an async iterable.

        Raises:
            httpx.TransportError: A fault is played that ends without an answer.
        """
        await request.aread()
        course = self._course(request)
        for seconds in course.before():
            await self._clock.async_alarm().wait(seconds)
        return course.answer()

    def _course(self, request: Any) -> _Course:
        library = _library_of(request)
        response = self._answer(request if library is httpx else _as_httpx(request))
        return _stream_of(library)(library, response, request, self._clock)


def _library_of(request: object) -> ModuleType:
    """Returns the library of a request; httpx2 is not imported unless its caller has done so."""
    other = sys.modules.get("httpx2")
    return other if other is not None and isinstance(request, other.Request) else httpx


def _as_httpx(request: httpx2.Request) -> httpx.Request:
    """The same request of httpx; its body has been read."""
    translated = httpx.Request(
        request.method,
        str(request.url),
        headers=request.headers.raw,
        # A stream, as content would add headers.
        stream=httpx.ByteStream(request.content),
        extensions=dict(request.extensions),
    )
    translated.read()
    return translated


_NO_FAULT = Fault(name="none")


@cache
def _stream_of(library: ModuleType) -> type[_Course]:
    """Returns a `_Course` that is also a stream of the library."""
    return type("_Stream", (_Course, library.SyncByteStream, library.AsyncByteStream), {})


class _Course:
    """An answer with its fault, as a client of a library sees it; also the stream of the body."""

    def __init__(
        self, library: ModuleType, response: httpx.Response, request: Any, clock: Clock
    ) -> None:
        self._library = library
        self._fault = fault_of(response) or _NO_FAULT
        self._response = response
        self._request = request
        self._clock = clock
        patience = request.extensions.get("timeout", {}).get("read")
        self._patience = math.inf if patience is None else float(patience)
        self._wire: WireReader | None = None
        if self._fault.wire is not None:
            self._wire = WireReader(
                self._fault.wire(written(response, body_of(response))),
                ended=self._fault.connection not in ("kept", "deaf"),
                library=library,
                request=request,
                patience=self._patience,
            )

    def before(self) -> Iterator[float]:
        """Yields the seconds to wait before the answer.

        Raises:
            ReadTimeout: The wait is longer than the client's time limit.
            ReadError: The connection is reset.
            RemoteProtocolError: The answer, or part of its head, is missing.
        """
        yield from self._pause(self._fault.delay)
        if self._fault.connection == "reset":
            raise self._library.ReadError("Connection reset by peer", request=self._request)
        if self._fault.connection == "cut" and len(body_of(self._response)) < 2:
            raise self._library.RemoteProtocolError(
                "Server disconnected without sending a response.", request=self._request
            )
        for step in () if self._wire is None else self._wire.head():
            if isinstance(step, httpx.Response):
                self._response = step
            else:
                yield step

    def answer(self) -> Any:
        """The answer, whose body has not been read."""
        if self._library is httpx and self._fault is _NO_FAULT:
            return self._response
        return self._library.Response(
            self._response.status_code, headers=self._response.headers.raw, stream=self
        )

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts():
            if isinstance(part, bytes):
                yield part
            else:
                self._clock.alarm().wait(part)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts():
            if isinstance(part, bytes):
                yield part
            else:
                await self._clock.async_alarm().wait(part)

    def _parts(self) -> Iterator[bytes | float]:
        """Yields the parts of the body, and the seconds to wait between them."""
        if self._wire is not None:
            yield from self._wire.body()
            return
        body = body_of(self._response)
        if self._fault.connection == "cut":
            body = body[: len(body) // 2]
        if self._fault.trickle:
            for number in range(len(body)):
                yield from self._pause(self._fault.trickle)
                yield body[number : number + 1]
        elif body:
            yield body
        if self._fault.connection == "cut":
            raise self._library.RemoteProtocolError(
                "peer closed connection without sending complete message body",
                request=self._request,
            )

    def _pause(self, seconds: float) -> Iterator[float]:
        if seconds > 0:
            yield min(seconds, self._patience)
        if seconds > self._patience:
            raise self._library.ReadTimeout("The read operation timed out", request=self._request)
