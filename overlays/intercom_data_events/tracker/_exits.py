"""Calls functions when the process ends, through the hook that this kind of process has.

The interpreter calls atexit functions when it exits. Some processes end without that: a child of
multiprocessing runs multiprocessing's finalizers (from Python 3.13 on, atexit functions too), a
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

# Before other finalizers of multiprocessing, such as those that close queues and pools.
_PRIORITY = 100


@frozen(eq=False)
class _Exit:
    """A function that one process calls once, at its end."""

    function: Callable[[], object]
    process: object

    def __call__(self) -> None:
        # A forked child inherits what its parent registered, and registers its own.
        if self.process is this_process() and _exits.get(self.function) is self:
            del _exits[self.function]
            with _blocking_look_ups():
                self.function()


_exits: dict[Callable[[], object], _Exit] = {}
_watched = set[object]()


def at_exit(function: Callable[[], object]) -> None:
    """Registers a function to call once when this process, not a forked child, ends.

    It is called before functions that were registered with atexit earlier.
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
    """Returns how this process may end without calling any function; None if no way is known."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or "gracefully_kill_them_all" in str(uwsgi.opt):
        return None
    return (
        "uWSGI may stop a worker during a request without calling exit functions; pass outbox=, or "
        "set hook-master-start = unix_signal:15 gracefully_kill_them_all"
    )


def _call_all(**_: object) -> None:
    """Calls the functions of this process, the newest first."""
    for this in reversed(list(_exits.values())):
        this()


def _watch_ends() -> None:
    """Registers with the hooks that this process calls at its end instead of atexit functions."""
    if "multiprocessing.util" in sys.modules:
        _watch_child()
        # A child clears its finalizers after it has imported the main module.
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
    """Makes gevent look up addresses without a thread, because no thread can be started at exit."""
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
