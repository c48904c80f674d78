"""The verbs of a client, bound to one contact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from intercom_data_events.errors import IdentityError
from intercom_data_events.event import check_identities

if TYPE_CHECKING:
    from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.pagination import AsyncEventList, EventList
    from intercom_data_events.summary import ContactSummary
    from intercom_data_events.timestamps import Timestamp


@frozen
class Identity:
    """Which contact: exactly one of the three is not None.

    Attributes:
        user_id: Your own identifier.
        email: The e-mail address.
        id: Intercom's identifier; listings call it ``intercom_user_id``.
    """

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def of_summary(self) -> str:
        """The user_id, the only identity that imported summaries take.

        Raises:
            IdentityError: It is another one.
        """
        if self.user_id is None:
            raise IdentityError("a summary is imported for a user_id: bind the contact by user_id")
        return self.user_id


def one_identity(*, user_id: str | None, email: str | None, id: str | None) -> Identity:
    """Returns the one identity given.

    Raises:
        IdentityError: None is given, or several, or one that is empty or no text.
    """
    found = check_identities({"user_id": user_id, "email": email, "id": id})
    if len(found) != 1:
        said = f"{' and '.join(found)} are given" if found else "none is given"
        raise IdentityError(f"a contact is bound by exactly one of user_id, email, id: {said}")
    return Identity(**found)


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

    _client: DataEventsClient = field(repr=False)
    identity: Identity

    def create(
        self,
        event_name: str,
        *,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Submits an event; see :meth:`DataEventsClient.create`."""
        self._client.create(
            event_name,
            user_id=self.identity.user_id,
            email=self.identity.email,
            id=self.identity.id,
            created_at=created_at,
            metadata=metadata,
            drop_excess_metadata=drop_excess_metadata,
        )

    def list(self, *, per_page: int | None = None, since: str | None = None) -> EventList:
        """Lists the contact's events; see :meth:`DataEventsClient.list`."""
        return self._client.list(
            user_id=self.identity.user_id,
            email=self.identity.email,
            intercom_user_id=self.identity.id,
            per_page=per_page,
            since=since,
        )

    def summary(self) -> ContactSummary:
        """Counts the contact's events by name; see :meth:`DataEventsClient.summary`."""
        return self._client.summary(
            user_id=self.identity.user_id,
            email=self.identity.email,
            intercom_user_id=self.identity.id,
        )

    def create_summary(
        self, *, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> None:
        """Adds events that happened elsewhere; see :meth:`DataEventsClient.create_summary`.

        Raises:
            IdentityError: The contact is not bound by its user_id.
        """
        self._client.create_summary(
            user_id=self.identity.of_summary(),
            event_name=event_name,
            count=count,
            first=first,
            last=last,
        )


@frozen
class AsyncContact:
    """The verbs of an :class:`AsyncDataEventsClient`, bound to one contact."""

    _client: AsyncDataEventsClient = field(repr=False)
    identity: Identity

    async def create(
        self,
        event_name: str,
        *,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Submits an event; see :meth:`DataEventsClient.create`."""
        await self._client.create(
            event_name,
            user_id=self.identity.user_id,
            email=self.identity.email,
            id=self.identity.id,
            created_at=created_at,
            metadata=metadata,
            drop_excess_metadata=drop_excess_metadata,
        )

    def list(self, *, per_page: int | None = None, since: str | None = None) -> AsyncEventList:
        """Lists the contact's events; see :meth:`DataEventsClient.list`."""
        return self._client.list(
            user_id=self.identity.user_id,
            email=self.identity.email,
            intercom_user_id=self.identity.id,
            per_page=per_page,
            since=since,
        )

    async def summary(self) -> ContactSummary:
        """Counts the contact's events by name; see :meth:`DataEventsClient.summary`."""
        return await self._client.summary(
            user_id=self.identity.user_id,
            email=self.identity.email,
            intercom_user_id=self.identity.id,
        )

    async def create_summary(
        self, *, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> None:
        """Adds events that happened elsewhere; see :meth:`DataEventsClient.create_summary`.

        Raises:
            IdentityError: The contact is not bound by its user_id.
        """
        await self._client.create_summary(
            user_id=self.identity.of_summary(),
            event_name=event_name,
            count=count,
            first=first,
            last=last,
        )
