"""The connection to Intercom: token, address and version, from options and the environment."""

from __future__ import annotations

import getpass
import os
import sys
from enum import StrEnum
from typing import Any

from attrs import frozen

from intercom_data_events import ConfigurationError
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events._sending.settings import resolve_address, resolve_enabled


class Region(StrEnum):
    """Where a workspace's data is kept."""

    US = "us"
    EU = "eu"
    AU = "au"


@frozen(kw_only=True)
class Connection:
    """The settings from options; None leaves a setting to the environment.

    The help of each option in `options` describes the attribute.
    """

    region: Region | None = None
    base_url: str | None = None
    allow_http: bool = False
    api_version: str | None = None
    timeout: float = 30
    deadline: float = 120
    max_retries: int = 4
    quota_share: float = 1
    no_pace: bool = False
    dry_run: bool = False
    verbose: bool = False

    @property
    def sends(self) -> bool:
        """Whether requests are made: not with --dry-run or INTERCOM_DISABLED.

        Raises:
            ConfigurationError: INTERCOM_DISABLED has an invalid value.
        """
        return not self.dry_run and resolve_enabled(None)

    @property
    def address(self) -> str:
        """The API's address.

        Raises:
            ConfigurationError: The settings are invalid or contradict each other.
        """
        return resolve_address(self.base_url, self.region, self.allow_http or None)

    def options(self) -> dict[str, Any]:
        """Returns the arguments of a client.

        Raises:
            ConfigurationError: There is no access token and no terminal to ask for one.
        """
        options: dict[str, Any] = {
            "region": self.region,
            "base_url": self.base_url,
            "version": self.api_version,
            "timeout": self.timeout,
            "deadline": self.deadline,
            "max_retries": self.max_retries,
            "quota_share": self.quota_share,
            "pace": not self.no_pace,
            "allow_http": self.allow_http or None,
        }
        if not self.sends:
            return {**options, "enabled": False}
        return {**options, "access_token": _access_token()}

    def to_read(self) -> dict[str, Any]:
        """Returns the arguments of a client that reads from Intercom.

        Raises:
            ConfigurationError: INTERCOM_DISABLED is set, so every answer would be empty; or the
                access token is missing.
        """
        if not self.sends:
            raise ConfigurationError(
                "INTERCOM_DISABLED turns off all requests; unset it to read from Intercom"
            )
        return self.options()


def _access_token() -> Secret[str]:
    if token := hold(os.environ.get("INTERCOM_ACCESS_TOKEN") or None):
        return token
    if not _can_be_asked():
        raise ConfigurationError(
            "the access token is missing; set INTERCOM_ACCESS_TOKEN in the environment"
        )
    return Secret(getpass.getpass("Access token of the Intercom workspace: "))


def _can_be_asked() -> bool:
    """Whether a terminal can ask for the token, even if standard input is a pipe of events."""
    if not sys.stderr.isatty():
        return False
    if sys.stdin.isatty():
        return True
    try:
        # getpass asks here; without it, getpass would read standard input.
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
