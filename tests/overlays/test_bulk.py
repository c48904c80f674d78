"""Many events: one outcome each, in order for each person, bounded, adapting, never stopping."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import itertools
import json
import math
import os
import random
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from callers import NOW, Answers, Caller, Refusing, every_driver, threads_and_tasks
from clocks import EventLoopClock, run_in_no_time
from hypothesis import given, settings
from hypothesis import strategies as st

from intercom_data_events import (
    AsyncDataEventsClient,
    AuthenticationError,
    Clock,
    ConfigurationError,
    DataEventsClient,
    Event,
    InvalidInputError,
    NotFoundError,
    Outcome,
    PermissionDeniedError,
    ServerError,
)
from intercom_data_events.bulk import Concurrency, check_many
from intercom_data_events.emulator import (
    EmulatedContact,
    Emulator,
    EmulatorServer,
    Fault,
    ManualClock,
    random_faults,
)
from profiles import scaled


def event(number: int, **fields: object) -> dict[str, object]:
    """One event of its own person and second."""
    return {
        "event_name": "placed-order",
        "user_id": str(number),
        "created_at": NOW - 1000 + number % 1000,
        **fields,
    }


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [one.status for one in sorted(outcomes, key=lambda one: one.position)]


def checked(events: list[dict[str, object]]) -> list[Outcome]:
    """What would become of events."""

    async def read() -> Any:
        for one in events:
            yield one

    async def main() -> list[Outcome]:
        return [one async for one in check_many(read())]

    return anyio.run(main)


def many(call: Caller, events: Any, **bounds: Any) -> list[Outcome]:
    return list(call(lambda client: client.create_many(events, **bounds)))


@every_driver
def test_each_event_has_one_outcome_with_its_place_in_the_input(call, emulator):
    given_ = [event(number) for number in range(250)]

    outcomes = many(call, given_)

    assert sorted(one.position for one in outcomes) == list(range(250))
    assert statuses(outcomes) == ["accepted"] * 250
    assert all(one.item is given_[one.position] for one in outcomes)
    assert all(one.event == Event.from_dict(given_[one.position]) for one in outcomes)
    assert len(emulator.events) == 250


def test_events_and_mappings_can_be_mixed(call, emulator):
    outcomes = many(call, [Event("left", user_id="1"), event(2), event(3, metadata={"a": 1})])

    assert statuses(outcomes) == ["accepted"] * 3
    assert [one.metadata for one in emulator.events if one.user_id == "3"] == [{"a": 1}]


@every_driver
def test_nothing_is_no_outcome(call, emulator):
    assert many(call, []) == []
    assert not emulator.requests


def test_what_cannot_be_an_event_is_refused_and_stops_nothing(call, emulator):
    outcomes = many(
        call, [event(0), {"event_name": "left"}, event(2, metadata={"a": [1]}), event(3)]
    )

    assert statuses(outcomes) == ["accepted", "refused", "refused", "accepted"]
    errors = {one.position: str(one.error) for one in outcomes if one.error}
    assert "has no contact: pass user_id, email or id" in errors[1]
    assert "metadata['a'] is a list" in errors[2]
    assert all(one.event is None for one in outcomes if one.status == "refused")
    assert len(emulator.requests) == 2


def test_what_is_no_mapping_is_refused_too(call):
    outcomes = many(call, [event(0), "placed-order", None])

    assert statuses(outcomes) == ["accepted", "refused", "refused"]


def test_what_intercom_refuses_is_refused_and_stops_nothing(calling):
    emulator = Emulator(contacts=[EmulatedContact(user_id="1")], clock=lambda: float(NOW))

    outcomes = many(calling(emulator.transport()), [event(0), event(1), event(2)])

    assert statuses(outcomes) == ["refused", "accepted", "refused"]
    assert all(isinstance(one.error, NotFoundError) for one in outcomes if one.status == "refused")
    assert all(one.event is not None for one in outcomes)


def test_what_may_have_been_processed_all_the_same_is_not_called_refused(answering):
    call, _ = answering(httpx.Response(499))

    (outcome,) = many(call, [event(0)])

    assert outcome.error.may_have_been_processed
    assert outcome.status == "failed"


def test_a_token_that_does_not_come_in_time_is_a_failure_of_what_was_never_sent():
    async def token() -> str:
        await anyio.sleep_forever()
        return "never"

    async def main() -> list[Outcome]:
        clock = EventLoopClock(float(NOW))
        client = AsyncDataEventsClient(
            token, transport=emulator.transport(), clock=clock, timeout=1, deadline=5
        )
        return [one async for one in client.create_many([event(0)])]

    emulator = Emulator()
    (outcome,) = run_in_no_time(main, "asyncio")

    assert outcome.status == "failed"
    assert not outcome.error.may_have_been_processed
    assert outcome.error.tries == 0
    assert not emulator.requests


def test_what_fails_for_the_time_being_has_failed_after_all_tries(answering):
    call, transport = answering(httpx.Response(503))

    (outcome,) = many(call, [event(0)])

    assert outcome.status == "failed"
    assert isinstance(outcome.error, ServerError)
    assert outcome.error.tries == 5
    assert len(transport.requests) == 5


@pytest.mark.parametrize(
    ("backend", "status", "kind"),
    [
        ("blocking", 401, AuthenticationError),
        ("blocking", 403, PermissionDeniedError),
        ("asyncio", 401, AuthenticationError),
    ],
)
def test_an_authentication_error_ends_everything_at_once(answering, status, kind):
    call, transport = answering(httpx.Response(202), httpx.Response(202), httpx.Response(status))
    seen = []

    def use(client: Any) -> Any:
        return _seen(client.create_many(map(event, itertools.count())), seen)

    with pytest.raises(kind):
        call(use)

    assert len(transport.requests) <= 12
    assert {one.status for one in seen} <= {"accepted"}


def _seen(outcomes: Any, seen: list[Outcome]) -> Any:
    """Goes through outcomes of either kind, and keeps them."""
    if hasattr(outcomes, "__aiter__"):

        async def go() -> None:
            nonlocal seen
            async for outcome in outcomes:
                seen += [outcome]

        return go()
    seen.extend(outcomes)
    return None


@every_driver
def test_the_outcomes_before_an_error_are_handed_over_first(calling):
    # One at a time, so that it is known what was answered before.
    transport = Answers(httpx.Response(202), httpx.Response(202), httpx.Response(401))
    seen: list[Outcome] = []

    with pytest.raises(AuthenticationError):
        calling(transport)(
            lambda client: _seen(client.create_many(map(event, range(9)), concurrency=1), seen)
        )

    assert [one.position for one in seen] == [0, 1]


def test_a_setting_that_no_request_can_be_made_with_ends_everything(calling, emulator):
    def token() -> str:
        raise OSError("the vault is sealed")

    with pytest.raises(ConfigurationError, match="the vault is sealed"):
        calling(emulator.transport())(
            lambda client: client.create_many([event(0)]), access_token=token
        )


@threads_and_tasks
def test_an_error_of_a_callers_own_hook_comes_out_as_it_is(backend):
    class HookError(Exception):
        pass

    def hook(request: httpx.Request) -> None:
        raise HookError

    async def ahook(request: httpx.Request) -> None:
        raise HookError

    call = Caller(backend, {})
    http = call.http_client(
        transport=Emulator().transport(),
        event_hooks={"request": [hook if backend == "blocking" else ahook]},
    )
    with pytest.raises(HookError):
        call(lambda client: client.create_many([event(0)]), http_client=http)


class InputError(Exception):
    pass


@every_driver
def test_an_error_of_the_input_comes_after_the_outcomes_of_what_was_read(call, emulator):
    def events() -> Iterator[dict[str, object]]:
        yield from map(event, range(7))
        raise InputError

    seen: list[Outcome] = []
    with pytest.raises(InputError):
        call(lambda client: _seen(client.create_many(events()), seen))

    assert statuses(seen) == ["accepted"] * 7
    assert len(emulator.events) == 7


# In order, and once.


@every_driver
def test_the_events_of_one_person_are_sent_in_their_order(backend):
    order = defaultdict(list)
    emulator = Emulator(rate_limit=None, clock=lambda: float(NOW))
    inner = emulator.transport()

    class Watched(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            fields = json.loads(request.content)
            time.sleep(random.random() / 1000)  # so that threads overtake each other
            order[fields["user_id"]].append(fields["created_at"])
            return inner.handle_request(request)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            fields = json.loads(request.content)
            for _ in range(random.randrange(5)):
                await anyio.lowlevel.checkpoint()
            order[fields["user_id"]].append(fields["created_at"])
            return await inner.handle_async_request(request)

    events = [event(0, user_id=str(n % 7), created_at=NOW - 500 + n) for n in range(300)]
    outcomes = many(Caller(backend, {"transport": Watched()}), events)

    assert statuses(outcomes) == ["accepted"] * 300
    assert all(seconds == sorted(seconds) for seconds in order.values())
    assert len(order) == 7


def test_the_same_event_is_sent_once_and_the_others_are_duplicates(call, emulator):
    same = event(0, event_name="Placed.order$")
    again = event(0, event_name="placed-order-", metadata={"other": 1})

    outcomes = many(call, [same, event(1), again, same, event(0, created_at=NOW)])

    assert statuses(outcomes) == ["accepted", "accepted", "duplicate", "duplicate", "accepted"]
    assert len(emulator.requests) == 3


def test_the_same_name_and_second_of_somebody_else_is_another_event(call, emulator):
    one = {"event_name": "left", "created_at": NOW - 5}
    people = [{"user_id": "1"}, {"id": "1"}, {"email": "a@b.co"}, {"email": "A@B.co"}]

    outcomes = many(call, [{**one, **person} for person in people])

    assert statuses(outcomes) == ["accepted"] * 4


@pytest.mark.parametrize(
    "spellings",
    [
        [{"email": "A@b.co"}, {"email": "a@b.co"}],
        [{"user_id": "ab"}, {"user_id": "AB"}],
        [{"id": "5f"}, {"id": "5F"}],
        [{"user_id": "1 "}, {"user_id": "1"}],
        [{"user_id": "é"}, {"user_id": "e\u0301"}],
        [{"event_name": "STRASSE"}, {"event_name": "straße"}],
        [{"event_name": "Émigré"}, {"event_name": "émigré"}],
        [{"event_name": "\u212alein"}, {"event_name": "klein"}],  # The sign of kelvin.
        [{"event_name": "İ"}, {"event_name": "i\u0307"}],
        [{"event_name": "ς"}, {"event_name": "Σ"}],
        [{"event_name": "ran-"}, {"event_name": "ran"}],
        [{"event_name": "ran-a"}, {"event_name": "ran_a"}],
    ],
    ids=str,
)
def test_nothing_is_withheld_that_intercom_may_take_for_another_event(call, emulator, spellings):
    made = [event(1, **spelling) for spelling in spellings for _ in range(2)]
    if "user_id" not in spellings[0] and "event_name" not in spellings[0]:
        for fields in made:
            del fields["user_id"]

    outcomes = many(call, made)

    assert statuses(outcomes) == ["accepted", "duplicate", "accepted", "duplicate"]
    # The emulator tells them apart by the same.
    assert emulator.counts.stored == 2


@pytest.mark.parametrize(
    "names", [("Placed.ORDER", "placed-order"), ("$Straße", ".STRAßE"), ("ÉTÉ-a", "ÉTÉ$A")]
)
def test_names_that_intercom_is_known_to_take_for_one_are_one_event(call, emulator, names):
    outcomes = many(call, [event(1, event_name=name) for name in names])
    for name in names:
        call(lambda client, name=name: client.create(**event(1, event_name=name)))

    assert statuses(outcomes) == ["accepted", "duplicate"]
    assert emulator.counts.requests == 3
    assert emulator.counts.stored == 1


def test_what_was_refused_or_failed_does_not_stand_for_the_same_event_after_it(answering):
    call, _ = answering(httpx.Response(422), httpx.Response(202))

    outcomes = many(call, [event(0), event(0), event(0)])

    assert statuses(outcomes) == ["refused", "accepted", "duplicate"]


def test_an_event_that_was_sent_again_counts_from_then_on():
    others = [event(n) for n in range(9_999)]
    same = event(0, user_id="x")
    found = checked([same, *others, {}, same, event(-1), same])

    assert statuses(found)[-3:] == ["accepted", "accepted", "duplicate"]


@pytest.mark.parametrize(("between", "status"), [(9_999, "duplicate"), (10_000, "accepted")])
def test_duplicates_are_known_among_the_last_ten_thousand(between, status):
    found = checked([event(0, user_id="x"), *map(event, range(between)), event(0, user_id="x")])

    assert statuses(found) == ["accepted"] * (between + 1) + [status]


# Lazily, and bounded.


@every_driver
def test_the_input_is_read_as_it_is_needed(backend, emulator):
    read = 0

    def events() -> Iterator[dict[str, object]]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield event(number)

    def take(client: DataEventsClient) -> list[Outcome]:
        with client.create_many(events()) as outcomes:
            return list(itertools.islice(outcomes, 20))

    async def atake(client: AsyncDataEventsClient) -> list[Outcome]:
        found = []
        async with client.create_many(events()) as outcomes:
            async for outcome in outcomes:
                found.append(outcome)
                if len(found) == 20:
                    break
        return found

    call = Caller(backend, {"transport": emulator.transport()})
    found = call(take if backend == "blocking" else atake)

    assert len(found) == 20
    assert read < 2_500


def test_outcomes_that_are_not_asked_for_hold_everything_up():
    emulator = Emulator(rate_limit=None)
    events = map(event, itertools.count())

    async def main(client: AsyncDataEventsClient) -> int:
        async with client.create_many(events) as outcomes:
            await anext(outcomes)
            requests = -1
            # Until nothing goes on any more.
            while requests != emulator.counts.requests:
                requests = emulator.counts.requests
                for _ in range(500):
                    await anyio.lowlevel.checkpoint()
            return requests

    assert Caller("asyncio", {"transport": emulator.transport()})(main) <= 1_100


@threads_and_tasks
def test_one_person_with_very_many_events_does_not_fill_the_memory(call):
    read = 0

    def events() -> Iterator[dict[str, object]]:
        nonlocal read
        for number in range(12_000):
            read = number
            yield event(0, created_at=NOW - 20_000 + number)

    first: list[int] = []

    def use(client: Any) -> Any:
        outcomes = client.create_many(events())

        async def go() -> None:
            async with outcomes:
                await anext(outcomes)
                first.append(read)

        if call.backend != "blocking":
            return go()
        with outcomes:
            next(outcomes)
            first.append(read)
        return None

    call(use)
    assert first[0] <= 10_100


def test_after_a_rest_all_that_was_held_up_goes_on():
    emulator = Emulator(rate_limit=None, record=False)
    rested = 0

    async def use(client: AsyncDataEventsClient) -> int:
        nonlocal rested
        count = 0
        async with client.create_many(map(event, range(1_800))) as outcomes:
            async for _ in outcomes:
                count += 1
                if count == 1:
                    # Until nothing goes on any more.
                    while rested != emulator.counts.requests:
                        rested = emulator.counts.requests
                        for _ in range(500):
                            await anyio.lowlevel.checkpoint()
        return count

    assert Caller("asyncio", {"transport": emulator.transport()})(use) == 1_800
    assert rested < 1_500


def until_only_these_threads_are_left(before: set[threading.Thread]) -> None:
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_all_threads_end_after_the_last_outcome_although_the_iterator_is_kept():
    before = set(threading.enumerate())
    client = DataEventsClient("token", transport=Emulator(rate_limit=None).transport())
    kept = []
    for _ in range(20):
        outcomes = client.create_many(map(event, range(30)))
        assert len(list(outcomes)) == 30
        kept.append(outcomes)
    until_only_these_threads_are_left(before)


def test_threads_that_wait_for_more_of_the_input_end_with_it():
    emulator = Emulator(rate_limit=None)
    before = set(threading.enumerate())
    read = threading.Event()

    def events() -> Iterator[dict[str, object]]:
        yield from map(event, range(300))
        read.set()
        yield from map(event, range(300, 310))

    with DataEventsClient("token", transport=emulator.transport()).create_many(events()) as found:
        while not read.is_set():
            next(found)
    until_only_these_threads_are_left(before)


def test_what_is_refused_and_never_asked_for_is_not_read_without_end():
    read = 0

    def events() -> Iterator[dict[str, object]]:
        nonlocal read
        for _ in itertools.count():
            read += 1
            yield {}

    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=Emulator().transport())
        async with client.create_many(events()) as outcomes:
            assert (await anext(outcomes)).status == "refused"
            for _ in range(50):
                await anyio.lowlevel.checkpoint()

    anyio.run(main)
    assert read <= 1_100


@threads_and_tasks
def test_what_one_person_has_is_held_up_to_a_bound(backend):
    first, held = [], threading.Event()
    inner = Emulator(rate_limit=None).transport()

    class Holding(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if not first:
                first.append(request)
                assert held.wait(30)
            return inner.handle_request(request)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            while not first:
                if read >= 10_000:
                    for _ in range(50):
                        await anyio.lowlevel.checkpoint()
                    first.append(read)
                await anyio.lowlevel.checkpoint()
            return await inner.handle_async_request(request)

    read = 0

    def events() -> Iterator[dict[str, object]]:
        nonlocal read
        for number in range(12_000):
            read = number + 1
            if read == 10_000:
                held.set()
            # All of one of four seconds, so that few of them need to be sent.
            yield event(0, created_at=NOW - 20_000 + number % 4)

    outcomes = many(Caller(backend, {"transport": Holding()}), events())

    # After ten thousand others, they are sent once more.
    assert statuses(outcomes) == [
        "accepted" if number % 10_004 < 4 else "duplicate" for number in range(12_000)
    ]
    if backend != "blocking":
        assert first == [10_000]


def test_leaving_the_loop_ends_what_is_on_its_way():
    emulator = Emulator(rate_limit=None)
    before = set(threading.enumerate())
    for outcome in DataEventsClient("token", transport=emulator.transport()).create_many(
        map(event, itertools.count())
    ):
        assert outcome.status == "accepted"
        break
    del outcome
    gc.collect()
    until_only_these_threads_are_left(before)


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_leaving_an_async_loop_ends_what_is_on_its_way(library):
    emulator = Emulator(rate_limit=None)

    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=emulator.transport())
        async for outcome in client.create_many(map(event, itertools.count())):
            assert outcome.status == "accepted"
            break
        gc.collect()
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        requests = emulator.counts.requests
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert emulator.counts.requests == requests

    anyio.run(main, backend=library)


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_cancelling_whoever_iterates_ends_everything(library):
    emulator = Emulator(rate_limit=None)
    closed = False

    async def events() -> Any:
        nonlocal closed
        try:
            for number in itertools.count():
                yield event(number)
        finally:
            closed = True

    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=emulator.transport())
        with anyio.move_on_after(0.05):
            async with client.create_many(events()) as outcomes:
                async for _ in outcomes:
                    await anyio.lowlevel.checkpoint()
        requests = emulator.counts.requests
        assert requests > 0
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert emulator.counts.requests == requests

    anyio.run(main, backend=library)
    assert closed


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, InputError])
def test_whatever_ends_the_input_early_comes_out(kind):
    async def events() -> Any:
        yield event(0)
        raise kind

    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=Emulator().transport())
        seen: list[Outcome] = []
        with pytest.raises(kind):
            await _seen(client.create_many(events()), seen)
        assert statuses(seen) == ["accepted"]

    anyio.run(main)


def test_several_tasks_can_share_the_outcomes():
    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=Emulator(rate_limit=None).transport())
        outcomes = client.create_many(map(event, range(300)))
        seen: list[list[Outcome]] = [[], [], []]
        async with anyio.create_task_group() as group:
            for some in seen:
                group.start_soon(_seen, outcomes, some)
        assert sorted(one.position for some in seen for one in some) == list(range(300))

    anyio.run(main)


def test_several_threads_can_share_the_outcomes_of_which_one_at_a_time_reads_the_input():
    class Events:
        """Waits for a second thread that reads at the same time."""

        def __init__(self) -> None:
            self._left = iter(map(event, range(5)))
            self._inside = 0
            self.crossed = threading.Event()

        def __iter__(self) -> Events:
            return self

        def __next__(self) -> dict[str, object]:
            self._inside += 1
            if self._inside > 1:
                self.crossed.set()
            self.crossed.wait(0.1)
            self._inside -= 1
            return next(self._left)

    events = Events()
    client = DataEventsClient("token", transport=Emulator(rate_limit=None).transport())
    outcomes = client.create_many(events)
    seen: list[list[Outcome]] = [[], [], []]
    threads = [threading.Thread(target=_seen, args=(outcomes, some)) for some in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(one.position for some in seen for one in some) == list(range(5))
    assert not events.crossed.is_set()


def test_a_bulk_that_was_closed_while_it_waited_for_the_rate_limit_holds_up_no_other_call():
    async def main() -> int:
        clock = EventLoopClock(float(NOW))
        emulator = Emulator(clock=clock, rate_limit=10, window=10)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        async with client.create_many(map(event, itertools.count())) as outcomes:
            for _ in range(10):
                await anext(outcomes)
            with anyio.move_on_after(1):
                await anext(outcomes)
        await client.create("a", user_id="1", created_at=NOW)
        return emulator.counts.stored

    assert run_in_no_time(main, "asyncio") == 11


def test_an_event_loop_that_ends_before_anything_began_ends():
    async def iterate() -> None:
        client = AsyncDataEventsClient("token", transport=Emulator().transport())
        async with client.create_many([event(0)]) as outcomes:
            async for _ in outcomes:
                pass

    async def main() -> None:
        task = asyncio.create_task(iterate())
        await asyncio.sleep(0)
        assert not task.done()
        sys.exit("at once")

    with pytest.raises(SystemExit):
        asyncio.run(main())


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_it_ends_when_the_collector_finds_it_in_another_thread(library):
    emulator = Emulator(rate_limit=None)

    async def main() -> None:
        client = AsyncDataEventsClient("token", transport=emulator.transport())
        held = [client.create_many(map(event, itertools.count()))]
        assert (await anext(held[0])).status == "accepted"
        await anyio.to_thread.run_sync(held.clear)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        requests = emulator.counts.requests
        for _ in range(200):
            await anyio.lowlevel.checkpoint()
        assert emulator.counts.requests == requests

    anyio.run(main, backend=library)


class Gate(Clock):
    """A clock whose waits end when a test says so."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self.opened = threading.Event()

    def alarm(self) -> Any:
        return self

    def set(self) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.waiting.set()
        assert self.opened.wait(30)


