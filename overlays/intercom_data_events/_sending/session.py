"""The state that a client and its views share: connections, access token, latest rate limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from intercom_data_events._sending.auth import BearerToken
from intercom_data_events._sending.engines import CLOSED, httpx_engine
from intercom_data_events._sending.engines.kinds import is_kind
from intercom_data_events._sending.pacing import RateLimiter, Reservation
from intercom_data_events._sending.per_process import PerProcess
from intercom_data_events._sending.request import Operation, endpoint_of
from intercom_data_events._sending.runtime import has_ended, is_running, running_loop
from intercom_data_events._sending.settings import AsyncAccessToken, Settings
from intercom_data_events.clock import SYSTEM, Clock
from intercom_data_events.errors import ConfigurationError

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import AsyncEngine, Endpoint, Engine
    from intercom_data_events._sending.rate_limit import RateLimit
    from intercom_data_events._sending.secret import Secret

log = logging.getLogger("intercom_data_events")

E = TypeVar("E", bound="Engine | AsyncEngine")

# Two names of the same version.
_SAME_VERSION = {"Preview", "Unstable"}
_MOST_ENDPOINTS = 100
# Characters of a version that is logged.
_LONGEST_VERSION = 40


class _LoopUse:
    """The event loop that uses a client; sessions that `using` makes share it.

    Attributes:
        loop: The event loop; None for a blocking client.
        calls: The number of calls in flight.
    """

    def __init__(self, loop: object) -> None:
        self.loop = loop
        self.calls = 0


class ProcessState(Generic[E]):
    """The part of a session that belongs to one process, and to one of its event loops at a time.

    A forked child uses none of it. On the connections, its bytes would mix with the parent's, and a
    thread of the parent may have held a lock during the fork.

    Attributes:
        engine: Sends requests, on connections of this process.
        limiter: Keeps requests within the rate limit.
        use: The event loop, and the number of calls in flight.
    """

    def __init__(self, engine: E, limiter: RateLimiter, use: _LoopUse) -> None:
        self.engine, self.limiter, self.use = engine, limiter, use

    def leave(self) -> None:
        """Ends a call; see :meth:`Session.enter`."""
        self.use.calls -= 1


class _State:
    """The state that a session shares with the sessions that `using` makes of it.

    Attributes:
        headers: The headers of the latest answer that names the rate limit.
        warned: Whether a warning about another API version was logged.
        closed: Whether the client is closed.
        endpoints: The endpoints, by settings, method and path.
    """

    def __init__(self) -> None:
        self.headers: Mapping[str, str] = {}
        self.warned = self.closed = False
        self.endpoints: dict[tuple[Settings, str, str], Endpoint] = {}


class Session(Generic[E]):
    """The connections of a client and its views, and what answers have reported.

    Connections are made when they are first needed, so that creating a client is cheap. A forked
    child makes new ones, and so does another event loop. A caller opens and closes their own
    `http_client`.

    Args:
        is_async: Whether event loops use it.
        access_token: The client's token or function; None for a disabled client.
        transport: The caller's transport, or None for httpx's own.
        http_client: The caller's connections, or None.
        enabled: Whether to send anything.
        clock: The source of time and waits.
    """

    def __init__(
        self,
        access_token: Secret[AsyncAccessToken] | None,
        *,
        is_async: bool,
        transport: Any = None,
        http_client: Any = None,
        enabled: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.auth = BearerToken(access_token)
        self.enabled = enabled
        self.clock = clock or SYSTEM
        self.given = transport is not None or http_client is not None or clock is not None
        self._is_async = is_async
        self._transport = transport if enabled else None
        self._http_client = http_client if enabled else None
        self._process = PerProcess[ProcessState[E]]()
        # Reentrant: a signal handler may send while its thread makes the first connections.
        self._locks = PerProcess[threading.RLock]()
        self._state = _State()

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return self._state.closed

    @property
    def has_own_connections(self) -> bool:
        """Whether the connections are the client's own, configured by the environment."""
        return self._transport is None and self._http_client is None and self.enabled

    @property
    def sender(self) -> str:
        """The argument with the caller's connections; empty if they are the client's own."""
        if self._http_client is not None:
            return "http_client"
        return "" if self._transport is None else "transport"

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate limit in the latest answer."""
        from intercom_data_events._sending.rate_limit import RateLimit

        return RateLimit.from_headers(self._state.headers)

    def endpoint(self, operation: Operation[Any], settings: Settings) -> Endpoint:
        """Returns the endpoint of an operation with these settings."""
        found = self._state.endpoints
        place = settings, operation.parts["method"], operation.parts["url"]
        endpoint = found.get(place)
        if endpoint is None:
            if len(found) >= _MOST_ENDPOINTS:
                found.clear()  # Each call may come with new settings.
            endpoint = found[place] = endpoint_of(operation, settings)
        return endpoint

    def process_state(self) -> ProcessState[E]:
        """Returns the state of this process.

        Raises:
            RuntimeError: The client is closed.
            ConfigurationError: The connections cannot be set up, or belong to the caller and were
                used before a fork; or another event loop uses them now.
        """
        self.check_open()
        state = self._process.get()
        if state is None:
            return self._first_use()
        if state.use.loop is not None and not is_running(state.use.loop):
            return self._change_loop(running_loop())
        return state

    def check_open(self) -> None:
        """Raises an error if the client is closed.

        Raises:
            RuntimeError: The client is closed.
        """
        if self._state.closed:
            raise RuntimeError(CLOSED)

    def enter(self) -> ProcessState[E]:
        """Begins a call, during which no other event loop can take over the connections.

        Returns:
            The state of this process, on which the caller calls ``leave()`` at the end.

        Raises:
            RuntimeError: The client is closed.
            ConfigurationError: As for :meth:`process_state`.
        """
        with self._lock():
            state = self.process_state()
            state.use.calls += 1
            return state

    def release(self, reservation: Reservation) -> None:
        """Returns acquired quota that is not needed, even if the client is closed."""
        state = self._process.get()
        if state is not None:
            state.limiter.release(reservation)

    def using(self, engine: E) -> Session[E]:
        """Returns a session that sends through another engine in this process.

        It shares everything else: the token, the rate limiter, the latest rate limit. The caller
        closes the engine.
        """
        other = object.__new__(type(self))
        now = self.process_state()
        process = PerProcess[ProcessState[E]]()
        process.set(ProcessState(engine, now.limiter, now.use))
        other.__dict__.update(self.__dict__, _process=process)
        return other

    def close(self: Session[Engine]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (engine := self._closing()) is not None:
            engine.close()

    async def aclose(self: Session[AsyncEngine]) -> None:
        """Closes the connections, unless they are the caller's own."""
        if (engine := self._closing()) is not None:
            await engine.aclose()

    def note(self, headers: Mapping[str, str], version: str) -> None:
        """Keeps the rate limit of an answer, and checks its version."""
        if headers.get("x-ratelimit-limit", "")[:1].isdecimal():
            if "date" not in headers:  # A reset may be in seconds after the answer.
                headers = {**headers, "date": formatdate(self.clock.time(), usegmt=True)}
            self._state.headers = headers
        # Observed: answers repeat the version of the request.
        echoed = headers.get("intercom-version", version)
        if echoed != version and not self._state.warned and {echoed, version} != _SAME_VERSION:
            self._state.warned = True
            looks_like_version = (
                len(echoed) <= _LONGEST_VERSION and echoed.replace(".", "").isalnum()
            )
            log.warning(
                "Intercom answered with API version %s, but the request asked for %s",
                # Anything that does not look like a version may be personal data.
                echoed if looks_like_version else "(not a version)",
                version,
            )

    def _lock(self) -> threading.RLock:
        return self._locks.get() or self._locks.setdefault(threading.RLock())

    def _first_use(self) -> ProcessState[E]:
        if self._process.was_used_before_fork and self._is_shared():
            raise ConfigurationError(
                "an http_client or transport must not be used both before and after a fork, "
                "because both processes would share its connections; create it and the client "
                "after the fork"
            )
        with self._lock():
            state = self._process.get()
            if state is None:
                use = _LoopUse(running_loop() if self._is_async else None)
                state = ProcessState(self._connect(), self._limiter(), use)
            return self._process.setdefault(state)

    def _change_loop(self, loop: object) -> ProcessState[E]:
        """Moves the client to another event loop; the previous one must be idle or have ended.

        Raises:
            ConfigurationError: Requests are in flight in the previous one.
        """
        with self._lock():
            old = self._process.get() or self._first_use()
            calls = old.use.calls
            if old.use.loop is loop:
                return old
            if calls and not has_ended(old.use.loop):
                raise ConfigurationError(
                    "the client has requests in flight in another event loop; await them first, or "
                    "use one client per event loop"
                )
            # Requests of a loop that has ended would stay in the queues and slots forever.
            limiter = self._limiter() if calls else old.limiter
            engine = old.engine
            if self.has_own_connections:
                cast("AsyncEngine", engine).drop()
                engine = self._connect()
            state = ProcessState(engine, limiter, _LoopUse(loop))
            self._process.set(state)
            return state

    def _limiter(self) -> RateLimiter:
        if self._is_async:
            return RateLimiter(self.clock, self.clock.async_alarm)
        return RateLimiter(self.clock, self.clock.alarm, threading.get_ident)

    def _is_shared(self) -> bool:
        """Whether two processes would share the caller's connections."""
        return self._http_client is not None or is_kind(
            self._transport, "AsyncHTTPTransport" if self._is_async else "HTTPTransport"
        )

    def _closing(self) -> E | None:
        self._state.closed = True
        # Another process closes its connections itself.
        state = self._process.get()
        return state.engine if state is not None and self._http_client is None else None

    def _connect(self) -> E:
        engine: object
        if not self.enabled:
            from intercom_data_events._sending.engines.disabled import (
                AsyncDisabledEngine,
                DisabledEngine,
            )

            engine = AsyncDisabledEngine() if self._is_async else DisabledEngine()
        elif self._http_client is not None:
            kind = httpx_engine.AsyncHTTPXEngine if self._is_async else httpx_engine.HTTPXEngine
            engine = kind(self._http_client, owned=False, clock=self.clock)
        elif self._transport is not None:
            connect = httpx_engine.aconnect if self._is_async else httpx_engine.connect
            engine = connect(self._transport, self.clock)
        else:
            # Imported here, so that programs with a transport start faster.
            from intercom_data_events._sending.engines import pooled_engine

            pooled = (
                pooled_engine.AsyncPooledEngine if self._is_async else pooled_engine.PooledEngine
            )
            engine = pooled(self.clock)
        return cast("E", engine)
