"""A tracker gives no event up for what every event gets, and one that alone gets it in the end.

Answers such as 402, 404 in HTML or 407 are not about an event, as long as others get them, too.
"""

from __future__ import annotations

import contextlib
import itertools

import anyio
import pytest
from callers import NOW
from simulation import HTML, gaps, listed, simulated, stepped, track, track_now, until

from intercom_data_events import (
    APIStatusError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
)
from intercom_data_events.outbox._queue import OutboxQueue as Outbox

HOUR = 3600
#: How many other events have to be accepted before it is about the one that gets it.
OTHERS = 3
#: Seconds after which an event that failed often is attempted again, at most, and a little more.
LONGEST_DELAY = 700

# What is sent to nobody's address, or without a right to: what a proxy or Intercom answers.
ANSWERS = {
    "401": ((401, listed("unauthorized")), AuthenticationError),
    "402": ((402,), APIStatusError),
    "403 api_plan_restricted": ((403, listed("api_plan_restricted")), PermissionDeniedError),
    "404 in HTML": ((404, HTML), NotFoundError),
    "407": ((407, HTML), APIStatusError),
    "421": ((421,), APIStatusError),
    "302": ((302, b"", {"Location": "https://example.com/sign-in"}), APIStatusError),
}
each_answer = pytest.mark.parametrize(("answer", "kind"), ANSWERS.values(), ids=ANSWERS)
#: Those that one event alone may get, from a firewall for example.
FEW = {name: ANSWERS[name] for name in ("404 in HTML", "407", "403 api_plan_restricted")}
a_few = pytest.mark.parametrize(("answer", "kind"), FEW.values(), ids=FEW)

POISONED = ANSWERS["404 in HTML"][0]


def poisoned(event, now):
    """Answers as a proxy does that dislikes some events."""
    marked = event["user_id"].startswith("poison") or event["event_name"] == "poison"
    return POISONED if marked else None


def is_given_up(run, *, users=("poison",), kind=NotFoundError, status=404):
    """Whether that became of these users' events, and of no others."""
    assert sorted(run.users_told.elements()) == sorted(users)
    assert {(type(error), error.status_code) for _, error in run.told} == {(kind, status)}
    return True


def is_proved(run, event):
    """Whether it was attempted once more after others had been accepted, and hardly more often."""
    first, *others = run.server.of(event)
    proofs = [one for one in others if run.server.accepted_between(first, one) >= OTHERS]
    assert 1 <= len(proofs) <= 3
    return proofs[-1] is others[-1]


# What every event gets.


@each_answer
def test_what_every_event_gets_is_waited_for_and_no_event_is_given_up(answer, kind):
    users = [f"user {number}" for number in range(5)]

    async def use(run):
        await track(run, *users)
        await anyio.sleep(HOUR - 1)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent) == (5, 0)
        assert (counters.refused, counters.dropped) == (0, 0)
        assert (type(counters.failing), counters.failing.status_code) == (kind, answer[0])
        assert run.told == []
        await anyio.sleep(90)
        assert (run.tracker.counters.sent, run.tracker.counters.failing) == (5, None)

    run = simulated(use, lambda event, now: answer if now < HOUR else None)

    assert run.users_stored == users
    assert run.told == []
    # Several may be in flight when it begins; then one at a time finds out whether it is over.
    assert max(number for at, number in run.server.in_flight if 1 < at < HOUR) == 1


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_attempts_grow_apart_up_to_half_a_minute(event_loop):
    async def use(run):
        await track(run, *range(5))
        await anyio.sleep(HOUR)

    run = simulated(use, lambda event, now: (402,), event_loop=event_loop, close_timeout=0)

    waits = gaps(one.at for one in run.server.attempts if 1 < one.at < HOUR)
    assert waits[:3] == sorted(waits[:3])
    assert max(waits) <= 30 + 1.1
    # Up to a quarter less, so that not all come back at once.
    assert min(waits[6:]) >= 0.75 * 30
    assert len(waits) >= HOUR / 35


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_attempts_are_of_different_contacts_in_turn(event_loop):
    async def use(run):
        for number in range(8):
            await track(run, "first", created_at=NOW + number)
        await track(run, "second", "third", "fourth", "fifth")
        await anyio.sleep(HOUR)
        assert run.tracker.counters.queued == 12

    run = simulated(
        use, lambda event, now: (402,), event_loop=event_loop, concurrency=1, close_timeout=0
    )  # fmt: skip

    asked = [one.user for one in run.server.attempts]
    assert len(asked) > 50
    again = [second for first, second in itertools.pairwise(asked) if first == second]
    assert again == []
    assert set(asked[:12]) == {"first", "second", "third", "fourth", "fifth"}