def test_what_waits_for_its_turn_is_not_sent_after_closing():
    gate, emulator = Gate(), Emulator(rate_limit=None)
    before = set(threading.enumerate())
    client = DataEventsClient("token", transport=emulator.transport(), clock=gate)
    seen: list[Outcome] = []
    with client.create_many(map(event, itertools.count()), max_rate=0.001) as outcomes:
        iterating = threading.Thread(target=_seen, args=(outcomes, seen))
        iterating.start()
        assert gate.waiting.wait(30)
    gate.opened.set()
    iterating.join(30)
    until_only_these_threads_are_left(before)

    # The first need not wait, and may have been sent before the rest was unwanted.
    assert emulator.counts.requests <= 1
    assert len(seen) <= 1


def test_where_no_thread_can_be_had_the_one_that_iterates_sends(monkeypatch):
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    senders: set[threading.Thread] = set()
    inner = Emulator(rate_limit=None).transport()

    def answer(request: httpx.Request) -> httpx.Response:
        senders.add(threading.current_thread())
        return inner.handle_request(request)

    client = DataEventsClient("token", transport=httpx.MockTransport(answer))
    monkeypatch.setattr("_thread.start_new_thread", start)

    assert statuses(list(client.create_many(map(event, range(20))))) == ["accepted"] * 20
    assert senders == {threading.current_thread()}


