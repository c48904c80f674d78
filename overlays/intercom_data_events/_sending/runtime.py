"""Identifies the running process and event loop, and makes forks wait where they would do harm."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from itertools import count
from typing import TYPE_CHECKING

# At run time, nothing here refers to typing: the functions that Python calls at forks keep their
# module's references until the process exits, which would take longer.
if TYPE_CHECKING:
    from typing import Any, Protocol, TypeVar

    F = TypeVar("F", bound=Any)

    class ForkGuard(Protocol):
        """An object that forks wait for, such as one that uses a file."""

        def before_fork(self) -> bool:
            """Waits until a fork is safe, and keeps it safe; False after FORK_PATIENCE seconds."""
            ...

        def after_fork(self, *, in_child: bool, waited: bool) -> None:
            """Ends what :meth:`before_fork` began, in the parent and in the child.

            Args:
                in_child: Whether this is the child.
                waited: What :meth:`before_fork` returned.
            """


#: Seconds that a fork waits for each guard, at most.
FORK_PATIENCE = 5.0

# Tokens, because process ids are reused, and containers may have equal ones. By process id, because
# uWSGI by default forks without calling Python's hooks.
_tokens: dict[int, object] = {}


def this_process() -> object:
    """Returns the token of this process; each fork gives the child a new one."""
    return _tokens.setdefault(os.getpid(), object())


class ForkLock:
    """A reentrant lock that forks wait for, so that no child inherits it locked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        guard_forks(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> bool:
        """Waits until no other thread holds the lock, and locks it."""
        return self._lock.acquire(timeout=FORK_PATIENCE)

    def after_fork(self, *, in_child: bool, waited: bool) -> None:
        """Unlocks it; the child replaces a lock that another thread of the parent holds."""
        if waited:
            self._lock.release()
        elif in_child:
            self._lock = threading.RLock()


class _Forks(threading.local):
    """The forks that a thread has begun, innermost last; a handler may fork during a fork."""

    def __init__(self) -> None:
        self.begun: list[tuple[bool, list[tuple[ForkGuard, bool]]]] = []


_forks = _Forks()
# Held during a fork, so that forks do not overlap and no guard is added during one.
_forking = threading.RLock()
_numbers = count()
# In the order of creation.
_guards: weakref.WeakValueDictionary[int, ForkGuard] = weakref.WeakValueDictionary()


def guard_forks(guard: ForkGuard) -> None:
    """Makes forks wait for a guard for as long as it exists."""
    with _forking:
        _guards[next(_numbers)] = guard


def _before_fork() -> None:
    held = _forking.acquire(timeout=FORK_PATIENCE)
    waiting: list[tuple[ForkGuard, bool]] = []
    _forks.begun.append((held, waiting))
    # The latest first, because it may use what an earlier guard protects.
    guards = [reference() for reference in _guards.valuerefs()]
    waiting.extend((guard, guard.before_fork()) for guard in reversed(guards) if guard is not None)


def _after_fork(*, in_child: bool = False) -> None:
    global _forking
    if not _forks.begun:
        return  # The fork had begun before this module was imported.
    held, waiting = _forks.begun.pop()
    while waiting:
        guard, waited = waiting.pop()
        guard.after_fork(in_child=in_child, waited=waited)
    if held:
        _forking.release()
    elif in_child:
        _forking = threading.RLock()


def _in_child() -> None:
    _tokens.clear()
    _after_fork(in_child=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


def may_start_threads() -> bool:
    """Whether threads may be started: not while uWSGI loads the application, before it forks.

    uWSGI forks without Python's hooks. A thread that waits for the interpreter during the fork
    would make the forked worker wait forever.
    """
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or uwsgi.worker_id() or uwsgi.mule_id():
        return True
    is_spooler = getattr(uwsgi, "i_am_the_spooler", None)
    return is_spooler is not None and bool(is_spooler())


def block_signals() -> None:
    """Blocks uWSGI's signals in this thread and in those that it starts.

    uWSGI's handler ends the process from any thread, even while that sends an event.
    """
    if "uwsgi" in sys.modules:
        import signal  # Here, because few programs need it and the import is slow.

        ends = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)


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


def uninterrupted(function: F) -> F:
    """Returns a task's function, protected so that under trio, Ctrl-C interrupts the main task.

    An interrupt in a system task or its children is an internal error of trio.
    """
    if running_trio():
        import trio

        return trio.lowlevel.enable_ki_protection(function)
    return function


def running_loop() -> object:
    """Returns the event loop of the running task.

    Raises:
        RuntimeError: No event loop is running.
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


def has_ended(loop: Any) -> bool:
    """Whether an event loop no longer runs; False for trio's, which outlives all its tasks."""
    asyncio = sys.modules.get("asyncio")
    is_of_asyncio = asyncio is not None and isinstance(loop, asyncio.AbstractEventLoop)
    return is_of_asyncio and not loop.is_running()
