"""Sending many events: read lazily, several on their way at once, one outcome for each.

What is sent when is decided by a plan without I/O. Threads carry it out for the blocking client,
tasks for the async one.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, cast

import httpx
from attrs import define, field, frozen

from intercom_data_events import operations
from intercom_data_events.checks import shown
from intercom_data_events.errors import (
    APIConnectionError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
)
from intercom_data_events.event import Event, key, person
from intercom_data_events.fast import fast_connections, running_trio
from intercom_data_events.sending import UnwantedError
from intercom_data_events.verdicts import Verdict, verdict

if TYPE_CHECKING:
    import anyio
    import anyio.abc

    from intercom_data_events.clock import Clock
    from intercom_data_events.connections import Pool
    from intercom_data_events.settings import Settings

#: Requests at once, at most. A thread or a connection each.
CONCURRENCY = 100
# Events among which Intercom's "same event" is looked for.
_RECENT = 10_000
# Events that are held at most, on their way or waiting for one of the same person.
_HELD = 10_000
# Outcomes that nobody has asked for yet, beyond which nothing more is begun.
_UNREAD = 1_000

#: An event, or its fields as the API names them.
EventLike: TypeAlias = Event | Mapping[str, object]


@frozen
class Outcome:
    """What became of one event.

    Attributes:
        position: The place of the event in the input, counted from 0.
        status: "accepted" by Intercom. "refused", by this package or by Intercom, and would be
            again: `error` says why. "failed" for the time being, after all tries: sending it again
            later is safe, whether or not it has arrived. A "duplicate" is the same event to
            Intercom as an accepted one shortly before it, so it was not sent.
        item: The event as it was given.
        event: The event, or None where what was given is none.
        error: Why it was refused or failed, else None.
    """

    position: int
    status: Literal["accepted", "refused", "failed", "duplicate"]
    item: EventLike
    event: Event | None = None
    error: IntercomError | None = None


class _Entry:
    """An event on its way from the input to its outcome.

    Attributes:
        person: Whose it is. Two identities of one person are not known to be the same.
        key: What Intercom tells events apart by.
    """

    __slots__ = ("event", "item", "key", "person", "position")

    def __init__(self, position: int, item: EventLike, event: Event) -> None:
        self.position = position
        self.item = item
        self.event = event
        self.person = person(event)
        self.key = key(event)

    def ended(self, status: Literal["accepted", "duplicate"]) -> Outcome:
        return Outcome(self.position, status, self.item, self.event)

    def failed(self, error: IntercomError) -> Outcome:
        refused = verdict(error) is Verdict.REFUSED
        status: Literal["refused", "failed"] = "refused" if refused else "failed"
        return Outcome(self.position, status, self.item, self.event, error)


class Concurrency:
    """How many requests are worth having on their way at once, learned from their latency.

    Requests that wait for each other, in this process, on the line or at the server, are answered
    later without more of them being answered. So round by round, the average latency is compared
    with the lowest average so far: what it is longer by, and not by chance, is waiting, and tells
    how many requests wait (as TCP Vegas has it). Where that is only a few, more go at once; where
    it is many, fewer do. From time to time all of it is forgotten and learned anew, since lines and
    servers change.

    Args:
        most: The bound, whatever the latency.
        few: Requests that may wait, to keep every part of the line busy.
    """

    _SAMPLE = 16
    _ROUNDS = 50

    def __init__(self, most: int, few: float = 2.0) -> None:
        self.limit = min(2, most)
        self._most = most
        self._few = few
        self._lowest = math.inf
        self._doubling = True
        self._answers = 0
        self._seconds = self._squares = 0.0
        self._rounds = 0

    def note(self, latency: float) -> None:
        """Takes in how many seconds one answer took."""
        self._answers += 1
        self._seconds += latency
        self._squares += latency * latency
        if self._answers < max(self._SAMPLE, 2 * self.limit):
            return
        average = self._seconds / self._answers
        variance = max(0.0, self._squares / self._answers - average * average)
        by_chance = 2 * math.sqrt(variance / self._answers)
        self._answers, self._seconds, self._squares = 0, 0.0, 0.0
        self._rounds += 1
        if self._rounds % self._ROUNDS == 0:
            self._lowest = math.inf
            self.limit = max(1, self.limit // 2)
            return
        self._lowest = min(self._lowest, average)
        surely = max(average - by_chance, self._lowest)
        waiting = self.limit * (1 - self._lowest / surely) if surely > 0 else 0.0
        if waiting < self._few:
            more = self.limit if self._doubling else max(1, self.limit // 8)
            self.limit = min(self._most, self.limit + more)
        else:
            self._doubling = False
            if waiting > 2 * self._few:
                self.limit -= max(1, self.limit // 8)


class _Rate:
    """Spaces what is sent evenly."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._seconds = 0.0 if rate is None else 1 / rate
        self._clock = clock
        self._next = -math.inf

    def reserve(self) -> float:
        """Seconds to wait before sending the next."""
        if not self._seconds:
            return 0.0
        now = self._clock.monotonic()
        self._next = max(self._next, now) + self._seconds
        return self._next - self._seconds - now


