"""What a tracker does when, without I/O but that of its queue: for threads and for tasks."""

from __future__ import annotations

import inspect
import logging
import math
import os
import random
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from attrs import define, field, frozen

from intercom_data_events._sending.retry import ErrorClass, classify
from intercom_data_events._validation import short_repr
from intercom_data_events.clock import Clock
from intercom_data_events.errors import (
    APIStatusError,
    ConfigurationError,
    IntercomError,
    NotSentError,
    OutboxError,
    QueueFullError,
)
from intercom_data_events.event import Event, key
from intercom_data_events.tracker._queue import Queue, QueuedEvent

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import Reservation

log = logging.getLogger("intercom_data_events")

#: What `track` does where as many events wait as the tracker holds.
WhenFull: TypeAlias = Literal["drop", "block", "raise"]
#: An event that will not arrive, and why.
GivenUp: TypeAlias = tuple[Event, IntercomError]

#: Whether on_error is being called, which may track events that find no room.
REPORTING = ContextVar("REPORTING", default=False)

#: Requests at once; httpx keeps as many connections.
CONCURRENCY = 20
#: Events in memory.
MOST = 10_000
#: Seconds between two looks at what time has brought.
TICK = 1.0
# Events that failed in a row, none other than them, after which Intercom is taken to be away.
_AWAY = 3
# Seconds: the longest pause while it is, and for which one event is held back at most.
_LONGEST_PAUSE = 30.0
_LONGEST_HELD = 600.0
# Seconds of the interpreter's time that sending an event takes, twice over: as few requests are on
# their way at once as leave half of that time to the application.
_COST = 0.002
# Events among which the same event is looked for.
_COMPARED = 10_000


@frozen
class Counters:
    """What a tracker has done, in this process.

    Attributes:
        queued: Events that wait or are on their way; in an outbox, those of all its processes.
        sent: Events that Intercom has accepted.
        refused: Events that were refused, by Intercom: `on_error` was called for each.
        dropped: Events that were given up: the queue was full, or the tracker was closed before
            they were sent; `on_error` was called for each.
        collisions: Events that are the same to Intercom as one tracked shortly before: the same
            person, name and second. They are sent; Intercom keeps one.
        oldest_age: Seconds since the event that waits longest was tracked; 0 where none waits, and
            once the tracker is closed.
        failing: Why nothing is sent at the moment, or None.
    """

    queued: int = 0
    sent: int = 0
    refused: int = 0
    dropped: int = 0
    collisions: int = 0
    oldest_age: float = 0.0
    failing: IntercomError | None = None


