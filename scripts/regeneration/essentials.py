"""Reduces a slice to the facts that shape the generated code.

A slice holds every fact of the description. The others must not change the generated code.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

#: Keywords whose value is one schema, and keywords whose value is a list of schemas.
ONE = ("items", "not", "additionalProperties")
MANY = ("oneOf", "anyOf", "allOf")
_SCHEMA = {
    "$ref", "type", "format", "enum", "nullable", "readOnly", "writeOnly", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "required", "properties",
    *ONE, *MANY,
}  # fmt: skip
#: The generator makes an empty union from alternatives that have only these keywords.
_CONDITIONS = {"required", "not"}
_PARAMETER = {"name", "in", "required", "style", "explode", "schema"}
_OPERATION = {"tags", "operationId", "parameters", "requestBody", "responses"}
_JSON = "application/json"


def essential(sliced: Json, *, conditions: bool) -> Json:
    """Returns a copy of a slice without the facts that the generator does not use.

    The copy has no authentication either: the corrections say how the client authenticates.

    Args:
        sliced: The slice.
        conditions: Whether to keep combinations that only require or exclude fields, from which no
            code can be generated.
    """
    components = sliced["components"]
    reader = _Essence(conditions=conditions)
    return {
        "openapi": sliced["openapi"],
        "info": dict(sliced["info"]),
        "servers": [_of(server, {"url"}) for server in sliced["servers"] if _is_fixed(server)],
        "security": [],
        "paths": {
            path: {method: reader.operation(node) for method, node in item.items()}
            for path, item in sliced["paths"].items()
        },
        "components": {
            "schemas": {name: reader.schema(node) for name, node in components["schemas"].items()},
            "securitySchemes": {},
        },
    }


class _Essence:
    def __init__(self, *, conditions: bool) -> None:
        self._conditions = conditions

    def operation(self, node: Json) -> Json:
        kept = _of(node, _OPERATION)
        kept["parameters"] = [
            _of(parameter, _PARAMETER) | {"schema": self.schema(parameter["schema"])}
            for parameter in node["parameters"]
        ]
        if "requestBody" in node:
            kept["requestBody"] = self._content(_of(node["requestBody"], {"required", "content"}))
        kept["responses"] = {
            status: self._answer(response) for status, response in node["responses"].items()
        }
        return kept

    def schema(self, node: Json) -> Json:
        kept = _of(node, _SCHEMA)
        if "properties" in kept:
            kept["properties"] = {
                name: self.schema(each) for name, each in kept["properties"].items()
            }
        for keyword in ONE:
            if isinstance(kept.get(keyword), dict):
                kept[keyword] = self.schema(kept[keyword])
        for keyword in MANY:
            if keyword in kept:
                kept[keyword] = [self.schema(each) for each in kept[keyword]]
                if not self._conditions and all(set(each) <= _CONDITIONS for each in kept[keyword]):
                    del kept[keyword]
        return kept

    def _answer(self, node: Json) -> Json:
        """Keeps the JSON body of an answer only, because the client reads no other."""
        kept = self._content(_of(node, {"description", "content"}))
        if "content" in kept:
            kept["content"] = _of(kept["content"], {_JSON})
            if not kept["content"]:
                del kept["content"]
        return kept

    def _content(self, node: Json) -> Json:
        if "content" in node:
            node["content"] = {
                media: {"schema": self.schema(value["schema"])}
                for media, value in node["content"].items()
            }
        return node


def _is_fixed(server: Json) -> bool:
    return server["url"].startswith("https://") and "{" not in server["url"]


def _of(node: Json, keys: set[str]) -> Json:
    return {key: value for key, value in node.items() if key in keys}