class _Plan:
    """What is to be sent next, and what became of what was.

    The events of one person follow each other: the next is sent when the one before has its
    outcome. Thus whether an event is the same as one before is known when its turn comes.
    """

    def __init__(self, concurrency: Concurrency) -> None:
        self.concurrency = concurrency
        self.outcomes = deque[Outcome]()
        self.exhausted = False
        self.stopped = False
        self.fatal: BaseException | None = None
        self._position = 0
        self._ready = deque[_Entry]()
        # By person: what waits for the one of theirs that is on its way, or about to be.
        self._behind: dict[tuple[str, str], deque[_Entry]] = {}
        self._held = 0
        self._in_flight = 0
        # By what Intercom tells events apart by: the places of those that were accepted.
        self._recent: dict[tuple[str, str, str, float], int] = {}

    @property
    def hungry(self) -> bool:
        """Whether to read on."""
        return (
            len(self._ready) < 2 * self.concurrency.limit
            and self._held < _HELD
            and len(self.outcomes) < _UNREAD
            and not self.exhausted
            and not self.stopped
        )

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.stopped or (self.exhausted and not self._held)

    def take(self, item: EventLike) -> None:
        """Takes in the next of the input."""
        position = self._position
        self._position += 1
        try:
            event = item if isinstance(item, Event) else Event.from_dict(item)
        except InvalidInputError as error:
            self.outcomes.append(Outcome(position, "refused", item, None, error))
            return
        entry = _Entry(position, item, event)
        self._held += 1
        behind = self._behind.get(entry.person)
        if behind is not None:
            behind.append(entry)
        elif not self._is_duplicate(entry):
            self._behind[entry.person] = deque()
            self._ready.append(entry)

    @property
    def has_next(self) -> bool:
        """Whether there is something to send now."""
        return (
            bool(self._ready)
            and self._in_flight < self.concurrency.limit
            and len(self.outcomes) < _UNREAD
            and not self.stopped
        )

    def next(self) -> _Entry | None:
        """What to send now, or None."""
        if not self.has_next:
            return None
        self._in_flight += 1
        return self._ready.popleft()

    def done(self, entry: _Entry, error: IntercomError | None, latency: float) -> None:
        """Takes in what became of it; `latency` is of the last answer, in seconds."""
        self._in_flight -= 1
        self._held -= 1
        if error is None:
            self.outcomes.append(entry.ended("accepted"))
            self._recent.pop(entry.key, None)  # Else it would keep its old turn to be forgotten.
            self._recent[entry.key] = entry.position
            if len(self._recent) > _RECENT:
                del self._recent[next(iter(self._recent))]
        else:
            self.outcomes.append(entry.failed(error))
        if latency > 0:
            self.concurrency.note(latency)
        behind = self._behind[entry.person]
        while behind:
            follower = behind.popleft()
            if not self._is_duplicate(follower):
                self._ready.append(follower)
                return
        del self._behind[entry.person]

    def stop(self, error: BaseException | None = None) -> None:
        """Begins nothing more."""
        self.stopped = True
        self.fatal = self.fatal or error

    def is_wanted(self) -> bool:
        """Whether what was begun is still to be sent."""
        return not self.stopped

    def _is_duplicate(self, entry: _Entry) -> bool:
        position = self._recent.get(entry.key)
        if position is None or entry.position - position > _RECENT:
            return False
        self._held -= 1
        self.outcomes.append(entry.ended("duplicate"))
        return True