def test_events_of_one_contact_are_attempted_again_where_there_is_no_other():
    async def use(run):
        for number in range(3):
            await track(run, "only", created_at=NOW + number)
        await anyio.sleep(HOUR)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (3, 0)

    run = simulated(use, lambda event, now: (407, HTML) if now < HOUR else None)

    assert len([one for one in run.server.attempts if one.at < HOUR]) >= HOUR / 35
    # What is left as it is closed is sent then.
    assert len(run.emulator.events) == 3


def test_events_that_wait_for_the_same_are_all_sent_once_it_is_over():
    """Also those that got it themselves: that others are accepted then says nothing about them."""

    async def use(run):
        for number in range(100):
            await track(run, number)
            await anyio.sleep(10)
        await anyio.sleep(60)
        assert (run.tracker.counters.sent, run.tracker.counters.failing) == (100, None)

    # Three times, so that there are events which got it, and others that were accepted after that.
    run = simulated(
        use, lambda event, now: (401, listed("unauthorized")) if now % 400 < 200 else None
    )

    assert run.users_stored == sorted(str(number) for number in range(100))
    assert run.told == []


@pytest.mark.parametrize("kind_of_queue", ["memory", "file"])
def test_threads_wait_for_what_every_event_gets(kind_of_queue, tmp_path):
    users, away = list("abcde"), [True]
    outbox = None if kind_of_queue == "memory" else tmp_path / "outbox"
    with stepped(lambda event, now: (402,) if away else None, outbox=outbox, concurrency=1) as run:
        for number in range(6):
            track_now(run, "a", created_at=NOW + number)
        track_now(run, *"bcde")
        run.until(lambda: len(run.server.attempts) >= 16)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (10, 0, 0)
        assert counters.failing.status_code == 402
        asked = [one.user for one in run.server.attempts][:16]
        away.clear()
        run.until(lambda: run.tracker.counters.sent == 10)
        assert run.tracker.counters.failing is None

    assert all(first != second for first, second in itertools.pairwise(asked)), asked
    assert set(asked) == set(users)
    assert run.told == []


# What one event gets alone.


@a_few
def test_an_event_that_alone_gets_it_is_given_up(answer, kind):
    async def use(run):
        await track(run, "poison")
        for number in range(30):
            await anyio.sleep(5)
            await track(run, number)
        await anyio.sleep(5)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 30, 1)
        assert counters.failing is None

    run = simulated(use, lambda event, now: answer if event["user_id"] == "poison" else None)

    assert is_given_up(run, kind=kind, status=answer[0])
    assert is_proved(run, "poison")
    assert run.told_at[0] < 90
    # It holds up the others for a while at most, and then no longer.
    delays = [run.server.of(str(n))[0].at - 5 * (n + 1) for n in range(30)]
    assert max(delays) < 20
    assert max(delays[18:]) < 0.1


def test_under_trio_it_is_given_up_likewise():
    async def use(run):
        await track(run, "poison", *range(10))
        await anyio.sleep(120)
        await track(run, *range(10, 20))
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (20, 1)

    run = simulated(use, poisoned, event_loop="trio")

    assert is_given_up(run)
    assert is_proved(run, "poison")


@pytest.mark.parametrize("kind_of_queue", ["memory", "file"])
def test_threads_give_it_up_likewise(kind_of_queue, tmp_path):
    outbox = None if kind_of_queue == "memory" else tmp_path / "outbox"
    with stepped(poisoned, outbox=outbox) as run:
        track_now(run, "poison")
        run.until(lambda: run.tracker.counters.failing)
        track_now(run, *range(10))
        run.until(lambda: run.told and run.tracker.counters.queued == 0)
        counters = run.tracker.counters
        assert (counters.sent, counters.refused, counters.dropped) == (10, 1, 0)

    assert is_given_up(run)
    assert is_proved(run, "poison")
    if outbox is not None:
        with contextlib.closing(Outbox(outbox)) as box:
            (letter,) = box.dead_letters()
        assert (letter.event["user_id"], letter.error) == ("poison", "NotFoundError")
        assert letter.status == 404


