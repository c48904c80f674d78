"""The API versions that a description lists, in order."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

#: The schema whose enum lists the versions.
SCHEMA = "intercom_version"
#: The header with the version of a request.
HEADER = "Intercom-Version"


def described(document: Json) -> str:
    """Returns the version that a slice describes, which callers send by default."""
    return str(document["info"]["version"])


def listed(document: Json) -> list[str]:
    """Returns the versions that a slice lists, oldest first."""
    schema = document["components"]["schemas"].get(SCHEMA, {})
    return sorted((str(version) for version in schema.get("enum", ())), key=order)


def is_header(parameter: Json) -> bool:
    """Whether a parameter is the version header; names of headers ignore case."""
    return parameter["in"] == "header" and parameter["name"].lower() == HEADER.lower()


def order(version: str) -> tuple[int, int, int, str]:
    """Returns a sort key: 2.9 comes before 2.10, and Preview after all numbers."""
    numbers = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})", version)
    return (0, int(numbers[1]), int(numbers[2]), "") if numbers else (1, 0, 0, version)
