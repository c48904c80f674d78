"""Every command in a terminal of 80 columns, looked at as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from rich.cells import cell_len

from intercom_data_events import DataEventsClient, Event
from intercom_data_events.cli.app import app
from intercom_data_events.emulator import EmulatedContact
from intercom_data_events.tracker import Tracker

from . import screens
from .conftest import NOON
from .screens import Screen

pytestmark = pytest.mark.processes

WIDE = "訂單-" * 6  # Each takes two columns.
LONG = "a-metadata-value-of-some-length"
OUTBOX = "events.outbox"
WHO = ["--user-id", "314159"]
#: A real run of each command, or several; in this order, as some change what others show.
RUNS: dict[str, list[list[str]]] = {
    "track": [
        ["track", "placed-order", *WHO, "--created-at", "2026-01-01T12:00:00Z", "-v"],
        ["track", "placed-order", *WHO, "--retries", "3"],
        ["track", "placed-order", *WHO, "--token", "MyOwnToken"],
        ["track", "placed-order", "--base-url", "http://a.example", *WHO],
    ],
    "list": [["list", *WHO], ["list", *WHO, "--plot"], ["list"], ["list", "--no-such"]],
    "summary": [["summary", *WHO], ["summary", *WHO, "--plot"]],
    "import": [["import", "events.ndjson"], ["import", "none.ndjson"]],
    "validate": [["validate", "events.ndjson"]],
    "export": [["export", *WHO, "-o", "out.ndjson"]],
    "check": [["check"]],
    "emulator": [["emulator", "--help"]],  # It serves until it is interrupted.
    "demo": [],  # It takes a while; tests of its own look at its screens.
    "outbox status": [["outbox", "status", OUTBOX]],
    "outbox dead": [["outbox", "dead", OUTBOX]],
    "outbox show": [["outbox", "show", OUTBOX, "1"]],
    "outbox export": [["outbox", "export", OUTBOX, "-o", "waiting.ndjson"]],
    "outbox retry": [["outbox", "retry", OUTBOX, "1"]],
    "outbox forget": [["outbox", "forget", OUTBOX, "--all"]],
    "outbox compact": [["outbox", "compact", OUTBOX]],
    "outbox drain": [["outbox", "drain", OUTBOX]],
}
MISTAKES = [["lst"], ["outbox", "stat"], ["list", "--limit", "0"]]


def names(group, before: str = "") -> Iterator[str]:
    """The names of all commands, found from the program itself."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


COMMANDS = list(names(typer.main.get_command(app)))
HELPS = [["--help"], ["outbox", "--help"], *([*name.split(), "--help"] for name in COMMANDS)]
REAL = [*(run for runs in RUNS.values() for run in runs), *MISTAKES]
ALL = [*HELPS, *REAL]