def test_tasks_with_an_outbox_give_it_up_likewise(tmp_path):
    async def use(run):
        await track(run, "poison", *range(10))
        await anyio.sleep(90)
        await track(run, *range(10, 20))
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (20, 1)

    run = simulated(use, poisoned, outbox=tmp_path / "outbox")

    assert is_given_up(run)
    assert is_proved(run, "poison")
    with contextlib.closing(Outbox(tmp_path / "outbox")) as box:
        assert [(one.event["user_id"], one.status) for one in box.dead_letters()] == [
            ("poison", 404)
        ]


def test_an_event_that_there_is_no_other_beside_is_never_given_up():
    async def use(run):
        await track(run, "poison")
        await anyio.sleep(HOUR)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused) == (1, 0)
        assert counters.failing.status_code == 404
        assert run.told == []
        # It is attempted all the time, and given up as soon as others show that it is its own.
        assert len(run.server.attempts) > 50
        await track(run, *range(5))
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (5, 1)

    assert is_given_up(simulated(use, poisoned))


@pytest.mark.parametrize("apart", [0, 10])
def test_it_takes_three_others(apart):
    async def use(run):
        await track(run, "poison")
        await anyio.sleep(1)
        for number in range(OTHERS - 1):
            await track(run, number)
            await anyio.sleep(apart)
        await anyio.sleep(HOUR)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (1, OTHERS - 1, 0)
        assert run.told == []
        await track(run, "one more")
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    run = simulated(use, poisoned)

    assert is_given_up(run)
    first, *_, last = run.server.of("poison")
    assert run.server.accepted_between(first, last) == OTHERS


def test_others_that_were_accepted_before_are_no_proof():
    async def use(run):
        await track(run, *range(10))
        await anyio.sleep(10)
        await track(run, "poison")
        await anyio.sleep(HOUR)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (1, 0)
        await track(run, *range(10, 10 + OTHERS))
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    assert is_given_up(simulated(use, poisoned))


def test_others_that_are_refused_are_no_proof():
    """Three others have to be accepted: that is what shows that events arrive."""

    async def use(run):
        await track(run, "poison")
        for number in range(10):
            await anyio.sleep(30)
            await track(run, f"wrong {number}")
        await anyio.sleep(HOUR)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (1, 10)
        assert "poison" not in run.users_told
        await track(run, *range(OTHERS))
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 11)
        assert run.users_told["poison"] == 1

    def decide(event, now):
        wrong = event["user_id"].startswith("wrong")
        return (422, listed("parameter_invalid")) if wrong else poisoned(event, now)

    simulated(use, decide)


def test_others_that_are_accepted_while_it_is_in_flight_are_no_proof():
    """Perhaps its request was answered by a proxy that has been set right since."""
    attempts = itertools.count()

    async def use(run):
        await track(run, "poison")
        await until(lambda: run.server.of("poison"))
        await track(run, *range(OTHERS - 1))
        await until(lambda: run.server.asked.count("poison") == 2)
        assert run.tracker.counters.sent == OTHERS - 1
        await track(run, *range(10, 15))
        await until(lambda: len(run.server.of("poison")) == 2)
        assert run.tracker.counters.sent == OTHERS - 1 + 5
        await anyio.sleep(LONGEST_DELAY)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    run = simulated(
        use,
        poisoned,
        # The second answer takes its time.
        latency=lambda event: 5 if event["user_id"] == "poison" and next(attempts) == 1 else 0.01,
    )

    assert is_given_up(run)
    assert is_proved(run, "poison")
    assert len(run.server.of("poison")) >= 3


def test_of_several_each_is_given_up_and_all_others_arrive():
    users = [f"poison {n // 20}" if n % 20 == 7 else str(n) for n in range(100)]

    async def use(run):
        for user in users:
            await track(run, user)
            await anyio.sleep(1)
        await anyio.sleep(LONGEST_DELAY)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 95, 5)

    run = simulated(use, poisoned)

    assert is_given_up(run, users=[f"poison {n}" for n in range(5)])
    assert all(is_proved(run, f"poison {n}") for n in range(5))
    assert run.users_stored == sorted(user for user in users if "poison" not in user)
    delays = [run.server.of(user)[0].at - n for n, user in enumerate(users)]
    assert max(delays) < 20
    assert sorted(delays)[70] < 0.5


