"""Sends events through everything that can go wrong, and counts what became of each.

    nox -s stress [-- --events 20000]

First against an emulator that spoils every fifth request, in all the ways that it knows, over real
sockets: from 16 threads, from 50 tasks, and from 4 processes. Each event has to be stored, or its
caller to have got an error; an error that says "not processed" must be right; and at most one in a
thousand may end in an error at all.

Then as fast as it can against Intercom's rate limit: from one process at Intercom's own figures, in
simulated time, and from 4 processes over real sockets with small windows; with the server's clock
right, 3 seconds ahead and 3 seconds behind.

The official SDK does the same as a program of its users would, for comparison. The exit code is 1
where one of the claims does not hold; nothing is claimed of the official SDK.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import anyio
import attrs
import httpx

from intercom_data_events import (
    AsyncDataEventsClient,
    Clock,
    DataEventsClient,
    IntercomError,
)
from intercom_data_events.emulator import Emulator, Fault, random_faults

SHARE = 0.2
LIMIT, WINDOW = 1667, 10
SKEWS = (0, 3, -3)
BEGIN = 1_671_028_894


@attrs.frozen
class Task:
    """What a process of its own is to send, and how.

    Attributes:
        sender: The name of one of the functions in ``SENDERS``.
        url: Where the emulator is.
        first: The number of the first event.
        events: How many there are.
        at_once: Threads, or tasks.
        speed: How much faster than real the time of waits and delays passes.
        origin: When it began to, in Unix seconds.
    """

    sender: str
    url: str
    first: int
    events: int
    at_once: int
    speed: float
    origin: float


@attrs.define
class Outcome:
    """What became of events: the numbers of those whose caller got an error."""

    certainly_not: list[int] = attrs.field(factory=list[int])
    perhaps: list[int] = attrs.field(factory=list[int])
    kinds: Counter[str] = attrs.field(factory=Counter[str])
    seconds: float = 0.0

    def note(self, number: int, error: Exception) -> None:
        """Takes in an error."""
        self.kinds[f"{type(error).__name__} {getattr(error, 'status_code', '')}".strip()] += 1
        # Whoever is not told has to expect either.
        may_have = getattr(error, "may_have_been_processed", True)
        (self.perhaps if may_have else self.certainly_not).append(number)

    def add(self, other: Outcome) -> None:
        """Takes in what became of others, sent at the same time."""
        self.certainly_not += other.certainly_not
        self.perhaps += other.perhaps
        self.kinds += other.kinds
        self.seconds = max(self.seconds, other.seconds)


class _FastClock(Clock):
    """Time that passes faster, so that waiting for it takes less."""

    def __init__(self, speed: float, origin: float) -> None:
        self._speed = speed
        self._origin = origin

    def time(self) -> float:
        return self._origin + (time.time() - self._origin) * self._speed

    def monotonic(self) -> float:
        return time.monotonic() * self._speed

    def alarm(self) -> Any:
        return _Hurried(super().alarm(), self._speed)

    def async_alarm(self) -> Any:
        return _Hurried(super().async_alarm(), self._speed)


class _Hurried:
    def __init__(self, alarm: Any, speed: float) -> None:
        self._alarm = alarm
        self._speed = speed

    def set(self) -> None:
        self._alarm.set()

    def wait(self, seconds: float, /) -> Any:
        return self._alarm.wait(seconds / self._speed)


class _EventLoopClock(Clock):
    """The time of an event loop, which can be simulated."""

    def __init__(self, now: float) -> None:
        self._begin = now - anyio.current_time()

    def time(self) -> float:
        return self._begin + anyio.current_time()

    def monotonic(self) -> float:
        return anyio.current_time()


def event(number: int) -> dict[str, Any]:
    """One of the events: many contacts, each with a few, all different to Intercom."""
    return {
        "event_name": "placed-order",
        "user_id": str(number // 20),
        "created_at": BEGIN + number % 20,
    }


# What runs in processes of its own.


def from_threads(task: Task, outcome: Outcome) -> None:
    clock = _FastClock(task.speed, task.origin)
    numbers = iter(range(task.first, task.first + task.events))
    lock = threading.Lock()

    with DataEventsClient("token", base_url=task.url, clock=clock, deadline=3600) as client:

        def send() -> None:
            while (number := next(numbers, None)) is not None:
                try:
                    client.create(**event(number))
                except IntercomError as error:
                    with lock:
                        outcome.note(number, error)

        in_threads(send, task.at_once)


def from_tasks(task: Task, outcome: Outcome) -> None:
    numbers = iter(range(task.first, task.first + task.events))

    async def main() -> None:
        clock = _FastClock(task.speed, task.origin)
        async with AsyncDataEventsClient(
            "token", base_url=task.url, clock=clock, deadline=3600
        ) as client:

            async def send() -> None:
                for number in numbers:
                    try:
                        await client.create(**event(number))
                    except IntercomError as error:
                        outcome.note(number, error)

            async with anyio.create_task_group() as group:
                for _ in range(task.at_once):
                    group.start_soon(send)

    anyio.run(main)


def from_the_official_sdk(task: Task, outcome: Outcome) -> None:
    from intercom import Intercom
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    client = Intercom(token="token", base_url=task.url)  # noqa: S106  # any will do
    numbers = iter(range(task.first, task.first + task.events))
    lock = threading.Lock()

    def send() -> None:
        while (number := next(numbers, None)) is not None:
            try:
                client.events.create(request=CreateDataEventRequestWithUserId(**event(number)))
            except Exception as error:  # noqa: BLE001  # it has no root of its own
                with lock:
                    outcome.note(number, error)

    in_threads(send, task.at_once)


SENDERS: dict[str, Callable[[Task, Outcome], None]] = {
    "threads": from_threads,
    "tasks": from_tasks,
    "official": from_the_official_sdk,
}


def in_threads(function: Callable[[], None], number: int) -> None:
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(function) for _ in range(number)]:
            future.result()


def work(text: str) -> None:
    """Does one task, and prints what came of it."""
    logging.disable()
    outcome = Outcome()
    begin = time.perf_counter()
    task = Task(**json.loads(text))
    SENDERS[task.sender](task, outcome)
    outcome.seconds = time.perf_counter() - begin
    print(json.dumps(attrs.asdict(outcome)))


def in_processes(tasks: list[Task]) -> Outcome:
    """Does tasks at the same time, each in a process of its own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INTERCOM_") and not name.upper().endswith("_PROXY")
    }
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", json.dumps(attrs.asdict(task))],
            stdout=subprocess.PIPE,
            env=environment,
        )
        for task in tasks
    ]
    outcome = Outcome()
    for process in running:
        written, _ = process.communicate()
        if process.returncode:
            sys.exit("A process that was to send events failed; what it says is above.")
        found = json.loads(written)
        outcome.add(Outcome(**{**found, "kinds": Counter(found["kinds"])}))
    return outcome