def test_where_few_threads_can_be_had_they_do_it_all(monkeypatch):
    original, started = threading.Thread.start, []

    def start(self: threading.Thread) -> None:
        if len(started) >= 2:
            raise RuntimeError("can't start new thread")
        started.append(self)
        original(self)

    client = DataEventsClient("token", transport=Emulator(rate_limit=None).transport())
    monkeypatch.setattr(threading.Thread, "start", start)

    assert statuses(list(client.create_many(map(event, range(300))))) == ["accepted"] * 300


# The test forks beside threads on purpose; Python warns of that.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.processes
def test_in_a_forked_child_it_says_that_its_threads_stayed_behind(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    with client.create_many(map(event, itertools.count())) as outcomes:
        next(outcomes)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            try:
                next(outcomes)
            except ConfigurationError as error:
                os.write(writing, str(error).encode())
            outcomes.close()
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as said:
            assert "must be called in the process that iterates over it" in said.read()
        os.waitpid(child, 0)


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_the_input_may_be_async_and_slow(library):
    emulator = Emulator(rate_limit=None)

    async def main() -> None:
        sender, receiver = anyio.create_memory_object_stream[dict[str, object]]()
        client = AsyncDataEventsClient("token", transport=emulator.transport())
        async with receiver, client.create_many(receiver) as outcomes:
            async with sender:
                for number in range(3):
                    async with anyio.create_task_group() as group:
                        group.start_soon(sender.send, event(number))
                        # Known before there is any more to read.
                        outcome = await anext(outcomes)
                    assert (outcome.position, outcome.status) == (number, "accepted")
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)

    anyio.run(main, backend=library)


