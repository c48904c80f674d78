"""The engine on aiohttp, for create_many with the [fast] extra.

Of the fast libraries that were tried, only aiohttp distinguishes *not sent* from *possibly sent*,
works in a forked child, and never resends a POST. Causes are httpx's errors on every engine,
because callers test for them.
"""

from __future__ import annotations

import asyncio
import base64
import math
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any, ClassVar
from weakref import WeakSet

import aiohttp
import httpx
import yarl
from aiohttp.helpers import TimeoutHandle
from aiohttp.http_exceptions import HttpProcessingError

from intercom_data_events._inflating import InflateError
from intercom_data_events._sending.causes import causes
from intercom_data_events._sending.engines import (
    Body,
    BodyError,
    Endpoint,
    RawResponse,
    Request,
    SendError,
)
from intercom_data_events._sending.engines.connections import KEEPALIVE_EXPIRY, proxy_of, setting_up
from intercom_data_events._sending.engines.streams import OUT_OF_STEP, has_arrived
from intercom_data_events._sending.secret import Secret
from intercom_data_events.errors import InvalidInputError

# Bytes: the limit of httpx's parser.
_LONGEST_LINE = 100 * 1024
# The requests that aiohttp makes for the running attempt. Anything that replaces its session, such
# as a mock, makes none.
_MADE: ContextVar[list[_ClientRequest]] = ContextVar("_MADE")
_BROKEN = "the server closed the connection before its answer was complete"
_MOST_CACHED = 100
# Whether requests are prepared, which needs undocumented parts of aiohttp. With other versions,
# each request is built from scratch, and an event takes 1.5 times the CPU time.
_CAN_PREPARE = aiohttp.__version__.startswith("3.14.")
# Statuses of interim answers. 101 is not one: no other answer follows it.
_INTERIM = {status for status in range(100, 200) if status != 101}


class _Model:
    """The common parts of requests to an endpoint with a token.

    Attributes:
        session: The session, whose headers may contain the token.
        url: The address.
        options: Further arguments of its `request`, which may also contain the token.
        prepared: The first request as aiohttp made it, held, and its head up to the length of the
            body. None before the first request, with an http:// proxy, and with versions of aiohttp
            that are not tested for this.
    """

    __slots__ = ("options", "prepared", "session", "url")

    def __init__(
        self, session: aiohttp.ClientSession, url: yarl.URL, options: Secret[Mapping[str, Any]]
    ) -> None:
        self.session, self.url, self.options = session, url, options
        self.prepared: Secret[tuple[_ClientRequest, bytes]] | None = None

    def prepare(self, made: _ClientRequest) -> None:
        """Keeps a request that aiohttp has made, for the next ones."""
        if _CAN_PREPARE and made.proxy is None and made.method == "POST":
            head = Secret(f"POST {made.url.raw_path_qs} HTTP/1.1\r\n")
            for name, value in made.headers.items():
                if name.lower() != "content-length":
                    head = Secret(f"{head.value}{name}: {value}\r\n")
            self.prepared = Secret((made, f"{head.value}Content-Length: ".encode()))


class _Answer:
    """An answer on a connection, with the attributes of an aiohttp.ClientResponse that are read."""

    __slots__ = ("_connection", "content", "headers", "raw_headers", "status")

    def __init__(self, connection: Any, message: Any, content: aiohttp.StreamReader) -> None:
        self.status, self.headers = message.code, message.headers
        self.raw_headers, self.content = message.raw_headers, content
        self._connection = connection

    def release(self) -> None:
        self._connection.release()

    def close(self) -> None:
        self._connection.close()


