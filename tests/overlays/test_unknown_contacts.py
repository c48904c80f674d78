"""A tracker waits for a contact that Intercom does not know yet, while other events pass.

Observed: a contact that was just created is unknown to /events for a second or more: 404 with the
code not_found in Intercom's own list of errors, then 202.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter

import anyio
import httpx
import pytest
from callers import NOW, Answers, threads_and_tasks
from simulation import (
    HTML,
    NOT_FOUND,
    gaps,
    listed,
    simulated,
    stepped,
    track,
    track_now,
)

from intercom_data_events import (
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    Event,
    NotFoundError,
    NotSentError,
)
from intercom_data_events.emulator import EmulatedContact
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Seconds for which a tracker waits for a contact, unless it is told otherwise.
USUALLY = 120
#: Seconds between two attempts, at most.
LONGEST_WAIT = 60

each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
each_kind_of_queue = pytest.mark.parametrize("kind_of_queue", ["memory", "file"])


@pytest.fixture
def outbox(kind_of_queue, tmp_path):
    return None if kind_of_queue == "memory" else tmp_path / "outbox"


def contacts(*users):
    return [EmulatedContact(user_id=str(user)) for user in users]


def unknown_until(seconds):
    """Answers as Intercom does before it knows a contact called new."""
    return lambda event, now: NOT_FOUND if event["user_id"] == "new" and now < seconds else None


def unknown(event, now):
    """Answers as Intercom does that never comes to know contacts called new."""
    return NOT_FOUND if event["user_id"].startswith("new") else None


def is_refused(run, *users):
    """Whether on_error was called for these users' events alone, with Intercom's answer."""
    assert sorted(run.users_told.elements()) == sorted(users)
    assert all(type(error) is NotFoundError for _, error in run.told)
    assert all(error.codes == ("not_found",) for _, error in run.told)
    return True


# A contact that becomes known.


@each_event_loop
def test_an_event_of_a_new_contact_is_sent_once_the_contact_is_known(event_loop):
    async def use(run):
        await track(run, "new", name="signed-up")
        await anyio.sleep(1.5)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused, counters.failing) == (1, 0, None)
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        await anyio.sleep(10)
        assert (run.tracker.counters.queued, run.tracker.counters.sent) == (0, 1)

    run = simulated(use, event_loop=event_loop, emulator={"contacts": []})

    assert run.users_stored == ["new"]
    assert run.told == []
    # The attempts are soon in the beginning, but are not in a row.
    assert 2 <= len(run.server.attempts) <= 5


@pytest.mark.parametrize("identity", ["user_id", "email", "id"])
def test_it_is_so_by_whatever_the_contact_is_named(identity):
    contact = {identity: "frodo@example.com" if identity == "email" else "0123456789abcdef01234567"}

    async def use(run):
        await run.tracker.track("signed-up", **contact)
        await anyio.sleep(1.5)
        run.emulator.add_contact(EmulatedContact(**contact))
        await anyio.sleep(10)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    run = simulated(use, emulator={"contacts": []})

    assert run.told == []


def test_it_is_so_with_an_outbox(tmp_path):
    async def use(run):
        await track(run, "new", name="signed-up")
        await anyio.sleep(20)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    run = simulated(use, unknown_until(1.5), outbox=tmp_path / "outbox")

    assert run.told == []
    with contextlib.closing(Outbox(tmp_path / "outbox")) as box:
        assert list(box.dead_letters()) == []


@each_kind_of_queue
def test_threads_send_it_once_the_contact_is_known(outbox):
    with stepped(outbox=outbox, emulator={"contacts": []}) as run:
        track_now(run, "new", name="signed-up")
        run.until(lambda: len(run.server.attempts) >= 2 or run.told, step=0.05)
        assert run.told == []
        assert run.tracker.counters.failing is None
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        run.until(lambda: run.tracker.counters.sent or run.told, step=0.05)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 0)

    assert run.told == []
    assert run.users_stored == ["new"]


def test_each_attempt_is_of_the_time_at_which_it_was_tracked():
    async def use(run):
        await track(run, "new", name="signed-up", metadata={"plan": "pro"})
        await anyio.sleep(60)

    run = simulated(use, unknown_until(20))

    first, *others = [one.event for one in run.server.attempts]
    assert len(others) >= 3
    assert others == [first] * len(others)
    assert {"created_at", "metadata"} <= first.keys()


def test_all_events_of_a_new_contact_are_sent():
    async def use(run):
        for number in range(20):
            await track(run, "new", created_at=NOW + number)
            await anyio.sleep(1)
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        await anyio.sleep(40)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (20, 0)

    run = simulated(use, emulator={"contacts": []})

    assert len(run.emulator.events) == 20


# How long it waits.


def refused_after(run, event="new"):
    """Seconds from the first answer of this kind until it was said that it is refused."""
    return run.told_at[0] - run.server.of(event)[0].at


@each_event_loop
def test_an_event_is_refused_after_two_minutes(event_loop):
    async def use(run):
        await track(run, "new")
        await anyio.sleep(USUALLY - 1)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused, counters.failing) == (1, 0, None)
        await anyio.sleep(LONGEST_WAIT + 5)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused, counters.failing) == (0, 1, None)

    run = simulated(use, event_loop=event_loop, emulator={"contacts": []})

    assert is_refused(run, "new")
    assert refused_after(run) >= USUALLY


def test_waits_between_attempts_grow():
    async def use(run):
        await track(run, "new")
        await anyio.sleep(300)

    run = simulated(use, unknown)

    waits = gaps(one.at for one in run.server.attempts)
    assert 4 <= len(waits) <= 20
    assert waits[0] <= 5
    # The last one may be cut short by the end of it all; each is up to a quarter less.
    for earlier, later in itertools.pairwise(waits[:-1]):
        assert later >= 0.74 * earlier
    assert max(waits) >= 4 * waits[0]
    assert max(waits) <= LONGEST_WAIT + 1.1


@pytest.mark.parametrize("seconds", [5, 30.5, 600])
def test_how_long_it_waits_can_be_told(seconds):
    async def use(run):
        await track(run, "new")
        await anyio.sleep(seconds * 0.95)
        assert run.told == []
        await anyio.sleep(seconds + LONGEST_WAIT)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    run = simulated(use, unknown, unknown_contact_patience=seconds)

    assert is_refused(run, "new")
    assert refused_after(run) >= seconds


def test_a_contact_that_becomes_known_late_is_waited_for():
    async def use(run):
        await track(run, "new")
        await anyio.sleep(USUALLY + LONGEST_WAIT + 5)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    assert simulated(use, unknown_until(USUALLY - 5)).told == []


@each_kind_of_queue
def test_without_patience_an_event_is_refused_at_once(outbox):
    with stepped(unknown, outbox=outbox, unknown_contact_patience=0) as run:
        track_now(run, 1, "new", 2)
        assert run.tracker.flush(20)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (2, 1)

    assert is_refused(run, "new")
    assert len(run.server.of("new")) == 1


def test_under_an_event_loop_too_it_is_refused_at_once_without_patience():
    async def use(run):
        await track(run, 1, "new", 2)
        await anyio.sleep(0.5)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (2, 1)

    run = simulated(use, unknown, unknown_contact_patience=0)

    assert is_refused(run, "new")
    assert len(run.server.of("new")) == 1


@each_kind_of_queue
def test_threads_refuse_it_after_that_time(outbox):
    with stepped(unknown, outbox=outbox, unknown_contact_patience=30) as run:
        track_now(run, "new")
        run.until(lambda: run.told)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    assert is_refused(run, "new")
    assert refused_after(run) >= 30
    assert len(run.server.attempts) >= 3
    if outbox is not None:
        with contextlib.closing(Outbox(outbox)) as box:
            (letter,) = box.dead_letters()
        assert (letter.event["user_id"], letter.error, letter.status) == (
            "new",
            "NotFoundError",
            404,
        )


def test_the_time_begins_with_each_events_own_first_answer():
    async def use(run):
        await track(run, "new", name="first")
        await anyio.sleep(100)
        await track(run, "new", name="second")
        await anyio.sleep(400)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 2)

    run = simulated(use, unknown)

    at = {event.event_name: at for (event, _), at in zip(run.told, run.told_at, strict=True)}
    assert USUALLY <= at["first"] <= USUALLY + LONGEST_WAIT + 5
    assert 100 + USUALLY <= at["second"] <= 100 + USUALLY + LONGEST_WAIT + 5


def test_the_time_does_not_begin_while_it_waits_for_anything_else():
    async def use(run):
        await track(run, "new")
        await anyio.sleep(1000)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    def decide(event, now):
        if now < 500:
            return (402,)
        return NOT_FOUND if now < 600 else None

    assert simulated(use, decide).told == []


def test_an_outage_in_between_refuses_nothing():
    async def use(run):
        await track(run, "new")
        await anyio.sleep(1200)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    def decide(event, now):
        if now < 10:
            return NOT_FOUND
        return (503,) if now < 300 else None

    assert simulated(use, decide).told == []


@threads_and_tasks
def test_a_patience_that_makes_no_sense_is_named(backend):
    kinds = (DataEventsClient, Tracker)
    if backend != "blocking":
        kinds = (AsyncDataEventsClient, AsyncTracker)
    client = kinds[0]("token", transport=Answers(httpx.Response(202)))
    for value in (-1, -0.001, math.nan, True, False, "x", "5", None, [], b"1"):
        with pytest.raises(ConfigurationError, match="unknown_contact_patience"):
            kinds[1](client, unknown_contact_patience=value)


# Other events.


def test_other_contacts_events_pass_meanwhile_at_once():
    async def use(run):
        await track(run, *(f"new {n}" for n in range(50)))
        for number in range(150):
            await track(run, number)
            await anyio.sleep(1)
            assert run.tracker.counters.failing is None
        await anyio.sleep(100)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (150, 50)

    run = simulated(use, unknown)

    assert is_refused(run, *(f"new {n}" for n in range(50)))
    delays = [run.server.of(str(n))[0].at - n for n in range(150)]
    assert max(delays) < 0.5


def test_events_of_a_new_contact_are_sent_at_once_as_ever():
    """That many of the last events were of unknown contacts is not taken for an outage."""

    async def use(run):
        await track(run, *(f"new {n}" for n in range(100)))
        await anyio.sleep(5)
        assert run.tracker.counters.failing is None

    run = simulated(use, unknown, concurrency=10, close_timeout=0)

    firsts = [run.server.of(f"new {n}")[0].at for n in range(100)]
    assert max(firsts) < 1
    assert max(number for _, number in run.server.in_flight) >= 5


def test_an_unknown_contact_shows_that_an_outage_is_over():
    async def use(run):
        await track(run, *(f"new {n}" for n in range(5)))
        await anyio.sleep(50)
        assert run.tracker.counters.failing is not None
        await anyio.sleep(50)
        assert run.tracker.counters.failing is None
        await track(run, 1)
        await anyio.sleep(0.5)
        assert run.tracker.counters.sent == 1

    simulated(use, lambda event, now: (503,) if now < 60 else unknown(event, now), close_timeout=0)


def test_such_attempts_use_a_quarter_of_the_quota_at_most():
    quota, window, new = 40, 10, 60
    # Together with a quarter, that is nearly all of it.
    rate = 0.7 * quota / window
    at = {str(number): 30 + number / rate for number in range(int(200 * rate))}

    async def use(run):
        await track(run, *(f"new {n}" for n in range(new)))
        # At first, the attempts are not known to be in vain.
        await anyio.sleep(30)
        for user, begins in at.items():
            await anyio.sleep(max(0, begins - run.now))
            await track(run, user)
        assert run.tracker.counters.failing is None
        await anyio.sleep(60)

    run = simulated(
        use,
        emulator={"rate_limit": quota, "window": window, "contacts": contacts(*at)},
        close_timeout=0,
        unknown_contact_patience=180,
    )

    assert run.emulator.counts.limited == 0
    again, seen = Counter(), set()
    for one in sorted(run.server.attempts, key=lambda one: one.begun):
        if one.user in seen:
            again[math.floor((NOW + one.at) / window)] += 1
        seen.add(one.user)
    assert max(again.values()) <= quota / 4
    # They are attempted all the time nevertheless, and each is refused in the end.
    assert len(again) >= 10
    assert is_refused(run, *(f"new {n}" for n in range(new)))
    assert max(run.server.of(user)[0].at - begins for user, begins in at.items()) < 1


def test_a_new_contact_among_many_unknown_ones_is_not_forgotten():
    """Though there is less quota for them than they could use, it is every event's turn."""

    async def use(run):
        await track(run, *(f"new {n}" for n in range(40)), "soon")
        await anyio.sleep(20)
        run.emulator.add_contact(EmulatedContact(user_id="soon"))
        await anyio.sleep(USUALLY - 22)
        assert run.tracker.counters.sent == 1

    run = simulated(use, emulator={"rate_limit": 40, "contacts": []}, close_timeout=0)

    assert run.server.accepted() == ["soon"]


