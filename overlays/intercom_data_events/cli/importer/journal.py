"""The journal of an import: what was read, and the outcomes, so that the next run resumes.

It is an append-only text file of one JSON value per line:

- the header, ``{"journal": "intercom-events", "version": 1, "file": …, "address": …, "token": …}``:
  the imported file, the API's address, and a salted digest of the access token, which identifies
  the workspace;
- ``["read", BYTES, LINE, DIGEST, STAMP]``, written before any event of a piece of text is sent: how
  far the text was read, its digest up to there, and the second with which events without
  ``created_at`` are stamped;
- ``["accepted", LINE]``, or "duplicate" or "refused": the outcome of an event, by the number of its
  first line.

An event without an outcome was in flight or failed, and is sent again. A line that a crash or a
full disk has truncated is ignored.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from bisect import bisect_left
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self, TypeAlias, cast

from attrs import define, field

from intercom_data_events._files import open_checked
from intercom_data_events._sending.secret import Secret, hold
from intercom_data_events.outbox._binding import token_digest

_HEADER = {"journal": "intercom-events", "version": 1}
_BegunFor: TypeAlias = tuple[str, str]
_BEGIN = json.dumps(_HEADER).replace("}", ",").encode()
# Bytes of a line. The header is the longest, because it has a path and an address.
_LONGEST = 64 * 1024
# Characters of a digest, at most.
_DIGEST = 128
# Lines of a page.
_PAGE = 4096
# Pages and pieces in memory: 200 million lines, and more pieces than an import of a week has.
_MOST_PAGES = 50_000
_MOST_READS = 150_000
# Bytes between two positions at which the text can be compared; in a long text, a thousandth of it.
_APART = 64 * 1024


class JournalError(Exception):
    """The journal cannot be used or written; the message has the remedy."""


class NoJournalError(JournalError):
    """The file is not a journal for this import, or is damaged."""


class Read(NamedTuple):
    """How far the text was read.

    Attributes:
        position: In bytes of the decompressed text.
        line: The number of the last line.
        digest: The digest of the text up to there.
        stamp: Unix seconds for the events of this piece that have no `created_at`.
    """

    position: int
    line: int
    digest: str
    stamp: int


class Done:
    """The numbers of lines that are done: one bit each, so that a million lines take 200 kB."""

    def __init__(self) -> None:
        # By page, so that a line far beyond the others needs no more memory.
        self._pages: dict[int, int] = {}

    def __contains__(self, line: int) -> bool:
        page, bit = divmod(line, _PAGE)
        return bool(self._pages.get(page, 0) >> bit & 1)

    def add(self, line: int) -> None:
        """Adds a line.

        Raises:
            ValueError: The lines take more pages than any import has.
        """
        page, bit = divmod(line, _PAGE)
        self._pages[page] = self._pages.get(page, 0) | 1 << bit
        if len(self._pages) > _MOST_PAGES:
            raise ValueError(line)


@define
class Journal:
    """The records of earlier runs, to which this run adds its own.

    Attributes:
        path: The path of the file.
        done: The lines that earlier runs have done.
        reads: The pieces that earlier runs have read, in order.
        before: How many lines earlier runs have done.
        refused: How many of them were rejected.
    """

    path: Path
    done: Done = field(factory=Done)
    reads: list[Read] = field(factory=list[Read])
    before: int = 0
    refused: int = 0
    # Whether this run created the file, and whether it recorded a piece.
    _begun: bool = False
    _noted: bool = False
    _descriptor: int = -1
    # The bytes to write next; after a partial write, the rest.
    _unwritten: bytearray = field(factory=bytearray)

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
        """Opens the journal of a file, or creates it.

        Args:
            path: The path of the journal.
            source: The imported file.
            address: The API's address.
            token: The access token; the file has only a digest of it.
            restart: Whether to discard the contents.
            token_renewed: Whether to accept another token of the same workspace.

        Raises:
            NoJournalError: The file cannot be opened, is not a journal, is damaged, is for another
                address or token, or may have been written by another user.
            JournalError: Another import is using it, or it cannot be written.
        """
        held, token = cast("Secret[str]", hold(token)), ""
        journal = cls(path)
        with (
            _explaining(path, "or choose another path with --journal", NoJournalError),
            ExitStack() as failed,
        ):
            journal._descriptor = open_checked(path, "the journal", NoJournalError)
            failed.callback(journal.close)
            _lock(journal._descriptor, path)
            with open(journal._descriptor, "rb", closefd=False) as file:
                begun_for, whole = journal._load(file, restart=restart)
            if begun_for is not None:
                journal._check(*begun_for, address, None if token_renewed else held)
            # Removes a line that a crash has truncated, so that the next one begins on a new line.
            os.ftruncate(journal._descriptor, whole)
            os.lseek(journal._descriptor, 0, os.SEEK_END)
            if begun_for is None:
                digest = token_digest(held, os.urandom(8).hex())
                header = {"file": source, "address": address, "token": digest}
                journal._add(json.dumps(_HEADER | header))
                journal.save()
                journal._begun = True
            failed.pop_all()
        return journal

    def stamp(self, line: int) -> int | None:
        """The second with which an earlier run stamped the event on a line, if it was read."""
        place = bisect_left(self.reads, line, key=lambda read: read.line)
        return self.reads[place].stamp if place < len(self.reads) else None

    @property
    def position(self) -> int:
        """How far earlier runs have read, in bytes of the text."""
        return self.reads[-1].position if self.reads else 0

    def note_read(self, read: Read, *, lasting: bool) -> None:
        """Writes how far the text was read, before any of it is sent.

        Args:
            read: The position.
            lasting: Whether events are stamped; their stamp must survive a crash of the machine.

        Raises:
            JournalError: The file cannot be written.
        """
        self._add(json.dumps(["read", *read]))
        self.save()
        self._noted = True
        if lasting:
            with self._told():
                os.fsync(self._descriptor)

    def note(self, status: Literal["accepted", "duplicate", "refused"], line: int) -> None:
        """Adds the outcome of an event, which :meth:`save` writes."""
        self._add(f'["{status}",{line}]')

    def save(self) -> None:
        """Writes what was added, so that it survives a kill of this process.

        Raises:
            JournalError: The file cannot be written. The next call completes a partial write.
        """
        with self._told():
            while self._unwritten:
                del self._unwritten[: os.write(self._descriptor, self._unwritten)]

    def close(self) -> None:
        """Flushes the file to disk and closes it; deletes it if this run recorded nothing."""
        if self._descriptor < 0:
            return
        # An earlier call has reported the failure.
        with suppress(JournalError):
            self.save()
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):
            if self._begun and not self._noted:
                self.path.unlink(missing_ok=True)
            os.fsync(descriptor)
        os.close(descriptor)

    def _add(self, line: str) -> None:
        self._unwritten += line.encode() + b"\n"

    def _told(self) -> AbstractContextManager[None]:
        return _explaining(self.path, "then run the same command again to resume", JournalError)

    def _load(self, file: BinaryIO, *, restart: bool) -> tuple[_BegunFor | None, int]:
        """Reads the file; returns the header, and the number of bytes in complete lines."""
        if not _BEGIN.startswith(file.read(len(_BEGIN))):
            raise self._unusable("is not the journal of an import")
        file.seek(0)
        begun_for, whole = None, 0
        for number, line in enumerate(() if restart else _whole_lines(file), 1):
            whole += len(line)
            try:
                if len(line) > _LONGEST:
                    raise ValueError(len(line))  # noqa: TRY301  # as below
                entry = json.loads(line.decode())
                if begun_for is None:
                    begun_for = _begun_for(entry)
                else:
                    self._take(entry)
            except (ValueError, RecursionError) as error:
                raise self._unusable(f"is damaged in line {number:,}") from error
        return begun_for, whole

    def _check(self, begun_for: str, known: str, address: str, token: Secret[str] | None) -> None:
        if begun_for != address:
            raise self._unusable(f"is for an import to {begun_for}, not to {address}")
        if token is not None and known != token_digest(token, known.partition(":")[0]):
            raise self._unusable(
                "is for an import with another access token",
                "pass --token-renewed if both tokens are for the same workspace; otherwise ",
            )

    def _unusable(self, why: str, remedy: str = "") -> NoJournalError:
        return NoJournalError(
            f"{self.path} {why}; {remedy}move it away to import the whole file, or choose another "
            "path with --journal"
        )

    def _take(self, entry: object) -> None:
        last = self.reads[-1] if self.reads else Read(0, 0, "", 0)
        match entry:
            case ["accepted" | "duplicate" | "refused" as status, int(line)] if (
                0 < line <= last.line
            ):
                if line not in self.done:
                    self.done.add(line)
                    self.before += 1
                    self.refused += status == "refused"
            # Each line but the last has at least one byte.
            case ["read", int(position), int(line), str(digest), int(stamp)] if (
                last.position <= position
                and last.line <= line <= position + 1
                and len(digest) <= _DIGEST
            ):
                self._take_read(Read(position, line, digest, stamp))
            case _:
                raise ValueError(entry)

    def _take_read(self, read: Read) -> None:
        """Adds a piece; merges small ones with the same stamp, of which a pipe has many."""
        start = self.reads[-2].position if len(self.reads) > 1 else 0
        if (
            self.reads
            and read.stamp == self.reads[-1].stamp
            and read.position - start < max(_APART, start // 1000)
        ):
            self.reads.pop()
        elif len(self.reads) >= _MOST_READS:
            raise ValueError(read)
        self.reads.append(read)


def _begun_for(entry: object) -> _BegunFor:
    """Returns the address and the token's digest in a header."""
    match entry:
        case {
            "journal": "intercom-events",
            "version": 1,
            "address": str(address),
            "token": str(token),
        }:
            return address, token
        case _:
            raise ValueError(entry)


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the complete lines, and the beginning of a line that is too long."""
    while line := file.readline(_LONGEST + 1):
        if line.endswith(b"\n") or len(line) > _LONGEST:
            yield line


@contextmanager
def _explaining(path: Path, remedy: str, error: type[JournalError]) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        raise error(
            f"cannot write the journal {path}: {(problem.strerror or str(problem)).lower()}; check "
            f"the free space and permissions, {remedy}"
        ) from problem


def _lock(descriptor: int, path: Path) -> None:
    """Locks out other imports of the same file while this process lives."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise NoJournalError(f"the journal {path} is not a regular file; choose another path")
    if sys.platform == "win32":
        return  # A lock on Windows also keeps this process from reading the file.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(
            f"another import is using the journal {path}; wait for it to end, or stop it"
        ) from error
