"""What can go wrong, as one tree.

::

    IntercomError
    ├── InvalidInputError (a ValueError)     refused before anything is sent
    │   ├── ConfigurationError               the client's settings: token, version, region, address
    │   ├── IdentityError                    whom an event or a query is about
    │   ├── TimestampError                   a time that the API would misread
    │   └── MetadataError                    .key says which
    ├── OutboxError                          a tracker's file cannot be used
    │   └── OutboxLockedError                another program keeps it locked
    ├── NotSentError                         a tracker had to give an event up
    │   └── QueueFullError                   as too many wait
    ├── APIConnectionError                   no whole answer came
    │   └── APITimeoutError                  not in time
    └── APIResponseError                     an answer came; .response holds it
        ├── InvalidResponseError             a success that is not as described
        │   └── PaginationError              a listing that leads nowhere or in a circle
        └── APIStatusError                   .status_code .codes .message .field .request_id
            ├── BadRequestError              400
            │   └── InvalidVersionError      400, the API version is refused
            ├── AuthenticationError          401
            ├── PermissionDeniedError        403
            ├── NotFoundError                404, no such contact
            ├── ConflictError                409, several contacts share the e-mail address
            ├── UnprocessableEntityError     422
            ├── RateLimitError               429
            └── ServerError                  500 and above

Every error says in :attr:`~IntercomError.may_have_been_processed` whether what was sent may have
taken effect all the same, in the last try or in one before; and what was spent on it, in
:attr:`~IntercomError.tries` and :attr:`~IntercomError.elapsed`. Errors pickle, and hold neither the
access token nor request headers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import field, frozen

if TYPE_CHECKING:
    import httpx

#: What stands in an answer, or in a message, where it repeated the access token.
REMOVED = "[access token]"

T_co = TypeVar("T_co", covariant=True)


@frozen(eq=False)
class APIResponse(Generic[T_co]):
    """An answer of the API: as it came, and as it was read.

    Attributes:
        status_code: The HTTP status, such as 202.
        headers: The answer's headers; look-up ignores case.
        content: The body, decompressed.
        parsed: What the method returns without ``with_raw_response``; None on an error.
    """

    status_code: int
    headers: httpx.Headers = field(repr=False)
    content: bytes = field(repr=False)
    parsed: T_co

    @property
    def request_id(self) -> str | None:
        """What Intercom's support asks for, from the header or the body of an error."""
        given = self.headers.get("x-request-id") or _object(self.content).get("request_id")
        return given if isinstance(given, str) else None

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 shows as replacement characters."""
        return self.content.decode(errors="replace")


class IntercomError(Exception):
    """Anything that this package raises on purpose.

    Attributes:
        may_have_been_processed: Whether what was sent may have taken effect. True means unknown.
        tries: How often the request was sent, or connecting for it was tried; 0 if never.
        elapsed: Seconds that it took until the error, all tries and the waits between included.
    """

    may_have_been_processed: bool = False
    tries: int = 0
    elapsed: float = 0.0

    def __reduce__(self) -> tuple[Callable[..., IntercomError], tuple[object, ...]]:
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[IntercomError], arguments: tuple[object, ...], state: dict[str, object]
) -> IntercomError:
    # Not through __init__, whose arguments an exception does not keep.
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class InvalidInputError(IntercomError, ValueError):
    """Input that the API would refuse or misread; nothing was sent."""


class ConfigurationError(InvalidInputError):
    """A setting of the client that cannot be used."""


class IdentityError(InvalidInputError):
    """No identity of a contact, too many, or one that is no text."""


class TimestampError(InvalidInputError):
    """A time that says no time zone, or no whole seconds."""


class MetadataError(InvalidInputError):
    """Metadata that the API does not take.

    Attributes:
        key: The key that is at fault, or None where it is none in particular.
    """

    def __init__(self, message: str, *, key: object = None) -> None:
        super().__init__(message)
        self.key = key


class OutboxError(IntercomError):
    """The file in which a tracker keeps events cannot be used; what was in it is still there."""


class OutboxLockedError(OutboxError):
    """Another program keeps the file locked."""


class NotSentError(IntercomError):
    """A tracker gave an event up: it was closed before the event was sent."""


class QueueFullError(NotSentError):
    """A tracker could not take an event in, since as many as it holds were waiting."""


class APIConnectionError(IntercomError):
    """No whole answer came: not connected, cut off, or not HTTP."""

    def __init__(self, message: str, *, may_have_been_processed: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_processed = may_have_been_processed


class APITimeoutError(APIConnectionError):
    """No whole answer came in time."""


class APIResponseError(IntercomError):
    """An answer came, and it is no success that can be read.

    Attributes:
        response: The answer.
        request_id: What Intercom's support asks for, or None.
    """

    def __init__(
        self, message: str, response: APIResponse[None], *, may_have_been_processed: bool = False
    ) -> None:
        super().__init__(message)
        self.response = response
        self.may_have_been_processed = may_have_been_processed

    @property
    def request_id(self) -> str | None:
        """What Intercom's support asks for, or None."""
        return self.response.request_id


class InvalidResponseError(APIResponseError):
    """An answer that reports success but is not as the API's description has it."""


class PaginationError(InvalidResponseError):
    """A next page that leads nowhere, or where the listing has been already."""


class APIStatusError(APIResponseError):
    """An answer that reports a failure.

    Attributes:
        status_code: The HTTP status, such as 404.
        codes: Intercom's codes of what is wrong, such as ``("not_found",)``; empty where the body
            is none of Intercom's.
        message: Intercom's own words for it, or None.
        field: The field or parameter that is at fault, or None.
    """

    def __init__(
        self, message: str, response: APIResponse[None], *, may_have_been_processed: bool = False
    ) -> None:
        super().__init__(message, response, may_have_been_processed=may_have_been_processed)
        reported = reported_errors(response.content)
        self.status_code = response.status_code
        self.codes = tuple(texts(reported, "code"))
        self.message = next(iter(texts(reported, "message")), None)
        self.field = next(iter(texts(reported, "field")), None)


class BadRequestError(APIStatusError):
    """400: the request cannot be understood."""


class InvalidVersionError(BadRequestError):
    """400 with the code ``intercom_version_invalid``: Intercom does not know the API version."""


class AuthenticationError(APIStatusError):
    """401: the access token is missing, wrong or revoked."""


class PermissionDeniedError(APIStatusError):
    """403: the access token may not do this."""


class NotFoundError(APIStatusError):
    """404: no such contact in the token's workspace, or a wrong address."""


class ConflictError(APIStatusError):
    """409: several contacts share the e-mail address."""


class UnprocessableEntityError(APIStatusError):
    """422: understood, but not acceptable; 120 event names are in use already, say."""


class RateLimitError(APIStatusError):
    """429: the app's rate limit is used up until its window resets."""


class ServerError(APIStatusError):
    """500 and above: something failed at Intercom, or in front of it."""


def reported_errors(content: bytes) -> list[dict[str, object]]:
    """The items of Intercom's list of errors; none where the body is something else."""
    errors = _object(content).get("errors")
    return [item for item in errors if isinstance(item, dict)] if isinstance(errors, list) else []


def _object(content: bytes) -> dict[str, object]:
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError):
        return {}  # HTML, empty, cut short: proxies in front of Intercom answer so (observed).
    return decoded if isinstance(decoded, dict) else {}


def texts(reported: list[dict[str, object]], key: str) -> list[str]:
    """The texts that the items of such a list have under a key."""
    return [text for item in reported if isinstance(text := item.get(key), str) and text]
