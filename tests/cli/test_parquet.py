"""Parquet is imported as its rows written as lines are, in constant memory."""

from __future__ import annotations

import builtins
import io
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.records import SourceError

from .conftest import NOON, Plan, times

pa = pytest.importorskip("pyarrow", reason="it has no wheel for this Python yet")
from pyarrow import parquet as pq  # noqa: E402  # after the check for it

MOMENT = datetime(2026, 1, 1, 12, tzinfo=UTC)
MAP = pa.map_(pa.string(), pa.string())
BERLIN = pa.timestamp("ns", "+01:00")


def table(rows: int = 3, **columns) -> pa.Table:
    """Events, a second after each other, with further columns or others."""
    seconds = [MOMENT + timedelta(seconds=number) for number in range(rows)]
    whole = {"event_name": ["ran"] * rows, "created_at": pa.array(seconds, BERLIN)}
    return pa.table({**whole, "user_id": list(map(str, range(rows))), **columns})


@pytest.fixture
def write(tmp_path):
    def to_file(content: pa.Table, **options):
        pq.write_table(content, tmp_path / "events.parquet", **options)
        return tmp_path / "events.parquet"

    return to_file


@pytest.fixture
def metadata(write, emulator, command):
    """The metadata of events that are imported."""

    def run(content: pa.Table, *options):
        done = command("import", write(content), *options)
        assert (done.code, done.err) == (0, "")
        return [one.metadata for one in emulator.events]

    return run


def test_columns_are_those_of_csv_with_types_of_their_own(metadata):
    found = metadata(
        table(
            **{
                "email": [None, "ada@example.org", None],
                "metadata.code": pa.array(["42", None, "x"]).dictionary_encode(),
                "metadata.load": [1.5, None, None],
                "metadata.sum": pa.array([Decimal("1.50"), None, None], pa.decimal128(9, 2)),
                "metadata.paid_at": pa.array([MOMENT, None, None], pa.timestamp("us", "UTC")),
                "metadata.price.amount": pa.array([2999, None, None], pa.int32()),
                "metadata.price.currency": ["usd", None, None],
                "metadata.none": pa.nulls(3),
            }
        )
    )
    assert found[0] == {
        "code": "42",
        "load": 1.5,
        "sum": 1.5,
        "paid_at": NOON,
        "price": {"amount": 2999, "currency": "usd"},
    }
    assert found[1:] == [{}, {"code": "x"}]


@pytest.mark.parametrize(
    "kind",
    [
        pa.struct([("plan", pa.string()), ("seats", pa.int64()), ("of", pa.null())]),
        MAP,
    ],
)
def test_metadata_can_be_nested(kind, metadata):
    rows = [{"plan": "pro"}, {"plan": None}, None]
    if pa.types.is_map(kind):
        rows = [None if row is None else list(row.items()) for row in rows]

    assert metadata(table(metadata=pa.array(rows, kind))) == [{"plan": "pro"}, {}, {}]


def test_a_struct_is_a_column_for_each_of_its_fields(metadata):
    # As pandas and polars write it: what one event has, others have as null.
    rows = [
        {"price": {"amount": 2999, "currency": "usd"}, "paid_at": MOMENT, "code": "42"},
        {"price": {"amount": None, "currency": None}, "paid_at": None, "code": None},
        {"price": None, "paid_at": None, "code": "x"},
    ]
    found = metadata(table(metadata=rows, **{"metadata.seats": [None, 5, None]}))
    price = {"amount": 2999, "currency": "usd"}
    assert found == [
        {"price": price, "paid_at": NOON, "code": "42"},
        {"seats": 5},
        {"code": "x"},
    ]


def test_groups_of_rows_are_read_one_after_the_other(write, emulator, command):
    notes = [{"note": f"number {number}"} for number in range(100)]
    for columns in ({"metadata": notes}, {"metadata.note": [one["note"] for one in notes]}):
        path = write(table(100, **columns), row_group_size=30)
        assert command("import", path, "--restart").code == 0
    found = sorted((one.metadata["note"] for one in emulator.events), key=str)
    assert found == sorted((one["note"] for one in notes), key=str)


def test_whole_numbers_identify_contacts_as_in_csv(write, emulator, command):
    assert command("import", write(table(user_id=[1, 2, 3]))).code == 0
    assert sorted(one.user_id for one in emulator.events) == ["1", "2", "3"]


