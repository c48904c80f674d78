"""A holder that keeps a value out of tracebacks.

Tools such as Sentry and pytest show the local variables of each frame in a traceback, by their repr
and item by item. So a holder contains the access token from the moment it enters the package, and
the token leaves it only within an expression, never into a variable, list or mapping of the
package.
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Secret(Generic[T_co]):
    """A value that neither a traceback nor a pickle shows.

    Attributes:
        value: The value; use it only within expressions.
    """

    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Shows nothing of the value."""
        return "…"

    def __eq__(self, other: object) -> bool:
        """Compares the values."""
        return isinstance(other, Secret) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __copy__(self) -> Secret[T_co]:
        """Returns itself."""
        return self

    def __deepcopy__(self, memo: object) -> Secret[T_co]:
        """Returns itself."""
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


def hold(given: Any) -> Secret[Any] | None:
    """Returns a holder of a value; returns a holder, or None, unchanged."""
    return given if given is None or isinstance(given, Secret) else Secret(given)
