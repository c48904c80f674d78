"""Transient failures are retried within a deadline, whenever a retry is safe.

What each driver does for that, such as waiting and cutting off an answer, is in test_contract.py.
"""

from __future__ import annotations

import itertools
import math

import anyio
import attrs
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import (
    APIConnectionError,
    APIStatusError,
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    Event,
    IntercomError,
    RateLimitError,
    ServerError,
)
from intercom_data_events.emulator import FAULTS, Emulator, Fault, ManualClock, random_faults

NOW = 1_671_028_900.0
ACCEPTED = httpx.Response(202)
RETRIED = (408, 425, 429, 444, 460, 499, *range(500, 600))
FINAL = (300, 302, 307, 400, 401, 402, 403, 404, 405, 406, 407, 409, 410, 413, 418, 421, 422, 431,
         451, 498)  # fmt: skip
#: Of those that are retried, the ones that say that the request was not processed.
CERTAIN = (425, 429)
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)
CUT_OFF = (
    httpx.ReadError,
    httpx.ReadTimeout,
    httpx.WriteError,
    httpx.WriteTimeout,
    httpx.RemoteProtocolError,
    httpx.CloseError,
)


def create(client):
    return client.create("placed-order", user_id="1")


def create_summary(client):
    return client.create_summary(
        user_id="1", event_name="invited-friend", count=3, first=1389913941, last=1671028894
    )


def summary(client):
    return client.summary(user_id="1")


def raised(call, use=create, **options):
    with pytest.raises(IntercomError) as caught:
        call(use, **options)
    return caught.value


def outcome(call, use):
    """The error that a use ends in, or None."""
    try:
        call(use)
    except IntercomError as error:
        return error
    return None


def requests_of(answering, failures, use=create):
    """How often each request was sent that is accepted the second time, by its first failure."""
    sent = {}
    for name, failure in failures.items():
        call, transport = answering(failure, httpx.Response(202 if use is create else 200))
        error = outcome(call, use)
        if error is not None:
            assert error.tries == len(transport.requests), name
            assert error.may_have_been_processed or use is create, name
        assert len(call.clock.waits) == len(transport.requests) - 1, name
        sent[name] = len(transport.requests)
    return sent


def statuses(*numbers):
    return {number: httpx.Response(number) for number in numbers}


def problems(*kinds):
    return {kind.__name__: kind("no") for kind in kinds}


# What is retried.


def test_a_status_that_may_pass_is_retried_and_any_other_is_final(answering):
    assert requests_of(answering, statuses(*RETRIED)) == dict.fromkeys(RETRIED, 2)
    assert requests_of(answering, statuses(*FINAL)) == dict.fromkeys(FINAL, 1)


def test_a_final_status_is_the_error_of_its_first_attempt(answering):
    for status in FINAL:
        call, _ = answering(httpx.Response(status), ACCEPTED)

        error = raised(call)

        assert isinstance(error, APIStatusError), status
        assert (error.status_code, error.tries) == (status, 1)


def test_a_connection_that_fails_is_retried_unless_it_would_fail_the_same_way(answering):
    failing = problems(*NOT_SENT, *CUT_OFF)
    lasting = problems(httpx.UnsupportedProtocol, httpx.LocalProtocolError)

    assert requests_of(answering, failing) == dict.fromkeys(failing, 2)
    assert requests_of(answering, lasting) == dict.fromkeys(lasting, 1)


@pytest.mark.parametrize("max_retries", [0, 1, 4, 7, None])
def test_there_are_as_many_retries_as_are_allowed_by_default_four(answering, max_retries):
    call, transport = answering(httpx.Response(503))

    error = raised(call, **({} if max_retries is None else {"max_retries": max_retries}))

    retries = 4 if max_retries is None else max_retries
    assert type(error) is ServerError
    assert error.tries == len(transport.requests) == retries + 1
    assert len(call.clock.waits) == retries
    assert error.elapsed == pytest.approx(sum(call.clock.waits), abs=1e-6)
    if retries:
        assert f"tried {retries + 1} times in {error.elapsed:.1f} s" in str(error)
    else:
        assert "tried" not in str(error)


def test_one_call_can_have_other_limits(answering):
    call, transport = answering(httpx.Response(503))

    raised(call, lambda client: create(client.with_options(max_retries=1)))
    assert len(transport.requests) == 2
    raised(call, lambda client: create(client.with_options(deadline=0.001)))
    assert len(transport.requests) == 3