@define(eq=False)
class Course:
    """What is sent next, what becomes of it, and when to wait since Intercom is away.

    After the failures of a few events in a row, one event at a time finds out whether Intercom is
    back, at growing intervals; whatever answers, ends that. What every event would meet, such as a
    token that was revoked, is waited for in the same way.

    Where the queue cannot be used, methods raise its OutboxError and change nothing: they can be
    called again, or :meth:`give_in` ends it.

    Attributes:
        say: Logs a line; whoever holds a lock keeps it until then, as logging may take a while, and
            may track events itself.
    """

    queue: Queue
    clock: Clock
    concurrency: int
    say: Callable[..., None] = field(default=log.log, init=False)
    sent: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    collisions: int = field(default=0, init=False)
    failing: IntercomError | None = field(default=None, init=False)
    in_flight: set[QueuedEvent] = field(factory=set[QueuedEvent], init=False)
    #: The threads or tasks that acquire quota, each for one event: one that an error of a signal's
    #: handler ended in between is no further one when it comes again.
    preparing: set[int] = field(factory=set[int], init=False)
    stopped: bool = field(default=False, init=False)
    # The events that failed since Intercom answered.
    _failed: set[int] = field(factory=set[int], init=False)
    _pauses: int = field(default=0, init=False)
    _paused_until: float = field(default=-math.inf, init=False)
    # What is on its way to find out whether Intercom is back.
    _probe: QueuedEvent | None = field(default=None, init=False)
    # Seconds that an answer takes; rather that of quick ones, as others waited for each other.
    _latency: float = field(default=math.inf, init=False)
    # Requests that take longer than others do: they use no time of the interpreter's.
    _hanging: int = field(default=0, init=False)
    # How many answers there had been when an event met what seemed to be everybody's failure.
    _answers: int = field(default=0, init=False)
    _suspects: dict[int, int] = field(factory=dict[int, int], init=False)
    # What Intercom tells events apart by, of those tracked last.
    _recent: dict[tuple[str, str, str, float], None] = field(
        factory=dict[tuple[str, str, str, float], None], init=False
    )

    @property
    def paused(self) -> bool:
        """Whether Intercom is away, as far as is known."""
        return self._pauses > 0

    @property
    def has_room(self) -> bool:
        """Whether something can be sent now, if there is anything."""
        return self._has_room_beside(len(self.in_flight) + len(self.preparing))

    def _has_room_beside(self, sending: int) -> bool:
        if self.stopped or sending >= self.concurrency:
            return False
        if sending - self._hanging >= 1 + self._latency / _COST:
            return False
        if not self.paused:
            return True
        return self._probe is None and self.clock.monotonic() >= self._paused_until

    @property
    def needs_looking_after(self) -> bool:
        """Whether time brings anything."""
        return self.queue.durable or self.queue.size > 0

    def track(self, event: Event) -> bool:
        """Takes in an event; False where the queue is full."""
        if not self.queue.enqueue(event, self.clock.time()):
            return False
        self._compare(event)
        return True

    def drop(self, event: Event) -> QueueFullError:
        """Gives up an event that found no room."""
        self.dropped += 1
        if _is_worth_a_line(self.dropped):
            self.say(
                logging.WARNING, "%s dropped: %d events wait already; dropped so far: %d",
                named(event), self.queue.size, self.dropped,
            )  # fmt: skip
        return QueueFullError(
            f"{named(event)} was not tracked: {self.queue.size:,} events wait already; track "
            "fewer, or allow for more with max_queued="
        )

    def prepare(self, worker: int) -> bool:
        """Whether a worker is to acquire quota for an event; until then it is `preparing`."""
        self.preparing.discard(worker)
        # All that there is may be in flight already.
        busy = len(self.in_flight) + len(self.preparing)
        if not self.has_room or busy >= self.queue.size:
            return False
        self.preparing.add(worker)
        return True

    def next(self, worker: int, reservation: Reservation | None) -> QueuedEvent | None:
        """What a worker is to send with its quota, at once; or None."""
        entry: QueuedEvent | None = None
        sending = len(self.in_flight)
        others = len(self.preparing - {worker})
        if reservation and sending < self.queue.size and self._has_room_beside(sending + others):
            entry = self.queue.claim(self.clock.time())
        self.preparing.discard(worker)
        if entry is not None:
            self._probe = entry if self.paused else None
            entry.reservation = reservation
            entry.begun_at = self.clock.monotonic()
            self.in_flight.add(entry)
        return entry

    def ended(self, entry: QueuedEvent, error: IntercomError | None) -> GivenUp | None:
        """Takes in what became of it; returns it where it will not arrive."""
        now = self.clock.time()
        if error is None:
            self.queue.ack(entry)
            self._answered(entry)
            self.sent += not self._is_given_up
            self._learn(self.clock.monotonic() - entry.begun_at)
            return None
        entry.unsure |= error.may_have_been_processed
        kind = self._judged(entry, error)
        if self.stopped and self.queue.durable and kind is not ErrorClass.PERMANENT:
            self.give_back(entry)
            return None
        if kind is ErrorClass.PERMANENT:
            error.may_have_been_processed = entry.unsure
            self.queue.dead_letter(entry, error, now)
            self._answered(entry)
            if self._is_given_up:
                return None
            self.refused += 1
            self.say(logging.WARNING, "%s refused: %s", named(entry.event), _reason(error))
            return entry.event, error
        # For so long that it is others that find out whether it was about this one.
        seconds = min(2.0 ** (min(self._pauses, 30) + 2), 2 * _LONGEST_PAUSE)
        if kind is ErrorClass.SYSTEMIC:
            self._suspects.setdefault(entry.id, self._answers)
        else:
            own = min(2.0 ** min(entry.tries + 1, 30), _LONGEST_HELD)
            seconds = max(own, seconds) if self.paused else own
        self.queue.nack(entry, _spread(seconds), now)
        self._fail(error, entry, general=kind is ErrorClass.SYSTEMIC)
        self._leave(entry)
        return None

    def give_back(self, entry: QueuedEvent) -> None:
        """Takes it back: it was not sent, or not to the end."""
        try:
            self.queue.release(entry)
        except OutboxError as error:
            self.say(logging.WARNING, "a claim ends by itself, later: %s", error)
        self._leave(entry)

    def give_in(
        self, error: Exception, entry: QueuedEvent | None = None, *, accepted: bool = False
    ) -> None:
        """Goes on where the queue could not be used; its claim on an event ends by itself."""
        failure = error if isinstance(error, IntercomError) else unexpected(error, closed=False)
        if entry is None and self.paused and self.clock.monotonic() < self._paused_until:
            self.failing = failure  # Of each look in between, nothing needs to be said.
        else:
            self._fail(failure, entry, general=True)
        if entry is not None:
            self._leave(entry)
            self.sent += accepted

    def look_around(self) -> bool:
        """Does what time brings; whether something can be sent."""
        free = self.queue.run_maintenance(self.clock.time(), list(self.in_flight))
        now = self.clock.monotonic()
        self._hanging = sum(now - entry.begun_at >= TICK for entry in list(self.in_flight))
        if isinstance(self.failing, OutboxError) and not self.queue.size:
            self._go_on()  # It can be used again, and there is nothing that would find out.
        return free and self.has_room

    def hurry(self) -> None:
        """Has everything be sent now that waits for its time."""
        self.queue.release_delayed()
        if self.paused:
            # Should that fail, the next try is soon, as somebody waits for it.
            self._pauses = 1
            self._paused_until = -math.inf

    def has_passed(self, mark: int) -> bool:
        """Whether every event up to this one has left, and what became of it is counted."""
        return self.queue.is_drained(mark) and all(
            entry.id > mark for entry in list(self.in_flight)
        )

    def is_in_vain(self, failing: IntercomError | None) -> bool:
        """Whether whoever closes it need not wait, as all that is left stays in the queue.

        Args:
            failing: Why nothing was sent when the waiting began.
        """
        if not self.queue.durable:
            return False
        if self.paused and self.failing is not failing:
            return True
        # What is left was tried, or is another process's to send.
        return not self.in_flight and not self.preparing and not self.look_around()

    def stop(self) -> list[GivenUp]:
        """Begins nothing more; returns what will not arrive, as far as is known."""
        self.stopped = True
        for entry in list(self.in_flight):
            if entry.reservation is not None:
                entry.reservation.withdrawn = True
        lost = list(self.queue.remaining())
        self.dropped += len(lost)
        if lost:
            self.say(
                logging.ERROR,
                "%d tracked events were not sent before the tracker was closed", len(lost),
            )  # fmt: skip
        return [self._lost(entry) for entry in lost]

    def _lost(self, entry: QueuedEvent) -> GivenUp:
        error = NotSentError(f"{named(entry.event)} was not sent before the tracker closed")
        error.may_have_been_processed = entry.unsure or entry in self.in_flight
        return entry.event, error

    def counters(self) -> Counters:
        """What there is to count.

        Raises:
            OutboxError: It cannot be read.
        """
        oldest_age = 0.0
        if not self.stopped:
            oldest = self.queue.oldest()
            oldest_age = 0.0 if oldest is None else max(0.0, self.clock.time() - oldest)
        return Counters(
            queued=self.queue.size,
            sent=self.sent,
            refused=self.refused,
            dropped=self.dropped,
            collisions=self.collisions,
            oldest_age=oldest_age,
            failing=self.failing,
        )

    def _compare(self, event: Event) -> None:
        known = key(event)
        if known in self._recent:
            self.collisions += 1
            if _is_worth_a_line(self.collisions):
                self.say(
                    logging.WARNING,
                    "%s was tracked twice for one person in one second, which is one event to "
                    "Intercom; collisions so far: %d",
                    named(event), self.collisions,
                )  # fmt: skip
            return
        self._recent[known] = None
        if len(self._recent) > _COMPARED:
            del self._recent[next(iter(self._recent))]

    @property
    def _is_given_up(self) -> bool:
        """Whether it was said already that it will not arrive."""
        return self.stopped and not self.queue.durable

    def _learn(self, latency: float) -> None:
        if self._latency < latency:
            latency = self._latency + (latency - self._latency) / 16
        self._latency = latency

    def _leave(self, entry: QueuedEvent) -> None:
        self.in_flight.discard(entry)
        if entry is self._probe:
            self._probe = None

    def _judged(self, entry: QueuedEvent, error: IntercomError) -> ErrorClass:
        kind = classify(error)
        answers = self._suspects.get(entry.id, self._answers)
        # Others got through since it met that before, so it is about this one: a hook's error, say.
        return (
            ErrorClass.TRANSIENT
            if kind is ErrorClass.SYSTEMIC and answers < self._answers
            else kind
        )

    def _answered(self, entry: QueuedEvent) -> None:
        self._leave(entry)
        self._suspects.pop(entry.id, None)
        self._answers += 1
        if self.paused:
            self.say(logging.INFO, "Intercom answers again; %d events wait", self.queue.size)
        if self._pauses > 1:
            # What failed while it was away need not wait until its time. After a single pause, it
            # may be that only those events failed.
            self.queue.release_delayed()
        self._go_on()

    def _go_on(self) -> None:
        self._failed.clear()
        self._pauses = 0
        self._probe = None
        self.failing = None

    def _fail(self, error: IntercomError, entry: QueuedEvent | None, *, general: bool) -> None:
        self.failing = error
        if self.paused:
            # Of several that fail at once, one is enough.
            pauses = entry is None or entry is self._probe
        else:
            # One event that fails each time says nothing about the others.
            self._failed.update(() if entry is None else (entry.id,))
            pauses = general or len(self._failed) >= _AWAY
        if pauses:
            self._pauses += 1
            seconds = _spread(min(2.0 ** min(self._pauses, 30), _LONGEST_PAUSE))
            self._paused_until = self.clock.monotonic() + seconds
            self.say(
                logging.ERROR if general and self._pauses == 1 else logging.WARNING,
                "events wait (%d of them), trying again in %.0f s: %s",
                self.queue.size, seconds, _reason(error),
            )  # fmt: skip