def _latency(error: IntercomError | None, pool: Pool[Any]) -> float:
    """How long the answer took; 0 where there was none."""
    return 0.0 if isinstance(error, APIConnectionError) else pool.own().pacer.latency


async def check_many(events: AsyncIterable[EventLike]) -> AsyncIterator[Outcome]:
    """Yields what would become of events, as far as is known without sending any.

    "accepted" means that it would be sent.
    """
    plan = _Plan(Concurrency(1))
    async for item in events:
        plan.take(item)
        while (entry := plan.next()) is not None:
            plan.done(entry, None, 0.0)
        while plan.outcomes:
            yield plan.outcomes.popleft()


class Outcomes:
    """The outcomes of many events, one for each, as they are known; a blocking iterator.

    The input is read in the thread that iterates, as far as is needed to keep the others busy;
    what is sent, is sent from other threads. ``close()``, or leaving a ``with`` block, begins
    nothing more and waits for nothing: what is on its way may still arrive.

    Raises:
        AuthenticationError: While iterating; as PermissionDeniedError, InvalidVersionError and
            ConfigurationError do, it ends everything, since every event would get it.
    """

    def __init__(
        self,
        events: Iterable[EventLike],
        pool: Pool[httpx.Client],
        settings: Settings,
        *,
        concurrency: int = CONCURRENCY,
        max_rate: float | None = None,
    ) -> None:
        most, rate = check_bounds(concurrency, max_rate)
        _check_events(events, Iterable)
        self._events = iter(events)
        self._process = os.getpid()
        self._threads = _Threads(_Plan(Concurrency(most)), pool, settings, _Rate(rate, pool.clock))

    def __iter__(self) -> Iterator[Outcome]:
        """Returns itself."""
        return self

    def __next__(self) -> Outcome:
        """Returns the next outcome, reading and sending what that takes."""
        if os.getpid() != self._process:
            raise ConfigurationError(
                "create_many was called before the process forked: its threads stayed there, so "
                "call it anew"
            )
        while not (found := self._threads.outcome()):
            if found is None:
                raise StopIteration
            try:
                item = next(self._events)
            except StopIteration:
                self._threads.end()
            except BaseException as error:
                # Of the input's own; what was read before it keeps its outcomes.
                self._threads.end(error)
                if not isinstance(error, Exception):
                    raise
            else:
                self._threads.take(item)
        return found

    def close(self) -> None:
        """Begins nothing more."""
        # In a forked child there are no such threads, and a lock may be held for ever.
        if os.getpid() == self._process:
            self._threads.close()

    def __enter__(self) -> Self:
        """Enters a block that closes it at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        self.close()

    def __del__(self) -> None:
        """Closes it, where somebody left the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            self.close()


