"""Checks of input that several modules make, and how a wrong value is shown in a message."""

from __future__ import annotations

from operator import index
from typing import SupportsIndex

#: Inferred: readers of JSON hold whole numbers in 64 bits at most.
BEYOND = 2**63


def shown(value: object) -> str:
    """Returns a value as a message shows it: on one line, cut short, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # an integer of 5,000 digits, or anybody's own __repr__
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:79]}…"


def plain_text(value: str) -> str | None:
    """Returns text as nothing but text, or None where UTF-8 cannot hold it.

    Members of a ``StrEnum`` and other subclasses of ``str`` are text to some writers and their
    Python names to others.
    """
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # It has a lone surrogate in it.
            return None
    return text


def whole_number(value: object) -> int | None:
    """Returns a whole number of at most 64 bits, also that of another library, or None."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        number = index(value)
    except TypeError:  # An array has the method, and refuses.
        return None
    return number if -BEYOND <= number < BEYOND else None


def text_or_none(value: object, name: str) -> str | None:
    """Returns text that was read, or None where it is missing, null or empty.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, str):
        return value or None
    if value:
        raise TypeError(f"its {name} is {shown(value)}, not text")
    return None
