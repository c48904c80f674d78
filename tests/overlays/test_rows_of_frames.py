"""create_many takes the rows of databases and frames, whose missing cells are no values."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pytest

from intercom_data_events import DataEventsClient, InvalidInputError
from intercom_data_events.emulator import Emulator

NO_WHEEL = "it has no wheel for this Python yet"
SECONDS = 1_392_036_272
MOMENT = datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC)
CELLS = {
    "event_name": ["ran", "ran", "ran"],
    "created_at": [MOMENT, MOMENT, MOMENT],
    "user_id": ["1", None, None],
    "email": [None, "ada@example.org", None],
    "metadata": [{"plan": "pro"}, None, None],
}


def outcomes(rows):
    """What became of rows, and what was stored of them."""
    emulator = Emulator(clock=lambda: SECONDS)
    with DataEventsClient("token", transport=emulator.transport()) as client:
        found = sorted(client.create_many(rows), key=lambda outcome: outcome.position)
    said = [str(outcome.error) if outcome.error else outcome.status for outcome in found]
    return said, [(one.user_id, one.email, one.metadata) for one in emulator.events]


STORED = [("1", None, {"plan": "pro"}), (None, "ada@example.org", {})]
SAID = ["accepted", "accepted", "event 'ran' has no contact: pass user_id, email or id"]


def check(rows):
    said, stored = outcomes(rows)
    assert said == SAID
    assert sorted(stored, key=str) == sorted(STORED, key=str)


def test_rows_of_pandas():
    pd = pytest.importorskip("pandas", reason=NO_WHEEL)
    check(pd.DataFrame(CELLS).to_dict("records"))
    check(pd.DataFrame(CELLS).convert_dtypes().to_dict("records"))
    check(row for _, row in pd.DataFrame(CELLS).iterrows())


def test_rows_of_arrow():
    check(pytest.importorskip("pyarrow", reason=NO_WHEEL).table(CELLS).to_pylist())


def test_rows_of_a_database():
    database = sqlite3.connect(":memory:")
    database.row_factory = sqlite3.Row
    database.execute("CREATE TABLE ran (event_name, created_at, user_id, email)")
    database.executemany(
        "INSERT INTO ran VALUES ('ran', ?, ?, ?)",
        [(SECONDS, "1", None), (SECONDS, None, "ada@example.org"), (SECONDS, None, None)],
    )
    said, stored = outcomes(database.execute("SELECT * FROM ran"))
    database.close()

    assert said == SAID
    assert {one[:2] for one in stored} == {("1", None), (None, "ada@example.org")}


@pytest.mark.parametrize("missing", ["NaT", "NA", "nan"])
def test_a_missing_time_and_missing_values_within_metadata_are_errors(missing):
    pd = pytest.importorskip("pandas", reason=NO_WHEEL)
    value = {"NaT": pd.NaT, "NA": pd.NA, "nan": float("nan")}[missing]
    ran = {"event_name": "ran", "user_id": "1", "created_at": SECONDS}

    said, stored = outcomes([{**ran, "created_at": value}, {**ran, "metadata": {"plan": value}}])

    assert "created_at must be" in said[0]
    assert "leave the key out" in said[1]
    assert stored == []


def test_frames_are_refused_with_what_gives_their_rows():
    frames = [pytest.importorskip("pandas", reason=NO_WHEEL).DataFrame(CELLS)]
    for frame in frames:
        with (
            DataEventsClient("token") as client,
            pytest.raises(
                InvalidInputError,
                match=r"events must be rows, not a value of type DataFrame; pass frame.to_dict",
            ),
        ):
            client.create_many(frame)


@pytest.mark.parametrize("item", [None, "ran", 5, ("ran", "1"), sqlite3])
def test_what_has_no_keys_is_refused(item):
    said, _ = outcomes([item])
    assert said[0].startswith("an event must be a mapping of field names to values, not ")
