"""What a tracker keeps events in, and in which order they leave it."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from itertools import count
from typing import TYPE_CHECKING, Protocol

from attrs import define

from intercom_data_events.errors import IntercomError
from intercom_data_events.event import Event

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import Reservation

#: Seconds for which an event counts as new.
RECENT = 60.0
#: Seconds; what is held back for longer was held by a clock that has been set back since.
LONGEST_HELD = 15 * 60.0
#: Of so many turns, one is for what waits longest, even if there is something new.
TURNS = 4


@define(eq=False)
class QueuedEvent:
    """A tracked event on its way out.

    Attributes:
        id: Its number in the queue, rising.
        event: The event.
        tracked_at: When it was tracked, in Unix seconds.
        tries: How often sending it has failed for the time being.
        begun_at: When the request that is to submit it was made, by the clock that only goes on.
        reservation: The quota that it is sent with.
        unsure: Whether one of the failures may have been none, as far as Intercom is concerned.
    """

    id: int
    event: Event
    tracked_at: float
    tries: int = 0
    begun_at: float = 0.0
    unsure: bool = False
    rejected_at: float | None = None
    reservation: Reservation | None = None


class Queue(Protocol):
    """Where tracked events wait.

    First come, first served, as long as everything is sent within a minute. After an outage, what
    is younger than that goes first, three of four times; the fourth is for what waits longest. So
    what people do now is seen now, and what they did then arrives in its order, however much of
    it there is.
    """

    @property
    def size(self) -> int:
        """How many events there are, those on their way included; about, where others add some."""
        ...

    @property
    def durable(self) -> bool:
        """Whether what is in it outlasts the process, and other processes may send it."""
        ...

    @property
    def lock(self) -> threading.RLock:
        """What a thread holds that uses it."""
        ...

    def enqueue(self, event: Event, now: float, /) -> bool:
        """Takes in an event; False where the queue is full."""
        ...

    def claim(self, now: float, /) -> QueuedEvent | None:
        """Takes the next to send; it stays in the queue until one of the following."""

    def ack(self, entry: QueuedEvent, /) -> None:
        """Ends it: it was accepted."""

    def dead_letter(self, entry: QueuedEvent, error: IntercomError, now: float, /) -> None:
        """Ends it: it was refused."""

    def nack(self, entry: QueuedEvent, seconds: float, now: float, /) -> None:
        """Holds it back for so many seconds: it failed for the time being."""

    def release(self, entry: QueuedEvent, /) -> None:
        """Puts it back where it was: it was not sent."""

    def run_maintenance(self, now: float, in_flight: Collection[QueuedEvent], /) -> bool:
        """Lets go of what was held back until now; whether there is anything to send."""
        ...

    def release_delayed(self) -> None:
        """Lets go of everything that is held back."""

    def high_watermark(self) -> int:
        """The number of the event that came last."""
        ...

    def is_drained(self, mark: int, /) -> bool:
        """Whether every event up to this one has left."""
        ...

    def oldest(self) -> float | None:
        """When the event that waits longest was tracked, in Unix seconds."""

    def checkpoint(self) -> None:
        """Does what can wait, and what may take a while."""

    def remaining(self) -> Iterator[QueuedEvent]:
        """Gives out what is lost when this process ends."""
        ...

    def close(self) -> None:
        """Ends it."""


class MemoryQueue:
    """A queue that ends with its process.

    Args:
        most: How many events it holds.
    """

    durable = False

    def __init__(self, most: int) -> None:
        self.lock = threading.RLock()
        self._most = most
        # All that have not left, by their numbers, and so by their age; a dict would look for its
        # first among all that have left.
        self._entries = OrderedDict[int, QueuedEvent]()
        # Heaps, as what failed comes back to where it was.
        self._recent: list[tuple[float, int, QueuedEvent]] = []
        self._backlog: list[tuple[float, int, QueuedEvent]] = []
        self._held: list[tuple[float, int, QueuedEvent]] = []
        # A signal's handler that tracks an event can come between any two steps.
        self._numbers = count(1)
        self._turn = 0

    @property
    def size(self) -> int:
        return len(self._entries)

    def enqueue(self, event: Event, now: float) -> bool:
        if len(self._entries) >= self._most:
            return False
        entry = QueuedEvent(next(self._numbers), event, now)
        place = now, entry.id, entry
        # Where a signal's handler would wait for an event that is in one of them only, it would
        # wait for good: so nothing comes between these two, as no function in Python is called.
        self._entries[entry.id] = entry
        heapq.heappush(self._recent, place)
        return True

    def claim(self, now: float) -> QueuedEvent | None:
        recent, backlog = self._recent, self._backlog
        while recent and recent[0][0] <= now - RECENT:
            heapq.heappush(backlog, heapq.heappop(recent))
        self._turn += 1
        if backlog and (not recent or self._turn % TURNS == 0):
            return heapq.heappop(backlog)[2]
        return heapq.heappop(recent)[2] if recent else None

    def ack(self, entry: QueuedEvent) -> None:
        self._entries.pop(entry.id, None)

    def dead_letter(self, entry: QueuedEvent, *_: object) -> None:
        self._entries.pop(entry.id, None)

    def nack(self, entry: QueuedEvent, seconds: float, now: float) -> None:
        entry.tries += 1
        heapq.heappush(self._held, (now + seconds, entry.id, entry))

    def release(self, entry: QueuedEvent) -> None:
        self._free(entry)

    def run_maintenance(self, now: float, *_: object) -> bool:
        while self._held and not 0 < self._held[0][0] - now <= LONGEST_HELD:
            self._free(heapq.heappop(self._held)[2])
        return bool(self._recent or self._backlog)

    def release_delayed(self) -> None:
        held, self._held = self._held, []
        for _, _, entry in held:
            self._free(entry)

    def high_watermark(self) -> int:
        return max(self._entries, default=0)

    def is_drained(self, mark: int) -> bool:
        return next(iter(self._entries), mark + 1) > mark

    def oldest(self) -> float | None:
        entry = next(iter(self._entries.values()), None)
        return None if entry is None else entry.tracked_at

    def checkpoint(self) -> None:
        pass

    def remaining(self) -> Iterator[QueuedEvent]:
        while self._entries:
            yield self._entries.popitem(last=False)[1]

    def close(self) -> None:
        pass

    def _free(self, entry: QueuedEvent) -> None:
        entry.begun_at = 0.0
        heapq.heappush(self._recent, (entry.tracked_at, entry.id, entry))
