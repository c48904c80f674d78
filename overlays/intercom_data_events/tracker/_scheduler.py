"""Decides which tracked event is sent next, what becomes of it, and when sending pauses.

It does no I/O except through its queue, and has one owner, the dispatcher.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from intercom_data_events._counting import counted
from intercom_data_events._dispatch.concurrency import Concurrency
from intercom_data_events._identity import person
from intercom_data_events._sending.causes import lay_bare, place_of
from intercom_data_events._sending.logs import reason_of
from intercom_data_events._sending.retry import (
    OTHERS,
    ErrorClass,
    backoff,
    classify,
    is_unknown_contact,
)
from intercom_data_events._validation import short_repr
from intercom_data_events.errors import (
    APIConnectionError,
    APIResponseError,
    ConfigurationError,
    IntercomError,
    NotSentError,
    OutboxError,
)
from intercom_data_events.event import Event
from intercom_data_events.tracker._counters import Count

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events.clock import Clock
    from intercom_data_events.tracker._queue import Queue, QueuedEvent

#: An event that will not arrive, and why.
GivenUp: TypeAlias = tuple[Event, IntercomError]

#: Seconds between two rounds of maintenance; a request that takes longer counts as hanging.
TICK = 1.0
# Intercom counts as unavailable after this many different events failed since its last answer.
_UNAVAILABLE = 3
# Seconds: the longest pause, and the longest delay of one event.
_LONGEST_PAUSE = 30.0
_LONGEST_DELAY = 600.0
# The longest delay of an event of an unknown contact: contacts are created within seconds.
_LONGEST_UNKNOWN = 30.0
# The jitter, as a part of each backoff: queued events have no deadline, but must not be retried all
# at once.
_JITTER = 0.25
# Twice the CPU seconds that it takes to send an event, so that the concurrency leaves half of the
# interpreter's time to the application.
_COST = 0.002
# Seconds of a window of the rate limit, and the share of it for events of unknown contacts.
_WINDOW = 10.0
_UNKNOWN_SHARE = 0.25
_MOST_SUSPECTS = 10_000


@define(eq=False)
class Scheduler:
    """Decides which event is sent next, and what becomes of it.

    After a few events in a row failed temporarily, one event at a time probes whether Intercom is
    available again, at growing intervals, until any answer arrives. A systemic failure, such as a
    revoked token, is probed in the same way, with events of different contacts.

    If the queue cannot be used, methods raise its OutboxError and change nothing. The caller can
    call them again, or :meth:`give_in`.

    Args:
        queue: Where the events wait.
        clock: The client's clock.
        most: The largest number of requests in flight.
        patience: Seconds for which a contact may be unknown.
        limit: Returns the requests that this client may send in one window of the rate limit, or
            None.
        say: Logs a line.

    Attributes:
        sent: Events that were accepted.
        refused: Events that were rejected.
        dropped: The number of dropped events.
        failing: Why nothing is sent at the moment, or None.
        in_flight: The events that workers have.
        stopped: Whether nothing more is handed out.
        closing: Whether the tracker accepts no more events.
        may_claim: Whether the queue may have something to claim.
    """

    queue: Queue
    clock: Clock
    most: int
    patience: float
    limit: Callable[[], float | None]
    say: Callable[..., None]
    sent: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    dropped: Count = field(factory=Count, init=False)
    failing: IntercomError | None = field(default=None, init=False)
    in_flight: set[QueuedEvent] = field(factory=set["QueuedEvent"], init=False)
    stopped: bool = field(default=False, init=False)
    closing: bool = field(default=False, init=False)
    may_claim: bool = field(default=True, init=False)
    _concurrency: Concurrency = field(init=False)
    # The events that failed since the last answer.
    _failed: set[int] = field(factory=set[int], init=False)
    _pauses: int = field(default=0, init=False)
    _paused_until: float = field(default=-math.inf, init=False)
    # The probe in flight, and the contacts whose events have been probes since the pause began.
    _probe: QueuedEvent | None = field(default=None, init=False)
    _probed: set[tuple[str, str]] = field(factory=set[tuple[str, str]], init=False)
    # The number of hanging requests, which use no CPU time.
    _hanging: int = field(default=0, init=False)
    # How many events were accepted: in total, and before the first systemic answer of each suspect.
    _accepted: int = field(default=0, init=False)
    _suspects: dict[int, int] = field(factory=dict[int, int], init=False)
    # The events that got a systemic answer since the last answer of another kind.
    _unbroken: set[int] = field(factory=set[int], init=False)
    # Attempts for events of unknown contacts: how many are planned in each window of the rate
    # limit, and, by the event's number, the window of its next attempt.
    _unknown: Counter[int] = field(factory=Counter[int], init=False)
    _windows: dict[int, int] = field(factory=dict[int, int], init=False)

    def __attrs_post_init__(self) -> None:
        self.may_claim = self.queue.size > 0
        # It starts at the maximum, because the latency is not known yet.
        self._concurrency = Concurrency(self.most, cost=_COST, first=self.most)

    @property
    def paused(self) -> bool:
        """Whether Intercom counts as unavailable."""
        return self._pauses > 0

    @property
    def queued(self) -> int:
        """How many events are waiting or in flight; 0 only once every event is counted elsewhere.

        An event first leaves the queue, then it is counted, then it leaves `in_flight`. So another
        thread that reads this before `sent` and `refused` misses no event.
        """
        size = self.queue.size
        return size if self._is_given_up else max(size, len(self.in_flight))

    @property
    def has_next(self) -> bool:
        """Whether an event may be sent now, if there is quota for it."""
        sending = len(self.in_flight)
        if self.stopped or not self.may_claim or sending >= self.most:
            return False
        if sending - self._hanging >= self._concurrency.limit:
            return False
        if not self.paused:
            return True
        return self._probe is None and self.clock.monotonic() >= self._paused_until

    @property
    def seconds(self) -> float:
        """The seconds until time alone may change something."""
        if not self.queue.durable and not self.queue.size:
            return math.inf
        if not self.paused or self._probe is not None or not self.may_claim:
            return TICK
        return max(0.0, min(TICK, self._paused_until - self.clock.monotonic()))

    def next(self, reservation: Reservation) -> QueuedEvent | None:
        """Returns the event to send with a reservation; None if there is none to send."""
        now = self.clock.time()
        while True:
            queued = self.queue.claim(now, self._probed if self.paused else ())
            if queued is None:
                self.may_claim = False
                return None
            # If it was delayed for longer than planned, it may be one too many for this window.
            delay = self._until_window(queued, now) if queued.rejected_at is not None else 0.0
            if delay <= 0:
                break
            self.queue.nack(queued, delay, now)
        if self.paused:
            who = person(queued.event)
            if who in self._probed:
                self._probed.clear()  # No event of another contact waits.
            self._probed.add(who)
            self._probe = queued
        queued.is_proven = self._accepted - self._suspects.get(queued.id, math.inf) >= OTHERS
        queued.reservation = reservation
        queued.begun_at = self.clock.monotonic()
        self.in_flight.add(queued)
        return queued

    def ended(self, queued: QueuedEvent, error: IntercomError | None) -> GivenUp | None:
        """Records the outcome of an event; returns it with the error if it was rejected."""
        now = self.clock.time()
        if error is None:
            self.queue.ack(queued)
            self._answered(queued, accepted=True)
            self._learn(queued)
            return None
        queued.unsure |= error.may_have_been_processed
        if (delay := self._unknown_delay(queued, error, now)) is not None:
            self.queue.nack(queued, delay, now)
            self._answered(queued)
            return None
        kind = self._class_of(queued, error)
        if kind is ErrorClass.PERMANENT:
            return self._reject(queued, error, now)
        if self.stopped and self.queue.durable:
            self.give_back(queued)
            return None
        if not isinstance(error, APIConnectionError):
            self._learn(queued)
        # Long enough for other events to show first whether the error is about this one.
        delay = 2 * backoff(self._pauses + 1, 2.0, _LONGEST_PAUSE, jitter=_JITTER)
        if kind is ErrorClass.TRANSIENT:
            own = backoff(queued.tries + 1, 2.0, _LONGEST_DELAY, jitter=_JITTER)
            delay = max(own, delay) if self.paused else own
        self.queue.nack(queued, delay, now)
        self._fail(error, queued, general=kind is ErrorClass.SYSTEMIC)
        self._leave(queued)
        return None

    def give_back(self, queued: QueuedEvent) -> None:
        """Puts back an event that was not sent, or only in part."""
        try:
            self.queue.release(queued)
        except OutboxError as error:
            self.say(logging.WARNING, "a claim could not be released and will expire: %s", error)
        self.may_claim = True
        self._leave(queued)

    def give_in(
        self, error: Exception, queued: QueuedEvent | None = None, *, accepted: bool = False
    ) -> None:
        """Continues after the queue could not be used; a claim on an event expires by itself."""
        failure = error if isinstance(error, IntercomError) else unexpected(error, closed=False)
        if queued is None and self.paused and self.clock.monotonic() < self._paused_until:
            self.failing = failure  # One log line is enough.
        else:
            self._fail(failure, queued, general=True)
        self.sent += accepted
        if queued is not None:
            self._leave(queued)

    def run_maintenance(self) -> None:
        """Runs the periodic maintenance."""
        self.may_claim |= self.queue.run_maintenance(self.clock.time(), list(self.in_flight))
        now = self.clock.monotonic()
        self._hanging = sum(now - queued.begun_at >= TICK for queued in self.in_flight)
        if isinstance(self.failing, OutboxError) and not self.queue.size:
            self._go_on()  # The file can be used again, and no event is left to find that out.

    def release_delayed(self) -> None:
        """Makes all delayed events due now."""
        self.queue.release_delayed()
        self.may_claim |= self.queue.size > 0
        if self.paused:
            # If that fails, the next attempt follows soon, because a caller waits.
            self._pauses = 1
            self._paused_until = -math.inf

    def is_drained(self, mark: int) -> bool:
        """Whether every event up to this number has left, and is counted."""
        return self.queue.is_drained(mark) and all(queued.id > mark for queued in self.in_flight)

    def is_in_vain(self, failing: IntercomError | None) -> bool:
        """Whether closing need not wait, because what is left stays in the queue.

        `failing` is why nothing was sent when the close began.
        """
        if not self.queue.durable:
            return False
        if self.paused and self.failing is not failing:
            return True
        # What is left was attempted, or other processes send it.
        if self.in_flight:
            return False
        self.run_maintenance()
        return not self.may_claim

    def stop(self) -> list[GivenUp]:
        """Stops handing out events; returns those that are known not to arrive."""
        self.stopped = True
        self.withdraw()
        lost = [self.lost(queued) for queued in self.queue.remaining()]
        if lost:
            self.say(
                logging.ERROR,
                "%s could not be sent before the tracker was closed", counted(len(lost)),
            )  # fmt: skip
        return lost

    def withdraw(self) -> None:
        """Prevents retries of the requests in flight."""
        for queued in list(self.in_flight):
            if queued.reservation is not None:
                queued.reservation.withdrawn = True

    def lost(self, queued: QueuedEvent) -> GivenUp:
        """Drops an event that was not sent before the tracker was closed."""
        self.dropped.add()
        error = NotSentError(f"{named(queued.event)} was not sent before the tracker was closed")
        error.may_have_been_processed = queued.unsure or queued in self.in_flight
        return queued.event, error

    def _reject(self, queued: QueuedEvent, error: IntercomError, now: float) -> GivenUp | None:
        error.may_have_been_processed = queued.unsure
        self.queue.dead_letter(queued, error, now)
        self._answered(queued, rejected=True)
        if self._is_given_up:
            return None
        self.say(logging.WARNING, "%s was rejected: %s", named(queued.event), reason_of(error))
        return queued.event, error

    @property
    def _is_given_up(self) -> bool:
        """Whether `on_error` was already called for the events in flight."""
        return self.stopped and not self.queue.durable

    def _learn(self, queued: QueuedEvent) -> None:
        if queued.reservation is not None and queued.reservation.latency > 0:
            self._concurrency.note(queued.reservation.latency)

    def _leave(self, queued: QueuedEvent) -> None:
        self.in_flight.discard(queued)
        if queued is self._probe:
            self._probe = None

    def _unknown_delay(self, queued: QueuedEvent, error: IntercomError, now: float) -> float | None:
        """Returns the delay of an event whose contact may still be created, else None.

        Other events are sent in the meantime, so these retries get only a part of the quota.
        """
        if not is_unknown_contact(error) or not self.patience:
            return None
        queued.rejected_at = now if queued.rejected_at is None else min(queued.rejected_at, now)
        is_last = self.closing and not self.queue.durable
        if is_last or now - queued.rejected_at >= self.patience:
            return None
        due = now + backoff(queued.tries + 1, 1.0, _LONGEST_UNKNOWN, jitter=_JITTER)
        due = min(due, max(now, queued.rejected_at + self.patience))
        return due - now + self._until_window(queued, due)

    def _until_window(self, queued: QueuedEvent, due: float) -> float:
        """Returns the seconds from `due` until a window has room for an unknown contact's event."""
        limit = self.limit()
        window = math.floor(due / _WINDOW)
        if limit is None or self._windows.pop(queued.id, None) == window:
            return 0.0  # It is handed out now, as planned.
        now = self.clock.time()
        for over in [one for one in self._unknown if one * _WINDOW < now - _WINDOW]:
            del self._unknown[over]
        if len(self._windows) > _MOST_SUSPECTS:
            last = math.floor(now / _WINDOW)
            self._windows = {key: at for key, at in self._windows.items() if at >= last}
        latest = window + math.floor(_LONGEST_DELAY / _WINDOW)
        while self._unknown[window] >= max(1, math.floor(_UNKNOWN_SHARE * limit)):
            window += 1
            if window > latest:
                return _LONGEST_DELAY  # Too many wait, so it is planned again later.
        self._unknown[window] += 1
        delay = max(0.0, window * _WINDOW - due)
        if delay or due > now:
            self._windows[queued.id] = window
        return delay

    def _class_of(self, queued: QueuedEvent, error: IntercomError) -> ErrorClass:
        kind = classify(error)
        if kind is not ErrorClass.SYSTEMIC:
            return kind
        self._unbroken.add(queued.id)
        before = self._suspects.setdefault(queued.id, self._accepted)
        if len(self._suspects) > _MOST_SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
        # An error of a setting, such as the function that returns the token, is not about an event.
        if queued.is_proven and isinstance(error, APIResponseError):
            # Unless other events get such answers again.
            return ErrorClass.PERMANENT if self._unbroken == {queued.id} else kind
        return ErrorClass.TRANSIENT if self._accepted > before else kind

    def _answered(
        self, queued: QueuedEvent, *, accepted: bool = False, rejected: bool = False
    ) -> None:
        if self._pauses > 1:
            # Events that failed during the pause need not wait any longer. After a single pause,
            # perhaps only those events fail.
            self.queue.release_delayed()
            self._pauses = 1
        if not self._is_given_up:
            self.sent += accepted
            self.refused += rejected
        self._leave(queued)
        self._suspects.pop(queued.id, None)
        if accepted or queued.rejected_at is None:
            self._windows.pop(queued.id, None)
        self._unbroken.clear()
        self._accepted += accepted
        if self.paused:
            waiting = counted(self.queue.size)
            self.say(logging.INFO, "sending resumed with %s in the queue", waiting)
        self._go_on()

    def _go_on(self) -> None:
        self.may_claim = True
        self._failed.clear()
        self._probed.clear()
        self._pauses = 0
        self._probe = None
        self.failing = None

    def _fail(self, error: IntercomError, queued: QueuedEvent | None, *, general: bool) -> None:
        self.failing = error
        if self.paused:
            # If several fail at once, one of them is enough.
            pauses = queued is None or queued is self._probe
        else:
            # One event that fails each time says nothing about the others.
            self._failed.update(() if queued is None else (queued.id,))
            pauses = general or len(self._failed) >= _UNAVAILABLE
        if pauses:
            self._pauses += 1
            if queued is not None:
                self._probed.add(person(queued.event))
            seconds = backoff(self._pauses, 2.0, _LONGEST_PAUSE, jitter=_JITTER)
            self._paused_until = self.clock.monotonic() + seconds
            self.say(
                logging.ERROR if general and self._pauses == 1 else logging.WARNING,
                "sending failed with %s in the queue, retrying in %.0f s: %s",
                counted(self.queue.size), seconds, reason_of(error),
            )  # fmt: skip


def unexpected(error: BaseException, *, closed: bool) -> ConfigurationError:
    """Wraps an error from outside, such as one of a closed client, a hook or a transport."""
    if closed:
        return ConfigurationError("the client is closed; close the tracker before the client")
    # Not its message, which may contain the event or the token.
    said = f"{type(error).__name__}{place_of(error)} (see its __cause__)"
    wrapped = ConfigurationError(f"sending failed: {said}")
    wrapped.__cause__ = error
    lay_bare(wrapped, None)
    return wrapped


def named(event: Event) -> str:
    """Returns the name of an event, printable and short enough for a log line."""
    name = event.event_name
    return name if name.isprintable() and len(name) <= 80 else short_repr(name)
