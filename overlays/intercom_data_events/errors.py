"""All errors of this package, as one tree.

::

    IntercomError
    ├── InvalidInputError (a ValueError)     an argument is rejected before anything is sent
    │   ├── ConfigurationError               a setting: token, version, region, address, limit
    │   ├── IdentityError                    the contact of an event or a query
    │   ├── TimestampError                   a time that the API would misread
    │   └── MetadataError                    metadata that the API does not accept; .key
    ├── OutboxError                          a tracker's file cannot be used
    │   └── OutboxLockedError                another program keeps the file locked
    ├── NotSentError                         a tracker gave up on an event
    │   └── QueueFullError                   the tracker's queue is full
    ├── APIConnectionError                   no complete answer arrived
    │   └── APITimeoutError                  no complete answer arrived in time
    └── APIResponseError                     an answer arrived; .response, .request_id
        ├── InvalidResponseError             a success not in the documented format
        │   └── PaginationError              a listing does not end, or loops
        └── APIStatusError                   any other status; .status_code .codes .message .field
            ├── BadRequestError              400
            │   └── InvalidVersionError      mostly 400, Intercom rejects the API version
            ├── AuthenticationError          401
            ├── PermissionDeniedError        403
            ├── NotFoundError                404, no such contact
            ├── ConflictError                409, several contacts share the e-mail address
            ├── UnprocessableEntityError     422
            ├── RateLimitError               429
            └── ServerError                  500 and above

Every error has :attr:`~IntercomError.may_have_been_processed`, which says whether an attempt may
have taken effect, and counts the attempts (:attr:`~IntercomError.tries`) and seconds
(:attr:`~IntercomError.elapsed`) that were spent.

Errors can be pickled. They contain neither the access token nor the headers of requests. Their
causes have no tracebacks, because those hold local variables of HTTP libraries, and with them the
token. If a function that you passed raised an exception, the message names its file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from intercom_data_events._validation import printable

if TYPE_CHECKING:
    from intercom_data_events.response import APIResponse as APIResponse

__all__ = [
    "APIConnectionError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ConfigurationError",
    "ConflictError",
    "IdentityError",
    "IntercomError",
    "InvalidInputError",
    "InvalidResponseError",
    "InvalidVersionError",
    "MetadataError",
    "NotFoundError",
    "NotSentError",
    "OutboxError",
    "OutboxLockedError",
    "PaginationError",
    "PermissionDeniedError",
    "QueueFullError",
    "RateLimitError",
    "ServerError",
    "TimestampError",
    "UnprocessableEntityError",
]

#: Replaces the access token in answers and messages that repeat it.
REMOVED = "[access token]"


def __getattr__(name: str) -> object:
    if name == "APIResponse":  # On demand, because few programs need it.
        from intercom_data_events.response import APIResponse

        return APIResponse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class IntercomError(Exception):
    """The base of all errors that this package raises on purpose.

    Attributes:
        may_have_been_processed: Whether the request may have taken effect: True if that is unknown,
            False if it certainly has not.
        tries: How many attempts were made to send the request; 0 if none.
        elapsed: Seconds from the start of the call to the error, all attempts and waits included.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.failing(503)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), max_retries=0)
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except IntercomError as error:
        ...     print(type(error).__name__, error.may_have_been_processed, error.tries)
        ServerError True 1
    """

    may_have_been_processed: bool = False
    tries: int = 0
    elapsed: float = 0.0

    def __str__(self) -> str:
        """Returns the message; quoted text is escaped, so that it cannot control a terminal."""
        return printable(super().__str__(), None)

    def __reduce__(self) -> tuple[Callable[..., IntercomError], tuple[object, ...]]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[IntercomError], arguments: tuple[object, ...], state: dict[str, object]
) -> IntercomError:
    # Not through __init__: an exception does not keep its arguments. Pickles name this function.
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class InvalidInputError(IntercomError, ValueError):
    """The API would reject or misread an argument. The request was not sent.

    The message names the argument and says what to pass instead. Retrying does not help. Code that
    catches ValueError catches this error, too.

    Example:
        >>> from intercom_data_events import Event
        >>> try:
        ...     Event("", user_id="314159")
        ... except InvalidInputError as error:
        ...     print(error)
        event_name must be a non-empty string such as 'placed-order', not ''
    """


class ConfigurationError(InvalidInputError):
    """A setting cannot be used: token, version, region, address or limit. The request was not sent.

    A client raises it when it is made. It raises it later if the function that returns the access
    token fails. Correct the setting that the message names; until then, every request fails.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> try:
        ...     DataEventsClient("token", max_retries=-1)
        ... except ConfigurationError as error:
        ...     print(error)
        max_retries must be an integer of at least 0, not -1; pass 0 to turn retries off
    """


class IdentityError(InvalidInputError):
    """A contact has no identity, too many, or one that is not a string. The request was not sent.

    An event needs at least one of user_id, email and id; a query needs exactly one identity.

    Example:
        >>> from intercom_data_events import Event
        >>> try:
        ...     Event("placed-order", user_id=314159)
        ... except IdentityError as error:
        ...     print(error)
        user_id must be a string, not 314159; pass '314159'
    """


class TimestampError(InvalidInputError):
    """A time has no time zone, has a fraction, or is out of range. The request was not sent.

    Pass an aware datetime, integer Unix seconds, or an ISO 8601 string with an offset.

    Example:
        >>> from datetime import UTC, datetime
        >>> from intercom_data_events import Event
        >>> noon = datetime(2026, 1, 31, 12)
        >>> try:
        ...     event = Event("placed-order", user_id="314159", created_at=noon)
        ... except TimestampError:
        ...     event = Event("placed-order", user_id="314159", created_at=noon.replace(tzinfo=UTC))
        >>> event.created_at.isoformat()
        '2026-01-31T12:00:00+00:00'
    """


class MetadataError(InvalidInputError):
    """The API does not accept the metadata. The request was not sent.

    The message says what to change. :mod:`intercom_data_events.metadata` lists the supported types.

    Attributes:
        key: The key that causes the error, or None if no single key does.

    Example:
        >>> from intercom_data_events import Event
        >>> try:
        ...     Event("placed-order", user_id="314159", metadata={"price": 10, "gift": True})
        ... except MetadataError as error:
        ...     print(error.key)
        gift
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class OutboxError(IntercomError):
    """An outbox cannot be used: it is missing, damaged or not writable, or the disk is full.

    The message says what to do. An event whose ``track`` raises this error was not tracked and is
    not sent; events that are in the file stay there.

    Example:
        >>> from intercom_data_events.outbox import Outbox
        >>> try:
        ...     Outbox("missing/events.outbox")
        ... except OutboxError:
        ...     print("check the path")
        check the path
    """


