from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="DataEventSummaryItem")


@_attrs_define(kw_only=True)
class DataEventSummaryItem:
    """How often, and when, a contact did something.

    Attributes:
        name (None | str | Unset): The event's name.
        first (None | str | Unset): When it happened first, in ISO 8601.
        last (None | str | Unset): When it happened last, in ISO 8601.
        count (int | None | Unset): How many times it happened.
        description (None | str | Unset): What the event's name means.
    """

    name: None | str | Unset = UNSET
    first: None | str | Unset = UNSET
    last: None | str | Unset = UNSET
    count: int | None | Unset = UNSET
    description: None | str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        name: None | str | Unset
        if isinstance(self.name, Unset):
            name = UNSET
        else:
            name = self.name

        first: None | str | Unset
        if isinstance(self.first, Unset):
            first = UNSET
        else:
            first = self.first

        last: None | str | Unset
        if isinstance(self.last, Unset):
            last = UNSET
        else:
            last = self.last

        count: int | None | Unset
        if isinstance(self.count, Unset):
            count = UNSET
        else:
            count = self.count

        description: None | str | Unset
        if isinstance(self.description, Unset):
            description = UNSET
        else:
            description = self.description

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if name is not UNSET:
            field_dict["name"] = name
        if first is not UNSET:
            field_dict["first"] = first
        if last is not UNSET:
            field_dict["last"] = last
        if count is not UNSET:
            field_dict["count"] = count
        if description is not UNSET:
            field_dict["description"] = description

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        d = dict(src_dict)
        name = cast("None | str | Unset", d.pop("name", UNSET))

        first = cast("None | str | Unset", d.pop("first", UNSET))

        last = cast("None | str | Unset", d.pop("last", UNSET))

        count = cast("int | None | Unset", d.pop("count", UNSET))

        description = cast("None | str | Unset", d.pop("description", UNSET))

        data_event_summary_item = cls(
            name=name,
            first=first,
            last=last,
            count=count,
            description=description,
        )

        data_event_summary_item.additional_properties = d
        return data_event_summary_item

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
