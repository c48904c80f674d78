"""Cuts the data-events operations out of Intercom's full description.

A slice has every fact about them, so two equal slices mean that nothing changed. It copies the
keywords that this module reads, records the others in `x-unread`, and drops prose and examples.
Every word of it is checked, because names become Python identifiers and no other text from outside
may reach the code.
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
from regeneration.canonical import digest, is_digest
from regeneration.document import Source
from regeneration.facts import Recorder, TooMuchError, is_harmless
from regeneration.operations import Operation
from regeneration.pointers import escape, keys

Json = dict[str, Any]
#: The key of a slice's list of the data-events operations that the client does not offer.
OTHERS = "x-other-operations"
T = TypeVar("T")

_TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}
#: Keywords whose value is copied if it is a boolean or a finite number.
_PLAIN_KEYWORDS = (
    "nullable",
    "readOnly",
    "writeOnly",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
)
#: Facts that the generator ignores; one that is too long for a slice becomes a record.
_SCHEMA_FACTS = (
    "deprecated",
    "default",
    "pattern",
    "discriminator",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minProperties",
    "maxProperties",
)
_SCHEMA_KEYWORDS = {
    "$ref", "type", "format", "enum", "const", "properties", "required", "items", "not",
    "additionalProperties", "oneOf", "anyOf", "allOf",
}  # fmt: skip
_PARAMETER_FACTS = ("deprecated", "allowReserved", "allowEmptyValue")
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
_JSON = "application/json"
_NAME = re.compile(r"[A-Za-z0-9_$@][A-Za-z0-9_.$@-]*")
_MEDIA_TYPE = re.compile(r"[a-z0-9.*+-]+/[a-z0-9.*+-]+")
_MEDIA_TYPE_PARAMETERS = re.compile(r"(\s*;\s*[A-Za-z0-9-]+=(\"?)[A-Za-z0-9._-]+\2)*\s*")
_SCOPE = re.compile(r"[A-Za-z0-9_.:/-]+")
_STATUS = re.compile(r"[1-5]([0-9][0-9]|XX)|default")
_VERSION = re.compile(r"[0-9]+\.[0-9]+|Preview|Unstable")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPENAPI = re.compile(r"3\.[01]\.[0-9]+")
#: An absolute or relative URL, with variables in braces.
_SERVER = re.compile(r"(https?://)?[A-Za-z0-9.:{}/_-]{1,200}")
_SCHEME = re.compile(r"[A-Za-z0-9_.$@-][A-Za-z0-9_.$@ -]{0,99}")
#: A slice has a few hundred nodes; YAML aliases can expand a small file to billions.
_MAX_NODES = 50_000
#: The longest chain of schemas that consist of each other. Intercom has none; deeper ones would
#: overflow the stack.
_MAX_MADE_OF = 64
#: The limit for upstream's names of operations and tags, which only people read: ours are pinned.
_LONGEST_NAME = 200


def slice_description(
    source: Source,
    operations: Iterable[Operation],
    schemas: Iterable[str],
    recorded: str | None = None,
    others: Iterable[Json] = (),
) -> Json:
    """Returns the data-events part of an OpenAPI description.

    Args:
        source: The description as read.
        operations: The operations to keep.
        schemas: The names of further schemas to keep, which the corrections refer to. `correcting`
            reports a missing one.
        recorded: The SHA-256 of the description that `source` was cut from, if it is a slice.
        others: The records of further data-events operations.

    Raises:
        RegenerationError: The description is not OpenAPI 3, lacks one of the operations, or has an
            invalid part in them; the message names the file and the place.
    """
    return _Slicer(source, operations).run(schemas, recorded or source.sha256, list(others))


def recorded_source(slice_: Source) -> str:
    """Returns the SHA-256 of the description that a slice was cut from.

    Raises:
        RegenerationError: The slice was edited. The corrections hide most edits, so nothing else
            would report them.
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
        f"{slice_.name}: #/info/x-source: the file must be the slice as it was written, not an "
        "edited one; regenerate from the full description"
    )


