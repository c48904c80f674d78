"""The API versions that a description lists, in their order."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

#: The schema whose enum lists them.
SCHEMA = "intercom_version"
#: The header of a request that says its version.
HEADER = "Intercom-Version"


def described(document: Json) -> str:
    """Returns the version that a slice describes, which callers send by default."""
    return str(document["info"]["version"])


def listed(document: Json) -> list[str]:
    """Returns the versions that a slice lists, oldest first."""
    schema = document["components"]["schemas"].get(SCHEMA, {})
    return sorted((str(version) for version in schema.get("enum", ())), key=order)


def is_header(parameter: Json) -> bool:
    """Whether a parameter is the header that says the version, whose name has no case."""
    return parameter["in"] == "header" and parameter["name"].lower() == HEADER.lower()


def order(version: str) -> tuple[int, int, int, str]:
    """Sorts versions as such: 2.9, 2.10, and behind all numbers Preview."""
    numbers = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", version)
    return (0, int(numbers[1]), int(numbers[2]), "") if numbers else (1, 0, 0, version)