class _ClientRequest(aiohttp.ClientRequest):
    """A request that is not sent on a connection with unread bytes (aio-libs/aiohttp#13656)."""

    #: TLS connections that had a request. Unread bytes of a new one may be a session ticket.
    used: ClassVar[WeakSet[object]]
    #: Whether the request has a connection; before that, it was not sent.
    has_connection = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        _MADE.get().append(self)
        super().__init__(*arguments, **options)

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        """Sends the request, or closes the connection and fails as not sent."""
        protocol = conn.protocol
        # aiohttp may mark each connection to a proxy to be closed after one request.
        if protocol is None or len(protocol) or (protocol.should_close and self.proxy is None):
            conn.close()
            raise _OutOfStepError
        self.has_connection = True
        return await super().send(conn)

    def has_unread(self, conn: Any) -> bool:
        """Whether the system has received bytes that the event loop has not read yet."""
        fresh = False
        if conn.transport.get_extra_info("ssl_object") is not None:
            fresh = conn.protocol not in self.used
            self.used.add(conn.protocol)
        return not fresh and has_arrived(conn.transport.get_extra_info("socket").fileno())

    # The other parameters depend on aiohttp's version.
    async def write_bytes(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, writer: Any, conn: Any, *rest: Any
    ) -> None:
        """Writes head and body. Before Python 3.12, this runs some time after `send`."""
        if conn.transport is not None and self.has_unread(conn):
            conn.protocol.set_exception(_OutOfStepError())
            return
        await super().write_bytes(writer, conn, *rest)


class _OutOfStepError(aiohttp.ClientConnectionError):
    def __str__(self) -> str:
        return OUT_OF_STEP


