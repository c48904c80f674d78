"""Charts of events over time and by name, for the terminal and as SVG.

Event names come from a server, so each one passes through `_shown` before it is drawn.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from itertools import count, pairwise
from typing import Literal

from attrs import frozen
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from intercom_data_events._counting import counted
from intercom_data_events._validation import printable
from intercom_data_events.pagination import EventSummary

# The year 1 begins on a Monday, so steps counted from here are days that begin at midnight and
# weeks that begin on Mondays, and no bucket begins before the earliest datetime.
_ORIGIN = datetime.min.replace(tzinfo=UTC)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
# With the last one, all datetimes fit into one bucket.
_STEPS = (
    *(timedelta(minutes=number) for number in (1, 5, 15, 30)),
    *(timedelta(hours=number) for number in (1, 3, 6, 12)),
    *(timedelta(days=number) for number in (1, 2, 7, 14, 28, 91, 182)),
    *(_YEAR * number for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000)),
)
_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60))
# Between two ticks of the time axis: steps of the clock, days and weeks, then months.
_CLOCK = tuple(step for step in _STEPS if step <= timedelta(days=7) and step != 2 * _DAY)
_MONTHS = (
    1,
    3,
    6,
    *(12 * years for years in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)),
)
_MOST_TICKS = 5  # On the count axis, besides the one at 0.
_LABEL_GAP = 4  # Columns between the labels of the time axis.
_MOST = 10**10 - 1  # A server can send any number; longer ones leave no room for the chart.

_ROWS = 12  # Names in a timeline; the others share one row.
_MINIMUM_WIDTH = 40  # A narrower terminal cuts charts off on the right.
_LEAST_BAR = 12  # Columns; if there is less room, the dates are left out.
_GAP = 2  # Columns between the columns of a table.
_DATED = ("first (UTC)", "last (UTC)")
_HEIGHTS, _ASCII_HEIGHTS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR = "magenta"  # Visible on light and dark terminals.

_SVG_WIDTH = 100  # Columns.
_MOST_TOLD = 100_000  # Characters.
# The bars' color is visible on light and dark pages; text has the page's color.
_THEME = TerminalTheme((255, 255, 255), (0, 0, 0), [(76, 143, 208)] * 8)
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}">
<title>TITLE</title>
<desc>TOLD</desc>
<style>
text {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
text {{ direction: ltr; unicode-bidi: isolate }}
{styles}
svg {{ color: #222 }} .paper {{ fill: #fff }}
@media (prefers-color-scheme: dark) {{ svg {{ color: #e6e6e6 }} .paper {{ fill: #16181c }} }}
</style>
<rect class="paper" width="{width}" height="{height}"/>
<text x="{terminal_x}" y="28" fill="currentColor">HEADING</text>
<g transform="translate({terminal_x}, {terminal_y})">
{matrix}
</g>
</svg>
"""


@frozen
class Chart:
    """A chart to draw.

    Attributes:
        drawn: The chart, as rich draws it.
        told: The chart in words.
    """

    drawn: Group
    told: str


