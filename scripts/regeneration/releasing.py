"""Suggests a release after a regeneration: the next version and a line for CHANGELOG.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["major", "minor", "patch", "none"]

_ABOUT = Path("overlays", "intercom_data_events", "__about__.py")
_MOST = 5


@dataclass(frozen=True)
class Release:
    """A suggested release.

    Attributes:
        level: The part of the version to raise.
        before: The current version; None if it cannot be read.
        after: The version to release; None if the current version cannot be read.
        changelog: A line for CHANGELOG.md; empty if there is nothing to release.
    """

    level: Level
    before: str | None
    after: str | None
    changelog: str


def suggest(
    project: Path,
    *,
    is_break: bool,
    changed: Sequence[str],
    new: Sequence[str],
    gone: Sequence[str],
    pin: tuple[str | None, str],
    rewritten: bool,
) -> Release:
    """Suggests a release by Semantic Versioning.

    A change that breaks callers needs a major release; below 1.0, a minor one. A change that
    callers can use or observe needs a minor one: names, versions, and the default version, because
    answers can depend on it. Any other change of code needs a patch.

    Args:
        project: The project whose version is read.
        is_break: Whether a change breaks callers, or may break them.
        changed: The generated names that break callers, or may. A new requirement of requests is
            not among them, because the release complies with it.
        new: The new names and versions that callers can use.
        gone: The versions that are no longer listed.
        pin: The old and the new default version.
        rewritten: Whether the generated code changed.
    """
    version = _version(project)
    level: Level = "none"
    if is_break:
        level = "minor" if version is not None and version[0] == 0 else "major"
    elif new or gone or pin[0] != pin[1]:
        level = "minor"
    elif rewritten:
        level = "patch"
    after = None if version is None else _raised(version, level)
    return Release(
        level,
        None if version is None else ".".join(map(str, version)),
        None if after is None else ".".join(map(str, after)),
        "" if level == "none" else _line(changed, new, gone, pin),
    )


def _line(
    changed: Sequence[str], new: Sequence[str], gone: Sequence[str], pin: tuple[str | None, str]
) -> str:
    before, after = pin
    said = [f"Breaking: generated names changed or removed: {_some(changed)}"] if changed else []
    said.append(f"Generated from Intercom's description of version {after}")
    if before not in (None, after):
        said[-1] += f", which is now the default (before: {before})"
    if new:
        said.append(f"New: {_some(new)}")
    if gone:
        said.append(f"No longer listed: {_some(gone)}")
    return f"- {'. '.join(said)}."


def _some(words: Sequence[str]) -> str:
    more = [f"{len(words) - _MOST} more"] if len(words) > _MOST else []
    return ", ".join([*words[:_MOST], *more])


def _version(project: Path) -> tuple[int, int, int] | None:
    try:
        text = (project / _ABOUT).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'^__version__ = "(\d{1,6})\.(\d{1,6})\.(\d{1,6})"', text, re.MULTILINE)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _raised(version: tuple[int, int, int], level: Level) -> tuple[int, int, int]:
    major, minor, patch = version
    return {
        "major": (major + 1, 0, 0),
        "minor": (major, minor + 1, 0),
        "patch": (major, minor, patch + 1),
        "none": version,
    }[level]
