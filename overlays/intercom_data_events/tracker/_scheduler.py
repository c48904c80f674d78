"""Decides which tracked event is sent next, what becomes of it, and when sending pauses.

It does no I/O but that of its queue, and has one owner, the dispatcher.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

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

#: Seconds between two rounds of maintenance, and after which a request hangs.
TICK = 1.0
# Different events that failed since the last answer, after which Intercom counts as unavailable.
_UNAVAILABLE = 3
# Seconds: the longest pause, and the longest delay of one event.
_LONGEST_PAUSE = 30.0
_LONGEST_DELAY = 600.0
# The same for an event whose contact is unknown, because contacts are created within seconds.
_LONGEST_UNKNOWN = 30.0
# The random part of a wait: retries of a queue have no deadline, but should not come all at once.
_JITTER = 0.25
# Seconds of the interpreter's time that sending an event takes, twice over: so many requests go at
# once that half of that time is left to the application.
_COST = 0.002
# Seconds of a window of the rate limit, and the part of it for events of unknown contacts.
_WINDOW = 10.0
_UNKNOWN_SHARE = 0.25
_MOST_SUSPECTS = 10_000


@define(eq=False)
class Scheduler:
    """What is sent next, and what becomes of it.

    After a few events in a row failed temporarily, one event at a time probes whether Intercom is
    available again, at growing intervals, and any answer ends that. What every event gets, such as
    the answer to a revoked token, is waited for in the same way, with probes of different contacts.

    Where the queue cannot be used, methods raise its OutboxError and change nothing: they can be
    called again, or :meth:`give_in` ends it.

    Args:
        queue: Where the events wait.
        clock: The client's clock.
        most: Requests at once, at most.
        patience: Seconds for which a contact may be unknown.
        limit: Returns how many requests a window of the rate limit has for this client, or None.
        say: Logs a line.

    Attributes:
        sent: Events that were accepted.
        refused: Events that were rejected.
        dropped: Events that were given up.
        failing: Why nothing is sent at the moment, or None.
        in_flight: The events that workers have.
        stopped: Whether nothing more is handed out.
        closing: Whether the tracker takes in nothing more.
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
    # The event in flight that probes, and the persons whose events did since the pause began.
    _probe: QueuedEvent | None = field(default=None, init=False)
    _probed: set[tuple[str, str]] = field(factory=set[tuple[str, str]], init=False)
    # Requests that take longer than others: they take no time of the interpreter.
    _hanging: int = field(default=0, init=False)
    # How many events were accepted; and, by number, how many when an event got a systemic answer.
    _accepted: int = field(default=0, init=False)
    _suspects: dict[int, int] = field(factory=dict[int, int], init=False)
    # The events with systemic answers since another answer.
    _unbroken: set[int] = field(factory=set[int], init=False)
    # Attempts for events of unknown contacts: how many each window of the rate limit has, and, by
    # the event's number, the window that has one for it.
    _unknown: Counter[int] = field(factory=Counter[int], init=False)
    _windows: dict[int, int] = field(factory=dict[int, int], init=False)

    def __attrs_post_init__(self) -> None:
        self.may_claim = self.queue.size > 0
        # As many at first as there may be: how long answers take is not known yet.
        self._concurrency = Concurrency(self.most, cost=_COST, first=self.most)

    @property
    def paused(self) -> bool:
        """Whether Intercom counts as unavailable."""
        return self._pauses > 0

    @property
    def queued(self) -> int:
        """How many events wait or are in flight; 0 only once every event is counted elsewhere.

        An event first leaves the queue, then it is counted, then it leaves `in_flight`. So another
        thread that reads this before `sent` and `refused` misses none.
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
        """The seconds after which time changes something."""
        if not self.queue.durable and not self.queue.size:
            return math.inf
        if not self.paused or self._probe is not None or not self.may_claim:
            return TICK
        return max(0.0, min(TICK, self._paused_until - self.clock.monotonic()))

    def next(self, reservation: Reservation) -> QueuedEvent | None:
        """Returns what to send with the quota; None if there is nothing to send."""
        now = self.clock.time()
        while True:
            queued = self.queue.claim(now, self._probed if self.paused else ())
            if queued is None:
                self.may_claim = False
                return None
            # Delayed for longer than planned, it could be one too many.
            delay = self._until_window(queued, now) if queued.rejected_at is not None else 0.0
            if delay <= 0:
                break
            self.queue.nack(queued, delay, now)
        if self.paused:
            who = person(queued.event)
            if who in self._probed:
                self._probed.clear()  # There are no others.
            self._probed.add(who)
            self._probe = queued
        queued.is_proven = self._accepted - self._suspects.get(queued.id, math.inf) >= OTHERS
        queued.reservation = reservation
        queued.begun_at = self.clock.monotonic()
        self.in_flight.add(queued)
        return queued

    def ended(self, queued: QueuedEvent, error: IntercomError | None) -> GivenUp | None:
        """Takes in what became of an event; returns it with the error if it was rejected."""
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
        # So long that others find out first whether it is about this event.
        delay = 2 * backoff(self._pauses + 1, 2.0, _LONGEST_PAUSE, jitter=_JITTER)
        if kind is ErrorClass.TRANSIENT:
            own = backoff(queued.tries + 1, 2.0, _LONGEST_DELAY, jitter=_JITTER)
            delay = max(own, delay) if self.paused else own
        self.queue.nack(queued, delay, now)
        self._fail(error, queued, general=kind is ErrorClass.SYSTEMIC)
        self._leave(queued)
        return None

    def give_back(self, queued: QueuedEvent) -> None:
        """Takes an event back that was not sent, or not to the end."""
        try:
            self.queue.release(queued)
        except OutboxError as error:
            self.say(logging.WARNING, "a claim ends by itself, later: %s", error)
        self.may_claim = True
        self._leave(queued)

    def give_in(
        self, error: Exception, queued: QueuedEvent | None = None, *, accepted: bool = False
    ) -> None:
        """Continues where the queue could not be used; its claim on an event ends by itself."""
        failure = error if isinstance(error, IntercomError) else unexpected(error, closed=False)
        if queued is None and self.paused and self.clock.monotonic() < self._paused_until:
            self.failing = failure  # One line is enough.
        else:
            self._fail(failure, queued, general=True)
        self.sent += accepted
        if queued is not None:
            self._leave(queued)

    def run_maintenance(self) -> None:
        """Does what is due by time."""
        self.may_claim |= self.queue.run_maintenance(self.clock.time(), list(self.in_flight))
        now = self.clock.monotonic()
        self._hanging = sum(now - queued.begun_at >= TICK for queued in self.in_flight)
        if isinstance(self.failing, OutboxError) and not self.queue.size:
            self._go_on()  # The file can be used again, and no event would find that out.

    def release_delayed(self) -> None:
        """Has everything be sent now that is delayed."""
        self.queue.release_delayed()
        self.may_claim |= self.queue.size > 0
        if self.paused:
            # If that fails, the next attempt is soon, because a caller waits for it.
            self._pauses = 1
            self._paused_until = -math.inf

    def is_drained(self, mark: int) -> bool:
        """Whether every event up to this number has left, and is counted."""
        return self.queue.is_drained(mark) and all(queued.id > mark for queued in self.in_flight)

    def is_in_vain(self, failing: IntercomError | None) -> bool:
        """Whether closing need not wait, because all that is left stays in the queue.

        Args:
            failing: Why nothing was sent when the waiting began.
        """
        if not self.queue.durable:
            return False
        if self.paused and self.failing is not failing:
            return True
        # There was an attempt for what is left, or other processes send it.
        if self.in_flight:
            return False
        self.run_maintenance()
        return not self.may_claim

    def stop(self) -> list[GivenUp]:
        """Hands out nothing more; returns what will not arrive, as far as is known."""
        self.stopped = True
        self.withdraw()
        lost = [self.lost(queued) for queued in self.queue.remaining()]
        if lost:
            self.say(
                logging.ERROR,
                "%d tracked events were not sent before the tracker was closed", len(lost),
            )  # fmt: skip
        return lost

    def withdraw(self) -> None:
        """Has no request in flight be repeated."""
        for queued in list(self.in_flight):
            if queued.reservation is not None:
                queued.reservation.withdrawn = True

    def lost(self, queued: QueuedEvent) -> GivenUp:
        """Gives up an event that was not sent before the tracker was closed."""
        self.dropped.add()
        error = NotSentError(f"{named(queued.event)} was not sent before the tracker closed")
        error.may_have_been_processed = queued.unsure or queued in self.in_flight
        return queued.event, error

    def _reject(self, queued: QueuedEvent, error: IntercomError, now: float) -> GivenUp | None:
        error.may_have_been_processed = queued.unsure
        self.queue.dead_letter(queued, error, now)
        self._answered(queued, rejected=True)
        if self._is_given_up:
            return None
        self.say(logging.WARNING, "%s refused: %s", named(queued.event), reason_of(error))
        return queued.event, error

    @property
    def _is_given_up(self) -> bool:
        """Whether `on_error` was told already that what is in flight will not arrive."""
        return self.stopped and not self.queue.durable

    def _learn(self, queued: QueuedEvent) -> None:
        if queued.reservation is not None and queued.reservation.latency > 0:
            self._concurrency.note(queued.reservation.latency)

    def _leave(self, queued: QueuedEvent) -> None:
        self.in_flight.discard(queued)
        if queued is self._probe:
            self._probe = None

    def _unknown_delay(self, queued: QueuedEvent, error: IntercomError, now: float) -> float | None:
        """Returns when to send an event of an unknown contact again; None if not for that reason.

        Events of others pass meanwhile, so the retries get only a part of the quota.
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
        """Returns the seconds until a window of the rate limit has an attempt for an event.

        Args:
            queued: An event of an unknown contact.
            due: The earliest time for it.
        """
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
                return _LONGEST_DELAY  # So many wait that it is planned later.
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
            # What failed meanwhile need not wait for its time. After a single pause, it may be that
            # only those events failed.
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
            self.say(logging.INFO, "Intercom answers again; %d events wait", self.queue.size)
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
            # Of several that fail at once, one is enough.
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
                "events wait (%d of them), trying again in %.0f s: %s",
                self.queue.size, seconds, reason_of(error),
            )  # fmt: skip


def unexpected(error: BaseException, *, closed: bool) -> ConfigurationError:
    """Returns the error for one that is not ours: of a closed client, a hook, or a transport."""
    if closed:
        return ConfigurationError("the client is closed; close the tracker before the client")
    # Not what it says, which may be of what was to be sent, or of the token.
    said = f"{type(error).__name__}{place_of(error)} (it is the __cause__)"
    wrapped = ConfigurationError(f"sending failed: {said}")
    wrapped.__cause__ = error
    lay_bare(wrapped, None)
    return wrapped


def named(event: Event) -> str:
    """Returns the name of an event as a line of a log can hold it."""
    name = event.event_name
    return name if name.isprintable() and len(name) <= 80 else short_repr(name)
