"""Sending many events: read lazily, several in flight at once, one outcome for each.

A dispatcher decides what is sent when, and the shared worker pool sends it: from threads for the
blocking client, from tasks for the async one.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Self

from attrs import define, field, frozen

from intercom_data_events._dispatch.concurrency import Concurrency, Rate, check_concurrency
from intercom_data_events._dispatch.threads import ThreadWorkers
from intercom_data_events._sending.engines.selection import bulk_session
from intercom_data_events._sending.runtime import running_trio, this_process
from intercom_data_events._validation import invalid, invalid_type
from intercom_data_events.bulk._dispatcher import BulkDispatcher
from intercom_data_events.bulk._scheduler import (
    Counts,
    EventLike,
    Outcome,
    QueuedEvent,
    Scheduler,
    read_event,
)
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import ConfigurationError, InvalidInputError

if TYPE_CHECKING:
    from intercom_data_events._dispatch.tasks import Host, TaskWorkers
    from intercom_data_events._sending.engines import AsyncEngine, Engine
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import Alarm

__all__ = ["AsyncOutcomes", "Counts", "EventLike", "Outcome", "Outcomes"]

#: Requests at once, at most. A thread or a connection each.
CONCURRENCY = 100
# Seconds for which an async client's input is read before what was begun gets its turn.
_TURN = 0.001


async def check_many(events: AsyncIterable[EventLike]) -> AsyncIterator[Outcome]:
    """Yields what would become of events, as far as is known without sending any.

    "accepted" means that it would be sent.
    """
    scheduler = Scheduler(Concurrency(1))
    async for item in events:
        scheduler.take(item, read_event(item))
        while scheduler.has_next:
            scheduler.done(scheduler.next(None), None, 0.0)
        while scheduler.outcomes:
            yield scheduler.outcomes.popleft()


@frozen
class _Arrival:
    """What a thread that iterates waits for."""

    _dispatcher: BulkDispatcher
    _reading: threading.Lock
    alarm: Alarm = field(factory=SYSTEM.alarm, init=False)

    @property
    def is_set(self) -> bool:
        """Whether it has something to do; if another thread reads the input, it need not."""
        return self._dispatcher.has_news(reads=not self._reading.locked())


class Outcomes:
    """The outcomes of many events, one for each, as they are known; a blocking iterator.

    The input is read in the thread that iterates, as far as is needed to keep the others busy;
    events are sent from other threads, or from this one if no thread can be started. ``close()``,
    or leaving a ``with`` block, begins nothing more and does not wait: requests in flight may still
    arrive.

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
        # Only tried: one thread reads, and others that iterate wait for outcomes.
        self._reading = threading.Lock()
        self._dispatcher = BulkDispatcher(most, Rate(rate, pool.clock))
        self._workers = ThreadWorkers(self._dispatcher, pool, settings, "create_many")
        self._dispatcher.connect(pool, settings, self._workers.wake)

    def __iter__(self) -> Iterator[Outcome]:
        """Returns itself."""
        return self

    def __next__(self) -> Outcome:
        """Returns the next outcome, reading and sending what that takes."""
        if this_process() is not self._process:
            raise ConfigurationError(
                "create_many must be called in the process that iterates over it, because a fork "
                "does not copy its threads; call it again after the fork"
            )
        dispatcher = self._dispatcher
        while (found := dispatcher.outcome(StopIteration)) is None:
            if dispatcher.wants_input and self._reading.acquire(blocking=False):
                try:
                    self._read()
                finally:
                    self._reading.release()
            else:
                self._wait()
        return found

    @property
    def counts(self) -> Counts:
        """How many events have which outcome so far, also those whose outcomes were not read."""
        return self._dispatcher.counts

    def run(self) -> Counts:
        """Sends all events that are left, and returns how many have which outcome.

        Outcomes are counted and not kept, but for the first problems. Where this raises an error,
        ``counts`` says what was sent before it.

        Raises:
            APIStatusError: Several events in a row got a failure that every event gets, such as
                that of a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: A setting fails, such as a function that returns the access token.

        Example:
            >>> from intercom_data_events import DataEventsClient, Event
            >>> from intercom_data_events.emulator import Emulator
            >>> client = DataEventsClient("token", transport=Emulator().transport())
            >>> client.create_many([Event("invited-friend", user_id="314159")]).run()
            Counts(accepted=1, refused=0, failed=0, duplicate=0)
        """
        with self:
            for _ in self:
                pass
        return self.counts

    def __repr__(self) -> str:
        """Shows what it does, and the counts, but no events."""
        return _shown(self, self._dispatcher)

    def _read(self) -> None:
        """Reads one event of the input, or its end."""
        dispatcher = self._dispatcher
        try:
            item = next(self._events)
        except StopIteration:
            dispatcher.end_input()
        except BaseException as error:
            # Of the input's own; what was read before it keeps its outcomes.
            dispatcher.end_input(error)
            if not isinstance(error, Exception):
                raise
        else:
            dispatcher.put(item)
        if dispatcher.is_idle:
            self._workers.wake()

    def _wait(self) -> None:
        """Waits for a while, and sends here if no thread can be started."""
        arrival = _Arrival(self._dispatcher, self._reading)
        waiting = self._dispatcher.waiting
        waiting.append(arrival.alarm)
        if not arrival.is_set:
            self._workers.assist(math.inf, arrival)
        with suppress(ValueError, IndexError):  # It was set, or others are.
            waiting.remove(arrival.alarm)

    def close(self) -> None:
        """Begins nothing more."""
        # In a forked child, the threads are not there.
        if this_process() is self._process:
            self._dispatcher.close()
            if self._dispatcher.has_begun:
                self._workers.wake()

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
        """Closes it, if the caller left the loop; warns if the caller forgot the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            was_used = self._dispatcher.was_used
            self.close()
            if not was_used and this_process() is self._process:
                _warn_of_unused(self)


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
        self._process = this_process()
        self._dispatcher = BulkDispatcher(most, Rate(rate, pool.clock))
        self._sending = _Sending(events, pool, settings, most, self._dispatcher)

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> Outcome:
        """Returns the next outcome."""
        import anyio

        dispatcher, sending = self._dispatcher, self._sending
        if sending.host is None and not dispatcher.has_ended:
            sending.begin()
        while True:
            if dispatcher.has_ended and sending.host is not None:
                await sending.host.ended()
            if (found := dispatcher.outcome(StopAsyncIteration)) is not None:
                return found
            arrival = anyio.Event()
            dispatcher.waiting.append(arrival)
            await arrival.wait()

    @property
    def counts(self) -> Counts:
        """How many events have which outcome so far, also those whose outcomes were not read."""
        return self._dispatcher.counts

    async def run(self) -> Counts:
        """Sends all events that are left, and returns how many have which outcome.

        The twin of :meth:`Outcomes.run`: ``await client.create_many(events).run()``.

        Raises:
            APIStatusError: Several events in a row got a failure that every event gets, such as
                that of a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: A setting fails, such as a function that returns the access token.
        """
        async with self:
            async for _ in self:
                pass
        return self.counts

    def __repr__(self) -> str:
        """Shows what it does, and the counts, but no events."""
        return _shown(self, self._dispatcher)

    async def aclose(self) -> None:
        """Ends all requests in flight, and waits until they have ended."""
        await self._sending.aclose()

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
        """Ends the requests in flight, if the caller left the loop; warns if it forgot the loop."""
        with suppress(AttributeError):  # It was refused as it was made.
            self._sending.abandon()
            if not self._dispatcher.was_used and this_process() is self._process:
                _warn_of_unused(self)


@define(eq=False)
class _Sending:
    """Sends what a dispatcher hands out, and reads the input, in tasks.

    They keep nothing of the iterator, so that the collector finds it once the caller left the loop.
    """

    _events: Iterable[EventLike] | AsyncIterable[EventLike]
    _session: Session[AsyncEngine]
    _settings: Settings
    _most: int
    _dispatcher: BulkDispatcher
    _workers: TaskWorkers[QueuedEvent] | None = field(default=None, init=False)
    host: Host | None = field(default=None, init=False)
    # When the reader last gave other tasks their turn.
    _turn: float = field(default=-math.inf, init=False)

    def begin(self) -> None:
        """Starts to send."""
        from intercom_data_events._dispatch.tasks import Host

        self.host = Host(self._run, copy_context(), self._dispatcher.end)

    async def aclose(self) -> None:
        """Ends everything, and waits for it."""
        self.cancel()
        if self.host is not None:
            import anyio

            # Also while the caller is being cancelled: it takes no longer than that.
            with anyio.CancelScope(shield=True):
                await self.host.ended()
        self._dispatcher.close()

    def abandon(self) -> None:
        """Has everything end, from whatever thread the collector runs in."""
        self._dispatcher.stop()
        if self.host is not None:
            with suppress(RuntimeError):  # The event loop has ended.
                self.host.call_soon(self.cancel)

    def cancel(self) -> None:
        """Ends everything, without waiting for it."""
        self._dispatcher.stop()
        if self._workers is not None:
            self._workers.group.cancel_scope.cancel()

    async def _run(self) -> None:
        from intercom_data_events._dispatch.tasks import TaskWorkers

        try:
            async with bulk_session(self._session, self._most) as (session, few):
                self._workers = workers = TaskWorkers(self._dispatcher, session, self._settings)
                self._dispatcher.connect(session, self._settings, workers.wake, few)
                await workers.run(partial(self._read, workers))
        except Exception as error:  # noqa: BLE001  # raised to the caller, who iterates
            self._dispatcher.stop(error)

    async def _read(self, workers: TaskWorkers[QueuedEvent]) -> None:
        """Reads the input, as far as is needed to keep all busy."""
        import anyio

        events = self._events
        try:
            if isinstance(events, AsyncIterable):
                async for item in events:
                    await self._put(item, workers)
            else:
                for item in events:
                    await self._put(item, workers)
        except GeneratorExit:
            raise  # Forgotten by an event loop that has ended.
        except BaseException as error:
            # An error of the input goes to the caller; it can be a cancellation of its own, too.
            if isinstance(error, anyio.get_cancelled_exc_class()) and (
                running_trio() or workers.group.cancel_scope.cancel_called
            ):
                raise
            self._dispatcher.end_input(error)
            workers.step()
        else:
            self._dispatcher.end_input()
            workers.step()
        finally:
            if isinstance(events, AsyncGenerator):
                with anyio.CancelScope(shield=True):
                    await events.aclose()

    async def _put(self, item: EventLike, workers: TaskWorkers[QueuedEvent]) -> None:
        """Takes in an event of the input, and waits until another one is wanted."""
        import anyio
        import anyio.lowlevel

        dispatcher = self._dispatcher
        dispatcher.put(item)
        if dispatcher.is_idle:
            before = dispatcher.in_flight
            workers.step()
            if dispatcher.in_flight > before and anyio.current_time() > self._turn + _TURN:
                # What was begun gets its turn, also where the input is slow.
                await anyio.lowlevel.checkpoint()
                self._turn = anyio.current_time()
        while not dispatcher.wants_input:
            wanted = anyio.Event()
            dispatcher.readers.append(wanted)
            await wanted.wait()
            self._turn = anyio.current_time()


def _shown(outcomes: object, dispatcher: BulkDispatcher) -> str:
    return f"<{type(outcomes).__name__}: {dispatcher.state}, {dispatcher.counts}>"


def _warn_of_unused(outcomes: Outcomes | AsyncOutcomes) -> None:
    """Warns of a forgotten loop as Python does of a forgotten await, also as the program ends."""
    said = "create_many(...) was never iterated: no event was sent"
    # stacklevel: where the last reference was dropped, mostly the same line. tracemalloc shows
    # where it was created.
    warnings.warn(said, RuntimeWarning, stacklevel=3, source=outcomes)


def _check_events(events: object, kind: type | UnionType) -> None:
    # Iterating a frame yields its columns, or their names.
    if hasattr(events, "columns") and hasattr(events, "shape"):
        remedy = (
            'pass frame.to_dict("records") of pandas, frame.iter_rows(named=True) of polars, or '
            "table.to_pylist() of Arrow"
        )
        raise invalid_type(InvalidInputError, "events must be rows", events, remedy)
    if not isinstance(events, kind) or isinstance(events, Mapping | str | bytes):
        must = "events must be an iterable of events"
        raise invalid(InvalidInputError, must, events, "put a single event in a list")


def check_bounds(concurrency: object, max_rate: object) -> tuple[int, float | None]:
    """Returns the bounds of bulk sending.

    Raises:
        ConfigurationError: One of them cannot be used.
    """
    most = check_concurrency(concurrency)
    if max_rate is None:
        return most, None
    if (
        isinstance(max_rate, bool)
        or not isinstance(max_rate, int | float)
        or not 0 < max_rate < math.inf
    ):
        must = "max_rate must be a finite number of events per second greater than 0"
        raise invalid(ConfigurationError, must, max_rate)
    return most, float(max_rate)
