"""Draws the pictures of the command line's guide from real runs, as SVG.

    python scripts/draw_screens.py FOLDER [NAME ...]

Each command runs against the emulator in a terminal of 80 columns, with a clock that starts at a
fixed date. The script draws the last screen. Durations and rates depend on the machine, so a new
picture can differ in a few digits. The script needs pseudo-terminals.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from intercom_data_events import DataEventsClient, Event, MonetaryAmount
from intercom_data_events.clock import Clock
from intercom_data_events.emulator import EmulatedContact, Emulator
from intercom_data_events.tracker import Tracker

_COLUMNS, _LINES = 80, 40
_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_CONTACT = "314159"
# Seconds that a command may take.
_PATIENCE = 120.0

# The commands' clock starts at a fixed moment.
_PROGRAM = (
    "import sys, freezegun; freezegun.freeze_time({now!r}, tick=True).start(); "
    "from intercom_data_events.cli import main; main()"
)
_THEME = TerminalTheme(
    (0x16, 0x18, 0x1C),
    (0xE6, 0xE6, 0xE6),
    [
        (0x3A, 0x3F, 0x4B),
        (0xE0, 0x6C, 0x75),
        (0x98, 0xC3, 0x79),
        (0xE5, 0xC0, 0x7B),
        (0x6C, 0xA8, 0xE8),
        (0xC6, 0x78, 0xDD),
        (0x56, 0xB6, 0xC2),
        (0xD7, 0xDA, 0xE0),
    ],
)
# Without web fonts and without a window frame; a dark background suits light and dark pages.
_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width} {height}">
<title>TITLE</title>
<style>
text {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre }}
{styles}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#16181c"/>
<g transform="translate({terminal_x}, 12)">
{matrix}
</g>
</svg>
"""


class FixedClock(Clock):
    """A clock that starts at the same moment as the commands' clock."""

    def __init__(self) -> None:
        self._began = self.monotonic()

    def time(self) -> float:
        """Returns the seconds since 1970."""
        return _NOW.timestamp() + self.monotonic() - self._began


