"""Metadata is what the API's table of types has, and an error that names the key otherwise."""

from __future__ import annotations

import enum
import json
import math
import pickle
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import Event, MetadataError, MonetaryAmount, RichLink

CONTACTED = datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC)
# The types of the API's table: in Python, and as the table shows them.
TABLE = [
    ("source", "desktop", "desktop"),
    ("load", 3.67, 3.67),
    ("seats", 4, 4),
    ("contact_date", CONTACTED, 1392036272),
    ("contacted_at", CONTACTED, 1392036272),
    ("contacted_at", 1392036272, 1392036272),
    ("article", "https://example.org/ab1de.html", "https://example.org/ab1de.html"),
    (
        "article",
        RichLink(url="https://example.org/ab1de.html", value="the dude abides"),
        {"url": "https://example.org/ab1de.html", "value": "the dude abides"},
    ),
    ("price", MonetaryAmount(34999, "eur"), {"amount": 34999, "currency": "eur"}),
]


def event(**metadata):
    return Event("placed-order", user_id="314159", created_at=1389913941, metadata=metadata)


@pytest.mark.parametrize(("key", "value", "wire"), TABLE)
def test_each_type_of_the_table_is_sent_as_the_table_shows(key, value, wire):
    assert event(**{key: value}).to_dict()["metadata"] == {key: wire}


@pytest.mark.parametrize(("key", "value", "wire"), TABLE)
def test_each_type_of_the_table_can_be_given_as_its_json(key, value, wire):
    assert event(**{key: wire}) == event(**{key: value})


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("order", {"id": 1}, "give each of its fields its own key"),
        (
            "order",
            {"url": "https://example.org", "value": "1", "more": 1},
            "give each of its fields its own key",
        ),
        ("order", {"url": "ftp://example.org", "value": "1"}, "http or https"),
        ("order", {"amount": 29.99, "currency": "usd"}, "minor currency units"),
        ("order", {"amount": 2999, "currency": "dollars"}, "three-letter"),
        ("order", {}, "give each of its fields its own key"),
        ("tags", ["a", "b"], "join it"),
        ("tags", ("a",), "join it"),
        ("tags", {"a"}, "join it"),
        ("paid", True, "bool"),
        ("paid_at", False, "bool"),
        ("coupon", None, "leave the key out"),
        ("load", math.nan, "leave the key out"),
        ("load", math.inf, "leave the key out"),
        ("contacted", CONTACTED, "'contacted_at'"),
        ("contacted_at", datetime(2014, 2, 10), "time zone"),  # noqa: DTZ001  # what is tested
        ("contacted_at", 1392036272000, "divide it by 1000"),
        ("contacted_at", 1392036272.5, "whole seconds"),
        ("contact_date", date(2014, 2, 10), "aware datetime"),
        (
            "price",
            Decimal("0.12345678901234567890"),
            "must be a string, a number, a datetime, a RichLink or",
        ),
        ("price", b"29.99", "must be a string, a number, a datetime, a RichLink or"),
        ("name", "\ud800", "surrogate"),
        (
            "order",
            {"url": "https://example.org", "value": "\ud800"},
            "a string that UTF-8 can encode",
        ),
        ("order", {"url": "https://example.org/\ud800", "value": "1"}, "surrogate"),
        ("seats", 2**63, "64 bits"),
        ("seats", -(2**63) - 1, "64 bits"),
        ("seats", 10**5000, "64 bits"),
    ],
    ids=lambda given: "number" if isinstance(given, int) else f"{given!r:.30}",
)
def test_what_the_api_does_not_take_is_refused_by_key_and_with_a_remedy(key, value, remedy):
    with pytest.raises(MetadataError, match=remedy) as caught:
        event(**{key: value})

    assert caught.value.key == key
    assert repr(key) in str(caught.value)


SECONDS = 1392036272


@pytest.mark.parametrize("key", ["order_date", "paid_at", "_at", "Ω_date"])
@pytest.mark.parametrize(
    "text",
    ["1392036272", " 1392036272\n", "2014-02-10T12:44:32Z", "2014-02-10T13:44:32+01:00",
     "20140210T124432Z", " 2014-02-10T12:44:32Z ", "2014-02-10T12:44:32.9+00:00"],
)  # fmt: skip
def test_a_time_as_text_is_sent_as_unix_seconds_below_a_key_of_dates(key, text):
    made = event(**{key: text})

    assert made.metadata == {key: CONTACTED}
    assert made.to_dict()["metadata"] == {key: SECONDS}
    assert Event.from_dict(made.to_dict()) == made


