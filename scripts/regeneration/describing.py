"""Describes differences of two slices in words, or by a JSON pointer if there are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from client_parts import sentence
from regeneration import ABSENT
from regeneration.comparing import Difference

#: The longest value, in characters; longer ones are cut. Next to a pointer of this length, a third
#: of it.
LONGEST = 60
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def describe(difference: Difference) -> str:
    """Returns a description of a difference of two slices, on one printable line."""
    path = list(difference.path)
    match path:
        case ["components", "schemas", name, *rest]:
            said = _schema(difference, name, rest)
        case ["paths", name, method, *rest] if method in _METHODS:
            said = _operation(difference, f"{method.upper()} {name}", rest)
        case ["paths", name, *rest]:
            said = _operation(difference, name, rest)
        case _:
            said = _top(difference, path)
    if said is None:
        longest = LONGEST if len(difference.pointer) < LONGEST else LONGEST // 3
        was, now = shown(difference.before, longest), shown(difference.after, longest)
        said = f"{difference.pointer}: {was} → {now}"
    return sentence(said)


def shown(value: object, longest: int = LONGEST) -> str:
    """Returns a value as JSON on one printable line, cut to `longest` characters."""
    text = "absent" if value is ABSENT else sentence(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _top(difference: Difference, path: list[str]) -> str | None:
    match path:
        case ["servers", url]:
            return f"server {url} {_came(difference)}"
        case ["security", scheme]:
            return f"authentication by {scheme} {_came(difference)}"
        case ["x-other-operations", name]:
            return f"{name}, which the client does not offer, {_came(difference)}"
    return None


def _operation(difference: Difference, operation: str, rest: list[str]) -> str | None:
    was, now, came = difference.before, difference.after, _came(difference)
    match rest:
        case []:
            return f"{operation} {came}"
        case ["parameters", name]:
            return _parameter(difference, operation, name)
        case ["parameters", name, "required"]:
            return f"{operation}: {_called(name)} {_needed(now is True)}"
        case ["parameters", name, "schema", *inner]:
            return _schema(difference, f"{operation}: {_called(name)}", inner)
        case ["parameters", name, keyword]:
            return _keyword(difference, f"{operation}: {_called(name)}", keyword)
        case ["requestBody"]:
            return f"{operation}: the body {came}"
        case ["requestBody", "required"]:
            return f"{operation}: the body {_needed(now is True)}"
        case ["requestBody", "content", media, "schema", *inner]:
            return _schema(difference, f"{operation}: the body ({media})", inner)
        case ["requestBody", "x-other-media-types", *names]:
            return f"{operation}: the body as {', '.join(names or _either(difference))} {came}"
        case ["responses", status, "x-other-media-types", *names]:
            offered = ", ".join(names or _either(difference))
            return f"{operation}: answer {status} as {offered} {came}"
        case ["responses", status, "content"] if isinstance(_either(difference), dict):
            return f"{operation}: the body of answer {status} ({_bodies(difference)}) {came}"
        case ["responses", status]:
            return f"{operation}: answer {status} {came}"
        case ["responses", status, "content", media, "schema", *inner]:
            return _schema(difference, f"{operation}: answer {status} ({media})", inner)
        case ["servers" | "security", name]:
            return f"{operation}: {rest[0]}: {name} {came}"
        case ["x-unread", keyword]:
            return _keyword(difference, operation, keyword)
        case ["operationId"]:
            return f"{operation}: operationId {shown(was)} → {shown(now)} (the client uses its own)"
        case ["tags"] if isinstance(_either(difference), list):
            return f"{operation}: tag {', '.join(map(shown, _either(difference)))} {came}"
        case ["tags", _]:
            return f"{operation}: tag {shown(_either(difference))} {came}"
        case ["responses", status, keyword]:
            return _keyword(difference, f"{operation}: answer {status}", keyword)
        case ["requestBody", keyword]:
            return _keyword(difference, f"{operation}: the body", keyword)
        case [keyword]:
            return _keyword(difference, operation, keyword)
    return None


def _keyword(difference: Difference, place: str, keyword: str) -> str:
    """Describes a change of a keyword of an operation, a parameter or a schema."""
    either = _either(difference)
    if keyword == "deprecated":
        words = "deprecated now" if difference.after is True else "no longer deprecated"
        return f"{place} is {words}"
    if keyword == "x-unread" and isinstance(either, dict):
        # A slice records keywords that the pipeline does not use.
        gone = difference.after is ABSENT
        changes = [
            (name, value, ABSENT) if gone else (name, ABSENT, value)
            for name, value in either.items()
        ]
    else:
        changes = [(keyword, difference.before, difference.after)]
    said = [f"{name} {shown(was)} → {shown(now)}" for name, was, now in changes]
    return f"{place}: {', '.join(said)}"


def _bodies(difference: Difference) -> str:
    return ", ".join(
        f"{media}: {_kind(value.get('schema') if isinstance(value, dict) else None)}"
        for media, value in _either(difference).items()
    )


def _parameter(difference: Difference, operation: str, name: str) -> str | None:
    value = _either(difference)
    if difference.after is ABSENT:
        return f"{operation}: {_called(name)} is gone"
    if difference.before is not ABSENT or not isinstance(value, dict):
        return None
    words = [_kind(value.get("schema")), *(["required"] if value.get("required") else [])]
    return f"{operation}: new {_called(name)}, {', '.join(words)}"


def _schema(difference: Difference, owner: str, rest: list[str]) -> str | None:
    """Describes a difference inside a schema, possibly inside one of its fields."""
    was, now, either = difference.before, difference.after, _either(difference)
    field = None
    while rest:
        match rest:
            case ["properties", name, *rest]:
                owner, field = f"{owner}.{field}" if field else owner, name
                continue
            case ["items", *rest]:
                step = "[]"
            case ["additionalProperties", *rest]:
                step = ".*"
            case ["allOf" | "anyOf" | "oneOf" as keyword, index, *rest]:
                step = f" ({keyword} {index})"
            case _:
                break
        if field:
            owner, field = f"{owner}.{field}", None
        owner += step
    place = f"{owner}: field `{field}`" if field else owner
    inner = f"{owner}.{field}" if field else owner
    match rest:
        case []:
            if was is not ABSENT and now is not ABSENT:
                return f"{place}: {_kind(was)} → {_kind(now)}"
            if now is ABSENT:
                return f"{place} is gone"
            return f"{owner}: new {f'field `{field}`' if field else 'schema'}, {_kind(now)}"
        case ["required", _] if isinstance(either, str):
            return f"{inner}: field `{either}` {_needed(was is ABSENT)}"
        case ["required"] if isinstance(either, list) and ABSENT in (was, now):
            are = _needed(was is ABSENT, several=len(either) > 1)
            return f"{inner}: {_fields(either)} {are}"
        case ["properties"] if isinstance(either, dict) and either and ABSENT in (was, now):
            are = "are" if len(either) > 1 else "is"
            return f"{inner}: {_fields(either)} {are} {'new' if was is ABSENT else 'gone'}"
        case ["type" | "format" | "$ref"] if _word(was) and _word(now):
            return f"{place}: {rest[0]} {shown(was)} → {shown(now)}"
        case ["nullable"]:
            return f"{place} can {'be null now' if now is True else 'no longer be null'}"
        case ["enum", _]:
            return f"{place}: value {shown(either)} {_came(difference)}"
        case [keyword] if keyword not in ("properties", "required"):
            return _keyword(difference, place, keyword)
        case ["x-unread", keyword]:
            return _keyword(difference, place, keyword)
    return None


def _fields(names: Iterable[str]) -> str:
    listed = [f"`{each}`" for each in names]
    return f"{'fields' if len(listed) > 1 else 'field'} {', '.join(listed)}"


def _came(difference: Difference) -> str:
    if difference.before is ABSENT:
        return "is new"
    return "is gone" if difference.after is ABSENT else "changed"


def _needed(required: bool, *, several: bool = False) -> str:
    are = "are" if several else "is"
    return f"{are} required now" if required else f"{are} no longer required"


def _called(name: str) -> str:
    """Returns a parameter in words; its identity is its place and its name."""
    place, _, rest = name.partition(" ")
    return f"{place} parameter `{rest}`"


def _either(difference: Difference) -> Any:
    return difference.before if difference.after is ABSENT else difference.after


def _word(value: object) -> bool:
    return value is ABSENT or isinstance(value, str)


def _kind(schema: object) -> str:
    """Returns a schema in a word or two."""
    if not isinstance(schema, dict):
        return "nothing" if schema is False else "anything"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"array of {_kind(schema.get('items'))}"
    if "format" in schema:
        kind = f"{kind} ({schema['format']})"
    return f"{kind}, one of {shown(schema['enum'])}" if "enum" in schema else kind
