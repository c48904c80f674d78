"""The protocol of engines: each sends one request through one HTTP library.

Only an engine knows its library. It adds only the headers that HTTP needs, follows no redirects,
and repeats nothing. It sorts the library's errors in one place: a failed request was not sent, or
possibly sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING, Protocol, TypeVar

from intercom_data_events._inflating import PIECE, InflateError, Inflater, coding_of
from intercom_data_events._sending.redaction import REACH, redacted, shows
from intercom_data_events._sending.secret import Secret
from intercom_data_events._validation import decode_json
from intercom_data_events.errors import REMOVED

if TYPE_CHECKING:
    import httpx

    from intercom_data_events.response import APIResponse

T = TypeVar("T")

# Bytes after decompression: far more than a listing has, and more than an error's body has.
_LARGEST_BODY = 64 * 1024 * 1024
_LARGEST_FAILURE = 1024 * 1024
#: The message of a call after the client was closed.
CLOSED = "the client is closed; create a new one"


# Plain classes, because attrs takes a millisecond to make two.


class Endpoint:
    """The part that all requests of one method and path with the same settings share.

    Attributes:
        method: The method, in capitals.
        url: The address without a query.
        headers: The headers by name, without those of the body and of the token.
        phases: Seconds for each of "connect", "read", "write" and "pool", None for no limit; or
            None for the limits of the connections.
    """

    __slots__ = ("headers", "method", "phases", "url")

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        phases: Mapping[str, float | None] | None,
    ) -> None:
        self.method, self.url, self.headers, self.phases = method, url, headers, phases


class Request:
    """The request of one attempt.

    Attributes:
        endpoint: The method, the address and the headers.
        query: The query, percent-encoded, or an empty string.
        body: The body, or empty bytes.
        token: The access token, or None.
        seconds: The time limit of the whole attempt in seconds; infinite for none.
    """

    __slots__ = ("body", "endpoint", "query", "seconds", "token")

    def __init__(
        self,
        endpoint: Endpoint,
        query: str,
        body: bytes,
        token: Secret[str] | None,
        seconds: float,
    ) -> None:
        self.endpoint, self.query, self.body = endpoint, query, body
        self.token, self.seconds = token, seconds


class RawResponse:
    """An answer, with the part of its body that was read before a problem occurred.

    The body does not contain the access token; see :class:`Body`.
    """

    __slots__ = ("content", "problem", "raw_headers", "status_code")

    def __init__(
        self,
        status_code: int,
        raw_headers: Sequence[tuple[bytes, bytes]],
        content: bytes,
        problem: Exception | None,
    ) -> None:
        self.status_code, self.raw_headers = status_code, raw_headers
        self.content, self.problem = content, problem

    @property
    def headers(self) -> httpx.Headers:
        """The headers, of the same type on every engine."""
        import httpx

        return httpx.Headers(self.raw_headers)

    def without(self, token: Secret[str] | None) -> RawResponse:
        """Removes an access token that the server repeats from the headers; returns itself.

        Engines call it for each answer, so that no other code sees the token in one.
        """
        # One search of the joined bytes takes a third of the time of searching each part.
        if shows(Secret(b"\n".join(map(b"\n".join, self.raw_headers))), token):
            self.raw_headers = [
                (redacted(name, token, "access-token"), redacted(value, token))
                for name, value in (map(Secret, pair) for pair in self.raw_headers)
            ]
        return self

    def with_parsed(self, parsed: T) -> APIResponse[T]:
        """Returns the answer as a caller sees it."""
        from intercom_data_events.response import APIResponse

        return APIResponse(self.status_code, self.headers, self.content, parsed)

    def json(self) -> object:
        """Decodes the body.

        Raises:
            Exception: The problem that ended reading the body.
            ValueError: The body is not JSON, or has too many values.
            RecursionError: Its values are nested too deeply.
        """
        if self.problem is not None:
            raise self.problem
        return decode_json(self.content)


class SendError(Exception):
    """A request got no complete answer.

    Attributes:
        cause: The error that callers get as `__cause__`.
        possibly_sent: Whether the server may have received the request.
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
        # Not the message of the cause, which may quote the server.
        super().__init__(type(cause).__name__)
        self.cause = cause
        self.possibly_sent = possibly_sent
        self.timed_out = timed_out
        self.recurs = recurs


class BodyError(Exception):
    """An answer has a body that cannot be decoded, or is too large.

    Attributes:
        cause: The library's error, or this one.
        recurs: Whether the same request would certainly get such an answer again.
    """

    def __init__(self, message: str, cause: Exception | None = None) -> None:
        super().__init__(message)
        self.cause = cause or self
        self.recurs = cause is None


