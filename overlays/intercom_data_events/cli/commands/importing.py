"""The commands `import` and `validate`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import anyio

from intercom_data_events import AsyncDataEventsClient
from intercom_data_events._counting import counted
from intercom_data_events.bulk import check_bounds
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import Exit, StoppedError, UsageError
from intercom_data_events.cli.importer.input import Input
from intercom_data_events.cli.importer.journal import Journal
from intercom_data_events.cli.importer.parquet import MAGIC
from intercom_data_events.cli.importer.records import Format, SourceError
from intercom_data_events.cli.importer.refused import RefusedFile
from intercom_data_events.cli.importer.run import Import, Look, Problem, Tell
from intercom_data_events.cli.importer.source import Source
from intercom_data_events.cli.options import command
from intercom_data_events.cli.progress import Advance
from intercom_data_events.cli.reporting import Count, Report, end, running


@command(
    "import events.ndjson",
    "import events.csv.gz --quota-share 0.5",
    "import - --journal 2026.journal < events.ndjson",
    sends=True,
    paces=True,
    deadline=600,
    max_retries=10,
)
def import_(
    file: str,
    *,
    format: Format | None = None,
    stamp_now: bool = False,
    drop_unsupported: bool = False,
    journal: Path | None = None,
    refused: Path | None = None,
    restart: bool = False,
    token_renewed: bool = False,
    max_rate: float | None = None,
    concurrency: int = 100,
    quiet: bool = False,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Send the events of a file as fast as the rate limit allows.

    You can stop or kill the command at any time: the next run resumes from the journal beside the
    file. Sending is idempotent: an event that is sent twice is stored once. Rejected lines go to a
    separate file with the reasons: fix them there, then import that file.
    """
    check_bounds(concurrency, max_rate)
    with ExitStack() as opened:
        source = opened.enter_context(Source(file))
        notes = aside = client = None
        if connection.sends:
            options = connection.options()
            client = AsyncDataEventsClient(**options)
            noted = _place(source, journal)
            aside = _aside(source, refused, noted, restart=restart)
            opened.callback(aside.close)
            if noted is not None:
                notes = Journal.open(
                    noted,
                    source.name,
                    connection.address,
                    options["access_token"],
                    restart=restart,
                    token_renewed=token_renewed,
                )
                opened.callback(notes.close)
        run = Import(Input(source, format, notes, stamp_now, drop_unsupported), aside)

        async def send(look: Look) -> None:
            if client is None:
                await run.check(look)
                return
            async with client:
                await run.run(client, look, concurrency=concurrency, max_rate=max_rate)

        try:
            stopped = _perform(run, send, client, quiet=quiet)
        except SourceError as error:
            if client is not None and run.sent:
                raise StoppedError(str(error)) from error
            raise
        finally:
            report = _report(run, source.name, dry=client is None)
            if run.begun:
                report.write(as_json=as_json)
            left = _remains(run)
            if left:
                word = output.word(Path(left))
                output.message(f"Fix the lines in {left}, then run: intercom-events import {word}")
        if notes is not None and notes.before and not run.sent:
            output.message(
                f"Nothing was sent, because {notes.path} lists all events as done; pass --restart "
                "to send them again."
            )
        again = "run the same command again to resume"
        if client is None:
            again = "not all events were checked"
        elif notes is None:
            again = "it cannot be resumed without --journal"
        end(
            (stopped, Exit.INTERRUPTED, f"Interrupted; {again}."),
            (run.counts["failed"], Exit.FAILED, ""),
            (run.counts["refused"] or left, Exit.REFUSED, ""),
        )


