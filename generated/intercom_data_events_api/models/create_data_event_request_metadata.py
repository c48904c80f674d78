from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

if TYPE_CHECKING:
    from ..models.monetary_amount import MonetaryAmount
    from ..models.rich_link import RichLink


T = TypeVar("T", bound="CreateDataEventRequestMetadata")


@_attrs_define(kw_only=True)
class CreateDataEventRequestMetadata:
    """Up to 10 keys with more facts about the event; further keys are ignored."""

    additional_properties: dict[str, float | MonetaryAmount | RichLink | str] = _attrs_field(
        init=False, factory=dict
    )

    def to_dict(self) -> dict[str, Any]:
        from ..models.monetary_amount import MonetaryAmount
        from ..models.rich_link import RichLink

        field_dict: dict[str, Any] = {}
        for prop_name, prop in self.additional_properties.items():
            if isinstance(prop, RichLink) or isinstance(prop, MonetaryAmount):
                field_dict[prop_name] = prop.to_dict()
            else:
                field_dict[prop_name] = prop

        return field_dict

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self:
        from ..models.monetary_amount import MonetaryAmount
        from ..models.rich_link import RichLink

        d = dict(src_dict)
        create_data_event_request_metadata = cls()

        additional_properties = {}
        for prop_name, prop_dict in d.items():

            def _parse_additional_property(data: object) -> float | MonetaryAmount | RichLink | str:
                try:
                    if not isinstance(data, dict):
                        raise TypeError()
                    additional_property_type_2 = RichLink.from_dict(data)

                    return additional_property_type_2
                except (TypeError, ValueError, AttributeError, KeyError):
                    pass
                try:
                    if not isinstance(data, dict):
                        raise TypeError()
                    additional_property_type_3 = MonetaryAmount.from_dict(data)

                    return additional_property_type_3
                except (TypeError, ValueError, AttributeError, KeyError):
                    pass
                return cast(float | MonetaryAmount | RichLink | str, data)

            additional_property = _parse_additional_property(prop_dict)

            additional_properties[prop_name] = additional_property

        create_data_event_request_metadata.additional_properties = additional_properties
        return create_data_event_request_metadata

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> float | MonetaryAmount | RichLink | str:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: float | MonetaryAmount | RichLink | str) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
