"""Exit codes."""

from __future__ import annotations

from enum import IntEnum

from intercom_data_events._sending.retry import (
    ErrorClass,
    classify,
    denies_access,
    refuses_version,
)
from intercom_data_events._words import read_words
from intercom_data_events.errors import (
    APIStatusError,
    IntercomError,
    InvalidInputError,
    OutboxError,
    OutboxLockedError,
)


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


class StoppedError(Exception):
    """What ended before its end; what was done is noted, and running it again goes on."""


def exit_code(error: IntercomError) -> Exit:
    """Returns what a command ends with that ended in an error."""
    if isinstance(error, OutboxError):
        return Exit.FAILED if isinstance(error, OutboxLockedError) else Exit.USAGE
    if isinstance(error, InvalidInputError):
        return Exit.USAGE
    if classify(error) is ErrorClass.PERMANENT:
        return Exit.REFUSED
    if isinstance(error, APIStatusError) and classify(error) is ErrorClass.SYSTEMIC:
        codes = read_words(error.response.content).intercoms_codes
        if refuses_version(codes):
            return Exit.USAGE
        if denies_access(codes, error.status_code):
            return Exit.DENIED
    return Exit.FAILED


#: For ``--help``.
EXIT_CODES = """\
Exit codes: 0 done; 1 something was refused, now or in runs before; 2 nothing was done: wrong
arguments, settings or file; 3 incomplete: run the same command again to resume; 4 Intercom does not
accept the access token, or its permissions or plan; 130 interrupted."""
