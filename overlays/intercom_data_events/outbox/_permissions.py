"""Who may own and write the files of an outbox."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from intercom_data_events import _files
from intercom_data_events.errors import OutboxError


def check(paths: tuple[str, ...]) -> None:
    """Rejects files that another user may have created or written; ignores missing files.

    Args:
        paths: The database, its log and the log's index.

    Raises:
        OutboxError: Another user owns a file that is not shared with a group, or a symbolic link to
            it; or all users may write to a file; or the log or its index is a symbolic link.
    """
    _files.followed(Path(paths[0]), OutboxError)
    for path in paths:
        try:
            found = os.stat(path) if path is paths[0] else os.lstat(path)
        except (OSError, ValueError):
            continue
        if stat.S_ISLNK(found.st_mode):
            # SQLite creates no links, but would follow this one and write to its target.
            raise OutboxError(
                f"the outbox {paths[0]} cannot be used because {path} is a symbolic link created "
                f"by {_files.user(found.st_uid)}; remove the link"
            )
        _files.check(path, found, "the outbox", OutboxError)
