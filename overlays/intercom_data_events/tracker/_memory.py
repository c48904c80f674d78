"""A queue of tracked events in memory."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from operator import length_hint
from typing import TYPE_CHECKING

from intercom_data_events._identity import person
from intercom_data_events.tracker._queue import LONGEST_HELD, RECENT, TURNS, QueuedEvent

if TYPE_CHECKING:
    from intercom_data_events.event import Event


class MemoryQueue:
    """A queue that ends with its process.

    An event takes a token when it enters, and returns it when it leaves, so the bound is exact
    without a lock.

    Args:
        most: The largest number of events that it holds.
    """

    durable = False

    def __init__(self, most: int) -> None:
        self._most = most
        self._unused_tokens = iter(range(most))
        self._returned_tokens = deque[None]()
        # Events that were tracked, and that the owner has not collected yet.
        self._arrivals = deque["tuple[Event, float]"]()
        # All events that have not left, by number and so by age. To find its first item, a plain
        # dict would search through those that have left.
        self._entries = OrderedDict[int, QueuedEvent]()
        # Heaps, because a failed event returns to its place.
        self._recent: list[tuple[float, int, QueuedEvent]] = []
        self._backlog: list[tuple[float, int, QueuedEvent]] = []
        self._delayed: list[tuple[float, int, QueuedEvent]] = []
        self._last = 0
        self._turn = 0
        self._latest = -math.inf

    @property
    def size(self) -> int:
        unused = length_hint(self._unused_tokens) + len(self._returned_tokens)
        return self._most - unused

    def enqueue(self, event: Event, now: float) -> bool:
        if next(self._unused_tokens, None) is None:
            try:
                self._returned_tokens.pop()
            except IndexError:
                return False
        self._arrivals.append((event, now))
        return True

    def oldest(self) -> float | None:
        # The owner may change the entries in the meantime.
        for _ in range(10):
            with suppress(RuntimeError, IndexError):
                if self._entries:
                    return next(iter(self._entries.values())).tracked_at
                return self._arrivals[0][1]
        return None

    def claim(self, now: float, avoid: Collection[tuple[str, str]] = ()) -> QueuedEvent | None:
        self._collect()
        recent, backlog = self._recent, self._backlog
        while recent and recent[0][0] <= now - RECENT:
            heapq.heappush(backlog, heapq.heappop(recent))
        if avoid and (other := self._of_another(avoid)) is not None:
            return other
        self._turn += 1
        if backlog and (not recent or self._turn % TURNS == 0):
            return heapq.heappop(backlog)[2]
        return heapq.heappop(recent)[2] if recent else None

    def ack(self, queued: QueuedEvent) -> None:
        if self._entries.pop(queued.id, None) is not None:
            self._returned_tokens.append(None)

    def dead_letter(self, queued: QueuedEvent, *_: object) -> None:
        self.ack(queued)

    def nack(self, queued: QueuedEvent, delay: float, now: float) -> None:
        queued.tries += 1
        self._note(now)
        heapq.heappush(self._delayed, (now + delay, queued.id, queued))

    def release(self, queued: QueuedEvent) -> None:
        heapq.heappush(self._recent, (queued.tracked_at, queued.id, queued))

    def run_maintenance(self, now: float, *_: object) -> bool:
        self._collect()
        self._note(now)
        while self._delayed and not 0 < self._delayed[0][0] - now <= LONGEST_HELD:
            self.release(heapq.heappop(self._delayed)[2])
        return bool(self._recent or self._backlog)

    def release_delayed(self) -> None:
        while self._delayed:
            self.release(heapq.heappop(self._delayed)[2])

    def high_watermark(self) -> int:
        self._collect()
        return self._last

    def is_drained(self, mark: int) -> bool:
        return next(iter(self._entries), mark + 1) > mark

    def needs_checkpoint(self) -> bool:
        return False

    def checkpoint(self) -> None:
        pass

    def remaining(self) -> Iterator[QueuedEvent]:
        while True:
            try:
                queued = self._entries.popitem(last=False)[1]
            except KeyError:
                try:
                    event, tracked_at = self._arrivals.popleft()
                except IndexError:
                    return
                queued = QueuedEvent(0, event, tracked_at)
            self._returned_tokens.append(None)
            yield queued

    def close(self) -> None:
        pass

    def _collect(self) -> None:
        while self._arrivals:
            event, tracked_at = self._arrivals.popleft()
            self._last += 1
            self._entries[self._last] = queued = QueuedEvent(self._last, event, tracked_at)
            self.release(queued)

    def _note(self, now: float) -> None:
        """Keeps delays from becoming longer when the clock is set back."""
        if now < self._latest:
            back = self._latest - now
            self._delayed = [(due - back, number, queued) for due, number, queued in self._delayed]
        self._latest = now

    def _of_another(self, avoid: Collection[tuple[str, str]]) -> QueuedEvent | None:
        for heap in (self._recent, self._backlog):
            others = [place for place in heap if person(place[2].event) not in avoid]
            if others:
                place = min(others)
                heap.remove(place)
                heapq.heapify(heap)
                return place[2]
        return None
