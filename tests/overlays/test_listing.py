"""Listings go from page to page by the query alone, to the end, and never in a circle."""

from __future__ import annotations

import re

import httpx
import pytest
from callers import every_driver

from intercom_data_events import (
    Event,
    IdentityError,
    IntercomError,
    InvalidInputError,
    InvalidResponseError,
    NotFoundError,
    PaginationError,
)

NOW = 1_671_028_900
HERE = "https://api.intercom.io/events"


@pytest.fixture
def history(call, emulator):
    """Seven events of one contact, the newest last."""

    def send(client, number):
        return client.create(
            "invited-friend",
            user_id="314159",
            created_at=NOW - 100 + number,
            metadata={"number": number},
        )

    for number in range(7):
        call(lambda client, number=number: send(client, number))


def numbers(events):
    return [event.metadata["number"] for event in events]


def page(*names, next_page=None, since=None):
    return httpx.Response(
        200,
        json={
            "type": "event.list",
            "events": [{"event_name": name, "created_at": 1671028894} for name in names],
            "pages": {"next": next_page, "since": since},
        },
    )


@pytest.mark.parametrize(
    "identity", [{"user_id": "314159"}, {"email": "a+b@example.org"}, {"id": "63a0"}]
)
def test_a_person_can_be_found_by_any_identity(call, identity):
    call(lambda client: client.send(Event("invited-friend", created_at=NOW, **identity)))
    asked = {"intercom_user_id": "63a0"} if "id" in identity else identity

    assert len(call(lambda client: client.list(**asked))) == 1


@pytest.mark.parametrize("verb", ["list", "summary"])
@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({}, "not none"),
        ({"user_id": "1", "email": "a@b.co"}, "not user_id and email"),
        ({"user_id": ""}, "empty"),
        ({"user_id": 1}, "'1'"),
    ],
)
def test_a_query_is_about_exactly_one_person(call, emulator, verb, identity, said):
    with pytest.raises(IdentityError, match=said):
        call(lambda client: getattr(client, verb)(**identity))

    assert emulator.requests == ()


@pytest.mark.parametrize("size", [0, -1, True, "15", 1.5])
def test_a_page_holds_at_least_one_event(call, size):
    with pytest.raises(InvalidInputError, match="per_page"):
        call(lambda client: client.list(user_id="1", per_page=size))


def test_an_unknown_person_is_an_error_when_iterating(call):
    with pytest.raises(NotFoundError, match="User Not Found"):
        call(lambda client: client.list(user_id="nobody"))


def test_the_since_cursor_lists_what_is_newer(call, history):
    (first, *_) = call(lambda client: client.list(user_id="314159").pages())
    call(
        lambda client: client.create(
            "invited-friend", user_id="314159", created_at=NOW, metadata={"number": 7}
        )
    )

    assert numbers(call(lambda client: client.list(since=first.since))) == [7]
    assert numbers(call(lambda client: client.list(user_id="314159", since=first.since))) == [7]
    assert numbers(call(lambda client: client.contact(user_id="314159").list(since=first.since))) \
        == [7]  # fmt: skip


@pytest.mark.parametrize("cursor", ["", "yesterday", "type=user&user_id=1", HERE, 5, "since"])
def test_a_since_cursor_comes_from_a_page(call, emulator, cursor):
    with pytest.raises(InvalidInputError, match=r"page\.since"):
        call(lambda client: client.list(since=cursor))

    assert emulator.requests == ()


def test_a_since_cursor_can_be_the_whole_address_as_the_api_gives_it(answering):
    call, transport = answering(page())

    call(lambda client: client.list(since=f"{HERE}?user_id=1&type=user&since=5"))

    assert str(transport.requests[0].url) == f"{HERE}?user_id=1&type=user&since=5"


def test_a_since_cursor_of_somebody_else_is_refused(call):
    with pytest.raises(IdentityError, match="'2'"):
        call(lambda client: client.list(user_id="2", since="user_id=1&type=user&since=5"))


@pytest.mark.parametrize("cursor", ["since=1", "type=user&since=1", f"{HERE}?since=1&x=%2B"])
@pytest.mark.parametrize(
    "identity", [{"user_id": "1"}, {"email": "a+b@example.org"}, {"intercom_user_id": "63a0"}]
)
def test_a_since_cursor_that_names_no_contact_is_of_the_one_that_is_passed(
    answering, cursor, identity
):
    call, transport = answering(page("a"))

    assert len(call(lambda client: client.list(**identity, since=cursor))) == 1
    assert dict(transport.requests[0].url.params) == {
        "type": "user",
        "since": "1",
        **identity,
        **({"x": "+"} if "x=" in cursor else {}),
    }


def test_a_since_cursor_of_a_page_is_handed_back_as_it_came(answering):
    call, transport = answering(page("a", since=f"{HERE}?since=5"), page("b"))

    def use(client):
        (first,) = yield client.list(user_id="1").pages()
        return (yield client.contact(user_id="1").list(since=first.since, limit=1))

    assert [event.event_name for event in call.steps(use)] == ["b"]
    assert dict(transport.requests[1].url.params) == {"type": "user", "user_id": "1", "since": "5"}


