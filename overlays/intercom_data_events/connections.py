"""What a client and all its views share: connections, the access token, what answers have told."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Generic, TypeVar, cast

import httpx
from attrs import define

from intercom_data_events.clock import SYSTEM, Clock
from intercom_data_events.errors import ConfigurationError
from intercom_data_events.rate_limit import Pacer, RateLimit
from intercom_data_events.settings import AsyncAccessToken, Settings, check_token

log = logging.getLogger("intercom_data_events")

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

# Making a request from a model takes 14 µs, and making it anew 26 (before any is sent).
_MOST_MODELS = 100
_NOT_SET_UP = (
    "connections cannot be set up; look at the proxy and certificate variables in the environment"
)
# Two names of one version.
_SAME_VERSION = {"Preview", "Unstable"}


class BearerToken(httpx.Auth):
    """Puts the access token on a request, asking for it anew each time where it is a function.

    Always passed to httpx explicitly, so that neither the authentication of a caller's own client
    nor credentials in an address take its place.
    """

    def __init__(self, token: AsyncAccessToken | None) -> None:
        self._token = token

    @property
    def known_token(self) -> str | None:
        """The token, unless a function gives it."""
        return self._token if isinstance(self._token, str) else None

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
        """Authenticates for an async client."""
        await self.authenticate(request)
        yield request

    async def authenticate(self, request: httpx.Request) -> None:
        """Puts the token on a request; the function that gives it may be async.

        Raises:
            ConfigurationError: The function failed, or gave no token.
        """
        token = self._current()
        if isinstance(token, Awaitable):
            try:
                token = await cast("Awaitable[object]", token)
            except (httpx.HTTPError, OSError) as error:
                raise _token_error(error) from error
        self._authenticate(request, token)

    def _current(self) -> object:
        try:
            return self._token() if callable(self._token) else self._token
        except (httpx.HTTPError, OSError) as error:
            # Not to be taken for a failure of the request that waits for the token.
            raise _token_error(error) from error

    def _authenticate(self, request: httpx.Request, token: object) -> None:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {check_token(token)}"


def _token_error(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the access_token function failed: {str(error) or type(error).__name__}"
    )


class Own(Generic[C]):
    """What a process has to itself of a pool.

    Nothing of it is used in a forked child: not the connections, whose bytes would mix with the
    parent's, and no lock either, which a thread of the parent may hold for ever.

    Attributes:
        http: The connections.
        pacer: Keeps requests within the rate limit.
        models: Requests without a body, by what they are made from, to make others from.
    """

    __slots__ = ("http", "models", "pacer")

    def __init__(self, http: C, pacer: Pacer) -> None:
        self.http = http
        self.pacer = pacer
        self.models: dict[tuple[Settings, str, str], httpx.Request] = {}

    def keep(self, place: tuple[Settings, str, str], model: httpx.Request) -> None:
        """Keeps a model; not without end, for whoever makes new settings for each call."""
        if len(self.models) >= _MOST_MODELS:
            self.models.clear()
        self.models[place] = model


@define(eq=False)
class _State:
    """What a pool shares with those beside it.

    Attributes:
        headers: What an answer told of the rate limit last.
        warned: Whether one was for another version.
        closed: Whether the client has been closed.
    """

    headers: Mapping[str, str] | None = None
    warned: bool = False
    closed: bool = False


class Pool(Generic[C]):
    """The connections of a client and its views, and what their answers have told.

    Connections are made when first needed, so that making a client costs nothing and does nothing;
    and anew in a forked child. A caller's own connections are the caller's to handle.

    Args:
        kind: ``httpx.Client`` or ``httpx.AsyncClient``.
        access_token: As the client was given it.
        transport: To send through, or None for httpx's own.
        http_client: The caller's own connections, or None.
        enabled: Whether anything is sent.
        clock: Where time comes from.
    """

    def __init__(
        self,
        kind: type[C],
        access_token: AsyncAccessToken | None,
        *,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
        http_client: C | None = None,
        enabled: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.auth = BearerToken(access_token)
        self.enabled = enabled
        self.clock = clock or SYSTEM
        self.given = transport is not None or http_client is not None or clock is not None
        self.owned = http_client is None or not enabled
        self._kind = kind
        self._transport = transport if enabled else _Nowhere()
        self._http_client = http_client if enabled else None
        # By process; an entry of another one is left alone, not even let go.
        self._processes: dict[int, Own[C]] = {}
        # Entered again by a signal's handler that sends while the first connections are made.
        self._locks: dict[int, threading.RLock] = {}
        self._state = _State()

    @property
    def closed(self) -> bool:
        """Whether the client has been closed."""
        return self._state.closed

    @property
    def plain(self) -> bool:
        """Whether its connections are httpx's own, as the environment has them."""
        return self._transport is None and self._http_client is None

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate limit as last seen in an answer."""
        headers = self._state.headers
        return None if headers is None else RateLimit.from_headers(headers)

    def own(self) -> Own[C]:
        """What this process uses of it.

        Raises:
            RuntimeError: The connections have been closed.
            ConfigurationError: They cannot be set up, or are the caller's and another process's.
        """
        if self._state.closed:
            raise RuntimeError("the client is closed: make a new one")
        own = self._processes.get(os.getpid())
        if own is None:
            own = self._first_use()
        return own

    def beside(self, http: C) -> Pool[C]:
        """Returns a pool that sends through other connections of this process.

        Everything else is this pool's: the token, the pacing, what answers have told. Whoever gave
        the connections closes them.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _processes={os.getpid(): Own(http, self.own().pacer)})
        return other

    def close(self: Pool[httpx.Client]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (http := self._closing()) is not None:
            http.close()

    async def aclose(self: Pool[httpx.AsyncClient]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (http := self._closing()) is not None:
            await http.aclose()

    def note(self, headers: Mapping[str, str], version: str) -> None:
        """Remembers what an answer says of the rate limit, and looks at its version."""
        if headers.get("x-ratelimit-limit", "").isdecimal():
            self._state.headers = headers
        # Observed: answers echo the version that they were made for.
        echoed = headers.get("intercom-version", version)
        if echoed != version and not self._state.warned and {echoed, version} != _SAME_VERSION:
            self._state.warned = True
            log.warning(
                "Intercom answered for API version %s where %s was asked for", echoed, version
            )

    def _first_use(self) -> Own[C]:
        process = os.getpid()
        shared = not self.owned or isinstance(
            self._transport, httpx.HTTPTransport | httpx.AsyncHTTPTransport
        )
        if shared and self._processes.keys() - {process}:
            raise ConfigurationError(
                "an http_client or transport that was used before the process forked would share "
                "its connections between both processes: make it, and the client, after the fork"
            )
        with self._locks.setdefault(process, threading.RLock()):
            own = self._processes.get(process)
            if own is None:
                blocking = self._kind is httpx.Client
                pacer = Pacer(
                    self.clock,
                    self.clock.alarm if blocking else self.clock.async_alarm,
                    threading.get_ident if blocking else None,
                )
                own = Own(self._http_client or self._connect(), pacer)
            return self._processes.setdefault(process, own)

    def _closing(self) -> C | None:
        self._state.closed = True
        own = self._processes.get(os.getpid())
        return own.http if own is not None and self.owned else None

    def _connect(self) -> C:
        try:
            # No cookies: the API needs none, and what sets some is no part of it.
            none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            return self._kind(transport=cast("Any", self._transport), cookies=none)
        except (ImportError, OSError) as error:
            raise ConfigurationError(f"{_NOT_SET_UP}: {error}") from error
        except (ValueError, httpx.InvalidURL):
            # About the address of a proxy, of which it quotes a part, perhaps of a password.
            raise ConfigurationError(f"{_NOT_SET_UP}: one is no valid address") from None


class _Nowhere(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Where requests of a disabled client go: answered as if nothing had ever happened."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        log.info("%s %s not sent: the client is disabled", request.method, request.url.path)
        if request.method == "GET":
            return httpx.Response(200, json={"events": []})
        return httpx.Response(200 if request.url.path.endswith("/summaries") else 202)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)
