"""Runs the steps from a description to all files that a regeneration writes."""

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
The data-events part of Intercom's OpenAPI description (MIT, (c) Intercom), without prose.
Written by scripts/regenerate.py from the full description; do not edit."""
_FRAGMENT_HEADING = """\
The description that the client is generated from: upstream.yaml, corrected by corrections.yaml.
Written by scripts/regenerate.py; do not edit."""


@dataclass(frozen=True)
class Staged:
    """The result of a regeneration before it is published, and its input.

    Attributes:
        source: The description as read.
        operations: The content of openapi/operations.yaml.
        sliced: The content of openapi/upstream.yaml.
        corrected: The content of openapi/data-events.yaml, and the values that no correction was
            written for.
        unoffered: The data-events operations that neither list of openapi/operations.yaml has.
    """

    source: document.Source
    operations: Operations
    sliced: Json
    corrected: correcting.Corrected
    unoffered: tuple[census.Unoffered, ...]


def stage(staged: Path, project: Path, described: document.Source | str | None) -> Staged:
    """Writes all files of a regeneration to a folder outside the project.

    Args:
        staged: The folder, which must be empty.
        project: The project that has the corrections, settings and templates.
        described: A full description, or its path or address; None for the committed slice.

    Raises:
        RegenerationError: A step fails.
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
    # JSON, because two readers of YAML can take a value for different types.
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
    """Slices a description, lists its further operations, and corrects the slice; writes nothing.

    Args:
        source: A full description, or a slice of one.
        corrections: The content of openapi/corrections.yaml.
        operations: The content of openapi/operations.yaml.
        again: Whether `source` is a slice. A slice records what it was cut from, and the further
            operations of that description.

    Raises:
        RegenerationError: A step fails.
    """
    recorded = None
    if again:
        recorded = slicing.recorded_source(source)
        others = census.recorded(source.content.get(slicing.OTHERS))
    else:
        # Including those that operations.yaml leaves out, because that can change.
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
    """Compares the staged files with the project's; call it before you publish them.

    Args:
        staged: The folder that has the staged files.
        project: The project.
        made: The result of `stage`.
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
    """Whether Python code differs in formatting only; the report compares YAML by content."""
    how, _, name = difference.partition(": ")
    return how == "differs" and (
        not name.endswith(".py")
        or comparing.same_code((staged / name).read_bytes(), (project / name).read_bytes())
    )
