"""Runs a dispatcher in tasks of one event loop, under asyncio and trio."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Generic

import anyio

from intercom_data_events._dispatch import ROLE, Dispatcher, Item, Result, context_of
from intercom_data_events._sending import operations
from intercom_data_events._sending.drivers import arun
from intercom_data_events._sending.exchange import Exchange
from intercom_data_events._sending.runtime import running_trio, uninterrupted

if TYPE_CHECKING:
    import asyncio

    from intercom_data_events._sending.engines import AsyncEngine
    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings


class Host:
    """A task that outlives the task that starts it.

    A task group cannot stay open between two calls of an async generator or a fixture, because
    another task may make the second call.

    Args:
        function: The function to run, which handles its errors: an error ends the task.
        context: Its context.
        at_end: Called when the task has ended, even if the function never began.
    """

    def __init__(
        self,
        function: Callable[[], Awaitable[None]],
        context: Context,
        at_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._function = function
        self._at_end = at_end
        self._ended = anyio.Event()
        # Kept here, because an event loop keeps only weak references to its tasks.
        self._task: object
        #: The event loop of asyncio; None under trio.
        self.loop: asyncio.AbstractEventLoop | None = None
        #: Calls a function in the event loop, from any thread.
        self.call_soon: Callable[[Callable[[], object]], object]
        if running_trio():
            import trio

            self.call_soon = trio.lowlevel.current_trio_token().run_sync_soon
            self._task = trio.lowlevel.spawn_system_task(self._run, context=context)
        else:
            import asyncio

            self.loop = loop = asyncio.get_running_loop()
            self.call_soon = loop.call_soon_threadsafe
            task = loop.create_task(self._run(), context=context)
            # Needed if the task is cancelled before its first step.
            task.add_done_callback(lambda _: self._end(), context=context)
            self._task = task

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    async def ended(self) -> None:
        """Waits until it has ended."""
        if not self._ended.is_set():
            await self._ended.wait()

    async def _run(self) -> None:
        try:
            await self._function()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._at_end()


class TaskWorkers(Generic[Item]):
    """Tasks that send the events that a dispatcher hands out.

    Any of them can run the dispatcher, because no two run at once; a worker that has sent one event
    gets the next without switching tasks. Create it in the event loop.

    Args:
        dispatcher: The dispatcher.
        session: The connections to send through.
        settings: The settings of the requests.
        marked: Whether to set `ROLE` in them.
    """

    def __init__(
        self,
        dispatcher: Dispatcher[Item],
        session: Session[AsyncEngine],
        settings: Settings,
        *,
        marked: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._settings = settings
        # The context of workers; None for that of the task that starts them.
        self._context = context_of("sending") if marked else None
        #: The tasks, while :meth:`run` runs.
        self.group = anyio.create_task_group()
        self._alarm = session.clock.async_alarm()
        self._due = math.inf
        self._results = deque[Result[Item]]()
        # Where a worker that asks for its next event receives it.
        self._asked: list[Item] | None = None
        #: Whether the dispatcher has ended.
        self.has_ended = False

    def wake(self) -> None:
        """Makes the dispatcher process news."""
        self._due = -math.inf
        self._alarm.set()

    def step(self) -> None:
        """Runs the dispatcher at once, without switching tasks."""
        seconds = self._dispatcher.step(self)
        self.has_ended = seconds is None
        before = self._due
        self._due = math.inf
        if seconds != math.inf:
            self._due = self._session.clock.monotonic() + (seconds or 0.0)
        if self._due < before or self.has_ended:
            self._alarm.set()

    async def run(self, *others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs the dispatcher and its workers until it ends, then cancels their requests.

        Args:
            others: Functions that run until then, each in its own task.
        """
        clock = self._session.clock
        async with self.group:
            for other in others:
                self.group.start_soon(other)
            if self._context is not None:
                ROLE.set("working")
            while not self.has_ended:
                self._alarm = clock.async_alarm()
                self.step()
                if self.has_ended:
                    break
                await self._alarm.wait(self._due - clock.monotonic())
            self.group.cancel_scope.cancel()

    def is_ready(self) -> bool:
        """Returns True: there can be any number of tasks."""
        return True

    def submit(self, item: Item) -> None:
        """Hands an event to a worker."""
        if self._asked is not None and not self._asked:
            self._asked.append(item)
        else:
            self._start(item)

    def results(self) -> Iterator[Result[Item]]:
        """Yields the results since the last call."""
        while self._results:
            yield self._results.popleft()

    def _start(self, item: Item) -> None:
        context = copy_context() if self._context is None else self._context.copy()
        context.run(self.group.start_soon, uninterrupted(self._work), item)

    async def _work(self, first: Item) -> None:
        before = copy_context()
        items = [first]
        while items:
            self._results.append(await self._perform(items.pop()))
            self._asked = items
            try:
                self.step()
            finally:
                self._asked = None
            if items and self._context is not None and copy_context() != before:
                # A hook changed the context; the next event gets a fresh one.
                self._start(items.pop())

    async def _perform(self, item: Item) -> Result[Item]:
        try:
            exchange = Exchange(operations.send(item.event), self._session, self._settings)
            await arun(exchange.steps(item.reservation), self._session)
        except Exception as error:  # noqa: BLE001  # the dispatcher decides
            return Result(item, error)
        except BaseException as error:
            if self._context is None or _ends_task(error):
                raise
            return Result(item, error)
        return Result(item)


def _ends_task(error: BaseException) -> bool:
    """Whether an error ends the running task, and not only the caller's code in it.

    That code may exit, or await a cancelled task.
    """
    import asyncio

    if isinstance(error, SystemExit):
        return False
    if running_trio() or not isinstance(error, asyncio.CancelledError):
        return True
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
