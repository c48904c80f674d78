"""Converts the fields of a record to an event, or finds all their problems at once.

The rules are those of `Event`: each field is tried as part of an otherwise valid event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from intercom_data_events import Event
from intercom_data_events import metadata as _metadata
from intercom_data_events._validation import short_repr
from intercom_data_events.cli.importer.columns import FIELDS, IDENTITIES, meant
from intercom_data_events.cli.usage import worded
from intercom_data_events.errors import InvalidInputError

_FIELDS = (*FIELDS, "metadata")
_SOUND: Mapping[str, object] = {"event_name": "?", "created_at": 0, "user_id": "?"}
# Problems of a record in its message.
_TOLD = 20
_NO_TIME = "created_at is missing; add it, or pass --stamp-now to use the current time"


def of_listing(fields: dict[str, object]) -> dict[str, object]:
    """Returns the fields to send of an event that the API has listed; other fields unchanged.

    A listed event has the `type` "event" or an `intercom_user_id`, which is the contact's `id` in
    an event to send. The `id` of a listed event is not the contact's.

    Example:
        >>> of_listing({"type": "event", "event_name": "ran", "id": "e1", "intercom_user_id": "5f"})
        {'event_name': 'ran', 'id': '5f'}
    """
    if fields.get("type") != "event" and "intercom_user_id" not in fields:
        return fields
    listed = {**fields, "id": fields.get("intercom_user_id")}
    return {name: listed[name] for name in _FIELDS if listed.get(name) is not None}


def without_unsupported(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns the fields without metadata whose type the API does not support."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, Mapping):
        return dict(fields)
    kept = {key: value for key, value in metadata.items() if _metadata.is_supported(value)}
    return {**fields, "metadata": kept}


def problems(fields: Mapping[str, object]) -> str:
    """Returns all problems of an event's fields, joined; an empty string if there are none."""
    found = list(islice(_problems(fields), _TOLD + 1))
    if len(found) > _TOLD:
        found[_TOLD] = "and more problems"
    return "; ".join(found)


def _problems(fields: Mapping[str, object]) -> Iterator[str]:
    if fields.get("type") == "event.list" or isinstance(fields.get("events"), list):
        yield "the line must be one event, not a page of events; convert it with: jq -c '.events[]'"
        return
    known = {name: fields[name] for name in _FIELDS if name in fields}
    for name, value in fields.items():
        if name in _FIELDS:
            continue
        field = meant(name)
        if field is None or field in known:
            yield f"events have no field {short_repr(name)}; remove it, or move it into metadata"
        else:
            yield f"events have no field {short_repr(name)}; did you mean {field}?"
            known[field] = value
    named = {"event_name": known["event_name"]} if "event_name" in known else {}
    yield from _faults(named, without="event_name")
    identities = {kind: known[kind] for kind in IDENTITIES if known.get(kind) is not None}
    if not identities:
        yield from _faults({}, without="user_id")
    for kind, identity in identities.items():
        yield from _faults({kind: identity})
    if known.get("created_at") is not None:
        yield from _faults({"created_at": known["created_at"]})
    else:
        yield _NO_TIME
    metadata = known.get("metadata")
    if not isinstance(metadata, Mapping):
        yield from _faults({"metadata": metadata})
        return
    if len(metadata) > _metadata.MAX_KEYS:
        yield from _faults({"metadata": metadata})
    for key, value in islice(metadata.items(), _metadata.MAX_KEYS):
        yield from _faults({"metadata": {key: value}})
    if not all(map(_metadata.is_supported, metadata.values())):
        yield "or pass --drop-unsupported to leave out unsupported metadata"


def _faults(part: Mapping[str, object], *, without: str | None = None) -> Iterator[str]:
    """Yields the problem of some fields of an event whose other fields are valid."""
    fields = {name: value for name, value in _SOUND.items() if name != without}
    try:
        Event.from_dict({**fields, **part})
    except InvalidInputError as error:
        yield worded(error)
