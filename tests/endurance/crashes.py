"""Ends programs that track events in every way that programs end, and counts their events.

    nox -s crashes [-- --rounds 20 --outage 20 --full 10]

- gunicorn: each round kills real workers under load at random moments, first one, then all of them
  with their master. All rounds share one outbox.
- deleted: the outbox's log is deleted repeatedly while gunicorn workers use it; some are killed.
- full: the disk of gunicorn workers is full for 10 s.
- exit: a program tracks 500 events and ends, while each answer takes 300 ms.
- sigterm: a program that tracks in a loop is terminated at a random moment.
- fork: a program forks ten times while one of its threads tracks and others send.
- outage: no server listens at Intercom's address, while four threads continue to track.
- uwsgi: uWSGI is terminated under load, with its workers' events in memory or an outbox.
- celery: each process of a Celery worker runs one task that tracks an event.
- gevent: a short program ends, one forks while it sends, gunicorn is terminated under load.
- jobs: child processes that end by os._exit, as RQ's do, or as those of multiprocessing do.

Each event for which `track` returned must be stored, and only events that were in flight when a
process died may be sent again. The exit code is 1 if a requirement is not met. uWSGI can end a
worker without running any handler; the log must then announce that events may be lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import httpx

import harness
import hosts
from intercom_data_events import DataEventsClient, OutboxError
from intercom_data_events.tracker import Tracker

WORKERS, THREADS, CONCURRENCY = 4, 8, 20
EXIT_EVENTS, EXIT_LATENCY, EXIT_BUDGET = 500, 0.3, 10.0
FORK_EVENTS, CHILDREN, CHILD_EVENTS, LOOPED = 200, 10, 20, 1_000
OUTAGE_THREADS, OUTAGE_RATE, OUTAGE_LIMIT, OUTAGE_WINDOW = 4, 100, 300, 2


# Code of child processes. Each prints the numbers of events for which `track` returned.


def application(outbox: str) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """The application that gunicorn serves: it answers when the event has been tracked."""
    tracker = Tracker(DataEventsClient(), outbox)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            tracker.track("placed-order", user_id=environ["PATH_INFO"].removeprefix("/"))
        except OutboxError:
            start_response("503 Service Unavailable", [])
        else:
            start_response("204 No Content", [])
        return []

    return answer


def track_and_exit(outbox: str | None, events: int, close_timeout: float) -> None:
    """Tracks events, and prints the time at which the program begins to end."""
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=close_timeout)
    for number in range(events):
        tracker.track("placed-order", user_id=str(number))
        harness.note(number)
    print(time.time())


def track_until_terminated(outbox: str | None, handled: bool, first: int) -> None:
    if handled:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tracker = Tracker(DataEventsClient(), outbox)
    for number in count(first):
        tracker.track("placed-order", user_id=str(number))
        harness.note(number)
        # At most as many as can be sent before the exit.
        time.sleep(0.0005)


def track_and_fork(outbox: str | None) -> None:
    """Forks while it tracks and sends; the children track, too."""
    # Python warns about forks in processes with threads, which this part tests.
    warnings.simplefilter("ignore", DeprecationWarning)
    tracker = Tracker(DataEventsClient(), outbox, close_timeout=harness.PATIENCE)
    for number in range(FORK_EVENTS):
        tracker.track("placed-order", user_id=str(number))
        harness.note(number)
    forked = threading.Event()

    def track() -> None:
        for number in range(FORK_EVENTS, FORK_EVENTS + LOOPED):
            if forked.is_set():
                break
            tracker.track("placed-order", user_id=str(number))
            harness.note(number)

    looping = threading.Thread(target=track)
    looping.start()
    children = []
    for child in range(1, CHILDREN + 1):
        if (process := os.fork()) == 0:
            signal.alarm(harness.PATIENCE)  # Ends a child that hangs.
            for number in range(child * 100_000, child * 100_000 + CHILD_EVENTS):
                tracker.track("placed-order", user_id=str(number))
                harness.note(number)
            sys.exit(0)
        children.append(process)
    forked.set()
    looping.join()
    failed = sum(os.waitpid(process, 0)[1] != 0 for process in children)
    sys.exit(f"children that hung or failed: {failed}" if failed else 0)


def track_through_outage(outbox: str, seconds: float) -> None:
    """Tracks steadily from several threads, and prints when each event was tracked."""
    tracker = Tracker(DataEventsClient(), outbox)
    tracked: list[tuple[int, float]] = []
    numbers = count()
    ends = time.monotonic() + seconds

    def track() -> None:
        due = time.monotonic()
        while due < ends:
            number = next(numbers)
            tracker.track("placed-order", user_id=str(number))
            tracked.append((number, time.time()))
            due += OUTAGE_THREADS / OUTAGE_RATE
            time.sleep(max(0.0, due - time.monotonic()))

    harness.in_threads(track, OUTAGE_THREADS)
    tracker.flush(harness.PATIENCE)
    print(json.dumps(tracked))


# The parts.


def killed_workers(options: argparse.Namespace) -> bool:
    rounds = options.rounds
    table = harness.Table(
        f"{WORKERS} gunicorn workers with an outbox, under load; each round kills them all",
        "rounds", "answered", "missing", "stored, no answer", "sent again", "again per round",
    )  # fmt: skip
    source = random.Random(options.seed)  # noqa: S311  # guards nothing
    numbers = count()
    answered: set[int] = set()
    with (
        tempfile.TemporaryDirectory() as folder,
        # So slow that some events are always in flight.
        harness.serving(0.1, 0.0) as server,
    ):
        outbox = str(Path(folder, "outbox"))
        for round_ in range(rounds):
            log = Path(folder, f"log{round_}")
            answered.update(killed_under_load(server.url, outbox, log, numbers, source))
        harness.call(harness.drain, outbox, options.quick, url=server.url)
        accepted = server.accepted()
    missing, repeated = harness.missing_and_repeated(answered, accepted)
    table.row(rounds, len(answered), missing, len(accepted.keys() - answered), repeated,
              f"{repeated / rounds:.1f}")  # fmt: skip
    return not missing and len(answered) > rounds and repeated <= 2 * rounds * WORKERS * CONCURRENCY


def killed_under_load(
    url: str, outbox: str, log: Path, numbers: Iterator[int], source: random.Random
) -> list[int]:
    """Runs one round; returns the numbers of the events that were answered."""
    with (
        gunicorn(url, outbox, log) as (master, address),
        harness.loading(address, numbers, THREADS) as answered,
    ):
        try:
            harness.until(lambda: answered, "an answer of gunicorn")
            time.sleep(source.uniform(0, 0.5))
            kill_worker(log, source)
            time.sleep(source.uniform(0, 1))
        finally:
            harness.kill_group(master)
    return answered


@contextmanager
def gunicorn(url: str, outbox: str, log: Path) -> Iterator[tuple[harness.Leader, str]]:
    """Runs gunicorn; yields its master process and its address."""
    with harness.process_group(
        "gunicorn", "--workers", str(WORKERS), "--bind", "127.0.0.1:0",
        f"crashes:application({outbox!r})", url=url, log=log,
        HOME=str(log.parent),  # gunicorn would leave a socket in the user's home.
    ) as master:  # fmt: skip
        found = harness.until(
            lambda: re.search(r"http://([\d.:]+)", log.read_text()) or master.poll(),
            "the start of gunicorn",
        )
        if not isinstance(found, re.Match):
            sys.exit(f"gunicorn ended with exit code {found}: {log.read_text()[-1000:]}")
        yield master, found[1]


def workers_in(log: Path) -> list[int]:
    return [
        int(number) for number in re.findall(r"Booting worker with pid: (\d+)", log.read_text())
    ]


def kill_worker(log: Path, source: random.Random) -> None:
    """Kills a worker; gunicorn then starts another."""
    with suppress(ProcessLookupError):
        os.kill(source.choice(workers_in(log)), signal.SIGKILL)


def deleted_logs(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"{WORKERS} gunicorn workers under load, whose log is deleted; some are killed",
        "deleted", "answered", "missing", "sent again",
    )  # fmt: skip
    source = random.Random(options.seed)  # noqa: S311  # guards nothing
    deleted = killed = 0
    with tempfile.TemporaryDirectory() as folder, harness.serving(0.1, 0.0) as server:
        outbox, log = str(Path(folder, "outbox")), Path(folder, "log")
        with gunicorn(server.url, outbox, log) as (master, address):
            with harness.loading(address, count(), THREADS) as answered:
                for round_ in range(2 * options.rounds):
                    before = len(answered)
                    harness.until(lambda before=before: len(answered) > before + 20, "an answer")
                    time.sleep(source.uniform(0, 0.3))
                    with suppress(FileNotFoundError):
                        Path(f"{outbox}-wal").unlink()
                        deleted += 1
                    if round_ % 2:
                        time.sleep(source.uniform(0, 0.1))
                        kill_worker(log, source)
                        killed += 1
            master.terminate()
            master.wait(harness.PATIENCE)
        harness.call(harness.drain, outbox, options.quick, url=server.url)
        accepted = server.accepted()
    missing, repeated = harness.missing_and_repeated(answered, accepted)
    table.row(deleted, len(answered), missing, repeated)
    # Events in flight when the log is deleted or a worker is killed.
    return (
        not missing
        and deleted > options.rounds
        and repeated <= WORKERS * CONCURRENCY * (deleted + killed)
    )


def full_disk(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"{WORKERS} gunicorn workers under load, whose disk is full for {options.full:g} s",
        "", "answered", "sent meanwhile", "missing", "sent again", "seconds to recover",
    )  # fmt: skip
    if not hasattr(resource, "prlimit"):
        print("  Skipped: only Linux can limit the disk space of other processes.")
        return True
    # So slow that there is a backlog when the disk becomes full.
    with tempfile.TemporaryDirectory() as folder, harness.serving(0.4, 0.2) as server:
        outbox, log = str(Path(folder, "outbox")), Path(folder, "log")
        with gunicorn(server.url, outbox, log) as (master, address):
            with harness.loading(address, count(), THREADS) as answered:
                harness.until(lambda: len(answered) > 500, "an answer of gunicorn")
                with no_room(outbox, [master.pid, *workers_in(log)]):
                    time.sleep(0.2)
                    before, sent = len(answered), server.accepted().total()
                    time.sleep(options.full)
                    refused = len(answered) == before
                    sent = server.accepted().total() - sent
                    freed = time.monotonic()
                harness.until(lambda: len(answered) > before, "an answer of gunicorn")
                again = time.monotonic() - freed
            harness.until(lambda: not is_left(outbox), "the backlog to be sent")
            master.terminate()
            master.wait(harness.PATIENCE)
        harness.call(harness.drain, outbox, options.quick, url=server.url)
        accepted = server.accepted()
    missing, repeated = harness.missing_and_repeated(answered, accepted)
    table.row("", len(answered), sent, missing, repeated, f"{again:.1f}")
    return refused and sent > 0 and not missing and not repeated


def is_left(outbox: str) -> bool:
    with closing(sqlite3.connect(outbox)) as reader:
        return reader.execute("SELECT EXISTS (SELECT 1 FROM events)").fetchone() == (1,)


@contextmanager
def no_room(outbox: str, processes: Iterable[int]) -> Iterator[None]:
    """Limits the size of an outbox's log, as a full disk does."""
    with closing(sqlite3.connect(outbox, isolation_level=None)) as reader:
        # While a reader uses the log, SQLite does not restart it from the beginning.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        size = Path(f"{outbox}-wal").stat().st_size
        before = {
            process: resource.prlimit(
                process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
            )
            for process in processes
        }
        try:
            yield
        finally:
            for process, limits in before.items():
                resource.prlimit(process, resource.RLIMIT_FSIZE, limits)


