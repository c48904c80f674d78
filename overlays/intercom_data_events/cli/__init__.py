"""The command line, ``intercom-events``: the ``[cli]`` extra.

Results go to standard output, messages to standard error. The exit codes are those of
:class:`~intercom_data_events.cli.exits.Exit`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Runs ``intercom-events`` with the arguments of the process, and ends it.

    Raises:
        SystemExit: Always, with the exit code.
    """
    try:
        from intercom_data_events.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(
            f"intercom-events needs {error.name}, which comes with an extra: "
            "pip install 'intercom-data-events[cli]'"
        )
    sys.exit(run(sys.argv[1:]))
