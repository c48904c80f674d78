"""The version of Intercom's API that requests use."""

from __future__ import annotations

import re
from typing import Final

from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError
from intercom_data_events_api import API_VERSION as _GENERATED_FROM

__all__ = ["API_VERSION", "check_version"]

#: The API version that this package was generated from, and the default of every client.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> DataEventsClient("token").version == API_VERSION
#:     True
API_VERSION: Final = _GENERATED_FROM

_WELL_FORMED = re.compile(r"[1-9]\d?\.\d{1,2}|Preview|Unstable", re.ASCII)


def check_version(version: object) -> str:
    """Returns a version in the form of the ``Intercom-Version`` header.

    ``IntercomVersion`` lists the known versions. Others of the same form, such as a future "2.17",
    are accepted, too, because Intercom publishes versions before this package lists them.

    Args:
        version: A version such as "2.16", or "Preview" or its earlier name "Unstable".

    Raises:
        ConfigurationError: `version` does not have one of these forms.

    Example:
        >>> check_version("2.17")
        '2.17'
    """
    if isinstance(version, str) and _WELL_FORMED.fullmatch(version):
        return version
    must = f"version must be an API version such as {API_VERSION!r} or 'Preview'"
    remedy = f"pass the string {str(version)!r}" if isinstance(version, float) else ""
    raise invalid(ConfigurationError, must, version, remedy)
