"""What Intercom answers queries with: listings, page by page or event by event, and summaries.

Only the query of a next page's address is used, with the client's own host and path: the access
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

T = TypeVar("T")

# The query of a page, None for the first one, and how many of its events are wanted, None for all.
_Wanted: TypeAlias = tuple[str | None, int | None]

# Pages without an event in succession, after which a listing is taken for one that never ends.
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

    A field that is missing or null is None, and so is one that cannot be read, such as a name that
    is not a string: no event makes a listing unreadable. It is read from its JSON, not from the
    generated model `DataEvent`, which has no place for such fields.

    Attributes:
        event_name: What happened.
        created_at: When it happened, an aware datetime in UTC. Unix seconds and milliseconds, also
            as digits in a string, and ISO 8601 are read.
        id: The event's own identifier; that of an :class:`Event` is the contact's.
        user_id: Your own identifier of the contact; None for a lead.
        intercom_user_id: Intercom's identifier of the contact.
        email: The contact's e-mail address.
        metadata: The metadata in Python values; values of undocumented types are as in the JSON.
        additional_properties: Fields that the API's description does not know, and those that
            cannot be read, as received.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("invited-friend", user_id="314159")
        >>> listed = client.list(user_id="314159").first()
        >>> client.send(listed.to_event())
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
        """Returns the event as the API's JSON, as listed, without the fields that it lacks.

        `created_at` is in whole Unix seconds; fields that cannot be read are as received.
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
        """Returns :meth:`to_dict` as a string of JSON, in ASCII.

        NaN and infinity, which JSON does not have, are null.
        """
        return to_json(self.to_dict())

    def to_event(self) -> Event:
        """Returns an event to send, again or to another workspace.

        It has all identifiers of the contact that are listed: `intercom_user_id` is its `id`.
        Intercom counts it once in the same workspace, because its time is the same.

        Raises:
            InvalidInputError: The event has no name, time or contact, or they or the metadata are
                not what the API accepts.
        """
        for name in ("event_name", "created_at"):
            if getattr(self, name) is None:
                must = f"{name} of a listed event must be valid to send it again"
                remedy = f"create an Event from its fields, with a valid {name}"
                came = self.additional_properties.get(name)
                raise invalid(InvalidInputError, must, came, remedy)
        return Event(
            cast("str", self.event_name),
            user_id=self.user_id,
            email=self.email,
            id=self.intercom_user_id,
            created_at=self.created_at,
            # What is not an object is an error, instead of an event without it.
            metadata=self.additional_properties.get("metadata", self.metadata),  # type: ignore[arg-type]
        )


@frozen
class Page:
    """Some of a contact's events, newest first.

    Attributes:
        events: The events of this page, at most as many as the `limit` of the listing leaves.
        since: An opaque cursor for a later ``list(since=…)``, which lists newer events. None where
            the answer has none.
        next: An opaque cursor of the next page, or None on the last page.
        additional_properties: Fields that the API's description does not know, and those that
            cannot be read, as received. Where some of the events are not objects, ``"events"`` is a
            list of these.
    """

    events: tuple[ListedEvent, ...]
    since: str | None
    next: str | None
    additional_properties: Mapping[str, object] = field(hash=False)

    def __repr__(self) -> str:
        """Shows how many events there are, but not whose."""
        last = "the last page" if self.next is None else "not the last page"
        return f"<{type(self).__name__}: {len(self.events)} events, {last}>"


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

    def __init__(
        self, fetch: Callable[[_Wanted], Answer[Page]], start: str, limit: int | None
    ) -> None:
        self._fetch = fetch
        self._start = start
        self._limit = limit

    def __repr__(self) -> str:
        """Says what to do with it, and not whose events it lists."""
        return _shown(self, "for", self._limit)

    def __iter__(self) -> Iterator[ListedEvent]:
        """Iterates over the events of all pages."""
        for page in self.pages():
            yield from page.events

    def first(self) -> ListedEvent | None:
        """Returns the newest event, or None where there is none."""
        return next(iter(self), None)

    def pages(self) -> Iterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: The next page was listed before or cannot be told, or the pages do not
                end.
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
    """A contact's events, newest first; iterating requests one page after another, as needed.

    Each iteration starts from the first page: ``async for event in client.list(…)``.
    """

    def __init__(
        self, fetch: Callable[[_Wanted], Awaitable[Answer[Page]]], start: str, limit: int | None
    ) -> None:
        self._fetch = fetch
        self._start = start
        self._limit = limit

    def __repr__(self) -> str:
        """Says what to do with it, and not whose events it lists."""
        return _shown(self, "async for", self._limit)

    def __aiter__(self) -> AsyncIterator[ListedEvent]:
        """Iterates over the events of all pages."""
        return _AsyncEvents(self.pages())

    async def first(self) -> ListedEvent | None:
        """Returns the newest event, or None where there is none."""
        return await anext(aiter(self), None)

    def pages(self) -> AsyncIterator[Page]:
        """Iterates over the pages.

        Raises:
            PaginationError: The next page was listed before or cannot be told, or the pages do not
                end.
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
    """Decides which page is next.

    Yields the query of each page, None for the first one, and receives the page.

    Args:
        start: The query of the first page.
        left: How many events are wanted; None for all.

    Raises:
        PaginationError: The next page was listed before or cannot be told, or the pages do not end.
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
                    "the address of the next page must have a query that can be sent, not "
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
                f"the listing goes in a circle: page {len(seen)} names a next page that was listed "
                "before; the events so far are complete",
                _without_page(response),
            )
        seen.add(parameters)


