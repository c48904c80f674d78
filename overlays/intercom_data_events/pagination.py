"""The answers to queries: listings, by page or by event, and summaries.

Only the query of a next page's address is used, with the client's own host and path. The access
token is never sent to a host that an answer names.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast
from urllib.parse import parse_qsl, quote, urlencode

from attrs import define, field, frozen

from intercom_data_events import metadata as _metadata
from intercom_data_events import timestamps
from intercom_data_events._validation import invalid, read_number, short_email, short_repr
from intercom_data_events.errors import IdentityError, InvalidInputError, PaginationError
from intercom_data_events.event import Event, to_json

if TYPE_CHECKING:
    from intercom_data_events._sending.steps import Answer
    from intercom_data_events.errors import APIResponse

__all__ = ["AsyncEventList", "ContactSummary", "EventList", "EventSummary", "ListedEvent", "Page"]

T = TypeVar("T")

# The query of a page, or None for the first page; and the number of events wanted, or None for all.
_Wanted: TypeAlias = tuple[str | None, int | None]

# The number of consecutive pages without an event after which a listing counts as endless.
_MOST_EMPTY = 100
_IDENTITIES = {"user_id", "email", "intercom_user_id"}
_EMAIL = re.compile(r"(email=)[^&#]*", re.IGNORECASE)
# Characters that a query may contain unencoded; and "%", to keep what is already encoded.
_QUERY_SAFE = "!$%&'()*+,-./:;=?@_~"
# Characters. An address of httpx has at most 65,536.
_LONGEST_QUERY = 60_000


@frozen
class ListedEvent:
    """An event as Intercom lists it.

    A field is None if it is missing, null or unreadable, such as a name that is not a string. So no
    single event makes a listing unreadable.

    Attributes:
        event_name: What happened.
        created_at: When it happened: an aware datetime in UTC. The answer may contain Unix seconds
            or milliseconds, as a number or string, or ISO 8601.
        id: The identifier of the event. The `id` of an :class:`Event` is the contact's instead.
        user_id: Your own identifier for the contact; None for a lead.
        intercom_user_id: Intercom's identifier for the contact.
        email: The contact's e-mail address.
        metadata: The metadata as Python values; values of undocumented types as in the JSON.
        additional_properties: Fields that the API's description does not contain, and fields that
            cannot be read, as received.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> listed = client.list(user_id="314159").first()
        >>> listed.event_name, listed.created_at.tzname()
        ('invited-friend', 'UTC')
        >>> client.send(listed.to_event())  # Or by a client for another workspace.
    """

    event_name: str | None
    created_at: datetime | None
    id: str | None
    user_id: str | None
    intercom_user_id: str | None
    email: str | None
    metadata: Mapping[str, object] = field(hash=False)
    additional_properties: Mapping[str, object] = field(hash=False)

    def to_dict(self) -> dict[str, object]:
        """Returns the event as the API's JSON, as listed, without the fields that are not set.

        `created_at` is in integer Unix seconds. Fields that cannot be read are as received.
        """
        moment = self.created_at
        fields: dict[str, object] = {
            "type": "event",
            "event_name": self.event_name,
            # The fraction is cut off first, because a float would round it up in the far future.
            "created_at": moment and int(moment.replace(microsecond=0).timestamp()),
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

    def to_json(self) -> str:
        """Returns the result of :meth:`to_dict` as an ASCII string of JSON.

        NaN and infinity, which JSON does not have, become null.
        """
        return to_json(self.to_dict())

    def to_event(self) -> Event:
        """Returns an event that can be sent again, or to another workspace.

        It keeps the listed identifiers of the contact; `intercom_user_id` becomes `id`. Sent to the
        same workspace, it is not counted again, because its time is the same.

        Raises:
            InvalidInputError: The event has no name, time or contact, or the API does not accept
                one of them or the metadata.
        """
        for name in ("event_name", "created_at"):
            if getattr(self, name) is None:
                must = f"{name} of a listed event must be valid for the event to be sent again"
                remedy = f"create an Event from its fields, with a valid {name}"
                came = self.additional_properties.get(name)
                raise invalid(InvalidInputError, must, came, remedy)
        return Event(
            cast("str", self.event_name),
            user_id=self.user_id,
            email=self.email,
            id=self.intercom_user_id,
            created_at=self.created_at,
            # Metadata that is not an object is an error, not an event without metadata.
            metadata=self.additional_properties.get("metadata", self.metadata),  # type: ignore[arg-type]
        )


@frozen
class Page:
    """One page of a listing: some of a contact's events, newest first.

    Attributes:
        events: The events of the page. On the last page, `limit` may cut them off.
        since: An opaque cursor for a later ``list(since=…)``, which lists only newer events; None
            if the answer has none.
        next: An opaque cursor of the next page; None on the last page.
        additional_properties: Fields that the API's description does not contain, and fields that
            cannot be read, as received. Events that are not objects are listed in ``"events"``.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> [page] = client.list(user_id="314159").pages()
        >>> client.create("placed-order", user_id="314159")
        >>> [event.event_name for event in client.list(since=page.since)]
        ['placed-order']
    """

    events: tuple[ListedEvent, ...]
    since: str | None
    next: str | None
    additional_properties: Mapping[str, object] = field(hash=False)

    def __repr__(self) -> str:
        """Shows the number of events, but not the contact."""
        last = "the last page" if self.next is None else "not the last page"
        return f"<{type(self).__name__}: {len(self.events)} events, {last}>"


class EventList:
    """A contact's events, newest first, as an iterable that requests pages as needed.

    ``client.list(…)`` returns one. Each iteration starts from the first page.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> events = client.list(user_id="314159")
        >>> [event.event_name for event in events]
        ['invited-friend']
        >>> [len(page.events) for page in events.pages()]
        [1]
    """

    def __init__(
        self, fetch: Callable[[_Wanted], Answer[Page]], start: str, limit: int | None
    ) -> None:
        self._fetch = fetch
        self._start = start
        self._limit = limit

    def __repr__(self) -> str:
        """Says how to request the events; the contact is not shown."""
        return _shown(self, "for", self._limit)

    def __iter__(self) -> Iterator[ListedEvent]:
        """Iterates over the events of all pages."""
        for page in self.pages():
            yield from page.events

    def first(self) -> ListedEvent | None:
        """Returns the newest event, or None if there is none."""
        return next(iter(self), None)

    def pages(self) -> Iterator[Page]:
        """Iterates over the pages. Requesting one raises the errors of the client's ``list``.

        Raises:
            PaginationError: The pages do not end, or the next one cannot be requested.
        """
        steps = _steps(self._start, self._limit)
        response = None
        while True:
            try:
                query = steps.send(response)
            except StopIteration:
                return
            response = self._fetch(query)
            yield response.parsed


class AsyncEventList:
    """A contact's events, newest first, as an async iterable that requests pages as needed.

    ``client.list(…)`` of an async client returns one. Each iteration starts from the first page.

    Example:
        >>> import asyncio
        >>> from intercom_data_events import AsyncDataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     client = AsyncDataEventsClient("token", transport=Emulator().transport())
        ...     await client.create("invited-friend", user_id="314159")
        ...     async for event in client.list(user_id="314159"):
        ...         print(event.event_name)
        >>> asyncio.run(main())
        invited-friend
    """

    def __init__(
        self, fetch: Callable[[_Wanted], Awaitable[Answer[Page]]], start: str, limit: int | None
    ) -> None:
        self._fetch = fetch
        self._start = start
        self._limit = limit

    def __repr__(self) -> str:
        """Says how to request the events; the contact is not shown."""
        return _shown(self, "async for", self._limit)

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        """Iterates over the events of all pages."""
        return _AsyncEvents(self.pages())

    async def first(self) -> ListedEvent | None:
        """Returns the newest event, or None if there is none."""
        return await anext(aiter(self), None)

    def pages(self) -> AsyncIterator[Page]:
        """Iterates over the pages. Requesting one raises the errors of the client's ``list``.

        Raises:
            PaginationError: The pages do not end, or the next one cannot be requested.
        """
        return _AsyncPages(self._fetch, _steps(self._start, self._limit))


def _shown(listing: EventList | AsyncEventList, loop: str, limit: int | None) -> str:
    most = "" if limit is None else f", at most {limit}"
    return f"<{type(listing).__name__}: events of a contact{most}; request them with '{loop}'>"


# Not async generators: a caller that leaves a loop early would have to close them (PEP 533).


@define(eq=False)
class _AsyncPages:
    _fetch: Callable[[_Wanted], Awaitable[Answer[Page]]]
    _steps: Generator[_Wanted, Answer[Page] | None, None]
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


def _steps(start: str, left: int | None) -> Generator[_Wanted, Answer[Page] | None, None]:
    """Yields the query of each page, None for the first one, and receives the page.

    Args:
        start: The query of the first page.
        left: The number of events wanted; None for all.

    Raises:
        PaginationError: The pages do not end, or the next one cannot be requested.
    """
    seen = {_parameters(start)}
    query: str | None = None
    empty = 0
    while True:
        response = yield query, left
        if response is None:
            return
        page = response.parsed
        if left is not None:
            left -= len(page.events)
            if left <= 0:
                return
        if (query := page.next) is None:
            unread = page.additional_properties.get("pages")
            if isinstance(unread, dict) and unread.get("next"):
                raise PaginationError(
                    "the address of the next page must be a URL with a valid query, not "
                    f"{short_repr(_without_email(unread['next']))}; the events so far are complete",
                    _without_page(response),
                )
            return
        empty = 0 if page.events else empty + 1
        if empty == _MOST_EMPTY:
            raise PaginationError(
                f"the listing does not end: {empty} pages in a row have no events and name a next "
                "page; the events before them are complete",
                _without_page(response),
            )
        parameters = _parameters(query)
        if parameters in seen:
            raise PaginationError(
                f"the listing loops: page {len(seen)} names a next page that was already "
                "listed; the events so far are complete",
                _without_page(response),
            )
        seen.add(parameters)


def _without_page(answer: Answer[Page]) -> APIResponse[None]:
    return answer.raw.with_parsed(None)


def _parameters(query: str) -> frozenset[tuple[str, str]]:
    """Returns a query's parameters without their order, which servers change."""
    return frozenset(parse_qsl(query, keep_blank_values=True))


