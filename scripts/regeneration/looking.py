"""Makes the list in the report that the maintainer decides on before a release.

Each item says what changed, what the change means for callers, and what to do about it.
"""

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

#: An operation, and the name of a parameter or field that it requires now.
Cause = tuple[Operation, str]

#: The most values, differences or names on one line.
_MOST = 3
#: The longest value, in characters, on a line for one value.
_LINE = 100


@dataclass(frozen=True)
class Look:
    """An item of the list.

    Attributes:
        kind: The kind of the change, for programs.
        title: The change in one sentence.
        place: The place of the change: an operation, a JSON pointer, a name or an address.
        meaning: The effect on callers.
        to_do: The choices of the maintainer.
        facts: Further lines, as pairs of heading and text.
        data: Further facts for programs, as JSON.
        causes: The new requirements behind the item; `joined` merges items by them.
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
    """Yields an item for each operation whose requests lack something."""
    for (operation, optional), group in groupby(found, lambda one: (one.operation, one.optional)):
        parts = list(group)
        names = [each.name for each in parts]
        listed = and_([f"`{name}`" if name != "a body" else name for name in names])
        who, several = verbs([operation]), len(operation.verbs) > 1
        send = ("do not" if several else "does not") + (" always" if optional else "") + " send"
        them = "them" if len(names) > 1 else "it"
        yield Look(
            "break",
            f"{who} {send} {listed}, which {operation} requires now.",
            str(operation),
            f"Intercom may reject the requests of {who}.",
            f"send {them} (overlays/intercom_data_events/_sending/operations.py) or, if Intercom "
            f"does not require {them}, correct the description (openapi/corrections.yaml)",
            data={"required": names},
            causes=frozenset((operation, each.part[-1]) for each in parts),
        )


def at_narrowings(found: Iterable[Narrowing]) -> Iterator[Look]:
    """Yields an item for each group of operations whose requests may hold fewer values now."""
    for operations, group in groupby(found, lambda one: one.operations):
        differences = [one.difference for one in group]
        who = verbs(operations)
        yield Look(
            "narrowed",
            f"Intercom accepts fewer values in the requests of {who}: "
            f"{_some([describe(each) for each in differences], separator='; ')}.",
            differences[0].pointer,
            "Intercom may reject values that callers send now.",
            "if Intercom enforces this, check it in the client (overlays/intercom_data_events) or "
            "note it in CHANGELOG.md; otherwise correct the description (openapi/corrections.yaml)",
            data={"pointers": [each.pointer for each in differences]},
        )


def at_python(changes: Iterable[api_diff.Change]) -> Iterator[Look]:
    """Yields an item for the generated names that break callers, and one for those that may."""
    for verdict, kind, how in (
        ("yes", "break", "were changed or removed"),
        ("maybe", "may-break", "were changed, which may break callers"),
    ):
        names = [change.name for change in changes if change.breaks == verdict]
        if names:
            yield Look(
                kind,
                f"generated names {how}: {_some(short_names(names))}.",
                "generated/intercom_data_events_api",
                "the table under Python has the details.",
                "if Intercom's description is wrong, correct it (openapi/corrections.yaml); "
                "otherwise note the change in CHANGELOG.md",
                data={"names": names},
            )


def at_corrections(unknown: Iterable[Unknown], sliced: Json, uses: Uses) -> Iterator[Look]:
    """Yields an item for each correction that was not written against upstream's current value."""
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
            f"Correction {correction.number} ({_cut(correction.target)}) was not written against "
            "the value that upstream has now.",
            each.pointer,
            _meaning(paths, uses),
            "change or delete the correction or, if it is still right, add to its "
            "x-written-against:\n"
            f"   - {_as_written(each)}",
            (("Written against", facts[0]), ("Upstream now", facts[1])),
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
    """Merges each correction into the item that has the same cause, and returns all items.

    The merged item also asks for the entry in the correction's `x-written-against`: without it, the
    correction is an item of the next report.
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
                (f"{named} was written against", each.facts[0][1]),
                *each.facts[1:],
            ),
            to_do=f"{other.to_do}; then add to x-written-against of correction {number}:\n"
            f"   - {as_written}",
            data={**other.data, "corrections": corrections},
        )
    return tuple(kept)


def at_operations(unoffered: Iterable[Unoffered]) -> Iterator[Look]:
    """Yields an item for each operation of data events that the client does not have."""
    for each in unoffered:
        name = f"{each.method.upper()} {each.path}"
        yield Look(
            "operation",
            f"{each} is not in the client but belongs to data events by {and_(list(each.why))}.",
            name,
            "callers cannot use it.",
            "to offer it, see openapi/README.md; otherwise add to `unsupported` in "
            f"openapi/operations.yaml:\n   - {{operation: {name}, reason: …}}",
            data={"why": list(each.why)},
        )


def at_version(sliced: Json) -> Iterator[Look]:
    """Yields an item if the description's version is missing from its own list of versions."""
    version, listed = versions.described(sliced), versions.listed(sliced)
    if listed and version not in listed:
        yield Look(
            "version",
            f"The description is of version {version}, which its own list of versions lacks.",
            "#/info/version",
            f"each request would have Intercom-Version: {version}, which Intercom may reject.",
            f"send a test request with Intercom-Version: {version} before you release",
        )


