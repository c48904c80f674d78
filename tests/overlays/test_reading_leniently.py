"""No value of one field makes a listing or a summary unreadable, and none gets lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import (
    DataEventsClient,
    InvalidInputError,
    InvalidResponseError,
    PaginationError,
)
from intercom_data_events_api import models

EVENT = {"event_name": "placed-order", "created_at": 1389913941}
WHEN = datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
HERE = "https://api.intercom.io/events"
# Of more digits than Python converts.
ENDLESS = "1" * 1_000_000

#: Times as they are meant, whoever wrote them.
TIMES = [
    (1389913941, WHEN),
    (1389913941.0, WHEN),
    (1389913941.25, WHEN.replace(microsecond=250_000)),
    ("1389913941", WHEN),
    (" 1389913941 ", WHEN),
    ("1389913941.0", WHEN),
    ("2014-01-16T23:12:21Z", WHEN),
    ("2014-01-17T00:12:21+01:00", WHEN),
    ("2014-01-16 23:12:21", WHEN),
    ("2014-01-16T23:12:21.064+00:00 ", WHEN.replace(microsecond=64_000)),
    (1389913941000, WHEN),
    (1389913941064, WHEN.replace(microsecond=64_000)),
    (1389913941000.0, WHEN),
    ("1389913941000", WHEN),
    (0, datetime(1970, 1, 1, tzinfo=UTC)),
    (-1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
]
#: What is no time.
NEITHER = [
    "soon",
    "2014-13-16T23:12:21Z",
    "0000-00-00 00:00:00",
    "NaN",
    "-",
    ".",
    "\N{ARABIC-INDIC DIGIT ONE}389913941",
    "1_389_913_941",
    True,
    False,
    {"seconds": 1389913941},
    [1389913941],
    10**17,
    10**400,
    -(10**400),
    1e300,
    float("inf"),
    ENDLESS,
    "2014-01-16T23:12:21Z" + ENDLESS,
]


def client_of(body):
    content = json.dumps(body).encode()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    return DataEventsClient("token", transport=transport, max_retries=0)


def listed(*events, **more):
    return list(client_of({"events": list(events), **more}).list(user_id="1"))


def page_of(**body):
    return client_of(body).with_raw_response.list(user_id="1").parsed


def summarized(*items, **more):
    return client_of({"events": list(items), **more}).summary(user_id="1")


def spelt(number):
    return f"{number!r:.40}"


@pytest.mark.parametrize(("came", "meant"), TIMES, ids=spelt)
def test_a_time_is_read_whatever_its_spelling(came, meant):
    good, odd = listed(EVENT, {**EVENT, "created_at": came})
    (item,) = summarized({"first": came, "last": came})

    assert good.created_at == WHEN
    assert odd.created_at == item.first == item.last == meant
    assert odd.created_at.tzinfo is UTC
    assert odd.additional_properties == item.additional_properties == {}
    assert odd.to_dict() == {"type": "event", **EVENT, "created_at": int(meant.timestamp() // 1)}


@pytest.mark.parametrize("came", NEITHER, ids=[f"{n}" for n in range(len(NEITHER))])
def test_what_is_not_a_time_is_none_and_kept_as_it_came(came):
    odd, good = listed({**EVENT, "created_at": came}, EVENT)
    (item,) = summarized({"name": "a", "first": came, "last": 1389913941})

    assert (odd.created_at, good.created_at) == (None, WHEN)
    assert (item.first, item.last) == (None, WHEN)
    assert odd.additional_properties == {"created_at": came}
    assert item.additional_properties == {"first": came}
    assert odd.to_dict() == {"type": "event", **EVENT, "created_at": came}


def test_a_time_that_is_not_a_number_is_kept_as_it_came():
    (odd,) = listed({**EVENT, "created_at": float("nan")})

    assert odd.created_at is None
    assert str(odd.additional_properties) == "{'created_at': nan}"
    assert json.loads(odd.to_json()) == {"type": "event", **EVENT, "created_at": None}


@pytest.mark.parametrize("field", ["created_at", "id", "user_id", "other"])
def test_an_integer_of_more_digits_than_python_converts_is_kept_as_its_digits(field):
    digits = "9" * 5_000
    content = json.dumps({"events": [{**EVENT, field: "DIGITS"}, {**EVENT, "user_id": 7}]})
    transport = httpx.MockTransport(
        lambda _: httpx.Response(200, content=content.replace('"DIGITS"', digits))
    )
    with DataEventsClient("token", transport=transport, max_retries=0) as client:
        odd, good = client.list(user_id="1")

    assert good.user_id == "7"
    assert odd.to_dict()[field] == digits


@pytest.mark.parametrize("missing", [{}, {"created_at": None}, {"created_at": ""}], ids=str)
def test_an_event_may_lack_its_time(missing):
    (event,) = listed({"event_name": "a", **missing})

    assert event.created_at is None
    assert event.to_dict() == {"type": "event", "event_name": "a"}


WRONG = [5.5, True, False, {"a": 1}, ["a"], [], {}]


@pytest.mark.parametrize("came", [*WRONG, 5], ids=spelt)
@pytest.mark.parametrize("name", ["event_name", "email", "type"])
def test_a_text_of_another_type_is_none_and_kept(name, came):
    odd, good = listed({**EVENT, name: came}, EVENT)

    assert getattr(odd, name, None) is None
    assert odd.additional_properties == {name: came}
    assert odd.to_dict() == {"type": "event", **EVENT, name: came}
    assert good.event_name == "placed-order"


@pytest.mark.parametrize("name", ["id", "user_id", "intercom_user_id"])
def test_an_identifier_that_is_a_number_is_its_digits(name):
    for came in (314159, 314159.0):
        (odd,) = listed({**EVENT, name: came})
        assert getattr(odd, name) == "314159"
        assert odd.additional_properties == {}
    for came in WRONG:
        odd, good = listed({**EVENT, name: came}, EVENT)
        assert getattr(odd, name) is None
        assert odd.additional_properties == {name: came}
        assert odd.to_dict()[name] == came
        assert good.additional_properties == {}


@pytest.mark.parametrize("digits", ["1234567890123456789.0", "9007199254740993.0", "1.2345e+18"])
def test_digits_that_a_float_does_not_hold_are_not_made_up(digits):
    came = json.loads(digits)
    (odd,) = listed({**EVENT, "user_id": came, "intercom_user_id": came})
    item, exact = summarized({"name": "a", "count": came}, {"name": "b", "count": 2**53 - 1.0})

    assert (odd.user_id, odd.intercom_user_id, item.count) == (None, None, None)
    assert exact.count == 2**53 - 1
    assert odd.additional_properties == {"user_id": came, "intercom_user_id": came}
    assert item.additional_properties == {"count": came}


@pytest.mark.parametrize("came", [["a"], [], "text", 5, True, False, 0], ids=spelt)
def test_metadata_that_is_not_an_object_is_empty_and_kept(came):
    odd, good = listed({**EVENT, "metadata": came}, {**EVENT, "metadata": {"a": 1}})

    assert (odd.metadata, good.metadata) == ({}, {"a": 1})
    assert odd.additional_properties == {"metadata": came}
    assert odd.to_dict() == {"type": "event", **EVENT, "metadata": came}


def test_events_that_are_not_objects_are_left_out_and_kept():
    page = page_of(events=[None, EVENT, 5, "a", [EVENT], {}], total=6)

    assert [event.event_name for event in page.events] == ["placed-order", None]
    assert page.additional_properties == {"events": [None, 5, "a", [EVENT]], "total": 6}

    summary = summarized(None, {"name": "a"}, 5, total=6)
    assert [item.name for item in summary] == ["a"]
    assert summary.additional_properties == {"events": [None, 5], "total": 6}


@pytest.mark.parametrize("events", [5, {"a": EVENT}, "abc", True], ids=spelt)
@pytest.mark.parametrize("verb", ["list", "summary"])
def test_events_that_are_not_a_list_are_an_error(verb, events):
    with pytest.raises(InvalidResponseError, match="its events must be a list"):
        list(getattr(client_of({"events": events}), verb)(user_id="1"))


@pytest.mark.parametrize("pages", [5, "a", ["a"], True, 0, []], ids=spelt)
def test_pages_that_are_not_an_object_are_kept_and_end_the_listing(pages):
    assert [event.event_name for event in listed(EVENT, pages=pages)] == ["placed-order"]
    page = page_of(events=[EVENT], pages=pages)
    assert (page.next, page.since) == (None, None)
    assert page.additional_properties == {"pages": pages}


@pytest.mark.parametrize(
    "came",
    [5, ["a"], {"page": 2, "starting_after": "x"}, HERE, f"{HERE}#?before=5", "?a=\ud800", True,
     "?before=" + "5" * 70_000, "?before=" + "\N{SNOWMAN}" * 7_000],
    ids=spelt,
)  # fmt: skip
def test_a_cursor_that_cannot_be_read_is_kept_and_the_events_are_read(came):
    page = page_of(events=[EVENT], pages={"next": came, "since": came, "page": 1})

    assert [event.event_name for event in page.events] == ["placed-order"]
    assert (page.next, page.since) == (None, None)
    assert page.additional_properties == {"pages": {"next": came, "since": came, "page": 1}}


def test_a_listing_whose_next_page_cannot_be_told_is_not_passed_off_as_whole():
    client = client_of({"events": [EVENT], "pages": {"next": {"page": 2}}})
    found = iter(client.list(user_id="1"))

    assert next(found).event_name == "placed-order"
    with pytest.raises(PaginationError, match="must be a URL with a valid query") as caught:
        next(found)
    assert b"placed-order" in caught.value.response.content
    assert client.list(user_id="1").first().event_name == "placed-order"


@pytest.mark.parametrize("nothing", [None, "", "missing"])
def test_a_next_page_that_is_none_ends_the_listing(nothing):
    pages = {} if nothing == "missing" else {"next": nothing, "since": nothing}

    assert len(listed(EVENT, pages=pages)) == 1
    assert page_of(events=[], pages=pages).additional_properties == {}


@pytest.mark.parametrize(
    ("came", "count"),
    [(3, 3), ("3", 3), (3.0, 3), (" 3 ", 3), ("3.0", 3), (0, 0), ("0", 0), ("1000", 1000)],
    ids=spelt,
)
def test_a_count_is_read_whatever_its_spelling(came, count):
    (item,) = summarized({"name": "a", "count": came})

    assert item.count == count
    assert type(item.count) is int
    assert item.additional_properties == {}


@pytest.mark.parametrize("came", [True, 3.5, "many", "3 times", [3], {}, 10**400, ENDLESS, "३"])
def test_what_is_not_a_count_is_none_and_kept(came):
    (item,) = summarized({"name": "a", "count": came})

    assert item.count is None
    assert item.additional_properties == {"count": came}


def test_every_field_of_a_summary_is_read_by_itself():
    summary = summarized(
        {"name": 5, "description": ["a"], "count": 1, "more": 2},
        user_id=314159,
        email={"a": 1},
        intercom_user_id=True,
    )

    (item,) = summary
    assert (item.name, item.description, item.count) == (None, None, 1)
    assert item.additional_properties == {"name": 5, "description": ["a"], "more": 2}
    assert (summary.user_id, summary.email, summary.intercom_user_id) == ("314159", None, None)
    assert summary.additional_properties == {"email": {"a": 1}, "intercom_user_id": True}


def test_a_type_that_is_another_one_is_kept():
    assert page_of(events=[], type="event.summary").additional_properties == {
        "type": "event.summary"
    }
    assert page_of(events=[], type="event.list").additional_properties == {}


@pytest.mark.parametrize("status", [200, 203, 206])
def test_a_listing_is_read_under_each_status_of_success(answering, status):
    call, _ = answering(httpx.Response(status, json={"events": [EVENT]}))

    assert len(call(lambda client: client.list(user_id="1"))) == 1


SAMPLES = {
    "type": "event", "event_name": "a", "created_at": 1, "user_id": "1", "id": "2", "email": "e",
    "intercom_user_id": "3", "metadata": {"a": 1}, "name": "a", "count": 1, "first": 1, "last": 1,
    "description": "d", "events": [], "pages": {"next": None, "since": "since=1&user_id=1"},
}  # fmt: skip


def described(model, *others):
    names = {one.name.rstrip("_") for one in attrs.fields(model)}
    return {name: SAMPLES[name] for name in names - {"additional_properties", *others}}


def test_every_field_that_the_description_has_is_read():
    (event,) = listed(described(models.DataEvent))
    (item,) = summarized(described(models.DataEventSummaryItem))
    page = page_of(**{**described(models.DataEventList), "type": "event.list"})
    # Pages of summaries are described, but nothing is known about how to request them.
    summary = summarized(**described(models.DataEventSummary, "events", "type", "pages"))

    for one in (event, item, page, summary):
        assert one.additional_properties == {}
        assert all(value is not None for name, value in attrs.asdict(one).items() if name != "next")


@pytest.mark.parametrize("year", [1, 1969, 4999, 9999])
def test_a_fraction_of_a_second_is_cut_off_in_json_and_never_rounded_up(year):
    (event,) = listed({"created_at": f"{year:04}-12-31T23:59:59.999999Z"})
    (whole,) = listed({"created_at": f"{year:04}-12-31T23:59:59Z"})

    assert event.created_at.microsecond == 999_999
    assert event.to_dict() == whole.to_dict()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["event_name", "created_at", "user_id", "metadata", "id", "intercom_user_id", "email", "x"]
)


@given(st.dictionaries(FIELDS, JSON, max_size=5))
def test_whatever_an_event_is_nothing_of_it_is_lost(fields):
    (event,) = listed(fields)
    back = event.to_dict()

    for name, came in fields.items():
        if came in (None, "", {}):
            continue
        if name == "created_at" and event.created_at is not None:
            assert name not in event.additional_properties
        elif name.endswith("id") and isinstance(came, int | float) and name in back:
            assert back[name] in (came, str(int(came)))
        else:
            assert back[name] == came


# Sending a listed event again.


def test_a_listed_event_becomes_an_event_with_all_that_identifies_the_contact():
    (event,) = listed(
        {
            **EVENT,
            "id": "e1",
            "user_id": "314159",
            "intercom_user_id": "63a0",
            "email": "a@b.co",
            "metadata": {"order_date": 1392036272, "price": {"amount": 5, "currency": "usd"}},
        }
    )

    assert event.to_event().to_dict() == {
        **EVENT,
        "user_id": "314159",
        "id": "63a0",
        "email": "a@b.co",
        "metadata": {"order_date": 1392036272, "price": {"amount": 5, "currency": "usd"}},
    }
    assert json.loads(event.to_event().to_json()) == event.to_event().to_dict()
    assert json.loads(event.to_json()) == event.to_dict()


def test_a_lead_is_identified_by_intercoms_identifier():
    (event,) = listed({**EVENT, "id": "e1", "intercom_user_id": "63a0"})

    assert event.to_event().to_dict() == {**EVENT, "id": "63a0"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"event_name": None}, "event_name of a listed event must be valid"),
        (
            {"event_name": ["a"]},
            r"not \['a'\]; create an Event from its fields, with a valid event_name",
        ),
        ({"created_at": None}, "created_at of a listed event must be valid"),
        (
            {"created_at": "soon"},
            "not 'soon'; create an Event from its fields, with a valid created_at",
        ),
        ({"user_id": None}, "no contact: pass user_id, email or id"),
        ({"metadata": ["a"]}, "metadata must be a mapping"),
        ({"metadata": {"a": None}}, "leave the key out"),
    ],
    ids=str,
)
def test_an_event_that_cannot_be_sent_says_what_it_lacks(fields, said):
    (event,) = listed({**EVENT, "user_id": "1", **fields})

    with pytest.raises(InvalidInputError, match=said):
        event.to_event()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_null_for_what_json_does_not_have(value):
    (event,) = listed({**EVENT, "metadata": {"load": value, "name": "zo\u00eb \ud800"}})

    text = event.to_json()

    assert text.isascii()
    refused = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert refused["metadata"] == {"load": None, "name": "zo\u00eb \ud800"}
