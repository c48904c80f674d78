"""Settings from the caller and the environment: token, version, address, limits, headers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

import httpx

from intercom_data_events._inflating import ACCEPTED
from intercom_data_events._loopback import is_loopback
from intercom_data_events._sending.engines.kinds import is_kind
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events._validation import (
    Flaw,
    flaw_of,
    flawed,
    has_host,
    invalid,
    invalid_type,
    short_repr,
    whole_number,
)
from intercom_data_events.errors import ConfigurationError
from intercom_data_events.version import API_VERSION, check_version

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

#: The time limit of an attempt, in seconds or by phase; None for that of the connections.
Timeout: TypeAlias = "float | httpx.Timeout | httpx2.Timeout | None"
#: An access token, or a function that returns the current one, for tokens that rotate.
#:
#: Example:
#:     >>> import os
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> client = DataEventsClient(lambda: os.environ["INTERCOM_ACCESS_TOKEN"])
AccessToken: TypeAlias = str | Callable[[], str]
#: An access token for an async client, or a function that returns the current one, async or not.
#:
#: Example:
#:     >>> from intercom_data_events import AsyncDataEventsClient
#:     >>> async def current_token():
#:     ...     return "token"  # From a store of secrets, for example.
#:     >>> client = AsyncDataEventsClient(current_token)
AsyncAccessToken: TypeAlias = AccessToken | Callable[[], Awaitable[str]]
#: Where Intercom keeps a workspace's data: the United States, Europe or Australia.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> DataEventsClient("token", region="eu").base_url
#:     'https://api.eu.intercom.io'
Region: TypeAlias = Literal["us", "eu", "au"]

#: The address of the API by region, from the servers in the API's description.
HOSTS: Mapping[str, str] = {
    "us": "https://api.intercom.io",
    "eu": "https://api.eu.intercom.io",
    "au": "https://api.au.intercom.io",
}

# Compiled when first used.
_ADDRESS = r"(?i:https?)://[^\s?#]+"
_HEADER_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER_VALUE = r"([!-~]([ -~]*[!-~])?)?"
_LONGEST_TIMEOUT = 24 * 60 * 60
# Seconds. A longer deadline counts as none, because clocks would overflow.
_CENTURY = 100 * 365 * 24 * 60 * 60
_RESERVED = {
    "accept-encoding": f"it is always {ACCEPTED!r}, because the client decompresses answers itself",
    "authorization": "pass access_token instead",
    "intercom-version": "pass version instead",
    "content-type": "the body is always JSON",
    "content-length": "the client computes it from the body",
    "transfer-encoding": "the client never sends chunks",
    "host": "pass base_url instead",
    "expect": "the client always sends the body at once",
}
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
    ("", "0", "false", "no", "off"), False
)


def _check_timeout(timeout: Any) -> Timeout:
    if timeout is None or is_kind(timeout, "Timeout"):
        return cast("Timeout", timeout)
    if not _is_number(timeout) or not 0 < timeout <= _LONGEST_TIMEOUT:
        must = "timeout must be a number of seconds greater than 0 and at most 86400"
        remedy = "pass httpx.Timeout(None) for no time limit"
        raise invalid(ConfigurationError, must, timeout, remedy, plain_remedy="")
    return cast("float", timeout)


def _check_deadline(deadline: float) -> float:
    if not _is_number(deadline) or not deadline > 0:
        must = "deadline must be a number of seconds greater than 0"
        remedy, plain = "pass math.inf for no deadline", "pass inf for no deadline"
        raise invalid(ConfigurationError, must, deadline, remedy, plain_remedy=plain)
    return deadline if deadline < _CENTURY else math.inf


def _check_max_retries(max_retries: int) -> int:
    number = whole_number(max_retries)
    if number is None or number < 0:
        must = "max_retries must be an integer of at least 0"
        raise invalid(ConfigurationError, must, max_retries, "pass 0 to turn retries off")
    return number


def _check_pace(pace: bool) -> bool:
    return _check_switch("pace", pace)


def _check_quota_share(quota_share: float) -> float:
    if not _is_number(quota_share) or not 0 < quota_share <= 1:
        must = "quota_share must be greater than 0 and at most 1"
        raise invalid(ConfigurationError, must, quota_share)
    return quota_share


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_headers(headers: Secret[Any] | None) -> dict[str, str]:
    if headers is None:
        return {}
    if not isinstance(headers.value, Mapping):
        raise invalid_type(ConfigurationError, "headers must be a mapping", headers.value)
    for name in headers.value:
        if not isinstance(name, str) or not re.fullmatch(_HEADER_NAME, name):
            must = "a header name must contain only letters, digits and !#$%&'*+.^_`|~-"
            raise invalid(ConfigurationError, must, name)
        remedy = _RESERVED.get(name.lower())
        if remedy:
            raise ConfigurationError(f"headers must not contain {name!r}; {remedy}")
        if not _is_header_value(headers.value[name]):
            raise ConfigurationError(
                f"the value of header {name!r} must be a string of printable ASCII characters, "
                "without leading or trailing spaces"
            )
    # Header names are case-insensitive.
    return {name.lower(): value for name, value in headers.value.items()}


def _is_header_value(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(_HEADER_VALUE, value) is not None


class Settings:
    """The immutable settings of requests; `with_options` makes a changed copy.

    A plain class, like those of the engines. It is compared by identity, so that engines can keep
    models of requests by settings.

    Attributes:
        base_url: The address of the API, without a slash at its end.
        version: The value of ``Intercom-Version``.
        timeout: Seconds that an attempt may take, or an httpx.Timeout for its phases. None means
            the time limits of the connections.
        deadline: Seconds for all attempts and waits; infinite for no deadline.
        max_retries: How often a failed request is repeated.
        pace: Whether requests wait for room within the rate limit.
        quota_share: The largest part of each window's requests, greater than 0 and at most 1.
        headers: Additional headers of every request, which may be secret; their names are in lower
            case.
    """

    def __init__(
        self,
        *,
        base_url: str,
        version: str,
        timeout: Timeout,
        deadline: float,
        max_retries: int,
        pace: bool,
        quota_share: float,
        headers: Secret[Mapping[str, str]] | None,
    ) -> None:
        self.base_url = base_url
        self.version = check_version(version)
        self.timeout = _check_timeout(timeout)
        self.deadline = _check_deadline(deadline)
        self.max_retries = _check_max_retries(max_retries)
        self.pace = _check_pace(pace)
        self.quota_share = _check_quota_share(quota_share)
        self.headers: Mapping[str, str] = _check_headers(headers)

    @property
    def seconds_per_attempt(self) -> float:
        """The time limit of a whole attempt."""
        return self.timeout if isinstance(self.timeout, int | float) else math.inf

    @property
    def phases(self) -> Mapping[str, float | None] | None:
        """Seconds for each phase of an attempt; None for the limits of the connections."""
        if isinstance(self.timeout, int | float):
            return dict.fromkeys(("connect", "read", "write", "pool"), self.timeout)
        return None if self.timeout is None else self.timeout.as_dict()

    def changed(self, **options: Any) -> Settings:
        """Returns a copy with the options that are not None; held headers are added to the others.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        given = {name: value for name, value in options.items() if value is not None}
        headers = Secret({**self.headers, **_check_headers(given.pop("headers", None))})
        return Settings(**{**vars(self), **given, "headers": headers})


