"""The verbs: each has its signature, docstring, checks and request in one function.

The methods of all clients are made from these functions; those of contacts are made from the ones
in :mod:`intercom_data_events.contact`, which call these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from intercom_data_events import timestamps
from intercom_data_events._sending import reading
from intercom_data_events._sending.request import Idempotency, Operation
from intercom_data_events._validation import invalid, invalid_type, short_repr, whole_number
from intercom_data_events.errors import IdentityError, InvalidInputError
from intercom_data_events.event import Event, check_event_name, check_identities, one_identity

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import RawResponse
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.pagination import ContactSummary, Page
    from intercom_data_events.timestamps import Timestamp

T = TypeVar("T")


def create(
    event_name: str,
    *,
    user_id: str | None = None,
    email: str | None = None,
    id: str | None = None,
    created_at: Timestamp | None = None,
    metadata: Metadata | None = None,
    drop_excess_metadata: bool = False,
) -> Operation[None]:
    """Submits an event.

    Args:
        event_name: What happened, as a past-tense verb and a noun, such as ``placed-order``.
        user_id: Your own identifier for the contact. Pass at least one of `user_id`, `email` and
            `id`.
        email: The contact's e-mail address.
        id: Intercom's identifier for the contact, the only one that works for leads.
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
        >>> client.create("placed-order", user_id="314159", metadata={"plan": "pro"})
    """
    return send(
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


def send(event: Event) -> Operation[None]:
    """Submits an :class:`Event`.

    Args:
        event: The event. Sending it again is safe: its time is fixed, so Intercom counts it once.

    Raises:
        InvalidInputError: `event` is not an :class:`Event`; nothing was sent.
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer; sending the event again is safe.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: The answer is a success but not Intercom's, such as a login page.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.send(Event("placed-order", user_id="314159"))
    """
    from intercom_data_events_api.api.data_events import create_data_event

    if not isinstance(event, Event):
        remedy = "create one with Event.from_dict"
        raise invalid_type(InvalidInputError, "event must be an Event", event, remedy)
    return Operation(
        # The generated function only calls to_dict, and an event gives the same JSON as the
        # generated model (tested).
        create_data_event.build_request(body=event),  # type: ignore[arg-type]  # as the comment says
        reading.read_acceptance,
        # Documented: contact, name and time identify an event; its time is fixed here.
        Idempotency.IDEMPOTENT,
        # Without the metadata, which the caller may change in the meantime.
        lambda: {name: getattr(event, name) for name in ("event_name", "user_id", "id", "email")},
    )


def list_(
    *,
    user_id: str | None = None,
    email: str | None = None,
    intercom_user_id: str | None = None,
    per_page: int | None = None,
    since: str | None = None,
    limit: int | None = None,
) -> Operation[Page]:
    """Lists a contact's events of the last 90 days, newest first.

    Iterating requests one page after another; nothing is sent before that.
    ``with_raw_response.list`` requests and returns one page. The limit of 90 days is documented by
    Intercom.

    Args:
        user_id: Your own identifier for the contact. Pass exactly one of `user_id`, `email` and
            `intercom_user_id`, or none with `since`.
        email: The contact's e-mail address.
        intercom_user_id: Intercom's identifier for the contact, the only one that works for leads.
        per_page: The number of events on a page; Intercom's default is 15.
        since: The cursor ``page.since`` of an earlier listing, to list only newer events. If
            the cursor has an identity or a page size, the arguments must be the same or left out.
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
        >>> client.create("placed-order", user_id="314159")
        >>> for event in client.list(user_id="314159", limit=100):
        ...     print(event.event_name)
        placed-order
    """
    most = None if limit is None else _at_least_one("limit", limit)
    given = {"user_id": user_id, "email": email, "intercom_user_id": intercom_user_id}
    arguments: dict[str, Any] = {**one_identity(given, "a query", optional=since is not None)}
    if per_page is not None:
        arguments["per_page"] = _at_least_one("per_page", per_page)
    if since is None:
        return _query(arguments, _page_of(most))
    from intercom_data_events.pagination import query_since

    return next_page(query_since(since, arguments), most)


def next_page(query: str, most: int | None) -> Operation[Page]:
    """Lists the page of a query from an earlier answer, with at most the given number of events."""
    return _query({}, _page_of(most), query=query)


def _page_of(most: int | None) -> Callable[[RawResponse], Page]:
    return reading.read_page if most is None else partial(reading.read_page, most=most)


def _at_least_one(name: str, value: object) -> int:
    number = whole_number(value)
    if number is None or number < 1:
        raise invalid(InvalidInputError, f"{name} must be an integer of at least 1", value)
    return number


def summary(
    *, user_id: str | None = None, email: str | None = None, intercom_user_id: str | None = None
) -> Operation[ContactSummary]:
    """Counts a contact's events by name, including those older than 90 days.

    Args:
        user_id: Your own identifier for the contact. Pass exactly one of `user_id`, `email` and
            `intercom_user_id`.
        email: The contact's e-mail address.
        intercom_user_id: Intercom's identifier for the contact, the only one that works for leads.

    Raises:
        IdentityError: None of them, or several, were passed; nothing was sent.
        ConfigurationError: The function that returns the access token failed.
        APIConnectionError: No attempt got a complete answer.
        APIStatusError: Intercom rejects the request; a NotFoundError if there is no such contact.
        InvalidResponseError: No attempt got an answer that can be read.
        RuntimeError: The client is closed.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> client.create("placed-order", user_id="314159")
        >>> for event in client.summary(user_id="314159"):
        ...     print(event.name, event.count)
        placed-order 1
    """
    given = {"user_id": user_id, "email": email, "intercom_user_id": intercom_user_id}
    identity = one_identity(given, "a query")
    return _query({**identity, "summary": True}, reading.read_summary)


def create_summary(
    *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
) -> Operation[None]:
    """Adds events that happened elsewhere to a contact's summary, as a number only.

    Unlike an event, a summary that is sent twice is probably counted twice (inferred). After an
    error whose ``may_have_been_processed`` is True, look at the summary before you call again.

    Args:
        user_id: Your own identifier for the contact.
        event_name: What happened.
        count: How often it happened, at least 1.
        first: When it first happened: an aware datetime, integer Unix seconds, or an ISO 8601
            string with an offset.
        last: When it last happened.

    Raises:
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
        >>> client.create_summary(
        ...     user_id="314159", event_name="invited-friend", count=3,
        ...     first="2026-01-01T08:00:00Z", last="2026-01-31T12:00:00Z",
        ... )
    """
    from intercom_data_events_api.api.data_events import create_data_event_summaries
    from intercom_data_events_api.models import CreateDataEventSummariesRequest

    identity = check_identities({"user_id": user_id})
    if not identity:
        raise IdentityError("the summary has no contact: pass user_id")
    name = check_event_name(event_name)
    number = _at_least_one("count", count)
    begin, end = timestamps.to_unix(first, "first"), timestamps.to_unix(last, "last")
    if begin > end:
        must = f"last must be at or after first, {short_repr(first)}"
        raise invalid(InvalidInputError, must, last)
    summaries = {"event_name": name, "count": number, "first": begin, "last": end}
    body = CreateDataEventSummariesRequest.from_dict({**identity, "event_summaries": summaries})
    return Operation(
        create_data_event_summaries.build_request(body=body),
        reading.read_acceptance,
        # Inferred: no documented field distinguishes a repeated summary from a second one.
        Idempotency.UNSAFE,
        lambda: {**identity, "event_name": name},
    )


def _query(
    arguments: Mapping[str, Any], read: Callable[[RawResponse], T], *, query: str | None = None
) -> Operation[T]:
    from intercom_data_events_api.api.data_events import list_data_events

    parts = list_data_events.build_request(type_="user", **arguments)
    return Operation(
        parts,
        read,
        Idempotency.SAFE,
        lambda: dict(parse_qsl(query)) if query is not None else parts["params"],
        query,
    )
