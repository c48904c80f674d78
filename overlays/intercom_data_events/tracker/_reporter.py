"""Calls `on_error` and logs, in a thread or task of its own: both run code of the caller's.

That code may take a while, wait for a thread that tracks, track, flush, close, or raise.
"""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen

from intercom_data_events._dispatch import ROLE, context_of
from intercom_data_events._dispatch.threads import LOOK, start_thread
from intercom_data_events._sending.runtime import this_process
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import IntercomError
from intercom_data_events.event import Event
from intercom_data_events.tracker._scheduler import GivenUp, named

if TYPE_CHECKING:
    from intercom_data_events.clock import AsyncAlarm

log = logging.getLogger("intercom_data_events")

# Seconds that `on_error` may take for the rest, beside a call that does not end.
_GRACE = 1.0

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


@frozen
class _Line:
    level: int
    message: str
    arguments: tuple[object, ...]

    def log(self) -> None:
        role = ROLE.set("sending")  # What handles the line must not track for ever.
        try:
            log.log(self.level, self.message, *self.arguments)
        finally:
            ROLE.reset(role)


@frozen
class _Reply:
    answer: Answer
    value: bool


class Reporter:
    """Calls `on_error` and logs, in one thread at a time, in the order of what happened.

    Args:
        on_error: Is called with each event that will not arrive, and why; None for nothing.
    """

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self._items = deque[GivenUp | _Line | _Reply]()
        # Only tried, never waited for.
        self._gate = threading.Lock()
        self._tried_at = -math.inf
        self._process = this_process()
        self._context = context_of("reporting")

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line: here if no thread can be started."""
        line = _Line(level, message, arguments)
        self._items.append(line)
        if not self._start():
            try:
                self._items.remove(line)
            except ValueError:
                return  # Another thread logs it.
            line.log()

    def give_up(self, event: Event, error: IntercomError) -> None:
        """Has `on_error` called."""
        if self._on_error is not None:
            self._items.append((event, error))
            self._start()

    def reply(self, answer: Answer, value: bool) -> None:
        """Answers, after all calls of `on_error` so far."""
        if answer.is_reporting or self.is_idle:
            answer.give(value)
        else:
            self._items.append(_Reply(answer, value))
            self._start()

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

        If one takes too long in another thread, the rest is reported beside it.

        Args:
            ends: Until when to wait for that, by the system's monotonic clock.
        """
        if ROLE.get() == "reporting":
            return True  # It continues after this.
        self._wait_until(ends)
        if not self._gate.locked():
            self._context.copy().run(self._work, is_own=False)
        elif self._items:
            beside = partial(self._context.copy().run, partial(self._report, is_own=True))
            if start_thread(beside, "intercom-tracker-reporter"):
                self._wait_until(SYSTEM.monotonic() + _GRACE)
            else:
                self._context.copy().run(self._report, is_own=False)
        return self.is_idle

    def _wait_until(self, ends: float) -> None:
        while self._gate.locked() and (left := ends - SYSTEM.monotonic()) > 0:
            answer = Answer(SYSTEM.alarm(), is_reporting=False)
            self._items.append(_Reply(answer, value=True))
            answer.alarm.wait(min(left, LOOK))
            if not answer.is_set:
                with suppress(ValueError):
                    self._items.remove(_Reply(answer, value=True))

    def _start(self) -> bool:
        """Has a thread report; returns False if none can be started."""
        if self._gate.locked():
            return True
        self._tried_at = SYSTEM.monotonic()
        work = partial(self._context.copy().run, partial(self._work, is_own=True))
        return start_thread(work, "intercom-tracker-reporter")

    def _work(self, *, is_own: bool) -> None:
        # Again, because something may have come between the last look and the release.
        while self._items and self._gate.acquire(blocking=False):
            try:
                self._report(is_own=is_own)
            finally:
                self._gate.release()

    def _report(self, *, is_own: bool) -> None:
        while self._items and this_process() is self._process:
            try:
                item = self._items.popleft()
            except IndexError:
                return
            if isinstance(item, _Line):
                item.log()
            elif isinstance(item, _Reply):
                item.answer.give(item.value)
            else:
                self._call(*item, is_own=is_own)

    def _call(self, event: Event, error: IntercomError, *, is_own: bool) -> None:
        try:
            if self._on_error is not None:
                self._on_error(event, error)
        except BaseException as failure:
            if not (is_own or isinstance(failure, Exception)):
                raise
            log.exception("on_error failed, about %s", named(event))


class AsyncReporter:
    """The twin of :class:`Reporter`, in a task; a function given as `on_error` may be async.

    Args:
        on_error: Is called with each event that will not arrive, and why; None for nothing.
    """

    def __init__(self, on_error: OnError | None) -> None:
        self._on_error = on_error
        self._alarm: AsyncAlarm | None = None
        self._items = deque[GivenUp | _Line | _Reply]()
        self._is_busy = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to report."""
        return not (self._items or self._is_busy)

    def say(self, level: int, message: str, *arguments: object) -> None:
        """Logs a line."""
        self._put(_Line(level, message, arguments))

    def give_up(self, event: Event, error: IntercomError) -> None:
        """Has `on_error` called."""
        if self._on_error is not None:
            self._put((event, error))

    def reply(self, answer: Answer, value: bool) -> None:
        """Answers, after all calls of `on_error` so far."""
        if answer.is_reporting or self.is_idle:
            answer.give(value)
        else:
            self._put(_Reply(answer, value))

    def needs_thread(self) -> bool:
        """Whether a thread is missing: never, as it is a task."""
        return False

    async def run(self) -> None:
        """Reports, until it is cancelled."""
        while True:
            self._alarm = SYSTEM.async_alarm()
            await self.report()
            await self._alarm.wait(math.inf)

    async def idle(self) -> None:
        """Waits until there is nothing to report."""
        answer = Answer(SYSTEM.async_alarm(), is_reporting=False)
        self.reply(answer, True)
        while not answer.is_set:
            await answer.alarm.wait(math.inf)

    async def report(self) -> None:
        """Reports what there is to report."""
        while self._items:
            item = self._items.popleft()
            if isinstance(item, _Line):
                item.log()
            elif isinstance(item, _Reply):
                item.answer.give(item.value)
            else:
                self._is_busy = True
                try:
                    await self._call(*item)
                finally:
                    self._is_busy = False

    def _put(self, item: GivenUp | _Line | _Reply) -> None:
        self._items.append(item)
        if self._alarm is not None:
            self._alarm.set()

    async def _call(self, event: Event, error: IntercomError) -> None:
        role = ROLE.set("reporting")
        try:
            result = None if self._on_error is None else self._on_error(event, error)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("on_error failed, about %s", named(event))
        finally:
            ROLE.reset(role)
