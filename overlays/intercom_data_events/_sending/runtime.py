"""Identifies the running process and the running event loop."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

# A token, because process ids are reused, and containers have the same ones. By process id, because
# uWSGI forks without Python's knowledge, unless told otherwise, and then nothing is called.
_tokens: dict[int, object] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tokens.clear)


def this_process() -> object:
    """Returns the token of this process; each fork gives the child a new one."""
    return _tokens.setdefault(os.getpid(), object())


def may_start_threads() -> bool:
    """Whether threads may be started here: not where uWSGI loads the application, before it forks.

    As it forks without Python's hooks, a thread that waits for the interpreter meanwhile makes the
    forked worker wait for it forever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or uwsgi.worker_id() or uwsgi.mule_id():
        return True
    is_spooler = getattr(uwsgi, "i_am_the_spooler", None)
    return is_spooler is not None and bool(is_spooler())


def running_trio() -> bool:
    """Whether the running task is trio's. Trio can run as a guest of asyncio's event loop."""
    if "trio" not in sys.modules:
        return False
    import trio

    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def running_loop() -> object:
    """Returns the event loop of the running task.

    Raises:
        RuntimeError: There is none.
    """
    if running_trio():
        import trio

        return trio.lowlevel.current_trio_token()
    import asyncio

    return asyncio.get_running_loop()


def is_running(loop: object) -> bool:
    """Whether an event loop is that of the running task."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            if asyncio.get_running_loop() is loop:
                return True
        except RuntimeError:
            pass  # The task is trio's.
    return running_loop() is loop


def has_ended(loop: object) -> bool:
    """Whether an event loop no longer runs; False for trio's, which outlasts all of its tasks."""
    asyncio = sys.modules.get("asyncio")
    is_of_asyncio = asyncio is not None and isinstance(loop, asyncio.AbstractEventLoop)
    return is_of_asyncio and not cast("Any", loop).is_running()
