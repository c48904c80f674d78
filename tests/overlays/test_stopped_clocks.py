"""A caller whose own tests stop the clock, with freezegun for example, is not waited for for ever.

What would not end is tried in a forked child, where nothing but it is stopped.
"""

from __future__ import annotations

import asyncio
import itertools
import time

import freezegun
import httpx
import pytest
from children import Child

from intercom_data_events import (
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
    Event,
    RateLimitError,
)
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.tracker import AsyncTracker, Tracker

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

#: Seconds after which a use that has not ended is stuck.
PATIENCE = 60
#: The moment at which the clock is stopped, and in Unix seconds.
STOPPED, NOW = "2026-11-20 12:00:00", 1_795_176_000


def stopped(function):
    """What a function returns with the clock stopped, in a child."""

    def use():
        # Event loops are to go on, as their own waits are none of this package's.
        with freezegun.freeze_time(STOPPED, real_asyncio=True):
            return function()

    said = Child(use).said(PATIENCE)
    assert "returned" in said, said
    return said["returned"]


def used_up():
    """Says at first that nothing is left of the rate limit for a second, and then accepts all."""
    requests = []

    def answer(request):
        requests.append(request)
        left, reset = ("0", NOW + 1) if len(requests) == 1 else ("99", NOW + 11)
        headers = {
            "X-RateLimit-Limit": "100",
            "X-RateLimit-Remaining": left,
            "X-RateLimit-Reset": str(reset),
        }
        return httpx.Response(202, headers=headers)

    return httpx.MockTransport(answer)


def failing():
    return Emulator(faults=itertools.repeat(Fault.failing(503))).transport()


def test_the_clock_of_a_client_tells_the_time_that_is_stopped_and_measures_what_passes():
    def use():
        clock = Clock()
        before = clock.monotonic()
        while clock.monotonic() == before:
            pass
        return clock.time(), time.monotonic() == time.monotonic()

    assert stopped(use) == [NOW, True]


def test_an_event_happens_at_the_time_that_is_stopped():
    emulator = Emulator()

    def use():
        with DataEventsClient("token", transport=emulator.transport()) as client:
            client.create("a", user_id="7")
        return emulator.events[0].created_at

    assert stopped(use) == NOW


# A window of the rate limit has a whole second at least, so that each of these takes one.


def test_a_request_waits_for_the_rate_limit_no_longer_than_that_takes():
    def use():
        with DataEventsClient("token", transport=used_up(), deadline=5) as client:
            client.create("a", user_id="7")
            client.create("b", user_id="7")

    assert stopped(use) is None


def test_a_bulk_waits_for_the_rate_limit_no_longer_than_that_takes():
    async def use():
        async with AsyncDataEventsClient("token", transport=used_up()) as client:
            await client.create("z", user_id="7")
            events = [Event(name, user_id="7") for name in "abc"]
            return [outcome.status async for outcome in client.create_many(events)]

    assert stopped(lambda: asyncio.run(use())) == ["accepted"] * 3


def test_a_bulk_with_a_rate_of_its_own_goes_on():
    def use():
        events = [Event(name, user_id="7") for name in "abc"]
        with DataEventsClient("token", transport=Emulator().transport()) as client:
            return len(list(client.create_many(events, max_rate=20)))

    assert stopped(use) == 3


@pytest.mark.parametrize("backend", ["blocking", "asyncio"])
def test_a_deadline_counts_the_time_that_passes(backend):
    """Of waits of 0.4 seconds, two are within 1 second; three would pass it."""
    emulator = Emulator(faults=[Fault.rate_limited(retry_after="0.4")] * 9)
    options = {"transport": emulator.transport(), "deadline": 1, "max_retries": 8}

    def use():
        with DataEventsClient("token", **options) as client, pytest.raises(RateLimitError):
            client.create("a", user_id="7")
        return len(emulator.requests)

    async def use_async():
        async with AsyncDataEventsClient("token", **options) as client:
            with pytest.raises(RateLimitError):
                await client.create("a", user_id="7")
        return len(emulator.requests)

    requests = stopped(use if backend == "blocking" else lambda: asyncio.run(use_async()))
    assert 1 <= requests <= 3


def test_a_deadline_is_not_passed_where_the_stopped_clock_is_moved_on():
    def use():
        with freezegun.freeze_time(STOPPED) as clock:

            def answer(request):
                clock.tick(3600)
                return httpx.Response(503 if clock().hour == 13 else 202)

            with DataEventsClient("token", transport=httpx.MockTransport(answer)) as client:
                client.with_options(deadline=10).create("a", user_id="7")

    assert Child(use).said(PATIENCE) == {"returned": None}


def test_a_tracker_is_flushed_and_closed_in_the_time_that_it_is_given():
    def use():
        client = DataEventsClient("token", transport=failing())
        lost = []
        tracker = Tracker(client, on_error=lambda event, error: lost.append(event.user_id))
        tracker.track("a", user_id="7")
        return [tracker.flush(0.3), tracker.close(0.3), lost]

    assert stopped(use) == [False, False, ["7"]]


def test_a_tracker_sends_what_it_has_with_the_clock_stopped():
    def use():
        with DataEventsClient("token", transport=used_up()) as client:
            tracker = Tracker(client)
            for name in "abc":
                tracker.track(name, user_id="7")
            return [tracker.flush(5), tracker.counters.sent, tracker.close(1)]

    assert stopped(use) == [True, 3, True]


def test_a_tracker_of_tasks_is_flushed_and_closed_in_the_time_that_it_is_given():
    async def use():
        async with (
            AsyncDataEventsClient("token", transport=failing()) as client,
            AsyncTracker(client, close_timeout=0.3) as tracker,
        ):
            await tracker.track("a", user_id="7")
            return [await tracker.flush(0.3), await tracker.aclose(0.3)]

    assert stopped(lambda: asyncio.run(use())) == [False, False]
