"""Compares two whole documents and returns every place in which they differ.

In a list whose order has no meaning, members are matched by what identifies them, such as the name
of a parameter; equal alternatives (`anyOf` and so on) are matched first. In any other list, members
at the same position are compared.
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

#: The source of a slice. It is not compared: it names the whole file, which changes with every
#: commit upstream.
_SOURCE = ("info", "x-source")


@dataclass(frozen=True)
class Difference:
    """A place in which two documents differ. A part that is new or gone is one difference.

    Attributes:
        pointer: A JSON pointer to the place. For a member of a list, it has the index in the new
            document, or in the old one if the member is gone.
        before: The old value, or ABSENT.
        after: The new value, or ABSENT.
        path: The keys to the place, valid in both documents: a member of an unordered list has its
            identity as its key, not its index.
    """

    pointer: str
    before: object
    after: object
    path: tuple[str, ...]


def differences(before: Json | None, after: Json) -> list[Difference]:
    """Returns the differences of two documents, in their order; all is new if `before` is None."""
    return list(_differences(before or {}, after, "#", ()))


def place(document: Json, pointer: str) -> tuple[str, ...]:
    """Returns the path, as in `Difference.path`, of a JSON pointer, also for a missing value."""
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
    """Returns the value at a path of a document, or ABSENT."""
    node: object = document
    for index, name in enumerate(path):
        if isinstance(node, list):
            members = _members(node, _IDENTITIES.get(path[index - 1] if index else ""))
            node = members.get(name, (None, ABSENT))[1]
        else:
            node = node.get(name, ABSENT) if isinstance(node, dict) else ABSENT
    return node


def overlap(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Returns whether two paths are equal or one leads into the other."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def same_code(one: bytes, other: bytes) -> bool:
    """Returns whether two Python modules are equal except for formatting and comments."""
    try:
        return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))
    except (SyntaxError, ValueError, RecursionError):
        return False


def members(node: object, keyword: str) -> dict[str, object]:
    """Returns the children of a mapping or a list by the keys that paths use; else an empty dict.

    Args:
        node: The mapping or list, or any other value.
        keyword: The keyword that holds the node; it decides how members of a list are identified.
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
    """Returns the members of a list and their indices, by what identifies them."""
    members: dict[str, tuple[int, object]] = {}
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        name = str(index) if identify is None else identify(value)
        seen[name] = seen.get(name, 0) + 1
        # A second member with the same identity gets a number: it must not replace the first.
        members[name if seen[name] == 1 else f"{name} ({seen[name]})"] = index, value
    return members


def _unequal(values: list[object], others: list[object]) -> dict[str, tuple[int, object]]:
    """Returns the alternatives that the other list lacks, with their indices, numbered from 0."""
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
    """Returns a function that identifies mappings by the values of some keys."""

    def identify(value: object) -> str:
        if isinstance(value, dict) and all(isinstance(value.get(key), str) for key in keys):
            return " ".join(value[key] for key in keys)
        return canonical(value)

    return identify


def _schemes(value: object) -> str:
    return " and ".join(sorted(value)) if isinstance(value, dict) else canonical(value)


#: Keywords whose members have no identity: equal members are matched, and the others by position.
_COMBINATIONS = {"allOf", "anyOf", "oneOf"}
_IDENTITIES: dict[str, Callable[[object], str]] = {
    "parameters": _named("in", "name"),
    "servers": _named("url"),
    "security": _schemes,
    **dict.fromkeys(("required", "enum", "type", "tags"), canonical),
    "x-other-operations": _named("operation"),
}
