"""What `export` writes: `import` takes it back as it was, and names what it cannot send."""

from __future__ import annotations

import csv
import io
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import DataEventsClient, ListedEvent
from intercom_data_events.cli.commands import exporting
from intercom_data_events.cli.importer import columns
from intercom_data_events.emulator import EmulatedContact
from intercom_data_events.pagination import read_page

from .conftest import NOON, TOKEN, event
from .test_checking import answering

ODD = {"tags": ["a", 1], "is_paid": True, "none": None, "empty": "", "nested": {"a": {"b": 1}}}
FORMULAS = ["=1+1", "+1", "-a", "@sum", "\tx", "\rx", "\nx"]


@contextmanager
def listing(*found: dict[str, object]):
    """A server that lists events as others have sent them, which the emulator does not take."""
    page = {"type": "event.list", "events": [{"type": "event", **fields} for fields in found]}
    body = json.dumps(page).encode()
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)) as url:
        yield url


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)


def fill(*events: dict[str, object]) -> None:
    with DataEventsClient() as client:
        for fields in events:
            client.create(**fields)


@pytest.mark.parametrize("form", ["json", "csv", "ndjson"])
def test_what_others_have_sent_is_written_as_it_is_and_told(form, command):
    metadata = [{"is_paid": False}, ODD, {"plan": "pro"}]
    asked = ["export", "--user-id", "1", "--format", form]
    with listing(*(event(0, user_id="1", metadata=one) for one in metadata)) as url:
        done = command(*asked, "-o", "events", "--base-url", url)
        assert command(*asked, "--quiet", "--base-url", url).err == ""
    assert done.code == 0
    first, second = done.err.splitlines()
    assert first == "3 events of 1 contact written to events."
    assert second.startswith("2 events with metadata that `import` rejects")
    if form == "csv":
        header, *rows = csv.reader(Path("events").read_text().splitlines())
        plan = columns.plan(header)
        written = [plan.read([cell or None for cell in row]) for row in rows]
    else:
        written = [json.loads(line) for line in Path("events").read_text().splitlines()]
    assert [one["metadata"] for one in written] == metadata


def test_a_table_without_events_has_a_header_that_is_read(serve, command):
    serve(contacts=[EmulatedContact(user_id="1")])

    assert command("export", "--user-id", "1", "--format", "csv", "-o", "events.csv").code == 0
    done = command("validate", "events.csv")
    assert done.code == 2
    assert "events.csv contains no events" in done.err


@pytest.mark.parametrize("form", ["json", "csv"])
def test_import_names_what_it_cannot_send(form, command):
    name = f"events.{'csv' if form == 'csv' else 'ndjson'}"
    metadata = {"tags": ["a"]}, {"is_paid": True}
    with listing(*(event(0, user_id="1", metadata=one) for one in metadata)) as url:
        command("export", "--user-id", "1", "--format", form, "-o", name, "--base-url", url)
    done = command("validate", name)
    assert done.code == 1
    said = done.out + done.err
    assert "metadata.tags is a list" in said
    assert "metadata.is_paid is true" in said


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["", "42", "-0", "1e5", "null", "true", "[1]", " x ", "a\nb", "\r", "'", '"', ",", *FORMULAS]
)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
PAIRS = st.one_of(
    st.fixed_dictionaries({"amount": JSON, "currency": st.sampled_from(["usd", ""]) | JSON}),
    st.fixed_dictionaries({"url": st.just("https://a.example") | JSON, "value": JSON}),
)
KEYS = st.sampled_from(
    [
        "plan",
        "a.b",
        "price.amount",
        "price",
        "url",
        "link.url",
        "x:text",
        "x:json",
        "x:number",
        " k ",
    ]
) | TEXTS.filter(str.strip)
METADATA = st.dictionaries(KEYS, JSON | PAIRS, max_size=6)


def listed(metadata: dict[str, object], number: int) -> ListedEvent:
    fields = {"type": "event", **event(number, user_id="1", metadata=metadata)}
    [found] = read_page({"events": [fields]}).events
    return found


def same(one: object) -> str:
    """Metadata as JSON, which tells 1 from 1.0 and from true."""
    return json.dumps(one, sort_keys=True)


@given(st.lists(METADATA, min_size=1, max_size=3))
def test_arbitrary_metadata_comes_back_from_csv_as_it_was(found):
    events = [exporting.to_import(listed(one, number)) for number, one in enumerate(found)]
    file = io.StringIO(newline="")
    exporting.write_csv(iter(events), file)
    header, *rows = csv.reader(io.StringIO(file.getvalue(), newline=""))
    plan = columns.plan(header)
    again = [plan.read([cell or None for cell in row]) for row in rows]
    assert [same(one.get("metadata", {})) for one in again] == [
        same(one.get("metadata", {})) for one in events
    ]
    assert [one["created_at"] for one in again] == [one["created_at"] for one in events]


def test_cells_can_be_guarded_from_spreadsheets(command):
    found = [event(n, user_id="1", metadata={"x": text}) for n, text in enumerate(FORMULAS)]
    found += [event(99, user_id="1", event_name="=cmd|' /C calc'!A0", metadata={"=k": "a"})]
    with listing(*found) as url:
        asked = ["export", "--user-id", "1", "--format", "csv", "--base-url", url]
        done, plain = command(*asked, "--for-spreadsheets"), command(*asked).out
    cells = [cell for row in csv.reader(io.StringIO(done.out, newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r\n")]
    assert {f"'{text}" for text in FORMULAS} <= set(cells)
    assert "'=cmd|' /C calc'!A0" in cells
    cells = [cell for row in csv.reader(io.StringIO(plain, newline="")) for cell in row]
    assert set(FORMULAS) <= set(cells)


def test_the_help_says_why_cells_are_not_guarded_by_default(command):
    said = " ".join(command("export", "--help").out.split())
    assert "--for-spreadsheets" in said
    assert "Off by default, because `import` keeps the apostrophes" in said


def test_numbers_below_zero_are_numbers_to_a_spreadsheet_too(emulator, command):
    fill({**event(0, user_id="1"), "metadata": {"change": -5, "share": -1e-7}})
    done = command("export", "--user-id", "1", "--format", "csv", "--for-spreadsheets")
    assert ",-5,-1e-07" in done.out
    assert NOON in [int(row["created_at"]) for row in csv.DictReader(done.out.splitlines())]