class _Slicer:
    """One pass over one description, with the references that are still to be followed."""

    def __init__(self, source: Source, operations: Iterable[Operation]) -> None:
        self._file = source.name
        self._root = source.content
        self._operations = tuple(operations)
        self._recorder = Recorder(source.content)
        self._pending: list[str] = []
        self._nodes = 0

    def run(self, schemas: Iterable[str], recorded: str, others: list[Json]) -> Json:
        openapi = self._root.get("openapi")
        if not (isinstance(openapi, str) and _OPENAPI.fullmatch(openapi)):
            what = "not Swagger 2" if "swagger" in self._root else _not(openapi)
            raise self._error("#/openapi", f"must be OpenAPI 3.0 or 3.1, {what}")
        info = self._mapping(self._root.get("info"), "#/info")
        at = "#/info/version"
        if isinstance(info.get("version"), int | float):
            raise self._error(at, f"must be a string, not the number {info['version']!r}; quote it")
        version = self._word(info.get("version"), _VERSION, at, "API version")
        paths = self._paths()
        components = self._components(schemas)
        kept = {
            "openapi": openapi if openapi.startswith("3.0.") else "3.0.3",
            "info": {"title": "Intercom API", "version": version},
            "servers": self._servers(self._root.get("servers", []), "#/servers"),
            "security": self._security(self._root.get("security", []), "#/security"),
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": self._security_schemes(paths),
            },
        }
        known = {"openapi", "info", "servers", "security", "paths", "components", "tags"}
        kept |= self._unread(self._root, known | {"webhooks"}, "#")
        if others:
            kept[OTHERS] = others
        kept["info"]["x-source"] = {"sha256": recorded, "slice-sha256": _digest(kept)}
        return kept

    # Operations.

    def _paths(self) -> Json:
        paths = self._mapping(self._root.get("paths"), "#/paths")
        kept: Json = {}
        places = {each.path: f"#/paths/{escape(each.path)}" for each in self._operations}
        items: dict[str, Json] = {}
        for path in places:
            items[path], places[path] = self._resolved(paths.get(path, {}), places[path])
        absent = [str(each) for each in self._operations if each.method not in items[each.path]]
        if len(absent) == len(self._operations):
            raise self._error(
                "#/paths",
                f"must have data-events operations, at {' or '.join(places)}; pass Intercom's full "
                "description",
            )
        if absent:
            raise self._error(
                "#/paths",
                f"must have the operation {' and '.join(absent)}; pass a description that has it, "
                "or remove it from openapi/operations.yaml",
            )
        for path, method in ((each.path, each.method) for each in self._operations):
            at, item = places[path], items[path]
            # In a slice, each operation has the facts of its path.
            node = self._mapping(item[method], f"{at}/{method}")
            shared = {"servers": item["servers"]} if "servers" in item else {}
            operation = self._operation(shared | node, f"{at}/{method}")
            known = {"parameters", "servers", "$ref"} | _METHODS
            unread = self._unread(item, known, at).get("x-unread", {})
            if unread:
                operation["x-unread"] = unread | operation.get("x-unread", {})
            shared = self._list(item.get("parameters", []), f"{at}/parameters")
            for index, node in enumerate(shared):
                operation["parameters"].append(self._parameter(node, f"{at}/parameters/{index}"))
            kept.setdefault(path, {})[method] = operation
        return kept

    def _operation(self, node: Json, at: str) -> Json:
        kept = self._names(node, at)
        known = {"parameters", "requestBody", "responses", "servers", "security", "deprecated"}
        kept["parameters"] = [
            self._parameter(parameter, f"{at}/parameters/{index}")
            for index, parameter in enumerate(
                self._list(node.get("parameters", []), f"{at}/parameters")
            )
        ]
        if "servers" in node:
            kept["servers"] = self._servers(node["servers"], f"{at}/servers")
        if "security" in node:
            kept["security"] = self._security(node["security"], f"{at}/security")
        if node.get("deprecated") is True:
            kept["deprecated"] = True
        kept |= self._unread(node, known | set(kept), at)
        if "requestBody" in node:
            kept["requestBody"] = self._body(node["requestBody"], f"{at}/requestBody")
        responses = self._mapping(node.get("responses"), f"{at}/responses")
        kept["responses"] = {
            self._word(str(status), _STATUS, f"{at}/responses", "HTTP status"): self._response(
                response, f"{at}/responses/{status}"
            )
            for status, response in responses.items()
        }
        return kept

    def _names(self, node: Json, at: str) -> Json:
        """Returns upstream's names of an operation; only people read them, as ours are pinned."""
        kept: Json = {}
        tags = self._list(node.get("tags", []), f"{at}/tags")
        names = {"tags": tags, "operationId": node.get("operationId")}
        for key, value in names.items():
            for name in value if isinstance(value, list) else [value]:
                if not (
                    name is None
                    or (isinstance(name, str) and name.isprintable() and len(name) <= _LONGEST_NAME)
                ):
                    raise self._error(
                        f"{at}/{key}",
                        "must be a valid name, printable and of at most "
                        f"{_LONGEST_NAME} characters, not {_shown(name)}",
                    )
            if is_harmless(value) and value not in (None, []):
                kept[key] = value
        return kept

    def _body(self, node: object, at: str) -> Json:
        node, at = self._resolved(node, at)
        content = self._content(node, at)
        if _JSON not in content["content"]:
            offered = ", ".join(content["content"]) or "nothing"
            raise self._error(
                f"{at}/content", f"must include {_JSON}, which the client sends, not only {offered}"
            )
        return {
            **({"required": True} if node.get("required") is True else {}),
            **content,
            **self._unread(node, {"required", "content"}, at),
        }

    def _parameter(self, node: object, at: str) -> Json:
        node, at = self._resolved(node, at)
        kept: Json = {
            "name": self._word(node.get("name"), _NAME, f"{at}/name", "parameter name"),
            "in": self._word(node.get("in"), _NAME, f"{at}/in", "parameter location"),
        }
        if node.get("required") is True:
            kept["required"] = True
        if isinstance(node.get("style"), str):
            kept["style"] = self._word(node["style"], _NAME, f"{at}/style", "style")
        if isinstance(node.get("explode"), bool):
            kept["explode"] = node["explode"]
        kept |= {fact: True for fact in _PARAMETER_FACTS if node.get(fact) is True}
        known = {"name", "in", "required", "schema", *_PARAMETER_FACTS}
        kept |= self._unread(node, known | set(kept), at)
        kept["schema"] = self._schema(node.get("schema", {}), f"{at}/schema")
        return kept

    def _response(self, node: object, at: str) -> Json:
        node, at = self._resolved(node, at)
        kept: Json = {"description": ""}
        if node.get("content"):
            kept |= self._content(node, at)
        return kept | self._unread(node, {"content"}, at)

    def _content(self, node: Json, at: str) -> Json:
        """Reads the media types of a body; if JSON is one of them, the others become records."""
        at = f"{at}/content"
        content: dict[str, tuple[Json, str]] = {}
        for media, value in self._mapping(node.get("content"), at).items():
            place = f"{at}/{escape(media)}"
            found = self._mapping(value, place)
            name = self._media_type(media, at)
            if name in content and content[name][0] != found:
                raise self._error(
                    place, f"must be equal to {content[name][1]}, because both are for {name}"
                )
            content[name] = found, place
        # A slice has these records already.
        others = {
            name: record
            for name, record in _recorded(node.get("x-other-media-types"))
            if _MEDIA_TYPE.fullmatch(name)
        }
        if _JSON in content:
            others |= {
                name: digest(self._unread({"value": value}, set(), place))
                for name, (value, place) in content.items()
                if name != _JSON
            }
            content = {_JSON: content[_JSON]}
        return {
            "content": {
                name: {
                    "schema": self._schema(value.get("schema", {}), f"{place}/schema"),
                    **self._unread(value, {"schema"}, place),
                }
                for name, (value, place) in content.items()
            },
            **({"x-other-media-types": dict(sorted(others.items()))} if others else {}),
        }

    def _media_type(self, text: object, at: str) -> str:
        """Returns a media type in lower case, without its parameters, which do not matter here."""
        name, semicolon, parameters = str(text).partition(";")
        if not _MEDIA_TYPE_PARAMETERS.fullmatch(semicolon + parameters):
            raise self._error(at, f"must be a valid media type, not {_shown(text)}")
        return self._word(name.strip(" ").lower(), _MEDIA_TYPE, at, "media type")

    # Unread facts.

    def _unread(self, node: Json, known: set[str], at: str) -> Json:
        try:
            unread = self._recorder.unread(node, known)
        except (TooMuchError, RecursionError) as error:
            raise self._error(at, "the extensions must be small enough to compare") from error
        return {"x-unread": unread} if unread else {}

    # Schemas.

    def _schema(self, node: object, at: str) -> Json:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self._error(at, f"the data-events part must have at most {_MAX_NODES:,} schemas")
        if isinstance(node, bool):
            # OpenAPI 3.0 has no true and false for "any value" and "no value".
            node = {} if node else {"not": {}}
        node = self._mapping(node, at)
        if "$ref" in node:
            reference = self._refer(node["$ref"], f"{at}/$ref")
            return {"$ref": reference, **self._unread(node, {"$ref"}, at)}
        kept: Json = {
            fact: node[fact] for fact in _SCHEMA_FACTS if fact in node and is_harmless(node[fact])
        }
        known = _SCHEMA_KEYWORDS | set(kept)
        if "enum" in node and "const" in node:
            known -= {"const"}
        if "type" in node:
            type_ = self._type(node["type"], f"{at}/type")
            # In OpenAPI 3.0, a list of types is an anyOf.
            known -= {"type"} if "anyOf" in type_ and "anyOf" in node else set()
            kept.update(type_)
        if "format" in node:
            kept["format"] = self._word(node["format"], _NAME, f"{at}/format", "format")
        if "enum" in node or "const" in node:
            kept["enum"] = self._enum(node.get("enum", [node.get("const")]), f"{at}/enum")
            if "type" not in node and "enum" not in node and isinstance(node["const"], str):
                # OpenAPI 3.0 has no constants.
                kept["type"] = "string"
        for keyword in _PLAIN_KEYWORDS:
            value = node.get(keyword)
            if isinstance(value, bool | int | float):
                if isinstance(value, float) and not math.isfinite(value):
                    raise self._error(f"{at}/{keyword}", f"must be a finite number, not {value!r}")
                kept[keyword] = value
                known.add(keyword)
        properties = self._mapping(node.get("properties", {}), f"{at}/properties")
        # These cannot become Python names; a required one is rejected below.
        odd = {name: value for name, value in properties.items() if not _NAME.fullmatch(name)}
        if odd:
            kept |= self._unread({**node, "properties": odd}, known - {"properties"}, at)
        else:
            kept |= self._unread(node, known, at)
        if "properties" in node:
            kept["properties"] = {
                name: self._schema(value, f"{at}/properties/{name}")
                for name, value in properties.items()
                if name not in odd
            }
        if node.get("required"):
            kept["required"] = [
                self._word(name, _NAME, f"{at}/required", "property name")
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
                    # In OpenAPI 3.0, an alternative of null is `nullable`.
                    kept["nullable"] = True
                    if len(kept[keyword]) == 1 and "$ref" not in kept[keyword][0]:
                        kept = _joined(kept.pop(keyword)[0], kept)
        if set(kept) == {"allOf"} and len(kept["allOf"]) == 1:
            # An allOf of one schema is that schema.
            kept = kept["allOf"][0]
        return kept

    def _type(self, node: object, at: str) -> Json:
        """Returns a type in the form of OpenAPI 3.0, which has no lists of types."""
        names = node if isinstance(node, list) else [node]
        for name in names:
            if not (isinstance(name, str) and name in _TYPES):
                raise self._error(at, f"must be a JSON type, not {_shown(name)}")
        kept: Json = {"nullable": True} if "null" in names else {}
        named = [name for name in names if name != "null"]
        if len(named) == 1:
            return {"type": named[0], **kept}
        return {"anyOf": [{"type": name} for name in named], **kept} if named else kept

    def _enum(self, node: object, at: str) -> list[str | int | bool | None]:
        values = self._list(node, at)
        for value in values:
            # A float is a version without quotes: 2.10 would become 2.1.
            if isinstance(value, float) or not isinstance(value, str | int | None):
                raise self._error(
                    at,
                    f"must be a string, an integer, a boolean or null, not {_shown(value)}; "
                    "if it is a version, quote it",
                )
            if isinstance(value, str) and not value.isprintable():
                raise self._error(at, f"must be a printable string, not {_shown(value)}")
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
        """Marks a schema as needed and returns its reference."""
        prefix = "#/components/schemas/"
        if not (isinstance(reference, str) and reference.startswith(prefix)):
            raise self._error(at, f"must point to {prefix}…, not to {_shown(reference)}")
        name = self._word(reference.removeprefix(prefix), _NAME, at, "schema name")
        self._target(reference, at)
        self._pending.append(name)
        return reference

    def _check_no_cycle(self, kept: Json) -> None:
        """Rejects schemas that consist of themselves or of too many; properties may recur."""
        made_of = {name: list(_made_of(schema)) for name, schema in kept.items()}
        try:
            order = list(TopologicalSorter(made_of).static_order())
        except CycleError as error:
            cycle = error.args[1]
            raise self._error(
                f"#/components/schemas/{cycle[0]}",
                f"must not be a cycle of $refs: {' → '.join(cycle)}",
            ) from error
        deep: dict[str, int] = {}
        for name in order:
            deep[name] = 1 + max((deep[part] for part in made_of[name]), default=0)
            if deep[name] > _MAX_MADE_OF:
                raise self._error(
                    f"#/components/schemas/{name}",
                    f"must refer to other schemas at most {_MAX_MADE_OF} levels deep",
                )

    def _resolved(self, node: object, at: str) -> tuple[Json, str]:
        """Follows the reference of a parameter, body or response; a slice has the target itself."""
        seen: list[str] = []
        while isinstance(node, dict) and "$ref" in node:
            reference = node["$ref"]
            if reference in seen:
                raise self._error(
                    at, f"must not be a cycle of $refs: {' → '.join([*seen, reference])}"
                )
            node = self._target(reference, f"{at}/$ref")
            seen.append(reference)
            at = reference
        return self._mapping(node, at), at

    def _target(self, reference: object, at: str) -> object:
        if not (isinstance(reference, str) and reference.startswith("#/")):
            raise self._error(at, f"must point into this document, not to {_shown(reference)}")
        node: object = self._root
        for key in keys(reference):
            if not (isinstance(node, dict) and key in node):
                raise self._error(at, f"must point to an existing part, not to {_shown(reference)}")
            node = node[key]
        return node

    # The rest.

    def _servers(self, node: object, at: str) -> list[Json]:
        kept: list[Json] = []
        for index, each in enumerate(self._list(node, at)):
            place = f"{at}/{index}"
            server = self._mapping(each, place)
            url = self._word(server.get("url"), _SERVER, f"{place}/url", "server address")
            kept.append({"url": url, **self._unread(server, {"url"}, place)})
        return kept

    def _security(self, node: object, at: str) -> list[Json]:
        return [
            {
                self._word(name, _SCHEME, f"{at}/{index}", "security scheme"): [
                    self._word(scope, _SCOPE, f"{at}/{index}/{name}", "scope")
                    for scope in self._list(scopes, f"{at}/{index}/{name}")
                ]
                for name, scopes in self._mapping(requirement, f"{at}/{index}").items()
            }
            for index, requirement in enumerate(self._list(node, at))
        ]

    def _security_schemes(self, paths: Json) -> Json:
        """Returns the security schemes that the operations use."""
        kept: Json = {}
        read = ("type", "scheme", "in", "name", "bearerFormat")
        components = self._mapping(self._root.get("components", {}), "#/components")
        schemes = self._mapping(
            components.get("securitySchemes", {}), "#/components/securitySchemes"
        )
        required = [*self._security(self._root.get("security", []), "#/security")]
        for item in paths.values():
            for operation in item.values():
                required += operation.get("security", ())
        for name in dict.fromkeys(name for requirement in required for name in requirement):
            at = f"#/components/securitySchemes/{escape(name)}"
            node, at = self._resolved(schemes.get(name, {}), at)
            kept[name] = {
                key: self._word(node[key], _NAME, f"{at}/{key}", "name")
                for key in read
                if key in node
            } | self._unread(node, set(read), at)
        return kept

    # Checks.

    def _mapping(self, node: object, at: str) -> Json:
        return self._of_type(node, at, dict, "a mapping")

    def _list(self, node: object, at: str) -> list[Any]:
        return self._of_type(node, at, list, "a list")

    def _of_type(self, node: object, at: str, kind: type[T], what: str) -> T:
        if not isinstance(node, kind):
            raise self._error(at, f"must be {what}, {_not(node)}")
        return node

    def _word(self, value: object, pattern: re.Pattern[str], at: str, what: str) -> str:
        if not (isinstance(value, str) and pattern.fullmatch(value)):
            raise self._error(at, f"must be a valid {what}, {_not(value)}")
        return value

    def _error(self, at: str, what: str) -> RegenerationError:
        return RegenerationError(f"{self._file}: {at}: {what}")


def _made_of(schema: Json) -> Iterator[str]:
    """Yields the names of the schemas that a schema refers to or combines."""
    if "$ref" in schema:
        yield schema["$ref"].rsplit("/", 1)[-1]
    for keyword in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(keyword, ()):
            yield from _made_of(part)


def _joined(inner: Json, outer: Json) -> Json:
    """Merges a schema's only alternative into it."""
    unread = inner.get("x-unread", {}) | outer.get("x-unread", {})
    return inner | outer | ({"x-unread": unread} if unread else {})


def _recorded(records: object) -> Iterator[tuple[str, str]]:
    if isinstance(records, dict):
        for name, record in records.items():
            if is_digest(record):
                yield name, record


def _digest(slice_: Json) -> str:
    info = {key: value for key, value in slice_["info"].items() if key != "x-source"}
    return hashlib.sha256(json.dumps({**slice_, "info": info}).encode()).hexdigest()


def _is_null(schema: object) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "null"


def _not(value: object) -> str:
    return "but is missing" if value is None else f"not {_shown(value)}"


def _shown(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
