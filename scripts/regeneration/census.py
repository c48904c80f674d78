"""Counting the operations of data events in a full description."""

from __future__ import annotations

from dataclasses import dataclass

from regeneration.document import Source
from regeneration.operations import Operations


@dataclass(frozen=True)
class Unoffered:
    """An operation of data events that neither list of operations.yaml has."""

    method: str
    path: str
    operation_id: str | None
    why: tuple[str, ...]


def unoffered(source: Source, operations: Operations) -> list[Unoffered]:
    """Returns them in the order of the description."""
    known = {(each.method, each.path) for each in operations.client} | set(operations.unsupported)
    return [
        Unoffered(method, path, operation.get("operationId"), ("its path",))
        for path, item in source.content["paths"].items()
        for method, operation in item.items()
        if path.startswith(("/events", "/data_events"))
        and method != "parameters"
        and (method, path) not in known
    ]