def ends_of_programs(options: argparse.Namespace) -> bool:
    events = EXIT_EVENTS // (3 if options.quick else 1)
    table = harness.Table(
        f"A program tracks {events} events and ends; answers take {EXIT_LATENCY * 1000:.0f} ms",
        "", "at its end", "by the next", "missing", "sent again", "seconds to end",
    )  # fmt: skip
    good = True
    for name, kept, close_timeout in [("memory", False, EXIT_BUDGET), ("outbox", True, 1.0)]:
        with tempfile.TemporaryDirectory() as folder, harness.serving(EXIT_LATENCY) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            process = harness.start(track_and_exit, outbox, events, close_timeout, url=server.url)
            *tracked, began = harness.finish(process)
            seconds = time.time() - float(began)
            at_end = len(server.accepted())
            if kept:
                harness.call(harness.drain, outbox, options.quick, url=server.url)
            accepted = server.accepted()
        missing, repeated = harness.missing_and_repeated(map(int, tracked), accepted)
        table.row(f"{name}, close_timeout={close_timeout:g}", at_end, len(accepted) - at_end,
                  missing, repeated, f"{seconds:.1f}")  # fmt: skip
        good &= not missing and repeated <= (CONCURRENCY if kept else 0)
        good &= seconds <= close_timeout + 1
    return good


