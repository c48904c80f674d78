"""The state that a client and its views share: connections, access token, the last rate limit."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Generic, TypeVar, cast

import httpx

from intercom_data_events._sending.auth import BearerToken
from intercom_data_events._sending.pacing import RateLimiter, Reservation
from intercom_data_events._sending.quota import RateLimit
from intercom_data_events._sending.settings import AsyncAccessToken, Settings
from intercom_data_events.clock import SYSTEM, Clock
from intercom_data_events.errors import ConfigurationError

log = logging.getLogger("intercom_data_events")

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

_NOT_SET_UP = (
    "connections cannot be set up; check the proxy and certificate variables in the environment"
)
# Two names of the same version.
_SAME_VERSION = {"Preview", "Unstable"}


class ProcessState(Generic[C]):
    """The part of a session that belongs to one process.

    A forked child uses none of it: not the connections, because its bytes would mix with the
    parent's, and not the locks, because a thread of the parent may have held one during the fork.

    Attributes:
        http: The connections.
        limiter: Keeps requests within the rate limit.
        owned: Whether the connections are ours, so that nothing else changes their headers.
        models: Requests without a body, by settings and path, to make other requests from.
    """

    def __init__(self, http: C, limiter: RateLimiter, owned: bool) -> None:
        self.http, self.limiter, self.owned = http, limiter, owned
        self.models: dict[tuple[Settings, str, str], httpx.Request] = {}


class _State:
    """The state that a session shares with those that `using` makes of it.

    Attributes:
        headers: The headers of the latest answer that names the rate limit.
        warned: Whether a warning about another API version was logged.
        closed: Whether the client is closed.
    """

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}
        self.warned = self.closed = False


class Session(Generic[C]):
    """The connections of a client and its views, and what was learned from answers.

    Connections are made when they are first needed, so that making a client does no work; a forked
    child makes its own. The caller opens and closes an `http_client` of its own.

    Args:
        kind: ``httpx.Client`` or ``httpx.AsyncClient``.
        access_token: The token or the function that the client was given.
        transport: The caller's transport, or None for httpx's own.
        http_client: The caller's connections, or None.
        enabled: Whether to send anything.
        clock: The source of time and waits.
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
        # By process id. Entries of other processes are neither used nor released.
        self._processes: dict[int, ProcessState[C]] = {}
        # Reentrant: a signal handler may send while its thread makes the first connections.
        self._locks: dict[int, threading.RLock] = {}
        self._state = _State()

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._state.closed

    @property
    def plain(self) -> bool:
        """Whether the connections are httpx's own, as the environment configures them."""
        return self._transport is None and self._http_client is None

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate limit in the latest answer."""
        return RateLimit.from_headers(self._state.headers)

    def process_state(self) -> ProcessState[C]:
        """Returns the state of this process.

        Raises:
            RuntimeError: The client is closed.
            ConfigurationError: The connections cannot be set up, or belong to the caller and were
                used before a fork.
        """
        if self._state.closed:
            raise RuntimeError("the client is closed; make a new one")
        state = self._processes.get(os.getpid())
        return self._first_use() if state is None else state

    def release(self, reservation: Reservation) -> None:
        """Gives back quota that was acquired and is not needed, also where the client is closed."""
        state = self._processes.get(os.getpid())
        if state is not None:
            state.limiter.release(reservation)

    def using(self, http: C) -> Session[C]:
        """Returns a session that sends through other connections of this process.

        It shares everything else: the token, the rate limiter, what was learned from answers. The
        caller closes the connections.
        """
        other = object.__new__(type(self))
        state = ProcessState(http, self.process_state().limiter, self.owned)
        other.__dict__.update(self.__dict__, _processes={os.getpid(): state})
        return other

    def close(self: Session[httpx.Client]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (http := self._closing()) is not None:
            http.close()

    async def aclose(self: Session[httpx.AsyncClient]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (http := self._closing()) is not None:
            await http.aclose()

    def note(self, headers: Mapping[str, str], version: str) -> None:
        """Keeps the rate limit of an answer, and checks its version."""
        if headers.get("x-ratelimit-limit", "").isdecimal():
            self._state.headers = headers
        # Observed: answers repeat the version of the request.
        echoed = headers.get("intercom-version", version)
        if echoed != version and not self._state.warned and {echoed, version} != _SAME_VERSION:
            self._state.warned = True
            log.warning(
                "Intercom answered for API version %s, but the request was for %s", echoed, version
            )

    def _first_use(self) -> ProcessState[C]:
        process = os.getpid()
        shared = not self.owned or isinstance(
            self._transport, httpx.HTTPTransport | httpx.AsyncHTTPTransport
        )
        if shared and self._processes.keys() - {process}:
            raise ConfigurationError(
                "an http_client or transport must not be used on both sides of a fork, as both "
                "processes would share its connections; make it, and the client, after the fork"
            )
        with self._locks.setdefault(process, threading.RLock()):
            state = self._processes.get(process)
            if state is None:
                blocking = not issubclass(self._kind, httpx.AsyncClient)
                limiter = RateLimiter(
                    self.clock,
                    self.clock.alarm if blocking else self.clock.async_alarm,
                    threading.get_ident if blocking else None,
                )
                http = self._http_client or self._connect()
                state = ProcessState(http, limiter, self.owned)
            return self._processes.setdefault(process, state)

    def _closing(self) -> C | None:
        self._state.closed = True
        state = self._processes.get(os.getpid())
        return state.http if state is not None and self.owned else None

    def _connect(self) -> C:
        try:
            # No cookies: the API needs none, and a server that sets some is not the API.
            none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
            return self._kind(transport=cast("Any", self._transport), cookies=none)
        except (ImportError, OSError) as error:
            raise ConfigurationError(f"{_NOT_SET_UP}: {error}") from error
        except (ValueError, httpx.InvalidURL):
            # The message quotes a part of a proxy's address, which may be its password.
            raise ConfigurationError(f"{_NOT_SET_UP}: an address is not valid") from None


class _Nowhere(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The transport of a disabled client; its answers are those of a workspace without events."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        log.info("%s %s not sent: the client is disabled", request.method, request.url.path)
        if request.method == "GET":
            return httpx.Response(200, json={"events": []})
        return httpx.Response(200 if request.url.path.endswith("/summaries") else 202)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)
