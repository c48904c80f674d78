from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.data_event_list_type import DataEventListType, check_data_event_list_type
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.data_event import DataEvent
    from ..models.data_event_list_pages import DataEventListPages


T = TypeVar("T", bound="DataEventList")


@_attrs_define(kw_only=True)
class DataEventList:
    """A page of a contact's events, newest first.

    Attributes:
        type_ (DataEventListType):
        events (list[DataEvent | None] | None | Unset): The page's events.
        pages (DataEventListPages | None | Unset): The addresses to continue from.
    """

    type_: DataEventListType
    events: list[DataEvent | None] | None | Unset = UNSET
    pages: DataEventListPages | None | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.data_event import DataEvent
        from ..models.data_event_list_pages import DataEventListPages

        type_: str = self.type_

        events: list[dict[str, Any] | None] | None | Unset
        if isinstance(self.events, Unset):
            events = UNSET
        elif isinstance(self.events, list):
            events = []
            for events_type_0_item_data in self.events:
                events_type_0_item: dict[str, Any] | None
                if isinstance(events_type_0_item_data, DataEvent):
                    events_type_0_item = events_type_0_item_data.to_dict()
                else:
                    events_type_0_item = events_type_0_item_data
                events.append(events_type_0_item)

        else:
            events = self.events

        pages: dict[str, Any] | None | Unset
        if isinstance(self.pages, Unset):
            pages = UNSET
        elif isinstance(self.pages, DataEventListPages):
            pages = self.pages.to_dict()
        else:
            pages = self.pages

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "type": type_,
            }
        )
        if events is not UNSET:
            field_dict["events"] = events
        if pages is not UNSET:
            field_dict["pages"] = pages

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.data_event import DataEvent
        from ..models.data_event_list_pages import DataEventListPages

        d = dict(src_dict)
        type_ = check_data_event_list_type(d.pop("type"))

        def _parse_events(data: object) -> list[DataEvent | None] | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, list):
                    raise TypeError()
                events_type_0 = []
                _events_type_0 = data
                for events_type_0_item_data in _events_type_0:

                    def _parse_events_type_0_item(data: object) -> DataEvent | None:
                        if data is None:
                            return data
                        try:
                            if not isinstance(data, dict):
                                raise TypeError()
                            events_type_0_item_type_0 = DataEvent.from_dict(data)

                            return events_type_0_item_type_0
                        except (TypeError, ValueError, AttributeError, KeyError):
                            pass
                        return cast(DataEvent | None, data)

                    events_type_0_item = _parse_events_type_0_item(events_type_0_item_data)

                    events_type_0.append(events_type_0_item)

                return events_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(list[DataEvent | None] | None | Unset, data)

        events = _parse_events(d.pop("events", UNSET))

        def _parse_pages(data: object) -> DataEventListPages | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                pages_type_0 = DataEventListPages.from_dict(data)

                return pages_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(DataEventListPages | None | Unset, data)

        pages = _parse_pages(d.pop("pages", UNSET))

        data_event_list = cls(
            type_=type_,
            events=events,
            pages=pages,
        )

        data_event_list.additional_properties = d
        return data_event_list

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
