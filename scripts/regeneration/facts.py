"""What a slice records of the keywords that it does not read, so that a change of them shows.

Harmless JSON of a few words is recorded as it is, everything else by a digest: it is text from
outside, which must not get anywhere.
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
#: The keys of these are names, which can be called like prose.
_NAMING = {
    "properties", "patternProperties", "dependentSchemas", "$defs", "definitions", "headers",
    "links", "callbacks", "variables", "mapping", "schemas",
}  # fmt: skip
_KEY = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@-]{0,63}")
# Without what ends a text or a comment, in any language that it may come to stand in.
_TEXT = re.compile(r"[A-Za-z0-9_ .,:^$*+?|\[\]<>!@%&~-]{0,100}")
#: A record is for reading: what has more in it is a digest.
_MOST = 20
#: All that is looked at for the records of a slice, and how many they can be.
_MAX_VALUES = 1_000_000
_MAX_RECORDS = 5_000
#: Stands for all keywords that have odd names.
ODD = "*"


class TooMuchError(Exception):
    """There is more to look at than any description of ours has."""


class Recorder:
    """Records keywords of one description.

    Args:
        root: The description, which references lead into.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._values = 0
        self._records = 0

    def unread(self, node: dict[str, Any], known: set[str]) -> dict[str, object]:
        """The records of a node's keywords but for the known ones and prose, sorted.

        Raises:
            TooMuchError: There is too much to look at.
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
        """A value without its prose, or a digest of it and of what its references lead to.

        Raises:
            TooMuchError: There is too much to look at.
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
    """Whether a keyword holds words for people, or an extension, which mean nothing to callers."""
    return keyword in _PROSE or keyword.startswith("x-")


def is_harmless(value: object) -> bool:
    """Whether a value is short, and of texts that are harmless wherever they come to stand."""
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
