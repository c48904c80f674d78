"""The input of an import: a file or a pipe, plain or gzip, as pieces of text of bounded size.

A regular file is compared with itself, because other programs may write to it meanwhile. Lines that
are appended are read like the others. What was cut, written anew or replaced ends the reading.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import AsyncIterator
from os.path import samestat
from pathlib import Path
from typing import BinaryIO, Self

import anyio
import anyio.lowlevel

from intercom_data_events._inflating import PIECE, InflateError, Inflater
from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.records import SourceError

_GZIP = b"\x1f\x8b"


class Source:
    """An input that is open; iterating gives its text, decompressed where it is gzip.

    Args:
        name: A path, or "-" for standard input.

    Attributes:
        name: What messages call it.
        path: Where it is; None for a pipe.
        size: Bytes that there are to read, compressed or not; None for a pipe.
        position: Bytes that have been read.
        file: The open file.

    Raises:
        SourceError: The file does not exist or cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self._is_ours = name != "-"
        self.path: Path | None = None
        self.size: int | None = None
        self.position = 0
        try:
            # Closed at the end of the block; a Path takes an empty name for the current folder.
            self.file: BinaryIO = open(name, "rb") if self._is_ours else sys.stdin.buffer  # noqa: SIM115, PTH123  # closed by __exit__
            self._descriptor = self.file.fileno()
            found = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.name} cannot be read: {_reason(error)}") from error
        # Of other devices, such as /dev/null, there is nothing to wait for.
        waits = stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)
        self._waits = waits or os.isatty(self._descriptor)
        if stat.S_ISREG(found.st_mode):
            # Of standard input, an earlier program may have read the beginning.
            self._begin = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self.size = found.st_size - self._begin
            # /dev/stdin and similar names lead to a file, but have no place beside it.
            if self._is_ours and not name.startswith(("/dev/", "/proc/")):
                self.path = Path(name)
        self._opened_as = self._seen = _state(found)
        # Of what was read: the last piece, and the digest of all of it.
        self._piece = b""
        self._digest = hashlib.blake2b(digest_size=16)

    def __enter__(self) -> Self:
        """Enters a block that closes it at its end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        if self._is_ours:
            self.file.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Reads it, piece by piece.

        Raises:
            SourceError: It cannot be read any further, or its gzip is damaged.
            StoppedError: It was changed meanwhile, or its gzip is cut short.
        """
        inflater: Inflater | None = None
        data = await self._read()
        if len(data) == 1:  # Of a pipe: too little to tell what it is.
            data += await self._read()
        if _GZIP.startswith(data[:2]):
            inflater = Inflater()
        end = b"\n"
        try:
            while data:
                for piece in [data] if inflater is None else inflater.feed(data):
                    # Little gzip can be much text; meanwhile the caller may want to stop.
                    await anyio.lowlevel.checkpoint()
                    if piece:
                        end = piece[-1:]
                        yield piece
                data = await self._read()
        except InflateError as error:
            raise SourceError(f"{self.name} is {error}; make or fetch it again") from error
        await self.check(ends=end == b"\n")
        try:
            if inflater is not None:
                inflater.close()
        except InflateError as error:
            raise StoppedError(
                f"{self.name} is {error}; make or fetch it again, then run the same command again"
            ) from error

    @property
    def was_written(self) -> bool:
        """Whether a regular file was written to since it was opened."""
        return self.size is not None and _state(os.fstat(self._descriptor)) != self._opened_as

    def begins_with(self, magic: bytes) -> bool:
        """Whether it is a regular file that begins with these bytes."""
        return self.size is not None and self._read_at(0, len(magic)) == magic

    async def check(self, *, ends: bool = True) -> None:
        """Compares a regular file that was read to its end with what was read.

        Args:
            ends: Whether its last line has an end.

        Raises:
            StoppedError: It is another one, or its last line is still being written.
        """
        if self.was_written:
            digest = hashlib.blake2b(digest_size=16)
            for place in range(0, self.position, PIECE):
                await anyio.lowlevel.checkpoint()
                digest.update(self._read_at(place, min(PIECE, self.position - place)))
            if digest.digest() != self._digest.digest():
                raise self.written_anew()
            if not ends and os.fstat(self._descriptor).st_size > self._opened_as[0]:
                raise self._changed("grew while it was read, and its last line has no end yet")
        try:
            if self.path is None or samestat(self.path.stat(), os.fstat(self._descriptor)):
                return
        except OSError:
            raise self._changed("was moved or deleted while it was read: put it back") from None
        raise self._changed("was replaced by another file while it was read")

    def written_anew(self) -> StoppedError:
        """The error that ends the reading of a file that another program writes."""
        return self._changed(
            f"was written anew while it was read, from byte {self.position:,} or before"
        )

    def _changed(self, how: str) -> StoppedError:
        return StoppedError(
            f"{self.name} {how}; wait until no program writes to it, then run the same command "
            "again: it resumes if what was read is unchanged, and otherwise says where it differs"
        )

    async def _read(self) -> bytes:
        try:
            if self._waits and sys.platform != "win32":
                # It can be silent for hours; only this waits for it.
                await anyio.wait_readable(self._descriptor)
            else:
                await anyio.lowlevel.checkpoint()
            # What there is, not waiting until a piece is full.
            data = os.read(self._descriptor, PIECE)
            self._compare()
        except OSError as error:
            raise SourceError(
                f"{self.name} cannot be read beyond byte {self.position:,}: {_reason(error)}"
            ) from error
        self.position += len(data)
        if self.size is not None and data:
            self._piece = data
            self._digest.update(data)
        return data

    def _compare(self) -> None:
        """Compares a regular file that was written to with the last piece of what was read."""
        found = os.fstat(self._descriptor)
        if self.size is None or _state(found) == self._seen:
            return
        self._seen = _state(found)
        self.size = found.st_size - self._begin
        if self.size < self.position:
            raise self._changed(
                f"was cut to {self.size:,} bytes while it was read, and {self.position:,} had been "
                "read"
            )
        if self._read_at(self.position - len(self._piece), len(self._piece)) != self._piece:
            raise self.written_anew()

    def _read_at(self, place: int, size: int) -> bytes:
        """Reads a place of a regular file, and comes back.

        Raises:
            SourceError: It cannot be read.
        """
        try:
            here = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            os.lseek(self._descriptor, self._begin + place, os.SEEK_SET)
            data = os.read(self._descriptor, size)
            os.lseek(self._descriptor, here, os.SEEK_SET)
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read: {_reason(error)}") from error
        return data


def _state(found: os.stat_result) -> tuple[int, int, int]:
    """What changes where a file is written to."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