if TYPE_CHECKING:

    class Engine(Protocol):
        """Sends requests with blocking calls."""

        def send(self, request: Request) -> RawResponse:
            """Sends a request and reads its answer.

            Raises:
                SendError: No head of an answer arrived. A failure after the head is the `problem`
                    of the answer instead.
                InvalidInputError: The address is not valid.
                ConfigurationError: The caller's `http_client` cannot make the request, or own
                    connections cannot be set up.
                Exception: An error of the caller's code, such as a hook or a transport.
            """
            ...

        def close(self) -> None:
            """Closes the connections."""

    class AsyncEngine(Protocol):
        """The async counterpart of :class:`Engine`."""

        async def send(self, request: Request) -> RawResponse:
            """Sends a request and reads its answer; raises the same errors as an Engine."""
            ...

        async def aclose(self) -> None:
            """Closes the connections."""

        def drop(self) -> None:
            """Closes own connections at once, including those of an event loop that has ended."""


class Body:
    """The part of a body that has been read, decompressed, up to a maximum size.

    Args:
        status: The status of the answer, on which the maximum depends.
        token: The access token, which is removed if the server repeats it.
    """

    __slots__ = (
        "_codings",
        "_inflater",
        "_largest",
        "_read",
        "_received",
        "_searched",
        "_shows",
        "_token",
    )

    def __init__(self, status: int, token: Secret[str] | None) -> None:
        # Not a list of pieces, because joining them would take their memory a second time.
        self._read = BytesIO()
        self._codings: Iterable[str] = ()
        self._inflater: Inflater | None = None
        self._largest = _LARGEST_BODY if 200 <= status < 300 else _LARGEST_FAILURE
        self._received = 0
        self._token = token
        # How many bytes of the body were searched for the token, and whether it was found.
        self._searched, self._shows = 0, False

    @property
    def is_slow(self) -> bool:
        """Whether its pieces take a while, because they are decompressed and searched."""
        return self._inflater is not None or self._searched > 0

    @property
    def content(self) -> bytes:
        """The bytes that were read, without the access token."""
        read = Secret(self._read.getvalue())
        if not self._searched:
            return redacted(read, self._token) if read.value else b""
        self._search()
        if not self._shows:
            return read.value
        # Removing it from a larger body takes seconds, and no honest answer repeats it.
        small = len(read.value) <= _LARGEST_FAILURE
        return redacted(read, self._token) if small else REMOVED.encode()

    def decompress(self, codings: Iterable[str]) -> None:
        """Sets the values of the ``Content-Encoding`` headers, before the first chunk."""
        self._codings = codings

    def feed(self, chunk: bytes) -> Iterator[None]:
        """Adds a chunk, and yields after each piece of it.

        It does not yield the piece itself: that may repeat the access token, which no variable of
        a caller must hold.

        Raises:
            BodyError: The body is too large, because it is endless or expands from a few bytes; or
                its coding was not requested.
            InflateError: It is damaged.
        """
        if self._codings and chunk:  # An empty body is empty in any coding.
            self._inflater, self._codings = _inflater_of(self._codings), ()
        held, chunk = Secret(chunk), b""  # Ctrl-C may interrupt the search.
        if self._inflater is None:
            for start in range(0, len(held.value), PIECE):
                self._add(Secret(held.value[start : start + PIECE]))
                yield
            return
        self._received += len(held.value)
        self._check(self._received)
        for piece in map(Secret, self._inflater.feed(held.value)):
            self._add(piece)
            yield

    def end(self) -> None:
        """Ends the body.

        Raises:
            InflateError: It is truncated.
        """
        if self._inflater is not None:
            self._inflater.close()

    def _add(self, piece: Secret[bytes]) -> None:
        before = self._read.tell()
        self._read.write(piece.value[: self._largest - before])
        self._check(before + len(piece.value))
        # Piece by piece, because other tasks run and the time is checked in between.
        if self._read.tell() - self._searched >= PIECE:
            self._search()

    def _search(self) -> None:
        """Looks for the access token in the bytes since the last search."""
        self._read.seek(max(0, self._searched - REACH))
        self._shows = self._shows or shows(Secret(self._read.read()), self._token)
        self._searched = self._read.seek(0, SEEK_END)

    def _check(self, size: int) -> None:
        if size > self._largest:
            raise BodyError(f"it is larger than {self._largest >> 20} MiB")


def _inflater_of(codings: Iterable[str]) -> Inflater | None:
    try:
        coding = coding_of(codings)
    except InflateError as error:
        raise BodyError(f"{error}; check the base URL and any proxy in between") from None
    return None if coding is None else Inflater(coding)
