"""Names the objects that are alternatives in a union.

The generator numbers the members of a union (`…Type0`), and a field that can be null is a union.
This step moves each such object into a separate schema, with the name that it would have outside a
union: the name of its parent, followed by its key.
"""

from __future__ import annotations

from typing import Any

from regeneration.essentials import MANY
from regeneration.tolerating import NULL, SCHEMAS

Json = dict[str, Any]


def name_alternatives(document: Json) -> Json:
    """Returns a document in which each object of a union is a separate schema."""
    namer = _Namer(document["components"]["schemas"])
    return {**document, "components": {**document["components"], "schemas": namer.named()}}


class _Namer:
    def __init__(self, schemas: Json) -> None:
        self._schemas = schemas
        self._new: Json = {}

    def named(self) -> Json:
        kept = {name: self._within(schema, name) for name, schema in self._schemas.items()}
        return dict(sorted((kept | self._new).items()))

    def _within(self, schema: Json, name: str, *, numbered: bool = False) -> Json:
        """Names the parts of a schema after it; `numbered` if the generator would number them."""
        kept = dict(schema)
        if "properties" in kept:
            kept["properties"] = {
                key: self._part(value, f"{name}_{key}") for key, value in kept["properties"].items()
            }
        for keyword, suffix in (("items", "item"), ("additionalProperties", "additional_property")):
            if isinstance(kept.get(keyword), dict):
                part = f"{name}_{suffix}"
                kept[keyword] = self._part(kept[keyword], part, numbered=numbered)
        return kept

    def _part(self, schema: Json, name: str, *, numbered: bool = False) -> Json:
        if _is_object(schema) and schema.get("nullable") is True:
            held = {key: value for key, value in schema.items() if key != "nullable"}
            prose = {"description": held["description"]} if "description" in held else {}
            return {"anyOf": [self._reference(held, name), dict(NULL)], **prose}
        if _is_object(schema) and numbered:
            return self._reference(schema, name)
        is_union = schema.get("nullable") is True
        kept = self._within(schema, name, numbered=numbered or is_union)
        for keyword in MANY[:2]:
            if keyword in kept:
                kept[keyword] = [
                    self._reference(each, name)
                    if _is_object(each)
                    else self._within(each, name, numbered=True)
                    for each in kept[keyword]
                ]
        return kept

    def _reference(self, schema: Json, name: str) -> Json:
        while name in self._schemas or name in self._new:
            name += "_object"
        self._new[name] = {}
        self._new[name] = self._within(schema, name)
        return {"$ref": f"{SCHEMAS}{name}"}


def _is_object(schema: Json) -> bool:
    return schema.get("type") == "object" and not any(keyword in schema for keyword in MANY)
