from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="CreateDataEventSummariesRequestEventSummaries")


@_attrs_define(kw_only=True)
class CreateDataEventSummariesRequestEventSummaries:
    """How often, and when, the contact did something.

    Attributes:
        event_name (str): What happened.
        count (int): How many times it happened.
        first (int): When it happened first, in Unix seconds.
        last (int): When it happened last, in Unix seconds.
    """

    event_name: str
    count: int
    first: int
    last: int
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        event_name = self.event_name

        count = self.count

        first = self.first

        last = self.last

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "event_name": event_name,
                "count": count,
                "first": first,
                "last": last,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        event_name = d.pop("event_name")

        count = d.pop("count")

        first = d.pop("first")

        last = d.pop("last")

        create_data_event_summaries_request_event_summaries = cls(
            event_name=event_name,
            count=count,
            first=first,
            last=last,
        )

        create_data_event_summaries_request_event_summaries.additional_properties = d
        return create_data_event_summaries_request_event_summaries

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
