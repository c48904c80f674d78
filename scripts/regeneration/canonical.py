"""One form of what means the same, to compare descriptions by, and short digests of it."""

from __future__ import annotations

import hashlib
import json
import re

from regeneration import ABSENT

_DIGEST = re.compile(r"sha256:[0-9a-f]{16}")
#: Lists of these are sets: their order means nothing.
_UNORDERED = {"required", "enum", "type", "parameters", "oneOf", "anyOf", "allOf"}


def canonical(value: object, key: str = "") -> str:
    """Returns the JSON of a value that stands below a key.

    Lists whose order means nothing are sorted. Different values have different JSON: 1, true and
    "1" are three, and ABSENT is a fourth.
    """
    return "absent" if value is ABSENT else _dumped(_ordered(value, key))


def digest(value: object, key: str = "") -> str:
    """Returns a short digest of the canonical form: sha256: and 16 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(canonical(value, key).encode()).hexdigest()[:16]}"


def is_digest(value: object) -> bool:
    """Whether a value is such a digest."""
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
