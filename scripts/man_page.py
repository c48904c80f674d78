"""Writes the manual page of the command line from its help: `nox -s man`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from intercom_data_events.cli.app import app
from intercom_data_events.cli.help import Section, sections, summary, usage

PAGE = Path(__file__).with_name("intercom-events.1")


def page() -> str:
    """Returns the manual page, in the man macros of roff."""
    program = typer.main.get_command(app)
    context = typer.Context(program, info_name="intercom-events")
    parts = (*_head(program, context), *_commands(program, context), *_tail(program, context))
    return "\n".join(parts) + "\n"


def _head(program: Any, context: Any) -> Iterator[str]:
    yield '.\\" Written by scripts/man_page.py: change the help instead.'
    yield ".TH INTERCOM\\-EVENTS 1"
    yield ".nh"  # No hyphenation.
    yield ".ad l"
    yield ".SH NAME"
    yield f"intercom\\-events \\- {_escaped(summary(program).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield f".B {_escaped(usage(program, context))}"
    yield ".SH DESCRIPTION"
    for section in sections(program, context):
        if section.title in ("", "Options"):
            yield from _body(section)


def _commands(group: Any, context: Any) -> Iterator[str]:
    if context.parent is None:
        yield ".SH COMMANDS"
    for name, command in group.commands.items():
        own = typer.Context(command, info_name=name, parent=context)
        if hasattr(command, "commands"):
            yield from _commands(command, own)
            continue
        yield f".SS {_escaped(usage(command, own))}"
        for section in sections(command, own):
            if section.title != "Exit codes":
                yield from _body(section)


def _tail(program: Any, context: Any) -> Iterator[str]:
    for section in sections(program, context):
        if section.lines:
            yield f".SH {section.title.upper()}"
            yield from _body(Section("", lines=section.lines))


def _body(section: Section) -> Iterator[str]:
    if section.title and section.title not in ("Arguments", "Options"):
        yield ".PP"
        yield f"{_escaped(section.title)}:"
    for paragraph in section.paragraphs:
        yield ".PP"
        yield _escaped(paragraph)
    for name, meaning in section.definitions:
        if not name.endswith("--help"):
            yield from (".TP", f".B {_escaped(name)}", _escaped(meaning))
    if section.lines:
        yield from (".PP", ".nf", *map(_escaped, section.lines), ".fi")


def _escaped(text: str) -> str:
    """Escapes a line, so that roff reads no commands in it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
