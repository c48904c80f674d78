"""Reading OpenAPI descriptions that nobody vouches for, and writing our own documents.

YAML is read by its JSON-compatible core: no tags are executed, no text turns into a date, and
`yes` or `on` stay words, so that a description means the same as YAML and as JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx
import yaml

from regeneration import RegenerationError

_MAX_BYTES = 64 * 1024 * 1024
_DOWNLOAD_SECONDS = 60


class _CoreLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # either base
    """SafeLoader, resolving plain scalars as YAML 1.2's JSON-compatible schema does."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][-+]?[0-9]+)?", "-+0123456789."),
):
    # Resolvers are tried in order, so whole numbers are integers before they are floats.
    _CoreLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


class _BlockDumper(yaml.SafeDumper):
    """Dumps blocks as people write them: indented lists, literal text, no aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    )


_BlockDumper.add_representer(str, _represent_text)


@dataclass(frozen=True)
class Source:
    """A document as read: where from, its SHA-256, and what it holds."""

    name: str
    sha256: str
    content: dict[str, Any]


def read(location: str) -> Source:
    """Reads a YAML or JSON mapping from a path or an http(s) URL.

    Raises:
        RegenerationError: It cannot be reached, is too large, or is not YAML or JSON.
    """
    if re.match(r"https?://", location, re.IGNORECASE):
        data = _download(location)
    else:
        try:
            data = Path(location).read_bytes()
        except (OSError, ValueError) as error:
            raise RegenerationError(f"{location}: cannot be read: {_reason(error)}") from error
    if len(data) > _MAX_BYTES:
        raise RegenerationError(f"{location}: larger than {_MAX_BYTES:,} bytes")
    content = _parse(data, location)
    if not isinstance(content, dict):
        raise RegenerationError(
            f"{location}: holds no mapping at its top, so it is no OpenAPI document"
        )
    return Source(location, hashlib.sha256(data).hexdigest(), content)


def dump(content: dict[str, Any], heading: str) -> bytes:
    """Writes a document as YAML, the same bytes on every machine, below a comment."""
    text = yaml.dump(
        content, Dumper=_BlockDumper, sort_keys=False, width=100, allow_unicode=True, indent=2
    )
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    return f"{comment}{text}".encode()


def _download(url: str) -> bytes:
    chunks: list[bytes] = []
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=_DOWNLOAD_SECONDS) as answer:
            answer.raise_for_status()
            size = 0
            for chunk in answer.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > _MAX_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RegenerationError(f"{url}: cannot be fetched: {_reason(error)}") from error
    return b"".join(chunks)


def _parse(data: bytes, location: str) -> object:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegenerationError(
            f"{location}: not UTF-8 at byte {error.start}, so neither YAML nor JSON"
        ) from error
    try:
        if text.lstrip().startswith("{"):
            return json.loads(text)
        return yaml.load(text, Loader=_CoreLoader)  # noqa: S506  # a SafeLoader
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


def _reason(error: Exception) -> str:
    """The first line of an error, or its name where it has no text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
