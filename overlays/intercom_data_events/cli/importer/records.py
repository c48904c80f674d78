"""Splits NDJSON or CSV from any source into records of events.

This module does no I/O: the caller feeds bytes and gets records. Whatever the bytes are, at most
one record of 1 MiB is in memory.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from intercom_data_events._validation import short_repr
from intercom_data_events.cli.importer.columns import ColumnError, Plan, known, plan

if TYPE_CHECKING:
    from intercom_data_events import Event

#: The most bytes of a record; events have a few hundred.
LONGEST = 1024 * 1024
# Bytes of text per step, and records per batch.
_PIECE = 64 * 1024
_BATCH = 1000

_BOM = b"\xef\xbb\xbf"
_REFUSED_BECAUSE = "refused_because"
_DELIMITERS = ",;\t"
_UTF16 = "convert it with: iconv -f UTF-16 -t UTF-8"
_UTF32 = "convert it with: iconv -f UTF-32 -t UTF-8"
# The first bytes of other formats. UTF-32 comes first, because UTF-16 begins with the same bytes.
_MAGIC = {
    b"\xff\xfe\0\0": f"is UTF-32; {_UTF32}",
    b"\0\0\xfe\xff": f"is UTF-32; {_UTF32}",
    b"\xff\xfe": f"is UTF-16; {_UTF16}",
    b"\xfe\xff": f"is UTF-16; {_UTF16}",
    b"PK\x03\x04": "looks like a zip archive or an Excel workbook (.xlsx); extract the archive, or "
    "save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "looks like an Excel workbook (.xls); save the sheet as CSV UTF-8",
    b"PAR1": "looks like Parquet; pass its path, without gzip, a pipe or another --format",
    b"BZh": "looks like bzip2; decompress it first",
    b"\xfd7zX": "looks like xz; decompress it first",
    b"(\xb5/\xfd": "looks like Zstandard; decompress it first",
    b"\x1f\x8b": "is gzipped twice; decompress it once",
}
_UNCLOSED = (
    "a quote that opens here is not closed within 1 MiB; close it, or write it twice within a "
    "quoted cell"
)
# The first line that Excel understands; it sets the delimiter of the other lines.
_SEP = re.compile(rb'"?sep=([,;\t])"?', re.IGNORECASE)
_ONE_PER_LINE = (
    "write one event per line, for example with jq -c '.[]' for an array, or jq -c . for objects"
)


class Format(StrEnum):
    """The format of a file of events."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class SourceError(ValueError):
    """The file can no longer be read; the message has the line and the remedy."""


class Record(NamedTuple):
    """A record of a file: one event, or a line that is not one.

    Attributes:
        line: The number of its first line in the decompressed text, from 1.
        raw: The text without the line ending and the column ``refused_because``; empty if it was
            too long.
        fields: The unchecked fields; if there is a problem, those that could be read, or None.
        problem: The problem and its remedy; None if none is known.
        event: The event to send, once the fields are checked.
        dropped: Whether metadata that the API does not support was left out.
    """

    line: int
    raw: bytes
    fields: dict[str, object] | None
    problem: str | None
    event: Event | None = None
    dropped: bool = False


class _RefusedError(ValueError):
    """A record cannot be read; the message is its problem."""


class _WaitError(Exception):
    """A row continues beyond the text so far."""


