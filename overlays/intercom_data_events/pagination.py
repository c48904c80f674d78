"""Listings: events as Intercom lists them, page by page or one after another across pages.

Of the address of a next page only the query is used, on the client's own origin and path: the
access token never goes to a host that an answer named.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from attrs import field, frozen

from intercom_data_events import metadata as _metadata
from intercom_data_events import timestamps
from intercom_data_events.checks import shown, text_or_none
from intercom_data_events.errors import APIResponse, InvalidInputError, PaginationError

if TYPE_CHECKING:
    from intercom_data_events_api.models import DataEvent, DataEventList

# What may stand in a query as it is, and "%", so that what is encoded already stays so.
# A listing that goes on for ever without ever having an event in it is none.
_MOST_EMPTY = 100
_IDENTITIES = {"user_id", "email", "intercom_user_id"}
_QUERY_SAFE = "!$%&'()*+,-./:;=?@_~"


@frozen
class ListedEvent:
    """An event as Intercom lists it.

    Attributes:
        event_name: What happened.
        created_at: When it happened, an aware datetime in UTC.
        id: The event's own identifier; of an :class:`Event` it is the contact's.
        user_id: Your own identifier of the contact; None for a lead.
        intercom_user_id: Intercom's identifier of the contact.
        email: The contact's e-mail address.
        metadata: The metadata in Python values; what is none of the documented types is there as
            JSON has it.
        additional_properties: Fields that the API's description does not know, as they came.
    """

    event_name: str
    created_at: datetime
    id: str | None
    user_id: str | None
    intercom_user_id: str | None
    email: str | None
    metadata: Mapping[str, object] = field(hash=False)
    additional_properties: Mapping[str, object] = field(hash=False)

    def to_dict(self) -> dict[str, object]:
        """Returns the event as the API's JSON, as it was listed; what it lacks is left out."""
        fields: dict[str, object] = {
            "type": "event",
            "event_name": self.event_name,
            "created_at": int(self.created_at.timestamp()),
            "user_id": self.user_id,
            "id": self.id,
            "intercom_user_id": self.intercom_user_id,
            "email": self.email,
            **self.additional_properties,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        if self.metadata:
            given["metadata"] = {
                key: _metadata.to_json(value) for key, value in self.metadata.items()
            }
        return given


@frozen
class Page:
    """Some of a contact's events, newest first.

    Attributes:
        events: The events of this page.
        since: An opaque cursor for ``list(since=…)``, which lists what is newer, later. None where
            the answer has none.
        next: An opaque cursor of the next page, or None on the last.
        additional_properties: Fields that the API's description does not know, as they came.
    """

    events: tuple[ListedEvent, ...]
    since: str | None
    next: str | None = field(repr=False)
    additional_properties: Mapping[str, object] = field(repr=False, hash=False)


class EventList:
    """A contact's events, newest first; iterating asks for page after page, as far as it gets.

    Each iteration starts anew from the first page.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> [event.event_name for event in client.list(user_id="314159")]
        ['invited-friend']
    """

    def __init__(self, fetch: Callable[[str | None], APIResponse[Page]], start: str) -> None:
        self._fetch = fetch
        self._start = start

    def __iter__(self) -> Iterator[ListedEvent]:
        """Iterates over the events of all pages."""
        for page in self.pages():
            yield from page.events

    def pages(self) -> Iterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: A next page that has been there already.
        """
        steps = _steps(self._start)
        response = None
        while True:
            try:
                query = steps.send(response)
            except StopIteration:
                return
            response = self._fetch(query)
            yield response.parsed


class AsyncEventList:
    """A contact's events, newest first; iterating asks for page after page, as far as it gets.

    Each iteration starts anew from the first page: ``async for event in client.list(…)``.
    """

    def __init__(
        self, fetch: Callable[[str | None], Awaitable[APIResponse[Page]]], start: str
    ) -> None:
        self._fetch = fetch
        self._start = start

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        """Iterates over the events of all pages."""
        return _AsyncEvents(self.pages())

    def pages(self) -> AsyncIterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: A next page that has been there already.
        """
        return _AsyncPages(self._fetch, self._start)


# Not async generators, which those who break out of a loop would have to close (PEP 533).


class _AsyncPages:
    def __init__(
        self, fetch: Callable[[str | None], Awaitable[APIResponse[Page]]], start: str
    ) -> None:
        self._fetch = fetch
        self._steps = _steps(start)
        self._response: APIResponse[Page] | None = None

    def __aiter__(self) -> AsyncIterator[Page]:
        return self

    async def __anext__(self) -> Page:
        try:
            query = self._steps.send(self._response)
        except StopIteration:
            raise StopAsyncIteration from None
        try:
            self._response = await self._fetch(query)
        except BaseException:
            # An error ends the iteration, as it ends a generator.
            self._steps.close()
            self._response = None
            raise
        return self._response.parsed


class _AsyncEvents:
    def __init__(self, pages: AsyncIterator[Page]) -> None:
        self._pages = pages
        self._events: Iterator[ListedEvent] = iter(())

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        return self

    async def __anext__(self) -> ListedEvent:
        while (event := next(self._events, None)) is None:
            page = await anext(self._pages)
            self._events = iter(page.events)
        return event


def _steps(start: str) -> Generator[str | None, APIResponse[Page] | None, None]:
    """Decides where a listing goes.

    It yields the query of each page, None for the first, and is sent the page.

    Raises:
        PaginationError: A page leads to one that has been there already.
    """
    seen = {_parameters(start)}
    query: str | None = None
    empty = 0
    while True:
        response = yield query
        if response is None or (query := response.parsed.next) is None:
            return
        empty = 0 if response.parsed.events else empty + 1
        if empty == _MOST_EMPTY:
            raise PaginationError(
                f"{empty} pages without an event followed each other, and there is still a next "
                "one; the events so far are whole",
                _without_page(response),
            )
        if _parameters(query) in seen:
            raise PaginationError(
                f"the listing goes in a circle: page {len(seen)} leads to one that was listed "
                "before; the events so far are whole",
                _without_page(response),
            )
        seen.add(_parameters(query))


def _without_page(response: APIResponse[Page]) -> APIResponse[None]:
    return APIResponse(response.status_code, response.headers, response.content, None)


def _parameters(query: str) -> frozenset[tuple[str, str]]:
    """A query in whatever order; servers turn parameters round."""
    return frozenset(parse_qsl(query, keep_blank_values=True))


def check_cursor(since: object, per_page: int | None) -> str:
    """Returns the query that a cursor stands for.

    Raises:
        InvalidInputError: It is none, or comes with a page size, which it has itself.
    """
    try:
        query = _query(since) or ""
    except (TypeError, ValueError):
        query = ""
    parameters = dict(parse_qsl(query))
    if "since" not in parameters or not parameters.keys() & _IDENTITIES:
        raise InvalidInputError(
            f"since is {shown(since)}: it is the cursor that page.since of an earlier listing holds"
        )
    if per_page is not None:
        raise InvalidInputError("per_page cannot change what a since cursor lists: leave one out")
    return query


def _query(address: object) -> str | None:
    """The query of an address that an answer has, or of a cursor, which is nothing but a query."""
    if not address:
        return None
    if not isinstance(address, str):
        raise TypeError(f"the address of a page is {shown(address)}, not text")
    query = urlsplit(address).query if "?" in address else address
    if not query or "://" in query.split("=")[0]:
        raise ValueError(
            f"the address of a page, {shown(address)}, has no query to ask for it with"
        )
    return quote(query, safe=_QUERY_SAFE)


def _listed_event(event: DataEvent) -> ListedEvent:
    """Converts the generated model.

    Raises:
        ValueError: `created_at` is beyond what a datetime can hold.
        TypeError: It is no number, or the metadata no object.
    """
    name = text_or_none(event.event_name, "event_name")
    if name is None:
        raise TypeError("its event_name is empty")
    if type(event.created_at) is not int:
        raise TypeError(f"its created_at is {shown(event.created_at)}, not Unix seconds")
    data = event.metadata
    if data and not hasattr(data, "additional_properties"):
        raise TypeError(f"its metadata is {shown(data)}, not an object")
    return ListedEvent(
        name,
        timestamps.from_unix(event.created_at),
        text_or_none(event.id, "id"),
        text_or_none(event.user_id, "user_id"),
        text_or_none(event.intercom_user_id, "intercom_user_id"),
        text_or_none(event.email, "email"),
        _metadata.decode(data.additional_properties) if data else {},
        event.additional_properties,
    )


def read_page(listed: DataEventList) -> Page:
    """Converts the generated model, and takes the events out of it.

    Raises:
        AttributeError, TypeError, ValueError: Something in it is not as described.
    """
    pages = listed.pages
    # Each is let go of as it is converted: else the collector would look at all of them, again and
    # again, and take as long as the rest.
    waiting, listed.events = [*(listed.events or ())], None
    waiting.reverse()
    events = []
    while waiting:
        events.append(_listed_event(waiting.pop()))
    return Page(
        tuple(events),
        _query(pages.since) if pages else None,
        _query(pages.next_) if pages else None,
        listed.additional_properties,
    )
