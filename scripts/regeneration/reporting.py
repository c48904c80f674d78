"""Makes the report of a regeneration: the result, items to review, changes, and the release.

It states only what was compared: whole slices, whole corrected descriptions, the public surface of
the generated package, and the bytes of all files.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

import api_diff
from client_parts import printable, sentence
from regeneration import (
    ABSENT,
    RegenerationError,
    breaking,
    document,
    generating,
    looking,
    narrowing,
    slicing,
    versions,
    withdrawing,
)
from regeneration.census import Unoffered
from regeneration.comparing import Difference, differences, overlap
from regeneration.correcting import Unknown
from regeneration.describing import describe
from regeneration.essentials import essential
from regeneration.looking import Look
from regeneration.operations import Operations
from regeneration.releasing import Release, suggest
from regeneration.uses import Uses

Json = dict[str, Any]
#: Where a difference ends. In a request, it reaches Python, a correction or a pinned name replaces
#: it, or the client does not use it. In an answer, the client can read any value.
Effect = Literal[
    "comes through",
    "not used",
    "levelled",
    "read tolerantly",
    "not in Python",
    "not in the client",
]

#: The exit codes: there is nothing to review; there is something to review.
DONE, LOOK = 0, 3
#: Replaces a missing slice in comparisons.
_EMPTY: Json = {
    "openapi": "",
    "info": {},
    "servers": [],
    "security": [],
    "paths": {},
    "components": {"schemas": {}, "securitySchemes": {}},
}
#: The limits of the text, which has to fit on one screen.
_COLUMNS = 120
_MOST_LOOKS = 6
_MOST_LINES = 10
_MOST_WRAPPED = 4


@dataclass(frozen=True)
class Committed:
    """The project's files before a regeneration.

    Attributes:
        sliced: The content of openapi/upstream.yaml; None if it is missing or was edited.
        corrected: The content of openapi/data-events.yaml; None if it is not valid OpenAPI.
        surface: The names of the generated package.
    """

    sliced: Json | None
    corrected: Json | None
    surface: api_diff.Surface


@dataclass(frozen=True)
class Made:
    """The result of a regeneration.

    Attributes:
        sliced: The new content of openapi/upstream.yaml.
        corrected: The new content of openapi/data-events.yaml.
        surface: The names of the generated package.
        operations: The content of openapi/operations.yaml.
        unknown: The values that no correction was written for.
        unoffered: The data-events operations that the client lacks.
        files: The files that differ from the project's, each with the kind of difference.
        form_only: Whether the code in them differs in formatting only.
    """

    sliced: Json
    corrected: Json
    surface: api_diff.Surface
    operations: Operations
    unknown: tuple[Unknown, ...]
    unoffered: tuple[Unoffered, ...]
    files: tuple[str, ...]
    form_only: bool


@dataclass(frozen=True)
class Change:
    """A difference between two slices.

    Attributes:
        difference: The difference.
        words: Its description, for people.
        effect: Where it ends.
    """

    difference: Difference
    words: str
    effect: Effect


@dataclass(frozen=True)
class Report:
    """The report of a regeneration.

    Attributes:
        verdict: The first line.
        look: The items to review before a release.
        changes: The changes of Intercom's description.
        python: The changes of the generated package.
        listed: The versions that the description newly lists.
        unlisted: The versions that it no longer lists.
        pin: The old and the new default version.
        release: The suggested release.
        files: The files that differ in more than the record of their source, each with the kind of
            difference.
    """

    verdict: str
    look: tuple[Look, ...]
    changes: tuple[Change, ...]
    python: tuple[api_diff.Change, ...]
    listed: tuple[str, ...]
    unlisted: tuple[str, ...]
    pin: tuple[str | None, str]
    release: Release
    files: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The exit code: 3 if there is something to review, else 0."""
        return LOOK if self.look else DONE

    def as_json(self) -> Json:
        """Returns the whole report as JSON."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "look": [
                {
                    "kind": each.kind,
                    "title": each.title,
                    "place": each.place,
                    **each.data,
                    "meaning": each.meaning,
                    "to_do": each.to_do,
                }
                for each in self.look
            ],
            "breaks": [each.title for each in self.look if each.kind == "break"],
            "changes": [
                {
                    "pointer": each.difference.pointer,
                    **_present("before", each.difference.before),
                    **_present("after", each.difference.after),
                    "words": each.words,
                    "effect": each.effect,
                }
                for each in self.changes
            ],
            "python": [
                {"name": each.name, "change": each.text, "breaks": each.breaks}
                for each in self.python
            ],
            "versions": {
                "listed": list(self.listed),
                "unlisted": list(self.unlisted),
                "default": {"before": self.pin[0], "after": self.pin[1]},
            },
            "release": {
                "level": self.release.level,
                "before": self.release.before,
                "after": self.release.after,
                "changelog": self.release.changelog,
            },
            "files": list(self.files),
        }

    def as_text(self) -> str:
        """Returns the report as one screen of text; the JSON has what is cut."""
        sections = [
            self._head(),
            self._upstream(),
            self._python(),
            self._versions(),
            self._release(),
        ]
        if not self.files:
            sections = sections[:1]
        return "\n\n".join("\n".join(lines) for lines in sections if lines)

    def _head(self) -> list[str]:
        lines = _wrapped(self.verdict)
        if self.look and self.verdict != _heading(self.look):
            lines.append(_heading(self.look))
        for number, each in enumerate(self.look[:_MOST_LOOKS], 1):
            lines += _wrapped(f"{number}. {each.title}")
            lines += [_cut(f"   {heading}: {text}") for heading, text in each.facts]
            lines += _wrapped(f"   Means: {each.meaning}")
            for part in f"   Do: {each.to_do}".split("\n"):
                lines += _wrapped(part)
        return [*lines, *_more(len(self.look), _MOST_LOOKS, "")]

    def _upstream(self) -> list[str]:
        said = [each for each in self.changes if not _is_of_versions(each.difference, self.pin)]
        if not said:
            return []
        effects = get_args(Effect)
        lines = [
            _cut(f"  {each.words} [{each.effect}]", keep=len(each.effect) + 3)
            for each in sorted(said, key=lambda each: effects.index(each.effect))
        ]
        return [
            "What changed upstream:",
            *lines[:_MOST_LINES],
            *_more(len(lines), _MOST_LINES, "  "),
        ]

    def _python(self) -> list[str]:
        if not self.python:
            return ["Python: no name and no signature changed."] if self.files else []
        ranks = ("yes", "maybe", "no")
        ranked = sorted(self.python, key=lambda each: ranks.index(each.breaks))
        prefix = f"{generating.PACKAGE}."
        short = [attrs.evolve(each, name=each.name.removeprefix(prefix)) for each in ranked]
        heading, *rows, total = api_diff.table(short)
        return [
            "Python:",
            *(_cut(f"  {line}") for line in [heading, *rows[:_MOST_LINES]]),
            *_more(len(rows), _MOST_LINES, "  "),
            f"  {total}",
        ]

    def _versions(self) -> list[str]:
        before, after = self.pin
        said = []
        if self.listed:
            said.append(f"newly listed: {', '.join(self.listed)}")
        if self.unlisted:
            said.append(f"no longer listed: {', '.join(self.unlisted)}")
        lines = [_cut(f"Versions: {'; '.join(said)}.")] if said else []
        was = "unchanged" if before == after else f"before: {before or 'unknown'}"
        return [*lines, _cut(f"Default Intercom-Version: {after} ({was}).")]

    def _release(self) -> list[str]:
        release = self.release
        if release.level == "none":
            return ["Release: none needed."]
        numbers = f", {release.before} → {release.after}" if release.after else ""
        when = " after your review" if self.look else ""
        return [
            f"Release{when}: {release.level}{numbers}. Add to CHANGELOG.md:",
            *_wrapped(release.changelog),
        ]


def committed(project: Path) -> Committed:
    """Reads the project's files; a missing or damaged one counts as None."""
    openapi = project / "openapi"
    sliced = corrected = None
    try:
        source = document.read(str(openapi / "upstream.yaml"))
        slicing.recorded_source(source)
        sliced = source.content
    except RegenerationError:
        pass
    try:
        held = document.read(str(openapi / "data-events.yaml"))
        generating.validate(held.content, held.name)
        corrected = held.content
    except (RegenerationError, LookupError, TypeError):
        pass
    return Committed(sliced, corrected, surface(project))


