"""The commands `import` and `validate`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import anyio

from intercom_data_events import AsyncDataEventsClient
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
    """Send a file of events, as fast as the rate limit allows.

    It can be stopped or killed at any moment: the same command resumes from the journal beside the
    file. To Intercom, an event that is sent twice is one event. Rejected lines are written to a
    file of their own with the reasons: fix them there, then import that file.
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
                f"All of its events were done before, as {notes.path} says; pass --restart to send "
                "all of them again."
            )
        again = "run the same command again to resume"
        if client is None:
            again = "not all of it was checked"
        elif notes is None:
            again = "nothing is noted of it, as there is no --journal"
        end(
            (stopped, Exit.INTERRUPTED, f"Interrupted: {again}."),
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
    """Check a file of events line by line, without sending any.

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
                    f"{run.counts['accepted']:,} of them good",
                    f"{run.counts['refused']:,} not",
                ]
                if duplicates := run.counts["duplicate"]:
                    counts.append(f"{duplicates:,} the same event to Intercom as one before")
                events = output.counted(run.counts.total())
                output.message(f"{file}: {events}, {', '.join(counts)}.")
    end(
        (stopped, Exit.INTERRUPTED, "Interrupted: not all of it was checked."),
        (run.counts["refused"], Exit.REFUSED, ""),
    )


# What people read of an outcome.
_WORDS = {"refused": "rejected", "failed": "failed"}


def _place(source: Source, path: Path | None) -> Path | None:
    """Where the journal is kept; None for a pipe, unless it is told."""
    if path is not None or source.path is None:
        return path
    return source.path.with_name(f"{source.path.name}.journal")


def _aside(source: Source, path: Path | None, noted: Path | None, *, restart: bool) -> RefusedFile:
    """Returns where refused events go; if the import is a new one, nothing may be there.

    Raises:
        UsageError: It is the file that is imported, or the journal.
        SourceError: Something is there, or another user may have made it.
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
        raise UsageError("--refused names the file that is imported: name another place")
    if noted is not None and os.path.realpath(path) == os.path.realpath(noted):
        raise UsageError("--refused and --journal name the same file: name two")
    if aside.exists and (restart or noted is None or not noted.exists()):
        raise SourceError(
            f"{aside.path}, where rejected events go, is there from before: import it or move it "
            "away, or name another place with --refused"
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
    """Runs it with progress shown, until it ends or a signal stops it.

    Returns:
        Whether a signal did.
    """
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
    """Returns where refused events are that remain to be fixed, if there are any."""
    before = run.input.journal.refused if run.input.journal is not None else 0
    if run.refused is None or not run.refused.exists or not (run.counts["refused"] or before):
        return None
    return str(run.refused.path)


def _report(run: Import, file: str, *, dry: bool) -> Report:
    counts, journal = run.counts, run.input.journal
    before, refused_before = (journal.before, journal.refused) if journal is not None else (0, 0)
    refused_file = run.refused.path if run.refused is not None and run.refused.exists else None
    aside = f", in {refused_file} with the reasons" if refused_file else ""
    without = f"{output.counted(run.dropped)} sent without metadata that the API does not support"
    return Report(
        file,
        (
            Count("before", before - refused_before, "done in runs before"),
            Count("refused_before", refused_before, f"rejected in runs before{aside}"),
            Count(
                "accepted", counts["accepted"], "would be sent" if dry else "accepted", always=True
            ),
            Count(
                "duplicates",
                counts["duplicate"],
                "duplicates: to Intercom, the same event as one before",
            ),
            Count("refused", counts["refused"], f"rejected{aside}"),
            Count("failed", counts["failed"], "failed temporarily: run the same command again"),
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
