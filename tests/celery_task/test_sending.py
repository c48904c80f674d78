"""What a worker makes of a message: sent, failed, or queued again for a later attempt."""

from __future__ import annotations

import json
import logging
from collections import Counter
from types import SimpleNamespace

import httpx
import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import EagerResult

from intercom_data_events import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    ServerError,
)
from intercom_data_events.celery import send_event
from intercom_data_events.emulator import EmulatedContact, Emulator, Fault

from .conftest import NAME, NOW, TOKEN, delay_of, event, numbers

#: More than the client's own tries.
DOWN = [Fault.failing(503)] * 5


def answering(status: int, *codes: str, body: bytes | None = None) -> Fault:
    """An answer in Intercom's words, or of another body."""
    listed = {"type": "error.list", "errors": [{"code": code} for code in codes]}
    content = json.dumps(listed).encode() if body is None else body
    return Fault(name=str(status), status=status, body=content, processed=False)


def listed(code: str, message: str) -> bytes:
    """Intercom's own list of one error."""
    errors = [{"code": code, "message": message}]
    return json.dumps({"type": "error.list", "errors": errors}).encode()


HTML = b"<html><h1>Not here</h1></html>"
REJECTED = answering(400, "parameter_invalid")
UNKNOWN = answering(404, "not_found")


# Rejected.


def test_an_event_that_intercom_rejects_fails_at_once(opening):
    emulator = Emulator(faults=[REJECTED])
    shop = opening(emulator)
    send_event.delay(event(0))
    send_event.delay(event(1))

    assert isinstance(shop.work(), BadRequestError)
    assert shop.work() is None
    assert shop.messages == []
    assert emulator.counts.requests == 2


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"event_name": "placed-order", "created_at": 1_671_028_894}, "has no contact"),
        ({"event_name": "placed-order", "user_id": "7"}, "created_at"),
        ({}, "event_name"),
        ("placed-order", "mapping"),
        (None, "mapping"),
    ],
    ids=["nobody's", "at no time", "empty", "no mapping", "null"],
)
def test_a_message_that_is_no_event_fails_at_once(shop, emulator, message, says):
    # As another program may queue it, which has the task's name alone.
    shop.app.send_task(NAME, [message])

    failure = shop.work()

    assert isinstance(failure, InvalidInputError)
    assert says in str(failure)
    assert shop.messages == []
    assert emulator.counts.requests == 0


def test_a_failure_tells_whoever_was_to_be_told(opening):
    shop = opening(Emulator(faults=[REJECTED]))

    @shop.app.task(name="told")
    def told(request, error, traceback):
        said.append((request.id, error))

    said = []
    sent = send_event.apply_async((event(),), link_error=told.s())
    shop.work()

    ((task, error),) = said
    assert task == sent.id
    assert isinstance(error, BadRequestError)


# Transient.


def test_an_event_that_fails_transiently_is_queued_again_and_stored_once(opening, clock):
    emulator = Emulator(clock=clock, faults=[*DOWN, Fault.reset(processed=True)])
    shop = opening(emulator)
    sent = send_event.delay(event(7))

    assert shop.work() is None
    (message,) = shop.messages
    assert message.headers["id"] == sent.id
    assert message.headers["retries"] == 1
    assert "placed" not in message.headers["argsrepr"]
    assert shop.work() is None

    assert shop.messages == []
    assert numbers(emulator) == [7]
    assert emulator.counts.requests == 7
    assert emulator.counts.duplicates == 1


@pytest.mark.parametrize(
    ("retries", "least", "most"),
    [(0, 1, 2), (1, 2, 4), (5, 32, 64), (9, 300, 600), (5000, 300, 600)],
)
def test_waits_double_up_to_ten_minutes(opening, retries, least, most):
    shop = opening(Emulator(faults=DOWN))

    send_event.apply_async((event(),), retries=retries)
    shop.work()

    (message,) = shop.messages
    assert least - 1 < delay_of(message) <= most
    assert message.headers["retries"] == retries + 1


def test_waits_differ_so_that_not_all_come_back_at_once(opening):
    shop = opening(Emulator(faults=DOWN * 5))
    for number in range(5):
        send_event.apply_async((event(number),), retries=5)
    for _ in range(5):
        shop.work()

    delays = {round(delay_of(message), 1) for message in shop.messages}

    assert len(delays) > 1