def check_settings(
    *,
    outbox: object,
    workspace: object,
    concurrency: object,
    max_queued: object,
    when_full: object,
    on_error: object,
    close_timeout: object,
) -> None:
    """Checks what a tracker is told.

    Raises:
        ConfigurationError: A setting that makes no sense.
    """
    if outbox is not None and not isinstance(outbox, str | os.PathLike):
        raise ConfigurationError(f"outbox is {short_repr(outbox)}: it is the path of a file")
    if workspace is not None and not (isinstance(workspace, str) and workspace.strip()):
        raise ConfigurationError(f"workspace is {short_repr(workspace)}: it is a name of your own")
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise ConfigurationError(
            f"concurrency is {short_repr(concurrency)}: it is a number of requests, 1 to 1000"
        )
    if max_queued is not None and (type(max_queued) is not int or max_queued < 1):
        raise ConfigurationError(
            f"max_queued is {short_repr(max_queued)}: it is a number of events, 1 or more"
        )
    if when_full not in ("drop", "block", "raise"):
        raise ConfigurationError(
            f"when_full is {short_repr(when_full)}: it is one of drop, block and raise"
        )
    if on_error is not None and not callable(on_error):
        raise ConfigurationError(
            f"on_error is {short_repr(on_error)}: it is a function of an event and an error"
        )
    check_seconds("close_timeout", close_timeout)


