"""The part of a tracker that belongs to one process: its queue and its workers."""

from __future__ import annotations

import logging
import math
import threading
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack

from intercom_data_events._counting import counted
from intercom_data_events._dispatch import ROLE
from intercom_data_events._dispatch.threads import LOOK, ThreadWorkers, start_thread
from intercom_data_events._sending.runtime import (
    guard_forks,
    is_running,
    may_start_threads,
    uninterrupted,
)
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import (
    IntercomError,
    NotSentError,
    OutboxLockedError,
    QueueFullError,
)
from intercom_data_events.event import Event
from intercom_data_events.tracker._collector import is_collecting
from intercom_data_events.tracker._counters import Count, Counters, is_worth_a_line
from intercom_data_events.tracker._dispatcher import PATIENCE, TURN, Request, TrackerDispatcher
from intercom_data_events.tracker._exits import at_exit, unheard_end
from intercom_data_events.tracker._exits import cancel as at_exit_no_more
from intercom_data_events.tracker._preload import load
from intercom_data_events.tracker._reporter import Answer, Reporter, TaskReporter, ThreadReporter
from intercom_data_events.tracker._scheduler import Scheduler, named

if TYPE_CHECKING:
    from intercom_data_events._dispatch.tasks import Host, TaskWorkers
    from intercom_data_events._sending.engines import AsyncEngine, Engine
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.tracker._queue import Queue, QueuedEvent
    from intercom_data_events.tracker._reporter import OnError
    from intercom_data_events.tracker._settings import WhenFull

log = logging.getLogger("intercom_data_events")

R = TypeVar("R", bound=Reporter)

# Seconds for the dispatcher to stop after the time for closing is over, because SQLite may wait.
_GRACE = 5.0
# Seconds that close waits for the threads to end once everything was sent.
_JOINING = 1.0
# Seconds for the remaining calls of `on_error` once the time for closing is over.
_REPORTING = 1.0


def _is_working() -> bool:
    """Whether the tracker needs this thread or task to send, so that it must not wait."""
    return ROLE.get() in ("working", "sending")


class Sending(TypedDict):
    """How a tracker sends.

    Attributes:
        concurrency: The largest number of requests in flight.
        when_full: What to do when the queue is full.
        patience: Seconds for which a contact may be unknown.
    """

    concurrency: int
    when_full: WhenFull
    patience: float


