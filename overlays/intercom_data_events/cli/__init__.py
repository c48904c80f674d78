"""The command line, ``intercom-events``, which the ``[cli]`` extra installs.

Results go to standard output, messages to standard error.
:class:`~intercom_data_events.cli.exit_codes.Exit` has the exit codes.
"""

from __future__ import annotations

import os
import sys


def main(prog: str = "intercom-events") -> None:
    """Runs the command line with the arguments of the process, then ends the process.

    Args:
        prog: The program's name in its help.

    Raises:
        SystemExit: Always, with the exit code.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # The parent process closed it.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123  # until the end
    try:
        code = _run(prog)
    except KeyboardInterrupt:  # It arrived before the command could handle it.
        code = 130
    _flush()
    sys.exit(code)


def _run(prog: str) -> int:
    try:
        from intercom_data_events.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(
            f"intercom-events requires {error.name}; run: pip install 'intercom-data-events[cli]'"
        )
    # The terminal's encoding may lack some characters of events.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is not replaced yet
    return run(sys.argv[1:], prog)


def _flush() -> None:
    """Writes buffered output; after a failure, Python must not try again while it exits."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
