"""Decides what a failure means: its class, whether to repeat the request, and how long to wait.

The client, bulk sending, the tracker, the Celery task and the command line call this module.
Nothing here does I/O. The engine reports whether a request without an answer was possibly sent.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from intercom_data_events import errors
from intercom_data_events._sending.engines.kinds import is_kind
from intercom_data_events._sending.quota import retry_after, seconds_until_reset
from intercom_data_events._sending.request import Idempotency

if TYPE_CHECKING:
    from intercom_data_events._words import Words

#: How many other events must be accepted before a systemic answer counts as one about its event
#: alone; and how many answers to other events to wait for before sending stops.
OTHERS = 3

# Transient statuses below 500. 444, 460 and 499 come from nginx and load balancers.
_TRANSIENT = {408, 425, 429, 444, 460, 499}
# The server, or its client, stopped waiting; it may have passed the request on. All other statuses
# from 400 to 499 reject the request.
_STOPPED_WAITING = {408, 444, 460, 499}
# Documented: codes for the token, its permissions, and the plan (observed with 402 and 403).
# Observed: they also occur with statuses other than 401 and 403, such as 400.
_ACCESS_CODES = frozenset(
    "action_forbidden api_plan_restricted forbidden missing_authorization token_blocked "
    "token_expired token_not_found token_revoked token_unauthorized unauthorized".split()
)
_VERSION_CODE = "intercom_version_invalid"
# Observed with 404 for an event whose contact does not exist, or not yet.
_UNKNOWN_CODE = "not_found"
_ACCESS_STATUSES = {401, 402, 403}
# The statuses that are documented for codes, or observed with most of them.
_PLAN_CODES = frozenset(["api_plan_restricted"])
_PERMISSION_CODES = frozenset(["action_forbidden", "forbidden"])
_MEANINGS = {
    402: _PLAN_CODES,
    403: _PERMISSION_CODES,
    401: _ACCESS_CODES - _PLAN_CODES - _PERMISSION_CODES,
    429: frozenset(["rate_limit_exceeded"]),
    409: frozenset(["conflict"]),
    404: frozenset([_UNKNOWN_CODE]),
}
# Statuses with which Intercom rejects one request, if the body is Intercom's list of errors.
_PERMANENT = {400, 404, 409, 413, 422}

# Seconds: the longest first wait; it doubles with each attempt, up to the longest wait.
_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
# A power of two that is a finite float and exceeds any wait.
_MOST_DOUBLINGS = 1000


class ErrorClass(Enum):
    """What a failure says about the event that got it."""

    #: The same event would get the same error again, so it is rejected.
    PERMANENT = "permanent"
    #: The failure passes. Sending the event again is safe, whether or not it has arrived.
    TRANSIENT = "transient"
    #: The failure is not about the event: every event gets it until a person changes something.
    SYSTEMIC = "systemic"


def classify(error: errors.IntercomError) -> ErrorClass:
    """Returns the class of an error from sending an event."""
    if isinstance(error, errors.ConfigurationError):
        return ErrorClass.SYSTEMIC
    if isinstance(error, errors.InvalidInputError):
        return ErrorClass.PERMANENT
    if not isinstance(error, errors.APIResponseError):
        return ErrorClass.TRANSIENT
    status = error.response.status_code
    if status >= 500 or status in _TRANSIENT:
        return ErrorClass.TRANSIENT
    words = _words(error.response.content)
    codes = words.intercoms_codes
    if denies_access(codes) or refuses_version(codes):
        return ErrorClass.SYSTEMIC
    if status < 300:
        return ErrorClass.TRANSIENT  # A success that cannot be read; the next one may be readable.
    # Observed: a 422 without a body for one event name too many. Any other answer without
    # Intercom's list of errors comes from a proxy or a wrong address, unless a caller's hook raised
    # for the status before the body was read.
    bare = is_bare(error.response)
    unread = bare and is_kind(error.__cause__, "HTTPStatusError")
    if status in _PERMANENT and (words.of_intercom or unread or (bare and status == 422)):
        return ErrorClass.PERMANENT
    return ErrorClass.SYSTEMIC


def is_bare(response: errors.APIResponse[None]) -> bool:
    """Whether the body of an answer is empty, and not just impossible to decompress."""
    return not response.content.strip() and "content-encoding" not in response.headers


def is_unknown_contact(error: errors.IntercomError) -> bool:
    """Whether Intercom rejects an event because it does not know the contact.

    Observed: a contact that was created a second ago may still be unknown. A queued event can be
    sent again a little later.
    """
    if not isinstance(error, errors.APIResponseError) or error.response.status_code != 404:
        return False
    codes = _words(error.response.content).intercoms_codes
    return _UNKNOWN_CODE in codes and classify(error) is ErrorClass.PERMANENT


def meaning(status: int, words: Words) -> int:
    """Returns the status that describes a failure best: that of Intercom's code, else its own.

    Observed: codes occur with statuses other than the documented one.
    """
    codes = set(words.intercoms_codes)
    # In this order, so that of several codes a systemic one counts.
    return next((meant for meant, known in _MEANINGS.items() if codes & known), status)


def _words(content: bytes) -> Words:
    # Imported after a failure only, so that programs start faster.
    from intercom_data_events._words import read_words

    return read_words(content)


def denies_access(codes: Sequence[str], status: int | None = None) -> bool:
    """Whether an answer rejects the access token, its permissions or the workspace's plan."""
    return status in _ACCESS_STATUSES or not _ACCESS_CODES.isdisjoint(codes)


