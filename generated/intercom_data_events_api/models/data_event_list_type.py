from typing import Literal

#: The values that the API's description lists.
#:
#: Example:
#:     >>> from typing import get_args
#:     >>> values = get_args(DataEventListType)  # All of them, as a tuple.
DataEventListType = Literal["event.list"]

DATA_EVENT_LIST_TYPE_VALUES: set[DataEventListType] = {
    "event.list",
}


def check_data_event_list_type(value: str) -> DataEventListType:
    if value in DATA_EVENT_LIST_TYPE_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {DATA_EVENT_LIST_TYPE_VALUES!r}")
