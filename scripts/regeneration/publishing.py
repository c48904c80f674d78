"""Putting a finished regeneration in the project's place, whole or not at all, and comparing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from regeneration import RegenerationError


@contextlib.contextmanager
def alone(project: Path) -> Iterator[None]:
    """Keeps other regenerations of a project out, until this one ends in whatever way.

    Raises:
        RegenerationError: Another one is running.
        OSError: The project cannot be opened.
    """
    if sys.platform == "win32":
        yield  # It locks no folders.
        return
    import fcntl

    folder = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RegenerationError(
                f"{project}: another regeneration is running; start this one after it has ended"
            ) from error
        except OSError:
            pass  # Not every network file system has locks.
        yield
    finally:
        os.close(folder)


def publish(staged: Path, project: Path, parts: tuple[str, ...]) -> None:
    """Replaces parts of the project (files or folders) by those that were staged.

    The old ones are moved aside first and brought back if anything fails. Staged files must be on
    the project's file system, so that each replacement is one rename.

    Raises:
        RegenerationError: A part cannot be written; the project is as it was.
    """
    aside = staged / "replaced"
    undo: list[tuple[Path, Path | None]] = []
    part = ""
    try:
        aside.mkdir()
        for index, part in enumerate(parts):
            target, old = project / part, aside / str(index)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Noted first: an interrupt can come right after a rename.
            if os.path.lexists(target):
                undo.append((target, old))
                target.rename(old)
            else:
                undo.append((target, None))
            (staged / part).rename(target)
    except BaseException as error:
        for replaced, kept in reversed(undo):
            if kept is None:
                _remove(replaced)
            elif os.path.lexists(kept):
                _remove(replaced)
                kept.rename(replaced)
        if isinstance(error, OSError):
            raise RegenerationError(
                f"{project / part}: cannot be written: {error.strerror}; nothing was changed"
            ) from error
        raise


def differences(staged: Path, project: Path, parts: tuple[str, ...]) -> list[str]:
    """Says of each file below the parts how what is committed differs from what was staged."""
    said = []
    for part in parts:
        expected, actual = set(_files(staged, part)), set(_files(project, part))
        said += [f"missing: {name}" for name in expected - actual]
        said += [f"extra: {name}" for name in actual - expected]
        said += [
            f"differs: {name}"
            for name in expected & actual
            if (project / name).is_symlink()
            or (staged / name).read_bytes() != (project / name).read_bytes()
        ]
    return sorted(said, key=lambda line: line.partition(": ")[::-1])


def _files(root: Path, part: str) -> Iterator[str]:
    path = root / part
    if path.is_file():
        yield part
    for child in path.rglob("*"):
        # Compiled modules are written by whoever imports the package, and belong to nobody.
        if (
            child.name != "__pycache__"
            and child.parent.name != "__pycache__"
            and (child.is_symlink() or not child.is_dir())
        ):
            yield child.relative_to(root).as_posix()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
