"""The journal of an import: what was read, and what became of it, so that the next run resumes.

A text file of one JSON value per line, which is only ever added to:

- first, ``{"journal": "intercom-events", "version": 1, "file": …, "address": …, "token": …}``: what
  is imported, where to, and a salted digest of the access token, because each workspace has one;
- ``["read", BYTES, LINE, DIGEST, STAMP]``, before any of a piece of text is sent: up to where it
  was read, what the text up to there was, and the second that events without a time of their own
  are stamped with;
- ``["accepted", LINE]``, or "duplicate" or "refused": the outcome of an event, by the number of its
  first line.

An event without such a line was in flight, or failed, and is sent again. A line that a crash or a
full disk has cut off counts for nothing.
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
# Bytes of a line. The longest is the first one, which has a path and an address.
_LONGEST = 64 * 1024
# Characters of a digest, at most.
_DIGEST = 128
# Lines of a page.
_PAGE = 4096
# Pages and pieces that are held: 200 million lines, and more pieces than a week of imports makes.
_MOST_PAGES = 50_000
_MOST_READS = 150_000
# Bytes between two places where the text can be compared; further on, a thousandth of the text.
_APART = 64 * 1024


class JournalError(Exception):
    """The journal cannot be used, or not be written any further; says what to do."""


class NoJournalError(JournalError):
    """What is there is not a journal, or a damaged one."""


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
    """Numbers of lines that are done: a bit each, so that a million in turn take 200 kB."""

    def __init__(self) -> None:
        # By page, so that a line far beyond all others takes no more memory than another.
        self._pages: dict[int, int] = {}

    def __contains__(self, line: int) -> bool:
        page, bit = divmod(line, _PAGE)
        return bool(self._pages.get(page, 0) >> bit & 1)

    def add(self, line: int) -> None:
        """Takes in a line.

        Raises:
            ValueError: They are spread over more pages than those of any import.
        """
        page, bit = divmod(line, _PAGE)
        self._pages[page] = self._pages.get(page, 0) | 1 << bit
        if len(self._pages) > _MOST_PAGES:
            raise ValueError(line)


@define
class Journal:
    """What earlier runs noted, and where this one does.

    Attributes:
        path: Where it is.
        done: The lines that earlier runs have done, and that need not be sent again.
        reads: The pieces that earlier runs had read, in their order.
        before: How many lines earlier runs have done.
        refused: How many of them were refused.
    """

    path: Path
    done: Done = field(factory=Done)
    reads: list[Read] = field(factory=list[Read])
    before: int = 0
    refused: int = 0
    # Whether this run has begun it, and has noted anything.
    _begun: bool = False
    _noted: bool = False
    _descriptor: int = -1
    # What is to be written next. Of a write that fails half way, the rest.
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
        """Opens the journal of a file, or begins it.

        Args:
            path: Where it is, or is to be.
            source: What is imported.
            address: Where Intercom is, or what stands for it.
            token: The access token, of which only a digest is kept.
            restart: Whether to forget what is in it.
            token_renewed: Whether it is known that another token is for the same workspace.

        Raises:
            NoJournalError: It cannot be written there, something else is there, it is damaged, of
                an import to elsewhere, or another user may have written it.
            JournalError: It is in use by another import, or there is no room for it.
        """
        held, token = cast("Secret[str]", hold(token)), ""
        journal = cls(path)
        with (
            _explaining(path, "or name another place with --journal", NoJournalError),
            ExitStack() as failed,
        ):
            journal._descriptor = open_checked(path, "the journal", NoJournalError)
            failed.callback(journal.close)
            _lock(journal._descriptor, path)
            with open(journal._descriptor, "rb", closefd=False) as file:
                begun_for, whole = journal._load(file, restart=restart)
            if begun_for is not None:
                journal._check(*begun_for, address, None if token_renewed else held)
            # What a crash has cut off, so that what is added stands on a line of its own.
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
        """The second that an event on a line was stamped with by an earlier run, if it was read."""
        place = bisect_left(self.reads, line, key=lambda read: read.line)
        return self.reads[place].stamp if place < len(self.reads) else None

    @property
    def position(self) -> int:
        """Up to where earlier runs had read, in bytes of the text."""
        return self.reads[-1].position if self.reads else 0

    def note_read(self, read: Read, *, lasting: bool) -> None:
        """Writes up to where the text was read, before any of it is sent.

        Args:
            read: Up to where.
            lasting: Whether events are stamped: what they are stamped with has to outlast even the
                machine.

        Raises:
            JournalError: It cannot be written.
        """
        self._add(json.dumps(["read", *read]))
        self.save()
        self._noted = True
        if lasting:
            with self._told():
                os.fsync(self._descriptor)

    def note(self, status: Literal["accepted", "duplicate", "refused"], line: int) -> None:
        """Takes in what became of an event, which :meth:`save` writes."""
        self._add(f'["{status}",{line}]')

    def save(self) -> None:
        """Writes what was taken in; what is written outlasts this process.

        Raises:
            JournalError: It cannot be written. What was written of it is whole, or is completed by
                the next call.
        """
        with self._told():
            while self._unwritten:
                del self._unwritten[: os.write(self._descriptor, self._unwritten)]

    def close(self) -> None:
        """Closes it; what was noted is on the disk then, and one with nothing in it is gone."""
        if self._descriptor < 0:
            return
        # What cannot be written was told before.
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
        """Reads what there is: what it is for, and how many bytes are to stay, the whole lines."""
        if not _BEGIN.startswith(file.read(len(_BEGIN))):
            raise self._unusable("is not a journal of an import")
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
            raise self._unusable(f"is of an import to {begun_for}, not to {address}")
        if token is not None and known != token_digest(token, known.partition(":")[0]):
            raise self._unusable(
                "is of an import with another access token; if that is for the same workspace and "
                "was renewed, pass --token-renewed; otherwise"
            )

    def _unusable(self, why: str) -> NoJournalError:
        return NoJournalError(
            f"{self.path} {why}: move it away to begin anew, or name another place with --journal"
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
            # A line has a byte at least, but for the last.
            case ["read", int(position), int(line), str(digest), int(stamp)] if (
                last.position <= position
                and last.line <= line <= position + 1
                and len(digest) <= _DIGEST
            ):
                self._take_read(Read(position, line, digest, stamp))
            case _:
                raise ValueError(entry)

    def _take_read(self, read: Read) -> None:
        """Takes in a piece. Many small ones with the same stamp, as of a pipe, become one."""
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
    """Returns the address and the digest of the token that a header has."""
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
    """Yields the lines that have an end, and of one that is too long the beginning."""
    while line := file.readline(_LONGEST + 1):
        if line.endswith(b"\n") or len(line) > _LONGEST:
            yield line


@contextmanager
def _explaining(path: Path, remedy: str, error: type[JournalError]) -> Generator[None]:
    try:
        yield
    except OSError as problem:
        raise error(
            f"the journal {path} cannot be written ({problem.strerror}): make room or allow it, "
            f"{remedy}"
        ) from problem


def _lock(descriptor: int, path: Path) -> None:
    """Keeps other imports of the same file out, as long as this one lives."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise NoJournalError(f"{path} is not a file that a journal can be kept in: name another")
    if sys.platform == "win32":
        return  # Locks there keep this process from reading it, too.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(
            f"another import is using the journal {path}: wait for it to end"
        ) from error
