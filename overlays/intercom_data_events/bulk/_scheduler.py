"""Decides which of many events is sent next, and records each outcome; without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from attrs import define, field, frozen

from intercom_data_events._dispatch.recent import RecentEvents
from intercom_data_events._identity import Key, key, person
from intercom_data_events._sending.retry import OTHERS, ErrorClass, classify
from intercom_data_events._validation import invalid
from intercom_data_events.errors import (
    APIResponseError,
    IntercomError,
    InvalidInputError,
    NotSentError,
)
from intercom_data_events.event import MAPPING, Event

if TYPE_CHECKING:
    from intercom_data_events._dispatch.concurrency import Concurrency
    from intercom_data_events._sending.pacing import Reservation

# Outcomes that are kept as examples of what went wrong.
_MOST_PROBLEMS = 10
# The largest number of events held: in flight, or waiting for one of the same person.
_HELD = 10_000
# The smallest number of events to read ahead.
_AHEAD = 16
#: The number of unread outcomes at which no more requests start.
UNREAD = 1_000


class Row(Protocol):
    """Anything with keys and values, such as a row of a database cursor."""

    def keys(self) -> Iterable[Any]:
        """Returns the names of the fields."""
        ...

    def __getitem__(self, key: str, /) -> Any:
        """Returns the value of a field."""


#: An event for ``create_many``: an Event, a mapping of its fields as the API names them, or a
#: row of a database cursor, which has ``keys()``.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient, Event
#:     >>> from intercom_data_events.emulator import Emulator
#:     >>> client = DataEventsClient("token", transport=Emulator().transport())
#:     >>> row = {"event_name": "invited-friend", "user_id": "314159", "created_at": 1671028894}
#:     >>> client.create_many([row, Event("placed-order", user_id="314159")]).run().accepted
#:     2
EventLike: TypeAlias = Event | Mapping[str, object] | Row
_Status: TypeAlias = Literal["accepted", "refused", "failed", "duplicate"]


@frozen
class Outcome:
    """The outcome of one event.

    The status "accepted" means that Intercom accepted the event. "refused" means that this package
    or Intercom rejected it, and would reject it again. "failed" means that all attempts failed
    transiently; sending the event again later is safe, whether or not it has arrived. "duplicate"
    means that it was not sent, because to Intercom it is the same event as one accepted shortly
    before.

    Attributes:
        position: The place of the event in the input, counted from 0.
        status: "accepted", "refused", "failed" or "duplicate".
        item: The event as it was passed.
        event: The event, or None if `item` is not a valid event.
        error: The reason if `status` is "refused" or "failed", otherwise None.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
        >>> [outcome] = client.create_many([Event("invited-friend", user_id="314159")])
        >>> outcome.status, type(outcome.error).__name__
        ('refused', 'NotFoundError')
    """

    position: int
    status: Literal["accepted", "refused", "failed", "duplicate"]
    item: EventLike
    event: Event | None = None
    error: IntercomError | None = None


@frozen
class Counts:
    """The number of events of a ``create_many`` with each outcome.

    Attributes:
        accepted: Events that Intercom accepted.
        refused: Events that this package or Intercom rejected, and would reject again.
        failed: Events whose attempts all failed transiently; sending them again later is safe.
        duplicate: Events that were not sent, because the same event was accepted shortly before.
        problems: The first 10 outcomes that are "refused" or "failed".

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> counts = client.create_many([{"event_name": "invited-friend"}]).run()
        >>> counts
        Counts(accepted=0, refused=1, failed=0, duplicate=0)
        >>> counts.problems[0].position
        0
    """

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    duplicate: int = 0
    # Not shown: it contains personal data.
    problems: tuple[Outcome, ...] = field(default=(), repr=False)

    @property
    def total(self) -> int:
        """The number of events that have an outcome."""
        return self.accepted + self.refused + self.failed + self.duplicate


@define(eq=False)
class QueuedEvent:
    """An event between the input and its outcome.

    Attributes:
        person: The key of its person; two identities of one person count as two persons.
        key: The key by which Intercom identifies the event.
        reservation: The quota for sending it, while it is in flight.
        suspected_at: How many events had been accepted when it got a systemic answer; None before.
        overtaken: Whether later events of its person did not wait for it.
        error: The systemic answer.
    """

    position: int
    item: EventLike
    event: Event
    person: tuple[str, str] = field(init=False)
    key: Key = field(init=False)
    reservation: Reservation | None = field(default=None, init=False)
    suspected_at: int | None = field(default=None, init=False)
    overtaken: bool = field(default=False, init=False)
    error: IntercomError | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.person = person(self.event)
        self.key = key(self.event)

    def ended(self, status: _Status, error: IntercomError | None = None) -> Outcome:
        """Returns its outcome."""
        return Outcome(self.position, status, self.item, self.event, error)


def read_event(item: EventLike) -> Event | InvalidInputError:
    """Returns the event of an item of the input, or the error that says why it is not an event."""
    try:
        if isinstance(item, Event):
            return item
        return Event.from_dict(item if isinstance(item, Mapping) else _fields(item))
    except InvalidInputError as error:
        return error


def _fields(row: Row) -> dict[str, object]:
    try:
        return {name: row[name] for name in row.keys()}  # noqa: SIM118  # iterating it gives values
    except Exception as error:  # another library may raise anything
        raise invalid(InvalidInputError, MAPPING, row) from error


class Scheduler:
    """Decides which event is sent next, and records the outcomes.

    The events of one person are sent in order: each waits for the outcome of the one before. So
    when its turn comes, it is known whether it is a duplicate.

    A systemic answer, such as that of a revoked token, is not an outcome of the event that got it.
    Sending continues with other events, those of other people first. If the next ones get such
    answers too, and none gets another answer, sending stops. If others are accepted, the event gets
    one more attempt, and then its outcome: "refused" if enough events were accepted in between,
    otherwise "failed".

    Attributes:
        concurrency: The useful number of requests in flight.
        in_flight: The events that are being sent.
        outcomes: The outcomes that are not read yet.
        exhausted: Whether the whole input was read.
        stopped: Whether no more requests start.
        fatal: The error that stopped it, to be raised once.
    """

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.in_flight: set[QueuedEvent] = set()
        self.outcomes = deque[Outcome]()
        self._counted: dict[_Status, int] = {}
        self._problems: list[Outcome] = []
        self.exhausted = False
        self.stopped = False
        self.fatal: BaseException | None = None
        self._position = 0
        self._ready = deque[QueuedEvent]()
        # By person: the events behind the one that is in flight or ready.
        self._behind: dict[tuple[str, str], deque[QueuedEvent]] = {}
        self._held = 0
        # The accepted events, by their positions in the input.
        self._recent = RecentEvents()
        # Events with a systemic answer; and how many such answers there were since another answer.
        self._suspects: list[QueuedEvent] = []
        self._unbroken = 0
        self._accepted = 0
        self._answered = 0

    @property
    def wanted(self) -> int:
        """How many events of the input to read now: enough for one go, or none."""
        # More than the limit if that is low, because switching between reader and workers is slow.
        limit, ready = max(self.concurrency.limit, _AHEAD), len(self._ready)
        if ready >= limit or self.exhausted or self.stopped:
            return 0
        return max(0, min(2 * limit - ready, _HELD - self._held, UNREAD - len(self.outcomes)))

    @property
    def counts(self) -> Counts:
        """How many outcomes there were; for any thread."""
        return Counts(**self._counted, problems=tuple(self._problems))

    @property
    def finished(self) -> bool:
        """Whether there will be no more outcomes."""
        return self.stopped or (self.exhausted and not self._held)

    def take(self, item: EventLike, event: Event | InvalidInputError) -> None:
        """Adds the next item of the input, and what :func:`read_event` returns for it."""
        position = self._position
        self._position += 1
        if isinstance(event, InvalidInputError):
            self._tell(Outcome(position, "refused", item, None, event))
            return
        queued = QueuedEvent(position, item, event)
        self._held += 1
        behind = self._behind.get(queued.person)
        if behind is not None:
            behind.append(queued)
        elif not self._is_duplicate(queued):
            self._behind[queued.person] = deque()
            self._ready.append(queued)
        self._conclude()

    def end_input(self) -> None:
        """Notes that the whole input was read."""
        self.exhausted = True
        self._conclude()

    @property
    def has_next(self) -> bool:
        """Whether there is something to send now."""
        return (
            bool(self._ready)
            and len(self.in_flight) < self.concurrency.limit
            and len(self.outcomes) < UNREAD
            and not self.stopped
        )

    def next(self, reservation: Reservation | None) -> QueuedEvent:
        """Returns the event to send with the quota."""
        queued = self._ready.popleft()
        queued.reservation = reservation
        self.in_flight.add(queued)
        if self.stopped:
            self.stop()  # Again: another thread stopped it and may have missed this event.
        return queued

    def done(self, queued: QueuedEvent, error: IntercomError | None, latency: float) -> None:
        """Records the result of an event; `latency` is that of the last answer, in seconds."""
        self.in_flight.discard(queued)
        if self.stopped and isinstance(error, NotSentError):
            return  # It was handed out, but not sent before the stop.
        if latency > 0:
            self.concurrency.note(latency)
        kind = None if error is None else classify(error)
        if error is None:
            self._answer(accepted=True)
            self._recent.add(queued.key, queued.position)
            self._end(queued, "accepted")
        elif kind is ErrorClass.SYSTEMIC:
            self._suspect(queued, error)
        else:
            if kind is ErrorClass.PERMANENT:
                self._answer(accepted=False)
            self._end(queued, "refused" if kind is ErrorClass.PERMANENT else "failed", error)
        self._conclude()

    def stop(self, error: BaseException | None = None) -> None:
        """Starts no more requests, and retries none in flight. For any thread."""
        self.stopped = True
        self.fatal = self.fatal or error
        for queued in list(self.in_flight):
            if queued.reservation is not None:
                queued.reservation.withdrawn = True

    def _tell(self, outcome: Outcome) -> None:
        """Counts an outcome and queues it for the consumer."""
        status = outcome.status
        self._counted[status] = self._counted.get(status, 0) + 1
        if outcome.error is not None and len(self._problems) < _MOST_PROBLEMS:
            self._problems.append(outcome)
        self.outcomes.append(outcome)

    def _end(
        self, queued: QueuedEvent, status: _Status, error: IntercomError | None = None
    ) -> None:
        """Gives an event its outcome, and the next one of the same person its turn."""
        self._held -= 1
        self._tell(queued.ended(status, error))
        if not queued.overtaken:
            self._give_turn(queued.person)

    def _give_turn(self, person: tuple[str, str]) -> bool:
        """Makes the next event of a person ready; returns whether there is one."""
        behind = self._behind[person]
        while behind:
            follower = behind.popleft()
            if not self._is_duplicate(follower):
                self._ready.append(follower)
                return True
        del self._behind[person]
        return False

    def _answer(self, *, accepted: bool) -> None:
        """Notes an answer that not every event gets."""
        self._unbroken = 0
        self._answered += 1
        self._accepted += accepted
        for queued in [one for one in self._suspects if self._others(one) >= OTHERS]:
            self._suspects.remove(queued)
            self._ready.append(queued)

    def _others(self, queued: QueuedEvent) -> int:
        """Returns how many other events were accepted since its systemic answer."""
        return self._accepted - (queued.suspected_at or 0)

    def _suspect(self, queued: QueuedEvent, error: IntercomError) -> None:
        """Notes a systemic answer, which may be about this event only or about all events."""
        queued.error = error
        if not isinstance(error, APIResponseError):
            self.stop(error)  # A setting fails, so all events would.
        elif queued.suspected_at is not None:
            # If the latest answers of other events are systemic, too, it may be about all events.
            proven = self._others(queued) >= OTHERS and not self._unbroken
            self._end(queued, "refused" if proven else "failed", error)
        else:
            queued.suspected_at = self._accepted
            self._suspects.append(queued)
            self._unbroken += 1
            if self._unbroken > OTHERS:
                self.stop(error)

    def _conclude(self) -> None:
        """Continues once only suspects, and the events behind them, are left."""
        if self._ready or self.in_flight or not self._suspects or self.stopped:
            return
        if not self.exhausted and self._held < _HELD:
            return  # There is more to read.
        for queued in self._suspects:
            if not queued.overtaken:
                queued.overtaken = True
                if self._give_turn(queued.person):
                    return
        if self._answered:
            self._ready.extend(self._suspects)
            self._suspects.clear()
        else:
            self.stop(self._suspects[0].error)  # All events got such an answer.

    def _is_duplicate(self, queued: QueuedEvent) -> bool:
        if not self._recent.has(queued.key, queued.position):
            return False
        self._tell(queued.ended("duplicate"))
        self._held -= 1
        return True
