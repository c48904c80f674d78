"""What Intercom answers queries with: listings, page by page or event by event, and summaries.

Only the query of a next page's address is used, with the client's own host and path: the access
token is never sent to a host that an answer names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlsplit

from attrs import define, field, frozen

from intercom_data_events import metadata as _metadata
from intercom_data_events import timestamps
from intercom_data_events._validation import invalid, short_repr, text_or_none
from intercom_data_events.errors import InvalidInputError, PaginationError

if TYPE_CHECKING:
    from intercom_data_events._sending.steps import Answer
    from intercom_data_events.errors import APIResponse
    from intercom_data_events_api import models

# Pages without an event in succession, after which a listing is taken for one that never ends.
_MOST_EMPTY = 100
_IDENTITIES = {"user_id", "email", "intercom_user_id"}
# Characters that a query may contain unencoded; and "%", to keep what is already encoded.
_QUERY_SAFE = "!$%&'()*+,-./:;=?@_~"


@frozen
class ListedEvent:
    """An event as Intercom lists it.

    Attributes:
        event_name: What happened.
        created_at: When it happened, an aware datetime in UTC.
        id: The event's own identifier; that of an :class:`Event` is the contact's.
        user_id: Your own identifier of the contact; None for a lead.
        intercom_user_id: Intercom's identifier of the contact.
        email: The contact's e-mail address.
        metadata: The metadata in Python values; values of undocumented types are as in the JSON.
        additional_properties: Fields that the API's description does not know, as received.
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
        """Returns the event as the API's JSON, as listed, without the fields that it lacks."""
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
        since: An opaque cursor for a later ``list(since=…)``, which lists newer events. None where
            the answer has none.
        next: An opaque cursor of the next page, or None on the last page.
        additional_properties: Fields that the API's description does not know, as received.
    """

    events: tuple[ListedEvent, ...]
    since: str | None
    next: str | None = field(repr=False)
    additional_properties: Mapping[str, object] = field(repr=False, hash=False)


class EventList:
    """A contact's events, newest first; iterating requests one page after another, as needed.

    Each iteration starts from the first page.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> [event.event_name for event in client.list(user_id="314159")]
        ['invited-friend']
    """

    def __init__(self, fetch: Callable[[str | None], Answer[Page]], start: str) -> None:
        self._fetch = fetch
        self._start = start

    def __iter__(self) -> Iterator[ListedEvent]:
        """Iterates over the events of all pages."""
        for page in self.pages():
            yield from page.events

    def pages(self) -> Iterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: The next page was listed before, or the pages do not end.
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
    """A contact's events, newest first; iterating requests one page after another, as needed.

    Each iteration starts from the first page: ``async for event in client.list(…)``.
    """

    def __init__(self, fetch: Callable[[str | None], Awaitable[Answer[Page]]], start: str) -> None:
        self._fetch = fetch
        self._start = start

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        """Iterates over the events of all pages."""
        return _AsyncEvents(self.pages())

    def pages(self) -> AsyncIterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: The next page was listed before, or the pages do not end.
        """
        return _AsyncPages(self._fetch, _steps(self._start))


# Not async generators: a caller that leaves a loop early would have to close them (PEP 533).


@define(eq=False)
class _AsyncPages:
    _fetch: Callable[[str | None], Awaitable[Answer[Page]]]
    _steps: Generator[str | None, Answer[Page] | None, None]
    _response: Answer[Page] | None = None

    def __aiter__(self) -> AsyncIterator[Page]:
        return self

    async def __anext__(self) -> Page:
        try:
            self._response = await self._fetch(self._steps.send(self._response))
        except StopIteration:
            raise StopAsyncIteration from None
        except BaseException:
            # An error ends the iteration, as with a generator.
            self._steps.close()
            raise
        return self._response.parsed


@define(eq=False)
class _AsyncEvents:
    _pages: AsyncIterator[Page]
    _events: Iterator[ListedEvent] = field(factory=lambda: iter(()))

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        return self

    async def __anext__(self) -> ListedEvent:
        while (event := next(self._events, None)) is None:
            page = await anext(self._pages)
            self._events = iter(page.events)
        return event


def _steps(start: str) -> Generator[str | None, Answer[Page] | None, None]:
    """Decides which page is next.

    Yields the query of each page, None for the first one, and receives the page.

    Raises:
        PaginationError: The next page was listed before, or the pages do not end.
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
                f"the listing does not end: {empty} pages in succession have no event and name a "
                "next page; the events before them are complete",
                _without_page(response),
            )
        if _parameters(query) in seen:
            raise PaginationError(
                f"the listing goes in a circle: the next page that page {len(seen)} names was "
                "listed before; the events so far are complete",
                _without_page(response),
            )
        seen.add(_parameters(query))


def _without_page(answer: Answer[Page]) -> APIResponse[None]:
    return answer.raw.with_parsed(None)


def _parameters(query: str) -> frozenset[tuple[str, str]]:
    """Returns a query's parameters without their order, which servers change."""
    return frozenset(parse_qsl(query, keep_blank_values=True))


def check_cursor(since: object, per_page: int | None) -> str:
    """Returns the query of a cursor.

    Raises:
        InvalidInputError: It is not a cursor, or a page size is given, which the cursor contains.
    """
    try:
        query = _query(since) or ""
    except (TypeError, ValueError):
        query = ""
    parameters = dict(parse_qsl(query))
    if "since" not in parameters or not parameters.keys() & _IDENTITIES:
        must = "since must be the cursor in page.since of an earlier listing"
        raise invalid(InvalidInputError, must, since)
    if per_page is not None:
        raise InvalidInputError("per_page must not be given with since, which contains it")
    return query


def _query(address: object) -> str | None:
    """Returns the query of an address in an answer, or of a cursor, which is only a query."""
    if not address:
        return None
    if not isinstance(address, str):
        raise invalid(TypeError, "the address of a page must be a string", address)
    query = urlsplit(address).query if "?" in address else address
    if not query or "://" in query.split("=")[0]:
        raise ValueError(f"the address of a page must have a query: {short_repr(address)}")
    return quote(query, safe=_QUERY_SAFE)


def _listed_event(event: models.DataEvent) -> ListedEvent:
    """Converts the generated model.

    Raises:
        ValueError: `created_at` is out of the range of datetime.
        TypeError: A field has a wrong type.
    """
    name = text_or_none(event.event_name, "event_name")
    if name is None:
        raise TypeError("its event_name must not be empty")
    if type(event.created_at) is not int:
        raise invalid(TypeError, "its created_at must be Unix seconds", event.created_at)
    data = event.metadata
    if data and not hasattr(data, "additional_properties"):
        raise invalid(TypeError, "its metadata must be an object", data)
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


def make_page(listed: models.DataEventList) -> Page:
    """Converts the generated model, and takes the events out of it.

    Raises:
        AttributeError, TypeError, ValueError: A field is not as described.
    """
    pages = listed.pages
    # Each model is released as soon as it is converted: otherwise the garbage collector visits all
    # of them repeatedly, which takes as long as the conversion.
    waiting, listed.events = [*(listed.events or ())][::-1], None
    events = []
    while waiting:
        events.append(_listed_event(waiting.pop()))
    return Page(
        tuple(events),
        _query(pages.since) if pages else None,
        _query(pages.next_) if pages else None,
        listed.additional_properties,
    )


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


def _event_summary(item: models.DataEventSummaryItem) -> EventSummary:
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


def make_summary(summary: models.DataEventSummary) -> ContactSummary:
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
