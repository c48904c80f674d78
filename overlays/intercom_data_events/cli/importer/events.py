"""From the fields of a record to an event, or to all that is wrong with them at once.

The rules are those of the core: each part of the fields is tried as part of an event.
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
# How many problems of a record are told.
_TOLD = 20
_NO_TIME = "created_at is missing; add it, or pass --stamp-now to use the current time"


def of_listing(fields: dict[str, object]) -> dict[str, object]:
    """Returns the fields to send of an event that the API has listed, and other fields as they are.

    A listed event has the `type` "event", or an `intercom_user_id`, which no event to send has and
    which is the contact's `id`. Its own `id` is not the contact's.

    Example:
        >>> of_listing({"type": "event", "event_name": "ran", "id": "e1", "intercom_user_id": "5f"})
        {'event_name': 'ran', 'id': '5f'}
    """
    if fields.get("type") != "event" and "intercom_user_id" not in fields:
        return fields
    listed = {**fields, "id": fields.get("intercom_user_id")}
    return {name: listed[name] for name in _FIELDS if listed.get(name) is not None}


def without_unsupported(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns the fields without keys of metadata whose value has a type that the API lacks."""
    metadata = fields.get("metadata")
    if not isinstance(metadata, Mapping):
        return dict(fields)
    kept = {key: value for key, value in metadata.items() if _metadata.is_supported(value)}
    return {**fields, "metadata": kept}


def problems(fields: Mapping[str, object]) -> str:
    """Returns all that is wrong with the fields of an event, joined; an empty string for nothing.

    Args:
        fields: In the API's field names, and others.
    """
    found = list(islice(_problems(fields), _TOLD + 1))
    if len(found) > _TOLD:
        found[_TOLD] = "and further problems"
    return "; ".join(found)


def _problems(fields: Mapping[str, object]) -> Iterator[str]:
    if fields.get("type") == "event.list" or isinstance(fields.get("events"), list):
        yield "this is a page of a listing; make it one event per line: jq -c '.events[]'"
        return
    known = {name: fields[name] for name in _FIELDS if name in fields}
    for name, value in fields.items():
        if name in _FIELDS:
            continue
        field = meant(name)
        if field is None or field in known:
            yield f"events have no field {short_repr(name)}: remove it, or move it into metadata"
        else:
            yield f"events have no field {short_repr(name)}: did you mean {field}?"
            known[field] = value
    named = {"event_name": known["event_name"]} if "event_name" in known else {}
    yield from (faults := list(_faults(named, without="event_name")))
    identities = {kind: known[kind] for kind in IDENTITIES if known.get(kind) is not None}
    if not identities:
        yield from _faults({} if faults else named, without="user_id")
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
        yield "to leave out metadata that the API does not support, pass --drop-unsupported"


def _faults(part: Mapping[str, object], *, without: str | None = None) -> Iterator[str]:
    """Yields what is wrong with a part of an event whose other fields are sound."""
    fields = {name: value for name, value in _SOUND.items() if name != without}
    try:
        Event.from_dict({**fields, **part})
    except InvalidInputError as error:
        yield worded(error)
