"""Decides how an operation is performed: wait for quota, send, read, classify, retry or end.

It is a generator without I/O: it yields steps, which a driver performs.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from intercom_data_events import errors
from intercom_data_events._sending.engines import (
    BodyError,
    RawResponse,
    Request,
    SendError,
)
from intercom_data_events._sending.redaction import redacted_text
from intercom_data_events._sending.request import Operation, body_of
from intercom_data_events._sending.steps import (
    Answer,
    Authorize,
    Send,
    Steps,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from intercom_data_events._sending.pacing import RateLimiter, Reservation
    from intercom_data_events._sending.secret import Secret
    from intercom_data_events._sending.session import ProcessState, Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Alarm, AsyncAlarm, Clock

log = logging.getLogger("intercom_data_events")

T = TypeVar("T")

# The headers that are read from every answer.
_QUOTA = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
_HEADERS = {b"date", b"intercom-version", b"retry-after", b"x-request-id", *_QUOTA}
# Seconds that must be left before the deadline for another attempt.
_LEAST_LEFT = 0.1
# Errors of reading and of the standard library for an answer that is not in the documented format;
# they have no common base.
_MISREAD = (RecursionError, TypeError, ValueError)


def acquire(
    limiter: RateLimiter,
    reservation: Reservation,
    clock: Clock,
    operation: Operation[Any],
    ends: float,
) -> Steps[bool]:
    """Waits until a reservation has quota, or until a time of the monotonic clock.

    Returns:
        Whether it has quota. In both cases, the caller releases the reservation.
    """
    seconds = limiter.acquire(reservation)
    if seconds <= 0:
        return True
    announced = False
    while seconds > 0:
        left = ends - clock.monotonic()
        # Only the first request in the queue knows its waiting time.
        if left <= 0 or left <= seconds < math.inf:
            return False
        if seconds < math.inf and not announced:
            announced = True
            log.info("%s waits up to %.2f s for the rate limit", operation.label, seconds)
        # It is an alarm to wait on, because no other waker was passed.
        yield Wait(min(seconds, left), cast("Alarm | AsyncAlarm | None", reservation.alarm))
        seconds = limiter.acquire(reservation)
    return clock.monotonic() < ends - _LEAST_LEFT


class Exchange(Generic[T]):
    """One operation in flight: its attempts so far, and whether one may have been processed.

    Args:
        operation: What to send, and how to read the answer.
        session: The connections to use.
        settings: The settings of the requests.
    """

    def __init__(self, operation: Operation[T], session: Session[Any], settings: Settings) -> None:
        self.operation, self.session, self.settings = operation, session, settings
        # A begun attempt sends nothing if the token function takes too long.
        self.begun_attempts = self.attempts = 0
        self.recurs = self.possibly_processed = False
        self.begun = session.clock.monotonic()
        self._token: Secret[str] | None = None
        self._body: bytes | None = None

    def steps(self, reservation: Reservation | None = None) -> Steps[Answer[T]]:
        """Yields the steps and returns the answer.

        Args:
            reservation: The acquired quota for the first attempt; it is always released here. The
                default is to wait for quota.

        Raises:
            APIConnectionError: No attempt got a complete answer.
            APIResponseError: The answer reports a failure, or cannot be read.
            Exception: An error of the caller's code, such as a hook; with a note if the request may
                have been processed.
        """
        session, settings = self.session, self.settings
        acquired = reservation is not None
        state: ProcessState[Any] | None = None
        try:
            state = session.enter()
            if reservation is None:
                reservation = state.limiter.reservation(
                    settings.quota_share, paced=settings.pace, uses_slot=session.has_own_connections
                )
            else:
                state.limiter.begin(reservation)
            result = yield from self._attempts(state, reservation, acquired)
        except errors.IntercomError as error:
            result = error
        except Exception as error:
            # An error of the caller's hook, transport or token function.
            if self.possibly_processed:
                error.add_note(f"{self.operation.label} may have been processed.")
            raise
        finally:
            if reservation is not None and reservation.held:
                session.release(reservation)
            if state is not None:
                state.leave()
        if isinstance(result, errors.IntercomError):
            # Outside the handler, so that the handled exception does not become its context.
            raise self._conclude(result)
        return result

    def _attempts(
        self, state: ProcessState[Any], reservation: Reservation, acquired: bool
    ) -> Steps[Answer[T] | errors.IntercomError]:
        """Makes attempts until one succeeds or is the last; returns the answer or the failure."""
        settings, operation, clock = self.settings, self.operation, self.session.clock
        limiter = state.limiter
        ends = self.begun + settings.deadline
        failure: errors.IntercomError | None = None
        while True:
            if not acquired:
                acquired = yield from acquire(limiter, reservation, clock, operation, ends)
            if not acquired:
                waits_for_slot = reservation.waits_for_slot
                slot, limit = "no connection was free", "the app's rate limit did not permit it"
                what = slot if waits_for_slot else limit
                return failure or errors.APITimeoutError(
                    f"{operation.label} was not sent: {what} within the deadline of "
                    f"{settings.deadline:g} s; send fewer requests at once, or pass a longer "
                    "deadline"
                )
            if reservation.withdrawn:
                return failure or errors.NotSentError(
                    f"{operation.label} was not sent: its tracker or create_many was closed"
                )
            result = yield from self._attempt(state, reservation, ends)
            if not isinstance(result, errors.IntercomError):
                return result
            failure = result
            self.possibly_processed |= failure.may_have_been_processed
            wait = self._wait(failure)
            if wait is None or clock.monotonic() + wait > ends - _LEAST_LEFT:
                return failure
            log.info(
                "%s: %s, retrying in %.2f s (%d of %d)",
                operation.label, _reason(failure), wait, self.begun_attempts, settings.max_retries,
            )  # fmt: skip
            yield Wait(wait, None)
            acquired = False

    def _attempt(
        self, state: ProcessState[Any], reservation: Reservation, ends: float
    ) -> Steps[Answer[T] | errors.IntercomError]:
        """Makes one attempt; returns the answer or the failure."""
        session, clock, limiter = self.session, self.session.clock, state.limiter
        begun = clock.monotonic()
        self.begun_attempts += 1
        seconds = min(self.settings.seconds_per_attempt, max(0.0, ends - begun))
        outcome: object
        try:
            request = yield from self._request(seconds)
        except SendError as error:
            # The function did not return the token in time.
            limiter.release(reservation)
            return self._failed(None, error)
        session.check_open()
        self.attempts += 1
        outcome = yield Send(request, state.engine)
        if not isinstance(outcome, RawResponse):
            if isinstance(outcome, SendError):
                limiter.release(reservation, lost=outcome.possibly_sent)
                failure = self._failed(None, outcome)
                log.debug("%s %s", self.operation.label, _reason(failure))
                return failure
            limiter.release(reservation, lost=True)
            if not isinstance(outcome, errors.IntercomError):
                self.possibly_processed |= self.operation.changes
            raise cast("Exception", outcome)
        answer = outcome
        headers = {
            known.decode(): value.decode("latin-1")
            for name, value in answer.raw_headers
            if (known := name.lower()) in _HEADERS
        }
        limiter.release(reservation, headers, status=answer.status_code)
        session.note(headers, self.settings.version)
        # The engine of a disabled client logs the request instead of sending it.
        if log.isEnabledFor(logging.DEBUG) and session.enabled:
            log.debug(
                "%s %d in %.3f s%s", self.operation.label, answer.status_code,
                clock.monotonic() - begun, self._request_id(headers),
            )  # fmt: skip
        if not 200 <= answer.status_code < 300:
            return self._failed(answer, answer.problem)
        try:
            return Answer(answer, self.operation.read(answer))
        except (SendError, BodyError, *_MISREAD) as problem:
            # Reading belongs to the attempt, so that an unreadable answer can be retried.
            return self._failed(answer, problem)

    def _request(self, seconds: float) -> Steps[Request]:
        """Returns the request of an attempt that has the given seconds.

        Raises:
            SendError: The function that returns the token took too long.
        """
        session, clock = self.session, self.session.clock
        self._token = session.auth.known_token
        if session.auth.is_function:
            ends = clock.monotonic() + seconds
            token = yield Authorize(seconds)
            if isinstance(token, Exception):
                raise token
            self._token = cast("Secret[str]", token)
            seconds = max(0.0, ends - clock.monotonic())
        if self._body is None:
            self._body = body_of(self.operation)
        endpoint = session.endpoint(self.operation, self.settings)
        query = self.operation.sent_query
        return Request(endpoint, query, self._body, self._token, seconds)

    def _wait(self, failure: errors.IntercomError) -> float | None:
        """Returns the seconds until the next attempt; None if this was the last one."""
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._sending import retry

        last = self.recurs or self.begun_attempts > self.settings.max_retries
        if last or not retry.is_repeated(failure, self.operation.idempotency):
            return None
        return retry.seconds_to_wait(failure, self.begun_attempts, self.session.clock.time())

    def _failed(
        self, answer: RawResponse | None, problem: Exception | None
    ) -> errors.IntercomError:
        """Returns the typed error of a failed attempt; `problem` is that of sending or reading."""
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._sending.responses import Route, failed_attempt

        # The status of an answer says more than the fate of its body.
        decided = answer is not None and not 200 <= answer.status_code < 300
        self.recurs = not decided and getattr(problem, "recurs", False)
        route = Route(self.settings, self.session)
        version = self.settings.version
        return failed_attempt(self.operation, answer, problem, route, version, self._token)

    def _request_id(self, headers: Mapping[str, str]) -> str:
        """Returns the id of a request for logs, if it looks like an id."""
        given = redacted_text(headers.get("x-request-id", ""), self._token)
        is_id = len(given) <= 64 and given.isascii() and given.replace("-", "").isalnum()
        return f", request id {given}" if is_id else ""

    def _conclude(self, failure: errors.IntercomError) -> errors.IntercomError:
        """Adds the totals of all attempts to the error of the last one."""
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._sending.causes import lay_bare

        lay_bare(failure, self._token)
        message = redacted_text(str(failure), self._token)
        failure.tries = self.attempts
        failure.elapsed = self.session.clock.monotonic() - self.begun
        failure.may_have_been_processed = self.possibly_processed
        if self.attempts > 1:
            message += f"; tried {self.attempts} times in {failure.elapsed:.1f} s"
        if self.possibly_processed:
            message += "; the request may have been processed"
        failure.args = (message,)
        return failure


def _reason(failure: errors.IntercomError) -> str:
    """Returns the status or the type of a failure, for logs."""
    if isinstance(failure, errors.APIResponseError):
        return str(failure.response.status_code)
    return type(failure.__cause__ or failure).__name__
