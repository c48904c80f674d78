"""Contains all the data models used in inputs/outputs"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .create_data_event_request import CreateDataEventRequest
    from .create_data_event_request_metadata import CreateDataEventRequestMetadata
    from .create_data_event_summaries_request import CreateDataEventSummariesRequest
    from .create_data_event_summaries_request_event_summaries import (
        CreateDataEventSummariesRequestEventSummaries,
    )
    from .data_event import DataEvent
    from .data_event_list import DataEventList
    from .data_event_list_pages import DataEventListPages
    from .data_event_list_type import DataEventListType
    from .data_event_metadata import DataEventMetadata
    from .data_event_summary import DataEventSummary
    from .data_event_summary_item import DataEventSummaryItem
    from .data_event_summary_pages import DataEventSummaryPages
    from .data_event_summary_type import DataEventSummaryType
    from .error import Error
    from .error_errors_item import ErrorErrorsItem
    from .intercom_version import IntercomVersion
    from .list_data_events_type import ListDataEventsType
    from .monetary_amount import MonetaryAmount
    from .rich_link import RichLink

_MODULES = {
    "CreateDataEventRequest": ".create_data_event_request",
    "CreateDataEventRequestMetadata": ".create_data_event_request_metadata",
    "CreateDataEventSummariesRequest": ".create_data_event_summaries_request",
    "CreateDataEventSummariesRequestEventSummaries": ".create_data_event_summaries_request_event_summaries",
    "DataEvent": ".data_event",
    "DataEventList": ".data_event_list",
    "DataEventListPages": ".data_event_list_pages",
    "DataEventListType": ".data_event_list_type",
    "DataEventMetadata": ".data_event_metadata",
    "DataEventSummary": ".data_event_summary",
    "DataEventSummaryItem": ".data_event_summary_item",
    "DataEventSummaryPages": ".data_event_summary_pages",
    "DataEventSummaryType": ".data_event_summary_type",
    "Error": ".error",
    "ErrorErrorsItem": ".error_errors_item",
    "IntercomVersion": ".intercom_version",
    "ListDataEventsType": ".list_data_events_type",
    "MonetaryAmount": ".monetary_amount",
    "RichLink": ".rich_link",
}

__all__ = (
    "CreateDataEventRequest",
    "CreateDataEventRequestMetadata",
    "CreateDataEventSummariesRequest",
    "CreateDataEventSummariesRequestEventSummaries",
    "DataEvent",
    "DataEventList",
    "DataEventListPages",
    "DataEventListType",
    "DataEventMetadata",
    "DataEventSummary",
    "DataEventSummaryItem",
    "DataEventSummaryPages",
    "DataEventSummaryType",
    "Error",
    "ErrorErrorsItem",
    "IntercomVersion",
    "ListDataEventsType",
    "MonetaryAmount",
    "RichLink",
)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value
