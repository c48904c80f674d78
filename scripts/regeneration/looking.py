"""What a person has to look at before a release: what it is, what it means, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import api_diff
from regeneration import ABSENT, versions
from regeneration.breaking import Requirement
from regeneration.canonical import canonical
from regeneration.census import Unoffered
from regeneration.comparing import Difference, differences, members, place
from regeneration.correcting import Unknown, as_written
from regeneration.describing import LONGEST, describe, shown
from regeneration.narrowing import Narrowing
from regeneration.operations import Operation
from regeneration.pointers import keys
from regeneration.uses import Uses, and_, verbs
from regeneration.withdrawing import Withdrawal

Json = dict[str, Any]
Kind = Literal[
    "break", "may-break", "narrowed", "correction", "operation", "version", "deprecated", "header",
    "server", "security", "status",
]  # fmt: skip

#: A parameter or field that an operation requires now.
Cause = tuple[Operation, str]

#: Of values, differences and names in one line.
_MOST = 3
#: Characters of a value that may have a line of its own.
_LINE = 100


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
        causes: What is required now, to tell items of the same cause.
    """

    kind: Kind
    title: str
    place: str
    meaning: str
    to_do: str
    facts: tuple[tuple[str, str], ...] = ()
    data: Json = field(default_factory=dict)
    causes: frozenset[Cause] = frozenset()


def at_requirements(found: Iterable[Requirement]) -> Iterator[Look]:
    """What requests lack, by operation."""
    for (operation, optional), group in groupby(found, lambda one: (one.operation, one.optional)):
        parts = list(group)
        names = [each.name for each in parts]
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
            causes=frozenset((operation, each.part[-1]) for each in parts),
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
    for verdict, kind, how in (
        ("yes", "break", "changed or are gone"),
        ("maybe", "may-break", "changed, which may break callers"),
    ):
        names = [change.name for change in changes if change.breaks == verdict]
        if names:
            yield Look(
                kind,
                f"generated names {how}: {_some(short_names(names))}.",
                "generated/intercom_data_events_api",
                "the table of Python below says how.",
                "correct the description where Intercom's is wrong, else say it in CHANGELOG.md",
                data={"names": names},
            )


def at_corrections(unknown: Iterable[Unknown], sliced: Json, uses: Uses) -> Iterator[Look]:
    """Corrections that were written for something else than upstream has now."""
    for each in unknown:
        correction = each.correction
        known = _nearest(each)
        paths = [place(sliced, each.pointer)]
        causes: frozenset[Cause] = frozenset()
        if known is None:
            facts = (" or ".join(map(shown, each.known)), shown(each.found))
        else:
            found = differences(_placed(known, each.pointer), _placed(each.found, each.pointer))
            paths = [(*paths[0], *one.path[len(paths[0]) :]) for one in found] or paths
            causes = _causes(found, paths, uses)
            facts = _contrasted(known, each.found, each.pointer)
        yield Look(
            "correction",
            f"Correction {correction.number} ({_cut(correction.target)}) was not written for what "
            "upstream has now.",
            each.pointer,
            _meaning(paths, uses),
            "change the correction, or, where it still holds, add to its x-written-against:\n"
            f"   - {_as_written(each)}",
            (("Written for", facts[0]), ("Upstream now", facts[1])),
            {
                "correction": {
                    "number": correction.number,
                    "target": correction.target,
                    "reason": correction.reason,
                },
                "known": ["absent" if value is ABSENT else value for value in each.known],
                "as_written": _as_written(each),
                **({} if each.found is ABSENT else {"found": each.found}),
            },
            causes,
        )


def joined(looks: Iterable[Look]) -> tuple[Look, ...]:
    """Returns one item for each cause: a correction is part of the item that says what changed.

    The correction still has to be told, else it is an item of the next regeneration.
    """
    kept: list[Look] = []
    for each in looks:
        index = next(
            (
                index
                for index, other in enumerate(kept)
                if each.kind == "correction" and each.causes and each.causes <= other.causes
            ),
            None,
        )
        if index is None:
            kept.append(each)
            continue
        other = kept[index]
        number, as_written = each.data["correction"]["number"], each.data["as_written"]
        named = f"Correction {number} ({_cut(each.data['correction']['target'])})"
        corrections = [*other.data.get("corrections", ()), {"place": each.place, **each.data}]
        kept[index] = replace(
            other,
            facts=(
                *other.facts,
                (f"{named} was written for", each.facts[0][1]),
                *each.facts[1:],
            ),
            to_do=f"{other.to_do}; then add to x-written-against of correction {number}:\n"
            f"   - {as_written}",
            data={**other.data, "corrections": corrections},
        )
    return tuple(kept)


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
        operations, lost = each.operations, each.what
        names, who = and_([str(one) for one in operations]), verbs(operations)
        what = and_(list(lost)) if len(lost) <= _MOST else _some(list(lost))
        several, plural = len(operations) > 1, len(lost) > 1
        are = "are" if plural else "is"
        title, meaning, to_do = {
            "deprecated": (
                f"{names} {'are' if several else 'is'} deprecated now.",
                f"{who} stop working when Intercom removes {'them' if several else 'it'}.",
                "look for a successor in Intercom's documentation",
            ),
            "header": (
                f"The header {what} is gone ({names}).",
                f"Intercom may pass over the version that {who} ask for.",
                "look for how requests say their version now in Intercom's documentation",
            ),
            "server": (
                f"The {'servers' if plural else 'server'} {what} {are} gone ({names}).",
                f"clients of {'these addresses' if plural else 'that address'} may get no answer.",
                "compare the regions of the client (overlays/intercom_data_events/_sending)",
            ),
            "security": (
                f"{names} no longer {'accept' if several else 'accepts'} {what} as before.",
                f"Intercom may refuse the token of {who}.",
                "compare with how the client sends its token",
            ),
            "status": (
                f"{names} {'do' if several else 'does'} not answer {what} any more.",
                f"{who} may take another success for a failure, or read it otherwise.",
                "compare with the answers that the description has now",
            ),
        }[each.kind]
        place_ = what if each.kind == "server" else str(operations[0])
        yield Look(each.kind, title, place_, meaning, to_do)


