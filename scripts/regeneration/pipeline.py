"""From a description to everything that a regeneration writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regeneration import correcting, document, generating, slicing
from regeneration.operations import Operations, read_operations

Json = dict[str, Any]

PARTS = ("openapi/upstream.yaml", "openapi/data-events.yaml", "generated")
_UPSTREAM_HEADING = """\
The data-events part of Intercom's OpenAPI description (MIT, (c) Intercom): facts only.
Written by scripts/regenerate.py from the full description; never edited by hand."""
_FRAGMENT_HEADING = """\
What the client is generated from: upstream.yaml with corrections.yaml applied.
Written by scripts/regenerate.py; never edited by hand."""


@dataclass(frozen=True)
class Staged:
    """What a regeneration has made, and from what.

    Attributes:
        source: The description as read.
        operations: What openapi/operations.yaml says.
        sliced: What openapi/upstream.yaml holds.
        corrected: What openapi/data-events.yaml holds.
    """

    source: document.Source
    operations: Operations
    sliced: Json
    corrected: Json


def stage(staged: Path, project: Path, described: document.Source | str | None) -> Staged:
    """Makes everything that a regeneration writes, below another folder.

    Args:
        staged: An empty folder.
        project: The project whose corrections, settings and templates count.
        described: A full description, or its path or address; None for the committed slice.

    Raises:
        RegenerationError: A step cannot go on.
    """
    openapi = project / "openapi"
    upstream = openapi / "upstream.yaml"
    if isinstance(described, document.Source):
        source = described
    else:
        source = document.read(described or str(upstream))
    corrections = document.read(str(openapi / "corrections.yaml"))
    operations = read_operations(document.read(str(openapi / "operations.yaml")))
    recorded = None
    if Path(source.name).resolve() == upstream.resolve():
        # A slice of the slice, which says itself what it was cut from.
        recorded = slicing.recorded_source(source)
    sliced = slicing.slice_description(
        source, operations.client, correcting.referenced_schemas(corrections), recorded
    )
    corrected = correcting.correct(correcting.pin_names(sliced, operations), corrections)
    (staged / "openapi").mkdir()
    (staged / "openapi" / "upstream.yaml").write_bytes(document.dump(sliced, _UPSTREAM_HEADING))
    (staged / "openapi" / "data-events.yaml").write_bytes(
        document.dump(corrected, _FRAGMENT_HEADING)
    )
    name = f"{source.name}, corrected"
    generating.validate(corrected, name)
    (staged / "generated").mkdir()
    # As JSON, which the generator cannot read otherwise than it is written.
    fragment = staged / "data-events.json"
    fragment.write_text(json.dumps(corrected), encoding="utf-8")
    generating.generate(
        fragment, openapi / "generator.yaml", openapi / "templates", staged / "generated", name
    )
    return Staged(source, operations, sliced, corrected)
