"""What makes two events the same, and two identities the same person.

Rules that withhold an event as a duplicate compare exactly what Intercom is known to compare, as
the emulator does. Rules that only order events may guess: a wrong guess costs time, but no event.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from intercom_data_events.event import Event

#: The key by which Intercom identifies an event: contact, name and second (documented).
Key: TypeAlias = tuple[str, str, str, float]

_REPLACED = {".": "-", "$": "-"}
# Documented: names are case-insensitive. Not documented: which letters beyond ASCII that includes;
# "STRASSE" may equal "straße" or not.
_FOLDED = str.maketrans({**dict(zip(ascii_uppercase, ascii_lowercase, strict=True)), **_REPLACED})
_HYPHENATED = str.maketrans(_REPLACED)


def key(event: Event) -> Key:
    """Returns the key of an event."""
    return *_contact(event), name_key(event.event_name), event.created_at.timestamp()


def name_key(name: str) -> str:
    """Returns what the spellings of one event name have in common."""
    return name.translate(_FOLDED)


def hyphenated(name: str) -> str:
    """Returns an event name as Intercom keeps it; documented."""
    return name.translate(_HYPHENATED)


def person(event: Event) -> tuple[str, str]:
    """Returns the key by which events keep their order; it ignores the case of e-mail addresses.

    Whether Intercom does so is a guess. Two kinds of identities count as two persons.
    """
    kind, identity = _contact(event)
    return kind, identity.casefold() if kind == "email" else identity


def _contact(event: Event) -> tuple[str, str]:
    if event.user_id is not None:
        return "user_id", event.user_id
    if event.id is not None:
        return "id", event.id
    return "email", event.email or ""