# Flushing and closing.


@each_event_loop
def test_a_flush_sends_at_once_what_waits_for_its_contact(event_loop):
    took = []

    async def use(run):
        await track(run, "new")
        await anyio.sleep(80)
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        begun = run.now
        assert await run.tracker.flush(100)
        took.append(run.now - begun)
        assert run.tracker.counters.sent == 1

    simulated(use, event_loop=event_loop, emulator={"contacts": []})

    assert took[0] < 1


def test_a_flush_waits_until_the_contact_is_known():
    took = []

    async def use(run):
        await track(run, "new")
        assert await run.tracker.flush(60)
        took.append(run.now)
        assert run.tracker.counters.sent == 1

    run = simulated(use, unknown_until(5))

    assert run.told == []
    assert 5 <= took[0] < 20


def test_a_flush_ends_in_time_and_what_waits_stays_queued():
    async def use(run):
        await track(run, "new", 1)
        assert not await run.tracker.flush(20)
        assert run.now == pytest.approx(20, abs=1.1)
        counters = run.tracker.counters
        assert (counters.queued, counters.sent, counters.refused) == (1, 1, 0)
        assert run.told == []
        assert len(run.server.of("new")) >= 3
        await anyio.sleep(USUALLY)
        await anyio.sleep(LONGEST_WAIT)
        assert run.tracker.counters.refused == 1

    assert is_refused(simulated(use, unknown), "new")


