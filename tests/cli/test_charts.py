"""Charts of what happened when: nothing is lost, and no name does any harm."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from intercom_data_events.cli.charts import Chart, counts, svg, timeline
from intercom_data_events.pagination import EventSummary

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
YEAR_9999 = datetime.max.replace(tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SVG = "{http://www.w3.org/2000/svg}"


def span(name, count, first, last):
    return EventSummary(name, count, first, last, None, {})


#: What has broken terminals, layouts and documents.
HOSTILE = [
    "",
    " \t ",
    "[bold red]markup[/bold red] :smiley:",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "two\r\nlines\u2028of\u2029text\x85",
    "\u202egnp.exe\u200f",
    "nul\0",
    "\ud800 \ufffe \uffff",
    "]]></title><script>alert(1)</script>&amp;",
    "a" * 5000,
    "注文" * 500,
    "e" + "\u0301" * 1000,
    "👩\u200d👩\u200d👧",
]
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=())))
TIMES = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    st.integers(0, 200_000).map(lambda seconds: NOON + timedelta(seconds=seconds)),
)
MOMENTS = st.lists(st.tuples(TEXTS, TIMES), min_size=1, max_size=40)
SPANS = st.lists(
    st.builds(span, TEXTS, st.integers(), st.none() | TIMES, st.none() | TIMES), max_size=30
)
WIDTHS = st.integers(40, 200)


def printed(chart: Chart, width=80, terminal=False):
    file = StringIO()
    colors = "truecolor" if terminal else None
    console = Console(file=file, width=width, force_terminal=terminal, color_system=colors)
    console.print(chart.drawn)
    return file.getvalue()


def lines(chart, width=80):
    return [line.rstrip() for line in printed(chart, width).splitlines()]


def texts(document, tag="text"):
    found = [node.text or "" for node in ElementTree.fromstring(document).iter(SVG + tag)]
    return [text.replace("\xa0", " ").strip() for text in found]


def assert_harmless(chart, width, ascii=False):
    output = printed(chart, width)
    # A lone surrogate would raise here.
    output.encode("ascii" if ascii else "utf-8")
    rows = output.split("\n")
    assert all(char.isprintable() for row in rows for char in row)
    assert all(cell_len(row) <= width for row in rows)
    # With styles there is nothing in it but our own two, and the same text.
    styled = printed(chart, width, terminal=True)
    assert set(re.findall(r"\x1b.{,4}?m", styled)) <= {f"\x1b[{n}m" for n in (0, 1, 35)}
    assert re.sub(r"\x1b\[(?:0|1|35)m", "", styled) == output


# When


def at(*hours, name="a"):
    return [(name, NOON + hour * HOUR) for hour in hours]


def test_a_timeline_shows_names_bars_counts_and_how_to_read_them():
    orders = [*at(*[0] * 8, 3, name="placed-order"), *at(1, name="paid")]
    assert lines(timeline(orders, width=80)) == [
        "event                                                    count",
        "placed-order  █                                   ▁          9",
        "paid                      ▁                                  1",
        "              ┬───────────┬───────────┬───────────┬",
        "              12:00       13:00       14:00       15:00",
        "each column is 5 minutes, from 2026-01-31 12:00 UTC; █ is 8 events",
    ]


def test_a_timeline_can_do_with_ascii():
    orders = at(*[0] * 8, 3, name="commandé")
    assert lines(timeline(orders, width=80, ascii=True)) == [
        "event                                                count",
        "command?  @                                   .          9",
        "          +-----------+-----------+-----------+",
        "          12:00       13:00       14:00       15:00",
        "each column is 5 minutes, from 2026-01-31 12:00 UTC; @ is 8 events",
    ]


@given(MOMENTS, WIDTHS)
def test_every_event_is_counted_once_whatever_the_order(moments, width):
    chart = timeline(moments, width=width)
    _, *rows = lines(chart, width)
    names = len({name for name, _ in moments})
    counted = [int(row.split()[-1]) for row in rows[: min(names, 13)]]
    assert sum(counted) == len(moments)
    assert counted[:12] == sorted(counted[:12], reverse=True)
    again = timeline(moments[::-1], width=width)
    assert (again.told, printed(again, width)) == (chart.told, printed(chart, width))


def test_the_most_frequent_name_is_first_and_all_have_one_scale():
    moments = [*at(0, name="c"), *at(*[0] * 400, name="b"), *at(*[0] * 800, name="a")]
    shown = [line.split() for line in lines(timeline(moments, width=80))[1:4]]
    assert shown == [["a", "█", "800"], ["b", "▄", "400"], ["c", "▁", "1"]]


def test_names_after_the_twelfth_are_summed_up():
    moments = [(f"name-{number:03}", NOON) for number in range(500)]
    _, *shown = lines(timeline(moments, width=80))
    assert [line.split()[0] for line in shown[:12]] == [f"name-{n:03}" for n in range(12)]
    assert shown[12].split() == ["488", "more", "names", "█", "488"]
    assert len(shown) == 13 + 3
    _, *shown = lines(timeline(moments[:13], width=80))
    assert shown[12].startswith("1 more name ")


@pytest.mark.parametrize(
    ("last", "labels", "caption"),
    [
        (NOON, ["12:00"], "1 minute, from 2026-01-31 12:00 UTC"),
        (NOON + HOUR, ["12:00", "12:15", "12:30", "12:45", "13:00"], "1 minute"),
        (NOON + 24 * HOUR, ["12:00", "18:00", "02-01", "06:00", "12:00"], "30 minutes"),
        (NOON + 9 * DAY, ["02-02", "02-09"], "6 hours"),
        (NOON + 40 * DAY, ["2026-02", "2026-03"], "1 day, from 2026-01-31 00:00 UTC"),
        (NOON + 300 * DAY, ["2026-04", "2026-07", "2026-10"], "1 week, from 2026-01-26"),
        (NOON + 900 * DAY, ["2026-07", "2027-01", "2027-07", "2028-01", "2028-07"], "2 weeks"),
        (YEAR_9999, ["2000", "4000", "6000", "8000"], "200 years"),
    ],
)
def test_ticks_are_where_a_calendar_has_lines(last, labels, caption):
    chart = timeline([("a", NOON), ("a", last)], width=80)
    *_, shown, told = lines(chart)
    assert re.split(r"\s{2,}", shown.strip()) == labels
    assert f"each column is {caption}" in told


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("days", [0.01, 1, 3, 14, 45, 89, 400, 4000])
def test_the_label_of_a_tick_is_the_time_of_its_column(days, columns):
    moments = [("a", NOON + timedelta(days=days) * part / 60) for part in range(61)]
    _, row, axis, labels, caption = lines(timeline(moments, width=columns), columns)
    step, unit, begin = re.search(
        r"is (\d+) (\w+?)s?, from (.*) UTC", caption.replace(" of 365 days", "")
    ).groups()
    seconds = {"minute": 60, "hour": 3600, "day": 86400, "week": 604800, "year": 31536000}[unit]
    first = datetime.fromisoformat(begin).replace(tzinfo=UTC)
    marks = [match.start() for match in re.finditer("┬", axis)]
    assert 1 <= len(marks) <= 9
    for mark in marks:
        label = labels[mark:].split()[0]
        start = first + timedelta(seconds=int(step) * seconds) * (mark - row.index(row.split()[1]))
        end = start + timedelta(seconds=int(step) * seconds)
        # The time that a label names is within the column below which it begins.
        assert any(
            label in f"{moment:%Y-%m-%d %H:%M}"
            for moment in (start + (end - start) * part / 2000 for part in range(2000))
        ), (label, start, end)


# How often


def test_bars_are_as_long_as_their_counts():
    spans = [
        span("opened-app", 400, NOON - 400 * DAY, NOON),
        span("paid", 100, NOON - 2 * DAY, NOON - DAY),
        span("left", 1, None, NOON),
        span("never", 0, None, None),
        span("odd", None, None, None),
    ]
    assert lines(counts(spans, width=80)) == [
        "event       count                                        first (UTC)  last (UTC)",
        "opened-app    400  ████████████████████████████████████  2024-12-27   2026-01-31",
        "paid          100  █████████                             2026-01-29   2026-01-30",
        "left            1  ▏                                     2026-01-31   2026-01-31",
        "never           0                                        -            -",
        "odd             -                                        -            -",
        "                   ┬────────┬────────┬────────┬───────┬",
        "                   0        100      200      300   400",
    ]
    assert lines(counts(spans[:2], width=80, ascii=True))[1:] == [
        "opened-app    400  ####################################  2024-12-27   2026-01-31",
        "paid          100  #########                             2026-01-29   2026-01-30",
        "                   +--------+--------+--------+-------+",
        "                   0        100      200      300   400",
    ]


def test_dates_are_left_out_where_bars_would_have_no_room():
    spans = [span("x" * 300, 10**9, NOON, NOON + 900 * HOUR), span("b", 1, NOON, NOON)]
    heading, first, second, *_ = lines(counts(spans, width=40), 40)
    assert heading.split() == ["event", "count"]
    assert first.startswith("xxxxxxxxxxx…  1,000,000,000  ██")
    assert (len(first), second.split()) == (40, ["b", "1", "▏"])


@given(st.integers(1, 10**12), st.integers(60, 200))
def test_ticks_of_counts_are_round_and_at_their_place(most, width):
    _, bar, axis, labels = lines(counts([span("a", most, None, None)], width=width), width)
    numbers = [int(text.replace(",", "")) for text in labels.split()]
    assert numbers[0] == 0
    assert len(numbers) <= 6
    marks = [match.start() for match in re.finditer("┬", axis)]
    assert len(marks) == len(numbers)
    for mark, number in zip(marks, numbers, strict=True):
        assert re.fullmatch(r"0|[125]0*", str(number // max(numbers.index(number), 1)))
        columns = bar.count("█")
        assert mark - marks[0] == min(columns * number // min(most, 10**10 - 1), columns - 1)


def test_a_span_that_ends_before_it_begins_is_told_all_the_same():
    [_, row, *_] = lines(counts([span("a", 2, NOON + 60 * HOUR, NOON)], width=80))
    assert row.endswith("2026-01-31   2026-02-03")


def test_no_spans_are_said_to_be_so():
    assert lines(counts([], width=80))[0].split()[:2] == ["event", "count"]
    assert counts([]).told == "no events"


@given(MOMENTS, WIDTHS, st.booleans())
def test_no_name_harms_the_terminal_or_a_timelines_layout(moments, width, ascii):
    assert_harmless(timeline(moments, width=width, ascii=ascii), width, ascii)


@given(SPANS, WIDTHS, st.booleans())
def test_no_name_and_no_number_harms_the_terminal_or_the_layout_of_counts(spans, width, ascii):
    assert_harmless(counts(spans, width=width, ascii=ascii), width, ascii)


def test_combining_characters_do_not_pile_up():
    chart = timeline([("e" + "\u0301" * 1000, NOON)])
    assert printed(chart, 100).count("\u0301") <= 32
    assert all(text.count("\u0301") <= 32 for text in texts(svg(chart, "t")))


# As SVG


def assert_sound(document):
    root = ElementTree.fromstring(document)
    allowed = {"svg", "title", "desc", "style", "g", "rect", "text"}
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= allowed
    assert root.get("role") == "img"
    assert [node.tag for node in root][:2] == [SVG + "title", SVG + "desc"]
    _, _, width, height = map(float, root.get("viewBox").split())
    for text in root.iter(SVG + "text"):
        assert 0 <= float(text.get("x")) + float(text.get("textLength", 0)) < width
        assert 0 <= float(text.get("y")) < height
    # Nothing from elsewhere, such as a font.
    assert not re.search(r"href|url\(|@import|@font-face", document)


@given(MOMENTS, TEXTS)
def test_no_name_breaks_the_document_of_a_timeline(moments, title):
    document = svg(timeline(moments), title)
    assert_sound(document)
    assert document == svg(timeline(moments[::-1]), title)


@given(SPANS, TEXTS)
def test_no_name_and_no_number_breaks_the_document_of_counts(spans, title):
    document = svg(counts(spans), title)
    assert_sound(document)
    assert document == svg(counts(spans), title)


@pytest.mark.parametrize("title", ["TOLD {0} HEADING", "{unique_id} TITLE", "</title>"])
def test_a_title_is_shown_as_it_is(title):
    document = svg(counts([span("TITLE {lines}", 1, None, None)]), title)
    assert texts(document, "title") == [title]
    assert texts(document)[0] == title
    assert texts(document, "desc") == ["TITLE {lines}: 1, at unknown times"]


def test_a_document_shows_what_a_terminal_shows():
    chart = counts([span("注文", 2, NOON, NOON + HOUR)])
    shown = texts(svg(chart, "Events of 1"))
    assert [text for text in shown if text][:4] == ["Events of 1", "event", "count", "first (UTC)"]
    assert {"注文", "2", "2026-01-31"} <= set(shown)
    # Wide characters have the room of two.
    [node] = [
        node
        for node in ElementTree.fromstring(svg(chart, "t")).iter(SVG + "text")
        if (node.text or "").startswith("注文")
    ]
    assert float(node.get("textLength")) == pytest.approx(5 * 12.2)


def test_a_document_is_described_to_those_who_do_not_see_it():
    chart = timeline([*at(0, 0, name="paid"), *at(0, name="left")])
    told = "paid 2, left 1; each column is 1 minute, from 2026-01-31 12:00 UTC; █ is 2 events"
    assert texts(svg(chart, "t"), "desc") == [told]
    spans = [span("paid", 2, NOON, NOON + HOUR), span("left", 0, None, None)]
    told = "paid: 2, 2026-01-31 12:00:00 to 2026-01-31 13:00:00 UTC; left: 0, at unknown times"
    assert texts(svg(counts(spans), "t"), "desc") == [told]


def test_a_document_has_a_row_for_each_of_many_spans():
    spans = [span(f"name-{number:03}", number, NOON, NOON + HOUR) for number in range(500)]
    shown = texts(svg(counts(spans), "t"))
    assert {one.name for one in spans} <= set(shown)


def test_a_document_has_colors_for_light_and_for_dark():
    for chart in (timeline(at(0)), counts([])):
        [style] = texts(svg(chart, "t"), "style")
        assert "prefers-color-scheme: dark" in style
        # Text and axes have the page's colors, and bars one that is seen on both.
        of_text = set(re.findall(r"chart-r\d \{ fill: ([^;} ]+)", style))
        assert of_text <= {"currentColor", "#4c8fd0"}