@every_driver
def test_an_iterator_that_has_ended_stays_ended(backend, emulator):
    def use(client: DataEventsClient) -> None:
        outcomes = client.create_many([event(0)])
        assert len(list(outcomes)) == 1
        assert list(outcomes) == []

    async def ause(client: AsyncDataEventsClient) -> None:
        outcomes = client.create_many([event(0)])
        assert len([one async for one in outcomes]) == 1
        assert [one async for one in outcomes] == []
        await outcomes.aclose()

    call = Caller(backend, {"transport": emulator.transport()})
    call(use if backend == "blocking" else ause)


@pytest.mark.parametrize("wrong", [5, None, "placed-order", {"event_name": "left"}])
def test_what_is_no_iterable_of_events_is_refused_at_once(call, wrong):
    with pytest.raises(InvalidInputError, match="events must be an iterable of events, not "):
        call(lambda client: client.create_many(wrong))


@pytest.mark.parametrize(
    "bounds",
    [
        {"concurrency": 0},
        {"concurrency": 1001},
        {"concurrency": 2.0},
        {"concurrency": True},
        {"max_rate": 0},
        {"max_rate": -1},
        {"max_rate": math.inf},
        {"max_rate": "10"},
        {"max_rate": True},
    ],
)
def test_bounds_that_make_no_sense_are_refused_at_once(call, bounds):
    with pytest.raises(ConfigurationError, match=next(iter(bounds))):
        call(lambda client: client.create_many([], **bounds))


