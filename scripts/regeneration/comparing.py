"""Comparing two documents whole, pointer by pointer: what is not named here is equal.

In lists whose order means nothing, members are compared that have the same name, or none that is
equal; in others, those at the same position.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from regeneration import ABSENT
from regeneration.canonical import canonical
from regeneration.pointers import escape, keys

Json = dict[str, Any]

#: Where a slice says what it was cut from, which is another whole file with every commit upstream.
_SOURCE = ("info", "x-source")


@dataclass(frozen=True)
class Difference:
    """A place in which two documents differ, as high as all below it came or went.

    Attributes:
        pointer: A JSON pointer to it, with the index that a member of a list has now, or had.
        before: What stood there; ABSENT for nothing.
        after: What stands there; ABSENT for nothing.
        path: The same place in names that hold in every document: of a member of a list that has
            no order, what identifies it.
    """

    pointer: str
    before: object
    after: object
    path: tuple[str, ...]


def differences(before: Json | None, after: Json) -> list[Difference]:
    """Returns where two documents differ, in their order; without a first one, all is new."""
    return list(_differences(before or {}, after, "#", ()))


def place(document: Json, pointer: str) -> tuple[str, ...]:
    """Returns the path of what a JSON pointer leads to in a document, or would lead to."""
    path: tuple[str, ...] = ()
    node: object = document
    for name in keys(pointer):
        if isinstance(node, list):
            members = _members(node, _IDENTITIES.get(path[-1] if path else ""))
            name, node = next(
                ((key, value) for key, (index, value) in members.items() if str(index) == name),
                (name, None),
            )
        else:
            node = node.get(name) if isinstance(node, dict) else None
        path = (*path, name)
    return path


def at(document: Json, path: tuple[str, ...]) -> object:
    """Returns what stands at a path of a document; ABSENT for nothing."""
    node: object = document
    for index, name in enumerate(path):
        if isinstance(node, list):
            members = _members(node, _IDENTITIES.get(path[index - 1] if index else ""))
            node = members.get(name, (None, ABSENT))[1]
        else:
            node = node.get(name, ABSENT) if isinstance(node, dict) else ABSENT
    return node


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one of two places is the other, or lies in it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def same_code(one: bytes, other: bytes) -> bool:
    """Whether two Python modules differ in form and comments at most."""
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError, RecursionError):
        return False


def members(node: object, keyword: str) -> dict[str, object]:
    """Returns what a mapping or a list holds, by the names that paths have; of others, nothing.

    Args:
        node: The mapping or list.
        keyword: What it is the value of.
    """
    if isinstance(node, dict):
        return {str(key): value for key, value in node.items()}
    if isinstance(node, list):
        return {key: value for key, (_, value) in _members(node, _IDENTITIES.get(keyword)).items()}
    return {}


def _differences(
    before: object, after: object, pointer: str, path: tuple[str, ...]
) -> Iterator[Difference]:
    if path == _SOURCE:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _differences(
                before.get(key, ABSENT),
                after.get(key, ABSENT),
                f"{pointer}/{escape(key)}",
                (*path, str(key)),
            )
    elif isinstance(before, list) and isinstance(after, list):
        keyword = path[-1] if path else ""
        if keyword in _COMBINATIONS:
            were, are = _unequal(before, after), _unequal(after, before)
        else:
            identify = _IDENTITIES.get(keyword)
            were, are = _members(before, identify), _members(after, identify)
        for name in [*were, *(name for name in are if name not in were)]:
            index, old = were.get(name, (None, ABSENT))
            index, new = are.get(name, (index, ABSENT))
            yield from _differences(old, new, f"{pointer}/{index}", (*path, name))
    elif canonical(before) != canonical(after):
        yield Difference(pointer, before, after, path)


def _members(
    values: list[object], identify: Callable[[object], str] | None
) -> dict[str, tuple[int, object]]:
    """The members of a list with their indices, by what identifies them."""
    members: dict[str, tuple[int, object]] = {}
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        name = str(index) if identify is None else identify(value)
        seen[name] = seen.get(name, 0) + 1
        # A second one of the same name is another member.
        members[name if seen[name] == 1 else f"{name} ({seen[name]})"] = index, value
    return members


def _unequal(values: list[object], others: list[object]) -> dict[str, tuple[int, object]]:
    """The alternatives that the other list lacks, with their indices, by their order."""
    there = Counter(map(canonical, others))
    members: dict[str, tuple[int, object]] = {}
    for index, value in enumerate(values):
        text = canonical(value)
        if there[text]:
            there[text] -= 1
        else:
            members[str(len(members))] = index, value
    return members


def _named(*keys: str) -> Callable[[object], str]:
    """Identifies mappings by some of their values."""

    def identify(value: object) -> str:
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys):
            return " ".join(value[key] for key in keys)
        return canonical(value)

    return identify


def _schemes(value: object) -> str:
    return " and ".join(sorted(value)) if isinstance(value, dict) else canonical(value)


#: Their members are alternatives, or hold all at once: those that are equal are the same.
_COMBINATIONS = {"allOf", "anyOf", "oneOf"}
_IDENTITIES: dict[str, Callable[[object], str]] = {
    "parameters": _named("in", "name"),
    "servers": _named("url"),
    "security": _schemes,
    **dict.fromkeys(("required", "enum", "type", "tags"), canonical),
    "x-other-operations": _named("operation"),
}
