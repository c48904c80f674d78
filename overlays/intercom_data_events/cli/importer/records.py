"""Events of a file from anywhere, one record after another: NDJSON or CSV.

Nothing is read here: bytes are fed in, and records come out. Whatever the bytes are, no more than a
record of 1 MiB is held at a time.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator
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
# What may be half of a character, as JSON writes it.
_SURROGATE = re.compile(r"\\u[dD]")


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
        # The beginning of a record that has no end yet.
        self._rest = b""
        self._started = False  # The first bytes of the text were looked at.
        self._begun = False  # The first line that is neither blank nor a comment was.
        # Of a line that is too long to keep: its bytes so far.
        self._long = 0
        # A place in the text up to which a quote that opens before it is known to be open.
        self._inside = 0
        self._plan: Plan | None = None
        # What ends the first cell of a row, where that is the reason of a file of refused rows.
        self._reason: re.Pattern[bytes] | None = None

    def feed(self, data: bytes) -> Iterator[list[Record]]:
        """Takes the next bytes of the text and gives the records that they complete, in batches.

        `lines` is that of the batches given so far. Has to be iterated to its end before more is
        fed.

        Raises:
            SourceError: The file cannot be read any further.
        """
        for start in range(0, len(data), _PIECE):
            yield from self._read(data[start : start + _PIECE])

    def close(self) -> Iterator[list[Record]]:
        """Gives the remaining records, once the whole text was fed.

        A last line without a line end is a line like any other.

        Raises:
            SourceError: The file cannot be read to its end.
        """
        yield from self._read(b"", last=True)

    def _read(self, text: bytes, *, last: bool = False) -> Iterator[list[Record]]:
        looked_at = len(self._rest) if self._started else 0
        text = self._rest + text
        if not self._started:
            if len(text) < max(map(len, _MAGIC)) and not last:
                self._rest = text
                return
            self._started = True
            for magic, what in _MAGIC.items():
                if text.startswith(magic):
                    raise SourceError(f"line 1: the file {what}")
            text = text.removeprefix(_BOM)
        nul = text.find(b"\0", looked_at)
        if nul < 0:
            yield from self._records(text, last)
            return
        yield from self._records(text[:nul], last=False)
        raise SourceError(
            f"line {self.lines + 1 + self._rest.count(10):,}: a NUL byte, which text does not "
            f"have: export it as CSV or NDJSON; if it is UTF-16, {_UTF16}"
        )

    def _records(self, text: bytes, last: bool) -> Iterator[list[Record]]:
        """Gives the records that are complete, and keeps the rest of the text."""
        records: list[Record] = []
        at = 0
        if self._long:
            at = self._skip(text, last, records)
        while at < len(text) and not self._long:
            end = text.find(b"\n", at)
            if end < 0:
                end = len(text)
                if not last and end - at <= LONGEST:
                    break
            if end - at > LONGEST:
                self._begin(text[at : at + LONGEST], cut=True)
                if end == len(text) and not last:
                    self._long = end - at
                    at = end
                    break
                record: Record | None = self._too_long(end - at)
                raw = b""
            else:
                raw = text[at:end].removesuffix(b"\r")
                if not self._begun and not self._begin(raw):
                    record = None
                elif self.format is Format.NDJSON:
                    record = self._event(raw)
                else:
                    try:
                        if self._plan is None:
                            self._choose_delimiter(raw)
                        if b'"' in raw:
                            whole = self._row_end(text, at, end, raw, last)
                            if whole is None:
                                break
                            end = whole
                            raw = text[at:end].removesuffix(b"\r")
                        record = self._row(raw)
                    except _RefusedError as error:
                        if self._plan is None:
                            self._fail(str(error))
                        record = Record(self.lines + 1, self._cut(raw), None, str(error))
            self.lines += 1 + raw.count(b"\n")
            at = end + 1
            if record is not None:
                records.append(record)
                if len(records) == _BATCH:
                    yield records
                    records = []
        self._rest = text[at:]
        self._inside = max(0, self._inside - at)
        if records:
            yield records

    def _begin(self, line: bytes, *, cut: bool = False) -> bool:
        """Whether a first line is what the file begins with, and not blank or a comment."""
        if self._begun:
            return True
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
            if line.startswith(b"["):
                self._fail("this is a JSON array; make it one event per line: jq -c '.[]'")
            self.format = Format.NDJSON if line.startswith(b"{") else Format.CSV
        if cut and self.format is Format.CSV:
            self._fail("the header is longer than 1 MiB; is this CSV?")
        self._begun = True
        return True

    def _fail(self, what: str) -> NoReturn:
        raise SourceError(f"line {self.lines + 1:,}: {what}")

    def _skip(self, text: bytes, last: bool, records: list[Record]) -> int:
        """Skips what is left of a line that is too long; returns where the next one begins."""
        end = text.find(b"\n")
        self._long += len(text) if end < 0 else end
        if end < 0 and not last:
            return len(text)
        records.append(self._too_long(self._long))
        self.lines += 1
        self._long = 0
        return len(text) if end < 0 else end + 1

    def _too_long(self, length: int) -> Record:
        problem = f"it is {length:,} bytes long, and lines go up to 1 MiB ({LONGEST:,}): shorten it"
        return Record(self.lines + 1, b"", None, problem)

    def _event(self, raw: bytes) -> Record | None:
        if not raw.strip() or raw.startswith(b"#"):
            return None
        try:
            return Record(self.lines + 1, raw, _object(_decoded(raw)), None)
        except _RefusedError as error:
            return Record(self.lines + 1, raw, None, str(error))

    def _row_end(self, text: bytes, at: int, end: int, line: bytes, last: bool) -> int | None:
        """The end of the row whose first line is given; None where the text has to go on first.

        Raises:
            _RefusedError: Its quotes are not closed within 1 MiB, or more follows one in a cell.
        """
        if not self._opens(line):
            return end
        # What was looked at for an earlier row is not looked at again: were it, a file whose every
        # line opens a quote would take the square of its length.
        self._inside = max(end + 1, self._inside)
        while True:
            quote = text.find(b'"', self._inside)
            stop = text.find(b"\n", quote) if quote >= 0 else -1
            if stop < 0:
                if not last and len(text) - at <= LONGEST:
                    self._inside = max(self._inside, len(text) if quote < 0 else quote)
                    return None
                stop = len(text)
            if quote < 0 or stop - at > LONGEST:
                raise _RefusedError(_UNCLOSED)
            try:
                # It is open here, as if it opened just before.
                if not self._opens(b'"' + text[quote:stop].removesuffix(b"\r")):
                    return stop
            except _RefusedError:
                raise _RefusedError(_UNCLOSED) from None
            self._inside = stop + 1

    def _opens(self, line: bytes) -> bool:
        """Whether a quote is open at the end of a line."""
        # Of other bytes than ASCII, only how many there are matters here.
        lines = iter((line.decode("latin-1"), '"'))
        _cells(lines, self.delimiter)
        return next(lines, None) is None

    def _row(self, raw: bytes) -> Record | None:
        if self._plan is None:
            self._take_header(raw)
            return None
        raw = self._cut(raw)
        fields = None
        try:
            cells = _cells([_decoded(raw)], self.delimiter)
            if len(cells) == len(self._plan.names):
                # A row of nothing but delimiters, as spreadsheets leave them, is blank, too.
                fields = self._plan.read([cell or None for cell in cells])
                return Record(self.lines + 1, raw, fields, None) if fields else None
            if not raw.strip():
                return None
            problem = (
                f"it has {len(cells):,} cells, and the header {len(self._plan.names)}; put quotes "
                f"around a cell with {short_repr(self.delimiter)} in it"
            )
        except ColumnError as error:
            problem, fields = str(error), error.fields
        except _RefusedError as error:
            problem = str(error)
        return Record(self.lines + 1, raw, fields, problem)

    def _choose_delimiter(self, line: bytes) -> None:
        """Takes the one that finds the most columns in the header; of several, the first."""

        def found(delimiter: str) -> int:
            try:
                names = _cells([line.decode("latin-1")], delimiter, strict=False)
            except _RefusedError:
                return 0
            return sum(known(name) or name.strip() == _REFUSED_BECAUSE for name in names)

        self.delimiter = max(self._delimiters, key=found)

    def _take_header(self, raw: bytes) -> None:
        try:
            names = _cells([_decoded(raw)], self.delimiter)
            if names[0].strip() == _REFUSED_BECAUSE:
                names = names[1:]
                cell = f'(?:"(?:[^"]|"")*+"|[^{self.delimiter}]*+){self.delimiter}'
                self._reason = re.compile(cell.encode())
            self._plan = plan(names)
        except (_RefusedError, ColumnError) as error:
            self._fail(f"the header of the CSV cannot be used: {error}")
        self.header = self._cut(raw)

    def _cut(self, raw: bytes) -> bytes:
        """A row without its reason, where rows have one."""
        found = self._reason.match(raw) if self._reason is not None else None
        return raw if found is None else raw[found.end() :]


def _cells(lines: Iterable[str], delimiter: str, *, strict: bool = True) -> list[str]:
    """The cells of the row that begins in the first line.

    A quote that is not the first character of its cell is a character like any other.
    """
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=strict), [])
    except csv.Error as error:
        raise _RefusedError(
            f"it is not CSV ({error}); write a quote within a quoted cell twice, and put quotes "
            "around a cell with a line end in it"
        ) from None


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
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(
                    f"an object in it has the key {short_repr(key)} twice; remove one of them"
                )
            seen.add(key)
    return fields


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"it has {name} in it, which is not JSON; leave the key out")


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _object(text: str) -> dict[str, object]:
    """Reads a line of NDJSON that may be anything."""
    try:
        value = _DECODER.decode(text)
        if "\\u" in text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        remedy = "write one event per line"
        if text.strip() in ("{", "[", "}", "]"):
            remedy += "; if the file is one JSON document, convert it with jq -c . or jq -c '.[]'"
        raise _RefusedError(
            f"it is not JSON, {error.msg} at column {error.colno:,}: {remedy}"
        ) from None
    except UnicodeEncodeError:
        raise _RefusedError(
            "it has a lone surrogate in it, which UTF-8 cannot encode; remove it"
        ) from None
    except RecursionError:
        raise _RefusedError("its values are nested too deeply; an event has two levels") from None
    except _RefusedError:
        raise
    except ValueError:  # Python's own limit, against numbers that take minutes to read.
        raise _RefusedError(
            "it has a number of thousands of digits in it; write it as a string"
        ) from None
    if isinstance(value, list):
        raise _RefusedError(
            "it is an array; write one event per line, which jq -c '.[]' does for a JSON array"
        )
    if not isinstance(value, dict):
        raise _RefusedError("it is not an object; write one event per line, each as an object")
    return value
