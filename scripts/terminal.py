"""What scripts write to a terminal: one printable line, also where they quote what they read."""

from __future__ import annotations

import argparse
from typing import NoReturn

# Characters of a message, which may quote a whole description.
_LONGEST = 10_000


def sentence(text: str) -> str:
    """Returns text on one line, cut to 10,000 characters, and what is not printable escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in " ".join(text[:_LONGEST].split())
    )


class ArgumentParser(argparse.ArgumentParser):
    """One whose complaints repeat arguments printable."""

    def error(self, message: str) -> NoReturn:
        """Writes a complaint, and ends the program with exit code 2."""
        super().error(sentence(message))