def short_names(names: Iterable[str]) -> list[str]:
    """Returns names in the generated package; for an operation's five functions, their module."""
    return list(dict.fromkeys(".".join(name.split(".")[1:4]) for name in names))


def _placed(value: object, pointer: str) -> Json:
    """A document that has nothing but a value, in its place."""
    held: Any = value
    for key in reversed(keys(pointer)):
        held = {} if held is ABSENT else {key: held}
    return held if isinstance(held, dict) else {}


def _nearest(unknown: Unknown) -> object | None:
    """What is most like upstream of what a correction was written for; None where nothing is."""
    now = _placed(unknown.found, unknown.pointer)
    alike = [
        value
        for value in unknown.known
        if isinstance(value, dict | list) and isinstance(unknown.found, type(value))
    ]
    return min(
        alike, key=lambda each: len(differences(_placed(each, unknown.pointer), now)), default=None
    )


def _contrasted(known: object, found: object, pointer: str) -> tuple[str, str]:
    """What differs between two values, in one line each."""
    said = []
    for at, was, now in _contrast(known, found, keys(pointer)[-1]):
        # Of the way to a field, its names are enough.
        names = [name for name in at[:-1] if name != "properties"] + list(at[-1:])
        said.append((f"{'.'.join(names)}: " if names else "", was, now))
    return (
        _some([f"{label}{shown(was, _LINE)}" for label, was, _ in said], "; "),
        _some([f"{label}{shown(now, _LINE)}" for label, _, now in said], "; "),
    )


def _contrast(
    known: object, found: object, keyword: str, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """The parts in which two values differ, each as large as a person reads at a glance."""
    if canonical(known) == canonical(found):
        return
    were, are = members(known, keyword), members(found, keyword)
    if max(len(canonical(known)), len(canonical(found))) <= LONGEST or not (were and are):
        yield at, known, found
        return
    for name in {**were, **are}:
        before, after = were.get(name, ABSENT), are.get(name, ABSENT)
        yield from _contrast(before, after, name, (*at, name))


def _causes(
    found: Iterable[Difference], paths: Iterable[tuple[str, ...]], uses: Uses
) -> frozenset[Cause]:
    """What is required now, if nothing else changed."""
    causes: set[Cause] = set()
    for difference, path in zip(found, paths, strict=True):
        match difference.path:
            case [*_, "required", _] if isinstance(difference.after, str):
                names = [difference.after]
            case [*_, "required"] if isinstance(difference.after, list):
                names = [str(name) for name in difference.after]
            case [*_, "parameters", name] if difference.before is ABSENT:
                names = [name.partition(" ")[2]]
            case [*_, "parameters", name, "required"] if difference.after is True:
                names = [name.partition(" ")[2]]
            case _:
                return frozenset()
        causes |= {(one, name) for one in uses.of(path)["request"] for name in names}
    return frozenset(causes)


def _as_written(unknown: Unknown) -> str:
    return as_written(unknown.found, keys(unknown.pointer)[-1])


def _cut(text: str, longest: int = 70) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _meaning(paths: Iterable[tuple[str, ...]], uses: Uses) -> str:
    """What changes of some places mean for callers."""
    found = [uses.of(path) for path in paths]
    sent, read = (
        verbs(dict.fromkeys(one for each in found for one in each[direction]))
        for direction in ("request", "answer")
    )
    said = []
    if sent:
        said.append(f"Intercom may refuse the requests of {sent}, which stay as they are.")
    if read:
        said.append(
            f"what {read} cannot read is None, and is kept as it came in additional_properties."
        )
    return " ".join(said) or "no request and no answer is made of it."


def _some(texts: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return separator.join(texts[:_MOST]) + more
