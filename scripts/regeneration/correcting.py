"""Applying openapi/corrections.yaml, an OpenAPI Overlay document, to a slice.

Each correction says in `x-written-against` what the description said where it was written: a list
of alternatives, since versions differ. What upstream says there now is compared, before the
correction levels it: a person has to look at what is none of them.
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

#: Names in an action what it was written against.
WRITTEN_AGAINST = "x-written-against"
#: What an action says there that holds whatever the description says.
ANYTHING = "anything"
#: Characters of JSON that people read at a glance; what is longer is compared by its digest.
_SHORT = 160
_VERSION_SCHEMA = f"{SCHEMAS}{versions.SCHEMA}"
#: The keywords by which a schema says what a value is.
_WHAT = ("type", "$ref", *MANY)
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


@dataclass(frozen=True)
class _Found:
    """What an action found in one place: what it replaces or removes, and its update."""

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
        """What the corrections say there: an update, or what stands where something was removed."""
        if self.update is not ABSENT:
            return self.update
        return next((each.value for each in self.path.find(corrected)), ABSENT)


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
    """Returns a copy whose operations have the names, the tag and the header that our code uses."""
    pinned = copy.deepcopy(document)
    for each in operations.client:
        operation = pinned["paths"][each.path][each.method]
        operation.update(tags=[operations.tag], operationId=each.name)
        # The client sends it with each request, whether it must or not.
        header = {"name": versions.HEADER, "in": "header", "schema": {"$ref": _VERSION_SCHEMA}}
        others = [one for one in operation["parameters"] if not versions.is_header(one)]
        operation["parameters"] = [header, *others]
    return pinned


def correct(sliced: Json, corrections: Source, operations: Operations) -> Corrected:
    """Makes of a slice what the client is generated from.

    Raises:
        RegenerationError: The corrections are not an Overlay document, or some of them cannot be
            applied; names each of these.
    """
    pinned = pin_names(sliced, operations)
    # Side by side, since what is read tolerantly no longer says what upstream says.
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
) -> list[_Found]:
    """Applies an action to both documents; returns what was there, to compare it."""
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
    before = [
        _Found(correction, known or (), each.full_path, _touched(each.value, update), update)
        for each in found
    ]
    try:
        # One at a time, and from copies: an action sees what those before it did, and YAML aliases
        # in the corrections stay apart in the result.
        for each, matches in ((described, found), (document, is_there)):
            if matches:
                for match in expression.find(each):
                    _settle(match.value, update)
                apply_overlay(each, {"actions": [copy.deepcopy(action)]})
                _deduplicate(each)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _ActionError(f"cannot be applied: {error}") from error
    return [] if known is None else before


def _settle(node: object, update: object) -> None:
    """Where a correction says what a value is, what upstream says of that goes, but for null."""
    if not (isinstance(node, dict) and isinstance(update, dict)):
        return
    if _says_what(update):
        if isinstance(update.get("type"), str) and NULL in node.get("anyOf", ()):
            node.setdefault("nullable", True)
        for keyword in _WHAT:
            if keyword not in update:
                node.pop(keyword, None)
            elif isinstance(node.get(keyword), list):
                # An update would append to it.
                node[keyword] = []
    for key, value in update.items():
        _settle(node.get(key), value)


def _touched(node: object, update: object) -> object:
    """What an action replaces or removes: without an update all, with one what has its keys."""
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
    """Whether a correction knows what was found: as written, or since it says the same itself."""
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
    """Parameters by what tells them apart."""
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


def _parts(path: JSONPath) -> list[str]:
    """The keys and indices of one place, from the top."""
    if isinstance(path, Child):
        return [*_parts(path.left), *_parts(path.right)]
    if isinstance(path, Fields):
        return [str(path.fields[0])]
    return [str(path.indices[0])] if isinstance(path, Index) else []
