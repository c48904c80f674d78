"""Sends events through faults and at the rate limit, and counts how often each arrived.

    nox -s stress [-- --events 20000]

- faults: an emulator fails every fifth request with each of its faults, over real sockets. The
  senders are 16 threads, 50 tasks, 4 processes, and both `create_many`, the async one with
  `[fast]`. Each event must be stored, or its caller must get an error. An error that says "not
  processed" must be right. At most one event in a thousand may end in an error other than a
  redirect, and no request may follow a redirect to another server. --fault limits the faults.
- full-speed: one process at Intercom's own rate limit, in simulated time.
- windows: 4 and 8 processes that share a quota in short windows, over real sockets; at most 2 % of
  the answers may be 429.

The last two run with a server's clock that is right, 3 seconds ahead and 3 seconds behind. The
official SDK does the same for comparison, without the faults that break HTTP: some never end, and
the SDK has no time limit for them. The exit code is 1 if a requirement is not met; there are none
for the official SDK.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import anyio
import attrs

import harness
from intercom_data_events import AsyncDataEventsClient, Clock, DataEventsClient, IntercomError
from intercom_data_events.bulk import Outcome
from intercom_data_events.emulator import FAULTS, Emulator, Fault, random_faults

SHARE = 0.2
SKEWS = (0, 3, -3)
# Seconds. With faults, nothing is sent during the last part of each period, so that connections are
# idle: some faults befall idle connections only.
PERIOD, QUIET = 2.0, 0.25
# Seconds that an attempt may take; some faults have no end.
TIME_LIMIT = 1.0


class _FastClock(Clock):
    """A clock that runs faster, so that waits are shorter."""

    def __init__(self, speed: float, origin: float) -> None:
        self._speed = speed
        self._origin = origin

    def time(self) -> float:
        return self._origin + (time.time() - self._origin) * self._speed

    def monotonic(self) -> float:
        return time.monotonic() * self._speed

    def alarm(self) -> Any:
        return _FastAlarm(super().alarm(), self._speed)

    def async_alarm(self) -> Any:
        return _FastAlarm(super().async_alarm(), self._speed)


class _FastAlarm:
    def __init__(self, alarm: Any, speed: float) -> None:
        self.set = alarm.set
        self._alarm = alarm
        self._speed = speed

    def wait(self, seconds: float, /) -> Any:
        return self._alarm.wait(seconds / self._speed)


# Code of child processes. Each prints its errors, and finally its seconds.


@contextmanager
def timed() -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(time.perf_counter() - begin)


def report(number: int, error: Exception) -> None:
    """Prints an event's error: its number, whether it may have been processed, the kind."""
    kind = f"{type(error).__name__} {getattr(error, 'status_code', '')}".strip()
    # Without this information, a caller must expect either.
    may_have = getattr(error, "may_have_been_processed", True)
    sys.stdout.write(f"{json.dumps([number, may_have, kind])}\n")


def seconds_of_quiet(with_faults: float) -> float:
    """Returns the seconds to wait before the next request."""
    left = PERIOD - time.time() % PERIOD
    return left if with_faults and left < QUIET else 0.0


def options_of(
    speed: float, origin: float, with_faults: float, *, limit_is_real: bool = False
) -> dict[str, Any]:
    """Returns the clients' options.

    The client's clock times attempts, except in aiohttp, which has another.
    """
    limit = TIME_LIMIT if limit_is_real else TIME_LIMIT * speed
    limits = {"timeout": limit} if with_faults else {}
    return {"clock": _FastClock(speed, origin), "deadline": 3600, **limits}


def create_in_threads(
    create: Callable[..., object],
    numbers: Iterator[int],
    at_once: int,
    expected: type[Exception],
    with_faults: float = 0,
) -> None:
    def send() -> None:
        while (number := next(numbers, None)) is not None:
            time.sleep(seconds_of_quiet(with_faults))
            try:
                create(**harness.event(number))
            except expected as error:
                report(number, error)

    harness.in_threads(send, at_once)


@timed()
def send_in_threads(first: int, events: int, at_once: int, *settings: float) -> None:
    with DataEventsClient(**options_of(*settings)) as client:
        numbers = iter(range(first, first + events))
        create_in_threads(client.create, numbers, at_once, IntercomError, settings[-1])


@timed()
def send_in_tasks(first: int, events: int, at_once: int, *settings: float) -> None:
    numbers = iter(range(first, first + events))

    async def main() -> None:
        async with (
            AsyncDataEventsClient(**options_of(*settings)) as client,
            anyio.create_task_group() as group,
        ):

            async def send() -> None:
                for number in numbers:
                    await anyio.sleep(seconds_of_quiet(settings[-1]))
                    try:
                        await client.create(**harness.event(number))
                    except IntercomError as error:
                        report(number, error)

            for _ in range(at_once):
                group.start_soon(send)

    anyio.run(main)