# What is measured.


def through_faults(events: int, speed: float, seed: int, official: bool) -> bool:
    """Sends while every fifth request goes wrong; whether the claims hold."""
    heading(f"{events:,} events, {SHARE:.0%} of requests go wrong, over real sockets")
    row("", "stored", "in error", "wrong", "lost", "retried", "seconds")
    ways = {"16 threads": ("threads", 1, 16), "50 tasks": ("tasks", 1, 50),
            "4 processes": ("threads", 4, 4)}  # fmt: skip
    if official:
        ways["official SDK, 16 threads"] = ("official", 1, 16)
    good = True
    for name, (sender, processes, at_once) in ways.items():
        origin = time.time()
        emulator = Emulator(
            clock=_FastClock(speed, origin),
            rate_limit=None,
            faults=random_faults(SHARE, seed=seed),
            record=False,
        )
        each = math.ceil(events / processes)
        with emulator.serve() as url:
            outcome = in_processes(
                [
                    Task(sender, url, first, min(each, events - first), at_once, speed, origin)
                    for first in range(0, events, each)
                ]
            )
        stored = [int(one.user_id or 0) * 20 + one.created_at - BEGIN for one in emulator.events]
        in_error = len(outcome.certainly_not) + len(outcome.perhaps)
        wrong = len(set(outcome.certainly_not) & set(stored)) + len(stored) - len(set(stored))
        lost = events - len(set(stored) | set(outcome.certainly_not) | set(outcome.perhaps))
        row(name, f"{len(stored):,}", f"{in_error:,} = {in_error / events:.2%}", wrong, lost,
            f"{emulator.counts.requests - events:,}", f"{outcome.seconds:.1f}")  # fmt: skip
        if outcome.kinds:
            most = (f"{times:,} {kind}" for kind, times in outcome.kinds.most_common(4))
            print(f"    errors: {', '.join(most)}")
        if sender != "official":
            good &= not wrong and not lost and in_error <= events / 1000
    return good


