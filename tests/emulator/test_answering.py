"""What holds for every answer, and what a test can ask the emulator afterwards."""

from __future__ import annotations

import math
import threading
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest

from intercom_data_events.emulator import EmulatedContact, Emulator
from intercom_data_events_api import API_VERSION

from .conftest import NOW, ORIGIN, Connect

EVENT = {"event_name": "placed-order", "created_at": NOW, "user_id": "314159"}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Basic dG9rZW4="}],
    ids=["none", "empty", "no token", "another scheme"],
)
def test_without_a_bearer_token_nothing_is_answered(
    emulator: Emulator, headers: dict[str, str]
) -> None:
    with httpx.Client(transport=emulator.transport(), headers=headers) as client:
        response = client.post(f"{ORIGIN}/events", json=EVENT)
    assert response.status_code == 401
    assert response.json() == {
        "type": "error.list",
        "request_id": response.headers["X-Request-Id"],
        "errors": [{"code": "unauthorized", "message": "Access Token Invalid"}],
    }
    assert "X-RateLimit-Limit" not in response.headers


def test_only_the_tokens_given_are_accepted(connect: Connect) -> None:
    emulator = Emulator(tokens={"good"})
    assert connect(emulator, "good").post("/events", json=EVENT).status_code == 202
    assert connect(emulator, "bad").post("/events", json=EVENT).status_code == 401


def test_each_token_is_a_workspace_of_its_own(emulator: Emulator, connect: Connect) -> None:
    connect(emulator, "one").post("/events", json=EVENT)
    query = {"type": "user", "user_id": "314159"}
    assert connect(emulator, "two").get("/events", params=query).status_code == 404
    assert len(emulator.workspace("one").events) == len(emulator.events) == 1
    assert emulator.workspace("two").events == ()


@pytest.mark.parametrize("version", ["1.0", API_VERSION, "Preview", "Unstable"])
def test_an_accepted_version_is_echoed(client: httpx.Client, version: str) -> None:
    response = client.post("/events", json=EVENT, headers={"Intercom-Version": version})
    assert response.status_code == 202
    assert response.headers["Intercom-Version"] == version


def test_without_a_version_the_apps_own_is_used(connect: Connect) -> None:
    response = connect(Emulator(version="2.14")).post("/events", json=EVENT)
    assert response.headers["Intercom-Version"] == "2.14"


def test_an_unknown_version_is_refused(emulator: Emulator, client: httpx.Client) -> None:
    response = client.post("/events", json=EVENT, headers={"Intercom-Version": "2.99"})
    assert response.status_code == 400
    assert response.json()["errors"][0]["code"] == "intercom_version_invalid"
    assert emulator.events == ()


def test_every_answer_has_an_id_of_its_own_and_a_date(client: httpx.Client) -> None:
    answers = [client.post("/events", json=EVENT), client.get("/events"), client.get("/nowhere")]
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3
    assert {answer.headers["Date"] for answer in answers} == {"Wed, 14 Dec 2022 14:41:40 GMT"}


