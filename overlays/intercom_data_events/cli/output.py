"""The output of commands: results on standard output, messages on standard error."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from intercom_data_events import MonetaryAmount, RichLink
from intercom_data_events._counting import counted
from intercom_data_events._validation import printable
from intercom_data_events.event import to_json as event_json
from intercom_data_events.metadata import decimals_of

_WIDEST = 100_000  # Columns; enough to measure the natural width of a table.
_LEAST_CUT = 12  # Columns that remain of a shortened column.
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


class Shape(StrEnum):
    """The format of a command's output."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def cell(text: str, style: str = "") -> Text:
    """Returns printable text for a table or a line."""
    return Text(printable(text, None), style)


def console(file: TextIO) -> Console:
    """Returns a console for a stream; it uses colors on a terminal unless NO_COLOR is set."""
    colors: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    return Console(file=file, color_system=colors, highlight=False, emoji=False, markup=False)


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Yields standard output, and flushes it; names it in errors, which have no path."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "standard output"
        raise


def result(text: str = "") -> None:
    """Writes a printable line of a result; wraps it at blanks on a terminal."""
    if sys.stdout.isatty():
        line(cell(text))
    else:
        with standard_output() as file:
            _write(file, text)


def result_json(value: object) -> None:
    """Writes a result as one line of JSON, without wrapping."""
    with standard_output() as file:
        _write(file, to_json(value))


def to_json(value: object) -> str:
    """Returns a value as one line of JSON that is valid UTF-8 and safe to show on a terminal."""
    text = event_json(value, ensure_ascii=is_ascii(), default=_as_json)
    if text.isprintable():
        return text
    # JSON escapes only the ASCII control characters.
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def message(text: str) -> None:
    """Writes a printable message on standard error; wraps it at blanks on a terminal."""
    _on_stderr(cell(text))


def error(text: str) -> None:
    """Writes an error message on standard error, with a colored label on a terminal."""
    _on_stderr(Text.assemble(("Error:", "bold red"), " ", cell(text)))


def page(text: str) -> None:
    """Writes lines without wrapping, such as help or JSON, on standard error."""
    with suppress(OSError, ValueError):
        for one in text.split("\n"):
            _write(sys.stderr, one)


def _on_stderr(text: Text) -> None:
    # The work continues even if nothing reads standard error.
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            console(sys.stderr).print(text)
        else:
            _write(sys.stderr, text.plain)


def _write(file: TextIO, text: str) -> None:
    """Writes a printable line, and flushes it, so that a reader of a pipe gets it at once."""
    file.write(f"{printable(text, None)}\n")
    file.flush()


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def width() -> int:
    """Returns the columns available for a chart or table."""
    return console(sys.stdout).width


def draw(renderable: object) -> None:
    """Draws a chart or table on standard output."""
    with standard_output() as file:
        console(file).print(renderable)


def line(text: Text) -> None:
    """Writes a line of a result; in colors and wrapped at blanks on a terminal."""
    with standard_output() as file:
        console(file).print(text, soft_wrap=not file.isatty())


def is_ascii() -> bool:
    """Whether standard output can show only ASCII."""
    return not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def rows(
    shape: Shape,
    columns: Mapping[str, str],
    records: Iterable[Mapping[str, object]],
    *,
    cut: Collection[str] = (),
) -> None:
    """Writes records as a table, as one line of JSON each, or as CSV.

    Args:
        shape: The format.
        columns: The keys to show, in order, with their headings in a table. The header of CSV has
            the keys; JSON has all keys of a record.
        records: The records; JSON and CSV are streamed.
        cut: Columns that a table may shorten, so that each record has one line. If they would
            become too narrow, the table leaves out its last columns.
    """
    match shape:
        case Shape.JSON:
            for record in records:
                result_json(record)
        case Shape.CSV:
            records = iter(records)
            first = [*islice(records, 1)]  # If this fails, no header is written before the error.
            _csv_line(list(columns))
            for record in chain(first, records):
                _csv_line([_plain(record.get(key)) for key in columns])
        case Shape.TABLE:
            records = list(records)
            shown = {
                key: heading
                for key, heading in columns.items()
                if any(record.get(key) is not None for record in records)
            }
            least = partial(_table, records=records, cut=cut, most=_LEAST_CUT)
            while len(shown) > 1 and _widest(least(shown)) > width():
                shown.popitem()
            table = _table(shown, records, cut)
            table.expand = _widest(table) > width()
            draw(table)


def _widest(table: Table) -> int:
    return Console(width=_WIDEST).measure(table).maximum


def _csv_line(values: Sequence[object]) -> None:
    line = io.StringIO(newline="")
    csv.writer(line, lineterminator="").writerow(values)
    text = line.getvalue()
    if sys.stdout.isatty():
        result(text)
    else:  # Unchanged: only a terminal interprets control characters.
        with standard_output() as file:
            file.write(f"{text}\n")


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    return _as_json(value) if isinstance(value, datetime) else to_json(value)


def _table(
    columns: Mapping[str, str],
    records: Sequence[Mapping[str, object]],
    cut: Collection[str],
    most: int | None = None,
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, heading in columns.items():
        is_number = all(type(record.get(key)) in (int, type(None)) for record in records)
        table.add_column(
            heading,
            justify="right" if is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if key in cut else None,
            max_width=most if key in cut else None,
        )
    for record in records:
        values = [record.get(key) for key in columns]
        table.add_row(*(cell(f"{one:,}" if type(one) is int else shown(one)) for one in values))
    return table


def money(amount: int, currency: str) -> str:
    """Returns an amount of minor currency units in major units: ``$510.44``, ``510.44 CHF``."""
    code, decimals = currency.lower(), decimals_of(currency)
    if decimals is None:
        return f"{counted(amount, 'minor unit')} of {code.upper()}"
    units, rest = divmod(abs(amount), 10**decimals)
    text = f"{units:,}.{rest:0{decimals}}" if decimals else f"{units:,}"
    minus, sign = "-" if amount < 0 else "", _SIGNS.get(code, "")
    if not sign or (is_ascii() and not sign.isascii()):
        return f"{minus}{text} {code.upper()}"
    return f"{minus}{sign}{text}"


def moment(value: datetime | None) -> str:
    """Returns a time in UTC in readable form, or a dash."""
    return "-" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def second(moment: datetime | None) -> str:
    """Returns a time for a table, or a dash of the same width."""
    return f"{'-':19}" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def event_line(
    name: str | None, created_at: datetime | None, metadata: Mapping[str, object]
) -> Text:
    """Returns an event as one colored line."""
    text = Text.assemble(f"{moment(created_at):23}", "  ", cell(name or "-", "bold"))
    for key, value in metadata.items():
        text.append_text(cell(f"  {key}=", "magenta")).append_text(cell(shown(value)))
    return text


def shown(value: object) -> str:
    """Returns a value in readable form."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case MonetaryAmount():
            return money(value.amount, value.currency)
        case RichLink():
            return f"{value.value} <{value.url}>"
        case datetime():
            return moment(value)
    return json.dumps(value, ensure_ascii=False, default=_as_json)


def duration(seconds: float) -> str:
    """Returns a duration in readable form: ``3.2 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def word(file: Path) -> str:
    """Returns a file's name quoted for a shell, and not as an option."""
    name = str(file)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
