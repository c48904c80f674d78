"""An event on its way to Intercom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, cast

from attrs import field, frozen

from intercom_data_events import metadata as _metadata
from intercom_data_events import timestamps
from intercom_data_events.checks import plain_text, shown, whole_number
from intercom_data_events.errors import IdentityError, InvalidInputError

if TYPE_CHECKING:
    from intercom_data_events.metadata import Metadata, MetadataValue
    from intercom_data_events.timestamps import Timestamp
_SURROGATE = "which has a lone surrogate in it that UTF-8 cannot hold"
_FIELDS = ("event_name", "created_at", "user_id", "id", "email", "metadata")


@frozen(init=False)
class Event:
    """Something that a contact did, validated and stamped when it is made.

    `created_at` is fixed here, once: Intercom tells events apart by workspace, contact, name and
    second, so that sending the same `Event` again is the same event to it.

    Args:
        event_name: What happened; a good name is a past-tense verb and a noun: ``placed-order``.
            Intercom ignores case and turns ``.`` and ``$`` into ``-``.
        user_id: Your own identifier of the contact.
        email: The contact's e-mail address, where it identifies contacts.
        id: Intercom's identifier of the contact; the only one that a lead has.
        created_at: When it happened; now, where it is left out. An aware datetime, whole Unix
            seconds, or ISO 8601 text with an offset.
        metadata: Up to 10 keys that say more; see :mod:`intercom_data_events.metadata`.
        drop_excess_metadata: Whether to drop the keys after the tenth, as Intercom would, instead
            of raising an error. Their order decides.

    Attributes:
        created_at: An aware datetime in UTC, whole seconds.
        metadata: The metadata in Python values, a copy.

    Raises:
        IdentityError: None of user_id, email and id, or one that is empty or no text.
        TimestampError: A `created_at` that the API would misread.
        MetadataError: Metadata that the API does not take; names the key.
        InvalidInputError: An event name that is empty or no text.

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
            raise IdentityError(
                f"event {shown(event_name)} says not whose it is: give user_id, email or id"
            )
        stamp = (
            int(time.time()) if created_at is None else timestamps.to_unix(created_at, "created_at")
        )
        if drop_excess_metadata and isinstance(metadata, Mapping):
            metadata = dict(list(metadata.items())[: _metadata.MAX_KEYS])
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it
            event_name=name,
            created_at=timestamps.from_unix(stamp),
            user_id=identities.get("user_id"),
            id=identities.get("id"),
            email=identities.get("email"),
            # Encoding checks it; decoding what was encoded gives every spelling the same value.
            metadata=cast(
                "Mapping[str, MetadataValue]",
                _metadata.decode(_metadata.encode({} if metadata is None else metadata)),
            ),
        )

    def to_dict(self) -> dict[str, object]:
        """Returns the event as the API's JSON, field for field; what it lacks is left out."""
        fields: dict[str, object] = {
            "event_name": self.event_name,
            "created_at": int(self.created_at.timestamp()),
        }
        if self.user_id is not None:
            fields["user_id"] = self.user_id
        if self.id is not None:
            fields["id"] = self.id
        if self.email is not None:
            fields["email"] = self.email
        if self.metadata:
            # Encoded anew, and so checked anew: a mapping can be changed, whatever holds it.
            fields["metadata"] = _metadata.encode(self.metadata)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Event:
        """Makes an event from the API's JSON; the reverse of :meth:`to_dict`.

        Without `created_at` it is stamped with the present second.

        Raises:
            InvalidInputError: A field that events do not have, no event name, or a value that
                making an `Event` would refuse; the error is the same then.
        """
        if not isinstance(fields, Mapping):
            raise InvalidInputError(f"an event is a mapping of its fields, not {shown(fields)}")
        unknown = [name for name in fields if name not in _FIELDS]
        if unknown:
            raise InvalidInputError(
                f"an event has no field {shown(unknown[0])}: its fields are {', '.join(_FIELDS)}"
            )
        if "event_name" not in fields:
            raise InvalidInputError("the event lacks its event_name")
        return cls(**fields)  # type: ignore[arg-type]  # the constructor checks each value


def person(event: Event) -> tuple[str, str]:
    """Returns whose an event is; two identities of one person are not known to be the same."""
    if event.user_id is not None:
        return "user_id", event.user_id
    if event.id is not None:
        return "id", event.id
    return "email", (event.email or "").lower()


def key(event: Event) -> tuple[str, str, str, float]:
    """Returns what Intercom tells events apart by; documented, as is what it makes of names."""
    name = event.event_name.lower().replace(".", "-").replace("$", "-")
    return *person(event), name, event.created_at.timestamp()


def check_event_name(event_name: object) -> str:
    """Returns the name of an event.

    Raises:
        InvalidInputError: It is empty or no text.
    """
    if not isinstance(event_name, str) or not event_name.strip():
        raise InvalidInputError(f"event_name is {shown(event_name)}: it is text, as placed-order")
    text = plain_text(event_name)
    if text is None:
        raise InvalidInputError(f"event_name is {shown(event_name)}, {_SURROGATE}")
    return text


def check_identities(given: Mapping[str, object]) -> dict[str, str]:
    """Returns those of several identities that were given.

    Raises:
        IdentityError: One is empty or no text.
    """
    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str):
            number = whole_number(value)
            remedy = "" if number is None else f", so pass {str(number)!r}"
            raise IdentityError(
                f"{name} is {shown(value)}, a {type(value).__name__}: identities are text{remedy}"
            )
        if not value.strip():
            raise IdentityError(f"{name} is empty: leave it out, or say whose event it is")
        text = plain_text(value)
        if text is None:
            raise IdentityError(f"{name} is {shown(value)}, {_SURROGATE}")
        found[name] = text
    return found
