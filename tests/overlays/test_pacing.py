"""At full speed, a program uses the quota that the answers tell of, and does not run into 429.

What decides it does no I/O, so most of it is tested under one event loop.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections import Counter
from datetime import UTC, datetime
from email.utils import formatdate

import anyio
import anyio.lowlevel
import httpx
import pytest
from clocks import EventLoopClock, ThreadsClock, run_in_no_time

from intercom_data_events import (
    APITimeoutError,
    AsyncDataEventsClient,
    DataEventsClient,
    IntercomError,
    RateLimitError,
    ServerError,
)
from intercom_data_events.emulator import Emulator, Fault, ManualClock

#: A little after a window has begun.
BEGIN = 1_671_028_903.3
LIMIT, WINDOW = 1667, 10


class Watched(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Counts by the server's windows what an emulator accepted."""

    def __init__(self, emulator, clock, skew=0, window=WINDOW, spell=None, way_back=None):
        self._transport = emulator.transport()
        self._now = lambda: clock.time() + skew
        self._window = window
        self._spell = spell
        self._way_back = way_back
        self.accepted = Counter()
        self.most_at_once = 0
        self._at_once = 0

    def _count(self, begun, response):
        if self._spell:
            self._spell(response.headers, self._now())
        if response.status_code == 202:
            self.accepted[math.floor(begun / self._window)] += 1
        return response

    def handle_request(self, request):
        begun = self._now()
        return self._count(begun, self._transport.handle_request(request))

    async def handle_async_request(self, request):
        begun = self._now()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            response = self._count(begun, await self._transport.handle_async_request(request))
            if self._way_back:
                await anyio.sleep(next(self._way_back))
            return response
        finally:
            self._at_once -= 1

    @property
    def whole_windows(self):
        """What was used of each window that was neither the first nor the last."""
        return [self.accepted[number] for number in sorted(self.accepted)[1:-1]]


def slow(seconds, seed=1):
    """Answers that take about so many seconds, so that they overtake each other."""
    source = random.Random(seed)
    while True:
        yield Fault.slow(seconds * source.uniform(0.5, 1.5))


def race(backend, events, *, tasks=50, processes=1, skew=0, limit=LIMIT, window=WINDOW, latency=0.1,
         spell=None, way_back=None, **options):  # fmt: skip
    """Sends events as fast as it can from tasks, of one client for each process."""

    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(
            clock=clock, rate_limit=limit, window=window, faults=slow(latency), record=False
        )
        emulator.advance(skew)
        watched = Watched(emulator, clock, skew, window, spell, way_back)
        numbers = iter(range(events))

        async def send(client):
            for number in numbers:
                await client.create("placed-order", user_id=str(number))

        begin = clock.time()
        async with anyio.create_task_group() as group:
            for _ in range(processes):
                client = AsyncDataEventsClient(
                    "token", transport=watched, clock=clock, deadline=math.inf, **options
                )
                for _ in range(tasks):
                    group.start_soon(send, client)
        return emulator, watched, clock.time() - begin

    return run_in_no_time(main, backend)


@pytest.fixture
def event_loop():
    return "asyncio"


