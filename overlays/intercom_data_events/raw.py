"""The verbs of a client; each returns the whole answer, with status and headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from intercom_data_events._sending import operations, verbs

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events._sending.steps import Answer

__all__ = ["AsyncRawDataEventsClient", "RawDataEventsClient"]

T = TypeVar("T")


class RawDataEventsClient:
    """The type of ``client.with_raw_response``; arguments and errors are those of the client.

    ``list`` returns one page: the first one, or the first one after a cursor.
    """

    def __init__(self, client: verbs.Performer) -> None:
        self._client = client

    def __repr__(self) -> str:
        """Shows the client."""
        return f"{type(self).__name__}({self._client!r})"

    def _perform(self, operation: Operation[T]) -> Answer[T]:
        return self._client._perform(operation)  # noqa: SLF001  # what a Performer is for

    create = verbs.raw(operations.create)
    send = verbs.raw(operations.send)
    list = verbs.raw(operations.list_)
    summary = verbs.raw(operations.summary)
    create_summary = verbs.raw(operations.create_summary)


class AsyncRawDataEventsClient:
    """The type of ``client.with_raw_response`` of an async client; every verb is awaited.

    ``list`` returns one page: the first one, or the first one after a cursor.
    """

    def __init__(self, client: verbs.AsyncPerformer) -> None:
        self._client = client

    def __repr__(self) -> str:
        """Shows the client."""
        return f"{type(self).__name__}({self._client!r})"

    async def _perform(self, operation: Operation[T]) -> Answer[T]:
        return await self._client._perform(operation)  # noqa: SLF001  # as above

    create = verbs.araw(operations.create)
    send = verbs.araw(operations.send)
    list = verbs.araw(operations.list_)
    summary = verbs.araw(operations.summary)
    create_summary = verbs.araw(operations.create_summary)