def query_since(since: object, given: Mapping[str, object]) -> str:
    """Returns the query of a cursor, with the given parameters that it lacks.

    Args:
        since: The cursor.
        given: Parameters of a listing: at most one identity, and the page size. An identity of
            another kind than the cursor's is not compared, because the cursor in Intercom's example
            has another kind than the query. The case of an e-mail address is not compared, either.

    Raises:
        InvalidInputError: `since` is not a cursor, or its parameters differ from those given.
        IdentityError: `since` has a different identity than the one given, or there is no identity.
    """
    query = _query(since)
    inside = dict(parse_qsl(query or ""))
    if query is None or "since" not in inside:
        must = "since must be the cursor in page.since of an earlier listing"
        raise invalid(InvalidInputError, must, _without_email(since))
    for name, value in given.items():
        is_email = name == "email"
        compared = str.lower if is_email else str
        if name in inside and compared(inside[name]) != compared(str(value)):
            kind = IdentityError if name in _IDENTITIES else InvalidInputError
            shown = short_email(inside[name]) if is_email else inside[name]
            must = f"{name} must match the cursor's, {short_repr(shown)}"
            raise invalid(kind, must, short_email(str(value)) if is_email else value)
    if inside.keys() & _IDENTITIES:
        given = {name: value for name, value in given.items() if name not in _IDENTITIES}
    elif not given.keys() & _IDENTITIES:
        raise IdentityError("the cursor names no contact: pass user_id, email or intercom_user_id")
    complete = {"type": "user", **given}
    missing = {name: value for name, value in complete.items() if name not in inside}
    return f"{query}&{urlencode(missing)}" if missing else query


