"""Ends programs that track in all the ways that they end, and counts what became of their events.

    nox -s crashes [-- --rounds 20 --outage 20]

- gunicorn: real workers that share an outbox, under load, are killed in each round, one alone and
  then all and their master at once, at random moments; the next round goes on with the same outbox.
- exit: a program tracks 500 events and comes to its end, while each answer takes 300 ms.
- sigterm: a program that tracks in a loop is terminated at a random moment.
- fork: a program forks ten times while one of its threads tracks and others send.
- outage: nothing listens where Intercom should be, while four threads go on tracking.

Each event for which `track` returned has to be stored, and no more be sent again than was on its
way as somebody died. The exit code is 1 where one of the claims does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import platform
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import attrs
import httpx

from intercom_data_events import Clock, DataEventsClient
from intercom_data_events.emulator import Emulator, EmulatorServer, Fault
from intercom_data_events.tracker import Tracker

WORKERS, THREADS, CONCURRENCY = 4, 8, 20
EXIT_EVENTS, EXIT_LATENCY, EXIT_BUDGET = 500, 0.3, 10.0
FORK_EVENTS, CHILDREN, CHILD_EVENTS, LOOPED = 200, 10, 20, 1_000
OUTAGE_THREADS, OUTAGE_RATE, OUTAGE_LIMIT, OUTAGE_WINDOW = 4, 100, 300, 2
# Seconds after which somebody hangs; and for which a claim of a process that died holds.
PATIENCE = 120
CLAIM = 31.0


# What runs in processes of its own. Each prints numbers of events for which `track` returned.


class _AheadClock(Clock):
    """For which claims have ended already."""

    def time(self) -> float:
        return time.time() + CLAIM


def note(number: int) -> None:
    """Says that `track` returned, so that it is known whatever happens next."""
    os.write(sys.stdout.fileno(), b"%d\n" % number)


def serve(slowest: float, quickest: float, port: int, limit: int | None, window: float) -> None:
    """Serves the emulator, and tells what arrived for each line that it is given."""
    source = random.Random(0)  # noqa: S311  # guards nothing
    slow = (Fault.slow(source.uniform(quickest, slowest)) for _ in count())
    emulator = Emulator(rate_limit=limit, window=window, faults=slow, record=False)
    arrivals: list[tuple[int, float, int]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        answered = emulator.answer(request)
        number = int(json.loads(request.content)["user_id"])
        arrivals.append((number, time.time(), answered.status_code))
        return answered

    with EmulatorServer(answer, port=port) as url:
        print(url, flush=True)
        for _ in sys.stdin:
            print(json.dumps(arrivals), flush=True)


def application(outbox: str) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """What gunicorn runs: it answers when the event has been tracked."""
    tracker = Tracker(DataEventsClient(), outbox)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        tracker.track("placed-order", user_id=environ["PATH_INFO"].removeprefix("/"))
        start_response("204 No Content", [])
        return []

    return answer


def drain(outbox: str, hurried: bool) -> None:
    """Sends what others left in an outbox."""
    clock = _AheadClock() if hurried else None
    with Tracker(DataEventsClient(clock=clock), outbox) as tracker:
        tracker.flush(PATIENCE)


def come_to_its_end(outbox: str | None, events: int, close_timeout: float) -> None:
    """Tracks some, and ends; says when it began to."""
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=close_timeout)
    for number in range(events):
        tracker.track("placed-order", user_id=str(number))
        note(number)
    print(time.time())


def be_terminated(outbox: str | None, handled: bool, first: int) -> None:
    """Tracks until it is terminated."""
    if handled:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tracker = Tracker(DataEventsClient(), outbox)
    for number in count(first):
        tracker.track("placed-order", user_id=str(number))
        note(number)
        # No more than can be sent in the time that an exit may take.
        time.sleep(0.0005)


def fork(outbox: str | None) -> None:
    """Forks while it tracks and sends, and lets the children track."""
    # What Python warns of is what is tried.
    warnings.simplefilter("ignore", DeprecationWarning)
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=PATIENCE)
    for number in range(FORK_EVENTS):
        tracker.track("placed-order", user_id=str(number))
        note(number)
    forked = threading.Event()

    def go_on() -> None:
        for number in range(FORK_EVENTS, FORK_EVENTS + LOOPED):
            if forked.is_set():
                break
            tracker.track("placed-order", user_id=str(number))
            note(number)

    looping = threading.Thread(target=go_on)
    looping.start()
    children = []
    for child in range(1, CHILDREN + 1):
        if (process := os.fork()) == 0:
            for number in range(child * 100_000, child * 100_000 + CHILD_EVENTS):
                tracker.track("placed-order", user_id=str(number))
                note(number)
            sys.exit(0)
        children.append(process)
    forked.set()
    looping.join()
    hung = [process for process in children if not has_ended(process)]
    sys.exit(f"{len(hung)} children hung or failed" if hung else 0)


def has_ended(process: int) -> bool:
    """Whether a child ends well, in time; it is killed if not."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return False


