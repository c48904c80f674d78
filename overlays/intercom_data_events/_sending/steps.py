"""The steps that an exchange asks of a driver, and the answers that it gets back."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeAlias, TypeVar

from intercom_data_events.errors import REMOVED, APIResponse

if TYPE_CHECKING:
    import httpx

    from intercom_data_events._sending.auth import Secret
    from intercom_data_events._sending.engines import Request
    from intercom_data_events.clock import Alarm, AsyncAlarm

T = TypeVar("T")

# Intercom's tokens have some 60 characters; a shorter one, in a test, may be a word of an answer.
_SECRET_LENGTH = 16


class Authorize(NamedTuple):
    """A step: call the caller's function for the access token, in at most the given seconds."""

    seconds: float


class Send(NamedTuple):
    """A step: send a request through an engine, and read the answer."""

    request: Request
    engine: Any


class Wait(NamedTuple):
    """A step: wait for the given seconds, or until the alarm is set."""

    seconds: float
    alarm: Alarm | AsyncAlarm | None


class RawResponse(NamedTuple):
    """An answer, with the part of its body that was read before a problem occurred."""

    status_code: int
    raw_headers: Sequence[tuple[bytes, bytes]]
    content: bytes
    problem: Exception | None

    @property
    def headers(self) -> httpx.Headers:
        """The headers, of the same type whatever library received them."""
        import httpx

        return httpx.Headers(self.raw_headers)

    def without(self, token: str | None) -> RawResponse:
        """Returns the answer without the access token, where it repeats that."""
        if (known := secret(token)) is None:
            return self
        hidden = known.encode()
        # Joined first, as that takes a third of the time of looking at each.
        if hidden not in b"\0".join([self.content, *map(b"\0".join, self.raw_headers)]):
            return self
        removed = REMOVED.encode()
        headers = [
            (name.replace(hidden, b"access-token"), value.replace(hidden, removed))
            for name, value in self.raw_headers
        ]
        content = self.content.replace(hidden, removed)
        return self._replace(raw_headers=headers, content=content)

    def with_parsed(self, parsed: T) -> APIResponse[T]:
        """Returns the answer as a caller sees it."""
        return APIResponse(self.status_code, self.headers, self.content, parsed)

    def json(self) -> object:
        """Decodes the body.

        Raises:
            Exception: The problem that ended reading the body.
            ValueError: The body is not JSON.
        """
        if self.problem is not None:
            raise self.problem
        return json.loads(self.content)


class Answer(NamedTuple, Generic[T]):
    """A success: as received, and as read."""

    raw: RawResponse
    parsed: T

    def response(self) -> APIResponse[T]:
        """Returns it as a caller of a raw client sees it."""
        return self.raw.with_parsed(self.parsed)


#: Yields steps; the driver sends back the answer or the error of a :class:`Send`, and the token
#: of an :class:`Authorize`, whose error it throws.
Steps: TypeAlias = Generator[Authorize | Send | Wait, "RawResponse | Exception | Secret | None", T]


def secret(token: str | None) -> str | None:
    """Returns the access token, unless any answer may contain it by chance."""
    return token if token is not None and len(token) >= _SECRET_LENGTH else None
