"""Connections for many requests at once: httpx's async client on aiohttp, the ``[fast]`` extra.

httpx's own async pool looks at all connections and requests for each of them, so that more than a
few at once cost more than they gain. httpx-aiohttp puts aiohttp's pool in its place. What it makes
of aiohttp's errors, cookies and headers is mended here: whether a request may have arrived is told
from the kind of error, and it calls every broken connection one that was never made.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.request import getproxies

import anyio
import httpx

if TYPE_CHECKING:
    import aiohttp

    from intercom_data_events.connections import BearerToken, Pool

# Seconds that a connection is kept: longer than the rate limit's windows, at whose end all rest.
_KEPT = 30.0
# Bytes: what httpx's own parser takes.
_LONGEST_LINE = 100 * 1024


@asynccontextmanager
async def fast_connections(
    pool: Pool[httpx.AsyncClient], most: int
) -> AsyncGenerator[httpx.AsyncClient | None, None]:
    """Opens connections to use beside the pool's own; None where those are to be used.

    That is: where the extra is not installed, under trio, with an ``http_client`` or ``transport``
    of the caller's, and where a proxy is set in the environment.
    """
    if not pool.plain or getproxies().keys() & {"http", "https", "all"} or running_trio():
        yield None
        return
    try:
        connections = _FastConnections(pool.own().http, most)
    except ImportError:
        yield None
        return
    try:
        # In place of a client, of which nothing but this is asked where events are sent.
        yield cast("httpx.AsyncClient", connections)
    finally:
        with anyio.CancelScope(shield=True):
            await connections.aclose()


def running_trio() -> bool:
    """Whether the running task is trio's, which can be a guest of asyncio's loop."""
    if "trio" not in sys.modules:
        return False
    import trio

    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


class _FastConnections:
    """What sending asks of an ``httpx.AsyncClient``, and no more: a third of its time is saved.

    No redirects, cookies, hooks or mounts: connections of our own have none.
    """

    def __init__(self, http: httpx.AsyncClient, most: int) -> None:
        self._transport = _transport(most)
        self.build_request = http.build_request

    async def send(
        self, request: httpx.Request, *, auth: BearerToken, **_: object
    ) -> httpx.Response:
        await auth.authenticate(request)
        try:
            return await self._transport.handle_async_request(request)
        except httpx.RequestError as error:
            error.request = request
            raise

    async def aclose(self) -> None:
        await self._transport.aclose()


def _transport(most: int) -> httpx.AsyncBaseTransport:
    import aiohttp
    import yarl
    from httpx_aiohttp import AiohttpTransport

    class Transport(AiohttpTransport):
        """What a request ends in is an error of httpx's that says whether it may have arrived."""

        def get_client(self) -> aiohttp.ClientSession:
            if isinstance(self.client, aiohttp.ClientSession):
                return self.client
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=most, keepalive_timeout=_KEPT, ssl=self.ssl_context
                ),
                # As with connections of our own: the API needs none.
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
            )

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.client = session = self.get_client()
            phases = request.extensions["timeout"]
            try:
                response = await session.request(
                    request.method,
                    # As it is: percent-encoding can differ, and mean the same to few servers.
                    yarl.URL(str(request.url), encoded=True),
                    # In its own form, as it asks for each of them several times.
                    headers=[(n.decode(), v.decode()) for n, v in request.headers.raw],
                    data=request.content,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(
                        connect=phases["connect"],
                        sock_read=phases["read"],
                        # Not rounded up, beyond the time that the whole try has.
                        ceil_threshold=math.inf,
                    ),
                )
            except (aiohttp.ClientError, OSError) as error:
                problem = _translated(error)
            else:
                return httpx.Response(
                    response.status,
                    headers=response.raw_headers,
                    stream=_Stream(response),
                    request=request,
                )
            # Outside, so that it does not refer to aiohttp's, which has the request's headers.
            raise problem

    return Transport(limits=httpx.Limits(max_connections=most))


class _Stream(httpx.AsyncByteStream):
    """The body of an answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        import aiohttp

        content = self._response.content
        problem: httpx.TransportError | None = None
        while problem is None:
            try:
                chunk = await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                problem = _translated(error)
            else:
                if not chunk:
                    return
                yield chunk
        raise problem

    async def aclose(self) -> None:
        # Nothing is left of a whole answer, and its connection is used again; any other is closed.
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


def _translated(error: Exception) -> httpx.TransportError:
    """Httpx's name for an error of aiohttp's."""
    import aiohttp

    kind: type[httpx.TransportError]
    if isinstance(error, aiohttp.InvalidURL):
        kind = httpx.UnsupportedProtocol  # Refused before anything is sent.
    elif isinstance(error, aiohttp.ConnectionTimeoutError):
        kind = httpx.ConnectTimeout
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        kind = httpx.ConnectError
    elif isinstance(error, TimeoutError):
        kind = httpx.ReadTimeout
    elif isinstance(error, OSError):
        kind = httpx.ReadError
    elif isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        kind = httpx.RemoteProtocolError
        return kind("the server closed the connection before its answer was whole")
    else:
        kind = httpx.RemoteProtocolError
        return kind("the answer is no HTTP")
    translated = kind(str(error))
    # It holds no request, and tells a certificate that is not trusted from other failures.
    if kind is httpx.ConnectError:
        translated.__cause__ = error
    return translated
