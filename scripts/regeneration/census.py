"""Finds the operations of data events in a full description that the client does not offer.

A description does not say which operations belong to data events. Four signs decide: the tag, the
path, the operationId, and the schemas that an operation refers to. Webhooks and callbacks are left
out: Intercom sends these requests, so a client cannot offer them.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from client_parts import printable
from regeneration.document import Source
from regeneration.operations import METHODS, Operations
from regeneration.pointers import keys

Json = dict[str, Any]

#: Matches every spelling: Data Events, data-event, DataEvents (beta), lisDataEvents,
#: data_event_list.
_DATA_EVENT = re.compile(r"(?<!meta)data[\W_]*event", re.IGNORECASE)
_EVENTS = frozenset({"event", "events"})
_PARAMETER = re.compile(r"\{[^{}]*\}")
#: Separates the words of a path: slashes, and the characters before suffixes such as :search and
#: .json.
_BETWEEN = re.compile(r"[^\w-]+")
#: Keywords whose value is a mapping by names. Its keys are not keywords.
_NAMED = frozenset(
    {
        *("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"),
        *("headers", "content", "responses"),
    }
)
#: Keywords whose value is either data, where `$ref` is not a reference, or a request that Intercom
#: sends.
_SKIPPED = frozenset(("example", "examples", "default", "enum", "const", "callbacks"))
#: The longest name in a message, in characters.
_LONGEST = 100


@dataclass(frozen=True)
class Unoffered:
    """An operation of data events that is missing from both lists of openapi/operations.yaml.

    Attributes:
        method: The method, in lower case.
        path: The path from the description.
        operation_id: The operationId from the description; None if it is missing or not a string.
        why: The signs by which it belongs to data events, such as "its path"; printable.
    """

    method: str
    path: str
    operation_id: str | None
    why: tuple[str, ...]

    def __str__(self) -> str:
        """Returns a short printable form, such as DELETE /events (deleteDataEvents)."""
        name = f" ({printable(self.operation_id, _LONGEST)})" if self.operation_id else ""
        return f"{self.method.upper()} {printable(self.path, _LONGEST)}{name}"


@dataclass(frozen=True)
class _Found:
    """An operation of the description; `shared` has the parameters of its path item."""

    method: str
    path: str
    node: Json
    shared: object

    @property
    def key(self) -> tuple[str, str]:
        return self.method, _shape(self.path)

    @property
    def tags(self) -> list[str]:
        tags = self.node.get("tags")
        return _strings(tags) if isinstance(tags, list) else []


def unoffered(source: Source, operations: Operations) -> list[Unoffered]:
    """Returns the operations of data events that are in neither list, sorted by path and method.

    Time and memory are proportional to the size of the description. Parts that are not valid
    OpenAPI are skipped: the steps that use them reject them.
    """
    found = list(_operations(source.content))
    client = {(each.method, _shape(each.path)) for each in operations.client}
    known = client | {(method, _shape(path)) for method, path in operations.unsupported}
    paths = {path for _, path in client}
    tags = _tags_of_most([each for each in found if each.key in client], found)
    schemas = _schemas_of_data_events(source.content, found)
    missing = []
    for each in found:
        if each.key in known:
            continue
        why = [
            f"its tag {printable(tag, _LONGEST)}"
            for tag in each.tags
            if tag in tags or tag.strip().casefold() in _EVENTS or _DATA_EVENT.search(tag)
        ]
        if _is_path_of_events(each.path) or _shape(each.path).rstrip("/") in paths:
            why.append("its path")
        name = each.node.get("operationId")
        name = name if isinstance(name, str) else None
        if name and _DATA_EVENT.search(name):
            why.append("its operationId")
        used = schemas.get(id(each.node)) or schemas.get(id(each.shared))
        if used:
            why.append(f"its reference to the schema {printable(used, _LONGEST)}")
        if why:
            missing.append(Unoffered(each.method, each.path, name, tuple(why)))
    return sorted(missing, key=lambda each: (each.path, each.method))


def is_left_out(found: Unoffered, operations: Operations) -> bool:
    """Returns whether openapi/operations.yaml lists an operation as unsupported."""
    shapes = {(method, _shape(path)) for method, path in operations.unsupported}
    return (found.method, _shape(found.path)) in shapes


def record(found: Unoffered) -> Json:
    """Returns the record of an operation for the slice, printable and of limited length."""
    kept: Json = {"operation": f"{found.method.upper()} {printable(found.path, _LONGEST)}"}
    if found.operation_id:
        kept["operationId"] = printable(found.operation_id, _LONGEST)
    return {**kept, "why": list(found.why)}


def recorded(records: object) -> list[Unoffered]:
    """Returns the operations from the records of a slice."""
    found = []
    for each in records if isinstance(records, list) else ():
        method, _, path = each["operation"].partition(" ")
        name = each.get("operationId")
        found.append(Unoffered(method.lower(), path, name, tuple(each["why"])))
    return found


def _operations(root: Json) -> Iterator[_Found]:
    paths = root.get("paths")
    for path, item in paths.items() if isinstance(paths, dict) else ():
        if not (isinstance(path, str) and path.startswith("/")):
            continue
        # A path item can be a reference, and have further keys beside it.
        merged: Json = {}
        seen: set[int] = set()
        while isinstance(item, dict) and id(item) not in seen:
            seen.add(id(item))
            merged = {**item, **merged}
            item = _target(root, item.get("$ref"))
        for key, node in merged.items():
            if isinstance(key, str) and key.lower() in METHODS and isinstance(node, dict):
                yield _Found(key.lower(), path, node, merged.get("parameters"))


def _shape(path: str) -> str:
    """Returns a path without the names of its parameters, which do not distinguish paths."""
    return _PARAMETER.sub("{}", path)


def _is_path_of_events(path: str) -> bool:
    return any(_DATA_EVENT.search(part) for part in path.split("/")) or any(
        part.casefold() in _EVENTS for part in _BETWEEN.split(_PARAMETER.sub("", path))
    )


def _tags_of_most(client: Iterable[_Found], found: Iterable[_Found]) -> set[str]:
    """Returns the tags that all operations of the client share with at most as many others.

    So a renamed tag still counts as that of data events, and a tag of the whole API does not.
    """
    counted = Counter(tag for each in client for tag in set(each.tags))
    everywhere = Counter(tag for each in found for tag in set(each.tags))
    number = len(list(client))
    return {
        tag for tag, ours in counted.items() if ours == number and everywhere[tag] <= 2 * number
    }


def _schemas_of_data_events(root: Json, found: Iterable[_Found]) -> dict[int, str]:
    """Returns, by the id of each node in reach of an operation, its nearest schema of data events.

    The name of a schema decides. In every description that Intercom has published, the schemas that
    only our operations refer to have "data event" in their names, and shared ones, such as errors,
    do not. Each node is visited once, so cycles are harmless.
    """
    users: dict[int, list[int]] = {}
    named: dict[int, str] = {}
    pending: list[tuple[object, bool]] = [
        (node, False) for each in found for node in (each.node, each.shared)
    ]
    seen: set[tuple[int, bool]] = set()
    while pending:
        node, names = pending.pop()
        if not isinstance(node, dict | list) or (id(node), names) in seen:
            continue
        seen.add((id(node), names))
        references: list[str] = []
        children = list(_children(node, names, references))
        for reference in references:
            children.append((_target(root, reference), False))
            own = [part for part in reference.split("/") if _DATA_EVENT.search(part)]
            if own:
                named[id(node)] = own[-1]
        for child in children:
            if isinstance(child[0], dict | list):
                users.setdefault(id(child[0]), []).append(id(node))
                pending.append(child)
    # From the schemas back to the operations, nearest first. Sorted, because the order of the
    # description must not change the result.
    reached = dict(sorted(named.items(), key=lambda each: each[1]))
    following = deque(reached)
    while following:
        node_id = following.popleft()
        for user in users.get(node_id, ()):
            if user not in reached:
                reached[user] = reached[node_id]
                following.append(user)
    return reached


def _children(
    node: Json | list[Any], names: bool, references: list[str]
) -> Iterator[tuple[object, bool]]:
    """Yields the children of a node, each with whether its keys are names; collects references."""
    if isinstance(node, list):
        yield from ((child, False) for child in node)
        return
    for key, child in node.items():
        if names:
            yield child, False
        elif key in ("$ref", "$dynamicRef") and isinstance(child, str):
            references.append(child)
        elif key not in _SKIPPED and not str(key).startswith("x-"):
            yield child, key in _NAMED


def _target(root: object, reference: object) -> object:
    """Returns the target of a reference into the document, or None."""
    if not (isinstance(reference, str) and reference.startswith("#/")):
        return None
    node = root
    for key in keys(unquote(reference)):
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdecimal() and len(key) < 10 and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node


def _strings(values: list[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]
