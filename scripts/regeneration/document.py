"""Reads untrusted OpenAPI descriptions, and writes our own documents.

YAML is read as a superset of JSON only: no tag is executed, keys are strings, and plain dates and
words such as `yes` and `on` stay strings. So a description means the same as YAML and as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from regeneration import RegenerationError, downloading
from regeneration.downloading import MAX_BYTES

#: Intercom's descriptions have 17 levels. Deeper ones overflow the stack in later steps.
_MAX_DEPTH = 64
_TOO_DEEP = f"must not be nested more than {_MAX_DEPTH} levels deep"
#: Intercom's descriptions have about 60,000 values. YAML aliases can expand a small file to
#: billions.
_MAX_VALUES = 1_000_000
_TOO_MANY = f"must not have more than {_MAX_VALUES:,} values"

_TAG = "tag:yaml.org,2002:"
#: The types of plain scalars, tried in order: an integer also matches the pattern of floats.
_PLAIN: dict[str, tuple[re.Pattern[str], Callable[[str], object]]] = {
    f"{_TAG}bool": (
        re.compile("true|True|TRUE|false|False|FALSE"),
        lambda text: text.lower() == "true",
    ),
    f"{_TAG}null": (re.compile("~|null|Null|NULL|"), lambda _: None),
    f"{_TAG}int": (re.compile("[-+]?[0-9]+"), int),
    f"{_TAG}float": (
        re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?"),
        float,
    ),
}
_LIKE_A_NUMBER = re.compile(r"[-+]?[.0-9]")
#: The tokens of JSON except for numbers, literals and commas.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:]')
#: Types of values, as messages name them.
_KINDS = {
    dict: "a mapping",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    type(None): "null",
}
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _BlockDumper(yaml.SafeDumper):
    """Writes YAML in the style of handwritten files: indented lists, literal blocks, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  # PyYAML's signature
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if not all(line.isprintable() for line in text.split("\n")):
        # YAML reads some unescaped control characters back as line breaks.
        style = '"'
    elif _LIKE_A_NUMBER.match(text):
        # PyYAML does not quote 08, 1e3 and 0o14, which other readers take for numbers.
        style = "'"
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_BlockDumper.add_representer(str, _represent_text)


class _DuplicateKeyError(Exception):
    """A key occurs twice in a mapping: readers differ in which of the values they take.

    Attributes:
        found: The key, its line and its column; None if the reader does not know them.
    """

    def __init__(self, found: tuple[str, int, int] | None = None) -> None:
        super().__init__(found)
        self.found = found


@dataclass(frozen=True)
class Source:
    """A document: its path or address, the SHA-256 of its bytes, and its content."""

    name: str
    sha256: str
    content: dict[str, Any]


def read(location: str) -> Source:
    """Reads a YAML or JSON mapping from a path or an address.

    Raises:
        RegenerationError: The document cannot be read, is too large, or is not YAML or JSON.
    """
    if downloading.is_address(location):
        data = downloading.download(location)
        # Messages and the slice name the document, and the address can hold a password.
        location = downloading.shown(location)
    else:
        data = _read_file(location)
    content = _parse(data, location)
    if not isinstance(content, dict):
        kind = "an empty document" if content is None else _KINDS[type(content)]
        raise RegenerationError(f"{location}: must be a mapping at its top level, not {kind}")
    return Source(location, hashlib.sha256(data).hexdigest(), content)


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RegenerationError(
            f"{path}: cannot be read: {_reason(error)}; check the path and its permissions"
        ) from error
    if len(data) > MAX_BYTES:
        raise RegenerationError(
            f"{path}: must not be larger than {MAX_BYTES:,} bytes; check the path"
        )
    return data


def dump(content: dict[str, Any], heading: str) -> bytes:
    """Returns a document as YAML below a comment; the bytes are the same on every machine."""
    text = yaml.dump(
        content, Dumper=_BlockDumper, sort_keys=False, width=100, allow_unicode=True, indent=2
    )
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    return f"{comment}{text}".encode()


