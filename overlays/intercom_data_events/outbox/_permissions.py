"""Who may own and write the files of an outbox."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from intercom_data_events import _files
from intercom_data_events.errors import OutboxError


def check(paths: tuple[str, ...]) -> None:
    """Refuses files that another user may have made or written; missing ones are left out.

    Args:
        paths: The database, its log and the log's index.

    Raises:
        OutboxError: A file is another user's and not shared by a group, or everybody may write to
            it, or it is another user's link, or a link leads from beside the database elsewhere.
    """
    _files.followed(Path(paths[0]), OutboxError)
    for path in paths:
        try:
            found = os.stat(path) if path is paths[0] else os.lstat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISLNK(found.st_mode):
            # SQLite makes none, and would write to where it leads.
            raise OutboxError(
                f"the outbox {paths[0]} cannot be used, because {path} is a symbolic link, which "
                f"{_files.user(found.st_uid)} has made; remove the link"
            )
        _files.check(path, found, "the outbox", OutboxError)
