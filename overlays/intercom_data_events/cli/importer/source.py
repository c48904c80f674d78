"""The input of an import: a file or a pipe, plain or gzipped, as pieces of text of bounded size.

Other programs may write to a regular file while it is read, so it is compared with what was read.
Appended lines are read like the others. If the file is truncated, overwritten or replaced, the
import stops.
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
    """An open input; iterating yields its text, decompressed if it is gzip.

    Args:
        name: A path, or "-" for standard input.

    Attributes:
        name: The name in messages.
        path: The path; None for a pipe.
        size: The number of bytes to read, before decompression; None for a pipe.
        position: The number of bytes read so far.
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
            # open() instead of Path, because Path("") is the current folder.
            self.file: BinaryIO = open(name, "rb") if self._is_ours else sys.stdin.buffer  # noqa: SIM115, PTH123  # closed by __exit__
            self._descriptor = self.file.fileno()
            found = os.fstat(self._descriptor)
        except (OSError, ValueError) as error:
            raise SourceError(
                f"cannot read {self.name}: {_reason(error)}; check the path and its permissions"
            ) from error
        # Other devices, such as /dev/null, never block.
        waits = stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)
        self._waits = waits or os.isatty(self._descriptor)
        if stat.S_ISREG(found.st_mode):
            # Another program may have read the beginning of standard input.
            self._begin = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            self.size = found.st_size - self._begin
            # /dev/stdin and similar names lead to a file, but not to its folder.
            if self._is_ours and not name.startswith(("/dev/", "/proc/")):
                self.path = Path(name)
        self._opened_as = self._seen = _state(found)
        # The last piece that was read, and the digest of all pieces.
        self._piece = b""
        self._digest = hashlib.blake2b(digest_size=16)

    def __enter__(self) -> Self:
        """Returns the source itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the file."""
        if self._is_ours:
            self.file.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the text piece by piece.

        Raises:
            SourceError: The input can no longer be read, or its gzip is damaged.
            StoppedError: The file was changed while it was read, or its gzip is truncated.
        """
        inflater: Inflater | None = None
        data = await self._read()
        if len(data) == 1:  # From a pipe; too few bytes to recognize gzip.
            data += await self._read()
        if _GZIP.startswith(data[:2]):
            inflater = Inflater()
        end = b"\n"
        try:
            while data:
                for piece in [data] if inflater is None else inflater.feed(data):
                    # A little gzip can expand to much text; the caller may want to cancel.
                    await anyio.lowlevel.checkpoint()
                    if piece:
                        end = piece[-1:]
                        yield piece
                data = await self._read()
        except InflateError as error:
            raise SourceError(f"{self.name} is {error}; create or download it again") from error
        await self.check(ends=end == b"\n")
        try:
            if inflater is not None:
                inflater.close()
        except InflateError as error:
            raise StoppedError(
                f"{self.name} is {error}; create or download it again, then run the same command "
                "again to resume"
            ) from error

    @property
    def was_written(self) -> bool:
        """Whether a regular file was changed after it was opened."""
        return self.size is not None and _state(os.fstat(self._descriptor)) != self._opened_as

    def begins_with(self, magic: bytes) -> bool:
        """Whether the input is a regular file that begins with these bytes."""
        return self.size is not None and self._read_at(0, len(magic)) == magic

    async def check(self, *, ends: bool = True) -> None:
        """Compares a regular file that was read to its end with what was read.

        Args:
            ends: Whether its last line has a line ending.

        Raises:
            StoppedError: The file was changed, or its last line is still being written.
        """
        if self.was_written:
            digest = hashlib.blake2b(digest_size=16)
            for place in range(0, self.position, PIECE):
                await anyio.lowlevel.checkpoint()
                digest.update(self._read_at(place, min(PIECE, self.position - place)))
            if digest.digest() != self._digest.digest():
                raise self.written_anew()
            if not ends and os.fstat(self._descriptor).st_size > self._opened_as[0]:
                raise self._changed("grew while it was read, and its last line is incomplete")
        try:
            if self.path is None or samestat(self.path.stat(), os.fstat(self._descriptor)):
                return
        except OSError:
            raise self._changed("was moved or deleted while it was read", "put it back") from None
        raise self._changed("was replaced by another file while it was read")

    def written_anew(self) -> StoppedError:
        """Returns the error for a file that another program has overwritten."""
        return self._changed(
            f"was overwritten while it was read, at or before byte {self.position:,}"
        )

    def _changed(
        self, how: str, remedy: str = "wait until no program writes to it"
    ) -> StoppedError:
        return StoppedError(
            f"{self.name} {how}; {remedy}, then run the same command again: it resumes, or says "
            "where the file differs from what was read"
        )

    async def _read(self) -> bytes:
        try:
            if self._waits and sys.platform != "win32":
                # A pipe can be silent for hours; this wait can be cancelled.
                await anyio.wait_readable(self._descriptor)
            else:
                await anyio.lowlevel.checkpoint()
            # Returns what is available instead of waiting for a full piece.
            data = os.read(self._descriptor, PIECE)
            self._compare()
        except OSError as error:
            raise SourceError(
                f"cannot read {self.name} beyond byte {self.position:,}: {_reason(error)}"
            ) from error
        self.position += len(data)
        if self.size is not None and data:
            self._piece = data
            self._digest.update(data)
        return data

    def _compare(self) -> None:
        """Compares a regular file, if it was changed, with the last piece that was read."""
        found = os.fstat(self._descriptor)
        if self.size is None or _state(found) == self._seen:
            return
        self._seen = _state(found)
        self.size = found.st_size - self._begin
        if self.size < self.position:
            raise self._changed(
                f"was truncated to {self.size:,} bytes after {self.position:,} had been read"
            )
        if self._read_at(self.position - len(self._piece), len(self._piece)) != self._piece:
            raise self.written_anew()

    def _read_at(self, place: int, size: int) -> bytes:
        """Reads bytes of a regular file without moving the current position.

        Raises:
            SourceError: The file cannot be read.
        """
        try:
            here = os.lseek(self._descriptor, 0, os.SEEK_CUR)
            os.lseek(self._descriptor, self._begin + place, os.SEEK_SET)
            data = os.read(self._descriptor, size)
            os.lseek(self._descriptor, here, os.SEEK_SET)
        except OSError as error:
            raise SourceError(f"cannot read {self.name}: {_reason(error)}") from error
        return data


def _state(found: os.stat_result) -> tuple[int, int, int]:
    """Returns values that change when a file is written to."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _reason(error: OSError | ValueError) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
