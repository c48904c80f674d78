"""Reads openapi/operations.yaml: the operations that the client offers or leaves out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from regeneration import RegenerationError
from regeneration.document import Source

#: In lower case, as in descriptions.
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_OPERATION = re.compile(rf"({'|'.join(METHODS).upper()}) (/.*)")
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9 _-]*")
_NAME = re.compile(r"[a-z][A-Za-z0-9]*")
_VERB = re.compile(r"[a-z][a-z0-9_]*")
_KEYS = ("tag", "client", "unsupported")
_KEYS_OF_CLIENT = ("operation", "name", "verbs")
_KEYS_OF_UNSUPPORTED = ("operation", "reason")


@dataclass(frozen=True)
class Operation:
    """An operation that the client offers.

    Attributes:
        method: The HTTP method in lower case, as in descriptions.
        path: The path, as in descriptions.
        name: The operationId that the generator sees.
        verbs: The client methods that send it.
    """

    method: str
    path: str
    name: str
    verbs: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the form that people write: POST /events."""
        return f"{self.method.upper()} {self.path}"


@dataclass(frozen=True)
class Operations:
    """The content of openapi/operations.yaml.

    Attributes:
        tag: The tag that the generator sees; it names the package of the operations' modules.
        client: The operations that the client offers.
        unsupported: The reason for each operation that the client leaves out, by its method in
            lower case and its path.
    """

    tag: str
    client: tuple[Operation, ...]
    unsupported: dict[tuple[str, str], str]


def read_operations(source: Source) -> Operations:
    """Reads the file.

    Raises:
        RegenerationError: A value is invalid; the message names its place.
    """
    content = source.content
    _check_keys(content, _KEYS, f"{source.name}: #/")
    tag = _word(content.get("tag"), _TAG, f"{source.name}: #/tag", "a tag such as Data Events")
    client: list[Operation] = []
    for at, entry in _entries(source, "client", _KEYS_OF_CLIENT):
        method, path = _operation(entry, at)
        name = _word(entry.get("name"), _NAME, f"{at}/name", "a name such as createDataEvent")
        verbs = entry.get("verbs")
        if not (isinstance(verbs, list) and verbs):
            raise RegenerationError(
                f"{at}/verbs: must be a list of client methods, such as [create]"
            )
        words = [_word(verb, _VERB, f"{at}/verbs", "a method such as create") for verb in verbs]
        client.append(Operation(method, path, name, tuple(words)))
    unsupported: list[tuple[tuple[str, str], str]] = []
    for at, entry in _entries(source, "unsupported", _KEYS_OF_UNSUPPORTED):
        reason = entry.get("reason")
        if not (isinstance(reason, str) and reason.strip()):
            raise RegenerationError(f"{at}/reason: must say why the client leaves it out")
        unsupported.append((_operation(entry, at), reason.strip()))
    if not client:
        raise RegenerationError(f"{source.name}: #/client: must list at least one operation")
    listed = [str(each) for each in client]
    listed += [f"{method.upper()} {path}" for (method, path), _ in unsupported]
    for what, values in (
        ("operation", listed),
        ("name", [each.name for each in client]),
        ("verb", [verb for each in client for verb in each.verbs]),
    ):
        if twice := [value for value, times in Counter(values).items() if times > 1]:
            raise RegenerationError(
                f"{source.name}: the {what} {twice[0]} is listed twice; remove one of them"
            )
    return Operations(tag, tuple(client), dict(unsupported))


def _entries(
    source: Source, key: str, keys: tuple[str, ...]
) -> list[tuple[str, dict[str, object]]]:
    entries = source.content.get(key, [])
    if not isinstance(entries, list):
        raise RegenerationError(f"{source.name}: #/{key}: must be a list; write [] for none")
    found = []
    for index, entry in enumerate(entries):
        at = f"{source.name}: #/{key}/{index}"
        if not isinstance(entry, dict):
            raise RegenerationError(f"{at}: must be a mapping with an `operation`")
        _check_keys(entry, keys, f"{at}/")
        found.append((at, entry))
    return found


def _check_keys(mapping: dict[str, object], known: tuple[str, ...], at: str) -> None:
    """Rejects a key that is not read, such as a misspelt one."""
    if unknown := [key for key in mapping if key not in known]:
        raise RegenerationError(f"{at}{unknown[0]}: the key must be one of {', '.join(known)}")


def _operation(entry: dict[str, object], at: str) -> tuple[str, str]:
    text = entry.get("operation")
    match = _OPERATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise RegenerationError(
            f"{at}/operation: must be a method and a path, such as POST /events"
        )
    return match[1].lower(), match[2]


def _word(value: object, pattern: re.Pattern[str], at: str, what: str) -> str:
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        raise RegenerationError(f"{at}: must be {what}")
    return value
