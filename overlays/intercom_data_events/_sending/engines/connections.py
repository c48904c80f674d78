"""The client's own connections.

Each has an httpx transport whose pool holds one connection, so no request waits in a pool. httpx's
shared pool loses the slot of a request that is cancelled while it waits (encode/httpcore#1093), and
scans all connections for each request. The rate limiter bounds their number.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar
from urllib.request import getproxies, proxy_bypass

import httpx

from intercom_data_events._sending.engines import CLOSED, SendError
from intercom_data_events._sending.engines.streams import GuardedBackend
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events._validation import has_host, invalid, short_repr
from intercom_data_events.errors import ConfigurationError

# Seconds that an idle connection is kept: longer than a window of the rate limit, because all
# connections are idle from when the quota is used up until the window resets.
KEEPALIVE_EXPIRY = 30.0
_MUST = "must be the address of a proxy, such as http://proxy.example:3128"
# What looks like a range of addresses, even if it is not valid, such as 10.0.0.0-10.0.0.9.
_RANGE = re.compile(r".*/|[0-9.]+-[0-9.]+$")

T = TypeVar("T", bound=httpx.HTTPTransport | httpx.AsyncHTTPTransport)


class Connection(Generic[T]):
    """A connection, which connects when it is first used.

    Attributes:
        transport: httpx's transport, whose pool has no other connection.
        backend: The network backend that connects it.
        origin: The scheme, host and port that it connects to.
        idle_since: When it was last used, by Python's monotonic clock.
    """

    __slots__ = ("backend", "idle_since", "origin", "transport")

    def __init__(self, transport: T, backend: Any, origin: str) -> None:
        self.transport = transport
        self.backend = backend
        self.origin = origin
        self.idle_since = 0.0


class Connections(Generic[T]):
    """The connections of one client, in one process and event loop.

    Args:
        kind: ``httpx.HTTPTransport`` or ``httpx.AsyncHTTPTransport``.

    Attributes:
        tls: The TLS context, with the trusted certificates.

    Raises:
        ConfigurationError: The certificates cannot be read.
    """

    def __init__(self, kind: type[T]) -> None:
        # The import and the certificates come first, before a fork can interrupt either: a child
        # that is forked while a thread reads certificates waits forever for OpenSSL's locks.
        import httpcore  # noqa: F401  # the first transport would import it

        self.tls = _tls()
        self._kind = kind
        # By origin; the most recently used connection is on the right.
        self._idle: dict[str, deque[Connection[T]]] = {}
        self._all = set[Connection[T]]()
        self._closed = False

    def take(self, url: httpx.URL) -> Connection[T]:
        """Returns a connection for a request, which has exclusive use of it until it is given back.

        Raises:
            ConfigurationError: The connection cannot be set up.
            SendError: The client was closed in the meantime.
        """
        if self._closed:
            raise SendError(RuntimeError(CLOSED), possibly_sent=False, recurs=True)
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        idle = self._idle.setdefault(origin, deque())
        try:
            return idle.pop()
        except IndexError:
            return self._new(url, origin)

    def give_back(self, connection: Connection[T], closing: list[Connection[T]]) -> None:
        """Takes back a connection whose answer is complete.

        Args:
            connection: The connection.
            closing: The connections that the caller closes afterwards. On entry, it holds this
                connection; on return, those idle for too long, or this one if the client is closed.
        """
        now = time.monotonic()
        connection.idle_since = now
        idle = self._idle.get(connection.origin)
        if idle is None or self._closed:
            return  # The client was closed in the meantime.
        closing.clear()
        idle.append(connection)
        with suppress(IndexError):  # Another thread took the last one.
            while now - idle[0].idle_since > KEEPALIVE_EXPIRY:
                closing.append(idle.popleft())

    def forget(self, connection: Connection[T]) -> Connection[T]:
        """Removes and returns a connection, which the caller closes."""
        self._all.discard(connection)
        return connection

    def forget_all(self) -> list[Connection[T]]:
        """Removes and returns all connections, including those in use; the caller closes them."""
        self._closed = True
        found, self._all = list(self._all), set()
        self._idle = {}
        return found

    def _new(self, url: httpx.URL, origin: str) -> Connection[T]:
        proxy = proxy_of(url)
        with setting_up():
            transport = self._kind(
                verify=self.tls,
                proxy=None if proxy is None else proxy.address.value,
                limits=httpx.Limits(
                    max_connections=None,
                    max_keepalive_connections=None,
                    keepalive_expiry=KEEPALIVE_EXPIRY,
                ),
            )
        connection = Connection(transport, guard(transport), origin)
        self._all.add(connection)
        return connection


def _tls() -> ssl.SSLContext:
    """Returns a TLS context with the trusted certificates, which a variable can name."""
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        file = os.environ.get("SSL_CERT_FILE")
        if not file:
            raise _not_set_up(error) from error
        raise ConfigurationError(
            f"cannot read the certificates of SSL_CERT_FILE={short_repr(file)}: {error}; set it to "
            "a file in PEM format, or unset it"
        ) from error


@contextmanager
def setting_up() -> Generator[None]:
    """Raises a ConfigurationError for an invalid proxy or certificate variable."""
    try:
        yield
    except (ImportError, OSError) as error:
        raise _not_set_up(error) from error
    except (ValueError, httpx.InvalidURL):
        # Its message quotes a part of a proxy's address, which may be the password.
        raise _not_set_up("the address of a proxy is not valid") from None


def _not_set_up(reason: object) -> ConfigurationError:
    return ConfigurationError(
        f"cannot set up connections: {reason}; check the proxy and certificate variables in the "
        "environment"
    )


class Proxy:
    """A proxy of the environment.

    Attributes:
        address: Its address, with its username and password, held.
        variable: The name of the variable that it comes from.
    """

    __slots__ = ("address", "variable")

    def __init__(self, address: Secret[str], variable: str) -> None:
        self.address, self.variable = address, variable

    def __str__(self) -> str:
        """Returns its address without username and password, and the variable."""
        return f"{origin_of(httpx.URL(self.address.value))} ({self.variable})"


def origin_of(url: httpx.URL) -> str:
    """Returns the scheme, host and port of an address for messages."""
    netloc = url.netloc.decode("ascii")
    port = {"https": ":443", "http": ":80"}.get(url.scheme, "") if url.port is None else ""
    return f"{url.scheme}://{netloc}{port}"


def proxy_of(url: httpx.URL) -> Proxy | None:
    """Returns the environment's proxy for an http or https address, or None.

    Raises:
        ConfigurationError: A variable cannot be used. The message does not show its value, which
            may contain a password.
    """
    scheme, host = url.scheme, url.host
    # Held, because addresses may contain passwords.
    found = Secret(getproxies())
    kind = scheme if found.value.get(scheme) else "all"
    proxy = hold(found.value.get(kind) or None)
    if proxy is None or proxy_bypass(host):
        return None
    # As in httpx, an exception can have a port and a scheme; "all" means any scheme.
    without = [
        one.strip().rstrip("/").rpartition("://") for one in found.value.get("no", "").split(",")
    ]
    of_scheme = [one for wanted, _, one in without if wanted.lower() in ("", "all", scheme)]
    # Other programs accept "*.example.com", too; it means ".example.com".
    of_scheme = [one[1:] if one.startswith("*.") else one for one in of_scheme]
    # Only Python's source documents it, so type checkers do not know it.
    excepted: Any = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]
    names = host, origin_of(url).rpartition("/")[2]
    if any(excepted(name, {"no": ",".join(of_scheme)}) for name in names):
        return None
    if any(_RANGE.match(one) and _is_in(host, one) for one in of_scheme):
        return None
    address = proxy if "://" in proxy.value else Secret(f"http://{proxy.value}")
    variable = _variable(kind, proxy)
    if problem := _problem(address):
        raise ConfigurationError(f"{variable} {problem}")
    return Proxy(address, variable)


def _is_in(host: str, network: str) -> bool:
    """Whether a host is an address in a range of NO_PROXY, such as 10.0.0.0/8."""
    try:
        within = ipaddress.ip_network(network.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        must = "must list hosts, domains and ranges of addresses, such as 10.0.0.0/8"
        # Without a part that may be the password of a proxy, set in the wrong variable.
        given = network.rpartition("@")[2]
        raise invalid(ConfigurationError, f"{_variable('no', None)} {must}", given) from None
    try:
        return ipaddress.ip_address(host) in within
    except ValueError:
        return False  # A name, which is not resolved for this.


def _variable(kind: str, value: Secret[str] | None) -> str:
    """Returns the variable that a proxy comes from; as in urllib, lower case takes precedence."""
    names = sorted((name for name in os.environ if name.lower() == f"{kind}_proxy"), reverse=True)
    of_value = (name for name in names if value is None or os.environ[name] == value.value)
    return next(of_value, f"the system's setting for {kind}_proxy")


def _problem(address: Secret[str]) -> str:
    """Returns what is wrong with a proxy's address, without showing it; empty if it is valid.

    The libraries find this out only when they connect, and httpcore raises a UnicodeError.
    """
    try:
        url = httpx.URL(address.value)
    except (httpx.InvalidURL, ValueError):  # A lone surrogate, for example.
        return f"{_MUST}, but is not a valid address"
    if url.scheme not in ("http", "https", "socks5", "socks5h"):
        return f"{_MUST}, but its scheme is not http, https, socks5 or socks5h"
    if not has_host(url):
        return f"{_MUST}, but its host or port is not valid"
    if url.scheme.startswith("socks"):
        from importlib.util import find_spec

        if find_spec("socksio") is None:
            return "is a SOCKS proxy, which needs socksio; run: pip install 'httpx[socks]'"
    return ""


def guard(transport: Any) -> Any:
    """Puts guarded network streams below the pool of a transport of httpx or httpx2.

    The libraries have no public place for them. Tests fail with a version that moves this one.

    Returns:
        The network backend that connects the transport from now on.
    """
    pool = transport._pool  # noqa: SLF001  # see the docstring
    core = sys.modules[type(pool).__module__.partition(".")[0]]
    if hasattr(pool, "handle_async_request"):
        from intercom_data_events._sending.engines.async_streams import AsyncGuardedBackend

        backend: object = AsyncGuardedBackend(core)
    else:
        backend = GuardedBackend(core)
    pool._network_backend = backend  # noqa: SLF001  # see the docstring
    return backend
