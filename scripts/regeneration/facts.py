"""Records the keywords that the pipeline does not use, so that the report shows their changes.

Short, harmless JSON is recorded unchanged, and all other values as digests: text from outside must
not get into the project.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from regeneration.canonical import digest
from regeneration.pointers import keys

_PROSE = {
    "title", "summary", "description", "example", "examples", "externalDocs", "$comment",
}  # fmt: skip
#: Keywords whose value is a mapping by names. A name can be equal to a keyword of prose.
_NAMING = {
    "properties", "patternProperties", "dependentSchemas", "$defs", "definitions", "headers",
    "links", "callbacks", "variables", "mapping", "schemas",
}  # fmt: skip
_KEY = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@-]{0,63}")
# Without the characters that end a string or a comment in a language that may quote the text.
_TEXT = re.compile(r"[A-Za-z0-9_ .,:^$*+?|\[\]<>!@%&~-]{0,100}")
#: The most values in a record that is not a digest: maintainers read records.
_MOST = 20
#: The limits of one slice: values that are read for its records, and records.
_MAX_VALUES = 1_000_000
_MAX_RECORDS = 5_000
#: The name of the record for all keywords whose names are not harmless.
ODD = "*"


class TooMuchError(Exception):
    """A description exceeds the limits, which are far above Intercom's descriptions."""


class Recorder:
    """Records keywords of one description.

    Args:
        root: The description, in which references are resolved.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._values = 0
        self._records = 0

    def unread(self, node: dict[str, Any], known: set[str]) -> dict[str, object]:
        """Returns records of a node's keywords except for known ones and prose, sorted.

        Raises:
            TooMuchError: The description exceeds the limits.
        """
        found: dict[str, object] = {}
        odd: dict[str, object] = {}
        earlier = node.get("x-unread")
        for name, value in (earlier if isinstance(earlier, dict) else {}).items():
            if name == ODD or _KEY.fullmatch(name):
                found[name] = self.fact(value)
        for name, value in node.items():
            if name in known or is_prose(name):
                continue
            if _KEY.fullmatch(name):
                found[name] = self.fact(value)
            else:
                odd[name] = self._held(value)
        if odd:
            found[ODD] = digest(odd)
        self._records += len(found)
        if self._records > _MAX_RECORDS:
            raise TooMuchError
        return dict(sorted(found.items()))

    def fact(self, value: object) -> object:
        """Returns a value without prose, or a digest of it and of the targets of its references.

        Raises:
            TooMuchError: The description exceeds the limits.
        """
        held = self._held(value)
        return held if is_harmless(held) else digest(held)

    def _held(self, value: object) -> object:
        held = self._without_prose(value, named=False)
        targets: dict[str, object] = {}
        pending = list(_references(held))
        while pending:
            reference = pending.pop()
            if reference not in targets:
                targets[reference] = self._without_prose(self._target(reference), named=False)
                pending += _references(targets[reference])
        return {"held": held, "targets": targets} if targets else held

    def _without_prose(self, value: object, *, named: bool) -> object:
        self._values += 1
        if self._values > _MAX_VALUES:
            raise TooMuchError
        if isinstance(value, dict):
            return {
                key: self._without_prose(held, named=key in _NAMING and not named)
                for key, held in value.items()
                if named or not is_prose(key)
            }
        if isinstance(value, list):
            return [self._without_prose(held, named=False) for held in value]
        return value

    def _target(self, reference: str) -> object:
        node: object = self._root
        for key in keys(reference):
            if not (isinstance(node, dict) and key in node):
                return None
            node = node[key]
        return node


def is_prose(keyword: str) -> bool:
    """Returns whether a keyword is prose or an extension: neither has an effect on callers."""
    return keyword in _PROSE or keyword.startswith("x-")


def is_harmless(value: object) -> bool:
    """Returns whether a value is short and all its strings are harmless in any file."""
    pending, seen = [value], 0
    while pending:
        each = pending.pop()
        seen += 1
        if seen > _MOST:
            return False
        if isinstance(each, dict):
            if not all(_KEY.fullmatch(key) for key in each):
                return False
            pending += each.values()
        elif isinstance(each, list):
            pending += each
        elif isinstance(each, str):
            if not _TEXT.fullmatch(each):
                return False
        elif isinstance(each, float):
            if not math.isfinite(each):
                return False
        elif isinstance(each, int) and abs(each) > 10**30:
            return False
    return True


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            yield reference
        for held in value.values():
            yield from _references(held)
    elif isinstance(value, list):
        for held in value:
            yield from _references(held)
