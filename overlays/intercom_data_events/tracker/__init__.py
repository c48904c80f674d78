"""Records events from a running application without waiting for Intercom.

``track`` checks an event, stamps it and returns. The tracker sends it in the background. Until
then, events wait in memory, or in an *outbox*: a file that outlasts crashes, deploys and days
without network. See :mod:`intercom_data_events.outbox`.
"""

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

# Seconds that `on_error` may take at the exit after `close_timeout`, if it raises SystemExit.
_GRACE = 5.0


def _made_anew(
    kind: type[Any], client_kind: type[Any], state: dict[str, object], options: dict[str, Any]
) -> Any:
    """Makes a tracker from a pickle, with a new client, which the tracker closes."""
    client = object.__new__(client_kind)
    client.__setstate__(state)
    tracker = kind(client, **options)
    tracker._options.owns_client = True  # noqa: SLF001  # of a tracker, above
    return tracker


class _Tracker:
    """What blocking and async trackers share."""

    _options: Options

    def __repr__(self) -> str:
        """Shows the client, without its token, and the outbox."""
        if not hasattr(self, "_options"):
            # A traceback may show a tracker whose constructor failed.
            return f"{type(self).__name__}(…)"
        return f"{type(self).__name__}({self._options.client!r}, outbox={self._options.outbox!r})"

    def __copy__(self) -> Self:
        """Returns the same tracker."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Returns the same tracker."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns the content of a pickle: the settings, but neither the token nor events.

        Raises:
            TypeError: The client or the tracker holds an object that cannot be pickled, such as a
                transport.
        """
        return _made_anew, (type(self), *self._options.pickled())

    def _prepared(self, owner: Owner | AsyncOwner, event: Event, excess: bool) -> Event | None:
        """Returns the event to track, or None if it is dropped."""
        if not owner.accepts():
            return None
        prepared, error = self._options.preparation.prepare(event, drop_excess_metadata=excess)
        if prepared is None:
            owner.filtered(event, error)
        return prepared


