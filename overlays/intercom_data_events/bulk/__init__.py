"""Sending many events: read lazily, several in flight at once, one outcome for each.

``client.create_many(…)`` returns the iterators of this module. A dispatcher decides what is sent
when. The workers send it: threads for the blocking client, tasks for the async one.
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

#: The largest number of requests in flight. Each needs a thread or a connection.
CONCURRENCY = 100
# Seconds for which an async client reads its input before requests in flight get a turn.
_TURN = 0.001


async def check_many(events: AsyncIterable[EventLike]) -> AsyncIterator[Outcome]:
    """Yields the outcome that each event would have, as far as that is known without sending it.

    "accepted" means that the event would be sent.
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
    """Wakes a thread that iterates, when it has something to do."""

    _dispatcher: BulkDispatcher
    _reading: threading.Lock
    alarm: Alarm = field(factory=SYSTEM.alarm, init=False)

    @property
    def is_set(self) -> bool:
        """Whether there is something to do; reading does not count if another thread does it."""
        return self._dispatcher.has_news(reads=not self._reading.locked())


class Outcomes:
    """The outcomes of many events, one for each, as soon as they are known; a blocking iterator.

    ``client.create_many(…)`` returns one. The thread that iterates reads the input, as far as is
    needed to keep the workers busy. Other threads send the events, or this one if no thread can be
    started. ``close()``, or leaving a ``with`` block, starts no more requests and does not wait:
    requests in flight may still arrive.

    Raises:
        APIStatusError: While iterating: several events in a row failed for a reason that is not
            about the event, such as a revoked token, a lapsed plan or a wrong address.
        ConfigurationError: While iterating: a setting fails, such as the function that returns the
            access token.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator().transport())
        >>> events = [Event("invited-friend", user_id=str(number)) for number in range(3)]
        >>> outcomes = client.create_many(events)
        >>> sorted((outcome.position, outcome.status) for outcome in outcomes)
        [(0, 'accepted'), (1, 'accepted'), (2, 'accepted')]
        >>> outcomes.counts.total
        3
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
        # Never waited for: one thread reads, and other threads that iterate wait for outcomes.
        self._reading = threading.Lock()
        self._dispatcher = BulkDispatcher(most, Rate(rate, pool.clock))
        self._workers = ThreadWorkers(self._dispatcher, pool, settings, "create_many")
        self._dispatcher.connect(pool, settings, self._workers.wake)

    def __iter__(self) -> Iterator[Outcome]:
        """Returns itself."""
        return self

    def __next__(self) -> Outcome:
        """Returns the next outcome; reads and sends as many events as that takes."""
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
        """The number of events with each outcome so far, including outcomes not yet read."""
        return self._dispatcher.counts

    def run(self) -> Counts:
        """Sends all events that are left, and returns the number of events with each outcome.

        Outcomes are counted but not kept, except for the first problems. If this raises an error,
        ``counts`` says what was sent before it.

        Raises:
            APIStatusError: Several events in a row failed for a reason that is not about the event,
                such as a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: A setting fails, such as the function that returns the access token.

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
        """Shows the state and the counts, but no events."""
        return _shown(self, self._dispatcher)

    def _read(self) -> None:
        """Reads one event of the input, or its end."""
        dispatcher = self._dispatcher
        try:
            item = next(self._events)
        except StopIteration:
            dispatcher.end_input()
        except BaseException as error:
            # The input raised it; events that were read before keep their outcomes.
            dispatcher.end_input(error)
            if not isinstance(error, Exception):
                raise
        else:
            dispatcher.put(item)
        if dispatcher.is_idle:
            self._workers.wake()

    def _wait(self) -> None:
        """Waits for something to do, and sends in this thread if no other can be started."""
        arrival = _Arrival(self._dispatcher, self._reading)
        waiting = self._dispatcher.waiting
        waiting.append(arrival.alarm)
        if not arrival.is_set:
            self._workers.assist(math.inf, arrival)
        with suppress(ValueError, IndexError):  # The dispatcher has removed it.
            waiting.remove(arrival.alarm)

    def close(self) -> None:
        """Starts no more requests. Requests in flight may still arrive."""
        # A forked child does not have the threads.
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
        """Closes the iterator if the caller left the loop; warns if there was no loop."""
        with suppress(AttributeError):  # The constructor failed.
            was_used = self._dispatcher.was_used
            self.close()
            if not was_used and this_process() is self._process:
                _warn_of_unused(self)


