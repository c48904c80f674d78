"""GET /events as a list: whose events, which of them, in which pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from intercom_data_events.emulator import Emulator
from profiles import scaled

from .conftest import NOW, ORIGIN, Connect

DAY = 24 * 60 * 60


def create(client: httpx.Client, name: str, created_at: int = NOW, **identity: str) -> None:
    event = {"event_name": name, "created_at": created_at, **(identity or {"user_id": "314159"})}
    assert client.post("/events", json=event).status_code == 202


def ask(client: httpx.Client, **query: Any) -> httpx.Response:
    return client.get("/events", params={"type": "user", "user_id": "314159", **query})


def pages(client: httpx.Client, url: str | None) -> Iterator[dict[str, Any]]:
    while url is not None:
        page = client.get(url).raise_for_status().json()
        yield page
        url = page["pages"].get("next")


def names(document: dict[str, Any]) -> list[str]:
    return [event["event_name"] for event in document["events"]]


def test_an_event_is_listed_in_the_documented_shape(client: httpx.Client) -> None:
    event = {
        "event_name": "invited-friend",
        "created_at": NOW,
        "user_id": "314159",
        "id": "63a0979a5eeebeaf28dd56ba",
        "email": "frodo.baggins@example.com",
        "metadata": {"invite_code": "ADDAFRIEND"},
    }
    client.post("/events", json=event)
    response = ask(client)
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    document = response.json()
    (listed,) = document["events"]
    assert document["type"] == "event.list"
    assert str(UUID(listed.pop("id"))) == "00000001-0000-4000-8000-000000000000"
    contact = {"type": "event", "intercom_user_id": event.pop("id")}
    assert listed == {**event, **contact}


def test_a_lead_is_listed_by_its_intercom_id_without_the_identities_it_lacks(
    client: httpx.Client,
) -> None:
    create(client, "visited", id="63a0979a")
    query = {"type": "user", "intercom_user_id": "63a0979a"}
    (event,) = client.get("/events", params=query).json()["events"]
    assert not {"user_id", "email"} & event.keys()


def test_the_newest_come_first_and_of_one_second_the_last_to_arrive(client: httpx.Client) -> None:
    for name, created_at in [("b", NOW - 1), ("c", NOW - 1), ("a", NOW - 2), ("d", NOW)]:
        create(client, name, created_at)
    assert names(ask(client).json()) == ["d", "c", "b", "a"]


def test_events_can_be_listed_for_less_than_90_days(
    emulator: Emulator, client: httpx.Client
) -> None:
    create(client, "older", NOW - 90 * DAY)
    create(client, "younger", NOW - 90 * DAY + 1)
    assert names(ask(client).json()) == ["younger"]
    emulator.advance(1)
    assert names(ask(client).json()) == []


def test_a_page_has_15_events_unless_the_request_says_otherwise(client: httpx.Client) -> None:
    for second in range(20):
        create(client, "visited", NOW - second)
    assert len(ask(client).json()["events"]) == 15
    assert len(ask(client, per_page=3).json()["events"]) == 3
    assert len(ask(client, per_page=50).json()["events"]) == 20


def test_links_have_the_documented_parameters_on_the_host_asked(client: httpx.Client) -> None:
    for second in range(3):
        create(client, "visited", NOW - second, email="a+b@c.co")
    query = {"type": "user", "email": "a+b@c.co", "per_page": "2"}
    links = client.get("https://api.eu.intercom.io/events", params=query).json()["pages"]
    following, since = httpx.URL(links["next"]), httpx.URL(links["since"])
    assert following.host == since.host == "api.eu.intercom.io"
    assert [*following.params] == ["per_page", "before", "email", "type"]
    assert [*since.params] == ["since", "email", "type"]
    assert following.params["before"].isdecimal()
    assert since.params["since"].isdecimal()
    assert following.params["email"] == "a+b@c.co"


def test_the_last_page_has_no_next(client: httpx.Client) -> None:
    create(client, "visited")
    assert ask(client, per_page=1).json()["pages"].keys() == {"since"}


def test_since_gives_what_arrived_later_whatever_its_time(client: httpx.Client) -> None:
    create(client, "seen")
    since = ask(client).json()["pages"]["since"]
    assert names(client.get(since).json()) == []
    create(client, "newer", NOW + 1)
    create(client, "belated", NOW - DAY)
    document = client.get(since).json()
    assert names(document) == ["newer", "belated"]
    assert names(client.get(document["pages"]["since"]).json()) == []


def test_pages_of_what_is_new_end_where_the_new_ends(client: httpx.Client) -> None:
    create(client, "seen")
    since = httpx.URL(ask(client).json()["pages"]["since"])
    for number in range(5):
        create(client, f"new-{number}", NOW + number)
    url = str(since.copy_set_param("per_page", 2))
    listed = [name for page in pages(client, url) for name in names(page)]
    assert listed == ["new-4", "new-3", "new-2", "new-1", "new-0"]


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"user_id": "1"}, "parameter_not_found", "type"),
        ({"type": "lead", "user_id": "1"}, "parameter_invalid", "type"),
        ({"type": "user"}, "parameter_not_found", "user_id"),
        ({"type": "user", "filter": "{'user_id': '1'}"}, "parameter_not_found", "user_id"),
        ({"type": "user", "user_id": ""}, "parameter_invalid", "user_id"),
        ({"type": "user", "user_id": "1", "email": "a@b.co"}, "parameter_invalid", "email"),
        ({"type": "user", "user_id": ["1", "2"]}, "parameter_invalid", "user_id"),
        ({"type": "user", "user_id": "1", "per_page": "0"}, "parameter_invalid", "per_page"),
        ({"type": "user", "user_id": "1", "per_page": "-1"}, "parameter_invalid", "per_page"),
        ({"type": "user", "user_id": "1", "per_page": "many"}, "parameter_invalid", "per_page"),
        ({"type": "user", "user_id": "1", "per_page": "9" * 5000}, "parameter_invalid", "per_page"),
        ({"type": "user", "user_id": "1", "summary": "yes"}, "parameter_invalid", "summary"),
        ({"type": "user", "user_id": "1", "before": "x"}, "parameter_invalid", "before"),
        (
            {"type": "user", "user_id": "1", "before": "1389913941064"},
            "parameter_invalid",
            "before",
        ),
        ({"type": "user", "user_id": "1", "since": "1389913941065"}, "parameter_invalid", "since"),
    ],
)
def test_a_question_that_the_documentation_rules_out_is_refused_by_field(
    client: httpx.Client, query: dict[str, Any], code: str, field: str
) -> None:
    create(client, "visited", user_id="1")
    response = client.get("/events", params=query)
    assert response.status_code == 400
    (error,) = response.json()["errors"]
    assert (error["code"], error["field"]) == (code, field)


@pytest.mark.parametrize("summary", ["true", "false"])
def test_asking_creates_nobody(client: httpx.Client, summary: str) -> None:
    for _ in range(2):
        response = ask(client, summary=summary)
        assert response.status_code == 404
        assert response.json()["errors"][0]["message"] == "User Not Found"


def test_hundreds_of_events_of_one_second_are_each_listed_once(connect: Connect) -> None:
    client = connect(Emulator(clock=lambda: float(NOW)))
    for number in range(300):
        create(client, f"name-{number % 100}", NOW - number // 100)
    listed = [
        (event["created_at"], event["event_name"])
        for page in pages(client, f"{ORIGIN}/events?type=user&user_id=314159&per_page=7")
        for event in page["events"]
    ]
    assert len(set(listed)) == len(listed) == 300
    assert [second for second, _ in listed] == sorted((s for s, _ in listed), reverse=True)


class Listing(RuleBasedStateMachine):
    """Events arrive, in any order of their times, while somebody pages and comes back for more.

    Whatever happens, one traversal gives each event that was there at its start once and newest
    first, and the traversals that each go on from the one before give every event once.
    """

    def __init__(self) -> None:
        super().__init__()
        emulator = Emulator(clock=lambda: float(NOW))
        self.client = httpx.Client(
            transport=emulator.transport(),
            base_url=ORIGIN,
            headers={"Authorization": "Bearer token"},
        )
        self.stored: set[str] = set()
        self.collected: list[str] = []
        self.expected: set[str] = set()
        self.traversal: list[tuple[int, str]] = []
        self.start: str = f"{ORIGIN}/events?type=user&user_id=314159"
        self.following: str | None = None
        self.create("visited", 0)

    @rule(name=st.sampled_from(["visited", "ordered", "paid", "left"]), age=st.integers(0, 3))
    def create(self, name: str, age: int) -> None:
        create(self.client, name, NOW - age)
        self.stored.add(f"{name} {NOW - age}")

    @precondition(lambda self: self.following is None)
    @rule(size=st.integers(1, 5))
    def begin(self, size: int) -> None:
        self.traversal = []
        self.expected = self.stored - set(self.collected)
        url = str(httpx.URL(self.start).copy_set_param("per_page", size))
        self.read(url)

    @precondition(lambda self: self.following is not None)
    @rule()
    def go_on(self) -> None:
        assert self.following is not None
        self.read(self.following)

    def read(self, url: str) -> None:
        page = self.client.get(url).raise_for_status().json()
        self.traversal += [(event["created_at"], event["event_name"]) for event in page["events"]]
        self.following = page["pages"].get("next")
        if self.following is None:
            given = [f"{name} {created_at}" for created_at, name in self.traversal]
            assert sorted(given) == sorted(self.expected)
            self.collected += given
            self.start = page["pages"]["since"]

    @invariant()
    def newest_come_first(self) -> None:
        seconds = [created_at for created_at, _ in self.traversal]
        assert seconds == sorted(seconds, reverse=True)

    def teardown(self) -> None:
        while self.following is not None:
            self.read(self.following)
        self.begin(3)
        while self.following is not None:
            self.read(self.following)
        assert sorted(self.collected) == sorted(self.stored)
        self.client.close()


TestListing = Listing.TestCase
TestListing.settings = settings(max_examples=scaled(60))
