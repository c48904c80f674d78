"""Finds the parts of requests that upstream requires now and that the client does not always send.

A part counts only if neither the slice nor the corrected description required it before: a
correction may require something that upstream adds later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from regeneration import RegenerationError
from regeneration.operations import Operation, Operations

Json = dict[str, Any]
#: The path of a part of a request: ("query", name), ("header", name) or, for a field of the body,
#: ("body", name, …). The body itself is ("body",).
Part = tuple[str, ...]

_BODY = "body"
#: Intercom's requests have about 10 schemas. Repeated references to one schema can turn a few
#: schemas into billions.
_MAX_SCHEMAS = 20_000
#: Headers that the client sends with each request. OpenAPI says that parameters named like the
#: first three are ignored.
_ALWAYS_SENT = {"accept", "authorization", "content-type", "intercom-version"}


@dataclass(frozen=True)
class Requirement:
    """A part of a request that upstream requires now, and that the client does not always send.

    Attributes:
        operation: The operation that requires it.
        part: The path of the part.
        optional: Whether callers can already send it.
    """

    operation: Operation
    part: Part
    optional: bool

    @property
    def name(self) -> str:
        """The name of the parameter, or the dotted path of the field in the body."""
        return ".".join(self.part[1:]) or "a body"


def requirements(
    before: Json | None, after: Json, sent: Json | None, operations: Operations
) -> list[Requirement]:
    """Returns the parts that upstream requires now and did not require before.

    Args:
        before: The committed slice. If it is None, the result is empty.
        after: The new slice.
        sent: The committed corrected description, from which the client was generated. If it is
            None, the result is empty.
        operations: The operations of the client.
    """
    if before is None or sent is None:
        return []
    found = []
    for operation in operations.client:
        were, known = _Request(before, operation), _Request(sent, operation)
        now = _Request(after, operation).required
        new = now - were.required - known.required
        for part in sorted(new):
            owners = [part[:length] for length in range(1, len(part))]
            # A part inside a new optional one is not required of callers that do not send it.
            if all(owner in were.parts | known.parts for owner in owners[1:]):
                found.append(Requirement(operation, part, part in known.parts))
    return found


class _Request:
    """The parts of an operation's request, and those of them that are required."""

    def __init__(self, document: Json, operation: Operation) -> None:
        self._schemas = document.get("components", {}).get("schemas", {})
        self._operation = operation
        self._visits = 0
        item = document.get("paths", {}).get(operation.path, {})
        node = item.get(operation.method, {})
        self.parts: set[Part] = set()
        self.required: set[Part] = set()
        for parameter in [*item.get("parameters", ()), *node.get("parameters", ())]:
            place, name = parameter.get("in", ""), parameter.get("name", "")
            if place == "header":
                name = name.lower()
                if name in _ALWAYS_SENT:
                    continue
            self.parts.add((place, name))
            if parameter.get("required"):
                self.required.add((place, name))
        body = node.get("requestBody")
        if body is not None:
            self.parts.add((_BODY,))
            if body.get("required"):
                self.required.add((_BODY,))
            schema = body.get("content", {}).get("application/json", {}).get("schema", {})
            self.parts.update(self._fields(schema, (_BODY,), ()))
            self.required |= self._needs(schema, (_BODY,), ())

    def _fields(self, schema: Json, at: Part, seen: tuple[str, ...]) -> Iterator[Part]:
        for one, seen_there in self._made_of(schema, seen):
            for name, value in one.get("properties", {}).items():
                yield (*at, name)
                yield from self._fields(value, (*at, name), seen_there)
            for name, value in _members(one):
                yield (*at, name)
                yield from self._fields(value, (*at, name), seen_there)

    def _needs(self, schema: Json, at: Part, seen: tuple[str, ...]) -> set[Part]:
        """Returns the fields that a value must have: of alternatives, those that all require."""
        schema, seen = self._resolved(schema, seen)
        needs = {(*at, name) for name in schema.get("required", ())}
        for name, value in [*schema.get("properties", {}).items(), *_members(schema)]:
            needs |= self._needs(value, (*at, name), seen)
        for each in schema.get("allOf", ()):
            needs |= self._needs(each, at, seen)
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                needs |= set.intersection(*(self._needs(one, at, seen) for one in schema[keyword]))
        return needs

    def _made_of(
        self, schema: Json, seen: tuple[str, ...]
    ) -> Iterator[tuple[Json, tuple[str, ...]]]:
        schema, seen = self._resolved(schema, seen)
        yield schema, seen
        for keyword in ("allOf", "anyOf", "oneOf"):
            for each in schema.get(keyword, ()):
                yield from self._made_of(each, seen)

    def _resolved(self, schema: Json, seen: tuple[str, ...]) -> tuple[Json, tuple[str, ...]]:
        """Follows references; a schema inside itself adds nothing and becomes empty."""
        self._visits += 1
        if self._visits > _MAX_SCHEMAS:
            raise RegenerationError(
                f"{self._operation}: its body must not have more than {_MAX_SCHEMAS:,} schemas, "
                "counting each reference to one"
            )
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            if name in seen:
                return {}, seen
            seen = (*seen, name)
            schema = self._schemas.get(name, {})
        return schema, seen


def _members(schema: Json) -> Iterator[tuple[str, Json]]:
    """Yields the schemas of list items, as `[]`, and of additional properties, as `*`."""
    if isinstance(schema.get("items"), dict):
        yield "[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield "*", schema["additionalProperties"]
