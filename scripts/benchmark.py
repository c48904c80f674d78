"""Measures the client beside bare httpx and the official SDK, in one run, as ratios.

    nox -s bench [-- --rounds 15]

Machines are noisy: every subject is measured in every round, in turn, and the medians are compared.
A figure without its neighbours from the same run says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import queue
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Any

EVENTS = 1_000
CREATES = 300
TRACKED = 3_000
WARM = 500
_EVENT = {
    "type": "event",
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "id": "8a88a590-e1c3-41e2-a502-e0649dbf721c",
    "intercom_user_id": "63a0979a5eeebeaf28dd56ba",
    "email": "frodo.baggins@example.com",
    "metadata": {
        "order_date": 1392036272,
        "stripe_invoice": "inv_3434343434",
        "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
        "price": {"currency": "usd", "amount": 2999},
    },
}

_CREATED: dict[str, Any] = {
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "metadata": {"stripe_invoice": "inv_3434343434", "load": 3.67},
}
_TOKEN = "t"  # noqa: S105  # any will do
_HEADERS = {"Authorization": f"Bearer {_TOKEN}", "Intercom-Version": "2.16"}
# The emulator, on a real socket, so that its work is not counted; it ends with its input.
_SERVER = """
import sys
from intercom_data_events.emulator import Emulator
with Emulator(rate_limit=10**9, record=False).serve() as url:
    print(url, flush=True)
    sys.stdin.read()
"""

# Each runs in a process of its own.
_IMPORTS = {
    "import httpx, attrs": "import httpx, attrs",
    # The package alone does next to nothing: it loads each name when it is asked for.
    "import intercom_data_events": "import intercom_data_events",
    "…, and DataEventsClient, Event": (
        "import attrs; from intercom_data_events import DataEventsClient, Event"
    ),
    "import intercom, and .events": "import intercom; intercom.Intercom(token='t').events",
}
_ACCEPT = """
import httpx
transport = httpx.MockTransport(lambda request: httpx.Response(202))
"""
_COLD_STARTS = {
    "httpx.Client.post": _ACCEPT
    + """
import attrs
client = httpx.Client(transport=transport)
client.post(
    "https://api.intercom.io/events",
    headers={"Authorization": "Bearer t", "Intercom-Version": "2.16"},
    json={"event_name": "placed-order", "created_at": 1389913941, "user_id": "314159"},
).raise_for_status()
""",
    "DataEventsClient.create": _ACCEPT
    + """
from intercom_data_events import DataEventsClient
DataEventsClient("t", transport=transport).create(
    "placed-order", created_at=1389913941, user_id="314159"
)
""",
    "Intercom.events.create": _ACCEPT
    + """
from intercom import Intercom
from intercom.types.create_data_event_request_with_user_id import (
    CreateDataEventRequestWithUserId,
)
Intercom(token="t", httpx_client=httpx.Client(transport=transport)).events.create(
    request=CreateDataEventRequestWithUserId(
        event_name="placed-order", created_at=1389913941, user_id="314159"
    )
)
""",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, "
          f"{rounds} rounds, medians")  # fmt: skip
    installed = _installed("python-intercom")
    if installed is None:
        print("python-intercom is not installed: measured without it.")
    else:
        print(f"python-intercom {installed}")
    official = installed is not None
    _table("Import, in a new process", "ms", 1e3, _rounds(_imports(official), rounds))
    _table(
        "Cold start: from a new process to the first event handed to a transport",
        "ms",
        1e3,
        _rounds(_processes(_COLD_STARTS, official), rounds),
    )
    _table(
        f"Reading one event of a listing of {EVENTS}",
        "µs",
        1e6 / EVENTS,
        _rounds(_readers(official), rounds),
    )

    with _emulator() as url:
        _table(
            "CPU time of one create, one thread, over a real socket",
            "µs",
            1e6 / CREATES,
            _rounds(_creators(url, official), rounds),
        )
        _table(
            "The same, awaited, one task",
            "µs",
            1e6 / CREATES,
            asyncio.run(_awaited(url, official, rounds)),
        )
        _latencies(
            "One call of a request's thread, while events are being sent from others",
            _tracking(url, rounds),
        )


@contextmanager
def _emulator() -> Iterator[str]:
    """Serves in a process of its own; no proxy shall come between."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield next(iter(server.stdout or ())).strip()
        server.communicate()