def test_several_that_come_first_and_at_once_are_given_up_too():
    async def use(run):
        await track(run, *(f"poison {n}" for n in range(10)))
        await anyio.sleep(60)
        assert run.tracker.counters.refused == 0
        for number in range(60):
            await track(run, number)
            await anyio.sleep(5)
        await anyio.sleep(LONGEST_DELAY)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 60, 10)

    run = simulated(use, poisoned)

    assert is_given_up(run, users=[f"poison {n}" for n in range(10)])
    delays = [run.server.of(str(n))[0].at - 60 - 5 * n for n in range(60)]
    # Until the first of the others has shown that it is not about every event.
    assert max(delays) < 60
    assert max(delays[30:]) < 5


@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_of_a_contacts_events_is_given_up_and_its_others_arrive(place):
    async def use(run):
        for number in range(10):
            name = "poison" if number == place else "placed-order"
            await track(run, "one", name=name, created_at=NOW + number)
        await anyio.sleep(5)
        # As many others as may be needed after it was the last one of them.
        for number in range(10, 15):
            await track(run, "one", created_at=NOW + number)
        await anyio.sleep(LONGEST_DELAY)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 14, 1)

    run = simulated(use, poisoned, concurrency=1)

    ((event, error),) = run.told
    assert (event.event_name, error.status_code) == ("poison", 404)
    assert is_proved(run, "poison")
    assert len(run.emulator.events) == 14


@pytest.mark.parametrize("place", [0, 10, 20])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_of_many_at_once_it_is_given_up_wherever_it_is(place, concurrency):
    users = [str(number) for number in range(20)]
    users.insert(place, "poison")

    async def use(run):
        await track(run, *users)
        await anyio.sleep(HOUR)
        counters = run.tracker.counters
        assert (counters.sent, counters.queued + counters.refused) == (20, 1)
        await track(run, *range(20, 25))
        await anyio.sleep(LONGEST_DELAY)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 25, 1)

    run = simulated(use, poisoned, concurrency=concurrency)

    assert is_given_up(run)
    assert is_proved(run, "poison")


def test_the_next_process_gives_it_up_too(tmp_path):
    async def first(run):
        await track(run, "poison", 1, 2)
        await anyio.sleep(20)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (2, 0)

    async def second(run):
        for number in range(3, 23):
            await track(run, number)
            await anyio.sleep(5)
        await anyio.sleep(LONGEST_DELAY)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 20, 1)

    outbox = tmp_path / "outbox"
    run = simulated(first, poisoned, outbox=outbox)
    assert run.told == []
    with contextlib.closing(Outbox(outbox)) as box:
        assert [fields["user_id"] for fields in box.waiting()] == ["poison"]
    run = simulated(second, poisoned, outbox=outbox)

    assert is_given_up(run)
    assert is_proved(run, "poison")
    with contextlib.closing(Outbox(outbox)) as box:
        assert [one.event["user_id"] for one in box.dead_letters()] == ["poison"]
        assert box.status().queued == 0


def test_an_event_that_got_it_once_is_sent():
    answers = iter([POISONED])

    async def use(run):
        await track(run, "unlucky")
        for number in range(20):
            await anyio.sleep(5)
            await track(run, number)
        await anyio.sleep(60)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (21, 0)

    run = simulated(
        use, lambda event, now: next(answers, None) if event["user_id"] == "unlucky" else None
    )  # fmt: skip

    assert run.told == []
    assert [one.status for one in run.server.of("unlucky")] == [404, 202]


def test_what_passes_does_not_make_it_be_given_up():
    """A proof is an attempt that gets such an answer again, not one that gets no answer."""
    answers = iter([(407, HTML), (503,), (503,), (503,)])

    async def use(run):
        await track(run, "unlucky")
        for number in range(40):
            await anyio.sleep(5)
            await track(run, number)
        await anyio.sleep(60)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (41, 0)

    run = simulated(
        use, lambda event, now: next(answers, None) if event["user_id"] == "unlucky" else None
    )  # fmt: skip

    assert run.told == []


def test_a_flush_ends_once_it_is_given_up():
    async def use(run):
        await track(run, "poison", *range(10))
        assert await run.tracker.flush(300)
        assert is_given_up(run)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (0, 10, 1)

    run = simulated(use, poisoned, concurrency=1)

    assert is_proved(run, "poison")


def test_a_flush_does_not_give_up_what_may_be_about_every_event():
    async def use(run):
        await track(run, *range(OTHERS - 1), "poison")
        assert not await run.tracker.flush(60)
        assert run.tracker.counters.refused == 0
        assert run.tracker.counters.queued == 1

    simulated(use, poisoned, close_timeout=0)
