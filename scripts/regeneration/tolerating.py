"""Loosening what answers are read by, so that no value in them is unreadable.

A server may answer what its description does not say: null, a new value, another type, less. So of
the schemas that requests do not use, what refuses values is dropped, and every field and every item
may be null. The generator makes of such a field a union whose last branch takes what came as it is.

What stays is what a field may be: types, objects with their fields, lists. However a description
combines them, by allOf, oneOf or anyOf, is the same to a reader: an object with the fields of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from regeneration import RegenerationError
from regeneration.essentials import MANY

Json = dict[str, Any]

SCHEMAS = "#/components/schemas/"
#: Null and nothing else. In OpenAPI 3.0, `nullable` says nothing without a type beside it; where
#: both stand here, Prism lists null twice, and then lets every value pass.
NULL: Json = {"enum": [None]}
#: Combined fields of combined fields can be many; Intercom's answers have some 50 in all.
_MAX_SCHEMAS = 50_000
#: What is deeper overflows the stack.
_MAX_DEPTH = 100


def tolerate(document: Json) -> Json:
    """Returns a document whose answers can be read whatever they hold; requests stay as they are.

    Raises:
        RegenerationError: The schemas of the answers are combined in too many ways.
    """
    return _with_answers(document, _Reader(document["components"]["schemas"], is_tolerant=True))


def said(document: Json) -> Json:
    """Returns what a description says of answers, in the form in which they are read tolerantly.

    Values are there, since some answers are told apart by them, and nothing may be null.

    Raises:
        RegenerationError: The schemas of the answers are combined in too many ways.
    """
    return _with_answers(document, _Reader(document["components"]["schemas"], is_tolerant=False))


def _with_answers(document: Json, reader: _Reader) -> Json:
    """A copy whose schemas are changed, but for those that requests use."""
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
    """The schemas that requests use, directly or not."""
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
    """The names of the schemas that a part of a document refers to."""
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
    """What a value may be: all that some schemas say together."""

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
    """Makes schemas of answers of those of one document."""

    def __init__(self, schemas: Json, *, is_tolerant: bool) -> None:
        self._schemas = schemas
        self._is_tolerant = is_tolerant
        self._made = 0
        #: What is being combined, so that nothing is combined with itself without end.
        self._within: list[frozenset[str]] = []

    def schema(self, schemas: list[Json], *, is_part: bool = False) -> Json:
        """Returns the one schema of what any of some schemas, or all of them, describe."""
        self._made += 1
        if self._made > _MAX_SCHEMAS:
            raise RegenerationError(
                f"{SCHEMAS[:-1]}: the answers combine more than {_MAX_SCHEMAS:,} schemas"
            )
        if len(self._within) > _MAX_DEPTH:
            raise RegenerationError(f"{SCHEMAS[:-1]}: the answers combine schemas too deeply")
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
        """Writes several schemas that are referred to in place, as one; returns their names."""
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
    """A schema of one of some alternatives; without any, of anything."""
    if not alternatives:
        return {}
    if len(alternatives) == 1 and not nullable:
        return alternatives[0]
    if len(alternatives) == 1 and "$ref" not in alternatives[0]:
        return {**alternatives[0], "nullable": True}
    return {"anyOf": [*alternatives, *([dict(NULL)] if nullable else [])]}


def _types(values: Iterable[object]) -> Iterator[str]:
    """The types of the values of an enum that does not say its type."""
    for value in values:
        if isinstance(value, bool):
            yield "boolean"
        elif isinstance(value, int):
            yield "integer"
        elif isinstance(value, str):
            yield "string"
