"""The verbs of a client, bound to one contact."""

from __future__ import annotations

from attrs import field, frozen

from intercom_data_events._sending import contact_operations as operations
from intercom_data_events._sending import verbs
from intercom_data_events.identity import Identity

__all__ = ["AsyncContact", "Contact", "Identity"]


@frozen
class Contact:
    """The verbs of a :class:`DataEventsClient`, bound to one contact.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> contact = client.contact(user_id="314159")
        >>> contact.create("invited-friend")
        >>> [summary.name for summary in contact.summary().events]
        ['invited-friend']
    """

    _client: verbs.Performer = field(repr=False)
    identity: Identity

    create = verbs.bound(operations.create)
    list = verbs.bound_listing(operations.list_)
    summary = verbs.bound(operations.summary)
    create_summary = verbs.bound(operations.create_summary)


@frozen
class AsyncContact:
    """The verbs of an :class:`AsyncDataEventsClient`, bound to one contact.

    All but ``list`` are awaited.
    """

    _client: verbs.AsyncPerformer = field(repr=False)
    identity: Identity

    create = verbs.abound(operations.create)
    list = verbs.abound_listing(operations.list_)
    summary = verbs.abound(operations.summary)
    create_summary = verbs.abound(operations.create_summary)
