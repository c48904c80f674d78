"""What fails for the time being is tried again, within a deadline, where that does no harm."""

from __future__ import annotations

import itertools
import math

import anyio
import attrs
import httpx
import pytest
from clocks import EventLoopClock, run_in_no_time
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    Event,
    IntercomError,
    InvalidResponseError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from intercom_data_events.emulator import FAULTS, Emulator, Fault, ManualClock, random_faults

NOW = 1_671_028_900.0
ACCEPTED = httpx.Response(202)
RETRIED = (408, 429, 500, 502, 503, 504, *range(520, 528))
FINAL = (300, 302, 307, 400, 401, 402, 403, 404, 405, 409, 410, 413, 418, 422, 425, 431, 451,
         501, 505, 507, 511, 519, 528, 530, 599)  # fmt: skip
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


# What is tried again.


@pytest.mark.parametrize("status", RETRIED)
def test_a_status_that_may_pass_is_tried_again(answering, status):
    call, transport = answering(httpx.Response(status), ACCEPTED)

    call(create)

    assert len(transport.requests) == 2
    assert len(call.clock.waits) == 1


@pytest.mark.parametrize("status", FINAL)
def test_any_other_status_is_final(answering, status):
    call, transport = answering(httpx.Response(status), ACCEPTED)

    error = raised(call)

    assert isinstance(error, APIStatusError)
    assert (error.status_code, error.tries, len(transport.requests)) == (status, 1, 1)
    assert call.clock.waits == []


@pytest.mark.parametrize("problem", [*NOT_SENT, *CUT_OFF])
def test_a_connection_that_fails_is_tried_again(answering, problem):
    call, transport = answering(problem("no"), ACCEPTED)

    call(create)

    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    "problem", [httpx.UnsupportedProtocol("what"), httpx.LocalProtocolError("we do not say this")]
)
def test_what_would_fail_the_same_way_is_not_tried_again(answering, problem):
    call, transport = answering(problem, ACCEPTED)

    error = raised(call)

    assert (type(error), error.tries, len(transport.requests)) == (APIConnectionError, 1, 1)


def test_every_try_is_the_same_request(answering):
    call, transport = answering(httpx.Response(503), httpx.ReadError("no"), ACCEPTED)

    call(create)

    first, *others = transport.requests
    for request in others:
        assert request is not first
        assert (request.method, request.url, request.content) == (
            first.method, first.url, first.content,
        )  # fmt: skip
        assert request.headers == first.headers


def test_every_try_asks_for_the_token_anew(answering):
    call, transport = answering(httpx.Response(503), httpx.Response(503), ACCEPTED)
    tokens = (f"token-{number}" for number in itertools.count())

    call(create, access_token=lambda: next(tokens))

    assert [request.headers["authorization"] for request in transport.requests] == [
        "Bearer token-0", "Bearer token-1", "Bearer token-2",
    ]  # fmt: skip


@pytest.mark.parametrize("max_retries", [0, 1, 4, 7])
def test_there_are_as_many_retries_as_are_allowed(answering, max_retries):
    call, transport = answering(httpx.Response(503))

    error = raised(call, max_retries=max_retries)

    assert type(error) is ServerError
    assert error.tries == len(transport.requests) == max_retries + 1
    assert len(call.clock.waits) == max_retries
    assert error.elapsed == pytest.approx(sum(call.clock.waits), abs=1e-6)
    if max_retries:
        assert f"tried {max_retries + 1} times in {error.elapsed:.1f} s" in str(error)
    else:
        assert "tried" not in str(error)


def test_four_retries_are_allowed_by_default(answering):
    call, transport = answering(httpx.Response(503))

    raised(call)

    assert len(transport.requests) == 5


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


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, *range(520, 528)])
def test_a_summary_that_may_have_been_added_is_not_added_again(answering, status):
    call, transport = answering(httpx.Response(status), httpx.Response(200))

    error = raised(call, create_summary)

    assert len(transport.requests) == 1
    assert error.may_have_been_processed
    assert error.tries == 1


@pytest.mark.parametrize("problem", CUT_OFF)
def test_a_summary_is_not_added_again_after_the_connection_was_cut(answering, problem):
    call, transport = answering(problem("no"), httpx.Response(200))

    error = raised(call, create_summary)

    assert len(transport.requests) == 1
    assert error.may_have_been_processed


@pytest.mark.parametrize(
    "failure", [httpx.Response(429), *(problem("no") for problem in NOT_SENT)], ids=repr
)
def test_a_summary_that_was_certainly_not_added_is_tried_again(answering, failure):
    call, transport = answering(failure, httpx.Response(200))

    call(create_summary)

    assert len(transport.requests) == 2


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


def hooked(call, emulator, function):
    """Connections of the caller's own, with a hook that sees every answer."""

    async def awaited(response):
        function(response)

    return call.http_client(
        transport=emulator.transport(),
        event_hooks={"response": [function if call.backend == "blocking" else awaited]},
    )


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

    error = raised(call, create_summary, http_client=hooked(call, emulator, hook))

    assert type(error) is APIConnectionError
    assert (error.tries, error.may_have_been_processed) == (1, True)
    assert emulator.counts.processed == 1


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


