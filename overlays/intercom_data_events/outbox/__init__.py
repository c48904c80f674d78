# ruff: noqa: S608  # the parts of the statements are our own
"""A file that keeps tracked events until Intercom has accepted them.

A tracker with an outbox writes each event to the file before ``track`` returns. Several processes
may share the file. A process claims an event to send it, and removes it once it is accepted. It
renews its claims; the claims of a process that died expire, and other processes send its events. A
rejected event stays in the file as a *dead letter*, with its error.

Events in the file survive the end of the process, however it ends. A power failure can lose events
of the last moments, because no call waits for the disk.

:class:`Outbox` inspects such a file, for a health check or an admin page, also while it is in use.
``intercom-events outbox`` does the same on the command line.
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
# Columns may be NULL if another program has written to the file.
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
        id: The number of the dead letter in the file.
        event: The fields of the event, as the API names them.
        tracked_at: When it was tracked, in Unix seconds.
        died_at: When it was rejected, in Unix seconds.
        error: The class of the error, such as "NotFoundError".
        message: The message of the error.
        status: The HTTP status, or None if the event was not rejected by an answer.
        request_id: The id that Intercom's support asks for, or None.

    Example:
        >>> import pathlib, tempfile
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.outbox import Outbox
        >>> from intercom_data_events.tracker import Tracker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "events.outbox")
        >>> client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
        >>> with Tracker(client, path, unknown_contact_patience=0) as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        >>> with Outbox(path) as outbox:
        ...     [letter] = outbox.dead_letters()
        >>> letter.event["event_name"], letter.error, letter.status
        ('placed-order', 'NotFoundError', 404)
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
    """The content of an outbox, counted.

    Attributes:
        queued: Events that are waiting or in flight.
        claimed: Queued events that a process has claimed to send.
        held: Queued events that are waiting for another attempt after a transient failure.
        dead: Dead letters.
        oldest: When the oldest queued event was tracked, in Unix seconds, or None.
        address: The address of Intercom, or None if no tracker has used the file yet.
        workspace: Your own name for the workspace, or None.
        size: The bytes of the file and its log.

    Example:
        >>> import pathlib, tempfile
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.outbox import Outbox
        >>> from intercom_data_events.tracker import Tracker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "events.outbox")
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> with Tracker(client, path, workspace="production") as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        >>> with Outbox(path) as outbox:
        ...     status = outbox.status()
        >>> status.queued, status.dead, status.workspace
        (0, 0, 'production')
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
    """Inspects the outbox of a tracker, and manages its dead letters.

    It is thread-safe, and can be used while trackers use the file. Every method raises an
    OutboxError with the remedy if the file cannot be used, and a RuntimeError after ``close()``.

    Args:
        path: The file that a tracker has created.

    Raises:
        OutboxError: The file does not exist or cannot be used.

    Example:
        >>> import pathlib, tempfile
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> from intercom_data_events.tracker import Tracker
        >>> path = pathlib.Path(tempfile.mkdtemp(), "events.outbox")
        >>> client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
        >>> with Tracker(client, path, unknown_contact_patience=0) as tracker:
        ...     tracker.track("placed-order", user_id="314159")
        ...     tracker.track("placed-order", user_id="271828")
        >>> with Outbox(path) as outbox:
        ...     letters = list(outbox.dead_letters())
        ...     retried = outbox.retry([letters[0].id])
        ...     forgotten = outbox.forget([letters[1].id])
        ...     status = outbox.status()
        >>> [letter.error for letter in letters], retried, forgotten
        (['NotFoundError', 'NotFoundError'], 1, 1)
        >>> status.queued, status.dead
        (1, 0)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = OutboxFile(path, None, patience=1.0, create=False)

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._file.path

    def status(self, now: float | None = None) -> Status:
        """Returns the content of the file, counted.

        Args:
            now: The current time in Unix seconds, to leave out expired claims and delays. None
                counts all claims and delays that no process has ended yet.
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
        """Yields the fields of the queued events, which wait or are in flight, oldest first."""
        return (
            _rows.fields(text)
            for _, text in self._each(
                f"SELECT id, {_rows.EVENT} FROM events WHERE id > ? ORDER BY id"
            )
        )

    def dead_letters(self) -> Iterator[DeadLetter]:
        """Yields the dead letters, oldest first."""
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
        """Queues dead letters again, to be sent by a tracker or ``intercom-events outbox drain``.

        Args:
            numbers: The ids of the dead letters; None for all of them.

        Returns:
            The number of events that were queued again.
        """
        return self._each_dead(numbers, _REVIVE, _FORGET)

    def forget(self, numbers: Iterable[int] | None = None) -> int:
        """Deletes dead letters.

        Args:
            numbers: The ids of the dead letters; None for all of them.

        Returns:
            The number of events that were deleted.
        """
        return self._each_dead(numbers, _FORGET)

    def compact(self) -> int:
        """Rewrites the file without unused space.

        Files shrink by themselves while few events arrive. A file that an earlier version made does
        so only after it was compacted once. Compacting needs free disk space for twice the content,
        and no other process or thread can write during that time.

        Returns:
            The bytes of the file and its log.

        Raises:
            OutboxLockedError: Another process or thread is writing or reading. Nothing is lost; try
                again.
        """
        file = self._file
        with file.beside(file.patience) as connection, file.using(file.main):
            # A copy of a large file would not fit in memory.
            connection.execute("PRAGMA temp_store = FILE")
            self._empty_log(connection)
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            try:
                in_turn(connection, "VACUUM", file.patience)
            finally:
                # Also after the disk was full: the log may have filled it.
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
                    # The last statement deletes the letter; its count tells whether it existed.
                    found += changed[-1]
        return found

    def _all_dead(self) -> Iterator[int]:
        """Yields the ids of the current dead letters, not of later ones."""
        with self._file.using(self._file.main) as connection:
            last = one(connection, "SELECT coalesce(max(id), 0) FROM dead")
        numbers = (row[0] for row in self._each("SELECT id FROM dead WHERE id > ? ORDER BY id"))
        return takewhile(lambda number: number <= last, numbers)

    def _each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yields rows by their first column, in parts, so that no statement takes long."""
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
