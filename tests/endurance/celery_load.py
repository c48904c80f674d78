"""Sends many events with Celery, kills a worker, and counts how often each event arrived.

    nox -s celery-load [-- --events 100000]

The program starts a Redis server (Debian: `apt install redis-server`), two Celery workers with
several processes each, and the emulator with a quota in short windows. When half of the events are
stored, it kills a worker and all its processes with SIGKILL, and starts another. All events must be
stored, except one: Celery takes a message from Redis and records it there in two steps (kombu 5.7),
so a worker that is killed between them loses the message of any task. Only messages that the killed
worker had taken from the queue may be sent twice, and less than 1 % of the answers may be 429.

The exit code is 1 if a requirement is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import harness
from intercom_data_events import Event

try:
    from celery import Celery
    from redis import Redis

    from intercom_data_events.celery import send_event
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed; run: pip install 'celery[redis]'")

# Messages that a worker prefetches for each of its processes: Celery's default.
PREFETCHED = 4
# The most lost events: one message that the killed worker was taking from Redis.
LOST = 1
# Seconds until Redis redelivers the messages of a killed worker.
VISIBILITY = 20
# Seconds without a stored event after which the missing events are lost.
QUIET = 3 * VISIBILITY

app = Celery("celery_load")
app.conf.update(json.loads(os.environ.get("CELERY_LOAD", "{}")))


@contextmanager
def serving_redis(folder: str) -> Iterator[Path]:
    """Runs a Redis server without persistence; yields the path of its socket."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed; on Debian run: apt install redis-server")
    path = Path(folder, "redis")
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    try:
        harness.until(
            lambda: path.exists() or process.poll() is not None, "the start of redis-server"
        )
        if process.returncode is not None:
            sys.exit(f"redis-server ended with exit code {process.returncode}.")
        yield path
    finally:
        process.kill()
        process.wait()


def settings(folder: str) -> dict[str, Any]:
    return {
        "broker_url": f"redis+socket://{folder}/redis",
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        },
    }


def load(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"{options.events:,} events, 2 workers with {options.children} processes each, "
        f"a quota of {options.limit:,} requests per {options.window:g} s",
        "", "", "",
    )  # fmt: skip
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        path = running.enter_context(serving_redis(folder))
        redis = running.enter_context(Redis(unix_socket_path=str(path)))
        server = running.enter_context(harness.serving(limit=options.limit, window=options.window))
        app.conf.update(settings(folder))

        begin = time.perf_counter()
        for number in range(options.events):
            send_event.delay(Event(**harness.event(number)))
        table.row("queued", options.events, f"in {time.perf_counter() - begin:.1f} s")

        def start_worker(name: str) -> subprocess.Popen[str]:
            return running.enter_context(
                harness.process_group(
                    "celery", "-A", "celery_load", "worker", "-n", name, "-l", "WARNING",
                    "-c", str(options.children), "--without-gossip", "--without-mingle",
                    url=server.url, log=Path(folder, f"{name}.log"),
                    CELERY_LOAD=json.dumps(settings(folder)),
                )
            )  # fmt: skip

        first, _ = start_worker("first"), start_worker("second")
        wait_for_stored(server, 1)
        begin = time.perf_counter()
        counts = wait_for_stored(server, options.events // 2)
        harness.kill_group(first)
        table.row("killed a worker", counts["stored"], "events were stored")
        start_worker("third")
        wait_for_stored(server, options.events)
        seconds = time.perf_counter() - begin
        # The remaining duplicates.
        end = time.monotonic() + QUIET
        while redis.llen("celery") + redis.hlen("unacked") and time.monotonic() < end:
            time.sleep(0.5)
        good = claims_hold(table, options, server.counts(), seconds)
        if not good:
            for log in sorted(Path(folder).glob("*.log")):
                print(f"\n{log.stem}:\n{log.read_text(encoding='utf-8')[-4000:]}")
        return good


def wait_for_stored(server: harness.Server, events: int) -> dict[str, Any]:
    """Waits until a number of events is stored, or until none arrives for QUIET seconds."""
    counts = server.counts()
    changed = time.monotonic()
    while counts["stored"] < events and time.monotonic() < changed + QUIET:
        time.sleep(0.5)
        before, counts = counts, server.counts()
        if counts["stored"] > before["stored"]:
            changed = time.monotonic()
    return counts


def claims_hold(
    table: harness.Table, options: argparse.Namespace, counts: dict[str, Any], seconds: float
) -> bool:
    lost = options.events - counts["stored"]
    share = counts["limited"] / max(counts["requests"], 1)
    ideal = options.events / options.limit * options.window
    table.row("stored", counts["stored"], "")
    table.row("lost", lost, "")
    table.row("sent more than once", counts["duplicates"], "")
    table.row("answers with 429", counts["limited"], f"{share:.2%} of {counts['requests']:,}")
    table.row("seconds", f"{seconds:.0f}", f"{ideal / seconds:.0%} of the quota used")
    again = PREFETCHED * options.children
    return lost <= LOST and counts["duplicates"] <= again and share < 0.01


def main() -> int:
    parts = {"load": load}
    parser = harness.make_parser(__doc__, parts)
    harness.add_number(parser, "--events", 100_000)
    harness.add_number(parser, "--limit", 500, "requests per window")
    harness.add_number(parser, "--window", 2.0, "seconds per window")
    harness.add_number(parser, "--children", 4, "processes per worker")
    return harness.run(parts, parser.parse_args(), requires=("celery", "redis"))


if __name__ == "__main__":
    sys.exit(main())
