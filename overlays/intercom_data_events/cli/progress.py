"""The progress of long commands, on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from attrs import define
from rich.cells import cell_len
from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from intercom_data_events import RateLimit
from intercom_data_events._counting import counted
from intercom_data_events._validation import printable
from intercom_data_events.cli.output import cell, console, message

# Seconds between two lines of progress without a terminal.
_EVERY = 10.0
# Columns of the bar, minimum columns of the name, and of a terminal with room for a bar.
_BAR, _NAME, _ROOMY = 10, 12, 60


@define
class Advance:
    """The progress of a command.

    Attributes:
        done: Bytes or events that are done.
        total: All bytes or events, or None if unknown.
        events: Events that have an outcome.
        refused: How many of them were rejected.
        failed: How many failed.
        rate_limit: The last known rate limit.
    """

    done: int
    total: int | None
    events: int
    refused: int
    failed: int
    rate_limit: RateLimit | None


class ProgressShown(AbstractContextManager["ProgressShown"]):
    """Shows progress on standard error: a bar on a terminal, otherwise a line every 10 s.

    Args:
        name: The name of the file.
        quiet: Whether to show nothing.
    """

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = printable(name, None)
        self._begun = self._told = time.monotonic()
        self._quiet = quiet
        self._advance = Advance(0, None, 0, 0, 0, None)
        self._live: Live | None = None
        self._console = console(sys.stderr)
        if not quiet and sys.stderr.isatty() and self._console.is_interactive:
            self._live = Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=10,
                transient=True,
            )

    def __enter__(self) -> Self:
        """Shows the bar."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes the bar; the report follows."""
        if self._live is not None:
            self._live.stop()

    def tell(self, text: str) -> None:
        """Writes a message without breaking the bar."""
        if self._live is None:
            message(text)
        else:
            self._console.print(cell(text))

    def show(self, advance: Advance) -> None:
        """Updates the progress; cheap to call often."""
        self._advance = advance
        now = time.monotonic()
        if self._quiet or self._live is not None or now - self._told < _EVERY:
            return
        self._told = now
        message(f"{self._name}: {', '.join(text for _, text in self._parts())}")

    def _parts(self) -> list[tuple[int, str]]:
        """Returns the parts of the line in order, each with its rank; the highest goes first."""
        advance, seconds = self._advance, max(time.monotonic() - self._begun, 0.001)
        parts = [(0, f"{advance.done / advance.total:.0%}")] if advance.total else []
        parts.append((1, counted(advance.events)))
        parts.append((5, f"{advance.events / seconds:,.0f}/s"))
        if advance.refused:
            parts.append((3, f"{advance.refused:,} rejected"))
        if advance.failed:
            parts.append((4, f"{advance.failed:,} failed"))
        if (limit := advance.rate_limit) is not None:
            parts.append((6, f"quota {limit.remaining:,} left"))
        if advance.total and advance.done:
            left = seconds / advance.done * (advance.total - advance.done)
            parts.append((2, f"{_clock(left)} to go"))
        return parts

    def _drawn(self) -> RenderableType:
        """Draws the line in the terminal's width; shortens the name first, then drops parts."""
        width, parts = self._console.width, self._parts()
        between = " · " if self._console.encoding.startswith("utf") else ", "
        columns = _BAR if width >= _ROOMY else 0
        room = width - columns - 2  # Blanks around the bar.
        while len(parts) > 1 and _width(parts, between) > room - min(_NAME, cell_len(self._name)):
            parts.remove(max(parts))
        name = Text(self._name, no_wrap=True)
        name.truncate(max(room - _width(parts, between), 1), overflow="ellipsis")
        line = Table.grid(padding=(0, 1, 0, 0))
        told = Text(between.join(text for _, text in parts), no_wrap=True, overflow="crop")
        if not columns:
            line.add_row(name, told)
            return line
        total, color = self._advance.total, "magenta"
        bar = ProgressBar(
            total,
            self._advance.done,
            _BAR,
            total is None,
            complete_style=color,
            pulse_style=color,
        )
        line.add_row(name, bar, told)
        return line


def _width(parts: list[tuple[int, str]], between: str) -> int:
    return cell_len(between.join(text for _, text in parts))


def _clock(seconds: float) -> str:
    """Returns a duration as ``0:17`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
