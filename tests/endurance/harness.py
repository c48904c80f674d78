"""Shared by the endurance programs: parts, child processes, the emulator, outboxes and tables.

Each part of a program prints a table and returns whether it passed. `run` runs the parts,
prints the result and returns the exit code; `start` runs a function in a child process.
"""

from __future__ import annotations

import argparse
import atexit
import http.client
import importlib
import inspect
import json
import logging
import math
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import anyio
import attrs
import httpx

from intercom_data_events import AsyncDataEventsClient, Clock, DataEventsClient
from intercom_data_events._arguments import ArgumentParser
from intercom_data_events.emulator import EmulatedEvent, Emulator, EmulatorServer, Fault
from intercom_data_events.tracker import Tracker

# The servers of the benchmark, for programs that measure.
sys.path.append(str(Path(__file__).parents[1] / "bench"))

BEGIN = 1_671_028_894
# Intercom's own rate limit: 10,000 requests a minute, in windows of 10 seconds.
LIMIT, WINDOW = 1667, 10
# Seconds after which a wait has failed.
PATIENCE = 120

# Seconds for which a claim of a process that died holds.
CLAIM = 31.0

Part = Callable[[argparse.Namespace], bool]
Leader = subprocess.Popen[str]
_T = TypeVar("_T")


# Programs.


def make_parser(
    description: str | None, parts: Mapping[str, Part], *, seed_of: str | None = None
) -> argparse.ArgumentParser:
    """Makes a program's parser, with --only for several parts and --seed for random choices."""
    parser = ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if len(parts) > 1:
        parser.add_argument(
            "--only",
            action="append",
            choices=parts,
            metavar="PART",
            help=f"run only this part: {', '.join(parts)}; repeatable",
        )
    if seed_of:
        seed = random.randrange(2**32)  # noqa: S311  # guards nothing
        parser.add_argument(
            "--seed", type=int, default=seed, help=f"seed of {seed_of} (default: random)"
        )
    return parser


def add_number(
    parser: argparse.ArgumentParser, option: str, default: float, meaning: str = ""
) -> None:
    """Adds an option for a positive number, which is an integer if the default is one."""
    kind = type(default)
    wanted = "integer" if kind is int else "number"

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if 0 < number < math.inf:
            return number
        # argparse would put other words before the message of another type of error.
        raise argparse.ArgumentError(None, f"{option} must be a positive {wanted}, not {text}")

    explained = f"{meaning} (default: %(default)s)" if meaning else "default: %(default)s"
    parser.add_argument(option, type=parse, default=default, help=explained)


def run(
    parts: Mapping[str, Part],
    options: argparse.Namespace,
    *,
    requires: Iterable[str] = (),
    optional: Iterable[str] = (),
) -> int:
    """Runs the parts. SIGTERM ends the program and its processes, with exit code 143.

    Args:
        parts: Each part by its name.
        options: What the parser of :func:`make_parser` parsed.
        requires: PyPI packages that the program needs.
        optional: PyPI packages that it compares with where they are installed.

    Returns:
        The exit code: 1 if a part failed.
    """
    versions = {package: installed(package) for package in (*requires, *optional)}
    if missing := [package for package in requires if not versions[package]]:
        sys.exit(f"not installed: {', '.join(missing)}; run: pip install {' '.join(missing)}")
    logging.getLogger("intercom_data_events").setLevel(logging.ERROR)
    facts = [
        f"{platform.python_implementation()} {platform.python_version()}",
        platform.machine(),
        f"{os.cpu_count()} cores",
        *([f"seed {options.seed}"] if "seed" in options else []),
        *(f"{package} {found or 'not installed'}" for package, found in versions.items()),
    ]
    print(", ".join(facts), flush=True)
    chosen = getattr(options, "only", None) or parts
    with _ended_by_sigterm():
        failed = [name for name, part in parts.items() if name in chosen and not part(options)]
    verdict = f"These parts failed: {', '.join(failed)}." if failed else "All parts passed."
    print(f"\n{verdict}")
    return 1 if failed else 0


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit, so that `finally` kills the process groups."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def installed(package: str) -> str | None:
    """Returns the version of a PyPI package, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Table:
    """Prints a heading and the names of columns, then each row as it comes."""

    def __init__(self, heading: str, *columns: str) -> None:
        print(f"\n{heading}\n")
        self._widths = [max(13, len(name) + 1) for name in columns[1:]]
        if any(columns):
            self.row(*columns)

    def row(self, *cells: object) -> None:
        """Prints a row, with thousands separators in integers."""
        first, *others = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        columns = zip(others, self._widths, strict=True)
        texts = (f"{cell:>{max(width, len(cell) + 1)}}" for cell, width in columns)
        print(f"  {first:<26}", *texts, flush=True)


# Child processes.


def environment(url: str | None = None, **others: str) -> dict[str, str]:
    """Returns a child's environment: no proxies, and only these settings of the client."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INTERCOM_") and not name.upper().endswith("_PROXY")
    }
    client = {"INTERCOM_BASE_URL": url, "INTERCOM_ACCESS_TOKEN": "token"} if url else {}
    return {**kept, **client, **others}