def last_through_an_outage(outbox: str, seconds: float) -> None:
    """Tracks steadily from some threads for so long; says when each was tracked."""
    tracker = Tracker(DataEventsClient(), outbox)
    tracked: list[tuple[int, float]] = []
    numbers = count()
    ends = time.monotonic() + seconds

    def go_on() -> None:
        due = time.monotonic()
        while due < ends:
            number = next(numbers)
            tracker.track("placed-order", user_id=str(number))
            tracked.append((number, time.time()))
            due += OUTAGE_THREADS / OUTAGE_RATE
            time.sleep(max(0.0, due - time.monotonic()))

    in_threads(go_on, OUTAGE_THREADS)
    tracker.flush(PATIENCE)
    print(json.dumps(tracked))


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program
    for program in (serve, drain, come_to_its_end, be_terminated, fork, last_through_an_outage)
}


def in_threads(function: Callable[[], None], number: int) -> None:
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(function) for _ in range(number)]:
            future.result()


def start(url: str, program: Callable[..., None], *arguments: object) -> subprocess.Popen[str]:
    """Starts one of these programs."""
    work = json.dumps([program.__name__, *arguments])
    command = [sys.executable, __file__, "--work", work]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(url), text=True, stdin=pipe, stdout=pipe)


def finish(process: subprocess.Popen[str], *, well: bool = True) -> list[str]:
    """Waits until a program has ended, and returns the lines that it printed."""
    written, _ = process.communicate(timeout=3 * PATIENCE)
    if well and process.returncode:
        sys.exit("A program that was to track events failed; what it says is above.")
    return written.splitlines()


def environment(url: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INTERCOM_") and not name.upper().endswith("_PROXY")
    }
    return {**kept, "INTERCOM_BASE_URL": url, "INTERCOM_ACCESS_TOKEN": "token"}


