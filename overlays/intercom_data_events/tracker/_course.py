"""What a tracker does when, without I/O but that of its queue: for threads and for tasks."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from intercom_data_events import operations
from intercom_data_events.checks import shown
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
from intercom_data_events.tracker._queue import Entry, Queue
from intercom_data_events.verdicts import Verdict, verdict

log = logging.getLogger("intercom_data_events")

#: What `track` does where as many events wait as the tracker holds.
WhenFull: TypeAlias = Literal["drop", "block", "raise"]
#: An event that will not arrive, and why.
GivenUp: TypeAlias = tuple[Event, IntercomError]

#: Requests at once; httpx keeps as many connections.
CONCURRENCY = 20
#: Events in memory.
MOST = 10_000
#: Seconds between two looks at what time has brought.
TICK = 1.0
# Failures in a row, after which Intercom is taken to be away.
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
        oldest_age: Seconds since the event that waits longest was tracked; 0 where none waits.
        failing: Why nothing is sent at the moment, or None.
    """

    queued: int
    sent: int
    refused: int
    dropped: int
    collisions: int
    oldest_age: float
    failing: IntercomError | None


@define(eq=False)
class Course:
    """What is sent next, what becomes of it, and when to wait since Intercom is away.

    After a few failures in a row, one event at a time finds out whether Intercom is back, at
    growing intervals; whatever answers, ends that. What every event would meet, such as a token
    that was revoked, is waited for in the same way.

    Where the queue cannot be used, methods raise its OutboxError and change nothing: they can be
    called again, or :meth:`give_in` ends it.
    """

    queue: Queue
    clock: Clock
    concurrency: int
    sent: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)
    collisions: int = field(default=0, init=False)
    failing: IntercomError | None = field(default=None, init=False)
    in_flight: set[Entry] = field(factory=set[Entry], init=False)
    stopped: bool = field(default=False, init=False)
    _failures: int = field(default=0, init=False)
    _pauses: int = field(default=0, init=False)
    _paused_until: float = field(default=-math.inf, init=False)
    _probing: bool = field(default=False, init=False)
    # Seconds that an answer takes; rather that of quick ones, as others waited for each other.
    _latency: float = field(default=math.inf, init=False)
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
        if self.stopped or len(self.in_flight) >= min(self.concurrency, 1 + self._latency / _COST):
            return False
        if not self.paused:
            return True
        return not self._probing and self.clock.monotonic() >= self._paused_until

    @property
    def needs_looking_after(self) -> bool:
        """Whether time brings anything."""
        return self.queue.lasts or self.queue.size > 0

    def track(self, event: Event) -> bool:
        """Takes in an event; False where the queue is full."""
        if not self.queue.put(event, self.clock.time()):
            return False
        self._compare(event)
        return True

    def drop(self, event: Event) -> QueueFullError:
        """Gives up an event that found no room."""
        self.dropped += 1
        if _is_worth_a_line(self.dropped):
            log.warning(
                "%s dropped: %d events wait already; dropped so far: %d",
                event.event_name, self.queue.size, self.dropped,
            )  # fmt: skip
        return QueueFullError(
            f"{event.event_name} was not tracked: {self.queue.size:,} events wait already; track "
            "fewer, or allow for more with max_queued="
        )

    def next(self) -> Entry | None:
        """What to send now, or None."""
        # All that there is may be on its way already.
        if not self.has_room or len(self.in_flight) >= self.queue.size:
            return None
        entry = self.queue.take(self.clock.time())
        if entry is not None:
            entry.probe = self._probing = self.paused
            self.in_flight.add(entry)
        return entry

    def operation(
        self, entry: Entry, wanted: Callable[[Entry], bool]
    ) -> operations.Operation[None]:
        """What sends it."""
        return operations.create(entry.event, lambda: wanted(entry))

    def begin(self, entry: Entry) -> bool:
        """Says, just before it is sent, whether it is to be."""
        if not self.stopped:
            entry.begun_at = self.clock.monotonic()
        return not self.stopped

    def ended(self, entry: Entry, error: IntercomError | None) -> GivenUp | None:
        """Takes in what became of it; returns it where it will not arrive."""
        now = self.clock.time()
        if error is None:
            self.queue.accepted(entry)
            self.sent += not self._is_given_up
            self._answered(entry)
            self._learn(self.clock.monotonic() - (entry.begun_at or 0.0))
            return None
        if (kind := verdict(error)) is Verdict.REFUSED:
            self.queue.refused(entry, error, now)
            if self._is_given_up:
                return None
            self.refused += 1
            self._answered(entry)
            log.warning("%s refused: %s", entry.event.event_name, _reason(error))
            return entry.event, error
        seconds = min(2.0 ** min(entry.tries + 1, 30), _LONGEST_HELD)
        # What every event meets is not held against this one.
        self.queue.later(entry, 0 if kind is Verdict.GENERAL else _spread(seconds), now)
        self._leave(entry)
        self._failed(error, general=kind is Verdict.GENERAL, probe=entry.probe)
        return None

    def unsent(self, entry: Entry) -> None:
        """Takes it back: it was not sent, or not to the end."""
        self.queue.give_back(entry)
        self._leave(entry)

    def give_in(self, error: OutboxError, entry: Entry | None = None) -> None:
        """Goes on where the queue could not be used; its claim on an event ends by itself."""
        if entry is not None:
            self._leave(entry)
        self._failed(error, general=True, probe=entry is None or entry.probe)

    def look_around(self) -> bool:
        """Does what time brings; whether something can be sent."""
        free = self.queue.upkeep(self.clock.time(), self.in_flight)
        return free and self.has_room

    def hurry(self) -> None:
        """Has everything be sent now that waits for its time."""
        self.queue.hurry()
        if self.paused:
            self._paused_until = -math.inf

    def stop(self) -> Iterator[GivenUp]:
        """Begins nothing more; yields what will not arrive, as far as is known."""
        self.stopped = True
        for entry in list(self.in_flight):
            if entry.begun_at is None:
                self.unsent(entry)
        lost = list(self.queue.rest())
        self.dropped += len(lost)
        if lost:
            log.error("%d tracked events were not sent before the tracker was closed", len(lost))
        for entry in lost:
            error = NotSentError(f"{entry.event.event_name} was not sent before the tracker closed")
            error.may_have_been_processed = entry.begun_at is not None or entry.tries > 0
            yield entry.event, error

    def counters(self) -> Counters:
        """What there is to count."""
        oldest = self.queue.oldest()
        return Counters(
            queued=self.queue.size,
            sent=self.sent,
            refused=self.refused,
            dropped=self.dropped,
            collisions=self.collisions,
            oldest_age=0.0 if oldest is None else max(0.0, self.clock.time() - oldest),
            failing=self.failing,
        )

    def _compare(self, event: Event) -> None:
        known = key(event)
        if known in self._recent:
            self.collisions += 1
            if _is_worth_a_line(self.collisions):
                log.warning(
                    "%s was tracked twice for one person in one second, which is one event to "
                    "Intercom; collisions so far: %d",
                    event.event_name, self.collisions,
                )  # fmt: skip
            return
        self._recent[known] = None
        if len(self._recent) > _COMPARED:
            del self._recent[next(iter(self._recent))]

    @property
    def _is_given_up(self) -> bool:
        """Whether it was said already that it will not arrive."""
        return self.stopped and not self.queue.lasts

    def _learn(self, latency: float) -> None:
        if self._latency < latency:
            latency = self._latency + (latency - self._latency) / 16
        self._latency = latency

    def _leave(self, entry: Entry) -> None:
        self.in_flight.discard(entry)
        if entry.probe:
            self._probing = False

    def _answered(self, entry: Entry) -> None:
        self._leave(entry)
        if self.paused:
            log.info("Intercom answers again; %d events wait", self.queue.size)
        self._failures = self._pauses = 0
        self._probing = False
        self.failing = None

    def _failed(self, error: IntercomError, *, general: bool, probe: bool) -> None:
        self.failing = error
        self._failures += 1
        # Of several that fail at once, one is enough.
        if probe if self.paused else (general or self._failures >= _AWAY):
            self._pauses += 1
            seconds = _spread(min(2.0 ** min(self._pauses, 30), _LONGEST_PAUSE))
            self._paused_until = self.clock.monotonic() + seconds
            log.log(
                logging.ERROR if general and self._pauses == 1 else logging.WARNING,
                "events wait (%d of them), trying again in %.0f s: %s",
                self.queue.size, seconds, _reason(error),
            )  # fmt: skip


def check_settings(
    concurrency: object, max_queued: object, when_full: object, close_timeout: object
) -> None:
    """Checks what a tracker is told.

    Raises:
        ConfigurationError: A setting that makes no sense.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise ConfigurationError(
            f"concurrency is {shown(concurrency)}: it is a number of requests, 1 to 1000"
        )
    if max_queued is not None and (type(max_queued) is not int or max_queued < 1):
        raise ConfigurationError(
            f"max_queued is {shown(max_queued)}: it is a number of events, 1 or more"
        )
    if when_full not in ("drop", "block", "raise"):
        raise ConfigurationError(
            f"when_full is {shown(when_full)}: it is one of drop, block and raise"
        )
    if (
        isinstance(close_timeout, bool)
        or not isinstance(close_timeout, int | float)
        or not close_timeout >= 0
    ):
        raise ConfigurationError(
            f"close_timeout is {shown(close_timeout)}: it is a number of seconds, 0 or more"
        )


def unexpected(error: BaseException) -> ConfigurationError:
    """What an error is that is none of ours: a closed client's, a hook's, a transport's."""
    wrapped = ConfigurationError(f"sending failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


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
