"""From a generated endpoint function to httpx: the version pin, authentication and typed errors.

A generated function is handed a *view* of the client for each call. Its connection is our sender:
one generator without I/O, :func:`exchange`, decides what happens, and two thin loops do what it
says, one blocking, one awaiting. Failures are raised here, so that the generated parser only sees
answers of the described kind.
"""

from __future__ import annotations

import json as jsonlib
import logging
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import httpx

from intercom_data_events.__about__ import __version__
from intercom_data_events.errors import (
    APIConnectionError,
    APIResponse,
    APITimeoutError,
    ConfigurationError,
    InvalidInputError,
    possibly_processed,
    status_error,
)
from intercom_data_events.settings import AsyncAccessToken, Settings, check_token

if TYPE_CHECKING:
    from intercom_data_events.rate_limit import RateLimit
    from intercom_data_events_api import AuthenticatedClient

log = logging.getLogger("intercom_data_events")

_USER_AGENT = f"intercom-data-events/{__version__} python-httpx/{httpx.__version__}"
# Intercom's tokens have some 60 characters; one of a few, in a test, may be a word of the answer.
_SECRET_LENGTH = 16
_REMOVED = "[access token]"
# What a list and a summary call themselves.
_TYPES = ("event.list", "event.summary")
# Two names of one version.
_SAME_VERSION = {"Preview", "Unstable"}
# Nothing of the request was sent, or nothing of it was understood as one.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


#: A generator that yields requests to send; each is answered with the response, its body read, or
#: an exception thrown in. It returns the response to parse.
Exchange: TypeAlias = Generator[httpx.Request, httpx.Response, httpx.Response]


class BearerToken(httpx.Auth):
    """Puts the access token on a request, asking for it anew each time where it is a function.

    Always passed to httpx explicitly, so that neither the authentication of a caller's own client
    nor credentials in an address take its place.
    """

    def __init__(self, token: AsyncAccessToken | None) -> None:
        self._token = token

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticates for a blocking client."""
        token = self._current()
        if isinstance(token, Awaitable):
            if isinstance(token, Coroutine):
                token.close()
            raise ConfigurationError(
                "access_token is an async function, which only AsyncDataEventsClient can await"
            )
        self._authenticate(request, token)
        yield request

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authenticates for an async client; the function may be async, too."""
        token = self._current()
        if isinstance(token, Awaitable):
            try:
                token = await cast("Awaitable[object]", token)
            except httpx.HTTPError as error:
                raise _token_error(error) from error
        self._authenticate(request, token)
        yield request

    def _current(self) -> object:
        try:
            return self._token() if callable(self._token) else self._token
        except httpx.HTTPError as error:
            # Not to be taken for a failure of the request that waits for the token.
            raise _token_error(error) from error

    def _authenticate(self, request: httpx.Request, token: object) -> None:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {check_token(token)}"


def _token_error(error: httpx.HTTPError) -> ConfigurationError:
    return ConfigurationError(f"the access_token function failed: {error}")


class Pool:
    """What a client and all its views share: connections, and what the answers have told.

    Connections are made when first needed, so that making a client costs nothing and does nothing;
    and anew in a forked child, which must not use its parent's. A caller's own connections are the
    caller's to handle.
    """

    def __init__(
        self,
        access_token: AsyncAccessToken | None,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None,
        http_client: httpx.Client | httpx.AsyncClient | None,
        enabled: bool,
    ) -> None:
        self.auth = BearerToken(access_token)
        self.enabled = enabled
        self.given = transport is not None or http_client is not None
        self._transport = transport if enabled else _Nowhere()
        self._client = http_client if enabled else None
        self._owned = self._client is None
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._headers: Mapping[str, str] | None = None
        self._warned = False

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate limit as last seen in an answer."""
        from intercom_data_events.rate_limit import RateLimit

        return None if self._headers is None else RateLimit.from_headers(self._headers)

    def blocking(self) -> httpx.Client:
        """The connections of a blocking client."""
        return cast("httpx.Client", self._connections(httpx.Client))

    def awaiting(self) -> httpx.AsyncClient:
        """The connections of an async client."""
        return cast("httpx.AsyncClient", self._connections(httpx.AsyncClient))

    def close(self) -> None:
        """Closes the connections, unless they are the caller's own."""
        self._closed = True
        if self._owned and self._client is not None and self._process == os.getpid():
            cast("httpx.Client", self._client).close()

    async def aclose(self) -> None:
        """Closes the connections, unless they are the caller's own."""
        self._closed = True
        if self._owned and self._client is not None and self._process == os.getpid():
            await cast("httpx.AsyncClient", self._client).aclose()

    def note(self, response: httpx.Response, version: str) -> None:
        """Remembers what an answer says of the rate limit, and looks at its version."""
        headers = response.headers
        if headers.get("x-ratelimit-limit", "").isdecimal():
            self._headers = headers
        # Observed: answers echo the version that they were made for.
        echoed = headers.get("intercom-version", version)
        if not self._warned and echoed != version and {echoed, version} != _SAME_VERSION:
            self._warned = True
            log.warning(
                "Intercom answered for API version %s where %s was asked for", echoed, version
            )

    def _connections(
        self, kind: type[httpx.Client | httpx.AsyncClient]
    ) -> httpx.Client | httpx.AsyncClient:
        if self._closed:
            raise RuntimeError("the client is closed: make a new one")
        if self._owned and self._process != os.getpid():
            # A child's first use of what it inherited: the parent's connections are left as they
            # are, and a lock that a thread of the parent held is not waited for.
            self._client, self._lock, self._process = None, threading.Lock(), os.getpid()
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect(kind)
        return self._client

    def _connect(
        self, kind: type[httpx.Client | httpx.AsyncClient]
    ) -> httpx.Client | httpx.AsyncClient:
        try:
            return kind(transport=cast("Any", self._transport))
        except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
            raise ConfigurationError(
                "connections cannot be set up; look at the proxy and certificate variables in the "
                f"environment: {error}"
            ) from error


