"""What stands between a driver and an HTTP library: a request in, an answer or a failure out.

An engine is the only place that knows its library. It adds nothing to a request but what HTTP
needs, follows no redirects, keeps no cookies, and repeats nothing. What the library raises is
sorted at one place: may the server have got the request?
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from attrs import field, frozen

from intercom_data_events.errors import REMOVED, APIResponse

if TYPE_CHECKING:
    import httpx


T = TypeVar("T")

# Intercom's tokens have some 60 characters; a shorter one, in a test, may be a word of an answer.
_SECRET_LENGTH = 16
# Bytes, decompressed: far more than any listing has, and more than a failure needs.
_LARGEST_BODY = 64 * 1024 * 1024
_LARGEST_FAILURE = 1024 * 1024


@frozen(eq=False)
class Endpoint:
    """What all requests of one method and path with the same settings have in common.

    Attributes:
        method: The method, in capitals.
        url: The address without a query.
        headers: The headers by name, without those that depend on the body, and the token's.
        phases: Seconds for each of "connect", "read", "write" and "pool", None for no limit; or
            None for the limits of the connections.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    phases: Mapping[str, float | None] | None


@frozen(eq=False)
class Request:
    """One attempt.

    Attributes:
        endpoint: Where it goes, and its headers.
        query: The query, percent-encoded.
        body: The body, or nothing.
        token: The access token; None where there is none.
        seconds: The time limit of the whole attempt; infinite for none.
    """

    endpoint: Endpoint
    query: str = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(repr=False)
    seconds: float


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


def secret(token: str | None) -> str | None:
    """Returns the access token, unless any answer may contain it by chance."""
    return token if token is not None and len(token) >= _SECRET_LENGTH else None


class SendError(Exception):
    """A request got no whole answer.

    Attributes:
        cause: What the library raised.
        possibly_sent: Whether the server may have got the request.
        timed_out: Whether a time limit ended it.
        recurs: Whether the same request would certainly fail in the same way.
    """

    def __init__(
        self,
        cause: Exception,
        *,
        possibly_sent: bool,
        timed_out: bool = False,
        recurs: bool = False,
    ) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.possibly_sent = possibly_sent
        self.timed_out = timed_out
        self.recurs = recurs


class BodyError(Exception):
    """An answer has a body that cannot be decoded, or is too large.

    Attributes:
        cause: What the library raised, or this.
        recurs: Whether the same request would certainly get such an answer again.
    """

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        super().__init__(message)
        self.cause = cause or self
        self.recurs = cause is None


class Engine(Protocol):
    """Sends requests, blocking."""

    def send(self, request: Request) -> RawResponse:
        """Sends a request and reads its answer.

        Raises:
            SendError: There is no answer. What ends it after the head of an answer is part of the
                answer instead.
            InvalidInputError: The address is not valid.
            ConfigurationError: The caller's `http_client` cannot make the request.
            Exception: The caller's own, from a hook or a transport.
        """
        ...

    def close(self) -> None:
        """Closes the connections."""


class AsyncEngine(Protocol):
    """The awaiting twin of :class:`Engine`."""

    async def send(self, request: Request) -> RawResponse:
        """Sends a request and reads its answer; raises as the twin does."""
        ...

    async def aclose(self) -> None:
        """Closes the connections."""

    def drop(self) -> None:
        """Closes connections of an event loop that does not run."""


class Body:
    """The part of a body that has been read, within a size.

    Args:
        status: The status of its answer.
    """

    __slots__ = ("_chunks", "_largest", "_size")

    def __init__(self, status: int) -> None:
        self._chunks: list[bytes] = []
        self._largest = _LARGEST_BODY if 200 <= status < 300 else _LARGEST_FAILURE
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Adds what was read.

        Raises:
            BodyError: It is too large: endless, or decompressed from a few bytes.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._largest:
            raise BodyError(f"it is larger than {self._largest >> 20} MiB")

    @property
    def content(self) -> bytes:
        """All that was read."""
        return b"".join(self._chunks)


def late(seconds: float) -> str:
    """Says that an answer took too long."""
    return f"no whole answer within {seconds:g} s"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and all exceptions that led to it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            waiting += (cause.__context__, cause.__cause__)
