"""Imports files of events by the command line: measures, kills and resumes, and counts.

    nox -s backfill [-- --events 100000 --kills 50]

- speed: the events per second over a real socket, without pacing. The server is nginx, which costs
  less than the import, or the emulator if nginx is not installed. The official SDK's async client
  sends a sample, with the same number of requests at once.
- memory: the memory of an import of ten times as many events, to the same server.
- killed: whether an import that is killed repeatedly finally stores every event once.
- interrupted: how soon an interrupted import ends.
- windows: the used share of Intercom's windows, in simulated time; an answer takes 100 ms.

The exit code is 1 if a part fails. There are no requirements for the official SDK.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count, repeat
from pathlib import Path
from typing import Any

import harness
from intercom_data_events import AsyncDataEventsClient
from intercom_data_events.emulator import Emulator, Fault
from measuring.servers import accepting, accepting_server

CONCURRENCY = 100
SAMPLE = 10_000
LATENCY = 0.1
MEGABYTE = 1_000_000

_COMMAND = "from intercom_data_events.cli import main; main()"
_WITHOUT_FAST = f"import sys; sys.modules['aiohttp'] = None; {_COMMAND}"


def event(number: int) -> dict[str, Any]:
    metadata = {"stripe_invoice": f"inv_{number}", "load": 3.67}
    return {**harness.event(number), "metadata": metadata}


def write_events(folder: str, events: int) -> str:
    path = Path(folder, "events.ndjson")
    with path.open("w", encoding="utf-8") as file:
        for number in range(events):
            file.write(f"{json.dumps(event(number))}\n")
    return str(path)


def start_command(
    *arguments: str, url: str, code: str = _COMMAND, **options: Any
) -> subprocess.Popen[str]:
    """Starts the command line, in a child process."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=harness.environment(url),
        text=True,
        **{"stdout": subprocess.DEVNULL, **options},
    )


def used_by(process: subprocess.Popen[str]) -> tuple[float, int]:
    """Waits for a process; returns its CPU seconds and its peak memory in bytes."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Kilobytes on Linux, bytes on macOS.
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return usage.ru_utime + usage.ru_stime, peak


def send_with_official_sdk(events: int) -> None:
    """Sends a sample in a child process and prints the events per second."""
    from intercom import AsyncIntercom
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    client = AsyncIntercom(token="token", base_url=os.environ["INTERCOM_BASE_URL"])  # noqa: S106
    numbers = iter(range(events))

    async def send() -> None:
        for number in numbers:
            fields = event(number)
            # The SDK rejects metadata other than strings.
            fields["metadata"] = {key: str(value) for key, value in fields["metadata"].items()}
            await client.events.create(request=CreateDataEventRequestWithUserId(**fields))

    async def main() -> float:
        begin = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(CONCURRENCY)))
        return events / (time.perf_counter() - begin)

    print(asyncio.run(main()))


# The parts.


def speed(options: argparse.Namespace) -> bool:
    table = harness.Table(
        f"{options.events:,} events from NDJSON to {accepting_server()} over a real socket, "
        f"without pacing, at most {CONCURRENCY} requests at once",
        "", "events", "events/s", "ratio", "CPU per event",
    )  # fmt: skip
    good = True
    with accepting() as url:
        theirs = None
        if harness.installed("python-intercom"):
            sample = min(SAMPLE, options.events)
            child = harness.start(send_with_official_sdk, sample, url=url)
            theirs = float(harness.finish(child, timeout=None)[0])
            table.row("official AsyncIntercom", sample, f"{theirs:,.0f}", "1.00 x", "")
        for name, code, least in [
            ("without [fast]", _WITHOUT_FAST, 2),
            ("with [fast]", _COMMAND, 5),
        ]:
            seconds, used, _ = imported(options.events, url, code)
            rate = options.events / seconds
            ratio = rate / theirs if theirs else None
            table.row(name, options.events, f"{rate:,.0f}", f"{ratio:.2f} x" if ratio else "",
                      f"{used / options.events * 1e6:,.0f} µs")  # fmt: skip
            # A small sample is mostly starting up.
            good &= ratio is None or ratio >= least or options.events < SAMPLE
    return good


def memory(options: argparse.Namespace) -> bool:
    events = 10 * options.events
    table = harness.Table(
        f"{events:,} events to {accepting_server()}", "", "peak memory", "above start"
    )
    with accepting() as url:
        *_, base = used_by(start_command("--version", url=url))
        *_, peak = imported(events, url, _COMMAND)
    table.row("", f"{peak / MEGABYTE:.0f} MB", f"{(peak - base) / MEGABYTE:.0f} MB")
    return peak - base <= 100 * MEGABYTE


def imported(events: int, url: str, code: str) -> tuple[float, float, int]:
    """Imports events; returns the seconds, the CPU seconds and the peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_events(folder, events)
        report = Path(folder, "report")
        with report.open("w", encoding="utf-8") as out:
            begin = time.perf_counter()
            running = start_command(
                "import", file, "--no-pace", "--quiet", "--json",
                "--concurrency", str(CONCURRENCY), url=url, code=code, stdout=out,
            )  # fmt: skip
            used, peak = used_by(running)
            seconds = time.perf_counter() - begin
        accepted = json.loads(report.read_text("utf-8"))["accepted"]
    if (running.returncode, accepted) != (0, events):
        sys.exit(
            f"{accepted:,} of {events:,} events were accepted (exit code {running.returncode})."
        )
    return seconds, used, peak


