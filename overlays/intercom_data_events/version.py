"""The version of Intercom's API that a request is made for."""

from __future__ import annotations

import re

from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError
from intercom_data_events_api import API_VERSION

__all__ = ["API_VERSION", "check_version"]

_WELL_FORMED = re.compile(r"[1-9]\d?\.\d{1,2}|Preview|Unstable", re.ASCII)


def check_version(version: object) -> str:
    """Returns a version as the header has it.

    ``IntercomVersion`` lists the known versions. Any other of the same form, such as a future
    "2.17", is accepted too, because Intercom publishes versions before this package knows them.

    Raises:
        ConfigurationError: It is neither of the form "2.16" nor "Preview" nor "Unstable".
    """
    if isinstance(version, str) and _WELL_FORMED.fullmatch(version):
        return version
    must = f"version must be an API version such as {API_VERSION!r} or 'Preview'"
    remedy = f"pass the string {str(version)!r}" if isinstance(version, float) else ""
    raise invalid(ConfigurationError, must, version, remedy)
