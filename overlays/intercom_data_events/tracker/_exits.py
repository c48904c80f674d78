"""Calls functions when the process ends, through whatever runs at the end of such a process.

The interpreter's exit runs atexit's functions. Other ends do not reach it: a child of
multiprocessing runs multiprocessing's finalizers (atexit's functions too from Python 3.13 on), a
process of Celery's pool sends one signal, and uWSGI with `skip-atexit-teardown` calls one function.
A process that is killed, or that calls os._exit as RQ's jobs do, runs nothing.
"""

from __future__ import annotations

import atexit
import importlib
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from attrs import frozen

from intercom_data_events._sending.runtime import this_process

# Before what others have multiprocessing do at the end, such as closing queues and pools.
_PRIORITY = 100


@frozen(eq=False)
class _Exit:
    """What one process calls at its end, once."""

    function: Callable[[], object]
    process: object

    def __call__(self) -> None:
        # A forked child inherits what its parent registered, and has its own.
        if self.process is this_process() and _exits.get(self.function) is self:
            del _exits[self.function]
            with _blocking_look_ups():
                self.function()


_exits: dict[Callable[[], object], _Exit] = {}
_watched = set[object]()


def at_exit(function: Callable[[], object]) -> None:
    """Has a function called once when this process ends; not when a fork of it does.

    It is called before what was registered with atexit earlier.
    """
    process = this_process()
    known = _exits.get(function)
    if known is None or known.process is not process:
        _exits[function] = this = _Exit(function, process)
        atexit.register(this)
        if process not in _watched:
            _watched.add(process)
            _watch_ends()


def cancel(function: Callable[[], object]) -> None:
    """Undoes :func:`at_exit`."""
    if (this := _exits.pop(function, None)) is not None:
        atexit.unregister(this)


def unheard_end() -> str | None:
    """Says how this process can end without calling any function; None if no such end is known."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or "gracefully_kill_them_all" in str(uwsgi.opt):
        return None
    return (
        "uWSGI ends a worker that is in a request at once, without calling exit functions, unless "
        "hook-master-start is unix_signal:15 gracefully_kill_them_all"
    )


def _call_all(**_: object) -> None:
    """Calls the functions of this process, the newest first."""
    for this in reversed(list(_exits.values())):
        this()


def _watch_ends() -> None:
    """Registers with what runs at the end of this process instead of atexit's functions."""
    if "multiprocessing.util" in sys.modules:
        _watch_child()
        # A child clears its finalizers after it imported the main module.
        sys.modules["multiprocessing.util"].register_after_fork(_watch_child, lambda watch: watch())
    if (signals := sys.modules.get("celery.signals")) is not None:
        signals.worker_process_shutdown.connect(_call_all, weak=False, dispatch_uid=__name__)
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is not None and "skip-atexit-teardown" in uwsgi.opt:
        earlier = getattr(uwsgi, "atexit", None)

        def end() -> None:
            _call_all()
            if earlier is not None:
                earlier()

        uwsgi.atexit = end


def _watch_child() -> None:
    sys.modules["multiprocessing.util"].Finalize(None, _end_child, exitpriority=_PRIORITY)


def _end_child() -> None:
    """Ends a child of multiprocessing, or of billiard, which is Celery's copy of it."""
    processes = (sys.modules.get(f"{name}.process") for name in ("multiprocessing", "billiard"))
    if any(each and each.current_process().name != "MainProcess" for each in processes):
        _call_all()


@contextmanager
def _blocking_look_ups() -> Generator[None]:
    """Has gevent look up addresses without a thread, which cannot be started at the end."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        yield
        return
    hub = importlib.import_module("gevent").get_hub()
    before = hub.resolver
    if isinstance(before, importlib.import_module("gevent.resolver.thread").Resolver):
        hub.resolver = importlib.import_module("gevent.resolver.blocking").Resolver()
    try:
        yield
    finally:
        hub.resolver = before