@pytest.mark.parametrize("use", [summary, lambda client: client.list(user_id="1")])
def test_a_question_is_asked_again(answering, use):
    found = httpx.Response(200, json={"type": "event.list", "events": []})
    call, transport = answering(httpx.ReadTimeout("slow"), httpx.Response(502), found)

    call(use)

    assert len(transport.requests) == 3


# What may have happened already.


def test_a_summary_that_may_have_been_added_is_not_added_again(answering):
    uncertain = {
        **statuses(*(status for status in RETRIED if status not in CERTAIN)),
        **problems(*CUT_OFF),
    }
    certain = {**statuses(*CERTAIN), **problems(*NOT_SENT)}

    assert requests_of(answering, uncertain, create_summary) == dict.fromkeys(uncertain, 1)
    assert requests_of(answering, certain, create_summary) == dict.fromkeys(certain, 2)


@pytest.mark.parametrize(
    ("tries", "possible"),
    [
        ([500, 404], True),
        ([429, 404], False),
        ([408, 401], True),
        ([httpx.ReadError("no"), 429, 422], True),
        ([httpx.ConnectError("no"), 404], False),
        ([httpx.ConnectError("no"), 524, httpx.ConnectError("no"), 404], True),
        ([404], False),
    ],
    ids=str,
)
def test_an_error_says_whether_any_try_may_have_been_processed(answering, tries, possible):
    answers = [httpx.Response(one) if isinstance(one, int) else one for one in tries]
    call, _ = answering(*answers)

    error = raised(call)

    assert isinstance(error, APIStatusError)
    assert error.may_have_been_processed is possible
    assert ("may have been processed" in str(error)) is possible
    assert error.tries == len(tries)


def test_a_token_function_that_fails_later_does_not_hide_what_came_before(call):
    emulator = Emulator(clock=call.clock, faults=[Fault.reset(processed=True)])

    def tokens():
        yield "token"
        raise httpx.ConnectError("no vault")

    each = tokens()
    error = raised(call, transport=emulator.transport(), access_token=lambda: next(each))

    assert type(error) is ConfigurationError
    assert (error.tries, error.may_have_been_processed) == (1, True)
    assert isinstance(error.__cause__, httpx.ConnectError)
    assert "may have been processed" in str(error)


@pytest.mark.parametrize(
    "elsewhere",
    [
        httpx.ConnectError("down", request=httpx.Request("POST", "https://metrics.example")),
        httpx.ConnectError("down"),
        httpx.HTTPStatusError(
            "429",
            request=httpx.Request("POST", "https://metrics.example"),
            response=httpx.Response(
                429, request=httpx.Request("POST", "https://metrics.example"),
                headers={"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "0",
                         "X-RateLimit-Reset": "1671028910"},
            ),
        ),
        httpx.InvalidURL("no"),
        ConnectionResetError("gone"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_a_hook_meets_elsewhere_says_nothing_of_the_request(call, elsewhere):
    emulator = Emulator(clock=call.clock)

    def hook(response):
        raise elsewhere

    own = call.http_client(transport=emulator.transport(), event_hooks={"response": [hook]})
    error = raised(call, create_summary, http_client=own)

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, True)
    assert emulator.counts.processed == 1


def test_metadata_that_is_changed_meanwhile_does_not_change_the_error(call):
    metadata = {"a": 1}
    event = Event("placed-order", user_id="1", metadata=metadata)
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(Fault.failing(500)))

    def hook(response):
        event.metadata["a"] = None

    own = call.http_client(transport=emulator.transport(), event_hooks={"response": [hook]})
    error = raised(call, lambda client: client.send(event), http_client=own, max_retries=0)

    assert type(error) is ServerError


@pytest.mark.parametrize("status", [302, 303, 499])
def test_whoever_only_stopped_waiting_has_not_refused(answering, status):
    call, _ = answering(httpx.Response(status))

    assert raised(call).may_have_been_processed


# How long it waits.


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "7, 7"}, 7),
        ({"Retry-After": "Wed, 14 Dec 2022 14:41:49 GMT"}, 9),
        # By the server's clock, not ours.
        (
            {
                "Retry-After": "Wed, 14 Dec 2022 15:00:05 GMT",
                "Date": "Wed, 14 Dec 2022 15:00:00 GMT",
            },
            5,
        ),
    ],
    ids=str,
)
def test_it_waits_as_long_as_the_answer_asks(answering, headers, seconds):
    for status in (429, 503):
        call, _ = answering(httpx.Response(status, headers=headers), ACCEPTED)

        call(create)

        assert sum(call.clock.waits) == seconds, status


