"""What scripts write to a terminal: one printable line, also where they quote what they read."""

from __future__ import annotations

import argparse
from typing import NoReturn


def sentence(text: str) -> str:
    """Returns text on one line, in which what is not printable is escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in " ".join(text.split())
    )


class ArgumentParser(argparse.ArgumentParser):
    """One whose complaints repeat arguments printable."""

    def error(self, message: str) -> NoReturn:
        """Writes a complaint, and ends the program with exit code 2."""
        super().error(sentence(message))