@command(
    "validate events.csv",
    "validate - --json < events.ndjson",
    codes=(Exit.DONE, Exit.REFUSED, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED),
)
def validate(
    file: str,
    *,
    format: Format | None = None,
    stamp_now: bool = False,
    drop_unsupported: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Check the events of a file, without sending any.

    It cannot check what only Intercom knows, such as which contacts exist.
    """

    def tell(problem: Problem) -> None:
        if as_json:
            output.result_json({"line": problem.line, "reason": problem.reason})
        else:
            output.result(f"{file}:{problem.line}: {' '.join(problem.reason.split())}")

    with Source(file) as source:
        run = Import(Input(source, format, None, stamp_now, drop_unsupported), None)
        try:
            stopped = _perform(run, run.check, None, quiet=quiet, tell=tell)
        finally:
            if run.begun and not as_json:
                counts = [
                    f"{run.counts['accepted']:,} valid",
                    f"{run.counts['refused']:,} invalid",
                ]
                if duplicates := run.counts["duplicate"]:
                    counts.append(counted(duplicates, "duplicate"))
                events = counted(run.counts.total())
                output.message(f"{file}: {events}, {', '.join(counts)}.")
    end(
        (stopped, Exit.INTERRUPTED, "Interrupted; not all events were checked."),
        (run.counts["refused"], Exit.REFUSED, ""),
    )


# The words for a status in messages.
_WORDS = {"refused": "rejected", "failed": "failed"}


def _place(source: Source, path: Path | None) -> Path | None:
    """Returns the path of the journal; None for a pipe without --journal."""
    if path is not None or source.path is None:
        return path
    return source.path.with_name(f"{source.path.name}.journal")


def _aside(source: Source, path: Path | None, noted: Path | None, *, restart: bool) -> RefusedFile:
    """Returns the file of rejected events; before a new import, it must be empty.

    Raises:
        UsageError: It is the imported file or the journal.
        SourceError: It is not empty, or another user may have written it.
    """
    if path is None and source.path is None:
        path = Path("stdin.refused")
    elif path is None and source.path is not None:
        name = Path(source.path.name.removesuffix(".gz"))
        # Parquet cannot be appended to: its rejected events are NDJSON.
        suffix = ".ndjson" if source.begins_with(MAGIC) else name.suffix
        path = source.path.with_name(f"{name.stem}.refused{suffix}")
    assert path is not None  # noqa: S101  # one of the above
    aside = RefusedFile(path)
    aside.check()
    if source.path is not None and aside.exists and source.path.samefile(aside.path):
        raise UsageError("--refused must not be the imported file; choose another path")
    if noted is not None and os.path.realpath(path) == os.path.realpath(noted):
        raise UsageError("--refused and --journal must be different files; choose another path")
    if aside.exists and (restart or noted is None or not noted.exists()):
        raise SourceError(
            f"{aside.path} already has rejected events of an earlier import; import it, move it "
            "away, or choose another path with --refused"
        )
    return aside


def _perform(
    run: Import,
    work: Callable[[Look], Awaitable[None]],
    client: AsyncDataEventsClient | None,
    *,
    quiet: bool,
    tell: Tell | None = None,
) -> bool:
    """Runs an import and shows its progress; returns whether a signal stopped it."""
    source = run.input.source

    def look() -> bool:
        counts = run.counts
        quota = None if client is None else client.rate_limit
        done, refused, failed = counts.total(), counts["refused"], counts["failed"]
        shown.show(Advance(run.through, source.size, done, refused, failed, quota))
        return shown.stopped

    with running(source.name if source.path is None else source.path.name, quiet=quiet) as shown:
        run.tell = tell or (
            lambda one: shown.problem(f"line {one.line:,} {_WORDS[one.status]}: {one.reason}")
        )
        anyio.run(work, look)
    return shown.stopped


def _remains(run: Import) -> str | None:
    """Returns the path of the file of rejected events, if there are any to fix."""
    before = run.input.journal.refused if run.input.journal is not None else 0
    if run.refused is None or not run.refused.exists or not (run.counts["refused"] or before):
        return None
    return str(run.refused.path)


def _report(run: Import, file: str, *, dry: bool) -> Report:
    counts, journal = run.counts, run.input.journal
    before, refused_before = (journal.before, journal.refused) if journal is not None else (0, 0)
    refused_file = run.refused.path if run.refused is not None and run.refused.exists else None
    aside = f"; {refused_file} has the lines and reasons" if refused_file else ""
    without = f"{counted(run.dropped)} sent without metadata that the API does not support"
    return Report(
        file,
        (
            Count("before", before - refused_before, "done in earlier runs"),
            Count("refused_before", refused_before, f"rejected in earlier runs{aside}"),
            Count(
                "accepted", counts["accepted"], "would be sent" if dry else "accepted", always=True
            ),
            Count("duplicates", counts["duplicate"], "duplicates of earlier events"),
            Count("refused", counts["refused"], f"rejected{aside}"),
            Count("failed", counts["failed"], "failed temporarily; run the same command again"),
            Count("pending", run.pending, "not sent, or not answered yet"),
        ),
        run.seconds,
        counts.total(),
        remarks=(without,) if run.dropped else (),
        details={
            "before": before,
            "refused_before": refused_before,
            "lines": run.lines,
            "without_unsupported": run.dropped,
            "dry_run": dry,
            "refused_file": None if refused_file is None else str(refused_file),
        },
    )
