"""The exit codes of commands."""

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
    """The exit code of a command; `EXIT_CODES` has the meanings."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    FAILED = 3
    DENIED = 4
    INTERRUPTED = 130


#: The meaning of each code, for ``--help``.
EXIT_CODES = {
    Exit.DONE: "success",
    Exit.REFUSED: "an event, line or contact was rejected, in this run or an earlier one",
    Exit.USAGE: "nothing was done: invalid arguments, settings or file",
    Exit.FAILED: "incomplete: run the same command again to resume",
    Exit.DENIED: "Intercom denied access: check the token, its permissions and the plan",
    Exit.INTERRUPTED: "interrupted",
}


class UsageError(Exception):
    """Arguments contradict each other, or one is invalid."""


class StoppedError(Exception):
    """The work stopped before its end; running the same command again resumes it."""


def exit_code(error: IntercomError) -> Exit:
    """Returns the exit code for an error that ended a command."""
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
