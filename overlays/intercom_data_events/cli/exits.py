"""Exit codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command ends with."""

    #: Everything was done.
    DONE = 0
    #: Something was refused: an event, a contact, a line of a file.
    REFUSED = 1
    #: Nothing was begun: the arguments, the settings or the file make no sense.
    USAGE = 2
    #: Something failed for the time being: running the same command again goes on.
    FAILED = 3
    #: Intercom does not accept the access token, or does not let it do this.
    DENIED = 4
    #: Stopped by a person or a signal.
    INTERRUPTED = 130


class UsageError(Exception):
    """Arguments that make no sense together, or one that cannot be understood."""


#: For ``--help`` and the README.
EXIT_CODES = """\
Exit codes: 0 done; 1 something was refused (an event, a contact, a line); 2 wrong arguments,
settings or file; 3 failed for the time being, run it again; 4 the access token is not accepted;
130 interrupted."""