class OutboxLockedError(OutboxError):
    """Another program or thread kept the outbox locked for longer than a call waits.

    ``track`` waits for one second. The event was not tracked and is not sent; call again, or end
    the program that holds the lock.

    Example:
        >>> import pathlib, sqlite3, tempfile
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.tracker import Tracker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "events.outbox")
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> with Tracker(client, path) as tracker:
        ...     other = sqlite3.connect(path, isolation_level=None)
        ...     transaction = other.execute("BEGIN IMMEDIATE")
        ...     try:
        ...         tracker.track("placed-order", user_id="314159")
        ...     except OutboxLockedError:
        ...         other.close()
        ...         tracker.track("placed-order", user_id="314159")
    """


class NotSentError(IntercomError):
    """A tracker gave up on an event.

    The tracker was closed before it had sent the event, or `before_send` failed. The tracker passes
    this error to `on_error`, with the event. Only an event that was in flight when the tracker was
    closed may have been processed. Tracking it again is safe: Intercom counts an event once.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.tracker import Tracker
        >>> lost = []
        >>> def keep(event, error):
        ...     if isinstance(error, NotSentError):
        ...         lost.append(event)
        >>> def broken(event):
        ...     return event.name  # There is no such attribute.
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> with Tracker(client, before_send=broken, on_error=keep) as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        >>> [event.event_name for event in lost]
        ['placed-order']
    """


class QueueFullError(NotSentError):
    """A tracker did not accept an event because `max_queued` events are waiting. It was not sent.

    ``track`` raises it with ``when_full="raise"``; with "drop", `on_error` receives it. Track fewer
    events, raise `max_queued`, or pass ``when_full="block"``.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> from intercom_data_events.tracker import Tracker
        >>> emulator = Emulator(faults=[Fault.slow(0.1)])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> with Tracker(client, max_queued=1, when_full="raise") as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        ...     try:
        ...         tracker.track("placed-order", user_id="271828")
        ...     except QueueFullError:
        ...         print("the queue is full")
        the queue is full
    """


