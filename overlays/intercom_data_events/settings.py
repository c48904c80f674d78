"""What a caller and the environment set: token, version, address, timeout, headers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeAlias

import httpx
from attrs import evolve, field, frozen

from intercom_data_events.checks import shown, whole_number
from intercom_data_events.errors import ConfigurationError
from intercom_data_events.version import API_VERSION, check_version

#: An access token, or a function that returns the one to use now, for tokens that rotate.
AccessToken: TypeAlias = str | Callable[[], str]
#: The same for the async client, which can also await the function.
AsyncAccessToken: TypeAlias = AccessToken | Callable[[], Awaitable[str]]
#: Where a workspace's data is kept.
Region: TypeAlias = Literal["us", "eu", "au"]

#: Where the API is for each region, as the description's servers have it.
HOSTS: Mapping[str, str] = {
    "us": "https://api.intercom.io",
    "eu": "https://api.eu.intercom.io",
    "au": "https://api.au.intercom.io",
}

_ADDRESS = re.compile(r"https?://[^\s?#]+", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
_LONGEST_TIMEOUT = 24 * 60 * 60
# Seconds: a century, beyond which clocks cannot count.
_AGES = 100 * 365 * 24 * 60 * 60
_RESERVED = {
    "authorization": "pass access_token= instead",
    "intercom-version": "pass version= instead",
    "content-type": "bodies are always JSON",
    "content-length": "it follows from the body",
    "transfer-encoding": "it follows from the body",
    "host": "pass base_url= instead",
}
_SWITCHES = {"1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
    ("", "0", "false", "no", "off"), False
)


# Compared by identity, and so hashable: what requests are made from is kept by settings.
@frozen(eq=False)
class Settings:
    """What requests are made with; the options of one call make a changed copy.

    Attributes:
        base_url: Where the API is, without a slash at its end.
        version: The value of ``Intercom-Version``.
        timeout: Seconds that a try may take; or for each of its phases, as httpx has them. None
            leaves it to the connections.
        deadline: Seconds for everything, tries and waits; infinite for none.
        max_retries: How often a failed request is made again.
        pace: Whether requests wait for room within the rate limit.
        quota_share: The part of each window's requests that is used, above 0 and up to 1.
        headers: Further headers of every request, their names in lower case.
    """

    base_url: str
    version: str
    timeout: float | httpx.Timeout | None
    deadline: float
    max_retries: int
    pace: bool
    quota_share: float
    headers: Mapping[str, str] = field(repr=False)

    @property
    def seconds_a_try(self) -> float:
        """What a try may take in all."""
        return self.timeout if isinstance(self.timeout, int | float) else math.inf

    @classmethod
    def resolve(
        cls,
        *,
        version: str | None,
        region: str | None,
        base_url: str | None,
        timeout: float | httpx.Timeout | None,
        deadline: float,
        max_retries: int,
        pace: bool,
        quota_share: float,
        headers: Mapping[str, str] | None,
    ) -> Settings:
        """Fills in from the environment what the caller left out, and checks it all.

        Raises:
            ConfigurationError: A setting that cannot be used; names it, and where it came from.
        """
        return cls(
            base_url=resolve_address(base_url, region),
            version=_from("INTERCOM_VERSION", version, check_version) or API_VERSION,
            timeout=None if timeout is None else _check_timeout(timeout),
            deadline=_check_deadline(deadline),
            max_retries=_check_max_retries(max_retries),
            pace=_check_pace(pace),
            quota_share=_check_quota_share(quota_share),
            headers=_check_headers(headers or {}),
        )

    def changed(
        self,
        *,
        version: str | None,
        timeout: float | httpx.Timeout | None,
        deadline: float | None,
        max_retries: int | None,
        pace: bool | None,
        quota_share: float | None,
        headers: Mapping[str, str] | None,
    ) -> Settings:
        """Returns a copy with what is not None in place of what was; headers are added.

        Raises:
            ConfigurationError: A setting that cannot be used.
        """
        return evolve(
            self,
            version=self.version if version is None else check_version(version),
            timeout=self.timeout if timeout is None else _check_timeout(timeout),
            deadline=self.deadline if deadline is None else _check_deadline(deadline),
            max_retries=(
                self.max_retries if max_retries is None else _check_max_retries(max_retries)
            ),
            pace=self.pace if pace is None else _check_pace(pace),
            quota_share=(
                self.quota_share if quota_share is None else _check_quota_share(quota_share)
            ),
            headers={**self.headers, **_check_headers(headers or {})},
        )


def resolve_token(access_token: AsyncAccessToken | None) -> AsyncAccessToken:
    """Returns the access token to use, from the environment where none is given.

    Raises:
        ConfigurationError: There is none, or it cannot stand in a header.
    """
    if callable(access_token):
        return access_token
    token = _from("INTERCOM_ACCESS_TOKEN", access_token, check_token)
    if token is None:
        raise ConfigurationError(
            "no access token: pass access_token=, or set INTERCOM_ACCESS_TOKEN in the environment"
        )
    return token


def resolve_enabled(enabled: bool | None) -> bool:
    """Whether anything is to be sent: as given, else unless INTERCOM_DISABLED says otherwise.

    Raises:
        ConfigurationError: INTERCOM_DISABLED is neither yes nor no.
    """
    if isinstance(enabled, bool):
        return enabled
    if enabled is not None:
        raise ConfigurationError(f"enabled is {shown(enabled)}: it is True or False")
    switch = os.environ.get("INTERCOM_DISABLED", "")
    disabled = _SWITCHES.get(switch.strip().lower())
    if disabled is None:
        raise ConfigurationError(f"INTERCOM_DISABLED is {shown(switch)}: set it to 1 or to 0")
    return not disabled


def check_token(token: object) -> str:
    """Returns an access token that can stand in a header; messages never show it.

    Raises:
        ConfigurationError: It is no text, empty, or has something else in it than visible ASCII.
    """
    if not isinstance(token, str):
        raise ConfigurationError(f"the access token is a {type(token).__name__}, not text")
    if not token:
        raise ConfigurationError("the access token is empty")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(
            "the access token has a blank, a line break or another character in it that no token "
            "has: was it cut out, or read from a file with its line end?"
        )
    return str.__str__(token)


def token_digest(token: str, salt: str) -> str:
    """Returns what tells a token from others, and gives nothing of it away; the salt before it."""
    # Imported where something is kept beyond the process: most programs start sooner without it.
    import hashlib

    digest = hashlib.blake2b(f"{salt}:{token}".encode(), digest_size=8).hexdigest()
    return f"{salt}:{digest}"


def resolve_address(base_url: str | None, region: str | None) -> str:
    """Returns where the API is: as given, else from the environment, else that of the US.

    Raises:
        ConfigurationError: It is no address, or both are given.
    """
    if base_url is not None and region is not None:
        raise ConfigurationError("base_url and region both say where the API is: pass one of them")
    if region is not None:
        return _check_region(region)
    # Of the two in the environment, the more exact one counts.
    return (
        _from("INTERCOM_BASE_URL", base_url, _check_address)
        or _from("INTERCOM_REGION", None, _check_region)
        or HOSTS["us"]
    )


def _check_region(region: object) -> str:
    if not isinstance(region, str) or region not in HOSTS:
        raise ConfigurationError(f"region is {shown(region)}: it is one of {', '.join(HOSTS)}")
    return HOSTS[region]


def _check_address(base_url: object) -> str:
    # Looked for in the text, and first: what cannot be parsed can have a password in it, too.
    if isinstance(base_url, str) and "@" in base_url:
        raise ConfigurationError("base_url has credentials in it: pass access_token= instead")
    usual = f"it is an http or https address without query and fragment, such as {HOSTS['us']}"
    if not isinstance(base_url, str) or not _ADDRESS.fullmatch(base_url):
        raise ConfigurationError(f"base_url is {shown(base_url)}: {usual}")
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigurationError(f"base_url is {shown(base_url)}: {usual}") from error
    labels = url.host.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels) or not 0 < (url.port or 1) < 65536:
        raise ConfigurationError(f"base_url is {shown(base_url)}, whose host or port cannot be")
    return str(url).rstrip("/")


def _check_timeout(timeout: float | httpx.Timeout) -> float | httpx.Timeout:
    if isinstance(timeout, httpx.Timeout):
        return timeout
    if not _is_number(timeout) or not 0 < timeout <= _LONGEST_TIMEOUT:
        raise ConfigurationError(
            f"timeout is {shown(timeout)}: it is a number of seconds above 0 and up to a day; "
            "httpx.Timeout(None) is none at all"
        )
    return timeout


def _check_deadline(deadline: float) -> float:
    if not _is_number(deadline) or not deadline > 0:
        raise ConfigurationError(
            f"deadline is {shown(deadline)}: it is a number of seconds above 0, for all tries and "
            "waits; math.inf is none at all"
        )
    return deadline if deadline < _AGES else math.inf


def _check_max_retries(max_retries: int) -> int:
    number = whole_number(max_retries)
    if number is None or number < 0:
        raise ConfigurationError(
            f"max_retries is {shown(max_retries)}: it is a whole number; 0 turns retries off"
        )
    return number


def _check_pace(pace: bool) -> bool:
    if not isinstance(pace, bool):
        raise ConfigurationError(f"pace is {shown(pace)}: it is True or False")
    return pace


def _check_quota_share(quota_share: float) -> float:
    if not _is_number(quota_share) or not 0 < quota_share <= 1:
        raise ConfigurationError(
            f"quota_share is {shown(quota_share)}: it is above 0 and up to 1, the whole quota"
        )
    return quota_share


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers are a {type(headers).__name__}: pass a mapping")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"the header {shown(name)} has a name that cannot be sent")
        remedy = _RESERVED.get(name.lower())
        if remedy:
            raise ConfigurationError(f"headers cannot set {name!r}: {remedy}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(
                f"the header {name!r} has a value that cannot be sent: it is visible ASCII text, "
                "without blanks at its ends"
            )
    # Names of headers ignore case: what differs in case only is the same.
    return {name.lower(): value for name, value in headers.items()}


def _from(variable: str, given: object, check: Callable[[object], str]) -> str | None:
    """Checks a setting that was given, or else what the environment holds of it."""
    if given is not None:
        return check(given)
    found = os.environ.get(variable)
    if not found:
        return None
    try:
        return check(found)
    except ConfigurationError as error:
        raise ConfigurationError(f"{variable} in the environment: {error}") from error
