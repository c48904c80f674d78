"""Answers are read by what was asked for, leniently where nothing is lost, else with an error."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import (
    DataEventsClient,
    Event,
    InvalidResponseError,
    MonetaryAmount,
    RichLink,
)

EVENT = {"event_name": "placed-order", "created_at": 1389913941}


def listing(*events, **more):
    return httpx.Response(200, json={"type": "event.list", "events": list(events), **more})


def summary_of(*items, **more):
    return httpx.Response(200, json={"type": "event.summary", "events": list(items), **more})


def read(answering, answer, verb="list"):
    call, _ = answering(answer)
    # What cannot be read is asked for again, which is tested elsewhere.
    return call(lambda client: getattr(client, verb)(user_id="1"), max_retries=0)


def test_metadata_reads_back_as_python_values_and_is_the_same_json_again(answering):
    metadata = {
        "order_date": 1392036272,
        "contacted_at": 1392036272,
        "stripe_invoice": "inv_3434343434",
        "load": 3.67,
        "order_number": {"value": "3434", "url": "https://example.org/orders/3434"},
        "price": {"currency": "usd", "amount": 2999},
    }

    (event,) = read(answering, listing({**EVENT, "metadata": metadata}))

    assert event.metadata == {
        "order_date": datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC),
        "contacted_at": datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC),
        "stripe_invoice": "inv_3434343434",
        "load": 3.67,
        "order_number": RichLink(url="https://example.org/orders/3434", value="3434"),
        "price": MonetaryAmount(2999, "usd"),
    }
    assert event.to_dict()["metadata"] == metadata
    again = Event("placed-order", user_id="1", metadata=event.metadata)
    assert again.to_dict()["metadata"] == metadata


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [1, {"a": None}],
        {"deeply": {"nested": 1}},
        {"url": "not an address", "value": "1"},
        {"url": "https://example.org", "value": "1", "more": 1},
        {"amount": "a lot", "currency": "usd"},
        1392036272000,
        "2014-02-10",
        3.5,
    ],
    ids=repr,
)
def test_metadata_of_undocumented_kinds_is_kept_as_it_is(answering, value):
    (event,) = read(answering, listing({**EVENT, "metadata": {"contacted_at": value}}))

    assert event.metadata == {"contacted_at": value}
    assert event.to_dict()["metadata"] == {"contacted_at": value}


@pytest.mark.parametrize("field", ["user_id", "email", "id", "intercom_user_id", "type"])
def test_what_a_contact_lacks_is_none(answering, field):
    for event in (EVENT, {**EVENT, field: None}, {**EVENT, field: ""}):
        (found,) = read(answering, listing(event))
        assert getattr(found, field, None) is None


def test_an_event_goes_back_to_json_without_what_it_lacks(answering):
    (event,) = read(answering, listing({**EVENT, "email": None}))

    assert event.to_dict() == {"type": "event", **EVENT}


def test_metadata_can_be_missing_null_or_empty(answering):
    events = read(answering, listing(EVENT, {**EVENT, "metadata": None}, {**EVENT, "metadata": {}}))

    assert [event.metadata for event in events] == [{}, {}, {}]


def test_unknown_fields_are_kept(answering):
    (event,) = read(answering, listing({**EVENT, "workspace": {"id": 5}}, more=1))

    assert event.additional_properties == {"workspace": {"id": 5}}
    assert event.to_dict()["workspace"] == {"id": 5}


@pytest.mark.parametrize("type_", ["event.list", "event.summary", "surprise", None, 5, []])
def test_what_was_asked_for_decides_how_an_answer_is_read(answering, type_):
    body = {"type": type_, "events": []}

    assert read(answering, httpx.Response(200, json=body)) == []
    assert read(answering, httpx.Response(200, json=body), "summary").events == ()


def test_an_answer_without_a_type_is_read(answering):
    assert len(read(answering, httpx.Response(200, json={"events": [EVENT]}))) == 1


@pytest.mark.parametrize("events", [None, [], "missing"])
def test_no_events_are_no_events(answering, events):
    body = {"type": "event.list"} if events == "missing" else {"events": events}

    assert read(answering, httpx.Response(200, json=body)) == []
    assert read(answering, httpx.Response(200, json=body), "summary").events == ()


def test_an_item_of_a_summary_may_lack_anything_or_be_null(answering):
    nulls = dict.fromkeys(("name", "first", "last", "count", "description"))
    found = read(answering, summary_of({}, None, nulls, {"name": "a", "x": 1}), "summary")

    empty = (None, None, None, None, None)
    assert [(e.name, e.first, e.last, e.count, e.description) for e in found.events] == [
        empty,
        empty,
        ("a", None, None, None, None),
    ]
    assert found.events[-1].additional_properties == {"x": 1}


@pytest.mark.parametrize(
    "spelling",
    [
        "2014-01-16T23:12:21.000+00:00",
        "2014-01-16T23:12:21.000+00:00 ",
        " 2014-01-16T23:12:21Z\n",
        "2014-01-17T00:12:21+01:00",
        "2014-01-16T23:12:21",
        1389913941,
    ],
)
def test_dates_of_a_summary_are_aware_whatever_their_spelling(answering, spelling):
    (item,) = read(answering, summary_of({"first": spelling}), "summary").events

    assert item.first == datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
    assert item.first.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "body"),
        (b"<html><body>Sign in</body></html>", "body"),
        (b'{"type": "event.list", "eve', "body"),
        (b"\xff\xfe\x00", "body"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"events"', "must be a JSON object"),
        (b"[" * 100_000, "body"),
        (b"{}", "must have events"),
        (b'{"message": "down for maintenance"}', "must have events"),
        (b'{"type": "error.list", "errors": [], "events": []}', "must have events"),
        (b'{"events": {"a": 1}}', "must be a list"),
        (b'{"events": 5}', "must be a list"),
        (b'{"events": "abc"}', "must be a list"),
    ],
    ids=lambda given: repr(given)[:60],
)
def test_a_listing_that_is_not_as_described_is_an_error_that_holds_it(answering, content, why):
    with pytest.raises(InvalidResponseError, match=why) as caught:
        read(answering, httpx.Response(200, content=content))

    assert caught.value.response.content == content
    assert caught.value.response.status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b"<html>",
        b'{"events": 5}',
    ],
)
def test_a_summary_that_is_not_as_described_is_an_error_that_holds_it(answering, content):
    with pytest.raises(InvalidResponseError) as caught:
        read(answering, httpx.Response(200, content=content), "summary")

    assert caught.value.response.content == content


@pytest.mark.parametrize("status", [200, 201, 204, 206, 299])
def test_a_success_that_is_not_described_leaves_open_what_became_of_the_event(answering, status):
    call, _ = answering(httpx.Response(status, content=b"<html>Welcome to our network</html>"))

    with pytest.raises(InvalidResponseError, match=str(status)) as caught:
        call(lambda client: client.create("placed-order", user_id="1"))

    assert caught.value.may_have_been_processed
    assert caught.value.response.text == "<html>Welcome to our network</html>"


def test_the_body_of_an_accepted_event_does_not_matter(answering):
    call, _ = answering(httpx.Response(202, content=b"\xff not JSON"))

    assert call(lambda client: client.create("placed-order", user_id="1")) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["event_name", "created_at", "user_id", "metadata", "name", "first", "last", "count", "id"]
)
ITEMS = st.lists(st.dictionaries(FIELDS, JSON, max_size=5) | JSON, max_size=3)
BODIES = JSON | st.fixed_dictionaries(
    {}, optional={"type": JSON, "events": ITEMS | JSON, "pages": JSON}
)


@given(BODIES, st.sampled_from(["list", "summary"]))
def test_whatever_the_answer_is_it_is_read_or_an_error_of_ours(body, verb):
    content = json.dumps(body).encode()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=content))
    client = DataEventsClient("token", transport=transport, max_retries=0)
    with suppress(InvalidResponseError):
        found = getattr(client, verb)(user_id="1")
        assert verb == "summary" or list(found) is not None
