"""Charts of what happened when, for the terminal and as SVG.

Event names are whatever a server says: each passes through `_shown` before it is drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, SubElement, tostring

from attrs import field, frozen
from rich.cells import cell_len, set_cell_size
from rich.text import Text

# The year 1 begins on a Monday, so steps that are counted from here are days that begin at
# midnight and weeks that begin on Mondays, and no bucket begins before what a datetime can hold.
_ORIGIN = datetime.min.replace(tzinfo=UTC)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
# In the last, all that a datetime can hold is one bucket.
_STEPS = (
    *(timedelta(minutes=number) for number in (1, 5, 15, 30)),
    *(timedelta(hours=number) for number in (1, 3, 6, 12)),
    *(timedelta(days=number) for number in (1, 2, 7, 14, 28, 91, 182)),
    *(_YEAR * number for number in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000)),
)
_UNITS = (("week", 604_800), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))

_ROWS = 12  # Of a histogram in the terminal.
_MINIMUM_WIDTH = 40  # A narrower terminal cuts charts off on the right.
_BLOCKS = " ▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = " .:-=+*#@"

# Okabe and Ito's, without black, which a dark page would hide; the last is for the other names.
_PALETTE = ("0072B2", "E69F00", "009E73", "D55E00", "56B4E9", "CC79A7", "F0E442", "999999")
_WIDTH = 960
_MARGIN = 20
_CELL = 7.3  # Of a monospaced character at 12 pixels, or a little more.
_STYLE = """
.paper { fill: #fff } .grid { stroke: #ccc } .bar { stroke: #333; stroke-width: .5 }
.axis { stroke: #333 }
text { fill: #222; font: 12px ui-monospace, monospace; direction: ltr; unicode-bidi: isolate }
.heading { font-size: 15px } .end { text-anchor: end } .middle { text-anchor: middle }
@media (prefers-color-scheme: dark) {
.paper { fill: #16181c } .grid { stroke: #444 } .bar { stroke: #ddd } .axis { stroke: #bbb }
text { fill: #e6e6e6 }
}
"""


@frozen
class Span:
    """When events of one name happened.

    Attributes:
        name: What happened.
        count: How many times, or None.
        first: When it happened first, an aware datetime in UTC, or None.
        last: When it happened last, likewise.
    """

    name: str
    count: int | None
    first: datetime | None
    last: datetime | None


@frozen
class Histogram:
    """How often events of each name happened in each of some equal stretches of time.

    Attributes:
        begins: When each bucket begins, in UTC, the earliest first. There is at least one.
        step: How long each bucket is.
        counts: By name, one number for each bucket; the most frequent name first.
    """

    begins: tuple[datetime, ...]
    step: timedelta
    counts: Mapping[str, tuple[int, ...]] = field(hash=False)

    @classmethod
    def of(cls, moments: Iterable[tuple[str, datetime]], *, buckets: int) -> Histogram | None:
        """Counts events, or returns None where there are none.

        Args:
            moments: What happened and when, in any order, as aware datetimes in UTC.
            buckets: How many buckets there may be. There are as many as the shortest step among
                minutes, hours, days, weeks and years needs, from the first event to the last.

        Raises:
            ValueError: There may be no bucket.

        Example:
            >>> noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
            >>> Histogram.of([("a", noon), ("a", noon + timedelta(hours=2))], buckets=3).counts
            {'a': (1, 0, 1)}
        """
        if buckets < 1:
            raise ValueError(f"buckets is {buckets}: there must be at least one")
        since = [(name, moment - _ORIGIN) for name, moment in moments]
        if not since:
            return None
        first, last = min(time for _, time in since), max(time for _, time in since)
        step = next(step for step in _STEPS if last // step - first // step < buckets)
        begin, end = first // step, last // step + 1
        counts: dict[str, list[int]] = {}
        for name, time in since:
            counts.setdefault(name, [0] * (end - begin))[time // step - begin] += 1
        ranked = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
        return cls(
            tuple(_ORIGIN + step * number for number in range(begin, end)),
            step,
            {name: tuple(numbers) for name, numbers in ranked},
        )


def histogram_chart(histogram: Histogram, *, width: int, ascii: bool = False) -> Text:
    """Draws a histogram for the terminal: a row for each name, and an axis of time.

    Where there are more buckets than columns, a column stands for several.

    Args:
        histogram: What to draw.
        width: How wide the chart may be, in columns of the terminal, from 40.
        ascii: Whether the terminal can show nothing but ASCII.
    """
    rows = _top(histogram, _ROWS)
    frame = _Frame.around([(name, sum(row)) for name, row in rows], width, ascii)
    merged = -(-len(histogram.begins) // frame.columns)
    step = histogram.step * merged
    begins = range(0, len(histogram.begins), merged)
    cells = [[sum(row[begin : begin + merged]) for begin in begins] for _, row in rows]
    most = max((number for row in cells for number in row), default=0) or 1
    blocks = _ASCII_BLOCKS if ascii else _BLOCKS
    # Rounded up, so that whatever happened can be seen.
    bars = ["".join(blocks[-(-number * 8 // most)] for number in row) for row in cells]
    first, last = histogram.begins[0], histogram.begins[-1]
    caption = (
        f"one column is {_in_words(step)}, UTC, from {_iso(first)[:16]}; "
        f"{blocks[-1]} is {_counted(most, 'event')}"
    )
    return frame.chart(bars, _axis(first, last, step, len(begins), ascii), caption)


def spans_chart(spans: Sequence[Span], *, width: int, ascii: bool = False) -> Text:
    """Draws for the terminal from when to when something happened: a row for each span.

    The arguments are those of `histogram_chart`.
    """
    if not spans:
        return Text("no events")
    frame = _Frame.around([(span.name, span.count) for span in spans], width, ascii)
    extent = _extent(spans)
    if extent is None:
        return frame.chart([""] * len(spans), [], "the times are not known")
    first, last = extent
    columns = frame.columns if first < last else 1
    left, line, right, mark = "|-|*" if ascii else "├─┤●"
    bars = []
    for span in spans:
        bar = ""
        if ends := _ends(span):
            begin, end = (round(_share(moment, extent) * (columns - 1)) for moment in ends)
            bar = mark if begin == end else left + line * (end - begin - 1) + right
            bar = " " * begin + bar
        bars.append(bar)
    step = (last - first) / max(columns - 1, 1)
    caption = f"from {_iso(first)} to {_iso(last)}, UTC"
    return frame.chart(bars, _axis(first, last, step, columns, ascii), caption)


def histogram_svg(histogram: Histogram, title: str) -> str:
    """Returns a histogram as an SVG document: stacked bars, with a colour for each name.

    There are seven such colours, and another for all other names together.
    """
    rows = _top(histogram, len(_PALETTE) - 1)
    first, last, step = histogram.begins[0], histogram.begins[-1], _in_words(histogram.step)
    names = ", ".join(f"{_shown(name, 200)} {_number(sum(row))}" for name, row in rows)
    caption = f"one bar is {step}, UTC, from {_iso(first)[:16]}"
    svg = _document(380 + 20 * -(-len(rows) // 3), title, f"{names or 'no events'}; {caption}")
    size = len(histogram.begins)
    highest = max(sum(row[bucket] for _, row in rows) for bucket in range(size))
    power = 10 ** (len(str(highest)) - 1)
    units = (power // 5 or 1, power // 2 or 1, power, power * 2)
    unit = next(unit for unit in units if highest <= unit * 5)
    lines = max(-(-highest // unit), 1)
    left, right, top, bottom = _CELL * len(_number(unit * lines)) + 44, _WIDTH - _MARGIN, 50, 320
    for line in range(lines + 1):
        y = bottom - (bottom - top) * line / lines
        _add(svg, "line", "grid", x1=left, x2=right, y1=y, y2=y)
        _add(svg, "text", "end", _number(unit * line), x=left - 8, y=y + 4)
    wide = min((right - left) / size, 60.0)
    drawn = [0] * size
    for place, ((name, row), colour) in enumerate(zip(rows, _PALETTE, strict=False)):
        group = _add(svg, "g", fill=f"#{colour}")
        for bucket, number in enumerate(row):
            if number:
                drawn[bucket] += number
                y = bottom - (bottom - top) * (drawn[bucket] / (unit * lines))
                # A bar of no height would not be drawn.
                tall = max((bottom - top) * (number / (unit * lines)), 1.0)
                x = left + wide * (bucket + 0.05)
                bar = _add(group, "rect", "bar", x=x, y=y, width=wide * 0.9, height=tall)
                told = f"{_number(number)}, {step} from {_iso(histogram.begins[bucket])[:16]} UTC"
                _add(bar, "title", text=f"{_shown(name, 200)}: {told}")
        x, y = _MARGIN + place % 3 * 310, 380 + place // 3 * 20
        _add(group, "rect", "bar", x=x, y=y - 10, width=12, height=12)
        _add(svg, "text", text=f"{_shown(name, 26)} {_number(sum(row))}", x=x + 18, y=y)
    _add(svg, "line", "axis", x1=left, x2=right, y1=bottom, y2=bottom)
    part, ticks = _ticks(first, last, histogram.step, size, int(wide * size / _CELL / 1.2), 6)
    for tick in ticks:
        x = left + wide * tick
        _add(svg, "line", "axis", x1=x, x2=x, y1=bottom, y2=bottom + 5)
        _add(svg, "text", "middle", _iso(histogram.begins[tick])[part], x=x, y=bottom + 18)
    _add(svg, "text", "end", caption, x=right, y=bottom + 36)
    return tostring(svg, encoding="unicode") + "\n"


def spans_svg(spans: Sequence[Span], title: str) -> str:
    """Returns as an SVG document from when to when something happened: a row for each span."""
    told = []
    for span in spans:
        ends = _ends(span)
        when = f"{_iso(ends[0])} to {_iso(ends[1])} UTC" if ends else "at unknown times"
        told.append(f"{_shown(span.name, 200)}: {_number(span.count)}, {when}")
    left, right, bottom = 230, _WIDTH - 120, 50 + 22 * len(spans)
    svg = _document(bottom + 46, title, "; ".join(told) or "no events")
    if extent := _extent(spans):
        first, last = extent
        room = int((right - left) / _CELL)
        step = (last - first) / room
        part, ticks = _ticks(first, last, step, room, room if step else 0, 6)
        for tick in ticks:
            x = left + (right - left) * tick / room
            _add(svg, "line", "grid", x1=x, x2=x, y1=44, y2=bottom + 5)
            _add(svg, "text", "middle", _iso(first + step * tick)[part], x=x, y=bottom + 18)
        caption = f"from {_iso(first)} to {_iso(last)}, UTC"
        _add(svg, "text", "end", caption, x=_WIDTH - _MARGIN, y=bottom + 36)
    for place, span in enumerate(spans):
        y = 60 + 22 * place
        row = _add(svg, "g", fill=f"#{_PALETTE[0]}")
        _add(row, "title", text=told[place])
        _add(row, "text", text=_shown(span.name, 26), x=_MARGIN, y=y + 4)
        if extent and (ends := _ends(span)):
            begin, end = (left + (right - left) * _share(moment, extent) for moment in ends)
            # As wide as it is high at least, or a moment would not be drawn.
            x, width = begin - 5, end - begin + 10
            _add(row, "rect", "bar", x=x, y=y - 5, width=width, height=10, rx=5)
        _add(row, "text", "end", _number(span.count), x=_WIDTH - _MARGIN, y=y + 4)
    return tostring(svg, encoding="unicode") + "\n"


@frozen
class _Frame:
    """Names on the left and numbers on the right, with room for so many columns between them."""

    names: tuple[str, ...]
    numbers: tuple[str, ...]
    width: int
    columns: int

    @classmethod
    def around(cls, rows: Sequence[tuple[str, int | None]], width: int, ascii: bool) -> _Frame:
        width = max(width, _MINIMUM_WIDTH)
        names = [_shown(name, min(width * 35 // 100, 32), ascii=ascii) for name, _ in rows]
        numbers = [_number(number) for _, number in rows]
        widest = max(map(cell_len, names), default=0)
        longest = max(map(len, numbers), default=0)
        return cls(
            tuple(set_cell_size(name, widest) for name in names),
            tuple(number.rjust(longest) for number in numbers),
            width,
            width - widest - longest - 2,
        )

    def chart(self, bars: Sequence[str], axis: Sequence[str], caption: str) -> Text:
        widest = max(map(len, [*bars, *axis[:1]]), default=0)
        lines = [
            Text.assemble(name, " ", (bar.ljust(widest), "cyan"), " ", number)
            for name, bar, number in zip(self.names, bars, self.numbers, strict=True)
        ]
        indent = " " * (cell_len(self.names[0]) + 1 if self.names else 0)
        lines += [Text(indent + line, "dim") for line in axis]
        lines += [Text(line, "dim") for line in textwrap.wrap(caption, self.width)]
        # Text is not searched for markup, unlike str.
        return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _axis(first: datetime, last: datetime, step: timedelta, columns: int, ascii: bool) -> list[str]:
    cut, ticks = _ticks(first, last, step, columns, columns, 4)
    labels = ""
    for tick in ticks:
        labels = labels.ljust(tick) + _iso(first + step * tick)[cut]
    line, mark = "-+" if ascii else "─┬"
    return ["".join(mark if at in ticks else line for at in range(columns)), labels]


def _ticks(
    first: datetime, last: datetime, step: timedelta, places: int, room: int, most: int
) -> tuple[slice, range]:
    """Which part of a time to show, and at which places, with so much room in characters."""
    if step < _DAY and first.date() == last.date():
        cuts = [slice(11, 16 if step >= timedelta(minutes=1) else 19)]
    elif step < _DAY:
        cuts = [slice(5, 16), slice(5, 10)]
    elif first.year == last.year:
        cuts = [slice(10), slice(5, 10)]
    else:
        cuts = [slice(10), slice(7), slice(4)]
    lengths = [cut.stop - (cut.start or 0) + 1 for cut in cuts]
    chosen = next((at for at, length in enumerate(lengths) if room >= 2 * length), -1)
    ticks = max(min(room // lengths[chosen], places, most), 1)
    return cuts[chosen], range(0, places, -(-places // ticks))


def _shown(name: str, limit: int, *, ascii: bool = False) -> str:
    """What is safe to show of a text from elsewhere, in so many columns.

    What is not printable would control the terminal, turn the line's direction or be no XML.
    Characters are limited as well as columns, since combining ones take no column.
    """
    text = "".join(
        char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
        for char in name[: limit + 1]
    )
    more = "…"
    if ascii:
        text, more = text.encode("ascii", "replace").decode(), "..."
    if not text.strip():
        return "(no name)"
    if len(text) <= limit and cell_len(text) <= limit:
        return text
    return set_cell_size(text[:limit], limit - len(more)).rstrip() + more


def _top(histogram: Histogram, limit: int) -> list[tuple[str, tuple[int, ...]]]:
    rows = list(histogram.counts.items())
    if rest := rows[limit:]:
        total = tuple(map(sum, zip(*(row for _, row in rest), strict=True)))
        rows[limit:] = [(_counted(len(rest), "more name"), total)]
    return rows


def _ends(span: Span) -> tuple[datetime, datetime] | None:
    # One alone stands for both, and a server may mix them up.
    known = sorted(moment for moment in (span.first, span.last) if moment is not None)
    return (known[0], known[-1]) if known else None


def _extent(spans: Sequence[Span]) -> tuple[datetime, datetime] | None:
    known = [moment for span in spans for moment in _ends(span) or ()]
    return (min(known), max(known)) if known else None


def _share(moment: datetime, extent: tuple[datetime, datetime]) -> float:
    first, last = extent
    return (moment - first) / (last - first) if first < last else 0.0


def _number(number: int | None) -> str:
    if number is None:
        return "-"
    # A server may say any number; longer ones would leave no room for the chart.
    return str(number) if abs(number) < 10**10 else f"{'<-' if number < 0 else '>'}10^10"


def _counted(number: int, noun: str) -> str:
    return f"{_number(number)} {noun}{'' if number == 1 else 's'}"


def _in_words(step: timedelta) -> str:
    if step % _YEAR == timedelta():
        return f"{_counted(step // _YEAR, 'year')} of 365 days"
    seconds = step // timedelta(seconds=1)
    unit, length = next((unit, length) for unit, length in _UNITS if seconds % length == 0)
    return _counted(seconds // length, unit)


def _iso(moment: datetime) -> str:
    return moment.isoformat(" ")[:19]


def _document(height: int, title: str, description: str) -> Element:
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    svg.set("viewBox", f"0 0 {_WIDTH} {height}")
    _add(svg, "title", text=_shown(title, 200))
    _add(svg, "desc", text=description)
    _add(svg, "style", text=_STYLE)
    _add(svg, "rect", "paper", width=_WIDTH, height=height)
    _add(svg, "text", "heading", _shown(title, 100), x=_MARGIN, y=28)
    return svg


def _add(
    parent: Element, tag: str, kind: str = "", text: str = "", **attributes: float | str
) -> Element:
    node = SubElement(parent, tag, {"class": kind} if kind else {})
    for name, value in attributes.items():
        node.set(name, value if isinstance(value, str) else f"{value:.1f}")
    node.text = text or None
    return node
