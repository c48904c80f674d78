"""Questions about an outbox, empty and with a large backlog."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cache, partial
from pathlib import Path

from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker
from measuring.events import CREATED, TOKEN
from measuring.figures import Goal, Question

# The limit of an outbox, so high that the backlog does not fill it.
_MOST = 10_000_000
# Seconds between two calls, in which an application does other work.
_BETWEEN = 0.0005
# Events until a tracker has its threads and connections, and sends without a pause.
_WARM = 50
_FILL = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
INSERT INTO events (event, tracked_at)
SELECT json_set(?, '$.user_id', 'backlog ' || i), ? + i / 1000.0 FROM n
"""
# One of two processes: it tracks as fast as events are sent, and prints their number.
_PROCESS = """
import json, sys, time
from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker

url, token, path, most, seconds, given = sys.argv[1:]
given = json.loads(given)
with DataEventsClient(token, base_url=url) as client:
    tracker = Tracker(client, path, max_queued=int(most))
    tracked = 0

    def send_until(is_over):
        global tracked
        while not is_over(sent := tracker.counters.sent):
            while tracked < sent + 200:
                tracker.track("placed-order", user_id=str(tracked), **given)
                tracked += 1
            time.sleep(0.005)
        return sent

    before = send_until(lambda sent: sent >= 100)
    print("ready", flush=True)
    sys.stdin.readline()
    before, ends = tracker.counters.sent, time.monotonic() + float(seconds)
    print(send_until(lambda _: time.monotonic() >= ends) - before, flush=True)
    tracker.close(0)
"""


def questions(
    paced: str, accepting: str, folder: Path, calls: int, waiting: int, seconds: float
) -> Iterator[Question]:
    """Yields the questions about waiting events.

    Args:
        paced: The address of a server with Intercom's rate limit and latency.
        accepting: The address of a server that accepts everything as fast as it can.
        folder: The folder for the outboxes.
        calls: The number of calls to measure in a round.
        waiting: The number of events in the backlog.
        seconds: How long two processes send in a round.
    """
    tails: dict[str, deque[float]] = defaultdict(deque)
    amounts = {f"{number:,} waiting": number for number in (0, waiting)}

    @cache
    def outbox(url: str, number: int) -> Path:
        path = folder / f"{len(list(folder.iterdir()))}.outbox"
        _fill(path, url, number)
        return path

    def median(name: str, number: int) -> float:
        taken = sorted(_calls(outbox(paced, number), paced, calls))
        tails[name].append(taken[int(len(taken) * 0.999)])
        return statistics.median(taken)

    def rate(number: int) -> float:
        return _rate(outbox(accepting, number), accepting, seconds)

    yield Question(
        "track, with an outbox, between other work",
        "µs",
        {name: partial(median, name, number) for name, number in amounts.items()},
        scale=1e6,
        goals=dict.fromkeys(amounts, Goal(100)),
    )
    # Of the same calls, in the same order.
    yield Question(
        "the same calls, 99.9th percentile",
        "µs",
        {name: tails[name].popleft for name in amounts},
        scale=1e6,
        goals=dict.fromkeys(amounts, Goal(5_000)),
    )
    yield Question(
        "events per second, two processes that track into one outbox",
        "/s",
        {name: partial(rate, number) for name, number in amounts.items()},
        more_is_better=True,
    )


def _fill(path: Path, url: str, number: int) -> None:
    with DataEventsClient(TOKEN, base_url=url) as client:
        Tracker(client, path).close(0)
    if not number:
        return
    event = json.dumps(CREATED)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_FILL, (number, event, time.time() - 86_400))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _calls(path: Path, url: str, calls: int) -> list[float]:
    """Returns the seconds that each call took."""
    given = {key: CREATED[key] for key in ("created_at", "metadata")}
    taken = []
    with DataEventsClient(TOKEN, base_url=url) as client:
        tracker = Tracker(client, path, max_queued=_MOST)
        try:
            for number in range(20 * _WARM):
                tracker.track("placed-order", user_id=f"warm {number}", **given)
            while tracker.counters.sent < _WARM:
                time.sleep(0.01)
            for number in range(calls):
                begin = time.perf_counter()
                tracker.track("placed-order", user_id=str(number), **given)
                taken.append(time.perf_counter() - begin)
                time.sleep(_BETWEEN)
        finally:
            tracker.close(0)
    return taken


def _rate(path: Path, url: str, seconds: float) -> float:
    """Returns the events per second of two processes."""
    given = json.dumps({key: CREATED[key] for key in ("created_at", "metadata")})
    command = [sys.executable, "-c", _PROCESS, url, TOKEN, path, str(_MOST), str(seconds), given]
    with ExitStack() as running:
        processes = [
            running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        outputs = [process.stdout or () for process in processes]
        for output in outputs:
            next(iter(output), "")
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()  # The process begins at the end of its input.
        said = [next(iter(output), "") for output in outputs]
    if not all(said):
        sys.exit("A process that tracks into an outbox failed.")
    return sum(map(int, said)) / seconds
