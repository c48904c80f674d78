"""From a description to everything that a regeneration writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regeneration import (
    census,
    comparing,
    correcting,
    document,
    generating,
    publishing,
    reporting,
    slicing,
)
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
        corrected: What openapi/data-events.yaml holds, and what the corrections do not know.
        unoffered: The operations of data events that neither list of the operations has.
    """

    source: document.Source
    operations: Operations
    sliced: Json
    corrected: correcting.Corrected
    unoffered: tuple[census.Unoffered, ...]


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
        source = document.read(str(upstream) if described is None else described)
    corrections = document.read(str(openapi / "corrections.yaml"))
    operations = read_operations(document.read(str(openapi / "operations.yaml")))
    again = Path(source.name).resolve() == upstream.resolve()
    made = derive(source, corrections, operations, again=again)
    (staged / "openapi").mkdir()
    (staged / "openapi" / "upstream.yaml").write_bytes(
        document.dump(made.sliced, _UPSTREAM_HEADING)
    )
    (staged / "openapi" / "data-events.yaml").write_bytes(
        document.dump(made.corrected.document, _FRAGMENT_HEADING)
    )
    name = f"{source.name}, corrected"
    generating.validate(made.corrected.document, name)
    (staged / "generated").mkdir()
    # As JSON, which the generator cannot read otherwise than it is written.
    fragment = staged / "data-events.json"
    fragment.write_text(json.dumps(made.corrected.document), encoding="utf-8")
    generating.generate(
        fragment,
        openapi / "generator.yaml",
        openapi / "templates",
        staged / "generated",
        operations,
        name,
    )
    return made


def derive(
    source: document.Source, corrections: document.Source, operations: Operations, *, again: bool
) -> Staged:
    """Slices a description, takes its census, and corrects the slice; writes nothing.

    Args:
        source: A full description, or a slice of one.
        corrections: What openapi/corrections.yaml holds.
        operations: What openapi/operations.yaml says.
        again: Whether it is a slice, which says itself what it was cut from, and what else there
            was.

    Raises:
        RegenerationError: A step cannot go on.
    """
    recorded = None
    if again:
        recorded = slicing.recorded_source(source)
        others = census.recorded(source.content.get(slicing.OTHERS))
    else:
        # Those that are left out deliberately as well: that can change.
        others = census.unoffered(source, replace(operations, unsupported={}))
    sliced = slicing.slice_description(
        source,
        operations.client,
        correcting.referenced_schemas(corrections),
        recorded,
        [census.record(each) for each in others],
    )
    corrected = correcting.correct(sliced, corrections, operations)
    unoffered = tuple(each for each in others if not census.is_left_out(each, operations))
    return Staged(source, operations, sliced, corrected, unoffered)


def report(staged: Path, project: Path, made: Staged) -> reporting.Report:
    """Compares what was staged with what a project holds; before it is published, if it will be.

    Args:
        staged: The folder that was staged to.
        project: The project.
        made: What `stage` returned.
    """
    files = publishing.differences(staged, project, PARTS)
    return reporting.make(
        reporting.committed(project),
        reporting.Made(
            made.sliced,
            made.corrected.document,
            reporting.surface(staged),
            made.operations,
            made.corrected.unknown,
            made.unoffered,
            tuple(files),
            form_only=all(_same_but_for_form(staged, project, line) for line in files),
        ),
        project,
    )


def _same_but_for_form(staged: Path, project: Path, difference: str) -> bool:
    """Whether a file that differs says the same; YAML is compared by what it holds, elsewhere."""
    how, _, name = difference.partition(": ")
    return how == "differs" and (
        not name.endswith(".py")
        or comparing.same_code((staged / name).read_bytes(), (project / name).read_bytes())
    )
