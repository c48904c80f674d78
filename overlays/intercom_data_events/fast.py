"""Connections for many requests at once, beside those of a client.

httpx's own async pool looks at all connections and requests for each of them, so that more than a
few at once cost more than they gain. With the ``[fast]`` extra, aiohttp's pool is in its place, by
way of httpx-aiohttp. What that makes of aiohttp's errors, cookies and headers is mended here:
whether a request may have arrived is told from the kind of error, and it calls every broken
connection one that was never made.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.request import getproxies

import anyio
import httpx

if TYPE_CHECKING:
    import aiohttp

    from intercom_data_events._sending.auth import BearerToken
    from intercom_data_events._sending.session import Session

# Seconds that a connection is kept: longer than the rate limit's windows, at whose end all rest.
_KEPT = 30.0
# Bytes: what httpx's own parser takes.
_LONGEST_LINE = 100 * 1024


@asynccontextmanager
async def fast_connections(
    session: Session[httpx.AsyncClient], most: int
) -> AsyncGenerator[FastConnections | None, None]:
    """Opens connections to use beside the pool's own; None where those are to be used.

    That is with an ``http_client`` or ``transport`` of the caller's, and where a proxy is set in
    the environment.
    """
    if not session.plain or getproxies().keys() & {"http", "https", "all"}:
        yield None
        return
    connections = FastConnections(session.process_state().http, most)
    try:
        yield connections
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


class FastConnections:
    """What sending asks of an ``httpx.AsyncClient``, and no more, which saves a part of its time.

    No redirects, cookies, hooks or mounts: connections of our own have none.

    Attributes:
        few: How many requests may wait for each other before more at once cost more than they
            gain (measured).
    """

    def __init__(self, http: httpx.AsyncClient, most: int) -> None:
        found = None if running_trio() else _aiohttp_transport(most)
        self.few = 2.0 if found is None else 4.0
        limits = httpx.Limits(
            max_connections=most, max_keepalive_connections=most, keepalive_expiry=_KEPT
        )
        self._transport = found or httpx.AsyncHTTPTransport(limits=limits)
        self.build_request = http.build_request

    async def send(
        self, request: httpx.Request, *, auth: BearerToken, **_: object
    ) -> httpx.Response:
        """Sends a request; its answer is still to be read."""
        await auth.authenticate(request)
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.RequestError as error:
            error.request = request
            raise
        response.request = request
        return response

    async def aclose(self) -> None:
        """Closes them."""
        await self._transport.aclose()


def _aiohttp_transport(most: int) -> httpx.AsyncBaseTransport | None:
    """Makes a transport on aiohttp; None where the extra is not installed."""
    try:
        import aiohttp
        import yarl
        from httpx_aiohttp import AiohttpTransport
    except ImportError:
        return None

    @lru_cache(maxsize=16)
    def _address(url: str) -> yarl.URL:
        # As it is: percent-encoding can differ, and mean the same to few servers.
        return yarl.URL(url, encoded=True)

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
                    _address(str(request.url)),
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
    """Names an error of aiohttp's as httpx does."""
    import aiohttp

    said = str(error)
    if isinstance(error, aiohttp.InvalidURL):
        return httpx.UnsupportedProtocol(said)  # Refused before anything is sent.
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(said)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        failed = httpx.ConnectError(said)
        # It holds no request, and tells a certificate that is not trusted from other failures.
        failed.__cause__ = error
        return failed
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(said)
    if isinstance(error, OSError):
        return httpx.ReadError(said)
    if isinstance(error, aiohttp.ClientResponseError):
        return httpx.RemoteProtocolError("the answer is no HTTP")
    return httpx.RemoteProtocolError("the server broke off before its answer was whole")