@threads_and_tasks
def test_a_disabled_client_checks_everything_and_sends_nothing(call, emulator):
    outcomes = list(
        call(lambda client: client.create_many([event(0), {}, event(2)]), enabled=False)
    )

    assert statuses(outcomes) == ["accepted", "refused", "accepted"]
    assert not emulator.requests


def test_checking_says_what_would_become_of_events():
    found = checked([event(0), {}, event(0), event(1)])

    assert statuses(found) == ["accepted", "refused", "duplicate", "accepted"]


# At the right speed.


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_whole_windows_are_used_as_far_as_the_share_goes_without_a_429(share):
    limit, window, latency = 200, 10, 0.1
    accepted = Counter[int]()

    async def main() -> Emulator:
        clock = EventLoopClock(NOW + 3.3)
        slow = (Fault.slow(latency) for _ in itertools.count())
        emulator = Emulator(clock=clock, rate_limit=limit, window=window, faults=slow, record=False)

        async def count(response: httpx.Response) -> None:
            accepted[int(response.headers["X-RateLimit-Reset"])] += response.status_code == 202

        http = httpx.AsyncClient(transport=emulator.transport(), event_hooks={"response": [count]})
        client = AsyncDataEventsClient("token", http_client=http, clock=clock, quota_share=share)
        events = map(event, range(int(limit * 5 * share)))
        async for outcome in client.create_many(events):
            assert outcome.status == "accepted"
        return emulator

    emulator = run_in_no_time(main, "asyncio")

    whole = [accepted[reset] for reset in sorted(accepted)[1:-1]]
    assert len(whole) >= 3
    assert emulator.counts.limited == 0
    assert min(whole) >= 0.98 * share * limit
    assert max(whole) <= share * limit