@pytest.mark.costly
@pytest.mark.parametrize(
    ("event_loop", "skew", "limit"),
    [
        ("asyncio", 0, LIMIT),
        ("trio", 0, LIMIT),
        # A larger quota shows nothing more about clocks that differ.
        ("asyncio", 3, 500),
        ("asyncio", -3, 500),
        ("asyncio", 0.4, 500),
        ("asyncio", -0.4, 500),
    ],
)
def test_tasks_use_the_whole_quota_and_never_run_into_429(event_loop, skew, limit):
    emulator, watched, _ = race(event_loop, 5 * limit // 2, skew=skew, limit=limit)

    assert emulator.counts.limited == 0
    assert watched.whole_windows
    assert min(watched.whole_windows) >= 0.98 * limit


@pytest.mark.costly
@pytest.mark.parametrize("skew", [0, 3])
def test_threads_use_the_whole_quota_and_never_run_into_429(skew):
    threads = 16
    clock = ThreadsClock(BEGIN, threads)
    emulator = Emulator(clock=clock, faults=slow(0.05), record=False)
    emulator.advance(skew)
    watched = Watched(emulator, clock, skew)
    client = DataEventsClient("token", transport=watched, clock=clock, deadline=math.inf)
    numbers, errors = itertools.count(), []

    def send():
        try:
            while (number := next(numbers)) < 5 * LIMIT // 2:
                client.create("placed-order", user_id=str(number))
        except Exception as error:  # noqa: BLE001  # none is expected
            errors.append(error)
        finally:
            clock.done()

    running = [threading.Thread(target=send) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    assert errors == []
    assert emulator.counts.stored == 5 * LIMIT // 2
    assert emulator.counts.limited == 0
    assert min(watched.whole_windows) >= 0.98 * LIMIT


@pytest.mark.costly
@pytest.mark.parametrize(("processes", "limit"), [(4, 400), (2, 100), (8, 300)])
def test_several_processes_share_a_quota_with_hardly_a_429(event_loop, processes, limit):
    emulator, watched, _ = race(
        event_loop, 8 * limit, tasks=4, processes=processes, limit=limit, window=2, latency=0.01
    )

    assert emulator.counts.stored == 8 * limit
    assert emulator.counts.limited < 0.01 * emulator.counts.requests
    assert min(watched.whole_windows) >= 0.9 * limit


@pytest.mark.parametrize(
    ("processes", "tasks", "limit"), [(2, 16, 50), (4, 16, 50), (4, 16, 100), (8, 4, 50)]
)
def test_processes_that_share_a_small_quota_get_a_429_for_two_percent_at_most(
    event_loop, processes, tasks, limit
):
    emulator, watched, _ = race(
        event_loop, 8 * limit, tasks=tasks, processes=processes, limit=limit, window=2, latency=0.05
    )

    assert emulator.counts.stored == 8 * limit
    assert emulator.counts.limited <= 0.02 * emulator.counts.requests
    assert min(watched.whole_windows) >= 0.6 * limit


def when_50_are_done(faults, event_loop):
    """The seconds after which each of 50 events that are sent at once has its answer, sorted."""

    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, faults=faults, record=False)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        done = []

        async def send(number):
            await client.create("a", user_id=str(number))
            done.append(clock.time() - BEGIN)

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(send, number)
        return sorted(done)

    return run_in_no_time(main, event_loop)


def test_what_never_gets_an_answer_does_not_hold_up_a_scarce_quota(event_loop):
    # Of the first window's answers, the second and third never come.
    faults = itertools.chain([None, Fault.slow(60), Fault.slow(60)], itertools.repeat(None))

    assert when_50_are_done(faults, event_loop)[47] < 1


def in_units(factor):
    def spell(headers, now):
        headers["X-RateLimit-Reset"] = str(int(headers["X-RateLimit-Reset"]) * factor)

    return spell


def from_now_on(rounded, *, dated=True):
    """Seconds until the reset, as servers write them."""

    def spell(headers, now):
        headers["X-RateLimit-Reset"] = str(rounded(int(headers["X-RateLimit-Reset"]) - now))
        if not dated:
            del headers["Date"]

    return spell


def doubled(headers, now):
    for name in ("Limit", "Remaining", "Reset"):
        value = headers[f"X-RateLimit-{name}"]
        headers[f"X-RateLimit-{name}"] = f"{value}, {value}"


SPELLINGS = {
    "milliseconds": in_units(1000),
    "microseconds": in_units(10**6),
    "nanoseconds": in_units(10**9),
    "1.0": in_units(1.0),
    "from now on": from_now_on(math.ceil),
    "3.217 from now on": from_now_on(lambda seconds: round(seconds, 3)),
    "from now on without Date": from_now_on(math.ceil, dated=False),
    "doubled": doubled,
}


@pytest.mark.parametrize(
    ("spelling", "skew"),
    [
        *((spelling, 0) for spelling in SPELLINGS),
        # A wrong clock makes a difference between times of day and seconds from now on alone.
        *itertools.product(["milliseconds", "from now on", "from now on without Date"], [3, -3]),
    ],
)
def test_a_reset_in_another_unit_is_read_for_what_it_is(event_loop, spelling, skew):
    emulator, watched, _ = race(
        event_loop, 250, tasks=20, limit=100, skew=skew, spell=SPELLINGS[spelling]
    )

    assert emulator.counts.stored == 250
    assert emulator.counts.limited <= 3
    assert min(watched.whole_windows) >= 95


@pytest.mark.parametrize("rounded", [math.ceil, math.floor, round, float])
@pytest.mark.parametrize("slow", [0, 4], ids=["fast", "some slow"])
def test_seconds_from_now_on_may_be_rounded_and_take_their_time(event_loop, rounded, slow):
    way_back = itertools.cycle([slow, *[0.05] * 24])
    emulator, watched, _ = race(
        event_loop, 250, tasks=20, limit=100, spell=from_now_on(rounded), way_back=way_back
    )

    assert emulator.counts.stored == 250
    assert emulator.counts.limited <= 5
    assert min(watched.whole_windows) >= 95


@pytest.mark.parametrize(("seconds", "remaining"), [(60, 99), (3600, 9000), (86000, 99)])
def test_one_answer_that_names_a_later_end_does_not_hide_those_after_it(
    event_loop, seconds, remaining
):
    numbers = itertools.count(1)

    def spell(headers, now):
        if next(numbers) == 30:
            headers["X-RateLimit-Reset"] = str(math.ceil(now) + seconds)
            headers["X-RateLimit-Remaining"] = str(remaining)

    emulator, watched, _ = race(event_loop, 250, tasks=20, limit=100, spell=spell)

    assert emulator.counts.stored == 250
    assert emulator.counts.limited <= 3
    assert min(watched.whole_windows) >= 95


@pytest.mark.parametrize("behind", [30, 3600])
def test_the_date_of_one_answer_does_not_delay_the_others(event_loop, behind):
    numbers = itertools.count(1)

    def spell(headers, now):
        if next(numbers) == 100:  # The last one before the reset.
            headers["Date"] = formatdate(now - behind, usegmt=True)

    emulator, _, seconds = race(event_loop, 150, tasks=20, limit=100, spell=spell)

    assert emulator.counts.limited == 0
    assert seconds < WINDOW


@pytest.mark.parametrize("window", [90, 120, 3600, 24 * 3600])
@pytest.mark.parametrize("spell", [None, in_units(1000), from_now_on(math.ceil)])
def test_windows_of_more_than_a_minute_are_kept_to(event_loop, window, spell):
    if spell and window > 3600:
        spell = in_units(1000)  # Some seconds from now on, or milliseconds?
    emulator, watched, _ = race(
        event_loop, 50, tasks=5, limit=20, window=window, spell=spell, max_retries=0
    )

    assert emulator.counts.stored == 50
    assert emulator.counts.limited == 0
    assert watched.whole_windows == [20]


@pytest.mark.parametrize("pace", [True, False])
@pytest.mark.parametrize(
    ("reset", "dated", "seconds"),
    [
        ("{:.0f}000", True, 90),
        ("{:.0f}000", False, None),  # Perhaps it is our clock that is wrong.
        ("90", True, 91),  # Perhaps it was rounded down.
        ("90", False, 91),
        ("0.5", True, 0.5),
        ("90, 90", True, 91),
        ("9000", True, None),
        ("-90", True, None),
        ("0", True, None),
        ("soon", True, None),
        ("nan", True, None),
        ("", True, None),
    ],
)
def test_after_a_429_a_retry_waits_for_the_same_reset(answering, pace, reset, dated, seconds):
    now = 1_671_028_894
    headers = {"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "0",
               "X-RateLimit-Reset": reset.format(now + 90)}  # fmt: skip
    if dated:
        headers["Date"] = "Wed, 14 Dec 2022 14:41:34 GMT"
    call, _ = answering(httpx.Response(429, headers=headers), httpx.Response(202))

    call(create, pace=pace)

    waited = sum(call.clock.waits)
    assert waited == seconds if seconds else waited <= 0.5


def test_the_rate_limit_of_a_client_says_when_the_window_ends_whatever_the_unit(answering):
    date = {"Date": "Wed, 14 Dec 2022 14:41:34 GMT"}
    for reset in ("1671028900", "1671028900000", "1671028900.0", "6", "6, 6"):
        call, _ = answering(limits(5, reset, **date))

        def use(client):
            create(client)
            return client.rate_limit

        assert call(use).reset_at == datetime(2022, 12, 14, 14, 41, 40, tzinfo=UTC)


def test_the_rate_limit_of_an_answer_without_a_date_stays_the_same(answering):
    call, _ = answering(limits(5, 6))

    def use(client):
        create(client)
        before = client.rate_limit
        call.clock.advance(60)
        return before, client.rate_limit

    before, after = call(use)

    assert before == after
    assert before.reset_at.timestamp() == pytest.approx(call.clock.time() - 54, abs=1)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_share_of_the_quota_leaves_the_rest_to_others(event_loop, share):
    _, watched, _ = race(event_loop, int(2.5 * share * LIMIT), quota_share=share)

    assert set(watched.whole_windows) == {int(share * LIMIT)}
    assert max(watched.accepted.values()) <= share * LIMIT


def test_a_view_with_a_smaller_share_does_not_hold_up_the_others(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, rate_limit=100, record=False)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        backfill = client.with_options(quota_share=0.2)
        done = []

        async def send(sender, name, number):
            await sender.create(name, user_id=str(number))
            done.append((name, clock.time() - BEGIN))

        async with anyio.create_task_group() as group:
            for number in range(30):
                group.start_soon(send, backfill, "old", number)
            await anyio.sleep(1)
            for number in range(50):
                group.start_soon(send, client, "new", number)
        return done

    done = run_in_no_time(main, event_loop)

    assert max(seconds for name, seconds in done if name == "new") < 2
    assert sum(name == "old" and seconds < 2 for name, seconds in done) == 20


def test_while_there_is_room_nothing_waits(event_loop):
    emulator, watched, seconds = race(event_loop, 1000, tasks=100, latency=0.1)

    # Ten find out what is left; then all go at once.
    assert watched.most_at_once == 100
    assert seconds < 2
    assert emulator.counts.limited == 0


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_whoever_comes_first_goes_first(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, rate_limit=20)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(lambda number=number: client.create("a", user_id=str(number)))
                await anyio.lowlevel.checkpoint()
        return [int(event.user_id) for event in emulator.events]

    assert run_in_no_time(main, event_loop) == list(range(100))


def test_pacing_can_be_turned_off(call):
    clock = call.clock
    emulator = Emulator(clock=clock, rate_limit=3)
    paced = {"transport": emulator.transport(), "max_retries": 0}
    limited = 0
    for _ in range(6):
        try:
            call(lambda client: client.create("a", user_id="1"), pace=False, **paced)
        except RateLimitError:
            limited += 1

    assert limited == 3
    assert clock.waits == []


def test_what_does_not_wait_for_room_counts_for_those_that_do(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, rate_limit=100, faults=slow(0.1), record=False)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        unpaced = client.with_options(pace=False)
        await client.create("a", user_id="0")
        async with anyio.create_task_group() as group:
            for number in range(90):
                group.start_soon(lambda number=number: unpaced.create("b", user_id=str(number)))
            await anyio.lowlevel.checkpoint()
            for number in range(90):
                group.start_soon(lambda number=number: client.create("c", user_id=str(number)))
        return emulator.counts.limited

    assert run_in_no_time(main, event_loop) == 0


def limits(remaining, reset, **headers):
    return httpx.Response(
        202,
        headers={
            "X-RateLimit-Limit": "10",
            "X-RateLimit-Remaining": str(remaining),
            "X-RateLimit-Reset": str(reset),
            **headers,
        },
    )


def create(client):
    return client.create("placed-order", user_id="1")


def test_a_wait_that_would_pass_the_deadline_is_not_begun(answering):
    call, transport = answering(limits(0, 1_671_028_910))

    def twice(client):
        create(client)
        create(client)

    with pytest.raises(APITimeoutError, match="rate limit left no room") as caught:
        call(twice, deadline=5)

    assert call.clock.waits == []
    assert len(transport.requests) == 1
    assert (caught.value.tries, caught.value.may_have_been_processed) == (0, False)


@pytest.mark.parametrize("jump", [-3600, -100, 3600])
def test_setting_the_clock_while_the_quota_is_used_up_stops_nobody(jump):
    class Settable(ManualClock):
        ahead = 0.0

        def time(self):
            return super().time() + self.ahead

    clock = Settable()
    server = ManualClock(clock.time())
    emulator = Emulator(clock=lambda: server.time() + clock.monotonic(), rate_limit=10)
    client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
    for number in range(10):
        client.create("a", user_id=str(number))
    clock.ahead = jump
    for number in range(10, 30):
        client.create("a", user_id=str(number))

    assert emulator.counts.stored == 30
    assert sum(clock.waits) < 3 * WINDOW


def test_a_handler_that_interrupts_a_wait_can_send_itself():
    class Interrupted(ManualClock):
        inside = False

        def alarm(self):
            alarm = super().alarm()
            wait = alarm.wait

            def interrupted(seconds):
                # As a signal's handler would, in the thread that waits.
                if not self.inside:
                    self.inside = True
                    client.create("a", user_id="handler")
                wait(seconds)

            alarm.wait = interrupted
            return alarm

    clock = Interrupted()
    emulator = Emulator(clock=clock, rate_limit=10)
    client = DataEventsClient("token", transport=emulator.transport(), clock=clock)
    for number in range(11):
        client.create("a", user_id=str(number))

    assert [event.user_id for event in emulator.events] == [*map(str, range(10)), "handler", "10"]


def test_at_the_start_ten_find_out_what_is_left(event_loop):
    emulator, _, _ = race(event_loop, 60, tasks=60, limit=30, window=10)

    assert emulator.counts.limited == 0
    assert emulator.counts.stored == 60


def test_a_share_of_less_than_one_request_is_one(event_loop):
    _, watched, _ = race(event_loop, 4, tasks=4, limit=10, window=2, quota_share=0.01, latency=0)

    assert set(watched.accepted.values()) == {1}


def test_a_request_that_got_no_answer_counts_until_one_tells(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        faults = [None, Fault.reset(processed=True)]
        emulator = Emulator(clock=clock, rate_limit=2, faults=faults)
        client = AsyncDataEventsClient(
            "token", transport=emulator.transport(), clock=clock, max_retries=0
        )
        await client.create("a", user_id="1")
        with pytest.raises(IntercomError):
            await client.create("a", user_id="2")
        await client.create("a", user_id="3")
        return emulator.counts.limited, clock.time() - BEGIN

    limited, seconds = run_in_no_time(main, event_loop)

    assert limited == 0
    assert seconds > 6


def test_a_429_of_a_window_holds_back_until_its_end_and_not_for_longer(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, rate_limit=3)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        others = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        await client.create("a", user_id="1")
        for number in range(2, 4):
            await others.create("a", user_id=str(number))
        await client.create("a", user_id="4")
        return emulator.counts.limited, clock.time() - BEGIN

    limited, seconds = run_in_no_time(main, event_loop)

    assert limited == 1
    assert 6 < seconds < 8


def test_what_was_refused_before_is_what_is_raised_where_no_room_comes(answering):
    call, _ = answering(
        limits(5, 1_671_028_950, Date="Wed, 14 Dec 2022 14:41:40 GMT"),
        httpx.Response(503, headers=limits(0, 1_671_028_950).headers),
    )

    def twice(client):
        create(client)
        create(client)

    with pytest.raises(ServerError) as caught:
        call(twice, deadline=20)

    assert caught.value.tries == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Remaining": ""},
        {"X-RateLimit-Limit": "many"},
        {"X-RateLimit-Reset": "9" * 5000},
        {"X-RateLimit-Reset": "9" * 400},
        {"X-RateLimit-Limit": "9" * 400},
        {"X-RateLimit-Reset": "1671028894000"},
        {"X-RateLimit-Reset": "-5"},
        {"X-RateLimit-Reset": "0"},
        {"Date": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"X-RateLimit-Remaining": "-3", "X-RateLimit-Reset": "1389913941"},
    ],
    ids=str,
)
def test_nonsense_about_the_limit_stops_nobody(answering, headers):
    # Were it not for the nonsense, nobody could go on.
    call, transport = answering(limits(0, 1_671_028_909, **headers))

    def use(client):
        for _ in range(5):
            create(client)

    call(use)

    assert len(transport.requests) == 5
    assert call.clock.waits == []


