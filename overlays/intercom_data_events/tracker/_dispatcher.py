"""Owns a tracker's scheduling state: accepts events, hands them out, and answers callers."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from attrs import define, field

from intercom_data_events._dispatch.quota import Quota
from intercom_data_events._dispatch.recent import RecentEvents
from intercom_data_events._identity import key
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import IntercomError, OutboxLockedError
from intercom_data_events.event import Event
from intercom_data_events.tracker._counters import is_worth_a_line
from intercom_data_events.tracker._queue import QueuedEvent
from intercom_data_events.tracker._scheduler import TICK, named, unexpected

if TYPE_CHECKING:
    from intercom_data_events._dispatch import Result, Workers
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Alarm, AsyncAlarm
    from intercom_data_events.tracker._reporter import Answer, Reporter
    from intercom_data_events.tracker._scheduler import Scheduler

# Seconds between two checks, while a caller waits, of a queue that other processes empty, too.
_LOOK = 0.1
#: Seconds for which to retry, and between two attempts, if SQLite itself does not wait for a locked
#: outbox.
PATIENCE = 5.0
TURN = 0.005


@define(eq=False)
class Request:
    """A call of `flush` or `close`.

    Attributes:
        kind: "flush" or "close"; "stop" ends a close that has run out of time.
        answer: What the caller waits for.
        ends: Its deadline, by the system's monotonic clock.
        mark: The number of the last event that it waits for, once known.
        failing: Why nothing was sent when the call began, or None.
        is_abandoned: Whether the caller has given up waiting.
    """

    kind: Literal["flush", "close", "stop"]
    answer: Answer
    ends: float = math.inf
    mark: int = field(default=0, init=False)
    failing: IntercomError | None = field(default=None, init=False)
    is_abandoned: bool = field(default=False, init=False)


class TrackerDispatcher:
    """Runs a tracker's scheduler; see :class:`~intercom_data_events._dispatch.Dispatcher`.

    Args:
        scheduler: Decides which event is sent next.
        session: The connections to send through.
        settings: The settings of the requests.
        reporter: Calls `on_error` and logs.
        wake: Schedules a step.
        checkpoint: Starts the queue's checkpoint.
        in_threads: Whether threads send. If so, SQLite itself waits for a locked outbox, and the
            dispatcher waits for requests in flight after it has stopped.

    Attributes:
        requests: New calls of `flush` and `close`.
        tracked: New events that the queue has taken in.
        waiting_for_room: The alarms of threads or tasks that found the queue full.
        collisions: Events that Intercom treats as duplicates of one tracked shortly before.
        drained: Whether nothing was left when the dispatcher stopped.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        session: Session[Any],
        settings: Settings,
        reporter: Reporter,
        wake: Callable[[], object],
        checkpoint: Callable[[], object],
        *,
        in_threads: bool,
    ) -> None:
        self._scheduler = scheduler
        self._session = session
        self._reporter = reporter
        self._checkpoint = checkpoint
        self._in_threads = in_threads
        self._quota = Quota(session, settings, wake, self._announce)
        self.requests = deque[Request]()
        self.tracked = deque[Event]()
        self.waiting_for_room = deque["Alarm | AsyncAlarm"]()
        self.collisions = 0
        self.drained = False
        self._recent = RecentEvents()
        self._unsettled = deque["Result[QueuedEvent]"]()
        self._waiting: list[Request] = []
        self._locked_since: float | None = None
        self._maintained_at = -math.inf
        self._has_ended = False

    def step(self, workers: Workers[QueuedEvent]) -> float | None:
        """Collects everything new, and hands out the events that can be sent now."""
        if self._has_ended:
            self._refuse_requests()
            return None
        try:
            self._take_tracked()
            self._settle(workers)
            self._take_requests()
            self._run_maintenance()
            seconds = self._hand_out(workers)
            self._answer()
            if self._reporter.needs_thread():
                seconds = min(seconds, TICK)
            if self.tracked and not self._scheduler.may_claim:
                seconds = 0.0  # An event came after the queue was found empty, and woke nothing.
        except OutboxLockedError:
            seconds = TURN  # The next step begins again where this one failed.
        else:
            self._locked_since = None
        if self._scheduler.stopped and not (self._in_threads and self._in_flight_counts):
            self.end()
            return None
        return seconds

    def end(self) -> None:
        """Ends at once, without waiting for requests in flight."""
        if self._has_ended:
            return
        if not self._scheduler.stopped:
            self._stop(drained=False)
        for queued in list(self._scheduler.in_flight):
            if self._scheduler.queue.durable:
                self._scheduler.give_back(queued)
        self._has_ended = True
        self._scheduler.queue.close()
        self._refuse_requests()

    # Steps.

    def _take_tracked(self) -> None:
        while self.tracked:
            self._scheduler.may_claim = True
            event = self.tracked.popleft()
            known = key(event)
            if not self._recent.has(known):
                self._recent.add(known)
                continue
            self.collisions += 1
            if is_worth_a_line(self.collisions):
                self._reporter.say(
                    logging.WARNING,
                    "%s was tracked twice for one contact in one second, which Intercom counts as "
                    "one event; collisions so far: %d",
                    named(event), self.collisions,
                )  # fmt: skip

    def _settle(self, workers: Workers[QueuedEvent]) -> None:
        self._unsettled.extend(workers.results())
        while self._unsettled:
            result = self._unsettled[0]
            error = None if result.error is None else self._as_ours(result.error)
            try:
                given_up = self._scheduler.ended(result.item, error)
            except Exception as failure:  # noqa: BLE001  # whatever it is, sending continues
                self._raise_if_passing(failure)
                self._scheduler.give_in(failure, result.item, accepted=error is None)
            else:
                if given_up is not None:
                    self._reporter.give_up(*given_up)
            self._unsettled.popleft()
            while self.waiting_for_room:
                self.waiting_for_room.popleft().set()

    def _take_requests(self) -> None:
        while self.requests:
            request = self.requests[0]
            scheduler = self._scheduler
            if scheduler.stopped:
                request.answer.give(self.drained)
            elif request.kind == "stop":
                self._stop(drained=False)
                request.answer.give(False)
            else:
                scheduler.closing |= request.kind == "close"
                request.failing = scheduler.failing
                try:
                    scheduler.release_delayed()
                    self._maintained_at = -math.inf
                    request.mark = scheduler.queue.high_watermark()
                    self._waiting.append(request)
                except Exception as error:  # noqa: BLE001  # raised to the caller
                    self._raise_if_passing(error)
                    self._fail(request, error)
            self.requests.popleft()

    def _run_maintenance(self) -> None:
        scheduler = self._scheduler
        if scheduler.stopped or self._until_maintenance > 0:
            return
        try:
            scheduler.run_maintenance()
        except Exception as error:  # noqa: BLE001  # whatever it is, sending continues later
            self._raise_if_passing(error)
            scheduler.give_in(error)
        self._maintained_at = scheduler.clock.monotonic()
        if scheduler.queue.needs_checkpoint():
            self._checkpoint()

    def _hand_out(self, workers: Workers[QueuedEvent]) -> float:
        """Hands out what can be sent now; returns the seconds until the next step is due."""
        scheduler = self._scheduler
        try:
            while scheduler.has_next and workers.is_ready():
                seconds = self._quota.acquire()
                if seconds > 0:
                    # No sooner, even when a pause ends: only quota is missing.
                    return max(0.0, min(seconds, TICK, self._until_maintenance))
                reservation = self._quota.take()
                queued: QueuedEvent | None = None
                try:
                    queued = scheduler.next(reservation)
                finally:
                    if queued is None:
                        self._session.release(reservation)
                if queued is None:
                    break
                workers.submit(queued)
            self._quota.cancel()  # No event needs the place in the queue for quota.
        except Exception as error:  # noqa: BLE001  # whatever it is, sending continues later
            self._raise_if_passing(error)
            scheduler.give_in(self._as_ours(error))
        return self._seconds

    def _answer(self) -> None:
        """Answers the calls of `flush` and `close` that have nothing more to wait for."""
        scheduler = self._scheduler
        self._waiting = [request for request in self._waiting if not request.is_abandoned]
        for request in self._waiting.copy():
            if scheduler.stopped:
                return  # An earlier request closed the tracker, which answered all of them.
            closing = request.kind == "close"
            if closing and not scheduler.queue.durable:
                # Include events that came while the tracker was closing: there is still time to
                # send them.
                request.mark = scheduler.queue.high_watermark()
            try:
                done = scheduler.is_drained(request.mark)
                over = self._session.closed or (
                    closing
                    and (
                        SYSTEM.monotonic() >= request.ends or scheduler.is_in_vain(request.failing)
                    )
                )
            except Exception as error:  # noqa: BLE001  # raised to the caller
                self._raise_if_passing(error)
                self._waiting.remove(request)
                self._fail(request, error)
                continue
            if not done and not over:
                continue
            self._waiting.remove(request)
            if closing:
                self._stop(drained=done)
                request.answer.give(done)  # The caller delivers the remaining reports itself.
            else:
                self._reporter.reply(request.answer, done)

    # Parts of the steps.

    def _as_ours(self, error: BaseException) -> IntercomError:
        """Returns the error if it is an IntercomError, else one whose cause it is."""
        if isinstance(error, IntercomError):
            return error
        return unexpected(error, closed=self._session.closed)

    def _fail(self, request: Request, error: Exception) -> None:
        if request.kind == "close":
            self._reporter.say(logging.ERROR, "the outbox can no longer be used: %s", error)
            self._stop(drained=False)
            request.answer.give(False)
        else:
            request.answer.give(False, error)

    def _stop(self, *, drained: bool) -> None:
        self.drained = drained
        self._quota.cancel()
        for given_up in self._scheduler.stop():
            self._reporter.give_up(*given_up)
        for request in self._waiting:
            request.answer.give(drained)
        self._waiting.clear()
        while self.waiting_for_room:
            self.waiting_for_room.popleft().set()

    def _refuse_requests(self) -> None:
        while self.requests:
            self.requests.popleft().answer.give(self.drained)

    def _raise_if_passing(self, error: Exception) -> None:
        """Raises an error that is likely to pass soon, so that the step is run again."""
        if self._in_threads or not isinstance(error, OutboxLockedError):
            return
        now = SYSTEM.monotonic()
        if self._locked_since is None:
            self._locked_since = now
        if now - self._locked_since < PATIENCE:
            raise error

    def _announce(self, seconds: float) -> None:
        self._reporter.say(logging.INFO, "an event waits up to %.2f s for the rate limit", seconds)

    @property
    def _in_flight_counts(self) -> bool:
        """Whether an event is in flight whose outcome can still be stored in an outbox."""
        return self._scheduler.queue.durable and bool(self._scheduler.in_flight)

    @property
    def _until_maintenance(self) -> float:
        interval = _LOOK if self._waiting and self._scheduler.queue.durable else TICK
        return self._maintained_at + interval - self._scheduler.clock.monotonic()

    @property
    def _seconds(self) -> float:
        seconds = self._scheduler.seconds
        return seconds if seconds == math.inf else max(0.0, min(seconds, self._until_maintenance))
