"""Summaries: how often a contact did something, when first and when last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from attrs import field, frozen

from intercom_data_events import timestamps
from intercom_data_events._validation import text_or_none

if TYPE_CHECKING:
    from intercom_data_events_api.models import DataEventSummary, DataEventSummaryItem


@frozen
class EventSummary:
    """A contact's events of one name.

    Attributes:
        name: What happened.
        count: How many times, or None where the answer does not say.
        first: When it happened first, an aware datetime in UTC, or None.
        last: When it happened last, an aware datetime in UTC, or None.
        description: What the event's name means, or None.
        additional_properties: Fields that the API's description does not know, as received.
    """

    name: str | None
    count: int | None
    first: datetime | None
    last: datetime | None
    description: str | None
    additional_properties: Mapping[str, object] = field(hash=False)


@frozen
class ContactSummary:
    """A contact's events, counted by name.

    Attributes:
        events: One item for each event name of the contact, old events included.
        user_id: Your own identifier of the contact, or None.
        email: The contact's e-mail address, or None.
        intercom_user_id: Intercom's identifier of the contact, or None.
        additional_properties: Fields that the API's description does not know, as received.
    """

    events: tuple[EventSummary, ...]
    user_id: str | None
    email: str | None
    intercom_user_id: str | None
    additional_properties: Mapping[str, object] = field(hash=False)


def _event_summary(item: DataEventSummaryItem) -> EventSummary:
    """Converts the generated model.

    Raises:
        ValueError: A string is not a time.
        TypeError: A field has a wrong type.
    """
    return EventSummary(
        text_or_none(item.name, "name"),
        item.count if type(item.count) is int else None,
        timestamps.read(item.first or None, "first"),
        timestamps.read(item.last or None, "last"),
        text_or_none(item.description, "description"),
        item.additional_properties,
    )


def make_summary(summary: DataEventSummary) -> ContactSummary:
    """Converts the generated model, without the items that are null.

    Raises:
        AttributeError, TypeError, ValueError: A field is not as described.
    """
    return ContactSummary(
        tuple(_event_summary(item) for item in summary.events or () if item is not None),
        text_or_none(summary.user_id, "user_id"),
        text_or_none(summary.email, "email"),
        text_or_none(summary.intercom_user_id, "intercom_user_id"),
        summary.additional_properties,
    )