@attrs.frozen
class Server:
    """The emulator, in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def arrivals(self) -> list[tuple[int, float, int]]:
        """The number of each event that arrived, when it did, and the status of the answer."""
        assert self.process.stdin is not None  # noqa: S101  # for type checkers
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return [tuple(arrival) for arrival in json.loads(self.process.stdout.readline())]

    def times(self) -> Counter[int]:
        """How often each event was accepted."""
        return Counter(
            number for number, _, status in self.arrivals() if status == httpx.codes.ACCEPTED
        )


@contextmanager
def serving(
    slowest: float = 0.0,
    quickest: float | None = None,
    *,
    port: int = 0,
    limit: int | None = None,
    window: float = 10.0,
) -> Iterator[Server]:
    """Serves the emulator, whose answers take between so many and so many seconds."""
    quickest = slowest if quickest is None else quickest
    process = start("", serve, slowest, quickest, port, limit, window)
    assert process.stdout is not None  # noqa: S101  # for type checkers
    try:
        yield Server(process.stdout.readline().strip(), process)
    finally:
        process.communicate(timeout=PATIENCE)


# What is counted.


def killed_workers(rounds: int, hurried: bool, source: random.Random) -> bool:
    heading(f"{WORKERS} gunicorn workers and an outbox, under load, all killed in each round")
    row("rounds", "answered", "missing", "stored, no answer", "sent again", "again a round")
    numbers = count()
    answered: set[int] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        # So slow that there is always something on its way.
        serving(0.1, 0.0) as server,
    ):
        outbox = str(Path(folder, "outbox"))
        for round_ in range(rounds):
            log = Path(folder, f"log{round_}")
            answered.update(killed_under_load(server.url, outbox, log, numbers, source))
        finish(start(server.url, drain, outbox, hurried))
        times = server.times()
    again = times.total() - len(times)
    missing = answered - times.keys()
    row(rounds, f"{len(answered):,}", len(missing), len(times.keys() - answered), again,
        f"{again / rounds:.1f}")  # fmt: skip
    return not missing and len(answered) > rounds and again <= 2 * rounds * WORKERS * CONCURRENCY


def killed_under_load(
    url: str, outbox: str, log: Path, numbers: Iterator[int], source: random.Random
) -> list[int]:
    """One round; returns the numbers of the events for which an answer came."""
    command = [
        sys.executable, "-m", "gunicorn", "--chdir", str(Path(__file__).parent),
        "--workers", str(WORKERS), "--bind", "127.0.0.1:0", f"crashes:application({outbox!r})",
    ]  # fmt: skip
    answered: list[int] = []
    over = threading.Event()
    with log.open("w") as written:
        master = subprocess.Popen(
            command,
            # Where it would leave a socket.
            env={**environment(url), "HOME": str(log.parent)},
            stderr=written,
            start_new_session=True,
        )
    try:
        found = until_said(log, r"http://([\d.:]+)")

        def load() -> None:
            while not over.is_set():
                number = next(numbers)
                connection = http.client.HTTPConnection(found, timeout=PATIENCE)
                with suppress(OSError, http.client.HTTPException):
                    connection.request("POST", f"/{number}")
                    if connection.getresponse().status == http.HTTPStatus.NO_CONTENT:
                        answered.append(number)
                connection.close()

        with ThreadPoolExecutor(THREADS) as pool:
            loading = [pool.submit(load) for _ in range(THREADS)]
            try:
                until(lambda: answered)
                workers = re.findall(r"Booting worker with pid: (\d+)", log.read_text())
                time.sleep(source.uniform(0, 0.5))
                # Another one takes its place.
                os.kill(int(source.choice(workers)), signal.SIGKILL)
                time.sleep(source.uniform(0, 1))
            finally:
                os.killpg(master.pid, signal.SIGKILL)
                over.set()
            for future in loading:
                future.result()
    finally:
        master.wait()
    return answered


def until(happens: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        if time.monotonic() > end:
            sys.exit("What was waited for does not happen.")
        time.sleep(0.01)


def until_said(log: Path, pattern: str) -> str:
    """Waits until a program has written something."""
    until(lambda: re.search(pattern, log.read_text()))
    found: list[str] = re.findall(pattern, log.read_text())
    return found[0]


def ends_of_programs(events: int, hurried: bool) -> bool:
    heading(f"Tracks {events} events and ends, answers take {EXIT_LATENCY * 1000:.0f} ms")
    row("", "at its end", "by the next", "missing", "sent again", "seconds to end")
    good = True
    for name, kept, close_timeout in [("memory", False, EXIT_BUDGET), ("outbox", True, 1.0)]:
        with tempfile.TemporaryDirectory() as folder, serving(EXIT_LATENCY) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            process = start(server.url, come_to_its_end, outbox, events, close_timeout)
            *tracked, began = finish(process)
            seconds = time.time() - float(began)
            first = server.times()
            if kept:
                finish(start(server.url, drain, outbox, hurried))
            times = server.times()
        missing = set(map(int, tracked)) - times.keys()
        again = times.total() - len(times)
        row(f"{name}, close_timeout={close_timeout:g}", len(first), len(times) - len(first),
            len(missing), again, f"{seconds:.1f}")  # fmt: skip
        good &= (
            not missing and again <= (CONCURRENCY if kept else 0) and seconds <= close_timeout + 1
        )
    return good


def terminated(rounds: int, hurried: bool, source: random.Random) -> bool:
    heading("Terminated (SIGTERM) while it tracks in a loop, again and again")
    row("", "rounds", "tracked", "left to the next", "missing", "sent again")
    good = True
    for name, kept, handled in [
        ("memory, a handler exits", False, True),
        ("outbox, a handler exits", True, True),
        ("outbox, no handler", True, False),
    ]:
        tracked: set[int] = set()
        left = 0
        with tempfile.TemporaryDirectory() as folder, serving(0.02) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            for round_ in range(rounds):
                process = start(server.url, be_terminated, outbox, handled, round_ * 100_000)
                assert process.stdout is not None  # noqa: S101  # for type checkers
                first = int(process.stdout.readline())
                time.sleep(source.uniform(0, 0.5))
                process.terminate()
                own = {first, *map(int, finish(process, well=handled))}
                left += len(own - server.times().keys())
                tracked |= own
            if kept:
                finish(start(server.url, drain, outbox, hurried))
            times = server.times()
        missing = tracked - times.keys()
        again = times.total() - len(times)
        row(name, rounds, f"{len(tracked):,}", left, len(missing), again)
        good &= not missing
        # What was on its way as it was ended without a word may have arrived.
        good &= not (left or again) if handled else again <= rounds * CONCURRENCY
    return good


def forked(rounds: int) -> bool:
    heading(f"Forks {CHILDREN} children while a thread tracks and others send")
    row("", "rounds", "tracked", "missing", "sent again", "most seconds")
    good = True
    for name, kept in [("memory", False), ("outbox", True)]:
        totals = Counter[str]()
        longest = 0.0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder, serving(0.02) as server:
                outbox = str(Path(folder, "outbox")) if kept else None
                begin = time.perf_counter()
                tracked = set(map(int, finish(start(server.url, fork, outbox))))
                longest = max(longest, time.perf_counter() - begin)
                times = server.times()
            totals.update(
                tracked=len(tracked),
                missing=len(tracked - times.keys()),
                again=times.total() - len(times),
            )
            good &= len(tracked) >= FORK_EVENTS + CHILDREN * CHILD_EVENTS
        row(name, rounds, f"{totals['tracked']:,}", totals["missing"], totals["again"],
            f"{longest:.1f}")  # fmt: skip
        good &= not totals["missing"] and not totals["again"]
    return good


def outage(seconds: float) -> bool:
    heading(
        f"{OUTAGE_RATE} events a second; nothing listens for {seconds:g} s, then "
        f"{OUTAGE_LIMIT / OUTAGE_WINDOW:g} requests a second are allowed"
    )
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        outbox = str(Path(folder, "outbox"))
        url = f"http://127.0.0.1:{port}"
        process = start(url, last_through_an_outage, outbox, 2 * seconds)
        time.sleep(seconds)
        with serving(0.05, port=port, limit=OUTAGE_LIMIT, window=OUTAGE_WINDOW) as server:
            back = time.time()
            (told,) = finish(process)
            arrivals = server.arrivals()
            times = server.times()
    tracked: dict[int, float] = dict(json.loads(told))
    accepted = [arrival for arrival in arrivals if arrival[2] == httpx.codes.ACCEPTED]
    ages: dict[bool, list[float]] = {True: [], False: []}
    for number, arrived, _ in accepted:
        ages[tracked[number] < back].append(arrived - tracked[number])
    row("", "events", "age at arrival: p50", "p99", "max")
    for name, backlog in [("tracked in the outage", True), ("tracked after it", False)]:
        found = sorted(ages[backlog]) or [0.0]
        row(name, f"{len(ages[backlog]):,}", f"{statistics.median(found):.1f} s",
            f"{found[int(len(found) * 0.99)]:.1f} s", f"{found[-1]:.1f} s")  # fmt: skip
    first, last = accepted[0][1], max(at for number, at, _ in accepted if tracked[number] < back)
    windows = Counter(int(at // OUTAGE_WINDOW) for _, at, _ in accepted)
    whole = range(int(first // OUTAGE_WINDOW) + 1, int(last // OUTAGE_WINDOW))
    used = [windows[window] / OUTAGE_LIMIT for window in whole]
    limited = len(arrivals) - len(accepted)
    missing = tracked.keys() - times.keys()
    again = times.total() - len(times)
    print()
    row("", "missing", "sent again", "429", "first after", "backlog sent after", "quota used")
    row("", len(missing), again, f"{limited / len(arrivals):.2%}", f"{first - back:.1f} s",
        f"{last - back:.1f} s", f"{statistics.mean(used):.1%}" if used else "")  # fmt: skip
    return (
        not missing
        and not again
        and limited <= len(arrivals) / 100
        and (not used or statistics.mean(used) >= 0.95)
    )


def heading(text: str) -> None:
    print(f"\n{text}\n")


def row(*cells: object) -> None:
    first, *others = map(str, cells)
    print(
        f"  {first:<24}" + "".join(f"{cell:>{max(14, len(cell) + 2)}}" for cell in others),
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument(
        "--outage", type=float, default=20, help="how long it is, in seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a minute's worth: fewer of everything, and whoever takes over from the dead has a "
        "clock that is ahead, instead of waiting",
    )
    parser.add_argument("--seed", type=int, help="of the moments (default: others each time)")
    parser.add_argument("--only", help="one of gunicorn, exit, sigterm, fork and outage")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        logging.disable()
        program, *arguments = json.loads(options.work)
        PROGRAMS[program](*arguments)
        return 0
    quick = options.quick
    seed = random.randrange(2**32) if options.seed is None else options.seed  # noqa: S311  # guards nothing
    source = random.Random(seed)  # noqa: S311
    rounds = 2 if quick else options.rounds
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, seed {seed}, gunicorn {version('gunicorn')}"
    )
    parts: dict[str, Callable[[], bool]] = {
        "gunicorn": lambda: killed_workers(rounds, quick, source),
        "exit": lambda: ends_of_programs(EXIT_EVENTS // (3 if quick else 1), quick),
        "sigterm": lambda: terminated(rounds, quick, source),
        "fork": lambda: forked(max(1, rounds // 2)),
        "outage": lambda: outage(5.0 if quick else options.outage),
    }
    good = [part() for name, part in parts.items() if options.only in (None, name)]
    print("\nEvery claim holds." if all(good) else "\nNot every claim holds.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
