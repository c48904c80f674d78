"""Turns a failed attempt into a typed error with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from json import JSONDecodeError
from typing import TYPE_CHECKING, Any, cast

import httpx
from attrs import frozen

from intercom_data_events import errors
from intercom_data_events._sending import retry
from intercom_data_events._sending.causes import causes
from intercom_data_events._sending.engines import BodyError, RawResponse, SendError
from intercom_data_events._sending.engines.connections import origin_of, proxy_of
from intercom_data_events._sending.engines.kinds import library_of
from intercom_data_events._sending.redaction import redacted_text
from intercom_data_events._sending.settings import region_of
from intercom_data_events._validation import printable, short_email, short_repr
from intercom_data_events._words import Words, read_words
from intercom_data_events.errors import IntercomError
from intercom_data_events.response import APIResponse

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events._sending.secret import Secret
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings

# Characters of an answer that a message quotes; the error keeps the whole answer.
_LONGEST_QUOTE = 1000
_IDENTITIES = ("user_id", "id", "intercom_user_id", "email")

#: The type of an error by status; any other status from 500 on is a ServerError.
_TYPES: Mapping[int, type[errors.APIStatusError]] = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
}

# Causes and remedies by the meaning of an answer (see `retry.meaning`).
_ADVICE: Mapping[int, str] = {
    401: (
        "the access token is missing, wrong or revoked, or it belongs to another region; copy it "
        "again from Intercom's Developer Hub, or change the region"
    ),
    402: "the workspace's plan does not include this request",
    403: "the access token does not permit this request; give its app access to events",
    407: "a proxy requires a username and a password; set them in its address",
    408: "the request did not arrive in time",
    429: "the app's rate limit is used up until its window resets",
}
_MOST_NAMES = "120 active event names, the maximum"  # Documented.
_NAMES_REMEDY = "archive names in Intercom's settings, or use an existing name"


@frozen
class Route:
    """Where requests go, for messages.

    Attributes:
        settings: The settings of the requests.
        session: The session that sends them.
    """

    settings: Settings
    session: Session[Any]

    @property
    def origin(self) -> str:
        """The scheme, host and port."""
        return origin_of(httpx.URL(self.settings.base_url))

    @property
    def via(self) -> str:
        """The caller's sender or the proxy, after a space; empty for neither."""
        if self.session.sender:
            return f" through your {self.session.sender}"
        url = httpx.URL(self.settings.base_url)
        proxy = None
        with suppress(errors.ConfigurationError):  # The variable has changed since.
            proxy = proxy_of(url)
        return f" through the proxy {proxy}" if proxy else ""

    def __str__(self) -> str:
        """Returns all of it, with the region."""
        region = region_of(self.settings.base_url)
        named = f", region {region}" if region else ""
        return f"{self.origin}{named},{self.via or ' without a proxy'}"


def _status_error(
    operation: Operation[Any], response: APIResponse[None], version: str, route: Route
) -> errors.APIStatusError:
    """Returns the typed error of an answer that reports a failure."""
    status = response.status_code
    words = read_words(response.content)
    other = errors.ServerError if status >= 500 else errors.APIStatusError
    kind = _TYPES.get(status, other)
    if 400 <= status < 500 and retry.refuses_version(words.intercoms_codes):
        kind = errors.InvalidVersionError
    hint = _hint(operation, response, words, version, route)
    parts = [f"{status} for {operation.label}: {hint}"]
    if quoted := "; ".join(map(str, words.reasons)):
        speaker = "Intercom" if words.of_intercom else "The answer"
        parts.append(f"{speaker} says: {printable(quoted, _LONGEST_QUOTE)}")
    if response.request_id:
        parts.append(f"request id {response.request_id}")
    possible = operation.changes and retry.was_possibly_processed(status)
    return kind(". ".join(parts), response, may_have_been_processed=possible)


