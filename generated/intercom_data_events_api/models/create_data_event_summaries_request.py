from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.create_data_event_summaries_request_event_summaries import (
        CreateDataEventSummariesRequestEventSummaries,
    )


T = TypeVar("T", bound="CreateDataEventSummariesRequest")


@_attrs_define(kw_only=True)
class CreateDataEventSummariesRequest:
    """A summary of one contact's events of one name.

    Attributes:
        user_id (str): Your own identifier of the contact.
        event_summaries (CreateDataEventSummariesRequestEventSummaries): How often, and when, the contact did something.
    """

    user_id: str
    event_summaries: CreateDataEventSummariesRequestEventSummaries
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        user_id = self.user_id

        event_summaries = self.event_summaries.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "user_id": user_id,
                "event_summaries": event_summaries,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.create_data_event_summaries_request_event_summaries import (
            CreateDataEventSummariesRequestEventSummaries,
        )

        d = dict(src_dict)
        user_id = d.pop("user_id")

        event_summaries = CreateDataEventSummariesRequestEventSummaries.from_dict(
            d.pop("event_summaries")
        )

        create_data_event_summaries_request = cls(
            user_id=user_id,
            event_summaries=event_summaries,
        )

        create_data_event_summaries_request.additional_properties = d
        return create_data_event_summaries_request

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
