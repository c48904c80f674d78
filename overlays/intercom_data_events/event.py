"""An event to send to Intercom."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from attrs import field, frozen

from intercom_data_events import timestamps
from intercom_data_events._validation import (
    Flaw,
    checked_text,
    flawed,
    invalid,
    is_missing,
    short_repr,
    whole_number,
)
from intercom_data_events.errors import IdentityError, InvalidInputError

if TYPE_CHECKING:
    from intercom_data_events.metadata import Metadata, MetadataValue
    from intercom_data_events.timestamps import Timestamp

__all__ = ["Event"]

#: What the fields of an event must be.
MAPPING = "an event must be a mapping of field names to values"

_FIELDS = ("event_name", "created_at", "user_id", "id", "email", "metadata")
# A row without a value for one of these lacks the field. `created_at` is not among them, because an
# event without a time would be stamped with the current second.
_OPTIONAL = {"user_id", "id", "email", "metadata"}


@frozen(init=False)
class Event:
    """Something that a contact did, checked and stamped when it is made.

    `created_at` is set once, here. Intercom documents that contact, name and second identify an
    event in a workspace, so sending the same `Event` again does not count it twice.

    Args:
        event_name: What happened, as a past-tense verb and a noun, such as ``placed-order``.
            Intercom ignores case, and replaces ``.`` and ``$`` with ``-``.
        user_id: Your own identifier for the contact.
        email: The contact's e-mail address, if it identifies the contact.
        id: Intercom's identifier for the contact, the only one that works for leads.
        created_at: When it happened: an aware datetime, integer Unix seconds, or an ISO 8601 string
            with an offset. The default is now.
        metadata: Details, at most 10 keys; see :mod:`intercom_data_events.metadata`.
        drop_excess_metadata: Whether to drop the keys after the tenth, as Intercom does, instead
            of raising an error.

    Attributes:
        created_at: An aware datetime in UTC, without microseconds.
        metadata: A copy of the metadata, as Python values.

    Raises:
        IdentityError: user_id, email and id are all missing, or one is empty or not a string.
        TimestampError: The API would misread `created_at`.
        MetadataError: The API does not accept the metadata; the message names the key.
        InvalidInputError: The event name is empty or not a string.

    Example:
        >>> event = Event("invited-friend", user_id="314159", created_at=1671028894)
        >>> event.to_dict()
        {'event_name': 'invited-friend', 'created_at': 1671028894, 'user_id': '314159'}
    """

    event_name: str
    created_at: datetime
    user_id: str | None
    id: str | None
    email: str | None
    metadata: Mapping[str, MetadataValue] = field(hash=False)

    def __init__(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        name = check_event_name(event_name)
        identities = check_identities({"user_id": user_id, "email": email, "id": id})
        if not identities:
            said = f"event {short_repr(event_name)} has no contact: pass user_id, email or id"
            plain = "the event has no contact: add user_id, email or id"
            raise Flaw((), said, plain).error(IdentityError)
        if created_at is None:
            created_at = int(time.time())
        decoded: dict[str, object] = {}
        if metadata is not None:
            # Imported here, because not all programs use metadata.
            from intercom_data_events import metadata as _metadata

            if drop_excess_metadata and isinstance(metadata, Mapping):
                metadata = dict(list(metadata.items())[: _metadata.MAX_KEYS])
            # Encoding checks the values; decoding gives equal values for all spellings.
            decoded = _metadata.decode(_metadata.encode(metadata))
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it
            event_name=name,
            created_at=timestamps.from_unix(timestamps.to_unix(created_at, "created_at")),
            user_id=identities.get("user_id"),
            id=identities.get("id"),
            email=identities.get("email"),
            metadata=cast("Mapping[str, MetadataValue]", decoded),
        )

    def to_dict(self) -> dict[str, object]:
        """Returns the event as the API's JSON, without the fields that are not set.

        Raises:
            MetadataError: The metadata has since been changed to something that the API rejects.
        """
        fields: dict[str, object] = {
            "event_name": self.event_name,
            "created_at": int(self.created_at.timestamp()),
        }
        for name in ("user_id", "id", "email"):
            if (identity := getattr(self, name)) is not None:
                fields[name] = identity
        if self.metadata:
            from intercom_data_events import metadata as _metadata

            # Encoded and checked again: a caller can change the mapping.
            fields["metadata"] = _metadata.encode(self.metadata)
        return fields

    def to_json(self) -> str:
        """Returns the result of :meth:`to_dict` as an ASCII string of JSON.

        Raises:
            MetadataError: The metadata has since been changed to something that the API rejects.
        """
        return to_json(self.to_dict())

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Event:
        """Makes an event from the API's JSON; the reverse of :meth:`to_dict`.

        Args:
            fields: The fields, as the API names them. Identifiers and metadata whose value is
                missing, as in rows of frames and tables (None, NaN, ``pandas.NA``), are left out.
                If `created_at` is left out or None, the event gets the current second; NaN and NaT
                are errors.

        Raises:
            InvalidInputError: There is an unknown field or no name, or a value that `Event` does
                not accept.

        Example:
            >>> Event.from_dict({"event_name": "ran", "user_id": "1", "email": None}).user_id
            '1'
        """
        if not isinstance(fields, Mapping):
            raise invalid(InvalidInputError, MAPPING, fields)
        unknown = [name for name in fields if name not in _FIELDS]
        if unknown:
            raise InvalidInputError(
                f"an event has no field {short_repr(unknown[0])}; use one of {', '.join(_FIELDS)}"
            )
        if "event_name" not in fields:
            raise InvalidInputError("event_name is missing; add it")
        given = {
            name: value
            for name, value in fields.items()
            if name not in _OPTIONAL or not is_missing(value)
        }
        return cls(**given)  # type: ignore[arg-type]  # the constructor checks each value


def to_json(value: object, **options: Any) -> str:
    """Returns JSON, with null for NaN and infinity, which an answer can contain but JSON cannot.

    Args:
        value: What to write.
        options: Those of `json.dumps`.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        finite = json.loads(json.dumps(value, **options), parse_constant=lambda _: None)
        return json.dumps(finite, **options)


def check_event_name(event_name: object) -> str:
    """Returns the name of an event.

    Raises:
        InvalidInputError: It is empty or not a string.
    """
    if not isinstance(event_name, str) or not event_name.strip():
        must = "event_name must be a non-empty string such as 'placed-order'"
        raise invalid(InvalidInputError, must, event_name)
    return checked_text(event_name, "event_name", InvalidInputError)


def check_identities(given: Mapping[str, object]) -> dict[str, str]:
    """Returns the identities that are not None.

    Raises:
        IdentityError: One is empty or not a string.
    """
    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str):
            number = whole_number(value)
            remedy = "" if number is None else f"pass {str(number)!r}"
            raise invalid(IdentityError, f"{name} must be a string", value, remedy)
        if not value.strip():
            raise flawed(IdentityError, name, "must not be empty; leave it out if it is unknown")
        found[name] = checked_text(value, name, IdentityError)
    return found


def one_identity(
    given: Mapping[str, str | None], subject: str, *, optional: bool = False
) -> dict[str, str]:
    """Returns the one identity that is not None.

    Raises:
        IdentityError: None was given, or several, or one that is empty or not a string.
    """
    found = check_identities(given)
    if len(found) == 1 or (optional and not found):
        return found
    *others, last = given
    passed = " and ".join(found) or "none"
    raise IdentityError(
        f"{subject} needs exactly one of {', '.join(others)} and {last}, not {passed}"
    )