def _hint(
    operation: Operation[Any],
    response: APIResponse[None],
    words: Words,
    version: str,
    route: Route,
) -> str:
    """Returns what an answer means, and the remedy."""
    status = response.status_code
    said = ""
    if status >= 500:
        said = "Intercom or a proxy in front of it failed"
    elif 300 <= status < 400:
        to = _redirected_to(response.headers.get("location", ""), route)
        said = f"redirects{to} are not followed, to protect the access token"
        said += f"; check the base URL ({route})"
    advice = _advice(operation, response, words, version)
    if said:
        return f"{said}; its code says that {advice}" if advice else said
    # Observed: a 422 without a body for one event name too many.
    if words.of_intercom or status in (408, 429) or _is_bare_422(response):
        return advice or "Intercom does not accept the request"
    check = f"check the base URL, the region and any proxy in between ({route})"
    if advice is None:
        other = "the answer is not in Intercom's format"
        return f"{'there is nothing at this address' if status == 404 else other}; {check}"
    return (
        f"{advice}; the answer is not in Intercom's format and may come from another "
        f"server or a proxy: {check}"
    )


def _advice(
    operation: Operation[Any], response: APIResponse[None], words: Words, version: str
) -> str | None:
    """Returns the cause and remedy for a code or a status; None if there is no particular one."""
    if retry.refuses_version(words.intercoms_codes):
        return _unknown_version(version)
    context = operation.log_context()
    name = short_repr(context.get("event_name", "this one"))
    if any("active event names" in (reason.message or "") for reason in words.reasons):
        return (
            "the workspace has the maximum number of event names, so Intercom rejects the new name "
            f"{name}; {_NAMES_REMEDY}"
        )
    if _is_bare_422(response) and operation.changes:
        return (
            "Intercom does not accept the request and does not say why; if the event name "
            f"{name} is new, the workspace may have {_MOST_NAMES}: {_NAMES_REMEDY}"
        )
    meaning = retry.meaning(response.status_code, words)
    if meaning == 404 and words.of_intercom:
        return _unknown_contact(operation, context)
    if meaning == 409:
        email = _contact({"email": context.get("email")}, "e-mail address")
        return f"several contacts share the {email}; use user_id or id instead"
    return _ADVICE.get(meaning)


def _is_bare_422(response: APIResponse[None]) -> bool:
    return response.status_code == 422 and retry.is_bare(response)


def _unknown_contact(operation: Operation[Any], context: Mapping[str, object]) -> str:
    said = f"there is no contact with {_contact(context)} in the token's workspace"
    if operation.changes:
        said += "; Intercom accepts events only for existing contacts, so create the contact first"
    else:
        said += "; check the identity, and which workspace the access token is for"
    if context.get("email") and not context.get("id" if operation.changes else "intercom_user_id"):
        said += "; for a lead, pass its id in Intercom, because it has no other identity"
    return said


def _redirected_to(location: str, route: Route) -> str:
    """Returns the scheme, host and port of a redirect's target, after " to "."""
    with suppress(httpx.InvalidURL, ValueError):
        if (url := httpx.URL(location)).host:
            if not url.scheme:
                url = url.copy_with(scheme=httpx.URL(route.settings.base_url).scheme)
            return f" to {printable(origin_of(url), 100)}"
    return ""


def _connection_error(
    operation: Operation[Any], problem: SendError, route: Route, token: Secret[str] | None
) -> errors.APIConnectionError:
    """Returns the typed error of an attempt that got no complete answer."""
    # Under trio, the error of httpx has no message, but its cause has one.
    said = (str(cause) for cause in causes(problem.cause) if isinstance(cause, Exception))
    # The token is removed first: cutting the reason could leave a part of it.
    reason = next(filter(None, said), type(problem.cause).__name__)
    reason = printable(redacted_text(reason, token))
    possible = operation.changes and problem.possibly_sent
    if not problem.possibly_sent and library_of(problem.cause) is None:
        # It ended before a connection: in the function for the token, or by `close`.
        kind = errors.APITimeoutError if problem.timed_out else errors.APIConnectionError
        return kind(f"{operation.label}: {reason}")
    place = f"{route.origin}{route.via}"
    if problem.timed_out:
        return errors.APITimeoutError(
            f"{operation.label}: no answer in time from {place} ({reason}); pass a longer timeout, "
            "or check the network and any proxy in between",
            may_have_been_processed=possible,
        )
    if problem.possibly_sent:
        message = f"{operation.label}: no complete answer from {place}: {reason}"
    else:
        remedy = _connection_remedy(problem.cause, reason)
        message = f"{operation.label}: no connection to {place}: {reason}; {remedy}"
    return errors.APIConnectionError(message, may_have_been_processed=possible)


