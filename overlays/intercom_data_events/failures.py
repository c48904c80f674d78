"""What a failed try becomes: the right member of the tree, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

import httpx

from intercom_data_events.checks import shown
from intercom_data_events.errors import (
    REMOVED,
    APIConnectionError,
    APIResponse,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    IntercomError,
    InvalidResponseError,
    InvalidVersionError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnprocessableEntityError,
    reported_errors,
    texts,
)
from intercom_data_events.retry import Effect, causes, possibly_sent

#: What a try that failed becomes.
FailedTry: TypeAlias = APIConnectionError | APIResponseError

# Characters of an answer that an error quotes; the answer itself is kept whole.
_LONGEST_WORDS = 500
_IDENTITIES = ("user_id", "id", "intercom_user_id", "email")

_KINDS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
# Of the statuses from 400 to 499, which refuse, those that say no more than that somebody stopped
# waiting: 444, 460 and 499 are those of nginx and load balancers.
_GAVE_UP = {408, 444, 460, 499}
_HINTS: Mapping[int, str] = {
    400: "Intercom cannot make sense of the request",
    401: "the access token is missing, wrong or revoked; or base_url or region is another "
    "workspace's",
    403: "the access token may not do this; it needs write access to events",
    408: "the request did not arrive in time",
    422: "Intercom does not accept the request",
    429: "the app's rate limit is used up until its window resets",
}


def status_error(
    response: APIResponse[None],
    what: str,
    *,
    about: Mapping[str, object],
    version: str,
    effect: Effect,
) -> APIStatusError:
    """Returns the member of the tree for an answer that reports a failure.

    Args:
        response: The answer.
        what: What was asked, such as ``POST /events``.
        about: Whom or what it was about: identities, and the name of the event.
        version: The API version that it was made for.
        effect: What the request does where it is processed.
    """
    status = response.status_code
    reported = reported_errors(response.content)
    kind = _KINDS.get(status, ServerError if status >= 500 else APIStatusError)
    hint = _HINTS.get(status, "an answer that is not described")
    codes = texts(reported, "code")
    if status >= 500:
        hint = "something failed at Intercom, or in front of it"
    elif 300 <= status < 400:
        hint = "a redirect, which is not followed with an access token; check base_url"
    elif status == 404:
        hint = f"there is no contact with {_whom(about)} in the token's workspace"
        hint += (
            "; Intercom takes events of contacts that exist, so create it first"
            if reported
            # Not in Intercom's words, so perhaps not Intercom's.
            else ", or nothing at this address; check base_url"
        )
    elif status == 409:
        shared = _whom({"email": about["email"]}) if "email" in about else "e-mail address"
        hint = f"several contacts share the {shared}; use user_id or id instead"
    elif "intercom_version_invalid" in codes:
        kind, hint = InvalidVersionError, _unknown_version(version)
    elif status == 422 and any("active event names" in said for said in texts(reported, "message")):
        # Documented: 120; observed: this answer to one more.
        hint = (
            f"the workspace has all the names of events that it can, and {_name(about)} would be "
            "one more; archive names in Intercom's settings, or use one that is there"
        )
    said = "; ".join(_said(item) for item in reported)
    parts = [f"{status} for {what}: {hint}"]
    if said:
        parts.append(f"Intercom says: {said}")
    if response.request_id:
        parts.append(f"request id {_printable(response.request_id)}")
    # A failed server may have done its work before it failed, a redirect may lead to what came of
    # it, and what gave up waiting may have handed the request on; all others refuse.
    possible = effect is not Effect.NONE and not (400 <= status < 500 and status not in _GAVE_UP)
    return kind(". ".join(parts), response, may_have_been_processed=possible)


def connection_error(
    error: Exception, what: str, effect: Effect, *, foreign: bool = False
) -> APIConnectionError:
    """Returns the member of the tree for a try that got no whole answer.

    Args:
        error: What went wrong.
        what: What was asked.
        effect: What the request does where it is processed.
        foreign: Whether it is nothing that httpx says about the request.
    """
    possible = effect is not Effect.NONE and (foreign or possibly_sent(error))
    # Under trio, httpx's own error says nothing; what led to it does.
    said = (str(cause) for cause in causes(error) if isinstance(cause, Exception))
    reason = next(filter(None, said), type(error).__name__)
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return APITimeoutError(
            f"{what}: no answer in time ({reason})", may_have_been_processed=possible
        )
    return APIConnectionError(f"{what}: {reason}", may_have_been_processed=possible)


def unreadable(
    response: APIResponse[None], what: str, reason: str, effect: Effect
) -> InvalidResponseError:
    """Returns the error for a success that is not as described."""
    return InvalidResponseError(
        f"{response.status_code} for {what}: a success {reason}",
        response,
        may_have_been_processed=effect is not Effect.NONE,
    )


def failed_try(
    response: APIResponse[None] | None,
    problem: Exception | None,
    what: str,
    *,
    about: Mapping[str, object],
    version: str,
    effect: Effect,
    foreign: bool = False,
    secret: str | None = None,
) -> FailedTry:
    """Returns the member of the tree for a try that did not end in an answer to parse.

    Args:
        response: The answer, with as much of its body as could be read; None where there was none.
        problem: What went wrong on the way, or while the body was read; becomes the cause.
        what: What was asked, such as ``POST /events``.
        about: Whom or what it was about: identities, and the name of the event.
        version: The API version that it was made for.
        effect: What the request does where it is processed.
        foreign: Whether the problem is nothing that httpx says about the request.
        secret: The access token, which a problem must not show.
    """
    failure: FailedTry
    on_the_way = isinstance(problem, httpx.TransportError)
    if response is not None and not 200 <= response.status_code < 300:
        # Said by its status; the body only says more.
        failure = status_error(response, what, about=about, version=version, effect=effect)
    elif response is not None and not on_the_way:
        failure = unreadable(response, what, f"whose body cannot be read: {problem}", effect)
    else:
        failure = connection_error(cast("Exception", problem), what, effect, foreign=foreign)
    # What does not speak HTTP is quoted, and can have repeated the access token.
    shown = any(secret in repr(cause) for cause in causes(problem)) if secret and problem else False
    failure.__cause__ = None if shown else _without_request(problem)
    return failure


def concluded(
    failure: IntercomError,
    tries: int,
    elapsed: float,
    possibly_processed: bool,
    *,
    secret: str | None,
) -> IntercomError:
    """Completes what the last try ended in with what all of them came to.

    Args:
        failure: The last.
        tries: How many there were.
        elapsed: Seconds from the first to now.
        possibly_processed: Whether one of them may have taken effect.
        secret: The access token, which a message must not show.
    """
    message = str(failure)
    if secret:
        message = message.replace(secret, REMOVED)
    if tries > 1:
        message += f"; tried {tries} times in {elapsed:.1f} s"
    if possibly_processed:
        message += "; it may have been processed all the same"
    failure.args = (message,)
    failure.tries = tries
    failure.elapsed = elapsed
    failure.may_have_been_processed = possibly_processed
    return failure


def _without_request(error: Exception | None) -> Exception | None:
    """Takes the request off an error of httpx before it becomes a cause, which is looked into."""
    if not isinstance(error, httpx.RequestError | httpx.HTTPStatusError):
        return error
    try:
        sent = error.request
    except RuntimeError:
        return error  # It never had one.
    error.request = bare = httpx.Request(sent.method, sent.url.copy_with(query=None))
    if isinstance(error, httpx.HTTPStatusError):
        error.response.request = bare
    return error


def _whom(about: Mapping[str, object]) -> str:
    """A contact's identities; of an e-mail address, which is personal, no more than tells it."""
    named = []
    for name in _IDENTITIES:
        value = about.get(name)
        if isinstance(value, str):
            if name == "email":
                local, at, domain = value.rpartition("@")
                value = f"{local[:1]}…{at}{domain}"
            named.append(f"{name} {shown(value)}")
    return " and ".join(named) or "this identity"


def _name(about: Mapping[str, object]) -> str:
    return shown(about.get("event_name", "this one"))


def _unknown_version(version: str) -> str:
    from intercom_data_events_api.models.intercom_version import INTERCOM_VERSION_VALUES

    known = sorted(INTERCOM_VERSION_VALUES, key=_numbers)
    return (
        f"Intercom does not know the API version {version} that was sent; known here are "
        f"{', '.join(known)}: set version= or INTERCOM_VERSION to one of them"
    )


def _numbers(version: str) -> tuple[bool, list[int]]:
    parts = version.split(".")
    numbered = all(part.isdigit() for part in parts)
    return not numbered, [int(part) for part in parts] if numbered else []


def _said(item: Mapping[str, object]) -> str:
    code, message, at = (item.get(key) for key in ("code", "message", "field"))
    said = f"{message or code}"
    if message and code:
        said += f" ({code})"
    if at:
        said += f" at {at}"
    return _printable(said)


def _printable(text: str) -> str:
    """What an answer says, so that it cannot forge lines of a log or stop a terminal."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_LONGEST_WORDS])
    return f"{safe}…" if len(text) > _LONGEST_WORDS else safe