@pytest.mark.parametrize("deadline", [2, 15])
def test_a_share_so_small_that_events_wait_beyond_their_deadline_fails_none_of_them(deadline):
    async def main() -> list[Outcome]:
        clock = EventLoopClock(float(NOW))
        emulator = Emulator(clock=clock, rate_limit=100, window=10)
        client = AsyncDataEventsClient(
            "token",
            transport=emulator.transport(),
            clock=clock,
            quota_share=0.01,
            deadline=deadline,
        )
        return [one async for one in client.create_many(map(event, range(40)))]

    assert statuses(run_in_no_time(main, "asyncio")) == ["accepted"] * 40


def test_no_more_events_a_second_are_sent_than_were_asked_for():
    async def main() -> float:
        clock = EventLoopClock(float(NOW))
        emulator = Emulator(clock=clock, rate_limit=None)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        outcomes = [one async for one in client.create_many(map(event, range(101)), max_rate=20)]
        assert len(outcomes) == 101
        return clock.monotonic()

    assert run_in_no_time(main, "asyncio") == pytest.approx(5.0)


def test_the_blocking_client_keeps_to_the_rate_too():
    clock = ManualClock(NOW)
    emulator = Emulator(clock=clock, rate_limit=None)
    client = DataEventsClient("token", transport=emulator.transport(), clock=clock)

    outcomes = list(client.create_many(map(event, range(21)), max_rate=2, concurrency=1))

    assert len(outcomes) == 21
    assert sum(clock.waits) == pytest.approx(10.0)


@threads_and_tasks
def test_every_event_is_stored_although_every_fifth_request_goes_wrong(backend):
    clock = ManualClock(NOW)
    emulator = Emulator(clock=clock, rate_limit=None, faults=random_faults(0.2, seed=3))

    outcomes = many(
        Caller(backend, {"transport": emulator.transport()}, clock), map(event, range(500))
    )

    kinds = Counter(one.status for one in outcomes)
    assert kinds["accepted"] >= 495
    assert kinds["accepted"] + kinds["failed"] == 500
    stored = {one.user_id for one in emulator.events}
    assert {str(one.position) for one in outcomes if one.status == "accepted"} <= stored


# How many at once.


