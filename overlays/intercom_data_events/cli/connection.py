"""What a command is told of Intercom: token, address, version; from options and the environment."""

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
    """The settings that options give; None leaves one to the environment.

    What an attribute means, its option says; `options.connecting` gives commands these options.
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
        """Whether anything is sent: neither with --dry-run, nor where INTERCOM_DISABLED is set.

        Raises:
            ConfigurationError: INTERCOM_DISABLED is neither yes nor no.
        """
        return not self.dry_run and resolve_enabled(None)

    @property
    def address(self) -> str:
        """Where Intercom is.

        Raises:
            ConfigurationError: It cannot be told.
        """
        return resolve_address(self.base_url, self.region, self.allow_http or None)

    def options(self) -> dict[str, Any]:
        """Returns the arguments to make a client with.

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
        """Returns the arguments to make a client with that asks Intercom for something.

        Raises:
            ConfigurationError: INTERCOM_DISABLED is set, so that every answer would be empty; or
                there is no access token.
        """
        if not self.sends:
            raise ConfigurationError(
                "INTERCOM_DISABLED is set, so Intercom is not asked anything: unset it to read"
            )
        return self.options()


def _access_token() -> Secret[str]:
    if token := hold(os.environ.get("INTERCOM_ACCESS_TOKEN") or None):
        return token
    if not _can_be_asked():
        raise ConfigurationError(
            "no access token: set INTERCOM_ACCESS_TOKEN in the environment; it is never given as "
            "an argument, which others on this machine and the shell's history would see"
        )
    return Secret(getpass.getpass("Access token of the Intercom workspace: "))


def _can_be_asked() -> bool:
    """Whether there is a person at a terminal, also where standard input is a pipe of events."""
    if not sys.stderr.isatty():
        return False
    if sys.stdin.isatty():
        return True
    try:
        # Where getpass asks; it would read standard input without.
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