def _without_email(address: object) -> object:
    """Returns an address or query for a message, without the contact's e-mail address."""
    return _EMAIL.sub(r"\1…", address) if isinstance(address, str) else address


def _query(address: object) -> str | None:
    """Returns the query of an address in an answer, or of a cursor, which is only a query.

    It is percent-encoded. None means that there is no query, or none that can be sent.
    """
    if not isinstance(address, str):
        return None
    query = address.partition("#")[0].partition("?")[2] if "?" in address else address
    if len(query) > _LONGEST_QUERY:
        return None
    try:
        encoded = quote(query, safe=_QUERY_SAFE)
    except UnicodeEncodeError:  # It contains a lone surrogate.
        return None
    is_whole = "://" in query.split("=")[0]  # An address without a query.
    return None if is_whole or len(encoded) > _LONGEST_QUERY else encoded or None


# Answers are read from their JSON, not with the generated models, because one unusual field would
# make a whole listing unreadable. Fields are removed from each object as they are read, so fields
# that cannot be read remain in it.


def _take(fields: dict[str, Any], name: str, read: Callable[[object], T | None]) -> T | None:
    """Removes a field from an object and returns its value, or None.

    None means that the field is missing, null, empty or unreadable; an unreadable field stays.
    """
    return _read(fields, name, fields.pop(name, None), read)


