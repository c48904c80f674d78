"""The command `outbox drain`."""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from intercom_data_events import DataEventsClient, Event, IntercomError
from intercom_data_events._counting import counted
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

# Seconds of failures after which they are reported; shorter ones are common.
_FAILING = 1.0
# Seconds without progress after which the reason is reported.
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

    You can stop or kill the command at any time: unsent events stay in the outbox, and the next run
    sends them. While Intercom does not answer, the command reports that and keeps retrying. It does
    not wait for events that are tracked after it started.
    """
    if max_time is not None and not max_time >= 0:
        raise UsageError(f"--max-time must be at least 0 seconds, not {max_time}")
    # Opened first, so that no token is asked for if the outbox cannot be used.
    with Outbox(file) as box:
        found = box.status()
    if not connection.sends:
        _report(file, found, found.queued, 0, found.queued, 0, dry=True).write(as_json=as_json)
        end((found.queued, Exit.FAILED, ""))
    options = connection.options()
    with ExitStack() as use:
        # This command reports what the tracker logs; without a handler, Python would print it, too.
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
        output.message(f"To see the reasons, run: intercom-events outbox dead {word}")
    if run.since:
        output.message(f"Still waiting: {counted(run.since)}, tracked in the meantime.")
    end(
        (
            shown.stopped and not run.done,
            Exit.INTERRUPTED,
            "Interrupted; the remaining events stay in the outbox.",
        ),
        (run.left, Exit.FAILED, "Time limit reached; the remaining events stay in the outbox."),
        (run.refused, Exit.REFUSED, ""),
    )


class _Drain:
    """One run over an outbox: a tracker sends, and this class watches the file.

    It counts the events that were in the outbox at the start, so that it ends while applications
    continue to track. Each of them is left, became a dead letter, or was sent by some process.

    Attributes:
        done: Whether none of these events is left.
        left: How many are left.
        refused: How many became dead letters.
        since: How many events were tracked after the start; set when it is done.
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
        # From the threads that notice problems to the one that reports them.
        self._refusals: SimpleQueue[tuple[Event, IntercomError]] = SimpleQueue()

    def send(self, workspace: str | None, concurrency: int, timeout: float) -> None:
        """Sends until no event is left, the time limit is reached, or a signal stops it.

        Raises:
            OutboxError: The file can no longer be used.
            IntercomError: The failure is systemic.
        """
        tracker = Tracker(
            self._client,
            self._queue.path,
            workspace=workspace,
            concurrency=concurrency,
            on_error=lambda event, error: self._refusals.put((event, error)),
            unknown_contact_patience=0,  # The user is waiting for the end.
        )
        ends = self._begun + timeout
        try:
            tracker.flush(0)  # Sends delayed events now.
            while not self._has_ended(ends):
                self._look(tracker.counters)
                time.sleep(LOOK)
            self._look(tracker.counters)
        finally:
            # When the outbox is empty, a worker may not have reported the last rejected event yet.
            tracker.close(GRACE if self.done else 0)
            self._settle(tracker.counters)

    def report(self, file: Path) -> Report:
        """Returns the outcome of all events, whichever process sent them."""
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
        """Waits briefly for events in flight, so that the next run finds no claims."""
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
            # This process may also have sent events that were tracked in the meantime.
            tracked = self._queue.high_watermark() - self._mark
            later = max(0, tracked - (self._status.queued - left))
        except OutboxError:
            # The caller reports the error; the tracker's counts are the best estimate.
            refused, later = counters.refused, 0
            left = self._total - refused - counters.sent
        self.left = 0 if self.done else min(max(left, 0), self._total)
        # Less if dead letters were removed in the meantime.
        self.refused = min(max(refused, 0), self._total - self.left)
        gone = self._total - self.refused - self.left + later
        self._kept = min(max(counters.sent - gone, 0), self.left)
        self._tell_refusals()

    def _tell_refusals(self) -> None:
        with suppress(Empty):
            while True:
                event, error = self._refusals.get_nowait()
                who = event.user_id or event.email or event.id or ""
                self._shown.problem(f"{event.event_name} for {who} rejected: {error}")

    def _tell_failing(self, counters: Counters) -> None:
        """Reports the start and the end of each outage, once."""
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
                f"Sending is failing ({counted(counters.queued)} waiting); "
                f"retrying: {counters.failing}",
                always=True,
            )

    def _tell_standstill(self, events: int) -> None:
        """Reports why nothing is sent, unless the cause is the rate limit or Intercom."""
        now = time.monotonic()
        if events != self._moved or self._failing_since is not None:
            self._moved, self._moved_at = events, now
        elif now - self._moved_at >= _STANDSTILL:
            # Reported again only after there was progress.
            self._moved_at = math.inf
            found = self._queue.status()
            if found.claimed + found.held >= found.queued:
                self._shown.tell(
                    f"Waiting for the last events: {found.claimed:,} in flight, perhaps in another "
                    "process (if it was killed, its claims expire within 30 s), "
                    f"{found.held:,} delayed after a failure until the next attempt."
                )


def _is_final(error: IntercomError) -> bool:
    """Whether retrying is useless, because the user has to fix the cause."""
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
    held = (
        f"Intercom accepted {kept:,} of the remaining events, but the outbox cannot record this now"
    )
    return Report(
        str(file),
        (
            Count("sent", sent, "sent", always=True),
            Count("refused", refused, "rejected (now dead letters)"),
            Count("left", left, "left"),
        ),
        seconds,
        sent,
        "waiting; --dry-run or INTERCOM_DISABLED is set, so none are sent" if dry else "",
        remarks=(f"{held}; the events will be sent again.",) if kept else (),
        details={"dead": status.dead, "accepted_and_left": kept, "dry_run": dry},
    )
