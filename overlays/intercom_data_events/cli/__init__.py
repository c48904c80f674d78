"""The command line, ``intercom-events``: the ``[cli]`` extra.

Results go to standard output, messages to standard error. The exit codes are those of
:class:`~intercom_data_events.cli.exit_codes.Exit`.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Runs ``intercom-events`` with the arguments of the process, and ends it.

    Raises:
        SystemExit: Always, with the exit code.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # Closed by whoever started this.
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123  # until the end
    try:
        code = _run()
    except KeyboardInterrupt:  # Before there was a command to end.
        code = 130
    _let_go()
    sys.exit(code)


def _run() -> int:
    try:
        from intercom_data_events.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(
            f"intercom-events needs {error.name}, which comes with an extra: "
            "pip install 'intercom-data-events[cli]'"
        )
    # Not all that an event can say can be said in every encoding.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # nobody has replaced it
    return run(sys.argv[1:])


def _let_go() -> None:
    """Has Python not try again, as it ends, to write what could not be written."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
