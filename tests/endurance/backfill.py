"""Imports a file of events as its users would, and counts, measures, kills and resumes.

    nox -s backfill [-- --events 1000000 --kills 50]

- How many events a second `intercom-events import` sends to the emulator over a real socket, with
  the rate limit left alone, and how much memory that takes; beside the official SDK's async client
  with as many requests at once, on a sample.
- What an import that is killed again and again comes to, and how soon one ends that is interrupted.
- How much of Intercom's windows is used, in simulated time, where an answer takes 100 ms.

The exit code is 1 where one of the claims does not hold; nothing is claimed of the official SDK.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import httpx

from intercom_data_events import AsyncDataEventsClient, Clock
from intercom_data_events.emulator import Emulator, Fault

CONCURRENCY = 100
SAMPLE = 10_000
LIMIT, WINDOW, LATENCY = 1667, 10, 0.1
BEGIN = 1_671_028_894
MEGABYTE = 1_000_000

_COMMAND = "from intercom_data_events.cli import main; main()"
_WITHOUT_FAST = f"import sys; sys.modules['httpx_aiohttp'] = None; {_COMMAND}"


def event(number: int) -> dict[str, Any]:
    """One of the events: many contacts, each with a few, all different to Intercom."""
    return {
        "event_name": "placed-order",
        "user_id": str(number // 20),
        "created_at": BEGIN + number % 20,
        "metadata": {"stripe_invoice": f"inv_{number}", "load": 3.67},
    }


def write_events(path: Path, events: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(events):
            file.write(f"{json.dumps(event(number))}\n")


def environment(url: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("INTERCOM_") and not name.upper().endswith("_PROXY")
    }
    return {**kept, "INTERCOM_BASE_URL": url, "INTERCOM_ACCESS_TOKEN": "token"}


def start(code: str, url: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment(url), text=True, **options
    )


def ended(process: subprocess.Popen[str]) -> int:
    """Waits for a process; returns its peak memory in bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Kilobytes on Linux, bytes on macOS.
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# What is measured.


def speed_and_memory(events: int, official: bool) -> bool:
    heading(
        f"{events:,} events from NDJSON to the emulator over a real socket, no pacing, at most "
        f"{CONCURRENCY} requests at once"
    )
    row("", "events", "events/s", "ratio", "peak memory above start")
    theirs = None
    if official:
        theirs = from_the_official_sdk(min(SAMPLE, events))
        row("official AsyncIntercom", f"{min(SAMPLE, events):,}", f"{theirs:,.0f}", "1.00 x", "")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "events.ndjson")
        ways = [
            ("without [fast]", _WITHOUT_FAST, min(events, 100_000), 2),
            ("with [fast]", _COMMAND, events, 5),
        ]
        for name, code, number, least in ways:
            write_events(file, number)
            emulator = Emulator(rate_limit=None, record=False)
            with emulator.serve() as url:
                base = ended(start(code, url, "--version", stdout=subprocess.DEVNULL))
                begin = time.perf_counter()
                running = start(
                    code, url, "import", str(file), "--restart", "--no-pace", "--quiet",
                    "--concurrency", str(CONCURRENCY), stdout=subprocess.DEVNULL,
                )  # fmt: skip
                peak = ended(running) - base
                seconds = time.perf_counter() - begin
            stored = emulator.counts.stored
            rate = number / seconds
            ratio = rate / theirs if theirs else None
            row(name, f"{number:,}", f"{rate:,.0f}", f"{ratio:.2f} x" if ratio else "",
                f"{peak / MEGABYTE:.0f} MB")  # fmt: skip
            good &= running.returncode == 0 and stored == number and peak <= 100 * MEGABYTE
            # A small sample is mostly starting up.
            good &= ratio is None or ratio >= least or number < SAMPLE
    return good


def from_the_official_sdk(events: int) -> float:
    """Events a second; in a process of its own, as ours."""
    emulator = Emulator(rate_limit=None, record=False)
    with emulator.serve() as url:
        running = start(
            f"import runpy; runpy.run_path({__file__!r})['official']({url!r}, {events})",
            url,
            stdout=subprocess.PIPE,
        )
        written, _ = running.communicate()
    if running.returncode or emulator.counts.stored != events:
        sys.exit("The official SDK did not send all of the sample.")
    return float(written)


def official(url: str, events: int) -> None:
    """Sends a sample with the official SDK, and prints how many events a second that were."""
    from intercom import AsyncIntercom
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    client = AsyncIntercom(token="token", base_url=url)  # noqa: S106  # any will do
    numbers = iter(range(events))

    async def send() -> None:
        for number in numbers:
            fields = event(number)
            # It refuses metadata that is not text.
            fields["metadata"] = {key: str(value) for key, value in fields["metadata"].items()}
            await client.events.create(request=CreateDataEventRequestWithUserId(**fields))

    async def main() -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
        return events / (time.perf_counter() - begin)

    print(asyncio.run(main()))


