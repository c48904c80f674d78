"""The Python client for Intercom's data events.

    from intercom_data_events import DataEventsClient

    client = DataEventsClient()  # the token is INTERCOM_ACCESS_TOKEN in the environment
    client.create("placed-order", user_id="314159")

`errors` has the tree of what can go wrong, `emulator` a stand-in for the API to test against.
Importing this package does no work: each name is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intercom_data_events.__about__ import __version__
    from intercom_data_events.bulk import AsyncOutcomes, EventLike, Outcome, Outcomes
    from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
    from intercom_data_events.clock import Alarm, AsyncAlarm, Clock
    from intercom_data_events.contact import AsyncContact, Contact, Identity
    from intercom_data_events.errors import (
        APIConnectionError,
        APIResponse,
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
    from intercom_data_events.pagination import AsyncEventList, EventList, ListedEvent, Page
    from intercom_data_events.rate_limit import RateLimit
    from intercom_data_events.raw import AsyncRawDataEventsClient, RawDataEventsClient
    from intercom_data_events.settings import AccessToken, AsyncAccessToken, Region
    from intercom_data_events.summary import ContactSummary, EventSummary
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

_MODULES = {
    "APIConnectionError": "intercom_data_events.errors",
    "APIResponse": "intercom_data_events.errors",
    "APIResponseError": "intercom_data_events.errors",
    "APIStatusError": "intercom_data_events.errors",
    "APITimeoutError": "intercom_data_events.errors",
    "API_VERSION": "intercom_data_events.version",
    "AccessToken": "intercom_data_events.settings",
    "Alarm": "intercom_data_events.clock",
    "AsyncAccessToken": "intercom_data_events.settings",
    "AsyncAlarm": "intercom_data_events.clock",
    "AsyncContact": "intercom_data_events.contact",
    "AsyncDataEventsClient": "intercom_data_events.client",
    "AsyncEventList": "intercom_data_events.pagination",
    "AsyncOutcomes": "intercom_data_events.bulk",
    "AsyncRawDataEventsClient": "intercom_data_events.raw",
    "AuthenticationError": "intercom_data_events.errors",
    "BadRequestError": "intercom_data_events.errors",
    "Clock": "intercom_data_events.clock",
    "ConfigurationError": "intercom_data_events.errors",
    "ConflictError": "intercom_data_events.errors",
    "Contact": "intercom_data_events.contact",
    "ContactSummary": "intercom_data_events.summary",
    "DataEventsClient": "intercom_data_events.client",
    "Event": "intercom_data_events.event",
    "EventLike": "intercom_data_events.bulk",
    "EventList": "intercom_data_events.pagination",
    "EventSummary": "intercom_data_events.summary",
    "Identity": "intercom_data_events.contact",
    "IdentityError": "intercom_data_events.errors",
    "IntercomError": "intercom_data_events.errors",
    "IntercomVersion": "intercom_data_events_api.models",
    "InvalidInputError": "intercom_data_events.errors",
    "InvalidResponseError": "intercom_data_events.errors",
    "InvalidVersionError": "intercom_data_events.errors",
    "ListedEvent": "intercom_data_events.pagination",
    "Metadata": "intercom_data_events.metadata",
    "MetadataError": "intercom_data_events.errors",
    "MetadataValue": "intercom_data_events.metadata",
    "MonetaryAmount": "intercom_data_events.metadata",
    "NotFoundError": "intercom_data_events.errors",
    "NotSentError": "intercom_data_events.errors",
    "OutboxError": "intercom_data_events.errors",
    "OutboxLockedError": "intercom_data_events.errors",
    "Outcome": "intercom_data_events.bulk",
    "Outcomes": "intercom_data_events.bulk",
    "Page": "intercom_data_events.pagination",
    "PaginationError": "intercom_data_events.errors",
    "PermissionDeniedError": "intercom_data_events.errors",
    "QueueFullError": "intercom_data_events.errors",
    "RateLimit": "intercom_data_events.rate_limit",
    "RateLimitError": "intercom_data_events.errors",
    "RawDataEventsClient": "intercom_data_events.raw",
    "Region": "intercom_data_events.settings",
    "RichLink": "intercom_data_events.metadata",
    "ServerError": "intercom_data_events.errors",
    "Timestamp": "intercom_data_events.timestamps",
    "TimestampError": "intercom_data_events.errors",
    "UnprocessableEntityError": "intercom_data_events.errors",
    "__version__": "intercom_data_events.__about__",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