class AsyncOutcomes:
    """The outcomes of many events, one for each, as soon as they are known; an async iterator.

    ``client.create_many(…)`` of an async client returns one. Leaving the block of
    ``async with client.create_many(…) as outcomes`` early ends the requests in flight. Without it,
    they end after the last reference to the iterator is gone.

    Raises:
        APIStatusError: While iterating: several events in a row failed for a reason that is not
            about the event, such as a revoked token, a lapsed plan or a wrong address.
        ConfigurationError: While iterating: a setting fails, such as the function that returns the
            access token.

    Example:
        >>> import asyncio
        >>> from intercom_data_events import AsyncDataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> async def main():
        ...     client = AsyncDataEventsClient("token", transport=Emulator().transport())
        ...     events = [Event("invited-friend", user_id="314159")]
        ...     async with client.create_many(events) as outcomes:
        ...         async for outcome in outcomes:
        ...             print(outcome.position, outcome.status)
        >>> asyncio.run(main())
        0 accepted
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
        """The number of events with each outcome so far, including outcomes not yet read."""
        return self._dispatcher.counts

    async def run(self) -> Counts:
        """Sends all events that are left, and returns the number of events with each outcome.

        It does what :meth:`Outcomes.run` does: ``await client.create_many(events).run()``.

        Raises:
            APIStatusError: Several events in a row failed for a reason that is not about the event,
                such as a revoked token, a lapsed plan or a wrong address.
            ConfigurationError: A setting fails, such as the function that returns the access token.
        """
        async with self:
            async for _ in self:
                pass
        return self.counts

    def __repr__(self) -> str:
        """Shows the state and the counts, but no events."""
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
        """Ends the requests in flight if the caller left the loop; warns if there was no loop."""
        with suppress(AttributeError):  # The constructor failed.
            self._sending.abandon()
            if not self._dispatcher.was_used and this_process() is self._process:
                _warn_of_unused(self)


@define(eq=False)
class _Sending:
    """Reads the input, and sends the events that a dispatcher hands out, in tasks.

    The tasks hold no reference to the iterator, so that it can be collected after the loop.
    """

    _events: Iterable[EventLike] | AsyncIterable[EventLike]
    _session: Session[AsyncEngine]
    _settings: Settings
    _most: int
    _dispatcher: BulkDispatcher
    _workers: TaskWorkers[QueuedEvent] | None = field(default=None, init=False)
    host: Host | None = field(default=None, init=False)
    # When the reader last gave other tasks a turn.
    _turn: float = field(default=-math.inf, init=False)

    def begin(self) -> None:
        """Starts sending."""
        from intercom_data_events._dispatch.tasks import Host

        self.host = Host(self._run, copy_context(), self._dispatcher.end)

    async def aclose(self) -> None:
        """Ends all tasks, and waits until they have ended."""
        self.cancel()
        if self.host is not None:
            import anyio

            # Also while the caller is being cancelled: the tasks end just as fast.
            with anyio.CancelScope(shield=True):
                await self.host.ended()
        self._dispatcher.close()

    def abandon(self) -> None:
        """Ends all tasks, from the thread that the garbage collector runs in."""
        self._dispatcher.stop()
        if self.host is not None:
            with suppress(RuntimeError):  # The event loop has ended.
                self.host.call_soon(self.cancel)

    def cancel(self) -> None:
        """Ends all tasks, without waiting for them."""
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
        """Reads the input, as far as is needed to keep all workers busy."""
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
            raise  # The event loop has ended.
        except BaseException as error:
            # An error of the input goes to the caller, even if it is a cancellation.
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
        """Passes an event to the dispatcher, and waits until it wants another one."""
        import anyio
        import anyio.lowlevel

        dispatcher = self._dispatcher
        dispatcher.put(item)
        if dispatcher.is_idle:
            before = dispatcher.in_flight
            workers.step()
            if dispatcher.in_flight > before and anyio.current_time() > self._turn + _TURN:
                # The new request gets a turn, even if the input is slow.
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
    """Warns about a missing loop, as Python warns about a missing await."""
    said = "create_many(...) was never iterated, so no event was sent; iterate over it"
    # The level is the line that dropped the last reference, mostly the call itself. With
    # tracemalloc, the warning also shows where the object was made.
    warnings.warn(said, RuntimeWarning, stacklevel=3, source=outcomes)


def _check_events(events: object, kind: type | UnionType) -> None:
    # Iterating a frame yields its columns, or their names.
    if hasattr(events, "columns") and hasattr(events, "shape"):
        remedy = (
            'pass frame.to_dict("records") for pandas, frame.iter_rows(named=True) for polars, or '
            "table.to_pylist() for Arrow"
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
