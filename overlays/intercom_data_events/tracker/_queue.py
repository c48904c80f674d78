"""The protocol of the queues in which a tracker keeps events."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Protocol

from attrs import define

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events.errors import IntercomError
    from intercom_data_events.event import Event

#: Seconds for which an event counts as new.
RECENT = 60.0
#: Seconds. Longer delays were made by a clock that has been set back since.
LONGEST_HELD = 15 * 60.0
#: One turn in this many is for the event that has waited longest, even if newer ones wait.
TURNS = 4


@define(eq=False)
class QueuedEvent:
    """A tracked event until it has left the queue.

    Attributes:
        id: Its number in the queue; later events have higher numbers.
        event: The event.
        tracked_at: When it was tracked, in Unix seconds.
        tries: How many attempts have failed temporarily.
        unsure: Whether Intercom may have processed a failed attempt.
        rejected_at: When Intercom first answered that it does not know the contact, in Unix
            seconds, or None.
        reservation: The quota reserved for its request.
        begun_at: When it was handed to a worker, by the monotonic clock.
        is_proven: Whether enough other events were accepted between its systemic answer and this
            attempt, so that another such answer is about this event alone.
    """

    id: int
    event: Event
    tracked_at: float
    tries: int = 0
    unsure: bool = False
    rejected_at: float | None = None
    reservation: Reservation | None = None
    begun_at: float = 0.0
    is_proven: bool = False


class Queue(Protocol):
    """Where tracked events wait.

    Events are sent in the order in which they were tracked, as long as each is sent within a
    minute. After an outage, three turns in four are for events of the last minute, and the fourth
    is for the event that has waited longest. So new events arrive soon, and a backlog of any size
    arrives in its order.

    `enqueue`, `oldest` and `size` may be called from any thread, signal handler or finalizer. The
    other methods are for the owner of the queue.

    Attributes:
        durable: Whether events outlast the process, and other processes may send them.
    """

    durable: bool

    @property
    def size(self) -> int:
        """The number of events, with those in flight; an estimate if other processes add some."""
        ...

    def enqueue(self, event: Event, now: float, /) -> bool:
        """Adds an event; returns False if the queue is full."""
        ...

    def oldest(self) -> float | None:
        """Returns when the event that waits longest was tracked, in Unix seconds."""

    def claim(self, now: float, avoid: Collection[tuple[str, str]] = (), /) -> QueuedEvent | None:
        """Returns the next event to send; it stays in the queue until one of the following calls.

        Args:
            now: Unix seconds.
            avoid: Contacts whose events come last.
        """

    def ack(self, queued: QueuedEvent, /) -> None:
        """Removes an event that was accepted."""

    def dead_letter(self, queued: QueuedEvent, error: IntercomError, now: float, /) -> None:
        """Removes an event that was rejected; a durable queue keeps it as a dead letter."""

    def nack(self, queued: QueuedEvent, delay: float, now: float, /) -> None:
        """Puts back an event that failed temporarily, to be claimed after a delay in seconds."""

    def release(self, queued: QueuedEvent, /) -> None:
        """Puts back an event that was not sent, to be claimed at once."""

    def run_maintenance(self, now: float, in_flight: Collection[QueuedEvent], /) -> bool:
        """Renews claims, and releases what is due; returns whether there is anything to claim."""
        ...

    def release_delayed(self) -> None:
        """Ends all delays."""

    def high_watermark(self) -> int:
        """Returns the number of the latest event."""
        ...

    def is_drained(self, mark: int, /) -> bool:
        """Returns whether every event up to this number has left."""
        ...

    def needs_checkpoint(self) -> bool:
        """Returns whether :meth:`checkpoint` has something to do."""
        ...

    def checkpoint(self) -> None:
        """Does slow work that can wait, such as writing to the disk; called in a new thread."""

    def remaining(self) -> Iterator[QueuedEvent]:
        """Removes and yields the events that are lost when this process ends; thread-safe."""
        ...

    def close(self) -> None:
        """Closes the queue."""
