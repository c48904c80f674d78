"""The engine on httpx, or on httpx2, which has the same interface in another module.

A caller's `http_client` or `transport` uses the library that it belongs to; own connections, in
:mod:`pooled_engine`, use httpx. The two libraries have no class in common, so each request and each
error is looked up in its library.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterable, Iterable
from contextlib import suppress
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import parse_qsl

import httpx

from intercom_data_events._inflating import InflateError
from intercom_data_events._sending.engines import (
    Body,
    BodyError,
    Endpoint,
    RawResponse,
    Request,
    SendError,
)
from intercom_data_events._sending.engines.attempt import ATTEMPT, Attempt
from intercom_data_events._sending.engines.kinds import is_failure, is_kind, library_of
from intercom_data_events._sending.redaction import redacted
from intercom_data_events._sending.secret import Secret
from intercom_data_events.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from intercom_data_events.clock import Clock

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

# A model is a request without query, body and token. Making a request takes 14 µs with a model and
# 26 µs without (measured).
_MOST_MODELS = 100
# Seconds beyond the time limit of an attempt. The library gives up first, and its error tells
# whether it was connecting, writing or reading.
_GRACE = 0.05
# Errors after which the server has received no request, or none that it can parse.
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol")
# The same request would fail again.
_RECURRING = ("LocalProtocolError", "UnsupportedProtocol")


class _HTTPXBase(Generic[C]):
    """The common part of the blocking and the async engine.

    Args:
        client: The client of httpx or httpx2 that sends.
        owned: Whether it is ours. Callers may change the headers of their own client at any time.
        clock: The client's clock.
    """

    # Whether hooks and transports of the caller may read the content of a request.
    _reads = True

    def __init__(self, client: C, *, owned: bool, clock: Clock) -> None:
        self.client = client
        self._owned = owned
        self._clock = clock
        self._library: Any = library_of(client) or httpx
        # Passed explicitly, so that neither the authentication of a caller's client nor credentials
        # in an address replace the token.
        self._auth = self._library.Auth()
        self._models: dict[Endpoint, Any] = {}
        self._not_sent = tuple(getattr(self._library, name) for name in _NOT_SENT)
        # Errors that end reading a body.
        self._breaking = self._library.HTTPError, BodyError, InflateError, SendError, OSError
        self._recurring = tuple(getattr(self._library, name) for name in _RECURRING)

    def _made(self, request: Request) -> Any:
        """Makes the library's request.

        Raises:
            InvalidInputError: The address is not valid.
            ConfigurationError: The caller's `http_client` cannot make it.
        """
        library, endpoint = self._library, request.endpoint
        model = self._models.get(endpoint)
        if model is None:
            model = self._model(endpoint)
            if self._owned:
                if len(self._models) >= _MOST_MODELS:
                    self._models.clear()  # Each call may come with new settings.
                self._models[endpoint] = model
        phases = model.extensions["timeout"]
        if request.seconds < math.inf:
            seconds = request.seconds
            phases = {
                name: seconds if given is None else min(given, seconds)
                for name, given in phases.items()
            }
        url = model.url
        if request.query:
            try:
                if url.query:  # The caller's client has parameters.
                    added = parse_qsl(request.query, keep_blank_values=True)
                    url = url.copy_merge_params(added)
                else:
                    url = library.URL(f"{url}?{request.query}")  # Faster than copy_with.
            except library.InvalidURL as error:
                raise _bad_address(error) from error
        # As pairs, and with a stream, because the model already has the headers that the library
        # would add, and setting one in its Headers is slow.
        pairs = list(model.headers.raw)
        if request.body:
            pairs.append((b"Content-Length", str(len(request.body)).encode()))
        made = library.Request(
            model.method,
            url,
            # Within the expression, because tracebacks show variables.
            headers=pairs
            if request.token is None
            else [*pairs, (b"Authorization", f"Bearer {request.token.value}".encode())],
            stream=library.ByteStream(request.body),
            extensions={"timeout": phases},
        )
        if self._reads:
            made.read()
        return made

    def _model(self, endpoint: Endpoint) -> Any:
        library = self._library
        phases = endpoint.phases
        try:
            model = self.client.build_request(
                endpoint.method,
                # The full address, because a caller's client may have a base_url.
                endpoint.url,
                headers=dict(endpoint.headers),
                timeout=library.USE_CLIENT_DEFAULT if phases is None else library.Timeout(**phases),
            )
        except library.InvalidURL as error:
            raise _bad_address(error) from error
        except ValueError as error:
            # For example, a cookie from an answer contains characters that a header cannot contain.
            raise ConfigurationError(
                f"the http_client cannot make the request: {error}; check its headers and cookies"
            ) from error
        # These depend on the body and the token, which a model lacks.
        model.headers.pop("Content-Length", None)
        model.headers.pop("Authorization", None)
        return model

    def _chunks(self, response: Any, body: Body, decoded: str) -> Any:
        """Returns an iterable of the body's bytes as they were sent."""
        if response.is_stream_consumed:
            return getattr(response, decoded)()  # A caller's hook has read and decompressed it.
        # Not decompressed by the library, which has no limit on size or on nested codings.
        if "content-encoding" in response.headers:
            body.decompress(response.headers.get_list("content-encoding"))
        return response.stream

    def _answer(
        self, request: Request, response: Secret[Any], content: bytes, problem: Exception | None
    ) -> RawResponse:
        answer = RawResponse(
            response.value.status_code, response.value.headers.raw, content, problem
        )
        return answer.without(request.token)

    def _late(self, request: Request, made: Any) -> SendError:
        said = f"no complete answer within {request.seconds:g} s"
        error = self._library.ReadTimeout(said, request=made)
        return self._failure(error, made)

    def _broken(self, error: Exception) -> Exception:
        """Returns the `problem` of an answer whose body an error ended."""
        if isinstance(error, BodyError | SendError):
            return error
        if isinstance(error, InflateError):
            error = self._library.DecodingError(f"it is {error}")
        if isinstance(error, self._library.TransportError | OSError):
            # The next answer may be complete. The libraries do not name the request here.
            return SendError(error, possibly_sent=True, timed_out=_is_late(error))
        return BodyError(str(error), error)

    def _unanswered(self, error: Exception, request: Request, made: Any) -> RawResponse:
        """Sorts an error of the library, a hook or a transport.

        Returns:
            The answer, if a hook raised the error for its status.

        Raises:
            SendError: The error is a failure of the request.
            Exception: The error itself; it comes from the caller's code.
        """
        library = self._library
        if isinstance(error, library.HTTPStatusError) and _is_about(error, made, library):
            # A hook usually raises before the body is read.
            answer = Secret(cast("Any", error).response)
            problem = self._failure(error, made)
            if not answer.value.is_stream_consumed:
                return self._answer(request, answer, b"", problem)
            content = redacted(Secret(answer.value.content), request.token)
            return self._answer(request, answer, content, problem)
        # Python 3.12 names the codec in a note.
        named = (
            f"{error}{getattr(error, '__notes__', '')}" if isinstance(error, UnicodeError) else ""
        )
        if "idna" in named:
            # The libraries do not check the host of a proxy before they connect.
            raise ConfigurationError(
                "the http_client or transport cannot connect because the host of its proxy is not "
                "valid; check its proxies and the proxy variables in the environment"
            ) from None
        if not is_failure(error):
            raise error
        failure = self._failure(error, made)
        raise failure

    def _failure(self, error: Exception, made: Any) -> SendError:
        """Returns the failure that an error means, with the error as its cause."""
        library = self._library
        about = _is_about(error, made, library)
        if about:
            # Imported after a failure only, so that programs start faster.
            from intercom_data_events._sending.causes import causes

            # By name, because importing ssl takes longer than all of this.
            recurs = isinstance(error, self._recurring) or any(
                type(one).__name__ == "SSLCertVerificationError" for one in causes(error)
            )
            if isinstance(error, library.ProxyError) and re.match(r"\d{3} ", str(error)):
                # Without the proxy's reason phrase, which may repeat its password.
                error = library.ProxyError(f"{str(error)[:3]} from the proxy", request=made)
        else:
            recurs = not isinstance(error, OSError)
        return SendError(
            error,
            possibly_sent=not about or not isinstance(error, self._not_sent),
            timed_out=_is_late(error),
            recurs=recurs,
        )


