"""The verbs of a client, each returning the whole answer instead of what it means."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol, TypeVar

from intercom_data_events import operations
from intercom_data_events.errors import APIResponse
from intercom_data_events.event import Event

if TYPE_CHECKING:
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.operations import Operation
    from intercom_data_events.pagination import Page
    from intercom_data_events.summary import ContactSummary
    from intercom_data_events.timestamps import Timestamp

T = TypeVar("T")


class _Perform(Protocol):
    def __call__(self, operation: Operation[T]) -> APIResponse[T]: ...


class _PerformAsync(Protocol):
    def __call__(self, operation: Operation[T]) -> Awaitable[APIResponse[T]]: ...


class RawDataEventsClient:
    """What ``client.with_raw_response`` is; arguments and errors are those of the client."""

    def __init__(self, perform: _Perform) -> None:
        self._perform = perform

    def create(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> APIResponse[None]:
        """Submits an event."""
        return self.send(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    def send(self, event: Event) -> APIResponse[None]:
        """Submits an event that has been made before."""
        return self._perform(operations.create(event))

    def list(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
        per_page: int | None = None,
        since: str | None = None,
    ) -> APIResponse[Page]:
        """Lists one page of a contact's events: the first, or what is newer than a cursor."""
        return self._perform(
            operations.list_page(
                user_id=user_id,
                email=email,
                intercom_user_id=intercom_user_id,
                per_page=per_page,
                since=since,
            )
        )

    def summary(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
    ) -> APIResponse[ContactSummary]:
        """Counts a contact's events by name."""
        return self._perform(
            operations.summary(user_id=user_id, email=email, intercom_user_id=intercom_user_id)
        )

    def create_summary(
        self, *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> APIResponse[None]:
        """Adds events that happened elsewhere to a contact's summary."""
        return self._perform(
            operations.create_summary(
                user_id=user_id, event_name=event_name, count=count, first=first, last=last
            )
        )


class AsyncRawDataEventsClient:
    """What ``client.with_raw_response`` of an async client is; every verb is awaited."""

    def __init__(self, perform: _PerformAsync) -> None:
        self._perform = perform

    async def create(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> APIResponse[None]:
        """Submits an event."""
        return await self.send(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    async def send(self, event: Event) -> APIResponse[None]:
        """Submits an event that has been made before."""
        return await self._perform(operations.create(event))

    async def list(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
        per_page: int | None = None,
        since: str | None = None,
    ) -> APIResponse[Page]:
        """Lists one page of a contact's events: the first, or what is newer than a cursor."""
        return await self._perform(
            operations.list_page(
                user_id=user_id,
                email=email,
                intercom_user_id=intercom_user_id,
                per_page=per_page,
                since=since,
            )
        )

    async def summary(
        self,
        *,
        user_id: str | None = None,
        email: str | None = None,
        intercom_user_id: str | None = None,
    ) -> APIResponse[ContactSummary]:
        """Counts a contact's events by name."""
        return await self._perform(
            operations.summary(user_id=user_id, email=email, intercom_user_id=intercom_user_id)
        )

    async def create_summary(
        self, *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
    ) -> APIResponse[None]:
        """Adds events that happened elsewhere to a contact's summary."""
        return await self._perform(
            operations.create_summary(
                user_id=user_id, event_name=event_name, count=count, first=first, last=last
            )
        )
