from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.create_data_event_request_metadata import CreateDataEventRequestMetadata


T = TypeVar("T", bound="CreateDataEventRequest")


@_attrs_define(kw_only=True)
class CreateDataEventRequest:
    """An event to submit; at least one of user_id, id and email is needed.

    Attributes:
        event_name (str): What happened, as a past-tense verb and a noun, such as placed-order.
        created_at (int): When it happened, in Unix seconds.
        user_id (str | Unset): Your own identifier of the contact.
        id (str | Unset): Intercom's identifier of the contact; the only one that a lead has.
        email (str | Unset): The contact's e-mail address, where it identifies contacts.
        metadata (CreateDataEventRequestMetadata | Unset): Up to 10 keys with more facts about the event; further keys
            are ignored.
    """

    event_name: str
    created_at: int
    user_id: str | Unset = UNSET
    id: str | Unset = UNSET
    email: str | Unset = UNSET
    metadata: CreateDataEventRequestMetadata | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        event_name = self.event_name

        created_at = self.created_at

        user_id = self.user_id

        id = self.id

        email = self.email

        metadata: dict[str, Any] | Unset = UNSET
        if not isinstance(self.metadata, Unset):
            metadata = self.metadata.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "event_name": event_name,
                "created_at": created_at,
            }
        )
        if user_id is not UNSET:
            field_dict["user_id"] = user_id
        if id is not UNSET:
            field_dict["id"] = id
        if email is not UNSET:
            field_dict["email"] = email
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.create_data_event_request_metadata import CreateDataEventRequestMetadata

        d = dict(src_dict)
        event_name = d.pop("event_name")

        created_at = d.pop("created_at")

        user_id = d.pop("user_id", UNSET)

        id = d.pop("id", UNSET)

        email = d.pop("email", UNSET)

        _metadata = d.pop("metadata", UNSET)
        metadata: CreateDataEventRequestMetadata | Unset
        if isinstance(_metadata, Unset):
            metadata = UNSET
        else:
            metadata = CreateDataEventRequestMetadata.from_dict(_metadata)

        create_data_event_request = cls(
            event_name=event_name,
            created_at=created_at,
            user_id=user_id,
            id=id,
            email=email,
            metadata=metadata,
        )

        create_data_event_request.additional_properties = d
        return create_data_event_request

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
