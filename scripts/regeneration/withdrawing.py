"""What a new description takes away from callers: servers, ways to authenticate, successes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from regeneration.canonical import canonical
from regeneration.operations import Operation, Operations

Json = dict[str, Any]
Kind = Literal["deprecated", "server", "security", "status"]


@dataclass(frozen=True)
class Withdrawal:
    """Something that operations had before, and have no more.

    Attributes:
        kind: What it is.
        what: Which one: an address, the names of security schemes, a status. Of an operation that
            is deprecated now, nothing.
        operations: That had it.
    """

    kind: Kind
    what: str
    operations: tuple[Operation, ...]


def withdrawals(before: Json | None, after: Json, operations: Operations) -> list[Withdrawal]:
    """Returns what the operations of the client lost between two slices."""
    if before is None:
        return []
    lost: dict[tuple[Kind, str], list[Operation]] = {}
    for operation in operations.client:
        were, are = _Offer(before, operation), _Offer(after, operation)
        gone: list[tuple[Kind, str]] = []
        if are.deprecated and not were.deprecated:
            gone.append(("deprecated", ""))
        gone += [("server", url) for url in were.servers if url not in are.servers]
        gone += [
            ("security", name) for form, name in were.security.items() if form not in are.security
        ]
        gone += [("status", status) for status in were.successes if status not in are.successes]
        for each in gone:
            lost.setdefault(each, []).append(operation)
    return [Withdrawal(kind, what, tuple(of)) for (kind, what), of in lost.items()]


class _Offer:
    """How an operation can be called, and how it succeeds."""

    def __init__(self, document: Json, operation: Operation) -> None:
        item = document["paths"].get(operation.path, {})
        node = item.get(operation.method, {})
        nearest = next((each for each in (node, item) if each.get("servers")), document)
        self.deprecated = node.get("deprecated") is True
        self.servers = [server["url"] for server in nearest.get("servers", ())]
        schemes = document["components"].get("securitySchemes", {})
        required = node.get("security", document.get("security", ()))
        self.security = {
            canonical({name: schemes.get(name) for name in alternative}): _and(alternative)
            for alternative in required
        }
        self.successes = [status for status in node.get("responses", {}) if status[:1] == "2"]


def _and(alternative: Json) -> str:
    return " and ".join(sorted(alternative)) or "no token"
