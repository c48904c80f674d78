"""The command `check`: whether Intercom can be reached and accepts the access token."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from enum import StrEnum

import attrs
import httpx
from attrs import define

from intercom_data_events import DataEventsClient
from intercom_data_events._sending.causes import causes
from intercom_data_events._sending.engines.connections import proxy_of
from intercom_data_events._sending.quota import ClockSkew
from intercom_data_events._sending.rate_limit import RateLimit
from intercom_data_events._sending.retry import ErrorClass, classify
from intercom_data_events._sending.settings import region_of, resolve_version
from intercom_data_events._validation import printable
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import Exit, exit_code
from intercom_data_events.cli.options import command
from intercom_data_events.errors import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    ConfigurationError,
    IntercomError,
    NotFoundError,
    RateLimitError,
)

# Failures below HTTP, by the name of the exception, because engines use several libraries.
_FAILURES = {"ProxyError": "proxy", "gaierror": "dns", "ConnectionRefusedError": "refused"}


class _Token(StrEnum):
    """The state of the access token."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    MISSING = "missing"
    UNKNOWN = "unknown"


@define
class _Found:
    """What is known about the connection; None for the unknown parts."""

    token: _Token = _Token.UNKNOWN
    base_url: str | None = None
    region: str | None = None
    proxy: str | None = None
    version: str | None = None
    answered_version: str | None = None
    quota: RateLimit | None = None
    clock_ahead: float | None = None
    seconds: float | None = None
    failure: str | None = None


@command("check", "check --json", no_args_is_help=False, timeout=10, max_retries=0)
def check(*, as_json: bool = False, connection: Connection) -> None:
    """Check the token, address, version, quota and clock with one request.

    The request changes nothing: it asks for a contact that does not exist.
    """
    # If Intercom answers that the contact does not exist, it has accepted the token.
    found = _Found()
    problem: IntercomError | None = None
    try:
        _ask(connection, found)
    except IntercomError as error:
        problem = error
        found.token = _token(error)
        found.failure = _failure(error, is_proxied=found.proxy is not None)
    if as_json:
        output.result_json({"ok": problem is None, **attrs.asdict(found)})
    else:
        for name, text in _lines(found):
            output.result(f"{name:<8}{text}")
    if problem is not None:
        raise problem


def _ask(connection: Connection, found: _Found) -> None:
    """Fills in the findings one by one, so that those before a problem are known."""
    found.base_url = connection.address
    found.region = region_of(found.base_url)
    found.version = resolve_version(connection.api_version)
    if proxy := proxy_of(httpx.URL(found.base_url)):
        found.proxy = str(proxy)
    problem: APIResponseError | None = None
    with DataEventsClient(**connection.to_read()) as client:
        sent = time.time()
        try:
            headers = client.with_raw_response.summary(user_id=f"check-{uuid.uuid4()}").headers
        except APIResponseError as error:
            problem, headers = error, error.response.headers
        received = time.time()
    found.seconds = round(received - sent, 3)
    found.answered_version = printable(headers.get("intercom-version", ""), 40) or None
    found.quota = RateLimit.from_headers(headers)
    if "date" in headers:
        skew = ClockSkew()
        skew.learn(headers["date"], sent, received)
        found.clock_ahead = round(skew.ahead, 1)
    is_unknown = isinstance(problem, NotFoundError) and classify(problem) is ErrorClass.PERMANENT
    if problem is not None and not is_unknown:
        raise problem
    found.token = _Token.ACCEPTED


def _token(error: IntercomError) -> _Token:
    if exit_code(error) is Exit.DENIED:
        return _Token.REJECTED
    # Intercom counts requests by app, so it knows the token.
    if isinstance(error, RateLimitError):
        return _Token.ACCEPTED
    if isinstance(error, ConfigurationError) and not os.environ.get("INTERCOM_ACCESS_TOKEN"):
        return _Token.MISSING
    return _Token.UNKNOWN


def _failure(error: IntercomError, *, is_proxied: bool) -> str | None:
    """Which part of a connection failed; None if there was an answer."""
    if not isinstance(error, APIConnectionError):
        return None
    names = [type(one).__name__ for one in causes(error)]
    if any(name.startswith("SSL") for name in names):
        return "tls"
    if isinstance(error, APITimeoutError):
        return "timeout"
    named = next((_FAILURES[name] for name in names if name in _FAILURES), "connection")
    # Behind a proxy, a client resolves and connects to the proxy only.
    return "proxy" if is_proxied and named in ("dns", "refused") else named


def _lines(found: _Found) -> Iterator[tuple[str, str]]:
    yield "token", found.token
    region = f" (region {found.region})" if found.region else ""
    yield "address", f"{found.base_url or 'unknown'}{region}"
    yield "proxy", found.proxy or ("none" if found.base_url else "unknown")
    answered = ""
    if found.answered_version is not None:
        is_same = found.answered_version == found.version
        answered = (
            ", confirmed by the server"
            if is_same
            else f", but the server used {found.answered_version}"
        )
    yield "version", f"{found.version or 'unknown'}{answered}"
    if found.seconds is None:
        return
    yield "answer", f"after {found.seconds:.2f} s"
    if found.quota is None:
        yield "quota", "unknown, because the answer has no rate-limit headers"
    else:
        left = f"{found.quota.remaining:,} of {found.quota.limit:,} requests left"
        yield "quota", f"{left} until {output.moment(found.quota.reset_at)}"
    yield "clock", _clock(found.clock_ahead)


def _clock(ahead: float | None) -> str:
    if ahead is None:
        return "unknown, because the answer has no Date header"
    if not ahead:
        return "in sync with the server's"
    side = "behind" if ahead > 0 else "ahead of"
    by = output.duration(abs(ahead))
    return f"{by} {side} the server's; correct it, because events get their times from it"
