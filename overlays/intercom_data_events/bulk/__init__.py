"""Sending many events: read lazily, several in flight at once, one outcome for each.

A scheduler without I/O decides what is sent when. Threads send it for the blocking client, tasks
for the async one: each acquires quota first, and then asks the scheduler for an event.
"""

from __future__ import annotations

import math
import threading
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
from typing import TYPE_CHECKING, Literal, Self, cast

from attrs import define, field

from intercom_data_events._dispatch.concurrency import Concurrency, Rate
from intercom_data_events._sending import operations
from intercom_data_events._sending.drivers import arun, run
from intercom_data_events._sending.engines.selection import bulk_session
from intercom_data_events._sending.exchange import Exchange, reserve
from intercom_data_events._sending.runtime import running_trio, this_process
from intercom_data_events._validation import short_repr
from intercom_data_events.bulk._scheduler import (
    UNREAD,
    EventLike,
    Outcome,
    QueuedEvent,
    Scheduler,
)
from intercom_data_events.errors import (
    APIConnectionError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
)

if TYPE_CHECKING:
    import anyio
    import anyio.abc

    from intercom_data_events._sending.engines import AsyncEngine, Engine
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings

__all__ = ["AsyncOutcomes", "EventLike", "Outcome", "Outcomes"]

#: Requests at once, at most. A thread or a connection each.
CONCURRENCY = 100


def _latency(error: IntercomError | None, queued: QueuedEvent) -> float:
    """Returns the seconds that the answer took; 0 without an answer."""
    if isinstance(error, APIConnectionError) or queued.reservation is None:
        return 0.0
    return queued.reservation.latency


async def check_many(events: AsyncIterable[EventLike]) -> AsyncIterator[Outcome]:
    """Yields what would become of events, as far as is known without sending any.

    "accepted" means that it would be sent.
    """
    scheduler = Scheduler(Concurrency(1))
    async for item in events:
        scheduler.take(item)
        while scheduler.prepare() and (queued := scheduler.next(None)) is not None:
            scheduler.done(queued, None, 0.0)
        while scheduler.outcomes:
            yield scheduler.outcomes.popleft()


