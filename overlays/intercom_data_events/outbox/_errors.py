"""Says what is wrong with an outbox, and what to do about it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from intercom_data_events._validation import escape
from intercom_data_events.errors import OutboxError, OutboxLockedError

#: The end of messages about errors that harm no event in the file.
UNHARMED = "; the events in it are safe"

_LOCKED = "is locked by another program; end the program that holds the lock"
_ALLOW = "allow this process to write to it, to its -wal and -shm files, and to their folder"
_NO_DESCRIPTORS = (
    "cannot be opened because this process has too many files open; close some, or raise the "
    "limit (ulimit -n)"
)
_DAMAGED = (
    "is damaged; move it and its -wal file aside, and recover its events with sqlite3's .recover"
)
_FULL = "cannot be written because the disk is full"
# SQLite does not distinguish an exhausted quota or a file size limit from a failure of the disk.
_FULL_OR_FAILED = (
    f"{_FULL}, a quota or limit is reached, or the disk failed; free some space, or see the system "
    "log"
)
_UNWRITTEN = ("SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
_REMEDIES = {
    "SQLITE_FULL": f"{_FULL}; free some space",
    "SQLITE_READONLY": f"cannot be written; {_ALLOW}",
    "SQLITE_PERM": f"cannot be opened; {_ALLOW}",
    "SQLITE_CANTOPEN": f"cannot be opened; {_ALLOW}",
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_PROTOCOL": _LOCKED,
    "SQLITE_NOTADB": "is damaged or not an outbox; move it aside, or choose another path",
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_IOERR": "cannot be read or written because the disk failed; see the system log",
}
# For example, another program removed or changed a table.
_CHANGED = "does not have the schema of an outbox; move it aside, or choose another path"
# The errors that harm no event in the file.
_HARMLESS = _REMEDIES.keys() - {"SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_IOERR"}
# The number of files that opening an outbox may open: the database and its log twice, and the log's
# index.
_FILES = 6
# PyPy's errors have no names.
_NAMES = {
    "database or disk is full": "SQLITE_FULL",
    "attempt to write a readonly database": "SQLITE_READONLY",
    "access permission denied": "SQLITE_PERM",
    "unable to open database": "SQLITE_CANTOPEN",
    "Could not open database": "SQLITE_CANTOPEN",
    "database is locked": "SQLITE_BUSY",
    "is locked": "SQLITE_LOCKED",
    "locking protocol": "SQLITE_PROTOCOL",
    "file is not a database": "SQLITE_NOTADB",
    "file is encrypted": "SQLITE_NOTADB",
    "malformed": "SQLITE_CORRUPT",
    "Could not decode to UTF-8": "SQLITE_CORRUPT",
    "disk I/O error": "SQLITE_IOERR",
}


def code_of(error: BaseException | None) -> str:
    """Returns the kind of an error, such as "SQLITE_IOERR"; "" if it is not SQLite's own."""
    if isinstance(error, OutboxError):
        error = error.__cause__
    if isinstance(error, UnicodeError):
        return "SQLITE_CORRUPT"  # Python reads the schema as UTF-8.
    name = getattr(error, "sqlite_errorname", None)
    if name is None and isinstance(error, sqlite3.Error):
        said = str(error)
        name = next((name for text, name in _NAMES.items() if text in said), "")
    if name in _UNWRITTEN:
        return "SQLITE_FULL"
    return "_".join((name or "").split("_")[:2])


def is_full(error: BaseException) -> bool:
    """Whether the disk is full."""
    return code_of(error) == "SQLITE_FULL"


def is_busy(error: BaseException) -> bool:
    """Whether another connection holds a lock."""
    return _REMEDIES.get(code_of(error)) == _LOCKED


def explained(error: sqlite3.Error | UnicodeError, path: Path) -> OutboxError:
    """Returns the OutboxError to raise for an error of SQLite."""
    code = code_of(error)
    escape(error)  # SQLite quotes parts of the file.
    remedy = _REMEDIES.get(code, _CHANGED)
    if getattr(error, "sqlite_errorname", None) in _UNWRITTEN:
        remedy = _FULL_OR_FAILED
    if code in ("SQLITE_CANTOPEN", "SQLITE_IOERR") and _lacks_descriptors():
        remedy = _NO_DESCRIPTORS
    kind = OutboxLockedError if remedy == _LOCKED else OutboxError
    return kind(f"the outbox {path} {remedy} ({error}){UNHARMED if code in _HARMLESS else ''}")


def unopened(error: OSError | ValueError, path: Path) -> OutboxError:
    """Returns the OutboxError to raise if the file system rejects a path."""
    reason = error.strerror if isinstance(error, OSError) else error
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return OutboxError(f"the outbox {path} {_NO_DESCRIPTORS}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutboxError(
            f"the outbox {path} cannot be created because the disk is full; free some space"
        )
    if isinstance(error, FileNotFoundError) and path.parent.is_dir():
        link = "is a symbolic link to a file that does not exist; remove the link"
        said = link if path.is_symlink() else "does not exist; check the path"
        return OutboxError(f"the outbox {path} {said}")
    return OutboxError(
        f"the outbox {path} cannot be opened ({reason}); choose a path in an existing folder that "
        "this process may write to"
    )


def _lacks_descriptors() -> bool:
    opened: list[int] = []
    try:
        # The files that were opened before the failure are closed by now.
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(_FILES))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False