class Answer:
    """A described answer, as the generated functions read it.

    List and summary are told apart by their `type` alone, so it is set to what was asked for: what
    was asked for decides how an answer is read, whatever it calls itself.
    """

    __slots__ = (
        "_asked",
        "_response",
        "content",
        "headers",
        "status_code",
        "takes_effect",
        "what",
    )

    def __init__(self, response: httpx.Response, asked: str | None) -> None:
        self.what = described(response.request)
        self.takes_effect = _takes_effect(response.request)
        self.status_code = response.status_code
        self.headers = response.headers
        self.content = response.content
        self._asked = asked
        self._response = response

    def json(self) -> object:
        """Decodes the body."""
        decoded = jsonlib.loads(self.content)
        if self._asked is not None:
            if not isinstance(decoded, dict):
                raise TypeError("it is no JSON object")
            said = decoded.get("type")
            if said == "error.list" or ("events" not in decoded and said not in _TYPES):
                raise TypeError("it has no events")
            decoded["type"] = self._asked
        return decoded

    def snapshot(self) -> APIResponse[None]:
        """What an error keeps of the answer."""
        return _snapshot(self._response)


class View:
    """The client as one call of a generated function sees it; it never closes the pool.

    Args:
        pool: The connections to use.
        settings: What requests are made with.
        asked: The `type` of the answer that is asked for, where there are several.
        query: The query to send instead of the one that the function makes, percent-encoded.

    Attributes:
        answer: The answer, once there is one.
    """

    #: The generated parser raises an error where it would return None for an undescribed status.
    raise_on_unexpected_status = True

    def __init__(
        self, pool: Pool, settings: Settings, asked: str | None = None, query: str | None = None
    ) -> None:
        self.answer: Answer | None = None
        self._pool = pool
        self._settings = settings
        self._asked = asked
        self._query = query

    def for_generated(self) -> AuthenticatedClient:
        """The view, in the type that generated functions ask for; they use no more of it."""
        return cast("AuthenticatedClient", self)

    def get_httpx_client(self) -> _BlockingConnection:
        """Called by the generated functions."""
        return _BlockingConnection(self)

    def get_async_httpx_client(self) -> _AwaitingConnection:
        """Called by the generated functions."""
        return _AwaitingConnection(self)

    def send(self, parts: Mapping[str, Any]) -> Answer:
        """Sends what a generated function describes."""
        http = self._pool.blocking()
        steps = exchange(self._request(http, parts), self._pool, self._settings.version)
        return self._answered(run(steps, http, self._pool.auth))

    async def asend(self, parts: Mapping[str, Any]) -> Answer:
        """Sends what a generated function describes."""
        http = self._pool.awaiting()
        steps = exchange(self._request(http, parts), self._pool, self._settings.version)
        return self._answered(await arun(steps, http, self._pool.auth))

    def _request(
        self, http: httpx.Client | httpx.AsyncClient, parts: Mapping[str, Any]
    ) -> httpx.Request:
        settings = self._settings
        # Names of headers ignore case, so each group takes the place of what it overrides.
        headers = httpx.Headers({"Accept": "application/json", "User-Agent": _USER_AGENT})
        headers.update(parts.get("headers"))
        headers.update(settings.headers)
        # Last, so that nothing overrides the pin.
        headers["Intercom-Version"] = settings.version
        try:
            request = http.build_request(
                parts["method"].upper(),
                # A whole address, whatever the base of a caller's own client.
                settings.base_url + parts["url"],
                params=parts.get("params"),
                json=parts.get("json"),
                headers=headers,
                timeout=httpx.USE_CLIENT_DEFAULT if settings.timeout is None else settings.timeout,
            )
            if self._query is not None:
                request.url = request.url.copy_with(query=self._query.encode("ascii"))
        except httpx.InvalidURL as error:
            raise InvalidInputError(f"the request has no valid address: {error}") from error
        return request

    def _answered(self, response: httpx.Response) -> Answer:
        self.answer = Answer(response, self._asked)
        return self.answer