def test_a_wait_is_as_long_as_intercom_asks_for(opening):
    fault = Fault.rate_limited(retry_after=100)
    shop = opening(Emulator(faults=[fault]), client={"max_retries": 0})

    send_event.delay(event())
    shop.work()

    (message,) = shop.messages
    assert 99 < delay_of(message) <= 102


@pytest.mark.parametrize(
    ("visibility", "most"), [({}, 900), ({"visibility_timeout": 60}, 30)], ids=["default", "set"]
)
def test_no_wait_outlasts_the_time_after_which_a_message_is_given_out_again(
    opening, visibility, most
):
    fault = Fault.rate_limited(retry_after=80_000)
    shop = opening(
        Emulator(faults=[fault]), client={"max_retries": 0}, broker_transport_options=visibility
    )

    send_event.delay(event())
    shop.work()

    (message,) = shop.messages
    assert most - 1 < delay_of(message) <= most


def test_a_task_that_takes_longer_than_it_may_is_queued_again(opening, emulator):
    # What a soft time limit is where the task happens to be.
    given_up = [SoftTimeLimitExceeded()]

    class Interrupted(httpx.BaseTransport):
        def handle_request(self, request):
            if given_up:
                raise given_up.pop()
            return emulator.answer(request)

    shop = opening(emulator, client={"transport": Interrupted()})
    send_event.delay(event(7))

    assert shop.work() is None
    (message,) = shop.messages
    assert 0 < delay_of(message) <= 2
    assert shop.work() is None
    assert numbers(emulator) == [7]


def test_a_retry_that_cannot_be_queued_leaves_the_message_in_the_queue(opening, clock):
    down = []

    def route(name, args, kwargs, options, task=None, **_):
        if down:
            raise OSError("the broker is away")

    emulator = Emulator(clock=clock, faults=DOWN)
    shop = opening(emulator, task_routes=[route])
    send_event.delay(event(7))
    down.append(True)

    assert shop.work() is None
    (message,) = shop.messages
    assert message.headers["retries"] == 0
    assert shop.work() is None
    assert numbers(emulator) == [7]


def test_retries_end_where_the_app_says_so(opening):
    shop = opening(
        Emulator(faults=DOWN * 3), task_annotations={NAME: {"max_retries": 2, "retry_backoff": 8}}
    )
    send_event.delay(event())

    assert shop.work() is None
    (message,) = shop.messages
    assert 3 < delay_of(message) <= 8
    assert shop.work() is None
    assert isinstance(shop.work(), ServerError)
    assert shop.messages == []


# No event can be sent.


@pytest.mark.parametrize(
    ("client", "says"),
    [
        ({}, "401"),
        ({"access_token": None}, "INTERCOM_ACCESS_TOKEN"),
        ({"version": "0"}, "version"),
        ({"deadlin": 7}, "deadlin"),
    ],
    ids=["revoked", "no token", "setting", "unknown setting"],
)
def test_a_failure_of_every_event_is_an_error_in_the_log_and_queued_for_later(
    opening, caplog, client, says
):
    shop = opening(Emulator(tokens=[]), client=client)
    send_event.delay(event(7))

    with caplog.at_level(logging.INFO):
        assert shop.work() is None

    (message,) = shop.messages
    assert 29 < delay_of(message) <= 60
    (record,) = [one for one in caplog.records if one.name == "intercom_data_events"
                 and one.levelno == logging.ERROR]  # fmt: skip
    assert says in record.getMessage()
    assert TOKEN not in caplog.text


def test_events_arrive_once_the_cause_is_fixed(opening, emulator):
    token = ["one that was revoked"]
    emulator = Emulator(tokens=[TOKEN])
    shop = opening(emulator, client={"access_token": lambda: token[0]})
    send_event.delay(event(7))
    shop.work()
    token[0] = TOKEN

    assert shop.work() is None
    assert numbers(emulator) == [7]


# By what a failure means.


