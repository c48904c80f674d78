"""Events of a file from anywhere, one record after another: NDJSON or CSV.

Nothing is read here: bytes are fed in, and records come out. Whatever the bytes are, no more than a
record of 1 MiB is held at a time.
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

#: How long a record can be, in bytes; events are a few hundred.
LONGEST = 1024 * 1024
# Bytes of text that are looked at in one step, and records that are handed on at once.
_PIECE = 64 * 1024
_BATCH = 1000

_BOM = b"\xef\xbb\xbf"
_REFUSED_BECAUSE = "refused_because"
_DELIMITERS = ",;\t"
_UTF16 = "convert it: iconv -f UTF-16 -t UTF-8"
_UTF32 = "convert it: iconv -f UTF-32 -t UTF-8"
# How files of other formats begin. UTF-32 is before UTF-16, which begins the same.
_MAGIC = {
    b"\xff\xfe\0\0": f"is UTF-32: {_UTF32}",
    b"\0\0\xfe\xff": f"is UTF-32: {_UTF32}",
    b"\xff\xfe": f"is UTF-16: {_UTF16}",
    b"\xfe\xff": f"is UTF-16: {_UTF16}",
    b"PK\x03\x04": "looks like a zip archive or an Excel workbook (.xlsx): unpack the archive, or "
    "save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "looks like an Excel workbook (.xls): save the sheet as CSV UTF-8",
    b"PAR1": "looks like Parquet: pass its path, without gzip, a pipe or another --format",
    b"BZh": "looks like bzip2: decompress it first",
    b"\xfd7zX": "looks like xz: decompress it first",
    b"(\xb5/\xfd": "looks like Zstandard: decompress it first",
    b"\x1f\x8b": "is gzip within gzip: decompress it once first",
}
_UNCLOSED = (
    "a quote opens here that is not closed within 1 MiB; close it, or write it twice within a "
    "quoted cell"
)
# Excel's first line, which has the delimiter of the others.
_SEP = re.compile(rb'"?sep=([,;\t])"?', re.IGNORECASE)
_ONE_PER_LINE = "write one event per line, as jq -c '.[]' does for an array, jq -c . for objects"


class Format(StrEnum):
    """How events are written in a file."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


class SourceError(ValueError):
    """The file as a whole cannot be read any further; says up to where, and what to do."""


class Record(NamedTuple):
    """One event as it stands in the file, or what stands there instead.

    Attributes:
        line: The number of its first line in the decompressed text, from 1.
        raw: The record as it stands there, without its line end and without the column
            ``refused_because``; empty where it was too long to keep.
        fields: In the API's field names, unchecked: all of them, or with a problem those that could
            be read; None where none could.
        problem: What is wrong with it and what to do; None where nothing is known to be.
        event: The event to send, once the fields were checked.
        dropped: Whether the event lacks metadata of the fields that the API does not support.
    """

    line: int
    raw: bytes
    fields: dict[str, object] | None
    problem: str | None
    event: Event | None = None
    dropped: bool = False


class _RefusedError(ValueError):
    """A record that cannot be read; the message is its problem."""


class _WaitError(Exception):
    """A row goes on behind the text that there is."""


