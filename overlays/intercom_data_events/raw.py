"""The verbs of a client, which return whole answers, with status, headers and body."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from intercom_data_events._sending import operations, verbs

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events._sending.steps import Answer

__all__ = ["AsyncRawDataEventsClient", "RawDataEventsClient"]

T = TypeVar("T")


class RawDataEventsClient:
    """The verbs of a client, which return the whole :class:`APIResponse`.

    ``client.with_raw_response`` is an instance. Arguments and errors are those of the client.
    ``list`` returns one page: the first one, or with `since` the first one after the cursor.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> response = client.with_raw_response.create("placed-order", user_id="314159")
        >>> response.status_code, response.headers["X-RateLimit-Limit"]
        (202, '1667')
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
    """The verbs of an async client, which return the whole :class:`APIResponse`.

    ``client.with_raw_response`` is an instance. Await every verb. ``list`` returns one page: the
    first one, or with `since` the first one after the cursor.

    Example:
        >>> import asyncio
        >>> from intercom_data_events import AsyncDataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     client = AsyncDataEventsClient("token", transport=Emulator().transport())
        ...     return await client.with_raw_response.create("placed-order", user_id="314159")
        >>> asyncio.run(main()).status_code
        202
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
