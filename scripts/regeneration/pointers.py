"""JSON pointers, which name a place in a document."""

from __future__ import annotations


def keys(pointer: str) -> list[str]:
    """Returns the keys of a pointer, without what precedes the first slash."""
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def escape(key: object) -> str:
    """Returns a key or an index as a part of a pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")
