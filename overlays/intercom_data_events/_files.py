"""Files with personal data: made for their owner alone; those of other users are refused."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from intercom_data_events._validation import printable

log = logging.getLogger("intercom_data_events")

E = TypeVar("E", bound=Exception)

_MOST_LINKS = 40  # As Linux.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_has_users = hasattr(os, "geteuid")  # Windows has no such permissions.
_told: set[Path] = set()


def check(path: str | Path, found: os.stat_result, name: str, error: type[E]) -> None:
    """Refuses a file that is read and written on, if another user may have made or written it.

    Two users of services share a file by a group that both are in, with its write permission.

    Args:
        path: The path.
        found: What the file is.
        name: What messages call it, such as "the outbox".
        error: What to raise.

    Raises:
        E: The file is another user's and not so shared, or everybody may write to it.
    """
    if not _has_users or not stat.S_ISREG(found.st_mode):
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:
        raise error(
            f"all users may write to {name} {path} (mode {mode:04o}; it belongs to "
            f"{user(found.st_uid)}), so what is in it may be of any of them; if you trust it, "
            f"run: chmod o-w {shlex.quote(str(path))}"
        )
    is_shared = bool(mode & stat.S_IWGRP) and found.st_gid in {os.getegid(), *os.getgroups()}
    if _is_foreign(found) and not is_shared:
        raise error(
            f"{name} {path} belongs to {user(found.st_uid)}, not to {user(os.geteuid())}, who runs "
            "this process; run it as the owner, share the file by a group of both with its write "
            "permission, or choose another path"
        )


def tell(path: Path, name: str) -> None:
    """Logs once that others than its owner may use a file; never while a lock is held."""
    if not _has_users:
        return
    try:
        found = path.stat()
    except (OSError, ValueError):
        return
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISREG(found.st_mode) and mode & 0o077 and path not in _told:
        _told.add(path)
        log.warning(
            "other users than its owner may use %s %s, which has personal data: its mode is %04o",
            name,
            printable(str(path), None),
            mode,
        )


def open_checked(path: Path, name: str, error: type[E], flags: int = 0) -> int:
    """Opens a file to read it and write on, or makes a missing one, for its owner alone.

    Args:
        path: The path.
        name: What messages call it, such as "the journal".
        error: What to raise.
        flags: Flags of ``os.open`` beside those for reading and writing.

    Returns:
        The descriptor.

    Raises:
        E: Another user may have made or written it, or made a link there.
        OSError: It cannot be opened.
    """
    place = followed(path, error)
    flags |= os.O_RDWR
    with suppress(FileExistsError):
        return os.open(place, flags | os.O_CREAT | os.O_EXCL, 0o600)
    descriptor = os.open(place, flags if _is_of_process(place) else flags | _NOFOLLOW)
    try:
        # What was opened, as another file can be at the path by now.
        check(place, os.fstat(descriptor), name, error)
    except BaseException:
        os.close(descriptor)
        raise
    tell(place, name)
    return descriptor


@contextmanager
def replacing(path: Path, error: type[E]) -> Generator[TextIO]:
    """Writes a file anew: it is there when it is whole, and not before.

    A new file is for its owner alone, and one of ours keeps its group and mode. What is not a
    regular file, such as a device or a pipe, is written to as it is.

    Args:
        path: The path.
        error: What to raise.

    Raises:
        E: Another user made the file, the pipe or a link there, or its folder does not exist.
        OSError: It cannot be written.
    """
    place = followed(path, error)
    is_of_process = _is_of_process(place)
    found = None
    with suppress(FileNotFoundError):
        found = place.stat() if is_of_process else place.lstat()
    # Devices are made by root alone, whatever user they belong to.
    if found is not None and not is_of_process and not _is_device(found) and _is_foreign(found):
        raise error(
            f"{place} belongs to {user(found.st_uid)}, not to {user(os.geteuid())}, who runs "
            "this process; delete it, or choose another path"
        )
    if found is not None and (is_of_process or not stat.S_ISREG(found.st_mode)):
        with _text(os.open(place, os.O_WRONLY | os.O_APPEND), path) as file:
            yield file
        return
    if not place.parent.is_dir():
        raise error(f"{place.parent} is not a folder; make it, or choose another path")
    is_kept = _has_users and found is not None and found.st_uid == os.geteuid()
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
    part = Path(name)
    try:
        with _text(descriptor, path) as file:
            yield file
            file.flush()
            if found is not None and is_kept:
                mode = found.st_mode & 0o777
                try:
                    os.fchown(descriptor, -1, found.st_gid)
                except PermissionError:  # Its mode is not for another group.
                    mode &= ~0o070
                os.fchmod(descriptor, mode)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def followed(path: Path, error: type[E]) -> Path:
    """Returns where a link of ours or root's leads; any other path as it is.

    The kernel refuses another user's in folders such as /tmp alone, and only where it is asked to
    follow it (fs.protected_symlinks).

    Args:
        path: The path.
        error: What to raise.

    Raises:
        E: The link is another user's.
        OSError: It cannot be read, or leads in a circle.
    """
    for _ in range(_MOST_LINKS):
        try:
            found = path.lstat()
        except FileNotFoundError:
            return path
        if not stat.S_ISLNK(found.st_mode) or _is_of_process(path):
            return path
        if _is_foreign(found):
            raise error(
                f"{path} is a symbolic link, which {user(found.st_uid)} has made; remove the link, "
                "or choose another path"
            )
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def user(number: int) -> str:
    """Returns what messages call a user."""
    try:
        import pwd

        return f"the user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"the user {number}"


def _is_of_process(path: Path) -> bool:
    """Whether a path names what a process has open, as /dev/stdout does in the end."""
    return Path("/proc") in path.parent.resolve().parents


def _is_foreign(found: os.stat_result) -> bool:
    return _has_users and found.st_uid not in (os.geteuid(), 0)


def _is_device(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)


@contextmanager
def _text(descriptor: int, path: Path) -> Generator[TextIO]:
    """Opens a descriptor to write text; a failure to write names the path."""
    try:
        # UTF-8 cannot encode half a character, which a server can send.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
