"""Loads what sending needs; meanwhile, the process does not fork.

Python does not make the locks of modules anew in a forked child: for what a thread of its parent
was importing, it waits without end, as it does not have that thread. What a first request loads
takes a tenth of a second to import, and is first needed just when servers such as gunicorn fork.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import Engine
    from intercom_data_events._sending.session import Session

# Seconds for which a fork waits.
_PATIENCE = 5.0

_loading = threading.RLock()
#: Whether the fork that is under way has it.
_held: list[bool] = []


def load(session: Session[Engine]) -> None:
    """Imports what a tracker's threads would import one by one, and sets up connections."""
    with _loading:
        import encodings.idna  # noqa: F401  # for names of hosts

        from intercom_data_events._sending import responses  # noqa: F401
        from intercom_data_events_api.api.data_events import create_data_event  # noqa: F401

        # What is wrong with it, whoever sends an event is told.
        with suppress(Exception):
            session.process_state()


def _before_fork() -> None:
    _held.append(_loading.acquire(timeout=_PATIENCE))


def _after_fork() -> None:
    # None where a fork was under way as the first tracker was made.
    if _held and _held.pop():
        _loading.release()


@cache
def watch_forks() -> None:
    """Has forks wait for `load`; called before the first thread that loads is started.

    Once for each process, as it cannot be taken back.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
        )
