"""Running a script's command line as a process, which a terminal or a job can end at any time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn


def run(main: Callable[[], int], name: str) -> NoReturn:
    """Ends the process with what a command line returns, or as it was interrupted.

    Args:
        main: The command line.
        name: How messages name it.
    """
    # What a terminal cannot show must not fail a run that has done everything.
    sys.stdout.reconfigure(errors="backslashreplace")
    # Terminated, it undoes what it must, as when it is interrupted.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run it again", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
