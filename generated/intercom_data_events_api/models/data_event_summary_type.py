from typing import Literal

#: The values that the API's description lists.
#:
#: Example:
#:     >>> from typing import get_args
#:     >>> values = get_args(DataEventSummaryType)  # All of them, as a tuple.
DataEventSummaryType = Literal["event.summary"]

DATA_EVENT_SUMMARY_TYPE_VALUES: set[DataEventSummaryType] = {
    "event.summary",
}


def check_data_event_summary_type(value: str) -> DataEventSummaryType:
    if value in DATA_EVENT_SUMMARY_TYPE_VALUES:
        return value
    raise TypeError(
        f"Unexpected value {value!r}. Expected one of {DATA_EVENT_SUMMARY_TYPE_VALUES!r}"
    )
