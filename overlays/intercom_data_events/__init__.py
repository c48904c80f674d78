"""The Python client for Intercom's data events.

::

    from intercom_data_events import DataEventsClient

    client = DataEventsClient()  # the token is INTERCOM_ACCESS_TOKEN in the environment
    client.create("placed-order", user_id="314159")

The module `errors` lists all errors, and `emulator` is a stand-in for the API, for tests.
Importing this package does no work: each name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intercom_data_events.__about__ import __version__
    from intercom_data_events._sending.rate_limit import RateLimit
    from intercom_data_events._sending.settings import AccessToken, AsyncAccessToken, Region
    from intercom_data_events.bulk import AsyncOutcomes, Counts, EventLike, Outcome, Outcomes
    from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
    from intercom_data_events.clock import Alarm, AsyncAlarm, Clock
    from intercom_data_events.contact import AsyncContact, Contact, Identity
    from intercom_data_events.errors import (
        APIConnectionError,
        APIResponseError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ConfigurationError,
        ConflictError,
        IdentityError,
        IntercomError,
        InvalidInputError,
        InvalidResponseError,
        InvalidVersionError,
        MetadataError,
        NotFoundError,
        NotSentError,
        OutboxError,
        OutboxLockedError,
        PaginationError,
        PermissionDeniedError,
        QueueFullError,
        RateLimitError,
        ServerError,
        TimestampError,
        UnprocessableEntityError,
    )
    from intercom_data_events.event import Event
    from intercom_data_events.metadata import Metadata, MetadataValue, MonetaryAmount, RichLink
    from intercom_data_events.pagination import (
        AsyncEventList,
        ContactSummary,
        EventList,
        EventSummary,
        ListedEvent,
        Page,
    )
    from intercom_data_events.raw import AsyncRawDataEventsClient, RawDataEventsClient
    from intercom_data_events.response import APIResponse
    from intercom_data_events.timestamps import Timestamp
    from intercom_data_events.version import API_VERSION
    from intercom_data_events_api.models import IntercomVersion

__all__ = [
    "APIConnectionError",
    "APIResponse",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "API_VERSION",
    "AccessToken",
    "Alarm",
    "AsyncAccessToken",
    "AsyncAlarm",
    "AsyncContact",
    "AsyncDataEventsClient",
    "AsyncEventList",
    "AsyncOutcomes",
    "AsyncRawDataEventsClient",
    "AuthenticationError",
    "BadRequestError",
    "Clock",
    "ConfigurationError",
    "ConflictError",
    "Contact",
    "ContactSummary",
    "Counts",
    "DataEventsClient",
    "Event",
    "EventLike",
    "EventList",
    "EventSummary",
    "Identity",
    "IdentityError",
    "IntercomError",
    "IntercomVersion",
    "InvalidInputError",
    "InvalidResponseError",
    "InvalidVersionError",
    "ListedEvent",
    "Metadata",
    "MetadataError",
    "MetadataValue",
    "MonetaryAmount",
    "NotFoundError",
    "NotSentError",
    "OutboxError",
    "OutboxLockedError",
    "Outcome",
    "Outcomes",
    "Page",
    "PaginationError",
    "PermissionDeniedError",
    "QueueFullError",
    "RateLimit",
    "RateLimitError",
    "RawDataEventsClient",
    "Region",
    "RichLink",
    "ServerError",
    "Timestamp",
    "TimestampError",
    "UnprocessableEntityError",
    "__version__",
]

# All other names are those of errors.
_NAMES = {
    ".__about__": "__version__",
    "._sending.rate_limit": "RateLimit",
    "._sending.settings": "AccessToken AsyncAccessToken Region",
    ".bulk": "AsyncOutcomes Counts EventLike Outcome Outcomes",
    ".client": "AsyncDataEventsClient DataEventsClient",
    ".clock": "Alarm AsyncAlarm Clock",
    ".contact": "AsyncContact Contact Identity",
    ".event": "Event",
    ".metadata": "Metadata MetadataValue MonetaryAmount RichLink",
    ".pagination": "AsyncEventList ContactSummary EventList EventSummary ListedEvent Page",
    ".raw": "AsyncRawDataEventsClient RawDataEventsClient",
    ".response": "APIResponse",
    ".timestamps": "Timestamp",
    ".version": "API_VERSION",
    "intercom_data_events_api.models": "IntercomVersion",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES.get(name, ".errors"), __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
