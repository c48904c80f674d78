"""Applying openapi/corrections.yaml, an OpenAPI Overlay document, to a slice."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.ext import parse
from oas_patch import apply_overlay

from regeneration import RegenerationError
from regeneration.document import Source
from regeneration.operations import Operations

Json = dict[str, Any]

#: Marks an action that only some versions of the description need; its value says which.
SOME_VERSIONS = "x-some-versions"


def referenced_schemas(corrections: Source) -> list[str]:
    """Names the schemas of the description that the corrections work on or refer to, sorted."""
    names = set()
    for action in _actions(corrections):
        _, _, rest = action["target"].partition("$.components.schemas.")
        names.add(rest.split(".")[0].split("[")[0])
        names.update(_references(action.get("update")))
    return sorted(names - {""})


def pin_names(document: Json, operations: Operations) -> Json:
    """Returns a copy whose operations have the names and the tag that our code imports."""
    pinned = copy.deepcopy(document)
    for each in operations.client:
        operation = pinned["paths"][each.path][each.method]
        operation.update(tags=[operations.tag], operationId=each.name)
    return pinned


def correct(document: Json, corrections: Source) -> Json:
    """Returns a corrected copy of a slice.

    Raises:
        RegenerationError: The corrections are no Overlay document, an action gives no reason, or
            one finds nothing to correct; names the action.
    """
    corrected = copy.deepcopy(document)
    for number, action in enumerate(_actions(corrections), 1):
        target = action["target"]
        at = f"{corrections.name}: action {number} ({target})"
        if not str(action.get("description", "")).strip():
            raise RegenerationError(f"{at}: says no reason; give it a description")
        try:
            found = parse(target).find(corrected)
        except JSONPathError as error:
            raise RegenerationError(f"{at}: the target is not JSONPath: {error}") from error
        if found:
            # One at a time, and from a copy: an action sees what those before it did, and YAML
            # aliases in the corrections stay apart in the result.
            try:
                apply_overlay(corrected, {"actions": [copy.deepcopy(action)]})
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RegenerationError(f"{at}: cannot be applied: {error}") from error
        elif SOME_VERSIONS not in action:
            raise RegenerationError(
                f"{at}: matches nothing in this version of the description; mend the target, "
                f"remove the action, or mark it with {SOME_VERSIONS}"
            )
    return corrected


def _actions(corrections: Source) -> list[Json]:
    content = corrections.content
    actions = content.get("actions")
    known = str(content.get("overlay", "")).startswith(("1.0.", "1.1."))
    if not (known and isinstance(actions, list) and actions):
        raise RegenerationError(
            f"{corrections.name}: is not an OpenAPI Overlay document of version 1.0 or 1.1"
        )
    for number, action in enumerate(actions, 1):
        if not (isinstance(action, dict) and isinstance(action.get("target"), str)):
            raise RegenerationError(f"{corrections.name}: action {number}: has no target")
        if ("update" in action) == (action.get("remove") is True):
            raise RegenerationError(
                f"{corrections.name}: action {number}: needs either an update or `remove: true`"
            )
    return actions


def _references(node: object) -> Iterator[str]:
    prefix = "#/components/schemas/"
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(prefix)
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
