"""An event is checked and stamped when it is made, and is the API's JSON both ways."""

from __future__ import annotations

import copy
import enum
import pickle

import attrs
import pytest

from intercom_data_events import (
    Event,
    IdentityError,
    IntercomError,
    InvalidInputError,
    MetadataError,
    MonetaryAmount,
)

FIELDS = {
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "id": "63a0979a5eeebeaf28dd56ba",
    "email": "a@example.org",
    "metadata": {"price": {"amount": 2999, "currency": "usd"}},
}


def test_an_event_is_the_apis_json_both_ways():
    event = Event.from_dict(FIELDS)

    assert event.to_dict() == FIELDS
    assert event.metadata == {"price": MonetaryAmount(2999, "usd")}


@pytest.mark.parametrize("identity", ["user_id", "id", "email"])
def test_one_identity_is_enough(identity):
    event = Event("placed-order", created_at=1389913941, **{identity: "a"})

    assert event.to_dict() == {
        "event_name": "placed-order",
        "created_at": 1389913941,
        identity: "a",
    }


def test_an_event_belongs_to_somebody():
    with pytest.raises(IdentityError, match="has no contact: pass user_id, email or id"):
        Event("placed-order")


@pytest.mark.parametrize(
    ("identity", "remedy"),
    [
        ({"user_id": 314159}, "'314159'"),
        ({"email": ""}, "email must not be empty"),
        ({"id": " "}, "id"),
    ],
)
def test_an_identity_is_text_and_not_empty(identity, remedy):
    with pytest.raises(IdentityError, match=remedy):
        Event("placed-order", **identity)


class Known(str, enum.Enum):  # noqa: UP042  # what is tested
    ALICE = "alice"


def test_members_of_an_enumeration_of_text_are_their_text_everywhere(call, emulator):
    call(lambda client: client.create(Known.ALICE, user_id=Known.ALICE, created_at=1671028894))
    call(lambda client: client.summary(user_id=Known.ALICE))

    assert emulator.requests[0].json["event_name"] == "alice"
    assert emulator.requests[0].json["user_id"] == "alice"
    assert emulator.requests[1].query["user_id"] == "alice"


def test_metadata_that_was_changed_after_all_is_checked_when_it_is_sent(call, emulator):
    event = Event("placed-order", user_id="1", metadata={"a": 1})
    event.metadata["b"] = [1]

    with pytest.raises(MetadataError, match="'b'"):
        call(lambda client: client.send(event))

    assert emulator.requests == ()


@pytest.mark.parametrize("name", ["", "  ", None, 1, "\ud800", pytest.param(10**5000, id="huge")])
def test_a_name_is_text_and_not_empty(name):
    with pytest.raises(InvalidInputError, match="event_name"):
        Event(name, user_id="314159")


def test_text_that_utf_8_cannot_hold_is_refused_before_sending():
    with pytest.raises(IdentityError, match="surrogate"):
        Event("placed-order", user_id="\ud800")


def test_a_field_that_events_do_not_have_is_refused_by_name():
    for field in ("event_nme", "type", "intercom_user_id"):
        with pytest.raises(InvalidInputError, match=repr(field)):
            Event.from_dict({"event_name": "placed-order", "user_id": "1", field: "event"})


def test_a_mapping_without_a_name_is_refused():
    with pytest.raises(InvalidInputError, match="event_name is missing"):
        Event.from_dict({"user_id": "1"})


def test_what_is_no_mapping_is_refused():
    with pytest.raises(InvalidInputError, match="mapping"):
        Event.from_dict(["placed-order"])


def test_an_event_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Event.from_dict(FIELDS).event_name = "other"


def test_a_changed_copy_is_checked_too():
    event = Event.from_dict(FIELDS)

    assert attrs.evolve(event, event_name="other").to_dict() == {**FIELDS, "event_name": "other"}
    with pytest.raises(MetadataError):
        attrs.evolve(event, metadata={"a": None})


def test_events_compare_hash_copy_and_pickle_by_value():
    event = Event.from_dict(FIELDS)

    assert event == Event.from_dict(FIELDS) != attrs.evolve(event, user_id="1")
    assert event != attrs.evolve(event, metadata={})
    assert len({event, Event.from_dict(FIELDS)}) == 1
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event


@pytest.mark.parametrize("wrong", [{"name": "a"}, "a", None, Event])
def test_only_an_event_can_be_sent(call, emulator, wrong):
    with pytest.raises(InvalidInputError, match=r"Event\.from_dict"):
        call(lambda client: client.send(wrong))

    assert emulator.requests == ()


def test_nothing_is_sent_where_something_is_wrong(call, emulator):
    for arguments in (
        {"event_name": "placed-order"},
        {"event_name": "", "user_id": "1"},
        {"event_name": "placed-order", "user_id": "1", "created_at": 1e12},
        {"event_name": "placed-order", "user_id": "1", "metadata": {"a": []}},
    ):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # its members are asserted below
            call(lambda client, given=arguments: client.create(**given))
        assert isinstance(caught.value, IntercomError)
        assert not caught.value.may_have_been_processed

    assert emulator.requests == ()


def test_the_same_event_sent_twice_is_stored_once(call, emulator):
    event = Event.from_dict({**FIELDS, "created_at": 1671028894})

    call(lambda client: client.send(event))
    call(lambda client: client.send(event))

    assert len(emulator.requests) == 2
    assert len(emulator.events) == 1
