"""Imports a file of events: reads, stamps and sends them, and records the outcomes."""

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

# Failures in a row, each after all attempts, that count as an outage.
_OUTAGE = 20

# Seconds in which outcomes are collected before they are written. After a kill, events of this time
# and those in flight are sent again: at most 100, unless answers arrive faster than this.
_MOMENT = 0.005


@frozen
class Problem:
    """A line that was rejected or failed."""

    line: int
    status: Literal["refused", "failed"]
    reason: str


#: Is called with each problem.
Tell: TypeAlias = Callable[[Problem], None]
#: Is called periodically; returns whether to stop.
Look: TypeAlias = Callable[[], bool]


@define
class Import:
    """One run over a file.

    Every event that was read is counted once: as done before, by its outcome, or as pending.

    Args:
        input: The records to send.
        refused: The file of rejected events, if there is one.

    Attributes:
        tell: Is called with each problem; must be set before the run.
        counts: The number of events by outcome.
        dropped: How many events were accepted without metadata that the API does not support.
        lines: Lines up to the last event that is counted; at the end, all lines.
    """

    input: Input
    refused: RefusedFile | None
    tell: Tell = field(init=False)
    counts: Counter[str] = field(factory=Counter[str], init=False)
    dropped: int = field(default=0, init=False)
    lines: int = field(default=0, init=False)
    _begun: float = field(factory=time.monotonic, init=False)
    # The record of each event without an outcome, by its position.
    _pending: dict[int, Record] = field(factory=dict[int, Record], init=False)
    _position: int = field(default=0, init=False)
    # Events that were read and not yet counted.
    _waiting: int = field(default=0, init=False)
    _failed_in_a_row: int = field(default=0, init=False)
    _stopping: bool = field(default=False, init=False)
    # Set when the journal has something to write.
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
        """Sends all events.

        Args:
            client: The client that sends.
            look: Returns whether to stop; requests in flight then get a moment to finish.
            concurrency: The most requests at once.
            max_rate: The most events per second.

        Raises:
            SourceError: The file can no longer be read.
            JournalError, StoppedError: The run is incomplete; another run resumes it.
            IntercomError: The failure is systemic, such as a revoked token.
        """

        async def send() -> None:
            async with client.create_many(
                self._events(), concurrency=concurrency, max_rate=max_rate
            ) as outcomes:
                async for outcome in outcomes:
                    self._note(outcome)

        await self._until(look, send)

    async def check(self, look: Look) -> None:
        """Checks all events, and sends nothing.

        Args:
            look: Returns whether to stop.

        Raises:
            SourceError: The file can no longer be read.
            StoppedError: The file of rejected events cannot be written.
        """

        async def check() -> None:
            async for outcome in check_many(self._events()):
                self._note(outcome)

        await self._until(look, check)

    @property
    def sent(self) -> bool:
        """Whether earlier runs left anything to do."""
        return bool(self.counts or self._pending)

    @property
    def begun(self) -> bool:
        """Whether there is anything to report."""
        return bool(self._position or self.counts or self.input.before)

    @property
    def pending(self) -> int:
        """How many events were in flight, or next, when the run stopped."""
        return len(self._pending)

    @property
    def seconds(self) -> float:
        """The duration of the run so far."""
        return time.monotonic() - self._begun

    @property
    def through(self) -> int:
        """An estimate of the bytes whose events have an outcome."""
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
        """Writes the outcomes of each moment together."""
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
        """Yields the events to send."""
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
            what = "contains no events" if self.lines else "is empty"
            raise SourceError(f"{self.input.source.name} {what}; choose another file")

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
        # Only now, because an event whose outcome cannot be written is sent again.
        del self._pending[outcome.position]
        if outcome.status == "failed":
            self._failed_in_a_row += 1
            self.tell(Problem(record.line, "failed", str(outcome.error)))
            if self._failed_in_a_row >= _OUTAGE:
                raise StoppedError(
                    f"{_OUTAGE} events in a row failed; run the same command again later. The "
                    f"last failure: {outcome.error}"
                )
        else:
            self._failed_in_a_row = 0