class _Shared(Generic[R]):
    """What the owners of blocking and async trackers share.

    Args:
        queue: Where events wait.
        session: The connections to send through.
        settings: The settings of the requests.
        reporter: Calls `on_error` and logs.
        in_threads: Whether threads send, not tasks.
        sending: See :class:`Sending`.
    """

    def __init__(
        self,
        queue: Queue,
        session: Session[Any],
        settings: Settings,
        reporter: R,
        *,
        in_threads: bool,
        **sending: Unpack[Sending],
    ) -> None:
        self.queue = queue
        self._session = session
        self._reporter = reporter
        self._when_full: WhenFull = sending["when_full"]
        self._share = settings.quota_share
        self._scheduler = Scheduler(
            queue, session.clock, sending["concurrency"], sending["patience"], self._limit,
            reporter.say,
        )  # fmt: skip
        self._dispatcher = TrackerDispatcher(
            self._scheduler, session, settings, reporter, self.wake, self._begin_checkpoint,
            in_threads=in_threads,
        )  # fmt: skip
        self._is_checkpointing = False
        self._filtered = Count()
        self._failed_filters = Count()
        self._recursive = Count()

    def wake(self) -> None:
        """Wakes the dispatcher."""
        raise NotImplementedError

    def _begin_checkpoint(self) -> None:
        """Starts the queue's checkpoint in the background."""
        raise NotImplementedError

    def _checkpoint(self) -> None:
        try:
            self.queue.checkpoint()
        except Exception:  # if it prevents sending, that is logged elsewhere
            log.debug("the checkpoint of the outbox failed", exc_info=True)
        finally:
            self._is_checkpointing = False

    def filtered(self, event: Event, error: NotSentError | None) -> None:
        """Counts an event that `before_send` dropped or failed for."""
        if error is None:
            self._filtered.add()
            return
        self._scheduler.dropped.add()
        if self._failed_filters.add() == 1:
            self._reporter.say(logging.ERROR, "%s", error)
        self._give_up(event, error)

    def counters(self) -> Counters:
        """Returns the counts so far.

        Raises:
            OutboxError: The outbox cannot be read.
        """
        scheduler = self._scheduler
        oldest = None if scheduler.stopped else self.queue.oldest()
        age = 0.0 if oldest is None else max(0.0, self._session.clock.time() - oldest)
        return Counters(
            queued=scheduler.queued,  # It must be read first; its docstring says why.
            sent=scheduler.sent,
            refused=scheduler.refused,
            dropped=scheduler.dropped.value,
            collisions=self._dispatcher.collisions,
            oldest_age=age,
            failing=self._failing(),
            filtered=self._filtered.value,
        )

    def _failing(self) -> IntercomError | None:
        return self._scheduler.failing

    def _limit(self) -> float | None:
        limit = self._session.rate_limit
        return None if limit is None else limit.limit * self._share

    def accepts(self) -> bool:
        """Whether the calling code may track an event; counts the event as dropped if not.

        Raises:
            RuntimeError: The tracker is closed.
        """
        if self._is_recursive():
            return False
        self._check_open()
        return True

    def _is_recursive(self) -> bool:
        """Whether the calling code runs while an event is sent; if so, drops its event.

        Otherwise, a log handler that tracks each line would never stop tracking.
        """
        if ROLE.get() != "sending" or is_collecting():
            return False
        self._scheduler.dropped.add()
        if self._recursive.add() == 1:
            self._reporter.say(
                logging.WARNING,
                "an event was dropped because it was tracked while another event was being sent, "
                "for example by a log handler; later ones are dropped without a message",
            )
        return True

    def _drop(self, event: Event) -> None:
        """Drops an event because the queue is full.

        Raises:
            QueueFullError: `when_full` is "raise".
        """
        dropped, waiting = self._scheduler.dropped.add(), self.queue.size
        if is_worth_a_line(dropped):
            self._reporter.say(
                logging.WARNING,
                "%s was dropped because the queue is full (%s); dropped so far: %d",
                named(event), counted(waiting), dropped,
            )  # fmt: skip
        error = QueueFullError(
            f"{named(event)} was not tracked because the queue is full ({counted(waiting)}); "
            "track fewer events, or pass a larger max_queued="
        )
        if self._when_full == "raise":
            raise error
        self._give_up(event, error)

    def _give_up(self, event: Event, error: IntercomError) -> None:
        # Otherwise, an on_error that tracks events could run forever.
        if ROLE.get() != "reporting":
            self._reporter.give_up(event, error)

    def _give_up_late(self) -> None:
        """Drops events that came while the tracker was closing."""
        for queued in self.queue.remaining():
            self._reporter.give_up(*self._scheduler.lost(queued))

    def _result_of(self, answer: Answer) -> bool:
        """Returns the result of `flush` or `close`, whether or not it was answered in time.

        Raises:
            OutboxError: The outbox cannot be used.
        """
        if answer.error is not None:
            raise answer.error
        if answer.is_set:
            return answer.value
        if self._scheduler.stopped:
            return self._dispatcher.drained
        return not self.queue.size and self._reporter.is_idle

    def _check_open(self) -> None:
        if self._scheduler.closing or self._scheduler.stopped:
            raise RuntimeError("the tracker is closed; create a new one")