def surface(project: Path) -> api_diff.Surface:
    """Reads the names of the project's generated package; a damaged one counts as empty."""
    try:
        return api_diff.read(project, (generating.PACKAGE,))
    except api_diff.APIDiffError:
        return api_diff.read(project, ())


def make(before: Committed, after: Made, project: Path) -> Report:
    """Compares the project's files with the result of a regeneration, and judges the differences.

    Args:
        before: The project's files.
        after: The result of the regeneration.
        project: The project; the suggested release follows its version.
    """
    old = _EMPTY if before.sliced is None else before.sliced
    # A slice without other operations has no list of them.
    found = differences({slicing.OTHERS: [], **old}, {slicing.OTHERS: [], **after.sliced})
    through = differences(before.corrected, after.corrected)
    uses = Uses(after.operations.client, [old, after.sliced, after.corrected])
    same_content = {
        f"differs: openapi/{name}"
        for name, one, other in (
            ("upstream.yaml", before.sliced, after.sliced),
            ("data-events.yaml", before.corrected, after.corrected),
        )
        if one is not None and _content(one) == _content(other)
    }
    files = tuple(line for line in after.files if line not in same_content)
    rewritten = any(": generated/" in line for line in files)
    python = [
        # The report lists versions separately.
        change
        for change in api_diff.compare(before.surface, after.surface)
        if not change.name.endswith(".IntercomVersion")
    ]
    operations = after.operations
    required = breaking.requirements(before.sliced, after.sliced, before.corrected, operations)
    narrowed = narrowing.narrowings(
        found, after.unknown, after.sliced, before.corrected or {}, uses
    )
    look = looking.joined(
        [
            *looking.at_requirements(required),
            *looking.at_python(_unsaid(python, required, narrowed)),
            *looking.at_narrowings(narrowed),
            *looking.at_withdrawals(
                withdrawing.withdrawals(before.sliced, after.sliced, operations)
            ),
            *looking.at_corrections(after.unknown, after.sliced, uses),
            *looking.at_operations(after.unoffered),
            *looking.at_version(after.sliced),
        ]
    )
    were = [] if before.sliced is None else versions.listed(before.sliced)
    are = versions.listed(after.sliced)
    listed = tuple(version for version in are if version not in were)
    unlisted = tuple(version for version in were if version not in are)
    pin = (
        None if before.sliced is None else versions.described(before.sliced),
        versions.described(after.sliced),
    )
    used = differences(essential(old, conditions=True), essential(after.sliced, conditions=True))
    changes = tuple(
        Change(each, describe(each), _effect(each, through, used, uses, rewritten=rewritten))
        for each in found
    )
    return Report(
        _verdict(
            before,
            look,
            files,
            changes,
            pin,
            same=after.form_only and not (found or through or python),
        ),
        look,
        changes,
        tuple(python),
        listed,
        unlisted,
        pin,
        suggest(
            project,
            is_break=any(each.kind in ("break", "may-break") for each in look),
            changed=_names(python, "yes", "maybe"),
            new=[*_names(python, "no"), *(f"version {each}" for each in listed if each != pin[1])],
            gone=unlisted,
            pin=pin,
            rewritten=rewritten,
        ),
        files,
    )


