"""Tells whether the garbage collector runs in this thread, and with it finalizers.

Code that tracks while an event is sent is kept from tracking without end. A finalizer is not such
code: the collector runs it in whatever thread happens to allocate memory.
"""

from __future__ import annotations

import gc
import threading
from functools import cache

_collecting = set[int]()


def is_collecting() -> bool:
    """Whether the collector runs in this thread."""
    return threading.get_ident() in _collecting


@cache
def watch_collector() -> None:
    """Watches the collector, which takes well below a microsecond for each of its runs."""
    gc.callbacks.append(_note)


def _note(phase: str, _: object) -> None:
    if phase == "start":
        _collecting.add(threading.get_ident())
    else:
        _collecting.discard(threading.get_ident())
