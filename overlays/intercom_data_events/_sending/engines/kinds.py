"""Tells whether an object is of httpx, or of httpx2, which has the same names in another module."""

from __future__ import annotations

import sys
from types import ModuleType


def library_of(given: object) -> ModuleType | None:
    """Returns the library that an object of its kind belongs to; None for any other object.

    This never imports httpx2. In a program that has not imported it, no object is of its kind.
    """
    for base in type(given).__mro__:
        name = base.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return sys.modules.get(name)
    return None


def is_kind(given: object, name: str) -> bool:
    """Whether an object is an instance of a class of httpx or httpx2, such as "Client"."""
    library = library_of(given)
    return library is not None and isinstance(given, getattr(library, name))


def is_failure(error: Exception) -> bool:
    """Whether an error is one with which requests fail: of the system, of httpx or of httpx2."""
    return isinstance(error, OSError) or is_kind(error, "HTTPError") or is_kind(error, "InvalidURL")
