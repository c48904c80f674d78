"""Reads an answer as the type that was requested, whatever `type` it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import RawResponse
    from intercom_data_events.pagination import ContactSummary, Page

# The `type` of a list and of a summary.
_TYPES = ("event.list", "event.summary")
_ACCEPTED = 202


def read_acceptance(answer: RawResponse) -> None:
    """Reads the answer to a submission: 202, or another success with JSON or without a body.

    Raises:
        TypeError: The body is a list of errors.
        ValueError: The body is not JSON, for example because a captive portal answered.
    """
    if answer.status_code == _ACCEPTED:
        return  # Documented; the body does not matter.
    if answer.problem is not None:
        raise answer.problem
    if not answer.content.strip():
        return
    decoded = answer.json()
    if isinstance(decoded, dict) and (decoded.get("type") == "error.list" or decoded.get("errors")):
        raise TypeError("it is a list of errors")


def read_page(answer: RawResponse, most: int | None = None) -> Page:
    """Reads a page of a listing, at most `most` of its events.

    Raises:
        Exception: The answer is not a listing. The exchange expects errors of this type.
    """
    from intercom_data_events import pagination

    return pagination.read_page(_fields(answer, "event.list"), most)


def read_summary(answer: RawResponse) -> ContactSummary:
    """Reads a summary.

    Raises:
        Exception: The answer is not a summary. The exchange expects errors of this type.
    """
    from intercom_data_events import pagination

    return pagination.read_summary(_fields(answer, "event.summary"))


def _fields(answer: RawResponse, expected_type: str) -> dict[str, Any]:
    """Returns the JSON of an answer that has events, without the type that was expected."""
    decoded = answer.json()
    if not isinstance(decoded, dict):
        raise TypeError("it must be a JSON object")
    type_ = decoded.get("type")
    if type_ == "error.list" or ("events" not in decoded and type_ not in _TYPES):
        raise TypeError("it must have events")
    if type_ in (expected_type, None, ""):
        decoded.pop("type", None)
    return decoded