def test_the_rate_limit_is_reported_by_window_and_enforced(connect: Connect) -> None:
    emulator = Emulator(clock=lambda: 105.0, rate_limit=2)

    def limits(client: httpx.Client, created_at: int) -> list[str]:
        response = client.post("/events", json={**EVENT, "created_at": created_at})
        limits = [
            response.headers[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")
        ]
        return [str(response.status_code), *limits]

    client = connect(emulator)
    assert [limits(client, second) for second in range(4)] == [
        ["202", "2", "1", "110"],
        ["202", "2", "0", "110"],
        ["429", "2", "0", "110"],
        ["429", "2", "0", "110"],
    ]
    assert [event.created_at for event in emulator.events] == [0, 1]
    assert limits(connect(emulator, "another"), 4) == ["202", "2", "1", "110"]
    emulator.advance(5)
    assert limits(client, 5) == ["202", "2", "1", "120"]


def test_a_request_beyond_the_rate_limit_is_refused_as_documented(connect: Connect) -> None:
    client = connect(Emulator(clock=lambda: 105.0, rate_limit=2))
    # Also those that are refused for something else use the limit up.
    assert client.post("/events", json={}).status_code == 400
    assert client.get("/nowhere").status_code == 404
    refused = client.post("/events", json=EVENT)
    assert refused.status_code == 429
    assert refused.json() == {
        "type": "error.list",
        "request_id": refused.headers["X-Request-Id"],
        "errors": [
            {
                "code": "rate_limit_exceeded",
                "message": "Exceeded rate limit of 2 in 10_seconds",
            }
        ],
    }


def test_without_a_rate_limit_there_is_no_word_of_one(connect: Connect) -> None:
    emulator = Emulator(clock=lambda: 105.0, rate_limit=None)
    client = connect(emulator)
    answers = [client.post("/events", json=EVENT) for _ in range(2000)]
    assert {answer.status_code for answer in answers} == {202}
    assert not [name for name in answers[0].headers if name.startswith("x-ratelimit")]
    assert emulator.counts.limited == 0


def test_another_path_is_not_found_and_another_method_not_allowed(client: httpx.Client) -> None:
    assert client.get("/contacts").status_code == 404
    assert client.get("/events/").status_code == 404
    deleted = client.delete("/events")
    assert (deleted.status_code, deleted.headers["Allow"]) == (405, "GET, POST")
    assert client.get("/events/summaries").status_code == 405
    head = client.head("/events")
    assert (head.status_code, head.content) == (405, b"")


def test_requests_are_recorded_in_order_those_refused_among_them(
    emulator: Emulator, client: httpx.Client
) -> None:
    client.post("/events", json=EVENT)
    client.get("/events", params={"type": "user", "email": "a+b@c.co"})
    client.post("/events", content=b"no json", headers={"Authorization": "none"})
    created, asked, refused = emulator.requests
    assert (created.method, created.path, created.json) == ("POST", "/events", EVENT)
    assert (asked.method, asked.query["email"]) == ("GET", "a+b@c.co")
    assert (refused.body, refused.json) == (b"no json", None)
    assert created.headers["Authorization"] == "Bearer token"
    assert "token" not in repr(created)


def test_requests_are_not_recorded_where_that_is_not_wanted(connect: Connect) -> None:
    emulator = Emulator(record=False)
    connect(emulator).post("/events", json=EVENT)
    assert emulator.requests == ()
    assert len(emulator.events) == 1


def test_clearing_keeps_the_known_contacts_alone(connect: Connect) -> None:
    emulator = Emulator(contacts=[EmulatedContact(user_id="314159")])
    client = connect(emulator)
    client.post("/events", json=EVENT)
    emulator.clear()
    assert (emulator.events, emulator.requests) == ((), ())
    assert client.post("/events", json=EVENT).status_code == 202
    assert len(emulator.events) == 1


def test_what_a_test_does_to_an_event_does_not_reach_the_emulator(
    emulator: Emulator, client: httpx.Client
) -> None:
    client.post("/events", json={**EVENT, "metadata": {"invite_code": "ADDAFRIEND"}})
    metadata = emulator.events[0].metadata
    assert isinstance(metadata, dict)
    metadata.clear()
    assert emulator.events[0].metadata == {"invite_code": "ADDAFRIEND"}


def test_two_runs_give_the_same_answers(connect: Connect) -> None:
    def run() -> list[tuple[list[tuple[str, str]], bytes]]:
        client = connect(Emulator(clock=lambda: float(NOW)))
        query = {"type": "user", "user_id": "314159"}
        answers = [
            client.post("/events", json=EVENT),
            client.get("/events", params=query),
            client.get("/events"),
        ]
        return [(answer.headers.multi_items(), answer.content) for answer in answers]

    assert run() == run()


def test_threads_that_create_at_once_lose_nothing(emulator: Emulator, connect: Connect) -> None:
    client = connect(emulator)

    def create(start: int) -> None:
        for second in range(start, start + 50):
            client.post("/events", json={**EVENT, "created_at": second})

    threads = [threading.Thread(target=create, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(emulator.events) == len({event.id for event in emulator.events}) == 400


@pytest.mark.anyio
async def test_one_transport_serves_sync_and_async_clients(emulator: Emulator) -> None:
    transport = emulator.transport()
    headers = {"Authorization": "Bearer token"}
    client = httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers)

    async def create(second: int) -> None:
        await client.post("/events", json={**EVENT, "created_at": second})

    async with client, anyio.create_task_group() as tasks:
        for second in range(NOW, NOW + 10):
            tasks.start_soon(create, second)
    assert count_listed(transport) == 10


def count_listed(transport: httpx.BaseTransport) -> int:
    headers = {"Authorization": "Bearer token"}
    with httpx.Client(transport=transport, base_url=ORIGIN, headers=headers) as client:
        listed = client.get("/events", params={"type": "user", "user_id": "314159"})
    return len(listed.json()["events"])


@pytest.mark.anyio
async def test_a_body_from_an_async_iterable_is_read(emulator: Emulator) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"event_name": "placed-order", "user_id": "1", '
        yield b'"created_at": 1671028894}'

    async with httpx.AsyncClient(transport=emulator.transport()) as client:
        headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
        response = await client.post(f"{ORIGIN}/events", content=body(), headers=headers)
    assert response.status_code == 202


@pytest.mark.parametrize("rate_limit", [0, -1])
def test_a_rate_limit_is_positive(rate_limit: int) -> None:
    with pytest.raises(ValueError, match="rate_limit must be at least 1, not "):
        Emulator(rate_limit=rate_limit)


@pytest.mark.parametrize("window", [0.0, -10.0, math.inf, math.nan])
def test_a_window_is_positive_and_ends(window: float) -> None:
    with pytest.raises(ValueError, match="window must be greater than 0 and finite, not "):
        Emulator(window=window)