def test_a_systemic_failure_is_queued_for_later(opening, caplog):
    for fault in (
        answering(401, "unauthorized"),
        answering(402, "api_plan_restricted"),
        answering(403, "api_plan_restricted"),
        answering(403, body=HTML),
        answering(400, "unauthorized"),
        answering(400, body=HTML),
        answering(400, "intercom_version_invalid"),
        answering(404, body=HTML),
        answering(404, body=b'{"message": "no Route matched"}'),
        answering(404, "token_not_found"),
        answering(405, body=HTML),
        answering(406, body=HTML),
        answering(407, body=HTML),
        answering(409, body=b""),
        answering(410, body=b""),
        answering(413, body=HTML),
        answering(421, body=b""),
        answering(422, "token_revoked"),
        answering(422, body=HTML),
        answering(451, "some_code"),
        answering(302, body=b""),
    ):
        caplog.clear()
        emulator = Emulator(faults=[fault])
        shop = opening(emulator)
        send_event.apply_async((event(7),), retries=0)

        assert shop.work() is None, fault
        (message,) = shop.messages
        # The task's default_retry_delay, as for a token that is not accepted.
        assert 29 < delay_of(message) <= 60, fault
        said = [one for one in caplog.records if one.name == "intercom_data_events"]
        (record,) = [one for one in said if one.levelno == logging.ERROR]
        assert str(fault.status) in record.getMessage()
        assert shop.work() is None
        assert (numbers(emulator), emulator.counts.requests) == ([7], 2), fault


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, listed("unauthorized", "no frodo@b.co"), "AuthenticationError 401 unauthorized"),
        (403, b"<title>No frodo@b.co</title>", "PermissionDeniedError 403"),
        (404, b'{"error": {"code": "frodo-7", "message": "frodo"}}', "NotFoundError 404"),
        (410, b'{"errors": {"frodo": ["unknown"]}}', "APIStatusError 410"),
        (200, listed("token_revoked", "no frodo"), "InvalidResponseError 200"),
    ],
)
def test_the_log_names_a_systemic_failure_and_repeats_no_answer(
    opening, caplog, status, body, said
):
    fault = Fault(name="odd", status=status, body=body, processed=False)
    shop = opening(Emulator(faults=[fault]))
    send_event.delay(event(7, email="frodo@b.co"))
    shop.work()

    (line,) = [one.getMessage() for one in caplog.records if one.name == "intercom_data_events"]
    assert line.partition(" s: ")[2] == said


def test_a_permanent_failure_fails_the_task_at_once(opening):
    for fault in (
        answering(400, "parameter_invalid"),
        answering(400, "some_code"),
        answering(404, "some_code"),
        answering(409, "not_found"),
        answering(409, "conflict"),
        answering(413, "some_code"),
        answering(422, "data_invalid"),
        answering(422, body=b""),
    ):
        emulator = Emulator(faults=[fault])
        shop = opening(emulator)
        send_event.delay(event(7))

        failure = shop.work()

        assert isinstance(failure, APIStatusError), fault
        assert failure.status_code == fault.status
        assert (shop.messages, emulator.counts.requests) == ([], 1), fault


def test_a_transient_failure_is_queued_again_soon(opening):
    for fault in (
        answering(408, body=b""),
        answering(425, body=HTML),
        answering(429, "rate_limit_exceeded"),
        answering(444, body=b""),
        answering(460, body=b""),
        answering(499, "forbidden"),
        answering(501, body=HTML),
        answering(503, "unauthorized"),
        answering(505, body=b""),
        answering(511, body=HTML),
        answering(519, body=b""),
        answering(530, body=b""),
        answering(599, body=b""),
    ):
        # With one retry of the client's own.
        emulator = Emulator(faults=[fault] * 2)
        shop = opening(emulator, client={"max_retries": 1})
        send_event.delay(event(7))

        assert shop.work() is None, fault
        (message,) = shop.messages
        assert 0 < delay_of(message) <= 2, fault
        assert emulator.counts.requests == 2, fault
        assert shop.work() is None
        assert numbers(emulator) == [7], fault


# Contacts that are not known yet.


def retried(shop, clock):
    """Works off the one message, with its retries, each when it is due.

    Returns the waits in seconds, and the error that the task failed with in the end, if it did.
    """
    waits = []
    while True:
        failure = shop.work()
        if not shop.messages:
            return waits, failure
        (message,) = shop.messages
        waits.append(delay_of(message))
        # A little more: some time has passed since it was queued.
        clock.advance(waits[-1] + 0.1)


def test_an_event_of_a_contact_that_is_not_known_yet_is_sent_once_it_is(opening, clock):
    emulator = Emulator(clock=clock, faults=[UNKNOWN] * 3)
    shop = opening(emulator)
    send_event.delay(event(7))

    waits, failure = retried(shop, clock)

    assert failure is None
    assert numbers(emulator) == [7]
    for wait, most in zip(waits, (2, 4, 8), strict=True):
        assert most / 2 - 0.5 < wait <= most