def _without_page(answer: Answer[Page]) -> APIResponse[None]:
    return answer.raw.with_parsed(None)


def _parameters(query: str) -> frozenset[tuple[str, str]]:
    """Returns a query's parameters without their order, which servers change."""
    return frozenset(parse_qsl(query, keep_blank_values=True))


def query_since(since: object, given: Mapping[str, object]) -> str:
    """Returns the query of a cursor, completed by what was given and it lacks.

    Args:
        since: The cursor.
        given: Parameters of a listing: at most one identity, and the page size. An identity of
            another kind than the cursor's is not compared, because Intercom's example of a cursor
            has another kind than the query that it is from. Nor is the case of an e-mail address.

    Raises:
        InvalidInputError: It is not a cursor, or it has another value than was given.
        IdentityError: The same of an identity, or there is none.
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
            must = f"{name} must be that of the cursor, {short_repr(shown)}"
            raise invalid(kind, must, short_email(str(value)) if is_email else value)
    if inside.keys() & _IDENTITIES:
        given = {name: value for name, value in given.items() if name not in _IDENTITIES}
    elif not given.keys() & _IDENTITIES:
        raise IdentityError("the cursor names no contact: pass user_id, email or intercom_user_id")
    complete = {"type": "user", **given}
    missing = {name: value for name, value in complete.items() if name not in inside}
    return f"{query}&{urlencode(missing)}" if missing else query


def _without_email(address: object) -> object:
    """Returns an address or a query as a message shows it, without a contact's e-mail address."""
    return _EMAIL.sub(r"\1…", address) if isinstance(address, str) else address


def _query(address: object) -> str | None:
    """Returns the query of an address in an answer, or of a cursor, which is only a query.

    Returns:
        It, percent-encoded, or None where there is none, or none that can be sent.
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
    is_whole = "://" in query.split("=")[0]  # It is an address without a query.
    return None if is_whole or len(encoded) > _LONGEST_QUERY else encoded or None


# Answers are read from their JSON, not from the generated models, for which one odd field would
# make the whole listing unreadable. Each object is used up: what cannot be read is left in it.


def _take(fields: dict[str, Any], name: str, read: Callable[[object], T | None]) -> T | None:
    """Takes a field out of an object, unless it cannot be read.

    Returns:
        What was read; None where the field cannot be read, is missing, null or empty.
    """
    return _read(fields, name, fields.pop(name, None), read)


def _read(
    fields: dict[str, Any], name: str, value: object, read: Callable[[object], T | None]
) -> T | None:
    """Reads a field that was taken out of an object; puts back what cannot be read."""
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
    """Takes the events out of an answer, but for those that are not objects.

    Raises:
        TypeError: They are not a list.
    """
    events = fields.pop("events", None)
    if events is None:
        return
    if not isinstance(events, list):
        # Without the value, which may be an event of a person.
        raise TypeError(f"its events must be a list, not a value of type {type(events).__name__}")
    # Each is released as soon as it is read: otherwise the garbage collector visits all of them
    # repeatedly, which takes as long as reading them.
    events.reverse()
    while events:
        event = events.pop()
        if isinstance(event, dict):
            yield event
        else:
            fields.setdefault("events", []).append(event)


def _listed_event(fields: dict[str, Any]) -> ListedEvent:
    """Reads an event."""
    # Strings that are as described are read here: a call for each would take as long as all else.
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
        fields: The answer's JSON, which is used up.
        most: How many events the page has at most; None for all.

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
    """A contact's events of one name.

    Attributes:
        name: What happened.
        count: How many times, or None where the answer does not say.
        first: When it happened first, an aware datetime in UTC, or None.
        last: When it happened last, an aware datetime in UTC, or None.
        description: What the event's name means, or None.
        additional_properties: Fields that the API's description does not know, and those that
            cannot be read, as received.
    """

    name: str | None
    count: int | None
    first: datetime | None
    last: datetime | None
    description: str | None
    additional_properties: Mapping[str, object] = field(hash=False)


@frozen
class ContactSummary:
    """A contact's events, counted by name; iterating yields them.

    Attributes:
        events: One item for each event name of the contact, old events included.
        user_id: Your own identifier of the contact, or None.
        email: The contact's e-mail address, or None.
        intercom_user_id: Intercom's identifier of the contact, or None.
        additional_properties: Fields that the API's description does not know, and those that
            cannot be read, as received. Where some of the events are not objects, ``"events"`` is a
            list of these.
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
        fields: The answer's JSON, which is used up.

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
