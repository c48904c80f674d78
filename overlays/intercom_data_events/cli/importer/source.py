"""The input of an import: a file or a pipe, plain or gzip, as pieces of text of bounded size."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import anyio
import anyio.lowlevel

from intercom_data_events._inflating import PIECE, InflateError, Inflater
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

    Raises:
        SourceError: There is no such file, or it cannot be read.
    """

    def __init__(self, name: str) -> None:
        self.name = "standard input" if name == "-" else name
        self.path: Path | None = None
        self.size: int | None = None
        self.position = 0
        self._opened = ExitStack()
        try:
            if name == "-":
                self._file: BinaryIO = sys.stdin.buffer
            else:
                self._file = self._opened.enter_context(open(name, "rb"))  # noqa: SIM115, PTH123  # the stack closes it
            found = os.fstat(self._file.fileno())
        except IsADirectoryError:
            raise SourceError(
                f"{name} is a directory: name a file in it, or - for a pipe"
            ) from None
        except (OSError, ValueError) as error:
            raise SourceError(f"{name} cannot be read: {_reason(error)}") from error
        # Of other devices, such as /dev/null, there is nothing to wait for.
        self._waits = stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            self.size = found.st_size
            # What /dev/stdin and the like lead to has no place of its own beside it.
            placeless = name == "-" or name.startswith(("/dev/", "/proc/"))
            self.path = None if placeless else Path(name)

    def __enter__(self) -> Self:
        """Enters a block that closes it at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        self._opened.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Reads it, piece by piece.

        Raises:
            SourceError: It cannot be read any further, or its gzip is damaged or cut short.
        """
        inflater: Inflater | None = None
        data = await self._read()
        if len(data) == 1:  # Of a pipe: too little to tell what it is.
            data += await self._read()
        if data.startswith(_GZIP):
            inflater = Inflater()
        try:
            while data:
                self.position += len(data)
                for piece in [data] if inflater is None else inflater.feed(data):
                    # Little gzip can be much text; meanwhile the caller may want to stop.
                    await anyio.lowlevel.checkpoint()
                    if piece:
                        yield piece
                data = await self._read()
            if inflater is not None:
                inflater.close()
        except InflateError as error:
            raise SourceError(f"{self.name} is {error}: make or fetch it again") from error

    async def _read(self) -> bytes:
        descriptor = self._file.fileno()
        try:
            if (self._waits or os.isatty(descriptor)) and sys.platform != "win32":
                # It can be silent for hours; only this waits for it.
                await anyio.wait_readable(descriptor)
            else:
                await anyio.lowlevel.checkpoint()
            # What there is, not waiting until a piece is full.
            return os.read(descriptor, PIECE)
        except OSError as error:
            raise SourceError(
                f"{self.name} cannot be read beyond byte {self.position:,}: {_reason(error)}"
            ) from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:
            return "there is no such file"
        return (error.strerror or str(error)).lower()
    return str(error)