def _connection_remedy(cause: Exception, reason: str) -> str:
    """Returns the remedy for a kind of failure."""
    # By name, because engines have errors of different libraries.
    names = {type(one).__name__ for one in causes(cause)}
    if "ProxyError" in names:
        if reason.startswith("407"):
            return "set the proxy's username and password in its address, http://USERNAME:PASSWORD@HOST"
        return "the proxy does not allow requests to this host; ask its administrator"
    if "SSLCertVerificationError" in names:
        return (
            "check the base URL; to trust another certificate authority, such as that of a proxy, "
            "set SSL_CERT_FILE to its certificate file, or pass an http_client that trusts it"
        )
    if any(name.startswith("SSL") for name in names):
        return "check that the server, and any proxy with https://, supports TLS on this port"
    if "gaierror" in names:
        return (
            "check the host names of the base URL and of any proxy, DNS, and whether a proxy is "
            "needed"
        )
    return "check the base URL, the network, and any proxy in between"


def failed_attempt(
    operation: Operation[Any],
    answer: RawResponse | None,
    problem: Exception | None,
    route: Route,
    version: str,
    token: Secret[str] | None,
) -> IntercomError:
    """Returns the typed error of an attempt without a readable success.

    Args:
        operation: The operation of the request.
        answer: The answer, with the part of its body that was read, or None.
        problem: The error of sending or reading; it becomes the cause.
        route: The route of the request.
        version: The API version of the request.
        token: The access token, which the message must not show.
    """
    failure: IntercomError
    if answer is not None and not 200 <= answer.status_code < 300:
        # The status decides; the body only adds details.
        failure = _status_error(operation, answer.with_parsed(None), version, route)
    elif isinstance(problem, SendError):
        failure = _connection_error(operation, problem, route, token)
    else:
        answer = cast("RawResponse", answer)
        reason = _unreadable(cast("Exception", problem), answer.content, route)
        failure = errors.InvalidResponseError(
            f"{answer.status_code} for {operation.label}: {reason}",
            answer.with_parsed(None),
            may_have_been_processed=operation.changes,
        )
    if isinstance(problem, SendError | BodyError):
        failure.__cause__ = problem.cause
    elif problem is not None:
        failure.__cause__ = problem
    return failure


def _unreadable(problem: Exception, content: bytes, route: Route) -> str:
    """Returns what is wrong with a success that cannot be read."""
    if isinstance(problem, BodyError):
        return f"the body cannot be read: {problem}"
    words = read_words(content)
    quoted = "; ".join(map(str, words.reasons))
    # The fields of an event would look like reasons, and can be personal.
    is_failure = quoted and (words.of_intercom or words.field is None)
    said = f". The answer says: {printable(quoted, _LONGEST_QUOTE)}" if is_failure else ""
    if isinstance(problem, JSONDecodeError | UnicodeDecodeError | RecursionError):
        return (
            "the body is not JSON, so the answer is not from Intercom; check the base URL and any "
            f"proxy or login page in between ({route}){said}"
        )
    return (
        f"the body is not in the documented format: {str(problem) or type(problem).__name__}{said}"
    )


def _contact(log_context: Mapping[str, object], otherwise: str = "this identity") -> str:
    """Returns a contact's identities, with an abbreviated e-mail address."""
    named = []
    for name in _IDENTITIES:
        value = log_context.get(name)
        if isinstance(value, str):
            if name == "email":
                value = short_email(value)
            named.append(f"{name} {short_repr(value)}")
    return " and ".join(named) or otherwise


def _unknown_version(version: str) -> str:
    from intercom_data_events_api.models.intercom_version import INTERCOM_VERSION_VALUES

    # By number, with names such as "Preview" last.
    known = sorted(INTERCOM_VERSION_VALUES, key=lambda one: (len(one), one))
    # The description may list numbers only; "Preview" and "Unstable", its earlier name, exist too.
    is_known = version in known or not version[0].isdecimal()
    # Observed.
    why = ", which exists but is not available for the app or the resource" * is_known
    return (
        f"Intercom does not accept the API version {version}{why}; set the version, or "
        f"INTERCOM_VERSION, to one of {', '.join(known)}"
    )
