"""What Intercom's answers say of the app's rate limit, and keeping to it without I/O.

Intercom deals an app's quota out in windows of 10 seconds, and every answer says how much of the
present window is left. A :class:`Pacer` learns from that, and lets a request go where there is room
for it; the others queue until the window resets.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import count
from typing import NamedTuple

from attrs import define, frozen

from intercom_data_events import timestamps
from intercom_data_events.clock import Alarm, AsyncAlarm, Clock
from intercom_data_events.retry import LONGEST_WINDOW, read_date, retry_after

# Requests that may go at once to find out what is left, while nothing is known of it. Where the
# window before left somebody no room, it is one.
_PROBES = 10
# Seconds after which a probe that has not come back is not waited for any longer.
_PROBE_PATIENCE = 1.0
# Beyond the year 5138, and any number of requests.
_NONSENSE = 10**11
# Own answers of a window that it takes to tell how much others use of it; and those with which it
# can be told that they use more than before, as one of many processes may get no more of them.
_SAMPLE = 20
_SMALL_SAMPLE = 5


@frozen
class RateLimit:
    """The rate limit as an answer's headers had it.

    Intercom deals an app's quota out in windows of 10 seconds; all its clients share it.

    Attributes:
        limit: Requests that the window allows.
        remaining: Requests that it still allows.
        reset_at: When the window ends and the next begins, an aware datetime in UTC, by
            Intercom's clock.
    """

    limit: int
    remaining: int
    reset_at: datetime

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit | None:
        """Reads ``X-RateLimit-*``; None where they are missing or no numbers.

        Example:
            >>> RateLimit.from_headers({"x-ratelimit-limit": "1667"}) is None
            True
        """
        said = _said(headers)
        try:
            return said and cls(said.limit, said.remaining, timestamps.from_unix(said.reset))
        except ValueError:
            return None


class _Said(NamedTuple):
    """What an answer says; `reset` is in Unix seconds, by the server's clock."""

    limit: int
    remaining: int
    reset: int


def _said(headers: Mapping[str, str]) -> _Said | None:
    """Reads the headers; None where they are missing, no numbers, or nonsense."""
    limit = headers.get("x-ratelimit-limit")
    if limit is None:
        return None
    try:
        said = _Said(
            int(limit),
            int(headers["x-ratelimit-remaining"]),
            int(headers["x-ratelimit-reset"]),
        )
    except (KeyError, ValueError):
        return None
    return said if max(map(abs, said)) < _NONSENSE else None


class ServerClock:
    """How far the server's clock is ahead of ours, as far as answers tell.

    ``Date`` has whole seconds only, so an answer says between what the difference lies, not what
    it is. What several answers say is intersected; and as long as that leaves room for 0, the
    clocks are taken to agree: correcting less than what is known costs quota (tried).
    """

    def __init__(self) -> None:
        self._low = -math.inf
        self._high = math.inf
        self._read: tuple[str, float] = ("", 0.0)

    @property
    def ahead(self) -> float:
        """Seconds; where they are not known exactly, the fewest, so that nothing is too early."""
        return 0.0 if self._low <= 0.0 <= self._high else self._low

    def learn(self, date: str | None, reset: int | None, sent: float, received: float) -> None:
        """Takes in one answer.

        Args:
            date: Its ``Date``.
            reset: When it says the window ends, which is later than now, by the server's clock.
            sent: When its request was sent, by our clock.
            received: When it came, by our clock.
        """
        if date is None:
            return
        if date != self._read[0]:
            seconds = read_date(date)
            if seconds is None:
                return
            self._read = (date, seconds)
        begin = self._read[1]
        end = begin + 1 if reset is None else min(begin + 1, max(reset, begin))
        low, high = begin - received, end - sent
        if low > self._high or high < self._low:
            # One of the clocks was set, or stood still: what was known is worth nothing.
            self._low, self._high = low, high
        else:
            self._low, self._high = max(self._low, low), min(self._high, high)


@define(eq=False)
class Ticket:
    """One request's place: first come, first served, also when it comes again after a failure."""

    number: float
    share: float
    #: Whether it waits for room; if not, it counts for those that do.
    paced: bool
    #: The thread that it belongs to; None where one thread has many at a time.
    thread: int | None
    alarm: Alarm | AsyncAlarm | None = None
    #: When it was let go, by our clock.
    sent: float = 0.0

    def __lt__(self, other: Ticket) -> bool:
        return self.number < other.number


