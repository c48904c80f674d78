"""What a failure means: it is transient, permanent (one event's), or systemic (every event's).

One ordered rule, seen from whatever sends events: the clients' verbs, `create_many`, the tracker.
The Celery task's view of it is in tests/celery_task, that of `import` in tests/cli.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from typing import Any

import attrs
import httpx
import pytest
from callers import NOW, Caller, threads_and_tasks
from clocks import SteppedClock

from intercom_data_events import DataEventsClient, IntercomError, Outcome
from intercom_data_events.tracker import Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20

ACCEPTED = httpx.Response(202)
HTML = b"<html><h1>Not here</h1></html>"


def listed(*codes: str | None) -> bytes:
    """Intercom's own list of errors; None is an error without a code."""
    errors = [{"message": "No"} if code is None else {"code": code} for code in codes]
    return json.dumps({"type": "error.list", "request_id": "b3ae", "errors": errors}).encode()


SYSTEMIC_CODES = (
    "unauthorized",
    "token_revoked",
    "token_blocked",
    "token_not_found",
    "token_unauthorized",
    "token_expired",
    "missing_authorization",
    "action_forbidden",
    "forbidden",
    "api_plan_restricted",
    "intercom_version_invalid",
)
UNKNOWN = listed("some_code")

# Each answer as its status and its body.
TRANSIENT = [
    *((status, UNKNOWN) for status in (408, 425, 429, 444, 460, 499, *range(500, 600))),
    (408, HTML),
    (425, b""),
    (429, listed("rate_limit_exceeded")),
    (499, listed("forbidden")),
    (500, listed("intercom_version_invalid")),
    (501, b""),
    (503, listed("unauthorized")),
    (505, HTML),
    (511, b"sign in to this network"),
    (530, b'{"error": "1016"}'),
    (599, b""),
]
SYSTEMIC = [
    # By their code, whatever the status.
    *((400, listed(code)) for code in SYSTEMIC_CODES),
    *((422, listed(code)) for code in SYSTEMIC_CODES),
    (402, listed("api_plan_restricted")),
    (403, listed("api_plan_restricted")),
    (404, listed("token_not_found")),
    (409, listed("forbidden")),
    (410, listed("token_expired")),
    (413, listed("action_forbidden")),
    (418, listed("token_blocked")),
    (302, listed("unauthorized")),
    (400, listed("some_code", "unauthorized")),
    (404, listed(None, "token_revoked")),
    # By their status, whatever the code.
    *((status, UNKNOWN) for status in (401, 402, 403, 405, 406, 407, 410, 418, 421, 431, 451)),
    *((status, b"") for status in (300, 301, 302, 303, 304, 307, 308, 401, 402, 403)),
    *((status, HTML) for status in (302, 401, 403, 405, 406, 407, 410, 415, 421, 451, 498)),
    (410, b""),
    # As they are not in Intercom's words.
    *((status, HTML) for status in (400, 404, 409, 413, 422)),
    (422, b"null"),
    (422, b'{"error": "no"}'),
    (422, b'{"errors": []}'),
    *((status, b"") for status in (400, 404, 409, 413)),
    (404, b"404 page not found"),
    (400, b"\xff\xfe\x00"),
    (400, b"[" * 100_000),
    (400, b"null"),
    (404, b"[]"),
    (404, b'[{"code": "not_found"}]'),
    (404, b'{"message": "no Route matched with those values"}'),
    (404, b'{"errors": {"code": "not_found"}}'),
    (404, b'{"errors": "not_found"}'),
    (409, b'{"errors": null}'),
    (409, b'{"errors": ["conflict", 5]}'),
    (413, b'{"error": "Request Entity Too Large"}'),
]
PERMANENT = [
    *((status, UNKNOWN) for status in (400, 404, 409, 413, 422)),
    (400, listed("parameter_invalid")),
    (400, listed("type_mismatch", "parameter_not_found")),
    (400, listed(None)),
    (404, listed("not_found")),
    (404, b'{"errors": [{"code": "not_found"}]}'),
    (409, listed("conflict")),
    (422, listed("data_invalid")),
    (422, b""),
    (422, b" \n"),
]
# One of each kind, for what takes longer to test.
SYSTEMIC_FEW = [
    (401, listed("unauthorized")),
    (402, listed("api_plan_restricted")),
    (403, listed("api_plan_restricted")),
    (400, listed("unauthorized")),
    (422, listed("token_revoked")),
    (404, HTML),
    (404, b'{"message": "no Route matched"}'),
    (405, HTML),
    (406, HTML),
    (407, HTML),
    (302, b""),
    (410, b""),
    (421, b""),
    (451, UNKNOWN),
]


