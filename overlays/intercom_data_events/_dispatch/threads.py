"""Runs a dispatcher in its own thread and in those of workers, one at a time.

Code here never waits for a lock or a thread if a signal handler, a finalizer or a forked child
would wait forever: a new thread may run the garbage collector before its starter continues, and
with it a finalizer that tracks, flushes or closes.
"""

from __future__ import annotations

import _thread
import math
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol

from intercom_data_events._dispatch import Dispatcher, Item, Result, context_of
from intercom_data_events._sending import operations
from intercom_data_events._sending.drivers import run
from intercom_data_events._sending.exchange import Exchange
from intercom_data_events._sending.runtime import block_signals, may_start_threads, this_process
from intercom_data_events.clock import SYSTEM

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import Engine
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Alarm

#: Seconds after which a waiting thread checks whether other threads are missing.
LOOK = 0.05
# Seconds after which a thread that does the work of missing ones looks for the next event.
_POLL = 0.001
# Seconds after which threads that were started, but do not run, may never run.
_UNBORN = 0.2


class Awaited(Protocol):
    """An event that a thread waits for."""

    @property
    def is_set(self) -> bool:
        """Whether it has happened."""
        ...

    @property
    def alarm(self) -> Alarm:
        """Ends the wait when it happens."""
        ...


def start_thread(target: Callable[[], None], name: str) -> bool:
    """Starts a thread without waiting for it; returns False if no thread can be started.

    ``Thread.start`` waits for the new thread, so another new thread calls it. Both start from an
    empty context.
    """
    if not may_start_threads():
        return False
    try:
        _thread.start_new_thread(_start, (target, name))
    except RuntimeError:
        return False
    return True


def _start(target: Callable[[], None], name: str) -> None:
    block_signals()
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    except RuntimeError:
        target()  # In this thread, because no other can be started.


