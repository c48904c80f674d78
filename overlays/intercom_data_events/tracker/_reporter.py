"""Calls `on_error` and writes log lines, in a separate thread or task.

Both run the caller's code, which may take a long time, wait for a thread that tracks, track, flush,
close or raise.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field

from intercom_data_events._counting import counted
from intercom_data_events._dispatch import ROLE, context_of
from intercom_data_events._dispatch.threads import LOOK, start_thread
from intercom_data_events._sending.runtime import running_trio, this_process, uninterrupted
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import IntercomError
from intercom_data_events.event import Event
from intercom_data_events.tracker._scheduler import named

if TYPE_CHECKING:
    from intercom_data_events.clock import AsyncAlarm

log = logging.getLogger("intercom_data_events")

# Seconds for the remaining calls of `on_error` while another call does not return.
_GRACE = 1.0
# Seconds between two checks whether calls of `on_error` have returned.
_TURN = 0.005

OnError: TypeAlias = Callable[[Event, IntercomError], object]


@define(eq=False)
class Answer:
    """What a caller of `flush` or `close` waits for.

    Attributes:
        alarm: What the caller waits on.
        is_set: Whether the answer was given.
        value: The answer.
        error: The error to raise instead.
        is_reporting: Whether the caller is `on_error`, so the answer cannot wait for `on_error`.
    """

    alarm: Any
    is_set: bool = False
    value: bool = False
    error: BaseException | None = None
    is_reporting: bool = field(factory=lambda: ROLE.get() == "reporting")

    def give(self, value: bool, error: BaseException | None = None) -> None:
        """Sets the answer, and wakes the caller."""
        self.value, self.error, self.is_set = value, error, True
        self.alarm.set()


@define(eq=False)
class _Call:
    """A call of `on_error`, for an event that will not arrive."""

    on_error: OnError
    event: Event
    error: IntercomError

    def begin(self) -> object:
        """Calls `on_error`; returns its result, which is awaitable if `on_error` is async."""
        return self.on_error(self.event, self.error)

    def failed(self, failure: BaseException) -> None:
        """Logs an exception that `on_error` raised."""
        _log(logging.ERROR, "on_error failed for %s", named(self.event), failure=failure)


# A function logs a line or gives an answer.
_Item: TypeAlias = _Call | Callable[[], None]


def _log(
    level: int, message: str, *arguments: object, failure: BaseException | None = None
) -> None:
    role = ROLE.set("sending")  # A log handler must not track forever.
    try:
        log.log(level, message, *arguments, exc_info=failure)
    except Exception:  # noqa: BLE001  # a log handler may raise it; reporting continues
        if logging.raiseExceptions:  # As logging's own handlers do.
            traceback.print_exc()
    finally:
        ROLE.reset(role)


class Reporter:
    """Calls `on_error` and logs, one item at a time, in the order of what happened.

    Args:
        on_error: A function that is called with each event that will not arrive, and the error.
    """

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self._items = deque[_Item]()

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line."""
        self._put(partial(_log, level, message, *arguments))

    def give_up(self, event: Event, error: IntercomError) -> None:
        """Queues a call of `on_error`."""
        if self._on_error is not None:
            self._put(_Call(self._on_error, event, error))

    def reply(self, answer: Answer, value: bool) -> None:
        """Answers once all calls of `on_error` so far have returned."""
        if answer.is_reporting or self.is_idle:
            answer.give(value)
        else:
            self._put(partial(answer.give, value))

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        raise NotImplementedError

    def needs_thread(self) -> bool:
        """Starts the reporting thread if it is missing; returns whether it is still missing."""
        return False

    def _put(self, item: _Item) -> None:
        """Queues an item, to be reported after the earlier ones."""
        raise NotImplementedError

    def _next_call(self) -> _Call | None:
        """Takes the next item: returns it if it is a call of `on_error`, else logs or answers."""
        try:
            item = self._items.popleft()
        except IndexError:
            return None  # Another thread took it.
        if isinstance(item, _Call):
            return item
        item()
        return None