def few(backend: str) -> list[tuple[int, bytes]]:
    """Systemic answers: what is decided does not depend on the driver, so tasks meet fewer."""
    return SYSTEMIC_FEW if backend == "blocking" else SYSTEMIC_FEW[::4]


def response(answer: tuple[int, bytes]) -> httpx.Response:
    status, body = answer
    return httpx.Response(status, content=body)


class Deciding(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Answers each event by its name, its person, and how often it was sent; 202 for None."""

    def __init__(self, decide: Any) -> None:
        self._decide = decide
        self._lock = threading.Lock()
        #: Whom requests were about, in their order, and the status that they were answered with.
        self.asked: list[tuple[str, int]] = []
        self.times = Counter[str]()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        event = json.loads(request.content)
        with self._lock:
            self.times[event["user_id"]] += 1
            answer = self._decide(event, self.times[event["user_id"]])
            found = ACCEPTED if answer is None else response(answer)
            self.asked.append((event["user_id"], found.status_code))
        return httpx.Response(found.status_code, content=found.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


def event(number: int, **fields: object) -> dict[str, object]:
    """One event of its own person."""
    return {
        "event_name": "placed-order", "user_id": str(number), "created_at": NOW - 1000 + number,
        **fields,
    }  # fmt: skip


@attrs.frozen
class Ended:
    """What came of `create_many`: its outcomes by their places, and the error that ended it."""

    outcomes: dict[int, Outcome]
    error: IntercomError | None
    asked: list[tuple[str, int]]

    @property
    def statuses(self) -> list[str]:
        return [one.status for _, one in sorted(self.outcomes.items())]

    def times(self, number: int) -> int:
        return sum(user == str(number) for user, _ in self.asked)


def send_many(backend: str, decide: Any, events: Any, *, client: Any = (), **bounds: Any) -> Ended:
    transport = Deciding(decide)
    outcomes: dict[int, Outcome] = {}

    async def go(found: Any) -> None:
        async for one in found:
            outcomes[one.position] = one

    def use(client: Any) -> Any:
        found = client.create_many(events, **bounds)
        if backend != "blocking":
            return go(found)
        for one in found:
            outcomes[one.position] = one
        return None

    error = None
    try:
        Caller(backend, {"transport": transport})(use, **dict(client))
    except IntercomError as caught:
        error = caught
    return Ended(outcomes, error, transport.asked)


def only(number: int, answer: tuple[int, bytes], times: float = float("inf")) -> Any:
    """Answers so to one person's event, as often as that; 202 to all others."""

    def decide(event: dict[str, str], nth: int) -> tuple[int, bytes] | None:
        return answer if event["user_id"] == str(number) and nth <= times else None

    return decide


def create(client: Any) -> Any:
    return client.create("placed-order", user_id="1")


def create_summary(client: Any) -> Any:
    return client.create_summary(
        user_id="1", event_name="invited-friend", count=3, first=1389913941, last=1671028894
    )


# One event.


def attempts(answering: Any, answer: tuple[int, bytes], use: Any, last: int) -> int:
    """How often a request is sent that is answered so once, and well the next time."""
    call, transport = answering(response(answer), httpx.Response(last))
    with contextlib.suppress(IntercomError):
        call(use)
    assert len(call.clock.waits) == len(transport.requests) - 1, answer
    return len(transport.requests)


def test_a_transient_failure_is_retried_and_any_other_is_raised_at_once(answering):
    retried = {answer for answer in TRANSIENT if attempts(answering, answer, create, 202) == 2}
    final = {
        answer
        for answer in [*SYSTEMIC, *PERMANENT]
        if attempts(answering, answer, create, 202) == 1
    }

    assert set(TRANSIENT) - retried == set()
    assert {*SYSTEMIC, *PERMANENT} - final == set()


def test_a_transient_failure_is_raised_after_the_last_attempt(answering):
    for answer in TRANSIENT[::7]:
        call, transport = answering(response(answer))

        with pytest.raises(IntercomError) as caught:
            call(create, max_retries=2)

        assert (caught.value.tries, len(transport.requests)) == (3, 3), answer
        assert caught.value.status_code == answer[0]


def test_a_summary_is_repeated_only_where_it_was_certainly_not_processed(answering):
    refusing = {answer for answer in TRANSIENT if answer[0] in (425, 429)}
    for answer in [*TRANSIENT, *SYSTEMIC_FEW, *PERMANENT]:
        sent = attempts(answering, answer, create_summary, 200)

        assert sent == (2 if answer in refusing else 1), answer


# Many events.


def test_a_single_event_shows_which_kind_an_answer_is():
    """It is refused for a permanent failure, fails for a transient, and raises a systemic one."""
    kinds = {"permanent": PERMANENT, "transient": TRANSIENT[::5], "systemic": SYSTEMIC}
    for kind, answers in kinds.items():
        for answer in answers:
            ended = send_many(
                "blocking", lambda *_, answer=answer: answer, [event(0)], client={"max_retries": 2}
            )
            if kind == "systemic":
                assert ended.error is not None, (kind, answer)
                assert ended.error.status_code == answer[0]
                assert ended.outcomes == {}
                assert len(ended.asked) <= 2
                continue
            assert ended.error is None, (kind, answer)
            status, sent = {"permanent": ("refused", 1), "transient": ("failed", 3)}[kind]
            assert (ended.statuses, len(ended.asked)) == ([status], sent), (kind, answer)
            assert ended.outcomes[0].error.status_code == answer[0]


@threads_and_tasks
def test_a_systemic_failure_of_every_event_stops_create_many_and_refuses_none(backend):
    for answer in few(backend):
        for number, concurrency in ((2, 1), (3, 8), (5, 1), (200, 1), (200, 8)):
            ended = send_many(
                backend, lambda *_, answer=answer: answer, map(event, range(number)),
                concurrency=concurrency,
            )  # fmt: skip

            case = answer, number, concurrency
            assert ended.error is not None, case
            assert ended.error.status_code == answer[0], case
            assert ended.outcomes == {}, case
            assert len(ended.asked) <= 4 + concurrency, case
            assert max(Counter(ended.asked).values()) <= 2, case


@threads_and_tasks
def test_a_systemic_failure_stops_it_too_after_others_were_accepted(backend):
    for answer in few(backend):
        ended = send_many(
            backend,
            lambda event, _, answer=answer: answer if int(event["user_id"]) >= 20 else None,
            map(event, range(200)),
            # So few that those in flight are not accepted after it in such a number that it would
            # be an event that alone gets it.
            concurrency=2,
        )

        assert ended.error is not None, answer
        assert ended.error.status_code == answer[0]
        assert set(ended.statuses) == {"accepted"}, answer
        assert max(ended.outcomes) < 20
        # That the last event is accepted may be known only after three that are not: then it is
        # four after that, and one in flight beside the fourth.
        assert len(ended.asked) <= 20 + 3 + 4 + 1, answer


def test_a_systemic_failure_stops_it_too_where_all_events_are_of_one_person():
    for answer in SYSTEMIC_FEW:
        events = [event(number, user_id="1") for number in range(20)]

        ended = send_many("blocking", lambda *_, answer=answer: answer, events)

        assert ended.error is not None, answer
        assert ended.outcomes == {}
        assert len(ended.asked) <= 4, answer


@threads_and_tasks
def test_one_event_that_alone_gets_a_systemic_answer_is_refused_at_its_second(backend):
    for answer in few(backend):
        for bad, number, concurrency in ((0, 4, 1), (0, 30, 1), (3, 30, 1), (3, 200, 8)):
            ended = send_many(
                backend, only(bad, answer), map(event, range(number)), concurrency=concurrency
            )

            case = answer, bad, number, concurrency
            assert ended.error is None, case
            expected = ["accepted"] * number
            expected[bad] = "refused"
            assert ended.statuses == expected, case
            assert ended.outcomes[bad].error.status_code == answer[0], case
            assert ended.times(bad) == 2, case
            assert len(ended.asked) == number + 1, case
            if concurrency == 1:
                # Three others were accepted in between.
                first = ended.asked.index((str(bad), answer[0]))
                second = ended.asked.index((str(bad), answer[0]), first + 1)
                assert second - first > 3, case


def test_an_event_has_failed_where_fewer_than_three_others_were_accepted_after_it():
    for answer in SYSTEMIC_FEW:
        for bad, number in ((0, 2), (0, 3), (5, 7), (5, 8), (5, 6)):
            ended = send_many(
                "blocking", only(bad, answer), map(event, range(number)), concurrency=1
            )

            assert ended.error is None, (answer, bad, number)
            expected = ["accepted"] * number
            expected[bad] = "failed"
            assert ended.statuses == expected, (answer, bad, number)
            assert ended.outcomes[bad].error.status_code == answer[0]
            assert ended.times(bad) == 2, (answer, bad, number)


@threads_and_tasks
def test_an_event_that_got_a_systemic_answer_once_is_accepted(backend):
    for answer in few(backend):
        for bad, number in ((0, 2), (0, 30), (3, 30), (28, 30)):
            ended = send_many(
                backend, only(bad, answer, times=1), map(event, range(number)), concurrency=2
            )

            assert ended.error is None, (answer, bad, number)
            assert ended.statuses == ["accepted"] * number, (answer, bad, number)
            assert ended.times(bad) == 2


def test_two_events_that_get_systemic_answers_stop_no_other():
    for first, second in ((5, 6), (5, 20)):

        def decide(event, nth, bad=(str(first), str(second))):
            return (402, listed("api_plan_restricted")) if event["user_id"] in bad else None

        ended = send_many("blocking", decide, map(event, range(40)), concurrency=1)

        assert ended.error is None
        expected = ["accepted"] * 40
        expected[first] = expected[second] = "refused"
        assert ended.statuses == expected
        assert (ended.times(first), ended.times(second)) == (2, 2)


@threads_and_tasks
def test_later_events_of_its_person_wait_behind_it(backend):
    def decide(event, nth):
        return (404, HTML) if event["event_name"] == "odd" else None

    events = [event(0, event_name="odd"), event(1, user_id="0"), *map(event, range(2, 12))]
    ended = send_many(backend, decide, events, concurrency=4)

    assert ended.statuses == ["refused"] + ["accepted"] * 11
    assert [status for user, status in ended.asked if user == "0"] == [404, 404, 202]


def test_a_permanent_failure_is_refused_at_once_and_stops_no_other():
    for answer in PERMANENT:
        ended = send_many("blocking", only(2, answer), map(event, range(6)), concurrency=1)

        assert ended.error is None, answer
        assert ended.statuses == ["accepted"] * 2 + ["refused"] + ["accepted"] * 3, answer
        assert len(ended.asked) == 6, answer


@pytest.mark.costly
@pytest.mark.parametrize(
    ("backend", "odd"),
    [("blocking", lambda number: number == 0), ("asyncio", lambda number: True)],
    ids=["threads, only the first", "tasks, all"],
)
def test_a_backlog_of_one_person_behind_a_systemic_answer_holds_up_nothing(backend, odd):
    """More than are held at once wait behind it."""
    events = [event(number, user_id="0") for number in range(10_100)]
    sent = Counter[int]()

    def decide(event, nth):
        number = event["created_at"] - NOW + 1000
        sent[number] += 1
        return (402, listed("api_plan_restricted")) if odd(number) else None

    ended = send_many(backend, decide, events)

    assert max(sent.values()) <= 2
    if odd(1):
        assert (ended.error.status_code, ended.outcomes) == (402, {})
        assert len(sent) == 4
    else:
        assert ended.error is None
        assert Counter(ended.statuses) == {"accepted": 10_099, "refused": 1}


def test_later_events_of_a_person_go_ahead_where_there_are_no_others():
    for first in ((403, HTML), (400, listed("unauthorized"))):
        events = [event(number, user_id="0") for number in range(6)]
        met = []

        def decide(event, nth, first=first, met=met):
            met.append(event["created_at"] - NOW + 1000)
            return first if met[-1] == 0 else None

        ended = send_many("blocking", decide, events)

        assert ended.error is None
        assert ended.statuses == ["refused"] + ["accepted"] * 5
        assert met == [0, 1, 2, 3, 4, 5, 0] or met == [0, 1, 2, 3, 0, 4, 5]


def test_several_events_at_the_end_are_failed_where_others_were_accepted():
    def decide(event, nth):
        return (404, HTML) if int(event["user_id"]) >= 7 else None

    ended = send_many("blocking", decide, map(event, range(10)), concurrency=1)

    assert ended.error is None
    assert ended.statuses == ["accepted"] * 7 + ["failed"] * 3


def test_a_hook_that_raises_for_a_status_changes_no_class(answering):
    """As httpx's own documentation has it; the body is not read then."""

    def of(answer):
        def raise_for_status(response):
            response.raise_for_status()

        def handle(request):
            return response(answer)

        http = httpx.Client(
            transport=httpx.MockTransport(handle), event_hooks={"response": [raise_for_status]}
        )
        with DataEventsClient("token", http_client=http) as client:
            return [one.status for one in client.create_many(map(event, range(6)))]

    for answer in ((404, listed("not_found")), (400, UNKNOWN), (409, listed("conflict"))):
        assert of(answer) == ["refused"] * 6, answer
    for answer in ((401, listed("unauthorized")), (402, b""), (405, HTML)):
        with pytest.raises(IntercomError):
            of(answer)


def test_a_success_that_lists_a_systemic_code_is_systemic():
    ended = send_many("blocking", lambda *_: (200, listed("token_revoked")), map(event, range(20)))

    assert (ended.error.response.status_code, ended.outcomes) == (200, {})


def test_a_message_says_what_to_do_where_an_answer_is_not_intercoms(answering):
    for status, body, advice in (
        (405, HTML, "check the base URL, the region and any proxy"),
        (407, HTML, "check the base URL, the region and any proxy"),
        (404, HTML, "nothing at this address; check the base URL"),
        (400, listed("unauthorized"), "the access token is missing, wrong or revoked"),
        (422, listed("token_expired"), "the access token is missing, wrong or revoked"),
        (403, listed("api_plan_restricted"), "plan does not include this request"),
        (403, HTML, "may come from another server or a proxy"),
        (200, HTML, "the body is not JSON, so the answer is not from Intercom"),
        (200, b"\xff\xfe\x00", "the body is not JSON, so the answer is not from Intercom"),
    ):
        call, _ = answering(response((status, body)))
        with pytest.raises(IntercomError) as caught:
            call(lambda client: client.create("placed-order", user_id="1"))

        assert advice in str(caught.value), (status, body)


# The tracker.


def test_nothing_is_sent_again_after_a_tracker_was_closed():
    answered = threading.Semaphore(0)

    def decide(event, nth):
        answered.release()
        return 503, b""

    transport = Deciding(decide)
    clock = SteppedClock(NOW)
    others = {*threading.enumerate()}
    with DataEventsClient("token", transport=transport, clock=clock) as client:
        tracker = Tracker(client)
        tracker.track("placed-order", user_id="1")
        assert answered.acquire(timeout=PATIENCE)
        assert not tracker.close(0)
        asked = len(transport.asked)
        # What waited for its next attempt ends, as time passes.
        eventually(lambda: clock.advance(60) or {*threading.enumerate()} <= others)

        assert len(transport.asked) == asked == 1


def eventually(holds: Any) -> None:
    """Waits until something is so."""
    ends = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.002)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_tracker_keeps_events_through_a_systemic_failure(kind, tmp_path):
    given = []
    for number, answer in enumerate(SYSTEMIC_FEW):
        away = [True]
        transport = Deciding(lambda *_, answer=answer, away=away: answer if away else None)
        clock = SteppedClock(NOW)
        outbox = None if kind == "memory" else tmp_path / str(number)
        with (
            DataEventsClient("token", transport=transport, clock=clock) as client,
            Tracker(client, outbox, on_error=lambda *found: given.append(found)) as tracker,
        ):
            for user in range(3):
                tracker.track("placed-order", user_id=str(user))
            eventually(lambda tracker=tracker: tracker.counters.failing or tracker.counters.refused)
            for _ in range(3):
                # It waits longer and longer, which may begin only after time has passed.
                asked = len(transport.asked)
                eventually(
                    lambda tracker=tracker, asked=asked, transport=transport, clock=clock: (
                        clock.advance(5) or len(transport.asked) > asked or tracker.counters.refused
                    )
                )

            counters = tracker.counters
            assert (counters.queued, counters.refused, counters.dropped) == (3, 0, 0), answer
            assert counters.failing.status_code == answer[0]
            away.clear()
            # An answer that was in flight may have begun another pause.
            eventually(
                lambda tracker=tracker, clock=clock: clock.advance(5) or tracker.counters.sent == 3
            )
            assert (tracker.counters.sent, tracker.counters.failing) == (3, None), answer

        arrived = {user for user, status in transport.asked if status == 202}
        assert arrived == {"0", "1", "2"}, answer
    assert given == []
