"""Which operations of data events a full description has that the client does not offer.

A description does not say what belongs to data events, so four signs count: the tag, the path, the
operationId, and the schemas that an operation refers to. Webhooks and callbacks are left out: they
are requests that Intercom sends, so a client cannot offer them.
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

#: In all spellings: Data Events, data-event, DataEvents (beta), lisDataEvents, data_event_list.
_DATA_EVENT = re.compile(r"(?<!meta)data[\W_]*event", re.IGNORECASE)
_EVENTS = frozenset({"event", "events"})
_PARAMETER = re.compile(r"\{[^{}]*\}")
#: Of a path: slashes, and what stands before suffixes such as :search and .json.
_BETWEEN = re.compile(r"[^\w-]+")
#: Keywords whose value has the description's own names as its keys, so that none is a keyword.
_NAMED = frozenset(
    {
        *("properties", "patternProperties", "dependentSchemas", "$defs", "definitions"),
        *("headers", "content", "responses"),
    }
)
#: Keywords whose value is data, where a `$ref` refers to nothing, or what Intercom sends.
_SKIPPED = frozenset(("example", "examples", "default", "enum", "const", "callbacks"))
#: Characters of a name in a sentence.
_LONGEST = 100


@dataclass(frozen=True)
class Unoffered:
    """An operation of data events that neither list of openapi/operations.yaml has.

    Attributes:
        method: In small letters, as descriptions have it.
        path: As the description has it.
        operation_id: As the description has it; None where it is missing or not a string.
        why: By what it belongs to data events, such as "its path"; printable.
    """

    method: str
    path: str
    operation_id: str | None
    why: tuple[str, ...]

    def __str__(self) -> str:
        """As people write it, printable and bounded: DELETE /events (deleteDataEvents)."""
        name = f" ({printable(self.operation_id, _LONGEST)})" if self.operation_id else ""
        return f"{self.method.upper()} {printable(self.path, _LONGEST)}{name}"


@dataclass(frozen=True)
class _Found:
    """An operation of the description; `shared` are the parameters of its path."""

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
    """Finds the operations of data events that are in neither list, sorted by path and method.

    Time and memory are in proportion to the description. What is not as OpenAPI has it is skipped;
    the steps that use it refuse it.
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
            f"tagged {printable(tag, _LONGEST)}"
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
            why.append(f"uses the schema {printable(used, _LONGEST)}")
        if why:
            missing.append(Unoffered(each.method, each.path, name, tuple(why)))
    return sorted(missing, key=lambda each: (each.path, each.method))


def is_left_out(found: Unoffered, operations: Operations) -> bool:
    """Whether openapi/operations.yaml says that the client leaves an operation out."""
    shapes = {(method, _shape(path)) for method, path in operations.unsupported}
    return (found.method, _shape(found.path)) in shapes


def record(found: Unoffered) -> Json:
    """Returns what a slice holds of an operation, printable and bounded."""
    kept: Json = {"operation": f"{found.method.upper()} {printable(found.path, _LONGEST)}"}
    if found.operation_id:
        kept["operationId"] = printable(found.operation_id, _LONGEST)
    return {**kept, "why": list(found.why)}


def recorded(records: object) -> list[Unoffered]:
    """Returns the operations that a slice holds records of."""
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
        # A path item may be elsewhere, and have keys beside its reference.
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
    """A path without the names of its parameters, which tell no paths apart."""
    return _PARAMETER.sub("{}", path)


def _is_path_of_events(path: str) -> bool:
    return any(_DATA_EVENT.search(part) for part in path.split("/")) or any(
        part.casefold() in _EVENTS for part in _BETWEEN.split(_PARAMETER.sub("", path))
    )


def _tags_of_most(client: Iterable[_Found], found: Iterable[_Found]) -> set[str]:
    """The tags that all operations of the client have, and no more of the others than of them.

    A tag that was renamed is still that of data events; a tag of the whole API is not.
    """
    counted = Counter(tag for each in client for tag in set(each.tags))
    everywhere = Counter(tag for each in found for tag in set(each.tags))
    number = len(list(client))
    return {
        tag for tag, ours in counted.items() if ours == number and everywhere[tag] <= 2 * number
    }


def _schemas_of_data_events(root: Json, found: Iterable[_Found]) -> dict[int, str]:
    """By the id of each node that operations hold or refer to: the nearest schema of data events.

    What our operations alone refer to is named after data events in every description that Intercom
    has published, so that names tell these from what all operations share, such as errors. Nodes
    are visited once each, however they refer to each other.
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
    # From the schemas back to the operations, nearest first; sorted, so that order tells nothing.
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
    """The nodes within one, each with whether its keys are names; notes what the node refers to."""
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
    """What a reference into the document leads to, or None."""
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
