"""Finding the newest description among those that have an address for each version."""

from __future__ import annotations

import re

from regeneration import RegenerationError, document
from regeneration.downloading import MissingError, shown

#: Stands for a version in an address.
VERSION = "{version}"
_NUMBERED = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")
#: Intercom publishes about two versions a year. A server that has every version ends here.
_MOST_NEWER = 20


def find(address: str, committed: str) -> document.Source:
    """Returns the newest description, asked for upwards from a version.

    After each version that is there, the next minor one is asked for, and then the next major one,
    until the server has neither.

    Args:
        address: Where a version is, with `{version}` in it.
        committed: The version to begin with, such as 2.16; it is read if there is no newer one.

    Raises:
        DownloadError: A description cannot be fetched, or that of `committed` is missing, too.
        RegenerationError: It is not YAML or JSON, or `committed` is not a number.
    """
    newest = None
    for _ in range(_MOST_NEWER + 1):
        newer = _next(address, committed)
        if newer is None:
            return newest or document.read(address.replace(VERSION, committed))
        committed, newest = newer
    raise RegenerationError(
        f"{shown(address)}: has more than {_MOST_NEWER} newer versions; pass one of them with --url"
    )


def _next(address: str, version: str) -> tuple[str, document.Source] | None:
    numbers = _NUMBERED.fullmatch(version)
    if numbers is None:
        raise RegenerationError(
            f"{shown(address)}: no version follows {version!r}; pass an address without {VERSION}"
        )
    major, minor = map(int, numbers.groups())
    for newer in (f"{major}.{minor + 1}", f"{major + 1}.0"):
        try:
            return newer, document.read(address.replace(VERSION, newer))
        except MissingError:
            continue
    return None