@pytest.mark.parametrize("pace", [True, False])
def test_without_that_429_waits_until_the_window_resets(answering, pace):
    headers = {
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": f"{NOW + 6:.0f}",
    }
    call, _ = answering(httpx.Response(429, headers=headers), ACCEPTED)

    call(create, pace=pace)

    assert sum(call.clock.waits) == 6


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Retry-After": "soon"},
        {"Retry-After": ""},
        {"Retry-After": "nan"},
        {"Retry-After": "0"},
        {"Retry-After": "-4"},
        {"Retry-After": "Wed, 14 Dec 2022 14:41:31 GMT"},
        {"Retry-After": "٣"},
        {"X-RateLimit-Reset": "9" * 400},
        {"X-RateLimit-Reset": "-5"},
        {"X-RateLimit-Reset": "0"},
        {"X-RateLimit-Reset": "7200"},
        {"Retry-After": "Wed, 99 Dec 2022"},
    ],
    ids=str,
)
def test_without_either_it_waits_for_a_random_and_growing_time(answering, headers):
    bounds = [0.5, 1, 2, 4, 8, 16, 30, 30]
    waits = []
    for _ in range(12):
        answer = httpx.Response(
            429, headers=[(name, value.encode()) for name, value in headers.items()]
        )
        call, _ = answering(answer)
        raised(call, max_retries=8)
        waits.append(call.clock.waits)

    for bound, at_one_try in zip(bounds, zip(*waits, strict=True), strict=True):
        assert all(0 <= wait <= bound for wait in at_one_try)
        assert len(set(at_one_try)) > 6
        assert max(at_one_try) > 0.3 * bound


def test_however_many_retries_there_are_a_wait_is_thirty_seconds_at_most(answering):
    call, _ = answering(httpx.Response(503))

    error = raised(call, max_retries=1100, deadline=math.inf)

    assert error.tries == 1101
    assert max(call.clock.waits) <= 30
    # Random to the end.
    assert len(set(call.clock.waits[-20:])) > 10
    assert max(call.clock.waits[-20:]) > 15


def test_a_server_that_asks_for_years_is_waited_for_a_day_at_most(answering):
    call, _ = answering(httpx.Response(503, headers={"Retry-After": "9" * 30}), ACCEPTED)

    call(create, deadline=math.inf)

    assert call.clock.waits == [24 * 60 * 60]


# The deadline.


def test_a_wait_that_would_pass_the_deadline_is_not_begun(answering):
    call, transport = answering(httpx.Response(503, headers={"Retry-After": "60"}))

    error = raised(call, deadline=100)

    assert call.clock.waits == [60]
    assert (error.tries, len(transport.requests), error.elapsed) == (2, 2, 60)


def test_phases_of_ones_own_are_kept_within_the_deadline(answering):
    call, transport = answering(ACCEPTED)

    call(create, timeout=httpx.Timeout(None, connect=3, read=500), deadline=60)

    assert transport.requests[0].extensions["timeout"] == {
        "connect": 3, "read": 60, "write": 60, "pool": 60,
    }  # fmt: skip


# Whatever happens, in whatever order.


@attrs.frozen
class Step:
    """What one attempt meets."""

    answer: httpx.Response | Exception
    seconds: float


def responses():
    numbers = st.one_of(st.integers(-5, 200), st.floats(allow_nan=True)).map(str)
    stamps = st.integers(int(NOW) - 100, int(NOW) + 400).map(str)
    dates = st.sampled_from(["Wed, 14 Dec 2022 14:42:49 GMT", "Fri, 01 Jan 2100 00:00:00 GMT", "?"])
    headers = st.fixed_dictionaries(
        {},
        optional={
            "Retry-After": st.one_of(numbers, dates, st.text("0123456789.-e", max_size=9)),
            "X-RateLimit-Limit": numbers,
            "X-RateLimit-Remaining": st.one_of(numbers, st.just("0")),
            "X-RateLimit-Reset": st.one_of(stamps, numbers),
            "Date": dates,
            "Intercom-Version": st.just("1.0"),
        },
    )
    statuses = st.one_of(st.sampled_from(RETRIED), st.sampled_from(FINAL), st.just(202))
    return st.builds(
        lambda status, headers, content: httpx.Response(status, headers=headers, content=content),
        statuses,
        headers,
        st.sampled_from([b"", b"<html>", b'{"errors": [{"code": "x"}]}', b"\xff"]),
    )


