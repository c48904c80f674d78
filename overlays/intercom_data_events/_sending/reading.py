"""Reads an answer as what was requested, whatever `type` the answer names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import RawResponse
    from intercom_data_events.pagination import ContactSummary, Page

# The `type` of a list and of a summary.
_TYPES = ("event.list", "event.summary")
_ACCEPTED = 202


M = TypeVar("M")


def read_acceptance(answer: RawResponse) -> None:
    """Reads the answer to a submission: 202, or another success with JSON or without a body.

    Raises:
        TypeError: The body is a list of errors.
        ValueError: The body is not JSON: a captive portal, for example, answered for Intercom.
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


def read_page(answer: RawResponse) -> Page:
    """Reads a page of a listing.

    Raises:
        Exception: The answer cannot be read; one of the types that the exchange expects.
    """
    from intercom_data_events.pagination import make_page
    from intercom_data_events_api.models import DataEvent, DataEventList, DataEventListPages

    listed = _expected(_parsed(answer, "event.list"), DataEventList)
    # The generated parser leaves values as they are where it cannot make a model.
    for event in listed.events or ():
        _expected(event, DataEvent)
    if listed.pages:
        _expected(listed.pages, DataEventListPages)
    return make_page(listed)


def read_summary(answer: RawResponse) -> ContactSummary:
    """Reads a summary.

    Raises:
        Exception: The answer cannot be read; one of the types that the exchange expects.
    """
    from intercom_data_events.pagination import make_summary
    from intercom_data_events_api.models import DataEventSummary, DataEventSummaryItem

    summarised = _expected(_parsed(answer, "event.summary"), DataEventSummary)
    for item in summarised.events or ():
        if item is not None:
            _expected(item, DataEventSummaryItem)
    return make_summary(summarised)


def _parsed(answer: RawResponse, expected_type: Literal["event.list", "event.summary"]) -> object:
    """Parses an answer with the generated code, as what was requested.

    That code tells lists and summaries apart by `type` alone, so `type` is set accordingly.
    """
    from intercom_data_events_api.api.data_events import list_data_events

    decoded = answer.json()
    if not isinstance(decoded, dict):
        raise TypeError("it must be a JSON object")
    type_ = decoded.get("type")
    if type_ == "error.list" or ("events" not in decoded and type_ not in _TYPES):
        raise TypeError("it must have events")
    decoded["type"] = expected_type
    return list_data_events.parse_response(answer.status_code, decoded)


def _expected(parsed: object, kind: type[M]) -> M:
    """Returns the model if it is of the kind; otherwise raises the error of making one."""
    if not isinstance(parsed, kind):
        if isinstance(parsed, dict):
            cast("Any", kind).from_dict(parsed)  # A generated model.
        raise TypeError(f"it must be a {kind.__name__}, not {parsed!r:.200}")
    return parsed
