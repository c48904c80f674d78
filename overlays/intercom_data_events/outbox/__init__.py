# ruff: noqa: S608  # the parts of the statements are our own
"""Tracked events in a file, until Intercom has accepted them.

A tracker that is given an outbox writes each event to it before ``track`` returns. Several
processes may share the file: one claims an event to send it, and removes it once it is accepted. A
process renews its claims; those of a process that died end by themselves, and others send its
events. A rejected event stays as a *dead letter*, with its error.

A written event outlasts the process, however that ends. A loss of power can take those of the last
moments: no call waits for the disk.

:class:`Outbox` looks into such a file, for a health check or an admin page. It may be in use
meanwhile. ``intercom-events outbox`` does the same from the command line.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from itertools import islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import frozen

from intercom_data_events.errors import OutboxLockedError
from intercom_data_events.outbox import _rows
from intercom_data_events.outbox._binding import bound
from intercom_data_events.outbox._errors import UNHARMED
from intercom_data_events.outbox._file import OutboxFile
from intercom_data_events.outbox._schema import in_turn, one, transaction

__all__ = ["DeadLetter", "Outbox", "Status"]

# Rows that are changed in one transaction.
_AT_ONCE = 500

_STATUS = (
    "SELECT count(*), count(owner) FILTER (WHERE held_until > :now), "
    "count(*) FILTER (WHERE owner IS NULL AND held_until > :now), "
    f"{_rows.number('min(tracked_at)')} FROM events"
)
# In a file that another program has written to, columns may be NULL all the same.
_REVIVE = (
    "INSERT INTO events (event, tracked_at) "
    "SELECT coalesce(event, ''), coalesce(tracked_at, 0) FROM dead WHERE id = ?"
)
_FORGET = "DELETE FROM dead WHERE id = ?"
_LETTER = ", ".join(
    (
        *map(_rows.number, ("tracked_at", "died_at")),
        *map(_rows.string, ("error", "message")),
        _rows.number("status"),
        _rows.string("request_id"),
    )
)


@frozen
class DeadLetter:
    """A rejected event, and its error.

    Attributes:
        id: Its number in the file.
        event: Its fields, as the API names them.
        tracked_at: When it was tracked, in Unix seconds.
        died_at: When it was rejected, in Unix seconds.
        error: The kind of error, such as "NotFoundError".
        message: The message of the error.
        status: The HTTP status, or None if no answer rejected it.
        request_id: The id that Intercom's support asks for, or None.
    """

    id: int
    event: Mapping[str, object]
    tracked_at: float
    died_at: float
    error: str
    message: str
    status: int | None
    request_id: str | None


@frozen
class Status:
    """What is in a file.

    Attributes:
        queued: Events that wait or are in flight.
        claimed: Those of them that a process has claimed to send.
        held: Those of them that failed temporarily, and wait for their next attempt.
        dead: Dead letters.
        oldest: When the oldest event was tracked, in Unix seconds, or None.
        address: The address of Intercom, or None before a tracker has used the file.
        workspace: The name of the workspace, or None.
        size: Bytes of the file and its log.
    """

    queued: int
    claimed: int
    held: int
    dead: int
    oldest: float | None
    address: str | None
    workspace: str | None
    size: int


class Outbox:
    """Inspects the file in which a tracker keeps events, and manages its dead letters.

    It is safe to share between threads, and to use while trackers use the file. Every method raises
    an OutboxError, with the remedy, if the file cannot be used, and a RuntimeError once it is
    closed.

    Args:
        path: The file, which a tracker has made.

    Raises:
        OutboxError: There is none, or it cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.tracker import Tracker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "events.outbox")
        >>> emulator = Emulator(contacts=[])
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> with Tracker(client, path, unknown_contact_patience=0) as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        >>> with Outbox(path) as outbox:
        ...     status = outbox.status()
        ...     letters = list(outbox.dead_letters())
        ...     retried = outbox.retry()
        >>> status.queued, status.dead, letters[0].error, retried
        (0, 1, 'NotFoundError', 1)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = OutboxFile(path, None, patience=1.0, create=False)

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._file.path

    def status(self, now: float | None = None) -> Status:
        """Returns what is in the file.

        Args:
            now: The current time, in Unix seconds, to leave out claims and delays that are over.
                None to count all that no process has ended yet.
        """
        with self._file.using(self._file.main) as connection:
            queued, claimed, held, oldest = connection.execute(
                _STATUS, {"now": -math.inf if now is None else now}
            ).fetchone()
            dead = one(connection, "SELECT count(*) FROM dead")
            known = bound(connection, self._file.path)
        size = 0
        for path in (os.path.realpath(self._file.path), self._file.log_path):
            with suppress(OSError):
                size += os.stat(path).st_size
        return Status(
            queued,
            claimed,
            held,
            dead,
            _rows.seconds(oldest),
            known.get("address"),
            known.get("workspace"),
            size,
        )

    def waiting(self) -> Iterator[Mapping[str, object]]:
        """Yields the fields of the events that wait or are in flight, oldest first."""
        return (
            _rows.fields(text)
            for _, text in self._each(
                f"SELECT id, {_rows.EVENT} FROM events WHERE id > ? ORDER BY id"
            )
        )

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yields the rejected events, oldest first."""
        rows = self._each(f"SELECT id, {_rows.EVENT}, {_LETTER} FROM dead WHERE id > ? ORDER BY id")
        return (
            DeadLetter(
                number,
                _rows.fields(event),
                _rows.seconds(tracked_at) or 0.0,
                _rows.seconds(died_at) or 0.0,
                _rows.text(error) or "",
                _rows.text(message) or "",
                status if isinstance(status, int) else None,
                _rows.text(request_id),
            )
            for number, event, tracked_at, died_at, error, message, status, request_id in rows
        )

    def retry(self, numbers: Iterable[int] | None = None) -> int:
        """Puts dead letters back, to be sent again by a tracker or ``outbox drain``.

        Args:
            numbers: Which ones; None for all that there are now.

        Returns:
            The number of events that were put back.
        """
        return self._each_dead(numbers, _REVIVE, _FORGET)

    def forget(self, numbers: Iterable[int] | None = None) -> int:
        """Deletes dead letters.

        Args:
            numbers: Which ones; None for all that there are now.

        Returns:
            The number of events that were deleted.
        """
        return self._each_dead(numbers, _FORGET)

    def compact(self) -> int:
        """Rewrites the file, as small as what is in it.

        Files shrink by themselves while few events come, but one that an earlier version made does
        so only after this. It needs free disk space for twice what is in the file, and no other
        process or thread can write meanwhile.

        Returns:
            The bytes of the file and its log.

        Raises:
            OutboxLockedError: Another process, or another thread, is writing or reading. Nothing is
                lost; try again.
        """
        file = self._file
        with file.beside(file.patience) as connection, file.using(file.main):
            # A copy of a large file would fill the memory.
            connection.execute("PRAGMA temp_store = FILE")
            self._empty_log(connection)
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            try:
                in_turn(connection, "VACUUM", file.patience)
            finally:
                # Also where the disk was full: the log may have filled it.
                self._empty_log(connection)
        return self.status().size

    def _empty_log(self, connection: sqlite3.Connection) -> None:
        busy = one(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
        if busy:
            raise OutboxLockedError(
                f"the outbox {self.path} must not be in use while it is compacted, but another "
                f"process is reading or writing it; try again{UNHARMED}"
            )

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Enters a block that closes the file at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()

    def _each_dead(self, numbers: Iterable[int] | None, *statements: str) -> int:
        chosen = self._all_dead() if numbers is None else iter(numbers)
        found = 0
        while some := list(islice(chosen, _AT_ONCE)):
            with self._file.using(self._file.main) as connection, transaction(connection):
                for number in some:
                    changed = [connection.execute(each, (number,)).rowcount for each in statements]
                    # The last statement deletes it, and so tells whether it was there.
                    found += changed[-1]
        return found

    def _all_dead(self) -> Iterator[int]:
        """Yields the numbers of the present dead letters, not of later ones."""
        with self._file.using(self._file.main) as connection:
            last = one(connection, "SELECT coalesce(max(id), 0) FROM dead")
        numbers = (row[0] for row in self._each("SELECT id FROM dead WHERE id > ? ORDER BY id"))
        return takewhile(lambda number: number <= last, numbers)

    def _each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yields rows by their first column, some at a time, so that no statement takes long."""
        last: float = _rows.BEGIN
        while True:
            with self._file.using(self._file.main) as connection:
                with closing(connection.execute(f"{query} LIMIT {_AT_ONCE}", (last,))) as cursor:
                    rows = _rows.some(cursor)
                if rows and rows[-1][0] <= last:
                    raise sqlite3.DatabaseError("database disk image is malformed")
            if not rows:
                return
            yield from rows
            last = rows[-1][0]
