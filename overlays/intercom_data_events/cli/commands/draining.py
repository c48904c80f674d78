"""The command `outbox drain`."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import attrs
import typer

from intercom_data_events import DataEventsClient, Event, IntercomError
from intercom_data_events._sending.retry import ErrorClass, classify
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import Exit, StoppedError, UsageError
from intercom_data_events.cli.progress import Advance, ProgressShown
from intercom_data_events.errors import OutboxError, OutboxLockedError
from intercom_data_events.outbox import Outbox
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue
from intercom_data_events.tracker import Counters, Tracker

# Refusals that are told of one by one; all of them are dead letters.
_TOLD = 10
# Seconds between two looks at how far it has come.
_LOOK = 0.1
# Seconds for which nothing gets through until that is told, as it happens in passing.
_FAILING = 1.0
# Seconds without any event leaving until it is told what is being waited for.
_STANDSTILL = 5.0
# Seconds for the answers to what is on its way as it ends.
_GRACE = 0.5


def drain(
    connection: Connection,
    file: Path,
    *,
    workspace: str | None,
    token_renewed: bool,
    concurrency: int,
    timeout: float | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sends what waits in an outbox, tells of it, and ends the command with what came of it.

    Args:
        connection: How to reach Intercom.
        file: The outbox.
        workspace: The name that was given to its workspace.
        token_renewed: Whether the access token is known to be for the same workspace.
        concurrency: Requests at once, at most.
        timeout: Seconds that all of it may take; None for as long as it takes.
        quiet: Whether no progress is shown.
        as_json: Whether to write JSON.

    Raises:
        typer.Exit: With an exit code.
        UsageError: A time that makes no sense.
        OutboxError: The outbox cannot be used, so that nothing was sent.
        StoppedError: It cannot be used any longer.
        IntercomError: Intercom takes no event at all: the token, the version.
    """
    if timeout is not None and not timeout >= 0:
        raise UsageError(f"--max-time must be a number of seconds of at least 0, not {timeout}")
    # Looked at first: nobody is to be asked for a token in vain.
    with Outbox(file) as box:
        found = box.status()
    if not connection.sends:
        _report(_Report(str(file), left=found.queued, dead=found.dead, dry_run=True), as_json)
        raise typer.Exit(Exit.FAILED if found.queued else Exit.DONE)
    options = connection.options()
    with ExitStack() as use:
        # What the tracker logs is told here, and a process without logging would print it.
        log = logging.getLogger("intercom_data_events")
        log.addHandler(_UNHEARD)
        use.callback(log.removeHandler, _UNHEARD)
        client = use.enter_context(DataEventsClient(**options))
        binding = Binding(connection.address, options["access_token"], workspace, token_renewed)
        box = use.enter_context(OutboxQueue(file, binding, create=False))
        signals = use.enter_context(_signals())
        progress = use.enter_context(ProgressShown(file.name, quiet=quiet))
        run = _Drain(box, client, _Teller(progress, quiet=quiet), signals)
        problem: IntercomError | None = None
        try:
            run.send(workspace, concurrency, math.inf if timeout is None else timeout)
        except IntercomError as error:
            problem = error
        report = run.report(str(file))
    _report(report, as_json)
    if isinstance(problem, OutboxError):
        raise StoppedError(str(problem)) from problem
    if problem is not None:
        raise problem
    _end(run, report, file)


_UNHEARD = logging.NullHandler()


@attrs.frozen
class _Report:
    """What became of what waited.

    Attributes:
        file: The outbox.
        sent: Events that Intercom accepted.
        refused: Events that were refused, and are dead letters now.
        left: Events that wait still.
        dead: All dead letters in the file, those from before included.
        seconds: How long it took.
        dry_run: Whether nothing was to be sent.
    """

    file: str
    sent: int = 0
    refused: int = 0
    left: int = 0
    dead: int = 0
    seconds: float = 0.0
    dry_run: bool = False


