"""Telling a person what a regeneration changed: in the API, and in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import api_diff

Json = dict[str, Any]
#: What a heading of the report covers, as a set of lines; the report is the difference of two.
Facts = dict[str, set[str]]

_VERSIONS = "Versions"
_METHODS = ("get", "post")


def facts(document: Json | None) -> Facts:
    """Returns what there is to say of a slice; none: nothing yet."""
    found: Facts = {_VERSIONS: set(), "Operations": set(), "Parameters": set(), "Schemas": set()}
    if document is None:
        return found
    schemas = document["components"]["schemas"]
    found[_VERSIONS] = {
        f"described: {document['info']['version']}",
        *(
            f"accepted: {version}"
            for version in schemas.get("intercom_version", {}).get("enum", ())
        ),
    }
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method not in item:
                continue
            name = f"{method.upper()} {path}"
            answers = ", ".join(sorted(item[method]["responses"]))
            found["Operations"].add(f"{name} ({item[method]['operationId']}): {answers}")
            found["Parameters"].update(
                f"{name}: {parameter['name']} in {parameter['in']}: {_type(parameter['schema'])}"
                for parameter in item[method]["parameters"]
            )
    for name, schema in schemas.items():
        if name != "intercom_version":
            found["Schemas"].update(_fields(name, schema))
    return found


def changes(before: Facts, after: Facts, python: list[api_diff.Change], *, rewritten: bool) -> str:
    """Returns the report: one line for each fact that went (-) or came (+), below its heading.

    It ends with what changed in Python. `rewritten` says that the generated package is another
    one, whatever the facts say.
    """
    # The versions have been said.
    python = [change for change in python if not change.name.endswith(".IntercomVersion")]
    lines: list[str] = []
    changed = [heading for heading in after if before[heading] != after[heading]]
    for heading in changed:
        lines.append(f"{heading}:")
        gone, new = before[heading] - after[heading], after[heading] - before[heading]
        # A fact that changed has its two lines next to each other.
        marked = sorted([(fact, "-") for fact in gone] + [(fact, "+") for fact in new], key=_order)
        lines += [f"  {sign} {fact}" for fact, sign in marked]
    if python:
        lines.append("Python:")
        lines += [f"  {line}" for line in api_diff.table(python)]
    elif not changed:
        return "Nothing but the order or the form changed." if rewritten else "Nothing changed."
    elif changed == [_VERSIONS]:
        lines.append("Only the versions changed.")
    else:
        lines.append("The corrections level this: no Python name or signature changed.")
    return "\n".join(lines)


def _order(marked: tuple[str, str]) -> tuple[str, int, str]:
    fact, sign = marked
    return (fact.partition(": ")[0], "-+".index(sign), fact)


def _fields(name: str, schema: Json) -> Iterator[str]:
    yield f"{name}: {_type(schema)}"
    required = schema.get("required", ())
    for field, value in schema.get("properties", {}).items():
        mark = ", required" if field in required else ""
        yield f"{name}.{field}: {_type(value)}{mark}"
        for part in (value, value.get("items", {})):
            if part.get("properties"):
                yield from _fields(f"{name}.{field}", part)


def _type(schema: Json) -> str:
    """A schema in a few words, complete enough that every change of it shows."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    words = [str(schema.get("type", "any"))]
    for keyword, value in schema.items():
        if keyword in ("type", "properties", "required"):
            continue
        if keyword in ("oneOf", "anyOf", "allOf"):
            value = "[" + "; ".join(_alternative(part) for part in value) + "]"
        elif isinstance(value, dict):
            value = _type(value)
        words.append(f"{keyword} {value}")
    return ", ".join(words)


def _alternative(schema: Json) -> str:
    names = ", ".join(schema.get("properties", ()))
    required = ", ".join(schema.get("required", ()))
    return " ".join(
        part
        for part in (
            _type(schema),
            f"of {names}" * bool(names),
            f"needs {required}" * bool(required),
        )
        if part
    )