def _rounds(subjects: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Measures each subject in each round, in turn; returns their medians in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, measure in subjects.items():
            taken[name].append(measure())
    return _medians(taken)


def _medians(taken: dict[str, list[float]]) -> dict[str, float]:
    # The first round fills caches.
    return {name: statistics.median(seconds[1:]) for name, seconds in taken.items()}


def _table(title: str, unit: str, scale: float, medians: dict[str, float]) -> None:
    print(f"\n{title}")
    base = next(iter(medians.values()))
    width = max(map(len, medians))
    for name, seconds in medians.items():
        print(f"  {name:<{width}}  {seconds * scale:8.2f} {unit}  {seconds / base:6.2f} x")


def _latencies(title: str, taken: dict[str, list[float]]) -> None:
    width = max(map(len, taken))
    print(f"\n{title}: µs at the median, at 99.9 %")
    for name, seconds in taken.items():
        ordered = sorted(seconds)
        middle, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.999)]
        print(f"  {name:<{width}}  {middle * 1e6:8.1f}  {high * 1e6:8.1f}")


def _processes(programs: dict[str, str], official: bool) -> dict[str, Callable[[], float]]:
    return {
        name: lambda program=program: _process(program)
        for name, program in programs.items()
        if official or "from intercom import" not in program
    }


def _process(program: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begin


def _imports(official: bool) -> dict[str, Callable[[], float]]:
    """Import alone, without what starting and ending the interpreter takes."""
    timed = {
        name: "import time; begin = time.perf_counter()\n"
        f"{program}\nprint(time.perf_counter() - begin)"
        for name, program in _IMPORTS.items()
    }

    def measure(program: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        return float(done.stdout)

    return {
        name: lambda program=program: measure(program)
        for name, program in timed.items()
        if official or "import intercom;" not in program
    }


def _readers(official: bool) -> dict[str, Callable[[], float]]:
    import httpx

    from intercom_data_events import DataEventsClient

    content = json.dumps({"type": "event.list", "events": [_EVENT] * EVENTS, "pages": None})
    client = DataEventsClient(
        "t", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=content))
    )

    def loads() -> float:
        begin = time.perf_counter()
        json.loads(content)
        return time.perf_counter() - begin

    def listing() -> float:
        begin = time.perf_counter()
        deque(client.list(user_id="314159"), maxlen=0)
        return time.perf_counter() - begin

    readers = {"json.loads": loads, "DataEventsClient.list": listing}
    if official:
        readers["intercom DataEvent"] = _official_reader(content)
    return readers


def _creators(url: str, official: bool) -> dict[str, Callable[[], float]]:
    import httpx

    from intercom_data_events import DataEventsClient

    bare = httpx.Client(headers=_HEADERS)
    ours = DataEventsClient("t", base_url=url)
    creators: dict[str, Callable[[], object]] = {
        "httpx.Client.post": lambda: bare.post(f"{url}/events", json=_CREATED),
        "DataEventsClient.create": lambda: ours.create(**_CREATED),
    }
    if official:
        from intercom import Intercom

        theirs = Intercom(token=_TOKEN, base_url=url)
        creators["Intercom.events.create"] = lambda: theirs.events.create(request=_official_event())

    def measure(create: Callable[[], object]) -> float:
        begin = time.process_time()
        for _ in range(CREATES):
            create()
        return time.process_time() - begin

    return {name: partial(measure, create) for name, create in creators.items()}