class _Teller:
    """Tells a person what happens while events are sent: refusals, outages, standstills.

    Args:
        progress: Where to.
        quiet: Whether to tell of outages alone.
    """

    def __init__(self, progress: ProgressShown, *, quiet: bool) -> None:
        self._progress = progress
        self._quiet = quiet
        self._refusals = 0
        self._failing_since: float | None = None
        self._told_failing = False
        self._done = 0
        self._moved_at = time.monotonic()

    def show(self, advance: Advance) -> None:
        """Shows how far it has come."""
        self._progress.show(advance)

    def refused(self, event: Event, error: IntercomError) -> None:
        """Tells of a refusal; of many, of the first ones."""
        self._refusals += 1
        if self._quiet or self._refusals > _TOLD + 1:
            return
        if self._refusals > _TOLD:
            self._progress.tell("(further ones are counted, and not shown here)")
            return
        who = event.user_id or event.email or event.id or ""
        self._tell(f"{event.event_name} of {who} refused: {error}")

    def failing(self, counters: Counters) -> None:
        """Tells, once each time, that nothing gets through, and that it does again."""
        now = time.monotonic()
        if counters.failing is None:
            if self._told_failing:
                self._tell("Intercom answers again.")
            self._failing_since, self._told_failing = None, False
        elif self._failing_since is None:
            self._failing_since = now
        elif not self._told_failing and now - self._failing_since >= _FAILING:
            self._told_failing = True
            self._tell(
                f"Nothing gets through at the moment, and {counters.queued:,} wait; trying again "
                f"and again: {counters.failing}"
            )

    def standstill(self, done: int, box: Outbox) -> None:
        """Tells what is being waited for, where it is not the rate limit, nor Intercom."""
        now = time.monotonic()
        if done != self._done or self._failing_since is not None:
            self._done, self._moved_at = done, now
        elif now - self._moved_at >= _STANDSTILL:
            # Told again where something has left in between, and not before.
            self._moved_at = math.inf
            found = box.status()
            if not self._quiet and found.claimed + found.held >= found.queued:
                self._tell(
                    f"Waiting for the last ones: {found.claimed:,} being sent, perhaps by another "
                    "process (those of one that died are free after 30 seconds), "
                    f"{found.held:,} held back after a failure, until the next try."
                )

    def _tell(self, text: str) -> None:
        self._progress.tell(" ".join(text.split()))


