"""One canonical form for equivalent JSON values, to compare descriptions, and its digest."""

from __future__ import annotations

import hashlib
import json
import re

from regeneration import ABSENT

_DIGEST = re.compile(r"sha256:[0-9a-f]{16}")
#: Keywords whose lists are sets: their order has no meaning.
_UNORDERED = {"required", "enum", "type", "parameters", "oneOf", "anyOf", "allOf"}


def canonical(value: object, key: str = "") -> str:
    """Returns the canonical JSON of a value.

    Lists whose order has no meaning are sorted. Different values have different results: 1, true,
    "1" and ABSENT are four.

    Args:
        value: The value, or ABSENT.
        key: The key that holds the value; it decides whether the order of a list has a meaning.
    """
    return "absent" if value is ABSENT else _dumped(_ordered(value, key))


def digest(value: object, key: str = "") -> str:
    """Returns a digest of the canonical form: `sha256:` and 16 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(canonical(value, key).encode()).hexdigest()[:16]}"


def is_digest(value: object) -> bool:
    """Returns whether a value has the form of such a digest."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def _ordered(value: object, key: str) -> object:
    if isinstance(value, dict):
        return {name: _ordered(held, name) for name, held in value.items()}
    if isinstance(value, list):
        held = [_ordered(each, "") for each in value]
        return sorted(held, key=_dumped) if key in _UNORDERED else held
    return value


def _dumped(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