class Outcomes:
    """The outcomes of many events, one for each, as they are known; a blocking iterator.

    The input is read in the thread that iterates, as far as is needed to keep the others busy;
    what is sent, is sent from other threads. ``close()``, or leaving a ``with`` block, begins
    nothing more and does not wait: requests in flight may still arrive.

    Raises:
        APIStatusError: While iterating: several events in a row got a failure that every event
            gets, such as that of a revoked token, a lapsed plan or a wrong address.
        ConfigurationError: While iterating: a setting fails, such as a function that returns the
            access token.
    """

    def __init__(
        self,
        events: Iterable[EventLike],
        pool: Session[Engine],
        settings: Settings,
        *,
        concurrency: int = CONCURRENCY,
        max_rate: float | None = None,
    ) -> None:
        most, rate = check_bounds(concurrency, max_rate)
        _check_events(events, Iterable)
        self._events = iter(events)
        self._process = this_process()
        self._threads = _Threads(
            Scheduler(Concurrency(most)), pool, settings, Rate(rate, pool.clock)
        )

    def __iter__(self) -> Iterator[Outcome]:
        """Returns itself."""
        return self

    def __next__(self) -> Outcome:
        """Returns the next outcome, reading and sending what that takes."""
        if this_process() is not self._process:
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
        # A forked child has no such threads, and a lock in it may be held forever.
        if this_process() is self._process:
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
        """Closes it, if the caller left the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            self.close()


class _Threads:
    """Sends what a scheduler chooses from threads, as many as it has a use for."""

    def __init__(
        self, scheduler: Scheduler, session: Session[Engine], settings: Settings, rate: Rate
    ) -> None:
        self._scheduler = scheduler
        self._session = session
        self._settings = settings
        self._rate = rate
        # Reentrant: the collector may close it while its thread holds the lock.
        self._lock = threading.RLock()
        self._outcome_or_room = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._running = 0
        self._idle = 0
        self._input_error: BaseException | None = None

    def outcome(self) -> Outcome | Literal[False] | None:
        """The next outcome; False where more of the input is wanted first, None at the end."""
        self._assign()
        scheduler = self._scheduler
        with self._lock:
            while True:
                if scheduler.outcomes:
                    return scheduler.outcomes.popleft()
                if scheduler.fatal is not None:
                    error, scheduler.fatal = scheduler.fatal, None
                    raise error
                if scheduler.finished:
                    self._work.notify_all()
                    if self._input_error is not None:
                        error, self._input_error = self._input_error, None
                        raise error
                    return None
                if scheduler.wants_input:
                    return False
                self._outcome_or_room.wait()

    def take(self, item: EventLike) -> None:
        with self._lock:
            self._scheduler.take(item)
        self._assign()

    def end(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._input_error = error
            self._scheduler.end_input()
        self._assign()

    def close(self) -> None:
        with self._lock:
            self.stop()
            self._scheduler.outcomes.clear()

    def stop(self, error: BaseException | None = None) -> None:
        with self._lock:
            self._scheduler.stop(error)
            self._work.notify_all()
            self._outcome_or_room.notify_all()

    def _assign(self) -> None:
        """Wakes or starts a worker, if there is something to send."""
        with self._lock:
            if not self._scheduler.has_next:
                return
            if self._idle:
                self._work.notify()
                return
            if self._running >= self._scheduler.concurrency.limit:
                return
            self._running += 1
        # Without the lock: Thread.start waits for the new thread, which may first run the garbage
        # collector, and a finalizer may need this lock.
        try:
            threading.Thread(target=self._run, name="create_many", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending, or no more threads can be started: fewer do as well.
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._scheduler.stop()
                    raise

    def _run(self) -> None:
        while self._prepared():
            try:
                if (queued := self._next()) is None:
                    continue
                error = self._send(queued)
                latency = _latency(error, queued)
            except BaseException as fatal:  # noqa: BLE001  # raised to the caller, who iterates
                self.stop(fatal)
            else:
                with self._lock:
                    self._scheduler.done(queued, error, latency)
                    self._outcome_or_room.notify_all()
                self._assign()

    def _prepared(self) -> bool:
        """Waits until there is something to send; False where there will be nothing more."""
        with self._lock:
            while not self._scheduler.finished:
                if self._scheduler.prepare():
                    return True
                self._idle += 1
                self._work.wait()
                self._idle -= 1
            self._running -= 1
            return False

    def _next(self) -> QueuedEvent | None:
        """Acquires quota, and then takes what to send; None where nothing is to be sent."""
        with self._lock:
            seconds = self._rate.reserve()
        if seconds > 0:
            self._session.clock.alarm().wait(seconds)
        reservation = run(reserve(self._session, self._settings), self._session)
        with self._lock:
            queued = self._scheduler.next(reservation)
        if queued is None and reservation is not None:
            self._session.release(reservation)
        return queued

    def _send(self, queued: QueuedEvent) -> IntercomError | None:
        """Sends one; returns what it failed with.

        Raises:
            BaseException: The caller's own, of a hook for example.
        """
        try:
            exchange = Exchange(operations.send(queued.event), self._session, self._settings)
            run(exchange.steps(queued.reservation), self._session)
        except IntercomError as error:
            return error
        return None


class AsyncOutcomes:
    """The outcomes of many events, one for each, as they are known; an async iterator.

    ``async with client.create_many(…) as outcomes`` also ends the requests in flight when
    the block is left early; without it, they end after the last reference to the iterator is gone.

    Raises:
        APIStatusError: While iterating: several events in a row got a failure that every event
            gets, such as that of a revoked token, a lapsed plan or a wrong address.
        ConfigurationError: While iterating: a setting fails, such as a function that returns the
            access token.
    """

    def __init__(
        self,
        events: Iterable[EventLike] | AsyncIterable[EventLike],
        pool: Session[AsyncEngine],
        settings: Settings,
        *,
        concurrency: int = CONCURRENCY,
        max_rate: float | None = None,
    ) -> None:
        most, rate = check_bounds(concurrency, max_rate)
        _check_events(events, Iterable | AsyncIterable)
        self._tasks = _Tasks(events, pool, settings, most, Rate(rate, pool.clock))

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
        """Ends all requests in flight, and waits until they have ended."""
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
        """Ends the requests in flight, if the caller left the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            self._tasks.abandon()


