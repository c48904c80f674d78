"""A short program under gevent: it tracks events, forks if told to, and ends at once.

    python -m gevent_program EVENTS CHILDREN

It prints the number of each event for which `track` returned. Each child tracks as many events.
"""

# ruff: noqa: E402  # gevent patches before anything else is imported
from gevent import monkey

monkey.patch_all()

import os
import signal
import sys
import time
import warnings

import harness
from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker


def main(events: int, children: int) -> None:
    # Python warns about forks in processes with threads.
    warnings.simplefilter("ignore", DeprecationWarning)
    tracker = Tracker(DataEventsClient())

    def track(first: int) -> None:
        for number in range(first, first + events):
            tracker.track("placed-order", user_id=str(number))
            harness.note(number)

    track(0)
    started = []
    for child in range(1, children + 1):
        time.sleep(0.01)  # Lets the tracker send some events.
        if (process := os.fork()) == 0:
            signal.alarm(harness.PATIENCE)  # Ends a child that hangs.
            track(child * 1_000)
            time.sleep(0.2)  # Lets work that the child inherited from its parent continue.
            sys.exit(0)
        started.append(process)
    failed = sum(os.waitpid(process, 0)[1] != 0 for process in started)
    sys.exit(f"children that hung or failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
