"""Reads a program's arguments."""

from __future__ import annotations

import argparse
from typing import NoReturn

from intercom_data_events._validation import printable


class ArgumentParser(argparse.ArgumentParser):
    """An ``argparse.ArgumentParser`` whose complaints repeat arguments printable."""

    def error(self, message: str) -> NoReturn:
        """Writes a complaint, and ends the program with exit code 2."""
        super().error(printable(message, None))