class Reader:
    r"""Reads events from bytes, however these are cut into pieces.

    Args:
        format: How events are written, or None to find out: text that begins with ``{``, after
            blank lines and lines that begin with ``#``, is NDJSON, and all other text CSV.

    Attributes:
        format: How events are written; None until it is known.
        header: The header of CSV as it stands, without the column ``refused_because``; None until
            it is known.
        delimiter: What stands between cells of CSV: a comma, a semicolon or a tab.
        lines: How many lines the records handed on, and what was between them, had.

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
        # Those that the header may have.
        self._delimiters = _DELIMITERS
        # What was fed and is not read yet, from a place on; and whether nothing follows it.
        self._text = b""
        self._at = 0
        self._last = False
        self._started = False  # The first bytes of the text were looked at.
        # Where the line or the row that is read ends, and a place before which a quote that is open
        # is never closed.
        self._end = 0
        self._unclosed = 0
        self._plan: Plan | None = None
        # What ends the first cell of a row, where that is the reason of a file of refused rows.
        self._reason: re.Pattern[bytes] | None = None
        self._steps = self._records()
        # Of all readers of the process: a cell can be as long as a row.
        csv.field_size_limit(max(LONGEST, csv.field_size_limit()))

    def feed(self, data: bytes) -> Iterator[list[Record]]:
        """Takes the next bytes of the text and gives the records that they complete, in batches.

        `lines` is that of the batches given so far. Has to be iterated to its end before more is
        fed.

        Raises:
            SourceError: The file cannot be read any further.
        """
        for start in range(0, len(data), _PIECE):
            yield from self._batches(data[start : start + _PIECE])

    def close(self) -> Iterator[list[Record]]:
        """Gives the remaining records, once the whole text was fed.

        A last line without a line end is a line like any other.

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
        except SourceError as error:  # It is told behind the records before it.
            failed = error
        if records:
            yield records
        if failed is not None:
            raise failed
        if nul >= 0:
            raise SourceError(
                f"line {self.lines + 1 + self._text.count(10, self._at):,}: a NUL byte, which text "
                f"does not have: export it as CSV or NDJSON; if it is UTF-16, {_UTF16}"
            )

    def _records(self) -> Iterator[Record | None]:
        """Gives one record after the other, and None each time that it needs more text."""
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
        """Waits for the next line; returns at most its first MiB, or None where there is none."""
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
        """Goes on behind what was read; returns the number of its first line."""
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
        problem = f"it is {length:,} bytes long, and lines go up to 1 MiB ({LONGEST:,}): shorten it"
        return Record(self._take(b""), b"", None, problem)

    def _begins(self, line: bytes, is_long: bool) -> bool:
        """Whether a first line is what the file begins with, and not blank or a comment."""
        sep = _SEP.fullmatch(line)
        line = line.strip()
        if b"\r" in line:
            self._fail("lines end in a lone carriage return; convert them with tr '\\r' '\\n'")
        if not line or line.startswith(b"#"):
            return False
        if sep is not None and self.format is not Format.NDJSON:
            self.format, self._delimiters = Format.CSV, sep[1].decode()
            return False
        if self.format is None:
            if line.startswith(b"[") or line == b"{":
                self._fail(f"this is one JSON document; {_ONE_PER_LINE}")
            self.format = Format.NDJSON if line.startswith(b"{") else Format.CSV
        if is_long and self.format is Format.CSV:
            self._fail("the header is longer than 1 MiB; is this CSV?")
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
        """Reads the row that begins with a line; of one that cannot be read, the line alone."""
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
                # A row of nothing but delimiters, as spreadsheets leave them, is blank, too.
                fields = self._plan.read([cell or None for cell in cells])
            elif raw.strip():
                problem = (
                    f"it has {len(cells):,} cells, and the header {len(self._plan.names)}; put "
                    f"quotes around a cell with {short_repr(self.delimiter)} in it"
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
        """Reads the row that begins here; returns its cells, or None to wait for more text."""
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
            # A row fails there, too, if it begins before and has an open quote at the end of its
            # first line; with each tried, a file could take the square of its length.
            self._unclosed = max(self._unclosed, start)
            raise _RefusedError(_UNCLOSED) from None

    def _choose_delimiter(self, line: bytes) -> None:
        """Takes the one that finds the most columns in the header; of several, the first."""

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
            self._fail(f"the header of the CSV cannot be used: {error}")
        self.header = self._cut(raw)

    def _cut(self, raw: bytes) -> bytes:
        """A row without its reason, where rows have one."""
        found = self._reason.match(raw) if self._reason is not None else None
        return raw if found is None else raw[found.end() :]


def _not_csv(error: csv.Error) -> _RefusedError:
    return _RefusedError(
        f"it is not CSV ({error}); write a quote within a quoted cell twice, and put quotes around "
        "a cell with a line end in it"
    )


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise _RefusedError(
            f"it is not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1:,}; if "
            "the file is in Latin-1, convert it: iconv -f LATIN1 -t UTF-8"
        ) from error


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise _RefusedError(f"an object in it has the key {short_repr(key)} twice; remove one")
    return fields


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"it has {name} in it, which is not JSON; leave the key out")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _object(text: str) -> dict[str, object]:
    """Reads a line of NDJSON that may be anything."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _RefusedError(
            f"it is not JSON, {error.msg} at column {error.colno:,}; {_ONE_PER_LINE}"
        ) from None
    except RecursionError:
        raise _RefusedError("its values are nested too deeply; an event has two levels") from None
    except _RefusedError:
        raise
    except ValueError:  # Python's own limit, against numbers that take minutes to read.
        raise _RefusedError(
            "it has a number of thousands of digits in it; write it as a string"
        ) from None
    if not isinstance(value, dict):
        raise _RefusedError(f"it is not an object; {_ONE_PER_LINE}")
    return value