class _Threads:
    """Carries out a plan in threads, as many as it has a use for."""

    def __init__(
        self, plan: _Plan, pool: Pool[httpx.Client], settings: Settings, rate: _Rate
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._settings = settings
        self._rate = rate
        # Entered again where the collector closes it in the midst.
        self._lock = threading.RLock()
        self._outcome_or_room = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._running = 0
        self._idle = 0
        self._input_error: BaseException | None = None

    def outcome(self) -> Outcome | Literal[False] | None:
        """The next outcome; False where more of the input is wanted first, None at the end."""
        plan = self._plan
        with self._lock:
            while True:
                if plan.outcomes:
                    self._assign()
                    return plan.outcomes.popleft()
                if plan.fatal is not None:
                    error, plan.fatal = plan.fatal, None
                    raise error
                if plan.finished:
                    self._work.notify_all()
                    if self._input_error is not None:
                        error, self._input_error = self._input_error, None
                        raise error
                    return None
                if plan.hungry:
                    return False
                self._outcome_or_room.wait()

    def take(self, item: EventLike) -> None:
        with self._lock:
            self._plan.take(item)
            self._assign()

    def end(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._plan.exhausted = True
            self._input_error = error

    def close(self) -> None:
        with self._lock:
            self.stop()
            self._plan.outcomes.clear()

    def stop(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._plan.stop(error)
            self._work.notify_all()
            self._outcome_or_room.notify_all()

    def _assign(self) -> None:
        """Has somebody send what can be sent."""
        if not self._plan.has_next:
            return
        if self._idle:
            self._work.notify()
        elif self._running < self._plan.concurrency.limit:
            try:
                threading.Thread(target=self._run, name="create_many", daemon=True).start()
            except RuntimeError:
                # No more threads can be had, or the interpreter is ending: fewer do as well.
                if not self._running:
                    self._plan.stop()
                    raise
            else:
                self._running += 1

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            try:
                error = self._send(entry)
                latency = _latency(error, self._pool)
            except UnwantedError:
                continue  # It has been closed.
            except BaseException as fatal:  # noqa: BLE001  # raised to whoever iterates
                self.stop(fatal)
            else:
                with self._lock:
                    self._plan.done(entry, error, latency)
                    self._assign()
                    self._outcome_or_room.notify_all()

    def _next(self) -> _Entry | None:
        """Waits for something to send; None where there will be nothing more."""
        plan = self._plan
        with self._lock:
            while not plan.finished:
                if (entry := plan.next()) is not None:
                    return entry
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            self._running -= 1
            return None

    def _send(self, entry: _Entry) -> IntercomError | None:
        """Sends one; returns what it failed with.

        Raises:
            UnwantedError: Nobody wants it any longer.
            BaseException: What ends everything: every event would get it, or it is the caller's.
        """
        with self._lock:
            seconds = self._rate.reserve()
        if seconds > 0:
            self._pool.clock.alarm().wait(seconds)
        try:
            operation = operations.create(entry.event, self._plan.is_wanted)
            operation.perform(self._pool, self._settings)
        except IntercomError as error:
            if verdict(error) is Verdict.GENERAL:
                raise
            return error
        return None


class AsyncOutcomes:
    """The outcomes of many events, one for each, as they are known; an async iterator.

    ``async with client.create_many(…) as outcomes`` also ends what is on its way where the block
    is left early; without it, that is begun when nobody refers to the iterator any longer.

    Raises:
        AuthenticationError: While iterating; as PermissionDeniedError, InvalidVersionError and
            ConfigurationError do, it ends everything, since every event would get it.
    """

    def __init__(
        self,
        events: Iterable[EventLike] | AsyncIterable[EventLike],
        pool: Pool[httpx.AsyncClient],
        settings: Settings,
        *,
        concurrency: int = CONCURRENCY,
        max_rate: float | None = None,
    ) -> None:
        most, rate = check_bounds(concurrency, max_rate)
        _check_events(events, Iterable | AsyncIterable)
        self._tasks = _Tasks(events, pool, settings, most, _Rate(rate, pool.clock))

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> Outcome:
        """Returns the next outcome."""
        outcome = await self._tasks.outcome()
        if outcome is None:
            raise StopAsyncIteration
        return outcome

    async def aclose(self) -> None:
        """Ends everything that is on its way, and waits until it has ended."""
        await self._tasks.aclose()

    async def __aenter__(self) -> Self:
        """Enters a block that closes it at its end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes it."""
        await self.aclose()

    def __del__(self) -> None:
        """Ends what is on its way, where somebody left the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            self._tasks.abandon()


@define(eq=False)
class _Tasks:
    """Carries out a plan in tasks, as many as it has a use for.

    They belong to one task of their own, as no task group can be kept open from one step of an
    iterator to the next.
    """

    _events: Iterable[EventLike] | AsyncIterable[EventLike]
    _pool: Pool[httpx.AsyncClient]
    _settings: Settings
    _most: int
    _rate: _Rate
    _plan: _Plan = field(init=False)
    _group: anyio.abc.TaskGroup | None = field(default=None, init=False)
    _hungry: anyio.Event | None = field(default=None, init=False)
    _arrived: anyio.Event | None = field(default=None, init=False)
    _ended: anyio.Event | None = field(default=None, init=False)
    _input_error: BaseException | None = field(default=None, init=False)
    # Referred to, as an event loop forgets tasks that nobody refers to.
    _host: object = field(default=None, init=False)
    # Calls a function in the event loop, from any thread.
    _soon: Callable[[Callable[[], None]], object] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._plan = _Plan(Concurrency(self._most))

    async def outcome(self) -> Outcome | None:
        """The next outcome, or None at the end."""
        import anyio

        plan = self._plan
        if self._ended is None and not plan.finished:
            self._ended = anyio.Event()
            self._begin()
        while not plan.outcomes:
            if self._ended is None or self._ended.is_set():
                error = plan.fatal or self._input_error
                plan.fatal = self._input_error = None
                if error is not None:
                    raise error
                return None
            # One for all tasks that wait.
            if self._arrived is None or self._arrived.is_set():
                self._arrived = anyio.Event()
            await self._arrived.wait()
        found = plan.outcomes.popleft()
        if len(plan.outcomes) == _UNREAD - 1:
            self._settle()
        return found

    def _begin(self) -> None:
        """Runs in a task of its own, under asyncio and trio."""
        if running_trio():
            import trio

            self._soon = trio.lowlevel.current_trio_token().run_sync_soon
            self._host = trio.lowlevel.spawn_system_task(self._run, context=copy_context())
        else:
            import asyncio

            loop = asyncio.get_running_loop()
            self._soon = loop.call_soon_threadsafe
            self._host = task = loop.create_task(self._run())
            # Also where it is cancelled before its first step.
            task.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        if not self._plan.finished:
            self._plan.stop(RuntimeError("create_many was ended before its end"))
        self._plan.stop()
        cast("anyio.Event", self._ended).set()
        self._notify()

    def abandon(self) -> None:
        """Has everything end, from whatever thread the collector runs in."""
        self._plan.stop()
        if self._soon is not None:
            with suppress(RuntimeError):  # The event loop has ended.
                self._soon(self.cancel)

    def cancel(self) -> None:
        """Ends everything, without waiting for it."""
        self._plan.stop()
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def aclose(self) -> None:
        self.cancel()
        if self._ended is not None:
            import anyio

            # Also where whoever iterates is being cancelled: it takes no longer than that.
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
        self._plan.outcomes.clear()

    async def _run(self) -> None:
        import anyio

        try:
            async with fast_connections(self._pool, self._most) as fast:
                if fast is not None:
                    # In place of a client, of which nothing more is asked where events are sent.
                    self._pool = self._pool.beside(cast("httpx.AsyncClient", fast))
                    self._plan.concurrency = Concurrency(self._most, fast.few)
                async with anyio.create_task_group() as self._group:
                    if self._plan.stopped:  # Before it began.
                        return
                    self._group.start_soon(self._read)
        except Exception as error:  # noqa: BLE001  # raised to whoever iterates
            self._plan.stop(error)
        finally:
            # The loop may be ending, which cancels this; nothing is to wait for it.
            self._end()

    async def _read(self) -> None:
        """Reads the input, as far as is needed to keep all busy."""
        import anyio
        import anyio.lowlevel

        plan = self._plan
        try:
            if isinstance(self._events, AsyncIterable):
                async for item in self._events:
                    plan.take(item)
                    self._settle()
                    while not plan.hungry:
                        await self._appetite()
            else:
                for item in self._events:
                    plan.take(item)
                    if self._settle():
                        # What was begun gets its turn, also where the input is slow.
                        await anyio.lowlevel.checkpoint()
                    while not plan.hungry:
                        await self._appetite()
        except GeneratorExit:
            raise  # Forgotten by an event loop that has ended.
        except BaseException as error:
            # The input's own goes to whoever iterates; it can be a cancellation of its own, too.
            group = cast("anyio.abc.TaskGroup", self._group)
            if isinstance(error, anyio.get_cancelled_exc_class()) and (
                running_trio() or group.cancel_scope.cancel_called
            ):
                raise
            self._input_error = error
        finally:
            if isinstance(self._events, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await self._events.aclose()
        plan.exhausted = True
        self._settle()
        # Keeps the group open, also while nobody asks for outcomes and so nothing is begun.
        await anyio.sleep_forever()

    async def _appetite(self) -> None:
        import anyio

        self._hungry = anyio.Event()
        await self._hungry.wait()

    def _settle(self) -> bool:
        """Has what can be done now be done; whether something was begun."""
        plan = self._plan
        begun = False
        group = self._group
        while group is not None and (entry := plan.next()) is not None:
            begun = True
            group.start_soon(self._work, entry)
        if self._hungry is not None and plan.hungry:
            self._hungry.set()
        if plan.outcomes:
            self._notify()
        if plan.finished and group is not None:
            group.cancel_scope.cancel()
        return begun

    def _notify(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    async def _work(self, first: _Entry) -> None:
        """Sends one, and then others as long as there are any."""
        entry: _Entry | None = first
        plan = self._plan
        while entry is not None:
            try:
                error = await self._send(entry)
                latency = _latency(error, self._pool)
            except UnwantedError:
                break
            except Exception as fatal:  # noqa: BLE001  # raised to whoever iterates
                plan.stop(fatal)
                break
            plan.done(entry, error, latency)
            entry = plan.next()
            if entry is not None:
                self._settle()
        self._settle()

    async def _send(self, entry: _Entry) -> IntercomError | None:
        """Sends one, as its twin in threads does."""
        if (seconds := self._rate.reserve()) > 0:
            await self._pool.clock.async_alarm().wait(seconds)
        try:
            operation = operations.create(entry.event, self._plan.is_wanted)
            await operation.aperform(self._pool, self._settings)
        except IntercomError as error:
            if verdict(error) is Verdict.GENERAL:
                raise
            return error
        return None


def _check_events(events: object, kind: type | UnionType) -> None:
    if not isinstance(events, kind) or isinstance(events, Mapping | str | bytes):
        raise InvalidInputError(
            f"create_many takes an iterable of events, not {shown(events)}: put one in a list"
        )


def check_bounds(concurrency: object, max_rate: object) -> tuple[int, float | None]:
    """Returns the bounds of bulk sending.

    Raises:
        ConfigurationError: One that makes no sense.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise ConfigurationError(
            f"concurrency is {shown(concurrency)}: it is a number of requests, 1 to 1000"
        )
    if max_rate is None:
        return concurrency, None
    if (
        isinstance(max_rate, bool)
        or not isinstance(max_rate, int | float)
        or not 0 < max_rate < math.inf
    ):
        raise ConfigurationError(f"max_rate is {shown(max_rate)}: it is events a second, above 0")
    return concurrency, float(max_rate)
