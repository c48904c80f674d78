"""Sends what is tracked from tasks of one event loop."""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
from attrs import define, field

from intercom_data_events.errors import IntercomError, OutboxError, OutboxLockedError
from intercom_data_events.event import Event
from intercom_data_events.sending import UnwantedError
from intercom_data_events.tracker._course import TICK, Counters, Course, GivenUp, unexpected

if TYPE_CHECKING:
    import anyio.abc
    import httpx

    from intercom_data_events.clock import AsyncAlarm
    from intercom_data_events.connections import Pool
    from intercom_data_events.settings import Settings
    from intercom_data_events.tracker._course import WhenFull
    from intercom_data_events.tracker._queue import Entry

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
    pool: Pool[httpx.AsyncClient]
    settings: Settings
    when_full: WhenFull
    on_error: Callable[[Event, IntercomError], object] | None
    group: anyio.abc.TaskGroup
    _running: int = field(default=0, init=False)
    _closing: bool = field(default=False, init=False)
    _left: anyio.Event = field(factory=anyio.Event, init=False)
    _keeper: AsyncAlarm | None = field(default=None, init=False)

    async def track(self, event: Event) -> None:
        """Takes in an event; raises as its twin in threads does."""
        while True:
            if self._closing:
                raise RuntimeError("the tracker is closed: make a new one")
            if await self._in_turn(lambda: self.course.track(event)):
                self._assign()
                return
            if self.when_full != "block":
                break
            await self._someone_left()
        error = self.course.drop(event)
        if self.when_full == "raise":
            raise error
        await self._report([(event, error)])

    async def flush(self, seconds: float | None, *, closing: bool = False) -> bool:
        """Waits until all that is queued now has left; whether it has."""
        course = self.course
        with anyio.move_on_after(seconds):
            await self._in_turn(course.hurry)
            await self._look_around()
            mark = await self._in_turn(course.queue.mark)
            failing = course.failing
            while not await self._in_turn(lambda: course.queue.has_passed(mark)):
                # What outlasts this process is not waited for while nothing gets through.
                away = closing and course.queue.lasts and course.failing is not failing
                if course.stopped or (away and course.paused):
                    return False
                await self._someone_left()
            return True
        return False

    async def aclose(self, seconds: float) -> bool:
        """Takes in nothing more, and sends what there is; whether that was in time."""
        if self.course.stopped:
            return True
        self._closing = True
        self._notify()
        done = False
        # Also where whoever closes it is being cancelled: that is what the time-out is for.
        with anyio.CancelScope(shield=True):
            try:
                done = await self.flush(seconds, closing=True)
            except OutboxError as error:
                log.error("the outbox cannot be used any longer: %s", error)  # noqa: TRY400
            lost: list[GivenUp] = []
            try:
                await self._in_turn(lambda: lost.extend(self.course.stop()))
            except OutboxError as error:
                log.warning("claims end by themselves: %s", error)
            self.group.cancel_scope.cancel()
            await self._report(lost)
        return done

    def counters(self) -> Counters:
        """What there is to count."""
        return self.course.counters()

    async def keep(self) -> None:
        """Looks at what time brings."""
        while True:
            await self._look_around()
            seconds = TICK if self.course.needs_looking_after else math.inf
            self._keeper = self.course.clock.async_alarm()
            if self.course.queue.lasts:
                try:
                    await anyio.to_thread.run_sync(self.course.queue.tidy)
                except OutboxError as error:
                    log.debug("%s", error)
            await self._keeper.wait(seconds)

    def _assign(self) -> None:
        """Has somebody send what can be sent."""
        if self._running < self.course.concurrency and self.course.has_room:
            self._running += 1
            self.group.start_soon(self._run)
        if self._keeper is not None and self._running == 1:
            self._keeper.set()

    async def _run(self) -> None:
        try:
            while (entry := await self._next()) is not None:
                await self._settle(entry, await self._send(entry))
        finally:
            self._running -= 1

    async def _next(self) -> Entry | None:
        try:
            return await self._in_turn(self.course.next)
        except OutboxError as error:
            self.course.give_in(error)
            return None

    async def _send(self, entry: Entry) -> IntercomError | None:
        try:
            operation = self.course.operation(entry, self.course.begin)
            await operation.aperform(self.pool, self.settings)
        except UnwantedError:
            await anyio.sleep_forever()  # It is being closed, and was given back.
        except IntercomError as error:
            return error
        except Exception as error:  # noqa: BLE001  # no event is lost to a hook's error
            return unexpected(error)
        except BaseException:
            # Cancelled; so it will not be known here what became of it.
            if self.course.queue.lasts:
                with anyio.CancelScope(shield=True):
                    await self._given_back(entry)
            raise
        return None

    async def _given_back(self, entry: Entry) -> None:
        try:
            await self._in_turn(lambda: self.course.unsent(entry))
        except OutboxError as error:
            log.warning("a claim ends by itself: %s", error)

    async def _settle(self, entry: Entry, error: IntercomError | None) -> None:
        paused = self.course.paused
        given_up: GivenUp | None = None
        try:
            given_up = await self._in_turn(lambda: self.course.ended(entry, error))
        except OutboxError as failure:
            self.course.give_in(failure, entry)
        if paused and not self.course.paused:
            self._wake_all()
        if error is not None and self._keeper is not None:
            self._keeper.set()
        self._notify()
        if given_up is not None:
            await self._report([given_up])

    def _wake_all(self) -> None:
        for _ in range(min(self.course.concurrency, self.course.queue.size)):
            self._assign()

    async def _look_around(self) -> None:
        try:
            if await self._in_turn(self.course.look_around):
                self._wake_all()
        except OutboxError as error:
            self.course.give_in(error)

    async def _in_turn(self, use: Callable[[], T]) -> T:
        """Uses the queue, as soon as no other process is writing to it."""
        ends = time.monotonic() + _PATIENCE
        while True:
            try:
                return use()
            except OutboxLockedError:
                if time.monotonic() > ends:
                    raise
            await anyio.sleep(_TURN)

    async def _someone_left(self) -> None:
        if self._left.is_set():
            self._left = anyio.Event()
        with anyio.move_on_after(_LOOK if self.course.queue.lasts else None):
            await self._left.wait()

    def _notify(self) -> None:
        self._left.set()

    async def _report(self, given_up: Iterable[GivenUp]) -> None:
        if self.on_error is None:
            return
        for event, error in given_up:
            try:
                result = self.on_error(event, error)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("on_error failed, about %s", event.event_name)
