"""Finds the client's operations that send or read a place in a description."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from regeneration.operations import Operation
from regeneration.tolerating import references

Json = dict[str, Any]
Direction = Literal["request", "answer"]


class Uses:
    """The places that operations use in several documents; a document may lack some of these."""

    def __init__(self, operations: Iterable[Operation], documents: Iterable[Json]) -> None:
        self._operations = tuple(operations)
        self._schemas: dict[str, dict[Direction, set[Operation]]] = {}
        for document in documents:
            for operation in self._operations:
                self._follow(document, operation)

    def of(self, path: tuple[str, ...]) -> dict[Direction, list[Operation]]:
        """Returns the operations that send a place, and those that read it, each in order."""
        found: dict[Direction, set[Operation]] = {"request": set(), "answer": set()}
        match path:
            case "paths", name, *rest:
                direction: Direction = "answer" if rest[1:2] == ["responses"] else "request"
                found[direction] = {
                    each
                    for each in self._operations
                    if each.path == name and rest[:1] in ([], ["parameters"], [each.method])
                }
            case "components", "schemas", name, *_:
                found |= self._schemas.get(name, {})
        return {
            direction: [each for each in self._operations if each in operations]
            for direction, operations in found.items()
        }

    def _follow(self, document: Json, operation: Operation) -> None:
        item = document.get("paths", {}).get(operation.path, {})
        node = item.get(operation.method, {})
        sent = [item.get("parameters"), node.get("parameters"), node.get("requestBody")]
        self._collect(document, sent, operation, "request")
        self._collect(document, node.get("responses"), operation, "answer")

    def _collect(
        self, document: Json, root: object, operation: Operation, direction: Direction
    ) -> None:
        pending, seen = list(references(root)), set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                self._schemas.setdefault(name, {}).setdefault(direction, set()).add(operation)
                schema = document.get("components", {}).get("schemas", {}).get(name)
                pending += references(schema)


def verbs(operations: Iterable[Operation]) -> str:
    """Returns the client methods that send these operations, as a sentence lists them."""
    return and_([verb for operation in operations for verb in operation.verbs])


def and_(words: list[str]) -> str:
    """Returns words as a sentence lists them."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