def _read(
    fields: dict[str, Any], name: str, value: object, read: Callable[[object], T | None]
) -> T | None:
    """Reads a field that was removed from an object, and puts it back if it cannot be read."""
    found = None if value == "" else read(value)
    if found is None:
        _put_back(fields, name, value)
    return found


def _put_back(fields: dict[str, Any], name: str, value: object) -> None:
    if value is not None and value != "":
        fields[name] = value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _identifier(value: object) -> str | None:
    """Returns an identifier: a string, or the digits of an integer."""
    if isinstance(value, str):
        return value
    number = _integer(value)
    return None if number is None else str(number)


def _integer(value: object) -> int | None:
    number = read_number(value)
    return number if isinstance(number, int) else None


def _object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _take_objects(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Removes the events from an answer and yields them, except events that are not objects.

    Raises:
        TypeError: The events are not a list.
    """
    events = fields.pop("events", None)
    if events is None:
        return
    if not isinstance(events, list):
        # Without the value, which may be personal data.
        raise TypeError(f"its events must be a list, not a value of type {type(events).__name__}")
    # Each event is released as soon as it is read. Otherwise, the garbage collector visits all of
    # them repeatedly, which takes as long as reading them.
    events.reverse()
    while events:
        event = events.pop()
        if isinstance(event, dict):
            yield event
        else:
            fields.setdefault("events", []).append(event)


def _listed_event(fields: dict[str, Any]) -> ListedEvent:
    """Reads an event."""
    # Strings that match the description are read here: a call for each would double the time.
    pop = fields.pop
    if type(name := pop("event_name", None)) is not str or not name:
        name = _read(fields, "event_name", name, _text)
    if type(user_id := pop("user_id", None)) is not str or not user_id:
        user_id = _read(fields, "user_id", user_id, _identifier)
    if type(event_id := pop("id", None)) is not str or not event_id:
        event_id = _read(fields, "id", event_id, _identifier)
    if type(intercom_user_id := pop("intercom_user_id", None)) is not str or not intercom_user_id:
        intercom_user_id = _read(fields, "intercom_user_id", intercom_user_id, _identifier)
    if type(email := pop("email", None)) is not str or not email:
        email = _read(fields, "email", email, _text)
    if (kind := pop("type", None)) != "event":
        _put_back(fields, "type", kind)
    if (created_at := timestamps.read(given := pop("created_at", None))) is None:
        _put_back(fields, "created_at", given)
    if isinstance(metadata := pop("metadata", None), dict):
        _metadata.decode_in_place(metadata)
    else:
        _put_back(fields, "metadata", metadata)
        metadata = {}
    return ListedEvent(
        name,
        created_at,
        event_id,
        user_id,
        intercom_user_id,
        email,
        metadata,
        fields or {},
    )


def read_page(fields: dict[str, Any], most: int | None = None) -> Page:
    """Reads a page of a listing.

    Args:
        fields: The JSON of the answer; fields that are read are removed from it.
        most: The largest number of events to read; None for all.

    Raises:
        TypeError: The events are not a list.
    """
    events = tuple(map(_listed_event, islice(_take_objects(fields), most)))
    pages = _take(fields, "pages", _object) or {}
    since, following = _take(pages, "since", _query), _take(pages, "next", _query)
    if pages:
        fields["pages"] = pages
    return Page(events, since, following, fields)


@frozen
class EventSummary:
    """A contact's events of one name, counted. A field that the answer lacks is None.

    Attributes:
        name: What happened.
        count: How often it happened.
        first: When it first happened: an aware datetime in UTC.
        last: When it last happened: an aware datetime in UTC.
        description: The description of the event name.
        additional_properties: Fields that the API's description does not contain, and fields that
            cannot be read, as received.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159", created_at="2026-01-31T12:00:00Z")
        >>> client.create("invited-friend", user_id="314159", created_at="2026-02-28T12:00:00Z")
        >>> [summary] = client.summary(user_id="314159")
        >>> summary.name, summary.count, summary.last.isoformat()
        ('invited-friend', 2, '2026-02-28T12:00:00+00:00')
    """

    name: str | None
    count: int | None
    first: datetime | None
    last: datetime | None
    description: str | None
    additional_properties: Mapping[str, object] = field(hash=False)


@frozen
class ContactSummary:
    """A contact's events, counted by name; an iterable of :class:`EventSummary`.

    Attributes:
        events: One item for each event name of the contact. Events that are older than 90 days
            count, too.
        user_id: Your own identifier for the contact, or None.
        email: The contact's e-mail address, or None.
        intercom_user_id: Intercom's identifier for the contact, or None.
        additional_properties: Fields that the API's description does not contain, and fields that
            cannot be read, as received. Events that are not objects are listed in ``"events"``.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> client.create("placed-order", user_id="314159")
        >>> summary = client.summary(user_id="314159")
        >>> len(summary), [event.name for event in summary]
        (2, ['invited-friend', 'placed-order'])
    """

    events: tuple[EventSummary, ...]
    user_id: str | None
    email: str | None
    intercom_user_id: str | None
    additional_properties: Mapping[str, object] = field(hash=False)

    def __iter__(self) -> Iterator[EventSummary]:
        """Iterates over the events."""
        return iter(self.events)

    def __len__(self) -> int:
        """Returns the number of event names."""
        return len(self.events)


def _event_summary(fields: dict[str, Any]) -> EventSummary:
    """Reads an item of a summary."""
    return EventSummary(
        _take(fields, "name", _text),
        _take(fields, "count", _integer),
        _take(fields, "first", timestamps.read),
        _take(fields, "last", timestamps.read),
        _take(fields, "description", _text),
        fields,
    )


def read_summary(fields: dict[str, Any]) -> ContactSummary:
    """Reads a summary.

    Args:
        fields: The JSON of the answer; fields that are read are removed from it.

    Raises:
        TypeError: The events are not a list.
    """
    return ContactSummary(
        tuple(map(_event_summary, _take_objects(fields))),
        _take(fields, "user_id", _identifier),
        _take(fields, "email", _text),
        _take(fields, "intercom_user_id", _identifier),
        fields,
    )
