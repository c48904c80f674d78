"""The verbs of a client, bound to one contact.

The private functions make the operations of a contact. They take the arguments of a client's verbs
without the identity.
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
    """A contact's identity; exactly one of the three attributes is not None.

    Attributes:
        user_id: Your own identifier for the contact.
        email: The contact's e-mail address.
        id: Intercom's identifier for the contact; listings call it ``intercom_user_id``.

    Example:
        >>> Identity(user_id="314159").of_query()
        {'user_id': '314159', 'email': None, 'intercom_user_id': None}
    """

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def of_query(self) -> dict[str, str | None]:
        """Returns the identity as the arguments of ``list`` and ``summary``."""
        return {"user_id": self.user_id, "email": self.email, "intercom_user_id": self.id}

    def of_summary(self) -> str:
        """Returns the user_id, the only identity that Intercom documents for adding summaries.

        Raises:
            IdentityError: The identity is an email or id.
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
        event_name: What happened, as a past-tense verb and a noun, such as ``placed-order``.
        created_at: When it happened: an aware datetime, integer Unix seconds, or an ISO 8601 string
            with an offset. The default is now.
        metadata: Details, at most 10 keys; see :mod:`intercom_data_events.metadata`.
        drop_excess_metadata: Whether to drop the keys after the tenth, as Intercom does, instead
            of raising an error.

    Raises:
        InvalidInputError: The API would not accept an argument; nothing was sent.
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer; sending the event again is safe.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: The answer is a success but not Intercom's, such as a login page.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> contact = client.contact(user_id="314159")
        >>> contact.create("placed-order", metadata={"plan": "pro"})
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

    Iterating requests one page after another; nothing is sent before that. The limit of 90 days is
    documented by Intercom.

    Args:
        per_page: The number of events on a page; Intercom's default is 15.
        since: The cursor ``page.since`` of an earlier listing, to list only newer events. If
            the cursor has a page size, `per_page` must be the same or left out.
        limit: The largest number of events to list. Pages beyond it are not requested.

    Raises:
        InvalidInputError: The API would not accept an argument; nothing was sent. All other errors
            are raised when a page is requested.
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: No attempt got an answer that can be read.
        PaginationError: The pages do not end, or the next one cannot be requested.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> contact = client.contact(user_id="314159")
        >>> contact.create("placed-order")
        >>> [event.event_name for event in contact.list(limit=100)]
        ['placed-order']
    """
    return operations.list_(**_contact.of_query(), per_page=per_page, since=since, limit=limit)


def _summary(_contact: Identity, /) -> Operation[ContactSummary]:
    """Counts this contact's events by name, including those older than 90 days.

    Raises:
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: No attempt got an answer that can be read.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> contact = client.contact(user_id="314159")
        >>> contact.create("placed-order")
        >>> [(event.name, event.count) for event in contact.summary()]
        [('placed-order', 1)]
    """
    return operations.summary(**_contact.of_query())


def _create_summary(
    _contact: Identity, /, *, event_name: str, count: int, first: Timestamp, last: Timestamp
) -> Operation[None]:
    """Adds events that happened elsewhere to this contact's summary, as a number only.

    Unlike an event, a summary that is sent twice is probably counted twice (inferred). After an
    error whose ``may_have_been_processed`` is True, look at the summary before you call again.

    Args:
        event_name: What happened.
        count: How often it happened, at least 1.
        first: When it first happened: an aware datetime, integer Unix seconds, or an ISO 8601
            string with an offset.
        last: When it last happened.

    Raises:
        IdentityError: The contact is not bound by user_id; nothing was sent.
        InvalidInputError: The API would not accept an argument; nothing was sent.
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: The answer is a success but not Intercom's, such as a login page.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> contact = client.contact(user_id="314159")
        >>> contact.create_summary(
        ...     event_name="invited-friend", count=3,
        ...     first="2026-01-01T08:00:00Z", last="2026-01-31T12:00:00Z",
        ... )
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

    :meth:`DataEventsClient.contact` makes one.

    Attributes:
        identity: The identity that every call uses.

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

    :meth:`AsyncDataEventsClient.contact` makes one. Await every verb except ``list``, which is
    iterated with ``async for``.

    Attributes:
        identity: The identity that every call uses.

    Example:
        >>> import asyncio
        >>> from intercom_data_events import AsyncDataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     transport = Emulator().transport()
        ...     async with AsyncDataEventsClient("token", transport=transport) as client:
        ...         contact = client.contact(user_id="314159")
        ...         await contact.create("invited-friend")
        ...         return [event.event_name async for event in contact.list()]
        >>> asyncio.run(main())
        ['invited-friend']
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
