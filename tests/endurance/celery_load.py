"""Sends many events by Celery, kills a worker in the midst, and counts what became of them.

    nox -s celery-load [-- --events 100000]

There are a Redis server (Debian: `apt install redis-server`), two Celery workers with several
processes each, and the emulator with a quota in small windows, all in processes of their own. When
half of the events are stored, a worker and all its processes are killed with SIGKILL, and another
is started. Each event has to be stored, but for one: Celery takes a message out of Redis and notes
it there in two steps (kombu 5.7), and a worker that is killed between them loses it, whatever the
task. Only what the killed worker had taken out of the queue may be sent twice; and less than one in
a hundred answers may be 429.

The exit code is 1 where one of the claims does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
from celery import Celery
from redis import Redis

from intercom_data_events import Event
from intercom_data_events.celery import send_event
from intercom_data_events.emulator import Emulator

BEGIN = 1_671_028_894
# What a worker takes out of the queue for each of its processes: Celery's default.
PREFETCHED = 4
# Events that are lost at most, of one that is being taken out of Redis by each killed worker.
LOST = 1
# Seconds after which Redis gives out anew what a killed worker had taken out of the queue.
VISIBILITY = 20
# Seconds without anything new, after which what is missing is lost.
PATIENCE = 6 * VISIBILITY

app = Celery("celery_load")
app.conf.update(json.loads(os.environ.get("CELERY_LOAD", "{}")))


def event(number: int) -> Event:
    """One of the events: many contacts, each with a few, all different to Intercom."""
    return Event("placed-order", user_id=str(number // 20), created_at=BEGIN + number % 20)


def emulate(limit: int, window: float) -> None:
    """Serves an emulator, says where, and for every line that is read what it counted so far."""
    emulator = Emulator(rate_limit=limit, window=window, record=False)
    with emulator.serve() as url:
        print(json.dumps(url), flush=True)
        for _ in sys.stdin:
            print(json.dumps(attrs.asdict(emulator.counts)), flush=True)


class Counting:
    """An emulator in a process of its own."""

    def __init__(self, limit: int, window: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--emulate", "--limit", f"{limit}", "--window", f"{window}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._said()

    @property
    def counts(self) -> dict[str, Any]:
        """What it counted so far."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        print(file=self._process.stdin, flush=True)
        return self._said()

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()

    def _said(self) -> Any:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        return json.loads(self._process.stdout.readline())


@contextmanager
def serving_redis(folder: str) -> Iterator[str]:
    """Runs a Redis server that keeps nothing; yields the path of its socket."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("There is no redis-server on this machine (Debian: apt install redis-server).")
    path = f"{folder}/redis"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not Path(path).exists() and process.poll() is None:
            time.sleep(0.05)
        yield path
    finally:
        process.kill()
        process.wait()


def start_worker(name: str, children: int, folder: str, url: str) -> subprocess.Popen[bytes]:
    """Starts a Celery worker, as the leader of a process group with its processes."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INTERCOM_") and not name.upper().endswith("_PROXY")
    }
    with Path(folder, f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_load", "worker", "-n", name,
             "-c", f"{children}", "-l", "WARNING", "--without-gossip", "--without-mingle"],
            cwd=Path(__file__).parent,
            env={
                **environment,
                "CELERY_LOAD": json.dumps(settings(folder)),
                "INTERCOM_BASE_URL": url,
                "INTERCOM_ACCESS_TOKEN": "token",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


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


def kill(worker: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def load(options: argparse.Namespace) -> bool:
    """Queues, sends, kills and counts; whether the claims hold."""
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        path = running.enter_context(serving_redis(folder))
        redis = running.enter_context(Redis(unix_socket_path=path))
        emulator = Counting(options.limit, options.window)
        running.callback(emulator.close)
        app.conf.update(settings(folder))

        begin = time.perf_counter()
        for number in range(options.events):
            send_event.delay(event(number))
        row("queued", f"{options.events:,}", f"in {time.perf_counter() - begin:.1f} s")

        def started(name: str) -> subprocess.Popen[bytes]:
            worker = start_worker(name, options.children, folder, emulator.url)
            running.callback(kill, worker)
            return worker

        first, _ = started("first"), started("second")
        counts = stored(emulator, 1)
        begin = time.perf_counter()
        counts = stored(emulator, options.events // 2)
        kill(first)
        row("killed a worker", f"{counts['stored']:,}", "events were stored")
        started("third")
        counts = stored(emulator, options.events)
        seconds = time.perf_counter() - begin
        # What is still to be sent again.
        end = time.monotonic() + PATIENCE
        while redis.llen("celery") + redis.hlen("unacked") and time.monotonic() < end:
            time.sleep(0.5)
        counts = emulator.counts
        good = told(options, counts, seconds)
        if not good:
            for log in sorted(Path(folder).glob("*.log")):
                print(f"\n{log.stem}:\n{log.read_text(encoding='utf-8')[-4000:]}")
        return good


def stored(emulator: Counting, events: int) -> dict[str, Any]:
    """Waits until so many events are stored, or there is nothing new for long."""
    counts = emulator.counts
    changed = time.monotonic()
    while counts["stored"] < events and time.monotonic() < changed + PATIENCE:
        time.sleep(0.5)
        before, counts = counts, emulator.counts
        if counts["stored"] > before["stored"]:
            changed = time.monotonic()
    return counts


def told(options: argparse.Namespace, counts: dict[str, Any], seconds: float) -> bool:
    """Prints what became of the events; whether the claims hold."""
    lost = options.events - counts["stored"]
    share = counts["limited"] / counts["requests"]
    ideal = options.events / options.limit * options.window
    row("stored", f"{counts['stored']:,}")
    row("lost", f"{lost:,}")
    row("sent more than once", f"{counts['duplicates']:,}")
    row("answers that were 429", f"{counts['limited']:,}", f"{share:.2%} of {counts['requests']:,}")
    row("seconds", f"{seconds:.0f}", f"{ideal / seconds:.0%} of the quota used")
    again = PREFETCHED * options.children
    return lost <= LOST and counts["duplicates"] <= again and share < 0.01


def row(*cells: str) -> None:
    first, number, *others = cells
    print(f"  {first:<24}{number:>12}  {' '.join(others)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument(
        "--limit", type=int, default=500, help="requests in a window (default: %(default)s)"
    )
    parser.add_argument("--window", type=float, default=2, help="in seconds (default: %(default)s)")
    parser.add_argument(
        "--children", type=int, default=4, help="processes of each worker (default: %(default)s)"
    )
    parser.add_argument("--emulate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.emulate:
        emulate(options.limit, options.window)
        return 0
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, Celery {version('celery')}\n\n"
        f"{options.events:,} events, 2 workers of {options.children} processes, "
        f"{options.limit:,} requests allowed in {options.window:g} s\n"
    )
    good = load(options)
    print("\nEvery claim holds." if good else "\nNot every claim holds.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
