"""What is logged of requests, retries and waits, and what never is."""

from __future__ import annotations

import itertools
import logging
import re
from contextlib import suppress

import httpx
import pytest
from secrecy import EMAIL, LOGGER, TOKEN, logged_secrets, package_records, shown_token

from intercom_data_events import DataEventsClient, Event, IntercomError
from intercom_data_events.emulator import FAULTS, Emulator, Fault, ManualClock
from intercom_data_events.tracker import Tracker


def create(client):
    return client.create("placed-order", email=EMAIL, created_at=1_671_028_890)


def failure(call, use, **options):
    """The error that a use ends in, or None."""
    try:
        call(use, **options)
    except IntercomError as error:
        return error
    return None


def levels(records, level):
    return [message for name, message in records if name == level]


# What is logged.


def test_each_request_is_a_line_for_those_who_debug(call, logged):
    call(create)
    call(lambda client: client.summary(email=EMAIL))
    call(lambda client: client.list(email=EMAIL))
    call(
        lambda client: client.create_summary(user_id="1", event_name="a", count=1, first=1, last=1)
    )

    records = logged()
    assert [level for level, _ in records] == ["DEBUG"] * 4
    said = [
        re.match(r"(.+) in \d+\.\d{3} s, request id [0-9a-f-]{36}$", message).group(1)
        for _, message in records
    ]
    assert said == [
        "POST /events 202",
        "GET /events 200",
        "GET /events 200",
        "POST /events/summaries 200",
    ]


def test_each_page_of_a_listing_is_a_line_of_its_own(call, logged):
    for second in range(3):
        call(lambda client, at=second: client.create("a", email=EMAIL, created_at=1671028890 + at))
    logged()

    assert len(call(lambda client: client.list(email=EMAIL, per_page=1))) == 3

    assert len(levels(logged(), "DEBUG")) == 3


def test_the_last_failed_try_is_told_and_no_wait_after_it(call, calling, logged):
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(Fault.failing(503)))

    error = failure(calling(emulator.transport()), create, clock=call.clock, max_retries=2)

    assert error.tries == 3
    records = logged()
    assert len(levels(records, "DEBUG")) == 3
    assert [message[-8:] for message in levels(records, "INFO")] == ["(1 of 2)", "(2 of 2)"]
    # The error says the rest.
    assert records[-1][0] == "DEBUG"


def test_a_failure_that_is_not_repeated_is_one_line(call, logged):
    failure(call, lambda client: client.summary(email=EMAIL))

    (record,) = logged()
    assert record[0] == "DEBUG"
    assert record[1].startswith("GET /events 404 in ")


def test_a_request_that_is_refused_before_it_is_sent_is_no_line(call, logged):
    assert failure(call, lambda client: client.create("", email=EMAIL))

    assert logged() == []


def test_a_wait_that_is_woken_and_goes_on_is_no_further_line(calling, call, logged):
    class WakingClock(ManualClock):
        """Whose waits end before their time, as where others give up their places."""

        def pass_by(self, seconds):
            super().pass_by(min(seconds, 4.0))

    clock = WakingClock()
    emulator = Emulator(clock=clock, rate_limit=1)

    calling(emulator.transport())(lambda client: [create(client), create(client)], clock=clock)

    assert clock.waits == [4.0, 4.0, 2.0]
    assert levels(logged(), "INFO") == [
        "POST /events waits up to 10.00 s for the rate limit",
    ]