def prepare() -> None:
    """What the runs read: events of a contact, a file with a rejected line, an outbox."""
    screens.fresh(Path())
    metadata = {
        "price": {"amount": 51044, "currency": "usd"},
        "note": f"{LONG} {LONG} {LONG}",
        "name": WIDE,
    }
    fields = [
        {"event_name": f"placed-{number}", "user_id": "314159", "created_at": NOON + number}
        for number in range(3)
    ]
    with DataEventsClient() as client:
        for one in fields:
            client.create(**one, metadata=metadata)
        with Tracker(client, OUTBOX, unknown_contact_patience=0) as tracker:
            for _ in range(2):
                tracker.track_event(Event.from_dict({**fields[0], "user_id": f"{LONG}-unknown"}))
            tracker.flush()
    rejected = [{**fields[0], "metadata": {"list": [1]}}, {"event_name": "no contact"}]
    Path("events.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in fields + rejected))


@pytest.fixture
def showing(serve):
    """Runs all commands in a terminal of so many columns, or with pipes."""

    def run(columns: int | None, commands: list[list[str]], **environment: str) -> list[Screen]:
        serve(contacts=[EmulatedContact(user_id="314159")])
        prepare()
        return screens.show(commands, columns, **environment)

    return run


def told(found: list[str]) -> str:
    return "\n".join(found)


def test_each_command_is_run():
    assert sorted(RUNS) == sorted(COMMANDS)


def test_a_terminal_of_80_columns_shows_all_of_it(showing):
    narrow, wide = showing(80, ALL), showing(120, ALL)

    assert told([f"{one.arguments}: {one.overran}" for one in narrow + wide if one.overran]) == ""
    broken = [
        f"{one.arguments}: {sorted(one.words - other.words)}"
        for one, other in zip(narrow, wide, strict=True)
        if one.words - other.words and "--plot" not in one.arguments
    ]
    assert told(broken) == ""
    # A dead letter has one line; `outbox show` shows all of it.
    cut = [one for one in narrow if "…" in one.text and one.arguments[:2] != ("outbox", "dead")]
    assert told([screen.text for screen in cut]) == ""
    # Colors that can be read on light and on dark: not yellow, white or black, and none is faint.
    colored = frozenset().union(*(screen.colors for screen in narrow))
    assert colored <= {"default", "red", "magenta", "blue", "green", "cyan"}
    assert "red" in colored
    assert not [
        screen.arguments for screen in narrow if re.search(r"\x1b\[[\d;]*\b2\b", screen.written)
    ]
    # What each of them is for.
    assert [screen.arguments for screen in narrow if "Traceback" in screen.text] == []
    assert [screen.arguments for screen in narrow if "MyOwnToken" in screen.text] == []
    by_name = {screen.arguments: screen.text for screen in narrow}
    for arguments in HELPS:
        assert "Exit codes:" in by_name[tuple(arguments)] or "emulator" in arguments
    [verbose, mistaken, token, *_] = [by_name[tuple(one)] for one in RUNS["track"]]
    assert re.search(r"\d\d:\d\d:\d\d\.\d{3} POST /events 202 in \d\.\d{3} s, request id", verbose)
    assert "314159" not in verbose.partition("placed-order for")[0]
    assert "there is no option --retries; did you mean --max-retries?" in " ".join(mistaken.split())
    assert "set INTERCOM_ACCESS_TOKEN in the environment" in " ".join(token.split())


@pytest.mark.parametrize(
    ("columns", "environment"),
    [(80, {"TERM": "dumb"}), (None, {}), (80, {"NO_COLOR": "1"})],
    ids=["dumb", "piped", "no color"],
)
def test_nothing_is_styled_where_no_style_is_wanted(showing, columns, environment):
    for screen in showing(columns, [HELPS[0], *REAL], **environment):
        # A bar moves without color, too; it is gone when the command ends.
        styles = r"\x1b\[[\d;]*m" if "NO_COLOR" in environment else "\x1b"
        assert re.findall(styles, screen.written) == []
        assert "Traceback" not in screen.text


@pytest.mark.parametrize(("columns", "has_bar"), [(80, True), (50, False)])
def test_the_line_of_progress_fits_however_long_the_name(columns, has_bar, serve, ndjson):
    serve(rate_limit=1000, window=10)
    file = ndjson(80, name=f"{WIDE}-{LONG}.ndjson")
    [screen] = screens.show([["import", file.name, "--max-rate", "100"]], columns)

    frames = [
        frame
        for frame in re.split(r"[\r\n]+", re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.written))
        if re.search(r"\d%.* events? ", frame)
    ]
    assert len(frames) > 3
    for frame in frames:
        assert cell_len(frame.rstrip()) <= columns, frame
        assert ("━━━" in frame) is has_bar, frame
    assert re.search(r"^訂單.* \d+% · \d+ events .*· \d:\d\d to go", frames[-1])
    assert (" left · " in frames[-1]) is has_bar  # The quota goes before the bar does.
    assert "80 accepted" in screen.text
    assert screen.overran == ()
