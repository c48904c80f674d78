"""Applies openapi/corrections.yaml, an OpenAPI Overlay document, to a slice.

Each correction lists in `x-written-against` the values that upstream had in its place when it was
written. It is a list because versions differ. Before a correction replaces a value, the value is
compared with this list. If the list lacks it, the report shows it to the maintainer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jsonpath_ng import Child, Fields, Index, JSONPath
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.ext import parse
from oas_patch import apply_overlay

from regeneration import ABSENT, RegenerationError, versions
from regeneration.canonical import canonical, digest, is_digest
from regeneration.document import Source
from regeneration.essentials import MANY, essential
from regeneration.naming import name_alternatives
from regeneration.operations import Operations
from regeneration.pointers import escape
from regeneration.tolerating import NULL, SCHEMAS, references, said, tolerate

Json = dict[str, Any]

#: The key of an action that lists the values that it was written against.
WRITTEN_AGAINST = "x-written-against"
#: The value for that key in an action that is right for any value of upstream.
ANYTHING = "anything"
#: The longest JSON, in characters, that is written in full; longer values are written as digests.
_SHORT = 160
_VERSION_SCHEMA = f"{SCHEMAS}{versions.SCHEMA}"
#: The keywords of a schema that decide the type of a value.
_WHAT = ("type", "$ref", *MANY)
#: Keywords whose values are prose; they are not compared.
_PROSE = {"title", "summary", "description"}


@dataclass(frozen=True)
class Correction:
    """One action of the corrections.

    Attributes:
        number: The position of the action, counted from 1.
        target: The JSONPath of the places that it corrects.
        reason: The description of the action.
    """

    number: int
    target: str
    reason: str


@dataclass(frozen=True)
class Unknown:
    """A value of upstream that a correction was not written against.

    Attributes:
        correction: The correction.
        pointer: The JSON pointer to the value in the slice, such as #/components/schemas/…
        known: The values that the correction was written against: JSON values, digests or ABSENT.
        found: The part of the value in the slice that the correction replaces or removes.
    """

    correction: Correction
    pointer: str
    known: tuple[object, ...]
    found: object


@dataclass(frozen=True)
class Corrected:
    """The result of applying the corrections to a slice.

    Attributes:
        document: The corrected description, from which the client is generated.
        unknown: The values of upstream that the corrections were not written against.
    """

    document: Json
    unknown: tuple[Unknown, ...]


@dataclass(frozen=True)
class _Found:
    """The value that an action replaces or removes in one place, and the action's update."""

    correction: Correction
    known: tuple[object, ...]
    path: JSONPath
    value: object
    update: object

    @property
    def pointer(self) -> str:
        return "/".join(["#", *map(escape, _parts(self.path))])

    @property
    def key(self) -> str:
        return _parts(self.path)[-1] if _parts(self.path) else ""

    def said(self, corrected: Json) -> object:
        """Returns the correction's own value: its update, or the value after a removal."""
        if self.update is not ABSENT:
            return self.update
        return next((each.value for each in self.path.find(corrected)), ABSENT)


class _ActionError(Exception):
    """One action is wrong; the message has the remedy."""


def referenced_schemas(corrections: Source) -> list[str]:
    """Returns the names of the schemas that the corrections change or refer to, sorted."""
    names = set()
    for action in _actions(corrections):
        if isinstance(action, dict) and isinstance(action.get("target"), str):
            _, _, rest = action["target"].partition("$.components.schemas.")
            names.add(rest.split(".")[0].split("[")[0])
            names.update(references(action.get("update")))
    return sorted(names - {""})


def pin_names(document: Json, operations: Operations) -> Json:
    """Returns a copy whose operations have the names, the tag and the header of our code."""
    pinned = copy.deepcopy(document)
    for each in operations.client:
        operation = pinned["paths"][each.path][each.method]
        operation.update(tags=[operations.tag], operationId=each.name)
        # The client sends it with each request, even if the description does not require it.
        header = {"name": versions.HEADER, "in": "header", "schema": {"$ref": _VERSION_SCHEMA}}
        others = [one for one in operation["parameters"] if not versions.is_header(one)]
        operation["parameters"] = [header, *others]
    return pinned


def correct(sliced: Json, corrections: Source, operations: Operations) -> Corrected:
    """Makes the corrected description, from which the client is generated.

    Raises:
        RegenerationError: The corrections are not an Overlay document, or some actions cannot be
            applied. The message names each of them.
    """
    pinned = pin_names(sliced, operations)
    # Both get the corrections: `described` keeps upstream's values to compare, which the tolerant
    # `document` has lost.
    described = copy.deepcopy(said(essential(pinned, conditions=True)))
    document = copy.deepcopy(tolerate(essential(pinned, conditions=False)))
    found: list[_Found] = []
    failures: list[str] = []
    for number, action in enumerate(_actions(corrections), 1):
        target = action.get("target") if isinstance(action, dict) else None
        try:
            correction, known = _read(number, action)
            found += _apply(correction, action, known, described, document)
        except _ActionError as error:
            at = f"action {number} ({target})" if isinstance(target, str) else f"action {number}"
            failures.append(f"{at}: {error}")
    if failures:
        raise RegenerationError(f"{corrections.name}: {'; '.join(failures)}")
    unknown = tuple(
        Unknown(each.correction, each.pointer, each.known, each.value)
        for each in found
        if not any(_agrees(each.value, one, each.said(described), each.key) for one in each.known)
    )
    return Corrected(name_alternatives(document), unknown)