class AiohttpEngine:
    """Sends through aiohttp, for one event loop.

    Args:
        most: The largest number of connections.
        tls: The TLS context, with the trusted certificates.
    """

    def __init__(self, most: int, tls: ssl.SSLContext) -> None:
        self._loop = asyncio.get_running_loop()
        self._connector = aiohttp.TCPConnector(limit=most, keepalive_timeout=KEEPALIVE_EXPIRY)
        self._request_class = type("ClientRequest", (_ClientRequest,), {"used": WeakSet()})
        self._tls = tls
        self._models: dict[tuple[Endpoint, Secret[str] | None], _Model] = {}
        self._timeouts: dict[tuple[float, Endpoint], aiohttp.ClientTimeout] = {}

    def _session(self, headers: Secret[Mapping[str, str]]) -> aiohttp.ClientSession:
        """Returns a session for requests with the same headers; all share the connections."""
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers=headers.value,
            request_class=self._request_class,
            # No cookies, as on all own connections: the API needs none.
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_LONGEST_LINE,
            max_field_size=_LONGEST_LINE,
        )

    async def send(self, request: Request) -> RawResponse:
        """Sends a request; see :class:`AsyncEngine`."""
        model = self._model(request.endpoint, request.token)
        url = model.url
        if request.query:
            url = yarl.URL(f"{request.endpoint.url}?{request.query}", encoded=True)
        ends = monotonic() + request.seconds
        if model.prepared is not None and not request.query:
            return await self._send_again(model.prepared, request, ends)
        token = _MADE.set([])
        try:
            # Held, because its repr shows the server's words.
            response = Secret(
                await model.session.request(
                    request.endpoint.method,
                    url,
                    data=request.body or None,
                    allow_redirects=False,
                    timeout=self._timeout(request),
                    **model.options.value,
                )
            )
        except (aiohttp.ClientError, OSError) as error:
            made = _MADE.get()
            not_sent = made and not any(one.has_connection for one in made)
            failure = _failure(error, possibly_sent=not not_sent)
        else:
            if not request.query and _MADE.get():
                model.prepare(_MADE.get()[0])
            return await self._read(request, response, ends)
        finally:
            _MADE.reset(token)
        # Outside the handler, so that it does not refer to aiohttp's error, which has headers.
        raise failure

    async def _send_again(
        self, prepared: Secret[tuple[_ClientRequest, bytes]], request: Request, ends: float
    ) -> RawResponse:
        """Sends a request that differs only in its body from one that aiohttp has made.

        aiohttp's session would spend half of a request's time to build it from scratch. Its
        connections and its parser are used as usual.
        """
        timeout = self._timeout(request)
        handle = TimeoutHandle(self._loop, timeout.total, math.inf)
        timer = handle.timer()
        clock = handle.start()
        possibly_sent = False
        conn: Any = None
        held: Secret[Any] | None = None
        try:
            with timer:
                conn = await self._connector.connect(prepared.value[0], [], timeout)
                protocol = conn.protocol
                if (
                    protocol is None
                    or len(protocol)
                    or protocol.should_close
                    or conn.transport is None
                    or prepared.value[0].has_unread(conn)
                ):
                    raise _OutOfStepError
                protocol.set_response_params(
                    timer=timer,
                    read_until_eof=True,
                    auto_decompress=False,
                    read_timeout=timeout.sock_read,
                    timeout_ceil_threshold=math.inf,
                    max_line_size=_LONGEST_LINE,
                    max_field_size=_LONGEST_LINE,
                )
                possibly_sent = True
                conn.transport.write(
                    b"%b%d\r\n\r\n%b" % (prepared.value[1], len(request.body), request.body)
                )
                protocol.start_timeout()
                while held is None or held.value.status in _INTERIM:
                    held = Secret(_Answer(conn, *await protocol.read()))
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            failure = _failure(error, possibly_sent=possibly_sent)
        else:
            answer = await self._read(request, held, ends)
            conn = None
            return answer
        finally:
            handle.close()
            if clock is not None:
                clock.cancel()
            if conn is not None:
                conn.close()
        # Outside the handler, as above.
        raise failure

    async def _read(
        self, request: Request, held: Secret[aiohttp.ClientResponse | _Answer], ends: float
    ) -> RawResponse:
        problem: Exception | None = None
        whole = False
        body = Body(held.value.status, request.token)
        try:
            if "Content-Encoding" in held.value.headers:
                body.decompress(held.value.headers.getall("Content-Encoding"))
            while chunk := await held.value.content.readany():
                pieces = body.feed(chunk)
                del chunk  # It may repeat the token, and the next one may take a while.
                for _ in pieces:
                    # aiohttp checks the time limit only while it waits for the server.
                    if monotonic() > ends:
                        raise TimeoutError
                    if body.is_slow:
                        await asyncio.sleep(0)
            body.end()
            whole = True
        except (aiohttp.ClientError, OSError) as error:
            problem = _failure(error, possibly_sent=True)
        except InflateError as error:
            problem = BodyError(f"it is {error}", httpx.DecodingError(f"it is {error}"))
        except BodyError as error:
            problem = error
        finally:
            # Only a connection with a complete answer can be reused.
            if whole:
                held.value.release()
            else:
                held.value.close()
        answer = RawResponse(held.value.status, held.value.raw_headers, body.content, problem)
        return answer.without(request.token)

    async def aclose(self) -> None:
        """Closes the connections."""
        self._forget_models()
        await self._connector.close()

    def _forget_models(self) -> None:
        for model in self._models.values():
            model.session.detach()  # All sessions share the connections.
        self._models.clear()

    def drop(self) -> None:
        """Does nothing: the engine is closed in the event loop that made it."""

    def _model(self, endpoint: Endpoint, token: Secret[str] | None) -> _Model:
        """Returns the session, the address and the options for an endpoint with a token.

        Raises:
            InvalidInputError: The address is not valid.
            ConfigurationError: The environment's proxy is not valid.
        """
        model = self._models.get((endpoint, token))
        if model is None:
            try:
                # Unchanged, because servers may distinguish percent-encodings.
                url = yarl.URL(endpoint.url, encoded=True)
            except ValueError as error:
                raise InvalidInputError(
                    f"the address of the request is not valid: {error}"
                ) from error
            if len(self._models) >= _MOST_CACHED:
                self._forget_models()
            headers: Secret[dict[str, str]] = Secret(dict(endpoint.headers))
            if token is not None:
                headers.value["Authorization"] = f"Bearer {token.value}"
            options: Secret[dict[str, Any]] = Secret({})
            if url.scheme == "https":
                options.value["ssl"] = self._tls
            proxy, given = _proxy(endpoint.url)
            if proxy is not None:
                options.value |= {"proxy": proxy, "proxy_headers": given.value}
                # Not the session's headers, because aiohttp sends those to the proxy, too.
                options.value["headers"] = headers.value
                if url.scheme != "https":
                    headers.value.update(given.value)
                headers = Secret({})
            model = _Model(self._session(headers), url, options)
            self._models[endpoint, token] = model
        return model

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        # Rounded, so that few differ: making a ClientTimeout is the slowest part here.
        seconds = request.seconds
        if seconds < math.inf:
            seconds = math.ceil(seconds * 1000) / 1000
        key = seconds, request.endpoint
        found = self._timeouts.get(key)
        if found is None:
            if len(self._timeouts) >= _MOST_CACHED:
                self._timeouts.clear()
            phases = request.endpoint.phases or {}
            connect, read = _limit(phases, "connect"), _limit(phases, "read")
            found = self._timeouts[key] = aiohttp.ClientTimeout(
                total=None if seconds == math.inf else seconds,
                # The total bounds these already.
                connect=None if connect >= seconds else connect,
                sock_read=None if read >= seconds else read,
                # aiohttp rounds up longer times, beyond the end of the attempt.
                ceil_threshold=math.inf,
            )
        return found


