"""The verbs of a client, bound to one contact.

The functions here are the operations of a contact: those of a client, without the arguments that
identify the contact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import asdict, field, frozen

from intercom_data_events._sending import operations, verbs
from intercom_data_events.errors import IdentityError

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.pagination import ContactSummary, Page
    from intercom_data_events.timestamps import Timestamp

__all__ = ["AsyncContact", "Contact", "Identity"]


@frozen
class Identity:
    """A contact's identity: exactly one of the three is not None.

    Attributes:
        user_id: Your own identifier.
        email: The e-mail address.
        id: Intercom's identifier; listings call it ``intercom_user_id``.
    """

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def of_query(self) -> dict[str, str | None]:
        """Returns the identities by the names that queries use."""
        return {"user_id": self.user_id, "email": self.email, "intercom_user_id": self.id}

    def of_summary(self) -> str:
        """Returns the user_id, the only identity that the API accepts for adding summaries.

        Raises:
            IdentityError: The identity is another one.
        """
        if self.user_id is None:
            raise IdentityError("create_summary needs a user_id; use client.contact(user_id=...)")
        return self.user_id


def _create(
    _contact: Identity,
    /,
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


def _list(
    _contact: Identity,
    /,
    *,
    per_page: int | None = None,
    since: str | None = None,
    limit: int | None = None,
) -> Operation[Page]:
    """Lists this contact's events of the last 90 days, newest first.

    Iterating requests one page after another; nothing is sent before that.

    Args:
        per_page: How many events a page holds; Intercom's default is 15.
        since: The cursor in ``page.since`` of an earlier listing; lists newer events. A `per_page`
            that is passed as well must be the cursor's, unless it has none.
        limit: How many events to list at most; no page is requested beyond these.

    Raises:
        InvalidInputError: The API does not accept an argument; nothing was sent. All other errors
            occur when a page is requested.
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects it; ``NotFoundError`` if the contact does not exist.
        InvalidResponseError: No attempt got an answer as described.
    """
    return operations.list_(**_contact.of_query(), per_page=per_page, since=since, limit=limit)


def _summary(_contact: Identity, /) -> Operation[ContactSummary]:
    """Counts this contact's events by name, including those older than 90 days.

    Raises:
        APIConnectionError: No attempt got a whole answer.
        APIStatusError: Intercom rejects it; ``NotFoundError`` if the contact does not exist.
        InvalidResponseError: No attempt got an answer as described.
    """
    return operations.summary(**_contact.of_query())


def _create_summary(
    _contact: Identity, /, *, event_name: str, count: int, first: Timestamp, last: Timestamp
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


def _shown(contact: Contact | AsyncContact) -> str:
    known = (f"{k}={v!r}" for k, v in asdict(contact.identity).items() if v is not None)
    return f"{type(contact).__name__}({', '.join(known)})"


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

    def __repr__(self) -> str:
        """Shows the identity."""
        return _shown(self)

    create = verbs.bound(verbs.verb(_create))
    list = verbs.bound(verbs.listing(_list))
    summary = verbs.bound(verbs.verb(_summary))
    create_summary = verbs.bound(verbs.verb(_create_summary))


@frozen
class AsyncContact:
    """The verbs of an :class:`AsyncDataEventsClient`, bound to one contact.

    All but ``list`` are awaited.
    """

    _client: verbs.AsyncPerformer = field(repr=False)
    identity: Identity

    def __repr__(self) -> str:
        """Shows the identity."""
        return _shown(self)

    create = verbs.bound(verbs.averb(_create))
    list = verbs.bound(verbs.alisting(_list))
    summary = verbs.bound(verbs.averb(_summary))
    create_summary = verbs.bound(verbs.averb(_create_summary))