class HTTPXEngine(_HTTPXBase[httpx.Client]):
    """Sends through a blocking client."""

    def send(self, request: Request) -> RawResponse:
        """Sends a request; see :class:`Engine`."""
        return self._send(request, self._made(request), None)

    def _send(self, request: Request, made: Any, transport: Any) -> RawResponse:
        ends = self._clock.monotonic() + request.seconds
        problem: Exception | None = None
        running = ATTEMPT.set(Attempt(ends, self._clock, transport))
        try:
            try:
                # Streamed, so that the time is checked between reads. Held, because its repr shows
                # the server's words.
                response = Secret(
                    self.client.send(made, auth=self._auth, stream=True, follow_redirects=False)
                )
            except Exception as error:  # noqa: BLE001  # sorted there
                return self._unanswered(error, request, made)
            body = Body(response.value.status_code, request.token)
            try:
                chunks = cast("Iterable[bytes]", self._chunks(response.value, body, "iter_bytes"))
                for chunk in chunks:
                    pieces = body.feed(chunk)
                    del chunk  # It may repeat the token, and the next one may take a while.
                    for _ in pieces:
                        # An own connection checks the time limit only while it receives.
                        timed = transport is None or body.is_slow
                        if timed and self._clock.monotonic() > ends:
                            raise self._late(request, made)
                body.end()
            except self._breaking as error:
                problem = self._broken(error)
            finally:
                response.value.close()
        finally:
            ATTEMPT.reset(running)
        return self._answer(request, response, body.content, problem)

    def close(self) -> None:
        """Closes the connections."""
        self.client.close()


