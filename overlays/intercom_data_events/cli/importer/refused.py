"""The file of rejected events, which the user fixes and imports."""

from __future__ import annotations

import csv
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from intercom_data_events._files import open_checked
from intercom_data_events._validation import printable
from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.records import Format, Reader, Record, SourceError


class RefusedFile:
    """The unchanged text of rejected events, each with its reason.

    In NDJSON, the reason is on the line above, which begins with ``#``; in CSV, it is in the first
    column. The file is created with its first event, and append-only, because the user may already
    be editing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether the file exists and is not empty."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def add(self, record: Record, reason: str, reader: Reader) -> None:
        """Adds an event.

        Raises:
            StoppedError: The file cannot be written.
        """
        size = None
        try:
            text = b""
            if self._file is None:
                self._file = self._open(StoppedError)
                text = self._begin(self._file, reader)
            text += self._entry(record, reason, reader)
            size = self._file.seek(0, os.SEEK_END)
            while text:
                text = text[self._file.write(text) :]
        except OSError as error:
            if self._file is not None and size is not None:
                # Part of a row could leave a quote open, which would swallow the next row.
                with suppress(OSError):
                    self._file.truncate(size)
            raise StoppedError(
                f"cannot write the file of rejected events {self.path}: "
                f"{(error.strerror or str(error)).lower()}; check the free space and permissions, "
                "or choose another path with --refused, then run the same command again"
            ) from error

    def check(self) -> None:
        """Checks the file of an earlier run, if there is one.

        Raises:
            SourceError: Another user may have created or written it.
        """
        if os.path.lexists(self.path):
            with suppress(OSError):  # Matters only if there is something to write.
                self._open(SourceError).close()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _open(self, error: type[Exception]) -> IO[bytes]:
        name = "the file of rejected events"
        return os.fdopen(open_checked(self.path, name, error, os.O_APPEND), "rb+", buffering=0)

    def _begin(self, file: IO[bytes], reader: Reader) -> bytes:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            # A crash may have truncated its last line.
            return b"" if file.read(1) == b"\n" else b"\n"
        if reader.format is not Format.CSV:
            return b""
        return f"refused_because{reader.delimiter}".encode() + (reader.header or b"") + b"\n"

    def _entry(self, record: Record, reason: str, reader: Reader) -> bytes:
        reason = printable(" ".join(f"line {record.line}: {reason}".split()), None)
        if reader.format is not Format.CSV:
            raw = record.raw + b"\n" if record.raw else b""
            return f"# {reason}\n".encode() + raw
        cell = io.StringIO()
        csv.writer(cell, delimiter=reader.delimiter, lineterminator="").writerow([reason, ""])
        return cell.getvalue().encode() + record.raw + b"\n"
