"""Times become whole Unix seconds, or an error that says what to do."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import Event, TimestampError, timestamps

MOMENT = datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
OFFSETS = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
    lambda delta: timezone(timedelta(minutes=delta // timedelta(minutes=1)))
)


def stamped(created_at):
    return Event("invited-friend", user_id="314159", created_at=created_at)


@pytest.mark.parametrize(
    "spelling",
    [
        MOMENT,
        MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30))),
        1389913941,
        1389913941.0,
        "2014-01-16T23:12:21Z",
        "2014-01-16T23:12:21.000+00:00",
        "2014-01-16T23:12:21.000+00:00 ",
        "2014-01-17T00:12:21+01:00",
        "20140116T231221Z",
    ],
    ids=str,
)
def test_a_time_can_be_spelt_in_several_ways(spelling):
    event = stamped(spelling)

    assert event.created_at == MOMENT
    assert event.created_at.utcoffset() == timedelta(0)
    assert event.to_dict()["created_at"] == 1389913941


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (datetime(2014, 1, 16), "time zone"),  # noqa: DTZ001  # what is tested
        (date(2014, 1, 16), "combine it with a time and a time zone"),
        (1389913941000, "divide it by 1000"),
        (100_000_000_000, "divide it by 1000"),
        (1389913941.5, "whole seconds"),
        (math.nan, "finite number, not nan"),
        (math.inf, "finite number, not inf"),
        (-math.inf, "finite number, not -inf"),
        (datetime(9999, 12, 31, tzinfo=UTC), "5138"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "valid time|5138"),
        ("9999-12-31T23:00:00-14:00", "valid time|5138"),
        ("9999-12-31T24:00Z", "ISO 8601"),
        (10**5000, "divide it by 1000"),
        (True, "bool"),
        (False, "bool"),
        (b"2014", "bytes"),
        ("2014-01-16T23:12:21", "must have an offset"),
        ("2014-01-16", "must have an offset"),
        ("1389913941", "ISO 8601|offset"),
        ("yesterday", "ISO 8601"),
        ("", "ISO 8601"),
        ("2014-13-16T23:12:21Z", "ISO 8601"),
    ],
    ids=lambda given: f"{given!r:.40}" if not isinstance(given, int) else "number",
)
def test_a_time_that_would_be_misread_is_refused_with_a_remedy(wrong, remedy):
    with pytest.raises(TimestampError, match=remedy) as caught:
        stamped(wrong)

    assert "created_at" in str(caught.value)


def test_a_fraction_is_cut_off_and_never_rounded_up():
    far = datetime(5000, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    early = datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)

    assert stamped(far).created_at == far.replace(microsecond=0)
    assert stamped(early).to_dict()["created_at"] == -2


def test_an_event_is_stamped_once(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1389913941.9)
    event = Event("invited-friend", user_id="314159")
    monkeypatch.setattr("time.time", lambda: 1389913999.0)

    assert event.created_at == MOMENT
    assert event.to_dict()["created_at"] == 1389913941


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(5000, 1, 1), timezones=OFFSETS)  # noqa: DTZ001
)
def test_a_datetime_loses_nothing_but_the_fraction_of_its_second(moment):
    back = stamped(moment).created_at

    assert timedelta(0) <= moment - back < timedelta(seconds=1)
    assert back.microsecond == 0


@pytest.mark.parametrize("seconds", [10**12, -(10**12), 10**30, math.inf, math.nan])
def test_seconds_beyond_what_a_datetime_can_hold_are_an_error(seconds):
    with pytest.raises(ValueError, match=r"out of range for datetime|NaN"):
        timestamps.from_unix(seconds)


@given(st.integers(-62_135_596_800, 99_999_999_999))
def test_whole_seconds_are_kept_exactly(seconds):
    assert stamped(seconds).to_dict()["created_at"] == seconds


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.binary(),
        st.datetimes(),
        st.datetimes(timezones=OFFSETS),
        st.dates(),
    )
)
def test_anything_else_is_an_error_of_ours(value):
    try:
        event = stamped(value)
    except TimestampError:
        return
    assert isinstance(event.to_dict()["created_at"], int)
    assert not isinstance(value, bool | date) or isinstance(value, datetime)
