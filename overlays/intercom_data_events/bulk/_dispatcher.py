"""Owns the scheduling state of `create_many`: processes input and results, hands out events."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from intercom_data_events._dispatch.concurrency import Concurrency, Rate
from intercom_data_events._dispatch.quota import Quota
from intercom_data_events.bulk._scheduler import (
    UNREAD,
    Counts,
    EventLike,
    Outcome,
    QueuedEvent,
    Scheduler,
    read_event,
)
from intercom_data_events.errors import APIConnectionError, IntercomError, InvalidInputError

if TYPE_CHECKING:
    from intercom_data_events._dispatch import Result, Workers
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.event import Event

log = logging.getLogger("intercom_data_events")


class BulkDispatcher:
    """The :class:`~intercom_data_events._dispatch.Dispatcher` of one ``create_many``.

    The consumer reads the input and the outcomes: any thread, or any task of the event loop. It may
    continue during a step, and never waits for one.

    Args:
        most: The largest number of requests in flight.
        rate: The bound of events per second.

    Attributes:
        waiting: Alarms of consumers that wait for an outcome, a request for input, or the end.
        readers: Alarms of consumers that wait only for a request for input.
        has_ended: Whether there will be no more outcomes than those waiting to be read.
        was_used: Whether a consumer asked for an outcome or closed it.
    """

    def __init__(self, most: int, rate: Rate) -> None:
        self._most = most
        self._rate = rate
        self._scheduler = Scheduler(Concurrency(most))
        self._quota: Quota | None = None
        self._wake: Callable[[], object] = lambda: None
        self._input = deque[tuple[EventLike, "Event | InvalidInputError"]]()
        self._input_has_ended = False
        self._input_error: BaseException | None = None
        # How many events of the input were taken, and how many are wanted in total.
        self._taken = 0
        self._wanted = self._scheduler.wanted
        self._is_full = False
        self._is_closed = False
        self.waiting = deque[Any]()
        self.readers = deque[Any]()
        self.has_ended = False
        self.was_used = False

    def connect(
        self,
        session: Session[Any],
        settings: Settings,
        wake: Callable[[], object],
        few: float | None = None,
    ) -> None:
        """Sets the connections that it sends through; called once, before the first step.

        Args:
            session: The connections.
            settings: The settings of the requests.
            wake: Makes the pool run a step.
            few: Requests that may wait for each other; None for the default.
        """
        self._wake = wake
        self._quota = Quota(session, settings, wake, _announce)
        if few is not None:
            self._scheduler.concurrency = Concurrency(self._most, few)

    # For the consumer.

    @property
    def wants_input(self) -> bool:
        """Whether the consumer should read one more event of the input, or its end."""
        return self._taken + len(self._input) < self._wanted and not self._input_has_ended

    @property
    def has_begun(self) -> bool:
        """Whether any of the input was read."""
        return bool(self._taken or self._input)

    @property
    def counts(self) -> Counts:
        """How many outcomes there were."""
        return self._scheduler.counts

    @property
    def state(self) -> str:
        """Its state, in at most two words."""
        if not self.was_used:
            return "not started"
        return "ended" if self.has_ended else "sending"

    @property
    def in_flight(self) -> int:
        """How many events the workers have."""
        return len(self._scheduler.in_flight)

    @property
    def is_idle(self) -> bool:
        """Whether more could be sent now, before another result."""
        return self.in_flight < self._scheduler.concurrency.limit

    def has_news(self, *, reads: bool = True) -> bool:
        """Whether the consumer has something to do, such as reading the input."""
        return bool(self._scheduler.outcomes) or self.has_ended or (reads and self.wants_input)

    def put(self, item: EventLike) -> None:
        """Adds the next event of the input."""
        self._input.append((item, read_event(item)))

    def end_input(self, error: BaseException | None = None) -> None:
        """Ends the input; its error, if any, is raised after all outcomes."""
        self._input_error = error
        self._input_has_ended = True

    def outcome(self, end: type[Exception]) -> Outcome | None:
        """Returns the next outcome; None if it is not known yet.

        Raises:
            BaseException: The error that stopped it, once; `end` if there are no more outcomes.
        """
        self.was_used = True
        if self._is_closed:
            raise end()
        has_ended = self.has_ended  # Read first, because the last outcomes come before the end.
        scheduler = self._scheduler
        try:
            found: Outcome | None = scheduler.outcomes.popleft()
        except IndexError:
            found = None
        if found is None and has_ended:
            error = scheduler.fatal or self._input_error or end()
            scheduler.fatal = self._input_error = None
            raise error
        if self._is_full and len(scheduler.outcomes) < UNREAD:
            self._is_full = False
            self._wake()
        return found

    def stop(self, error: BaseException | None = None) -> None:
        """Starts no more requests; for any thread, signal handler and finalizer."""
        self._scheduler.stop(error)
        self.has_ended = True
        _set_all(self.waiting)

    def close(self) -> None:
        """Starts no more requests, and drops outcomes that are not read or not known yet."""
        self._is_closed = self.was_used = True
        self.stop()
        self._scheduler.outcomes.clear()

    def end(self) -> None:
        """Ends instead of a last step, after the tasks were cancelled."""
        unfinished = not self._scheduler.finished
        said = "create_many was cancelled before it had sent all events"
        self.stop(RuntimeError(said) if unfinished else None)
        if self._quota is not None:
            self._quota.cancel()

    # For the pool.

    def step(self, workers: Workers[QueuedEvent]) -> float | None:
        """Processes all news, and hands out the events that can be sent now."""
        scheduler = self._scheduler
        seconds = math.inf
        try:
            for result in workers.results():
                self._settle(result)
            # After the results: see `is_idle`.
            self._take_input()
            seconds = self._hand_out(workers)
        except Exception as error:  # noqa: BLE001  # raised to the consumer
            scheduler.stop(error)
        if more := scheduler.wanted:
            self._wanted = max(self._wanted, self._taken + more)
        self._is_full = len(scheduler.outcomes) >= UNREAD
        self.has_ended = scheduler.finished
        if self.waiting and self.has_news():
            _set_all(self.waiting)
        if self.readers and self.wants_input:
            _set_all(self.readers)
        if not self.has_ended:
            return seconds
        if self._quota is not None:
            self._quota.cancel()
        return None

    def _settle(self, result: Result[QueuedEvent]) -> None:
        queued, error = result.item, result.error
        if error is not None and not isinstance(error, IntercomError):
            self._scheduler.stop(error)
            return
        latency = 0.0  # Unless there was an answer.
        if queued.reservation is not None and not isinstance(error, APIConnectionError):
            latency = queued.reservation.latency
        self._scheduler.done(queued, error, latency)

    def _take_input(self) -> None:
        ended = self._input_has_ended  # Read first, because no event comes after the end.
        while self._input:
            self._scheduler.take(*self._input.popleft())
            self._taken += 1
        if ended and not self._scheduler.exhausted:
            self._scheduler.end_input()

    def _hand_out(self, workers: Workers[QueuedEvent]) -> float:
        """Hands out the events that can be sent now; returns the seconds until the next step."""
        assert self._quota is not None  # noqa: S101  # connected
        scheduler = self._scheduler
        while scheduler.has_next and workers.is_ready():
            seconds = self._rate.wait() or self._quota.acquire()
            if seconds > 0:
                return seconds
            queued = scheduler.next(self._quota.take())
            self._rate.note()
            workers.submit(queued)
        # A place in the queue for quota would delay the requests behind it.
        self._quota.cancel()
        return math.inf


def _set_all(waiting: deque[Any]) -> None:
    while waiting:
        with suppress(IndexError):  # Another thread does the same.
            waiting.popleft().set()


def _announce(seconds: float) -> None:
    log.info("an event waits up to %.2f s for the rate limit", seconds)