@pytest.mark.parametrize("key", ["plan", "date", "at", "paid_AT", "paid_at_"])
@pytest.mark.parametrize("text", ["1392036272", "2014-02-10T12:44:32Z"])
def test_below_other_keys_text_stays_as_it_is(key, text):
    assert event(**{key: text}).to_dict()["metadata"] == {key: text}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "ISO 8601"),
        ("", "ISO 8601"),
        ("ٱلثلاثاء", "ISO 8601"),
        ("١٣٩٢", "ISO 8601"),
        ("2014-02-10T12:44:32", "must have an offset"),
        ("2014-02-10", "must have an offset"),
        ("1392036272000", "divide it by 1000"),
        ("1392036272.5", "ISO 8601"),
        (29.5, "whole seconds"),
    ],
)
def test_what_is_not_a_time_below_a_key_of_dates_says_to_rename_the_key(text, said):
    with pytest.raises(MetadataError, match=said) as caught:
        event(paid_at=text)

    assert "rename the key" in str(caught.value)
    assert "metadata['paid_at']" in str(caught.value)
    assert caught.value.key == "paid_at"


class Size(enum.IntEnum):
    BIG = 7


class Plan(enum.StrEnum):
    PRO = "pro"


class Plain(enum.Enum):
    PRO = "pro"


class Loud(str):
    __slots__ = ()

    def __str__(self):
        return "LOUD"


class Metres(float):
    __slots__ = ()

    def __repr__(self):
        return "3.5 m"

    def __float__(self):
        raise ArithmeticError


class Unknown:
    """As arrays and symbols of some libraries, whose number is known later, if at all."""

    def __index__(self):
        raise ValueError

    @property
    def dtype(self):
        raise ValueError


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (Decimal("29.99"), 29.99),
        (Decimal(2999), 2999),
        (Decimal("1E+3"), 1000),
        (Decimal("-0.5"), -0.5),
        (Decimal(2**63 - 1), 2**63 - 1),
        (Fraction(1, 4), 0.25),
        (Fraction(8, 2), 4),
        (Size.BIG, 7),
        (Plan.PRO, "pro"),
        (Loud("quiet"), "quiet"),
        (Metres(3.5), 3.5),
    ],
    ids=repr,
)
def test_what_another_type_holds_exactly_is_sent_as_the_plain_type(value, wire):
    sent = event(load=value).to_dict()["metadata"]["load"]

    assert (sent, type(sent)) == (wire, type(wire))


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (Decimal("0.1234567890123456789"), "str(value)"),
        (Decimal("1E+999999999"), "finite"),
        (Decimal("1E-999999999"), "str(value)"),
        (Decimal(2**63), "str(value)"),
        (Decimal("NaN"), "finite"),
        (Decimal("sNaN"), "str(value)"),
        (Fraction(1, 3), "str(value)"),
        (Fraction(10**400), "str(value)"),
        (1j, "str(value)"),
        (uuid.UUID(int=1), "str(value)"),
        (Path("a"), "str(value)"),
        (b"a", "value.decode()"),
        (bytearray(b"a"), "value.decode()"),
        (Plain.PRO, "pass its value"),
        (timedelta(hours=1), "seconds"),
        (time(12), "str(value)"),
        (object(), "str(value)"),
        (Unknown(), "str(value)"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_no_plain_type_holds_exactly_is_an_error_with_a_remedy(value, remedy):
    with pytest.raises(MetadataError) as caught:
        event(load=value)

    assert remedy in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [Decimal(SECONDS), Fraction(SECONDS), float(SECONDS)])
def test_a_time_can_be_a_number_of_any_type(value):
    assert event(paid_at=value).to_dict()["metadata"] == {"paid_at": SECONDS}
    assert Event("a", user_id="1", created_at=value).created_at == CONTACTED