class ThreadWorkers(Generic[Item]):
    """Threads that send a dispatcher's events, and one thread that waits for its next step.

    A worker that has sent runs the next step itself, if no other thread does, and so gets its next
    event without switching threads. Threads are started when there is something to do. If none can
    be started, for example when the interpreter exits, the threads that wait for the dispatcher do
    the work, by :meth:`assist`.

    Args:
        dispatcher: The dispatcher.
        session: The connections to send through.
        settings: The settings of the requests.
        name: The name of the threads.
        marked: Whether to set `ROLE` in them.
        load: Called first by each thread.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Item],
        session: Session[Engine],
        settings: Settings,
        name: str,
        *,
        marked: bool = False,
        load: Callable[[], None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._settings = settings
        self._name = name
        self._working = context_of("working") if marked else Context()
        self._sending = context_of("sending") if marked else Context()
        self._load = load
        # Under gevent, threads continue in a forked child, which owns none of this.
        self._process = this_process()
        # Threads only try to acquire it. The thread that has it owns the dispatcher's state; if
        # another one fails to get it, the owner runs one more step for it.
        self._gate = threading.Lock()
        self._is_news = False
        self._due = math.inf
        # The list in which a worker that asks for its next event gets it.
        self._asked: list[Item] | None = None
        # Held by the dispatcher's thread, which waits until a step is due.
        self._turnstile = threading.Lock()
        self._alarm: Alarm = SYSTEM.alarm()
        self._waits_until = math.inf
        self._is_dispatched = False
        self._tried_at = -math.inf
        # The class is looked up here, because gevent may have replaced it.
        self._work: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._results = deque[Result[Item]]()
        # For the thread that has the gate: how many events the workers have, and how many workers
        # were started.
        self._busy = 0
        self._started = 0
        # Threads that run, and threads that assist.
        self._threads = set[threading.Thread]()
        self._assistants = set[int]()
        self._unborn_since = math.inf
        #: Whether threads are missing because they could not be started.
        self.is_short = False
        #: Whether the dispatcher has ended.
        self.has_ended = False

    # For any thread, signal handler and finalizer.

    def notify(self) -> None:
        """Makes the dispatcher process news, if its thread runs."""
        self._alarm.set()

    def wake(self, *, urgent: bool = True) -> None:
        """Makes the dispatcher process news, and starts its thread if needed.

        Args:
            urgent: Whether to end its wait.
        """
        if urgent:
            self._alarm.set()
        if not self._is_dispatched and not self.has_ended:
            now = SYSTEM.monotonic()
            if now - self._tried_at >= LOOK:
                dispatch = partial(self._working.copy().run, self._dispatch)
                self.is_short = not start_thread(dispatch, f"{self._name}-dispatcher")
                self._tried_at = -math.inf if self.is_short else now

    def assist(self, seconds: float, awaited: Awaited) -> None:
        """Waits for a while, and does the work of missing threads.

        Args:
            seconds: The longest wait. A request from here takes no longer, either.
            awaited: The event that the thread waits for.
        """
        here = threading.get_ident()
        self._assistants.add(here)
        try:
            if not self._is_dispatched:
                self._working.copy().run(self._step)
                if awaited.is_set and not self._busy:
                    return
                self.wake()
                if awaited.is_set or self.has_ended:
                    return
            if not self.is_short and not self._is_unborn():
                # A step is cheap, and a thread waits, so no news is left for later.
                self.notify()
                awaited.alarm.wait(min(seconds, LOOK))
                return
            try:
                item = self._take(min(seconds, LOOK), awaited)
            except queue.Empty:
                return
            if item is None:
                self._work.put(None)  # It tells a worker to end.
            else:
                error = self._sending.copy().run(self._perform, item, seconds)
                self.wake()
                if error is not None and not isinstance(error, Exception):
                    raise error  # From a signal handler.
        finally:
            self._assistants.discard(here)

    def _take(self, seconds: float, awaited: Awaited) -> Item | None:
        """Takes the next event that no worker has taken.

        It polls: on Python 3.11 and 3.12, ``SimpleQueue.get`` with a timeout can wait forever if
        another thread takes the event that ended the wait.

        Raises:
            queue.Empty: There is none for that long, or the awaited event has happened.
        """
        ends = SYSTEM.monotonic() + seconds
        while self._work.empty() and not awaited.is_set and SYSTEM.monotonic() < ends:
            awaited.alarm.wait(_POLL)
        return self._work.get_nowait()

    def join(self, ends: float) -> None:
        """Waits until all threads have ended, or until a time of the system's monotonic clock."""
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                with suppress(RuntimeError, AssertionError):  # Python did not start it.
                    thread.join(max(0.0, min(ends - SYSTEM.monotonic(), threading.TIMEOUT_MAX)))

    # For the dispatcher, within a step.

    def is_ready(self) -> bool:
        """Whether a worker is free for one more event; starts one if needed."""
        if self._busy < self._started:
            return True
        self.is_short = not start_thread(partial(self._working.copy().run, self._run), self._name)
        if not self.is_short:
            self._started += 1
        return self._busy < self._started + len(self._assistants)

    def submit(self, item: Item) -> None:
        """Hands an event to a free worker."""
        self._busy += 1
        if self._asked is not None and not self._asked:
            self._asked.append(item)
        else:
            self._work.put(item)

    def results(self) -> Iterator[Result[Item]]:
        """Yields the results since the last call."""
        while self._results:
            self._busy -= 1
            yield self._results.popleft()
        while self._started < self._busy and self.is_ready() and not self.is_short:
            pass  # Starts workers that could not be started before.

    # For the threads themselves.

    def _dispatch(self) -> None:
        if not self._turnstile.acquire(blocking=False):
            return
        here = threading.current_thread()
        self._threads.add(here)
        self._is_dispatched = True
        clock = self._session.clock
        try:
            self._load()
            while True:
                # Before the step, so that news during it sets this alarm.
                self._alarm = alarm = clock.alarm()
                self._waits_until = math.inf
                self._step()
                if self.has_ended:
                    return
                self._waits_until = due = self._due
                left = due - clock.monotonic()
                if left > 0 or not self._is_news:
                    alarm.wait(left)
                # Another thread is running a step and then sets what is due. Until it has ended,
                # asking again and again would only slow it down.
                elif self._gate.acquire(timeout=LOOK):
                    self._gate.release()
                self._stay()
        finally:
            self._is_dispatched = False
            self._turnstile.release()
            self._threads.discard(here)

    def _step(self, asked: list[Item] | None = None) -> None:
        """Runs the dispatcher, or makes the thread that is running it do so once more.

        Args:
            asked: The list in which a worker gets an event to send now, if there is one.
        """
        self._is_news = True
        while self._is_news and not self.has_ended:
            held: list[bool] = []
            try:
                # In one call, so that an interrupt can neither lose the lock nor release it twice.
                held.extend(map(self._gate.acquire, (False,)))
                if held == [False]:
                    break
                self._asked = asked
                self._is_news = False
                seconds = self._dispatcher.step(self)
                if seconds is None:
                    self._end()
                    break
                self._due = self._session.clock.monotonic() + seconds
            finally:
                if held == [True]:
                    self._asked = None
                    self._gate.release()

    def _end(self) -> None:
        self.has_ended = True
        with suppress(queue.Empty):
            # Events that no worker has taken are no longer sent.
            while (item := self._work.get_nowait()) is not None:
                if item.reservation is not None:
                    self._session.release(item.reservation)
        for _ in range(self._started):
            self._work.put(None)
        self._alarm.set()

    def _run(self) -> None:
        here = threading.current_thread()
        self._threads.add(here)
        try:
            self._load()
            item = self._work.get()
            self._stay()
            while item is not None:
                self._sending.copy().run(self._perform, item, math.inf)
                self._stay()
                # Without switching to the dispatcher's thread, unless that is running a step.
                asked: list[Item] = []
                self._step(asked)
                if self._due < self._waits_until:
                    self.wake()
                item = asked[0] if asked else self._work.get()
                self._stay()
        finally:
            self._threads.discard(here)

    def _perform(self, item: Item, seconds: float) -> BaseException | None:
        error: BaseException | None = None
        settings = self._settings
        if seconds < settings.deadline:
            settings = settings.changed(deadline=max(seconds, 0.001))
        try:
            exchange = Exchange(operations.send(item.event), self._session, settings)
            run(exchange.steps(item.reservation), self._session)
        except BaseException as failure:  # noqa: BLE001  # the dispatcher decides
            error = failure
        if not self._is_forked():
            self._results.append(Result(item, error))
        return error

    def _is_forked(self) -> bool:
        return this_process() is not self._process

    def _stay(self) -> None:
        """Returns, except in a forked child, in which a gevent thread that ends is an error."""
        if self._is_forked():
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()

    @property
    def lacks_all(self) -> bool:
        """Whether nothing is sent because no threads can be started."""
        lacks_workers = len(self._threads) <= self._is_dispatched
        return self.is_short and (lacks_workers or not self._is_dispatched)

    @property
    def _lacks_threads(self) -> bool:
        return not self._is_dispatched or len(self._threads) - 1 < min(self._started, self._busy)

    def _is_unborn(self) -> bool:
        """Whether threads that were started a while ago do not run, and so may never run."""
        if not self._lacks_threads:
            self._unborn_since = math.inf
            return False
        now = SYSTEM.monotonic()
        self._unborn_since = min(self._unborn_since, now)
        return now - self._unborn_since >= _UNBORN
