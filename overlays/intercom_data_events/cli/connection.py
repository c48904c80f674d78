"""What a command is told of Intercom: token, address, version; from options and the environment."""

from __future__ import annotations

import getpass
import os
import sys
from enum import StrEnum
from typing import Annotated, Any

from attrs import frozen
from typer import Option

from intercom_data_events import ConfigurationError
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events._sending.settings import resolve_address, resolve_enabled
from intercom_data_events.version import API_VERSION


class Region(StrEnum):
    """Where a workspace's data is kept."""

    US = "us"
    EU = "eu"
    AU = "au"


def _option(*names: str, help: str, metavar: str | None = None) -> Any:
    return Option(*names, help=help, metavar=metavar, rich_help_panel="Connection options")


@frozen(kw_only=True)
class Connection:
    """The settings that options give; None leaves one to the environment.

    What an attribute means, its option says; `options.connecting` gives commands these options.
    """

    region: Annotated[
        Region | None,
        _option(
            help="Where the workspace's data is kept. [env: INTERCOM_REGION] [default: us]",
            metavar="us|eu|au",
        ),
    ] = None
    base_url: Annotated[
        str | None,
        _option(
            help="The API's address, instead of a region. [env: INTERCOM_BASE_URL]", metavar="URL"
        ),
    ] = None
    allow_http: Annotated[
        bool,
        _option(
            "--allow-http",
            help="Also send to other machines over http://, which does not encrypt the access "
            "token. [env: INTERCOM_ALLOW_HTTP]",
        ),
    ] = False
    api_version: Annotated[
        str | None,
        _option(
            help=f"The API version. [env: INTERCOM_VERSION] [default: {API_VERSION}]",
            metavar="VERSION",
        ),
    ] = None
    timeout: Annotated[
        float, _option(help="Time limit for each attempt of a request.", metavar="SECONDS")
    ] = 30
    deadline: Annotated[
        float, _option(help="Time limit for all attempts of an event.", metavar="SECONDS")
    ] = 120
    max_retries: Annotated[
        int, _option(help="How often a failed request is repeated.", metavar="NUMBER")
    ] = 4
    quota_share: Annotated[
        float, _option(help="The part of the app's rate limit to use.", metavar="PART")
    ] = 1
    no_pace: Annotated[
        bool, _option("--no-pace", help="Send without waiting for room within the rate limit.")
    ] = False
    dry_run: Annotated[
        bool,
        _option("--dry-run", help="Check everything and send nothing. [env: INTERCOM_DISABLED]"),
    ] = False
    verbose: Annotated[
        bool,
        _option("--verbose", "-v", help="Show each request and its answer on standard error."),
    ] = False

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
            ConfigurationError: There is no access token, and nobody to ask for one.
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
