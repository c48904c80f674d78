"""Each request that Intercom's documentation shows is one that our calls make, and each answer that
it shows is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from intercom_data_events import API_VERSION, AuthenticationError, Event, MonetaryAmount, RichLink

ACCEPTED = httpx.Response(202)
ORDER = {
    "order_date": 1392036272,
    "stripe_invoice": "inv_3434343434",
    "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
    "price": {"currency": "usd", "amount": 2999},
}
ORDER_IN_PYTHON = {
    "order_date": datetime(2014, 2, 10, 12, 44, 32, tzinfo=UTC),
    "stripe_invoice": "inv_3434343434",
    "order_number": RichLink(value="3434-3434", url="https://example.org/orders/3434-3434"),
    "price": MonetaryAmount(currency="usd", amount=2999),
}


def sent(transport):
    """The one request that was sent, as the documentation shows requests."""
    (request,) = transport.requests
    body = json.loads(request.content) if request.content else None
    return request.method, str(request.url), body


def test_the_curl_example_of_an_order(answering):
    call, transport = answering(ACCEPTED)

    call(
        lambda client: client.create(
            "placed-order", created_at=1389913941, user_id="314159", metadata=ORDER_IN_PYTHON
        )
    )

    assert sent(transport) == (
        "POST",
        "https://api.intercom.io/events",
        {
            "event_name": "placed-order",
            "created_at": 1389913941,
            "user_id": "314159",
            "metadata": ORDER,
        },
    )
    headers = transport.requests[0].headers
    assert headers["authorization"] == "Bearer token"
    assert headers["content-type"] == "application/json"
    assert headers["intercom-version"] == API_VERSION


def test_metadata_keeps_the_order_of_its_keys_on_the_wire(answering):
    call, transport = answering(ACCEPTED)

    call(lambda client: client.create("placed-order", user_id="1", metadata=ORDER_IN_PYTHON))

    assert list(json.loads(transport.requests[0].content)["metadata"]) == list(ORDER)


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        pytest.param(
            {"email": "customer@example.org", "created_at": 1391691571},
            {"email": "customer@example.org", "created_at": 1391691571},
            id="Ruby",
        ),
        pytest.param(
            {"created_at": 1500907515, "user_id": "20413"},
            {"created_at": datetime.fromtimestamp(1500907515, UTC), "user_id": "20413"},
            id="PHP",
        ),
        pytest.param(
            {"user_id": "314159", "created_at": 1389913941},
            {"user_id": "314159", "created_at": "2014-01-16T23:12:21Z"},
            id="Java",
        ),
        pytest.param(
            {"id": "63a0979a5eeebeaf28dd56ba", "created_at": 1389913941},
            {"id": "63a0979a5eeebeaf28dd56ba", "created_at": 1389913941},
            id="JavaScript, for the visitor it would be bound to",
        ),
    ],
)
def test_the_payloads_of_the_other_languages(answering, fields, arguments):
    call, transport = answering(ACCEPTED)

    call(lambda client: client.create("placed-order", metadata=ORDER_IN_PYTHON, **arguments))

    assert sent(transport)[2] == {"event_name": "placed-order", **fields, "metadata": ORDER}


def test_an_event_without_a_time_is_stamped_with_the_present_second(answering):
    call, transport = answering(ACCEPTED)
    before = int(datetime.now(UTC).timestamp())

    call(lambda client: client.create("placed-order", user_id="314159"))

    assert before <= sent(transport)[2]["created_at"] <= datetime.now(UTC).timestamp()


@pytest.mark.parametrize("version", ["Unstable", "Preview", "2.14", "2.17"])
def test_the_curl_example_of_an_invitation_for_a_chosen_version(answering, version):
    call, transport = answering(ACCEPTED)
    event = {
        "event_name": "invited-friend",
        "created_at": 1671028894,
        "user_id": "314159",
        "id": "8a88a590-e1c3-41e2-a502-e0649dbf721c",
        "email": "frodo.baggins@example.com",
        "metadata": {"invite_code": "ADDAFRIEND"},
    }

    call(lambda client: client.send(Event.from_dict(event)), version=version)

    assert sent(transport) == ("POST", "https://api.intercom.io/events", event)
    assert transport.requests[0].headers["intercom-version"] == version


@pytest.mark.parametrize(
    ("identity", "query"),
    [
        ({"user_id": "314159"}, "type=user&user_id=314159"),
        ({"email": "a+b@example.org"}, "type=user&email=a%2Bb%40example.org"),
        (
            {"intercom_user_id": "63a0979a5eeebeaf28dd56ba"},
            "type=user&intercom_user_id=63a0979a5eeebeaf28dd56ba",
        ),
    ],
)
@pytest.mark.parametrize(
    ("options", "more"), [({}, ""), ({"per_page": 50}, "&per_page=50")], ids=["default", "sized"]
)
def test_the_three_addresses_of_a_listing(answering, identity, query, options, more):
    call, transport = answering(httpx.Response(200, json={"type": "event.list", "events": []}))

    assert call(lambda client: client.list(**identity, **options)) == []

    assert sent(transport) == ("GET", f"https://api.intercom.io/events?{query}{more}", None)


def test_the_curl_example_of_a_summary_and_its_answer(answering):
    call, transport = answering(
        httpx.Response(
            200,
            json={
                "type": "event.summary",
                "events": [],
                "pages": {"next": "http://api.intercom.test/events?next page"},
                "email": "user26@email.com",
                "intercom_user_id": "6762f22b1bb69f9f2193bc12",
                "user_id": "3ecf64d0-9ed1-4e9f-88e1-da7d6e6782f3",
            },
        )
    )

    summary = call(lambda client: client.summary(user_id="314159"))

    method, url, _ = sent(transport)
    assert method == "GET"
    # The example has type=string; the prose says that it must be user.
    assert dict(httpx.URL(url).params) == {"type": "user", "user_id": "314159", "summary": "true"}
    assert summary.events == ()
    assert summary.email == "user26@email.com"
    assert summary.intercom_user_id == "6762f22b1bb69f9f2193bc12"
    assert summary.user_id == "3ecf64d0-9ed1-4e9f-88e1-da7d6e6782f3"


def test_the_items_of_a_summary_with_the_blank_behind_a_date(answering):
    item = {
        "name": "placed-order",
        "first": "2014-01-16T23:12:21.000+00:00",
        "last": "2014-01-16T23:12:21.000+00:00 ",
        "count": 1,
        "description": "A user placed an order",
    }
    call, _ = answering(httpx.Response(200, json={"type": "event.summary", "events": [item]}))

    (found,) = call(lambda client: client.summary(user_id="314159")).events

    moment = datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
    assert (found.name, found.count, found.first, found.last, found.description) == (
        "placed-order",
        1,
        moment,
        moment,
        "A user placed an order",
    )


def test_the_curl_example_of_importing_a_summary(answering):
    call, transport = answering(httpx.Response(200))
    moment = datetime.fromtimestamp(1671028894, UTC)

    call(
        lambda client: client.create_summary(
            user_id="314159", event_name="invited-friend", count=1, first=moment, last=1671028894
        )
    )

    assert sent(transport) == (
        "POST",
        "https://api.intercom.io/events/summaries",
        {
            "user_id": "314159",
            "event_summaries": {
                "event_name": "invited-friend",
                "count": 1,
                "first": 1671028894,
                "last": 1671028894,
            },
        },
    )


def test_the_documented_event_is_read(answering):
    event = {
        "type": "event",
        "event_name": "invited-friend",
        "created_at": 1671028894,
        "user_id": "314159",
        "id": "8a88a590-e1c3-41e2-a502-e0649dbf721c",
        "intercom_user_id": "63a0979a5eeebeaf28dd56ba",
        "email": "frodo.baggins@example.com",
        "metadata": {"invite_code": "ADDAFRIEND"},
    }
    call, _ = answering(httpx.Response(200, json={"type": "event.list", "events": [event]}))

    (found,) = call(lambda client: client.list(user_id="314159"))

    assert found.event_name == "invited-friend"
    assert found.created_at == datetime(2022, 12, 14, 14, 41, 34, tzinfo=UTC)
    assert found.user_id == "314159"
    assert found.id == "8a88a590-e1c3-41e2-a502-e0649dbf721c"
    assert found.intercom_user_id == "63a0979a5eeebeaf28dd56ba"
    assert found.email == "frodo.baggins@example.com"
    assert found.metadata == {"invite_code": "ADDAFRIEND"}
    assert found.to_dict() == event


def test_the_documented_refusal_is_read(answering):
    call, _ = answering(
        httpx.Response(
            401,
            json={
                "type": "error.list",
                "request_id": "212c8206-e7a6-44c8-8f27-5f0ad7f1d243",
                "errors": [{"code": "unauthorized", "message": "Access Token Invalid"}],
            },
        )
    )

    with pytest.raises(AuthenticationError, match="Access Token Invalid") as caught:
        call(lambda client: client.create("invited-friend", user_id="314159"))

    assert caught.value.codes == ("unauthorized",)
    assert caught.value.message == "Access Token Invalid"
    assert caught.value.request_id == "212c8206-e7a6-44c8-8f27-5f0ad7f1d243"


def test_the_raw_client_takes_options_for_one_request(answering):
    call, transport = answering(httpx.Response(202, headers={"X-Request-Id": "b3ae"}))

    response = call(
        lambda client: client.with_options(
            version="2.14", timeout=5, headers={"X-Trace": "1"}
        ).with_raw_response.create("invited-friend", user_id="314159")
    )

    (request,) = transport.requests
    assert request.headers["intercom-version"] == "2.14"
    assert request.headers["x-trace"] == "1"
    assert set(request.extensions["timeout"].values()) == {5}
    assert (response.status_code, response.content, response.parsed) == (202, b"", None)
    assert response.request_id == "b3ae"


def test_the_raw_client_has_each_operation_of_the_documented_one(call):
    """createDataEvent, lisDataEvents (a list and a summary), dataEventSummaries."""
    raw = {
        "create": {"event_name": "invited-friend", "user_id": "314159"},
        "create_summary": {
            "user_id": "314159",
            "event_name": "invited-friend",
            "count": 1,
            "first": 1671028894,
            "last": 1671028894,
        },
        "list": {"user_id": "314159"},
        "summary": {"user_id": "314159"},
    }

    answers = {
        verb: call(lambda client, verb=verb, given=given: getattr(
            client.with_raw_response, verb
        )(**given))
        for verb, given in raw.items()
    }  # fmt: skip

    assert [answer.status_code for answer in answers.values()] == [202, 200, 200, 200]
    assert [event.event_name for event in answers["list"].parsed.events] == ["invited-friend"]
    assert answers["summary"].parsed.events[0].count == 2
    assert all(answer.headers["intercom-version"] == API_VERSION for answer in answers.values())
    assert all(answer.request_id for answer in answers.values())
