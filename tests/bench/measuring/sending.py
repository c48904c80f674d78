"""Questions about sending: its cost and its speed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import httpx

from intercom_data_events import AsyncDataEventsClient, DataEventsClient
from measuring.clients import Client, clients
from measuring.events import CREATED, HEADERS, TOKEN, installed, official
from measuring.figures import AIOHTTP, FAST, HTTPX, OFFICIAL, OURS, Goal, Question

CONNECTIONS = (1, 8, 20, 50)
#: The number of connections with a goal.
USUAL = 20


def questions(url: str, runner: asyncio.Runner, creates: int, events: int) -> Iterator[Question]:
    """Yields the questions about sending to a server that accepts everything.

    Args:
        url: The server's address.
        runner: Runs the async clients.
        creates: The number of events to send in sequence.
        events: The number of events to send as fast as possible.
    """

    def awaited_cpu(create: Callable[[], Awaitable[object]]) -> float:
        return runner.run(_awaited_cpu(create, creates))

    def rate(client: Client, connections: int) -> float:
        return events / runner.run(_seconds(client(url, events, connections)))

    with ExitStack() as stack:
        yield Question(
            "CPU time of one create",
            "µs",
            {name: partial(_cpu, one, creates) for name, one in _creators(url, stack).items()},
            scale=1e6 / creates,
            goals={OURS: Goal(1.05, of=HTTPX)},
            headline=True,
        )
    awaited_stack = AsyncExitStack()
    awaited = runner.run(_awaited_creators(url, awaited_stack))
    yield Question(
        "CPU time of one create, awaited",
        "µs",
        {name: partial(awaited_cpu, one) for name, one in awaited.items()},
        scale=1e6 / creates,
        goals={OURS: Goal(1.05, of=HTTPX)},
    )
    runner.run(awaited_stack.aclose())
    found = clients()
    for connections in CONNECTIONS:
        best = FAST if FAST in found else OURS
        yield Question(
            f"events per second, async, {connections} connection{'s' * (connections > 1)}",
            "/s",
            {name: partial(rate, client, connections) for name, client in found.items()},
            more_is_better=True,
            goals={best: Goal(8, of=OFFICIAL)} if connections == USUAL else {},
            most=5,
            headline=connections == USUAL,
        )
    if not Path("/proc/self/status").exists():
        return  # Only Linux reports the peak.
    yield Question(
        f"peak memory while sending {events:,} events, {USUAL} at once",
        "MB",
        {name: partial(_peak, name, url, events) for name in found if name != AIOHTTP},
        scale=1e-6,
        most=3,
        headline=True,
    )


def _creators(url: str, stack: ExitStack) -> dict[str, Callable[[], object]]:
    bare = stack.enter_context(httpx.Client(headers=HEADERS))
    ours = stack.enter_context(DataEventsClient(TOKEN, base_url=url))
    creators: dict[str, Callable[[], object]] = {
        HTTPX: lambda: bare.post(f"{url}/events", json=CREATED),
        OURS: lambda: ours.create(**CREATED),
    }
    if installed(OFFICIAL):
        from intercom import Intercom

        http = stack.enter_context(httpx.Client())
        theirs = Intercom(token=TOKEN, base_url=url, httpx_client=http)
        creators[OFFICIAL] = lambda: theirs.events.create(request=official(CREATED))
    return creators


async def _awaited_creators(
    url: str, stack: AsyncExitStack
) -> dict[str, Callable[[], Awaitable[object]]]:
    bare = await stack.enter_async_context(httpx.AsyncClient(headers=HEADERS))
    ours = await stack.enter_async_context(AsyncDataEventsClient(TOKEN, base_url=url))
    creators: dict[str, Callable[[], Awaitable[object]]] = {
        HTTPX: lambda: bare.post(f"{url}/events", json=CREATED),
        OURS: lambda: ours.create(**CREATED),
    }
    if installed(OFFICIAL):
        from intercom import AsyncIntercom

        http = await stack.enter_async_context(httpx.AsyncClient())
        theirs = AsyncIntercom(token=TOKEN, base_url=url, httpx_client=http)
        creators[OFFICIAL] = lambda: theirs.events.create(request=official(CREATED))
    return creators


def _cpu(create: Callable[[], object], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        create()
    return time.process_time() - begin


async def _awaited_cpu(create: Callable[[], Awaitable[object]], times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        await create()
    return time.process_time() - begin


async def _seconds(doing: Awaitable[object]) -> float:
    begin = time.perf_counter()
    await doing
    return time.perf_counter() - begin


def _peak(name: str, url: str, events: int) -> float:
    """Returns the peak memory, in bytes, of a process that only sends."""
    # What getrusage says of a new process may be what the one has that began it.
    program = (
        "import asyncio, re; from measuring.clients import clients; "
        f"asyncio.run(clients()[{name!r}]({url!r}, {events}, {USUAL})); "
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return float(done.stdout) * 1024