@define
class _Window:
    """What answers have told of one window of the server's."""

    reset: int
    limit: int
    #: The smallest seen, as answers overtake each other.
    remaining: int
    #: As first seen; since then, answers of our own.
    at_first: int
    answered: int = 0
    #: Requests that ended without an answer since the last one: they may have been counted.
    lost: int = 0
    #: Requests of ours that were let go in it.
    used: int = 0


class Pacer:
    """Keeps one app's requests within its quota; for all threads, or all tasks of one event loop.

    Of the present window of the server's, either is true:

    - *Nothing is known.* Up to ``_PROBES`` requests go and find out; the others wait for their
      answers, for each at most ``_PROBE_PATIENCE`` seconds.
    - *An answer has told* what is left. A request goes as long as what is left, by the smallest
      number seen, is enough for what is in flight. Other processes with the same quota have
      requests in flight, too: how many, is estimated from how much faster the quota shrinks than
      this process uses it.

    A window is over by time, or when an answer speaks of a later one. Apart from that, a 429 that
    does not speak of windows holds everything back for as long as it asks.

    Nothing here waits: :meth:`enter` says how long the caller has to, and sets the alarms of those
    who need not any longer. Every step leaves things so that it can be interrupted after it.

    Args:
        clock: Ours.
        alarm: Makes what one caller waits on.
        thread: Tells which thread asks, where each waits for one thing at a time.

    Attributes:
        latency: Seconds that the last answer took; 0 before any.
    """

    def __init__(
        self,
        clock: Clock,
        alarm: Callable[[], Alarm | AsyncAlarm],
        thread: Callable[[], int] | None = None,
    ) -> None:
        self.server = ServerClock()
        self.latency = 0.0
        self._clock = clock
        # Time since 1970 by a clock that nobody sets, so that no window seems to last for years.
        self._epoch = clock.time() - clock.monotonic()
        self._alarm = alarm
        self._thread = thread
        # Entered again where the collector, or a signal's handler, ends a request in the midst.
        self._lock = threading.RLock()
        self._numbers = count()
        # One queue for each share of the quota: who may use less of it holds up nobody else.
        self._queues: dict[float, list[Ticket]] = {}
        # A set, so that an interrupt between two steps cannot make it wrong for good.
        self._in_flight: set[Ticket] = set()
        self._window: _Window | None = None
        self._limited = False
        # Whether the present window left somebody no room.
        self._scarce = False
        self._closed_until = -math.inf
        # Requests of others for each of ours, in the window before.
        self._others = 0.0
        # While nothing is known of a window: who finds out, since when, and how many may.
        self._probes: set[Ticket] = set()
        self._probed = -math.inf
        self._most_probes: float = _PROBES

    def ticket(self, share: float, *, paced: bool) -> Ticket:
        """A place for a request.

        Args:
            share: The part of the quota that may be used for it, above 0 and up to 1.
            paced: Whether it waits for room.
        """
        return Ticket(next(self._numbers), share, paced, self._thread and self._thread())

    def enter(self, ticket: Ticket) -> float:
        """Lets a request go, or puts it into its queue.

        Returns:
            0 where it may go, else how many seconds to wait for ``ticket.alarm`` before asking
            again; infinite for who is not at the head of the queue.
        """
        with self._lock:
            now = self._now()
            window = self._present_window(now)
            queue = self._queues.get(ticket.share)
            if queue and ticket.thread is not None:
                self._let_pass(ticket, queue)
            if not ticket.paced:
                wait = 0.0
            elif queue and queue[0] < ticket:
                wait = math.inf
            else:
                wait = self._seconds_until_room(window, ticket.share, now)
            if wait > 0:
                self._enqueue(ticket)
                self._scarce |= window is not None
                # A new one each time, as some cannot be taken back once they are set.
                ticket.alarm = self._alarm()
                return wait
            self._dequeue(ticket)
            self._in_flight.add(ticket)
            ticket.sent = now
            if window is None:
                self._probes.add(ticket)
                self._probed = now
            else:
                window.used += 1
            if self._queues:
                self._wake()
            return 0.0

    def leave(
        self,
        ticket: Ticket,
        headers: Mapping[str, str] | None = None,
        *,
        status: int = 0,
        lost: bool = False,
    ) -> None:
        """Ends what a ticket was for, whatever that is: its answer came, or nobody wants it now.

        Args:
            ticket: In flight, queued, or neither.
            headers: Of the answer; None where there was none.
            status: Of the answer.
            lost: Whether there was none although the server may have got the request.
        """
        with self._lock:
            if ticket in self._in_flight:
                self._in_flight.discard(ticket)
                self._probes.discard(ticket)
                if headers is not None:
                    now = self._now()
                    self.latency = now - ticket.sent
                    self._learn(headers, status, ticket.sent, now)
                elif lost and self._window is not None:
                    self._window.lost += 1
            self._dequeue(ticket)
            if self._queues:
                self._wake()

    def _now(self) -> float:
        return self._epoch + self._clock.monotonic()

    def _let_pass(self, ticket: Ticket, queue: list[Ticket]) -> None:
        """Puts a request before another of its thread, which cannot go on before it has ended.

        So it is where a signal's handler sends while the thread that it interrupts waits for room.
        """
        held_up = next((one for one in queue if one.thread == ticket.thread), ticket)
        ticket.number = min(ticket.number, held_up.number - (held_up is not ticket) / 2)

    def _present_window(self, now: float) -> _Window | None:
        """What is known of the present window; one that is over is closed."""
        window = self._window
        if window is not None and window.reset - self.server.ahead <= now:
            self._close(window)
        return self._window

    def _seconds_until_room(self, window: _Window | None, share: float, now: float) -> float:
        if self._closed_until > now:
            return self._closed_until - now
        if window is not None:
            return 0.0 if self._has_room(window, share) else window.reset - self.server.ahead - now
        # What is left is not known: some find out, the others wait for them.
        if len(self._probes) < self._most_probes:
            return 0.0
        return max(0.0, self._probed + _PROBE_PATIENCE - now)

    def _has_room(self, window: _Window, share: float) -> bool:
        left = window.remaining - window.lost
        if share < 1 and window.used >= max(1, math.floor(share * window.limit)):
            return False
        ours = len(self._in_flight) + 1
        # Others have as many on the way as they keep up with ours, and may be about to send some
        # more by a number that is out of date already. Simulated with 4 and 8 processes: with this
        # margin of two, at most 0.1 % of the answers are 429; without it, up to 1 %; and as if
        # there were no others, 2 to 6 %.
        return ours + (ours + 2) * self._others_now(window) <= left

    def _others_now(self, window: _Window) -> float:
        """Requests of others for each of ours; of the window before, until this one tells."""
        others = self._others_seen(window)
        return others if window.answered >= _SAMPLE else max(others, self._others)

    def _others_seen(self, window: _Window) -> float:
        """The same, as far as this window alone tells, if it does."""
        if window.answered < _SMALL_SAMPLE:
            return self._others
        used = window.at_first - window.remaining
        return max(0.0, used - window.answered - len(self._in_flight)) / window.answered

    def _close(self, window: _Window) -> None:
        """The window is over, and nothing is known of the next."""
        self._others = self._others_seen(window)
        self._window = None
        self._probes, self._probed = set(), -math.inf
        self._most_probes = 1 if self._scarce else _PROBES
        self._scarce = False

    def _learn(self, headers: Mapping[str, str], status: int, sent: float, received: float) -> None:
        """Takes in what an answer says."""
        said = _said(headers)
        self.server.learn(headers.get("date"), said and said.reset, sent, received)
        if said is None:
            if status == 429:
                # Of something else than the app's windows, which says how long at best.
                asked = retry_after(headers, received) or 0.0
                self._closed_until = received + min(asked, LONGEST_WINDOW)
            elif 200 <= status < 300 and not self._limited:
                self._most_probes = math.inf  # As far as is known, there is no limit to keep to.
            return
        self._limited = True
        limit, remaining, reset = said
        window = self._window
        rest = reset - self.server.ahead - received
        if not 0 < rest <= LONGEST_WINDOW or (window is not None and reset < window.reset):
            return  # About one that is over.
        if window is None or reset > window.reset:
            if window is not None:
                self._close(window)
            used = len(self._in_flight) + 1
            self._window = _Window(reset, limit, remaining, remaining, used=used)
        else:
            window.limit = limit
            window.remaining = min(window.remaining, remaining)
            window.answered += status != 429  # which uses nothing up
            window.lost = 0

    def _enqueue(self, ticket: Ticket) -> None:
        queue = self._queues.setdefault(ticket.share, [])
        if ticket not in queue:
            insort(queue, ticket)

    def _dequeue(self, ticket: Ticket) -> None:
        # An interrupt may have come between any two of these steps before.
        queue = self._queues.get(ticket.share)
        if queue is not None:
            if ticket in queue:
                queue.remove(ticket)
            if not queue:
                self._queues.pop(ticket.share, None)

    def _wake(self) -> None:
        """Has the first of each queue ask again."""
        for queue in list(self._queues.values()):
            if queue and (alarm := queue[0].alarm) is not None:
                alarm.set()
