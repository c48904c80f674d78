"""Runs a script's command line as a process that a terminal or a job can end at any time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int], name: str) -> NoReturn:
    """Runs a command line, and ends the process with its exit code or with that of a signal.

    Args:
        main: The command line.
        name: The name of the script in messages.
    """
    # A character that the terminal cannot show must not fail a run that has succeeded.
    sys.stdout.reconfigure(errors="backslashreplace")
    # An exception, so that SIGTERM undoes unfinished work as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
