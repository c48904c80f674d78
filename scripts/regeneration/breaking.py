"""What a new description asks of callers that they do not do yet.

A request is compared from three sides: what upstream required before, what it requires now, and
what the client was made to send. Only what is new to all but one is a break.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from regeneration import RegenerationError
from regeneration.operations import Operation, Operations

Json = dict[str, Any]
#: A required part of a request: a query or header parameter, or a field of the body, by the names
#: from the body down. The body itself has no name.
Part = tuple[str, ...]

_BODY = "body"
#: Intercom's requests have some 10. References to the same schema can blow a few up to billions.
_MAX_SCHEMAS = 20_000
#: Headers that the client sends with each request; of the first three, OpenAPI says that a
#: parameter of that name means nothing.
_ALWAYS_SENT = {"accept", "authorization", "content-type", "intercom-version"}


@dataclass(frozen=True)
class Requirement:
    """A part of a request that upstream requires now, and that the client does not always send.

    Attributes:
        operation: Of which operation.
        part: Which.
        optional: Whether callers can send it already.
    """

    operation: Operation
    part: Part
    optional: bool

    @property
    def name(self) -> str:
        """The name of the parameter or field, from the body down."""
        return ".".join(self.part[1:]) or "a body"


def requirements(
    before: Json | None, after: Json, sent: Json | None, operations: Operations
) -> list[Requirement]:
    """Returns what upstream requires now, and before it did not.

    Args:
        before: The slice before; without one, nothing is known to be new.
        after: The slice.
        sent: The corrected description that the client was generated from before.
        operations: Of the client.
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
            # What stands inside of something new asks nothing of those who do not send that.
            if all(owner in were.parts | known.parts for owner in owners[1:]):
                found.append(Requirement(operation, part, part in known.parts))
    return found


class _Request:
    """The parts that a request of an operation has, and those that it must have."""

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
        """What a value must have: all of a schema and of `allOf`, and what each variant has."""
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
        """Follows references; a schema inside of itself says nothing new."""
        self._visits += 1
        if self._visits > _MAX_SCHEMAS:
            raise RegenerationError(
                f"{self._operation}: its body has more than {_MAX_SCHEMAS:,} schemas, those that "
                "stand in it several times counted as often"
            )
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            if name in seen:
                return {}, seen
            seen = (*seen, name)
            schema = self._schemas.get(name, {})
        return schema, seen


def _members(schema: Json) -> Iterator[tuple[str, Json]]:
    """The schemas of what has no name of its own: items of a list, further keys of an object."""
    if isinstance(schema.get("items"), dict):
        yield "[]", schema["items"]
    if isinstance(schema.get("additionalProperties"), dict):
        yield "*", schema["additionalProperties"]