class ThreadReporter(Reporter):
    """Reports in one thread at a time."""

    def __init__(self, on_error: OnError | None) -> None:
        super().__init__(on_error)
        # No thread waits for it: acquiring it is only attempted.
        self._gate = threading.Lock()
        # When the thread that has not run yet was started.
        self._tried_at = -math.inf
        self._process = this_process()
        self._context = context_of("reporting")

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line, in the calling thread if no other thread can be started."""
        if self._start():
            super().say(level, message, *arguments)
        else:
            _log(level, message, *arguments)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        return not self._items and not self._gate.locked()

    def needs_thread(self) -> bool:
        """Starts the reporting thread if it is missing; returns whether it is still missing."""
        return bool(self._items) and not self._start()

    def assist(self) -> None:
        """Reports in the calling thread, if there is something to report and no other thread."""
        if self._items and not self._gate.locked() and SYSTEM.monotonic() - self._tried_at >= LOOK:
            self._context.copy().run(self._work, is_own=False)

    def finish(self, ends: float) -> bool:
        """Reports the rest; returns whether all calls of `on_error` have returned.

        It waits until `ends`, by the system's monotonic clock. If a call in another thread takes
        longer, additional threads report the rest.
        """
        if ROLE.get() == "reporting":
            return True  # This call of `on_error` continues afterwards.
        # A line that is being logged gets a moment to finish, even if there is no time to close.
        self._wait_until(max(ends, SYSTEM.monotonic() + LOOK))
        if not self._gate.locked():
            self._context.copy().run(self._work, is_own=False)
        grace = SYSTEM.monotonic() + _GRACE
        while self._items and self._gate.locked() and SYSTEM.monotonic() < grace:
            # Each additional thread may also meet a call that does not return.
            before = len(self._items)
            if not self._start_thread(self._report):
                break
            while len(self._items) == before and SYSTEM.monotonic() < grace:
                SYSTEM.alarm().wait(_TURN)
            self._wait_until(min(grace, SYSTEM.monotonic() + LOOK))
        if left := sum(isinstance(item, _Call) for item in list(self._items)):
            line = "on_error was not called for %s because earlier calls have not returned"
            _log(logging.ERROR, line, counted(left))
        return self.is_idle

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._start()  # Again after the one in `say`: that thread may have ended in between.

    def _wait_until(self, ends: float) -> None:
        while self._gate.locked() and (left := ends - SYSTEM.monotonic()) > 0:
            SYSTEM.alarm().wait(min(left, _TURN))

    def _start(self) -> bool:
        """Makes sure that a thread reports; returns False if no thread can be started."""
        now = SYSTEM.monotonic()
        if self._gate.locked() or now - self._tried_at < LOOK:
            return True
        self._tried_at = now
        if self._start_thread(self._work):
            return True
        self._tried_at = -math.inf
        return False

    def _start_thread(self, work: Callable[..., None]) -> bool:
        run = partial(self._context.copy().run, work, is_own=True)
        return start_thread(run, "intercom-tracker-reporter")

    def _work(self, *, is_own: bool) -> None:
        self._tried_at = -math.inf
        # Repeated, because an item may have come between the last check and the release.
        while self._items and this_process() is self._process:
            held: list[bool] = []
            try:
                # In one step, so that an interrupt can neither lose the lock nor release it twice.
                held.extend(map(self._gate.acquire, (False,)))
                if held == [False]:
                    return
                self._report(is_own=is_own)
            finally:
                if held == [True]:
                    self._gate.release()

    def _report(self, *, is_own: bool) -> None:
        while self._items and this_process() is self._process:
            if (call := self._next_call()) is None:
                continue
            try:
                # A call must not see what the previous one set in its context.
                self._context.copy().run(call.begin)
            except BaseException as failure:
                call.failed(failure)
                if not (is_own or isinstance(failure, Exception)):
                    raise


class TaskReporter(Reporter):
    """Reports in a task; `on_error` may be async."""

    def __init__(self, on_error: OnError | None) -> None:
        super().__init__(on_error)
        self._alarm: AsyncAlarm | None = None
        self._is_calling = False
        self._is_ending = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        return not (self._items or self._is_calling)

    def cancel(self) -> None:
        """Treats later cancellations as the end of reporting, not as errors of `on_error`."""
        self._is_ending = True
        self._alarm = None  # The event loop of the alarm may be closed.

    async def run(self) -> None:
        """Reports, until it is cancelled."""
        while True:
            self._alarm = SYSTEM.async_alarm()
            await self.report()
            await self._alarm.wait(math.inf)

    async def idle(self) -> None:
        """Waits until there is nothing to report."""
        answer = Answer(SYSTEM.async_alarm())
        self.reply(answer, True)
        while not answer.is_set:
            await answer.alarm.wait(math.inf)

    async def report(self) -> None:
        """Reports all queued items."""
        while self._items:
            if (call := self._next_call()) is None:
                continue
            self._is_calling = True
            try:
                if (result := copy_context().run(_begin, call)) is not None:
                    await self._finish(call, result)
            finally:
                self._is_calling = False

    def end(self) -> None:
        """Reports what is left without awaiting anything, because the event loop is ending."""
        while self._items:
            if (call := self._next_call()) is None:
                continue
            if (result := copy_context().run(_begin, call)) is not None:
                copy_context().run(_step, call, result)

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        if self._alarm is not None:
            self._alarm.set()

    async def _finish(self, call: _Call, result: Awaitable[object]) -> None:
        """Awaits a call of `on_error` in a new task, so that calls do not share a context."""
        import anyio

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(uninterrupted(self._await), call, result)
        finally:
            _step(call, result)

    async def _await(self, call: _Call, result: Awaitable[object]) -> None:
        ROLE.set("reporting")
        try:
            await result
        except BaseException as failure:
            import anyio

            cancelled = isinstance(failure, anyio.get_cancelled_exc_class())
            if isinstance(failure, KeyboardInterrupt) or (
                cancelled and (self._is_ending or running_trio())
            ):
                raise
            call.failed(failure)


def _begin(call: _Call) -> Awaitable[object] | None:
    """Calls `on_error`; returns its result if that is awaitable."""
    ROLE.set("reporting")
    try:
        result = call.begin()
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001  # the caller's code may raise anything
        call.failed(failure)
        return None
    return result if inspect.isawaitable(result) else None


def _step(call: _Call, result: Awaitable[object]) -> None:
    """Runs a coroutine that nothing can await any more up to the point where it would wait."""
    if inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED:
        ROLE.set("reporting")
        try:
            with closing(result), suppress(StopIteration):
                result.send(None)
        except Exception as failure:  # noqa: BLE001  # the caller's code may raise anything
            call.failed(failure)