class Tracker(_Tracker):
    """Records events from any thread, and sends them in the background.

    A tracker is thread-safe, and can be made before a process forks: each process sends what it
    tracked, on its own connections and threads. When the interpreter exits, queued events are sent
    within `close_timeout`. The tracker does not close the client; close the tracker first.

    Events are sent first come, first served. After an outage, three of every four are from the last
    minute, and the fourth is the one that has waited longest.

    A copy of a tracker is the same tracker. A pickle holds its settings, but neither the access
    token nor events; the token is read from the environment again.

    Args:
        client: The client to send with. Its retries, pacing, time limits and `enabled` apply.
        outbox: A file that keeps events until Intercom has accepted them; None to keep them in
            memory. Several processes may share it. It is not used if the client is disabled.
        workspace: Your own name for the workspace that the outbox belongs to. Without it, an outbox
            that holds events raises an error if the access token has changed.
        concurrency: The largest number of requests in flight.
        max_queued: The largest number of events that may wait. The default is 10,000 in memory and
            1,000,000 in an outbox.
        when_full: What ``track`` does if `max_queued` events are waiting: "drop" the event, "block"
            until there is room, or "raise" a QueueFullError.
        on_error: A function that is called with each event that will not arrive, and with the error
            that says why: Intercom rejected it, it was dropped, or it was not sent before the
            tracker was closed. It runs in a separate thread, or in the thread that closes the
            tracker. It may track, flush and close.
        close_timeout: Seconds that closing may take, also at the interpreter's exit.
        before_send: A function that ``track`` calls with each event before it is stored. It returns
            the event to track, changed or not, or None to drop it. If it raises an exception, the
            event is dropped.
        metadata: Metadata for all events. The keys of an event override them, and come first.
        unknown_contact_patience: Seconds for which an event is sent again if Intercom does not know
            its contact, counted from the first such answer: the contact may have been created just
            now. 0 rejects the event at once. Other events go first; these retries use at most a
            quarter of the quota.
        meter_provider: An OpenTelemetry MeterProvider that receives the counters as metrics; needs
            the extra ``[otel]``.

    Raises:
        ConfigurationError: An argument cannot be used, or the outbox holds events for another
            workspace.
        MetadataError: The API does not accept `metadata`.
        OutboxError: The outbox cannot be used.

    Example:
        >>> from intercom_data_events import DataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> client = DataEventsClient("token", transport=emulator.transport())
        >>> with Tracker(client) as tracker:
        ...     tracker.track("placed-order", user_id="314159", metadata={"plan": "pro"})
        ...     tracker.track_event(Event("paid-order", user_id="314159"))
        ...     tracker.flush(timeout=5)  # Sends both now; leaving the block does so, too.
        True
        >>> sorted(event.event_name for event in emulator.events)
        ['paid-order', 'placed-order']
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
            del client  # The caller may have passed the access token.
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
        # Each process has its own owner. None means that the tracker was closed before it had one.
        self._owners: PerProcess[Owner | None] = PerProcess()
        self._stop_metrics = self._options.observe(self._count)
        if outbox is not None:
            self._owner()  # Raises the errors of the outbox now, and sends its events.
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
        """Records an event. It is sent later, in the background.

        With an outbox, the event is in the file when this returns.

        Args:
            event_name: What happened, as a past-tense verb and a noun, such as ``placed-order``.
            user_id: Your own identifier for the contact. Pass at least one of `user_id`, `email`
                and `id`.
            email: The contact's e-mail address.
            id: Intercom's identifier for the contact, the only one that works for leads.
            created_at: When it happened: an aware datetime, integer Unix seconds, or an ISO 8601
                string with an offset. The default is now.
            metadata: Details, at most 10 keys; see :mod:`intercom_data_events.metadata`.
            drop_excess_metadata: Whether to drop the keys after the tenth, as Intercom does,
                instead of raising an error.

        Raises:
            InvalidInputError: The API would not accept an argument.
            QueueFullError: `max_queued` events are waiting, and `when_full` is "raise".
            OutboxError: The outbox cannot be written, so the event is not tracked. If another
                program keeps the file locked, ``track`` waits for a second first.
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
        """Records an :class:`~intercom_data_events.Event`. It is sent later, in the background.

        Args:
            event: The event.

        Raises:
            InvalidInputError: `event` is not an Event.
            QueueFullError: `max_queued` events are waiting, and `when_full` is "raise".
            OutboxError: The outbox cannot be written, so the event is not tracked.
            RuntimeError: The tracker is closed.
        """
        _check_event(event)
        self._track(event)

    def _track(self, event: Event, *, drop_excess_metadata: bool = False) -> None:
        owner = self._owner()
        if (prepared := self._prepared(owner, event, drop_excess_metadata)) is not None:
            owner.track(prepared)

    def flush(self, timeout: float | None = None) -> bool:
        """Sends all queued events now, and waits until each is accepted or rejected.

        Events that wait for another attempt after a transient failure are sent again at once.

        Args:
            timeout: The largest number of seconds to wait; None for no limit.

        Returns:
            Whether none of these events is left. Events that are left stay queued. In code that
            runs while an event is sent, such as a hook, it returns False at once, because it would
            wait for itself.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        owner = self._owners.get()
        return owner is None or owner.flush(seconds)

    def close(self, timeout: float | None = None) -> bool:
        """Accepts no more events, and sends the queued ones.

        Events that are left when the time is over stay in the outbox for the next process. In
        memory they are lost, and `on_error` is called with each.

        Args:
            timeout: The largest number of seconds to wait, instead of `close_timeout`.

        Returns:
            Whether no event is left. In code that runs while an event is sent, such as a hook, it
            returns False at once; queued events are still sent.

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> from intercom_data_events.emulator import Emulator
            >>> client = DataEventsClient("token", transport=Emulator().transport())
            >>> tracker = Tracker(client)
            >>> tracker.track("placed-order", user_id="314159")
            >>> tracker.close(timeout=5)
            True
        """
        seconds = self._options.closing_seconds(timeout)
        self._closed = True
        # One step, so that a slow first `track` does not start an owner that stays open.
        owner = self._owners.setdefault(None)
        done = owner is None or owner.close(seconds)
        if owner is None or owner.has_stopped:
            if ROLE.get() != "reporting":  # Otherwise, the exit waits for the other calls.
                _exits.cancel(self._end)
            self._stop_metrics()
            if self._options.owns_client:
                self._options.client.close()
        return done

    @property
    def counters(self) -> Counters:
        """The number of events that this process has tracked and sent so far.

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
        """Closes when the process ends, even if a signal handler or `on_error` exits."""
        ends = SYSTEM.monotonic() + self._options.close_timeout
        while (left := ends - SYSTEM.monotonic()) > -_GRACE:
            try:
                self.close(max(0.0, left))
            except SystemExit:
                continue  # The process is ending already.
            except BaseException:
                self.close(0)  # Reports the events that are left.
                raise
            return

    def _owner(self) -> Owner:
        return self._owners.get() or self._begun()

    def _begun(self) -> Owner:
        if self._closed:
            raise RuntimeError("the tracker is closed; create a new one")
        begun = self._options.owner(Owner, self._options.open())
        _exits.at_exit(self._end)  # At the exit of this process, which may be a fork.
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

    It has the arguments of :class:`Tracker`, with an AsyncDataEventsClient, and works under asyncio
    and trio. Use it within ``async with``. Leaving the block sends queued events within
    `close_timeout`, even while the task is being cancelled. ``track``, ``track_event`` and
    ``flush`` are awaited. A function passed as `on_error` may be async.

    Raises:
        ConfigurationError: An argument cannot be used.
        MetadataError: The API does not accept `metadata`.

    Example:
        >>> import asyncio
        >>> from intercom_data_events import AsyncDataEventsClient, Event
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> async def main():
        ...     async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
        ...         async with AsyncTracker(client) as tracker:
        ...             await tracker.track("placed-order", user_id="314159")
        ...             await tracker.track_event(Event("paid-order", user_id="314159"))
        ...             await tracker.flush(timeout=5)
        ...             await tracker.aclose(timeout=5)  # Leaving the block does so, too.
        >>> asyncio.run(main())
        >>> sorted(event.event_name for event in emulator.events)
        ['paid-order', 'placed-order']
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
            del client  # The caller may have passed the access token.
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
        """Records an event; its arguments and errors are those of :meth:`Tracker.track`."""
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
        """Records an Event; its argument and errors are those of :meth:`Tracker.track_event`."""
        _check_event(event)
        await self._track(event)

    async def _track(self, event: Event, *, drop_excess_metadata: bool = False) -> None:
        owner = self._owner()
        if (prepared := self._prepared(owner, event, drop_excess_metadata)) is not None:
            await owner.track(prepared)

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as in Tracker
        """Sends all queued events now, and waits for them; see :meth:`Tracker.flush`."""
        seconds = None if timeout is None else check_seconds("timeout", timeout)
        return await self._owner().flush(seconds)

    async def aclose(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as in Tracker
        """Accepts no more events, and sends the queued ones; see :meth:`Tracker.close`."""
        done = await self._owner().aclose(self._options.closing_seconds(timeout))
        self._stop_metrics()
        if self._options.owns_client:
            await self._options.client.aclose()
        return done

    @property
    def counters(self) -> Counters:
        """The number of events tracked and sent so far."""
        return self._owner().counters()

    async def __aenter__(self) -> Self:
        """Enters a block within which events can be tracked.

        Raises:
            ConfigurationError: The outbox holds events for another workspace.
            OutboxError: The outbox cannot be used.
            RuntimeError: The tracker was entered before.
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
            # The owner waits for other processes that write, without blocking the event loop.
            opened.append(self._options.open(patience=0))

        if self._options.outbox is None:
            open_()
        else:
            # Not cancelled: a queue that was opened must be closed.
            with anyio.CancelScope(shield=True):
                try:
                    await anyio.to_thread.run_sync(open_)
                except RuntimeError:
                    open_()  # No thread can be started.
        return opened[0]


def _check_event(event: object) -> None:
    if not isinstance(event, Event):
        raise invalid(InvalidInputError, "event must be an Event", event)