@contextmanager
def reporting(first: int, events: int) -> Iterator[Callable[[Outcome], None]]:
    """Yields a function that reports outcomes; an error that ends all is for each open event."""
    missing = set(range(first, first + events))

    def take(outcome: Outcome) -> None:
        number = first + outcome.position
        missing.remove(number)
        if outcome.error is not None:
            report(number, outcome.error)

    try:
        yield take
    except IntercomError as error:
        for number in missing:
            report(number, error)


def read_events(first: int, events: int, with_faults: float) -> Iterator[dict[str, Any]]:
    """Yields events and sometimes blocks, even an event loop, as files and databases do."""
    for number in range(first, first + events):
        time.sleep(seconds_of_quiet(with_faults))
        yield harness.event(number)


@timed()
def send_many(first: int, events: int, at_once: int, *settings: float) -> None:
    source = read_events(first, events, settings[-1])
    with (
        DataEventsClient(**options_of(*settings)) as client,
        reporting(first, events) as take,
    ):
        for outcome in client.create_many(source, concurrency=at_once):
            take(outcome)


@timed()
def send_many_async(first: int, events: int, at_once: int, *settings: float) -> None:
    source = read_events(first, events, settings[-1])

    async def main() -> None:
        async with AsyncDataEventsClient(**options_of(*settings, limit_is_real=True)) as client:
            with reporting(first, events) as take:
                async for outcome in client.create_many(source, concurrency=at_once):
                    take(outcome)

    anyio.run(main)


@timed()
def send_with_official_sdk(first: int, events: int, at_once: int, *_: float) -> None:
    from intercom import Intercom
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    client = Intercom(token="token", base_url=os.environ["INTERCOM_BASE_URL"])  # noqa: S106

    def create(**fields: Any) -> None:
        client.events.create(request=CreateDataEventRequestWithUserId(**fields))

    # The errors of the SDK have no common class.
    create_in_threads(create, iter(range(first, first + events)), at_once, Exception)


def send_from_processes(
    sender: Callable[..., None], processes: int, events: int, url: str, *arguments: float
) -> tuple[list[tuple[int, bool, str]], float]:
    """Sends events from several processes at once; returns all errors and the longest duration."""
    each = math.ceil(events / processes)
    children = [
        harness.start(sender, first, min(each, events - first), *arguments, url=url)
        for first in range(0, events, each)
    ]
    errors, seconds = [], 0.0
    for child in children:
        *lines, taken = harness.finish(child, timeout=harness.PATIENCE + events / 20)
        errors += [tuple(json.loads(line)) for line in lines]
        seconds = max(seconds, float(taken))
    return errors, seconds


# The parts.


def protocol_faults(speed: float, elsewhere: str) -> list[Fault]:
    """Returns faults that break HTTP; their waits are in real seconds, not the emulator's."""
    pause = 0.05 * speed
    return [
        Fault.answered_twice(),
        Fault.answered_twice(after=pause),
        Fault.interim(),
        Fault.interim(math.inf, every=pause),
        Fault.trickling_head(0.001),
        Fault.trickling_head(pause, endless=True),
        # A client that waits for the rest would take a second of real time.
        attrs.evolve(Fault.wrong_length("too long"), connection="closed"),
        Fault.wrong_length("too short"),
        Fault.wrong_length("not a number"),
        Fault.wrong_length("two"),
        Fault.wrong_length("cut chunk"),
        Fault.dropped(),
        Fault.dropped(pause),
        Fault.redirected(),
        Fault.redirected(f"{elsewhere}/events", status=302),
    ]


def through_faults(options: argparse.Namespace) -> bool:
    events = options.events
    table = harness.Table(
        f"{events:,} events over real sockets; {SHARE:.0%} of the requests fail",
        "", "stored", "in error", "wrong", "lost", "elsewhere", "retried", "seconds",
    )  # fmt: skip
    clients = {
        "16 threads": (send_in_threads, 1, 16),
        "50 tasks": (send_in_tasks, 1, 50),
        "4 processes": (send_in_threads, 4, 4),
        "create_many": (send_many, 1, 16),
        "create_many, async, [fast]": (send_many_async, 1, 50),
    }
    if not options.without_official:
        clients["official SDK, 16 threads"] = (send_with_official_sdk, 1, 16)
    good = True
    other = Emulator(record=False)
    with other.serve() as elsewhere:
        for name, (sender, processes, at_once) in clients.items():
            official = sender is send_with_official_sdk
            among = [*FAULTS, *([] if official else protocol_faults(options.speed, elsewhere))]
            if options.fault:
                among = [fault for fault in among if fault.name in options.fault] or among
            origin = time.time()
            emulator = Emulator(
                clock=_FastClock(options.speed, origin),
                rate_limit=None,
                faults=random_faults(SHARE, seed=options.seed, among=among),
                record=False,
            )
            other.clear()
            with emulator.serve() as url:
                errors, seconds = send_from_processes(
                    sender, processes, events, url, at_once, options.speed, origin, 1
                )
            stored = list(map(harness.number_of, emulator.events))
            not_processed = {number for number, may_have_been, _ in errors if not may_have_been}
            wrong = len(not_processed & set(stored)) + len(stored) - len(set(stored))
            lost = events - len({*stored, *(number for number, _, _ in errors)})
            followed = other.counts.requests
            table.row(name, len(stored), f"{len(errors):,} = {len(errors) / events:.2%}", wrong,
                      lost, followed, emulator.counts.requests - events,
                      f"{seconds:.1f}")  # fmt: skip
            kinds = Counter(kind for _, _, kind in errors)
            if errors:
                told = (f"{times:,} {kind}" for kind, times in kinds.most_common(4))
                print(f"    errors: {', '.join(told)}")
            if not official:
                failed = sum(times for kind, times in kinds.items() if not _is_redirect(kind))
                good &= not wrong and not lost and not followed
                # One kind of fault alone can end more attempts than all kinds together.
                good &= bool(options.fault) or failed <= events / 1000
    return good


