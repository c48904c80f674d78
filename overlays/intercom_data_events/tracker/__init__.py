"""Recording events from a running application, without waiting for Intercom, and without losing
any: ``track`` checks an event, stamps it and returns; it is sent in the background.

Events wait in memory, or in an *outbox*, a file that outlasts crashes, deploys and days without
network; see :mod:`intercom_data_events.outbox`.
"""  # noqa: D205  # one sentence

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from intercom_data_events._dispatch import ROLE
from intercom_data_events._sending.per_process import PerProcess
from intercom_data_events._validation import invalid
from intercom_data_events.client import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import ConfigurationError, IntercomError, InvalidInputError
from intercom_data_events.event import Event
from intercom_data_events.tracker import _exits
from intercom_data_events.tracker._counters import Counters
from intercom_data_events.tracker._owner import Owner
from intercom_data_events.tracker._preparation import BeforeSend, check_blocking
from intercom_data_events.tracker._settings import (
    CONCURRENCY,
    UNKNOWN_CONTACT_PATIENCE,
    Options,
    WhenFull,
    check_seconds,
)

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from intercom_data_events.metadata import Metadata
    from intercom_data_events.timestamps import Timestamp
    from intercom_data_events.tracker._owner import AsyncOwner
    from intercom_data_events.tracker._queue import Queue

__all__ = ["AsyncTracker", "BeforeSend", "Counters", "Tracker", "WhenFull"]

# Seconds that `on_error` may take at the exit after the time for closing, where it exits itself.
_GRACE = 5.0


def _made_anew(
    kind: type[Any], client_kind: type[Any], state: dict[str, object], options: dict[str, Any]
) -> Any:
    """Makes a tracker of a pickle, with a client of its own, which it closes."""
    client = object.__new__(client_kind)
    client.__setstate__(state)
    tracker = kind(client, **options)
    tracker._options.owns_client = True  # noqa: SLF001  # of a tracker, above
    return tracker


class _Tracker:
    """What blocking and async trackers share."""

    _options: Options

    def __repr__(self) -> str:
        """Shows the client, without its token, and the outbox; `counters` says the rest."""
        if not hasattr(self, "_options"):
            return f"{type(self).__name__}(…)"  # A traceback shows one that could not be made.
        return f"{type(self).__name__}({self._options.client!r}, outbox={self._options.outbox!r})"

    def __copy__(self) -> Self:
        """Returns the same tracker."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Returns the same tracker."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns what a pickle contains: the settings, but neither the token nor events.

        Raises:
            TypeError: The client or the tracker has what cannot be pickled, such as a transport.
        """
        return _made_anew, (type(self), *self._options.pickled())

    def _prepared(self, owner: Owner | AsyncOwner, event: Event, excess: bool) -> Event | None:
        """Returns the event to track, or None if it is not to be tracked."""
        if not owner.accepts():
            return None
        prepared, error = self._options.preparation.prepare(event, drop_excess_metadata=excess)
        if prepared is None:
            owner.filtered(event, error)
        return prepared


