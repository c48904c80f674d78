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
from intercom_data_events.cli.importer.records import Record, SourceError
from intercom_data_events.cli.importer.refused import RefusedFile

# Failures in a row, after all tries of each, that are taken for an outage.
_OUTAGE = 20
# Seconds that what is on its way is waited for when a person wants to stop.
_GRACE = 0.5


@frozen
class Report:
    """What became of a file, in this run.

    Attributes:
        lines: Lines that were read, blank ones included.
        accepted: Events that Intercom accepted; of a check, those that would be sent.
        duplicates: Events that are the same as an accepted one to Intercom, and were not sent.
        refused: Events that cannot be sent as they are, or that Intercom refused.
        failed: Events that failed for the time being.
        pending: Events that were on their way, or next, when it stopped.
        before: Events that were done in runs before.
        refused_before: Those of them that were refused.
        without_unsupported: Those of the accepted that were sent without metadata that the API does
            not support.
        seconds: How long it took.
        refused_file: Where the refused events are, with the reasons.
    """

    lines: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    failed: int = 0
    pending: int = 0
    before: int = 0
    refused_before: int = 0
    without_unsupported: int = 0
    seconds: float = 0.0
    refused_file: str | None = None

    @property
    def left_to_mend(self) -> bool:
        """Whether there are refused events of this run, or of those before, to look after."""
        return self.refused_file is not None and bool(self.refused or self.refused_before)


@frozen
class Problem:
    """A line that was refused or failed, to tell of."""

    line: int
    status: Literal["refused", "failed"]
    reason: str


#: Is told of each problem, as it is met.
Tell: TypeAlias = Callable[[Problem], None]


@define
class Import:
    """One run over a file.

    Args:
        input: What is read.
        refused: Where refused events go; None for nowhere.
        tell: Is told of each problem.
    """

    input: Input
    refused: RefusedFile | None
    tell: Tell
    _begun: float = field(factory=time.monotonic)
    # By the place in what is sent: the record of each event that has no outcome yet.
    _pending: dict[int, Record] = field(factory=dict[int, Record])
    _counts: Counter[str] = field(factory=Counter[str])
    _position: int = 0
    _dropped: int = 0
    # Events that have been read and are not looked at yet.
    _waiting: int = 0
    _failed_in_a_row: int = 0
    _stopping: bool = False

    async def run(
        self,
        client: AsyncDataEventsClient,
        *,
        concurrency: int,
        max_rate: float | None,
        stop: anyio.Event,
    ) -> None:
        """Sends everything.

        Args:
            client: To send with.
            concurrency: Requests at once, at most.
            max_rate: Events a second, at most.
            stop: Set by whoever wants it to end; what is on its way gets a moment.

        Raises:
            SourceError: The file cannot be read any further.
            JournalError, StoppedError: It cannot go on; running it again does.
            IntercomError: Intercom takes no event at all: the token, the version.
        """

        async def send() -> None:
            async with client.create_many(
                self._events(), concurrency=concurrency, max_rate=max_rate
            ) as outcomes:
                async for outcome in outcomes:
                    self._note(outcome)

        await self._until(stop, send)

    async def check(self, stop: anyio.Event) -> None:
        """Checks everything, and sends nothing.

        Args:
            stop: Set by whoever wants it to end.

        Raises:
            SourceError: The file cannot be read any further.
            StoppedError: The file of refused events cannot be written.
        """

        async def look() -> None:
            async for outcome in check_many(self._events()):
                self._note(outcome)

        await self._until(stop, look)

    @property
    def sent(self) -> bool:
        """Whether anything was left to do."""
        return bool(self._counts or self._pending)

    @property
    def through(self) -> int:
        """Bytes of what has been read whose events have an outcome, as nearly as can be told."""
        done = self.input.before + sum(self._counts.values())
        left = len(self._pending) + self._waiting
        return self.input.source.position * done // max(1, done + left)

    @property
    def begun(self) -> bool:
        """Whether anything was read that there is to report on."""
        return bool(self._position or self._counts or self.input.before)

    @property
    def report(self) -> Report:
        """What became of everything so far."""
        counts = self._counts
        return Report(
            lines=self.input.reader.lines,
            accepted=counts["accepted"],
            duplicates=counts["duplicate"],
            refused=counts["refused"],
            failed=counts["failed"],
            pending=len(self._pending),
            before=self.input.before,
            refused_before=self.input.journal.refused if self.input.journal is not None else 0,
            without_unsupported=self._dropped,
            seconds=time.monotonic() - self._begun,
            refused_file=(
                str(self.refused.path) if self.refused is not None and self.refused.exists else None
            ),
        )

    async def _until(self, stop: anyio.Event, work: Callable[[], Awaitable[None]]) -> None:
        problem: Exception | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, stop, group.cancel_scope)
            try:
                await work()
            except Exception as error:  # noqa: BLE001  # raised below, not in a group of one
                problem = error
            group.cancel_scope.cancel()
        if problem is not None:
            raise problem

    async def _watch(self, stop: anyio.Event, scope: anyio.CancelScope) -> None:
        await stop.wait()
        self._stopping = True
        await anyio.sleep(_GRACE)
        scope.cancel()

    async def _events(self) -> AsyncIterator[Event]:
        """The events to send."""
        async for records in self.input.batches():
            for number, record in enumerate(records, 1):
                self._waiting = len(records) - number
                if self._stopping:
                    return
                if record.event is None:
                    self._refuse(record, record.problem or "")
                    continue
                self._pending[self._position] = record
                self._position += 1
                yield record.event
        if not self.begun:
            what = "has no events in it" if self.input.reader.lines else "is empty"
            raise SourceError(f"{self.input.source.name} {what}: there is nothing to import")

    def _refuse(self, record: Record, reason: str) -> None:
        self._counts["refused"] += 1
        if self.refused is not None:
            self.refused.add(record, reason, self.input.reader)
        if self.input.journal is not None:
            self.input.journal.note("refused", record.line)
        self.tell(Problem(record.line, "refused", reason))

    def _note(self, outcome: Outcome) -> None:
        record = self._pending.pop(outcome.position)
        status = outcome.status
        if status == "refused":
            self._failed_in_a_row = 0
            self._refuse(record, str(outcome.error))
            return
        self._counts[status] += 1
        self._dropped += status == "accepted" and record.dropped
        if status != "failed":
            self._failed_in_a_row = 0
            if self.input.journal is not None:
                self.input.journal.note(status, record.line)
        else:
            self._failed_in_a_row += 1
            self.tell(Problem(record.line, "failed", str(outcome.error)))
            if self._failed_in_a_row >= _OUTAGE:
                raise StoppedError(
                    f"{_OUTAGE} events in a row failed, the last with: {outcome.error}"
                )
