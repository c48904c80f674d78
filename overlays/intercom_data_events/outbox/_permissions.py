"""Who may own and write the files of an outbox."""

from __future__ import annotations

import logging
import os
import stat

from intercom_data_events.errors import OutboxError

log = logging.getLogger("intercom_data_events")

_told: set[str] = set()


def check(paths: tuple[str, ...]) -> None:
    """Refuses files that somebody else may have made or written; missing ones are left out.

    Two users of services share a file by a group that both are in, with its write permission.

    Raises:
        OutboxError: A file is another user's and not so shared, or everybody may write to it.
    """
    if not hasattr(os, "geteuid"):
        return  # Windows has no such permissions.
    for path in paths:
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            continue
        mode = stat.S_IMODE(found.st_mode)
        if mode & stat.S_IWOTH:
            raise OutboxError(
                f"everybody may write to the outbox {path} (mode {mode:04o}), so its events may be "
                f"anybody's; if they are yours, run: chmod o-w {path}"
            )
        is_shared = bool(mode & stat.S_IWGRP) and found.st_gid in {os.getegid(), *os.getgroups()}
        if found.st_uid not in (os.geteuid(), 0) and not is_shared:
            raise OutboxError(
                f"the outbox {path} belongs to {_user(found.st_uid)}, not to this process' user; "
                "run as that user, share it by a group that may write to it, or choose another path"
            )
    _tell(paths[0])


def _tell(path: str) -> None:
    """Logs once who else may read a file."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    if mode & 0o077 and path not in _told:
        _told.add(path)
        log.warning("others than its owner may use the outbox %s: its mode is %04o", path, mode)


def _user(number: int) -> str:
    try:
        import pwd

        return f"the user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"the user {number}"
