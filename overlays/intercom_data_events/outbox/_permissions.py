"""Who may own and write the files of an outbox."""

from __future__ import annotations

import logging
import os
import shlex
import stat

from intercom_data_events.errors import OutboxError

log = logging.getLogger("intercom_data_events")

_told: set[str] = set()


def check(paths: tuple[str, ...]) -> None:
    """Refuses files that another user may have made or written; missing ones are left out.

    Two users of services share a file by a group that both are in, with its write permission.

    Args:
        paths: The database, its log and the log's index.

    Raises:
        OutboxError: A file is another user's and not so shared, or everybody may write to it, or a
            link leads from beside the database elsewhere.
    """
    if not hasattr(os, "geteuid"):
        return  # Windows has no such permissions.
    for path in paths:
        try:
            found = os.stat(path) if path is paths[0] else os.lstat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISLNK(found.st_mode):
            # SQLite makes none, and would write to where it leads.
            raise OutboxError(
                f"the outbox {paths[0]} cannot be used, because {path} is a symbolic link, which "
                f"{_user(found.st_uid)} has made; remove the link"
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            raise OutboxError(
                f"all users may write to the outbox {path} (mode {mode:04o}; it belongs to "
                f"{_user(found.st_uid)}), so its events may be of any of them; if you trust it, "
                f"run: chmod o-w {shlex.quote(path)}"
            )
        is_shared = bool(mode & stat.S_IWGRP) and found.st_gid in {os.getegid(), *os.getgroups()}
        if found.st_uid not in (os.geteuid(), 0) and not is_shared:
            raise OutboxError(
                f"the outbox {path} belongs to {_user(found.st_uid)}, not to "
                f"{_user(os.geteuid())}, who runs this process; run it as the owner, share the "
                "file by a group of both with its write permission, or choose another path"
            )


def tell(path: str) -> None:
    """Logs once that others than its owner may use a file; never while a lock is held."""
    if not hasattr(os, "geteuid"):
        return
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if mode & 0o077 and path not in _told:
        _told.add(path)
        log.warning(
            "other users than its owner may use the outbox %s, which has personal data: its mode "
            "is %04o",
            path,
            mode,
        )


def _user(number: int) -> str:
    try:
        import pwd

        return f"the user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"the user {number}"
