"""Tells whether the garbage collector is running, and perhaps a finalizer with it.

Code that runs while an event is sent must not track, because that could go on forever. A finalizer
may: the collector runs it in whatever thread happens to allocate memory.
"""

from __future__ import annotations

import gc


def is_collecting() -> bool:
    """Whether the collector is running, in this thread or in one that waits for it."""
    # A running collector does not start again, so it calls no callback. The callback is a C
    # function, and registered only for this moment: if a signal handler raised an exception during
    # a callback in Python, that exception would be lost.
    seen: dict[object, object] = {}
    callback = seen.__setitem__
    gc.callbacks.append(callback)
    try:
        gc.collect(0)
    finally:
        gc.callbacks.remove(callback)
    return not seen
