"""Progress on long work, on standard error."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from attrs import define
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from intercom_data_events import RateLimit
from intercom_data_events._validation import printable
from intercom_data_events.cli.output import cell, duration, message

# Seconds between two plain lines of progress.
_EVERY = 10.0


@define
class Advance:
    """How far something long has come.

    Attributes:
        done: Bytes that have been read.
        total: Bytes that there are, or None where nobody knows.
        events: Events that have an outcome.
        refused: How many of them were refused.
        failed: How many failed.
        rate_limit: As last seen.
    """

    done: int
    total: int | None
    events: int
    refused: int
    failed: int
    rate_limit: RateLimit | None


class ProgressShown(AbstractContextManager["ProgressShown"]):
    """Progress, on standard error: a bar on a terminal, else a line now and then.

    Args:
        name: What is worked on.
        quiet: Whether nothing is to be seen.
    """

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = printable(name, None)
        self._begun = self._told = time.monotonic()
        self._shown = 0
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if not quiet and sys.stderr.isatty():
            self._bar = Progress(
                # The name gives way first, so that what changes is always to be seen.
                TextColumn(
                    "{task.description}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis", max_width=24),
                ),
                BarColumn(bar_width=16),
                TaskProgressColumn(),
                TextColumn("{task.fields[told]}", markup=False, table_column=Column(no_wrap=True)),
                TimeRemainingColumn(compact=True),
                console=Console(file=sys.stderr, highlight=False),
                transient=True,
            )

    def __enter__(self) -> Self:
        """Shows it."""
        if self._bar is not None:
            self._task = self._bar.add_task(self._name, total=None, told="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Takes the bar away; the report follows."""
        if self._bar is not None:
            self._bar.stop()

    def tell(self, text: str) -> None:
        """Writes a message without breaking the bar."""
        if self._bar is None:
            message(text)
        else:
            self._bar.console.print(cell(text))

    def show(self, advance: Advance) -> None:
        """Shows how far it has come; cheap to call often."""
        if self._quiet:
            return
        now = time.monotonic()
        if now - self._told < (0.1 if self._bar is not None else _EVERY):
            return
        self._told = now
        told = self._said(advance, now)
        if self._bar is None or self._task is None:
            part = f" ({advance.done / advance.total:.0%})" if advance.total else ""
            left = _time_left(advance, now - self._begun)
            message(f"{self._name}{part}: {told}{left}")
        else:
            self._bar.update(self._task, completed=advance.done, total=advance.total, told=told)

    def _said(self, advance: Advance, now: float) -> str:
        seconds = max(now - self._begun, 0.001)
        parts = [f"{advance.events:,} events", f"{advance.events / seconds:,.0f}/s"]
        if advance.refused:
            parts.append(f"{advance.refused:,} refused")
        if advance.failed:
            parts.append(f"{advance.failed:,} failed")
        if (limit := advance.rate_limit) is not None:
            parts.append(f"quota {limit.remaining:,} of {limit.limit:,} left")
        return ", ".join(parts)


def _time_left(advance: Advance, seconds: float) -> str:
    if not advance.total or not advance.done:
        return ""
    return f", {duration(seconds / advance.done * (advance.total - advance.done))} to go"
