"""What an answer lacks, or says oddly, is a dash and no reason to end; none of it gets lost."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import repeat
from pathlib import Path

import pytest

from intercom_data_events.emulator import Fault

from .conftest import NOON

EVENTS = [
    {"event_name": "paid", "created_at": f"{NOON}", "user_id": 1},
    {"event_name": None, "created_at": "soon", "user_id": "1", "metadata": ["a"]},
    {"created_at": (NOON - 1) * 1000, "user_id": "1", "metadata": {"load": float("nan")}},
    {"event_name": "ran", "user_id": "1"},
    None,
]
ITEMS = [
    {"name": "paid", "count": "3", "first": NOON, "last": f"{NOON + 1}"},
    {"name": "ran", "first": True, "last": None},
    {"count": 3.0, "first": "soon"},
    None,
]


@pytest.fixture
def answering(serve):
    """Answers everything with this JSON."""

    def begin(body: object) -> None:
        content = json.dumps(body).encode()
        serve(faults=repeat(Fault(name="odd", status=200, body=content)))

    return begin


@pytest.fixture
def listing(answering):
    answering({"type": "event.list", "events": EVENTS, "pages": None})


@pytest.fixture
def summary(answering):
    answering({"type": "event.summary", "events": ITEMS})


def test_a_listing_shows_a_dash_for_what_it_lacks(listing, command):
    done = command("list", "--user-id", "1")

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "2026-01-01 12:00:00 UTC  paid",
        "-                        -",
        "2026-01-01 11:59:59 UTC  -  load=NaN",
        "-                        ran",
    ]


def test_a_listing_as_json_has_what_came(listing, command):
    done = command("list", "--user-id", "1", "--json")

    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        {"type": "event", "event_name": "paid", "created_at": NOON, "user_id": "1"},
        {"type": "event", "created_at": "soon", "user_id": "1", "metadata": ["a"]},
        {"type": "event", "created_at": NOON - 1, "user_id": "1", "metadata": {"load": None}},
        {"type": "event", "event_name": "ran", "user_id": "1"},
    ]


def test_since_leaves_out_no_event_whose_time_cannot_be_told(listing, command):
    done = command("list", "--user-id", "1", "--since", "2026-01-01T12:00:00Z")

    assert [line.split()[-1] for line in done.out.splitlines()] == ["paid", "-"]


def test_only_events_with_a_time_are_drawn(listing, command):
    done = command("list", "--user-id", "1", "--plot", "--svg", "events.svg")

    assert done.code == 0
    assert "paid" in done.out
    assert "(no name)" in done.out
    assert "Left out of the chart: 2 events without a readable time.\n" in done.err


def test_a_summary_shows_a_dash_for_what_it_lacks(summary, command):
    done = command("summary", "--user-id", "1")

    assert (done.code, done.err) == (0, "")
    _, *rows = done.out.splitlines()
    assert [row.split() for row in rows] == [
        ["paid", "3", "2026-01-01", "12:00:00", "2026-01-01", "12:00:01"],
        ["ran", "-", "-", "-"],
        ["-", "3", "-", "-"],
    ]


def test_a_summary_as_json_has_what_came(summary, command):
    first, second, third = command("summary", "--user-id", "1", "--json").json["events"]

    assert (first["count"], first["last"]) == (3, "2026-01-01T12:00:01Z")
    assert second == {
        "name": "ran", "count": None, "first": True, "last": None, "description": None,
    }  # fmt: skip
    assert (third["name"], third["count"], third["first"]) == (None, 3, "soon")


def test_a_summary_that_is_drawn_has_a_dash_for_a_count_that_it_lacks(summary, command):
    done = command("summary", "--user-id", "1", "--plot", "--svg", "events.svg")

    assert done.code == 0
    _, *rows, _, _ = done.out.splitlines()
    assert [row.split("  ")[0] for row in rows] == ["paid", "ran", "(no name)"]
    assert [re.search(r" (\d|-) ", row)[1] for row in rows] == ["3", "-", "3"]
    assert "ran: -, at unknown times" in Path("events.svg").read_text()


def test_an_export_writes_what_came_and_imports_what_can_be_told(listing, command):
    done = command("export", "--user-id", "1", "--quiet")

    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        {"event_name": "paid", "created_at": NOON, "user_id": "1"},
        {"created_at": "soon", "user_id": "1", "metadata": ["a"]},
        {"created_at": NOON - 1, "user_id": "1", "metadata": {"load": None}},
        {"event_name": "ran", "user_id": "1"},
    ]


def test_an_exported_table_has_empty_cells(listing, command):
    done = command("export", "--user-id", "1", "--quiet", "--format", "csv")

    assert (done.code, done.err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [(row["event_name"], row["created_at"]) for row in rows] == [
        ("paid", f"{NOON}"),
        ("", "soon"),
        ("", f"{NOON - 1}"),
        ("ran", ""),
    ]
