"""Steps of the pipeline by themselves, with the operations and corrections of the project."""

from __future__ import annotations

from pathlib import Path

from regeneration import correcting
from regeneration.document import Source, read
from regeneration.operations import read_operations
from regeneration.slicing import slice_description

OPENAPI = Path(__file__).parents[2] / "openapi"
OPERATIONS = read_operations(read(str(OPENAPI / "operations.yaml")))
CORRECTIONS = read(str(OPENAPI / "corrections.yaml"))


def slice_of(description, recorded=None):
    """The slice of a description; `recorded` is what that was cut from, if it is a slice."""
    source = Source("d.yaml", "0" * 64, description)
    kept = correcting.referenced_schemas(CORRECTIONS)
    return slice_description(source, OPERATIONS.client, kept, recorded)


def correct(slice_):
    """What the client is generated from, and what the corrections were not written against."""
    return correcting.correct(slice_, CORRECTIONS, OPERATIONS)
