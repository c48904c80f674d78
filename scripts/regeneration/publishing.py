"""Publishes a finished regeneration to the project, completely or not at all; compares both."""

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
    """Prevents other regenerations of the project until this one succeeds or fails.

    Raises:
        RegenerationError: Another one is running.
        OSError: The project cannot be opened.
    """
    if sys.platform == "win32":
        yield  # Windows cannot lock folders.
        return
    import fcntl

    folder = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RegenerationError(
                f"{project}: another regeneration is running; wait until it ends, then retry"
            ) from error
        except OSError:
            pass  # Some network file systems have no locks.
        yield
    finally:
        os.close(folder)


def publish(staged: Path, project: Path, parts: tuple[str, ...]) -> None:
    """Replaces parts of the project (files or folders) with the staged ones.

    The old ones are moved aside first, and restored if anything fails. Staged files must be on the
    project's file system, so that each replacement is one rename.

    Raises:
        RegenerationError: A part cannot be written; the project is unchanged.
    """
    aside = staged / "replaced"
    undo: list[tuple[Path, Path | None]] = []
    part = ""
    try:
        aside.mkdir()
        for index, part in enumerate(parts):
            target, old = project / part, aside / str(index)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Recorded first, because an interrupt can come right after a rename.
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
                f"cannot write {project / part}: {error.strerror}; nothing was changed, so check "
                "the permissions and the free space, then retry"
            ) from error
        raise


def differences(staged: Path, project: Path, parts: tuple[str, ...]) -> list[str]:
    """Returns a line for each file in which the project differs from the staged parts."""
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
        # Python compiles modules when it imports them; they are not part of the package.
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