def start(
    function: Callable[..., None], *arguments: object, url: str | None = None
) -> subprocess.Popen[str]:
    """Starts a module's function in a child process, whose clients send to the URL.

    The arguments are passed as JSON, and the function prints its results. The child is killed at
    the latest when this process exits.
    """
    call = [inspect.getfile(inspect.unwrap(function)), function.__name__, *arguments]
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(call)],
        env=environment(url),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(process.kill)
    return process


def finish(
    process: subprocess.Popen[str], *, well: bool = True, timeout: float | None = 3 * PATIENCE
) -> list[str]:
    """Waits for a child process and returns the lines that it printed.

    Ends the program if the child does not end in time, or if `well` and the child fails.
    """
    name = json.loads(process.args[-1])[1]  # type: ignore[index]  # as `start` passes them
    try:
        printed, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        sys.exit(f"Child process {name} did not end within {timeout:g} s.")
    if well and process.returncode:
        sys.exit(f"Child process {name} failed with exit code {process.returncode}; see above.")
    return printed.splitlines()


def call(function: Callable[..., None], *arguments: object, url: str) -> list[str]:
    """Runs a module's function in a child process, and returns the lines that it printed."""
    return finish(start(function, *arguments, url=url))


def read_line(process: subprocess.Popen[str]) -> str:
    """Returns the next line of a child process; ends the program if there is none."""
    line: str = process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
    if not line:
        finish(process)
        sys.exit("A child process ended before it printed a line; see above.")
    return line.strip()


def _run_child(file: str, name: str, *arguments: object) -> None:
    logging.disable()
    sys.path.insert(0, str(Path(file).parent))
    try:
        getattr(importlib.import_module(Path(file).stem), name)(*arguments)
    except Exception as error:  # noqa: BLE001  # any error ends the program
        at = traceback.extract_tb(error.__traceback__)[-1]
        sys.exit(f"{name}: {type(error).__name__}: {error} ({at.filename}:{at.lineno})")


