"""GET /events with summary=true, and POST /events/summaries that adds to it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from intercom_data_events.emulator import Emulator

from .conftest import NOW, Connect

SUMMARY: dict[str, Any] = {"event_name": "placed-order", "count": 3, "first": 100, "last": 200}


def summary_of(client: httpx.Client, user_id: str = "314159") -> dict[str, Any]:
    query = {"type": "user", "user_id": user_id, "summary": "true"}
    return dict(client.get("/events", params=query).raise_for_status().json())


def add(client: httpx.Client, summaries: object, user_id: object = "314159") -> httpx.Response:
    body = {"user_id": user_id, "event_summaries": summaries}
    return client.post("/events/summaries", json=body)


def test_a_summary_counts_every_event_however_old(client: httpx.Client) -> None:
    for created_at in (1389913941, NOW, NOW - 5):
        event = {"event_name": "placed-order", "created_at": created_at, "user_id": "314159"}
        client.post("/events", json={**event, "email": "a@b.co", "id": "63a0979a"})
    assert summary_of(client) == {
        "type": "event.summary",
        "events": [
            {
                "name": "placed-order",
                "first": "2014-01-16T23:12:21.000+00:00",
                "last": "2022-12-14T14:41:40.000+00:00",
                "count": 3,
                "description": "",
            }
        ],
        "pages": {},
        "email": "a@b.co",
        "intercom_user_id": "63a0979a",
        "user_id": "314159",
    }


def test_a_summary_does_not_count_duplicates(client: httpx.Client) -> None:
    for _ in range(2):
        event = {"event_name": "placed-order", "created_at": NOW, "user_id": "314159"}
        client.post("/events", json=event)
    assert summary_of(client)["events"][0]["count"] == 1


def test_sent_summaries_add_to_the_count_and_widen_the_times(
    emulator: Emulator, client: httpx.Client
) -> None:
    event = {"event_name": "placed-order", "created_at": 150, "user_id": "314159"}
    client.post("/events", json=event)
    for times in ((100, 120), (170, 200)):
        sent = {**SUMMARY, "event_name": "Placed.Order", "first": times[0], "last": times[1]}
        response = add(client, sent)
        assert (response.status_code, response.content) == (200, b"")
    (item,) = summary_of(client)["events"]
    assert (item["name"], item["count"]) == ("placed-order", 7)
    assert item["first"] == "1970-01-01T00:01:40.000+00:00"
    assert item["last"] == "1970-01-01T00:03:20.000+00:00"
    assert len(emulator.events) == 1


def test_several_summaries_can_be_sent_at_once_and_create_their_contact(
    client: httpx.Client,
) -> None:
    assert add(client, [SUMMARY, {**SUMMARY, "event_name": "paid"}, SUMMARY]).status_code == 200
    counts = {item["name"]: item["count"] for item in summary_of(client)["events"]}
    assert counts == {"placed-order": 6, "paid": 3}


@pytest.mark.parametrize(
    ("summaries", "user_id", "field"),
    [
        (SUMMARY, None, "user_id"),
        (None, "1", "event_summaries"),
        ([], "1", "event_summaries"),
        ("placed-order", "1", "event_summaries"),
        ({**SUMMARY, "event_name": None}, "1", "event_name"),
        ({**SUMMARY, "count": None}, "1", "count"),
        ({**SUMMARY, "count": 0}, "1", "count"),
        ({**SUMMARY, "count": True}, "1", "count"),
        ({**SUMMARY, "first": None}, "1", "first"),
        ({**SUMMARY, "last": NOW * 1000}, "1", "last"),
        ({**SUMMARY, "first": 201}, "1", "last"),
        ([SUMMARY, {**SUMMARY, "count": -1}], "1", "count"),
    ],
)
def test_a_summary_that_makes_no_sense_is_refused_and_counts_nothing(
    emulator: Emulator, client: httpx.Client, summaries: object, user_id: object, field: str
) -> None:
    response = add(client, summaries, user_id)
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field
    assert emulator.workspace("token").contacts == ()


def test_summaries_of_too_many_names_count_none_of_them(client: httpx.Client) -> None:
    assert add(client, SUMMARY).status_code == 200
    many = [{**SUMMARY, "event_name": f"name-{number}"} for number in range(120)]
    assert add(client, many).status_code == 422
    assert [item["name"] for item in summary_of(client)["events"]] == ["placed-order"]


def test_summaries_of_a_stranger_are_not_found_where_contacts_are_known(connect: Connect) -> None:
    assert add(connect(Emulator(contacts=[])), SUMMARY).status_code == 404
