"""What it takes to begin: import, cold start, installed size; and to regenerate."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TypeVar

from measuring.events import installed
from measuring.figures import HTTPX, OFFICIAL, OURS, Goal, Question

T = TypeVar("T")

ROOT = Path(__file__).parents[3]

_TIMED = "import time; begin = time.perf_counter()\n{}\nprint(time.perf_counter() - begin)"
_IMPORTS = {
    f"{HTTPX}, attrs": "import httpx, attrs",
    # The package alone does next to nothing: it loads each name when it is asked for.
    OURS: "import attrs; from intercom_data_events import DataEventsClient, Event",
    OFFICIAL: "from intercom import Intercom; from intercom.events.client import EventsClient",
}
_ACCEPT = """
import httpx
transport = httpx.MockTransport(lambda request: httpx.Response(202))
"""
_COLD_STARTS = {
    HTTPX: _ACCEPT
    + """
client = httpx.Client(transport=transport)
client.post(
    "https://api.intercom.io/events",
    headers={"Authorization": "Bearer t", "Intercom-Version": "2.16"},
    json={"event_name": "placed-order", "created_at": 1389913941, "user_id": "314159"},
).raise_for_status()
""",
    OURS: _ACCEPT
    + """
from intercom_data_events import DataEventsClient
DataEventsClient("t", transport=transport).create(
    "placed-order", created_at=1389913941, user_id="314159"
)
""",
    OFFICIAL: _ACCEPT
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


def questions() -> Iterator[Question]:
    """What is asked about beginning, each time in new processes."""
    yield Question(
        "import, in a new process",
        "ms",
        {name: partial(_printed, _TIMED.format(one)) for name, one in _present(_IMPORTS).items()},
        scale=1e3,
        goals={OURS: Goal(1.15, of=f"{HTTPX}, attrs")},
    )
    yield Question(
        "cold start: a new process until its first event is sent",
        "ms",
        {name: partial(_ran, [sys.executable, "-c", one]) for name, one in
         _present(_COLD_STARTS).items()},
        scale=1e3,
        goals={OURS: Goal(1.20, of=HTTPX)},
    )  # fmt: skip
    sizes: dict[str, Callable[[], float]] = {
        f"{HTTPX}, attrs": partial(_installed_size, "httpx", "attrs"),
        OURS: partial(_installed_size, OURS),
        OFFICIAL: partial(_installed_size, OFFICIAL),
    }
    yield Question(
        "installed size, with all dependencies, uncompiled",
        "MB",
        _present(sizes),
        scale=1e-6,
        most=0,
    )


def regeneration() -> Iterator[Question]:
    """How long it takes to make the client anew."""
    if installed("openapi-python-client") is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        generate = [
            sys.executable, "-m", "openapi_python_client", "generate", "--overwrite",
            "--path", str(ROOT / "openapi" / "data-events.yaml"),
            "--output-path", str(Path(folder, "generated")),
        ]  # fmt: skip
        regenerate = [sys.executable, str(ROOT / "scripts" / "regenerate.py"), "--check"]
        yield Question(
            "regeneration, from description to formatted client",
            "s",
            {
                "openapi-python-client alone": partial(_ran, generate),
                "scripts/regenerate.py": partial(_ran, regenerate),
            },
            most=3,
        )


def _present(subjects: dict[str, T]) -> dict[str, T]:
    """Those that are installed."""
    return {
        name: one
        for name, one in subjects.items()
        if name != OFFICIAL or installed(OFFICIAL) is not None
    }


def _ran(command: list[str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr}")
    return seconds


def _printed(program: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


def _installed_size(*names: str) -> float:
    """Bytes of the files of distributions and of all that they need."""
    from packaging.requirements import Requirement

    wanted, found = list(names), set[str]()
    size = 0
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            known = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed.")
        for file in known.files or ():
            path = Path(str(known.locate_file(file)))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
        needs = map(Requirement, known.requires or ())
        wanted += [
            one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return size