def timeline(
    moments: Sequence[tuple[str, datetime]], *, width: int = _SVG_WIDTH, ascii: bool = False
) -> Chart:
    """Draws the number of events in equal periods, with a row for each name.

    Args:
        moments: At least one name with its time in UTC, in any order.
        width: The width of the chart in columns, at least 40.
        ascii: Whether the terminal can show only ASCII.
    """
    often = Counter(name for name, _ in moments)
    ranked = sorted(often, key=lambda name: (-often[name], name))
    places = {name: min(place, _ROWS) for place, name in enumerate(ranked)}
    titles = ranked[:_ROWS]
    if len(ranked) > _ROWS:
        titles.append(counted(len(ranked) - _ROWS, "more name"))
    width = max(width, _MINIMUM_WIDTH)
    names, taken = _names(titles, width, ascii)
    # No count is longer than the total.
    room = width - taken - max(len(_number(len(moments))), len("count")) - 2 * _GAP
    since = [(places[name], moment - _ORIGIN) for name, moment in moments]
    first, last = min(time for _, time in since), max(time for _, time in since)
    step = next(step for step in _STEPS if last // step - first // step < room)
    begin, size = first // step, last // step - first // step + 1
    rows = [[0] * size for _ in titles]
    for place, time in since:
        rows[place][time // step - begin] += 1
    most = max(map(max, rows))
    heights = _ASCII_HEIGHTS if ascii else _HEIGHTS
    table = _table("event", "", "count")
    for name, row in zip(names, rows, strict=True):
        # Rounded up, so that a single event is visible.
        bars = "".join(heights[-(-number * 8 // most)] for number in row)
        table.add_row(name, Text(bars, _BAR), Text(_number(sum(row))))
    origin = _ORIGIN + step * begin
    for line in _axis(_time_ticks(origin, _ORIGIN + last, step, size), size, room, ascii):
        table.add_row("", Text(line), "")
    caption = (
        f"each column is {_in_words(step)}, from {_iso(origin)[:16]} UTC; "
        f"{heights[-1]} is {counted(most, 'event')}"
    )
    told = ", ".join(
        f"{_shown(title, 200)} {sum(row):,}" for title, row in zip(titles, rows, strict=True)
    )
    return Chart(Group(table, Text(caption)), f"{told}; {caption}")


def counts(spans: Sequence[EventSummary], *, width: int = _SVG_WIDTH, ascii: bool = False) -> Chart:
    """Draws the count of each event name as a bar, with the first and last date.

    Args:
        spans: The counts by name.
        width: The width of the chart in columns, at least 40.
        ascii: Whether the terminal can show only ASCII.
    """
    width = max(width, _MINIMUM_WIDTH)
    names, taken = _names([span.name or "" for span in spans], width, ascii)
    numbers = [_number(span.count) for span in spans]
    ends = [_ends(span) for span in spans]
    columns = width - taken - max(map(len, ["count", *numbers])) - 2 * _GAP
    dated = sum(map(len, _DATED)) + 2 * _GAP
    if is_dated := columns - dated >= _LEAST_BAR:
        columns -= dated
    table = _table("event", "count", "", *(_DATED if is_dated else ()))
    most = min(max((span.count or 0 for span in spans), default=0), _MOST)
    for name, span, number, pair in zip(names, spans, numbers, ends, strict=True):
        bar = _bar(max(span.count or 0, 0), most, columns, ascii)
        moments = [_iso(moment)[:10] for moment in pair] if pair else ["-", "-"]
        table.add_row(name, number, Text(bar, _BAR), *(moments if is_dated else ()))
    if spans:
        for line in _axis([*_count_ticks(most, columns)], columns, columns, ascii):
            table.add_row("", "", Text(line))
    told = [
        f"{_shown(span.name or '', 200)}: {number}, "
        + (f"{_iso(pair[0])} to {_iso(pair[1])} UTC" if pair else "at unknown times")
        for span, number, pair in zip(spans, numbers, ends, strict=True)
    ]
    return Chart(Group(table), "; ".join(told) or "no events")


def svg(chart: Chart, title: str) -> str:
    """Returns a chart as an SVG document that adapts to light and dark pages."""
    console = Console(file=io.StringIO(), record=True, width=_SVG_WIDTH)
    console.print(chart.drawn)
    texts = {"TITLE": title, "HEADING": _shown(title, 90), "TOLD": chart.told}
    form = re.sub(
        "|".join(texts),
        lambda word: re.sub("([{}])", r"\1\1", escape(_shown(texts[word[0]], _MOST_TOLD))),
        _SVG,
    )
    document = console.export_svg(theme=_THEME, code_format=form, unique_id="chart")
    # rich adds elements for line endings, clips by reference, and gives each character one column.
    document = re.sub(r"<text [^>]*>\n</text>|(?<=\") clip-path=\"[^\"]*\"", "", document)
    document = re.sub(
        r'(?<= textLength=")[^"]*(?="[^>]*>([^<]*)<)',
        lambda found: f'{cell_len(unescape(found[1])) * 12.2:g}" lengthAdjust="spacingAndGlyphs',
        document,
    )
    return document.replace("fill: #000000", "fill: currentColor")


def _names(names: Sequence[str], width: int, ascii: bool) -> tuple[list[Text], int]:
    """The first column of a chart, and its width."""
    limit = min(width * 3 // 10, 32)
    shown = [_shown(name, limit, ascii=ascii) for name in names]
    # Text is not searched for markup, unlike str.
    return [*map(Text, shown)], max(map(cell_len, ["event", *shown]))


def _table(*headings: str) -> Table:
    """A table without lines, with right-aligned counts."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading == "count" else "left"
        table.add_column(heading, justify=justify, no_wrap=True, overflow="crop")
    return table


def _bar(number: int, most: int, columns: int, ascii: bool) -> str:
    # Rounded up, so that a single event is visible.
    eighths = -(-min(number, most) * columns * 8 // max(most, 1))
    if ascii:
        return "#" * -(-eighths // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _axis(ticks: Sequence[tuple[int, str]], size: int, room: int, ascii: bool) -> tuple[str, str]:
    """An axis of `size` columns with its ticks, and a line of `room` columns for their labels."""
    line, mark = "-+" if ascii else "─┬"
    marked = {at for at, _ in ticks}
    labels = ""
    for at, label in ticks:
        labels = labels.ljust(max(min(at, room - len(label)), 0)) + label
    return "".join(mark if at in marked else line for at in range(size)), labels


def _count_ticks(most: int, columns: int) -> Iterator[tuple[int, str]]:
    """Columns and labels of ticks up to a count, in steps of 1, 2 or 5 times a power of ten."""
    room = columns // (2 * len(_number(most)) + 1)
    units = (unit * 10**power for power in count() for unit in (1, 2, 5))
    unit = next(unit for unit in units if most // unit <= min(room, _MOST_TICKS))
    for tick in range(0, most + 1, unit):
        yield min(columns * tick // max(most, 1), columns - 1), _number(tick)


def _time_ticks(
    first: datetime, last: datetime, step: timedelta, size: int
) -> list[tuple[int, str]]:
    """Columns and labels of ticks at midnights, starts of months and so on, if they fit."""
    units: Sequence[timedelta | int] = (*_CLOCK, *_MONTHS)
    for unit in units:
        ticks = [
            ((moment - first) // step, _label(moment, unit))
            for moment in _boundaries(first, last, unit, size)
            if moment >= first
        ]
        if ticks and all(
            later - at - len(label) >= _LABEL_GAP for (at, label), (later, _) in pairwise(ticks)
        ):
            return ticks
    return [(0, _iso(first)[:10])]


def _boundaries(
    first: datetime, last: datetime, unit: timedelta | int, most: int
) -> Iterator[datetime]:
    """Multiples of a unit, or of a number of months, between two times; none if there are more."""
    if isinstance(unit, timedelta):
        if (last - first) // unit <= most:
            begin, end = -((_ORIGIN - first) // unit), (last - _ORIGIN) // unit
            yield from (_ORIGIN + unit * number for number in range(begin, end + 1))
        return
    begin, end = (moment.year * 12 + moment.month - 1 for moment in (first, last))
    if (end - begin) // unit <= most:
        for month in range(begin // unit * unit, end + 1, unit):
            if (
                month >= 12
                and (found := datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)) >= first
            ):
                yield found


def _label(moment: datetime, unit: timedelta | int) -> str:
    text = _iso(moment)
    if isinstance(unit, timedelta):
        return text[5:10] if unit >= _DAY or text[11:16] == "00:00" else text[11:16]
    return text[:7] if unit < 12 else text[:4]


def _shown(name: str, limit: int, *, ascii: bool = False) -> str:
    """Returns a name from a server as it is safe to show, in at most `limit` columns.

    Unprintable characters are escaped: they could control the terminal, change the direction of
    the line, or be invalid in XML. Characters are limited as well as columns, because combining
    ones take no column.
    """
    text, more = printable(name, limit + 1), "…"
    if ascii:
        text, more = text.encode("ascii", "replace").decode(), "..."
    if not text.strip():
        return "(no name)"
    if len(text) <= limit and cell_len(text) <= limit:
        return text
    return set_cell_size(text[:limit], limit - len(more)).rstrip() + more


def _ends(span: EventSummary) -> tuple[datetime, datetime] | None:
    # If one is missing, the other is used for both. A server may swap them.
    known = sorted(moment for moment in (span.first, span.last) if moment is not None)
    return (known[0], known[-1]) if known else None


def _number(number: int | None) -> str:
    if number is None:
        return "-"
    return f"{number:,}" if abs(number) <= _MOST else f"{'<-' if number < 0 else '>'}10^10"


def _in_words(step: timedelta) -> str:
    if step % _YEAR == timedelta():
        return f"{counted(step // _YEAR, 'year')} of 365 days"
    seconds = step // timedelta(seconds=1)
    unit, length = next((unit, length) for unit, length in _UNITS if seconds % length == 0)
    return counted(seconds // length, unit)


def _iso(moment: datetime) -> str:
    return moment.isoformat(" ")[:19]