def terminated(options: argparse.Namespace) -> bool:
    table = harness.Table(
        "Programs that track in a loop, ended by SIGTERM",
        "", "rounds", "tracked", "by the next", "missing", "sent again",
    )  # fmt: skip
    source = random.Random(options.seed)  # noqa: S311  # guards nothing
    good = True
    for name, kept, handled in [
        ("memory, with a handler that exits", False, True),
        ("outbox, with a handler that exits", True, True),
        ("outbox, without a handler", True, False),
    ]:
        tracked: set[int] = set()
        left = 0
        with tempfile.TemporaryDirectory() as folder, harness.serving(0.02) as server:
            outbox = str(Path(folder, "outbox")) if kept else None
            for first in range(0, 100_000 * options.rounds, 100_000):
                process = harness.start(
                    track_until_terminated, outbox, handled, first, url=server.url
                )
                harness.read_line(process)
                time.sleep(source.uniform(0, 0.5))
                process.terminate()
                own = {first, *map(int, harness.finish(process, well=handled))}
                left += len(own - server.accepted().keys())
                tracked |= own
            if kept:
                harness.call(harness.drain, outbox, options.quick, url=server.url)
            accepted = server.accepted()
        missing, repeated = harness.missing_and_repeated(tracked, accepted)
        table.row(name, options.rounds, len(tracked), left, missing, repeated)
        good &= not missing
        # Without a handler, events in flight may have arrived.
        limit = options.rounds * CONCURRENCY
        good &= not (left or repeated) if handled else repeated <= limit
    return good