class Reader:
    r"""Reads events from bytes, which can arrive in pieces of any size.

    Args:
        format: The format, or None to detect it: text that begins with ``{``, after blank lines and
            lines that begin with ``#``, is NDJSON, and any other text is CSV.

    Attributes:
        format: The format; None until it is known.
        header: The header of CSV without the column ``refused_because``; None until it is known.
        delimiter: The delimiter of CSV: a comma, a semicolon or a tab.
        lines: The number of lines read so far, up to the last record that was returned.

    Example:
        >>> reader = Reader()
        >>> [batch] = reader.feed(b'{"event_name": "ran", "user_id": "1"}\n')
        >>> batch[0].fields
        {'event_name': 'ran', 'user_id': '1'}
    """

    def __init__(self, format: Format | None = None) -> None:
        self.format = format
        self.header: bytes | None = None
        self.delimiter = ","
        self.lines = 0
        # The candidates for the delimiter.
        self._delimiters = _DELIMITERS
        # The text that was fed, the position up to which it was read, and whether it is the end.
        self._text = b""
        self._at = 0
        self._last = False
        self._started = False  # Whether the first bytes were checked.
        # The end of the current line or row, and a position before which no open quote is closed.
        self._end = 0
        self._unclosed = 0
        self._plan: Plan | None = None
        # Matches the first cell, which has the reason in a file of rejected rows.
        self._reason: re.Pattern[bytes] | None = None
        self._steps = self._records()
        # A limit of the whole process: a cell can be as long as a row.
        csv.field_size_limit(max(LONGEST, csv.field_size_limit()))

    def feed(self, data: bytes) -> Iterator[list[Record]]:
        """Takes the next bytes of the text, and yields the records that they complete, in batches.

        The caller must exhaust the iterator before it feeds more. `lines` counts the batches so
        far.

        Raises:
            SourceError: The file can no longer be read.
        """
        for start in range(0, len(data), _PIECE):
            yield from self._batches(data[start : start + _PIECE])

    def close(self) -> Iterator[list[Record]]:
        """Yields the remaining records after the whole text was fed.

        The last line needs no line ending.

        Raises:
            SourceError: The file cannot be read to its end.
        """
        yield from self._batches(b"", last=True)

    def _batches(self, text: bytes, *, last: bool = False) -> Iterator[list[Record]]:
        looked_at = len(self._text) - self._at if self._started else 0
        self._unclosed -= self._at
        self._text, self._at = self._text[self._at :] + text, 0
        if not self._started:
            if len(self._text) < max(map(len, _MAGIC)) and not last:
                return
            self._started = True
            for magic, what in _MAGIC.items():
                if self._text.startswith(magic):
                    raise SourceError(f"line 1: the file {what}")
            self._text = self._text.removeprefix(_BOM)
        nul = self._text.find(b"\0", looked_at)
        if nul >= 0:
            self._text = self._text[:nul]
        self._last = last and nul < 0
        records, failed = list[Record](), None
        try:
            for record in self._steps:
                if record is None:
                    break
                records.append(record)
                if len(records) == _BATCH:
                    yield records
                    records = []
        except SourceError as error:  # Raised after the records before it.
            failed = error
        if records:
            yield records
        if failed is not None:
            raise failed
        if nul >= 0:
            raise SourceError(
                f"line {self.lines + 1 + self._text.count(10, self._at):,}: the text must not "
                f"contain a NUL byte; export it as CSV or NDJSON; if it is UTF-16, {_UTF16}"
            )

    def _records(self) -> Iterator[Record | None]:
        """Yields one record after the other, and None whenever it needs more text."""
        begun = False
        while (line := (yield from self._line())) is not None:
            is_long = self._end - self._at > LONGEST
            begun = begun or self._begins(line, is_long)
            record = None
            if is_long:
                record = yield from self._skip()
            elif not begun or self.format is Format.NDJSON:
                record = self._event(line) if begun else None
                self._take(line)
            else:
                record = yield from self._row(line)
            if record is not None:
                yield record

    def _line(self) -> Generator[None, None, bytes | None]:
        """Waits for the next line; returns at most its first MiB, or None at the end."""
        length = 0
        while (end := self._text.find(b"\n", self._at + length)) < 0:
            length = len(self._text) - self._at
            if self._last or length > LONGEST:
                end = len(self._text)
                break
            yield
        self._end = end
        if self._last and self._at == len(self._text):
            return None
        return self._text[self._at : min(end, self._at + LONGEST)].removesuffix(b"\r")

    def _take(self, raw: bytes) -> int:
        """Moves past a record; returns the number of its first line."""
        line = self.lines + 1
        self.lines += 1 + raw.count(b"\n")
        self._at = min(self._end + 1, len(self._text))
        return line

    def _skip(self) -> Generator[None, None, Record]:
        length = 0
        while (end := self._text.find(b"\n", self._at)) < 0 and not self._last:
            length += len(self._text) - self._at
            self._at = len(self._text)
            yield
        self._end = len(self._text) if end < 0 else end
        length += self._end - self._at
        problem = (
            f"the line must have at most {LONGEST:,} bytes (1 MiB), not {length:,}; shorten it"
        )
        return Record(self._take(b""), b"", None, problem)

    def _begins(self, line: bytes, is_long: bool) -> bool:
        """Whether a line is the first one with content, and not blank or a comment."""
        sep = _SEP.fullmatch(line)
        line = line.strip()
        if b"\r" in line:
            self._fail(
                "lines must not end in a lone carriage return; convert them with: tr '\\r' '\\n'"
            )
        if not line or line.startswith(b"#"):
            return False
        if sep is not None and self.format is not Format.NDJSON:
            self.format, self._delimiters = Format.CSV, sep[1].decode()
            return False
        if self.format is None:
            if line.startswith(b"[") or line == b"{":
                self._fail(f"the file must not be a single JSON document; {_ONE_PER_LINE}")
            self.format = Format.NDJSON if line.startswith(b"{") else Format.CSV
        if is_long and self.format is Format.CSV:
            self._fail("the header must be at most 1 MiB long; check that the file is CSV")
        return True

    def _fail(self, what: str) -> NoReturn:
        raise SourceError(f"line {self.lines + 1:,}: {what}")

    def _event(self, raw: bytes) -> Record | None:
        if not raw.strip() or raw.startswith(b"#"):
            return None
        try:
            return Record(self.lines + 1, raw, _object(_decoded(raw)), None)
        except _RefusedError as error:
            return Record(self.lines + 1, raw, None, str(error))

    def _row(self, line: bytes) -> Generator[None, None, Record | None]:
        """Reads the row that begins with a line; if it is invalid, only that line."""
        if self._plan is None:
            self._choose_delimiter(line)
        length, problem, fields = self._end - self._at, None, None
        raw, cells = line, list[str]()
        try:
            while (found := self._cells()) is None:
                yield
            cells = found if self._reason is None else found[1:]
            raw = self._text[self._at : self._end].removesuffix(b"\r")
            if not raw.isascii():
                _decoded(raw)
            if self._plan is None:
                self._take_header(raw, cells)
            elif len(cells) == len(self._plan.names):
                # A row of delimiters only, as spreadsheets write it, is blank.
                fields = self._plan.read([cell or None for cell in cells])
            elif raw.strip():
                problem = (
                    f"the row must have {len(self._plan.names)} cells like the header, not "
                    f"{len(cells):,}; put quotes around a cell that contains "
                    f"{short_repr(self.delimiter)}"
                )
        except ColumnError as error:
            problem, fields = str(error), error.fields
        except _RefusedError as error:
            if self._plan is None:
                self._fail(str(error))
            problem = str(error)
            if not cells:
                self._end = self._at + length
        number = self._take(raw)
        if problem is None and not fields:
            return None
        return Record(number, self._cut(raw), fields, problem)

    def _cells(self) -> list[str] | None:
        """Reads the next row; returns its cells, or None to wait for more text."""
        start, is_open = self._at, False

        def lines() -> Iterator[str]:
            nonlocal start, is_open
            while start < len(self._text):
                end = self._text.find(b"\n", start)
                stop = len(self._text) if end < 0 else end
                if is_open and (start <= self._unclosed or stop - self._at > LONGEST):
                    return
                if end < 0 and not self._last:
                    raise _WaitError
                self._end = stop
                yield self._text[start : stop + 1].decode(errors="surrogateescape")
                start, is_open = stop + 1, True
            if not self._last:
                raise _WaitError

        try:
            return next(csv.reader(lines(), delimiter=self.delimiter, strict=True), [])
        except _WaitError:
            return None
        except csv.Error as error:
            if not is_open:
                raise _not_csv(error) from None
            # Any row that begins before this position with an open quote fails, too. Trying each
            # of them could take quadratic time.
            self._unclosed = max(self._unclosed, start)
            raise _RefusedError(_UNCLOSED) from None

    def _choose_delimiter(self, line: bytes) -> None:
        """Chooses the first delimiter that finds the most known columns in the header."""

        def found(delimiter: str) -> int:
            try:
                names = next(csv.reader([line.decode("latin-1")], delimiter=delimiter), [])
            except csv.Error:
                return 0
            return sum(known(name) or name.strip() == _REFUSED_BECAUSE for name in names)

        self.delimiter = max(self._delimiters, key=found)

    def _take_header(self, raw: bytes, names: list[str]) -> None:
        try:
            if names[0].strip() == _REFUSED_BECAUSE:
                names = names[1:]
                cell = f'(?:"(?:[^"]|"")*+"|[^{self.delimiter}]*+){self.delimiter}'
                self._reason = re.compile(cell.encode())
            self._plan = plan(names)
        except ColumnError as error:
            self._fail(f"the CSV header is invalid: {error}")
        self.header = self._cut(raw)

    def _cut(self, raw: bytes) -> bytes:
        """Returns a row without the cell for the reason, if there is one."""
        found = self._reason.match(raw) if self._reason is not None else None
        return raw if found is None else raw[found.end() :]


def _not_csv(error: csv.Error) -> _RefusedError:
    return _RefusedError(
        f"the row is not valid CSV ({error}); write quotes within a quoted cell twice, and put "
        "quotes around a cell that contains a line break"
    )


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _RefusedError(
            f"the text must be UTF-8, but has byte 0x{raw[error.start]:02x} at position "
            f"{error.start + 1:,}; if it is Latin-1, convert it with: iconv -f LATIN1 -t UTF-8"
        ) from error


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _RefusedError(f"an object must have the key {short_repr(key)} only once; remove one")
    return fields


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not valid JSON; leave out its key")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _object(text: str) -> dict[str, object]:
    """Reads a line of NDJSON."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _RefusedError(
            f"the line is not valid JSON ({error.msg} at column {error.colno:,}); {_ONE_PER_LINE}"
        ) from None
    except RecursionError:
        raise _RefusedError(
            "the values are nested too deeply; metadata can have only one level of objects"
        ) from None
    except _RefusedError:
        raise
    except ValueError:  # Python's limit, because such a number can take minutes to read.
        raise _RefusedError("a number has thousands of digits; write it as a string") from None
    if not isinstance(value, dict):
        raise _RefusedError(f"the line must be a JSON object; {_ONE_PER_LINE}")
    return value
