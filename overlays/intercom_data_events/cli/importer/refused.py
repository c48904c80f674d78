"""The file of rejected events, to be fixed and imported again."""

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
    """Refused events as they stood, each with its reason, to be fixed and imported again.

    Of NDJSON, the reason is on a line of its own before, which begins with ``#``; of CSV, it is in
    a first column. It is made when there is something to write, and only ever added to: a person
    may be editing it already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def exists(self) -> bool:
        """Whether there is anything in it."""
        try:
            return self.path.stat().st_size > 0
        except OSError:
            return False

    def add(self, record: Record, reason: str, reader: Reader) -> None:
        """Adds an event.

        Raises:
            StoppedError: It cannot be written.
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
                # Half of it might have a quote in it that opens, and swallow the next.
                with suppress(OSError):
                    self._file.truncate(size)
            raise StoppedError(
                f"{self.path}, for rejected events, cannot be written ({error.strerror}): make "
                "room or name another with --refused, then run the same command again"
            ) from error

    def check(self) -> None:
        """Checks the file that an earlier run has left, if there is one.

        Raises:
            SourceError: Another user may have made or written it.
        """
        if os.path.lexists(self.path):
            with suppress(OSError):  # It counts once there is something to write.
                self._open(SourceError).close()

    def close(self) -> None:
        """Closes it."""
        if self._file is not None:
            self._file.close()

    def _open(self, error: type[Exception]) -> IO[bytes]:
        name = "the file of rejected events"
        return os.fdopen(open_checked(self.path, name, error, os.O_APPEND), "rb+", buffering=0)

    def _begin(self, file: IO[bytes], reader: Reader) -> bytes:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
            # A crash may have cut its last line off.
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