def forked(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"A program forks {CHILDREN} children while one thread tracks and others send",
        "", "rounds", "tracked", "missing", "sent again", "longest round (s)",
    )  # fmt: skip
    rounds = max(1, options.rounds // 2)
    good = True
    for name, kept in [("memory", False), ("outbox", True)]:
        totals = Counter[str]()
        longest = 0.0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder, harness.serving(0.02) as server:
                outbox = str(Path(folder, "outbox")) if kept else None
                begin = time.perf_counter()
                tracked = set(map(int, harness.call(track_and_fork, outbox, url=server.url)))
                longest = max(longest, time.perf_counter() - begin)
                missing, repeated = harness.missing_and_repeated(tracked, server.accepted())
            totals.update(tracked=len(tracked), missing=missing, repeated=repeated)
            good &= len(tracked) >= FORK_EVENTS + CHILDREN * CHILD_EVENTS
        table.row(name, rounds, totals["tracked"], totals["missing"], totals["repeated"],
                  f"{longest:.1f}")  # fmt: skip
        good &= not totals["missing"] and not totals["repeated"]
    return good


def outage(options: argparse.Namespace) -> bool:
    seconds = options.outage
    table = harness.Table(
        f"{OUTAGE_RATE} events per second; no server for {seconds:g} s, then a rate limit of "
        f"{OUTAGE_LIMIT / OUTAGE_WINDOW:g} requests per second",
        "", "events", "age at arrival: p50", "p99", "max",
    )  # fmt: skip
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        outbox = str(Path(folder, "outbox"))
        url = f"http://127.0.0.1:{port}"
        process = harness.start(track_through_outage, outbox, 2 * seconds, url=url)
        time.sleep(seconds)
        with harness.serving(0.05, port=port, limit=OUTAGE_LIMIT, window=OUTAGE_WINDOW) as server:
            back = time.time()
            (printed,) = harness.finish(process)
            arrivals = server.arrivals()
    tracked: dict[int, float] = dict(json.loads(printed))
    stored = [(number, at) for number, at, status in arrivals if status == httpx.codes.ACCEPTED]
    if not stored:
        return False
    for name, backlog in [("tracked during the outage", True), ("tracked after it", False)]:
        ages = sorted(at - tracked[number] for number, at in stored
                      if (tracked[number] < back) is backlog)  # fmt: skip
        shown = (
            (statistics.median(ages), ages[int(len(ages) * 0.99)], ages[-1]) if ages else [0] * 3
        )
        table.row(name, len(ages), *(f"{age:.1f} s" for age in shown))
    first, last = stored[0][1], max(at for number, at in stored if tracked[number] < back)
    windows = Counter(int(at // OUTAGE_WINDOW) for _, at in stored)
    whole = range(int(first // OUTAGE_WINDOW) + 1, int(last // OUTAGE_WINDOW))
    used = [windows[window] / OUTAGE_LIMIT for window in whole]
    limited = len(arrivals) - len(stored)
    missing, repeated = harness.missing_and_repeated(
        tracked, Counter(number for number, _ in stored)
    )
    table = harness.Table(
        "All events, and the quota used after the outage",
        "", "missing", "sent again", "429", "first after", "backlog sent after", "quota used",
    )  # fmt: skip
    table.row("", missing, repeated, f"{limited / len(arrivals):.2%}", f"{first - back:.1f} s",
              f"{last - back:.1f} s", f"{statistics.mean(used):.1%}" if used else "")  # fmt: skip
    return (
        not missing
        and not repeated
        and limited <= len(arrivals) / 100
        and (not used or statistics.mean(used) >= 0.95)
    )


PARTS = {
    "gunicorn": killed_workers,
    "deleted": deleted_logs,
    "full": full_disk,
    "exit": ends_of_programs,
    "sigterm": terminated,
    "fork": forked,
    "outage": outage,
    **hosts.PARTS,
}


def main() -> int:
    parser = harness.make_parser(__doc__, PARTS, seed_of="the moments")
    harness.add_number(parser, "--rounds", 20)
    harness.add_number(parser, "--outage", 20.0, "seconds of the outage")
    harness.add_number(parser, "--full", 10.0, "seconds for which the disk is full")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run for about a minute: fewer rounds and events; processes that take over from dead "
        "ones do not wait, because their clock is ahead",
    )
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.outage, options.full = 2, 5.0, 2.0
    return harness.run(PARTS, options, requires=("gunicorn", "celery", "gevent", "pyuwsgi"))


if __name__ == "__main__":
    sys.exit(main())