def killed(events: int, kills: int, seed: int) -> bool:
    heading(f"{events:,} events, killed {kills} times at random moments, and resumed each time")
    row("", "stored", "missing", "repeated", "repeated a kill", "most in flight")
    source = random.Random(seed)  # noqa: S311  # guards nothing
    # As long as it takes to be killed so often, whatever the machine.
    slow = (Fault.slow(source.uniform(0.0, 0.1)) for _ in itertools.count())
    emulator = Emulator(rate_limit=None, faults=slow, record=False)
    with tempfile.TemporaryDirectory() as folder, emulator.serve() as url:
        file = Path(folder, "events.ndjson")
        write_events(file, events)
        done = 0
        while True:
            # The same command each time.
            running = start(
                _COMMAND,
                url,
                "import",
                str(file),
                "--quiet",
                "--no-pace",
                stdout=subprocess.DEVNULL,
            )
            if done == kills:
                running.wait()
                break
            before = emulator.counts.requests
            while emulator.counts.requests == before and running.poll() is None:
                time.sleep(0.01)
            time.sleep(source.uniform(0, 0.5))
            if running.poll() is not None:
                break
            running.kill()
            running.wait()
            done += 1
    stored = {(one.user_id, one.created_at) for one in emulator.events}
    counts = emulator.counts
    missing = events - len(stored)
    row(f"killed {done} times", f"{counts.stored:,}", f"{missing:,}", f"{counts.duplicates:,}",
        f"{counts.duplicates / max(done, 1):.1f}", CONCURRENCY)  # fmt: skip
    if done < kills:
        print("  It was done before it had been killed so often: give it more --events.")
    return (
        not missing
        and done == kills
        and running.returncode == 0
        and counts.stored == events
        and counts.duplicates <= done * CONCURRENCY
    )


def interrupted(rounds: int = 3) -> bool:
    heading("Interrupted by Ctrl-C while answers take 20 seconds")
    row("", "seconds until it ended, at most", "exit code")
    taken, codes = [], set()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "events.ndjson")
        write_events(file, 50_000)
        for _ in range(rounds):
            slow = (Fault.slow(0.0 if number < 200 else 20.0) for number in itertools.count())
            emulator = Emulator(rate_limit=None, faults=slow, record=False)
            with emulator.serve() as url:
                running = start(
                    _COMMAND, url, "import", str(file), "--restart", "--no-pace", "--json",
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                while emulator.counts.requests < 100:
                    time.sleep(0.01)
                running.send_signal(signal.SIGINT)
                begin = time.perf_counter()
                written, _ = running.communicate()
                taken.append(time.perf_counter() - begin)
            codes.add(running.returncode)
            if json.loads(written)["accepted"] < 1:
                return False
    row("", f"{max(taken):.2f}", ", ".join(map(str, sorted(codes))))
    return max(taken) < 1 and codes == {130}


def in_windows(events: int) -> bool:
    import trio
    import trio.testing

    heading(
        f"{events:,} events, answers after {LATENCY * 1000:.0f} ms, {LIMIT:,} requests allowed in "
        f"{WINDOW} s, simulated time"
    )
    row("quota share", "whole windows", "least used", "most used", "429")
    good = True
    for share in (1.0, 0.5):
        accepted = Counter[int]()

        async def main(share: float = share, accepted: Counter[int] = accepted) -> Emulator:
            clock = _EventLoopClock(BEGIN + 3.3)
            slow = (Fault.slow(LATENCY) for _ in itertools.count())
            emulator = Emulator(
                clock=clock, rate_limit=LIMIT, window=WINDOW, faults=slow, record=False
            )

            async def count(response: httpx.Response) -> None:
                reset = int(response.headers["X-RateLimit-Reset"])
                accepted[reset] += response.status_code == httpx.codes.ACCEPTED

            http = httpx.AsyncClient(
                transport=emulator.transport(), event_hooks={"response": [count]}
            )
            client = AsyncDataEventsClient(
                "token", http_client=http, clock=clock, quota_share=share
            )
            async for _ in client.create_many(map(event, range(events))):
                pass
            return emulator

        emulator = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        whole = [accepted[reset] / LIMIT for reset in sorted(accepted)[1:-1]]
        row(f"{share:g}", len(whole), f"{min(whole):.2%}", f"{max(whole):.2%}",
            emulator.counts.limited)  # fmt: skip
        good &= emulator.counts.limited == 0 and min(whole) >= 0.98 * share
        good &= max(whole) <= share and emulator.counts.stored == events
    return good


class _EventLoopClock(Clock):
    """The time of an event loop, which can be simulated."""

    def __init__(self, now: float) -> None:
        import anyio

        self._now = anyio.current_time
        self._begin = now - self._now()

    def time(self) -> float:
        return self._begin + self._now()

    def monotonic(self) -> float:
        return self._now()


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
    parser.add_argument("--events", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="of the kills (default: another each time)")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed  # noqa: S311  # guards nothing
    try:
        installed: str | None = version("python-intercom")
    except PackageNotFoundError:
        installed = None
    print(
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, seed {seed}, python-intercom {installed or 'not installed'}"
    )
    good = [
        speed_and_memory(options.events, installed is not None),
        # Some 300 events go between two kills.
        killed(400 * options.kills, options.kills, seed),
        interrupted(),
        in_windows(min(20_000, 2 * options.events)),
    ]
    print("\nEvery claim holds." if all(good) else "\nNot every claim holds.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
