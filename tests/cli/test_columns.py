"""What cells stand for: by their column, and by how they are written; and back again."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import Event
from intercom_data_events.cli.importer.columns import ColumnError, flatten, plan, read_metadata
from intercom_data_events.cli.importer.records import Reader


def metadata_of(**cells):
    return read_metadata(cells)


def read(table):
    """The events of a CSV file."""
    reader = Reader()
    records = [record for batch in reader.feed(table.encode()) for record in batch]
    records += [record for batch in reader.close() for record in batch]
    assert [record.problem for record in records if record.problem] == []
    return [record.fields for record in records]


def write(events):
    """A CSV file of events, whose columns are those that any of them needs."""
    rows = [flatten(fields) for fields in events]
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("42", 42),
        ("-1", -1),
        ("0", 0),
        ("3.67", 3.67),
        ("1e5", 1e5),
        ("123456789012345", 123456789012345),
        ("0.000123456789012345", 0.000123456789012345),
    ],
)
def test_a_cell_written_as_json_writes_numbers_is_a_number(cell, value):
    assert metadata_of(load=cell) == {"load": value}
    assert type(metadata_of(load=cell)["load"]) is type(value)


@pytest.mark.parametrize(
    "cell",
    [
        "0042",
        "+1",
        "NaN",
        "Infinity",
        "1.",
        ".5",
        "1e999",
        "- 1",
        " 1",
        "1_000",
        "٣",
        "pro",
        "-",
        "1234567890123456",
        "0.1234567890123456",
        "9" * 5000,
        "12e",
        "2026-01-31",
    ],
)
def test_any_other_cell_is_text(cell):
    assert metadata_of(code=cell) == {"code": cell}


def test_a_column_can_say_that_its_cells_are_text():
    assert read_metadata({"code:text": "42"}) == {"code": "42"}
    assert read_metadata({"paid_at:text": "yesterday"}) == {"paid_at": "yesterday"}


def test_a_column_can_say_that_its_cells_are_numbers():
    assert read_metadata({"load:number": "9007199254740993"}) == {"load": 9007199254740993}
    with pytest.raises(
        ColumnError, match=r"metadata.load:number must be a number such as 3.67, not '0042'"
    ):
        read_metadata({"load:number": "0042"})
    with pytest.raises(ColumnError, match="must be a number"):
        read_metadata({"load:number": "9" * 5000})


def test_a_time_stays_as_it_is_written_until_events_are_checked():
    assert metadata_of(paid_at="1671028894") == {"paid_at": 1671028894}
    assert metadata_of(order_date="2022-12-14T14:41:34Z") == {"order_date": "2022-12-14T14:41:34Z"}


def test_pairs_of_columns_make_objects():
    read = read_metadata(
        {
            "price.amount": "2999",
            "price.currency": "usd",
            "order.url": "https://example.org/1",
            "order.value": "0001",
        }
    )

    assert read == {
        "price": {"amount": 2999, "currency": "usd"},
        "order": {"url": "https://example.org/1", "value": "0001"},
    }


@pytest.mark.parametrize("part", ["amount", "currency", "url", "value"])
def test_one_of_a_pair_alone_is_a_mistake_unless_its_type_is_said(part):
    with pytest.raises(
        ColumnError, match=rf"^metadata\.a\.{part} requires metadata\.a\.\w+, .* both"
    ):
        read_metadata({f"a.{part}": "29"})
    assert read_metadata({f"a.{part}:text": "29"}) == {f"a.{part}": "29"}


def test_other_dots_belong_to_the_key():
    assert read_metadata({"a.b.c": "x", ".url": "u", ".value": "v"}) == {
        "a.b.c": "x",
        ".url": "u",
        ".value": "v",
    }


def test_a_link_may_lack_its_text():
    table = plan(["event_name", "id", "metadata.a.url", "metadata.a.value"])
    assert table.read(["ran", "1", "https://x", None])["metadata"] == {
        "a": {"url": "https://x", "value": ""}
    }


@pytest.mark.parametrize(
    "names",
    [
        ["metadata.a", "metadata.a:text"],
        ["metadata.a", "metadata.a.url", "metadata.a.value"],
        ["metadata.a.url", "metadata.a.value", "metadata.a"],
    ],
)
def test_several_cells_of_a_row_cannot_say_what_one_key_is(names):
    with pytest.raises(ColumnError, match=r"only one column may have a value for metadata.a"):
        plan(["event_name", "id", *names]).read(["ran", "1", *("x" for _ in names)])


def test_an_empty_text_cannot_be_given():
    with pytest.raises(ColumnError, match=r"metadata.plan must not be empty"):
        metadata_of(plan="")


@pytest.mark.parametrize("key", ["", " ", ":text", " :number"])
def test_a_key_cannot_be_empty(key):
    with pytest.raises(ColumnError, match="has no key"):
        read_metadata({key: "x"})


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("Event Name", "did you mean event_name?"),
        ("userId", "did you mean user_id?"),
        ("timestamp", "did you mean created_at?"),
        ("name", "did you mean event_name?"),
        ("E-Mail", "did you mean email?"),
        ("metadata", "use one column for each key, such as metadata.plan"),
        ("plan", "rename it to metadata.plan to send it as metadata, or remove it"),
        ("Metadata_plan", "rename it to metadata.plan"),
    ],
)
def test_a_column_that_events_do_not_have_is_refused_with_what_it_may_mean(name, remedy):
    with pytest.raises(ColumnError) as caught:
        plan([name])

    assert remedy in str(caught.value)
    assert "event_name, created_at, user_id, id, email or metadata.KEY" in str(caught.value)


def test_all_columns_that_events_do_not_have_are_told_at_once():
    with pytest.raises(ColumnError) as caught:
        plan(["uuid", "event", "properties.plan", "timestamp", "distinct_id", "created_at"])

    assert str(caught.value).split("metadata.KEY, not ")[1].split("; ") == [
        "'uuid': rename it to metadata.uuid to send it as metadata, or remove it",
        "'event': did you mean event_name?",
        "'properties.plan': rename it to metadata.plan to send it as metadata, or remove it",
        "'timestamp': rename it to metadata.timestamp to send it as metadata, or remove it",
        "'distinct_id': did you mean user_id?",
    ]
    with pytest.raises(ColumnError, match=r"'c19': [^;]*; and 80 more$"):
        plan([f"c{number}" for number in range(100)])


def test_as_many_columns_as_allowed_are_read():
    keys = [f"metadata.key_{number}" for number in range(998)]
    cells = ["ran", "5f", *map(str, range(998))]

    read = plan(["event_name", "id", *keys]).read(cells)

    assert len(read["metadata"]) == 998


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["event_name", "id", " id "], "the column 'id' must occur only once"),
        (["event_name", "id", ""], "column 3 has no name"),
        (["event_name", *["id"] * 1_000], "there must be at most 1,000 columns, not 1,001; "),
        (
            ["event_name", *[""] * 300_000],
            "an event has 5 fields and at most 10 metadata keys, so remove",
        ),
        (["event_name", *["id"] * 999], "the column 'id' must occur only once"),
        (["created_at", "id"], "the column event_name is missing"),
        (
            ["event_name", "created_at"],
            "a column for the contact is missing; add user_id, id or email",
        ),
    ],
)
def test_a_header_that_cannot_be_used_says_why(names, message):
    with pytest.raises(ColumnError, match=message):
        plan(names)


def test_numbers_are_written_as_json_writes_them():
    cells = flatten({"event_name": "ran", "created_at": 5, "metadata": {"a": 1e22, "b": 0.1}})

    assert cells == {
        "event_name": "ran",
        "created_at": "5",
        "metadata.a": "1e+22",
        "metadata.b": "0.1",
    }


def test_what_an_event_cannot_have_is_written_as_json_and_read_as_it_was():
    odd = {"a": [1], "b": True, "c": None, "d": "", "e": {"amount": 1.5, "currency": "usd"}}
    cells = flatten({"event_name": "ran", "user_id": "1", "metadata": odd})

    assert cells["metadata.a:json"] == "[1]"
    assert cells["metadata.b:json"] == "true"
    assert plan([*cells]).read([*cells.values()])["metadata"] == odd


def test_json_that_is_not_json_is_told():
    with pytest.raises(ColumnError, match=r"^metadata.a:json must be JSON, not '\[1'"):
        read_metadata({"a:json": "[1"})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ODD_TEXT = st.sampled_from(
    [
        "42",
        "-0",
        "1e5",
        "0042",
        "a,b",
        "a;b",
        'a"b',
        '"',
        "a\nb",
        "a\r\nb",
        "\r",
        " x ",
        "=1+1",
        "#",
    ]
)
# A lone carriage return in a header reads as the line ending of an old Mac.
KEYS = (
    st.builds(
        "".join,
        st.lists(
            st.sampled_from(
                [
                    ".",
                    "a",
                    "b",
                    "amount",
                    "currency",
                    ".url",
                    ".value",
                    ":text",
                    ":number",
                    "_at",
                    "_date",
                    " ",
                    ",",
                    ";",
                    "\t",
                    '"',
                    "\n",
                    "é",
                ]
            ),
            min_size=1,
            max_size=5,
        ),
    )
    | TEXT.map(lambda key: key.replace("\r", ""))
).filter(str.strip)
SECONDS = st.integers(-(10**10), 10**10)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
OBJECTS = st.fixed_dictionaries(
    {"amount": st.integers(0, 2**59), "currency": st.sampled_from(["usd", "EUR"])}
) | st.fixed_dictionaries({"url": TEXT.map("https://".__add__), "value": st.text("a1,")})
METADATA = st.dictionaries(KEYS, TEXT | ODD_TEXT | NUMBERS | SECONDS | OBJECTS, max_size=6)
EVENTS = st.fixed_dictionaries(
    {"event_name": TEXT | ODD_TEXT, "created_at": SECONDS, "user_id": TEXT | ODD_TEXT},
    optional={
        "id": TEXT,
        "email": TEXT | ODD_TEXT,
        "metadata": METADATA.filter(bool),
    },
)


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_events_written_as_rows_are_the_same_when_read(events):
    again = read(write(events))

    assert again == events
    # Whole numbers and others are the same to ==.
    assert json.dumps(again, sort_keys=True) == json.dumps(events, sort_keys=True)


def test_a_real_event_goes_through_a_table():
    event = Event(
        "placed-order",
        user_id="42",
        created_at=1671028894,
        metadata={
            "order_date": 1392036272,
            "stripe_invoice": "inv_3434343434",
            "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
            "price": {"currency": "usd", "amount": 2999},
            "zip": "01099",
            "code": "42",
        },
    )

    [fields] = read(write([event.to_dict()]))

    assert Event.from_dict(fields) == event


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4))
def test_keys_and_texts_are_read_or_refused_and_nothing_else(given_metadata):
    try:
        found = read_metadata(given_metadata)
    except ColumnError:
        return
    assert len(found) <= len(given_metadata)
