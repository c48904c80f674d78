"""Finds where Intercom accepts less than before, in the parts of requests that callers send.

A new bound, value or type narrows a request; a removed bound does not. `breaking` reports what is
newly required, and `correcting` reports a change of what a correction replaces.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from regeneration import ABSENT, versions
from regeneration.canonical import canonical
from regeneration.comparing import Difference, at, place
from regeneration.correcting import Unknown
from regeneration.essentials import MANY
from regeneration.operations import Operation
from regeneration.uses import Uses

Json = dict[str, Any]

_LOWER = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_UPPER = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
#: Keywords that narrow a value when they are added or changed.
_NARROW = {
    "type", "format", "enum", "pattern", "multipleOf", "not", "$ref", "style", "explode", "items",
    "additionalProperties", "x-unread",
}  # fmt: skip
#: The keywords of a schema that only adds fields; `breaking` reports the required ones.
_FIELDS = {"$ref", "type", "properties", "required"}


@dataclass(frozen=True)
class Narrowing:
    """A part of a request for which Intercom accepts less than before.

    Attributes:
        operations: The operations whose requests have the part.
        difference: The difference that narrows it.
        name: The field or parameter; None for the whole request.
    """

    operations: tuple[Operation, ...]
    difference: Difference
    name: str | None


def narrowings(
    found: Iterable[Difference],
    unknown: Iterable[Unknown],
    sliced: Json,
    sent: Json,
    uses: Uses,
) -> list[Narrowing]:
    """Returns the differences that narrow requests, except those that corrections report.

    Args:
        found: The differences between two slices.
        unknown: The values that no correction was written for.
        sliced: The new slice.
        sent: The previous corrected description, which callers comply with already.
        uses: The operations that use each place.
    """
    differences = list(found)
    widened = {
        (each.path[:-1], each.before)
        for each in differences
        if each.path[-1:] == ("type",) and isinstance(each.before, str)
    }
    told = [(place(sliced, each.pointer), each.found) for each in unknown]
    narrowed = []
    for each in differences:
        operations = tuple(uses.of(each.path)["request"])
        name, rest = _keyword(each.path)
        is_told = any(_tells(where, value, each.path) for where, value in told)
        is_held = each.after is not ABSENT and _same(each.after, at(sent, each.path))
        if operations and rest and not (is_told or is_held) and _is_narrower(each, rest, widened):
            narrowed.append(Narrowing(operations, each, name))
    return narrowed


def _same(one: object, other: object) -> bool:
    return canonical(one) == canonical(other)


def _keyword(path: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Splits a path into the innermost field's name and the rest, which begins with a keyword."""
    name: str | None = None
    match path:
        case "components", "schemas", versions.SCHEMA, *_:
            # The report lists versions separately.
            return None, ()
        case "components", "schemas", _, *rest:
            pass
        case "paths", _, _, "parameters", identity, *rest:
            name = identity.partition(" ")[2]
            if versions.is_header({"in": identity.partition(" ")[0], "name": name}):
                return None, ()
            rest = rest[1:] if rest[:1] == ["schema"] else rest
        case "paths", _, _, "requestBody", "content", _, "schema", *rest:
            pass
        case "paths", _, _, "requestBody", "x-unread", *_:
            return None, ("x-unread",)
        case _:
            return None, ()
    while rest:
        match rest:
            case "properties", name, *rest:
                pass
            case ["items" | "additionalProperties", following, *rest]:
                rest = [following, *rest]
            case ["allOf" | "anyOf" | "oneOf", _, following, *rest]:
                rest = [following, *rest]
            case _:
                break
    return name, tuple(rest)


def _is_narrower(
    difference: Difference, rest: tuple[str, ...], widened: set[tuple[tuple[str, ...], object]]
) -> bool:
    before, after = difference.before, difference.after
    keyword, inside = rest[0], len(rest) > 1
    if keyword in MANY:
        return _is_narrower_combination(difference, keyword, widened, inside=inside)
    if keyword == "enum" and inside:
        return after is ABSENT
    if keyword in ("nullable", "readOnly", "uniqueItems"):
        return (after is not True) if keyword == "nullable" else after is True
    if after is ABSENT:
        return False
    if keyword in _LOWER | _UPPER:
        if isinstance(before, int | float) and isinstance(after, int | float):
            return after > before if keyword in _LOWER else after < before
        return True
    if keyword == "type":
        return (before, after) != ("integer", "number")
    if keyword == "additionalProperties":
        return after not in (True, {})
    return keyword in _NARROW


def _is_narrower_combination(
    difference: Difference,
    keyword: str,
    widened: set[tuple[tuple[str, ...], object]],
    *,
    inside: bool,
) -> bool:
    after = difference.after
    if inside:
        # The difference is in one member of the combination.
        if keyword == "allOf":
            return after is not ABSENT and not _adds_fields(after)
        return after is ABSENT or keyword == "oneOf"
    if not isinstance(after, list):
        return False
    if keyword == "allOf":
        return not all(map(_adds_fields, after))
    # It is not narrower if the old type is still an alternative.
    return not any(
        isinstance(each, dict) and (difference.path[:-1], each.get("type")) in widened
        for each in after
    )


def _adds_fields(schema: object) -> bool:
    return isinstance(schema, dict) and set(schema) <= _FIELDS


def _tells(at: tuple[str, ...], value: object, path: tuple[str, ...]) -> bool:
    """Whether the value that a correction found in one place includes what is at a path."""
    if path[: len(at)] != at:
        return False
    for name in path[len(at) :]:
        if not isinstance(value, dict):
            return True
        if name not in value:
            return False
        value = value[name]
    return True
