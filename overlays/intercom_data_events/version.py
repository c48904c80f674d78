"""Which version of Intercom's API a request is made for."""

from __future__ import annotations

import re

from intercom_data_events.checks import shown
from intercom_data_events.errors import ConfigurationError
from intercom_data_events_api import API_VERSION

__all__ = ["API_VERSION", "check_version"]

_WELL_FORMED = re.compile(r"[1-9]\d?\.\d{1,2}|Preview|Unstable", re.ASCII)


def check_version(version: object) -> str:
    """Returns a version as it is sent.

    Known versions are those of ``IntercomVersion``; one that is only well-formed, such as a coming
    "2.17", is accepted too, since Intercom publishes versions before this package knows them.

    Raises:
        ConfigurationError: It is neither of the form "2.16" nor Preview nor Unstable.
    """
    if isinstance(version, str) and _WELL_FORMED.fullmatch(version):
        return version
    remedy = (
        f'write it as text: version="{version}"'
        if isinstance(version, float)
        else (f'write "{API_VERSION}", say, or "Preview"')
    )
    raise ConfigurationError(
        f"version is {shown(version)}, which is no version of Intercom's API: {remedy}"
    )
