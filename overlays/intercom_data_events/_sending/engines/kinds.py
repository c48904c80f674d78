"""Tells whether an object is of httpx, or of httpx2, which has the same names in another module."""

from __future__ import annotations

import sys
from types import ModuleType


def library_of(given: object) -> ModuleType | None:
    """Returns the library that an object of its kind belongs to; None for any other object.

    httpx2 is not imported for this: where nothing has, no object is of its kind.
    """
    for base in type(given).__mro__:
        name = base.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return sys.modules.get(name)
    return None


def is_kind(given: object, name: str) -> bool:
    """Whether an object is what httpx or httpx2 calls by a name, such as "Client"."""
    library = library_of(given)
    return library is not None and isinstance(given, getattr(library, name))


def is_failure(error: Exception) -> bool:
    """Whether an error is of a request, and not the caller's own in another way."""
    return isinstance(error, OSError) or is_kind(error, "HTTPError") or is_kind(error, "InvalidURL")
