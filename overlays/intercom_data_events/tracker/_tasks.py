"""Sends what is tracked from tasks of one event loop."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from attrs import define, field

from intercom_data_events._sending import operations
from intercom_data_events._sending.drivers import arun
from intercom_data_events._sending.exchange import Exchange, reserve
from intercom_data_events.errors import IntercomError, OutboxError, OutboxLockedError
from intercom_data_events.event import Event
from intercom_data_events.tracker._course import (
    REPORTING,
    TICK,
    Counters,
    Course,
    GivenUp,
    named,
    unexpected,
)

if TYPE_CHECKING:
    import anyio.abc

    from intercom_data_events._sending.engines import AsyncEngine
    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.clock import AsyncAlarm
    from intercom_data_events.tracker._course import WhenFull
    from intercom_data_events.tracker._queue import QueuedEvent

log = logging.getLogger("intercom_data_events")

T = TypeVar("T")

# Seconds between two looks at a queue that other processes empty, too; between two tries to write
# where another process is writing; and after which that is an error.
_LOOK = 0.1
_TURN = 0.005
_PATIENCE = 5.0


@define(eq=False)
class Tasks:
    """Carries out a course in tasks, as many as it has a use for.

    An outbox is written to in the event loop, as that takes no longer than what a loop does all the
    time; where another process is writing, it is tried again, and nothing is waited for meanwhile.
    """

    course: Course
    session: Session[AsyncEngine]
    settings: Settings
    when_full: WhenFull
    on_error: Callable[[Event, IntercomError], object] | None
    # Whatever is cancelled around it, what was tracked is sent, for as long as closing may take.
    _scope: anyio.CancelScope = field(factory=lambda: anyio.CancelScope(shield=True), init=False)
    _group: anyio.abc.TaskGroup | None = field(default=None, init=False)
    _running: int = field(default=0, init=False)
    # Tasks that are in on_error.
    _reporting: set[int] = field(factory=set[int], init=False)
    _closing: bool = field(default=False, init=False)
    _drained: bool = field(default=False, init=False)
    _left: anyio.Event = field(factory=anyio.Event, init=False)
    _keeper: AsyncAlarm | None = field(default=None, init=False)
    _dozes: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Sends, until :meth:`end`."""
        with self._scope:
            async with anyio.create_task_group() as self._group:
                self._wake_all()
                await self._keep()

    def end(self) -> None:
        """Ends everything that goes on."""
        self._scope.cancel()

    async def track(self, event: Event) -> None:
        """Takes in an event; raises as its twin in threads does."""
        while True:
            if self._closing:
                raise RuntimeError("the tracker is closed: make a new one")
            if await self._in_turn(lambda: self.course.track(event)):
                break
            if self.when_full != "block":
                error = self.course.drop(event)
                if self.when_full == "raise":
                    raise error
                await self._report([(event, error)])
                return
            with self._stepped_aside():
                await self._someone_left()
        self._assign()
        if self._dozes:
            self._wake_keeper()
        if self.course.queue.size > self.course.concurrency:
            # Else who tracks many in a row would keep those from running that send them.
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async def flush(self, seconds: float | None, *, closing: bool = False) -> bool:
        """Waits until all that is queued now has left; whether it has."""
        course = self.course
        with anyio.move_on_after(seconds), self._stepped_aside():
            if course.stopped:
                return self._drained
            failing = course.failing
            await self._in_turn(course.hurry)
            await self._look_around()
            mark = await self._in_turn(course.queue.high_watermark)
            while not course.stopped:
                if not self._reporting and await self._in_turn(lambda: course.has_passed(mark)):
                    return True
                if self.session.closed:
                    return False  # Nothing can be sent any longer.
                if (
                    closing
                    and not self._reporting
                    and await self._in_turn(lambda: course.is_in_vain(failing))
                ):
                    return False
                await self._someone_left()
            return self._drained
        return False

    async def aclose(self, seconds: float) -> bool:
        """Takes in nothing more, and sends what there is; whether that was in time."""
        if self.course.stopped:
            return self._drained
        self._closing = True
        self._notify()
        done = False
        lost: list[GivenUp] = []
        # Also where whoever closes it is being cancelled: that is what the time-out is for.
        with anyio.CancelScope(shield=True):
            try:
                done = await self.flush(seconds, closing=True)
            except OutboxError as error:
                log.error("the outbox cannot be used any longer: %s", error)  # noqa: TRY400
            finally:
                # Also where asyncio cancels this task in spite of the shield.
                if not self.course.stopped:
                    self._drained = done
                    lost = self.course.stop()
                    self._notify()
                self.end()
                await self._report(lost)
        return done

    def counters(self) -> Counters:
        """What there is to count."""
        return self.course.counters()

    async def _keep(self) -> None:
        """Looks at what time brings."""
        own_thread = anyio.CapacityLimiter(1)
        while True:
            await self._look_around()
            self._dozes = not self.course.needs_looking_after
            self._keeper = self.course.clock.async_alarm()
            if self.course.queue.durable:
                try:
                    await anyio.to_thread.run_sync(self.course.queue.checkpoint, limiter=own_thread)
                except Exception:  # told where it keeps anything from being sent
                    log.debug("tidying up failed", exc_info=True)
            await self._keeper.wait(math.inf if self._dozes else TICK)

    def _wake_keeper(self) -> None:
        if self._keeper is not None:
            self._dozes = False
            self._keeper.set()

    def _assign(self) -> None:
        """Has somebody send what can be sent."""
        # Before the group has begun, there is nobody; it looks at everything as it does.
        if (
            self._group is not None
            and self._running < self.course.concurrency
            and self.course.has_room
        ):
            self._running += 1
            self._group.start_soon(self._work)

    async def _work(self) -> None:
        try:
            while self._prepare() and (entry := await self._next()) is not None:
                await self._settle(entry, await self._send(entry))
        finally:
            self._running -= 1

    def _prepare(self) -> bool:
        try:
            return self.course.prepare(anyio.get_current_task().id)
        except Exception as error:  # noqa: BLE001  # whatever it is, sending goes on after a while
            self.course.give_in(error)
            return False

    async def _next(self) -> QueuedEvent | None:
        """Acquires quota, and then takes what to send."""
        here = anyio.get_current_task().id
        reservation: Reservation | None = None
        entry: QueuedEvent | None = None
        try:
            reservation = quota = await arun(reserve(self.session, self.settings), self.session)
            entry = await self._in_turn(lambda: self.course.next(here, quota))
        except Exception as error:  # noqa: BLE001  # whatever it is, sending goes on after a while
            ours = isinstance(error, IntercomError)
            self.course.give_in(error if ours else unexpected(error, closed=self.session.closed))
        finally:
            self.course.preparing.discard(here)
            if reservation is not None and entry is None:
                self.session.release(reservation)
        return entry

    async def _send(self, entry: QueuedEvent) -> IntercomError | None:
        try:
            exchange = Exchange(operations.send(entry.event), self.session, self.settings)
            await arun(exchange.steps(entry.reservation), self.session)
        except IntercomError as error:
            return error
        except Exception as error:  # noqa: BLE001  # no event is lost to a hook's error
            return unexpected(error, closed=self.session.closed)
        except BaseException:
            # Cancelled; so it will not be known here what became of it.
            if self.course.queue.durable:
                self.course.give_back(entry)
            raise
        return None

    async def _settle(self, entry: QueuedEvent, error: IntercomError | None) -> None:
        paused = self.course.paused
        given_up: GivenUp | None = None
        try:
            given_up = await self._in_turn(lambda: self.course.ended(entry, error))
        except Exception as failure:  # noqa: BLE001  # whatever it is, sending goes on
            self.course.give_in(failure, entry, accepted=error is None)
        if paused and not self.course.paused:
            self._wake_all()
        if error is not None:
            self._wake_keeper()
        if given_up is None:
            self._notify()
            return
        here = anyio.get_current_task().id
        self._reporting.add(here)
        self._notify()
        try:
            await self._report([given_up])
        finally:
            self._reporting.discard(here)
            self._notify()

    @contextmanager
    def _stepped_aside(self) -> Generator[None]:
        """Has others do the work of a task that waits for it, as on_error may."""
        here = anyio.get_current_task().id if self._reporting else None
        if here not in self._reporting:
            yield
            return
        self._reporting.discard(here)
        self._running -= 1
        self._wake_all()
        self._notify()
        try:
            yield
        finally:
            self._running += 1
            self._reporting.add(here)

    def _wake_all(self) -> None:
        for _ in range(min(self.course.concurrency, self.course.queue.size)):
            self._assign()

    async def _look_around(self) -> None:
        try:
            if await self._in_turn(self.course.look_around):
                self._wake_all()
        except Exception as error:  # noqa: BLE001  # whatever it is, sending goes on after a while
            self.course.give_in(error)

    async def _in_turn(self, use: Callable[[], T]) -> T:
        """Uses the queue, as soon as no other process is writing to it."""
        ends = anyio.current_time() + _PATIENCE
        while True:
            try:
                return use()
            except OutboxLockedError:
                if anyio.current_time() > ends:
                    raise
            await anyio.sleep(_TURN)

    async def _someone_left(self) -> None:
        if self._left.is_set():
            self._left = anyio.Event()
        with anyio.move_on_after(_LOOK if self.course.queue.durable else None):
            await self._left.wait()

    def _notify(self) -> None:
        self._left.set()

    async def _report(self, given_up: Iterable[GivenUp]) -> None:
        if self.on_error is None or REPORTING.get():
            return
        reporting = REPORTING.set(True)
        try:
            for event, error in given_up:
                try:
                    result = self.on_error(event, error)
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    log.exception("on_error failed, about %s", named(event))
        finally:
            REPORTING.reset(reporting)
