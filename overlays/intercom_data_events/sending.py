"""From a generated endpoint function to httpx: the version pin, retries, pacing and typed errors.

A generated function is handed a *call*, which it takes for a client. Its connection is our sender:
one generator without I/O, :func:`exchange`, decides what happens, and two thin loops do what it
says, one blocking, one awaiting. Failures are raised here, so that the generated parser only sees
answers of the described kind.
"""

from __future__ import annotations

import json as jsonlib
import logging
import math
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import httpx

from intercom_data_events import retry
from intercom_data_events.__about__ import __version__
from intercom_data_events.errors import (
    REMOVED,
    APIResponse,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
)
from intercom_data_events.retry import Effect

if TYPE_CHECKING:
    from intercom_data_events.clock import Alarm, AsyncAlarm, Clock
    from intercom_data_events.connections import Own, Pool
    from intercom_data_events.failures import FailedTry
    from intercom_data_events.rate_limit import Pacer, Ticket
    from intercom_data_events.settings import Settings
    from intercom_data_events_api import AuthenticatedClient

log = logging.getLogger("intercom_data_events")

_USER_AGENT = f"intercom-data-events/{__version__} python-httpx/{httpx.__version__}"
# Intercom's tokens have some 60 characters; one of a few, in a test, may be a word of the answer.
_SECRET_LENGTH = 16
# What a list and a summary call themselves.
_TYPES = ("event.list", "event.summary")
# What every answer is asked for; its own headers are slow to look up.
_HEADERS = {
    name.encode(): name
    for name in (
        "date",
        "intercom-version",
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    )
}
# As httpx itself writes JSON.
_encode = jsonlib.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
# Bytes, decompressed: far beyond any listing, and beyond what a failure has to say.
_LARGEST_BODY = 64 * 1024 * 1024
_LARGEST_FAILURE = 1024 * 1024
# Seconds of the deadline that have to be left for a try, to be worth waiting for.
_LEAST_LEFT = 0.1
# Seconds that httpx, which knows what it was waiting for, has to give up first.
_GRACE = 0.05


class Send(NamedTuple):
    """A step of an exchange: send this, and read the answer; it may take so many seconds."""

    request: httpx.Request
    seconds: float


class Wait(NamedTuple):
    """A step of an exchange: wait for so many seconds, or until the alarm is set."""

    seconds: float
    alarm: Alarm | AsyncAlarm | None


class Received(NamedTuple):
    """What came of a step: an answer, with as much of its body as there was before a problem."""

    status_code: int
    headers: httpx.Headers
    content: bytes
    problem: Exception | None

    def snapshot(self) -> APIResponse[None]:
        """What an error keeps of the answer."""
        return APIResponse(self.status_code, self.headers, self.content, None)


#: Yields steps; a :class:`Send` is answered with what was received, or the exception there was.
Exchange: TypeAlias = Generator[Send | Wait, Received | Exception | None, Received]


