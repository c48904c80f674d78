"""Applying openapi/corrections.yaml, an OpenAPI Overlay document, to a slice.

Each correction says in `x-written-against` what the description said where it was written: a list
of alternatives, since versions differ. What upstream says there now is compared, before the
correction levels it: a person has to look at what is none of them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jsonpath_ng import DatumInContext
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.ext import parse
from oas_patch import apply_overlay

from regeneration import ABSENT, RegenerationError
from regeneration.canonical import canonical, digest, is_digest
from regeneration.document import Source
from regeneration.essentials import MANY, essential
from regeneration.naming import name_alternatives
from regeneration.operations import Operations
from regeneration.pointers import escape
from regeneration.tolerating import NULL, references, said, tolerate

Json = dict[str, Any]

#: Names in an action what it was written against.
WRITTEN_AGAINST = "x-written-against"
#: What an action says there that holds whatever the description says.
ANYTHING = "anything"
#: Characters of JSON that people read at a glance; what is longer is compared by its digest.
_SHORT = 160
#: Words, in a description of a slice and in a correction, which are not compared.
_PROSE = {"title", "summary", "description"}


@dataclass(frozen=True)
class Correction:
    """One action of the corrections.

    Attributes:
        number: Its number, from 1.
        target: Its JSONPath.
        reason: Its description.
    """

    number: int
    target: str
    reason: str


@dataclass(frozen=True)
class Unknown:
    """What upstream says where a correction was written against something else.

    Attributes:
        correction: The correction.
        pointer: The place in the slice: #/components/schemas/…
        known: What the correction was written against: JSON values, digests, ABSENT.
        found: What the slice has there, of what the correction touches.
    """

    correction: Correction
    pointer: str
    known: tuple[object, ...]
    found: object


@dataclass(frozen=True)
class Corrected:
    """A slice with its corrections.

    Attributes:
        document: What the client is generated from.
        unknown: What the corrections were not written against.
    """

    document: Json
    unknown: tuple[Unknown, ...]


class _ActionError(Exception):
    """What is wrong with one action, and the remedy."""


def referenced_schemas(corrections: Source) -> list[str]:
    """Names the schemas of the description that the corrections work on or refer to, sorted."""
    names = set()
    for action in _actions(corrections):
        if isinstance(action, dict) and isinstance(action.get("target"), str):
            _, _, rest = action["target"].partition("$.components.schemas.")
            names.add(rest.split(".")[0].split("[")[0])
            names.update(references(action.get("update")))
    return sorted(names - {""})


def pin_names(document: Json, operations: Operations) -> Json:
    """Returns a copy whose operations have the names and the tag that our code imports."""
    pinned = copy.deepcopy(document)
    for each in operations.client:
        operation = pinned["paths"][each.path][each.method]
        operation.update(tags=[operations.tag], operationId=each.name)
    return pinned


def correct(sliced: Json, corrections: Source, operations: Operations) -> Corrected:
    """Makes of a slice what the client is generated from.

    Raises:
        RegenerationError: The corrections are not an Overlay document, or some of them cannot be
            applied; names each of these.
    """
    pinned = essential(pin_names(sliced, operations))
    # Side by side, since what is read tolerantly no longer says what upstream says.
    described, document = copy.deepcopy(said(pinned)), copy.deepcopy(tolerate(pinned))
    unknown: list[Unknown] = []
    failures: list[str] = []
    for number, action in enumerate(_actions(corrections), 1):
        target = action.get("target") if isinstance(action, dict) else None
        try:
            correction, known = _read(number, action)
            unknown += _apply(correction, action, known, described, document)
        except _ActionError as error:
            at = f"action {number} ({target})" if isinstance(target, str) else f"action {number}"
            failures.append(f"{at}: {error}")
    if failures:
        raise RegenerationError(f"{corrections.name}: {'; '.join(failures)}")
    return Corrected(name_alternatives(document), tuple(unknown))


def as_written(found: object, key: str = "") -> str:
    """Returns what to add to a correction's list for it to know what was found.

    Args:
        found: What an `Unknown` found.
        key: The last part of its pointer, where `found` is a list.
    """
    if found is ABSENT:
        return "absent"
    text = json.dumps(found, ensure_ascii=False)
    return text if len(text) <= _SHORT else digest(found, key)


def _actions(corrections: Source) -> list[Any]:
    content = corrections.content
    actions = content.get("actions")
    known = str(content.get("overlay", "")).startswith(("1.0.", "1.1."))
    if not (known and isinstance(actions, list) and actions):
        raise RegenerationError(
            f"{corrections.name}: is not an OpenAPI Overlay document of version 1.0 or 1.1"
        )
    return actions


def _read(number: int, action: object) -> tuple[Correction, tuple[object, ...] | None]:
    """An action and what it was written against, None for anything."""
    if not (isinstance(action, dict) and isinstance(action.get("target"), str)):
        raise _ActionError("has no target; give it a JSONPath")
    if ("update" in action) == (action.get("remove") is True):
        raise _ActionError("needs either an update or `remove: true`")
    reason = str(action.get("description", "")).strip()
    if not reason:
        raise _ActionError("says no reason; give it a description")
    written = action.get(WRITTEN_AGAINST)
    if written != ANYTHING and not (isinstance(written, list) and written):
        raise _ActionError(
            f"does not say what it was written against; give it {WRITTEN_AGAINST}, a list of "
            f"values, digests and `absent`, or `{ANYTHING}`"
        )
    known = None
    if isinstance(written, list):
        known = tuple(ABSENT if each == "absent" else each for each in written)
    return Correction(number, action["target"], reason), known


def _apply(
    correction: Correction,
    action: Json,
    known: tuple[object, ...] | None,
    described: Json,
    document: Json,
) -> list[Unknown]:
    """Applies an action to both documents; returns what it was not written against."""
    try:
        expression = parse(correction.target)
        found = expression.find(described)
        is_there = bool(expression.find(document))
    except JSONPathError as error:
        raise _ActionError(f"the target is not JSONPath: {error}") from error
    if not found and (known is None or ABSENT not in known):
        raise _ActionError(
            "matches nothing in this version of the description; fix the target, remove the "
            f"action, or add `absent` to its {WRITTEN_AGAINST}"
        )
    update = action.get("update", ABSENT)
    before = [(_pointer(each), _touched(each.value, update)) for each in found]
    try:
        # One at a time, and from copies: an action sees what those before it did, and YAML aliases
        # in the corrections stay apart in the result.
        for each, matches in ((described, found), (document, is_there)):
            if matches:
                apply_overlay(each, {"actions": [copy.deepcopy(action)]})
                _deduplicate(each)
        for each in expression.find(document):
            _settle(each.value, update)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _ActionError(f"cannot be applied: {error}") from error
    if known is None:
        return []
    return [
        Unknown(correction, pointer, known, value)
        for pointer, value in before
        if not any(_agrees(value, each, update, pointer) for each in known)
    ]


def _settle(node: object, update: object) -> None:
    """Where a correction says the type of a value, its alternatives are gone, but for null."""
    if not (isinstance(node, dict) and isinstance(update, dict)):
        return
    if isinstance(update.get("type"), str):
        if NULL in node.get("anyOf", ()):
            node.setdefault("nullable", True)
        for keyword in ("$ref", *MANY):
            if keyword not in update:
                node.pop(keyword, None)
    for key, value in update.items():
        _settle(node.get(key), value)


def _touched(node: object, update: object) -> object:
    """What an action replaces or removes: without an update all, with one what has its keys."""
    if isinstance(node, dict) and isinstance(update, dict):
        return {
            key: _touched(node[key], value)
            for key, value in update.items()
            if key in node and not _is_prose(key, node[key])
        }
    return copy.deepcopy(node)


def _agrees(found: object, known: object, update: object, key: str) -> bool:
    """Whether a correction knows what was found: as written, or since it says the same itself."""
    key = key.rsplit("/", 1)[-1]
    if is_digest(known):
        return digest(found, key) == known
    if _same(found, known, key) or _same(found, update, key):
        return True
    if known is ABSENT and key == "required" and isinstance(found, list):
        return isinstance(update, list) and set(found) <= set(update)
    known = {} if known is ABSENT else known
    if isinstance(found, dict) and isinstance(known, dict) and isinstance(update, dict):
        return all(
            _agrees(
                found.get(name, ABSENT), known.get(name, ABSENT), update.get(name, ABSENT), name
            )
            for name in found.keys() | known.keys()
        )
    return False


def _same(one: object, other: object, key: str) -> bool:
    if one is ABSENT or other is ABSENT:
        return one is other
    return canonical(one, key) == canonical(_without_prose(other), key)


def _without_prose(value: object) -> object:
    if isinstance(value, dict):
        return {
            key: _without_prose(held) for key, held in value.items() if not _is_prose(key, held)
        }
    if isinstance(value, list):
        return [_without_prose(held) for held in value]
    return value


def _is_prose(key: str, value: object) -> bool:
    # A property can be called so, too.
    return key in _PROSE and isinstance(value, str)


def _deduplicate(node: object) -> None:
    """Leaves one of each name that is required, since an update appends to the list."""
    if isinstance(node, dict) and isinstance(node.get("required"), list):
        node["required"] = list(dict.fromkeys(node["required"]))
    for held in _held(node):
        _deduplicate(held)


def _held(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _pointer(found: DatumInContext) -> str:
    return "/".join(["#", *reversed(list(_way(found)))])


def _way(found: DatumInContext) -> Iterator[str]:
    """The parts of a place, from its end."""
    step: DatumInContext | None = found
    while step is not None and step.context is not None:
        path = step.path
        part = path.fields[0] if hasattr(path, "fields") else getattr(path, "index", path)
        yield escape(part)
        step = step.context