def killed(options: argparse.Namespace) -> bool:
    kills = options.kills
    events = max(options.events, 400 * kills)  # About 300 events are sent between two kills.
    table = harness.Table(
        f"{events:,} events, killed {kills} times at random moments, and resumed each time",
        "", "stored", "missing", "repeated", "repeated per kill", "most in flight",
    )  # fmt: skip
    source = random.Random(options.seed)  # noqa: S311  # guards nothing
    # So slow that it can be killed often enough on any machine.
    slow = (Fault.slow(source.uniform(0.0, 0.1)) for _ in count())
    emulator = Emulator(rate_limit=None, faults=slow, record=False)
    done = 0
    with tempfile.TemporaryDirectory() as folder, emulator.serve() as url:
        file = write_events(folder, events)
        while True:
            # The same command each time.
            running = start_command("import", file, "--quiet", "--no-pace", url=url)
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
    counts = emulator.counts
    missing = events - len({(one.user_id, one.created_at) for one in emulator.events})
    table.row(f"killed {done} times", counts.stored, missing, counts.duplicates,
              f"{counts.duplicates / max(done, 1):.1f}", CONCURRENCY)  # fmt: skip
    if done < kills:
        print(f"  The import ended before it was killed {kills} times.")
    return (
        not missing
        and done == kills
        and running.returncode == 0
        and counts.stored == events
        and counts.duplicates <= done * CONCURRENCY
    )


def interrupted(_: argparse.Namespace) -> bool:
    table = harness.Table(
        "Interrupted by Ctrl-C while answers take 20 seconds",
        "", "longest time to exit (s)", "exit code",
    )  # fmt: skip
    taken, codes = [], set()
    with tempfile.TemporaryDirectory() as folder:
        file = write_events(folder, 50_000)
        for _ in range(3):
            slow = (Fault.slow(0.0 if number < 200 else 20.0) for number in count())
            emulator = Emulator(rate_limit=None, faults=slow, record=False)
            with emulator.serve() as url:
                running = start_command(
                    "import", file, "--restart", "--no-pace", "--json", url=url,
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                harness.until(
                    lambda emulator=emulator: emulator.counts.requests >= 100, "the 100th request"
                )
                running.send_signal(signal.SIGINT)
                begin = time.perf_counter()
                written, _ = running.communicate()
                taken.append(time.perf_counter() - begin)
            codes.add(running.returncode)
            if json.loads(written)["accepted"] < 1:
                return False
    table.row("", f"{max(taken):.2f}", ", ".join(map(str, sorted(codes))))
    return max(taken) < 1 and codes == {130}


def in_windows(options: argparse.Namespace) -> bool:
    events = min(20_000, max(2 * options.events, 3 * harness.LIMIT))
    table = harness.Table(
        f"{events:,} events, answers after {LATENCY * 1000:.0f} ms, a quota of {harness.LIMIT:,} "
        f"requests per {harness.WINDOW} s, simulated time",
        "quota share", "whole windows", "least used", "most used", "429",
    )  # fmt: skip

    async def send(client: AsyncDataEventsClient) -> None:
        async for _ in client.create_many(map(event, range(events))):
            pass

    good = True
    for share in (1.0, 0.5):
        emulator, used, _ = harness.at_rate_limit(send, repeat(LATENCY), quota_share=share)
        table.row(f"{share:g}", len(used), f"{min(used):.2%}", f"{max(used):.2%}",
                  emulator.counts.limited)  # fmt: skip
        good &= emulator.counts.limited == 0 and min(used) >= 0.98 * share
        good &= max(used) <= share and emulator.counts.stored == events
    return good


PARTS = {
    "speed": speed,
    "memory": memory,
    "killed": killed,
    "interrupted": interrupted,
    "windows": in_windows,
}


def main() -> int:
    parser = harness.make_parser(__doc__, PARTS, seed_of="the kills")
    harness.add_number(parser, "--events", 100_000)
    harness.add_number(parser, "--kills", 50)
    options = parser.parse_args()
    return harness.run(PARTS, options, requires=("trio",), optional=("python-intercom",))


if __name__ == "__main__":
    sys.exit(main())