def at_withdrawals(found: Iterable[Withdrawal]) -> Iterator[Look]:
    """Yields an item for each thing that operations of the client lost."""
    for each in found:
        operations, lost = each.operations, each.what
        names, who = and_([str(one) for one in operations]), verbs(operations)
        what = and_(list(lost)) if len(lost) <= _MOST else _some(list(lost))
        several, plural = len(operations) > 1, len(lost) > 1
        are = "are" if plural else "is"
        accept = "accept" if several else "accepts"
        title, meaning, to_do = {
            "deprecated": (
                f"{names} {'are' if several else 'is'} deprecated now.",
                f"calls to {who} will fail when Intercom removes {'them' if several else 'it'}.",
                "look for a replacement in Intercom's documentation",
            ),
            "header": (
                f"The header {what} is gone ({names}).",
                f"Intercom may ignore the version in the requests of {who}.",
                "find out from Intercom's documentation how requests select a version now",
            ),
            "server": (
                f"The {'servers' if plural else 'server'} {what} {are} gone ({names}).",
                f"clients that use {'them' if plural else 'it'} may fail.",
                "check the regions of the client (overlays/intercom_data_events/_sending)",
            ),
            "security": (
                f"{names} no longer {accept} {what} authentication as before.",
                f"Intercom may reject the token in the requests of {who}.",
                "compare the description with how the client sends its token",
            ),
            "status": (
                f"{names} no longer {'answer' if several else 'answers'} with status {what}.",
                f"{who} may treat another success status as a failure, or misread the body.",
                "compare the client with the statuses that the description has now",
            ),
        }[each.kind]
        place_ = what if each.kind == "server" else str(operations[0])
        yield Look(each.kind, title, place_, meaning, to_do)


def short_names(names: Iterable[str]) -> list[str]:
    """Returns names without the package; the five functions of an operation become their module."""
    return list(dict.fromkeys(".".join(name.split(".")[1:4]) for name in names))


def _placed(value: object, pointer: str) -> Json:
    """Returns a document that holds only this value, in its place."""
    held: Any = value
    for key in reversed(keys(pointer)):
        held = {} if held is ABSENT else {key: held}
    return held if isinstance(held, dict) else {}


def _nearest(unknown: Unknown) -> object | None:
    """Returns the known value that differs least from upstream's, or None if none is similar."""
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
    """Returns the differing parts of two values, one line for each value."""
    said = []
    for at, was, now in _contrast(known, found, keys(pointer)[-1]):
        # The names of fields are enough to find the part.
        names = [name for name in at[:-1] if name != "properties"] + list(at[-1:])
        said.append((f"{'.'.join(names)}: " if names else "", was, now))
    return (
        _some([f"{label}{shown(was, _LINE)}" for label, was, _ in said], "; "),
        _some([f"{label}{shown(now, _LINE)}" for label, _, now in said], "; "),
    )


def _contrast(
    known: object, found: object, keyword: str, at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Yields the parts in which two values differ; a part that is too long to read is split."""
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
    """Returns the new requirements, or an empty set if anything else changed, too."""
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
    """Returns what changes in some places mean for callers."""
    found = [uses.of(path) for path in paths]
    sent, read = (
        verbs(dict.fromkeys(one for each in found for one in each[direction]))
        for direction in ("request", "answer")
    )
    said = []
    if sent:
        said.append(f"Intercom may reject the unchanged requests of {sent}.")
    if read:
        said.append(
            f"a value that {read} cannot read is None, and is kept unchanged in "
            "additional_properties."
        )
    return " ".join(said) or "no request and no answer uses it."


def _some(texts: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(texts) - _MOST} more" if len(texts) > _MOST else ""
    return separator.join(texts[:_MOST]) + more
