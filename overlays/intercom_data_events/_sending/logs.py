"""The package's log: how it names failures, and what shows it on stderr."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
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
    """Shows the log from now on, unless the application gave the logger a handler of its own.

    Each client calls this as it is made. The records still go to the handlers of the application's
    root logger. If one of these writes to stderr, the line is not written twice.

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
def shown_requests() -> Iterator[None]:
    """Shows the log on stderr for a while, with each request, answer, retry and wait."""
    level, handler = log.level, _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def reason_of(error: Exception) -> str:
    """Returns a failure in a few words, without personal data.

    Of what an answer says, these are the codes of Intercom's own list: other servers may repeat in
    theirs what was sent.
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
    """Writes to what stderr is at the time, unless the root logger does so, too."""

    def emit(self, record: logging.LogRecord) -> None:
        if _is_shown(record):
            return
        try:
            lines = self.format(record).split("\n")  # A traceback has several.
            sys.stderr.write("".join(f"{printable(line, None)}\n" for line in lines))
        except Exception:  # noqa: BLE001  # as all handlers: logging decides
            # It reports to stderr, which may be closed: no reason to end a request.
            with suppress(ValueError):
                self.handleError(record)


def _is_shown(record: logging.LogRecord) -> bool:
    return log.propagate and any(
        getattr(handler, "stream", None) is sys.stderr and record.levelno >= handler.level
        for handler in logging.getLogger().handlers
    )