def test_at_level_info_only_retries_and_waits_are_logged(calling, call, caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
    emulator = Emulator(clock=call.clock, faults=[Fault.failing(503), Fault.rate_limited()])

    calling(emulator.transport())(create, clock=call.clock)

    assert [r.levelname for r in caplog.records if r.name == LOGGER] == ["INFO", "INFO"]


def test_the_logger_is_a_librarys_that_leaves_handlers_and_levels_to_programs():
    logger = logging.getLogger(LOGGER)

    assert logger.handlers == []
    assert logger.level == logging.NOTSET
    assert logger.propagate


# What is never logged, and never part of an error.


USES = {
    "create": create,
    "list": lambda client: client.list(email=EMAIL),
    "summary": lambda client: client.summary(email=EMAIL),
    "contact": lambda client: client.contact(email=EMAIL).create("placed-order"),
}


@pytest.mark.parametrize("use", ["list", "summary", "contact"])
def test_no_fault_gives_a_secret_away_through_any_verb(calling, caplog, use):
    """Each fault hits every attempt; where a fault is not an error, the contact is unknown."""
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    for fault in FAULTS:
        clock = ManualClock()
        emulator = Emulator(clock=clock, contacts=[], faults=itertools.repeat(fault))
        call = calling(emulator.transport())

        error = failure(call, USES[use], access_token=TOKEN, clock=clock, timeout=0.1)

        assert error is not None, fault.name
        assert error.tries == len(emulator.requests), fault.name
        assert all(TOKEN in request.headers["authorization"] for request in emulator.requests)
        records = package_records(caplog)
        assert len([r for r in records if r.levelname == "DEBUG"]) == error.tries, fault.name
        assert logged_secrets(records) == [], fault.name
        assert shown_token(error) == [], fault.name


ECHO = {"errors": [{"code": f"Bearer {TOKEN}", "message": f"{TOKEN} of {EMAIL}", "field": TOKEN}]}


@pytest.mark.parametrize("use", USES)
def test_no_answer_that_repeats_secrets_gets_them_shown(answering, caplog, use):
    caplog.set_level(logging.DEBUG, logger=LOGGER)
    headers = {
        "X-Request-Id": f"Bearer {TOKEN}",
        "Intercom-Version": TOKEN,
        "Location": f"https://a.example/?token={TOKEN}",
        "Retry-After": TOKEN,
        "X-RateLimit-Limit": TOKEN,
        "Date": TOKEN,
        TOKEN.strip("="): "1",
    }
    for status in (200, 202, 302, 400, 401, 404, 409, 422, 429, 500, 503):
        call, _ = answering(httpx.Response(status, json=ECHO, headers=headers))
        shown = []

        def used(client, shown=shown):
            shown.append(repr(client))
            return USES[use](client)

        error = failure(call, used, access_token=TOKEN)

        records = package_records(caplog)
        assert records, status
        assert logged_secrets(records) == [], status
        assert shown_token(error) == [], status
        assert TOKEN not in shown[0]


@pytest.mark.parametrize("status", [402, 404, 422, 503])
@pytest.mark.parametrize("way", ["create_many", "tracker", "outbox"])
def test_nothing_that_sends_for_a_caller_logs_an_address(caplog, tmp_path, status, way):
    caplog.set_level(logging.DEBUG)
    answer = httpx.MockTransport(lambda _: httpx.Response(status, json=ECHO))
    event = Event("placed-order", email=EMAIL, metadata={"note": EMAIL})
    with DataEventsClient(TOKEN, transport=answer, max_retries=0) as client:
        if way == "create_many":
            with suppress(IntercomError):
                list(client.create_many([event] * 3))
        else:
            outbox = tmp_path / "outbox.db" if way == "outbox" else None
            tracker = Tracker(client, outbox, unknown_contact_patience=0)
            tracker.track(event.event_name, email=EMAIL, metadata={"note": EMAIL})
            tracker.flush(0.2)
            tracker.close(0)

    records = package_records(caplog)
    assert records
    assert logged_secrets(records) == []


@pytest.mark.parametrize("version", ["\x1b[2Jx", "9" * 5000, "\xff\x9b31m", EMAIL])
def test_a_header_that_is_logged_is_short_and_harmless(answering, logged, version):
    answer = httpx.Response(202, headers={"Intercom-Version": version.encode("latin-1")})
    call, _ = answering(answer)

    call(create)

    (message,) = levels(logged(), "WARNING")
    assert "answered with API version" in message
    assert message.isprintable()
    assert len(message) < 150
    assert EMAIL not in message