class Owner(_Shared[ThreadReporter]):
    """Sends events from threads, in one process only, because no thread survives a fork."""

    def __init__(
        self,
        queue: Queue,
        session: Session[Engine],
        settings: Settings,
        on_error: OnError | None,
        **sending: Unpack[Sending],
    ) -> None:
        reporter = ThreadReporter(on_error)
        super().__init__(queue, session, settings, reporter, in_threads=True, **sending)
        self._workers: ThreadWorkers[QueuedEvent] = ThreadWorkers(
            self._dispatcher, session, settings, "intercom-tracker",
            marked=True, load=partial(load, session),
        )  # fmt: skip
        self._is_short = False
        guard_forks(self)

    def before_fork(self) -> bool:
        """Waits for nothing, because a child uses none of this."""
        return True

    def after_fork(self, *, in_child: bool, waited: bool) -> None:  # noqa: ARG002  # like all guards
        """Prevents retries in a child, where gevent's greenlets continue."""
        if in_child:
            self._scheduler.withdraw()

    def begin(self) -> None:
        """Starts sending the events that earlier processes left, before any call of `track`."""
        if self.queue.size:
            self.wake()
        if not self.queue.durable and (ends := unheard_end()) is not None:
            self._reporter.say(logging.WARNING, "events in memory can be lost: %s", ends)

    def wake(self, *, urgent: bool = True) -> None:
        """Wakes the dispatcher, and starts its thread if needed; `urgent` interrupts its wait."""
        if not may_start_threads():
            self._workers.notify()
            return
        self._workers.wake(urgent=urgent)
        # While the program ends, no thread can be started, and closing sends the events.
        short = self._workers.lacks_all and threading.main_thread().is_alive()
        if short and not self._is_short:
            self._reporter.say(logging.ERROR, "events are waiting: %s", _no_threads())
        self._is_short = short

    def track(self, event: Event) -> None:
        """Queues an event.

        Raises:
            QueueFullError: The queue is full, and `when_full` is "raise".
            OutboxError: The outbox cannot be written.
            RuntimeError: The tracker is closed.
        """
        self._check_open()
        now = self._session.clock.time()
        while not self.queue.enqueue(event, now):
            if self._when_full != "block" or _is_working():
                self._drop(event)
                return
            self._wait_for_room()
            self._check_open()
        self._dispatcher.tracked.append(event)
        # While earlier events wait for quota or for workers, the dispatcher finds it after them.
        self.wake(urgent=not self._scheduler.may_claim)
        if self._scheduler.stopped:  # The dispatcher has stopped since: the event came too late.
            self._give_up_late()
            self._reporter.finish(SYSTEM.monotonic())

    @property
    def has_stopped(self) -> bool:
        """Whether nothing more is handed out; False if close could not wait for that."""
        return self._scheduler.stopped

    def flush(self, timeout: float | None) -> bool:
        """Waits until all events queued so far have left the queue; returns whether they have."""
        ends = math.inf if timeout is None else SYSTEM.monotonic() + timeout
        return self._ask(Request("flush", Answer(SYSTEM.alarm())), ends)

    def close(self, timeout: float) -> bool:
        """Accepts no more events, and sends those in the queue; returns whether that succeeded."""
        ends = SYSTEM.monotonic() + timeout
        self._scheduler.closing = True
        done = self._ask(Request("close", Answer(SYSTEM.alarm()), ends), ends)
        if _is_working():
            return done
        if not self._workers.has_ended and not self._scheduler.stopped:
            stopping = Request("stop", Answer(SYSTEM.alarm()))
            self._ask(stopping, SYSTEM.monotonic() + _GRACE)
        self._give_up_late()
        reported = self._reporter.finish(ends)
        if done and ROLE.get() != "reporting":
            # Events that others tracked in the meantime may be in flight, with no thread to send
            # them.
            never = Answer(SYSTEM.alarm())
            while self._workers.lacks_all and not self._workers.has_ended:
                if (left := ends - SYSTEM.monotonic()) <= 0:
                    break
                self._workers.assist(left, never)
            # Not for long: this may run in a finalizer whose thread holds a lock of Python itself,
            # without which no thread can end.
            self._workers.join(min(ends, SYSTEM.monotonic() + _JOINING))
        return done and reported

    def _ask(self, request: Request, ends: float) -> bool:
        """Hands a request to the dispatcher, and waits for the answer."""
        answer = request.answer
        self._dispatcher.requests.append(request)
        if self.queue.size:
            self.wake()
        else:
            self._workers.notify()
        if _is_working():
            return False  # The dispatcher or a worker would wait for itself.
        try:
            while not answer.is_set and not self._workers.has_ended:
                left = ends - SYSTEM.monotonic()
                if left <= 0:
                    break
                self._workers.assist(left, answer)
                self._reporter.assist()
        finally:
            request.is_abandoned = True
        return self._result_of(answer)

    def _wait_for_room(self) -> None:
        awaited = Answer(SYSTEM.alarm())
        self._dispatcher.waiting_for_room.append(awaited.alarm)
        self.wake()
        if self.queue.size:
            self._workers.assist(LOOK, awaited)
        with suppress(ValueError, IndexError):
            self._dispatcher.waiting_for_room.remove(awaited.alarm)

    def _begin_checkpoint(self) -> None:
        if not self._is_checkpointing:
            self._is_checkpointing = True
            if not start_thread(self._checkpoint, "intercom-tracker-checkpoint"):
                self._is_checkpointing = False

    def _failing(self) -> IntercomError | None:
        if self._workers.lacks_all and self.queue.size:
            return NotSentError(f"events are waiting: {_no_threads()}")
        return self._scheduler.failing