def test_a_flush_without_a_time_limit_ends_as_it_is_refused():
    async def use(run):
        await track(run, "new")
        assert await run.tracker.flush()
        assert USUALLY <= run.now <= USUALLY + LONGEST_WAIT + 5
        assert is_refused(run, "new")

    simulated(use, unknown)


@each_kind_of_queue
def test_threads_flush_what_waits_for_its_contact(outbox):
    known = {"contacts": [EmulatedContact(user_id="known")]}
    with stepped(outbox=outbox, emulator=known, concurrency=1) as run:
        track_now(run, "new", "known")
        # The answer to the first one has been taken in, too.
        run.until(lambda: run.tracker.counters.sent == 1, step=0)
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        # Time stands still.
        assert run.tracker.flush(20)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (2, 0)

    assert run.told == []


@each_event_loop
def test_closing_makes_one_last_attempt_for_each(event_loop):
    users = [f"new {n}" for n in range(5)]
    before, took = [], []

    async def use(run):
        await track(run, *users)
        await anyio.sleep(30)
        before.append(len(run.server.attempts))
        begun = run.now
        await run.tracker.aclose()
        took.append(run.now - begun)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused + counters.dropped) == (0, 5)

    run = simulated(use, unknown, event_loop=event_loop, close_timeout=60)

    last = sorted(run.server.attempts, key=lambda one: one.begun)[before[0] :]
    assert sorted(one.user for one in last) == users
    # There is nothing to wait for then, and each is told once.
    assert took[0] < 5
    assert sorted(run.users_told.elements()) == users
    assert {type(error) for _, error in run.told} <= {NotFoundError, NotSentError}


