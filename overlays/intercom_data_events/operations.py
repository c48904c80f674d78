"""What each verb of the clients asks of the generated functions, for both kinds of client.

An operation is made from checked arguments, says which generated function to call with what, and
how to read the answer. The clients only perform it, blocking or awaiting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar
from urllib.parse import parse_qsl, urlencode

from attrs import frozen

from intercom_data_events import timestamps
from intercom_data_events.checks import shown, whole_number
from intercom_data_events.errors import APIResponse, IdentityError, InvalidInputError
from intercom_data_events.event import Event, check_event_name, check_identities
from intercom_data_events.retry import Effect
from intercom_data_events.sending import Call
from intercom_data_events_api.errors import UnexpectedStatus

if TYPE_CHECKING:
    import httpx

    from intercom_data_events.connections import Pool
    from intercom_data_events.pagination import Page
    from intercom_data_events.settings import Settings
    from intercom_data_events.summary import ContactSummary
    from intercom_data_events.timestamps import Timestamp


class _Generated(Protocol):
    """What all generated models can do."""

    @classmethod
    def from_dict(cls, src_dict: Mapping[str, Any]) -> Self: ...


class _Response(Protocol):
    """What all generated functions return."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...
    @property
    def content(self) -> bytes: ...
    @property
    def parsed(self) -> object: ...


class _Endpoint(Protocol):
    """What all generated modules of an operation have."""

    @property
    def sync_detailed(self) -> Callable[..., _Response]: ...
    @property
    def asyncio_detailed(self) -> Callable[..., Awaitable[_Response]]: ...


T = TypeVar("T")
_Model = TypeVar("_Model", bound=_Generated)

# What reading runs into where an answer is not as described: the generated code and the standard
# library raise these, and nothing tells them from each other.
_MISREAD = (
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    UnexpectedStatus,
    ValueError,
)


@frozen
class Operation(Generic[T]):
    """One call of a generated function.

    Attributes:
        endpoint: The generated module that has the function, blocking and awaiting.
        arguments: The function's, but for the client.
        read: Makes of the parsed answer what the verb returns.
        effect: What it does to perform it twice.
        about: Says whom or what it is about, for messages: identities, and the name of an event.
        asked: The `type` of the answer that is asked for, where there are several.
        query: The query to send instead of the one that the function makes.
        sends: The query that is sent in either case, to know it again.
        wanted: Says, before it is sent, whether it still is to be. Where it is given, waiting for
            room within the rate limit takes as long as it takes: the deadline begins after it.
    """

    endpoint: _Endpoint
    arguments: Mapping[str, Any]
    read: Callable[[object], T]
    effect: Effect
    about: Callable[[], Mapping[str, object]]
    asked: str | None = None
    query: str | None = None
    sends: str = ""
    wanted: Callable[[], bool] | None = None

    def perform(self, pool: Pool[httpx.Client], settings: Settings) -> APIResponse[T]:
        """Performs it, blocking."""
        call = self._call(pool, settings)
        try:
            return self._response(
                self.endpoint.sync_detailed(client=call.for_generated(), **self.arguments)
            )
        except _MISREAD as error:
            if call.answer is None:
                raise  # From before there was an answer, so not about one.
            raise call.unreadable(_misread(error)) from error

    async def aperform(self, pool: Pool[httpx.AsyncClient], settings: Settings) -> APIResponse[T]:
        """Performs it, awaiting."""
        call = self._call(pool, settings)
        try:
            return self._response(
                await self.endpoint.asyncio_detailed(client=call.for_generated(), **self.arguments)
            )
        except _MISREAD as error:
            if call.answer is None:
                raise  # From before there was an answer, so not about one.
            raise call.unreadable(_misread(error)) from error

    def _call(self, pool: Pool[Any], settings: Settings) -> Call:
        return Call(
            pool, settings, self.effect, self.about, self.asked, self.query, wanted=self.wanted
        )

    def _response(self, response: _Response) -> APIResponse[T]:
        return APIResponse(
            int(response.status_code),
            response.headers,  # type: ignore[arg-type]  # httpx's own, which the annotation widens
            response.content,
            self.read(response.parsed),
        )


def create(event: Event, wanted: Callable[[], bool] | None = None) -> Operation[None]:
    """Submits an event; `wanted` is that of :class:`Operation`.

    Raises:
        InvalidInputError: `event` is none.
    """
    from intercom_data_events_api.api.data_events import create_data_event

    if not isinstance(event, Event):
        raise InvalidInputError(
            f"send takes an Event, not a {type(event).__name__}; Event.from_dict makes one"
        )
    return Operation(
        create_data_event,
        # An event gives the same JSON as the generated model that is read from it (tested), of
        # which the function asks nothing else.
        {"body": event},
        _nothing,
        # Documented: contact, name and time make an event, and the time is fixed by now.
        Effect.SAME,
        # Without the metadata, which may be the caller's to change by the time.
        lambda: {name: getattr(event, name) for name in ("event_name", "user_id", "id", "email")},
        wanted=wanted,
    )