@pytest.mark.parametrize("problem", [ConnectionResetError("gone"), TimeoutError("late")])
def test_what_httpx_leaves_as_the_systems_own_error_is_one_of_the_connection(answering, problem):
    call, transport = answering(problem, ACCEPTED)

    call(create)

    assert len(transport.requests) == 2
    call, transport = answering(problem)
    assert raised(call).tries == 5
    assert not isinstance(raised(call, create_summary, max_retries=0), APIStatusError)


def test_metadata_that_is_changed_meanwhile_does_not_change_the_error(call):
    metadata = {"a": 1}
    event = Event("placed-order", user_id="1", metadata=metadata)
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(Fault.failing(500)))

    def hook(response):
        event.metadata["a"] = None

    error = raised(
        call, lambda client: client.send(event), http_client=hooked(call, emulator, hook),
        max_retries=0,
    )  # fmt: skip

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
@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_the_answer_asks(answering, status, headers, seconds):
    call, _ = answering(httpx.Response(status, headers=headers), ACCEPTED)

    call(create)

    assert sum(call.clock.waits) == seconds


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
        {"X-RateLimit-Reset": "5"},
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


def test_a_try_gets_what_is_left_of_the_deadline(answering):
    call, transport = answering(httpx.Response(503, headers={"Retry-After": "60"}), ACCEPTED)

    call(create, deadline=70)

    assert [request.extensions["timeout"]["read"] for request in transport.requests] == [30, 10]


def test_phases_of_ones_own_are_kept_within_the_deadline(answering):
    call, transport = answering(ACCEPTED)

    call(create, timeout=httpx.Timeout(None, connect=3, read=500), deadline=60)

    assert transport.requests[0].extensions["timeout"] == {
        "connect": 3, "read": 60, "write": 60, "pool": 60,
    }  # fmt: skip


# httpx leaves generators of its own to the collector here, which trio reports.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("deadline", [5, 50])
def test_a_trickling_answer_is_cut_off_in_time(call, deadline):
    clock = call.clock
    emulator = Emulator(clock=clock, faults=itertools.repeat(Fault.trickling(0.75)))

    error = raised(call, transport=emulator.transport(), deadline=deadline, timeout=20)

    assert type(error) is APITimeoutError
    assert error.may_have_been_processed
    assert deadline - 3 < error.elapsed <= deadline + 1
    assert error.tries == {5: 1, 50: 3}[deadline]
    assert emulator.counts.stored == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("part", ["head", "body of a failure"])
def test_awaiting_a_server_that_says_nothing_more_ends_at_the_deadline(backend, part):
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            if part == "head":
                await anyio.sleep_forever()
            return httpx.Response(503, stream=Endless())

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"It is "
            await anyio.sleep_forever()

    async def main():
        clock = EventLoopClock(NOW)
        client = AsyncDataEventsClient(
            "token", transport=Silent(), clock=clock, deadline=40, timeout=httpx.Timeout(None)
        )
        with pytest.raises(IntercomError) as caught:
            await create(client)
        return caught.value, clock.time() - NOW

    error, seconds = run_in_no_time(main, backend)

    assert 40 <= seconds <= 40.1
    assert type(error) is (APITimeoutError if part == "head" else ServerError)
    if part != "head":
        assert error.response.content == b"It is "


# Bodies.


@pytest.mark.parametrize("status", [404, 503])
def test_a_failure_whose_body_is_cut_short_is_still_that_failure(call, status):
    fault = Fault(name="cut", status=status, body=b'{"errors": [', connection="cut")
    emulator = Emulator(clock=call.clock, faults=itertools.repeat(fault))

    error = raised(call, transport=emulator.transport())

    assert type(error) is {404: NotFoundError, 503: ServerError}[status]
    assert error.response.content == b'{"erro'
    assert error.tries == {404: 1, 503: 5}[status]


class Flood(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body without end."""

    sent = 0

    def __iter__(self):
        while True:
            self.sent += 1
            yield b" " * 2**20

    async def __aiter__(self):
        for part in self:
            yield part


# httpx leaves generators of its own to the collector here, which trio reports.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("status", "kind", "mebibytes"), [(200, InvalidResponseError, 65), (404, NotFoundError, 2)]
)
def test_a_body_without_end_is_not_read_to_it(calling, status, kind, mebibytes):
    flood = Flood()
    call = calling(httpx.MockTransport(lambda _: httpx.Response(status, stream=flood)))

    error = raised(call, summary)

    assert type(error) is kind
    assert flood.sent <= mebibytes
    assert error.tries == 1


# Whatever happens.


@attrs.frozen
class Step:
    """What one try meets."""

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


def outcome(error):
    if error is None:
        return None
    return type(error), getattr(error, "status_code", None), error.may_have_been_processed


def possibly(answer):
    if isinstance(answer, Exception):
        return not isinstance(answer, NOT_SENT)
    return not 400 <= answer.status_code < 500 or answer.status_code == 408


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
            # A 202 for a summary among them, which is answered with 200.
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


def test_a_token_function_that_fails_is_not_tried_again(answering):
    call, transport = answering(ACCEPTED)

    def token():
        raise httpx.ConnectError("no vault")

    assert type(raised(call, access_token=token)) is ConfigurationError
    assert transport.requests == []
    assert call.clock.waits == []
