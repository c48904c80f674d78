"""Tracks, flushes and closes in finalizers, which the collector runs while threads start.

    python tests/endurance/finalizers.py [--rounds 2000] [--outbox PATH] [--only KIND] [--seed N]

Each round uses one tracker in this process. Only the collector's threshold is patched: threads
leave objects in reference cycles, and the collector finalizes them in any thread, often in one that
is starting. Each event for which `track` returned must be sent, passed to `on_error`, or counted as
dropped. If a round does not end in time, or events are lost, the program ends with exit code 1; in
the first case, it prints the stacks of all threads.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from itertools import count

import attrs
import httpx

from intercom_data_events import DataEventsClient, Event, IntercomError
from intercom_data_events._arguments import ArgumentParser
from intercom_data_events.tracker import Tracker

# The calls of the finalizers, in turn.
KINDS = ("track", "flush", "close")
# Per round.
EVENTS, THREADS, FLUSHES = 40, 6, 3
LATENCY, FLUSH_TIMEOUT = 0.001, 0.05
# Seconds after which a round counts as stuck, and the time limit for closing a tracker, which is
# longer.
PATIENCE, CLOSE_TIMEOUT = 60.0, 3600.0


class Server(httpx.BaseTransport):
    """Accepts each event."""

    def __init__(self) -> None:
        self.users: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answers as Intercom does."""
        self.users.append(json.loads(request.content)["user_id"])
        # Slow enough that the tracker starts more workers.
        time.sleep(LATENCY)
        return httpx.Response(202)


@attrs.define
class Round:
    """The state that the threads and finalizers of a round share."""

    tracker: Tracker
    number: int
    kind: str
    tracked: list[str] = attrs.field(factory=list)
    closed: int = 0
    _numbers: count[int] = attrs.field(factory=count)
    _begun: count[int] = attrs.field(factory=count)
    ended: list[int] = attrs.field(factory=list)

    def track(self, where: str) -> None:
        """Tracks an event, and notes that `track` returned."""
        user = f"{self.number} {where} {next(self._numbers)}"
        try:
            self.tracker.track("placed-order", user_id=user)
        except RuntimeError:
            self.closed += 1
        else:
            self.tracked.append(user)

    def end(self) -> None:
        """Does what the finalizer is for."""
        self.track("finalizer")
        number = next(self._begun)
        if self.kind == "flush" and number % 7 == 0 and number < 7 * FLUSHES:
            self.tracker.flush(FLUSH_TIMEOUT)
        if self.kind == "close" and number == EVENTS // 2:
            self.tracker.close(CLOSE_TIMEOUT)
        self.ended.append(number)

    def litter(self) -> None:
        """Leaves objects to the garbage collector."""
        for _ in range(EVENTS // THREADS):
            Ending(self)


class Ending:
    """An object in a reference cycle, which only the collector finalizes."""

    def __init__(self, round_: Round) -> None:
        self._round = round_
        self._itself = self

    def __del__(self) -> None:
        """Uses the round's tracker, in the thread that collects."""
        self._round.end()


def run_round(round_: Round, threshold: int) -> None:
    """Tracks in this thread while others start, leave garbage and end."""
    gc.set_threshold(threshold)
    try:
        threads = []
        for _ in range(THREADS):
            thread = threading.Thread(target=round_.litter)
            thread.start()
            threads.append(thread)
            Ending(round_)
            round_.track("thread")
        for thread in threads:
            thread.join()
        for _ in range(EVENTS):
            round_.track("thread")
    finally:
        gc.set_threshold(700, 10, 10)
    # Another thread may be collecting: what it has not come to yet is not ended from here.
    while len(round_.ended) < THREADS * (EVENTS // THREADS + 1):
        gc.collect()
    round_.tracker.close(CLOSE_TIMEOUT)


def run(
    rounds: int, outbox: str | None, seed: int, kinds: tuple[str, ...], patience: float
) -> Counter[str]:
    """Runs the rounds and returns the counts; `missing` must be 0."""
    source = random.Random(seed)  # noqa: S311  # guards nothing
    server = Server()
    told: dict[str, IntercomError] = {}
    tracked: list[str] = []
    counted = Counter[str]()

    def on_error(event: Event, error: IntercomError) -> None:
        told[event.user_id or ""] = error

    for number in range(rounds):
        faulthandler.dump_traceback_later(patience, exit=True)
        begin = time.perf_counter()
        with DataEventsClient("token", transport=server) as client:
            tracker = Tracker(client, outbox, on_error=on_error, close_timeout=CLOSE_TIMEOUT)
            round_ = Round(tracker, number, kinds[number % len(kinds)])
            run_round(round_, source.choice([1, 2, 3, 5, 7, 10, 20, 50]))
        tracked += round_.tracked
        counted.update(
            rounds=1,
            tracked=len(round_.tracked),
            refused=round_.closed,
            dropped=tracker.counters.dropped,
        )
        seconds = time.perf_counter() - begin
        counted["slowest_ms"] = max(counted["slowest_ms"], round(seconds * 1000))
    if outbox is not None:
        with DataEventsClient("token", transport=server) as client:
            Tracker(client, outbox).close(CLOSE_TIMEOUT)
    faulthandler.cancel_dump_traceback_later()
    sent = set(server.users)
    counted["sent"] = len(server.users)
    counted["told"] = len(told)
    counted["missing"] = len(set(tracked) - sent - told.keys())
    # What `on_error` was told must not have been sent, unless it says that it may have been.
    counted["wrongly_told"] = sum(
        user in sent and not error.may_have_been_processed for user, error in told.items()
    )
    return counted


def main() -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--outbox", help="keep events in this file (default: in memory)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))  # noqa: S311
    parser.add_argument("--only", choices=KINDS, help="what finalizers do (default: each in turn)")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds after which a round counts as stuck",
    )
    options = parser.parse_args()
    logging.disable()
    kinds = (options.only,) if options.only else KINDS
    counted = run(options.rounds, options.outbox, options.seed, kinds, options.patience)
    counted["seed"] = options.seed
    print(json.dumps(counted))
    lost = counted["missing"] > counted["dropped"] or counted["wrongly_told"]
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
