"""The command `outbox drain`."""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from intercom_data_events import DataEventsClient, Event, IntercomError
from intercom_data_events._sending.retry import ErrorClass, classify
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import Exit, StoppedError, UsageError
from intercom_data_events.cli.options import command
from intercom_data_events.cli.progress import Advance
from intercom_data_events.cli.reporting import GRACE, LOOK, Count, Report, Running, end, running
from intercom_data_events.errors import OutboxError, OutboxLockedError
from intercom_data_events.outbox import Outbox, Status
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue
from intercom_data_events.tracker import Counters, Tracker

# Seconds for which nothing gets through until that is told, as it happens in passing.
_FAILING = 1.0
# Seconds without any event leaving until it is told what is being waited for.
_STANDSTILL = 5.0
_UNHEARD = logging.NullHandler()


@command(
    "outbox drain events.outbox",
    "outbox drain events.outbox --max-time 60 --json",
    sends=True,
    paces=True,
)
def drain(
    file: Path,
    *,
    max_time: float | None = None,
    workspace: str | None = None,
    token_renewed: bool = False,
    concurrency: int = 20,
    quiet: bool = False,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Send all waiting events.

    It can be stopped or killed at any moment: unsent events stay in the file, and the same command
    sends them. While Intercom does not answer, it says so and keeps trying. It does not wait for
    events that are tracked after it began.
    """
    if max_time is not None and not max_time >= 0:
        raise UsageError(f"--max-time must be a number of seconds of at least 0, not {max_time}")
    # Looked at first: so that a person is not asked for a token in vain.
    with Outbox(file) as box:
        found = box.status()
    if not connection.sends:
        _report(file, found, found.queued, 0, found.queued, 0, dry=True).write(as_json=as_json)
        end((found.queued, Exit.FAILED, ""))
    options = connection.options()
    with ExitStack() as use:
        # What the tracker logs is told here, and a process without logging would print it.
        log = logging.getLogger("intercom_data_events")
        log.addHandler(_UNHEARD)
        use.callback(log.removeHandler, _UNHEARD)
        client = use.enter_context(DataEventsClient(**options))
        binding = Binding(connection.address, options["access_token"], workspace, token_renewed)
        queue = use.enter_context(OutboxQueue(file, binding, create=False))
        shown = use.enter_context(running(file.name, quiet=quiet))
        run = _Drain(queue, client, shown)
        problem: IntercomError | None = None
        try:
            run.send(workspace, concurrency, math.inf if max_time is None else max_time)
        except IntercomError as error:
            problem = error
        report = run.report(file)
    report.write(as_json=as_json)
    if isinstance(problem, OutboxError):
        raise StoppedError(str(problem)) from problem
    if problem is not None:
        raise problem
    if run.refused:
        word = output.word(file)
        output.message(f"See why they were rejected: intercom-events outbox dead {word}")
    if run.since:
        output.message(f"Still waiting: {output.counted(run.since)}, tracked in the meantime.")
    end(
        (
            shown.stopped and not run.done,
            Exit.INTERRUPTED,
            "Interrupted: what is left stays in the outbox.",
        ),
        (run.left, Exit.FAILED, "The time is over: what is left stays in the outbox."),
        (run.refused, Exit.REFUSED, ""),
    )


class _Drain:
    """One run over an outbox: sends with a tracker, and looks at the file from beside it.

    Events up to the latest one at the beginning are counted, so that it ends while an application
    goes on tracking. Each of them is left, is a dead letter by now, or was sent by any process.

    Args:
        queue: The file.
        client: What to send with.
        shown: Shows what happens, and says when to stop.

    Attributes:
        done: Whether none of them is left.
        left: How many are left.
        refused: How many have become dead letters.
        since: How many were tracked after it began, once it is done.
    """

    def __init__(self, queue: OutboxQueue, client: DataEventsClient, shown: Running) -> None:
        self.done = False
        self.since = 0
        self._queue = queue
        self._client = client
        self._shown = shown
        self._begun = self._moved_at = time.monotonic()
        self._mark = queue.high_watermark()
        self._status = queue.status()
        self._total, self._dead = queue.counts_to(self._mark)
        self.left, self.refused, self._kept = self._total, 0, 0
        self._failing_since: float | None = None
        self._told_failing = False
        self._moved = 0
        # From the threads that notice, to the one that tells.
        self._refusals: SimpleQueue[tuple[Event, IntercomError]] = SimpleQueue()

    def send(self, workspace: str | None, concurrency: int, timeout: float) -> None:
        """Sends until all that was there has left, the time is over, or a signal stops it.

        Raises:
            OutboxError: The file cannot be used any longer.
            IntercomError: Every event would meet it.
        """
        tracker = Tracker(
            self._client,
            self._queue.path,
            workspace=workspace,
            concurrency=concurrency,
            on_error=lambda event, error: self._refusals.put((event, error)),
            unknown_contact_patience=0,  # A person waits for the end of it.
        )
        ends = self._begun + timeout
        try:
            tracker.flush(0)  # What was delayed goes now.
            while not self._has_ended(ends):
                self._look(tracker.counters)
                time.sleep(LOOK)
            self._look(tracker.counters)
        finally:
            # When the outbox is empty, a worker may not have reported the last rejected event yet.
            tracker.close(GRACE if self.done else 0)
            self._settle(tracker.counters)

    def report(self, file: Path) -> Report:
        """What became of everything; whatever process sent it."""
        seconds = time.monotonic() - self._begun
        return _report(
            file, self._status, self._total, self.refused, self.left, seconds, self._kept
        )

    def _has_ended(self, ends: float) -> bool:
        self.done = self._queue.is_drained(self._mark)
        return self.done or self._shown.stopped or time.monotonic() >= ends

    def _look(self, counters: Counters) -> None:
        self._tell_refusals()
        failing = counters.failing
        if not self.done and failing is not None and _is_final(failing):
            raise failing
        self._tell_failing(counters)
        events = counters.sent + counters.refused
        through = max(0, self._total - counters.queued)
        self._shown.show(
            Advance(through, self._total, events, counters.refused, 0, self._client.rate_limit)
        )
        self._tell_standstill(events)

    def _settle(self, counters: Counters) -> None:
        """Gives what is in flight a moment, so that the next run need not wait for its claims."""
        ends = time.monotonic() + GRACE
        try:
            self._status = self._queue.status(time.time())
            while self._status.claimed and time.monotonic() < ends:
                time.sleep(LOOK / 2)
                self._status = self._queue.status(time.time())
            self.done = self._queue.is_drained(self._mark)
            left, dead = self._queue.counts_to(self._mark)
            self.since = self._status.queued - left if self.done else 0
            refused = dead - self._dead
            # What was tracked meanwhile and has left may have been sent by this process, too.
            tracked = self._queue.high_watermark() - self._mark
            later = max(0, tracked - (self._status.queued - left))
        except OutboxError:
            # That is told elsewhere; what the tracker has counted is the best that is known.
            refused, later = counters.refused, 0
            left = self._total - refused - counters.sent
        self.left = 0 if self.done else min(max(left, 0), self._total)
        # Less, where dead letters were removed meanwhile.
        self.refused = min(max(refused, 0), self._total - self.left)
        gone = self._total - self.refused - self.left + later
        self._kept = min(max(counters.sent - gone, 0), self.left)
        self._tell_refusals()

    def _tell_refusals(self) -> None:
        with suppress(Empty):
            while True:
                event, error = self._refusals.get_nowait()
                who = event.user_id or event.email or event.id or ""
                self._shown.problem(f"{event.event_name} of {who} rejected: {error}")

    def _tell_failing(self, counters: Counters) -> None:
        """Tells, once each time, that nothing gets through, and that it does again."""
        now = time.monotonic()
        if counters.failing is None:
            if self._told_failing:
                self._shown.tell("Intercom answers again.", always=True)
            self._failing_since, self._told_failing = None, False
        elif self._failing_since is None:
            self._failing_since = now
        elif not self._told_failing and now - self._failing_since >= _FAILING:
            self._told_failing = True
            self._shown.tell(
                f"Nothing gets through at the moment, and {counters.queued:,} wait; retrying until "
                f"it does: {counters.failing}",
                always=True,
            )

    def _tell_standstill(self, events: int) -> None:
        """Tells what is being waited for, where it is not the rate limit, nor Intercom."""
        now = time.monotonic()
        if events != self._moved or self._failing_since is not None:
            self._moved, self._moved_at = events, now
        elif now - self._moved_at >= _STANDSTILL:
            # Told again where something has left in between, and not before.
            self._moved_at = math.inf
            found = self._queue.status()
            if found.claimed + found.held >= found.queued:
                self._shown.tell(
                    f"Waiting for the last ones: {found.claimed:,} being sent, perhaps by another "
                    "process (those of one that died are free after 30 seconds), "
                    f"{found.held:,} delayed after a failure, until the next attempt."
                )


def _is_final(error: IntercomError) -> bool:
    """Whether going on is of no use, as only a person can fix it."""
    if isinstance(error, OutboxError):
        return not isinstance(error, OutboxLockedError)
    return classify(error) is ErrorClass.SYSTEMIC


def _report(
    file: Path,
    status: Status,
    total: int,
    refused: int,
    left: int,
    seconds: float,
    kept: int = 0,
    *,
    dry: bool = False,
) -> Report:
    sent = total - refused - left
    held = f"Intercom has accepted {kept:,} of those left, but the file cannot be written now"
    return Report(
        str(file),
        (
            Count("sent", sent, "sent", always=True),
            Count("refused", refused, "rejected, and dead letters now"),
            Count("left", left, "left"),
        ),
        seconds,
        sent,
        "waiting; --dry-run or INTERCOM_DISABLED is set, so none is sent" if dry else "",
        remarks=(f"{held}; they are sent again.",) if kept else (),
        details={"dead": status.dead, "accepted_and_left": kept, "dry_run": dry},
    )
