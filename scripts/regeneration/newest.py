"""Finds the newest description, where each version has its own address."""

from __future__ import annotations

import re

from regeneration import RegenerationError, document
from regeneration.downloading import MissingError, shown

#: The placeholder for a version in an address.
VERSION = "{version}"
_NUMBERED = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
#: Ends the search on a server that has every version. Intercom publishes about two a year.
_MOST_NEWER = 20


def find(address: str, committed: str) -> document.Source:
    """Returns the newest description, searching upwards from a version.

    After each version that exists, the search requests the next minor version, and then the next
    major one, until the server has neither.

    Args:
        address: The address of a description, with `{version}` for its version.
        committed: The version to start from, such as 2.16; it is read if there is no newer one.

    Raises:
        DownloadError: A description cannot be fetched, or that of `committed` is missing as well.
        RegenerationError: A description is not YAML or JSON, or `committed` is not a number.
    """
    newest = None
    for _ in range(_MOST_NEWER + 1):
        newer = _next(address, committed)
        if newer is None:
            return newest or document.read(address.replace(VERSION, committed))
        committed, newest = newer
    raise RegenerationError(
        f"{shown(address)} has more than {_MOST_NEWER} newer versions; pass the address of one "
        "with --url"
    )


def _next(address: str, version: str) -> tuple[str, document.Source] | None:
    numbers = _NUMBERED.fullmatch(version)
    if numbers is None:
        raise RegenerationError(
            f"{shown(address)}: the version must be a number such as 2.16, not {version!r}; "
            f"pass an address without {VERSION}"
        )
    major, minor = map(int, numbers.groups())
    for newer in (f"{major}.{minor + 1}", f"{major + 1}.0"):
        try:
            return newer, document.read(address.replace(VERSION, newer))
        except MissingError:
            continue
    return None