class Tracker(_Tracker):
    """Records events from any thread, and sends them in the background.

    It is safe to share between threads, and to make before a process forks: each process sends
    what it tracked, on connections and threads of its own. As the interpreter exits, what is queued
    is sent within `close_timeout`. The client stays yours: close the tracker before it.

    First come, first served; but after an outage, what was tracked within the last minute goes
    first, three of four times, and the fourth is for what waits longest.

    Args:
        client: What to send with; its retries, pacing, time-outs and `enabled` apply here, too.
        outbox: A file to keep events in until Intercom has accepted them; None for memory. Several
            processes may share it. It is not used if the client is not `enabled`.
        workspace: A name of your own for the workspace that the outbox is for. Without it, an
            outbox that has events in it is refused where the access token has changed.
        concurrency: Requests at once, at most.
        max_queued: Events that may wait at once. The default is 10,000 in memory and 1,000,000 in
            an outbox.
        when_full: What `track` does when as many wait: "drop" the event, the default; "block"
            until there is room; or "raise" a QueueFullError.
        on_error: Is called with each event that will not arrive, and the error that says why:
            rejected by Intercom, dropped, or not sent before the tracker was closed. It is called
            in a thread of its own, or in the one that closes; it may track, flush and close.
        close_timeout: Seconds that closing may take, also at the interpreter's exit.
        before_send: Is called by `track` with each event, before it is stored; returns the event
            to track, changed or not, or None to drop it. An event for which it raises an exception
            is dropped.
        metadata: The metadata that all events get. An event's own keys win, and come first.
        unknown_contact_patience: Seconds, from the first such answer, during which an event is sent
            again if Intercom does not know its contact, who may have been created just now; 0 to
            reject it at once. Others go first: this takes at most a quarter of the quota.
        meter_provider: An OpenTelemetry MeterProvider that gets the counters as metrics; needs the
            extra ``[otel]``.

    A copy of a tracker is the same tracker. A pickle of it holds its settings, not the access token
    or events; the token is read from the environment again.

    Raises:
        ConfigurationError: An argument cannot be used, or the outbox holds events for another
            workspace.
        MetadataError: The API does not accept `metadata`.
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
        before_send: BeforeSend | None = None,
        metadata: Metadata | None = None,
        unknown_contact_patience: float = UNKNOWN_CONTACT_PATIENCE,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if not isinstance(client, DataEventsClient):
            kind = f"a value of type {type(client).__name__}"
            del client  # It may be the access token.
            raise ConfigurationError(f"client must be a DataEventsClient, not {kind}")
        self._options = Options(
            client, outbox, workspace=workspace, concurrency=concurrency, max_queued=max_queued,
            when_full=when_full, on_error=on_error, close_timeout=close_timeout,
            before_send=before_send, metadata=metadata,
            unknown_contact_patience=unknown_contact_patience, meter_provider=meter_provider,
        )  # fmt: skip
        reason = "a Tracker does not await it; pass a plain function, or use an AsyncTracker"
        check_blocking("on_error", on_error, reason)
        self._closed = False
        # What another process has is left to it. None if it was closed before it had one.
        self._owners: PerProcess[Owner | None] = PerProcess()
        self._stop_metrics = self._options.observe(self._count)
        if outbox is not None:
            self._owner()  # So what is wrong with it is known now, and what it holds is sent.
        _exits.at_exit(self._end)

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
        event = Event(
            event_name,
            user_id=user_id,
            email=email,
            id=id,
            created_at=created_at,
            metadata=metadata,
            drop_excess_metadata=drop_excess_metadata,
        )
        self._track(event, drop_excess_metadata=drop_excess_metadata)

    def track_event(self, event: Event) -> None:
        """Records an event that was made before; raises as :meth:`track` does."""
        _check_event(event)
        self._track(event)

    def _track(self, event: Event, *, drop_excess_metadata: bool = False) -> None:
        owner = self._owner()
        if (prepared := self._prepared(owner, event, drop_excess_metadata)) is not None:
            owner.track(prepared)

    def flush(self, timeout: float | None = None) -> bool:
        """Sends what is queued at once, and waits until all of it has been accepted or refused.

        Delayed events, whose attempts failed temporarily, are sent again at once.

        Args:
            timeout: Seconds to wait, at most; None for as long as it takes.

        Returns:
            Whether nothing of it is left. What is left stays queued. False at once in code that
            runs while an event is sent, such as a hook, because it would wait for itself.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        owner = self._owners.get()
        return owner is None or owner.flush(seconds)

    def close(self, timeout: float | None = None) -> bool:
        """Takes in nothing more, and sends what is queued.

        What is left then stays in the outbox, for the next process; in memory, it is lost, and
        `on_error` is called with each.

        Args:
            timeout: Seconds to wait, at most, instead of `close_timeout`.

        Returns:
            Whether nothing was left. False at once in code that runs while an event is sent, such
            as a hook; what is queued is sent all the same.
        """
        seconds = self._options.closing_seconds(timeout)
        self._closed = True
        # In this step, so that a first `track` that is slow does not begin one that stays open.
        owner = self._owners.setdefault(None)
        done = owner is None or owner.close(seconds)
        if owner is None or owner.has_stopped:
            if ROLE.get() != "reporting":  # Else the process's end waits for the other calls.
                _exits.cancel(self._end)
            self._stop_metrics()
            if self._options.owns_client:
                self._options.client.close()
        return done

    @property
    def counters(self) -> Counters:
        """What this process has tracked and sent so far.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        owner = self._owners.get()
        return Counters() if owner is None else owner.counters()

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

    def _count(self) -> Counters:
        return self.counters

    def _end(self) -> None:
        """Closes as the process ends, also where a signal handler or `on_error` exits meanwhile."""
        ends = SYSTEM.monotonic() + self._options.close_timeout
        while (left := ends - SYSTEM.monotonic()) > -_GRACE:
            try:
                self.close(max(0.0, left))
            except SystemExit:
                continue  # The process is ending already.
            except BaseException:
                self.close(0)  # What is left is told at least.
                raise
            return

    def _owner(self) -> Owner:
        return self._owners.get() or self._begun()

    def _begun(self) -> Owner:
        if self._closed:
            raise RuntimeError("the tracker is closed; create a new one")
        begun = self._options.owner(Owner, self._options.open())
        _exits.at_exit(self._end)  # Of this process, if it was forked from another one.
        # A signal handler, a finalizer or another thread may have been faster.
        owner = self._owners.setdefault(begun)
        if owner is begun:
            begun.begin()
            return begun
        begun.close(0)
        if owner is None:
            _exits.cancel(self._end)
            raise RuntimeError("the tracker is closed; create a new one")
        return owner


class AsyncTracker(_Tracker):
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
        before_send: BeforeSend | None = None,
        metadata: Metadata | None = None,
        unknown_contact_patience: float = UNKNOWN_CONTACT_PATIENCE,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if not isinstance(client, AsyncDataEventsClient):
            kind = f"a value of type {type(client).__name__}"
            del client  # It may be the access token.
            raise ConfigurationError(f"client must be an AsyncDataEventsClient, not {kind}")
        self._options = Options(
            client, outbox, workspace=workspace, concurrency=concurrency, max_queued=max_queued,
            when_full=when_full, on_error=on_error, close_timeout=close_timeout,
            before_send=before_send, metadata=metadata,
            unknown_contact_patience=unknown_contact_patience, meter_provider=meter_provider,
        )  # fmt: skip
        self._entered = False
        self._owned: AsyncOwner | None = None
        self._stop_metrics = self._options.observe(self._count)

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
        event = Event(
            event_name,
            user_id=user_id,
            email=email,
            id=id,
            created_at=created_at,
            metadata=metadata,
            drop_excess_metadata=drop_excess_metadata,
        )
        await self._track(event, drop_excess_metadata=drop_excess_metadata)

    async def track_event(self, event: Event) -> None:
        """Records an event that was made before; see :meth:`Tracker.track`."""
        _check_event(event)
        await self._track(event)

    async def _track(self, event: Event, *, drop_excess_metadata: bool = False) -> None:
        owner = self._owner()
        if (prepared := self._prepared(owner, event, drop_excess_metadata)) is not None:
            await owner.track(prepared)

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as its twin
        """Sends what is queued at once, and waits for it; see :meth:`Tracker.flush`."""
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        return await self._owner().flush(seconds)

    async def aclose(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as its twin
        """Takes in nothing more, and sends what is queued; see :meth:`Tracker.close`."""
        done = await self._owner().aclose(self._options.closing_seconds(timeout))
        self._stop_metrics()
        if self._options.owns_client:
            await self._options.client.aclose()
        return done

    @property
    def counters(self) -> Counters:
        """What has been tracked and sent so far."""
        return self._owner().counters()

    async def __aenter__(self) -> Self:
        """Enters a block within which events can be tracked.

        Raises:
            ConfigurationError: The outbox holds events for another workspace.
            OutboxError: The outbox cannot be used.
            RuntimeError: It has been entered before.
        """
        from intercom_data_events.tracker._owner import AsyncOwner

        if self._entered:
            raise RuntimeError("an AsyncTracker can be entered only once; create a new one")
        self._entered = True
        owner = self._options.owner(AsyncOwner, await self._open())
        owner.start(self._options.close_timeout)
        self._owned = owner
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the tracker."""
        await self.aclose()

    def _count(self) -> Counters:
        return self.counters

    def _owner(self) -> AsyncOwner:
        if self._owned is None:
            raise RuntimeError(
                "the tracker must be entered first; use: async with AsyncTracker(…) as tracker"
            )
        return self._owned

    async def _open(self) -> Queue:
        import anyio
        import anyio.to_thread

        opened: list[Queue] = []

        def open_() -> None:
            # Another process that writes is waited for elsewhere, while the event loop goes on.
            opened.append(self._options.open(patience=0))

        if self._options.outbox is None:
            open_()
        else:
            # It has to be known, to be closed.
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.to_thread.run_sync(open_)
                except RuntimeError:
                    open_()  # No thread can be started.
        return opened[0]


def _check_event(event: object) -> None:
    if not isinstance(event, Event):
        raise invalid(InvalidInputError, "event must be an Event", event)
