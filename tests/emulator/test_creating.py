"""POST /events: what is taken, what is refused, what is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from intercom_data_events.emulator import EmulatedContact, Emulator

from .conftest import NOW, Connect
from .drivers import DRIVERS, Ask, Drive

EVENT: dict[str, Any] = {"event_name": "placed-order", "created_at": NOW, "user_id": "314159"}
TALLY = {"event_name": "placed-order", "count": 3, "first": 100, "last": 200}
SUMMARY: dict[str, Any] = {"user_id": "314159", "event_summaries": TALLY}
DECLARED = {"Content-Type": "application/json"}


def error_of(response: httpx.Response) -> dict[str, str]:
    document = response.json()
    assert document["type"] == "error.list"
    assert document["request_id"] == response.headers["X-Request-Id"]
    (error,) = document["errors"]
    return dict(error)


def test_an_event_is_accepted_with_an_empty_body_and_stored(
    emulator: Emulator, client: httpx.Client
) -> None:
    metadata = {
        "order_date": 1392036272,
        "load": 3.67,
        "stripe_invoice": "inv_3434343434",
        "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
        "price": {"currency": "usd", "amount": 2999},
    }
    response = client.post("/events", json={**EVENT, "metadata": metadata})
    assert (response.status_code, response.content) == (202, b"")
    assert "Content-Type" not in response.headers
    (event,) = emulator.events
    assert (event.event_name, event.created_at, event.user_id) == ("placed-order", NOW, "314159")
    assert event.metadata == metadata


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"event_name": None}, "parameter_not_found", "event_name"),
        ({"event_name": " "}, "parameter_invalid", "event_name"),
        ({"event_name": 7}, "parameter_invalid", "event_name"),
        ({"created_at": None}, "parameter_not_found", "created_at"),
        ({"created_at": NOW * 1000}, "parameter_invalid", "created_at"),
        ({"created_at": float(NOW)}, "parameter_invalid", "created_at"),
        ({"created_at": str(NOW)}, "parameter_invalid", "created_at"),
        ({"created_at": True}, "parameter_invalid", "created_at"),
        ({"created_at": -62_135_596_801}, "parameter_invalid", "created_at"),
        ({"user_id": None}, "parameter_invalid", "user_id"),
        ({"user_id": 314159}, "parameter_invalid", "user_id"),
        ({"email": ""}, "parameter_invalid", "email"),
        ({"metadata": ["a"]}, "parameter_invalid", "metadata"),
        ({"metadata": None}, "parameter_invalid", "metadata"),
        ({"metadata": {"tags": ["a"]}}, "parameter_invalid", "tags"),
        ({"metadata": {"deep": {"a": {"b": 1}}}}, "parameter_invalid", "deep"),
        ({"metadata": {"link": {"url": "https://x.org"}}}, "parameter_invalid", "link"),
        ({"metadata": {"price": {"amount": 2.5, "currency": "usd"}}}, "parameter_invalid", "price"),
        ({"metadata": {"price": {"amount": -1, "currency": "usd"}}}, "parameter_invalid", "price"),
        (
            {"metadata": {"price": {"amount": 2**63, "currency": "usd"}}},
            "parameter_invalid",
            "price",
        ),
        ({"metadata": {"paid": True}}, "parameter_invalid", "paid"),
        ({"metadata": {"nothing": None}}, "parameter_invalid", "nothing"),
    ],
)
def test_an_event_that_the_documentation_rules_out_is_refused_by_field(
    emulator: Emulator, client: httpx.Client, change: dict[str, Any], code: str, field: str
) -> None:
    response = client.post("/events", json={**EVENT, **change})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["field"]) == (code, field)
    assert error["message"]
    assert emulator.events == ()


def test_an_event_without_an_identity_is_refused(client: httpx.Client) -> None:
    response = client.post("/events", json={"event_name": "placed-order", "created_at": NOW})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["field"]) == ("parameter_not_found", "user_id")


@pytest.mark.parametrize("created_at", [-62_135_596_800, -1, 0, 99_999_999_999])
def test_an_event_is_of_any_second_that_a_datetime_can_hold(
    client: httpx.Client, created_at: int
) -> None:
    assert client.post("/events", json={**EVENT, "created_at": created_at}).status_code == 202

    answer = client.get("/events", params={"type": "user", "user_id": "314159", "summary": "true"})

    first = datetime.fromisoformat(answer.json()["events"][0]["first"])
    assert first == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=created_at)


@pytest.mark.parametrize(
    "body",
    [b"", b"event_name=a", b"[]", b'"text"', b"\xff", b"[" * 100_000, b'{"created_at": NaN}'],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/events", content=body, headers=DECLARED)
    assert (response.status_code, error_of(response)["code"]) == (400, "bad_request")


@pytest.mark.parametrize("path", ["/events", "/events/summaries"])
@pytest.mark.parametrize(
    "declared",
    [
        [],
        ["application/x-www-form-urlencoded"],
        ["text/plain; charset=utf-8"],
        ["text/json"],
        ["application/vnd.api+json"],
        ["application/json5"],
        ["application/jsonx"],
        ["json"],
        [""],
        ["application/json charset=utf-8"],
        ["application/json; charset"],
        ["application/json, text/plain"],
        ["application/json", "application/json"],
        ["application/json; charset=utf-8", "text/plain"],
        ["text/plain", "application/json; charset=utf-8"],
        ["application/json" + ";  " * 40 + ","],
    ],
)
def test_a_body_that_is_not_declared_as_json_is_refused(
    emulator: Emulator, client: httpx.Client, path: str, declared: list[str]
) -> None:
    headers = [("Content-Type", value) for value in declared]
    body = json.dumps(EVENT if path == "/events" else SUMMARY)

    response = client.post(path, content=body, headers=headers)

    error = error_of(response)
    assert (response.status_code, error["code"]) == (415, "media_type_not_acceptable")
    assert error["message"].startswith("The Content-Type header must be application/json")
    assert emulator.events == ()
    assert emulator.counts.refused == 1


@pytest.mark.parametrize(
    "declared",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json ; charset="utf-8"; a=b;',
        'application/json; profile="a, \\" b"',
    ],
)
def test_a_body_is_declared_as_json_in_any_case_and_with_any_parameters(
    client: httpx.Client, declared: str
) -> None:
    headers = {"Content-Type": declared}

    response = client.post("/events", content=json.dumps(EVENT), headers=headers)

    assert response.status_code == 202


@pytest.mark.parametrize("drive", DRIVERS.values(), ids=DRIVERS)
def test_a_body_must_be_declared_on_each_way_to_the_emulator(
    emulator: Emulator, drive: Drive
) -> None:
    declarations = [
        [],
        [("Content-Type", "application/x-www-form-urlencoded")],
        [("content-type", "application/json"), ("Content-Type", "application/json")],
        [("CONTENT-TYPE", "application/json;charset=utf-8")],
    ]
    body = json.dumps(EVENT).encode()

    met = drive(emulator, *(Ask(content=body, headers=headers) for headers in declarations))

    assert [one.status for one in met] == [415, 415, 415, 202]
    assert len(emulator.events) == 1


def test_what_is_asked_for_without_a_body_needs_no_declaration(client: httpx.Client) -> None:
    headers = {"Content-Type": "text/plain"}

    assert client.post("/events", headers=headers).status_code == 400
    assert client.post("/events", json=EVENT).status_code == 202
    question = {"type": "user", "user_id": "314159"}
    assert client.get("/events", params=question, headers=headers).status_code == 200


def test_a_number_too_large_for_a_float_is_no_metadata(client: httpx.Client) -> None:
    body = json.dumps({**EVENT, "metadata": {"load": 0}}).replace(": 0}", ": 1e999}")
    response = client.post("/events", content=body, headers=DECLARED)
    assert (response.status_code, error_of(response)["field"]) == (400, "load")


def test_a_body_of_more_than_a_mebibyte_is_refused(client: httpx.Client) -> None:
    assert client.post("/events", content=b" " * (1024 * 1024 + 1)).status_code == 413


def test_only_the_first_ten_metadata_keys_are_kept_and_looked_at(
    emulator: Emulator, client: httpx.Client
) -> None:
    metadata = {f"key{number}": number for number in (3, 1, 2, 9, 8, 7, 6, 5, 4, 0)}
    sent = {**EVENT, "metadata": {**metadata, "late": ["not", "allowed"]}}
    assert client.post("/events", json=sent).status_code == 202
    assert list(emulator.events[0].metadata) == list(metadata)


def test_a_duplicate_is_accepted_counted_and_not_stored(
    emulator: Emulator, client: httpx.Client
) -> None:
    first = client.post("/events", json={**EVENT, "event_name": "Order.Placed"})
    again = client.post("/events", json={**EVENT, "event_name": "order$placed", "metadata": {}})
    assert again.status_code == 202
    remaining = [int(answer.headers["X-RateLimit-Remaining"]) for answer in (first, again)]
    assert remaining[0] - remaining[1] == 1
    assert [event.event_name for event in emulator.events] == ["Order-Placed"]


@pytest.mark.parametrize(
    "change", [{"created_at": NOW + 1}, {"event_name": "paid-order"}, {"user_id": "271828"}]
)
def test_another_time_name_or_contact_makes_another_event(
    emulator: Emulator, client: httpx.Client, change: dict[str, Any]
) -> None:
    client.post("/events", json=EVENT)
    client.post("/events", json={**EVENT, **change})
    assert len(emulator.events) == 2


def test_a_workspace_has_120_event_names_however_they_are_spelled(client: httpx.Client) -> None:
    for number in range(120):
        created = client.post("/events", json={**EVENT, "event_name": f"name-{number}"})
        assert created.status_code == 202
    response = client.post("/events", json={**EVENT, "event_name": "one-too-many"})
    assert response.status_code == 422
    assert error_of(response)["message"] == "Cannot have more than 120 active event names"
    known = client.post("/events", json={**EVENT, "event_name": "NAME.7", "created_at": 1})
    assert known.status_code == 202


def test_an_event_with_several_identities_makes_one_contact_found_by_each(
    emulator: Emulator, client: httpx.Client
) -> None:
    client.post("/events", json={**EVENT, "email": "frodo@example.com", "id": "63a0979a"})
    expected = EmulatedContact(user_id="314159", email="frodo@example.com", id="63a0979a")
    assert emulator.workspace("token").contacts == (expected,)
    for query in (
        {"user_id": "314159"},
        {"email": expected.email},
        {"intercom_user_id": "63a0979a"},
    ):
        listed = client.get("/events", params={"type": "user", **query}).json()["events"]
        assert [event["event_name"] for event in listed] == ["placed-order"]


def test_a_later_event_adds_an_identity_that_its_contact_lacks(
    emulator: Emulator, client: httpx.Client
) -> None:
    lead = {"event_name": "signed-up", "created_at": NOW, "email": "frodo@example.com"}
    client.post("/events", json=lead)
    client.post("/events", json={**EVENT, "email": "frodo@example.com"})
    client.post("/events", json={**lead, "id": "63a0979a"})
    (contact,) = emulator.workspace("token").contacts
    assert (contact.user_id, contact.email) == ("314159", "frodo@example.com")
    assert len(emulator.events) == 2


def test_two_users_with_one_email_are_a_conflict_for_that_email_alone(client: httpx.Client) -> None:
    for user_id in ("1", "2"):
        created = client.post("/events", json={**EVENT, "user_id": user_id, "email": "a@b.co"})
        assert created.status_code == 202
    by_email = {"event_name": "placed-order", "created_at": NOW, "email": "a@b.co"}
    responses = [
        client.post("/events", json=by_email),
        client.get("/events", params={"type": "user", "email": "a@b.co"}),
    ]
    assert [response.status_code for response in responses] == [409, 409]
    assert {error_of(response)["code"] for response in responses} == {"conflict"}
    assert client.get("/events", params={"type": "user", "user_id": "1"}).status_code == 200


def test_where_contacts_are_known_beforehand_anybody_else_is_not_found(connect: Connect) -> None:
    emulator = Emulator(contacts=[EmulatedContact(user_id="314159", email="a@b.co")])
    client = connect(emulator)
    assert client.post("/events", json=EVENT).status_code == 202
    for stranger in ({"user_id": "271828"}, {"user_id": "271828", "email": "a@b.co"}):
        response = client.post("/events", json={**EVENT, "event_name": "unseen", **stranger})
        assert response.status_code == 404
        assert error_of(response)["code"] == "not_found"
        assert error_of(response)["message"] == "User Not Found"
    contact = emulator.add_contact(EmulatedContact(user_id="271828"))
    assert client.post("/events", json={**EVENT, "user_id": "271828"}).status_code == 202
    assert emulator.events[-1].intercom_user_id == contact.id


def test_nobody_is_known_where_no_contacts_are_given(connect: Connect) -> None:
    assert connect(Emulator(contacts=[])).post("/events", json=EVENT).status_code == 404


@pytest.mark.parametrize("contact", [EmulatedContact(user_id="1"), EmulatedContact(id="63a0")])
def test_two_known_contacts_cannot_share_an_identifier(contact: EmulatedContact) -> None:
    with pytest.raises(ValueError, match="user_id and id of a contact must be unique"):
        Emulator(contacts=[contact, contact])