def settled(latency: Any, answers: int = 20_000, most: int = 100) -> tuple[int, int, int]:
    """The limits after so many answers of a line whose latency follows from the limit."""
    concurrency = Concurrency(most)
    limits = []
    for number in range(answers):
        concurrency.note(latency(concurrency.limit, number))
        limits.append(concurrency.limit)
    later = limits[len(limits) // 2 :]
    return min(later), sorted(later)[len(later) // 2], max(later)


def test_where_requests_do_not_wait_for_each_other_there_are_as_many_as_are_allowed():
    _, usual, _ = settled(lambda limit, _: 0.1)

    assert usual == 100


def test_latency_that_varies_does_not_keep_them_few():
    source = random.Random(1)  # no secret

    _, usual, _ = settled(lambda limit, _: source.uniform(0.05, 0.15))

    assert usual >= 30


@pytest.mark.parametrize("spread", ["exponential", "lognormal"])
def test_some_answers_that_take_very_long_do_not_keep_them_few_either(spread):
    source = random.Random(1)  # no secret
    draw = {
        "exponential": lambda: source.expovariate(10),
        "lognormal": lambda: 0.1 * source.lognormvariate(0, 1),
    }[spread]

    _, usual, _ = settled(lambda limit, _: draw())

    assert usual >= 40


def test_where_one_is_served_after_another_there_are_few():
    # 0.7 ms of work each, here, as httpx's pool takes.
    least, usual, most = settled(lambda limit, _: 0.0003 + 0.0007 * limit)

    assert least >= 1
    assert 2 <= usual <= 6
    assert most <= 10


def test_a_line_that_gets_slower_for_good_is_learned_anew():
    concurrency = Concurrency(100)
    for _ in range(5_000):
        concurrency.note(0.01)
    for _ in range(50_000):
        concurrency.note(0.1)

    assert concurrency.limit >= 50


def test_a_line_that_becomes_crowded_gets_fewer():
    concurrency = Concurrency(100)
    for _ in range(5_000):
        concurrency.note(0.01)
    assert concurrency.limit == 100
    for _ in range(12_000):
        concurrency.note(0.01 + 0.002 * concurrency.limit)

    assert concurrency.limit <= 20


@threads_and_tasks
def test_a_server_that_stops_answering_does_not_get_ever_more(backend):
    transport = Answers(*[httpx.Response(202)] * 20, httpx.ConnectError("refused"))

    def use(client: Any) -> Any:
        outcomes = client.create_many(map(event, range(500)))
        if backend == "blocking":
            assert len(list(outcomes)) == 500
            return outcomes._dispatcher._scheduler.concurrency.limit

        async def go() -> int:
            assert len([one async for one in outcomes]) == 500
            return outcomes._dispatcher._scheduler.concurrency.limit

        return go()

    call = Caller(backend, {"transport": transport})
    # As many as after the first round of answers, and a few that were on their way.
    assert call(use, max_retries=0) <= 8


@given(st.lists(st.floats(0, 1e6), max_size=300), st.integers(1, 1000))
@settings(max_examples=scaled(50))
def test_the_bound_holds_whatever_the_latency(latencies, most):
    concurrency = Concurrency(most)
    for latency in latencies * 20:
        concurrency.note(latency)
        assert 1 <= concurrency.limit <= most


# Through aiohttp.


@pytest.fixture
def through(monkeypatch):
    """Says whether requests went through aiohttp."""
    from intercom_data_events._sending.engines.aiohttp_engine import AiohttpEngine

    used = Counter[str]()
    original = AiohttpEngine.send

    async def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        used["aiohttp"] += 1
        return await original(self, *arguments, **options)

    monkeypatch.setattr(AiohttpEngine, "send", counted)
    return used


async def sent(url: str, events: Any, **options: Any) -> list[Outcome]:
    async with AsyncDataEventsClient("token", base_url=url, **options) as client:
        return [one async for one in client.create_many(events)]


def test_with_the_extra_it_goes_through_aiohttp_with_the_same_requests(through):
    emulator = Emulator()
    with emulator.serve() as url:
        outcomes = anyio.run(sent, url, [event(n, metadata={"ü": "ß"}) for n in range(50)])

    assert statuses(outcomes) == ["accepted"] * 50
    assert through["aiohttp"] == 50
    (request, *_) = emulator.requests
    assert request.headers["Authorization"] == "Bearer token"
    assert request.headers["Intercom-Version"]
    assert request.headers["User-Agent"].startswith("intercom-data-events/")
    assert request.json["metadata"] == {"ü": "ß"}


def test_without_the_extra_it_goes_through_httpx(through, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(
        sys.modules, "intercom_data_events._sending.engines.aiohttp_engine", raising=False
    )
    with Emulator().serve() as url:
        outcomes = anyio.run(sent, url, map(event, range(50)))

    assert statuses(outcomes) == ["accepted"] * 50
    assert not through


def test_under_trio_it_goes_through_httpx(through):
    with Emulator().serve() as url:

        async def under_trio() -> list[Outcome]:
            return await sent(url, map(event, range(5)))

        outcomes = anyio.run(under_trio, backend="trio")

    assert statuses(outcomes) == ["accepted"] * 5
    assert not through


def test_through_aiohttp_the_proxy_of_the_environment_gets_its_password(through, monkeypatch):
    proxy = Emulator()
    with proxy.serve() as url:
        monkeypatch.setenv("HTTP_PROXY", url.replace("://", "://me:p%40ss@"))
        monkeypatch.setenv("NO_PROXY", "elsewhere.test")
        monkeypatch.setenv("INTERCOM_ALLOW_HTTP", "1")
        outcomes = anyio.run(sent, "http://intercom.test", map(event, range(5)))

    assert statuses(outcomes) == ["accepted"] * 5
    assert through["aiohttp"] == 5
    assert {one.headers["Host"] for one in proxy.requests} == {"intercom.test"}
    given = {one.headers["Proxy-Authorization"] for one in proxy.requests}
    assert given == {f"Basic {base64.b64encode(b'me:p@ss').decode()}"}


def test_through_aiohttp_a_proxy_is_not_told_the_access_token(through, monkeypatch):
    told: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    told.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("NO_PROXY", "elsewhere.test")
        outcomes = anyio.run(lambda: sent("https://a.test", [event(0)], max_retries=0))
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()

    (outcome,) = outcomes
    assert outcome.status == "failed"
    assert not outcome.error.may_have_been_processed
    assert told
    assert through["aiohttp"]
    assert all(one.startswith(b"CONNECT a.test:443") and b"token" not in one for one in told)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "SSL_CERT_FILE",
            "/nowhere",
            "^cannot read the certificates of SSL_CERT_FILE='/nowhere': .*; set it to a file",
        ),
        ("HTTPS_PROXY", "http://me:s3cr3t@a.test:port", "^HTTPS_PROXY must be the address of a"),
    ],
)
def test_through_aiohttp_connections_that_cannot_be_set_up_are_an_error_of_ours(
    monkeypatch, variable, value, said
):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("NO_PROXY", "elsewhere.test")

    with pytest.raises(ConfigurationError, match=said) as caught:
        anyio.run(sent, "https://a.test", [event(0)])

    assert "s3cr3t" not in str(caught.value)


def test_through_aiohttp_another_event_loop_cannot_send_meanwhile(through):
    """Its quota and its alarms are those of the loop that sends."""
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_: httpx.Request) -> httpx.Response:
        arrived.set()
        assert go_on.wait(30)
        return httpx.Response(202)

    async def all_of(client: Any) -> list[str]:
        return [one.status async for one in client.create_many([event(0)])]

    with EmulatorServer(answer) as url, ThreadPoolExecutor() as threads:
        client = AsyncDataEventsClient("token", base_url=url)
        sending = threads.submit(asyncio.run, all_of(client))
        assert arrived.wait(30)
        try:
            with pytest.raises(ConfigurationError, match="another event loop"):
                asyncio.run(client.create("a", user_id="1"))
        finally:
            go_on.set()
        assert sending.result(30) == ["accepted"]
        asyncio.run(client.aclose())

    assert through["aiohttp"] == 1


