"""What the logger "intercom_data_events" says of requests, retries and waits, and what never."""

from __future__ import annotations

import itertools
import logging
import pickle
import re
import socket
import threading
import traceback

import httpx
import pytest

from intercom_data_events import API_VERSION, DataEventsClient, IntercomError
from intercom_data_events.emulator import FAULTS, Emulator, Fault, ManualClock

TOKEN = "dG9rOmEtdmVyeS1zZWNyZXQtdG9rZW4="
EMAIL = "frodo.baggins@example.com"
NAME = "intercom_data_events"


@pytest.fixture
def logged(caplog):
    """Says what has been logged since it was asked last, as level and message."""
    caplog.set_level(logging.DEBUG, logger=NAME)

    def said():
        records = [
            (record.levelname, record.getMessage())
            for record in caplog.records
            if record.name.partition(".")[0] == NAME
        ]
        caplog.clear()
        return records

    return said


def create(client):
    return client.create("placed-order", email=EMAIL, created_at=1_671_028_890)


def times(number, use):
    """Uses a client so many times, one after the other."""

    def repeat(client):
        results = [use(client) for _ in range(number)]
        return in_turn(results) if results[0] is not None else None

    async def in_turn(results):
        for result in results:
            await result

    return repeat


def failure(call, use, **options):
    """The error that a use ends in, or None."""
    try:
        call(use, **options)
    except IntercomError as error:
        return error
    return None


def levels(records, level):
    return [message for name, message in records if name == level]


# What is said.


def test_each_request_is_a_line_for_those_who_debug(call, logged):
    call(create)
    call(lambda client: client.summary(email=EMAIL))
    call(lambda client: client.list(email=EMAIL))
    call(
        lambda client: client.create_summary(user_id="1", event_name="a", count=1, first=1, last=1)
    )

    records = logged()
    assert [level for level, _ in records] == ["DEBUG"] * 4
    said = [re.fullmatch(r"(.+) in \d+\.\d{3} s", message).group(1) for _, message in records]
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


def test_failed_tries_and_what_is_made_of_them_are_told_in_their_order(call, calling, logged):
    faults = [Fault.failing(503), Fault.reset(), Fault.slow(60), None]
    emulator = Emulator(clock=call.clock, faults=faults)

    calling(emulator.transport())(create, clock=call.clock)

    records = logged()
    assert [level for level, _ in records] == ["DEBUG", "INFO"] * 3 + ["DEBUG"]
    tries = levels(records, "DEBUG")
    assert tries[0].startswith("POST /events 503 in ")
    assert tries[1:3] == ["POST /events ReadError", "POST /events ReadTimeout"]
    assert tries[3].startswith("POST /events 202 in ")
    # The emulator's slow answer was waited for as well.
    waits = [wait for wait in call.clock.waits if wait < 30]
    assert levels(records, "INFO") == [
        f"POST /events: 503, trying again in {waits[0]:.2f} s (1 of 4)",
        f"POST /events: ReadError, trying again in {waits[1]:.2f} s (2 of 4)",
        f"POST /events: ReadTimeout, trying again in {waits[2]:.2f} s (3 of 4)",
    ]


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


def test_a_wait_for_the_rate_limit_is_told_once_before_the_request(calling, call, logged):
    emulator = Emulator(clock=call.clock, rate_limit=1)

    calling(emulator.transport())(times(2, create), clock=call.clock)

    assert call.clock.waits == [10.0]
    assert [(level, message.split(" in 0.")[0]) for level, message in logged()] == [
        ("DEBUG", "POST /events 202"),
        ("INFO", "POST /events waits 10.00 s for the rate limit, or less"),
        ("DEBUG", "POST /events 202"),
    ]


def test_a_wait_that_is_woken_and_goes_on_is_no_further_line(calling, call, logged):
    class WakingClock(ManualClock):
        """Whose waits end before their time, as where others give up their places."""

        def pass_by(self, seconds):
            super().pass_by(min(seconds, 4.0))

    clock = WakingClock()
    emulator = Emulator(clock=clock, rate_limit=1)

    calling(emulator.transport())(times(2, create), clock=clock)

    assert clock.waits == [4.0, 4.0, 2.0]
    assert levels(logged(), "INFO") == [
        "POST /events waits 10.00 s for the rate limit, or less",
    ]


def test_whoever_does_not_debug_reads_of_retries_and_waits_alone(calling, call, caplog):
    caplog.set_level(logging.INFO, logger=NAME)
    emulator = Emulator(clock=call.clock, faults=[Fault.failing(503), Fault.rate_limited()])

    calling(emulator.transport())(create, clock=call.clock)

    assert [r.levelname for r in caplog.records if r.name == NAME] == ["INFO", "INFO"]


@pytest.mark.parametrize("bound", ["the client", "views of it"])
def test_answers_for_another_version_are_one_warning_of_the_client(calling, call, logged, bound):
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(Fault.other_version("1.0")))

    def use(client):
        return create(client if bound == "the client" else client.with_options(timeout=5))

    calling(emulator.transport())(times(3, use), clock=call.clock)

    records = logged()
    assert levels(records, "WARNING") == [
        f"Intercom answered for API version 1.0 where {API_VERSION} was asked for"
    ]
    assert len(levels(records, "DEBUG")) == 3


