"""A clock that a test controls, and the emulator's time on it."""

from __future__ import annotations

import math
import threading
import time
from email.utils import parsedate_to_datetime

import anyio
import httpx
import pytest

from intercom_data_events.clock import Clock
from intercom_data_events.emulator import Emulator, Fault, ManualClock

from .conftest import NOW, Connect
from .drivers import DRIVERS, EVENT, PATIENCE, Ask, Drive, create


@pytest.fixture
def drive() -> Drive:
    return DRIVERS["in process"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(float(NOW))


def date(headers: httpx.Headers) -> int:
    return int(parsedate_to_datetime(headers["Date"]).timestamp())


def test_it_stands_still_at_the_time_it_is_given(clock: ManualClock) -> None:
    assert isinstance(clock, Clock)
    assert (clock.time(), clock.monotonic()) == (NOW, 0)
    assert (clock.time(), clock.waits) == (NOW, [])


def test_it_moves_without_a_wait_where_it_is_told_to(clock: ManualClock) -> None:
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (NOW + 2.5, 2.5)
    assert clock.waits == []


def test_each_wait_is_noted_and_moves_it_on(clock: ManualClock) -> None:
    clock.alarm().wait(3600.0)
    clock.alarm().wait(0.0)
    clock.alarm().wait(0.25)
    assert clock.waits == [3600.0, 0.0, 0.25]
    assert (clock.time(), clock.monotonic()) == (NOW + 3600.25, 3600.25)


@pytest.mark.anyio
async def test_each_wait_of_a_task_is_noted_and_moves_it_on(clock: ManualClock) -> None:
    await clock.async_alarm().wait(3600.0)
    await clock.async_alarm().wait(0.0)
    await clock.async_alarm().wait(0.25)
    assert clock.waits == [3600.0, 0.0, 0.25]
    assert (clock.time(), clock.monotonic()) == (NOW + 3600.25, 3600.25)


@pytest.mark.parametrize("seconds", [5.0, math.inf])
def test_an_alarm_that_is_set_is_not_waited_for(clock: ManualClock, seconds: float) -> None:
    alarm = clock.alarm()
    alarm.set()
    alarm.wait(seconds)
    assert (clock.time(), clock.waits) == (NOW, [])
    clock.alarm().wait(1.0)
    assert clock.waits == [1.0]


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [5.0, math.inf])
async def test_a_tasks_alarm_that_is_set_is_not_waited_for(
    clock: ManualClock, seconds: float
) -> None:
    alarm = clock.async_alarm()
    alarm.set()
    with anyio.fail_after(PATIENCE):
        await alarm.wait(seconds)
    assert (clock.time(), clock.waits) == (NOW, [])
    await clock.async_alarm().wait(1.0)
    assert clock.waits == [1.0]


def test_a_wait_without_an_end_ends_when_its_alarm_is_set(clock: ManualClock) -> None:
    alarm = clock.alarm()
    waiting = threading.Thread(target=alarm.wait, args=(math.inf,), daemon=True)
    waiting.start()
    waiting.join(0.02)
    assert waiting.is_alive()
    alarm.set()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    assert (clock.time(), clock.waits) == (NOW, [])


@pytest.mark.anyio
async def test_a_tasks_wait_without_an_end_ends_when_its_alarm_is_set(clock: ManualClock) -> None:
    alarm = clock.async_alarm()
    done: list[str] = []

    async def wait() -> None:
        await alarm.wait(math.inf)
        done.append("waiting")

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert done == []
            alarm.set()
    assert done == ["waiting"]
    assert (clock.time(), clock.waits) == (NOW, [])


@pytest.mark.anyio
async def test_a_tasks_wait_lets_others_have_their_turn(clock: ManualClock) -> None:
    others: list[float] = []

    async def other() -> None:
        others.append(clock.time())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(other)
        # Whose turn is first is for the event loop to say.
        await clock.async_alarm().wait(1.0)
        await clock.async_alarm().wait(1.0)
        assert len(others) == 1


@pytest.mark.anyio
async def test_a_task_that_is_cancelled_has_not_waited(clock: ManualClock) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.async_alarm().wait(5.0)
    assert scope.cancelled_caught
    assert (clock.time(), clock.waits) == (NOW, [])


def test_a_window_of_the_rate_limit_ends_when_it_is_waited_for(
    drive: Drive, clock: ManualClock
) -> None:
    emulator = Emulator(
        clock=clock, rate_limit=2, window=60.0, faults=[None, None, None, Fault.slow(60.0)]
    )
    met = drive(emulator, *(create(second, patience=None) for second in range(5)))
    # What is late was counted when it came.
    assert [one.status for one in met] == [202, 202, 429, 429, 202]
    assert met[2].json["errors"] == [
        {"code": "rate_limit_exceeded", "message": "Exceeded rate limit of 2 in 60_seconds"}
    ]
    resets = [int(one.headers["X-RateLimit-Reset"]) for one in met]
    window = NOW // 60 * 60
    assert resets == [window + 60] * 4 + [window + 120]
    assert clock.waits == [60.0]


@pytest.mark.parametrize("window", [0.5, 1.0, 2.5, 60.0, 86400.0])
def test_a_window_is_over_where_the_headers_say_and_no_second_later(
    connect: Connect, window: float
) -> None:
    clock = ManualClock(float(NOW))
    client = connect(Emulator(clock=clock, rate_limit=1, window=window))
    reset = float(client.post("/events", json=EVENT).headers["X-RateLimit-Reset"])
    assert 0 <= reset - NOW < window + 1
    assert client.post("/events", json=EVENT).status_code == 429
    clock.alarm().wait(reset - clock.time())
    assert client.post("/events", json=EVENT).status_code == 202


@pytest.mark.parametrize("skew", [-3.0, 3.0, 86400.0])
def test_advancing_the_emulator_alone_sets_its_clock_askew(
    drive: Drive, clock: ManualClock, skew: float
) -> None:
    emulator = Emulator(clock=clock, rate_limit=1, window=1.0)
    emulator.advance(skew)
    first, limited = drive(emulator, create(), create())
    assert date(first.headers) == NOW + skew
    assert int(limited.headers["X-RateLimit-Reset"]) == NOW + skew + 1
    assert (clock.time(), clock.waits) == (NOW, [])


def test_advances_add_up_in_both_directions(connect: Connect, clock: ManualClock) -> None:
    emulator = Emulator(clock=clock)
    emulator.advance(10)
    emulator.advance(-13)
    clock.advance(1)
    assert date(connect(emulator).get("/events").headers) == NOW - 2


def test_a_clock_askew_decides_what_is_too_old_to_be_listed(drive: Drive) -> None:
    emulator = Emulator(clock=ManualClock(float(NOW)))
    days = 24 * 60 * 60
    listed = Ask(method="GET", query={"type": "user", "user_id": "314159"})
    drive(emulator, create(-90 * days + 2), create(0))
    for skew, found in [(0, 2), (3, 1), (-3, 2)]:
        emulator.advance(skew)
        (met,) = drive(emulator, listed)
        assert len(met.json["events"]) == found


@pytest.mark.parametrize("name", ["in process", "in process, asyncio", "socket"])
def test_a_function_gives_the_time_and_its_waits_are_real(name: str) -> None:
    emulator = Emulator(clock=lambda: 105.0, faults=[Fault.slow(0.02)])
    begun = time.monotonic()
    (met,) = DRIVERS[name](emulator, create())
    assert time.monotonic() - begun > 0.015
    assert (met.status, date(met.headers)) == (202, 105)
