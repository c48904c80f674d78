"""What a person and a program see: results on standard output, messages on standard error."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from intercom_data_events import MonetaryAmount, RichLink
from intercom_data_events._validation import printable
from intercom_data_events.event import to_json as event_json


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


def counted(count: int) -> str:
    """Returns a number of events in words."""
    return f"{count:,} event{'' if count == 1 else 's'}"


def word(file: Path) -> str:
    """Returns a file's name as a shell takes it for one word, and nothing else."""
    name = str(file)
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