def test_an_address_of_other_case_is_that_of_a_since_cursor(answering):
    call, transport = answering(page())

    call(lambda client: client.list(email="A@b.co", since="email=a@b.co&since=5"))

    assert transport.requests[0].url.params.get_list("email") == ["a@b.co"]


@pytest.mark.parametrize("cursor", ["since=1", "type=user&since=1"])
def test_a_since_cursor_that_names_no_contact_needs_one(call, emulator, cursor):
    with pytest.raises(IdentityError, match="pass user_id, email or intercom_user_id"):
        call(lambda client: client.list(since=cursor))

    assert emulator.requests == ()


@pytest.mark.parametrize(
    "since", [f"user_id={'1' * 5000}&since=5", f"user_id=1&since={'5' * 70_000}"]
)
def test_a_long_since_cursor_that_is_refused_makes_a_short_message(call, since):
    with pytest.raises(InvalidInputError, match="cursor") as caught:
        call(lambda client: client.list(since=since, user_id="2"))

    assert len(str(caught.value)) < 300


def test_a_listing_that_never_ends_and_never_has_an_event_is_an_error(answering):
    answers = [page(next_page=f"{HERE}?before={number}") for number in range(200)]
    call, transport = answering(*answers)

    with pytest.raises(PaginationError, match="100 pages in a row have no events"):
        call(lambda client: client.list(user_id="1"))

    assert len(transport.requests) == 100


def test_unknown_fields_of_a_page_are_kept(answering):
    call, _ = answering(httpx.Response(200, json={"events": [], "total_count": 7}))

    (found,) = call(lambda client: client.list(user_id="1").pages())

    assert found.additional_properties == {"total_count": 7}


@pytest.mark.parametrize(
    ("cursor", "sent"),
    [("user_id=1&since=5", "7"), ("user_id=1&since=5&per_page=7", "7")],
)
def test_a_page_size_completes_a_since_cursor_or_is_the_same(answering, cursor, sent):
    call, transport = answering(page())

    call(lambda client: client.list(since=cursor, per_page=7))

    assert transport.requests[0].url.params["per_page"] == sent
    assert transport.requests[0].url.params.get_list("user_id") == ["1"]


@pytest.mark.parametrize("link", ["email=frodo@example.com&since=5", "EMAIL=frodo%40example.com"])
def test_a_message_about_a_cursor_or_a_next_page_has_no_whole_address(answering, link):
    call, _ = answering(page("a", next_page=f"{HERE}?{link}&a={'b' * 70_000}"))
    messages = []
    for asked in (
        lambda client: client.list(since=link, email="sam@example.org"),
        lambda client: client.list(since=link.replace("since", "before"), user_id="1"),
        lambda client: client.list(user_id="1"),
    ):
        with pytest.raises(IntercomError) as caught:
            call(lambda client, asked=asked: list(asked(client)))
        messages.append(str(caught.value))

    assert all("email" in message.lower() for message in messages)
    assert not [one for one in messages if re.search("frodo|sam", one)]
    if "since" in link:
        assert "must match the cursor's, 'f…@example.com', not 's…@example.org'" in messages[0]


def test_a_page_size_other_than_that_of_a_since_cursor_is_refused(call, emulator):
    with pytest.raises(InvalidInputError, match="per_page must match the cursor's, '50', not 5"):
        call(lambda client: client.list(since="user_id=1&since=5&per_page=50", per_page=5))

    assert emulator.requests == ()


@pytest.mark.parametrize(
    ("link", "asked"),
    [
        (f"{HERE}?per_page=2&before=1389913941064&type=user", None),
        ("https://evil.example/steal?per_page=2&before=5", f"{HERE}?per_page=2&before=5"),
        ("http://api.intercom.test/events?next page", f"{HERE}?next%20page"),
        ("//evil.example?before=5", f"{HERE}?before=5"),
        ("?before=5", f"{HERE}?before=5"),
        ("https://user:pass@evil.example/events?before=5#top", f"{HERE}?before=5"),
        (f"{HERE}?email=a%2Bb%40example.org&before=5", None),
        (f"{HERE}?name=zo\u00eb&before=5", f"{HERE}?name=zo%C3%AB&before=5"),
        (f'{HERE}?before=5&type=user"', f"{HERE}?before=5&type=user%22"),
        (f"{HERE}?before=a%20b+c%2Fd&x=/?", None),
    ],
)
def test_only_the_query_of_a_next_link_is_used_and_whole(answering, link, asked):
    call, transport = answering(page("a", next_page=link), page("b"))

    events = call(lambda client: client.list(user_id="314159"))

    assert [event.event_name for event in events] == ["a", "b"]
    request = transport.requests[1]
    assert str(request.url) == (asked or link)
    assert request.headers["authorization"] == "Bearer token"
    assert request.url.host == "api.intercom.io"


def test_the_clients_own_address_is_used_for_every_page(answering):
    call, transport = answering(page("a", next_page=f"{HERE}?before=5"), page("b"))

    call(lambda client: client.list(user_id="1"), base_url="https://proxy.example/intercom/")

    assert [str(request.url.copy_with(query=None)) for request in transport.requests] == [
        "https://proxy.example/intercom/events"
    ] * 2