@define(eq=False)
class _Tasks:
    """Sends what a scheduler chooses from tasks, as many as it has a use for.

    They belong to one task of their own, as no task group can be kept open from one step of an
    iterator to the next.
    """

    _events: Iterable[EventLike] | AsyncIterable[EventLike]
    _session: Session[AsyncEngine]
    _settings: Settings
    _most: int
    _rate: Rate
    _scheduler: Scheduler = field(init=False)
    _group: anyio.abc.TaskGroup | None = field(default=None, init=False)
    _wants_input: anyio.Event | None = field(default=None, init=False)
    _arrived: anyio.Event | None = field(default=None, init=False)
    _ended: anyio.Event | None = field(default=None, init=False)
    _input_error: BaseException | None = field(default=None, init=False)
    # Kept here, because an event loop keeps only weak references to its tasks.
    _host: object = field(default=None, init=False)
    # Calls a function in the event loop, from any thread.
    _soon: Callable[[Callable[[], None]], object] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._scheduler = Scheduler(Concurrency(self._most))

    async def outcome(self) -> Outcome | None:
        """The next outcome, or None at the end."""
        import anyio

        scheduler = self._scheduler
        if self._ended is None and not scheduler.finished:
            self._ended = anyio.Event()
            self._begin()
        while not scheduler.outcomes:
            if self._ended is None or self._ended.is_set():
                error = scheduler.fatal or self._input_error
                scheduler.fatal = self._input_error = None
                if error is not None:
                    raise error
                return None
            # One for all tasks that wait.
            if self._arrived is None or self._arrived.is_set():
                self._arrived = anyio.Event()
            await self._arrived.wait()
        found = scheduler.outcomes.popleft()
        if len(scheduler.outcomes) == UNREAD - 1:
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
        if not self._scheduler.finished:
            self._scheduler.stop(RuntimeError("create_many was ended before its end"))
        self._scheduler.stop()
        cast("anyio.Event", self._ended).set()
        self._notify()

    def abandon(self) -> None:
        """Has everything end, from whatever thread the collector runs in."""
        self._scheduler.stop()
        if self._soon is not None:
            with suppress(RuntimeError):  # The event loop has ended.
                self._soon(self.cancel)

    def cancel(self) -> None:
        """Ends everything, without waiting for it."""
        self._scheduler.stop()
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def aclose(self) -> None:
        self.cancel()
        if self._ended is not None:
            import anyio

            # Also while the caller is being cancelled: it takes no longer than that.
            with anyio.CancelScope(shield=True):
                await self._ended.wait()
        self._scheduler.outcomes.clear()

    async def _run(self) -> None:
        import anyio

        try:
            async with bulk_session(self._session, self._most) as (self._session, few):
                self._scheduler.concurrency = Concurrency(self._most, few)
                async with anyio.create_task_group() as self._group:
                    if self._scheduler.stopped:  # Before it began.
                        return
                    self._group.start_soon(self._read)
        except Exception as error:  # noqa: BLE001  # raised to the caller, who iterates
            self._scheduler.stop(error)
        finally:
            # The loop may be ending, which cancels this; nothing is to wait for it.
            self._end()

    async def _read(self) -> None:
        """Reads the input, as far as is needed to keep all busy."""
        import anyio
        import anyio.lowlevel

        scheduler = self._scheduler
        try:
            if isinstance(self._events, AsyncIterable):
                async for item in self._events:
                    scheduler.take(item)
                    self._settle()
                    while not scheduler.wants_input:
                        await self._demand()
            else:
                for item in self._events:
                    scheduler.take(item)
                    if self._settle():
                        # What was begun gets its turn, also where the input is slow.
                        await anyio.lowlevel.checkpoint()
                    while not scheduler.wants_input:
                        await self._demand()
        except GeneratorExit:
            raise  # Forgotten by an event loop that has ended.
        except BaseException as error:
            # An error of the input goes to the caller; it can be a cancellation of its own, too.
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
        scheduler.end_input()
        self._settle()
        # Keeps the group open, also while the caller asks for no outcomes and nothing is begun.
        await anyio.sleep_forever()

    async def _demand(self) -> None:
        import anyio

        self._wants_input = anyio.Event()
        await self._wants_input.wait()

    def _settle(self) -> bool:
        """Has what can be done now be done; whether something was begun."""
        scheduler = self._scheduler
        begun = False
        group = self._group
        while group is not None and scheduler.prepare():
            begun = True
            group.start_soon(self._work)
        if self._wants_input is not None and scheduler.wants_input:
            self._wants_input.set()
        if scheduler.outcomes:
            self._notify()
        if scheduler.finished and group is not None:
            group.cancel_scope.cancel()
        return begun

    def _notify(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    async def _work(self) -> None:
        """Sends one, and then others as long as there are any."""
        scheduler = self._scheduler
        prepared = True
        while prepared:
            try:
                if (queued := await self._next()) is None:
                    break
                error = await self._send(queued)
                latency = _latency(error, queued)
            except Exception as fatal:  # noqa: BLE001  # raised to the caller, who iterates
                scheduler.stop(fatal)
                break
            scheduler.done(queued, error, latency)
            prepared = scheduler.prepare()
            if prepared:
                self._settle()
        self._settle()

    async def _next(self) -> QueuedEvent | None:
        """Acquires quota, and then takes what to send, as its twin in threads does."""
        if (seconds := self._rate.reserve()) > 0:
            await self._session.clock.async_alarm().wait(seconds)
        reservation = await arun(reserve(self._session, self._settings), self._session)
        queued = self._scheduler.next(reservation)
        if queued is None and reservation is not None:
            self._session.release(reservation)
        return queued

    async def _send(self, queued: QueuedEvent) -> IntercomError | None:
        """Sends one, as its twin in threads does."""
        try:
            exchange = Exchange(operations.send(queued.event), self._session, self._settings)
            await arun(exchange.steps(queued.reservation), self._session)
        except IntercomError as error:
            return error
        return None


def _check_events(events: object, kind: type | UnionType) -> None:
    if not isinstance(events, kind) or isinstance(events, Mapping | str | bytes):
        raise InvalidInputError(
            f"create_many takes an iterable of events, not {short_repr(events)}: put one in a list"
        )


def check_bounds(concurrency: object, max_rate: object) -> tuple[int, float | None]:
    """Returns the bounds of bulk sending.

    Raises:
        ConfigurationError: One that makes no sense.
    """
    if type(concurrency) is not int or not 1 <= concurrency <= 1000:
        raise ConfigurationError(
            f"concurrency is {short_repr(concurrency)}: it is a number of requests, 1 to 1000"
        )
    if max_rate is None:
        return concurrency, None
    if (
        isinstance(max_rate, bool)
        or not isinstance(max_rate, int | float)
        or not 0 < max_rate < math.inf
    ):
        raise ConfigurationError(
            f"max_rate is {short_repr(max_rate)}: it is events a second, above 0"
        )
    return concurrency, float(max_rate)
