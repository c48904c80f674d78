"""Decides how an operation is performed: wait for quota, send, read, classify, repeat or end.

It is a generator without I/O: it yields steps, which a driver does.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import httpx

from intercom_data_events import errors
from intercom_data_events._sending import retry
from intercom_data_events._sending.request import Operation, build
from intercom_data_events._sending.steps import (
    BodyTooLargeError,
    RawResponse,
    Send,
    Steps,
    Wait,
    secret_of,
)

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import RateLimiter, Reservation
    from intercom_data_events._sending.session import ProcessState, Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Clock

log = logging.getLogger("intercom_data_events")

T = TypeVar("T")

# The headers that are read of every answer, because look-ups in httpx.Headers are slow.
_QUOTA = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
_HEADERS = {b"date", b"intercom-version", b"retry-after", *_QUOTA}
# Seconds. With less of the deadline left after a wait, no further attempt is made.
_LEAST_LEFT = 0.1
# The generated code and the standard library raise these for an answer that is not as described;
# they have no common base.
_MISREAD = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


def acquire(
    limiter: RateLimiter, reservation: Reservation, clock: Clock, label: str, ends: float
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
        # Only the first request in the queue knows how long it waits.
        if left <= 0 or left <= seconds < math.inf:
            return False
        if seconds < math.inf and not announced:
            announced = True
            log.info("%s waits up to %.2f s for the rate limit", label, seconds)
        yield Wait(min(seconds, left), reservation.alarm)
        seconds = limiter.acquire(reservation)
    return clock.monotonic() < ends


def reserve(
    session: Session[Any], settings: Settings, seconds: float = math.inf
) -> Steps[Reservation | None]:
    """Acquires quota for one request of a scheduler, which then decides what to send.

    So a request in flight never has to ask its scheduler.

    Args:
        session: The connections that will send it.
        settings: Its settings.
        seconds: The longest wait.

    Returns:
        The reservation, which the caller passes to :meth:`Exchange.steps` or releases; None if
        there was no quota in time.
    """
    limiter = session.process_state().limiter
    reservation = limiter.reservation(settings.quota_share, paced=settings.pace)
    acquired = False
    try:
        ends = session.clock.monotonic() + seconds
        acquired = yield from acquire(limiter, reservation, session.clock, "an event", ends)
    finally:
        # Also if the wait is interrupted or cancelled.
        if not acquired:
            limiter.release(reservation)
    return reservation if acquired else None


class Exchange(Generic[T]):
    """One operation in flight: its attempts so far, and whether one may have been processed.

    Args:
        operation: What to send, and how to read the answer.
        session: The connections to use.
        settings: The settings of the requests.
    """

    def __init__(self, operation: Operation[T], session: Session[Any], settings: Settings) -> None:
        self.operation, self.session, self.settings = operation, session, settings
        self.attempts = 0
        self.recurs = self.possibly_processed = False
        self.begun = session.clock.monotonic()
        self.request: httpx.Request | None = None

    def steps(self, reservation: Reservation | None = None) -> Steps[errors.APIResponse[T]]:
        """Yields the steps and returns the answer.

        Args:
            reservation: The acquired quota for the first attempt; it is released here in any case.
                The default is to wait for quota.

        Raises:
            APIConnectionError: No attempt got a whole answer.
            APIResponseError: The answer reports a failure, or cannot be read.
            Exception: The caller's own, for example from a hook; with a note if the request may
                have been processed.
        """
        settings, session, label = self.settings, self.session, self.operation.label
        clock = session.clock
        ends = self.begun + settings.deadline
        acquired = reservation is not None
        failure: errors.IntercomError | None = None
        try:
            state = session.process_state()
            limiter = state.limiter
            if reservation is None:
                reservation = limiter.reservation(settings.quota_share, paced=settings.pace)
            while True:
                if not acquired:
                    acquired = yield from acquire(limiter, reservation, clock, label, ends)
                if not acquired:
                    failure = failure or errors.APITimeoutError(
                        f"{label} was not sent: the app's rate limit left no room for it within "
                        f"the deadline of {settings.deadline:g} s; send fewer requests at once, or "
                        "pass a longer deadline"
                    )
                    break
                if reservation.withdrawn:
                    failure = failure or errors.NotSentError(
                        f"{label} was not sent: its sender was closed"
                    )
                    break
                result = yield from self._attempt(state, reservation, ends)
                if not isinstance(result, errors.IntercomError):
                    return result
                failure = result
                self.possibly_processed |= failure.may_have_been_processed
                wait = self._wait(failure)
                if wait is None or clock.monotonic() + wait > ends - _LEAST_LEFT:
                    break
                log.info(
                    "%s: %s, retrying in %.2f s (%d of %d)",
                    label, _reason(failure), wait, self.attempts, settings.max_retries,
                )  # fmt: skip
                yield Wait(wait, None)
                acquired = False
        except Exception as error:
            # From elsewhere: the caller's hook, transport or token function.
            if isinstance(error, errors.IntercomError):
                self._conclude(error)
            elif self.possibly_processed:
                error.add_note(f"{label} may have been processed nevertheless.")
            raise
        finally:
            if reservation is not None:
                session.release(reservation)
        raise self._conclude(failure)

    def _attempt(
        self, state: ProcessState[Any], reservation: Reservation, ends: float
    ) -> Steps[errors.APIResponse[T] | errors.IntercomError]:
        """Makes one attempt; returns the answer or the failure.

        Raises:
            Exception: The caller's own: from a hook, a transport, or the function that returns the
                token.
        """
        session, clock, label = self.session, self.session.clock, self.operation.label
        begun = clock.monotonic()
        seconds = min(self.settings.seconds_per_attempt, max(0.0, ends - begun))
        request = self.request = build(self.operation, self.settings, state, seconds)
        outcome = yield Send(request, seconds)
        # The token is put on the request when it is sent; without one, nothing was sent.
        sent = "authorization" in request.headers or not session.enabled
        self.attempts += sent
        if isinstance(outcome, httpx.HTTPStatusError) and _is_about(outcome, request):
            # A caller's hook raises it for a status, as a rule before the body is read.
            answer = outcome.response
            content = answer.content if answer.is_stream_consumed else b""
            outcome = RawResponse.of(answer, content, outcome)
        if not isinstance(outcome, RawResponse):
            error = cast("Exception", outcome)
            about_request = _is_about(error, request)
            possibly_sent = sent and retry.was_possibly_sent(error, about_request=about_request)
            state.limiter.release(reservation, lost=possibly_sent)
            if not retry.is_failure(error, about_request=about_request):
                self.possibly_processed |= self.operation.changes and sent
                raise error
            failure = self._failed(None, error, possibly_sent, about_request)
            log.debug("%s %s", label, _reason(failure))
            return failure
        headers = {
            known.decode(): value.decode("latin-1")
            for name, value in outcome.headers.raw
            if (known := name.lower()) in _HEADERS
        }
        state.limiter.release(reservation, headers, status=outcome.status_code)
        session.note(headers, self.settings.version)
        # The transport of a disabled client logs what it does not send.
        if log.isEnabledFor(logging.DEBUG) and session.enabled:
            log.debug("%s %d in %.3f s", label, outcome.status_code, clock.monotonic() - begun)
        if not 200 <= outcome.status_code < 300:
            return self._failed(outcome, outcome.problem, sent=True, about_request=True)
        try:
            return outcome.with_parsed(self.operation.read(outcome))
        except (httpx.HTTPError, BodyTooLargeError, *_MISREAD) as problem:
            # Reading belongs to the attempt, so that an unreadable answer can be retried.
            return self._failed(outcome, problem, sent=True, about_request=True)

    def _wait(self, failure: errors.IntercomError) -> float | None:
        """Returns the seconds until the next attempt; None if this was the last one."""
        last = self.recurs or self.attempts > self.settings.max_retries
        if last or not retry.is_repeated(failure, self.operation.idempotency):
            return None
        return retry.seconds_to_wait(failure, self.attempts, self.session.clock.time())

    def _failed(
        self, answer: RawResponse | None, problem: Exception | None, sent: bool, about_request: bool
    ) -> errors.IntercomError:
        """Returns the typed error of a failed attempt.

        Args:
            answer: The answer, if there is one.
            problem: What went wrong while sending or reading.
            sent: Whether the server may have got the request.
            about_request: Whether the problem is about the request.
        """
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._sending.responses import failed_attempt

        version = self.settings.version
        possible = self.operation.changes and sent
        # The status of an answer says more than what happened to its body.
        decided = problem is None or (answer is not None and not 200 <= answer.status_code < 300)
        self.recurs = not decided and retry.recurs(
            cast("Exception", problem), about_request=about_request
        )
        return failed_attempt(self.operation, answer, problem, version, possible, self._secret())

    def _conclude(self, failure: errors.IntercomError) -> errors.IntercomError:
        """Completes the error of the last attempt with the totals of all attempts."""
        secret = self._secret()
        message = str(failure).replace(secret, errors.REMOVED) if secret else str(failure)
        failure.tries = self.attempts
        failure.elapsed = self.session.clock.monotonic() - self.begun
        failure.may_have_been_processed = self.possibly_processed
        if self.attempts > 1:
            message += f"; tried {self.attempts} times in {failure.elapsed:.1f} s"
        if self.possibly_processed:
            message += "; it may have been processed nevertheless"
        failure.args = (message,)
        return failure

    def _secret(self) -> str | None:
        """Returns the access token of the latest attempt."""
        return None if self.request is None else secret_of(self.request)


def _is_about(error: Exception, request: httpx.Request) -> bool:
    """Whether an error is from httpx and about this request, not about one that a hook made."""
    if not isinstance(error, httpx.HTTPError):
        return False
    try:
        return error.request is request
    except RuntimeError:
        return False  # The error has no request.


def _reason(failure: errors.IntercomError) -> str:
    """Returns the status or the type of a failure, for logs."""
    if isinstance(failure, errors.APIResponseError):
        return str(failure.response.status_code)
    return type(failure.__cause__ or failure).__name__