def test_the_last_attempt_may_find_the_contact_known():
    async def use(run):
        await track(run, "new", "never")
        await anyio.sleep(40)
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        await run.tracker.aclose()
        assert (run.tracker.counters.queued, run.tracker.counters.sent) == (0, 1)

    run = simulated(use, emulator={"contacts": []})

    assert run.users_stored == ["new"]
    assert run.users_told == {"never": 1}


def test_what_is_tracked_just_before_closing_is_attempted_too():
    async def use(run):
        await track(run, "new", "known", "never")
        run.emulator.add_contact(EmulatedContact(user_id="new"))
        await run.tracker.aclose()
        assert (run.tracker.counters.queued, run.tracker.counters.sent) == (0, 2)

    run = simulated(use, emulator={"contacts": contacts("known")})

    assert run.users_stored == ["known", "new"]
    assert run.users_told == {"never": 1}
    assert 1 <= len(run.server.of("never")) <= 2


def test_closing_takes_no_longer_than_it_may_where_the_quota_is_used_up():
    took = []

    async def use(run):
        await track(run, *(f"new {n}" for n in range(30)))
        await anyio.sleep(60)
        begun = run.now
        await run.tracker.aclose()
        took.append(run.now - begun)
        assert run.tracker.counters.queued == 0

    run = simulated(use, emulator={"rate_limit": 10, "contacts": []}, close_timeout=5)

    assert took[0] <= 5.1
    assert run.users_told == {f"new {n}": 1 for n in range(30)}


