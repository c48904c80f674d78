"""Sends what is tracked from threads; of one process, as no thread survives a fork."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from intercom_data_events.errors import IntercomError, OutboxError
from intercom_data_events.event import Event
from intercom_data_events.sending import UnwantedError
from intercom_data_events.tracker._course import TICK, Counters, Course, GivenUp, unexpected

if TYPE_CHECKING:
    import httpx

    from intercom_data_events.clock import Alarm
    from intercom_data_events.connections import Pool
    from intercom_data_events.settings import Settings
    from intercom_data_events.tracker._course import WhenFull
    from intercom_data_events.tracker._queue import Entry

log = logging.getLogger("intercom_data_events")

# Seconds between two looks at a queue that other processes empty, too.
_LOOK = 0.1


class Threads:
    """Carries out a course in threads, as many as it has a use for.

    Args:
        course: What to do when.
        pool: What to send through.
        settings: What requests are made with.
        when_full: What to do where the queue is full.
        on_error: Is called with each event that will not arrive, and why.
    """

    def __init__(
        self,
        course: Course,
        pool: Pool[httpx.Client],
        settings: Settings,
        when_full: WhenFull,
        on_error: Callable[[Event, IntercomError], object] | None,
    ) -> None:
        self._course = course
        self._pool = pool
        self._settings = settings
        self._when_full = when_full
        self._on_error = on_error
        # Entered again by a signal's handler, or the collector, that tracks an event.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._left = threading.Condition(self._lock)
        self._running = 0
        self._idle = 0
        self._closing = False
        self._keeper: Alarm | None = None
        if course.queue.lasts:
            # What earlier processes left is sent without anybody tracking more.
            self._look_after()

    def track(self, event: Event) -> None:
        """Takes in an event.

        Raises:
            QueueFullError: There is no room, and that is to be an error.
            OutboxError: It cannot be written.
            RuntimeError: The tracker is closed.
        """
        with self._lock:
            while True:
                if self._closing:
                    raise RuntimeError("the tracker is closed: make a new one")
                if self._course.track(event):
                    self._assign()
                    return
                if self._when_full != "block":
                    break
                self._left.wait(_LOOK if self._course.queue.lasts else None)
            error = self._course.drop(event)
        if self._when_full == "raise":
            raise error
        self._report([(event, error)])

    def flush(self, timeout: float | None, *, closing: bool = False) -> bool:
        """Waits until all that is queued now has left; whether it has."""
        course = self._course
        ends = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            course.hurry()
            self._look_around()
            mark = course.queue.mark()
            failing = course.failing
            while not course.queue.has_passed(mark):
                left = ends - time.monotonic()
                # What outlasts this process is not waited for while nothing gets through.
                away = closing and course.queue.lasts and course.failing is not failing
                if left <= 0 or course.stopped or (away and course.paused):
                    return False
                longest = _LOOK if course.queue.lasts else threading.TIMEOUT_MAX
                self._left.wait(min(left, longest))
        return True

    def close(self, timeout: float) -> bool:
        """Takes in nothing more, and sends what there is; whether that was in time."""
        with self._lock:
            if self._course.stopped:
                return True
            self._closing = True
            self._left.notify_all()
        done = False
        try:
            done = self.flush(timeout, closing=True)
        except OutboxError as error:
            log.error("the outbox cannot be used any longer: %s", error)  # noqa: TRY400
        finally:
            with self._lock:
                lost = list(self._stop())
        self._report(lost)
        return done

    def counters(self) -> Counters:
        """What there is to count."""
        with self._lock:
            return self._course.counters()

    def _stop(self) -> Iterable[GivenUp]:
        lost: list[GivenUp] = []
        try:
            lost.extend(self._course.stop())
        except OutboxError as error:
            log.warning("claims end by themselves: %s", error)
        self._idle = 0
        self._work.notify_all()
        self._left.notify_all()
        self._wake_keeper()
        self._close_when_over()
        return lost

    def _close_when_over(self) -> None:
        if self._course.stopped and not self._course.in_flight:
            self._course.queue.close()

    def _assign(self) -> None:
        """Has somebody send what can be sent."""
        if not self._course.has_room:
            return
        if self._idle:
            # Not idle from now on, although it does not know yet.
            self._idle -= 1
            self._work.notify()
        elif self._running < self._course.concurrency:
            self._running += 1
            try:
                threading.Thread(target=self._run, name="intercom-tracker", daemon=True).start()
            except RuntimeError:
                # No more threads can be had, as when the interpreter is ending.
                self._running -= 1
        if self._keeper is None:
            self._look_after()

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            error: IntercomError | None = None
            try:
                operation = self._course.operation(entry, self._begin)
                operation.perform(self._pool, self._settings)
            except UnwantedError:
                # It was given back as the tracker was closed.
                with self._lock, suppress(OutboxError, RuntimeError):
                    if entry in self._course.in_flight:
                        self._course.unsent(entry)
                    self._close_when_over()
                continue
            except IntercomError as failure:
                error = failure
            except BaseException as failure:  # noqa: BLE001  # no event is lost to a hook's error
                error = unexpected(failure)
            self._settle(entry, error)

    def _next(self) -> Entry | None:
        """Waits for something to send; None where there will be nothing more."""
        with self._lock:
            while not self._course.stopped:
                try:
                    entry = self._course.next()
                except OutboxError as error:
                    self._course.give_in(error)
                    entry = None
                if entry is not None:
                    return entry
                self._idle += 1
                self._work.wait()
            self._running -= 1
            return None

    def _begin(self, entry: Entry) -> bool:
        with self._lock:
            return self._course.begin(entry)

    def _settle(self, entry: Entry, error: IntercomError | None) -> None:
        given_up: GivenUp | None = None
        with self._lock:
            paused = self._course.paused
            try:
                given_up = self._course.ended(entry, error)
            except OutboxError as failure:
                self._course.give_in(failure, entry)
            if paused and not self._course.paused:
                self._wake_all()
            if error is not None:
                self._wake_keeper()
            self._left.notify_all()
            self._close_when_over()
        if given_up is not None:
            self._report([given_up])

    def _wake_all(self) -> None:
        for _ in range(min(self._course.concurrency, self._course.queue.size)):
            self._assign()

    def _look_around(self) -> None:
        """Does what time brings."""
        try:
            if self._course.look_around():
                self._wake_all()
        except OutboxError as error:
            self._course.give_in(error)

    def _look_after(self) -> None:
        """Begins the thread that looks at what time brings."""
        self._keeper = self._course.clock.alarm()
        with suppress(RuntimeError):  # The interpreter is ending.
            threading.Thread(target=self._keep, name="intercom-tracker-keeper", daemon=True).start()

    def _wake_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.set()

    def _keep(self) -> None:
        while True:
            with self._lock:
                if self._course.stopped:
                    return
                self._look_around()
                seconds = TICK if self._course.needs_looking_after else math.inf
                alarm = self._keeper = self._course.clock.alarm()
            with suppress(OutboxError):  # Told where it keeps anything from being sent.
                self._course.queue.tidy()
            alarm.wait(seconds)

    def _report(self, given_up: Iterable[GivenUp]) -> None:
        if self._on_error is None:
            return
        for event, error in given_up:
            try:
                self._on_error(event, error)
            except Exception:
                log.exception("on_error failed, about %s", event.event_name)
