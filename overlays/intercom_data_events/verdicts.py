"""What a failure means for whoever keeps events: whether sending one again later may go well."""

from __future__ import annotations

from enum import Enum

from intercom_data_events import retry
from intercom_data_events.errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
    InvalidVersionError,
    PermissionDeniedError,
)

# Whoever gets one of these gets it for every event.
_GENERAL = (AuthenticationError, PermissionDeniedError, InvalidVersionError, ConfigurationError)


class Verdict(Enum):
    """What a failure says about the event that met it."""

    #: The same event would meet the same error again: it is refused.
    REFUSED = "refused"
    #: It failed for the time being. Sending it again is safe, whether or not it has arrived.
    TEMPORARY = "temporary"
    #: Every event meets it, until somebody mends token, permission, version or settings.
    GENERAL = "general"


def verdict(error: IntercomError) -> Verdict:
    """Returns what an error of sending an event says about it."""
    if isinstance(error, _GENERAL):
        return Verdict.GENERAL
    if isinstance(error, APIStatusError):
        status = error.status_code
        refused = 400 <= status < 500 and status not in retry.RETRIED_STATUSES
        if refused and not error.may_have_been_processed:
            return Verdict.REFUSED
    return Verdict.REFUSED if isinstance(error, InvalidInputError) else Verdict.TEMPORARY