@pytest.mark.parametrize("patience", [None, 15, 1000])
def test_an_event_of_an_unknown_contact_fails_when_patience_ends(opening, clock, patience):
    conf = {} if patience is None else {"unknown_contact_patience": patience}
    emulator = Emulator(clock=clock, contacts=[])
    shop = opening(emulator, task_annotations={NAME: conf})
    send_event.delay(event())
    begun = clock.time()

    waits, failure = retried(shop, clock)

    patience = patience or 120
    assert isinstance(failure, NotFoundError)
    # With the last attempt at its end.
    assert patience <= clock.time() - begun < patience + 3
    assert 3 <= len(waits) <= 12
    assert emulator.counts.requests == len(waits) + 1


def test_patience_is_counted_from_the_first_answer_whatever_comes_between(opening, clock):
    down, away = answering(503, body=HTML), answering(402, "api_plan_restricted")
    faults = [down, UNKNOWN, down, down, away, UNKNOWN, UNKNOWN]
    emulator = Emulator(clock=clock, faults=faults)
    shop = opening(emulator, client={"max_retries": 0})
    send_event.delay(event())
    for _ in range(5):
        clock.advance(20)
        assert shop.work() is None
    clock.advance(59)

    # 119 seconds after the first one.
    assert shop.work() is None
    (message,) = shop.messages
    assert 0 < delay_of(message) <= 1
    clock.advance(1)
    assert isinstance(shop.work(), NotFoundError)
    assert shop.messages == []


def test_with_a_patience_of_0_an_unknown_contact_fails_the_task_at_once(opening):
    emulator = Emulator(contacts=[EmulatedContact(user_id="1")])
    shop = opening(emulator, task_annotations={NAME: {"unknown_contact_patience": 0}})
    send_event.delay(event(0))
    send_event.delay(event(1))

    assert isinstance(shop.work(), NotFoundError)
    assert shop.work() is None
    assert shop.messages == []
    assert emulator.counts.requests == 2


def test_retries_for_an_unknown_contact_end_where_the_app_says_so(opening):
    shop = opening(Emulator(contacts=[]), task_annotations={NAME: {"max_retries": 1}})
    send_event.delay(event())

    assert shop.work() is None
    assert isinstance(shop.work(), NotFoundError)
    assert shop.messages == []


def test_no_wait_for_a_contact_outlasts_half_the_visibility_timeout(opening, clock):
    shop = opening(
        Emulator(clock=clock, contacts=[]), broker_transport_options={"visibility_timeout": 20}
    )
    send_event.delay(event())

    waits, failure = retried(shop, clock)

    assert isinstance(failure, NotFoundError)
    assert 9 < max(waits) <= 10
    assert sum(waits) > 100


@pytest.mark.parametrize(
    "header",
    [
        None,
        "unknown",
        {"unknown": NOW - 1000},
        {"unknown": ["yesterday", 1]},
        {"unknown": [NOW - 1000, "1"], "systemic": ["here", "now"]},
        {"unknown": [NOW + 1e9, 0]},
        {"systemic": [None, None]},
    ],
    ids=["none", "text", "time alone", "no time", "no number", "future", "nulls"],
)
def test_patience_begins_with_this_answer_where_the_message_does_not_say(opening, clock, header):
    # As messages of other versions may be.
    emulator = Emulator(clock=clock, faults=[UNKNOWN] * 2)
    shop = opening(emulator)
    headers = {} if header is None else {"intercom_data_events": header}
    send_event.apply_async((event(7),), retries=9, headers={"mine": "kept", **headers})

    assert shop.work() is None
    (message,) = shop.messages
    assert 0 < delay_of(message) <= 2
    assert message.headers["mine"] == "kept"
    clock.advance(119)
    assert shop.work() is None
    (message,) = shop.messages
    assert 0 < delay_of(message) <= 1
    assert message.headers["mine"] == "kept"
    assert shop.work() is None
    assert numbers(emulator) == [7]


def test_each_message_has_a_patience_of_its_own(opening, clock):
    emulator = Emulator(clock=clock, contacts=[])
    shop = opening(emulator)
    send_event.delay(event(0))
    assert shop.work() is None
    clock.advance(120)
    send_event.delay(event(1))

    assert isinstance(shop.work(), NotFoundError)
    assert shop.work() is None
    assert len(shop.messages) == 1


# An event that alone gets a systemic answer.


class Refusing(httpx.BaseTransport):
    """Answers some events as a firewall would, before Intercom sees them; the others pass."""

    def __init__(self, emulator, *refused):
        self.emulator = emulator
        self.refused = refused
        self.status = 403
        # Done while the next such answer is awaited.
        self.meanwhile = []
        self.attempts = Counter()

    def handle_request(self, request):
        number = int(json.loads(request.read())["user_id"])
        self.attempts[number] += 1
        while self.meanwhile and number in self.refused:
            self.meanwhile.pop()()
        if number in self.refused:
            return httpx.Response(self.status, content=HTML)
        return self.emulator.answer(request)


