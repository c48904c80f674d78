"""What is queued: checked and stamped there, in any of the ways that Celery has for it."""

from __future__ import annotations

import json

import pytest
from celery import chain, group, shared_task
from celery.utils.imports import symbol_by_name

from intercom_data_events import Event, InvalidInputError, MetadataError, MonetaryAmount
from intercom_data_events.celery import send_event
from intercom_data_events.emulator import Emulator, Fault

from .conftest import NAME, NOW, TOKEN, delay_of, event, numbers

WAYS = {
    "delay": lambda one: send_event.delay(one),
    "delay, by name": lambda one: send_event.delay(event=one),
    "apply_async": lambda one: send_event.apply_async((one,)),
    "apply_async, by name": lambda one: send_event.apply_async(kwargs={"event": one}),
    "apply_async of a list": lambda one: send_event.apply_async([one], countdown=0),
    "s": lambda one: send_event.s(one).delay(),
    "s, by name": lambda one: send_event.s(event=one).delay(),
    "si": lambda one: send_event.si(one).apply_async(),
    "signature": lambda one: send_event.signature((one,), countdown=0).delay(),
    "signature, by name": lambda one: send_event.signature(kwargs={"event": one}).delay(),
    "group": lambda one: group(send_event.s(one), send_event.s(one)).delay(),
    "chain": lambda one: chain(send_event.si(one), send_event.si(one)).delay(),
}
METADATA = {
    "plan": "pro",
    "load": 3.67,
    "order_date": NOW,
    "price": MonetaryAmount.from_decimal("29.99", "usd"),
}


def queued(message):
    arguments, named, _ = json.loads(message.body)
    return arguments[0] if arguments else named["event"]


@shared_task(name="make")
def make(number):
    return event(number).to_dict()


@shared_task(name="ignore")
def ignore(*given):
    pass


@pytest.mark.parametrize(
    ("way", "kind", "serializer"),
    [
        *((way, Event, "json") for way in WAYS),
        ("delay", dict, "json"),
        ("s, by name", dict, "json"),
        ("delay", Event, "pickle"),
        ("s, by name", dict, "pickle"),
    ],
)
def test_an_event_arrives_as_it_was(opening, emulator, way, kind, serializer):
    shop = opening(emulator, task_serializer=serializer, accept_content=[serializer])
    sent = event(7, email="frodo@example.com", metadata=METADATA)

    WAYS[way](sent if kind is Event else sent.to_dict())
    for _ in range(2):  # As a group or a chain has them.
        if shop.messages:
            assert shop.work() is None

    (stored,) = emulator.events
    assert json.loads(emulator.requests[0].body) == sent.to_dict()
    assert stored.user_id == "7"


def test_a_message_is_the_apis_json_and_nothing_more(shop):
    send_event.delay(event(7, metadata=METADATA))

    (message,) = shop.messages
    arguments, named, _ = json.loads(message.body)
    assert arguments == [event(7, metadata=METADATA).to_dict()]
    assert named == {}
    assert message.headers["ignore_result"]
    assert TOKEN not in str(vars(message))


@pytest.mark.parametrize(
    "wrong",
    [
        {"event_name": "placed-order"},
        {"event_name": "placed-order", "user_id": 7},
        {"event_name": "", "user_id": "7"},
        {"event_name": "placed-order", "user_id": "7", "created_at": "yesterday"},
        {"event_name": "placed-order", "user_id": "7", "metadata": {"items": ["a"]}},
        {"name": "placed-order", "user_id": "7"},
        "placed-order",
        None,
    ],
    ids=str,
)
def test_what_intercom_would_refuse_is_an_error_where_it_is_queued(shop, wrong):
    with pytest.raises(InvalidInputError):
        send_event.delay(wrong)

    assert shop.messages == []


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_queueing_checks_the_event(shop, way):
    with pytest.raises(InvalidInputError):
        WAYS[way]({"event_name": "placed-order"})
    # Celery drops a message that it cannot read.
    with pytest.raises(MetadataError, match="__type__") as caught:
        WAYS[way](event(metadata={"__type__": "order", "__value__": "12"}))

    assert caught.value.key == "__type__"
    assert shop.messages == []