def create_summary(
    *, user_id: str, event_name: str, count: int, first: Timestamp, last: Timestamp
) -> Operation[None]:
    """Imports a summary.

    Raises:
        IdentityError: No user_id.
        InvalidInputError: No event name, a count below 1, or times in the wrong order.
        TimestampError: A time that the API would misread.
    """
    from intercom_data_events_api.api.data_events import create_data_event_summaries
    from intercom_data_events_api.models import CreateDataEventSummariesRequest

    identity = check_identities({"user_id": user_id})
    if not identity:
        raise IdentityError("a summary is imported for a user_id: give it")
    name = check_event_name(event_name)
    number = whole_number(count)
    if number is None or number < 1:
        raise InvalidInputError(f"count is {shown(count)}: it is a whole number, 1 or more")
    begin, end = timestamps.to_unix(first, "first"), timestamps.to_unix(last, "last")
    if begin > end:
        raise InvalidInputError(f"first is later than last: {shown(first)} > {shown(last)}")
    body = CreateDataEventSummariesRequest.from_dict(
        {
            **identity,
            "event_summaries": {
                "event_name": name,
                "count": number,
                "first": begin,
                "last": end,
            },
        }
    )
    return Operation(
        create_data_event_summaries,
        {"body": body},
        _nothing,
        # Inferred: nothing is documented that would tell a repeated summary from another one.
        Effect.MORE,
        lambda: {**identity, "event_name": name},
    )


def list_page(
    *,
    user_id: str | None,
    email: str | None,
    intercom_user_id: str | None,
    per_page: int | None,
    since: str | None,
) -> Operation[Page]:
    """Lists the first page of a contact's events, or of what came since a cursor was given.

    Raises:
        IdentityError: Not exactly one identity (none is needed with `since`, which has it).
        InvalidInputError: A page size below 1, or a cursor that is none.
    """
    from intercom_data_events.pagination import check_cursor

    size = whole_number(per_page)
    if per_page is not None and (size is None or size < 1):
        raise InvalidInputError(f"per_page is {shown(per_page)}: it is a whole number, 1 or more")
    cursor = None if since is None else check_cursor(since, per_page)
    identity = _one_of(
        {"user_id": user_id, "email": email, "intercom_user_id": intercom_user_id},
        optional=cursor is not None,
    )
    # Of the same kind: Intercom's example of a cursor names the contact by another identity than
    # the one that was asked for, and those cannot be compared.
    for name, value in parse_qsl(cursor or ""):
        if identity.get(name, value) != value:
            raise IdentityError(
                f"{name} is {identity[name]!r}, and the since cursor is for {value!r}"
            )
    return _listing(identity, per_page=size, query=cursor)


def next_page(query: str) -> Operation[Page]:
    """Lists the page that an answer's query leads to."""
    return _listing({}, query=query)


def summary(
    *, user_id: str | None, email: str | None, intercom_user_id: str | None
) -> Operation[ContactSummary]:
    """Summarises a contact's events.

    Raises:
        IdentityError: Not exactly one identity.
    """
    identity = _one_of({"user_id": user_id, "email": email, "intercom_user_id": intercom_user_id})
    return _query(identity, "event.summary", _read_summary, summary=True)


def _listing(
    identity: Mapping[str, str], *, per_page: int | None = None, query: str | None = None
) -> Operation[Page]:
    sizes = {} if per_page is None else {"per_page": per_page}
    return _query(identity, "event.list", _read_page, query=query, **sizes)


def _query(
    identity: Mapping[str, str],
    asked: Literal["event.list", "event.summary"],
    read: Callable[[object], T],
    *,
    query: str | None = None,
    **options: int,
) -> Operation[T]:
    from intercom_data_events_api.api.data_events import list_data_events

    # Of any type: type checkers do not match the keys of a mapping with keywords.
    arguments: dict[str, Any] = {**identity, **options}
    return Operation(
        list_data_events,
        {"type_": "user", **arguments},
        read,
        Effect.NONE,
        lambda: identity if query is None else dict(parse_qsl(query)),
        asked,
        query,
        urlencode({"type": "user", **arguments}) if query is None else query,
    )


def _one_of(given: Mapping[str, str | None], *, optional: bool = False) -> dict[str, str]:
    found = check_identities(given)
    if len(found) == 1 or (optional and not found):
        return found
    names = ", ".join(given)
    said = f"{' and '.join(found)} are given" if found else "none is given"
    raise IdentityError(f"a query is about one contact, so exactly one of {names}: {said}")


def _nothing(_: object) -> None:
    """Reads an answer that has nothing in it to read."""


def _read_page(parsed: object) -> Page:
    from intercom_data_events.pagination import read_page
    from intercom_data_events_api.models import DataEvent, DataEventList, DataEventListPages

    listed = _expected(parsed, DataEventList)
    # The generated parser hands on as it came what it cannot make a model of.
    for event in listed.events or ():
        _expected(event, DataEvent)
    if listed.pages:
        _expected(listed.pages, DataEventListPages)
    return read_page(listed)


def _read_summary(parsed: object) -> ContactSummary:
    from intercom_data_events.summary import read_summary
    from intercom_data_events_api.models import DataEventSummary, DataEventSummaryItem

    summarised = _expected(parsed, DataEventSummary)
    for item in summarised.events or ():
        if item is not None:
            _expected(item, DataEventSummaryItem)
    return read_summary(summarised)


def _expected(parsed: object, kind: type[_Model]) -> _Model:
    """Returns what was parsed if it is of the kind, or raises what making one of it raises."""
    if not isinstance(parsed, kind):
        if isinstance(parsed, dict):
            kind.from_dict(parsed)
        raise TypeError(f"expected a {kind.__name__}, not {parsed!r:.200}")
    return parsed


def _misread(error: Exception) -> str:
    """Says what is wrong with an answer that reading failed on."""
    # The generated code knows no statuses but those of the standard library.
    if isinstance(error, UnexpectedStatus) or "HTTPStatus" in str(error):
        return "of a status that is not described"
    if isinstance(error, KeyError):
        return f"with a body that lacks {error}"
    return f"with a body that is not as described: {str(error) or type(error).__name__}"
