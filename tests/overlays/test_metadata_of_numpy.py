"""Values of numpy and pandas are sent as what they are exactly, or are errors with a remedy."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from intercom_data_events import Event, IdentityError, MetadataError, MonetaryAmount, TimestampError

NO_WHEEL = "it has no wheel for this Python yet"
np = pytest.importorskip("numpy", reason=NO_WHEEL)
pd = pytest.importorskip("pandas", reason=NO_WHEEL)

SECONDS = 1_392_036_272
MOMENT = datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC)
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


def sent(**metadata):
    return Event("a", user_id="1", metadata=metadata).to_dict()["metadata"]


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_of_every_width_are_sent_as_they_are(kind):
    for value in (np.iinfo(kind).min, min(np.iinfo(kind).max, 2**63 - 1)):
        assert sent(load=kind(value)) == {"load": int(value)}
        assert type(sent(load=kind(value))["load"]) is int


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_of_every_width_are_sent_as_they_are(kind):
    for value in (kind(0.25), kind("0.1"), kind(-3), np.finfo(np.float16).max.astype(kind)):
        found = sent(load=value)["load"]
        assert type(found) is float
        assert kind(repr(found)) == value


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_not_finite_is_an_error_in_every_width(kind, value):
    with pytest.raises(MetadataError, match="leave the key out"):
        sent(load=kind(value))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (np.longdouble(1) / 3, "float\\(value\\)"),
        (np.uint64(2**63), "string"),
        (np.bool_(True), "send 1 or 'yes'"),
        (np.bool_(False), "send 1 or 'yes'"),
        (np.complex64(1), "str\\(value\\)"),
        (np.complex128(1j), "str\\(value\\)"),
        (np.bytes_(b"a"), "decode"),
        (np.timedelta64(5, "s"), "seconds"),
        (pd.Timedelta("1s"), "seconds"),
        (np.array([1, 2]), "str\\(value\\)"),
        (pd.Series([1]), "str\\(value\\)"),
        (pd.Period("2020-01"), "str\\(value\\)"),
        (pd.NaT, "leave the key out"),
        (pd.NA, "leave the key out"),
        (np.datetime64("NaT", "s"), "leave the key out"),
        (np.datetime64("NaT", "ns"), "leave the key out"),
        (np.timedelta64("NaT", "s"), "leave the key out"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("key", ["load", "paid_at"])
def test_what_is_not_exactly_a_value_of_the_api_is_an_error(key, value, remedy):
    with pytest.raises(MetadataError, match=remedy) as caught:
        sent(**{key: value})

    assert caught.value.key == key


@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
def test_a_datetime_without_a_zone_is_an_error_whose_remedy_works(unit):
    value = np.datetime64("2014-02-10T12:44:32").astype(f"datetime64[{unit}]")
    for key in ("paid_at", "paid"):
        with pytest.raises(MetadataError, match=r"astype.*tzinfo=UTC"):
            sent(**{key: value})
    with pytest.raises(TimestampError, match=r"astype.*tzinfo=UTC"):
        Event("a", user_id="1", created_at=value)

    remedied = value.astype("datetime64[s]").item().replace(tzinfo=UTC)
    assert sent(paid_at=remedied)["paid_at"] == int(value.astype("datetime64[s]").astype(int))


def test_texts_and_times_are_sent_as_they_are():
    assert sent(plan=np.str_("pro")) == {"plan": "pro"}
    assert type(sent(plan=np.str_("pro"))["plan"]) is str
    assert sent(paid_at=pd.Timestamp(MOMENT)) == {"paid_at": SECONDS}
    assert sent(paid_at=np.str_(SECONDS)) == {"paid_at": SECONDS}
    assert sent(price=MonetaryAmount(np.int32(2999), np.str_("usd"))) == {
        "price": {"amount": 2999, "currency": "usd"}
    }
    assert sent(price={"amount": np.int64(2999), "currency": "usd"})["price"]["amount"] == 2999


@pytest.mark.parametrize("kind", [np.int32, np.uint64, np.float64, np.longdouble])
def test_a_time_can_be_a_number(kind):
    assert Event("a", user_id="1", created_at=kind(SECONDS)).created_at == MOMENT
    assert sent(paid_at=kind(SECONDS)) == {"paid_at": SECONDS}


@pytest.mark.parametrize("value", [pd.NaT, pd.NA, np.bool_(True), np.timedelta64(5, "s")], ids=repr)
def test_what_is_not_a_time_is_an_error(value):
    with pytest.raises(TimestampError, match="created_at must be"):
        Event("a", user_id="1", created_at=value)


def test_an_identity_that_is_a_number_says_how_to_pass_it():
    with pytest.raises(IdentityError, match="pass '314159'"):
        Event("a", user_id=np.int64(314159))