@pytest.mark.parametrize(
    "links",
    [
        [f"{HERE}?before=5", f"{HERE}?before=5"],
        [f"{HERE}?before=5", f"{HERE}?before=4", "https://other.example/?before=5"],
        [f"{HERE}?type=user&user_id=1"],
        [f"{HERE}?user_id=1&type=user"],
    ],
    ids=["itself", "in a circle", "the first page", "the first page, turned round"],
)
def test_a_listing_in_a_circle_ends_in_an_error_after_all_its_pages(answering, links):
    call, transport = answering(*(page(str(n), next_page=link) for n, link in enumerate(links)))

    with pytest.raises(PaginationError, match="the listing loops: page ") as caught:
        call(lambda client: client.list(user_id="1"))

    assert len(transport.requests) == len(links)
    assert caught.value.response.status_code == 200


@pytest.mark.parametrize("link", [f"{HERE}", "https://evil.example/events", 5, ["a"], {"a": 1}])
def test_a_next_link_without_a_query_is_an_error_that_holds_the_answer(answering, link):
    call, _ = answering(page("a", next_page=link))

    with pytest.raises(InvalidResponseError, match="must be a URL with a valid query,") as caught:
        call(lambda client: client.list(user_id="1"))

    assert b"event.list" in caught.value.response.content
    assert not caught.value.may_have_been_processed


@pytest.mark.parametrize("pages", [None, {}, {"next": None}, {"next": ""}, {"next": None, "x": 1}])
def test_a_listing_ends_where_there_is_no_next_page(answering, pages):
    call, _ = answering(httpx.Response(200, json={"events": [], "pages": pages}))

    assert call(lambda client: client.list(user_id="1")) == []


# The first event, and so many at most.


@every_driver
def test_the_first_event_is_the_newest_and_needs_one_request(call, history, emulator):
    before = len(emulator.requests)

    first = call(lambda client: client.list(user_id="314159", per_page=2).first())

    assert first.metadata["number"] == 6
    assert len(emulator.requests) == before + 1


@every_driver
def test_the_first_event_of_none_is_none(answering):
    call, _ = answering(page(next_page=f"{HERE}?before=5"), page())

    assert call(lambda client: client.list(user_id="1").first()) is None


@pytest.mark.parametrize(
    ("limit", "requests"), [(1, 1), (2, 1), (3, 2), (4, 2), (6, 3), (7, 4), (8, 4), (1000, 4)]
)
def test_a_limit_requests_no_page_more_than_it_needs(call, history, emulator, limit, requests):
    before = len(emulator.requests)

    found = call(lambda client: client.list(user_id="314159", per_page=2, limit=limit))

    assert numbers(found) == [6, 5, 4, 3, 2, 1, 0][:limit]
    assert len(emulator.requests) == before + requests


@every_driver
def test_a_limit_holds_for_pages_contacts_and_raw_clients(call, history):
    pages = call(lambda client: client.contact(user_id="314159").list(per_page=2, limit=3).pages())
    raw = call(lambda client: client.with_raw_response.list(user_id="314159", limit=3))

    assert [numbers(page.events) for page in pages] == [[6, 5], [4]]
    assert numbers(raw.parsed.events) == [6, 5, 4]


def test_a_limit_holds_for_each_iteration(call, history):
    def use(client):
        listing = client.list(user_id="314159", limit=2)
        first = yield listing
        return numbers(first), numbers((yield listing))

    assert call.steps(use) == ([6, 5], [6, 5])


@pytest.mark.parametrize("limit", [0, -1, True, "15", 1.5])
def test_a_limit_is_at_least_one_event(call, emulator, limit):
    with pytest.raises(InvalidInputError, match="limit must be an integer of at least 1"):
        call(lambda client: client.list(user_id="1", limit=limit))

    assert emulator.requests == ()


# What a listing looks like.


@every_driver
def test_what_is_listed_says_what_it_is_and_not_whose(call, history):
    listing = []
    call(lambda client: listing.append(client.list(email="a@b.co", limit=5)))
    (page,) = call(lambda client: client.list(user_id="314159").pages())
    first, *_ = call(lambda client: client.list(user_id="314159", per_page=2).pages())

    assert repr(listing[0]) in (
        "<EventList: events of a contact, at most 5; request them with 'for'>",
        "<AsyncEventList: events of a contact, at most 5; request them with 'async for'>",
    )
    assert repr(page) == "<Page: 7 events, the last page>"
    assert repr(first) == "<Page: 2 events, not the last page>"


@every_driver
def test_a_contact_shows_its_one_identity(call):
    shown = []
    call(lambda client: shown.append(repr(client.contact(email="a@b.co"))))

    assert shown[0].removeprefix("Async") == "Contact(email='a@b.co')"


@every_driver
def test_a_summary_iterates_over_its_event_names(call, history):
    found = call(lambda client: client.summary(user_id="314159"))

    assert [(item.name, item.count) for item in found] == [("invited-friend", 7)]
    assert len(found) == 1
