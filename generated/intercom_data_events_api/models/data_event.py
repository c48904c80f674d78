from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.data_event_metadata import DataEventMetadata


T = TypeVar("T", bound="DataEvent")


@_attrs_define(kw_only=True)
class DataEvent:
    """An event of a contact, as listed.

    Attributes:
        event_name (str): What happened.
        created_at (int): When it happened, in Unix seconds.
        type_ (None | str | Unset): Always event.
        user_id (None | str | Unset): Your own identifier of the contact.
        id (None | str | Unset): The event's own identifier.
        intercom_user_id (None | str | Unset): Intercom's identifier of the contact.
        email (None | str | Unset): The contact's e-mail address.
        metadata (DataEventMetadata | None | Unset): The metadata that the event was submitted with.
    """

    event_name: str
    created_at: int
    type_: None | str | Unset = UNSET
    user_id: None | str | Unset = UNSET
    id: None | str | Unset = UNSET
    intercom_user_id: None | str | Unset = UNSET
    email: None | str | Unset = UNSET
    metadata: DataEventMetadata | None | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        from ..models.data_event_metadata import DataEventMetadata

        event_name = self.event_name

        created_at = self.created_at

        type_: None | str | Unset
        if isinstance(self.type_, Unset):
            type_ = UNSET
        else:
            type_ = self.type_

        user_id: None | str | Unset
        if isinstance(self.user_id, Unset):
            user_id = UNSET
        else:
            user_id = self.user_id

        id: None | str | Unset
        if isinstance(self.id, Unset):
            id = UNSET
        else:
            id = self.id

        intercom_user_id: None | str | Unset
        if isinstance(self.intercom_user_id, Unset):
            intercom_user_id = UNSET
        else:
            intercom_user_id = self.intercom_user_id

        email: None | str | Unset
        if isinstance(self.email, Unset):
            email = UNSET
        else:
            email = self.email

        metadata: dict[str, Any] | None | Unset
        if isinstance(self.metadata, Unset):
            metadata = UNSET
        elif isinstance(self.metadata, DataEventMetadata):
            metadata = self.metadata.to_dict()
        else:
            metadata = self.metadata

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "event_name": event_name,
                "created_at": created_at,
            }
        )
        if type_ is not UNSET:
            field_dict["type"] = type_
        if user_id is not UNSET:
            field_dict["user_id"] = user_id
        if id is not UNSET:
            field_dict["id"] = id
        if intercom_user_id is not UNSET:
            field_dict["intercom_user_id"] = intercom_user_id
        if email is not UNSET:
            field_dict["email"] = email
        if metadata is not UNSET:
            field_dict["metadata"] = metadata

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.data_event_metadata import DataEventMetadata

        d = dict(src_dict)
        event_name = d.pop("event_name")

        created_at = d.pop("created_at")

        type_ = cast("None | str | Unset", d.pop("type", UNSET))

        user_id = cast("None | str | Unset", d.pop("user_id", UNSET))

        id = cast("None | str | Unset", d.pop("id", UNSET))

        intercom_user_id = cast("None | str | Unset", d.pop("intercom_user_id", UNSET))

        email = cast("None | str | Unset", d.pop("email", UNSET))

        def _parse_metadata(data: object) -> DataEventMetadata | None | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                metadata_type_0 = DataEventMetadata.from_dict(data)

                return metadata_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            return cast(DataEventMetadata | None | Unset, data)

        metadata = _parse_metadata(d.pop("metadata", UNSET))

        data_event = cls(
            event_name=event_name,
            created_at=created_at,
            type_=type_,
            user_id=user_id,
            id=id,
            intercom_user_id=intercom_user_id,
            email=email,
            metadata=metadata,
        )

        data_event.additional_properties = d
        return data_event

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
