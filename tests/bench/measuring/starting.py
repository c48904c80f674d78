"""Questions about starting: import, cold start, installed size; and about regenerating."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

from measuring import environments
from measuring.events import HEADERS, TOKEN, installed
from measuring.figures import HTTPX, OFFICIAL, OURS, Goal, Question
from measuring.instructions import Count

T = TypeVar("T")
# Measures an interpreter while it runs a program.
_Measure = Callable[[Path, str], float]

ROOT = Path(__file__).parents[3]
#: The same work with the package's dependencies; the difference is the package's own share.
BASE = f"{HTTPX}, attrs"

_DISTRIBUTIONS = {BASE: ("httpx", "attrs"), OURS: (OURS,), OFFICIAL: (OFFICIAL,)}
_TIMED = "import time; begin = time.perf_counter()\n{}\nprint(time.perf_counter() - begin)"
_IMPORTS = {
    BASE: "import httpx, attrs",
    # Importing the package alone does almost nothing: it loads each name on demand.
    OURS: "import attrs; from intercom_data_events import DataEventsClient, Event",
    OFFICIAL: "from intercom import Intercom; from intercom.events.client import EventsClient",
}
_EVENT = {"event_name": "placed-order", "created_at": 1389913941, "user_id": "314159"}
_ACCEPT = """
import httpx
transport = httpx.MockTransport(lambda request: httpx.Response(202))
"""


def questions(url: str, folder: Path, count: Count | None) -> Iterator[Question]:
    """Yields the questions about starting, each answered by new processes.

    Each subject has an environment with only its package and the dependencies.

    Args:
        url: The address of a server that accepts everything.
        folder: The folder for the environments.
        count: Counts instructions; None to leave the counts out.
    """

    @cache
    def python(subject: str) -> Path:
        name = subject.partition(",")[0]
        return environments.create(folder / name, *_DISTRIBUTIONS[subject])

    def of_each(measure: _Measure, programs: Mapping[str, str]) -> dict[str, Callable[[], float]]:
        def one(subject: str, program: str) -> float:
            return measure(python(subject), program)

        return {name: partial(one, name, program) for name, program in _present(programs).items()}

    timed = {name: _TIMED.format(program) for name, program in _IMPORTS.items()}
    goals = {OURS: Goal(1.15, of=BASE)}
    yield Question("import, in a new process", "ms", of_each(_printed, timed), 1e3, goals=goals)
    if count is not None:
        yield Question(
            "import: instructions",
            "million",
            of_each(partial(_counted_import, count), _IMPORTS),
            scale=1e-6,
            goals=goals,
            most=0,
        )
    for kind, address in (("in-process transport", None), ("over a socket", url)):
        programs = _first_events(address)
        title = f"cold start to first event, {kind}"
        yield Question(
            title, "ms", of_each(_wall_time, programs), 1e3, headline=address is not None
        )
        if count is not None:
            yield Question(
                f"{title}: instructions",
                "million",
                of_each(partial(_counted, count), programs),
                scale=1e-6,
                goals={OURS: Goal(1.10, of=BASE)},
                most=0,
            )
    yield Question(
        "installed size with all dependencies",
        "MB",
        {name: partial(_installed_size, *of) for name, of in _present(_DISTRIBUTIONS).items()},
        scale=1e-6,
        most=0,
        headline=True,
    )


def _first_events(url: str | None) -> dict[str, str]:
    """Returns programs that send one event to an address, or to an in-process transport."""
    accept = _ACCEPT if url is None else ""
    http = "httpx.Client(transport=transport)" if url is None else "httpx.Client()"
    to = "transport=transport" if url is None else f"base_url={url!r}"
    official_to = f"httpx_client={http}" if url is None else f"base_url={url!r}"
    address = f"{url or 'https://api.intercom.io'}/events"
    return {
        BASE: f"""{accept}
import attrs
import httpx
client = {http}
client.post({address!r}, headers={HEADERS!r}, json={_EVENT!r}).raise_for_status()
""",
        OURS: f"""{accept}
from intercom_data_events import DataEventsClient
DataEventsClient({TOKEN!r}, {to}).create(**{_EVENT!r})
""",
        OFFICIAL: f"""{accept}
from intercom import Intercom
from intercom.types.create_data_event_request_with_user_id import (
    CreateDataEventRequestWithUserId,
)
Intercom(token={TOKEN!r}, {official_to}).events.create(
    request=CreateDataEventRequestWithUserId(**{_EVENT!r})
)
""",
    }


def regeneration() -> Iterator[Question]:
    """Yields the question of how long a regeneration takes."""
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


def _present(subjects: Mapping[str, T]) -> dict[str, T]:
    """Returns the subjects that are installed."""
    return {
        name: one
        for name, one in subjects.items()
        if name != OFFICIAL or installed(OFFICIAL) is not None
    }


def _ran(command: list[str]) -> float:
    begin = time.perf_counter()
    _output(command, ROOT)
    return time.perf_counter() - begin


def _wall_time(python: Path, program: str) -> float:
    begin = time.perf_counter()
    _run(python, program)
    return time.perf_counter() - begin


def _printed(python: Path, program: str) -> float:
    return float(_run(python, program))


def _counted(count: Count, python: Path, program: str) -> float:
    # The first run compiles all modules, so the count leaves that out.
    _run(python, program)
    return count(python, program)


def _counted_import(count: Count, python: Path, program: str) -> float:
    """Counts an import without the interpreter's own instructions."""
    return _counted(count, python, program) - _counted(count, python, "pass")


def _run(python: Path, program: str) -> str:
    """Runs a program in one of the environments, and returns what it printed."""
    # PYTHONPATH would add other packages, and other settings prevent compiled modules.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return _output([str(python), "-c", program], python.parent, kept)


def _output(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=environment
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{done.stderr}")
    return done.stdout


def _installed_size(*names: str) -> float:
    """Returns the size in bytes of distributions with all dependencies."""
    files = (
        Path(str(each.locate_file(file)))
        for each in environments.needed(*names).values()
        for file in each.files or ()
    )
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())