def _proxy(url: str) -> tuple[yarl.URL | None, Secret[dict[str, str]]]:
    """Returns the environment's proxy for an address, and the headers for the proxy."""
    proxy = proxy_of(httpx.URL(url))
    if proxy is None:
        return None, Secret({})
    with setting_up():
        address = Secret(yarl.URL(proxy.address.value))
    if address.value.user is None:
        return address.value, Secret({})
    user = Secret(f"{address.value.user}:{address.value.password or ''}".encode())
    authorization = Secret(f"Basic {base64.b64encode(user.value).decode()}")
    return address.value.with_user(None), Secret({"Proxy-Authorization": authorization.value})


def _limit(phases: Mapping[str, float | None], phase: str) -> float:
    seconds = phases.get(phase)
    return math.inf if seconds is None else seconds


def _failure(error: Exception, *, possibly_sent: bool) -> SendError:
    """Returns the failure that an error of aiohttp means; its cause is an error of httpx."""
    said = str(error)
    if isinstance(error, _OutOfStepError):
        return SendError(httpx.ConnectError(said), possibly_sent=False)
    if isinstance(error, TimeoutError):
        kind = httpx.ReadTimeout if possibly_sent else httpx.ConnectTimeout
        said = said or "no complete answer in time"
        return SendError(kind(said), possibly_sent=possibly_sent, timed_out=True)
    if isinstance(error, aiohttp.InvalidURL):
        # aiohttp checks the address before it makes a request.
        return SendError(httpx.UnsupportedProtocol(said), possibly_sent=False, recurs=True)
    if not possibly_sent:
        if isinstance(error, aiohttp.ClientHttpProxyError):
            refused = httpx.ProxyError(f"{error.status} from the proxy")
            return SendError(refused, possibly_sent=False)
        recurs = any(type(one).__name__ == "SSLCertVerificationError" for one in causes(error))
        failed = httpx.ConnectError(said)
        if reason := _reason(error):
            # aiohttp's message shows its internal objects.
            failed = httpx.ConnectError(str(reason))
            failed.__cause__ = reason
        return SendError(failed, possibly_sent=False, recurs=recurs)
    if isinstance(error, OSError):
        return SendError(httpx.ReadError(said), possibly_sent=True)
    # Not aiohttp's message, which quotes the server.
    is_answer = isinstance(error, aiohttp.ClientResponseError | HttpProcessingError)
    broken = "the answer is not HTTP" if is_answer else _BROKEN
    return SendError(httpx.RemoteProtocolError(broken), possibly_sent=True)


def _reason(error: Exception) -> Exception | None:
    """Returns the system's error in an error of aiohttp, as a new one without its frames."""
    for name in ("os_error", "certificate_error"):
        found = getattr(error, name, None)
        if isinstance(found, Exception):
            # By name: older versions lack the class and raise the system's error.
            is_name = type(error).__name__ == "ClientConnectorDNSError"
            return (socket.gaierror if is_name else type(found))(*found.args)
    return None
