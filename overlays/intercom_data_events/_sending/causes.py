"""Walks the causes of an exception, and removes from them what would reveal the access token.

The frames of libraries hold the headers and the bytes of requests. Before Python 3.13, clearing
frames would close a coroutine that is suspended in one of them, so the tracebacks are removed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from intercom_data_events._sending.engines.kinds import is_kind, library_of
from intercom_data_events._sending.redaction import shows
from intercom_data_events._sending.secret import Secret
from intercom_data_events._validation import escape

if TYPE_CHECKING:
    from intercom_data_events.errors import IntercomError

# The modules between a caller's code and their function, hook or transport.
_BETWEEN = {"intercom_data_events", "httpx", "httpx2"}
# Bytes. A decoding error contains the whole body, and searching more takes seconds.
_LONGEST = 1024 * 1024


def causes(error: BaseException, but: BaseException | None = None) -> Iterator[BaseException]:
    """Yields an exception and all its causes, including those of groups.

    Args:
        error: The exception.
        but: A cause that is left out, with its own causes.
    """
    seen = {id(but)}
    waiting: list[BaseException | None] = [error]
    while waiting:
        cause = waiting.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            yield cause
            if isinstance(cause, BaseExceptionGroup):
                waiting += reversed(cause.exceptions)
            waiting += (cause.__context__, cause.__cause__)


def lay_bare(failure: IntercomError, token: Secret[str] | None) -> None:
    """Removes tracebacks and requests from a failure and its causes, and escapes their messages.

    A failure loses its causes if one of them shows the access token. An exception that the caller
    was handling is not a cause and stays unchanged.
    """
    handled = sys.exception()
    for one in list(causes(failure, handled)):
        one.__traceback__ = None
        _remove_request(one)
        if one is failure:
            continue
        if _shows(one, token):
            failure.__cause__ = failure.__context__ = None
        escape(one)  # It may quote a server, such as the reason phrase of a proxy.


def place_of(error: BaseException) -> str:
    """Returns the file and line at which the caller's code failed, after " at "; or nothing.

    Messages contain it, because the traceback is removed.
    """
    at = error.__traceback__
    while at is not None:
        if str(at.tb_frame.f_globals.get("__name__")).partition(".")[0] not in _BETWEEN:
            # Without the directory, which may name a person.
            return f" at {at.tb_frame.f_code.co_filename.rpartition(os.sep)[2]}:{at.tb_lineno}"
        at = at.tb_next
    return ""


def _remove_request(error: BaseException) -> None:
    """Replaces the request of a library's error with one without headers, because tools show it."""
    library: Any = library_of(error)
    if library is None or not isinstance(error, library.RequestError | library.HTTPStatusError):
        return
    found: Any = error
    with suppress(RuntimeError):  # The error has no request.
        sent = found.request
        found.request = bare = library.Request(sent.method, sent.url.copy_with(query=None))
        if isinstance(error, library.HTTPStatusError):
            found.response.request = bare


def _shows(error: BaseException, token: Secret[str] | None) -> bool:
    """Whether an exception shows, or may show, the access token."""
    if token is None:
        return False
    try:
        parts = [Secret(f"{error!r}{error}{vars(error)}".encode("utf-8", "surrogatepass"))]
        if is_kind(error, "HTTPStatusError"):
            answer: Any = error
            answer = answer.response
            if answer.is_stream_consumed:
                parts.append(Secret(answer.content))
            parts.append(Secret(b"\n".join(map(b"\n".join, answer.headers.raw))))
            parts.append(Secret(answer.reason_phrase.encode()))
    except Exception:  # noqa: BLE001  # from a __repr__ of the caller's code
        return True
    return any(len(part.value) > _LONGEST or shows(part, token) for part in parts)