def _verdict(
    before: Committed,
    look: tuple[Look, ...],
    files: tuple[str, ...],
    changes: tuple[Change, ...],
    pin: tuple[str | None, str],
    *,
    same: bool,
) -> str:
    breaks = [each.title for each in look if each.kind == "break"]
    if breaks:
        more = f" And {len(breaks) - 1} more." if len(breaks) > 1 else ""
        return f"Breaks callers: {breaks[0]}{more}"
    if look:
        return _heading(look)
    if not files:
        return "Nothing changed."
    if before.sliced is None:
        return "Everything is new: openapi/upstream.yaml is missing or damaged."
    if same:
        return "Only the order or the formatting changed."
    but = [f"the default version (now {pin[1]})"] if pin[0] != pin[1] else []
    # The client sends only JSON, so other media types do not matter.
    if any(
        each.effect == "not used"
        and "x-other-media-types" not in each.difference.path
        and not _is_of_versions(each.difference, pin)
        for each in changes
    ):
        but.append("Intercom's description of requests")
    return f"Nothing that callers use changed{', except ' if but else ''}{' and '.join(but)}."


def _is_of_versions(difference: Difference, pin: tuple[str | None, str]) -> bool:
    """Whether a difference is about the versions, which the report lists separately."""
    path = difference.path
    if path[:3] == ("components", "schemas", versions.SCHEMA):
        defaults = (difference.before, difference.after) == pin
        return path[3:4] == ("enum",) or (path[3:] == ("default",) and defaults)
    return path == ("info", "version")