class _BlockingConnection:
    """What a generated function takes for an ``httpx.Client``."""

    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view = view

    def request(self, **parts: Any) -> Answer:
        return self._view.send(parts)


class _AwaitingConnection:
    """What a generated function takes for an ``httpx.AsyncClient``."""

    __slots__ = ("_view",)

    def __init__(self, view: View) -> None:
        self._view = view

    async def request(self, **parts: Any) -> Answer:
        return await self._view.asend(parts)


def exchange(request: httpx.Request, pool: Pool, version: str) -> Exchange:
    """Decides how a request is made; yields the steps and returns the answer to parse.

    Raises:
        APIConnectionError: No whole answer came.
        APIStatusError: The answer reports a failure.
    """
    what = described(request)
    takes_effect = _takes_effect(request)
    try:
        response = yield request
    except httpx.HTTPStatusError as error:
        # From a hook of the caller's own client, before the body was read.
        _forget_request(error)
        snapshot = APIResponse(error.response.status_code, error.response.headers, b"", None)
        raise status_error(snapshot, what, sent=takes_effect) from error
    except (httpx.RequestError, httpx.InvalidURL) as error:
        # The latter where a redirect, which nobody follows, leads to what is no address.
        _forget_request(error)
        raise _connection_error(error, what, takes_effect) from error
    log.debug("%s %d", what, response.status_code)
    pool.note(response, version)
    if not response.is_success:
        raise status_error(_snapshot(response), what, sent=takes_effect)
    return response


def run(steps: Exchange, http: httpx.Client, auth: httpx.Auth) -> httpx.Response:
    """Does what an exchange says, blocking."""
    # Closed at once where it is interrupted, so that it lets go of whatever it holds.
    with closing(steps):
        try:
            step = next(steps)
            while True:
                try:
                    response = http.send(step, auth=auth, follow_redirects=False)
                except Exception as error:  # noqa: BLE001  # the exchange decides
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as done:
            return cast("httpx.Response", done.value)


async def arun(steps: Exchange, http: httpx.AsyncClient, auth: httpx.Auth) -> httpx.Response:
    """Does what an exchange says, awaiting."""
    # Closed at once where it is cancelled, so that it lets go of whatever it holds.
    with closing(steps):
        try:
            step = next(steps)
            while True:
                try:
                    response = await http.send(step, auth=auth, follow_redirects=False)
                except Exception as error:  # noqa: BLE001  # the exchange decides
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as done:
            return cast("httpx.Response", done.value)


def described(request: httpx.Request) -> str:
    """What was asked, for messages: without the query, which says whom it is about."""
    return f"{request.method} {request.url.path}"


def _takes_effect(request: httpx.Request) -> bool:
    return request.method != "GET"


def _forget_request(error: httpx.HTTPStatusError | httpx.RequestError | httpx.InvalidURL) -> None:
    """Takes the request off an error of httpx before it becomes a cause, which is looked into."""
    if isinstance(error, httpx.InvalidURL):
        return
    bare = httpx.Request(error.request.method, error.request.url.copy_with(query=None))
    error.request = bare
    if isinstance(error, httpx.HTTPStatusError):
        error.response.request = bare


def _snapshot(response: httpx.Response) -> APIResponse[None]:
    """What an error keeps of an answer; the request, with its headers, is not part of it.

    An answer that repeats the access token has it taken out.
    """
    _, _, token = response.request.headers.get("authorization", "").partition(" ")
    headers, content = response.headers, response.content
    if len(token) >= _SECRET_LENGTH:
        content = content.replace(token.encode(), _REMOVED.encode())
        headers = httpx.Headers(
            [(name, value.replace(token, _REMOVED)) for name, value in headers.multi_items()]
        )
    return APIResponse(response.status_code, headers, content, None)


def _connection_error(
    error: httpx.RequestError | httpx.InvalidURL, what: str, takes_effect: bool
) -> APIConnectionError:
    possible = takes_effect and not isinstance(error, _NOT_SENT)
    reason = str(error) or type(error).__name__
    after = possibly_processed(possible)
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(
            f"{what}: no answer in time ({reason}){after}", may_have_been_processed=possible
        )
    return APIConnectionError(f"{what}: {reason}{after}", may_have_been_processed=possible)


class _Nowhere(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Where requests of a disabled client go: answered as if nothing had ever happened."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        log.info("%s %s not sent: the client is disabled", request.method, request.url.path)
        if request.method == "GET":
            return httpx.Response(200, json={"events": []})
        return httpx.Response(200 if request.url.path.endswith("/summaries") else 202)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)