def test_the_parts_of_links_and_amounts_can_be_of_other_types():
    class Whole:
        def __index__(self):
            return 2999

    assert MonetaryAmount(Whole(), Plan("pro")) == MonetaryAmount(2999, "pro")
    assert MonetaryAmount.from_decimal(Whole(), "usd").amount == 299900
    link = RichLink(url=Loud("https://example.org"), value=Plan.PRO)
    assert [type(part) for part in (link.url, link.value)] == [str, str]


LONG = "k" * 900_000


@pytest.mark.parametrize(
    "metadata",
    [
        {LONG: None},
        {LONG: CONTACTED},
        {f"{LONG}_at": "yesterday"},
        {f"{LONG}_at": 1392036272000},
        {LONG: {"url": "ftp://example.org", "value": "1"}},
        {LONG: {LONG: 1}},
        {"price": {"amount": LONG, "currency": "usd"}},
        {"price": {"amount": 1, "currency": LONG}},
        {"order": {"url": LONG, "value": LONG}},
        {"paid_at": LONG},
        {"plan": LONG + "\ud800"},
        {LONG + "\ud800": 1},
        {"plan": {LONG}},
        {**dict.fromkeys("abcdefghij", 1), LONG: 1},
    ],
    ids=lambda metadata: f"{list(metadata)[-1]:.12}",
)
def test_no_message_grows_with_the_metadata(metadata):
    with pytest.raises(MetadataError) as caught:
        event(**metadata)

    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["", " ", 1, None, "\udfff"])
def test_a_key_is_text_and_not_empty(key):
    with pytest.raises(MetadataError, match="key") as caught:
        event(a=1).from_dict({"event_name": "a", "user_id": "1", "metadata": {key: "a"}})

    assert caught.value.key == key


def test_metadata_is_a_mapping():
    with pytest.raises(MetadataError, match="mapping"):
        Event("placed-order", user_id="1", metadata=[("a", 1)])


def test_the_eleventh_key_is_an_error_that_names_it():
    with pytest.raises(MetadataError, match="drop_excess_metadata=True") as caught:
        event(**{f"key_{number}": number for number in range(12)})

    assert caught.value.key == "key_10"


def test_excess_keys_are_dropped_on_request_in_their_order():
    keys = [f"key_{number}" for number in range(9, -3, -1)]

    kept = Event(
        "placed-order", user_id="1", metadata=dict.fromkeys(keys, "a"), drop_excess_metadata=True
    )

    assert list(kept.metadata) == keys[:10]


def test_dropped_keys_may_hold_anything():
    metadata = {**dict.fromkeys("abcdefghij", 1), "k": None}

    kept = Event("placed-order", user_id="1", metadata=metadata, drop_excess_metadata=True)

    assert list(kept.metadata) == list("abcdefghij")


def test_metadata_is_a_copy():
    given_metadata = {"plan": "pro"}
    made = Event("placed-order", user_id="1", metadata=given_metadata)
    given_metadata["plan"] = "free"

    assert made.metadata == {"plan": "pro"}


def test_whole_numbers_of_other_libraries_are_numbers():
    class Whole:
        def __index__(self):
            return 4

    assert event(seats=Whole()).to_dict()["metadata"] == {"seats": 4}


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("29.99", "usd", 2999),
        (Decimal("29.99"), "usd", 2999),
        (29, "eur", 2900),
        ("0.10", "EUR", 10),
        ("2999", "jpy", 2999),
        ("2999", "JPY", 2999),
        ("2999", "krw", 2999),
        ("1.234", "iqd", 1234),
        ("1.234", "kwd", 1234),
        ("1.2345", "clf", 12345),
        ("0", "usd", 0),
        ("1e3", "usd", 100000),
    ],
)
def test_an_amount_of_major_units_becomes_minor_ones_by_iso_4217(amount, currency, minor):
    assert MonetaryAmount.from_decimal(amount, currency) == MonetaryAmount(minor, currency)


