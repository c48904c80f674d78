"""All errors of this package, as one tree.

::

    IntercomError
    ├── InvalidInputError (a ValueError)     the input is rejected before anything is sent
    │   ├── ConfigurationError               the client's settings: token, version, region, address
    │   ├── IdentityError                    the contact of an event or a query
    │   ├── TimestampError                   a time that the API would misread
    │   └── MetadataError                    .key says which
    ├── OutboxError                          a tracker's file cannot be used
    │   └── OutboxLockedError                another program keeps it locked
    ├── NotSentError                         a tracker gave an event up
    │   └── QueueFullError                   its queue is full
    ├── APIConnectionError                   no whole answer arrived
    │   └── APITimeoutError                  not in time
    └── APIResponseError                     an answer arrived; .response holds it
        ├── InvalidResponseError             a success that is not as described
        │   └── PaginationError              a listing does not end, or goes in a circle
        └── APIStatusError                   .status_code .codes .message .field .request_id
            ├── BadRequestError              400
            │   └── InvalidVersionError      mostly 400, Intercom rejects the API version
            ├── AuthenticationError          401
            ├── PermissionDeniedError        403
            ├── NotFoundError                404, no such contact
            ├── ConflictError                409, several contacts share the e-mail address
            ├── UnprocessableEntityError     422
            ├── RateLimitError               429
            └── ServerError                  500 and above

Every error says in :attr:`~IntercomError.may_have_been_processed` whether any attempt may have
taken effect nevertheless; :attr:`~IntercomError.tries` and :attr:`~IntercomError.elapsed` say how
many attempts and seconds were spent. Errors can be pickled, and contain neither the access token
nor request headers. Their causes have no tracebacks, because the local variables of HTTP libraries
in those contain both; where a function of the caller's failed, the message says its file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from intercom_data_events._validation import printable

if TYPE_CHECKING:
    from intercom_data_events.response import APIResponse as APIResponse

#: Replaces the access token where an answer or a message repeats it.
REMOVED = "[access token]"


def __getattr__(name: str) -> object:
    if name == "APIResponse":  # On demand, as few programs need it.
        from intercom_data_events.response import APIResponse

        return APIResponse
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class IntercomError(Exception):
    """The base of all errors that this package raises on purpose.

    Attributes:
        may_have_been_processed: Whether the request may have taken effect. True means unknown.
        tries: How many attempts were made to send the request; 0 if none.
        elapsed: Seconds until the error, with all attempts and the waits between them.
    """

    may_have_been_processed: bool = False
    tries: int = 0
    elapsed: float = 0.0

    def __str__(self) -> str:
        """Says what is wrong, printable: whatever is quoted cannot control a terminal."""
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
    """The API would reject or misread the input; nothing was sent."""


class ConfigurationError(InvalidInputError):
    """A setting of the client cannot be used."""


class IdentityError(InvalidInputError):
    """A contact has no identity, too many, or one that is not a string."""


class TimestampError(InvalidInputError):
    """A time has no time zone, is not in whole seconds, or is out of range."""


class MetadataError(InvalidInputError):
    """The API does not accept the metadata.

    Attributes:
        key: The key at fault, or None where the error is about no key in particular.
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class OutboxError(IntercomError):
    """The file in which a tracker keeps events cannot be used; the events in it are kept."""


class OutboxLockedError(OutboxError):
    """Another program keeps the file locked."""


class NotSentError(IntercomError):
    """A tracker gave an event up: it was closed before the event was sent."""


class QueueFullError(NotSentError):
    """A tracker did not accept an event, because its queue was full."""


class APIConnectionError(IntercomError):
    """No whole answer arrived: no connection, an answer cut off, or one that is not HTTP."""

    def __init__(self, message: str, *, may_have_been_processed: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_processed = may_have_been_processed


class APITimeoutError(APIConnectionError):
    """No whole answer arrived in time."""


class APIResponseError(IntercomError):
    """An answer arrived, but it is not a success that can be read.

    Attributes:
        response: The answer.
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
    """The answer reports success but does not match the API's description."""


class PaginationError(InvalidResponseError):
    """A listing does not end, or its next page was listed before or cannot be told."""


class APIStatusError(APIResponseError):
    """The answer reports a failure.

    Attributes:
        status_code: The HTTP status, such as 404.
        codes: The error codes in the answer, such as ``("not_found",)``; empty if there are none.
        message: What the answer says first, whatever its shape: Intercom's message, that of a
            gateway, plain text, the title of a page. It is on one line, cut to 500 characters,
            and harmless for a terminal; ``response.text`` is the whole. None if it has no words.
        field: The field or parameter at fault, or None.
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
    """400: Intercom cannot understand the request."""


class InvalidVersionError(BadRequestError):
    """The code ``intercom_version_invalid``, mostly with 400: the API version is not accepted."""


class AuthenticationError(APIStatusError):
    """401: the access token is missing, wrong or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the access token does not permit this."""


class NotFoundError(APIStatusError):
    """404: the token's workspace has no such contact, or the address is wrong."""


class ConflictError(APIStatusError):
    """409: several contacts share the e-mail address."""


class UnprocessableEntityError(APIStatusError):
    """422: Intercom rejects the request, for example if 120 event names are already in use."""


class RateLimitError(APIStatusError):
    """429: the app's rate limit is used up until its window resets."""


class ServerError(APIStatusError):
    """500 and above: Intercom failed, or a proxy in front of it."""
