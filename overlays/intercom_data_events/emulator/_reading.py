"""Reads the requests of the three endpoints and refuses those that the documentation forbids."""

from __future__ import annotations

import json
import math
import re

import attrs
import httpx

from ._refusal import JSON, RefusalError, invalid, missing
from ._workspace import EmulatedContact, MetadataValue, Tally

BODY_LIMIT = 1024 * 1024
"""The largest request body in bytes (inferred: one event needs far less)."""

METADATA_KEYS = 10
"""The number of metadata keys that an event keeps (documented)."""

PER_PAGE = 15
"""The number of events on a page by default (documented)."""

# Inferred: integers have 64 bits.
_BEYOND = 2**63

# The year 1: no document forbids times before 1970.
_FIRST = -62_135_596_800
# Seconds reach this number in the year 5138, milliseconds reached it in 1973.
_MILLISECONDS = 10**11

# The one media type that the description has for bodies, with any parameters. Two headers arrive as
# one, joined by a comma, which does not match.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf'{_WORD}=({_WORD}|"([^"\\]|\\.)*")'
_DECLARED = re.compile(
    rf"application/json[ \t]*(;[ \t]*({_PARAMETER}[ \t]*)?)*", re.IGNORECASE | re.DOTALL
)

_IDENTITIES = ("user_id", "email", "intercom_user_id")
_NOBODY = EmulatedContact()


@attrs.frozen
class NewEvent:
    """The content of a request to create an event."""

    who: EmulatedContact
    name: str
    created_at: int
    metadata: dict[str, MetadataValue]


@attrs.frozen
class NewSummary:
    """The content of a request to create event summaries."""

    who: EmulatedContact
    tallies: list[Tally]


@attrs.frozen
class Question:
    """The content of a request to list or summarize a contact's events."""

    who: EmulatedContact
    identity: tuple[str, str]
    summary: bool
    per_page: int | None
    before: int | None
    since: int | None


def check_declaration(media_type: str | None) -> None:
    """Refuses a body that is not declared as JSON.

    Args:
        media_type: The Content-Type header, or None if there is none.

    Raises:
        RefusalError: It is missing, another type, or several types.
    """
    if media_type is None or not _DECLARED.fullmatch(media_type):
        # The status is documented. Inferred: the code, which Intercom sends about the Accept
        # header, and that a missing header is refused in the same way as a wrong one.
        raise RefusalError(
            415,
            "media_type_not_acceptable",
            "The Content-Type header must be application/json, and must be sent once",
        )


def read_event(body: bytes) -> NewEvent:
    """The event to store, with its first metadata keys.

    Raises:
        RefusalError: A field is missing or wrong.
    """
    fields = _read_object(body)
    who = EmulatedContact(
        user_id=_read_identity(fields, "user_id"),
        id=_read_identity(fields, "id"),
        email=_read_identity(fields, "email"),
    )
    if who == _NOBODY:
        raise missing("user_id", "At least one of user_id, id, email is required")
    return NewEvent(
        who, _read_name(fields), _read_time(fields, "created_at"), _read_metadata(fields)
    )


def read_summary(body: bytes) -> NewSummary:
    """The counts to add for one contact.

    Raises:
        RefusalError: A field is missing or wrong.
    """
    fields = _read_object(body)
    user_id = _read_identity(fields, "user_id")
    if user_id is None:
        raise missing("user_id")
    summaries = fields.get("event_summaries")
    if summaries is None:
        raise missing("event_summaries")
    # The documented schema is one object; its description says a list. Both are accepted.
    several = summaries if isinstance(summaries, list) else [summaries]
    if not several:
        raise invalid("event_summaries", "event_summaries must not be empty")
    return NewSummary(EmulatedContact(user_id=user_id), [_read_tally(one) for one in several])