def refuses_version(codes: Sequence[str]) -> bool:
    """Whether an answer rejects the API version."""
    return _VERSION_CODE in codes


def was_possibly_processed(status: int) -> bool:
    """Whether a request with this status may have taken effect.

    A server may process a request before it fails, a redirect may lead to the result, and a success
    that cannot be read is still a success.
    """
    return not 400 <= status < 500 or status in _STOPPED_WAITING


def is_repeated(failure: errors.IntercomError, idempotency: Idempotency) -> bool:
    """Whether to retry a failed request: the failure is transient, and a retry is safe.

    A query is also retried after a success that cannot be read. Observed: a query sometimes gets
    200 without JSON.
    """
    if classify(failure) is not ErrorClass.TRANSIENT:
        return False
    if idempotency is not Idempotency.SAFE and isinstance(failure, errors.InvalidResponseError):
        return False
    return idempotency is not Idempotency.UNSAFE or not failure.may_have_been_processed


def seconds_to_wait(failure: errors.IntercomError, attempts: int, now: float) -> float:
    """Returns the seconds to wait before a failed request is retried.

    The wait is that of ``Retry-After``, else the time until the rate limit's window resets, else
    exponential backoff with full jitter, so that clients that failed together do not retry
    together.

    Args:
        failure: The error of the last attempt.
        attempts: How many attempts were made, 1 or more.
        now: Unix seconds, for an answer without ``Date``.
    """
    asked = None
    if isinstance(failure, errors.APIResponseError):
        headers = failure.response.headers
        asked = retry_after(headers, now)
        if asked is None and failure.response.status_code == 429:
            asked = seconds_until_reset(headers, now)
    if asked:
        return asked
    # A wait of 0 also becomes a backoff, because all clients may get it at the same time.
    return backoff(attempts, _FIRST_WAIT, _LONGEST_WAIT)


def backoff(attempts: int, first: float, longest: float, *, jitter: float = 1.0) -> float:
    """Returns the seconds to wait after a failed attempt: exponential backoff with jitter.

    Requests that a caller waits for use full jitter: it relieves a server best, and a short wait
    costs only one of a few attempts within a deadline. Queues use less, such as 0.5 ("equal
    jitter"): their retries have no deadline and may be few, as with Celery's ``max_retries``, so
    each must give an outage time to end.

    Args:
        attempts: How many attempts were made; fewer than 1 count as 1.
        first: The longest wait after one attempt, in seconds.
        longest: The seconds at which doubling ends.
        jitter: The random part of the wait, from 0 to 1.
    """
    # A product that overflows is infinite, so `longest` applies.
    wait = min(longest, first * 2.0 ** min(max(0, attempts - 1), _MOST_DOUBLINGS))
    return wait * (1 - jitter * random.random())  # noqa: S311  # not for security
