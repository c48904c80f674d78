"""The steps that an exchange asks of a driver, and the answers that it gets back."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from intercom_data_events.errors import REMOVED, APIResponse

if TYPE_CHECKING:
    import httpx

    from intercom_data_events._sending.engines import Request
    from intercom_data_events.clock import Alarm, AsyncAlarm

T = TypeVar("T")

# Intercom's tokens have some 60 characters; a shorter one, in a test, may be a word of an answer.
_SECRET_LENGTH = 16


class Authorize(NamedTuple):
    """A step: call the caller's function for the access token, in at most the given seconds."""

    seconds: float


class Send(NamedTuple):
    """A step: send a request and read the answer."""

    request: Request


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
        hidden, removed = known.encode(), REMOVED.encode()
        content, headers = self.content, self.raw_headers
        if hidden in content:
            content = content.replace(hidden, removed)
        elif not any(hidden in value or hidden in name for name, value in headers):
            return self
        headers = [
            (name.replace(hidden, b"access-token"), value.replace(hidden, removed))
            for name, value in headers
        ]
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


#: Yields steps; the driver sends back the answer or the error of a :class:`Send`, and the token
#: of an :class:`Authorize`, whose error it throws.
Steps: TypeAlias = Generator[Authorize | Send | Wait, RawResponse | Exception | str | None, T]


def secret(token: str | None) -> str | None:
    """Returns the access token, unless any answer may contain it by chance."""
    return token if token is not None and len(token) >= _SECRET_LENGTH else None
