"""The layout of help: sections of paragraphs and definitions, for a terminal or a manual page.

Unlike click's help, it breaks no words, not even at hyphens, and does not shorten the summaries of
commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from attrs import frozen
from typer.core import TyperCommand, TyperGroup

# At most this many columns for the names of options and commands.
_NAMES = 26


@frozen
class Section:
    """A part of a help page.

    Attributes:
        title: Its heading; empty for the description.
        paragraphs: Text to wrap.
        definitions: Names and their meanings.
        lines: Text to show unchanged.
    """

    title: str
    paragraphs: Sequence[str] = ()
    definitions: Sequence[tuple[str, str]] = ()
    lines: Sequence[str] = ()


def sections(command: Any, context: Any) -> Iterator[Section]:
    """Yields the sections of the help of a command or group, below the usage."""
    yield Section("", [" ".join(one.split()) for one in (command.help or "").split("\n\n")])
    options: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        if (record := parameter.get_help_record(context)) is not None:
            kind = f"{parameter.param_type_name}s".capitalize()
            title = getattr(parameter, "rich_help_panel", None) or kind
            meaning = " ".join(record[1].split())
            # Bounds that come from the machine do not help the user.
            meaning = re.sub(r" ?\[\d+<=x<=\d{10,}]|\d+<=x<=\d{10,}; ", "", meaning)
            meaning = re.sub(r"(\d+)<=x<=(\d+)", r"\1 to \2", meaning)
            options.setdefault(title, []).append((_name(parameter), meaning))
    yield from (Section(title, definitions=rows) for title, rows in options.items() if rows)
    if commands := getattr(command, "commands", None):
        yield Section("Commands", definitions=[*commands.summaries.items()])
    for part in (command.epilog or "").split("\n\n"):
        title, *lines = part.splitlines() or [""]
        if lines:
            yield Section(title.rstrip(":"), lines=lines)


def summary(command: Any) -> str:
    """Returns the first sentence of a command's help."""
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) ", text)[0]


def usage(command: Any, context: Any) -> str:
    """Returns the usage line of a command."""
    arguments = [
        _name(one) for one in command.get_params(context) if one.param_type_name == "argument"
    ]
    if hasattr(command, "commands"):
        arguments.append("COMMAND ...")
    return " ".join((context.command_path, "[OPTIONS]", *arguments))


def _name(parameter: Any) -> str:
    """Returns an argument, or an option with its metavar."""
    value = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        value += "..." if parameter.nargs != 1 else ""
        return value if parameter.required else f"[{value}]"
    names = ", ".join(sorted(parameter.opts, key=len))
    return names if parameter.is_flag else f"{names} {value}"


def _page(command: Any, context: Any, width: int) -> Iterator[str]:
    yield f"Usage: {usage(command, context)}"
    for section in sections(command, context):
        for paragraph in section.paragraphs:
            yield ""
            yield from _wrapped(paragraph, width, "  ")
        if not section.title:
            continue
        yield ""
        yield f"{section.title}:"
        yield from section.lines
        longest = max((len(name) for name, _ in section.definitions), default=0)
        column = min(longest, _NAMES) + 4
        for name, meaning in section.definitions:
            lines = _wrapped(meaning, width, " " * column)
            if len(name) + 4 > column:
                yield f"  {name}"
            else:
                lines[0] = f"  {name}".ljust(column) + lines[0][column:]
            yield from lines


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    # Short text in brackets, such as a default, is not wrapped.
    kept = re.sub(r"\[[^]]{,32}]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    lines = wrap(
        kept,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [indent]


class Command(TyperCommand):
    """A command with the help of this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        formatter.write("\n".join(_page(self, ctx, formatter.width)))


class Group(TyperGroup):
    """A group of commands with the help of this module."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help."""
        formatter.write("\n".join(_page(self, ctx, formatter.width)))