STEPS = st.lists(
    st.builds(
        Step,
        st.one_of(responses(), st.sampled_from([*NOT_SENT, *CUT_OFF]).map(lambda kind: kind("no"))),
        st.floats(0, 20),
    ),
    min_size=1,
    max_size=8,
)


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers as it is written, and then with 503; each answer takes its time."""

    def __init__(self, steps, clock):
        self._steps = iter(steps)
        self._clock = clock
        self.met = []
        self.begun = []

    def handle_request(self, request):
        self.begun.append(self._clock.time())
        step = next(self._steps, Step(httpx.Response(503), 1))
        patience = request.extensions["timeout"]["read"]
        self._clock.advance(min(step.seconds, patience))
        answer = step.answer
        if step.seconds > patience:
            answer = httpx.ReadTimeout("slow")
        self.met.append(answer)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def handle_async_request(self, request):
        return self.handle_request(request)


def possibly(answer):
    if isinstance(answer, Exception):
        return not isinstance(answer, NOT_SENT)
    return not 400 <= answer.status_code < 500 or answer.status_code in (408, 444, 460, 499)


@given(
    steps=STEPS,
    verb=st.sampled_from([create, create_summary]),
    max_retries=st.integers(0, 6),
    deadline=st.one_of(st.floats(0.1, 200), st.just(120)),
    pace=st.booleans(),
)
def test_whatever_happens_ends_in_one_outcome_within_the_deadline(
    steps, verb, max_retries, deadline, pace
):
    for kind in (DataEventsClient, AsyncDataEventsClient):
        clock = ManualClock(NOW)
        script = Script(steps, clock)
        client = kind(
            "token", transport=script, clock=clock, max_retries=max_retries, deadline=deadline,
            pace=pace, timeout=15,
        )  # fmt: skip
        error = None
        try:
            if kind is DataEventsClient:
                verb(client)
            else:
                anyio.run(verb, client)
        except IntercomError as caught:
            error = caught
        ended = clock.monotonic()

        assert ended <= deadline + 0.001
        assert len(script.met) <= max_retries + 1
        assert all(begun - NOW < deadline for begun in script.begun)
        last = script.met[-1]
        if error is None:
            assert last.status_code == 202
        else:
            assert error.tries == len(script.met)
            assert error.elapsed == pytest.approx(ended, abs=0.001)
            # A 202 for a summary among them, whose body is no answer of Intercom's.
            assert error.may_have_been_processed is any(map(possibly, script.met))
            if isinstance(last, httpx.Response) and last.status_code in FINAL:
                assert error.status_code == last.status_code
            elif verb is create and (isinstance(last, Exception) or not last.headers):
                # It gave up because there were no more tries, or no time to wait for another.
                assert len(script.met) == max_retries + 1 or ended + 30 >= deadline
        if verb is create_summary:
            assert not any(possibly(one) for one in script.met[:-1])
        for one in script.met[:-1]:
            assert isinstance(one, Exception) or one.status_code in RETRIED


@given(seed=st.integers(0, 2**32), share=st.floats(0, 0.9))
def test_an_error_that_says_not_processed_is_never_wrong(seed, share):
    clock = ManualClock(NOW)
    faults = random_faults(share, seed=seed, among=FAULTS)
    emulator = Emulator(clock=clock, faults=faults, record=False)
    client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
    certain, unsure = set(), set()
    for number in range(20):
        try:
            client.create("placed-order", user_id=str(number), created_at=int(NOW) - number)
        except IntercomError as error:
            (unsure if error.may_have_been_processed else certain).add(str(number))

    stored = [event.user_id for event in emulator.events]
    assert len(stored) == len(set(stored))
    assert not certain & set(stored)
    assert {str(number) for number in range(20)} - certain - unsure <= set(stored)


def test_the_last_error_is_the_one_that_is_raised(answering):
    call, _ = answering(httpx.ReadTimeout("slow"), httpx.Response(503), httpx.Response(429))

    error = raised(call)

    assert type(error) is RateLimitError
    assert error.tries == 5