def _names(python: list[api_diff.Change], *breaks: str) -> list[str]:
    return looking.short_names(change.name for change in python if change.breaks in breaks)


def _heading(look: tuple[Look, ...]) -> str:
    items = "this item" if len(look) == 1 else f"these {len(look)} items"
    return f"Review {items} before you release:"


def _effect(
    difference: Difference,
    through: list[Difference],
    used: list[Difference],
    uses: Uses,
    *,
    rewritten: bool,
) -> Effect:
    def is_among(others: list[Difference]) -> bool:
        return any(overlap(difference.path, each.path) for each in others)

    if is_among(through):
        return "comes through" if rewritten else "not in Python"
    found = uses.of(difference.path)
    if found["request"]:
        return "levelled" if is_among(used) else "not used"
    return "read tolerantly" if found["answer"] else "not in the client"


def _unsaid(
    python: list[api_diff.Change],
    required: list[breaking.Requirement],
    narrowed: list[narrowing.Narrowing],
) -> list[api_diff.Change]:
    """Returns the changes, except of parameters and fields that are newly required or narrowed."""
    said = {generating.python_name(each.part[-1]) for each in required}
    narrower = {generating.python_name(each.name) for each in narrowed if each.name}

    def is_said(change: api_diff.Change) -> bool:
        name = change.name.rstrip(")").replace("(", ".").rsplit(".", 1)[-1]
        if "required" in change.text:
            return name in said
        return name in narrower and change.breaks == "maybe"

    return [change for change in python if not is_said(change)]


def _content(held: Json) -> str:
    """Returns the content of a document, in its order, without the record of its source."""
    info = {key: value for key, value in held["info"].items() if key != "x-source"}
    return json.dumps({**held, "info": info})


def _present(key: str, value: object) -> Json:
    return {} if value is ABSENT else {key: value}


def _more(count: int, most: int, indent: str) -> list[str]:
    return [f"{indent}… and {count - most} more; pass --json to see all"] if count > most else []


def _wrapped(text: str) -> list[str]:
    """Wraps text that a person may copy, and cuts it only after several lines."""
    indent = text[: len(text) - len(text.lstrip(" "))]
    lines = textwrap.wrap(
        sentence(text),
        _COLUMNS,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )
    return [*lines[:_MOST_WRAPPED], *_more(len(lines), _MOST_WRAPPED, indent)]


def _cut(text: str, keep: int = 0) -> str:
    """Cuts a line to the width of the screen, but keeps its last `keep` characters."""
    text = printable(text, None)
    if len(text) <= _COLUMNS:
        return text
    end = text[len(text) - keep :] if keep else ""
    return f"{text[: _COLUMNS - 1 - keep]}…{end}"
