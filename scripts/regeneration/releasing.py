"""The release that a regeneration suggests: how far the version goes up, and a CHANGELOG line."""

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
    """What to release.

    Attributes:
        level: Which part of the version goes up.
        before: The version now; None where the project does not say it.
        after: The version to release.
        changelog: A line for CHANGELOG.md; empty where there is nothing to say.
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

    What breaks callers is a major release; below 1.0, where there is none, a minor one. What
    callers can use or observe is a minor one: names, versions, and the version that is sent by
    default, since answers can differ with it. Other code is a patch.

    Args:
        project: Whose version is read.
        is_break: Whether something breaks callers, or may.
        changed: Names of the generated package that do. What Intercom asks of requests is not a
            line for callers, since the release sends it.
        new: What callers can use now.
        gone: Versions that are no longer listed.
        pin: The version that callers sent by default, and the one that they will send.
        rewritten: Whether the generated code changed at all.
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
    said = [f"Breaking: generated names changed or are gone: {_some(changed)}"] if changed else []
    said.append(f"Generated from Intercom's description of {after}")
    if before not in (None, after):
        said[-1] += f", which callers send by default now (before: {before})"
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
