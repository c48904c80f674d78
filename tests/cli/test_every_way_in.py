"""Whichever way an event comes in, its metadata is read by one rule, and messages are short."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from intercom_data_events import DataEventsClient, Event, InvalidInputError
from intercom_data_events.celery import send_event
from intercom_data_events.tracker import Tracker

from .conftest import NOON

FIELDS = {"event_name": "placed-order", "user_id": "1", "created_at": NOON}
LONG = "k" * 900_000

#: Sends an event with its fields; returns what is said where it is refused.
Way = Callable[..., str]


@pytest.fixture(params=["create", "send", "create_many", "tracker", "celery"])
def python(request, emulator) -> Way:
    def send(**fields: object) -> str:
        with DataEventsClient() as client:
            try:
                _send(client, request.param, fields)
            except InvalidInputError as error:
                return str(error)
        return ""

    return send


def _send(client, way, fields):
    if way == "create":
        client.create(**fields)
    elif way == "send":
        client.send(Event.from_dict(fields))
    elif way == "create_many":
        for outcome in client.create_many([fields]):
            if outcome.error is not None:
                raise outcome.error
    elif way == "tracker":
        with Tracker(client) as tracker:
            tracker.track(**fields)
    else:
        app = Celery("shop", broker="memory://")
        app.conf.task_always_eager = True
        try:
            send_event.delay(fields)
        finally:
            app.tasks[send_event.name].client.close()


@pytest.fixture(params=["ndjson", "csv", "track"])
def text(request, command, emulator) -> Way:
    """The same where everything is text."""

    def send(**fields: str) -> str:
        metadata = fields.pop("metadata")
        if request.param == "ndjson":
            line = {"created_at": NOON, **fields, "metadata": metadata}
            Path("events.ndjson").write_text(json.dumps(line) + "\n", "utf-8")
            done = command("import", "events.ndjson")
        elif request.param == "csv":
            columns = {**fields, **{f"metadata.{key}": value for key, value in metadata.items()}}
            rows = "created_at", *columns, "\n", str(NOON), *columns.values()
            Path("events.csv").write_text(",".join(rows).replace(",\n,", "\n") + "\n", "utf-8")
            done = command("import", "events.csv")
        else:
            given = [part for item in metadata.items() for part in ("-m", "=".join(item))]
            done = command(
                "track", fields["event_name"], "--user-id", fields["user_id"],
                "--created-at", NOON, *given,
            )  # fmt: skip
        return "" if done.code == 0 else done.err + done.out

    return send


TIMES = {"paid_at": "1671028894", "order_date": "2022-12-14T14:41:34Z", "plan": "2022-12-14"}
SENT = {"paid_at": 1671028894, "order_date": 1671028894, "plan": "2022-12-14"}
WRONG = [
    ({"paid_at": "yesterday"}, "rename the key"),
    ({"order_date": "2022-12-14"}, "must have an offset"),
    ({"_at": "1671028894000"}, "in milliseconds"),
]


def test_times_below_keys_of_dates_are_converted_from_python(python, emulator):
    assert python(**FIELDS, metadata=TIMES) == ""
    assert [stored.metadata for stored in emulator.events] == [SENT]


def test_times_below_keys_of_dates_are_converted_from_text(text, emulator):
    assert text(event_name="placed-order", user_id="1", metadata=TIMES) == ""
    assert [stored.metadata for stored in emulator.events] == [SENT]


@pytest.mark.parametrize(("metadata", "said"), WRONG)
def test_other_text_there_is_an_error_from_python(python, emulator, metadata, said):
    assert said in python(**FIELDS, metadata=metadata)
    assert emulator.events == ()


@pytest.mark.parametrize(("metadata", "said"), WRONG)
def test_other_text_there_is_an_error_from_text(text, emulator, metadata, said):
    message = text(event_name="placed-order", user_id="1", metadata=metadata)

    assert said in " ".join(message.split())
    assert emulator.events == ()


@pytest.mark.parametrize(
    ("value", "code", "stored"),
    [("1671028894", 0, [{"paid_at": 1671028894}]), ("yesterday", 2, [])],
)
def test_what_is_said_to_be_text_is_a_time_below_a_key_of_dates(
    command, emulator, value, code, stored
):
    done = command("track", "ran", "--user-id", "1", "-m", f"paid_at:text={value}")

    assert (done.code, "rename the key" in done.err) == (code, code != 0)
    assert [event.metadata for event in emulator.events] == stored


@pytest.mark.parametrize(
    "change",
    [
        {"event_name": f"{LONG}\ud800"},
        {"event_name": LONG, "user_id": ""},
        {"user_id": f"{LONG}\ud800"},
        {"created_at": LONG},
        {"metadata": {LONG: None}},
        {"metadata": {f"{LONG}_at": LONG}},
        {"metadata": dict.fromkeys([*"abcdefghij", LONG], "a")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_message_grows_with_an_event_from_python(python, change):
    assert 0 < len(python(**{**FIELDS, **change})) < 400


@pytest.mark.parametrize(
    "metadata",
    [
        {f"{LONG}_at": LONG},
        {f"{LONG}_date": "2022-12-14"},
        dict.fromkeys([*"abcdefghij", LONG], "a"),
        {f"{LONG}.amount": "much", f"{LONG}.currency": "usd"},
    ],
    ids=["text", "no offset", "eleven", "amount"],
)
def test_no_message_grows_with_an_event_from_text(text, metadata):
    said = text(event_name="placed-order", user_id="1", metadata=metadata)

    assert 0 < len(said) < 1500


@pytest.mark.parametrize(
    "flags",
    [
        ["-m", LONG],
        ["-m", f"={LONG}"],
        ["-m", f"{LONG}=1", "-m", f"{LONG}=2"],
        ["--created-at", LONG],
        ["--created-at", "9" * 5000],
    ],
    ids=["no value", "no key", "twice", "no time", "many digits"],
)
def test_no_message_grows_with_a_flag(command, emulator, flags):
    done = command("track", "ran", "--user-id", "1", *flags)

    assert done.code == 2
    assert 0 < len(done.err) < 300
    assert emulator.events == ()
