"""Reads the arguments of programs."""

from __future__ import annotations

import argparse
from typing import NoReturn

from intercom_data_events._validation import printable


class ArgumentParser(argparse.ArgumentParser):
    """An ``argparse.ArgumentParser`` whose messages escape unprintable characters of arguments."""

    def error(self, message: str) -> NoReturn:
        """Writes what is wrong, and ends the program with exit code 2."""
        super().error(printable(message, None))
