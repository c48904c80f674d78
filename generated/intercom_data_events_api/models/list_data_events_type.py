from typing import Literal

#: The values that the API's description lists.
#:
#: Example:
#:     >>> from typing import get_args
#:     >>> values = get_args(ListDataEventsType)  # All of them, as a tuple.
ListDataEventsType = Literal["user"]

LIST_DATA_EVENTS_TYPE_VALUES: set[ListDataEventsType] = {
    "user",
}


def check_list_data_events_type(value: str) -> ListDataEventsType:
    if value in LIST_DATA_EVENTS_TYPE_VALUES:
        return value
    raise TypeError(f"Unexpected value {value!r}. Expected one of {LIST_DATA_EVENTS_TYPE_VALUES!r}")
