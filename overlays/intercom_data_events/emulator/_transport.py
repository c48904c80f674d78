"""Answers an httpx client in the same process, without a socket."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator

import httpx

from intercom_data_events.clock import SYSTEM, Clock

from ._faults import Fault, body_of, fault_of
from ._wire import WireReader, written


class EmulatorTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """An httpx transport for `httpx.Client` and `httpx.AsyncClient` alike.

    Closing a client leaves it usable, so that several clients can share it.

    Args:
        answer: The function from a request, its body read, to its answer.
        clock: What delays are waited for with.

    Example:
        >>> transport = EmulatorTransport(lambda request: httpx.Response(202))
        >>> httpx.Client(transport=transport).post("https://api.intercom.io/events")
        <Response [202 Accepted]>
    """

    def __init__(
        self, answer: Callable[[httpx.Request], httpx.Response], clock: Clock = SYSTEM
    ) -> None:
        self._answer = answer
        self._clock = clock

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Read a body that comes from an iterable, and answer."""
        request.read()
        response = self._answer(request)
        if (fault := fault_of(response)) is None:
            return response
        course = _Course(fault, response, request)
        for seconds in course.before():
            self._clock.alarm().wait(seconds)
        return course.answer(self._clock)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read a body that may come from an async iterable, and answer without blocking."""
        await request.aread()
        response = self._answer(request)
        if (fault := fault_of(response)) is None:
            return response
        course = _Course(fault, response, request)
        for seconds in course.before():
            await self._clock.async_alarm().wait(seconds)
        return course.answer(self._clock)


class _Course(httpx.SyncByteStream, httpx.AsyncByteStream):
    """How an answer with a fault comes, as httpx would tell of it; also the stream of its body."""

    def __init__(self, fault: Fault, response: httpx.Response, request: httpx.Request) -> None:
        self._fault = fault
        self._response = response
        self._body = body_of(response)
        self._request = request
        self._clock: Clock = SYSTEM
        patience = request.extensions.get("timeout", {}).get("read")
        self._patience = math.inf if patience is None else float(patience)
        self._wire: WireReader | None = None
        if fault.wire is not None:
            self._wire = WireReader(
                fault.wire(written(response, self._body)),
                ended=fault.connection not in ("kept", "deaf"),
                request=request,
                patience=self._patience,
            )

    def before(self) -> Iterator[float]:
        """Yields how long to wait before the answer.

        Raises:
            httpx.ReadTimeout: Longer than the client's patience.
            httpx.ReadError: The connection is reset.
            httpx.RemoteProtocolError: There is no answer, or not all of its head.
        """
        yield from self._pause(self._fault.delay)
        if self._fault.connection == "reset":
            raise httpx.ReadError("Connection reset by peer", request=self._request)
        if self._fault.connection == "cut" and len(self._body) < 2:
            raise httpx.RemoteProtocolError(
                "Server disconnected without sending a response.", request=self._request
            )
        for step in () if self._wire is None else self._wire.head():
            if isinstance(step, httpx.Response):
                self._response = step
            else:
                yield step

    def answer(self, clock: Clock) -> httpx.Response:
        """The answer, whose body is still to come."""
        self._clock = clock
        return httpx.Response(
            self._response.status_code, headers=self._response.headers, stream=self
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
        """The parts of the body, and how long to wait between them."""
        if self._wire is not None:
            yield from self._wire.body()
            return
        body = self._body
        if self._fault.connection == "cut":
            body = body[: len(body) // 2]
        if self._fault.trickle:
            for number in range(len(body)):
                yield from self._pause(self._fault.trickle)
                yield body[number : number + 1]
        elif body:
            yield body
        if self._fault.connection == "cut":
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body",
                request=self._request,
            )

    def _pause(self, seconds: float) -> Iterator[float]:
        if seconds > 0:
            yield min(seconds, self._patience)
        if seconds > self._patience:
            raise httpx.ReadTimeout("The read operation timed out", request=self._request)
