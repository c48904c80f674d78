"""Recording events from a running application, without waiting for Intercom, and without losing
any: ``track`` checks an event, stamps it and returns; it is sent in the background.

Events wait in memory, or in an *outbox*, a file that outlasts crashes, deploys and days without
network; see :mod:`intercom_data_events.outbox`.
"""  # noqa: D205  # one sentence

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from intercom_data_events._sending.client import parts_of
from intercom_data_events._sending.runtime import this_process
from intercom_data_events._validation import short_repr
from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.errors import ConfigurationError, IntercomError
from intercom_data_events.event import Event
from intercom_data_events.tracker._course import (
    CONCURRENCY,
    MOST,
    Counters,
    Course,
    WhenFull,
    check_blocking,
    check_seconds,
    check_settings,
)
from intercom_data_events.tracker._queue import MemoryQueue, Queue
from intercom_data_events.tracker._threads import Threads

if TYPE_CHECKING:
    import anyio.abc

    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.timestamps import Timestamp
    from intercom_data_events.tracker._tasks import Tasks

__all__ = ["AsyncTracker", "Counters", "Tracker", "WhenFull"]

# Before what others have multiprocessing do at the end, such as closing queues and pools.
_EXIT_PRIORITY = 100


class Tracker:
    """Records events from any thread, and sends them in the background.

    It is safe to share between threads, and to make before a process forks: each process sends
    what it tracked, on connections and threads of its own. As the interpreter exits, what is queued
    is sent within `close_timeout`. The client stays yours: close the tracker before it.

    First come, first served; but after an outage, what was tracked within the last minute goes
    first, three of four times, and the fourth is for what waits longest.

    Args:
        client: What to send with; its retries, pacing, time-outs and `enabled` count here, too.
        outbox: A file to keep events in until Intercom has accepted them; None for memory. Several
            processes may share it. It is left alone where the client is not `enabled`.
        workspace: A name of your own for the workspace that the outbox is for. Without it, an
            outbox that has events in it is refused where the access token has changed.
        concurrency: Requests at once, at most.
        max_queued: Events that may wait at once; left out, 10,000 in memory and 1,000,000 in an
            outbox.
        when_full: What `track` does when as many wait: "drop" the event, the default; "block"
            until there is room; or "raise" a QueueFullError.
        on_error: Is called with each event that will not arrive, and the error that says why:
            refused by Intercom, dropped, or not sent before the tracker was closed. It is called in
            whatever thread notices.
        close_timeout: Seconds that closing may take, also at the interpreter's exit.

    Raises:
        ConfigurationError: An argument that makes no sense, or an outbox that holds events for
            another workspace.
        OutboxError: The outbox cannot be used.

    Example:
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> with Tracker(client) as tracker:
        ...     tracker.track("placed-order", user_id="314159", metadata={"plan": "pro"})
        >>> [event.event_name for event in emulator.events]
        ['placed-order']
    """

    def __init__(
        self,
        client: DataEventsClient,
        outbox: str | os.PathLike[str] | None = None,
        *,
        workspace: str | None = None,
        concurrency: int = CONCURRENCY,
        max_queued: int | None = None,
        when_full: WhenFull = "drop",
        on_error: Callable[[Event, IntercomError], object] | None = None,
        close_timeout: float = 10.0,
    ) -> None:
        if not isinstance(client, DataEventsClient):
            raise ConfigurationError(
                f"client is {short_repr(client)}: it has to be a DataEventsClient"
            )
        check_settings(
            outbox=outbox,
            workspace=workspace,
            concurrency=concurrency,
            max_queued=max_queued,
            when_full=when_full,
            on_error=on_error,
            close_timeout=close_timeout,
        )
        check_blocking(on_error)
        self._session, self._settings = parts_of(client)
        self._outbox = outbox
        self._workspace = workspace
        self._concurrency = concurrency
        self._max_queued = max_queued
        self._when_full: WhenFull = when_full
        self._on_error = on_error
        self._close_timeout = close_timeout
        self._closed = False
        # By process; what another one has is left alone, its locks above all.
        self._processes: dict[object, Threads] = {}
        self._locks: dict[object, threading.RLock] = {}
        if outbox is not None:
            self._own()  # So that what is wrong with it is known now, and what it holds is sent.
        atexit.register(self.close)

    def track(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Records an event; the arguments are those of :class:`~intercom_data_events.Event`.

        It is stamped with the present second where `created_at` is left out. With an outbox, it is
        written to the file before this returns.

        Raises:
            InvalidInputError: An argument that the API would refuse.
            QueueFullError: Too many wait, and `when_full` is "raise".
            OutboxError: The outbox cannot be written, and the event is not tracked; at once, or a
                second after another program locked it.
            RuntimeError: The tracker is closed.
        """
        self.track_event(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    def track_event(self, event: Event) -> None:
        """Records an event that has been made before; raises as :meth:`track` does."""
        _check_event(event)
        self._own().track(event)

    def flush(self, timeout: float | None = None) -> bool:
        """Sends what is queued at once, and waits until all of it has been accepted or refused.

        Events that failed for the time being are tried again without waiting for their turn.

        Args:
            timeout: Seconds to wait, at most; None for as long as it takes.

        Returns:
            Whether nothing of it is left. What is left stays queued.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        own = self._processes.get(this_process())
        return own is None or own.flush(seconds)

    def close(self, timeout: float | None = None) -> bool:
        """Takes in nothing more, and sends what is queued.

        What is left then stays in the outbox, for the next process; in memory, it is lost, and
        `on_error` is called with each.

        Args:
            timeout: Seconds to wait, at most, instead of `close_timeout`.

        Returns:
            Whether nothing was left.
        """
        seconds = check_seconds("timeout", self._close_timeout if timeout is None else timeout)
        process = this_process()
        with self._locks.setdefault(process, threading.RLock()):
            self._closed = True
            own = self._processes.get(process)
        done = own is None or own.close(seconds)
        atexit.unregister(self.close)
        return done

    @property
    def counters(self) -> Counters:
        """What this process has tracked and sent so far.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        own = self._processes.get(this_process())
        return Counters() if own is None else own.counters()

    def __enter__(self) -> Self:
        """Enters a block that closes the tracker at its end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the tracker."""
        self.close()

    def _own(self) -> Threads:
        process = this_process()
        own = self._processes.get(process)
        if own is None:
            with self._locks.setdefault(process, threading.RLock()):
                own = self._processes.get(process) or self._begun(process)
        return own

    def _begun(self, process: object) -> Threads:
        if self._closed:
            raise RuntimeError("the tracker is closed: make a new one")
        queue = _queue(
            self._session, self._settings, self._outbox, self._workspace, self._max_queued
        )
        course = Course(queue, self._session.clock, self._concurrency)
        begun = Threads(course, self._session, self._settings, self._when_full, self._on_error)
        own = self._processes.setdefault(process, begun)
        if self._closed:
            # By a signal's handler, that came in between and found nothing to close.
            own.close(0)
            raise RuntimeError("the tracker is closed: make a new one")
        if own is not begun:
            begun.close(0)  # A signal's handler came in between.
        elif _is_worker():
            from multiprocessing.util import Finalize

            # Most of them end without what is registered with atexit.
            Finalize(None, self.close, exitpriority=_EXIT_PRIORITY)
        return own


class AsyncTracker:
    """Records events from the tasks of an event loop, and sends them in tasks, in the background.

    The twin of :class:`Tracker`, for asyncio and trio: the same arguments, with an
    AsyncDataEventsClient. It is used within ``async with``, whose end sends what is queued within
    `close_timeout`, also where it is being cancelled; ``track`` and ``flush`` are awaited. A
    function given as `on_error` may be async, too.

    Example:
        >>> import asyncio
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> async def main():
        ...     async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
        ...         async with AsyncTracker(client) as tracker:
        ...             await tracker.track("placed-order", user_id="314159")
        >>> asyncio.run(main())
        >>> [event.event_name for event in emulator.events]
        ['placed-order']
    """

    def __init__(
        self,
        client: AsyncDataEventsClient,
        outbox: str | os.PathLike[str] | None = None,
        *,
        workspace: str | None = None,
        concurrency: int = CONCURRENCY,
        max_queued: int | None = None,
        when_full: WhenFull = "drop",
        on_error: Callable[[Event, IntercomError], object | Awaitable[object]] | None = None,
        close_timeout: float = 10.0,
    ) -> None:
        if not isinstance(client, AsyncDataEventsClient):
            raise ConfigurationError(
                f"client is {short_repr(client)}: it has to be an AsyncDataEventsClient"
            )
        check_settings(
            outbox=outbox,
            workspace=workspace,
            concurrency=concurrency,
            max_queued=max_queued,
            when_full=when_full,
            on_error=on_error,
            close_timeout=close_timeout,
        )
        self._session, self._settings = parts_of(client)
        self._outbox = outbox
        self._workspace = workspace
        self._concurrency = concurrency
        self._max_queued = max_queued
        self._when_full: WhenFull = when_full
        self._on_error = on_error
        self._close_timeout = close_timeout
        self._entered = False
        self._group: anyio.abc.TaskGroup | None = None
        self._tasks: Tasks | None = None

    async def track(
        self,
        event_name: str,
        *,
        user_id: str | None = None,
        email: str | None = None,
        id: str | None = None,
        created_at: Timestamp | None = None,
        metadata: Metadata | None = None,
        drop_excess_metadata: bool = False,
    ) -> None:
        """Records an event; see :meth:`Tracker.track`."""
        await self.track_event(
            Event(
                event_name,
                user_id=user_id,
                email=email,
                id=id,
                created_at=created_at,
                metadata=metadata,
                drop_excess_metadata=drop_excess_metadata,
            )
        )

    async def track_event(self, event: Event) -> None:
        """Records an event that has been made before; see :meth:`Tracker.track`."""
        _check_event(event)
        await self._own().track(event)

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as its twin
        """Sends what is queued at once, and waits for it; see :meth:`Tracker.flush`."""
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        return await self._own().flush(seconds)

    async def aclose(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as its twin
        """Takes in nothing more, and sends what is queued; see :meth:`Tracker.close`."""
        seconds = check_seconds("timeout", self._close_timeout if timeout is None else timeout)
        return await self._own().aclose(seconds)

    @property
    def counters(self) -> Counters:
        """What has been tracked and sent so far."""
        return self._own().counters()

    async def __aenter__(self) -> Self:
        """Enters a block within which events can be tracked.

        Raises:
            ConfigurationError: The outbox holds events for another workspace.
            OutboxError: The outbox cannot be used.
            RuntimeError: It has been entered before.
        """
        import anyio
        import anyio.to_thread

        from intercom_data_events.tracker._tasks import Tasks

        if self._entered:
            raise RuntimeError("a tracker is entered once: make a new one")
        self._entered = True
        course = await self._course()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._tasks = Tasks(course, self._session, self._settings, self._when_full, self._on_error)
        self._group.start_soon(self._tasks.run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the tracker."""
        own, group = self._own(), self._group
        assert group is not None  # noqa: S101  # for type checkers
        try:
            await self.aclose()
        finally:
            own.end()
            try:
                # Not told of an error of the block, which it would wrap.
                await group.__aexit__(None, None, None)
            finally:
                own.course.queue.close()

    def _own(self) -> Tasks:
        if self._tasks is None:
            raise RuntimeError("use the tracker within: async with AsyncTracker(…) as tracker")
        return self._tasks

    async def _course(self) -> Course:
        import anyio
        import anyio.to_thread

        def open_() -> None:
            # Whoever is writing later is waited for elsewhere, without keeping up the event loop.
            given = self._session, self._settings, self._outbox, self._workspace, self._max_queued
            opened.append(_queue(*given, patience=0))

        opened: list[Queue] = []
        if self._outbox is None:
            open_()
            return Course(opened[0], self._session.clock, self._concurrency)
        # What was opened has to be closed, so that it is to be known.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(open_)
        return Course(opened[0], self._session.clock, self._concurrency)


def _queue(
    session: Session[Any],
    settings: Settings,
    outbox: str | os.PathLike[str] | None,
    workspace: str | None,
    max_queued: int | None,
    patience: float = 1.0,
) -> Queue:
    # A disabled client's events go nowhere, and those of an outbox are not to follow them.
    if outbox is None or not session.enabled:
        return MemoryQueue(max_queued or MOST)
    from intercom_data_events.outbox import MOST as MOST_IN_FILE
    from intercom_data_events.outbox import Binding, Outbox

    return Outbox(
        outbox,
        Binding(settings.base_url, session.auth.known_token, workspace),
        most=max_queued or MOST_IN_FILE,
        patience=patience,
    )


def _is_worker() -> bool:
    """Whether this process was begun by multiprocessing."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


def _check_event(event: object) -> None:
    if not isinstance(event, Event):
        from intercom_data_events.errors import InvalidInputError

        raise InvalidInputError(f"track_event takes an Event, not {short_repr(event)}")