@pytest.mark.parametrize(
    "metadata", [{"__type__": "order"}, {"__type__": "a", "__value__": 1, "b": 2}]
)
def test_metadata_that_celerys_json_reads_as_it_is_arrives(shop, emulator, metadata):
    send_event.delay(event(metadata=metadata))

    assert shop.work() is None
    assert emulator.events[0].metadata == metadata


def test_no_event_at_all_is_the_error_that_celery_has_for_it(shop):
    with pytest.raises(TypeError, match="event"):
        send_event.delay()
    with pytest.raises(TypeError):
        send_event.delay(event(), event())

    assert shop.messages == []


@pytest.mark.parametrize("way", WAYS)
def test_fields_without_a_time_are_stamped_where_they_are_queued(shop, way):
    WAYS[way]({"event_name": "placed-order", "user_id": "7"})

    stamps = {queued(message)["created_at"] for message in shop.messages}
    assert len(stamps) == 1
    assert NOW <= stamps.pop() <= NOW + 3600


def test_options_of_celery_are_passed_on(shop):
    sent = send_event.apply_async((event(),), countdown=100, task_id="mine", priority=3)

    (message,) = shop.messages
    assert sent.id == message.headers["id"] == "mine"
    assert message.properties["priority"] == 3
    assert 95 < delay_of(message) <= 100


def test_what_monitors_are_shown_does_not_say_whose_event_it_is(shop):
    send_event.delay(event(email="frodo@example.com"))
    send_event.delay(event=event(email="frodo@example.com"))
    send_event.apply_async((event(),), argsrepr="one's own")

    shown = [message.headers["argsrepr"] + message.headers["kwargsrepr"]
             for message in shop.messages]  # fmt: skip
    assert not [text for text in shown if "frodo" in text]
    assert shown[2] == "one's own{}"


def test_what_a_worker_says_of_a_message_does_not_say_whose_event_it_is(opening):
    """As `celery inspect` asks for it: of what is due later, of retries, and of what waits."""
    shop = opening(Emulator(faults=[Fault.failing(503)] * 9))
    send_event.delay(event(email="frodo@example.com", metadata={"plan": "secret"}))
    assert shop.work() is None  # It is queued again.
    send_event.apply_async((event(email="frodo@example.com"),), countdown=100)
    send_event.delay(event=event(email="frodo@example.com"))

    kind = symbol_by_name(shop.task.Request)  # As a worker finds it.
    requests = [kind(one, app=shop.app, task=shop.task) for one in shop.messages]
    shown = [request.info(safe=safe) for request in requests for safe in (False, True)]
    assert [one["args"] + one["kwargs"] for one in shown] == [
        "(<event>,){}", "(<event>,){}", "(<event>,){}", "(<event>,){}",
        "(){'event': <event>}", "(){'event': <event>}",
    ]  # fmt: skip
    assert "frodo" not in repr(shown)
    assert {one["name"] for one in shown} == {NAME}


def test_an_event_that_another_task_of_a_chain_makes_is_sent(shop, emulator):
    chain(make.s(7), send_event.s(), ignore.s()).delay()
    for _ in range(3):
        assert shop.work() is None

    assert numbers(emulator) == [7]
    assert shop.messages == []


def test_a_task_of_a_chain_waits_for_the_event_to_be_sent(shop, emulator):
    chain(send_event.s(event(7)), ignore.s(), send_event.si(event(8))).delay()

    assert len(shop.messages) == 1
    for _ in range(3):
        assert shop.work() is None
    assert numbers(emulator) == [7, 8]


def test_the_task_is_in_every_app(opening, emulator):
    before, after = opening(emulator), opening(emulator)

    assert before.task.app is before.app
    assert after.task.app is after.app
    assert send_event.name == NAME
    assert send_event.app is after.app
