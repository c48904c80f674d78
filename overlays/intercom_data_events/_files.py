"""Files with personal data: created for their owner alone; those of other users are rejected."""

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

_MOST_LINKS = 40  # As on Linux.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_has_users = hasattr(os, "geteuid")  # Windows has no such permissions.
_told: set[Path] = set()


def check(path: str | Path, found: os.stat_result, name: str, error: type[E]) -> None:
    """Rejects a file to read and write if another user may have created or written it.

    Users of several services can share a file through a group that may write to it.

    Args:
        path: The path.
        found: The status of the file.
        name: What messages call it, such as "the outbox".
        error: The type of error to raise.

    Raises:
        E: The file belongs to another user and is not shared, or all users may write to it.
    """
    if not _has_users or not stat.S_ISREG(found.st_mode):
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & stat.S_IWOTH:
        raise error(
            f"{name} {path} must not be writable by all users (mode {mode:04o}, owned by "
            f"{user(found.st_uid)}), because any of them may have changed it; if you trust its "
            f"contents, run: chmod o-w {shlex.quote(str(path))}"
        )
    is_shared = bool(mode & stat.S_IWGRP) and found.st_gid in {os.getegid(), *os.getgroups()}
    if _is_foreign(found) and not is_shared:
        raise error(
            f"{name} {path} must belong to {user(os.geteuid())}, who runs this process, not to "
            f"{user(found.st_uid)}; run it as the owner, make the file writable by a group that "
            "both users belong to, or choose another path"
        )


def tell(path: Path, name: str) -> None:
    """Logs once that users other than its owner can access a file; never call it with a lock."""
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
            "%s %s contains personal data, but users other than its owner can access it "
            "(mode %04o)",
            name,
            printable(str(path), None),
            mode,
        )


def open_checked(path: Path, name: str, error: type[E], flags: int = 0) -> int:
    """Opens a file to read and write it; creates a missing one for its owner alone.

    Args:
        path: The path.
        name: What messages call it, such as "the journal".
        error: The type of error to raise.
        flags: Flags of ``os.open`` in addition to those for reading and writing.

    Returns:
        The descriptor.

    Raises:
        E: Another user may have created or written the file, or created a link there.
        OSError: It cannot be opened.
    """
    place = followed(path, error)
    flags |= os.O_RDWR
    with suppress(FileExistsError):
        return os.open(place, flags | os.O_CREAT | os.O_EXCL, 0o600)
    descriptor = os.open(place, flags if _is_of_process(place) else flags | _NOFOLLOW)
    try:
        # The opened file, because another file can be at the path by now.
        check(place, os.fstat(descriptor), name, error)
    except BaseException:
        os.close(descriptor)
        raise
    tell(place, name)
    return descriptor


@contextmanager
def replacing(path: Path, error: type[E]) -> Generator[TextIO]:
    """Replaces a file atomically: the new content appears once all of it is written.

    A new file is for its owner alone; a file of this user keeps its group and mode. Devices, pipes
    and other files that are not regular are written to directly.

    Args:
        path: The path.
        error: The type of error to raise.

    Raises:
        E: Another user created the file, the pipe or a link there, or its directory is missing.
        OSError: It cannot be written.
    """
    place = followed(path, error)
    is_of_process = _is_of_process(place)
    found = None
    with suppress(FileNotFoundError):
        found = place.stat() if is_of_process else place.lstat()
    # Only root creates devices, although they may belong to any user.
    if found is not None and not is_of_process and not _is_device(found) and _is_foreign(found):
        raise error(
            f"{place} must belong to {user(os.geteuid())}, who runs this process, not to "
            f"{user(found.st_uid)}; delete it, or choose another path"
        )
    if found is not None and (is_of_process or not stat.S_ISREG(found.st_mode)):
        with _text(os.open(place, os.O_WRONLY | os.O_APPEND), path) as file:
            yield file
        return
    if not place.parent.is_dir():
        raise error(f"there is no directory {place.parent}; create it, or choose another path")
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
                except PermissionError:  # The mode was meant for that group.
                    mode &= ~0o070
                os.fchmod(descriptor, mode)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def followed(path: Path, error: type[E]) -> Path:
    """Follows links of this user and of root; returns any other path unchanged.

    The kernel protects against links of other users only in directories such as /tmp, and only
    while it follows them itself (fs.protected_symlinks).

    Args:
        path: The path.
        error: The type of error to raise.

    Raises:
        E: The link belongs to another user.
        OSError: The link cannot be read, or it is part of a loop.
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
                f"{path} is a symbolic link that {user(found.st_uid)} created; remove the link, or "
                "choose another path"
            )
        path = path.parent / path.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def user(number: int) -> str:
    """Returns the name of a user for messages."""
    try:
        import pwd

        return f"the user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"the user {number}"


def _is_of_process(path: Path) -> bool:
    """Whether a path is an open file of a process, as /dev/stdout is after its links."""
    return Path("/proc") in path.parent.resolve().parents


def _is_foreign(found: os.stat_result) -> bool:
    return _has_users and found.st_uid not in (os.geteuid(), 0)


def _is_device(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)


@contextmanager
def _text(descriptor: int, path: Path) -> Generator[TextIO]:
    """Opens a descriptor to write strings; a failure to write names the path."""
    try:
        # UTF-8 cannot encode a lone surrogate, which a server can send.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="") as file:
            yield file
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
