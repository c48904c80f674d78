"""Views of a client, contacts, imported summaries, and what answers say of the rate limit.

How each driver passes options and arguments on is in test_contract.py.
"""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from intercom_data_events import (
    API_VERSION,
    DataEventsClient,
    IdentityError,
    InvalidInputError,
    TimestampError,
)

ACCEPTED = httpx.Response(202)
OTHER = "2.13" if API_VERSION == "2.14" else "2.14"
CREATE = {"event_name": "placed-order", "user_id": "1"}
SUMMARY = {"event_name": "invited-friend", "count": 3, "first": 1389913941, "last": 1671028894}


# Options of one call.


def test_a_view_keeps_what_a_subclass_adds(emulator):
    class Client(DataEventsClient):
        app = "none"

    client = Client("token", transport=emulator.transport())
    client.app = "shop"

    assert client.with_options(timeout=5).app == "shop"


# The whole answer.


def test_an_answer_shows_neither_its_headers_nor_its_content(call):
    call(lambda client: client.create(**CREATE, created_at=1671028890))
    answer = call(lambda client: client.with_raw_response.list(user_id="1"))

    assert "rate" not in repr(answer).lower()
    assert b"placed-order" in answer.content
    assert "before=" not in repr(answer.parsed)


# One contact.


def test_a_summary_is_imported_for_a_contact_bound_by_user_id(call):
    call(lambda client: client.contact(user_id="1").create_summary(**SUMMARY))
    (item,) = call(lambda client: client.contact(user_id="1").summary()).events

    assert (item.name, item.count) == ("invited-friend", 3)
    assert item.first == datetime(2014, 1, 16, 23, 12, 21, tzinfo=UTC)
    assert item.last == datetime(2022, 12, 14, 14, 41, 34, tzinfo=UTC)

    with pytest.raises(IdentityError, match="user_id"):
        call(lambda client: client.contact(email="a@b.co").create_summary(**SUMMARY))


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ({}, "not none"),
        ({"user_id": "1", "id": "2"}, "not user_id and id"),
        ({"user_id": 1}, "'1'"),
        ({"email": " "}, "empty"),
    ],
)
def test_a_contact_is_bound_by_exactly_one_identity(call, identity, said):
    with pytest.raises(IdentityError, match=said):
        call(lambda client: client.contact(**identity))


def test_a_contact_shows_who_it_is(call):
    shown = repr(call(lambda client: client.contact(user_id="1")))

    assert "user_id='1'" in shown
    assert "token" not in shown


# Importing a summary.


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"user_id": None}, IdentityError, "user_id"),
        ({"user_id": ""}, IdentityError, "user_id"),
        ({"event_name": ""}, InvalidInputError, "event_name"),
        ({"count": 0}, InvalidInputError, "count"),
        ({"count": True}, InvalidInputError, "count"),
        ({"count": 1.5}, InvalidInputError, "count"),
        (
            {"first": 1671028895},
            InvalidInputError,
            "last must be at or after first, 1671028895, not 1671028894",
        ),
        ({"first": 1389913941000}, TimestampError, "first.*1000"),
        ({"last": datetime(2022, 1, 1)}, TimestampError, "last.*time zone"),  # noqa: DTZ001  # tested
    ],
)
def test_a_summary_is_checked_before_it_is_sent(call, emulator, wrong, kind, said):
    with pytest.raises(kind, match=said):
        call(lambda client: client.create_summary(**{"user_id": "1", **SUMMARY, **wrong}))

    assert emulator.requests == ()


# The rate limit.


def test_the_rate_limit_is_what_the_last_answer_said(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    assert client.rate_limit is None

    client.create(**CREATE)
    client.with_options(version="Preview").create(**CREATE)

    assert client.rate_limit.limit == 1667
    assert client.rate_limit.remaining == 1665
    assert client.rate_limit.reset_at == datetime.fromtimestamp(1671028900, UTC).replace(second=50)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-RateLimit-Limit": "1667"},
        {"X-RateLimit-Limit": "many", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1"},
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1e99"},
        {"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "9" * 30},
    ],
)
def test_headers_that_say_no_rate_limit_are_none(headers):
    transport = httpx.MockTransport(lambda request: httpx.Response(202, headers=headers))
    client = DataEventsClient("token", transport=transport)

    client.create(**CREATE)

    assert client.rate_limit is None


def test_the_rate_limit_of_an_answer_that_says_none_leaves_the_last_one(answering):
    said = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "9", "X-RateLimit-Reset": "1"}
    answers = [httpx.Response(202, headers=said), ACCEPTED]
    client = DataEventsClient(
        "token", transport=httpx.MockTransport(lambda request: answers.pop(0))
    )

    client.create(**CREATE)
    client.create(**CREATE)

    assert client.rate_limit.remaining == 9