def as_written(found: object, key: str = "") -> str:
    """Returns the entry to add to `x-written-against` so that the correction knows a value.

    Args:
        found: The value, as in `Unknown.found`.
        key: The last part of its pointer; it decides whether the order of a list has a meaning.
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
            f"{corrections.name}: must be an OpenAPI Overlay document of version 1.0 or 1.1 with a "
            "list of actions"
        )
    return actions


def _read(number: int, action: object) -> tuple[Correction, tuple[object, ...] | None]:
    """Reads an action and the values that it was written against, or None for `anything`."""
    if not (isinstance(action, dict) and isinstance(action.get("target"), str)):
        raise _ActionError("must have a `target`, a JSONPath")
    if ("update" in action) == (action.get("remove") is True):
        raise _ActionError("must have either `update` or `remove: true`, and not both")
    reason = str(action.get("description", "")).strip()
    if not reason:
        raise _ActionError("must have a `description` that says why the correction is needed")
    written = action.get(WRITTEN_AGAINST)
    if written != ANYTHING and not (isinstance(written, list) and written):
        raise _ActionError(
            f"must have `{WRITTEN_AGAINST}`: a list of values, digests and `absent`, or "
            f"`{ANYTHING}`"
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
) -> list[_Found]:
    """Applies an action to both documents and returns the values that it replaced."""
    try:
        expression = parse(correction.target)
        found = expression.find(described)
        is_there = bool(expression.find(document))
    except JSONPathError as error:
        raise _ActionError(f"its target must be a JSONPath: {error}") from error
    if not found and (known is None or ABSENT not in known):
        raise _ActionError(
            "its target matches nothing in this version of the description; fix the target, remove "
            f"the action, or add `absent` to its {WRITTEN_AGAINST}"
        )
    update = action.get("update", ABSENT)
    before = [
        _Found(correction, known or (), each.full_path, _touched(each.value, update), update)
        for each in found
    ]
    try:
        # Applied one at a time, so that an action sees the results of those before it, and as a
        # copy, so that YAML aliases in the corrections do not share values in the result.
        for each, matches in ((described, found), (document, is_there)):
            if matches:
                for match in expression.find(each):
                    _settle(match.value, update)
                apply_overlay(each, {"actions": [copy.deepcopy(action)]})
                _deduplicate(each)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _ActionError(f"cannot be applied: {error}; fix its target or update") from error
    return [] if known is None else before


def _settle(node: object, update: object) -> None:
    """Removes upstream's type where an update sets another; the value can still be null."""
    if not (isinstance(node, dict) and isinstance(update, dict)):
        return
    if _says_what(update):
        if isinstance(update.get("type"), str) and NULL in node.get("anyOf", ()):
            node.setdefault("nullable", True)
        for keyword in _WHAT:
            if keyword not in update:
                node.pop(keyword, None)
            elif isinstance(node.get(keyword), list):
                # An update appends to lists.
                node[keyword] = []
    for key, value in update.items():
        _settle(node.get(key), value)


def _touched(node: object, update: object) -> object:
    """Returns the part of a value that an action replaces, or all of it for a removal."""
    if isinstance(node, dict) and isinstance(update, dict):
        keys = [*update, *(_WHAT if _says_what(update) else ())]
        return {
            key: _touched(node[key], update.get(key, ABSENT))
            for key in dict.fromkeys(keys)
            if key in node and not _is_prose(key, node[key])
        }
    return _without_prose(copy.deepcopy(node))


def _says_what(update: Json) -> bool:
    return any(isinstance(update.get(keyword), str | list) for keyword in _WHAT)


def _agrees(found: object, known: object, own: object, key: str) -> bool:
    """Returns whether the found value equals the known one or the correction's own value."""
    if is_digest(known):
        return digest(found, key) == known
    if _same(found, known, key) or _same(found, own, key):
        return True
    if known is ABSENT and key == "required" and isinstance(found, list):
        return isinstance(own, list) and set(found) <= set(own)
    if key == "parameters":
        found, known, own = map(_by_name, (found, known, own))
    known = {} if known is ABSENT else known
    if isinstance(found, dict) and isinstance(known, dict) and isinstance(own, dict):
        return all(
            _agrees(found.get(name, ABSENT), known.get(name, ABSENT), own.get(name, ABSENT), name)
            for name in found.keys() | known.keys()
        )
    return False


def _by_name(parameters: object) -> object:
    """Returns parameters by what identifies them: place and name."""
    if not isinstance(parameters, list):
        return parameters
    return {f"{each['in']} {each['name']}": each for each in parameters}


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
    # A property can have such a name, but its value is a schema.
    return key in _PROSE and isinstance(value, str)


def _deduplicate(node: object) -> None:
    """Removes duplicates from each `required`, because an update appends to the list."""
    if isinstance(node, dict) and isinstance(node.get("required"), list):
        node["required"] = list(dict.fromkeys(node["required"]))
    for held in _held(node):
        _deduplicate(held)


def _held(node: object) -> Iterable[object]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _parts(path: JSONPath) -> list[str]:
    """Returns the keys and indices of one place, from the top."""
    if isinstance(path, Child):
        return [*_parts(path.left), *_parts(path.right)]
    if isinstance(path, Fields):
        return [str(path.fields[0])]
    return [str(path.indices[0])] if isinstance(path, Index) else []
