"""What commands show in a terminal, as an emulator of terminals draws it.

One process runs several commands, one after the other, in a terminal of a given size or with pipes;
what each of them wrote is drawn on a screen of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyte
from attrs import frozen

# Ends what a command wrote; no command writes such a character.
_END = "\x1e"
_PROGRAM = f"""
import os, sys, json
from intercom_data_events.cli.app import run
for arguments in json.loads(sys.argv[1]):
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(1, f"{{int(code)}}{_END}".encode())
"""
# Rows, so that nothing scrolls away.
_ROWS = 400


@frozen
class Screen:
    """A terminal after a command.

    Attributes:
        arguments: The command's.
        code: Its exit code.
        written: What it wrote, with all escape sequences.
        lines: The rows that are not empty at the end, as they are seen.
        colors: The colors of what is seen.
        overran: What was written beyond the last column, which a terminal breaks anywhere.
    """

    arguments: tuple[str, ...]
    code: int
    written: str
    lines: tuple[str, ...]
    colors: frozenset[str]
    overran: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def words(self) -> set[str]:
        """The words on it, but for what changes from run to run: numbers, and if a rate is told."""
        text = re.sub(r", [\d,]+ per second", "", self.text)
        return {re.sub(r"\d+", "0", word) for word in text.split() if "…" not in word}


class _Terminal(pyte.Screen):
    """A terminal that notes what is written beyond its last column."""

    def __init__(self, columns: int) -> None:
        super().__init__(columns, _ROWS)
        self.overran: list[str] = []

    def draw(self, data: str) -> None:
        if self.cursor.x + len(data) > self.columns:
            self.overran.append(data)
        super().draw(data)


def draw(arguments: Sequence[str], code: int, written: str, columns: int) -> Screen:
    """Draws what a command wrote."""
    terminal = _Terminal(columns)
    pyte.Stream(terminal).feed(written)
    seen = [
        [terminal.buffer[row][column] for column in range(columns)]
        for row in range(terminal.cursor.y + 1)
    ]
    return Screen(
        tuple(arguments),
        code,
        written,
        tuple("".join(one.data for one in row).rstrip() for row in seen),
        frozenset(one.fg for row in seen for one in row if one.data.strip()),
        tuple(terminal.overran),
    )


def show(
    commands: Sequence[Sequence[str]], columns: int | None, **environment: str
) -> list[Screen]:
    """Runs commands in a terminal of so many columns, or with pipes; draws what each one wrote."""
    program = [sys.executable, "-c", _PROGRAM, json.dumps([list(one) for one in commands])]
    whole = {**os.environ, **environment}
    if columns is None:
        done = subprocess.run(
            program,
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=True,
        )
        # A terminal returns the carriage at each new line.
        written = done.stdout.decode().replace("\n", "\r\n")
    else:
        written = _in_a_terminal(program, columns, whole)
    parts = written.split(_END)
    assert len(parts) == len(commands) + 1, parts[-1]
    screens = []
    for arguments, part in zip(commands, parts, strict=False):
        found = re.fullmatch(r"(.*?)(\d+)", part, re.DOTALL)
        assert found, part
        screens.append(draw(arguments, int(found[2]), found[1], columns or 200))
    return screens


def _in_a_terminal(program: Sequence[str], columns: int, environment: dict[str, str]) -> str:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with subprocess.Popen(
        program, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as process:
        os.close(slave)
        written = b""
        with suppress(OSError):  # What Linux says when the other end is closed.
            while data := os.read(master, 65536):
                written += data
        os.close(master)
        assert process.wait() == 0, written.decode()
    return written.decode()


def fresh(folder: Path) -> None:
    """Empties a folder, so that commands run in it anew."""
    for path in folder.iterdir():
        path.unlink()