class AsyncHTTPXEngine(_HTTPXBase[httpx.AsyncClient]):
    """Sends through an async client."""

    async def send(self, request: Request) -> RawResponse:
        """Sends a request; see :class:`AsyncEngine`."""
        return await self._send(request, self._made(request), None)

    async def _send(self, request: Request, made: Any, transport: Any) -> RawResponse:
        import anyio.lowlevel

        ends = self._clock.monotonic() + request.seconds
        response: Secret[Any] | None = None
        body: Body | None = None
        problem: Exception | None = None
        running = ATTEMPT.set(Attempt(ends, self._clock, transport))
        try:
            with anyio.move_on_after(request.seconds + _GRACE) as scope:
                try:
                    response = Secret(
                        await self.client.send(
                            made, auth=self._auth, stream=True, follow_redirects=False
                        )
                    )
                except Exception as error:  # noqa: BLE001  # sorted there
                    return self._unanswered(error, request, made)
                body = Body(response.value.status_code, request.token)
                chunks: Any = None
                try:
                    chunks = aiter(self._chunks(response.value, body, "aiter_bytes"))
                    async for chunk in cast("AsyncIterable[bytes]", chunks):
                        pieces = body.feed(chunk)
                        del chunk  # It may repeat the token, and the next one may take a while.
                        for _ in pieces:
                            timed = transport is None or body.is_slow
                            if timed and self._clock.monotonic() > ends:
                                raise self._late(request, made)
                            if body.is_slow:
                                await anyio.lowlevel.checkpoint()
                    body.end()
                except self._breaking as error:
                    problem = self._broken(error)
                finally:
                    await response.value.aclose()
                    if transport is not None and problem is not None and chunks is not None:
                        await _exhaust(chunks)
        finally:
            ATTEMPT.reset(running)
        if scope.cancelled_caught:
            problem = self._late(request, made)
        if response is None or body is None:
            raise cast("Exception", problem)
        return self._answer(request, response, body.content, problem)

    async def aclose(self) -> None:
        """Closes the connections."""
        await self.client.aclose()

    def drop(self) -> None:
        """Does nothing: the connections are the caller's."""


def connect(transport: Any, clock: Clock) -> HTTPXEngine:
    """Makes an engine for a blocking client, on a caller's transport."""
    client = new_client(library_of(transport), "Client", transport)
    return HTTPXEngine(client, owned=True, clock=clock)


def aconnect(transport: Any, clock: Clock) -> AsyncHTTPXEngine:
    """Does what :func:`connect` does, for an async client."""
    client = new_client(library_of(transport), "AsyncClient", transport)
    return AsyncHTTPXEngine(client, owned=True, clock=clock)


def new_client(library: Any, name: str, transport: Any) -> Any:
    """Returns a client of a library on a transport, without cookies and redirects."""
    # The class is looked up each time, because tracing tools replace it.
    kind = getattr(library, name)
    client = kind(transport=transport, cookies=_NoCookies())
    # httpx parses the address of a redirect although it must not follow it, and raises errors of
    # other libraries for an unusual one. There is no public way to prevent that.
    client._build_redirect_request = lambda request, _: request  # noqa: SLF001  # as above
    return client


async def _exhaust(chunks: AsyncIterable[bytes]) -> None:
    """Ends the async generators of a closed own connection, because trio warns of unfinished ones.

    They yield what they have, and fail when they read more.
    """
    with suppress(Exception):
        async for _ in chunks:
            pass


class _NoCookies(CookieJar):
    """Stays empty: the API needs no cookies, and a server that sets some is not the API."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Takes none; a policy that rejects all takes a twentieth of a request's time."""


def _bad_address(error: Exception) -> InvalidInputError:
    return InvalidInputError(f"the address of the request is not valid: {error}")


def _is_late(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or is_kind(error, "TimeoutException")


def _is_about(error: Exception, made: Any, library: Any) -> bool:
    """Whether an error is the library's and about this request, not about one that a hook made."""
    if not isinstance(error, library.HTTPError):
        return False
    try:
        return cast("Any", error).request is made
    except RuntimeError:
        return False  # The error has no request.
