"""Distinguishes objects of httpx from those of httpx2, which has the same names."""

from __future__ import annotations

import sys
from types import ModuleType


def library_of(given: object) -> ModuleType | None:
    """Returns the library that an object's class belongs to, httpx or httpx2; otherwise None.

    It never imports httpx2: a program that has not imported it has no object of it.
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
    """Whether an error is a failure of a request: an error of the system, httpx or httpx2."""
    return isinstance(error, OSError) or is_kind(error, "HTTPError") or is_kind(error, "InvalidURL")