@pytest.fixture
def refusing(opening, emulator):
    """Opens a shop where some events get a systemic answer, whatever the others get."""

    def begin(*refused):
        transport = Refusing(emulator, *refused)
        return opening(emulator, client={"transport": transport, "max_retries": 0}), transport

    return begin


def queue(*given):
    for number in given:
        send_event.delay(event(number))


def work_off(shop, times, machine="here"):
    return [shop.work(machine) for _ in range(times)]


def test_an_event_that_alone_gets_a_systemic_answer_fails_while_others_pass(refusing, emulator):
    shop, transport = refusing(0)
    queue(0, 1, 2, 3)

    *before, failure = work_off(shop, 5)

    assert before == [None] * 4
    assert isinstance(failure, PermissionDeniedError)
    assert shop.messages == []
    assert transport.attempts[0] == 2
    assert numbers(emulator) == [1, 2, 3]


def test_several_such_events_fail_each(refusing, emulator):
    shop, _ = refusing(0, 1, 2)
    queue(0, 1, 2, 3, 4, 5)

    failures = work_off(shop, 9)

    assert failures[:6] == [None] * 6
    assert [type(one) for one in failures[6:]] == [PermissionDeniedError] * 3
    assert shop.messages == []


def test_too_few_others_prove_nothing_until_there_are_enough(refusing):
    shop, _ = refusing(0)
    queue(0, 1)
    assert work_off(shop, 12) == [None] * 12
    queue(2)
    assert work_off(shop, 12) == [None] * 12
    queue(3)

    # However long it takes, and however often it is tried meanwhile.
    *before, failure = work_off(shop, 3)
    assert before == [None, None]
    assert isinstance(failure, PermissionDeniedError)
    assert shop.messages == []


def test_events_that_all_get_a_systemic_answer_are_retried_for_ever(refusing, emulator):
    shop, transport = refusing(*range(5))
    # Others were accepted before.
    queue(7, 8, 9)
    work_off(shop, 3)
    queue(*range(5))

    assert work_off(shop, 100) == [None] * 100
    assert transport.attempts == {7: 1, 8: 1, 9: 1, **dict.fromkeys(range(5), 20)}
    transport.refused = ()
    assert work_off(shop, 5) == [None] * 5
    assert numbers(emulator) == [0, 1, 2, 3, 4, 7, 8, 9]


def test_others_that_are_accepted_during_the_attempt_allow_for_one_more(refusing, emulator):
    shop, transport = refusing(0)
    queue(0)
    assert shop.work() is None
    queue(1, 2, 3)
    # As other threads may do when an outage ends.
    transport.meanwhile = [shop.work] * 3

    assert shop.work() is None
    assert numbers(emulator) == [1, 2, 3]
    transport.refused = ()
    assert shop.work() is None
    assert numbers(emulator) == [0, 1, 2, 3]


def test_another_workers_answers_are_not_compared(refusing):
    shop, _ = refusing(0)
    queue(0, 1, 2, 3)
    work_off(shop, 4, "here")

    assert shop.work("there") is None
    # There the count begins.
    assert shop.work("there") is None
    queue(4, 5, 6)
    assert shop.work("there") is None
    work_off(shop, 3, "there")
    assert isinstance(shop.work("there"), PermissionDeniedError)


