"""Leaving of a slice what the client is generated from.

A slice holds every fact; of these, few shape the generated code, and no other may change it.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

#: What holds further schemas: one, a list, or a mapping by names.
ONE = ("items", "not", "additionalProperties")
MANY = ("oneOf", "anyOf", "allOf")
_SCHEMA = {
    "$ref", "type", "format", "enum", "nullable", "readOnly", "writeOnly", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "required", "properties",
    *ONE, *MANY,
}  # fmt: skip
_PARAMETER = {"name", "in", "required", "style", "explode", "schema"}
_OPERATION = {"tags", "operationId", "parameters", "requestBody", "responses"}


def essential(sliced: Json) -> Json:
    """Returns a copy of a slice without the facts that mean nothing to the generator."""
    components = sliced["components"]
    return {
        "openapi": sliced["openapi"],
        "info": dict(sliced["info"]),
        "servers": [_of(server, {"url"}) for server in sliced["servers"]],
        "security": [dict(requirement) for requirement in sliced["security"]],
        "paths": {
            path: {method: _operation(node) for method, node in item.items()}
            for path, item in sliced["paths"].items()
        },
        "components": {
            "schemas": {name: _schema(node) for name, node in components["schemas"].items()},
            "securitySchemes": {
                name: {key: value for key, value in node.items() if key != "x-unread"}
                for name, node in components["securitySchemes"].items()
            },
        },
    }


def _operation(node: Json) -> Json:
    kept = _of(node, _OPERATION)
    kept["parameters"] = [
        _of(parameter, _PARAMETER) | {"schema": _schema(parameter["schema"])}
        for parameter in node["parameters"]
    ]
    if "requestBody" in node:
        kept["requestBody"] = _content(_of(node["requestBody"], {"required", "content"}))
    kept["responses"] = {
        status: _content(_of(response, {"description", "content"}))
        for status, response in node["responses"].items()
    }
    return kept


def _content(node: Json) -> Json:
    if "content" in node:
        node["content"] = {
            media: {"schema": _schema(value["schema"])} for media, value in node["content"].items()
        }
    return node


def _schema(node: Json) -> Json:
    kept = _of(node, _SCHEMA)
    if "properties" in kept:
        kept["properties"] = {name: _schema(each) for name, each in kept["properties"].items()}
    for keyword in ONE:
        if isinstance(kept.get(keyword), dict):
            kept[keyword] = _schema(kept[keyword])
    for keyword in MANY:
        if keyword in kept:
            kept[keyword] = [_schema(each) for each in kept[keyword]]
    return kept


def _of(node: Json, keys: set[str]) -> Json:
    return {key: value for key, value in node.items() if key in keys}