class _Drain:
    """One run over an outbox: sends with a tracker, and looks at the file from beside it.

    Args:
        box: The file.
        client: What to send with.
        teller: Is told what happens.
        signals: Has something in it when it is to end.
    """

    def __init__(
        self, box: OutboxQueue, client: DataEventsClient, teller: _Teller, signals: Sequence[int]
    ) -> None:
        self.done = False
        self.stopped = False
        #: Events that were tracked after it began.
        self.since = 0
        self._box = box
        self._client = client
        self._teller = teller
        self._signals = signals
        self._begun = time.monotonic()
        self._before = self._after = box.status()
        # What came later is not waited for, so that it ends while an application goes on tracking.
        self._mark = box.high_watermark()
        self._sent = self._refused = 0
        # From the threads that notice, to the one that tells.
        self._refusals: SimpleQueue[tuple[Event, IntercomError]] = SimpleQueue()

    def send(self, workspace: str | None, concurrency: int, timeout: float) -> None:
        """Sends until all that was there has left, the time is over, or a signal ends it.

        Raises:
            OutboxError: The file cannot be used any longer.
            IntercomError: Every event would meet it.
        """
        tracker = Tracker(
            self._client,
            self._box.path,
            workspace=workspace,
            concurrency=concurrency,
            on_error=lambda event, error: self._refusals.put((event, error)),
            unknown_contact_patience=0,  # A person waits for the end of it.
        )
        try:
            tracker.flush(0)  # What was held back goes now.
            ends = self._begun + timeout
            while not self._has_ended(ends):
                self._look(tracker.counters)
                time.sleep(_LOOK)
            self._look(tracker.counters)
        finally:
            # When the outbox is empty, a worker may not have reported the last rejected event yet.
            tracker.close(_GRACE if self.done else 0)
            self._settle()

    def report(self, file: str) -> _Report:
        """What became of everything; whoever sent it, another process included."""
        left = 0 if self.done else self._after.queued
        refused = max(self._refused, self._after.dead - self._before.dead)
        return _Report(
            file,
            sent=max(self._sent, self._before.queued - refused - left),
            refused=refused,
            left=left,
            dead=self._after.dead,
            seconds=time.monotonic() - self._begun,
        )

    def _has_ended(self, ends: float) -> bool:
        self.done = self._box.is_drained(self._mark)
        self.stopped = bool(self._signals)
        return self.done or self.stopped or time.monotonic() >= ends

    def _look(self, counters: Counters) -> None:
        self._sent, self._refused = counters.sent, counters.refused
        self._tell_refusals()
        if not self.done and (failing := counters.failing) is not None and _is_final(failing):
            raise failing
        self._teller.failing(counters)
        total = self._before.queued
        left = max(0, total - counters.queued)
        events = counters.sent + counters.refused
        self._teller.show(
            Advance(left, total, events, counters.refused, 0, self._client.rate_limit)
        )
        self._teller.standstill(events, self._box)

    def _settle(self) -> None:
        """Gives what is on its way a moment, so that the next run need not wait for its claims."""
        ends = time.monotonic() + _GRACE
        # Where the file cannot be read, that has been said.
        with suppress(OutboxError):
            self._after = self._box.status(time.time())
            while self._after.claimed and time.monotonic() < ends:
                time.sleep(_LOOK / 2)
                self._after = self._box.status(time.time())
            self.done = self._box.is_drained(self._mark)
            self.since = self._after.queued if self.done else 0
        self._tell_refusals()

    def _tell_refusals(self) -> None:
        with suppress(Empty):
            while True:
                self._teller.refused(*self._refusals.get_nowait())


def _is_final(error: IntercomError) -> bool:
    """Whether there is no use in going on, as nothing but a person can mend it."""
    if isinstance(error, OutboxError):
        return not isinstance(error, OutboxLockedError)
    return classify(error) is ErrorClass.SYSTEMIC


@contextmanager
def _signals() -> Generator[Sequence[int]]:
    """What a person, or whoever runs this, has sent to end it; nothing is broken off by that."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    before: dict[int, Any] = {
        number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(report: _Report, as_json: bool) -> None:
    # Whoever does not read it is told by the exit code, as it is.
    with suppress(BrokenPipeError):
        if as_json:
            output.result_json(attrs.asdict(report))
            return
        if report.dry_run:
            why = "nothing is sent, as --dry-run or INTERCOM_DISABLED says"
            output.result(f"{report.file}: {why}")
        else:
            speed = f", {report.sent / report.seconds:,.0f} a second" if report.seconds > 1 else ""
            took = output.duration(report.seconds)
            output.result(f"{report.file}: {took}{speed}")
        for count, what in (
            (report.sent, "sent"),
            (report.refused, "refused, and dead letters now"),
            (report.left, "left"),
        ):
            if count or what == "sent":
                output.result(f"{count:>12,} {what}")


def _end(run: _Drain, report: _Report, file: Path) -> None:
    if report.refused:
        output.message(
            f"See why they were refused: intercom-events outbox dead {output.word(file)}"
        )
    if run.stopped and not run.done:
        output.message("Interrupted: what is left stays in the outbox.")
        raise typer.Exit(Exit.INTERRUPTED)
    if report.left:
        output.message("The time is over: what is left stays in the outbox.")
        raise typer.Exit(Exit.FAILED)
    if run.since:
        output.message(f"{output.counted(run.since)} were tracked in the meantime, and wait.")
    raise typer.Exit(Exit.REFUSED if report.refused else Exit.DONE)