def test_rows_with_problems_are_numbered_and_written_as_lines(write, emulator, command, tmp_path):
    path = write(table(user_id=["1", None, "3"], **{"metadata.a": [None, None, True]}))

    done = command("import", path)

    assert done.code == 1
    assert "line 2 rejected: the event has no contact: add user_id, email or id" in done.err
    assert "line 3 rejected: metadata.a is true, which" in done.err
    refused = tmp_path / "events.refused.ndjson"
    refused.write_text(refused.read_text().replace("true", "1").replace("{", '{"id": "5f", ', 1))
    assert command("import", refused).code == 0
    assert times(emulator) == [NOON, NOON + 1, NOON + 2]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"created_at": pa.array([MOMENT] * 3, pa.timestamp("us"))}, "must have a time zone"),
        ({"metadata.when": pa.array([MOMENT] * 3, BERLIN)}, "must end in _date or _at"),
        ({"metadata.day": pa.array([MOMENT.date()] * 3)}, "'metadata.day' must contain strings"),
        ({"metadata.raw": [b"a"] * 3}, "not binary; convert it to strings, or remove it"),
        ({"metadata.a": ["x" * 100_000] * 3}, "at most 32,768 bytes per row, not 33"),
        ({"metadata.a": [[1] * 2_000] * 3}, "'metadata.a.list.element' must have at most"),
        ({"distinct_id": ["1"] * 3}, "not 'distinct_id': rename it to metadata.distinct_id"),
        ({"metadata": [{"a": 1}] * 3, "metadata.a": [1] * 3}, "'metadata.a' must occur only once"),
        (
            {"metadata": pa.array([[("a", "b")]] * 3, MAP), "metadata.c": [1] * 3},
            "only one column may",
        ),
        ({"metadata": ["{}"] * 3}, "use one column for each key"),
        ({"metadata.a": ["x"] * 3, "metadata.a:text": ["y"] * 3}, "only one column may"),
    ],
)
def test_columns_that_cannot_be_used_end_it(columns, said, write, command):
    done = command("validate", write(table(**columns)))
    assert done.code == 2
    assert said in done.err


def test_the_next_run_goes_on(serve, write, command):
    path = write(table(600))
    emulator = serve()
    assert command("import", path, "--dry-run").code == 0
    assert command("import", path).code == 0
    assert command("import", path).code == 0
    assert times(emulator) == [NOON + number for number in range(600)]

    done = command("import", write(table(600, email=["a@b.co"] * 600)))
    assert done.code == 2
    assert "was changed after its import began" in done.err


def test_without_pyarrow_the_remedy_names_the_extra(write, command, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    path = write(table())
    monkeypatch.setattr(builtins, "__import__", without)
    done = command("validate", path)

    assert done.code == 2
    assert "requires pyarrow; run: pip install 'intercom-data-events[parquet]'" in done.err


def test_a_pipe_is_not_read_as_parquet(command):
    for options in ([], ["--format", "parquet"]):
        done = command("validate", "-", *options, stdin=b"PAR1 and so on")
        assert done.code == 2
        assert "Parquet" in done.err


def test_a_file_that_is_written_while_it_is_read_ends_incomplete(serve, write, command):
    path = write(table(2_000))
    whole = path.read_bytes()
    serve(faults=Plan({3: lambda: path.write_bytes(whole) and None}))

    done = command("import", path)

    assert done.code == 3
    assert "was overwritten while it was read" in done.err


WHOLE = io.BytesIO()
pq.write_table(table(50, **{"metadata.a": ["text"] * 50}), WHOLE)


@given(st.integers(0, len(WHOLE.getvalue())), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_file_is_read_or_ends_as_files_do(tmp_path_factory, place, change, cut):
    import anyio

    from intercom_data_events.cli.importer import parquet
    from intercom_data_events.cli.importer.source import Source

    data = bytearray(WHOLE.getvalue())
    data[place : place + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(data[:place] if cut else data)

    async def read():
        with Source(str(path)) as source:
            return [text async for text in parquet.lines(source)]

    with suppress(SourceError, StoppedError):
        anyio.run(read)


def test_a_long_text_that_rows_share_takes_no_memory_for_each(write):
    highest = most_allocated(write, "metadata.a", lambda shared: shared)
    assert highest < 40_000_000
    nested = most_allocated(
        write, "metadata", lambda shared: pa.StructArray.from_arrays([shared], ["a"])
    )
    assert nested < 80_000_000


def most_allocated(write, name, made):
    import anyio

    from intercom_data_events.cli.importer import parquet
    from intercom_data_events.cli.importer.source import Source

    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000), pa.array(["x" * 4_000_000]))
    path = write(table(5_000, **{name: made(shared)}), dictionary_pagesize_limit=10_000_000)
    before = pa.total_allocated_bytes()
    highest = 0

    async def read():
        nonlocal highest
        with Source(str(path)) as source:
            async for _ in parquet.lines(source):
                highest = max(highest, pa.total_allocated_bytes() - before)
                if source.position > 50:
                    break

    anyio.run(read)
    return highest