@each_kind_of_queue
def test_threads_make_one_last_attempt_as_they_are_closed(outbox):
    with stepped(unknown, outbox=outbox, concurrency=1) as run:
        track_now(run, "new", 1)
        run.until(lambda: len(run.server.of("new")) >= 2 and run.tracker.counters.sent)
        before = len(run.server.of("new"))
        # The one worker has that answer taken in before it sends another event.
        track_now(run, 2)
        run.until(lambda: run.tracker.counters.sent == 2, step=0)
        # Time stands still, but for that which closing may take.
        run.tracker.close(20)
        assert len(run.server.of("new")) == before + 1

    if outbox is None:
        assert run.users_told == {"new": 1}
        return
    assert run.told == []
    with contextlib.closing(Outbox(outbox)) as box:
        assert [fields["user_id"] for fields in box.waiting()] == ["new"]
        assert box.status().claimed == 0


def test_what_waits_in_an_outbox_is_left_for_the_next_process(tmp_path):
    outbox = tmp_path / "outbox"
    counts = []

    async def first(run):
        await track(run, "new")
        await anyio.sleep(10)
        counts.append(len(run.server.attempts))
        begun = run.now
        await run.tracker.aclose()
        assert run.now - begun < 20
        counts.append(len(run.server.attempts))

    async def second(run):
        assert run.tracker.counters.queued == 1
        await anyio.sleep(90)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (1, 0)

    run = simulated(first, unknown, outbox=outbox, close_timeout=60)
    assert run.told == []
    assert counts[1] == counts[0] + 1
    with contextlib.closing(Outbox(outbox)) as box:
        assert (box.status().queued, list(box.dead_letters())) == (1, [])
    run = simulated(second, unknown_until(2), outbox=outbox)

    assert run.told == []
    assert run.users_stored == ["new"]


def test_the_next_process_refuses_it_in_the_end(tmp_path):
    outbox = tmp_path / "outbox"

    async def first(run):
        await track(run, "new")
        await anyio.sleep(5)

    async def second(run):
        await anyio.sleep(USUALLY + LONGEST_WAIT + 30)
        assert (run.tracker.counters.queued, run.tracker.counters.refused) == (0, 1)

    assert simulated(first, unknown, outbox=outbox).told == []
    run = simulated(second, unknown, outbox=outbox)

    assert is_refused(run, "new")
    with contextlib.closing(Outbox(outbox)) as box:
        assert [(one.event["user_id"], one.status) for one in box.dead_letters()] == [("new", 404)]


# What is something else.


def test_a_404_that_is_not_in_intercoms_words_is_about_every_event():
    async def use(run):
        await track(run, "new 1", "new 2")
        await anyio.sleep(300)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused) == (2, 0)
        assert isinstance(counters.failing, NotFoundError)
        assert run.told == []

    for body in (HTML, b"", b"not_found", b'{"code": "not_found"}'):
        simulated(use, lambda event, now, body=body: (404, body), close_timeout=0)


@pytest.mark.parametrize(
    "answer",
    [
        (404, listed("company_not_found")),
        (404, listed("x")),
        (422, listed("not_found")),
        (400, listed("not_found")),
    ],
    ids=str,
)
def test_another_code_or_status_is_refused_at_once(answer):
    async def use(run):
        await track(run, 1, "new", 2)
        await anyio.sleep(0.5)
        assert (run.tracker.counters.sent, run.tracker.counters.refused) == (2, 1)

    run = simulated(use, lambda event, now: answer if event["user_id"] == "new" else None)

    assert run.users_told == {"new": 1}
    assert len(run.server.of("new")) == 1


def test_a_code_of_the_token_beside_it_is_about_every_event():
    async def use(run):
        await track(run, 1, 2)
        await anyio.sleep(300)
        counters = run.tracker.counters
        assert (counters.queued, counters.refused) == (2, 0)
        assert "token_revoked" in counters.failing.codes

    answer = 404, listed("not_found", "token_revoked")
    simulated(use, lambda event, now: answer, close_timeout=0)


def test_create_and_create_many_wait_for_no_contact():
    transport = Answers(httpx.Response(404, content=listed("not_found")))
    with DataEventsClient("token", transport=transport) as client:
        with pytest.raises(NotFoundError):
            client.create("signed-up", user_id="new")
        assert len(transport.requests) == 1
        (outcome,) = client.create_many([Event("signed-up", user_id="new", created_at=NOW)])

    assert (outcome.status, type(outcome.error)) == ("refused", NotFoundError)
    assert len(transport.requests) == 2