class APIConnectionError(IntercomError):
    """No complete answer arrived: no connection, an answer cut off, or one that is not HTTP.

    The client has already retried, unless a retry could have a second effect. An event can be sent
    again at any time. If `may_have_been_processed` is False, the request never reached Intercom.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.reset(processed=True)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), max_retries=0)
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except APIConnectionError as error:
        ...     print(error.may_have_been_processed)
        True
    """

    def __init__(self, message: str, *, may_have_been_processed: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_processed = may_have_been_processed


class APITimeoutError(APIConnectionError):
    """No complete answer arrived within `timeout`, or the request was not sent within `deadline`.

    Pass a longer `timeout`, or check the network. A request that was sent may have been processed;
    an event can be sent again at any time.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault, ManualClock
        >>> clock = ManualClock()
        >>> transport = Emulator(clock=clock, faults=[Fault.slow(60)]).transport()
        >>> client = DataEventsClient("token", transport=transport, clock=clock, max_retries=0)
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except APITimeoutError as error:
        ...     print(error.elapsed, error.may_have_been_processed)
        30.0 True
    """


class APIResponseError(IntercomError):
    """An answer arrived, but it reports a failure, or it is a success that cannot be read.

    Its subclasses say what to do. `may_have_been_processed` says whether the request may have taken
    effect.

    Attributes:
        response: The answer, with its status, headers and body.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator(contacts=[])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except APIResponseError as error:
        ...     print(error.response.status_code, error.request_id)
        404 00000001-0000-4000-9000-000000000000
    """

    def __init__(
        self, message: str, response: APIResponse[None], *, may_have_been_processed: bool = False
    ) -> None:
        super().__init__(message)
        self.response = response
        self.may_have_been_processed = may_have_been_processed

    @property
    def request_id(self) -> str | None:
        """The id that Intercom's support asks for, or None."""
        return self.response.request_id


class InvalidResponseError(APIResponseError):
    """The answer reports success but does not match the API's description.

    Another server may have sent it, such as a proxy with a login page: check `base_url` and the
    proxy. An event or a summary may have been processed. The client has already repeated queries,
    because Intercom sometimes answers 200 without JSON (observed).

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> login = Fault(name="login page", processed=False, status=200, body=b"<html>Log in")
        >>> client = DataEventsClient("token", transport=Emulator(faults=[login]).transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except InvalidResponseError as error:
        ...     print(error.response.text)
        <html>Log in
    """


class PaginationError(InvalidResponseError):
    """A listing does not end, or its next page was already listed or is not named.

    The events that were listed before the error are complete. A listing changes nothing, so nothing
    was processed; list again later.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[None, None, Fault.misleading("again")])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> client.create("placed-order", user_id="314159")
        >>> client.create("paid-order", user_id="314159")
        >>> listed = []
        >>> try:
        ...     for event in client.list(user_id="314159", per_page=1):
        ...         listed.append(event.event_name)
        ... except PaginationError:
        ...     print("listed so far:", listed)
        listed so far: ['paid-order']
    """


class APIStatusError(APIResponseError):
    """The answer reports a failure.

    Statuses without a specific class, such as 402, raise this class. A request with a status from
    400 to 499 was not processed, except for 408, 444, 460 and 499, which only say that a server
    stopped waiting. Any other request may have been processed.

    Attributes:
        status_code: The HTTP status, such as 404.
        codes: The error codes in the answer, such as ``("not_found",)``; empty if there are none.
        message: The first message in the answer, in any format: Intercom's error list, a gateway's
            JSON, plain text, or the title of an HTML page. It is one line of at most 500
            characters, and safe to print; ``response.text`` is the whole body. None if the answer
            has no message.
        field: The field or parameter that causes the error, or None.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator(contacts=[])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except APIStatusError as error:
        ...     print(error.status_code, error.codes, error.message)
        404 ('not_found',) User Not Found
    """

    def __init__(
        self, message: str, response: APIResponse[None], *, may_have_been_processed: bool = False
    ) -> None:
        super().__init__(message, response, may_have_been_processed=may_have_been_processed)
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._words import read_words

        words = read_words(response.content)
        self.status_code = response.status_code
        self.codes, self.message, self.field = words.codes, words.message, words.field


class BadRequestError(APIStatusError):
    """400: Intercom cannot understand the request, which was not processed.

    `message` and `field` say what is wrong. Retrying does not help.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.failing(400)])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except BadRequestError as error:
        ...     print(error.status_code)
        400
    """


class InvalidVersionError(BadRequestError):
    """Intercom does not accept the API version. The request was not processed.

    The answer has the code ``intercom_version_invalid``, mostly with status 400 (observed). Every
    request fails until you pass another `version` or set ``INTERCOM_VERSION``.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", version="2.99", transport=Emulator().transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except InvalidVersionError:
        ...     client.with_options(version="2.16").create("placed-order", user_id="314159")
    """


class AuthenticationError(APIStatusError):
    """401: the access token is missing, wrong or revoked. The request was not processed.

    It may also belong to another region. Every request fails until the token is replaced. A client
    whose `access_token` is a function uses a new token without a restart.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator(tokens=["new"])
        >>> client = DataEventsClient("old", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except AuthenticationError as error:
        ...     print(error.codes)
        ('unauthorized',)
    """


class PermissionDeniedError(APIStatusError):
    """403: the access token lacks a permission, or the plan does not include the request.

    The request was not processed. Give the app access to events in Intercom's Developer Hub, or
    check the region of the workspace. Every request of this kind fails until then.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.failing(403)])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except PermissionDeniedError as error:
        ...     print(error.status_code)
        403
    """


class NotFoundError(APIStatusError):
    """404: the workspace has no such contact, or the address is wrong.

    The request was not processed. Create the contact first; Intercom may answer 404 for a second or
    more after a contact was created (observed), so a later attempt may succeed. A lead can be found
    only by `id`.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import EmulatedContact, Emulator
        >>> emulator = Emulator(contacts=[])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except NotFoundError:
        ...     contact = emulator.add_contact(EmulatedContact(user_id="314159"))
        ...     client.create("placed-order", user_id="314159")
    """


class ConflictError(APIStatusError):
    """409: several contacts share the e-mail address. The request was not processed.

    Pass user_id or id instead of the e-mail address.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import EmulatedContact, Emulator
        >>> twins = [EmulatedContact(user_id=one, email="a@example.com") for one in ("1", "2")]
        >>> client = DataEventsClient("token", transport=Emulator(contacts=twins).transport())
        >>> try:
        ...     client.create("placed-order", email="a@example.com")
        ... except ConflictError:
        ...     client.create("placed-order", user_id="2")
    """


class UnprocessableEntityError(APIStatusError):
    """422: Intercom rejects the content of the request, which was not processed.

    The usual reason is a new event name while 120 names are active, the documented maximum; a 422
    for that was observed. Use an existing name, or archive names in Intercom's settings.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> try:
        ...     for number in range(121):
        ...         client.create(f"opened-page-{number}", user_id="314159")
        ... except UnprocessableEntityError as error:
        ...     print(number, error.status_code)
        120 422
    """


class RateLimitError(APIStatusError):
    """429: the app's rate limit is used up until its window resets.

    The request was not processed. The client raises this error only after its retries or its
    `deadline`; other clients of the app use the quota as well. Send fewer requests, or pass a
    longer `deadline`.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.rate_limited(retry_after=7)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), max_retries=0)
        >>> try:
        ...     client.create("placed-order", user_id="314159")
        ... except RateLimitError as error:
        ...     print("retry after", error.response.headers["Retry-After"], "s")
        retry after 7 s
    """


class ServerError(APIStatusError):
    """500 and above: Intercom or a proxy in front of it failed.

    The request may have been processed. The client has already retried events and queries; sending
    an event again later is safe. After ``create_summary``, look at the summary first.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator, Fault
        >>> emulator = Emulator(faults=[Fault.failing(500, processed=True)])
        >>> client = DataEventsClient("token", transport=emulator.transport(), max_retries=0)
        >>> event = Event("placed-order", user_id="314159")
        >>> try:
        ...     client.send(event)
        ... except ServerError:
        ...     client.send(event)  # Later; Intercom counts it once.
        >>> client.summary(user_id="314159").events[0].count
        1
    """