def _is_redirect(kind: str) -> bool:
    """Returns whether an error is a redirect: no retry helps, so a person must look into it."""
    return kind.endswith((" 302", " 307"))


def at_full_speed(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"At full speed: one process, 50 tasks, {harness.LIMIT:,} requests per {harness.WINDOW} s, "
        "simulated time",
        "server's clock", "events", "429", "least quota used per window", "seconds",
    )  # fmt: skip
    events = harness.LIMIT * max(3, options.events // harness.LIMIT)
    good = True
    for skew in SKEWS:
        numbers = iter(range(events))

        async def send(client: AsyncDataEventsClient, numbers: Iterator[int] = numbers) -> None:
            async def send_some() -> None:
                for number in numbers:
                    await client.create(**harness.event(number))

            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(send_some)

        source = random.Random(skew)  # noqa: S311  # guards nothing
        latencies = (source.uniform(0.05, 0.15) for _ in count())
        emulator, used, seconds = harness.at_rate_limit(
            send, latencies, skew=skew, deadline=math.inf
        )
        table.row(f"{skew:+d} s", emulator.counts.stored, emulator.counts.limited,
                  f"{min(used):.2%}", f"{seconds:.1f}")  # fmt: skip
        good &= emulator.counts.limited == 0 and min(used) >= 0.98
    return good


def in_small_windows(options: argparse.Namespace) -> bool:
    events = max(1200, options.events // 5)
    table = harness.Table(
        "At full speed: processes that share a quota in short windows, over real sockets",
        "", "quota", "server's clock", "stored", "in error", "429", "seconds",
    )  # fmt: skip
    # Sender, processes, threads per process, requests per window, its seconds, skew, events.
    rows = [(send_in_threads, 4, 4, 400, 2, skew, events) for skew in SKEWS]
    rows += [
        (send_in_threads, 4, 16, 100, 1, 0, events),
        (send_in_threads, 8, 4, 200, 1, 0, events),
    ]
    if not options.without_official:
        rows.append((send_with_official_sdk, 4, 4, 400, 2, 0, events))
    good = True
    for sender, processes, at_once, limit, window, skew, sent in rows:
        emulator = Emulator(rate_limit=limit, window=window, record=False)
        emulator.advance(skew)
        with emulator.serve() as url:
            errors, seconds = send_from_processes(
                sender, processes, sent, url, at_once, 1, time.time(), 0
            )
        counts, ours = emulator.counts, sender is send_in_threads
        name = f"{'' if ours else 'official SDK, '}{processes} x {at_once} threads"
        table.row(name, f"{limit} in {window} s", f"{skew:+d} s", counts.stored, len(errors),
                  f"{counts.limited:,} = {counts.limited / counts.requests:.2%}",
                  f"{seconds:.1f}")  # fmt: skip
        if ours:
            good &= not errors and counts.stored == sent
            good &= counts.limited <= counts.requests / 50
    return good


PARTS = {"faults": through_faults, "full-speed": at_full_speed, "windows": in_small_windows}


def main() -> int:
    parser = harness.make_parser(__doc__, PARTS, seed_of="the faults")
    harness.add_number(parser, "--events", 20_000)
    harness.add_number(
        parser, "--speed", 10.0, "speed of waits and faults, as a multiple of real time"
    )
    parser.add_argument(
        "--fault",
        action="append",
        choices=sorted({fault.name for fault in [*FAULTS, *protocol_faults(1, "")]}),
        metavar="NAME",
        help="test only this fault; repeatable",
    )
    parser.add_argument(
        "--without-official", action="store_true", help="leave out the official SDK"
    )
    options = parser.parse_args()
    return harness.run(
        PARTS,
        options,
        requires=("trio", "aiohttp", *([] if options.without_official else ["python-intercom"])),
    )


if __name__ == "__main__":
    sys.exit(main())