def _no_threads() -> str:
    return (
        "no thread can be started to send them; they will be sent once a thread can be started, or "
        "by flush() or close()"
    )


class AsyncOwner(_Shared[TaskReporter]):
    """Sends events from tasks of one event loop.

    The event loop itself writes to an outbox, because a write takes no longer than its other work.
    If another process is writing, the loop continues and retries soon.
    """

    def __init__(
        self,
        queue: Queue,
        session: Session[AsyncEngine],
        settings: Settings,
        on_error: OnError | None,
        **sending: Unpack[Sending],
    ) -> None:
        from intercom_data_events._dispatch.tasks import TaskWorkers

        reporter = TaskReporter(on_error)
        super().__init__(queue, session, settings, reporter, in_threads=False, **sending)
        self._workers: TaskWorkers[QueuedEvent] = TaskWorkers(
            self._dispatcher, session, settings, marked=True
        )
        self._host: Host | None = None
        self._close_timeout = 0.0
        self._closing_ends = math.inf

    def start(self, close_timeout: float) -> None:
        """Starts to send in a task with an empty context; `close_timeout` is for the exit."""
        from intercom_data_events._dispatch.tasks import Host

        self._host = Host(self._run, Context(), self._end)
        self._close_timeout = close_timeout
        at_exit(self._end_at_exit)

    def wake(self) -> None:
        """Wakes the dispatcher."""
        self._workers.wake()

    async def track(self, event: Event) -> None:
        """Queues an event; raises the same errors as :meth:`Owner.track`."""
        import anyio.lowlevel

        self._check_open()
        now = self._session.clock.time()
        while not await self._enqueue(event, now):
            if self._when_full != "block" or _is_working():
                self._drop(event)
                return
            await self._wait_for_room()
            self._check_open()
        self._dispatcher.tracked.append(event)
        self.wake()
        if self._scheduler.stopped:
            self._give_up_late()
        elif self.queue.size > self._scheduler.most:
            # Otherwise, a task that tracks many events in a row would keep the others from sending.
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async def flush(self, seconds: float | None) -> bool:
        """Waits until all events queued so far have left the queue; returns whether they have."""
        self._check_loop()
        return await self._ask(Request("flush", self._answer()), seconds)

    async def aclose(self, seconds: float) -> bool:
        """Accepts no more events, and sends those in the queue; returns whether that succeeded."""
        import anyio

        self._check_loop()
        self._scheduler.closing = True
        self._closing_ends = anyio.current_time() + seconds
        if _is_working():
            return await self._ask(Request("close", self._answer()), seconds)
        done = False
        # Even if the caller is being cancelled: the timeout bounds the wait.
        with anyio.CancelScope(shield=True):
            try:
                done = await self._ask(Request("close", self._answer()), seconds)
            finally:
                # Even if asyncio cancels this task in spite of the shield.
                if not self._scheduler.stopped:
                    self._dispatcher.requests.append(Request("stop", self._answer()))
                    self.wake()
            if self._host is not None and ROLE.get() != "reporting":
                await self._host.ended()
        return done

    def _answer(self) -> Answer:
        return Answer(SYSTEM.async_alarm())

    def _check_loop(self) -> None:
        """Raises an error instead of waiting forever for an event loop that is not running."""
        loop = None if self._host is None or self._host.has_ended else self._host.loop
        if loop is not None and not is_running(loop):
            raise RuntimeError(
                "an AsyncTracker can be flushed and closed only in the event loop in which it was "
                "entered"
            )

    async def _ask(self, request: Request, seconds: float | None) -> bool:
        import anyio

        answer = request.answer
        self._dispatcher.requests.append(request)
        self.wake()
        if _is_working():
            return False  # The dispatcher or a worker would wait for itself.
        try:
            with anyio.move_on_after(seconds):
                while not answer.is_set and not self._workers.has_ended:
                    await answer.alarm.wait(math.inf)
        finally:
            request.is_abandoned = True
        return self._result_of(answer)

    async def _wait_for_room(self) -> None:
        alarm = SYSTEM.async_alarm()
        self._dispatcher.waiting_for_room.append(alarm)
        self.wake()
        try:
            await alarm.wait(LOOK)
        finally:
            with suppress(ValueError):
                self._dispatcher.waiting_for_room.remove(alarm)

    async def _enqueue(self, event: Event, now: float) -> bool:
        """Adds an event to the queue as soon as no other process is writing to it."""
        import anyio

        ends = anyio.current_time() + PATIENCE
        while True:
            try:
                return self.queue.enqueue(event, now)
            except OutboxLockedError:
                if anyio.current_time() > ends:
                    raise
            await anyio.sleep(TURN)

    def _begin_checkpoint(self) -> None:
        if not self._is_checkpointing:
            self._is_checkpointing = True
            self._workers.group.start_soon(uninterrupted(self._checkpoint_in_thread))

    async def _checkpoint_in_thread(self) -> None:
        import anyio.to_thread

        try:
            limiter = anyio.CapacityLimiter(1)  # The application's threads may all be busy.
            await anyio.to_thread.run_sync(self._checkpoint, limiter=limiter)
        except RuntimeError:
            log.debug("no thread can be started for the checkpoint", exc_info=True)
            self._is_checkpointing = False

    async def _run(self) -> None:
        import anyio

        cancelled = anyio.get_cancelled_exc_class()
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(uninterrupted(self._reporter.run))
                await self._workers.run()
                left = self._closing_ends - anyio.current_time()
                with anyio.move_on_after(max(_REPORTING, left)):
                    await self._reporter.idle()
                self._reporter.cancel()
                group.cancel_scope.cancel()
            with anyio.move_on_after(_REPORTING):
                await self._reporter.report()
        except cancelled:
            # The event loop is ending.
            self._dispatcher.end()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_REPORTING):
                await self._reporter.report()
            raise
        except Exception:
            log.exception("an AsyncTracker stopped because of an internal error")
        finally:
            self._end()

    def _end_at_exit(self) -> None:
        """Ends an unclosed tracker; sends what is queued if the event loop can still run."""
        loop = self._host.loop if self._host is not None else None
        if loop is not None and not loop.is_closed() and not loop.is_running():
            loop.run_until_complete(self.aclose(self._close_timeout))
        self._end()

    def _end(self) -> None:
        """Ends, even if the event loop is ending and cancels everything."""
        at_exit_no_more(self._end_at_exit)
        self._reporter.cancel()
        self._workers.has_ended = True
        with suppress(RuntimeError):  # A caller may wait in an event loop that is closed.
            self._dispatcher.end()
        Context().run(self._reporter.end)
