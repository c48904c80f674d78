"""Turns a failed attempt into a typed error that says what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, cast

from intercom_data_events import errors
from intercom_data_events._sending import retry
from intercom_data_events._sending.engines import BodyError, RawResponse, SendError, causes
from intercom_data_events._validation import short_repr
from intercom_data_events.errors import IntercomError, reported_errors, texts
from intercom_data_events.response import APIResponse
from intercom_data_events_api.errors import UnexpectedStatus

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation

# Characters of an answer that a message quotes; the error keeps the whole answer.
_LONGEST_QUOTE = 500
_IDENTITIES = ("user_id", "id", "intercom_user_id", "email")

#: The type of an error by status; any other from 500 on is a ServerError.
_TYPES: Mapping[int, type[errors.APIStatusError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
}


def _status_error(
    operation: Operation[Any], response: APIResponse[None], version: str
) -> errors.APIStatusError:
    """Returns the typed error of an answer that reports a failure."""
    status = response.status_code
    reported = reported_errors(response.content)
    other = errors.ServerError if status >= 500 else errors.APIStatusError
    kind = _TYPES.get(status, other)
    if 400 <= status < 500 and retry.refuses_version(texts(reported, "code")):
        kind = errors.InvalidVersionError
    hint = _hint(response, operation.log_context(), version)
    parts = [f"{status} for {operation.label}: {hint}"]
    if quoted := "; ".join(_quoted(item) for item in reported):
        parts.append(f"Intercom says: {quoted}")
    if response.request_id:
        parts.append(f"request id {_printable(response.request_id)}")
    possible = operation.changes and retry.was_possibly_processed(status)
    return kind(". ".join(parts), response, may_have_been_processed=possible)


def _hint(response: APIResponse[None], context: Mapping[str, object], version: str) -> str:
    """Returns what an answer means, and the remedy."""
    status, reported = response.status_code, reported_errors(response.content)
    codes = texts(reported, "code")
    if status >= 500:
        return "Intercom failed, or a proxy in front of it"
    if 300 <= status < 400:
        return "redirects are not followed, to protect the access token; check base_url"
    if retry.refuses_version(codes):
        return _unknown_version(version)
    if status == 402 or "api_plan_restricted" in codes:
        return "the workspace's plan does not include this"
    if status == 403 or not {"forbidden", "action_forbidden"}.isdisjoint(codes):
        return "the access token does not permit this; it needs access to events" + (
            "" if reported else "; or a proxy in front of Intercom refuses the request"
        )
    if retry.denies_access(codes, status):
        return "the access token is missing, wrong or revoked, or it belongs to another region"
    if status == 404 and reported:
        return (
            f"there is no contact with {_contact(context)} in the token's workspace; Intercom "
            "accepts events of existing contacts only, so create the contact first"
        )
    if status == 409:
        email = _contact({"email": context.get("email")}, "e-mail address")
        return f"several contacts share the {email}; use user_id or id instead"
    if any("active event names" in text for text in texts(reported, "message")):
        # Documented: 120; observed: this answer, with 422, to one more.
        name = short_repr(context.get("event_name", "this one"))
        return (
            "the workspace has the maximum number of event names, so Intercom rejects the new name "
            f"{name}; archive names in Intercom's settings, or use an existing name"
        )
    if status == 408:
        return "the request did not arrive in time"
    if status == 429:
        return "the app's rate limit is used up until its window resets"
    if reported or (status == 422 and not response.content.strip()):
        return "Intercom does not accept the request"
    what = "there is nothing at this address" if status == 404 else "this is not Intercom's answer"
    return f"{what}; check base_url, region and any proxy in between"


def _connection_error(operation: Operation[Any], problem: SendError) -> errors.APIConnectionError:
    """Returns the typed error of an attempt that got no whole answer."""
    # Under trio, the error of httpx has no message, but its cause has one.
    said = (str(cause) for cause in causes(problem.cause) if isinstance(cause, Exception))
    reason = next(filter(None, said), type(problem.cause).__name__)
    possible = operation.changes and problem.possibly_sent
    if problem.timed_out:
        return errors.APITimeoutError(
            f"{operation.label}: no answer in time ({reason})", may_have_been_processed=possible
        )
    message = f"{operation.label}: {reason}"
    return errors.APIConnectionError(message, may_have_been_processed=possible)


def failed_attempt(
    operation: Operation[Any],
    answer: RawResponse | None,
    problem: Exception | None,
    version: str,
    token: str | None,
) -> IntercomError:
    """Returns the typed error of an attempt without a readable success.

    Args:
        operation: The operation of the request.
        answer: The answer, with the part of its body that was read; None without an answer.
        problem: The error of sending or reading; it becomes the cause.
        version: The API version of the request.
        token: The access token, which the cause must not show.
    """
    failure: IntercomError
    if answer is not None and not 200 <= answer.status_code < 300:
        # The status decides; the body only adds details.
        failure = _status_error(operation, answer.with_parsed(None), version)
    elif isinstance(problem, SendError):
        failure = _connection_error(operation, problem)
    else:
        answer = cast("RawResponse", answer)
        reason = _unreadable(cast("Exception", problem))
        failure = errors.InvalidResponseError(
            f"{answer.status_code} for {operation.label}: a success {reason}",
            answer.with_parsed(None),
            may_have_been_processed=operation.changes,
        )
    cause = problem.cause if isinstance(problem, SendError | BodyError) else problem
    # A library's error can quote the server, which may have repeated the token.
    if cause is not None and not (token and any(_shows(one, token) for one in causes(cause))):
        failure.__cause__ = cause
    return failure


def _unreadable(problem: Exception) -> str:
    """Returns what is wrong with a success that cannot be read."""
    if isinstance(problem, UnexpectedStatus):
        return "with a status that is not in the API's description"
    if isinstance(problem, BodyError):
        return f"whose body cannot be read: {problem}"
    if isinstance(problem, KeyError):
        return f"with a body that lacks {problem}"
    if isinstance(problem, JSONDecodeError | UnicodeDecodeError | RecursionError):
        return (
            "with a body that is not JSON, so it is not Intercom's answer; check base_url and any "
            "proxy or login page in between"
        )
    return f"with a body that is not as described: {str(problem) or type(problem).__name__}"


def _shows(error: BaseException, secret: str) -> bool:
    """Whether an exception shows a secret; one that cannot be shown may."""
    try:
        return secret in f"{error!r}{getattr(error, '__notes__', '')}"
    except Exception:  # noqa: BLE001  # a __repr__ of the caller's own
        return True


def _contact(log_context: Mapping[str, object], otherwise: str = "this identity") -> str:
    """Returns a contact's identities; an e-mail address is personal, so only a part of it."""
    named = []
    for name in _IDENTITIES:
        value = log_context.get(name)
        if isinstance(value, str):
            if name == "email":
                local, at, domain = value.rpartition("@")
                value = f"{local[:1]}…{at}{domain}"
            named.append(f"{name} {short_repr(value)}")
    return " and ".join(named) or otherwise


def _unknown_version(version: str) -> str:
    from intercom_data_events_api.models.intercom_version import INTERCOM_VERSION_VALUES

    # By number, and names such as "Preview" last.
    known = sorted(INTERCOM_VERSION_VALUES, key=lambda one: (len(one), one))
    return (
        f"Intercom does not accept the API version {version} that was sent; set version= or "
        f"INTERCOM_VERSION to one of {', '.join(known)}"
    )


def _quoted(item: Mapping[str, object]) -> str:
    code, message, at = (item.get(key) for key in ("code", "message", "field"))
    said = f"{message} ({code})" if message and code else f"{message or code}"
    return _printable(f"{said} at {at}" if at else said)


def _printable(text: str) -> str:
    """Escapes what an answer says, so that it cannot forge log lines or control a terminal."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_LONGEST_QUOTE])
    return f"{safe}…" if len(text) > _LONGEST_QUOTE else safe
