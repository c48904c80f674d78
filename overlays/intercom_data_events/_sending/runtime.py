"""Tells a process from its forks, and the event loop that runs from others."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

# Not the process's number: numbers are given again, and containers have the same ones.
_token: list[object] = [object()]


def _renew() -> None:
    _token[0] = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def this_process() -> object:
    """Returns an object that is another one in each forked child."""
    return _token[0]


def running_trio() -> bool:
    """Whether the running task is trio's, which can be a guest of asyncio's loop."""
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
            pass  # It is trio's.
    return running_loop() is loop


def has_ended(loop: object) -> bool:
    """Whether an event loop is closed, or was left; trio ends all tasks of a loop before it."""
    asyncio = sys.modules.get("asyncio")
    is_of_asyncio = asyncio is not None and isinstance(loop, asyncio.AbstractEventLoop)
    return is_of_asyncio and not cast("Any", loop).is_running()
