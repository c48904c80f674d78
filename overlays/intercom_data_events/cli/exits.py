"""Exit codes."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command ends with."""

    #: Everything was done.
    DONE = 0
    #: Something was refused: an event, a contact, a line of a file.
    REFUSED = 1
    #: Nothing was done: the arguments, the settings or the file make no sense.
    USAGE = 2
    #: Not everything was done: running the same command again goes on.
    FAILED = 3
    #: Intercom does not accept the access token, or does not let it do this.
    DENIED = 4
    #: Stopped by a person or a signal.
    INTERRUPTED = 130


class UsageError(Exception):
    """Arguments that make no sense together, or one that cannot be understood."""


#: For ``--help``.
EXIT_CODES = """\
Exit codes: 0 done; 1 something was refused, now or in runs before; 2 nothing was done: wrong
arguments, settings or file; 3 not everything was done: run it again, to go on; 4 the access token
is not accepted; 130 interrupted."""
