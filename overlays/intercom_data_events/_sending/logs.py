"""The package's log: how it names failures, and how it is shown on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from intercom_data_events._validation import printable, short_repr
from intercom_data_events.errors import (
    APIResponseError,
    APIStatusError,
    ConfigurationError,
    OutboxError,
)

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger("intercom_data_events")


def show_log() -> None:
    """Shows the log from now on, unless the application added its own handler to the logger.

    Each client calls this when it is created. The records still go to the handlers of the root
    logger. If one of these writes to stderr, the line is not written twice.

    Raises:
        ConfigurationError: INTERCOM_LOG is neither "debug" nor "info".
    """
    wanted = os.environ.get("INTERCOM_LOG", "").strip()
    if not wanted:
        return
    level = _LEVELS.get(wanted.lower())
    if level is None:
        raise ConfigurationError(f"INTERCOM_LOG must be debug or info, not {short_repr(wanted)}")
    if all(isinstance(handler, logging.NullHandler) for handler in log.handlers):
        handler = _StderrHandler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        log.addHandler(handler)
        log.setLevel(level)


@contextmanager
def shown_requests(write: Callable[[str], None]) -> Iterator[None]:
    """Passes a line for each request, answer, retry and wait to a function, within a block."""
    level, handler = log.level, _WritingHandler(write)
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    # Without the lines of the emulator, whose logger is a child.
    handler.addFilter(lambda record: record.name == log.name)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _WritingHandler(logging.Handler):
    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record))


def reason_of(error: Exception) -> str:
    """Returns a failure in a few words, without personal data.

    It quotes only the codes of Intercom's own list, because other servers may repeat what was sent.
    """
    if isinstance(error, APIResponseError):
        # Imported after a failure only, so that programs start faster.
        from intercom_data_events._words import read_words

        said = f"{type(error).__name__} {error.response.status_code}"
        if isinstance(error, APIStatusError) and read_words(error.response.content).of_intercom:
            said = " ".join((said, *error.codes))
        return said
    if isinstance(error, OutboxError | ConfigurationError):
        return str(error)
    return type(error.__cause__ or error).__name__


class _StderrHandler(logging.Handler):
    """Writes to the current stderr, unless the root logger does so, too."""

    def emit(self, record: logging.LogRecord) -> None:
        if _is_shown(record):
            return
        try:
            lines = self.format(record).split("\n")  # A traceback has several.
            sys.stderr.write("".join(f"{printable(line, None)}\n" for line in lines))
        except Exception:  # noqa: BLE001  # as in all handlers: logging decides
            # It reports to stderr. If that is closed, the request must not fail.
            with suppress(ValueError):
                self.handleError(record)


def _is_shown(record: logging.LogRecord) -> bool:
    return log.propagate and any(
        getattr(handler, "stream", None) is sys.stderr and record.levelno >= handler.level
        for handler in logging.getLogger().handlers
    )
