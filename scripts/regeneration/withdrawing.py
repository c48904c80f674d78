"""Finds what a new description removes: servers, authentication, successes, the version header."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from regeneration import versions
from regeneration.canonical import canonical
from regeneration.operations import Operation, Operations

Json = dict[str, Any]
Kind = Literal["deprecated", "header", "server", "security", "status"]


@dataclass(frozen=True)
class Withdrawal:
    """Something that operations no longer have.

    Attributes:
        kind: Its kind.
        what: The addresses, names of security schemes, or statuses; empty if operations are newly
            deprecated.
        operations: The operations that had it.
    """

    kind: Kind
    what: tuple[str, ...]
    operations: tuple[Operation, ...]


def withdrawals(before: Json | None, after: Json, operations: Operations) -> list[Withdrawal]:
    """Returns what the operations of the client lost between two slices."""
    if before is None:
        return []
    lost: dict[tuple[Kind, tuple[str, ...]], list[Operation]] = {}
    for operation in operations.client:
        were, are = _Offer(before, operation), _Offer(after, operation)
        gone: list[tuple[Kind, tuple[str, ...]]] = [
            ("header", tuple(name for name in were.headers if name not in are.headers)),
            ("server", tuple(url for url in were.servers if url not in are.servers)),
            (
                "security",
                tuple(name for form, name in were.security.items() if form not in are.security),
            ),
            ("status", tuple(each for each in were.successes if each not in are.successes)),
        ]
        if are.deprecated and not were.deprecated:
            lost.setdefault(("deprecated", ()), []).append(operation)
        for kind, what in gone:
            if what:
                lost.setdefault((kind, what), []).append(operation)
    return [Withdrawal(kind, what, tuple(of)) for (kind, what), of in lost.items()]


class _Offer:
    """The ways to call an operation, and its success statuses."""

    def __init__(self, document: Json, operation: Operation) -> None:
        item = document["paths"].get(operation.path, {})
        node = item.get(operation.method, {})
        nearest = next((each for each in (node, item) if each.get("servers")), document)
        self.deprecated = node.get("deprecated") is True
        self.servers = [server["url"] for server in nearest.get("servers", ())]
        schemes = document["components"].get("securitySchemes", {})
        required = node.get("security", document.get("security", ()))
        self.security = {
            canonical(sorted(_form(schemes.get(name, {})) for name in alternative)): (
                " and ".join(sorted(alternative)) or "no token"
            )
            for alternative in required
        }
        self.headers = [
            versions.HEADER for each in node.get("parameters", ()) if versions.is_header(each)
        ]
        self.successes = [status for status in node.get("responses", {}) if status[:1] == "2"]


def _form(scheme: Json) -> str:
    """Returns how a scheme authenticates, without the token format, which is only a hint."""
    held = {key: value for key, value in scheme.items() if key != "bearerFormat"}
    if isinstance(held.get("scheme"), str):
        # HTTP ignores the case of a scheme.
        held["scheme"] = held["scheme"].lower()
    return canonical(held)