@contextmanager
def process_group(
    *command: str, url: str, log: Path, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python command as the leader of a process group, and kills the group at the end.

    The command can import this folder's modules, and has the variables in its environment.
    """
    with log.open("w") as file:
        leader = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=Path(__file__).parent,
            env=environment(url, **variables),
            text=True,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield leader
    finally:
        kill_group(leader)


def kill_group(leader: subprocess.Popen[str]) -> None:
    """Kills a process group and waits for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


@contextmanager
def loading(address: str, numbers: Iterator[int], threads: int = 8) -> Iterator[list[int]]:
    """Posts numbers to a server from several threads; adds those that are answered."""
    answered: list[int] = []
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            number = next(numbers)
            connection = http.client.HTTPConnection(address, timeout=PATIENCE)
            with suppress(OSError, http.client.HTTPException):
                connection.request("POST", f"/{number}")
                if connection.getresponse().status == http.HTTPStatus.NO_CONTENT:
                    answered.append(number)
            connection.close()

    with ThreadPoolExecutor(threads) as pool:
        posting = [pool.submit(load) for _ in range(threads)]
        try:
            yield answered
        finally:
            over.set()
        for future in posting:
            future.result()


def in_threads(function: Callable[[], None], number: int) -> None:
    """Runs a function in several threads at once, and waits for all."""
    with ThreadPoolExecutor(number) as pool:
        for future in [pool.submit(function) for _ in range(number)]:
            future.result()


def until(condition: Callable[[], _T], awaited: str, seconds: float = PATIENCE) -> _T:
    """Waits until a condition is true, and returns its value; otherwise ends the program."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            sys.exit(f"Timed out after {seconds:g} s while waiting for {awaited}.")
        time.sleep(0.01)
    return value


# Events in an outbox, and their numbers.


class _AheadClock(Clock):
    """Returns a clock that is ahead, by which all claims have expired."""

    def time(self) -> float:
        return time.time() + CLAIM


def note(number: int) -> None:
    """Prints that `track` returned, without buffering."""
    os.write(sys.stdout.fileno(), b"%d\n" % number)


def drain(outbox: str, hurried: bool) -> None:
    """Sends the events that other processes left in an outbox."""
    clock = _AheadClock() if hurried else None
    with Tracker(DataEventsClient(clock=clock), outbox) as tracker:
        tracker.flush(PATIENCE)


def missing_and_repeated(tracked: Iterable[int], accepted: Counter[int]) -> tuple[int, int]:
    """Returns how many events were never accepted, and how many more than once."""
    return len(set(tracked) - accepted.keys()), accepted.total() - len(accepted)


# The emulator.


def event(number: int) -> dict[str, Any]:
    """Returns an event by its number: up to 20 for each of many contacts, none a duplicate."""
    return {
        "event_name": "placed-order",
        "user_id": str(number // 20),
        "created_at": BEGIN + number % 20,
    }


def number_of(stored: EmulatedEvent) -> int:
    """Returns the numbers of the events that the emulator stored."""
    return int(stored.user_id or 0) * 20 + stored.created_at - BEGIN


@attrs.frozen
class Server:
    """The emulator in a separate process."""

    url: str
    process: subprocess.Popen[str]

    def counts(self) -> dict[str, Any]:
        """The `EmulatorCounts` so far."""
        return self._ask("counts")

    def arrivals(self) -> list[tuple[int, float, int]]:
        """Returns the `user_id`, the time and the status of each request."""
        return [tuple(arrival) for arrival in self._ask("arrivals")]

    def accepted(self) -> Counter[int]:
        """Counts the accepted events of each `user_id`."""
        return Counter(
            number for number, _, status in self.arrivals() if status == httpx.codes.ACCEPTED
        )

    def _ask(self, question: str) -> Any:
        with suppress(BrokenPipeError):  # The process has ended; the next line says why.
            print(question, file=self.process.stdin, flush=True)
        return json.loads(read_line(self.process))


@contextmanager
def serving(
    slowest: float = 0.0,
    quickest: float | None = None,
    *,
    port: int = 0,
    limit: int | None = None,
    window: float = 10.0,
) -> Iterator[Server]:
    """Serves the emulator in a child process; its answers take `quickest` to `slowest` seconds."""
    quickest = slowest if quickest is None else quickest
    process = start(_serve, slowest, quickest, port, limit, window)
    try:
        yield Server(read_line(process), process)
    finally:
        try:
            process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _serve(slowest: float, quickest: float, port: int, limit: int | None, window: float) -> None:
    source = random.Random(0)  # noqa: S311  # guards nothing
    slow = (Fault.slow(source.uniform(quickest, slowest)) for _ in count())
    emulator = Emulator(
        rate_limit=limit, window=window, faults=slow if slowest else (), record=False
    )
    arrivals: list[tuple[int, float, int]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        answered = emulator.answer(request)
        number = int(json.loads(request.content)["user_id"])
        arrivals.append((number, time.time(), answered.status_code))
        return answered

    with EmulatorServer(answer, port=port) as url:
        print(url, flush=True)
        for question in sys.stdin:
            counts = question.strip() == "counts"
            print(json.dumps(attrs.asdict(emulator.counts) if counts else arrivals), flush=True)


# Simulated time.


class EventLoopClock(Clock):
    """The time of an event loop, which can be simulated."""

    def __init__(self, now: float) -> None:
        self._begin = now - anyio.current_time()

    def time(self) -> float:
        """Seconds since 1970."""
        return self._begin + anyio.current_time()

    def monotonic(self) -> float:
        """Seconds since the loop's start."""
        return anyio.current_time()


def at_rate_limit(
    send: Callable[[AsyncDataEventsClient], Awaitable[None]],
    latencies: Iterable[float],
    *,
    skew: float = 0,
    **options: Any,
) -> tuple[Emulator, list[float], float]:
    """Sends in simulated time to an emulator that has Intercom's rate limit.

    Its answers take the given seconds, and its clock is ahead by `skew`. Returns the emulator, the
    share of the quota that was used in each whole window, and the seconds that passed.
    """
    import trio
    import trio.testing

    async def main() -> tuple[Emulator, list[float], float]:
        clock = EventLoopClock(BEGIN + 3.3)
        emulator = Emulator(
            clock=clock,
            rate_limit=LIMIT,
            window=WINDOW,
            faults=map(Fault.slow, latencies),
            record=False,
        )
        emulator.advance(skew)
        accepted = Counter[int]()

        async def count_accepted(response: httpx.Response) -> None:
            reset = int(response.headers["X-RateLimit-Reset"])
            accepted[reset] += response.status_code == httpx.codes.ACCEPTED

        begin = clock.time()
        async with httpx.AsyncClient(
            transport=emulator.transport(), event_hooks={"response": [count_accepted]}
        ) as http:
            await send(AsyncDataEventsClient("token", http_client=http, clock=clock, **options))
        shares = [accepted[reset] / LIMIT for reset in sorted(accepted)[1:-1]]
        return emulator, shares, clock.time() - begin

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


if __name__ == "__main__":
    _run_child(*json.loads(sys.argv[1]))