class Call:
    """One call of a generated function, which takes this for a client.

    Args:
        pool: The connections to use.
        settings: What requests are made with.
        effect: What it does to send the request twice.
        about: Says whom or what it is about, for messages: identities, and the name of an event.
        asked: The `type` of the answer that is asked for, where there are several.
        query: The query to send instead of the one that the function makes, percent-encoded.
        wanted: Says, before it is sent, whether it still is to be. Where it is given, the deadline
            begins when there is room within the rate limit.

    Attributes:
        tries: How often the request was made.
        answer: The answer to parse, once there is one.
    """

    #: The generated parser raises an error where it would return None for an undescribed status.
    raise_on_unexpected_status = True

    def __init__(
        self,
        pool: Pool[Any],
        settings: Settings,
        effect: Effect,
        about: Callable[[], Mapping[str, object]],
        asked: str | None = None,
        query: str | None = None,
        *,
        wanted: Callable[[], bool] | None = None,
    ) -> None:
        self.pool = pool
        self.wanted = wanted
        self.settings = settings
        self.effect = effect
        self.about = about
        self.tries = 0
        self.answer: Answer | None = None
        self._asked = asked
        self._query = query
        self._parts: Mapping[str, Any] = {}
        self._begun = 0.0
        self._sent: httpx.Request | None = None

    def for_generated(self) -> AuthenticatedClient:
        """The call, in the type that generated functions ask for; they use no more of it."""
        return cast("AuthenticatedClient", self)

    def get_httpx_client(self) -> _BlockingConnection:
        """Called by the generated functions."""
        return _BlockingConnection(self)

    def get_async_httpx_client(self) -> _AwaitingConnection:
        """Called by the generated functions."""
        return _AwaitingConnection(self)

    @property
    def what(self) -> str:
        """What is asked, for messages: without the query, which says whom it is about."""
        return f"{self._parts['method'].upper()} {self._parts['url']}"

    def send(self, parts: Mapping[str, Any]) -> Answer:
        """Sends what a generated function describes."""
        own = self._begin(parts)
        return self._end(run(exchange(self, own), own.http, self.pool))

    async def asend(self, parts: Mapping[str, Any]) -> Answer:
        """Sends what a generated function describes."""
        own = self._begin(parts)
        return self._end(await arun(exchange(self, own), own.http, self.pool))

    def failure(
        self,
        received: Received | None,
        problem: Exception | None,
        *,
        foreign: bool = False,
        sent: bool = True,
    ) -> FailedTry:
        """What a try is that did not end in an answer to parse."""
        # Imported where something failed: most programs start sooner without it.
        from intercom_data_events import failures

        return failures.failed_try(
            received and received.snapshot(),
            problem,
            self.what,
            foreign=foreign,
            secret=self.secret,
            about=self.about(),
            version=self.settings.version,
            effect=self.effect if sent else Effect.NONE,
        )

    def unreadable(self, reason: str) -> IntercomError:
        """What the answer is where reading it failed."""
        from intercom_data_events import failures

        answer = cast("Answer", self.answer)
        snapshot = APIResponse(answer.status_code, answer.headers, answer.content, None)
        failure = failures.unreadable(snapshot, self.what, reason, self.effect)
        return self.concluded(failure, possibly_processed=failure.may_have_been_processed)

    def concluded(self, failure: IntercomError, *, possibly_processed: bool) -> IntercomError:
        """Completes the last failure with what all tries came to."""
        from intercom_data_events import failures

        elapsed = self.pool.clock.monotonic() - self._begun
        return failures.concluded(
            failure, self.tries, elapsed, possibly_processed, secret=self.secret
        )

    def concern(self, error: Exception, *, possibly_processed: bool) -> None:
        """Has an error that is not about the request say whether it may have been processed."""
        if isinstance(error, IntercomError):
            self.concluded(error, possibly_processed=possibly_processed)
        elif possibly_processed:
            error.add_note(f"{self.what} may have been processed all the same.")

    @property
    def secret(self) -> str | None:
        """The access token that was sent last."""
        return None if self._sent is None else _secret(self._sent)

    def request(self, own: Own[Any], seconds: float) -> httpx.Request:
        """Makes the request of a try, each phase of which may take so many seconds."""
        parts = self._parts
        place = self.settings, parts["method"], parts["url"]
        model = own.models.get(place)
        if model is None:
            model = self._model(own.http)
            # Nobody but us changes anything about connections of our own.
            if self.pool.owned and "params" not in parts:
                own.keep(place, model)
        phases = model.extensions["timeout"]
        if seconds < math.inf:
            phases = {
                name: seconds if given is None else min(given, seconds)
                for name, given in phases.items()
            }
        headers = httpx.Headers(model.headers)
        body = parts.get("json")
        content = b"" if body is None else _encode(body).encode()
        if body is not None:
            headers["Content-Length"] = str(len(content))
        # A stream, as everything else that httpx does for a body is in the model already.
        self._sent = httpx.Request(
            model.method,
            model.url,
            headers=headers,
            stream=httpx.ByteStream(content),
            extensions={"timeout": phases},
        )
        self._sent.read()
        return self._sent

    def _model(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """What all requests to one place have in common, as these connections make it."""
        settings, parts = self.settings, self._parts
        # Names of headers ignore case, so each group takes the place of what it overrides.
        headers = httpx.Headers({"Accept": "application/json", "User-Agent": _USER_AGENT})
        headers.update(parts.get("headers"))
        headers.update(settings.headers)
        # Last, so that nothing overrides the pin.
        headers["Intercom-Version"] = settings.version
        try:
            model = http.build_request(
                parts["method"].upper(),
                # A whole address, whatever the base of a caller's own client.
                settings.base_url + parts["url"],
                params=parts.get("params"),
                headers=headers,
                timeout=httpx.USE_CLIENT_DEFAULT if settings.timeout is None else settings.timeout,
            )
            if self._query is not None:
                model.url = model.url.copy_with(query=self._query.encode("ascii"))
        except httpx.InvalidURL as error:
            raise InvalidInputError(f"the request has no valid address: {error}") from error
        except ValueError as error:
            # Of a cookie that an answer set, say, and that no header can hold.
            raise ConfigurationError(
                f"the http_client cannot make the request; look at its headers and cookies: {error}"
            ) from error
        # It follows from the body, which a model has not.
        model.headers.pop("Content-Length", None)
        return model

    def _begin(self, parts: Mapping[str, Any]) -> Own[Any]:
        self._parts = parts
        self._begun = self.pool.clock.monotonic()
        return self.pool.own()

    def _end(self, received: Received) -> Answer:
        self.answer = Answer(received, self._asked)
        return self.answer


class Answer:
    """A described answer, as the generated functions read it.

    List and summary are told apart by their `type` alone, so it is set to what was asked for: what
    was asked for decides how an answer is read, whatever it calls itself.
    """

    __slots__ = ("_asked", "content", "headers", "status_code")

    def __init__(self, received: Received, asked: str | None) -> None:
        self.status_code, self.headers, self.content, _ = received
        self._asked = asked

    def json(self) -> object:
        """Decodes the body."""
        decoded = jsonlib.loads(self.content)
        if self._asked is not None:
            if not isinstance(decoded, dict):
                raise TypeError("it is no JSON object")
            said = decoded.get("type")
            if said == "error.list" or ("events" not in decoded and said not in _TYPES):
                raise TypeError("it has no events")
            decoded["type"] = self._asked
        return decoded


class _BlockingConnection:
    """What a generated function takes for an ``httpx.Client``."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def request(self, **parts: Any) -> Answer:
        return self._call.send(parts)


class _AwaitingConnection:
    """What a generated function takes for an ``httpx.AsyncClient``."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    async def request(self, **parts: Any) -> Answer:
        return await self._call.asend(parts)


def exchange(call: Call, own: Own[Any]) -> Exchange:
    """Decides how a request is made; yields the steps and returns the answer to parse.

    Raises:
        APIConnectionError: No whole answer came.
        APIResponseError: The answer reports a failure, or its body cannot be read.
        Exception: The caller's own, of a hook, say; with a note where something may have been
            processed.
        UnwantedError: Nobody wants it any longer.
    """
    settings, clock, pacer = call.settings, call.pool.clock, own.pacer
    ends = math.inf if call.wanted else clock.monotonic() + settings.deadline
    ticket = pacer.ticket(settings.quota_share, paced=settings.pace)
    failure: IntercomError | None = None
    possibly_processed = False
    try:
        while True:
            if (seconds := pacer.enter(ticket)) > 0:
                in_time = yield from _hold(call, pacer, ticket, seconds, ends)
                if not in_time:
                    failure = failure or _crowded_out(call)
                    break
            if call.wanted is not None:
                if not call.wanted():
                    raise UnwantedError
                if ends == math.inf:
                    ends = clock.monotonic() + settings.deadline
            tries = call.tries
            try:
                result = yield from _try(call, own, ticket, ends)
            except Exception as error:
                sent = call.tries > tries and call.effect is not Effect.NONE
                call.concern(error, possibly_processed=possibly_processed or sent)
                raise
            if isinstance(result, Received):
                return result
            failure, temporary = result
            possibly_processed |= failure.may_have_been_processed
            wait = _wait(call, failure) if temporary else None
            if wait is None or clock.monotonic() + wait > ends - _LEAST_LEFT:
                break
            log.info(
                "%s: %s, trying again in %.2f s (%d of %d)",
                call.what, _reason(failure), wait, call.tries, settings.max_retries,
            )  # fmt: skip
            yield Wait(wait, None)
    finally:
        pacer.leave(ticket)
    raise call.concluded(failure, possibly_processed=possibly_processed)


def _hold(
    call: Call, pacer: Pacer, ticket: Ticket, seconds: float, ends: float
) -> Generator[Wait, Received | Exception | None, bool]:
    """Waits for room within the rate limit; False where the deadline comes first."""
    announced = False
    while seconds > 0:
        left = ends - call.pool.clock.monotonic()
        # Who is not the first in the queue cannot know how long it takes.
        if left <= 0 or left <= seconds < math.inf:
            return False
        if seconds < math.inf and not announced:
            announced = True
            log.info("%s waits %.2f s for the rate limit, or less", call.what, seconds)
        yield Wait(min(seconds, left), ticket.alarm)
        seconds = pacer.enter(ticket)
    return call.pool.clock.monotonic() < ends


class UnwantedError(Exception):
    """Nobody wants it to be sent any longer; it was not, or not again."""


class Failed(NamedTuple):
    """What came of a try that did not end in an answer to parse."""

    failure: IntercomError
    temporary: bool


def _try(
    call: Call, own: Own[Any], ticket: Ticket, ends: float
) -> Generator[Send, Received | Exception | None, Received | Failed]:
    """Makes the request once; returns the answer, or what the failure is.

    Raises:
        Exception: The caller's own: of a hook, a transport, or the function that gives the token.
    """
    clock, pacer = call.pool.clock, own.pacer
    begun = clock.monotonic()
    seconds = min(call.settings.seconds_a_try, max(0.0, ends - begun))
    request = call.request(own, seconds)
    outcome = yield Send(request, seconds)
    # The token is asked for as the request is sent, which ends there if there is none.
    asked = "authorization" in request.headers or not call.pool.enabled
    call.tries += asked
    if isinstance(outcome, httpx.HTTPStatusError) and _is_about(outcome, request):
        # From a hook of the caller's that looks at the status, before the body was read.
        outcome = _received(outcome.response, b"", outcome)
    if not isinstance(outcome, Received):
        error = cast("Exception", outcome)
        ours = _is_about(error, request)
        pacer.leave(ticket, lost=asked and (not ours or retry.possibly_sent(error)))
        # A failure of httpx's, but about something else, is of a hook that talks to somebody.
        if not ours and not isinstance(error, httpx.HTTPError | httpx.InvalidURL | OSError):
            raise error
        failure: IntercomError = call.failure(None, error, foreign=not ours, sent=asked)
        log.debug("%s %s", call.what, _reason(failure))
        return Failed(failure, retry.is_temporary(error) if ours else isinstance(error, OSError))
    status = outcome.status_code
    headers = {
        known: value.decode("latin-1")
        for name, value in outcome.headers.raw
        if (known := _HEADERS.get(name.lower()))
    }
    pacer.leave(ticket, headers, status=status)
    call.pool.note(headers, call.settings.version)
    # Of what a disabled client does not send, it says so itself.
    if log.isEnabledFor(logging.DEBUG) and call.pool.enabled:
        log.debug("%s %d in %.3f s", call.what, status, clock.monotonic() - begun)
    problem = outcome.problem
    if not 200 <= status < 300:
        return Failed(call.failure(outcome, problem), status in retry.RETRIED_STATUSES)
    if problem is not None:
        return Failed(call.failure(outcome, problem), retry.is_temporary(problem))
    return outcome


def _is_about(error: Exception, request: httpx.Request | None) -> bool:
    """Whether an error is httpx's about this request, and not about one that a hook made."""
    if not isinstance(error, httpx.HTTPError):
        return False
    try:
        return error.request is request
    except RuntimeError:
        return False  # It has none.


def _wait(call: Call, failure: IntercomError) -> float | None:
    """Seconds until the next try; None where there is to be none."""
    possibly_processed = failure.may_have_been_processed
    if call.tries > call.settings.max_retries or not retry.is_repeatable(
        call.effect, possibly_processed=possibly_processed
    ):
        return None
    status, headers = 0, httpx.Headers()
    if isinstance(failure, APIStatusError):
        status, headers = failure.status_code, failure.response.headers
    return retry.seconds_to_wait(
        call.tries, headers, limited=status == 429, now=call.pool.clock.time()
    )


def _crowded_out(call: Call) -> APITimeoutError:
    return APITimeoutError(
        f"{call.what}: not sent, as the app's rate limit leaves no room for it within the deadline "
        f"of {call.settings.deadline:g} s; send less at a time, or allow a longer deadline="
    )


def _reason(failure: IntercomError) -> str:
    """A failure in a word, for logs."""
    if isinstance(failure, APIResponseError):
        return str(failure.response.status_code)
    return type(failure.__cause__ or failure).__name__


def run(steps: Exchange, http: httpx.Client, pool: Pool[httpx.Client]) -> Received:
    """Does what an exchange says, blocking."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                (step.alarm or pool.clock.alarm()).wait(step.seconds)
                step = next(steps)
            else:
                step = steps.send(_receive(step, http, pool))
    except StopIteration as done:
        return cast("Received", done.value)
    finally:
        # At once where it is interrupted, so that it lets go of whatever it holds.
        steps.close()


async def arun(steps: Exchange, http: httpx.AsyncClient, pool: Pool[httpx.AsyncClient]) -> Received:
    """Does what an exchange says, awaiting."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, Wait):
                await cast("AsyncAlarm", step.alarm or pool.clock.async_alarm()).wait(step.seconds)
                step = next(steps)
            else:
                step = steps.send(await _areceive(step, http, pool))
    except StopIteration as done:
        return cast("Received", done.value)
    finally:
        # At once where it is cancelled, so that it lets go of whatever it holds.
        steps.close()


def _receive(step: Send, http: httpx.Client, pool: Pool[httpx.Client]) -> Received | Exception:
    body = _Body(step.seconds, pool.clock)
    problem: Exception | None = None
    try:
        # Streamed, so that the time can be looked at between two reads.
        response = http.send(step.request, auth=pool.auth, stream=True, follow_redirects=False)
        try:
            pieces = response.stream if _is_plain(response) else response.iter_bytes()
            for chunk in cast("Iterable[bytes]", pieces):
                body.add(chunk, response)
        except (httpx.HTTPError, _BodyTooLargeError) as error:
            problem = error
        finally:
            response.close()
    except Exception as error:  # noqa: BLE001  # the exchange decides
        return error
    return _received(response, b"".join(body.chunks), problem)


async def _areceive(
    step: Send, http: httpx.AsyncClient, pool: Pool[httpx.AsyncClient]
) -> Received | Exception:
    import anyio

    body = _Body(step.seconds, pool.clock)
    response: httpx.Response | None = None
    problem: Exception | None = None
    try:
        with anyio.move_on_after(step.seconds + _GRACE) as scope:
            response = await http.send(
                step.request, auth=pool.auth, stream=True, follow_redirects=False
            )
            try:
                pieces = response.stream if _is_plain(response) else response.aiter_bytes()
                async for chunk in cast("AsyncIterable[bytes]", pieces):
                    body.add(chunk, response)
            except (httpx.HTTPError, _BodyTooLargeError) as error:
                problem = error
            finally:
                await response.aclose()
    except Exception as error:  # noqa: BLE001  # the exchange decides
        return error
    if scope.cancelled_caught:
        problem = body.late(step.request)
    if response is None:
        return cast("Exception", problem)
    return _received(response, b"".join(body.chunks), problem)


def _is_plain(response: httpx.Response) -> bool:
    """Whether its body is what its stream gives, which is quicker to read than to decode."""
    # A hook of the caller's may have read it already.
    return not response.is_stream_consumed and "content-encoding" not in response.headers


class _Body:
    """The body of an answer, as far as it is read; neither too large nor too late."""

    __slots__ = ("_clock", "_ends", "_seconds", "_size", "chunks")

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.chunks: list[bytes] = []
        self._clock = clock
        self._ends = clock.monotonic() + seconds
        self._seconds = seconds
        self._size = 0

    def add(self, chunk: bytes, response: httpx.Response) -> None:
        """Takes in what was read, and looks at size and time."""
        self.chunks.append(chunk)
        self._size += len(chunk)
        largest = _LARGEST_BODY if response.is_success else _LARGEST_FAILURE
        if self._size > largest:
            raise _BodyTooLargeError(f"it is larger than {largest >> 20} MiB")
        if self._clock.monotonic() > self._ends:
            raise self.late(response.request)

    def late(self, request: httpx.Request) -> httpx.ReadTimeout:
        """What it is not to be read any longer for."""
        return httpx.ReadTimeout(f"no whole answer within {self._seconds:g} s", request=request)


class _BodyTooLargeError(Exception):
    """A body that goes on and on, or that a few bytes decompress to."""


def _received(response: httpx.Response, content: bytes, problem: Exception | None) -> Received:
    """An answer; one that repeats the access token has it taken out."""
    headers = response.headers
    token = _secret(response.request)
    if token is not None:
        secret = token.encode()
        if secret in content:
            content = content.replace(secret, REMOVED.encode())
        if any(secret in name or secret in value for name, value in headers.raw):
            headers = httpx.Headers(
                [
                    (name.replace(secret, b"access-token"), value.replace(secret, REMOVED.encode()))
                    for name, value in headers.raw
                ]
            )
    return Received(response.status_code, headers, content, problem)


def _secret(request: httpx.Request) -> str | None:
    """The access token of a request, unless it may be a word of any answer."""
    _, _, token = request.headers.get("authorization", "").partition(" ")
    return token if len(token) >= _SECRET_LENGTH else None