def test_answers_that_say_nothing_of_a_limit_stop_nobody(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        emulator = Emulator(clock=clock, rate_limit=None, faults=slow(1), record=False)
        watched = Watched(emulator, clock)
        client = AsyncDataEventsClient("token", transport=watched, clock=clock)
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(lambda number=number: client.create("a", user_id=str(number)))
        return watched.most_at_once

    assert run_in_no_time(main, event_loop) >= 190


def test_a_scout_that_does_not_come_back_is_not_waited_for(event_loop):
    # The first ten answers never come, but for the clients' patience.
    faults = itertools.chain(itertools.repeat(Fault.slow(60), 10), itertools.repeat(None))

    assert when_50_are_done(faults, event_loop)[39] < 3


def test_429_with_retry_after_alone_holds_everybody_back(event_loop):
    async def main():
        clock = EventLoopClock(BEGIN)
        faults = [Fault.rate_limited(retry_after=7)]
        emulator = Emulator(clock=clock, rate_limit=None, faults=faults)
        client = AsyncDataEventsClient("token", transport=emulator.transport(), clock=clock)
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.create("a", user_id="1"))
            await anyio.sleep(1)
            await client.create("a", user_id="2")
            return clock.time() - BEGIN

    assert run_in_no_time(main, event_loop) >= 7


def test_when_a_clock_is_set_the_quota_is_soon_kept_again():
    class Jumping(ManualClock):
        ahead = 0.0

        def time(self):
            return clock.time() + self.ahead

        def monotonic(self):
            return clock.monotonic()

        def alarm(self):
            return clock.alarm()

    clock, ours = ManualClock(), Jumping()
    emulator = Emulator(clock=clock, rate_limit=10)
    client = DataEventsClient("token", transport=emulator.transport(), clock=ours)
    for number in range(100):
        if number % 30 == 29:
            ours.ahead += [500, -2000][number // 30 % 2]
        client.create("a", user_id=str(number))

    assert emulator.counts.stored == 100
    # Each time that it is set, at most one window is misjudged.
    assert emulator.counts.limited <= 6
    assert sum(clock.waits) < 200