def region_of(address: str) -> Region | None:
    """Returns the region of one of Intercom's addresses; None for any other address."""
    found = next((region for region, host in HOSTS.items() if host == address), None)
    return cast("Region | None", found)


def resolve_version(version: str | None) -> str:
    """Returns the API version: as given, else from the environment, else the default.

    Raises:
        ConfigurationError: It is not a version.
    """
    return _from("INTERCOM_VERSION", version, check_version) or API_VERSION


def resolve_token(access_token: Secret[Any] | None) -> Secret[AsyncAccessToken]:
    """Returns the access token or its function: as given, else from the environment.

    Raises:
        ConfigurationError: There is none, or a header cannot contain it.
    """
    if access_token is not None and callable(access_token.value):
        return access_token
    token: Secret[Any] | None = _from("INTERCOM_ACCESS_TOKEN", access_token, check_token)
    if token is None:
        remedy = "set INTERCOM_ACCESS_TOKEN in the environment"
        said = f"is missing; pass it, or {remedy}"
        raise flawed(ConfigurationError, "access_token", said, f"is missing; {remedy}")
    return token


def resolve_enabled(enabled: bool | None) -> bool:
    """Whether to send anything: as given, else unless INTERCOM_DISABLED is set.

    Raises:
        ConfigurationError: INTERCOM_DISABLED is neither yes nor no.
    """
    disabled = None if enabled is None else not _check_switch("enabled", enabled)
    return not _switch("INTERCOM_DISABLED", disabled)


def _check_switch(name: str, given: object) -> bool:
    if not isinstance(given, bool):
        plain = "must be true or false"
        raise invalid(ConfigurationError, f"{name} must be True or False", given, plain=plain)
    return given


def _switch(variable: str, given: bool | None) -> bool:
    """Returns a switch: as given, else from the environment, else off.

    Raises:
        ConfigurationError: The variable is neither yes nor no.
    """
    if given is not None:
        return given
    found = os.environ.get(variable, "")
    switch = _SWITCHES.get(found.strip().lower())
    if switch is None:
        raise invalid(ConfigurationError, f"{variable} must be 1 or 0", found)
    return switch


