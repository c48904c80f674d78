"""Reading OpenAPI descriptions that nobody vouches for, and writing our own documents.

YAML is read by its JSON-compatible core: no tags are executed, no text turns into a date, keys are
text and `yes` or `on` stay words, so that a description means the same as YAML and as JSON.
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

#: Intercom's descriptions nest 17 deep. What is deeper overflows the stacks of the steps to come.
_MAX_DEPTH = 64
#: Intercom's have some 60,000. YAML aliases can blow a small file up to billions.
_MAX_VALUES = 1_000_000

_TAG = "tag:yaml.org,2002:"
#: What plain text stands for, tried in order, so that whole numbers are integers before floats.
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
#: What JSON is made of, but for numbers, words and spaces.
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:]')
_Events = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _BlockDumper(yaml.SafeDumper):
    """Dumps blocks as people write them: indented lists, literal text, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  # PyYAML's
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if not all(line.isprintable() for line in text.split("\n")):
        # Unescaped, some control characters are read back as line breaks.
        style = '"'
    elif _LIKE_A_NUMBER.match(text):
        # To some reader or other: PyYAML leaves 08, 1e3 and 0o14 without quotes.
        style = "'"
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_BlockDumper.add_representer(str, _represent_text)


class _DuplicateKeyError(Exception):
    """A key that stands twice in a mapping, of which readers take one or the other.

    Attributes:
        found: The key, its line and its column, where the reader knows them.
    """

    def __init__(self, found: tuple[str, int, int] | None = None) -> None:
        super().__init__(found)
        self.found = found


@dataclass(frozen=True)
class Source:
    """A document as read: where from, its SHA-256, and what it holds."""

    name: str
    sha256: str
    content: dict[str, Any]


def read(location: str) -> Source:
    """Reads a YAML or JSON mapping from a path or an address.

    Raises:
        RegenerationError: It cannot be reached, is too large, or is not YAML or JSON.
    """
    if downloading.is_address(location):
        data = downloading.download(location)
        # It names the document from here on.
        location = downloading.shown(location)
    else:
        data = _read_file(location)
    content = _parse(data, location)
    if not isinstance(content, dict):
        raise RegenerationError(
            f"{location}: holds no mapping at its top, so it is no OpenAPI document"
        )
    return Source(location, hashlib.sha256(data).hexdigest(), content)


def _read_file(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RegenerationError(f"{path}: cannot be read: {_reason(error)}") from error
    if len(data) > MAX_BYTES:
        raise RegenerationError(f"{path}: larger than {MAX_BYTES:,} bytes")
    return data


def dump(content: dict[str, Any], heading: str) -> bytes:
    """Writes a document as YAML, the same bytes on every machine, below a comment."""
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
            f"{location}: not UTF-8 at byte {error.start}, so neither YAML nor JSON"
        ) from error
    try:
        if text.lstrip().startswith("{"):
            if sum(map(text.count, ",[{")) > _MAX_VALUES:
                raise RegenerationError(f"{location}: more than {_MAX_VALUES:,} values")
            content = json.loads(text, object_pairs_hook=_unique)
            _check_depth(content, location)
            return content
        return _compose(text)
    except _DuplicateKeyError as error:
        key, line, column = error.found or _duplicate_in_json(text)
        shown = repr(key) if len(key) <= 60 else f"{key[:59]!r}…"
        raise RegenerationError(
            f"{location}:{line}:{column}: the key {shown} stands twice in one mapping; "
            "remove one of them"
        ) from error
    except json.JSONDecodeError as error:
        raise RegenerationError(
            f"{location}:{error.lineno}:{error.colno}: not JSON: {error.msg}"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RegenerationError(f"{location}{place}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise RegenerationError(f"{location}: not YAML: {_reason(error)}") from error
    except (RecursionError, ValueError) as error:
        raise RegenerationError(f"{location}: cannot be parsed: {_reason(error)}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _DuplicateKeyError
    return content


def _duplicate_in_json(text: str) -> tuple[str, int, int]:
    """The first key that stands twice, its line and its column; the decoder knows no places."""
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
    raise AssertionError("the decoder found a key that stands twice")


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
    raise RegenerationError(f"{location}: nested more than {_MAX_DEPTH} deep")


@dataclass
class _Open:
    """A YAML list or mapping whose end has not come yet."""

    value: list[Any] | dict[str, Any]
    anchor: str | None
    size: int = 1
    key: list[str] = field(default_factory=list)

    def add(self, value: object, size: int, event: yaml.Event) -> None:
        self.size += size
        if self.size > _MAX_VALUES:
            raise _refused(f"more than {_MAX_VALUES:,} values, also those of aliases", event)
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key:
            self.value[self.key.pop()] = value
        else:
            # As written: `200` is the text that it is in JSON.
            key = event.value if isinstance(event, yaml.ScalarEvent) else value
            if not isinstance(key, str):
                raise _refused("a key is not text", event)
            if key in self.value:
                mark = event.start_mark
                raise _DuplicateKeyError((key, mark.line + 1, mark.column + 1))
            self.key.append(key)


def _compose(text: str) -> object:
    """Builds what a YAML document stands for.

    From events rather than with PyYAML's own loaders, whose fast one overflows the stack where
    YAML is nested deeply, and which make values that contain themselves.
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
                    raise _refused(f"the alias {name!r} stands for nothing or for itself", event)
                (value, size), anchor = anchors[name], None
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                mapping = isinstance(event, yaml.MappingStartEvent)
                if event.tag not in (None, "!", _TAG + ("map" if mapping else "seq")):
                    raise _refused(f"the tag {event.tag!r} is not allowed", event)
                if len(unfinished) == _MAX_DEPTH:
                    raise _refused(f"nested more than {_MAX_DEPTH} deep", event)
                # Until its end an anchor is not there, so that nothing contains itself.
                anchors.pop(event.anchor, None)
                unfinished.append(_Open({} if mapping else [], event.anchor))
                continue
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = unfinished.pop()
                value, size, anchor = done.value, done.size, done.anchor
            case yaml.DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise _refused("more than one document", event)
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
        raise _refused(f"the tag {event.tag!r} is not allowed", event)
    if not pattern.fullmatch(text):
        raise _refused(f"{text!r} is not what the tag {event.tag!r} says", event)
    return convert(text)


def _refused(problem: str, event: yaml.Event) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _reason(error: Exception) -> str:
    """The first line of an error, or its name where it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
