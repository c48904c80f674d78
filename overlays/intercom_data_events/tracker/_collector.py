"""Tells whether the garbage collector runs, and with it finalizers.

Code that tracks while an event is sent is kept from tracking without end. A finalizer is not such
code: the collector runs it in whatever thread happens to allocate memory.
"""

from __future__ import annotations

import gc


def is_collecting() -> bool:
    """Whether the collector runs, in this thread or in one that it keeps waiting."""
    # While it runs, it does not begin again, and so calls nothing. A callback in C, for this moment
    # only: an exception of a signal handler that comes during one in Python would be lost.
    seen: dict[object, object] = {}
    callback = seen.__setitem__
    gc.callbacks.append(callback)
    try:
        gc.collect(0)
    finally:
        gc.callbacks.remove(callback)
    return not seen
