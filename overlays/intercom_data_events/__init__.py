"""The Python client for Intercom's data events.

    from intercom_data_events import DataEventsClient

    client = DataEventsClient()  # the token is INTERCOM_ACCESS_TOKEN in the environment
    client.create("placed-order", user_id="314159")

`errors` has the tree of what can go wrong, `emulator` a stand-in for the API to test against.
"""

from intercom_data_events.__about__ import __version__
from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.contact import AsyncContact, Contact
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
    PaginationError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TimestampError,
    UnprocessableEntityError,
)
from intercom_data_events.event import Event, ListedEvent
from intercom_data_events.metadata import Metadata, MetadataValue, MonetaryAmount, RichLink
from intercom_data_events.pagination import AsyncEventList, EventList, Page
from intercom_data_events.rate_limit import RateLimit
from intercom_data_events.summary import ContactSummary, EventSummary
from intercom_data_events.timestamps import Timestamp
from intercom_data_events.version import API_VERSION, IntercomVersion

__all__ = [
    "API_VERSION",
    "APIConnectionError",
    "APIResponse",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncContact",
    "AsyncDataEventsClient",
    "AsyncEventList",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "Contact",
    "ContactSummary",
    "DataEventsClient",
    "Event",
    "EventList",
    "EventSummary",
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
    "Page",
    "PaginationError",
    "PermissionDeniedError",
    "RateLimit",
    "RateLimitError",
    "RichLink",
    "ServerError",
    "Timestamp",
    "TimestampError",
    "UnprocessableEntityError",
    "__version__",
]
