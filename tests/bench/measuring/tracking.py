"""Questions about `track`: how long a call takes while events are being sent."""

from __future__ import annotations

import queue
import statistics
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from intercom_data_events import DataEventsClient, Event
from intercom_data_events.tracker import Tracker
from measuring.events import CREATED, TOKEN
from measuring.figures import Goal, Question

_PLAIN = "Event(…), queue.put"
_MEMORY, _FILE = "track", "track, with an outbox"
_GOALS = {_MEMORY: Goal(20), _FILE: Goal(150)}
_AWAY, _FILE_AWAY = f"{_MEMORY}, Intercom away", f"{_FILE}, Intercom away"
# Seconds between two calls, in which an application does other work.
_BETWEEN = 0.0005
# Events until a tracker has its threads and connections, and sends without a pause.
_WARM = 50


def questions(url: str, away: str, calls: int) -> Iterator[Question]:
    """Yields the questions about tracking.

    Args:
        url: The address of a server with Intercom's rate limit and latency.
        away: An address where no server listens.
        calls: The number of calls to measure in a round.
    """
    tails: dict[str, deque[float]] = defaultdict(deque)

    def median(name: str, address: str | None, outbox: bool, between: float) -> float:
        taken = sorted(_calls(address, outbox, calls, between))
        tails[name].append(taken[int(len(taken) * 0.999)])
        return statistics.median(taken)

    in_a_row = {
        _PLAIN: partial(median, "", None, False, 0.0),
        _MEMORY: partial(median, "", url, False, 0.0),
        _FILE: partial(median, "", url, True, 0.0),
    }
    yield Question(
        "track, one call after the other", "µs", in_a_row, 1e6, goals=_GOALS, headline=True
    )
    yield from _between(median, tails, url, away)


def _between(
    median: Callable[..., float], tails: dict[str, deque[float]], url: str, away: str
) -> Iterator[Question]:
    subjects = {
        _PLAIN: (None, False),
        _MEMORY: (url, False),
        _FILE: (url, True),
        _AWAY: (away, False),
        _FILE_AWAY: (away, True),
    }
    yield Question(
        "track, between other work, while events are sent",
        "µs",
        {name: partial(median, name, *how, _BETWEEN) for name, how in subjects.items()},
        scale=1e6,
        goals=_GOALS,
    )
    # Of the same calls, in the same order.
    yield Question(
        "the same calls, 99.9th percentile",
        "µs",
        {name: tails[name].popleft for name in subjects},
        scale=1e6,
        goals={_MEMORY: Goal(5_000), _FILE: Goal(5_000)},
    )


def _calls(address: str | None, outbox: bool, calls: int, between: float) -> list[float]:
    """Returns the seconds that each call took."""
    numbers = count()
    given: dict[str, Any] = {key: CREATED[key] for key in ("created_at", "metadata")}
    waiting = queue.SimpleQueue[Event]()

    def put(user_id: str) -> None:
        waiting.put(Event("placed-order", user_id=user_id, **given))

    def times(use: Callable[[str], object]) -> list[float]:
        taken = []
        for _ in range(calls):
            user_id = str(next(numbers))
            begin = time.perf_counter()
            use(user_id)
            taken.append(time.perf_counter() - begin)
            if between:
                time.sleep(between)
        return taken

    if address is None:
        return times(put)
    with (
        tempfile.TemporaryDirectory() as folder,
        DataEventsClient(TOKEN, base_url=address) as client,
    ):
        tracker = Tracker(client, Path(folder, "outbox") if outbox else None)

        def track(user_id: str) -> None:
            tracker.track("placed-order", user_id=user_id, **given)

        try:
            # More events than are sent before the first answers, or before Intercom is available.
            for number in range(20 * _WARM):
                track(f"warm {number}")
            while tracker.counters.sent < _WARM and tracker.counters.failing is None:
                time.sleep(0.01)
            return times(track)
        finally:
            tracker.close(0)
            # Events still in flight must not slow down the next subject.
            for thread in threading.enumerate():
                if thread.name.startswith("intercom-tracker"):
                    thread.join()