def test_the_logger_is_a_librarys_that_leaves_handlers_and_levels_to_programs():
    logger = logging.getLogger(NAME)

    assert logger.handlers == []
    assert logger.level == logging.NOTSET
    assert logger.propagate


# What is never said.


def secrets_in(text):
    """Of the token as it is sent and as it is quoted, and of the e-mail address and its parts."""
    return [secret for secret in (TOKEN, TOKEN.rstrip("="), EMAIL, "frodo") if secret in text]


def texts_of(record):
    """All that a handler could write of a record."""
    formatted = logging.Formatter("%(message)s %(name)s %(threadName)s").format(record)
    return [formatted, repr(record.args), repr(record.__dict__)]


def chain_of(error):
    """An error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


USES = {
    "create": create,
    "list": lambda client: client.list(email=EMAIL),
    "summary": lambda client: client.summary(email=EMAIL),
    "contact": lambda client: client.contact(email=EMAIL).create("placed-order"),
}


def check_secrecy(error, records, client):
    """Neither token nor address in logs; no token in an error, and in what led to it."""
    for record in records:
        for text in texts_of(record):
            assert not secrets_in(text), record
    assert TOKEN not in client
    for one in chain_of(error):
        for text in (str(one), repr(one), repr(one.args), repr(vars(one))):
            assert TOKEN not in text
    if error is None:
        return
    assert TOKEN not in "".join(traceback.format_exception(error))
    pickled = pickle.dumps(error)
    assert TOKEN.encode() not in pickled
    for one in chain_of(pickle.loads(pickled)):
        assert TOKEN not in str(one) + repr(vars(one))


# httpx leaves generators of its own to the collector here, which trio reports.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_fault_gives_a_secret_away(calling, call, caplog, fault, use):
    """Each befalls every try; where none is an error in itself, the contact is not known."""
    caplog.set_level(logging.DEBUG, logger=NAME)
    emulator = Emulator(clock=call.clock, contacts=[], faults=itertools.repeat(fault))
    shown = []

    def used(client):
        shown.append(repr(client))
        return USES[use](client)

    error = failure(
        calling(emulator.transport()), used, access_token=TOKEN, clock=call.clock, timeout=0.1
    )

    assert error is not None
    assert error.tries == len(emulator.requests)
    assert all(TOKEN in request.headers["authorization"] for request in emulator.requests)
    records = [record for record in caplog.records if record.name.startswith(NAME)]
    assert len([record for record in records if record.levelname == "DEBUG"]) == error.tries
    check_secrecy(error, records, *shown)


ECHO = {"errors": [{"code": f"Bearer {TOKEN}", "message": f"{TOKEN} of {EMAIL}", "field": TOKEN}]}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("status", [200, 202, 302, 400, 401, 404, 409, 422, 429, 500, 503])
def test_no_answer_that_repeats_secrets_gets_them_told(answering, caplog, status, use):
    caplog.set_level(logging.DEBUG, logger=NAME)
    headers = {
        "X-Request-Id": f"Bearer {TOKEN}",
        "Intercom-Version": TOKEN,
        "Location": f"https://a.example/?token={TOKEN}",
        "Retry-After": TOKEN,
        "X-RateLimit-Limit": TOKEN,
        "Date": TOKEN,
        TOKEN.strip("="): "1",
    }
    call, _ = answering(httpx.Response(status, json=ECHO, headers=headers))
    shown = []

    def used(client):
        shown.append(repr(client))
        return USES[use](client)

    error = failure(call, used, access_token=TOKEN)

    records = [record for record in caplog.records if record.name == NAME]
    assert records
    check_secrecy(error, records, *shown)


def echoing(reply):
    """A server that answers with what it makes of the bytes of the `Authorization` header."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                found = re.search(rb"(?i)authorization: (.*)\r\n", received)
                connection.sendall(reply(found.group(1)))

    threading.Thread(target=serve, daemon=True).start()
    return listening


@pytest.mark.parametrize(
    "reply",
    [
        lambda secret: secret,
        lambda secret: b"HTTP/1.1 4 " + secret + b"\r\n\r\n",
        lambda secret: b"HTTP/1.1 401 " + secret + b"\r\nContent-Length: 0\r\n\r\n",
        lambda secret: b"HTTP/1.1 401 No\r\nAuthorization : " + secret + b"\r\n\r\n",
        lambda secret: b"HTTP/1.1 401 No\r\nContent-Length: " + secret + b"\r\n\r\n",
        lambda secret: (
            b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + secret.split()[-1]
            + b"\r\n\r\n"
        ),
        lambda secret: (
            b"HTTP/1.1 307 No\r\nContent-Length: 0\r\nLocation: http://a.example:"
            + secret.split()[-1]
            + b"/\r\n\r\n"
        ),
    ],
    ids=["bare", "status", "reason", "bad header", "length", "chunk", "location"],
)
def test_no_server_that_repeats_the_token_where_it_is_no_http_gets_it_told(caplog, calling, reply):
    caplog.set_level(logging.DEBUG, logger=NAME)
    with echoing(reply) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        error = failure(calling(None), create, access_token=TOKEN, base_url=url, max_retries=1)

    assert error is not None
    records = [record for record in caplog.records if record.name == NAME]
    check_secrecy(error, records, repr(DataEventsClient(TOKEN)))
