"""What a person and a program see: results on standard output, messages on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import datetime
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
from rich.text import Text

from intercom_data_events import MonetaryAmount, RateLimit, RichLink
from intercom_data_events._validation import printable
from intercom_data_events.event import to_json as event_json

# Seconds between two plain lines of progress.
_EVERY = 10.0


def cell(text: str, style: str = "") -> Text:
    """Returns text as a part of a table or of a line, printable."""
    return Text(printable(text, None), style)


def result(text: str = "") -> None:
    """Writes a line of a result, printable."""
    sys.stdout.write(f"{printable(text, None)}\n")
    # Whoever reads it through a pipe sees it as it comes.
    sys.stdout.flush()


def result_json(value: object) -> None:
    """Writes a result as one line of JSON."""
    result(to_json(value))


def to_json(value: object) -> str:
    """Returns a value as one line of JSON that can be written as UTF-8, and seen on a terminal."""
    text = event_json(value, ensure_ascii=is_ascii(), default=_as_json)
    if text.isprintable():
        return text
    # JSON itself escapes the oldest control characters alone.
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def message(text: str) -> None:
    """Writes a message, one printable line on standard error, where anybody reads it."""
    # That nobody does is no reason to stop what is being done.
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{printable(text, None)}\n")
        sys.stderr.flush()


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def width() -> int:
    """Columns that a chart or table may take."""
    return Console(file=sys.stdout).width


def draw(renderable: object) -> None:
    """Draws a chart or table, on standard output."""
    Console(file=sys.stdout, highlight=False, emoji=False, markup=False).print(renderable)


def line(text: Text) -> None:
    """Writes a line of a result, in colours on a terminal, never wrapped."""
    Console(file=sys.stdout, highlight=False).print(text, soft_wrap=True)
    sys.stdout.flush()


def is_ascii() -> bool:
    """Whether standard output can show ASCII alone."""
    return not (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def second(moment: datetime | None) -> str:
    """Returns a time as tables show it, or a dash of the same width."""
    return f"{'-':19}" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def event_line(
    name: str | None, created_at: datetime | None, metadata: Mapping[str, object]
) -> Text:
    """An event on one line; with colours, where they are shown."""
    text = Text.assemble((second(created_at), "dim"), "  ", cell(name or "-", "bold"))
    for key, value in metadata.items():
        text.append_text(cell(f"  {key}=", "cyan")).append_text(cell(_shown(value)))
    return text


def _shown(value: object) -> str:
    if isinstance(value, MonetaryAmount):
        return f"{value.amount} {value.currency}"
    if isinstance(value, RichLink):
        return f"{value.value} <{value.url}>"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Says how long something takes: ``3.2 s``, ``4 min 5 s``, ``2 h 3 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


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
