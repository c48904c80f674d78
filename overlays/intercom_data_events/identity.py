"""The contact that an event or a query is about."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from intercom_data_events._validation import checked_text, short_repr, whole_number
from intercom_data_events.errors import IdentityError


@frozen
class Identity:
    """A contact's identity: exactly one of the three is not None.

    Attributes:
        user_id: Your own identifier.
        email: The e-mail address.
        id: Intercom's identifier; listings call it ``intercom_user_id``.
    """

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def of_query(self) -> dict[str, str | None]:
        """Returns the identities by the names that queries use."""
        return {"user_id": self.user_id, "email": self.email, "intercom_user_id": self.id}

    def of_summary(self) -> str:
        """Returns the user_id, the only identity that the API accepts for adding summaries.

        Raises:
            IdentityError: The identity is another one.
        """
        if self.user_id is None:
            raise IdentityError("create_summary needs a user_id: bind the contact by user_id")
        return self.user_id


def one_identity(*, user_id: str | None, email: str | None, id: str | None) -> Identity:
    """Returns the one identity that was given.

    Raises:
        IdentityError: None was given, or several, or one that is empty or not a string.
    """
    found = check_identities({"user_id": user_id, "email": email, "id": id})
    if len(found) != 1:
        passed = " and ".join(found) or "none"
        raise IdentityError(f"contact() needs exactly one of user_id, email, id, not {passed}")
    return Identity(**found)


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
            remedy = "" if number is None else f"; pass {str(number)!r}"
            raise IdentityError(
                f"{name} must be a string, not {short_repr(value)} of type "
                f"{type(value).__name__}{remedy}"
            )
        if not value.strip():
            raise IdentityError(f"{name} must not be empty; leave it out if it is unknown")
        found[name] = checked_text(value, name, IdentityError)
    return found
