"""Contains all the data models used in inputs/outputs"""

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
