"""Cutting the data-events operations out of Intercom's full description.

A slice holds facts only: operations, parameters and schemas with the keywords that shape requests
and answers. Prose, examples and defaults stay behind: text from outside never reaches the
generated code, and a client that sent the server's own defaults would only freeze them. What is
left is checked word by word, since names become Python identifiers.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar

from regeneration import RegenerationError
from regeneration.document import Source
from regeneration.operations import Operation

Json = dict[str, Any]
#: Below this name a slice lists the operations of data events that the client does not offer.
OTHERS = "x-other-operations"
T = TypeVar("T")

_TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}
#: Keywords whose value is copied as it is, once it is known to be harmless.
_PLAIN_KEYWORDS = (
    "nullable",
    "readOnly",
    "writeOnly",
    "deprecated",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
)
_NAME = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@-]*")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9 _-]*")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_STATUS = re.compile(r"[1-5]([0-9][0-9]|XX)|default")
_VERSION = re.compile(r"[0-9]+\.[0-9]+|Preview|Unstable")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPENAPI = re.compile(r"3\.[01]\.[0-9]+")
_SERVER = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]*)?")
#: A slice has a few hundred nodes; YAML aliases can blow a small file up to billions.
_MAX_NODES = 50_000


def slice_description(
    source: Source,
    operations: Iterable[Operation],
    schemas: Iterable[str],
    recorded: str | None = None,
    others: Iterable[str] = (),
) -> Json:
    """Returns the data-events part of an OpenAPI description.

    Args:
        source: The description as read.
        operations: The operations to keep.
        schemas: Names of schemas to keep although no operation refers to them. The corrections
            refer to them; a missing one is left to the corrections to name.
        recorded: SHA-256 of what `source` was cut from, where it is a slice itself.
        others: Further operations of data events, which the slice only names.

    Raises:
        RegenerationError: The description is not OpenAPI 3, lacks one of the operations, or has
            something in them that cannot be used; names the file and the place.
    """
    return _Slicer(source, operations).run(schemas, recorded or source.sha256, list(others))


def recorded_source(slice_: Source) -> str:
    """Returns the SHA-256 of what a slice was cut from.

    Raises:
        RegenerationError: The slice was edited since. Most of what can be edited in it would
            change nothing, since the corrections level it, and so stay unseen.
    """
    info = slice_.content.get("info")
    record = info.get("x-source") if isinstance(info, dict) else None
    source = record.get("sha256") if isinstance(record, dict) else None
    if (
        isinstance(source, str)
        and _SHA256.fullmatch(source)
        and record == {"sha256": source, "slice-sha256": _digest(slice_.content)}
    ):
        return source
    raise RegenerationError(
        f"{slice_.name}: #/info/x-source: the file is not the slice that was written; "
        "regenerate from the full description"
    )


class _Slicer:
    """One pass over one description; holds the references that are still to follow."""

    def __init__(self, source: Source, operations: Iterable[Operation]) -> None:
        self._file = source.name
        self._root = source.content
        self._operations = tuple(operations)
        self._pending: list[str] = []
        self._nodes = 0

    def run(self, schemas: Iterable[str], recorded: str, others: list[str]) -> Json:
        openapi = self._root.get("openapi")
        if not (isinstance(openapi, str) and _OPENAPI.fullmatch(openapi)):
            what = "Swagger 2" if "swagger" in self._root else _shown(openapi)
            raise self._error(
                "#/openapi", f"expected an OpenAPI 3.0 or 3.1 description, not {what}"
            )
        info = self._mapping(self._root.get("info"), "#/info")
        at = "#/info/version"
        if isinstance(info.get("version"), int | float):
            raise self._error(at, f"expected text, not the number {info['version']!r}; quote it")
        version = self._word(info.get("version"), _VERSION, at, "an API version")
        paths = self._paths()
        components = self._components(schemas)
        kept = {
            "openapi": openapi if openapi.startswith("3.0.") else "3.0.3",
            "info": {"title": "Intercom API", "version": version},
            "servers": self._servers(),
            "security": self._security(),
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": self._security_schemes(),
            },
        }
        if others:
            kept[OTHERS] = others
        digest = _digest(kept)
        kept["info"]["x-source"] = {"sha256": recorded, "slice-sha256": digest}
        return kept

    # Operations.

    def _paths(self) -> Json:
        paths = self._mapping(self._root.get("paths"), "#/paths")
        kept: Json = {}
        places = {each.path: f"#/paths/{_escape(each.path)}" for each in self._operations}
        items: dict[str, Json] = {}
        for path in places:
            items[path], places[path] = self._resolved(paths.get(path, {}), places[path])
        absent = [str(each) for each in self._operations if each.method not in items[each.path]]
        if len(absent) == len(self._operations):
            raise self._error(
                "#/paths", f"no data-events operations: neither {' nor '.join(places)}"
            )
        if absent:
            raise self._error("#/paths", f"lacks the operation {' and '.join(absent)}")
        for path, method in ((each.path, each.method) for each in self._operations):
            at = places[path]
            operation = self._operation(items[path][method], f"{at}/{method}")
            shared = self._list(items[path].get("parameters", []), f"{at}/parameters")
            for index, node in enumerate(shared):
                operation["parameters"].append(self._parameter(node, f"{at}/parameters/{index}"))
            kept.setdefault(path, {})[method] = operation
        return kept

    def _operation(self, node: object, at: str) -> Json:
        node = self._mapping(node, at)
        tags = self._list(node.get("tags", []), f"{at}/tags")
        kept: Json = {
            "tags": [self._word(tag, _TAG, f"{at}/tags", "a tag") for tag in tags],
            "operationId": self._word(
                node.get("operationId"), _NAME, f"{at}/operationId", "an operationId"
            ),
            "parameters": [
                self._parameter(parameter, f"{at}/parameters/{index}")
                for index, parameter in enumerate(
                    self._list(node.get("parameters", []), f"{at}/parameters")
                )
            ],
        }
        if "requestBody" in node:
            body, place = self._resolved(node["requestBody"], f"{at}/requestBody")
            kept["requestBody"] = {
                **({"required": True} if body.get("required") is True else {}),
                "content": self._content(body.get("content"), f"{place}/content"),
            }
        responses = self._mapping(node.get("responses"), f"{at}/responses")
        kept["responses"] = {
            self._word(str(status), _STATUS, f"{at}/responses", "a status"): self._response(
                response, f"{at}/responses/{status}"
            )
            for status, response in responses.items()
        }
        return kept

    def _parameter(self, node: object, at: str) -> Json:
        node, at = self._resolved(node, at)
        kept: Json = {
            "name": self._word(node.get("name"), _NAME, f"{at}/name", "a parameter's name"),
            "in": self._word(node.get("in"), _NAME, f"{at}/in", "a parameter's place"),
        }
        if node.get("required") is True:
            kept["required"] = True
        if isinstance(node.get("style"), str):
            kept["style"] = self._word(node["style"], _NAME, f"{at}/style", "a style")
        if isinstance(node.get("explode"), bool):
            kept["explode"] = node["explode"]
        kept["schema"] = self._schema(node.get("schema", {}), f"{at}/schema")
        return kept

    def _response(self, node: object, at: str) -> Json:
        node, at = self._resolved(node, at)
        kept: Json = {"description": ""}
        if node.get("content"):
            kept["content"] = self._content(node["content"], f"{at}/content")
        return kept

    def _content(self, node: object, at: str) -> Json:
        return {
            self._word(media, _MEDIA_TYPE, at, "a media type"): {
                "schema": self._schema(
                    self._mapping(value, f"{at}/{_escape(str(media))}").get("schema", {}),
                    f"{at}/{_escape(str(media))}/schema",
                )
            }
            for media, value in self._mapping(node, at).items()
        }

    # Schemas.

    def _schema(self, node: object, at: str) -> Json:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self._error(at, f"the data-events part has more than {_MAX_NODES:,} schemas")
        node = self._mapping(node, at)
        if "$ref" in node:
            return {"$ref": self._refer(node["$ref"], f"{at}/$ref")}
        kept: Json = {}
        if "type" in node:
            kept.update(self._type(node["type"], f"{at}/type"))
        if "format" in node:
            kept["format"] = self._word(node["format"], _NAME, f"{at}/format", "a format")
        if "enum" in node or "const" in node:
            kept["enum"] = self._enum(node.get("enum", [node.get("const")]), f"{at}/enum")
        for keyword in _PLAIN_KEYWORDS:
            value = node.get(keyword)
            if isinstance(value, bool | int | float):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self._error(f"{at}/{keyword}", f"{value!r} is not a finite number")
                kept[keyword] = value
        if "properties" in node:
            properties = self._mapping(node["properties"], f"{at}/properties")
            kept["properties"] = {
                self._word(name, _NAME, f"{at}/properties", "a property"): self._schema(
                    value, f"{at}/properties/{name}"
                )
                for name, value in properties.items()
            }
        if node.get("required"):
            kept["required"] = [
                self._word(name, _NAME, f"{at}/required", "a property")
                for name in self._list(node["required"], f"{at}/required")
            ]
        for keyword in ("items", "not"):
            if keyword in node:
                kept[keyword] = self._schema(node[keyword], f"{at}/{keyword}")
        if isinstance(node.get("additionalProperties"), bool):
            kept["additionalProperties"] = node["additionalProperties"]
        elif "additionalProperties" in node:
            kept["additionalProperties"] = self._schema(
                node["additionalProperties"], f"{at}/additionalProperties"
            )
        for keyword in ("oneOf", "anyOf", "allOf"):
            if keyword in node:
                values = self._list(node[keyword], f"{at}/{keyword}")
                kept[keyword] = [
                    self._schema(value, f"{at}/{keyword}/{index}")
                    for index, value in enumerate(values)
                    if keyword == "allOf" or not _is_null(value)
                ]
                if len(kept[keyword]) < len(values):
                    # OpenAPI 3.1's "this or null" in the words of 3.0.
                    kept["nullable"] = True
                    if len(kept[keyword]) == 1 and "$ref" not in kept[keyword][0]:
                        kept = kept.pop(keyword)[0] | kept
        return kept

    def _type(self, node: object, at: str) -> Json:
        """A type; OpenAPI 3.1's lists of types in the words of 3.0, which the corrections speak."""
        names = node if isinstance(node, list) else [node]
        for name in names:
            if not (isinstance(name, str) and name in _TYPES):
                raise self._error(at, f"{_shown(name)} is not a JSON type")
        kept: Json = {"nullable": True} if "null" in names else {}
        named = [name for name in names if name != "null"]
        if len(named) == 1:
            return {"type": named[0], **kept}
        return {"anyOf": [{"type": name} for name in named], **kept} if named else kept

    def _enum(self, node: object, at: str) -> list[str | int | bool | None]:
        values = self._list(node, at)
        for value in values:
            # A float is a version that lost its quotes: 2.10 would be 2.1 from here on.
            if isinstance(value, float) or not isinstance(value, str | int | None):
                raise self._error(
                    at,
                    f"{_shown(value)} is not a string, an integer, a boolean or null; "
                    "if it is a version, quote it",
                )
            if isinstance(value, str) and not value.isprintable():
                raise self._error(at, f"{_shown(value)} has a control character in it")
        return values

    # References.

    def _components(self, schemas: Iterable[str]) -> Json:
        kept: Json = {}
        held = self._mapping(
            self._mapping(self._root.get("components", {}), "#/components").get("schemas", {}),
            "#/components/schemas",
        )
        for name in schemas:
            if name in held:
                self._pending.append(name)
        while self._pending:
            name = self._pending.pop()
            if name not in kept:
                kept[name] = self._schema(held[name], f"#/components/schemas/{name}")
        self._check_no_cycle(kept)
        return dict(sorted(kept.items()))

    def _refer(self, reference: object, at: str) -> str:
        """Notes that a schema is needed and returns the reference to it."""
        prefix = "#/components/schemas/"
        if not (isinstance(reference, str) and reference.startswith(prefix)):
            raise self._error(at, f"{_shown(reference)} does not point to {prefix}…")
        name = self._word(reference.removeprefix(prefix), _NAME, at, "a schema's name")
        self._target(reference, at)
        self._pending.append(name)
        return reference

    def _check_no_cycle(self, kept: Json) -> None:
        """A schema may hold itself in a property, but not be made of itself."""
        made_of = {name: list(_made_of(schema)) for name, schema in kept.items()}
        try:
            TopologicalSorter(made_of).prepare()
        except CycleError as error:
            cycle = error.args[1]
            raise self._error(
                f"#/components/schemas/{cycle[0]}", f"a cycle of $refs: {' → '.join(cycle)}"
            ) from error

    def _resolved(self, node: object, at: str) -> tuple[Json, str]:
        """Follows a reference of a parameter, body or response; the slice writes those in place."""
        seen: list[str] = []
        while isinstance(node, dict) and "$ref" in node:
            reference = node["$ref"]
            if reference in seen:
                raise self._error(at, f"a cycle of $refs: {' → '.join([*seen, reference])}")
            node = self._target(reference, f"{at}/$ref")
            seen.append(reference)
            at = reference
        return self._mapping(node, at), at

    def _target(self, reference: object, at: str) -> object:
        if not (isinstance(reference, str) and reference.startswith("#/")):
            raise self._error(at, f"{_shown(reference)} does not point into this document")
        node: object = self._root
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not (isinstance(node, dict) and key in node):
                raise self._error(at, f"{_shown(reference)} points to nothing")
            node = node[key]
        return node

    # The rest.

    def _servers(self) -> list[Json]:
        servers = self._list(self._root.get("servers", []), "#/servers")
        return [
            {
                "url": self._word(
                    self._mapping(server, f"#/servers/{index}").get("url"),
                    _SERVER,
                    f"#/servers/{index}/url",
                    "an https address",
                )
            }
            for index, server in enumerate(servers)
        ]

    def _security(self) -> list[Json]:
        return [
            {
                self._word(name, _NAME, f"#/security/{index}", "a security scheme"): []
                for name in self._mapping(requirement, f"#/security/{index}")
            }
            for index, requirement in enumerate(
                self._list(self._root.get("security", []), "#/security")
            )
        ]

    def _security_schemes(self) -> Json:
        kept: Json = {}
        for requirement in self._security():
            for name in requirement:
                at = f"#/components/securitySchemes/{name}"
                node = self._mapping(self._target(at, "#/security"), at)
                kept[name] = {
                    key: self._word(node[key], _NAME, f"{at}/{key}", "a word")
                    for key in ("type", "scheme", "in", "name", "bearerFormat")
                    if key in node
                }
        return kept

    # Checks.

    def _mapping(self, node: object, at: str) -> Json:
        return self._of_type(node, at, dict, "a mapping")

    def _list(self, node: object, at: str) -> list[Any]:
        return self._of_type(node, at, list, "a list")

    def _of_type(self, node: object, at: str, kind: type[T], what: str) -> T:
        if not isinstance(node, kind):
            raise self._error(at, f"expected {what}, not {_shown(node)}")
        return node

    def _word(self, value: object, pattern: re.Pattern[str], at: str, what: str) -> str:
        if not isinstance(value, str):
            raise self._error(at, f"expected {what}, not {_shown(value)}")
        if not pattern.fullmatch(value):
            raise self._error(at, f"{_shown(value)} cannot be used as {what}")
        return value

    def _error(self, at: str, what: str) -> RegenerationError:
        return RegenerationError(f"{self._file}: {at}: {what}")


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _made_of(schema: Json) -> Iterator[str]:
    """The names of the schemas that a schema is, or is a combination of."""
    if "$ref" in schema:
        yield schema["$ref"].rsplit("/", 1)[-1]
    for keyword in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(keyword, ()):
            yield from _made_of(part)


def _digest(slice_: Json) -> str:
    info = {key: value for key, value in slice_["info"].items() if key != "x-source"}
    return hashlib.sha256(json.dumps({**slice_, "info": info}).encode()).hexdigest()


def _is_null(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
