"""Loosens the schemas of answers, so that the client can read any value in them.

A server may send what its description rules out: null, a new value, another type, fewer fields. In
schemas that requests do not use, this step drops all that rejects values, and lets every field and
every item be null. The generator turns such a field into a union whose last branch keeps the value
unchanged.

The possible types of a field remain: scalars, objects with their fields, lists. A combination by
allOf, oneOf or anyOf becomes one object with the fields of all parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from regeneration import RegenerationError
from regeneration.essentials import MANY

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"
#: Only null. In OpenAPI 3.0, `nullable` has no effect without a type; with a type, Prism would list
#: null twice and then accept every value.
NULL: Json = {"enum": [None]}
#: Nested combinations can multiply; all of Intercom's answers have about 50 schemas.
_MAX_SCHEMAS = 50_000
#: Deeper schemas overflow the stack.
_MAX_DEPTH = 100


def tolerate(document: Json) -> Json:
    """Returns a document whose answers accept any value and whose requests are unchanged.

    Raises:
        RegenerationError: The answers combine too many schemas.
    """
    return _with_answers(document, _Reader(document["components"]["schemas"], is_tolerant=True))


def said(document: Json) -> Json:
    """Returns a document whose answers have the form that `tolerate` gives them, not loosened.

    They keep the listed values, because some answers differ only in these, and nothing may be null.

    Raises:
        RegenerationError: The answers combine too many schemas.
    """
    return _with_answers(document, _Reader(document["components"]["schemas"], is_tolerant=False))


def _with_answers(document: Json, reader: _Reader) -> Json:
    """Returns a copy whose schemas are changed, except those that requests use."""
    components = document["components"]
    requested = _requested(document)
    paths = {
        path: {
            method: {
                **operation,
                "responses": {
                    status: _response(response, reader)
                    for status, response in operation["responses"].items()
                },
            }
            for method, operation in item.items()
        }
        for path, item in document["paths"].items()
    }
    schemas = {
        name: schema if name in requested else reader.schema([schema])
        for name, schema in components["schemas"].items()
    }
    return {**document, "paths": paths, "components": {**components, "schemas": schemas}}


def _response(response: Json, reader: _Reader) -> Json:
    if "content" not in response:
        return response
    content = {
        media: {**value, "schema": reader.schema([value["schema"]])}
        for media, value in response["content"].items()
    }
    return {**response, "content": content}


def _requested(document: Json) -> set[str]:
    """Returns the names of the schemas that requests use, directly or indirectly."""
    pending: list[str] = []
    for item in document["paths"].values():
        for operation in item.values():
            sent = [operation["parameters"], operation.get("requestBody")]
            pending += references(sent)
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += references(document["components"]["schemas"].get(name))
    return found


def references(node: object) -> Iterator[str]:
    """Yields the names of the schemas that a part of a document refers to."""
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(SCHEMAS)
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


@dataclass
class _Kinds:
    """The possible types of a value, collected from several schemas."""

    scalars: set[str] = field(default_factory=set)
    values: list[object] = field(default_factory=list)
    is_object: bool = False
    properties: dict[str, list[Json]] = field(default_factory=dict)
    additional: list[Json] = field(default_factory=list)
    is_list: bool = False
    items: list[Json] = field(default_factory=list)
    references: set[str] = field(default_factory=set)

    def add(self, schema: Json) -> None:
        kind = schema.get("type")
        if kind is None and {"properties", "additionalProperties"} & set(schema):
            kind = "object"
        if "$ref" in schema:
            self.references.add(schema["$ref"].removeprefix(SCHEMAS))
        if kind == "object":
            self.is_object = True
            for name, value in schema.get("properties", {}).items():
                self.properties.setdefault(name, []).append(value)
            additional = schema.get("additionalProperties")
            if isinstance(additional, dict) and additional:
                self.additional.append(additional)
        elif kind == "array" or (kind is None and "items" in schema):
            self.is_list = True
            if "items" in schema:
                self.items.append(schema["items"])
        elif kind is not None:
            self.scalars.add(kind)
        elif "enum" in schema:
            self.scalars.update(_types(schema["enum"]))
        self.values += schema.get("enum", ())
        for keyword in MANY:
            for part in schema.get(keyword, ()):
                self.add(part)


class _Reader:
    """Makes the schemas of answers from the schemas of one document."""

    def __init__(self, schemas: Json, *, is_tolerant: bool) -> None:
        self._schemas = schemas
        self._is_tolerant = is_tolerant
        self._made = 0
        #: The schemas being combined; a recursive schema ends the combination.
        self._within: list[frozenset[str]] = []

    def schema(self, schemas: list[Json], *, is_part: bool = False) -> Json:
        """Returns one schema for all values that the given schemas describe."""
        self._made += 1
        if self._made > _MAX_SCHEMAS:
            raise RegenerationError(
                f"{SCHEMAS[:-1]}: the answers must combine at most {_MAX_SCHEMAS:,} schemas"
            )
        if len(self._within) > _MAX_DEPTH:
            raise RegenerationError(
                f"{SCHEMAS[:-1]}: the answers must combine schemas at most {_MAX_DEPTH} levels deep"
            )
        kinds = _Kinds()
        for schema in schemas:
            kinds.add(schema)
        combined = self._combine(kinds)
        if combined in self._within:
            return {}
        self._within.append(combined or frozenset({str(self._made)}))
        try:
            alternatives = list(self._alternatives(kinds))
        finally:
            self._within.pop()
        return _joined(alternatives, nullable=is_part and self._is_tolerant)

    def _combine(self, kinds: _Kinds) -> frozenset[str]:
        """Replaces several references with the schemas that they name; returns the names."""
        combined: set[str] = set()
        while kinds.references - combined and (
            combined or kinds.is_object or len(kinds.references) > 1
        ):
            for name in sorted(kinds.references - combined):
                combined.add(name)
                kinds.add(self._schemas.get(name, {}))
        kinds.references -= combined
        return frozenset(combined)

    def _alternatives(self, kinds: _Kinds) -> Iterator[Json]:
        for name in kinds.references:
            yield {"$ref": f"{SCHEMAS}{name}"}
        if kinds.is_object:
            made: Json = {"type": "object"}
            if kinds.properties:
                made["properties"] = {
                    name: self.schema(values, is_part=True)
                    for name, values in kinds.properties.items()
                }
            if kinds.additional:
                made["additionalProperties"] = self.schema(kinds.additional, is_part=True)
            yield made
        if kinds.is_list:
            yield {"type": "array", "items": self.schema(kinds.items, is_part=True)}
        values = {} if self._is_tolerant or not kinds.values else {"enum": kinds.values}
        for name in sorted(kinds.scalars):
            yield {"type": name, **values}


def _joined(alternatives: list[Json], *, nullable: bool) -> Json:
    """Returns a schema of any of the alternatives; if there are none, of any value."""
    if not alternatives:
        return {}
    if len(alternatives) == 1 and not nullable:
        return alternatives[0]
    if len(alternatives) == 1 and "$ref" not in alternatives[0]:
        return {**alternatives[0], "nullable": True}
    return {"anyOf": [*alternatives, *([dict(NULL)] if nullable else [])]}


def _types(values: Iterable[object]) -> Iterator[str]:
    """Yields the types of the values of an enum that has no type."""
    for value in values:
        if isinstance(value, bool):
            yield "boolean"
        elif isinstance(value, int):
            yield "integer"
        elif isinstance(value, str):
            yield "string"