def check_token(token: object) -> Secret[str]:
    """Returns an access token that a header can contain; no message and no frame shows it.

    Raises:
        ConfigurationError: It is not a string of visible ASCII characters, or is empty.
    """
    held, token = cast("Secret[Any]", hold(token)), None
    if not isinstance(held.value, str):
        said = f"must be a string, not a value of type {type(held.value).__name__}"
        raise flawed(ConfigurationError, "access_token", said)
    held = Secret(str.__str__(held.value))  # A subclass may do anything.
    if not held.value:
        raise flawed(ConfigurationError, "access_token", "must not be empty")
    if not (held.value.isascii() and held.value.isprintable() and " " not in held.value):
        said = (
            "must contain only visible ASCII characters; remove spaces, line breaks and all other "
            "characters"
        )
        raise flawed(ConfigurationError, "access_token", said)
    return held


def resolve_address(
    base_url: str | None, region: str | None, allow_http: bool | None = None
) -> str:
    """Returns the API's address: as given, else from the environment, else the US one.

    Args:
        base_url: The address, or None.
        region: The region, or None.
        allow_http: Whether http:// may lead to other machines; None for INTERCOM_ALLOW_HTTP.

    Raises:
        ConfigurationError: The address or region is not valid, or both are given; a region is given
            while INTERCOM_BASE_URL is set; or http:// leads to another machine.
    """
    if base_url is not None and region is not None:
        plain = "pass either --base-url or --region, not both"
        raise Flaw((), "pass either base_url or region, not both", plain).error(ConfigurationError)
    if allow_http is not None:
        _check_switch("allow_http", allow_http)
    allows_http = _switch("INTERCOM_ALLOW_HTTP", allow_http)
    if region is not None:
        address = _check_region(region)
        if set_address := _from("INTERCOM_BASE_URL", None, _check_address):
            raise ConfigurationError(
                f"the region {str(region)!r} ({address}) conflicts with INTERCOM_BASE_URL "
                f"({set_address}); unset INTERCOM_BASE_URL, leave out the region, or pass a base "
                "URL instead, which takes precedence"
            )
        return address
    # In the environment, INTERCOM_BASE_URL takes precedence.
    address = (
        _from("INTERCOM_BASE_URL", base_url, _check_address)
        or _from("INTERCOM_REGION", None, _check_region)
        or HOSTS["us"]
    )
    if (
        not allows_http
        and address.startswith("http://")
        and not is_loopback(httpx.URL(address).host)
    ):
        said = (
            f"must begin with https://, not {short_repr(address)}, because http:// does not "
            "encrypt the access token; to send it anyway, pass {} or set "
            "INTERCOM_ALLOW_HTTP=1"
        )
        raise flawed(
            ConfigurationError,
            "INTERCOM_BASE_URL" if base_url is None else "base_url",
            said.format("allow_http=True"),
            said.format("--allow-http"),
        )
    return address


def _check_region(region: object) -> str:
    if not isinstance(region, str) or region not in HOSTS:
        *others, last = HOSTS
        must = f"region must be {', '.join(others)} or {last}"
        raise invalid(ConfigurationError, must, region)
    return HOSTS[region]


def _check_address(base_url: object) -> str:
    # Checked first, before parsing: messages below show the address, with any password in it.
    if isinstance(base_url, str) and "@" in base_url:
        said = "must not contain credentials; {} instead"
        token, variable = "pass access_token", "set INTERCOM_ACCESS_TOKEN"
        raise flawed(ConfigurationError, "base_url", said.format(token), said.format(variable))
    try:
        text = base_url if isinstance(base_url, str) and re.fullmatch(_ADDRESS, base_url) else ""
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):  # A lone surrogate, for example.
        url = httpx.URL()
    if not url.raw_host:
        usual = f"an http or https URL without a query or fragment, such as {HOSTS['us']}"
        raise invalid(ConfigurationError, f"base_url must be {usual}", base_url)
    if not has_host(url):
        raise invalid(ConfigurationError, "base_url must have a valid host and port", base_url)
    return str(url).rstrip("/")


def _from(variable: str, given: object, check: Callable[[object], T]) -> T | None:
    """Checks a setting as given, else the one in the environment, which an error then names."""
    if given is not None:
        return check(given)
    found = hold(os.environ.get(variable) or None)
    if found is None:
        return None
    try:
        return check(found.value)
    except ConfigurationError as error:
        flaw = cast("Flaw", flaw_of(error))
        raise flaw._replace(path=(variable,)).error(ConfigurationError) from error
