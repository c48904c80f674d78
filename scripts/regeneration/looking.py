"""What a person has to look at before a release: what it is, what it means, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import api_diff
from regeneration import ABSENT, versions
from regeneration.breaking import Requirement
from regeneration.census import Unoffered
from regeneration.comparing import Difference, differences, place, unescaped
from regeneration.correcting import Unknown, as_written
from regeneration.describing import describe, shown
from regeneration.narrowing import Narrowing
from regeneration.uses import Uses, and_, verbs
from regeneration.withdrawing import Withdrawal

Json = dict[str, Any]
Kind = Literal[
    "break", "may-break", "narrowed", "correction", "operation", "version", "deprecated", "header",
    "server", "security", "status",
]  # fmt: skip

#: Of values, differences and names in one line.
_MOST = 3


@dataclass(frozen=True)
class Look:
    """Something to look at.

    Attributes:
        kind: What it is, for programs.
        title: What it is, for people; a sentence.
        place: Where: an operation, a JSON pointer, a name.
        facts: Further lines, each with its heading.
        meaning: What it means for callers.
        to_do: What the person does about it.
        data: What else a program needs, as JSON.
    """

    kind: Kind
    title: str
    place: str
    meaning: str
    to_do: str
    facts: tuple[tuple[str, str], ...] = ()
    data: Json = field(default_factory=dict)


def at_requirements(found: Iterable[Requirement]) -> Iterator[Look]:
    """What requests lack, by operation."""
    for (operation, optional), group in groupby(found, lambda one: (one.operation, one.optional)):
        names = [each.name for each in group]
        listed = and_([f"`{name}`" if name != "a body" else name for name in names])
        who, several = verbs([operation]), len(operation.verbs) > 1
        send = ("do not" if several else "does not") + (" always" if optional else "") + " send"
        yield Look(
            "break",
            f"{who} {send} {listed}, which {operation} requires now.",
            str(operation),
            f"Intercom may refuse the requests of {who}.",
            "send it (overlays/intercom_data_events/_sending/operations.py), or correct it where "
            "Intercom does not require it (openapi/corrections.yaml)",
            data={"required": names},
        )


def at_narrowings(found: Iterable[Narrowing]) -> Iterator[Look]:
    """What Intercom accepts less of, by the operations that send it."""
    for operations, group in groupby(found, lambda one: one.operations):
        differences = [one.difference for one in group]
        who = verbs(operations)
        yield Look(
            "narrowed",
            f"Intercom accepts less in the requests of {who}: "
            f"{_some([describe(each) for each in differences], separator='; ')}.",
            differences[0].pointer,
            "Intercom may refuse what callers send now.",
            "where it holds, check it in the client (overlays/intercom_data_events) or say it in "
            "CHANGELOG.md; else correct it (openapi/corrections.yaml)",
            data={"pointers": [each.pointer for each in differences]},
        )


def at_python(changes: Iterable[api_diff.Change]) -> Iterator[Look]:
    """What breaks those who use the generated package, and what may."""
    for verdict, kind, verb in (("yes", "break", "break"), ("maybe", "may-break", "may break")):
        names = [change.name for change in changes if change.breaks == verdict]
        if names:
            # Of an operation, its module: each has five functions.
            short = list(dict.fromkeys(".".join(name.split(".")[1:4]) for name in names))
            yield Look(
                kind,
                f"Python: changes of {_some(short)} {verb} callers.",
                "generated/intercom_data_events_api",
                "the table of Python below says how.",
                "correct the description where Intercom's is wrong, else say it in CHANGELOG.md",
                data={"names": names},
            )


def at_corrections(unknown: Iterable[Unknown], sliced: Json, uses: Uses) -> Iterator[Look]:
    """Corrections that were written for something else than upstream has now."""
    for each in unknown:
        path = place(sliced, each.pointer)
        now = shown(each.found)
        if now.endswith("…"):
            now = _some([describe(one) for one in _to_nearest(each)], separator="; ") or now
        correction = each.correction
        yield Look(
            "correction",
            f"Correction {correction.number} ({shown_text(correction.target)}) was not written "
            "for what upstream has now.",
            each.pointer,
            _meaning(path, uses),
            "change the correction, or, where it still holds, add to its x-written-against:\n"
            f"   - {as_written(each.found, _key(each))}",
            (
                ("Written for", _some([shown(value, 40) for value in each.known])),
                ("Upstream now", now),
            ),
            {
                "correction": {
                    "number": correction.number,
                    "target": correction.target,
                    "reason": correction.reason,
                },
                "known": ["absent" if value is ABSENT else value for value in each.known],
                "as_written": as_written(each.found, _key(each)),
                **({} if each.found is ABSENT else {"found": each.found}),
            },
        )


def at_operations(unoffered: Iterable[Unoffered]) -> Iterator[Look]:
    """Operations of data events that the client does not have."""
    for each in unoffered:
        name = f"{each.method.upper()} {each.path}"
        yield Look(
            "operation",
            f"{each} is not in the client, but belongs to data events: {', '.join(each.why)}.",
            name,
            "callers cannot use it.",
            "to offer it, see openapi/README.md; else add to `unsupported` in "
            f"openapi/operations.yaml:\n   - {{operation: {name}, reason: …}}",
            data={"why": list(each.why)},
        )


def at_version(sliced: Json) -> Iterator[Look]:
    """A version that the description has, and does not list."""
    version, listed = versions.described(sliced), versions.listed(sliced)
    if listed and version not in listed:
        yield Look(
            "version",
            f"The description is of {version}, which its own list of versions lacks.",
            "#/info/version",
            f"each request would carry Intercom-Version: {version}, which Intercom may refuse.",
            f"try a request with Intercom-Version: {version} before you release",
        )


def at_withdrawals(found: Iterable[Withdrawal]) -> Iterator[Look]:
    """What operations of the client lost."""
    for each in found:
        names, who = and_([str(one) for one in each.operations]), verbs(each.operations)
        what = and_(list(each.what))
        one = len(each.what) == 1
        title, meaning, to_do = {
            "deprecated": (
                f"{names} is deprecated now.",
                f"{who} work as before, until Intercom removes it.",
                "look for its successor in Intercom's documentation",
            ),
            "header": (
                f"The header {what} is gone ({names}).",
                f"Intercom may pass over the version that {who} ask for.",
                "look for how requests say their version now in Intercom's documentation",
            ),
            "server": (
                f"The server{'' if one else 's'} {what} {'is' if one else 'are'} gone ({names}).",
                f"clients of {'that address' if one else 'these addresses'} may get no answer.",
                "compare the regions of the client (overlays/intercom_data_events/_sending)",
            ),
            "security": (
                f"{what} does not authenticate any more, or otherwise ({names}).",
                f"Intercom may refuse the token of {who}.",
                "compare with how the client sends its token",
            ),
            "status": (
                f"{names} does not answer {what} any more.",
                f"{who} may take another success for a failure, or read it otherwise.",
                "compare with the answers that the description has now",
            ),
        }[each.kind]
        place_ = what if each.kind == "server" else str(each.operations[0])
        yield Look(each.kind, title, place_, meaning, to_do)


def _to_nearest(unknown: Unknown) -> list[Difference]:
    """How upstream differs from what is most like it of what a correction was written for."""
    keys = unescaped(unknown.pointer)

    def placed(value: object) -> Json:
        """A document that has nothing but this value, in its place."""
        held: Any = value
        for key in reversed(keys):
            held = {} if held is ABSENT else {key: held}
        return held if isinstance(held, dict) else {}

    now = placed(unknown.found)
    ways = [
        differences(placed(value), now) for value in unknown.known if not isinstance(value, str)
    ]
    return min(ways, key=len, default=[])


def _key(unknown: Unknown) -> str:
    return unknown.pointer.rsplit("/", 1)[-1]


def shown_text(text: str, longest: int = 70) -> str:
    """Returns text cut to a length."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _meaning(path: tuple[str, ...], uses: Uses) -> str:
    found = uses.of(path)
    said = []
    if found["request"]:
        said.append(
            f"{verbs(found['request'])} build their requests as before; Intercom may refuse them."
        )
    if found["answer"]:
        said.append(
            f"{verbs(found['answer'])}: what cannot be read is None, and is kept as it came in "
            "additional_properties."
        )
    return " ".join(said) or "no request and no answer is made of it."


def _some(texts: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return separator.join(texts[:_MOST]) + more
