"""Charts of what happened when: nothing is lost, and no name does any harm."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from intercom_data_events.cli.charts import (
    Histogram,
    Span,
    histogram_chart,
    histogram_svg,
    spans_chart,
    spans_svg,
)

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
YEAR_1 = datetime.min.replace(tzinfo=UTC)
YEAR_9999 = datetime.max.replace(tzinfo=UTC)
HOUR = timedelta(hours=1)
SVG = "{http://www.w3.org/2000/svg}"

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
    st.builds(Span, TEXTS, st.integers(), st.none() | TIMES, st.none() | TIMES), max_size=30
)
WIDTHS = st.integers(40, 200)


def printed(chart, width=80, terminal=False):
    file = StringIO()
    colours = "truecolor" if terminal else None
    Console(file=file, width=width, force_terminal=terminal, color_system=colours).print(chart)
    return file.getvalue()


def lines(chart, width=80):
    return printed(chart, width).splitlines()


def histogram(*moments, buckets=40):
    made = Histogram.of(moments, buckets=buckets)
    assert made is not None
    return made


def texts(document, tag="text"):
    return [node.text or "" for node in ElementTree.fromstring(document).iter(SVG + tag)]


def assert_harmless(chart, width, ascii=False):
    output = printed(chart, width)
    # A lone surrogate would raise here.
    output.encode("ascii" if ascii else "utf-8")
    rows = output.split("\n")
    assert all(char.isprintable() for row in rows for char in row)
    assert all(cell_len(row) <= width for row in rows)
    # With styles there is nothing in it but our own two, and the same text.
    styled = printed(chart, width, terminal=True)
    assert set(re.findall(r"\x1b.{,4}?m", styled)) <= {"\x1b[0m", "\x1b[2m", "\x1b[36m"}
    assert re.sub(r"\x1b\[(?:0|2|36)m", "", styled) == output


# Counting


@given(MOMENTS, st.integers(1, 200))
def test_every_event_is_in_the_bucket_of_its_time_and_in_no_other(moments, buckets):
    made = histogram(*moments, buckets=buckets)
    assert 1 <= len(made.begins) <= buckets
    assert {later - earlier for earlier, later in pairwise(made.begins)} <= {made.step}
    expected = {name: [0] * len(made.begins) for name, _ in moments}
    for name, moment in moments:
        # Differences, since the end of the last bucket may be after the year 9999.
        [bucket] = [
            number
            for number, begin in enumerate(made.begins)
            if timedelta() <= moment - begin < made.step
        ]
        expected[name][bucket] += 1
    assert made.counts == {name: tuple(counts) for name, counts in expected.items()}


@given(MOMENTS)
def test_the_most_frequent_name_is_first_whatever_the_order_of_the_events(moments):
    made = histogram(*moments)
    totals = [sum(counts) for counts in made.counts.values()]
    assert totals == sorted(totals, reverse=True)
    assert list(histogram(*reversed(moments)).counts.items()) == list(made.counts.items())


def test_no_events_are_no_histogram():
    assert Histogram.of([], buckets=10) is None


def test_there_must_be_a_bucket():
    with pytest.raises(ValueError, match="buckets is 0"):
        Histogram.of([("a", NOON)], buckets=0)


@pytest.mark.parametrize(
    ("extent", "step", "first"),
    [
        (timedelta(), timedelta(minutes=1), "2026-01-31 12:34"),
        (timedelta(minutes=20), timedelta(minutes=1), "2026-01-31 12:34"),
        (timedelta(hours=2), timedelta(minutes=5), "2026-01-31 12:30"),
        (timedelta(days=1), HOUR, "2026-01-31 12:00"),
        (timedelta(days=7), 6 * HOUR, "2026-01-31 12:00"),
        (timedelta(days=30), timedelta(days=1), "2026-01-31 00:00"),
        (timedelta(days=200), timedelta(days=7), "2026-01-26 00:00"),  # A Monday
    ],
)
def test_buckets_begin_where_people_would_begin_them(extent, step, first):
    at = NOON + timedelta(minutes=34, seconds=56)
    made = histogram(("a", at), ("a", at + extent))
    assert made.step == step
    assert made.begins[0].isoformat(" ").startswith(first)


def test_all_that_a_datetime_can_hold_fits_one_bucket():
    assert histogram(("a", YEAR_1), ("a", YEAR_9999), buckets=1).counts == {"a": (2,)}


# In the terminal


def test_a_histogram_shows_names_bars_totals_and_how_to_read_them():
    orders = [*[("placed-order", NOON)] * 8, ("placed-order", NOON + 3 * HOUR)]
    made = histogram(*orders, ("paid", NOON + HOUR), buckets=20)
    assert lines(histogram_chart(made, width=80)) == [
        "placed-order █           ▁ 9",
        "paid             ▁         1",
        "             ┬──────┬─────",
        "             12:00  13:45",
        "one column is 15 minutes, UTC, from 2026-01-31 12:00; █ is 8 events",
    ]


def test_a_histogram_can_do_with_ascii():
    made = histogram(*[("commandé", NOON)] * 8, ("commandé", NOON + 3 * HOUR), buckets=20)
    assert lines(histogram_chart(made, width=80, ascii=True)) == [
        "command? @           . 9",
        "         +------+-----",
        "         12:00  13:45",
        "one column is 15 minutes, UTC, from 2026-01-31 12:00; @ is 8 events",
    ]


def test_bars_of_all_names_have_one_scale():
    made = histogram(*[("a", NOON)] * 800, *[("b", NOON)] * 400, ("c", NOON))
    bars = [line.split()[1] for line in lines(histogram_chart(made, width=80))[:3]]
    assert bars == ["█", "▄", "▁"]


def test_names_after_the_twelfth_are_summed_up():
    moments = [(f"name-{number:03}", NOON) for number in range(500)]
    shown = lines(histogram_chart(histogram(*moments), width=80))
    assert [line.split()[0] for line in shown[:12]] == [f"name-{n:03}" for n in range(12)]
    assert shown[12].split() == ["488", "more", "names", "█", "488"]
    assert len(shown) == 13 + 3
    shown = lines(histogram_chart(histogram(*moments[:13]), width=80))
    assert shown[12].startswith("1 more name ")


def test_buckets_are_merged_where_the_terminal_has_too_few_columns():
    moments = [("a", NOON + number * HOUR) for number in range(100)]
    made = histogram(*moments, buckets=100)
    row, *_, caption = lines(histogram_chart(made, width=70))
    assert made.step == HOUR
    assert row == f"a {'█' * 50} 100"
    assert caption == "one column is 2 hours, UTC, from 2026-01-31 12:00; █ is 2 events"


@pytest.mark.parametrize(
    ("first", "last", "labels"),
    [
        (NOON, NOON, ["12:00"]),
        (NOON, NOON + timedelta(days=9), ["01-31 12:00", "02-03 18:00", "02-07 00:00"]),
        (NOON, NOON + timedelta(days=40), ["2026-01-31", "2026-02-14", "2026-02-28"]),
        (YEAR_1, YEAR_9999, ["0001-01-01", "2599-04-11", "5197-07-20", "7795-10-28"]),
    ],
)
def test_the_axis_tells_as_much_of_the_time_as_the_step_needs(first, last, labels):
    made = histogram(("a", first), ("a", last), buckets=60)
    axis = lines(histogram_chart(made, width=80))[2]
    assert re.split(r"\s{2,}", axis.strip()) == labels


@pytest.mark.parametrize("width", [40, 80, 200])
def test_names_counts_and_labels_are_in_columns_at_every_width(width):
    spans = [Span("x" * 300, 10**9, NOON, NOON + 900 * HOUR), Span("b", 1, NOON, NOON)]
    first, second, axis, *_ = lines(spans_chart(spans, width=width), width)
    assert "x…" in first
    assert first.endswith("┤ 1000000000")
    assert len(first) == len(second) == width
    assert first.index("├") == second.index("●") == axis.index("┬")
    assert axis.count("┬") in range(2, 5)


def test_spans_are_lines_from_first_to_last_and_moments_are_marks():
    spans = [
        Span("opened-app", 400, NOON, NOON + 10 * HOUR),
        Span("paid", 1, NOON + 10 * HOUR, NOON + 10 * HOUR),
        Span("left", 2, None, NOON),
        Span("never", 0, None, None),
    ]
    assert lines(spans_chart(spans, width=40), 40) == [
        "opened-app ├───────────────────────┤ 400",
        "paid                               ●   1",
        "left       ●                           2",
        "never                                  0",
        "           ┬──────┬──────┬──────┬───",
        "           12:00  14:55  17:50  20:45",
        "from 2026-01-31 12:00:00 to 2026-01-31",
        "22:00:00, UTC",
    ]


def test_spans_of_one_second_are_a_column_of_marks():
    spans = [Span("a", 1, NOON, NOON), Span("b", 2, NOON, NOON)]
    assert lines(spans_chart(spans, width=80, ascii=True)) == [
        "a * 1",
        "b * 2",
        "  +",
        "  12:00:00",
        "from 2026-01-31 12:00:00 to 2026-01-31 12:00:00, UTC",
    ]


def test_a_span_that_ends_before_it_begins_is_drawn_all_the_same():
    assert "├" in printed(spans_chart([Span("a", 2, NOON + HOUR, NOON)], width=80))


def test_spans_without_times_and_no_spans_are_said_to_be_so():
    assert lines(spans_chart([Span("a", 2, None, None)], width=80)) == [
        "a  2",
        "the times are not known",
    ]
    assert lines(spans_chart([], width=80)) == ["no events"]


@given(MOMENTS, WIDTHS, st.integers(1, 300), st.booleans())
def test_no_name_harms_the_terminal_or_a_histograms_layout(moments, width, buckets, ascii):
    made = histogram(*moments, buckets=buckets)
    assert_harmless(histogram_chart(made, width=width, ascii=ascii), width, ascii)


@given(SPANS, WIDTHS, st.booleans())
def test_no_name_and_no_number_harms_the_terminal_or_the_layout_of_spans(spans, width, ascii):
    assert_harmless(spans_chart(spans, width=width, ascii=ascii), width, ascii)


def test_combining_characters_do_not_pile_up():
    made = histogram(("e" + "\u0301" * 1000, NOON))
    assert printed(histogram_chart(made, width=200)).count("\u0301") <= 32
    assert all(text.count("\u0301") <= 26 for text in texts(histogram_svg(made, "t")))


# As SVG


def assert_sound(document):
    root = ElementTree.fromstring(document)
    allowed = {"svg", "title", "desc", "style", "g", "rect", "line", "text"}
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= allowed
    assert root.get("role") == "img"
    assert [node.tag for node in root][:2] == [SVG + "title", SVG + "desc"]
    _, _, width, height = map(float, root.get("viewBox").split())
    for rect in root.iter(SVG + "rect"):
        x, y, wide, tall = (float(rect.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert wide > 0
        assert tall > 0
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + tall <= height + 0.1
    assert "href" not in document
    assert "url(" not in document


@given(MOMENTS, TEXTS, st.integers(1, 200))
def test_no_name_breaks_a_histograms_document(moments, title, buckets):
    made = histogram(*moments, buckets=buckets)
    document = histogram_svg(made, title)
    assert_sound(document)
    assert document == histogram_svg(histogram(*reversed(moments), buckets=buckets), title)


@given(SPANS, TEXTS)
def test_no_name_and_no_number_breaks_a_document_of_spans(spans, title):
    document = spans_svg(spans, title)
    assert_sound(document)
    assert document == spans_svg(spans, title)


def test_each_bar_tells_what_it_is():
    made = histogram(("paid & <gone>", NOON), ("paid & <gone>", NOON), ("left", NOON + HOUR))
    title, *bars = texts(histogram_svg(made, "Events of 314159"), "title")
    assert title == "Events of 314159"
    assert bars == [
        "paid & <gone>: 2, 5 minutes from 2026-01-31 12:00 UTC",
        "left: 1, 5 minutes from 2026-01-31 13:00 UTC",
    ]


def test_a_document_is_described_to_those_who_do_not_see_it():
    made = histogram(("paid", NOON), ("paid", NOON), ("left", NOON))
    description = "paid 2, left 1; one bar is 1 minute, UTC, from 2026-01-31 12:00"
    assert texts(histogram_svg(made, "t"), "desc") == [description]
    spans = [Span("paid", 2, NOON, NOON + HOUR), Span("left", 0, None, None)]
    description = (
        "paid: 2, 2026-01-31 12:00:00 to 2026-01-31 13:00:00 UTC; left: 0, at unknown times"
    )
    assert texts(spans_svg(spans, "t"), "desc") == [description]
    assert texts(spans_svg([], "t"), "desc") == ["no events"]


def test_bars_are_stacked_in_proportion():
    made = Histogram((NOON,), HOUR, {"a": (3 * 10**9,), "b": (10**9,)})
    root = ElementTree.fromstring(histogram_svg(made, "t"))
    lower, upper = (node for node in root.iter(SVG + "rect") if len(node))
    assert float(lower.get("height")) == pytest.approx(3 * float(upper.get("height")), rel=0.01)
    assert float(upper.get("y")) + float(upper.get("height")) == float(lower.get("y"))
    assert "4000000000" in texts(histogram_svg(made, "t"))


def test_names_after_the_seventh_share_a_colour():
    moments = [(f"name-{number:03}", NOON) for number in range(500)]
    legend = texts(histogram_svg(histogram(*moments), "t"))
    assert {"name-006 1", "493 more names 493"} <= set(legend)
    assert "name-007 1" not in legend


def test_a_document_has_a_row_for_each_of_many_spans():
    spans = [Span(f"name-{number:03}", number, NOON, NOON + HOUR) for number in range(500)]
    shown = texts(spans_svg(spans, "t"))
    assert {span.name for span in spans} <= set(shown)


def test_a_moment_is_as_visible_as_a_span():
    spans = [Span("a", 1, NOON, NOON), Span("b", 1, YEAR_1, YEAR_9999)]
    root = ElementTree.fromstring(spans_svg(spans, "t"))
    widths = [float(node.get("width")) for node in root.iter(SVG + "rect") if node.get("rx")]
    assert widths == [10, 620]


@pytest.mark.parametrize(
    "document", [histogram_svg(histogram(("a", NOON)), "t"), spans_svg([], "t")]
)
def test_a_document_has_colours_for_light_and_for_dark(document):
    [style] = texts(document, "style")
    assert "prefers-color-scheme: dark" in style