def read_question(query: httpx.QueryParams) -> Question:
    """Which contact's events to list or to summarize, and how.

    Raises:
        RefusalError: A parameter is missing or wrong.
    """
    if (kind := query.get("type")) is None:
        raise missing("type")
    if kind != "user":
        raise invalid("type", "type must be user")
    identities = [(name, value) for name, value in query.multi_items() if name in _IDENTITIES]
    if not identities:
        raise missing("user_id", f"One of {', '.join(_IDENTITIES)} is required")
    if len(identities) > 1:
        raise invalid(identities[1][0], f"Only one of {', '.join(_IDENTITIES)} is allowed")
    ((name, value),) = identities
    if not value:
        raise invalid(name, f"{name} must not be empty")
    # Documented as a boolean; inferred: other words are refused.
    summary = query.get("summary", "false")
    if summary not in ("true", "false"):
        raise invalid("summary", "summary must be true or false")
    per_page = _read_number(query, "per_page")
    if per_page == 0:
        raise invalid("per_page", "per_page must be positive")
    who = {
        "user_id": EmulatedContact(user_id=value),
        "email": EmulatedContact(email=value),
        "intercom_user_id": EmulatedContact(id=value),
    }[name]
    return Question(
        who,
        (name, value),
        summary == "true",
        per_page,
        _read_number(query, "before"),
        _read_number(query, "since"),
    )


def _read_object(body: bytes) -> dict[str, JSON]:
    try:
        document: JSON = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, "bad_request", "The body must be valid JSON") from error
    if not isinstance(document, dict):
        raise RefusalError(400, "bad_request", "The body must be a JSON object")
    return document


def _refuse_constant(name: str) -> JSON:
    # Python's parser accepts NaN and Infinity, which are not valid JSON.
    raise ValueError(name)


def _read_identity(fields: dict[str, JSON], name: str) -> str | None:
    if name not in fields:
        return None
    # Null is refused, too: the description has it in answers only.
    if not isinstance(value := fields[name], str) or not value:
        raise invalid(name, f"{name} must be a non-empty string")
    return value


def _read_name(fields: dict[str, JSON]) -> str:
    name = fields.get("event_name")
    if name is None:
        raise missing("event_name")
    if not isinstance(name, str) or not name.strip():
        raise invalid("event_name", "event_name must be a non-empty string")
    return name


def _read_time(fields: dict[str, JSON], name: str) -> int:
    value = fields.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < _FIRST:
        raise invalid(name, f"{name} must be an integer of Unix seconds")
    if value >= _MILLISECONDS:
        raise invalid(name, f"{name} must be Unix seconds, not milliseconds")
    return value


def _read_tally(fields: JSON) -> Tally:
    if not isinstance(fields, dict):
        raise invalid("event_summaries", "An event summary must be an object")
    name = _read_name(fields)
    count = fields.get("count")
    if count is None:
        raise missing("count")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count < _BEYOND:
        raise invalid("count", "count must be a positive integer")
    first, last = _read_time(fields, "first"), _read_time(fields, "last")
    if first > last:
        raise invalid("last", "last must not be before first")
    return Tally(name, count, first, last)


def _read_metadata(fields: dict[str, JSON]) -> dict[str, MetadataValue]:
    metadata = fields.get("metadata", {})
    if not isinstance(metadata, dict):
        raise invalid("metadata", "metadata must be an object")
    # Documented: further keys are ignored, so they are not checked either.
    kept = list(metadata.items())[:METADATA_KEYS]
    return {key: _read_value(key, value) for key, value in kept}


def _read_value(key: str, value: JSON) -> MetadataValue:
    match value:
        case bool() | None:
            pass
        case str() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case {"url": str(url), "value": str(text), **more} if not more:
            return {"url": url, "value": text}
        case {"amount": int(amount), "currency": str(currency), **more} if not more:
            # Documented: a positive integer, in cents; inferred: 0 is accepted, too.
            if 0 <= amount < _BEYOND and not isinstance(amount, bool):
                return {"amount": amount, "currency": currency}
        case _:
            pass
    raise invalid(key, f"{key} must be a string, a number, a rich link or a monetary amount")


def _read_number(query: httpx.QueryParams, name: str) -> int | None:
    if (text := query.get(name)) is None:
        return None
    # The length is bounded because int() refuses thousands of digits.
    if not re.fullmatch(r"[0-9]{1,24}", text):
        raise invalid(name, f"{name} must be a number")
    return int(text)
