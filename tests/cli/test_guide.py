"""The console examples of the command line's and the emulator's guide, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from guides import GUIDES, PROJECT
from intercom_data_events import DataEventsClient, Event, InvalidInputError, cli
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue

from .conftest import PATIENCE, TOKEN

README = Path(cli.__file__).parent / "README.md"
SECTION = re.compile(r"^## A year of events from a file$(.*?)^## ", re.MULTILINE | re.DOTALL)


def steps() -> list[list[str]]:
    """The arguments of the commands of the section, in their order."""
    found = SECTION.search(README.read_text(encoding="utf-8"))
    assert found is not None
    typed = re.findall(r"^ *\$ (.*)$", found[1], re.MULTILINE)
    return [
        line.split("intercom-events ")[1].split()
        for line in map(" ".join, map(shlex.split, typed))
        if "intercom-events " in line
    ]


def write(path: Path) -> None:
    """A file of events as the section shows it, two of which are refused."""
    events = [
        {"event_name": "placed-order", "user_id": "1000", "created_at": 1735689600 + number}
        for number in range(40)
    ]
    events[20]["metadata"] = {"items": ["a", "b"]}
    del events[30]["created_at"]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in events), encoding="utf-8")


def test_each_picture_of_a_guide_is_small_and_needs_no_font_of_the_web():
    named = [
        (guide.parent / target).resolve()
        for guide in GUIDES.values()
        for target in re.findall(r"!\[[^]]*\]\(([^)]+\.svg)\)", guide.read_text(encoding="utf-8"))
    ]

    folder = PROJECT / "overlays" / "intercom_data_events" / "cli" / "screens"
    assert {path for path in named if path.parent == folder} == set(folder.iterdir())
    assert len(list(folder.iterdir())) == 6
    for picture in named:
        assert picture.stat().st_size <= 40_000, picture
        text = picture.read_text(encoding="utf-8")
        assert "@font-face" not in text
        assert "url(http" not in text


def test_each_step_does_what_it_says(serve, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(Path("2025.ndjson"))
    check, emulator, attempt, send, again = steps()

    assert (check[0], emulator[0], attempt[0]) == ("validate", "emulator", "import")
    assert command(*check).code == 1
    tried = serve()
    assert command(*attempt).code == 1
    assert len(tried.events) == 38
    stored = serve()
    assert command(*send).code == 1
    assert len(stored.events) == 38
    done = command(*again)
    assert done.code == 1
    assert "2 rejected in earlier runs; 2025.refused.ndjson has the lines and reasons" in done.out

    # Step 4, with which the section ends.
    refused = Path("2025.refused.ndjson")
    mended = refused.read_text(encoding="utf-8").replace('["a", "b"]', '"a, b"')
    refused.write_text(mended, encoding="utf-8")
    assert command("import", refused, "--stamp-now").code == 0
    assert len(stored.events) == 40


# Commands that other tests run: they serve until they are stopped, or need a minute.
ELSEWHERE = {"demo", "emulator"}


def typed(guide: str) -> list[tuple[str, list[str]]]:
    """The commands in the console examples of a guide, each with the output below it."""
    blocks = re.findall(
        r"^ *```console\n(.*?)^ *```$",
        GUIDES[guide].read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    found = list[tuple[str, list[str]]]()
    for line in "".join(blocks).splitlines():
        if "intercom-events " in line or line.lstrip().startswith("$ "):
            found.append((line.strip().removeprefix("$ "), []))
        elif found:
            found[-1][1].append(line.strip())
    return found


def shape(line: str) -> str:
    """A line without what differs between two runs: addresses, times, numbers, identifiers."""
    line = re.sub(r"https?://\S+( \(region us\))?", "URL", line)
    line = re.sub(r"\b[0-9a-f]{8,}(-[0-9a-f]+)*", "ID", line)
    return re.sub(r"\d[\d,.:-]*", "0", line).strip()


def has(written: str, shown: list[str]) -> bool:
    """Whether lines of this shape were written, in this order."""
    lines = iter(map(shape, written.splitlines()))
    return all(shape(line) in lines for line in shown)


def begin(folder: Path, address: str) -> None:
    """Writes the files of the examples."""
    events = [
        {"event_name": "came", "user_id": "1", "created_at": 1735689600 + n} for n in range(5)
    ]
    events[2]["metadata"] = {"items": ["a", "b"]}
    del events[4]["created_at"]
    for command, shown in typed("cli"):
        if command.startswith("head -2 "):
            rest = map(json.dumps, events) if "json" in command else ()
            lines = [*shown, *rest]
            (folder / command.split()[-1]).write_text("".join(f"{line}\n" for line in lines))
    with closing(OutboxQueue(folder / "events.outbox", Binding(address, TOKEN))) as queue:
        queue.enqueue(Event("came", user_id="1"), time.time())
        queue.enqueue(Event("went", user_id="1"), time.time())
        queue.dead_letter(queue.claim(time.time()), InvalidInputError("no"), time.time())


def test_each_console_example_gives_what_it_shows(serve, command, monkeypatch, tmp_path):
    emulator = serve(clock=time.time, rate_limit=1667)
    address = os.environ["INTERCOM_BASE_URL"]
    begin(tmp_path, address)
    with DataEventsClient(TOKEN, base_url=address) as client:
        for user_id in ("314159", "271828"):
            client.create("logged-in", user_id=user_id, created_at=int(time.time()) - 86400)
    ran = 0
    for line, shown in typed("cli"):
        _, ours, arguments = line.partition("intercom-events ")
        if not ours or arguments.split()[0] in ELSEWHERE:
            continue
        done = command(*shlex.split(arguments.replace("/srv/app/", "")))
        assert done.code == (1 if "2025" in line else 0), (line, done)
        assert has(done.out + done.err, shown), (line, done)
        ran += 1
    assert ran >= 15
    assert {event.event_name for event in emulator.events} >= {"came", "went", "placed-order"}


@pytest.mark.processes
def test_the_emulators_example_gives_what_it_shows():
    [(line, [first, *shown])] = [one for one in typed("emulator") if one[0].startswith("python")]
    arguments = shlex.split(line.replace("--port 8125", "--port 0"))[1:]
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        told = process.stdout.readline()
        with DataEventsClient("any", base_url=told.split()[-1]) as client:
            client.create("placed-order", email="a@b.co")
            next(client.list(email="a@b.co", per_page=2).pages())
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
    assert shape(told) == shape(first)
    assert list(map(shape, log.splitlines())) == list(map(shape, shown))