def test_a_token_that_cannot_be_had_is_never_about_one_event(opening, emulator):
    def token():
        if away:
            raise OSError("the vault is away")
        return TOKEN

    away = [True]
    transport = Refusing(emulator, 0, 9)
    shop = opening(emulator, client={"transport": transport, "access_token": token})
    # One without a token at first, one with an answer.
    queue(9, 0, 1, 2, 3)
    assert shop.work() is None
    away.clear()
    assert work_off(shop, 4) == [None] * 4
    away.append(True)

    assert work_off(shop, 12) == [None] * 12
    away.clear()
    # For one it is the first answer, for the other one more.
    assert shop.work() is None
    assert isinstance(shop.work(), PermissionDeniedError)
    assert transport.attempts == {9: 1, 0: 2, 1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize("status", [302, 401, 402, 404, 407])
def test_a_transient_failure_in_between_does_not_begin_the_count_anew(refusing, status):
    shop, transport = refusing(0)
    transport.status = status
    queue(0)
    assert shop.work() is None
    transport.status = 503
    queue(1, 2, 3)
    assert work_off(shop, 4) == [None] * 4
    transport.status = status

    failure = shop.work()

    assert isinstance(failure, APIStatusError)
    assert failure.status_code == status
    assert shop.messages == []


# Without a queue.


def test_called_directly_it_sends_or_raises(opening):
    emulator = Emulator(contacts=[EmulatedContact(user_id="1")], faults=[None, *DOWN])
    shop = opening(emulator)

    send_event(event(1))
    with pytest.raises(ServerError):
        send_event(event(1))
    with pytest.raises(NotFoundError):
        send_event({"event_name": "placed-order", "user_id": "2"})
    with pytest.raises(InvalidInputError):
        send_event({"event_name": "placed-order"})
    with pytest.raises(TypeError):
        send_event()

    assert numbers(emulator) == [1]
    assert shop.messages == []


@pytest.mark.parametrize("way", ["apply", "always eager"])
def test_eagerly_it_sends_or_fails_without_retries(opening, way):
    emulator = Emulator(tokens=[TOKEN], faults=[None, *DOWN])
    shop = opening(emulator, task_always_eager=way == "always eager")
    use = send_event.apply if way == "apply" else send_event.apply_async

    assert use((event(1),)).successful()
    assert isinstance(use((event(2),)).result, ServerError)
    assert use(({"event_name": "placed-order", "user_id": "3"},)).successful()
    shop.app.conf.task_eager_propagates = True
    with pytest.raises(InvalidInputError):
        use(({"event_name": "placed-order"},))

    assert numbers(emulator) == [1, 3]
    assert shop.messages == []


def test_eagerly_a_token_that_is_not_accepted_is_a_failure_at_once(opening):
    opening(Emulator(tokens=[]), task_always_eager=True)

    done = send_event.delay(event())

    assert isinstance(done, EagerResult)
    assert isinstance(done.result, AuthenticationError)


# The client.


def test_a_worker_makes_one_client_and_not_before_it_needs_it(shop):
    assert "_client" not in vars(shop.task)
    for number in range(3):
        send_event.delay(event(number))
    assert "_client" not in vars(shop.task)

    shop.work()
    client = shop.task.client
    shop.work()
    assert shop.task.client is client


def test_the_client_is_that_of_the_environment(opening, emulator, monkeypatch):
    with emulator.serve() as url:
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
        shop = opening(emulator, intercom_data_events=None)
        send_event.delay(event(7))
        shop.work()
        shop.task.client.close()

    assert len(emulator.workspace(TOKEN).events) == 1


def test_settings_that_contradict_the_environment_are_named(opening, emulator, monkeypatch):
    monkeypatch.setenv("INTERCOM_BASE_URL", "http://127.0.0.1:8125")
    for options, said in (
        ({"region": "eu"}, "INTERCOM_BASE_URL"),
        ({"base_url": "http://a.example"}, "allow_http"),
    ):
        shop = opening(emulator, intercom_data_events={"access_token": TOKEN, **options})
        with pytest.raises(ConfigurationError, match=said):
            _ = shop.task.client
    allowed = {"access_token": TOKEN, "base_url": "http://a.example", "allow_http": True}
    shop = opening(emulator, intercom_data_events=allowed)
    assert "http://a.example" in repr(shop.task.client)


def test_the_settings_can_be_djangos(emulator):
    settings = SimpleNamespace(
        CELERY_BROKER_URL="memory://localhost",
        CELERY_TASK_ALWAYS_EAGER=True,
        CELERY_INTERCOM_DATA_EVENTS={"access_token": TOKEN, "transport": emulator.transport()},
    )
    with Celery("shop") as app:
        app.config_from_object(settings, namespace="CELERY")
        assert send_event.delay(event(7)).successful()

    assert numbers(emulator) == [7]


def test_apps_have_clients_of_their_own(opening):
    one, other = Emulator(), Emulator()
    shops = [opening(one), opening(other)]
    for number, shop in enumerate(shops):
        shop.app.set_current()
        send_event.delay(event(number))
    for shop in shops:
        assert shop.work() is None

    assert numbers(one) == [0]
    assert numbers(other) == [1]


def test_a_secret_of_the_settings_is_not_in_celerys_report(shop):
    assert TOKEN not in shop.app.bugreport()
    assert TOKEN not in shop.app.conf.humanize(with_defaults=True)