def check_seconds(name: str, seconds: object) -> float:
    """Returns how long something may take.

    Raises:
        ConfigurationError: It is no number of seconds.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not cast("float", seconds) >= 0:
        raise ConfigurationError(
            f"{name} is {short_repr(seconds)}: it has to be a number of seconds, 0 or more"
        )
    # What threads can wait for, and a float can hold.
    return float(min(cast("float", seconds), threading.TIMEOUT_MAX))


def check_blocking(on_error: object) -> None:
    """Checks that a function need not be awaited, where nobody would.

    Raises:
        ConfigurationError: It is an async function.
    """
    if inspect.iscoroutinefunction(on_error) or inspect.iscoroutinefunction(
        getattr(on_error, "__call__", None)  # noqa: B004  # of an object that can be called
    ):
        raise ConfigurationError(
            "on_error is an async function, which only an AsyncTracker can await"
        )


def unexpected(error: BaseException, *, closed: bool) -> ConfigurationError:
    """What an error is that is none of ours: a closed client's, a hook's, a transport's."""
    if closed:
        return ConfigurationError("the client is closed: close the tracker before it")
    # Not what it says, which may be of what was to be sent, or of the token.
    wrapped = ConfigurationError(f"sending failed: {type(error).__name__} (it is the __cause__)")
    wrapped.__cause__ = error
    return wrapped


def named(event: Event) -> str:
    """The name of an event, as a line of a log can hold it."""
    name = event.event_name
    return name if name.isprintable() and len(name) <= 80 else short_repr(name)


def _reason(error: IntercomError) -> str:
    """A failure in a few words, without anybody's name in them."""
    if isinstance(error, APIStatusError):
        return " ".join((type(error).__name__, str(error.status_code), *error.codes))
    if isinstance(error, OutboxError | ConfigurationError):
        return str(error)
    return type(error.__cause__ or error).__name__


def _spread(seconds: float) -> float:
    """Not at one time with everybody else."""
    return seconds * random.uniform(0.75, 1)  # noqa: S311  # no secret


def _is_worth_a_line(count: int) -> bool:
    """Whether to log something that may happen ten thousand times: the 1st, 2nd, 4th, 8th one."""
    return count & (count - 1) == 0
