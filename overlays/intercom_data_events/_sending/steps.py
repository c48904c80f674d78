"""The steps that an exchange asks of a driver, and the answers that it gets back."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import httpx

from intercom_data_events.errors import REMOVED, APIResponse

if TYPE_CHECKING:
    from intercom_data_events.clock import Alarm, AsyncAlarm

T = TypeVar("T")

# Intercom's tokens have some 60 characters; a shorter one, in a test, may be a word of an answer.
_SECRET_LENGTH = 16


class Send(NamedTuple):
    """A step: send a request and read the answer, in at most the given seconds."""

    request: httpx.Request
    seconds: float


class Wait(NamedTuple):
    """A step: wait for the given seconds, or until the alarm is set."""

    seconds: float
    alarm: Alarm | AsyncAlarm | None


class RawResponse(NamedTuple):
    """An answer, with the part of its body that was read before a problem occurred."""

    status_code: int
    headers: httpx.Headers
    content: bytes
    problem: Exception | None

    @classmethod
    def of(cls, response: httpx.Response, content: bytes, problem: Exception | None) -> RawResponse:
        """Returns an answer for an exchange, without the access token if the answer repeats it."""
        headers = response.headers
        token = secret_of(response.request)
        if token is not None:
            secret, removed = token.encode(), REMOVED.encode()
            content = content.replace(secret, removed)
            if any(secret in name or secret in value for name, value in headers.raw):
                pairs = [
                    (name.replace(secret, b"access-token"), value.replace(secret, removed))
                    for name, value in headers.raw
                ]
                headers = httpx.Headers(pairs)
        return cls(response.status_code, headers, content, problem)

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


#: Yields steps; the driver sends back the answer or the error of a :class:`Send`.
Steps: TypeAlias = Generator[Send | Wait, RawResponse | Exception | None, T]


class BodyTooLargeError(Exception):
    """A body is too large: endless, or decompressed from a few bytes."""


def secret_of(request: httpx.Request) -> str | None:
    """Returns the access token of a request, unless any answer may contain it by chance."""
    _, _, token = request.headers.get("authorization", "").partition(" ")
    return token if len(token) >= _SECRET_LENGTH else None