def at_full_speed(windows: int) -> bool:
    """Sends from one process at Intercom's own figures, in simulated time."""
    import trio
    import trio.testing

    heading(
        f"At full speed, one process, {LIMIT:,} requests in {WINDOW} s, simulated time, 50 tasks"
    )
    row("server's clock", "events", "429", "least of a whole window's quota", "seconds")
    good = True
    for skew in SKEWS:

        async def main(skew: int = skew) -> tuple[Emulator, Counter[int], float]:
            clock = _EventLoopClock(BEGIN + 3.3)
            source = random.Random(skew)  # noqa: S311  # guards nothing
            slow = (Fault.slow(source.uniform(0.05, 0.15)) for _ in itertools.count())
            emulator = Emulator(
                clock=clock, rate_limit=LIMIT, window=WINDOW, faults=slow, record=False
            )
            emulator.advance(skew)
            accepted = Counter[int]()
            transport = emulator.transport()

            async def count(response: httpx.Response) -> None:
                if response.status_code == httpx.codes.ACCEPTED:
                    accepted[int(response.headers["X-RateLimit-Reset"])] += 1

            client = AsyncDataEventsClient(
                "token",
                http_client=httpx.AsyncClient(
                    transport=transport, event_hooks={"response": [count]}
                ),
                clock=clock,
                deadline=math.inf,
            )
            numbers = iter(range(LIMIT * windows))

            async def send() -> None:
                for number in numbers:
                    await client.create(**event(number))

            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(send)
            return emulator, accepted, clock.time() - BEGIN - 3.3

        emulator, accepted, seconds = trio.run(
            main, clock=trio.testing.MockClock(autojump_threshold=0)
        )
        whole = [accepted[reset] for reset in sorted(accepted)[1:-1]]
        used = min(whole) / LIMIT
        row(f"{skew:+d} s", f"{emulator.counts.stored:,}", emulator.counts.limited, f"{used:.2%}",
            f"{seconds:.1f}")  # fmt: skip
        good &= emulator.counts.limited == 0 and used >= 0.98
    return good


def in_small_windows(events: int, official: bool) -> bool:
    """Sends from several processes that share a quota."""
    limit, window = 400, 2
    quota = f"{limit} requests in {window} s"
    heading(f"{events:,} events at full speed, 4 processes, {quota}, real sockets")
    row("", "server's clock", "stored", "in error", "429", "seconds")
    ways = [("threads", 4, skew) for skew in SKEWS]
    if official:
        ways.append(("official", 4, 0))
    good = True
    for sender, processes, skew in ways:
        emulator = Emulator(rate_limit=limit, window=window, record=False)
        emulator.advance(skew)
        each = math.ceil(events / processes)
        with emulator.serve() as url:
            outcome = in_processes(
                [
                    Task(sender, url, first, min(each, events - first), 4, 1, time.time())
                    for first in range(0, events, each)
                ]
            )
        counts = emulator.counts
        in_error = len(outcome.certainly_not) + len(outcome.perhaps)
        row("official SDK" if sender == "official" else "", f"{skew:+d} s", f"{counts.stored:,}",
            f"{in_error:,}", f"{counts.limited:,} = {counts.limited / counts.requests:.2%}",
            f"{outcome.seconds:.1f}")  # fmt: skip
        if sender != "official":
            good &= not in_error and counts.stored == events
            good &= counts.limited < counts.requests / 100
    return good


def heading(text: str) -> None:
    print(f"\n{text}\n")


def row(*cells: object) -> None:
    first, *others = map(str, cells)
    print(
        f"  {first:<26}" + "".join(f"{cell:>{max(14, len(cell) + 2)}}" for cell in others),
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="default: %(default)s")
    parser.add_argument(
        "--speed", type=float, default=10,
        help="how much faster than real the time of waits and faults passes (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the faults (default: another each time)")
    parser.add_argument(
        "--without-official", action="store_true", help="leave out the official SDK"
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return 0
    logging.getLogger("intercom_data_events").setLevel(logging.ERROR)
    official = not options.without_official
    seed = random.randrange(2**32) if options.seed is None else options.seed  # noqa: S311  # guards nothing
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, seed {seed}"
        + (
            f"; the official SDK is python-intercom {version('python-intercom')}"
            if official
            else ""
        )
    )
    good = [
        through_faults(options.events, options.speed, seed, official),
        at_full_speed(max(3, options.events // LIMIT)),
        in_small_windows(max(1600, options.events // 5), official),
    ]
    print("\nEvery claim holds." if all(good) else "\nNot every claim holds.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