class Screen:
    """A terminal that runs a command.

    Args:
        arguments: The arguments of `intercom-events`.
        folder: The working directory.
        url: The emulator's URL.
    """

    def __init__(self, arguments: str, folder: Path, url: str) -> None:
        self.command = f"intercom-events {arguments}"
        self._screen = pyte.Screen(_COLUMNS, _LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
        environment = {
            **{name: value for name, value in os.environ.items() if name != "NO_COLOR"},
            "INTERCOM_BASE_URL": url,
            "INTERCOM_ACCESS_TOKEN": "any",
            "TERM": "xterm-256color",
            "COLORTERM": "",
        }
        program = _PROGRAM.format(now=f"{_NOW:%Y-%m-%d %H:%M:%S}")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments.split()],
            cwd=folder,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def run(self, until: Callable[[str], object] | None = None) -> None:
        """Runs the command to its end, or stops it when `until` accepts its screen."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux raises this after the other side has closed.
                data = b""
            if not data:
                break
            self._stream.feed(data)
            if until is not None and until("\n".join(self._screen.display)):
                self._process.send_signal(signal.SIGINT)
                until = None
                # Later output is not drawn.
                self._stream = pyte.ByteStream(pyte.Screen(_COLUMNS, _LINES))
        self._process.wait(_PATIENCE)
        os.close(self._master)

    def svg(self, title: str, *, since: str = "") -> str:
        """Returns the command and its screen as SVG.

        Args:
            title: The title, for screen readers.
            since: The beginning of the first line to draw.
        """
        shown = [self._line(number) for number in range(_LINES)]
        first = next(number for number, line in enumerate(shown) if line.plain.startswith(since))
        lines = [Text.assemble(("$ ", "dim"), (self.command, "bold")), *shown[first:]]
        while not lines[-1].plain.strip():
            lines.pop()
        console = Console(
            record=True,
            file=StringIO(),
            width=_COLUMNS,
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
            legacy_windows=False,
        )
        for line in lines:
            console.print(line, no_wrap=True, overflow="ignore", crop=False)
        svg = console.export_svg(theme=_THEME, code_format=_SVG, unique_id="s")
        return re.sub(r" +$", "", svg.replace("TITLE", title), flags=re.MULTILINE)

    def _line(self, number: int) -> Text:
        row = self._screen.buffer[number]
        line = Text()
        for style, chars in groupby((row[column] for column in range(_COLUMNS)), _style):
            text = "".join(char.data for char in chars)
            rest = text.lstrip()
            # Some viewers drop leading blanks. In a different style, they are a separate text, and
            # the text after them has its own position.
            line.append(text[: len(text) - len(rest)], Style(dim=True)).append(rest, style)
        line.rstrip()
        return line


def _style(char: pyte.screens.Char) -> Style:
    colors = {"brown": "yellow", "default": None}  # Names of pyte, with those of rich.
    foreground = colors.get(char.fg, char.fg)
    if foreground is not None and re.fullmatch(r"[0-9a-f]{6}", foreground):
        foreground = f"#{foreground}"
    foreground = foreground and foreground.replace("bright", "bright_").replace("__", "_")
    return Style(color=foreground, bold=char.bold, italic=char.italics, underline=char.underscore)


@contextmanager
def served(**options: object) -> Iterator[tuple[Emulator, str]]:
    """Runs an emulator as a server."""
    emulator = Emulator(**{"clock": FixedClock(), "rate_limit": None, **options})
    with emulator.serve() as url:
        yield emulator, url


def with_events(url: str) -> None:
    """Submits four weeks of events for a contact."""
    names = {"logged-in": 60, "invited-friend": 20, "placed-order": 10}
    with DataEventsClient("any", base_url=url) as client:
        client.create_many(
            Event(
                name,
                user_id=_CONTACT,
                created_at=_NOW - timedelta(days=28 * (0.618034 * index * (place + 1) % 1) ** 2),
            )
            for place, (name, number) in enumerate(names.items())
            for index in range(1, number + 1)
        ).run()


def write(file: Path) -> None:
    """Writes a file of 5,000 events, one of which Intercom rejects."""
    events = [
        {
            "event_name": "placed-order",
            "user_id": f"{number % 500}",
            "created_at": 1735689600 + number,
            "metadata": {"plan": "pro"},
        }
        for number in range(5000)
    ]
    del events[2100]["created_at"]
    file.write_text("".join(f"{json.dumps(event)}\n" for event in events), encoding="utf-8")


def draw_import(folder: Path) -> Mapping[str, str]:
    """Stops an import halfway, and resumes it."""
    write(folder / "2025.ndjson")
    with served(rate_limit=1667) as (_, url):
        begun = Screen("import 2025.ndjson", folder, url)
        begun.run(until=lambda text: re.search(r"(?:4[0-9]|5[0-9])%", text))
        resumed = Screen("import 2025.ndjson", folder, url)
        resumed.run()
    return {
        "import": begun.svg("An import under way"),
        "report": resumed.svg("The report of an import"),
    }


def draw_charts(folder: Path) -> Mapping[str, str]:
    """Runs both commands that draw charts."""
    with served() as (_, url):
        with_events(url)
        drawn = {}
        for name in ("list", "summary"):
            screen = Screen(f"{name} --user-id {_CONTACT} --plot", folder, url)
            screen.run()
            drawn[f"{name}-plot"] = screen.svg(f"intercom-events {name} --plot")
    return drawn


def draw_dead(folder: Path) -> Mapping[str, str]:
    """Lists the dead letters of an outbox."""
    known = [EmulatedContact(user_id=_CONTACT)]
    with served(contacts=known) as (_, url):
        with (
            DataEventsClient("any", base_url=url, clock=FixedClock()) as client,
            Tracker(
                client,
                outbox=folder / "events.outbox",
                unknown_contact_patience=0,
            ) as tracker,
        ):
            for number, name in enumerate(("placed-order", "invited-friend", "logged-in")):
                tracker.track(
                    name,
                    user_id=f"{271828 + number}",
                    created_at=_NOW - timedelta(hours=number),
                    metadata={"price": MonetaryAmount(2999, "usd")},
                )
                tracker.flush(30)  # So that the order is the same in each run.
        screen = Screen("outbox dead events.outbox", folder, url)
        screen.run()
    return {"outbox-dead": screen.svg("The dead letters of an outbox")}


def draw_demo(folder: Path) -> Mapping[str, str]:
    """Runs the demo to the end of its second part."""
    with served() as (_, url):
        screen = Screen("demo", folder, url)
        screen.run(until=lambda text: "429 for the quota" in text)
    return {"demo": screen.svg("intercom-events demo", since="2/4")}


DRAWN = {
    "import": draw_import,
    "charts": draw_charts,
    "outbox-dead": draw_dead,
    "demo": draw_demo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "names", nargs="*", choices=[[], *DRAWN], help="what to draw (default: all)"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or DRAWN:
        with TemporaryDirectory() as folder:
            for picture, svg in DRAWN[name](Path(folder)).items():
                path = options.folder / f"{picture}.svg"
                path.write_text(svg, encoding="utf-8")
                print(f"{path}: {len(svg.encode()):,} bytes")


if __name__ == "__main__":
    main()