@pytest.mark.parametrize(
    ("amount", "currency", "why"),
    [
        (29.99, "usd", "a Decimal, a string or an integer, not 29.99; pass a string"),
        (True, "usd", "a Decimal, a string or an integer, not True; pass a string"),
        ("29.999", "usd", "2 decimal places"),
        ("1.5", "jpy", "0 decimal places"),
        ("1." + "0" * 70 + "1", "usd", "decimal number of at most 60 digits"),
        ("-1", "usd", "from 0 to 9223372036854775807"),
        ("1e17", "usd", "from 0 to 9223372036854775807"),
        ("123456789012345678901234567890.123", "usd", "2 decimal places"),
        ("a lot", "usd", "decimal number of at most 60 digits"),
        ("nan", "usd", "decimal number of at most 60 digits"),
        ("inf", "usd", "decimal number of at most 60 digits"),
        ("1", "us", "three-letter"),
        ("1", "üsd", "three-letter"),
        ("1", None, "three-letter"),
        ("1e999999999", "usd", "decimal number of at most 60 digits"),
    ],
)
def test_an_inexact_amount_is_refused(amount, currency, why):
    with pytest.raises(MetadataError, match=why):
        MonetaryAmount.from_decimal(amount, currency)


@pytest.mark.parametrize("amount", [29.99, -1, "2999", True, None])
def test_an_amount_is_a_whole_number_of_minor_units(amount):
    with pytest.raises(MetadataError, match="minor currency units"):
        MonetaryAmount(amount, "usd")


@pytest.mark.parametrize("url", ["example.org", "ftp://example.org", "javascript:alert(1)", 1])
def test_a_rich_link_is_an_http_address(url):
    with pytest.raises(MetadataError, match="http or https"):
        RichLink(url=url, value="1")


def test_an_address_is_one_in_any_case():
    assert RichLink(url="HTTPS://example.org", value="1").url == "HTTPS://example.org"


def test_a_long_value_is_cut_short_in_the_message():
    with pytest.raises(MetadataError) as caught:
        event(tags=["a"] * 1000)

    assert len(str(caught.value)) < 250


def test_the_text_of_a_rich_link_is_text():
    with pytest.raises(MetadataError, match="value must be a string"):
        RichLink(url="https://example.org", value=1)


KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
DATE_KEYS = st.builds("{}{}".format, KEYS, st.sampled_from(["_at", "_date"]))
OTHER_KEYS = KEYS.filter(lambda key: not key.endswith(("_at", "_date")))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
LINKS = st.builds(RichLink, url=TEXT.map("https://{}".format), value=TEXT)
AMOUNTS = st.builds(
    MonetaryAmount,
    st.integers(0, 2**63 - 1),
    st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
)
MOMENTS = st.integers(-62_135_596_800, 99_999_999_999).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
METADATA = st.lists(
    st.tuples(OTHER_KEYS, TEXT | NUMBERS | LINKS | AMOUNTS)
    | st.tuples(DATE_KEYS, MOMENTS | LINKS | AMOUNTS),
    max_size=10,
).map(dict)


@given(METADATA)
def test_what_is_sent_reads_back_as_it_was_given(metadata):
    sent = json.loads(json.dumps(event(**metadata).to_dict()))

    assert Event.from_dict(sent).metadata == metadata
    assert Event.from_dict(sent).to_dict() == sent
    assert list(sent.get("metadata", {})) == list(metadata)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS | DATE_KEYS, JSON | MOMENTS | LINKS, max_size=12))
def test_anything_else_is_an_error_of_ours_or_json_that_can_be_sent(metadata):
    try:
        made = event(**metadata)
    except MetadataError:
        return
    json.dumps(made.to_dict(), allow_nan=False, ensure_ascii=False).encode()
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "metadata['a'] is a bool, which the API does not support; send 1 or 'yes' instead"),
        (None, "metadata['a'] is None, which the API does not support; leave the key out"),
        (
            {"amount": 1, "currency": "x"},
            (
                "metadata['a']['currency'] must be a three-letter ISO 4217 code such as 'eur', "
                "not 'x'"
            ),
        ),
        (
            {"url": "x", "value": "y"},
            "metadata['a']['url'] must be an http or https URL, not 'x'",
        ),
    ],
)
def test_an_error_names_the_key_in_the_words_of_python(value, said):
    with pytest.raises(MetadataError) as caught:
        Event("ran", user_id="1", metadata={"a": value})
    assert (str(caught.value), caught.value.key) == (said, "a")
