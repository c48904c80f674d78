"""The verbs of a contact: those of a client, without the arguments for the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from intercom_data_events._sending import operations

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events.identity import Identity
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.pagination import Page
    from intercom_data_events.summary import ContactSummary
    from intercom_data_events.timestamps import Timestamp


def create(
    _contact: Identity,
    event_name: str,
    *,
    created_at: Timestamp | None = None,
    metadata: Metadata | None = None,
    drop_excess_metadata: bool = False,
) -> Operation[None]:
    """Submits an event of this contact.

    Args:
        event_name: What happened; a good name is a past-tense verb and a noun: ``placed-order``.
        created_at: When it happened: an aware datetime, whole Unix seconds, or an ISO 8601 string
            with an offset. The default is now.
        metadata: Up to 10 keys with details; see :mod:`intercom_data_events.metadata`.
        drop_excess_metadata: Whether to drop the keys after the tenth, as Intercom does, instead
            of raising an error.

    Raises:
        InvalidInputError: The API does not accept an argument; nothing was sent.
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects it; ``NotFoundError`` if the contact does not exist.
        InvalidResponseError: A success that did not come from Intercom, such as a login page.
    """
    return operations.create(
        event_name,
        user_id=_contact.user_id,
        email=_contact.email,
        id=_contact.id,
        created_at=created_at,
        metadata=metadata,
        drop_excess_metadata=drop_excess_metadata,
    )


def list_(
    _contact: Identity, *, per_page: int | None = None, since: str | None = None
) -> Operation[Page]:
    """Lists this contact's events of the last 90 days, newest first.

    Iterating requests one page after another; nothing is sent before that.

    Args:
        per_page: How many events a page holds; Intercom's default is 15.
        since: The cursor in ``page.since`` of an earlier listing; lists newer events.

    Raises:
        InvalidInputError: The API does not accept an argument; nothing was sent. All other errors
            occur when a page is requested.
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects it; ``NotFoundError`` if the contact does not exist.
        InvalidResponseError: No attempt got an answer as described.
    """
    return operations.list_(**_contact.of_query(), per_page=per_page, since=since)


def summary(_contact: Identity) -> Operation[ContactSummary]:
    """Counts this contact's events by name, including those older than 90 days.

    Raises:
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects it; ``NotFoundError`` if the contact does not exist.
        InvalidResponseError: No attempt got an answer as described.
    """
    return operations.summary(**_contact.of_query())


def create_summary(
    _contact: Identity, *, event_name: str, count: int, first: Timestamp, last: Timestamp
) -> Operation[None]:
    """Adds events that happened elsewhere to this contact's summary, without listing each.

    Repeating it may count twice: after an error whose ``may_have_been_processed`` is true, look at
    the summary first.

    Args:
        event_name: What happened.
        count: How many times, 1 or more.
        first: When it happened first, in the form of ``created_at`` of :class:`Event`.
        last: When it happened last.

    Raises:
        IdentityError: The contact is not bound by its user_id; nothing was sent.
        InvalidInputError: The API does not accept another argument; nothing was sent.
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects the request.
        InvalidResponseError: A success that did not come from Intercom, such as a login page.
    """
    return operations.create_summary(
        user_id=_contact.of_summary(), event_name=event_name, count=count, first=first, last=last
    )