def _parse(data: bytes | bytearray, location: str) -> object:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegenerationError(
            f"{location}: must be YAML or JSON in UTF-8, but byte {error.start} is not UTF-8; "
            "save it as UTF-8"
        ) from error
    try:
        if text.lstrip().startswith("{"):
            if sum(map(text.count, ",[{")) > _MAX_VALUES:
                raise RegenerationError(f"{location}: {_TOO_MANY}")
            content = json.loads(text, object_pairs_hook=_unique)
            _check_depth(content, location)
            return content
        return _compose(text)
    except _DuplicateKeyError as error:
        key, line, column = error.found or _duplicate_in_json(text)
        shown = repr(key) if len(key) <= 60 else f"{key[:59]!r}…"
        raise RegenerationError(
            f"{location}:{line}:{column}: the keys of a mapping must be unique, but {shown} occurs "
            "twice; remove one of them"
        ) from error
    except json.JSONDecodeError as error:
        raise RegenerationError(
            f"{location}:{error.lineno}:{error.colno}: cannot be read as JSON: {error.msg}"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RegenerationError(
            f"{location}{place}: cannot be read as YAML: {error.problem}"
        ) from error
    except yaml.YAMLError as error:
        raise RegenerationError(f"{location}: cannot be read as YAML: {_reason(error)}") from error
    except (RecursionError, ValueError) as error:
        raise RegenerationError(f"{location}: cannot be parsed: {_reason(error)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _DuplicateKeyError
    return content


def _duplicate_in_json(text: str) -> tuple[str, int, int]:
    """Returns the first duplicate key, its line and its column, which the decoder does not know."""
    unfinished: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _JSON_TOKEN.finditer(text):
        match token[0][0]:
            case "{" | "[":
                unfinished.append(set())
            case "}" | "]":
                unfinished.pop()
            case ":" if last is not None:
                key = json.loads(last[0])
                if key in unfinished[-1]:
                    start = last.start()
                    line = text.count("\n", 0, start) + 1
                    return key, line, start - text.rfind("\n", 0, start)
                unfinished[-1].add(key)
        last = token
    raise AssertionError("the decoder found a duplicate key")


def _check_depth(content: object, location: str) -> None:
    level = [content]
    for _ in range(_MAX_DEPTH + 1):
        values = [
            value.values() if isinstance(value, dict) else value
            for value in level
            if isinstance(value, dict | list)
        ]
        level = [child for value in values for child in value]
        if not level:
            return
    raise RegenerationError(f"{location}: {_TOO_DEEP}")


@dataclass
class _Open:
    """A YAML list or mapping whose end has not been read yet."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    size: int = 1
    key: list[str] = field(default_factory=list)

    def add(self, value: object, size: int, event: yaml.Event) -> None:
        self.size += size
        if self.size > _MAX_VALUES:
            raise _invalid(f"{_TOO_MANY}, counting those of aliases", event)
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key:
            self.value[self.key.pop()] = value
        else:
            # The text itself: the key `200` is the string "200", as in JSON.
            key = event.value if isinstance(event, yaml.ScalarEvent) else value
            if not isinstance(key, str):
                raise _invalid(f"a key must be a string, not {_KINDS[type(key)]}", event)
            if key in self.value:
                mark = event.start_mark
                raise _DuplicateKeyError((key, mark.line + 1, mark.column + 1))
            self.key.append(key)


def _compose(text: str) -> object:
    """Builds the value of a YAML document from PyYAML's events.

    PyYAML's own loaders are not used: the fast one overflows the stack on deeply nested YAML, and
    both build values that contain themselves.
    """
    result: object = None
    documents = 0
    unfinished: list[_Open] = []
    anchors: dict[str, tuple[object, int]] = {}
    for event in yaml.parse(text, Loader=_Events):
        match event:
            case yaml.ScalarEvent(anchor=anchor):
                value, size = _scalar(event), 1
            case yaml.AliasEvent(anchor=name):
                if name not in anchors:
                    raise _invalid(
                        f"the alias {name!r} must refer to an earlier anchor that does not contain "
                        "the alias itself",
                        event,
                    )
                (value, size), anchor = anchors[name], None
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                mapping = isinstance(event, yaml.MappingStartEvent)
                if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
                    raise _invalid(_unknown_tag(event), event)
                if len(unfinished) == _MAX_DEPTH:
                    raise _invalid(_TOO_DEEP, event)
                # An anchor is unknown until its value ends, so that no value contains itself.
                anchors.pop(event.anchor, None)
                unfinished.append(_Open({} if mapping else [], event.anchor))
                continue
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = unfinished.pop()
                value, size, anchor = done.value, done.size, done.anchor
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise _invalid("must contain only one document; remove the others", event)
                continue
            case _:
                continue
        if anchor is not None:
            anchors[anchor] = value, size
        if unfinished:
            unfinished[-1].add(value, size, event)
        else:
            result = value
    return result


def _scalar(event: yaml.ScalarEvent) -> object:
    text = event.value
    if event.tag in (None, "!", f"{_TAG}str"):
        if event.tag is None and event.implicit[0]:
            for pattern, convert in _PLAIN.values():
                if pattern.fullmatch(text):
                    return convert(text)
        return text
    pattern, convert = _PLAIN.get(event.tag, (None, None))
    if pattern is None or convert is None:
        raise _invalid(_unknown_tag(event), event)
    if not pattern.fullmatch(text):
        raise _invalid(
            f"{text!r} is not a valid value for the tag {event.tag!r}; remove the tag", event
        )
    return convert(text)


def _unknown_tag(event: yaml.NodeEvent) -> str:
    return f"must not have the tag {event.tag!r}; remove it"


def _invalid(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _reason(error: Exception) -> str:
    """Returns the first line of an error's message, or the name of its type."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