async def _awaited(url: str, official: bool, rounds: int) -> dict[str, float]:
    """Measures the async clients as :func:`_rounds` does, all in one event loop."""
    import httpx

    from intercom_data_events import AsyncDataEventsClient

    bare = httpx.AsyncClient(headers=_HEADERS)
    ours = AsyncDataEventsClient("t", base_url=url)
    creators: dict[str, Callable[[], Awaitable[object]]] = {
        "httpx.AsyncClient.post": lambda: bare.post(f"{url}/events", json=_CREATED),
        "AsyncDataEventsClient.create": lambda: ours.create(**_CREATED),
    }
    if official:
        from intercom import AsyncIntercom

        theirs = AsyncIntercom(token=_TOKEN, base_url=url)
        creators["AsyncIntercom.events.create"] = lambda: theirs.events.create(
            request=_official_event()
        )
    taken: dict[str, list[float]] = {name: [] for name in creators}
    for _ in range(rounds + 1):
        for name, create in creators.items():
            begin = time.process_time()
            for _ in range(CREATES):
                await create()
            taken[name].append(time.process_time() - begin)
    return _medians(taken)


def _tracking(url: str, rounds: int) -> dict[str, list[float]]:
    """What each call took, in seconds; of all rounds."""
    from intercom_data_events import DataEventsClient, Event
    from intercom_data_events.tracker import Tracker

    numbers = count()

    def event() -> Event:
        return Event(**{**_CREATED, "user_id": str(next(numbers))})

    def times(use: Callable[[Event], object]) -> list[float]:
        taken = []
        for _ in range(TRACKED):
            given = event()
            begin = time.perf_counter()
            use(given)
            taken.append(time.perf_counter() - begin)
            # A thread of an application has other things to do, too.
            time.sleep(0.0005)
        return taken

    def tracked(given: Event, tracker: Tracker) -> None:
        tracker.track(
            given.event_name, user_id=given.user_id, created_at=given.created_at,
            metadata=_CREATED["metadata"],
        )  # fmt: skip

    def queued(given: Event, waiting: queue.SimpleQueue[Event]) -> None:
        waiting.put(
            Event(
                given.event_name, user_id=given.user_id, created_at=given.created_at,
                metadata=_CREATED["metadata"],
            )
        )  # fmt: skip

    with socket.create_server(("127.0.0.1", 0)) as nobody:
        away = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        taken.setdefault("Event(…), and queue.put", []).extend(
            times(partial(queued, waiting=queue.SimpleQueue()))
        )
        for name, address, kept in (
            ("track", url, False),
            ("track, with an outbox", url, True),
            ("track, Intercom away", away, False),
            ("track, with an outbox, Intercom away", away, True),
        ):
            with tempfile.TemporaryDirectory() as folder:
                client = DataEventsClient(_TOKEN, base_url=address)
                tracker = Tracker(client, Path(folder, "outbox") if kept else None)
                # Without its first moments, in which it begins its threads and connections.
                taken.setdefault(name, []).extend(times(partial(tracked, tracker=tracker))[WARM:])
                tracker.close(0 if address == away else None)
                client.close()
    return taken


def _official_event() -> object:
    """The same event in the official SDK's own type, which refuses metadata that is not text."""
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    metadata = {key: str(value) for key, value in _CREATED["metadata"].items()}
    return CreateDataEventRequestWithUserId(**{**_CREATED, "metadata": metadata})


def _official_reader(content: str) -> Callable[[], float]:
    """The official SDK cannot list events; this is its own model of one, applied to each."""
    from intercom.core.pydantic_utilities import parse_obj_as
    from intercom.data_events.types.data_event import DataEvent

    # Its model refuses metadata that is not text.
    texts = json.loads(content)
    for event in texts["events"]:
        event["metadata"] = {key: str(value) for key, value in event["metadata"].items()}
    plain = json.dumps(texts)

    def read() -> float:
        begin = time.perf_counter()
        for event in json.loads(plain)["events"]:
            parse_obj_as(DataEvent, event)
        return time.perf_counter() - begin

    return read


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
