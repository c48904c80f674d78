"""The journals of versions before: text, one JSON value per line, which is taken over.

First ``{"journal": "intercom-events", "version": 1, "file": …, "address": …, "token": …}``; then
``["read", BYTES, LINE, DIGEST, STAMP]`` before any of a piece of text was sent; and, for each event
with an outcome, ``["accepted", LINE]``, or "duplicate" or "refused" instead. A line that was cut
off by a crash counts for nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from attrs import define, field

from intercom_data_events import _files
from intercom_data_events.cli.importer.journal import (
    Done,
    NoJournalError,
    Read,
    busy,
    serialized,
    unusable,
)

_BEGIN = b'{"journal": "intercom-events", "version": 1,'
# Bytes of a line. The longest is the first one, which has a path and an address.
_LONGEST = 64 * 1024
# What SQLite takes for an integer is smaller.
_MOST = 2**63 - 1


def take_over(path: Path, place: Path, descriptor: int, *, restart: bool) -> None:
    """Replaces a journal of text by one of the present form, in one step.

    Args:
        path: What messages call it.
        place: Where it is.
        descriptor: Of the open file.
        restart: Whether to forget what is in it.

    Raises:
        NoJournalError: It is not a journal, or it is damaged.
        JournalError: Another import uses it.
    """
    head = os.pread(descriptor, len(_BEGIN), 0)
    if not _BEGIN.startswith(head):
        raise unusable(path, "is not a journal of an import")
    _lock(path, place, descriptor)
    found = _Text()
    if not restart:
        with open(descriptor, "rb", closefd=False) as file:
            _read(path, file, found)
    with _files.replacing(place, NoJournalError) as new:
        new.buffer.write(serialized(found.header, found.reads, found.done))
        new.flush()
        os.fsync(new.fileno())


@define
class _Text:
    """What a journal of text says."""

    header: tuple[str, str, str] | None = None
    reads: list[Read] = field(factory=list[Read])
    done: Done = field(factory=Done)

    def take(self, entry: object) -> None:
        """Takes in a line.

        Raises:
            ValueError: No version has written it.
        """
        last = self.reads[-1] if self.reads else Read(0, 0, "", 0)
        match entry:
            case {
                "journal": "intercom-events",
                "version": 1,
                "file": str(file),
                "address": str(address),
                "token": str(token),
            } if self.header is None:
                self.header = file, address, token
            case ["accepted" | "duplicate" | "refused" as status, int(line)] if (
                self.header and 0 < line <= last.line
            ):
                self.done.add(line, refused=status == "refused")
            # A line has a byte at least, but for the last.
            case ["read", int(position), int(line), str(digest), int(stamp)] if (
                self.header
                and last.position <= position < _MOST
                and last.line <= line <= position + 1
                and 0 <= stamp < _MOST
            ):
                self.reads.append(Read(position, line, digest, stamp))
            case _:
                raise ValueError(entry)


def _read(path: Path, file: BinaryIO, found: _Text) -> None:
    for number, line in enumerate(_whole_lines(file), 1):
        try:
            if len(line) > _LONGEST:
                raise ValueError(len(line))  # noqa: TRY301  # as below
            found.take(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise unusable(path, f"is damaged in line {number:,}") from error


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yields the lines that have an end, and of one that is too long the beginning."""
    while line := file.readline(_LONGEST + 1):
        if line.endswith(b"\n") or len(line) > _LONGEST:
            yield line


def _lock(path: Path, place: Path, descriptor: int) -> None:
    """Keeps out other imports, also those of the version before, while the file is replaced."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy(path) from error
    if not os.path.samestat(os.fstat(descriptor), place.lstat()):
        raise busy(path)  # It has just replaced the file.
