"""Importing a file of events: reading, stamping, sending, noting what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal, TypeAlias

import anyio
from attrs import define, field, frozen

from intercom_data_events import AsyncDataEventsClient, Event, Outcome
from intercom_data_events.bulk import check_many
from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.input import Input
from intercom_data_events.cli.importer.journal import JournalError
from intercom_data_events.cli.importer.records import Record, SourceError
from intercom_data_events.cli.importer.refused import RefusedFile
from intercom_data_events.cli.reporting import GRACE, LOOK

# Failures in a row, after all attempts of each, that are taken for an outage.
_OUTAGE = 20

# Seconds in which outcomes are collected before they are written. A kill repeats those of the last
# moment and those in flight, 100 at most on any line whose answers take longer than a moment.
_MOMENT = 0.005


@frozen
class Problem:
    """A line that was refused or failed."""

    line: int
    status: Literal["refused", "failed"]
    reason: str


#: Is told of each problem, as it is met.
Tell: TypeAlias = Callable[[Problem], None]
#: Is called now and then; returns whether to stop.
Look: TypeAlias = Callable[[], bool]


@define
class Import:
    """One run over a file.

    Every event that was looked at is counted once: as done before, by its outcome, or as pending.

    Args:
        input: What is read.
        refused: Where refused events go; None for nowhere.

    Attributes:
        tell: Is told of each problem; is set before it runs.
        counts: How many events have which outcome.
        dropped: How many events were accepted without metadata that the API does not support.
        lines: Lines up to the last event that is counted; in the end, all lines.
    """

    input: Input
    refused: RefusedFile | None
    tell: Tell = field(init=False)
    counts: Counter[str] = field(factory=Counter[str], init=False)
    dropped: int = field(default=0, init=False)
    lines: int = field(default=0, init=False)
    _begun: float = field(factory=time.monotonic, init=False)
    # By the place in what is sent: the record of each event that has no outcome yet.
    _pending: dict[int, Record] = field(factory=dict[int, Record], init=False)
    _position: int = field(default=0, init=False)
    # Events that have been read and are not looked at yet.
    _waiting: int = field(default=0, init=False)
    _failed_in_a_row: int = field(default=0, init=False)
    _stopping: bool = field(default=False, init=False)
    # Is set when the journal has something to write.
    _noted: anyio.Event = field(factory=anyio.Event, init=False)
    _problem: Exception | None = field(default=None, init=False)

    async def run(
        self,
        client: AsyncDataEventsClient,
        look: Look,
        *,
        concurrency: int,
        max_rate: float | None,
    ) -> None:
        """Sends everything.

        Args:
            client: To send with.
            look: Says when it is to end; the requests in flight get a moment.
            concurrency: Requests at once, at most.
            max_rate: Events a second, at most.

        Raises:
            SourceError: The file cannot be read any further.
            JournalError, StoppedError: It is incomplete; running it again resumes.
            IntercomError: Intercom accepts no event at all: the token, the version.
        """

        async def send() -> None:
            async with client.create_many(
                self._events(), concurrency=concurrency, max_rate=max_rate
            ) as outcomes:
                async for outcome in outcomes:
                    self._note(outcome)

        await self._until(look, send)

    async def check(self, look: Look) -> None:
        """Checks everything, and sends nothing.

        Args:
            look: Says when it is to end.

        Raises:
            SourceError: The file cannot be read any further.
            StoppedError: The file of refused events cannot be written.
        """

        async def check() -> None:
            async for outcome in check_many(self._events()):
                self._note(outcome)

        await self._until(look, check)

    @property
    def sent(self) -> bool:
        """Whether anything was left to do."""
        return bool(self.counts or self._pending)

    @property
    def begun(self) -> bool:
        """Whether anything was read that there is to report on."""
        return bool(self._position or self.counts or self.input.before)

    @property
    def pending(self) -> int:
        """How many events were in flight, or next, when it stopped."""
        return len(self._pending)

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return time.monotonic() - self._begun

    @property
    def through(self) -> int:
        """Bytes of what has been read whose events have an outcome, as nearly as can be told."""
        done = self.input.before + sum(self.counts.values())
        left = len(self._pending) + self._waiting
        return self.input.source.position * done // max(1, done + left)

    async def _until(self, look: Look, work: Callable[[], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, look, group.cancel_scope)
            group.start_soon(self._save, group.cancel_scope)
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # raised below, not in a group of one
                self._problem = self._problem or error
            group.cancel_scope.cancel()
        if self.input.journal is not None and not isinstance(self._problem, JournalError):
            self.input.journal.save()
        if self._problem is not None:
            raise self._problem

    async def _watch(self, look: Look, scope: anyio.CancelScope) -> None:
        while not self._stopping:
            await anyio.sleep(LOOK)
            self._stopping = look()
        await anyio.sleep(GRACE)
        scope.cancel()

    async def _save(self, scope: anyio.CancelScope) -> None:
        """Writes the outcomes of a moment at once."""
        while self.input.journal is not None:
            await self._noted.wait()
            await anyio.sleep(_MOMENT)
            self._noted = anyio.Event()
            try:
                self.input.journal.save()
            except JournalError as error:
                self._problem = error
                scope.cancel()
                return

    async def _events(self) -> AsyncIterator[Event]:
        """The events to send."""
        async for records in self.input.batches():
            for number, record in enumerate(records, 1):
                self._waiting = len(records) - number
                if self._stopping:
                    return
                self.lines = record.line
                if record.event is None:
                    self._refuse(record, record.problem or "")
                    continue
                self._pending[self._position] = record
                self._position += 1
                yield record.event
        self.lines = self.input.reader.lines
        if not self.begun:
            what = "has no events in it" if self.lines else "is empty"
            raise SourceError(f"{self.input.source.name} {what}: there is nothing to import")

    def _refuse(self, record: Record, reason: str) -> None:
        if self.refused is not None:
            self.refused.add(record, reason, self.input.reader)
        self._count("refused", record)
        self.tell(Problem(record.line, "refused", reason))

    def _count(self, status: Literal["accepted", "duplicate", "refused"], record: Record) -> None:
        self.counts[status] += 1
        if self.input.journal is not None:
            self.input.journal.note(status, record.line)
            self._noted.set()

    def _note(self, outcome: Outcome) -> None:
        record = self._pending[outcome.position]
        if outcome.status == "refused":
            self._refuse(record, str(outcome.error))
        elif outcome.status == "failed":
            self.counts["failed"] += 1
        else:
            self._count(outcome.status, record)
            self.dropped += outcome.status == "accepted" and record.dropped
        # Now, as an event whose outcome cannot be written is sent again.
        del self._pending[outcome.position]
        if outcome.status == "failed":
            self._failed_in_a_row += 1
            self.tell(Problem(record.line, "failed", str(outcome.error)))
            if self._failed_in_a_row >= _OUTAGE:
                raise StoppedError(
                    f"{_OUTAGE} events in a row failed, the last with: {outcome.error}"
                )
        else:
            self._failed_in_a_row = 0
