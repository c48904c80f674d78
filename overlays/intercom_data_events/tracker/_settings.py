"""Checks the arguments of trackers."""

from __future__ import annotations

import inspect
import os
import threading
from typing import Literal, TypeAlias, cast

from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError

#: What `track` does where as many events wait as the tracker holds.
WhenFull: TypeAlias = Literal["drop", "block", "raise"]

#: Requests at once.
CONCURRENCY = 20
#: Events in memory.
MOST = 10_000
#: Seconds for which Intercom may not know the contact of an event.
UNKNOWN_CONTACT_PATIENCE = 120.0


def check_settings(
    *,
    outbox: object,
    workspace: object,
    concurrency: object,
    max_queued: object,
    when_full: object,
    on_error: object,
    close_timeout: object,
    unknown_contact_patience: object,
) -> None:
    """Checks the arguments of a tracker.

    Raises:
        ConfigurationError: One of them is not usable.
    """
    if outbox is not None and not isinstance(outbox, str | os.PathLike):
        raise invalid(ConfigurationError, "outbox must be the path of a file", outbox)
    if workspace is not None and not (isinstance(workspace, str) and workspace.strip()):
        must = "workspace must be a name of your own for the workspace"
        raise invalid(ConfigurationError, must, workspace)
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        must = "concurrency must be an integer from 1 to 1000"
        raise invalid(ConfigurationError, must, concurrency)
    if max_queued is not None and (type(max_queued) is not int or max_queued < 1):
        raise invalid(ConfigurationError, "max_queued must be an integer of at least 1", max_queued)
    if when_full not in ("drop", "block", "raise"):
        must = "when_full must be 'drop', 'block' or 'raise'"
        raise invalid(ConfigurationError, must, when_full)
    if on_error is not None and not callable(on_error):
        must = "on_error must be a function of an event and an error"
        raise invalid(ConfigurationError, must, on_error)
    check_seconds("close_timeout", close_timeout)
    check_seconds("unknown_contact_patience", unknown_contact_patience)


def check_seconds(name: str, seconds: object) -> float:
    """Returns a time limit.

    Raises:
        ConfigurationError: It is not a number of seconds.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not cast("float", seconds) >= 0:
        must = f"{name} must be a number of seconds of at least 0"
        raise invalid(ConfigurationError, must, seconds)
    # What threads can wait for, and a float can hold.
    return float(min(cast("float", seconds), threading.TIMEOUT_MAX))


def check_blocking(name: str, function: object, reason: str) -> None:
    """Checks that a function need not be awaited.

    Args:
        name: The name of the argument.
        function: The function, or None.
        reason: Why it must not be async, and the remedy.

    Raises:
        ConfigurationError: It is an async function.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # of an object that can be called
    ):
        raise ConfigurationError(f"{name} must not be an async function, because {reason}")
