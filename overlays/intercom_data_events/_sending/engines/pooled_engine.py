"""The engine on own connections, through httpx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import httpx

from intercom_data_events._sending.engines.attempt import ATTEMPT
from intercom_data_events._sending.engines.connections import Connections
from intercom_data_events._sending.engines.httpx_engine import (
    AsyncHTTPXEngine,
    HTTPXEngine,
    new_client,
)

if TYPE_CHECKING:
    import ssl

    from intercom_data_events._sending.engines import RawResponse, Request
    from intercom_data_events._sending.engines.attempt import Attempt
    from intercom_data_events.clock import Clock


class PooledEngine(HTTPXEngine):
    """Sends on own connections."""

    _reads = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(new_client(httpx, "Client", Chosen()), owned=True, clock=clock)
        self._connections = Connections(httpx.HTTPTransport)

    def send(self, request: Request) -> RawResponse:
        """Sends a request; see :class:`Engine`."""
        made = self._made(request)
        connection = self._connections.take(made.url)
        closing = [connection]
        try:
            answer = self._send(request, made, connection.transport)
            if answer.problem is None:
                self._connections.give_back(connection, closing)
        finally:
            for one in closing:
                self._connections.forget(one).transport.close()
        return answer

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections.forget_all():
            connection.transport.close()
        super().close()


class AsyncPooledEngine(AsyncHTTPXEngine):
    """Sends on own connections, in one event loop."""

    _reads = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(new_client(httpx, "AsyncClient", AsyncChosen()), owned=True, clock=clock)
        self._connections = Connections(httpx.AsyncHTTPTransport)

    @property
    def tls(self) -> ssl.SSLContext:
        """The TLS context, with the trusted certificates."""
        return self._connections.tls

    async def send(self, request: Request) -> RawResponse:
        """Sends a request; see :class:`AsyncEngine`."""
        made = self._made(request)
        connection = self._connections.take(made.url)
        closing = [connection]
        try:
            answer = await self._send(request, made, connection.transport)
            if answer.problem is None:
                self._connections.give_back(connection, closing)
        finally:
            for one in closing:
                # Without awaiting, because the task may be cancelled.
                self._connections.forget(one).backend.drop()
        return answer

    async def aclose(self) -> None:
        """Closes the connections."""
        for connection in self._connections.forget_all():
            connection.backend.drop(waking=True)
        await self.client.aclose()

    def drop(self) -> None:
        """Closes the connections, even after their event loop has ended."""
        for connection in self._connections.forget_all():
            connection.backend.drop()


class Chosen(httpx.BaseTransport):
    """The transport of a client whose engine chooses the connection of each attempt."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request on the running attempt's connection."""
        return _without_reason(_chosen().handle_request(request))


class AsyncChosen(httpx.AsyncBaseTransport):
    """The counterpart for async clients."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request on the running attempt's connection."""
        return _without_reason(await _chosen().handle_async_request(request))


def _without_reason(response: httpx.Response) -> httpx.Response:
    """Removes the server's reason phrase, because httpx logs it."""
    response.extensions.pop("reason_phrase", None)
    return response


def _chosen() -> Any:
    return cast("Attempt", ATTEMPT.get()).transport
