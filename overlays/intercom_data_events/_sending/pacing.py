"""Keeps requests within the app's rate limit, learned from Intercom's answers; without I/O.

Intercom grants an app a quota for each window of 10 seconds, and every answer says how much of the
current window is left. A :class:`RateLimiter` learns from that. A request is sent at once if there
is room for it; otherwise it waits in a queue until the window resets.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections.abc import Callable, Mapping
from itertools import count
from typing import TYPE_CHECKING

from intercom_data_events._sending.quota import ClockSkew, read_quota, retry_after
from intercom_data_events.clock import Alarm, AsyncAlarm, Clock

# Slots: the largest number of requests in flight on own connections, except those that a scheduler
# bounds.
_MOST_IN_FLIGHT = 100
# Requests that may be sent at once to learn the quota while the window is unknown. Before the first
# answer, and after a window without room for a request, only one may.
_PROBES = 10
# Seconds that a request waits for other requests' answers to learn the quota.
_PATIENCE = 0.1
# Own answers in a window that suffice to estimate how much of it other processes use. Few, because
# a process may get only few in a small window.
_SAMPLE = 2
# Seconds by which the ends of one window may differ, because some servers add up rounded times.
_JITTER = 2.0
# Maximum seconds for which a 429 without a window delays all requests.
_LONGEST_DELAY = 60.0


if TYPE_CHECKING:
    from typing import Protocol

    class Waker(Protocol):
        """An object that is set when a request may be sent."""

        def set(self) -> None:
            """Wakes the request's sender."""


# Plain classes, like those of the engines.


class Reservation:
    """One request's place in the queue; a retry keeps its place.

    Attributes:
        number: Its place; smaller numbers come first.
        share: The largest part of the quota that it may use.
        paced: Whether the request waits for room; if not, it still counts for those that wait.
        uses_slot: Whether it takes a slot while it is in flight.
        thread: The thread that it belongs to; None if one thread has several reservations at a
            time.
        waker: Set when it may be sent, instead of an alarm to wait on.
        alarm: Set when it may be sent.
        sent: When the request got its quota, or began with it, by our clock.
        latency: Seconds that the latest answer took; 0 before the first.
        waits_for_slot: Whether its latest wait was for a slot, not for the rate limit.
        withdrawn: Set by a scheduler that has closed: its request is not repeated.
        held: Whether it is queued, or its request is in flight.
    """

    def __init__(
        self,
        number: float,
        share: float,
        *,
        paced: bool,
        uses_slot: bool,
        thread: int | None,
        waker: Waker | None,
    ) -> None:
        self.number, self.share = number, share
        self.paced, self.uses_slot = paced, uses_slot
        self.thread, self.waker = thread, waker
        self.alarm: Alarm | AsyncAlarm | Waker | None = None
        self.sent = self.latency = 0.0
        self.waits_for_slot = self.withdrawn = self.held = False

    @property
    def queue(self) -> tuple[float, bool, bool]:
        """The key of the queue in which it waits."""
        return self.share, self.paced, self.uses_slot


class _Window:
    """One window of the server, as learned from answers.

    Attributes:
        first: The earliest time at which it may end.
        reset: The latest such time, when it counts as ended.
        since: When its first answer arrived, by our clock.
        until: The latest end by our clock, from the reset and ``Date`` of its answers.
        remaining: The smallest number so far, because answers overtake each other.
        at_first: The number in the first answer.
        answered: How many answers this process has received since then.
        lost: Requests without an answer since the last answer; the server may have counted them.
        used: Requests of this process that got quota of the window.
    """

    def __init__(
        self, first: float, reset: float, since: float, limit: int, remaining: int, used: int
    ) -> None:
        self.first, self.reset, self.since, self.limit = first, reset, since, limit
        self.until = math.inf
        self.remaining = self.at_first = remaining
        self.answered = self.lost = 0
        self.used = used


