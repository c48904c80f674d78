"""Calls `on_error` and logs, in a thread or task of its own: both run code of the caller's.

That code may take a while, wait for a thread that tracks, track, flush, close, or raise.
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

# Seconds that `on_error` may take for the rest, beside a call that does not end.
_GRACE = 1.0
# Seconds between two looks whether calls of `on_error` have ended.
_TURN = 0.005

OnError: TypeAlias = Callable[[Event, IntercomError], object]


@define(eq=False)
class Answer:
    """What a caller of `flush` or `close` waits for.

    Attributes:
        alarm: What it waits on.
        is_set: Whether it was answered.
        value: The answer.
        error: The error to raise instead.
        is_reporting: Whether `on_error` waits for it, so that it cannot wait for `on_error`.
    """

    alarm: Any
    is_set: bool = False
    value: bool = False
    error: BaseException | None = None
    is_reporting: bool = field(factory=lambda: ROLE.get() == "reporting")

    def give(self, value: bool, error: BaseException | None = None) -> None:
        """Answers."""
        self.value, self.error, self.is_set = value, error, True
        self.alarm.set()


@define(eq=False)
class _Call:
    """A call of `on_error`, for an event that will not arrive."""

    on_error: OnError
    event: Event
    error: IntercomError

    def begin(self) -> object:
        """Calls it; returns what it returned, which is to be awaited if it is async."""
        return self.on_error(self.event, self.error)

    def failed(self, failure: BaseException) -> None:
        """Logs the exception that it raised."""
        _log(logging.ERROR, "on_error failed, about %s", named(self.event), failure=failure)


# A line to log and an answer to give are functions.
_Item: TypeAlias = _Call | Callable[[], None]


def _log(
    level: int, message: str, *arguments: object, failure: BaseException | None = None
) -> None:
    role = ROLE.set("sending")  # What handles the line must not track for ever.
    try:
        log.log(level, message, *arguments, exc_info=failure)
    except Exception:  # noqa: BLE001  # of a handler that raises it; nothing ends with it
        if logging.raiseExceptions:  # As logging's own handlers do.
            traceback.print_exc()
    finally:
        ROLE.reset(role)


class Reporter:
    """Calls `on_error` and logs, one after the other, in the order of what happened.

    Args:
        on_error: Is called with each event that will not arrive, and why; None for nothing.
    """

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self._items = deque[_Item]()

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line."""
        self._put(partial(_log, level, message, *arguments))

    def give_up(self, event: Event, error: IntercomError) -> None:
        """Has `on_error` called."""
        if self._on_error is not None:
            self._put(_Call(self._on_error, event, error))

    def reply(self, answer: Answer, value: bool) -> None:
        """Answers, after all calls of `on_error` so far."""
        if answer.is_reporting or self.is_idle:
            answer.give(value)
        else:
            self._put(partial(answer.give, value))

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        raise NotImplementedError

    def needs_thread(self) -> bool:
        """Starts a thread that reports, if it is missing; returns whether it still is."""
        return False

    def _put(self, item: _Item) -> None:
        """Has an item be reported, after all so far."""
        raise NotImplementedError

    def _next_call(self) -> _Call | None:
        """Takes out an item; returns it if `on_error` is to be called, else logs or answers."""
        try:
            item = self._items.popleft()
        except IndexError:
            return None  # Another thread has it.
        if isinstance(item, _Call):
            return item
        item()
        return None


class ThreadReporter(Reporter):
    """Reports in one thread at a time."""

    def __init__(self, on_error: OnError | None) -> None:
        super().__init__(on_error)
        # Only tried, never waited for.
        self._gate = threading.Lock()
        # When a thread was started that has not run yet.
        self._tried_at = -math.inf
        self._process = this_process()
        self._context = context_of("reporting")

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line: here if no thread can be started."""
        if self._start():
            super().say(level, message, *arguments)
        else:
            _log(level, message, *arguments)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        return not self._items and not self._gate.locked()

    def needs_thread(self) -> bool:
        """Starts a thread that reports, if it is missing; returns whether it still is."""
        return bool(self._items) and not self._start()

    def assist(self) -> None:
        """Reports from here, if there is something to report and no thread that does."""
        if self._items and not self._gate.locked() and SYSTEM.monotonic() - self._tried_at >= LOOK:
            self._context.copy().run(self._work, is_own=False)

    def finish(self, ends: float) -> bool:
        """Reports the rest; returns whether all calls of `on_error` have ended.

        If one takes too long in another thread, the rest is reported beside it, in others.

        Args:
            ends: Until when to wait for that, by the system's monotonic clock.
        """
        if ROLE.get() == "reporting":
            return True  # It continues after this.
        # A line that is being logged is worth a moment, also where there is no time to close.
        self._wait_until(max(ends, SYSTEM.monotonic() + LOOK))
        if not self._gate.locked():
            self._context.copy().run(self._work, is_own=False)
        grace = SYSTEM.monotonic() + _GRACE
        while self._items and self._gate.locked() and SYSTEM.monotonic() < grace:
            # Each may meet a call that does not end, too.
            before = len(self._items)
            if not self._start_thread(self._report):
                break
            while len(self._items) == before and SYSTEM.monotonic() < grace:
                SYSTEM.alarm().wait(_TURN)
            self._wait_until(min(grace, SYSTEM.monotonic() + LOOK))
        if left := sum(isinstance(item, _Call) for item in list(self._items)):
            line = "on_error was not called for %d events, because calls of it did not end"
            _log(logging.ERROR, line, left)
        return self.is_idle

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._start()  # Also after the look in `say`: that thread may have ended in between.

    def _wait_until(self, ends: float) -> None:
        while self._gate.locked() and (left := ends - SYSTEM.monotonic()) > 0:
            SYSTEM.alarm().wait(min(left, _TURN))

    def _start(self) -> bool:
        """Has a thread report; returns False if none can be started."""
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
        # Again, because something may have come between the last look and the release.
        while self._items and this_process() is self._process:
            held: list[bool] = []
            try:
                # One step: an interrupt can neither lose the lock nor release it twice.
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
                # No call meets what the one before left in its context.
                self._context.copy().run(call.begin)
            except BaseException as failure:
                call.failed(failure)
                if not (is_own or isinstance(failure, Exception)):
                    raise


class TaskReporter(Reporter):
    """Reports in a task; a function given as `on_error` may be async."""

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
        """Says that a cancellation is not that of `on_error` from now on."""
        self._is_ending = True
        self._alarm = None  # Its event loop may be closed.

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
        """Reports what there is to report."""
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
        """Awaits a call of `on_error` in a task, so that no call meets another one's context."""
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
    """Calls `on_error`; returns what it returned, if that can be awaited."""
    ROLE.set("reporting")
    try:
        result = call.begin()
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001  # the caller's own
        call.failed(failure)
        return None
    return result if inspect.isawaitable(result) else None


def _step(call: _Call, result: Awaitable[object]) -> None:
    """Runs a coroutine that never began, where nothing can await it, up to where it would wait."""
    if inspect.iscoroutine(result) and inspect.getcoroutinestate(result) == inspect.CORO_CREATED:
        ROLE.set("reporting")
        try:
            with closing(result), suppress(StopIteration):
                result.send(None)
        except Exception as failure:  # noqa: BLE001  # the caller's own
            call.failed(failure)