def test_through_aiohttp_a_host_that_is_excepted_is_reached_without_the_proxy(through, monkeypatch):
    emulator = Emulator()
    with emulator.serve() as url, Refusing() as nowhere:
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        outcomes = anyio.run(sent, url, map(event, range(5)))

    assert statuses(outcomes) == ["accepted"] * 5
    assert through["aiohttp"] == 5


def test_an_http_client_or_transport_of_the_callers_is_used_as_it_is(through):
    emulator = Emulator()
    with emulator.serve() as url:

        async def main() -> None:
            async with httpx.AsyncClient() as http:
                await sent(url, [event(0)], http_client=http)
            await sent(url, [event(1)], transport=httpx.AsyncHTTPTransport())

        anyio.run(main)
    assert emulator.counts.stored == 2
    assert not through


def test_through_aiohttp_every_fault_ends_as_through_httpx(through):
    # Each wait moves it on for all, so no attempt may end by it.
    clock = ManualClock(NOW)
    patient = {"clock": clock, "timeout": 86_400, "deadline": math.inf}
    emulator = Emulator(clock=clock, rate_limit=None, faults=random_faults(0.3, seed=5))
    with emulator.serve() as url:
        outcomes = anyio.run(lambda: sent(url, map(event, range(150)), **patient))

    kinds = Counter(one.status for one in outcomes)
    assert kinds["accepted"] + kinds["failed"] == 150
    stored = {one.user_id for one in emulator.events}
    for one in outcomes:
        if one.status == "accepted" or not one.error.may_have_been_processed:
            assert (str(one.position) in stored) == (one.status == "accepted")
    assert through["aiohttp"] > 150


@pytest.mark.parametrize(
    ("fault", "possibly"),
    [
        (Fault.reset(processed=True), True),
        (Fault.reset(), True),
        (Fault.cut_short(), True),
        (Fault.slow(5), True),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_through_aiohttp_it_is_known_whether_something_may_have_arrived(through, fault, possibly):
    emulator = Emulator(faults=[fault])
    with emulator.serve() as url:
        (outcome,) = anyio.run(lambda: sent(url, [event(0)], max_retries=0, timeout=0.2))

    assert outcome.status == "failed"
    assert outcome.error.may_have_been_processed is possibly
    assert through["aiohttp"] == 1
    assert "token" not in repr(outcome.error.__cause__)


def test_through_aiohttp_too_an_accepted_event_is_accepted_whatever_the_body(through):
    faults = [
        Fault(name="HTML", body=b"<html>Sign in</html>"),
        Fault(name="errors", body=b'{"type": "error.list", "errors": [{"code": "no"}]}'),
        Fault(name="no gzip", body=b"not gzip", headers={"Content-Encoding": "gzip"}),
        Fault(name="cut", body=b"It is accepted", connection="cut"),
        Fault(name="an empty 200", status=200, body=b""),
        Fault(name="a 200 of JSON", status=200, body=b'{"type": "event"}'),
    ]
    emulator = Emulator(faults=faults, rate_limit=None)
    with emulator.serve() as url:
        outcomes = anyio.run(sent, url, map(event, range(len(faults))))

    assert statuses(outcomes) == ["accepted"] * len(faults)
    assert emulator.counts.requests == through["aiohttp"] == len(faults)


def test_through_aiohttp_a_port_where_nobody_listens_is_no_arrival(through):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    (outcome,) = anyio.run(lambda: sent(f"http://127.0.0.1:{port}", [event(0)], max_retries=0))

    assert outcome.status == "failed"
    assert not outcome.error.may_have_been_processed
    assert through["aiohttp"] == 1


def test_through_aiohttp_an_address_is_asked_for_as_it_is(through):
    paths = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return httpx.Response(202, headers={"X-Long": "x" * 20_000})

    with EmulatorServer(answer) as url:
        (outcome,) = anyio.run(sent, f"{url}/%41%7E%2f", [event(0)])

    assert outcome.status == "accepted"
    assert paths == [b"/%41%7E%2f/events"]
    assert through["aiohttp"] == 1


def test_through_aiohttp_an_address_that_it_does_not_take_is_no_arrival(through):
    (outcome,) = anyio.run(lambda: sent("http://127.1:1", [event(0)], max_retries=0))

    assert outcome.status == "failed"
    assert not outcome.error.may_have_been_processed
    assert through["aiohttp"] == 1


def test_through_aiohttp_too_a_closed_client_sends_nothing_more(through):
    emulator = Emulator(rate_limit=None)

    async def main(url: str) -> None:
        client = AsyncDataEventsClient("token", base_url=url)
        outcomes = client.create_many(map(event, itertools.count()))
        await anext(outcomes)
        await client.aclose()
        with pytest.raises(RuntimeError, match="the client is closed"):
            async for _ in outcomes:
                pass

    with emulator.serve() as url:
        anyio.run(main, url)
    assert through["aiohttp"] >= 1


def test_through_aiohttp_the_rate_limit_is_learned_and_the_client_knows_it(through):
    emulator = Emulator(rate_limit=50, window=60)

    async def main(url: str) -> None:
        async with AsyncDataEventsClient("token", base_url=url) as client:
            async with client.create_many(map(event, itertools.count())) as outcomes:
                for _ in range(50):
                    assert (await anext(outcomes)).status == "accepted"
            assert client.rate_limit is not None
            assert client.rate_limit.remaining == 0

    with emulator.serve() as url:
        anyio.run(main, url)
    assert emulator.counts.limited == 0
    assert through["aiohttp"] == 50