class RateLimiter:
    """Keeps one app's requests within its quota; for all threads, or all tasks of one event loop.

    There are two states of the server's current window:

    - *Unknown.* Up to ``_PROBES`` requests are sent to learn the quota, or one if quota is scarce;
      the others wait for their answers, at most ``_PATIENCE`` seconds for each.
    - *Known*, since an answer said what is left. A request is sent as long as the smallest
      remaining number is enough for all requests in flight. Other processes with the same quota
      have requests in flight, too; their number is estimated from how much faster the quota shrinks
      than this process uses it. While quota is scarce, at most as many requests are in flight as
      the window had answers. Their number doubles, so the estimate exists before it matters.

    A window ends by time, or when an answer names a later one. Independently of windows, a 429 that
    does not name one delays all requests for as long as it asks.

    Nothing here waits: :meth:`acquire` returns how long the caller must wait, and sets the alarms
    of callers that may continue. An interrupt after any step leaves a consistent state.

    Args:
        clock: The client's clock.
        alarm: Makes an alarm for one caller to wait on.
        thread: Returns the current thread, if each thread waits for one reservation at a time.
    """

    def __init__(
        self,
        clock: Clock,
        alarm: Callable[[], Alarm | AsyncAlarm],
        thread: Callable[[], int] | None = None,
    ) -> None:
        self.skew = ClockSkew()
        self._clock = clock
        # Seconds since 1970, by a clock that cannot be set: no window seems to last for years.
        self._epoch = clock.time() - clock.monotonic()
        self._alarm = alarm
        self._thread = thread
        # Reentrant: the garbage collector or a signal handler may end a request during any step.
        self._lock = threading.RLock()
        self._numbers = count()
        # One queue for each share of the quota, so that a smaller share does not delay the others;
        # and one for each kind of request, so that neither paced requests nor those that wait for
        # slots delay others.
        self._queues: dict[tuple[float, bool, bool], list[Reservation]] = {}
        # A set, not a count, so that an interrupt between two steps has no lasting effect.
        self._in_flight: set[Reservation] = set()
        self._in_slots: set[Reservation] = set()
        self._window: _Window | None = None
        self._limited = False
        # Whether a request found no room in the current window.
        self._scarce = False
        self._closed_until = -math.inf
        # Requests of other processes for each of ours, in the previous window.
        self._others = 0.0
        # When the last request got its quota.
        self._granted = -math.inf
        # While the window is unknown: the probes, and how many may be sent.
        self._probes: set[Reservation] = set()
        self._most_probes: float = 1

    def reservation(
        self, share: float, *, paced: bool, uses_slot: bool = False, waker: Waker | None = None
    ) -> Reservation:
        """Returns a place for a request.

        Args:
            share: The largest part of the quota that it may use, greater than 0 and at most 1.
            paced: Whether the request waits for room within the quota.
            uses_slot: Whether it takes a slot, and waits while all are taken. A scheduler bounds
                its requests itself; they take none, so they neither wait for others nor delay them.
            waker: Set when it may be sent, for a caller that does not wait on an alarm.
        """
        # A scheduler has several reservations at a time, and other threads send their requests.
        thread = None if waker or not self._thread else self._thread()
        return Reservation(
            next(self._numbers),
            share,
            paced=paced,
            uses_slot=uses_slot,
            thread=thread,
            waker=waker,
        )

    def acquire(self, reservation: Reservation) -> float:
        """Grants a request quota, or puts it into its queue.

        Returns:
            0 if the request may be sent; otherwise the seconds to wait for ``reservation.alarm``
            before the next call, infinite for a request that is not at the head of the queue.
        """
        with self._lock:
            reservation.held = True
            now = self._now()
            window = self._present_window(now)
            queue = self._queues.get(reservation.queue) if self._queues else None
            if queue and reservation.thread is not None:
                self._let_pass(reservation, queue)
            full = reservation.uses_slot and len(self._in_slots) >= _MOST_IN_FLIGHT
            if full or (queue and queue[0].number < reservation.number):
                wait = math.inf
            elif not reservation.paced:
                wait = 0.0
            else:
                wait = self._seconds_until_room(window, reservation.share, now)
            if wait > 0:
                self._enqueue(reservation)
                reservation.waits_for_slot = full
                # A new alarm each time, because some kinds cannot be reset.
                reservation.alarm = reservation.waker or self._alarm()
                return wait
            self._dequeue(reservation)
            self._in_flight.add(reservation)
            if reservation.uses_slot:
                self._in_slots.add(reservation)
            reservation.sent = self._granted = now
            if window is None:
                self._probes.add(reservation)
            else:
                window.used += 1
            self._wake()
            return 0.0

    def begin(self, reservation: Reservation) -> None:
        """Notes that a request whose quota was acquired before begins now."""
        reservation.sent = self._now()

    def release(
        self,
        reservation: Reservation,
        headers: Mapping[str, str] | None = None,
        *,
        status: int = 0,
        lost: bool = False,
    ) -> None:
        """Ends a reservation: its answer arrived, or its request is not sent.

        Args:
            reservation: A reservation in flight, queued, or neither.
            headers: The headers of the answer; None without an answer.
            status: The status of the answer.
            lost: Whether the server may have received the request, but no answer arrived.
        """
        with self._lock:
            self._in_slots.discard(reservation)
            if reservation in self._in_flight:
                self._in_flight.discard(reservation)
                self._probes.discard(reservation)
                if headers is not None:
                    now = self._now()
                    reservation.latency = now - reservation.sent
                    self._learn(headers, status, reservation.sent, now)
                elif self._window is not None:
                    # A request that was not sent used no quota.
                    self._window.lost += lost
                    self._window.used -= not lost
            self._dequeue(reservation)
            # Last, so that after an interrupt it is released again.
            reservation.held = False
            self._wake()

    def _now(self) -> float:
        return self._epoch + self._clock.monotonic()

    def _let_pass(self, reservation: Reservation, queue: list[Reservation]) -> None:
        """Puts a request before another one of its thread.

        A signal handler that sends while its thread waits for room would otherwise wait for itself.
        """
        held_up = next((one for one in queue if one.thread == reservation.thread), reservation)
        if held_up is not reservation:
            reservation.number = min(reservation.number, held_up.number - 0.5)

    def _present_window(self, now: float) -> _Window | None:
        """Returns the current window, if it is known; closes one that has ended."""
        window = self._window
        if window is not None and self._end_of(window) <= now:
            self._close(window)
        return self._window

    def _seconds_until_room(self, window: _Window | None, share: float, now: float) -> float:
        if self._closed_until > now:
            return self._closed_until - now
        if window is None:
            at_once, most = len(self._probes), self._most_probes
        elif self._has_room(window, share):
            at_once = len(self._in_flight)
            most = window.answered + 1 if self._most_probes == 1 else math.inf
        else:
            return self._end_of(window) - now
        # The wait for others' answers is short, because these may never come.
        return 0.0 if at_once < most else max(0.0, self._granted + _PATIENCE - now)

    def _end_of(self, window: _Window) -> float:
        """Returns when a window counts as ended, by our clock.

        One wrong ``Date`` changes the clock skew, but not what other answers said.
        """
        return min(window.reset - self.skew.ahead, window.until)

    def _has_room(self, window: _Window, share: float) -> bool:
        ours = len(self._in_flight) + 1
        # Other processes have requests in flight in proportion to ours, and may be about to send
        # more on outdated numbers; hence the margin of two. Simulated with 2 to 8 processes of 1 to
        # 16 tasks, and quotas from 50 to 400: at most 2 % of the answers are 429.
        others = max(self._others_seen(window), self._others)
        if ours + (ours + 2) * others > window.remaining - window.lost or (
            share < 1 and window.used >= max(1, math.floor(share * window.limit))
        ):
            self._scarce = True
            return False
        return True

    def _others_seen(self, window: _Window) -> float:
        """Returns others' requests for each of ours, once the window has enough answers."""
        if window.answered < _SAMPLE:
            return 0.0
        return max(0, window.at_first - window.remaining - window.answered) / window.answered

    def _close(self, window: _Window) -> None:
        """Ends the window; the next one is unknown."""
        # A single window misleads: it may have begun with our requests only.
        self._others = max(self._others_seen(window), self._others * 0.75)
        self._window = None
        self._probes = set()
        self._most_probes = 1 if self._scarce else _PROBES
        self._scarce = False

    def _learn(self, headers: Mapping[str, str], status: int, sent: float, received: float) -> None:
        """Learns from an answer."""
        self.skew.learn(headers.get("date"), sent, received)
        said = read_quota(headers, received + self.skew.ahead, received - sent)
        if said is None:
            if status == 429:
                # It is not about the app's windows, but may say how long to wait.
                asked = retry_after(headers, received) or 0.0
                self._closed_until = received + min(asked, _LONGEST_DELAY)
            elif not self._limited:  # No answer has named a limit so far.
                succeeded = 200 <= status < 300
                self._most_probes = max(self._most_probes, math.inf if succeeded else _PROBES)
            return
        self._limited = True
        limit, remaining, _, first, last, seconds = said
        window = self._window
        if seconds is None or last - self.skew.ahead <= received:
            return  # The window has ended, or is not credible.
        if window is not None and last < window.first:
            if sent < window.since or window.first - last < _JITTER:
                return
            # No window ends before an earlier one, so that end was wrong or of another limit.
            self._close(window)
            window = None
        if window is None or first > window.reset:
            if window is not None:
                self._close(window)
            used = len(self._in_flight) + 1
            window = self._window = _Window(first, last, received, limit, remaining, used)
        else:
            window.first, window.reset = max(window.first, first), min(window.reset, last)
            window.limit = limit
            window.remaining = min(window.remaining, remaining)
            window.answered += status != 429  # A 429 uses no quota.
            window.lost = 0
        window.until = min(window.until, received + seconds)

    def _enqueue(self, reservation: Reservation) -> None:
        queue = self._queues.setdefault(reservation.queue, [])
        if reservation not in queue:
            insort(queue, reservation, key=lambda one: one.number)

    def _dequeue(self, reservation: Reservation) -> None:
        if not self._queues:
            return
        # An interrupt may have come between any two of these steps.
        queue = self._queues.get(reservation.queue, [])
        if reservation in queue:
            queue.remove(reservation)
        if not queue:
            self._queues.pop(reservation.queue, None)

    def _wake(self) -> None:
        """Wakes the first request of each queue, to call `acquire` again."""
        for queue in list(self._queues.values()):
            if queue and (alarm := queue[0].alarm) is not None:
                alarm.set()
