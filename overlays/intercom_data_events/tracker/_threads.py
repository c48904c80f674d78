"""Sends what is tracked from threads; of one process, as no thread survives a fork.

A signal's handler, or the collector, can track, flush and close between any two steps of a thread
that does so as well; or raise an error there. Whoever waits has everybody woken up before, so that
a step that was left out holds up nothing for good.
"""

from __future__ import annotations

import _thread
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from attrs import evolve

from intercom_data_events._sending import operations
from intercom_data_events._sending.drivers import run
from intercom_data_events._sending.exchange import Exchange, reserve
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import IntercomError, OutboxError
from intercom_data_events.event import Event
from intercom_data_events.tracker._course import (
    REPORTING,
    TICK,
    Counters,
    Course,
    GivenUp,
    named,
    unexpected,
)
from intercom_data_events.tracker._preload import load

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import Engine
    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Alarm
    from intercom_data_events.tracker._course import WhenFull
    from intercom_data_events.tracker._queue import QueuedEvent

log = logging.getLogger("intercom_data_events")

# Seconds between two looks at a queue that other processes empty, too, or that nobody looks after.
_LOOK = 0.1
# Seconds for which a worker waits, at most, until no other one waits for the lock.
_IN_LINE = 0.01


class Threads:
    """Carries out a course in threads, as many as it has a use for.

    Args:
        course: What to do when.
        session: What to send through.
        settings: What requests are made with.
        when_full: What to do where the queue is full.
        on_error: Is called with each event that will not arrive, and why.
    """

    def __init__(
        self,
        course: Course,
        session: Session[Engine],
        settings: Settings,
        when_full: WhenFull,
        on_error: Callable[[Event, IntercomError], object] | None,
    ) -> None:
        self._course = course
        self._session = session
        self._settings = settings
        self._when_full = when_full
        self._on_error = on_error
        # The queue's own, so that a signal's handler that waits, in the midst of its use, does not
        # keep from it whom it waits for.
        self._lock = course.queue.lock
        self._work = threading.Condition(self._lock)
        self._left = threading.Condition(self._lock)
        # Workers get the lock by this.
        self._line = _Line(self._lock)
        # What there is to log once the lock has been left: whoever handles a line may take a while,
        # and wait for another thread that tracks an event meanwhile.
        self._lines = deque[tuple[int, str, *tuple[object, ...]]]()
        course.say = lambda *line: self._lines.append(line)
        self._workers = set[threading.Thread]()
        # Where a signal's handler came while one was being started, it is kept until after that.
        self._starting = set[threading.Thread]()
        self._idle = 0
        # Those that are in on_error, by their numbers; and how many of them wait in there for what
        # others have to do.
        self._reporting = set[int]()
        self._aside = 0
        self._closing = False
        self._drained = False
        self._keeper: threading.Thread | None = None
        self._alarm: Alarm | None = None
        self._dozes = False
        if course.queue.durable and course.queue.size:
            # What earlier processes left is sent without anybody tracking more. Where there is
            # nothing, there is no thread before something is tracked: this process may fork.
            with self._lock:
                self._look_after()

    def track(self, event: Event) -> None:
        """Takes in an event.

        Raises:
            QueueFullError: There is no room, and that is to be an error.
            OutboxError: It cannot be written.
            RuntimeError: The tracker is closed.
        """
        given_up: list[GivenUp] = []
        try:
            with self._lock:
                while True:
                    if self._closing:
                        raise RuntimeError("the tracker is closed: make a new one")
                    if self._course.track(event):
                        self._assign()
                        self._look_after()
                        break
                    if self._when_full != "block":
                        given_up.append((event, self._course.drop(event)))
                        break
                    with self._stepped_aside():
                        self._left.wait(_LOOK if self._course.queue.durable else None)
                if self._course.stopped:
                    # By a signal's handler, in the midst of this.
                    given_up += self._course.stop()
        finally:
            self._speak()
        if given_up and self._when_full == "raise":
            raise given_up[0][1]
        self._report(given_up)

    def flush(self, timeout: float | None, *, closing: bool = False) -> bool:
        """Waits until all that is queued now has left; whether it has."""
        course = self._course
        ends = math.inf if timeout is None else SYSTEM.monotonic() + timeout
        try:
            with self._lock, self._stepped_aside():
                if course.stopped:
                    return self._drained
                failing = course.failing
                course.hurry()
                self._look_around()
                mark = course.queue.high_watermark()
            # Without any, as when the interpreter is ending, it is sent from here.
            staffed = True
            while True:
                with self._lock, self._stepped_aside():
                    if course.stopped:
                        return self._drained
                    if not self._reporting and course.has_passed(mark):
                        return True
                    left = ends - SYSTEM.monotonic()
                    if left <= 0 or self._session.closed:
                        return False  # Nothing can be sent any longer.
                    if closing and not self._reporting and course.is_in_vain(failing):
                        return False
                    if staffed:
                        self._wait_for_others(left)
                    staffed = self._staff > 0
                staffed = staffed or not self._send_here(ends)
        finally:
            self._speak()

    def close(self, timeout: float) -> bool:
        """Takes in nothing more, and sends what there is; whether that was in time."""
        ends = SYSTEM.monotonic() + timeout
        with self._lock:
            if self._course.stopped:
                return self._drained
            self._closing = True
            self._left.notify_all()
        done = False
        try:
            done = self.flush(timeout, closing=True)
        except OutboxError as error:
            log.error("the outbox cannot be used any longer: %s", error)  # noqa: TRY400
        finally:
            with self._lock:
                lost = self._stop(drained=done)
            self._speak()
            self._report(lost)
        if done:
            self._see_off(ends)
        return done

    def counters(self) -> Counters:
        """What there is to count."""
        with self._lock:
            return self._course.counters()

    def _stop(self, *, drained: bool) -> list[GivenUp]:
        lost: list[GivenUp] = []
        if not self._course.stopped:
            self._drained = drained
            lost = self._course.stop()
        self._idle = 0
        self._work.notify_all()
        self._left.notify_all()
        self._wake_keeper()
        self._close_when_over()
        return lost

    def _close_when_over(self) -> None:
        if self._course.stopped and not self._course.in_flight:
            self._course.queue.close()

    def _see_off(self, ends: float) -> None:
        """Waits until its threads have ended, so that nothing of it is left."""
        with self._lock:
            leaving = self._threads()
            while self._threads() and (left := ends - SYSTEM.monotonic()) > 0:
                self._left.wait(min(left, threading.TIMEOUT_MAX))
            leaving -= self._threads()
        for thread in leaving:
            if thread.ident is None:
                continue  # The thread could not be started.
            thread.join(max(0.0, min(ends - SYSTEM.monotonic(), threading.TIMEOUT_MAX)))

    def _threads(self) -> set[threading.Thread]:
        """Those that go on, but for the one that asks."""
        keeper = () if self._keeper is None else (self._keeper,)
        return {*self._workers, *keeper} - self._starting - {threading.current_thread()}

    @property
    def _staff(self) -> int:
        """How many threads send."""
        return len(self._workers - self._starting) - self._aside

    def _wait_for_others(self, seconds: float) -> None:
        looks = self._course.queue.durable or not self._staff
        self._left.wait(min(seconds, _LOOK if looks else threading.TIMEOUT_MAX))

    def _assign(self) -> None:
        """Has somebody send what can be sent."""
        if not self._course.has_room:
            return
        if self._idle:
            # Not idle from now on, although it does not know yet.
            self._idle -= 1
            self._work.notify()
        else:
            self._hire()

    def _wake_all(self) -> None:
        """Has as many send as there are events."""
        self._idle = 0
        self._work.notify_all()
        for _ in range(self._course.queue.size - self._staff):
            if not self._hire():
                break

    def _hire(self) -> bool:
        """Begins one more thread; whether it did."""
        if self._staff >= self._course.concurrency:
            return False
        worker = self._thread(self._run, "intercom-tracker")
        started = False
        try:
            self._workers.add(worker)
            started = self._start(worker)
        finally:
            if not started:  # Also where a handler's error came in between.
                self._workers.discard(worker)
        return started

    def _thread(self, target: Callable[[], None], name: str) -> threading.Thread:
        """Makes a thread that counts for nothing until it is started."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._starting.add(thread)
        return thread

    def _start(self, thread: threading.Thread) -> bool:
        """Starts a thread; returns False if no more threads can be started.

        The caller holds the lock, so another thread starts it: Thread.start waits for the new
        thread, which may first run the garbage collector, and a finalizer may need this lock.
        """
        try:
            _thread.start_new_thread(self._start_without_lock, (thread,))
        except RuntimeError:
            return False
        finally:
            self._starting.discard(thread)
        return True

    def _start_without_lock(self, thread: threading.Thread) -> None:
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._workers.discard(thread)
                if self._keeper is thread:
                    self._keeper = None
                self._left.notify_all()

    def _run(self) -> None:
        try:
            load(self._session)
            while self._prepared():
                if (entry := self._next(math.inf, self._line, waits=True)) is not None:
                    self._deal_with(entry, self._settings, self._line)
        finally:
            with self._lock:
                self._workers.discard(threading.current_thread())
                self._left.notify_all()

    def _send_here(self, ends: float) -> bool:
        """Sends from the thread that waits, for no longer than that; whether there was anything."""
        with self._lock:
            self._look_around()
            left = ends - SYSTEM.monotonic()
            if self._staff > 0 or left <= 0 or not self._prepare():
                return False
        entry = self._next(left, self._lock, waits=False)
        left = ends - SYSTEM.monotonic()
        if entry is None:
            return False
        settings = evolve(self._settings, deadline=min(self._settings.deadline, max(left, 0.001)))
        self._deal_with(entry, settings, self._lock)
        return True

    def _prepared(self) -> bool:
        """Waits until there is something to send; False where there will be nothing more."""
        with self._line:
            while not self._course.stopped:
                if self._prepare():
                    return True
                self._idle += 1
                self._work.wait()
            return False

    def _prepare(self) -> bool:
        try:
            return self._course.prepare(threading.get_ident())
        except Exception as error:  # noqa: BLE001  # whatever it is, sending goes on after a while
            self._course.give_in(error)
            return False

    def _next(
        self, seconds: float, lock: AbstractContextManager[object], *, waits: bool
    ) -> QueuedEvent | None:
        """Acquires quota, within so many seconds, and then takes what to send.

        Where there is nothing, it waits until there may be, if it `waits`.
        """
        course, here = self._course, threading.get_ident()
        reservation: Reservation | None = None
        entry: QueuedEvent | None = None
        problem: Exception | None = None
        try:
            steps = reserve(self._session, self._settings, seconds)
            reservation = run(steps, self._session)
        except Exception as error:  # noqa: BLE001  # sending goes on after a while
            ours = isinstance(error, IntercomError)
            problem = error if ours else unexpected(error, closed=self._session.closed)
        except BaseException:
            # Of a signal's handler, in a thread that flushes.
            with self._lock:
                course.preparing.discard(here)
            raise
        with lock:
            try:
                entry = course.next(here, reservation)
            except Exception as error:  # noqa: BLE001  # as above
                problem = error
            course.preparing.discard(here)
            if problem is not None:
                course.give_in(problem)
            if entry is None:
                if reservation is not None:
                    self._session.release(reservation)
                if waits and not course.stopped:
                    self._idle += 1
                    self._work.wait()
        return entry

    def _deal_with(
        self, entry: QueuedEvent, settings: Settings, lock: AbstractContextManager[object]
    ) -> None:
        """Sends an event, and sees to what becomes of it."""
        error: IntercomError | None = None
        try:
            exchange = Exchange(operations.send(entry.event), self._session, settings)
            run(exchange.steps(entry.reservation), self._session)
        except IntercomError as failure:
            error = failure
        except BaseException as failure:  # noqa: BLE001  # no event is lost to a hook's error
            error = unexpected(failure, closed=self._session.closed)
        self._settle(entry, error, lock)

    def _settle(
        self, entry: QueuedEvent, error: IntercomError | None, lock: AbstractContextManager[object]
    ) -> None:
        given_up: GivenUp | None = None
        with lock:
            paused = self._course.paused
            try:
                given_up = self._course.ended(entry, error)
            except Exception as failure:  # noqa: BLE001  # whatever it is, sending goes on
                self._course.give_in(failure, entry, accepted=error is None)
            if paused and not self._course.paused:
                self._wake_all()
            if error is not None:
                self._wake_keeper()
            if given_up is not None:
                self._reporting.add(threading.get_ident())
            self._left.notify_all()
            self._close_when_over()
        try:
            self._speak()
        finally:
            if given_up is not None:
                self._tell(given_up)

    def _tell(self, given_up: GivenUp) -> None:
        """Has on_error called; whoever waits, waits until then."""
        try:
            self._report([given_up])
        finally:
            with self._lock:
                self._reporting.discard(threading.get_ident())
                self._left.notify_all()

    @contextmanager
    def _stepped_aside(self) -> Generator[None]:
        """Has others do the work of a worker that waits for it, as on_error may."""
        here = threading.get_ident()
        if here not in self._reporting:
            yield
            return
        self._reporting.discard(here)
        self._aside += 1
        self._wake_all()
        self._left.notify_all()
        try:
            yield
        finally:
            self._aside -= 1
            self._reporting.add(here)

    def _look_around(self) -> None:
        """Does what time brings."""
        try:
            if self._course.look_around():
                self._wake_all()
        except Exception as error:  # noqa: BLE001  # whatever it is, sending goes on after a while
            self._course.give_in(error)

    def _look_after(self) -> None:
        """Sees to it that there is a thread that looks at what time brings."""
        if self._keeper is not None:
            if self._dozes:
                self._wake_keeper()
            return
        started = False
        try:
            self._keeper = self._thread(self._keep, "intercom-tracker-keeper")
            started = self._start(self._keeper)
        finally:
            if not started:
                self._keeper = None

    def _wake_keeper(self) -> None:
        if self._alarm is not None:
            self._dozes = False
            self._alarm.set()

    def _keep(self) -> None:
        while True:
            with self._lock:
                if self._keeper is not threading.current_thread():
                    return  # A handler's error made it seem as if this one had not started.
                if self._course.stopped:
                    self._keeper = None
                    self._left.notify_all()
                    return
                self._look_around()
                self._dozes = not self._course.needs_looking_after
                seconds = math.inf if self._dozes else TICK
                alarm = self._alarm = self._course.clock.alarm()
            self._speak()
            try:
                self._course.queue.checkpoint()
            except Exception:  # told where it keeps anything from being sent
                log.debug("tidying up failed", exc_info=True)
            alarm.wait(seconds)

    def _speak(self) -> None:
        """Logs what there is to log."""
        with suppress(IndexError):  # Another thread may be quicker.
            while self._lines:
                level, message, *arguments = self._lines.popleft()
                log.log(level, message, *arguments)

    def _report(self, given_up: Iterable[GivenUp]) -> None:
        if self._on_error is None or REPORTING.get():
            return
        reporting = REPORTING.set(True)
        try:
            for event, error in given_up:
                try:
                    self._on_error(event, error)
                except Exception:
                    log.exception("on_error failed, about %s", named(event))
        finally:
            REPORTING.reset(reporting)


class _Line:
    """A lock for which one thread waits at a time.

    Whoever else wants the lock then waits for one of them, not for all: locks do not go to who has
    waited longest. Not for a thread that a signal's handler may interrupt.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._turn = threading.Lock()

    def __enter__(self) -> None:
        # For a while only: what the collector ends may come in between, and wait for the others.
        first = self._turn.acquire(timeout=_IN_LINE)
        self._lock.acquire()
        if first:
            self._turn.release()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
