"""The journal of an import: what has been read and what became of it, for the next run to go on.

A text file of one JSON value per line, written as things happen and only ever added to:

- first, ``{"journal": "intercom-events", "version": 1, "file": …, "address": …, "token": …}``: what
  is imported, where to, and a salted digest of the access token, as each workspace has its own;
- ``["read", BYTES, LINE, DIGEST, STAMP]``: before any of it is sent, that the text was read up to
  so many bytes and this line, what it was, and the second that events without a time of their own
  are stamped with;
- ``["accepted", LINE]``, ``["duplicate", LINE]``, ``["refused", LINE]``: what became of an event,
  by the number of its first line.

What has no such line was on its way, or failed, and is sent again. A line that was cut off by a
crash counts for nothing.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self, cast

from attrs import define, field

from intercom_data_events._files import open_checked
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events.outbox._binding import token_digest

_HEADER = {"journal": "intercom-events", "version": 1}
# Bytes of a line. The longest is the first one, which has a path and an address.
_LONGEST = 64 * 1024
# Lines whose bits are in one integer.
_PAGE = 512
_BEGIN = json.dumps(_HEADER).replace("}", ",").encode()


class JournalError(Exception):
    """The journal cannot be used, or not be written any further; says what to do."""


class NoJournalError(JournalError):
    """What is there is no journal, or a damaged one."""


class Read(NamedTuple):
    """How far the text had been read.

    Attributes:
        position: In bytes, of the decompressed text.
        line: The number of the last line.
        digest: Of the text up to there.
        stamp: Unix seconds, for the events of this piece that have no time of their own.
    """

    position: int
    line: int
    digest: str
    stamp: int


class Done:
    """Numbers of lines that are done: a bit each, so that a million in turn take 400 kB."""

    def __init__(self) -> None:
        # By page, so that a line far beyond all others takes no more memory than another.
        self._pages: dict[int, int] = {}
        self.count = 0

    def __contains__(self, line: int) -> bool:
        page, bit = divmod(line, _PAGE)
        return bool(self._pages.get(page, 0) >> bit & 1)

    def add(self, line: int) -> None:
        """Notes a line."""
        if line not in self:
            page, bit = divmod(line, _PAGE)
            self._pages[page] = self._pages.get(page, 0) | 1 << bit
            self.count += 1


@define
class Journal:
    """What earlier runs noted, and where this one does.

    Attributes:
        path: Where it is.
        done: The lines that need not be sent again.
        reads: The pieces that earlier runs had read, in their order.
        refused: How many lines were refused.
    """

    path: Path
    done: Done = field(factory=Done)
    reads: list[Read] = field(factory=list[Read])
    refused: int = 0
    # Whether this run begun it, and has noted anything.
    _begun: bool = False
    _noted: bool = False
    _descriptor: int = -1

    @classmethod
    def open(
        cls,
        path: Path,
        source: str,
        address: str,
        token: str | Secret[str],
        *,
        restart: bool = False,
        token_renewed: bool = False,
    ) -> Self:
        """Opens the journal of a file, or begins it.

        Args:
            path: Where it is, or is to be.
            source: What is imported.
            address: Where Intercom is, or what stands for it.
            token: The access token, of which no more than a digest is kept.
            restart: Whether to forget what is in it.
            token_renewed: Whether it is known that another token is for the same workspace.

        Raises:
            NoJournalError: It cannot be written there, something else is there, it is damaged, of
                an import to elsewhere, or another user may have written it.
            JournalError: It is in use by another import, or there is no room for it.
        """
        held, token = cast("Secret[str]", hold(token)), ""
        journal = cls(path)
        try:
            journal._descriptor = open_checked(path, "the journal", NoJournalError)
            _check_kind(journal._descriptor, path)
            _lock(journal._descriptor, path)
            with open(journal._descriptor, "rb", closefd=False) as file:
                header, whole = journal._load(file, restart=restart)
            if header is not None:
                journal._check(header, address, None if token_renewed else held)
            # What a crash cut off, so that what is added stands on a line of its own.
            os.ftruncate(journal._descriptor, whole)
            os.lseek(journal._descriptor, 0, os.SEEK_END)
            if header is None:
                salt = os.urandom(8).hex()
                entry = {"file": source, "address": address, "token": token_digest(held, salt)}
                journal._write(json.dumps({**_HEADER, **entry}))
                journal._begun = True
        except OSError as error:
            journal.close()
            raise NoJournalError(
                f"{_cannot(path, error)}, or name another place with --journal"
            ) from error
        except BaseException:
            journal.close()
            raise
        return journal

    def stamp(self, line: int) -> int | None:
        """The second that an event on a line was stamped with by an earlier run, if it was read."""
        place = bisect_left(self.reads, line, key=lambda read: read.line)
        return self.reads[place].stamp if place < len(self.reads) else None

    @property
    def position(self) -> int:
        """Up to where earlier runs had read, in bytes of the text."""
        return self.reads[-1].position if self.reads else 0

    def note_read(self, read: Read, *, lasting: bool) -> None:
        """Notes a piece of the text before any of it is sent.

        Args:
            read: Up to where.
            lasting: Whether events are stamped: what they are stamped with has to outlast even the
                machine.

        Raises:
            JournalError: It cannot be written.
        """
        self._write(json.dumps(["read", *read]))
        self._noted = True
        if lasting:
            self._sync()

    def note(self, status: Literal["accepted", "duplicate", "refused"], line: int) -> None:
        """Notes what became of an event.

        Raises:
            JournalError: It cannot be written.
        """
        self._write(f'["{status}",{line}]')

    def close(self) -> None:
        """Closes it; what was noted is on the disk then, and one with nothing in it is gone."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            try:
                if self._begun and not self._noted:
                    self.path.unlink(missing_ok=True)
                os.fsync(descriptor)
            except OSError:
                pass  # Whatever was wrong with it was told as it was written.
            finally:
                os.close(descriptor)

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"
        with self._told():
            while data:
                data = data[os.write(self._descriptor, data) :]

    def _sync(self) -> None:
        with self._told():
            os.fsync(self._descriptor)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(
                f"{_cannot(self.path, error)}, then run the same command again, which goes on"
            ) from error

    def _load(self, file: BinaryIO, *, restart: bool) -> tuple[dict[str, object] | None, int]:
        """Reads what there is: the header, and how many bytes are to stay, the whole lines."""
        if not _BEGIN.startswith(file.read(len(_BEGIN))):
            raise self._unusable("is no journal of an import")
        file.seek(0)
        header, whole = None, 0
        for number, line in enumerate(() if restart else _whole_lines(file), 1):
            whole += len(line)
            try:
                if len(line) > _LONGEST:
                    raise ValueError(len(line))  # noqa: TRY301  # as below
                entry = json.loads(line)
                if number > 1:
                    self._take(entry)
                elif {name: entry.get(name) for name in _HEADER} == _HEADER:
                    header = entry
                else:
                    raise ValueError(entry)  # noqa: TRY301  # damaged like any other line
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise self._unusable(f"is damaged in line {number:,}") from error
        return header, whole

    def _check(self, header: dict[str, object], address: str, token: Secret[str] | None) -> None:
        begun_for = header.get("address")
        if begun_for != address:
            raise self._unusable(f"is of an import to {begun_for}, not to {address}")
        known = str(header.get("token"))
        if token is not None and known != token_digest(token, known.partition(":")[0]):
            raise self._unusable(
                "is of an import with another access token; if that is for the same workspace and "
                "was renewed, say --token-renewed; else"
            )

    def _unusable(self, why: str) -> NoJournalError:
        return NoJournalError(
            f"{self.path} {why}: move it away, to begin anew, or name another by --journal"
        )

    def _take(self, entry: list[object]) -> None:
        match entry:
            case ["accepted" | "duplicate" | "refused" as status, int(line)] if self._was_read(
                line
            ):
                self.done.add(line)
                self.refused += status == "refused"
            case ["read", int(position), int(line), str(digest), int(stamp)]:
                read = Read(position, line, digest, stamp)
                last = self.reads[-1] if self.reads else Read(0, 0, "", 0)
                # A line has a byte at least, but for the last.
                if position < last.position or not last.line <= line <= position + 1:
                    raise ValueError(read)
                self.reads.append(read)
            case _:
                raise ValueError

    def _was_read(self, line: int) -> bool:
        return bool(self.reads) and 0 < line <= self.reads[-1].line


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the lines that have an end, and of one that is too long the beginning."""
    while line := file.readline(_LONGEST + 1):
        if line.endswith(b"\n") or len(line) > _LONGEST:
            yield line


def _cannot(path: Path, error: OSError) -> str:
    return f"the journal {path} cannot be written ({error.strerror}): make room or allow it"


def _check_kind(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise NoJournalError(f"{path} is no file that a journal can be kept in: name another")


def _lock(descriptor: int, path: Path) -> None:
    """Keeps other imports of the same file out, as long as this one lives."""
    if sys.platform == "win32":
        return  # Locks there keep this process from reading it, too.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(
            f"another import is using the journal {path}: wait for it to end"
        ) from error
