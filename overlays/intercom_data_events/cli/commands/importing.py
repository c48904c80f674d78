"""The commands `import` and `validate`."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import anyio
import attrs
import typer

from intercom_data_events import AsyncDataEventsClient, RateLimit
from intercom_data_events.bulk import check_bounds
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import Exit, StoppedError, UsageError
from intercom_data_events.cli.importer.input import Input
from intercom_data_events.cli.importer.journal import Journal
from intercom_data_events.cli.importer.parquet import MAGIC
from intercom_data_events.cli.importer.records import Format, SourceError
from intercom_data_events.cli.importer.refused import RefusedFile
from intercom_data_events.cli.importer.run import (
    Import,
    Problem,
    Report,
)
from intercom_data_events.cli.importer.source import Source
from intercom_data_events.cli.progress import Advance, ProgressShown

# Problems that are told of one by one; all of them are in the file of refused events.
_TOLD = 10
# Seconds between two looks at how far it has come.
_LOOK = 0.1


def import_file(
    connection: Connection,
    file: str,
    *,
    format: Format | None,
    stamp_now: bool,
    drop_unsupported: bool,
    journal: Path | None,
    refused: Path | None,
    restart: bool,
    token_renewed: bool,
    max_rate: float | None,
    concurrency: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Sends a file of events, tells of it, and ends the command with what came of it.

    Raises:
        typer.Exit: With an exit code, where not everything was accepted.
        SourceError, JournalError, StoppedError: It cannot begin, or not go on.
        IntercomError: Intercom takes no event at all.
    """
    check_bounds(concurrency, max_rate)
    with ExitStack() as opened:
        source = opened.enter_context(Source(file))
        if not connection.sends:
            run = Import(
                Input(source, format, None, stamp_now, drop_unsupported), None, _Teller(_TOLD)
            )
            stopped = _perform(run, run.check, quiet=quiet)
            _report(run.report, file, as_json=as_json, dry=True)
            _end(run.report, stopped)
        options = connection.options()
        client = AsyncDataEventsClient(**options)
        noted = _place(source, journal)
        aside = RefusedFile(refused or _beside(source))
        opened.callback(aside.close)
        aside.check()
        if source.path is not None and aside.exists and source.path.samefile(aside.path):
            raise UsageError("--refused names the file that is imported: name another place")
        if aside.exists and (restart or noted is None or not noted.exists()):
            raise SourceError(
                f"{aside.path}, where refused events go, is there from before: import it or move "
                "it away, or name another place with --refused"
            )
        notes = None
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
        run = Import(
            Input(source, format, notes, stamp_now, drop_unsupported), aside, _Teller(_TOLD)
        )

        async def send(stop: anyio.Event) -> None:
            async with client:
                await run.run(client, concurrency=concurrency, max_rate=max_rate, stop=stop)

        try:
            stopped = _perform(run, send, quiet=quiet, quota=lambda: client.rate_limit)
        except SourceError as error:
            if run.sent:
                raise StoppedError(str(error)) from error
            raise
        finally:
            if run.begun:
                _report(run.report, file, as_json=as_json)
        if notes is not None and run.report.before and not run.sent:
            output.message(
                f"Everything in it was done before, as {notes.path} has it; "
                "--restart imports all of it anew."
            )
        again = "run the same command again, to go on"
        if notes is None:
            again = "nothing is noted of it, as there is no --journal"
        _end(run.report, stopped, again)


def validate(
    file: str,
    *,
    format: Format | None,
    stamp_now: bool,
    drop_unsupported: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Checks a file of events, tells of every problem, and ends the command.

    Raises:
        typer.Exit: With an exit code, where there are problems.
        SourceError: It cannot be read, or not any further.
    """

    def tell(problem: Problem) -> None:
        if as_json:
            output.result_json({"line": problem.line, "reason": problem.reason})
        else:
            output.result(_said(file, problem))

    with Source(file) as source:
        run = Import(Input(source, format, None, stamp_now, drop_unsupported), None, tell)
        stopped = _perform(run, run.check, quiet=quiet)
    report = run.report
    if not as_json:
        counts = [f"{report.accepted:,} of them good", f"{report.refused:,} not"]
        if report.duplicates:
            counts.append(f"{report.duplicates:,} the same event to Intercom as one before")
        events = report.accepted + report.refused + report.duplicates
        output.message(f"{file}: {events:,} events, {', '.join(counts)}.")
    _end(report, stopped)


class _Teller:
    """Tells of the first problems, in full, where messages go."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.show: Callable[[str], None] = output.message

    def __call__(self, problem: Problem) -> None:
        self._left -= 1
        if self._left >= 0:
            self.show(_said("", problem))
        elif self._left == -1:
            self.show("(further ones are counted, and not shown here)")


def _said(file: str, problem: Problem) -> str:
    where = f"{file}:{problem.line}" if file else f"line {problem.line:,} {problem.status}"
    return f"{where}: {' '.join(problem.reason.split())}"


def _place(source: Source, path: Path | None) -> Path | None:
    """Where the journal is kept; None for a pipe, unless it is told."""
    if path is not None or source.path is None:
        return path
    return source.path.with_name(f"{source.path.name}.journal")


def _beside(source: Source) -> Path:
    if source.path is None:
        return Path("stdin.refused")
    name = source.path.name.removesuffix(".gz")
    # Parquet takes no text: what is refused of it is NDJSON.
    suffix = ".ndjson" if source.begins_with(MAGIC) else Path(name).suffix
    return source.path.with_name(f"{Path(name).stem}.refused{suffix}")


def _perform(
    run: Import,
    work: Callable[[anyio.Event], Awaitable[None]],
    *,
    quiet: bool,
    quota: Callable[[], RateLimit | None] = lambda: None,
) -> bool:
    """Runs it with progress shown, until it ends or a signal asks for that.

    Returns:
        Whether a signal did.
    """
    stop = anyio.Event()

    async def main() -> Exception | None:
        problem = None
        name = (
            run.input.source.name if run.input.source.path is None else run.input.source.path.name
        )
        with ProgressShown(name, quiet=quiet) as progress:
            if isinstance(run.tell, _Teller):
                run.tell.show = progress.tell if not quiet else lambda _: None
            async with anyio.create_task_group() as group:
                group.start_soon(_look, run, progress, quota)
                group.start_soon(_listen, stop)
                try:
                    await work(stop)
                except Exception as error:  # noqa: BLE001  # raised below, not in a group of one
                    problem = error
                group.cancel_scope.cancel()
        return problem

    problem = anyio.run(main)
    if problem is not None:
        raise problem
    return stop.is_set()


async def _look(
    run: Import, progress: ProgressShown, quota: Callable[[], RateLimit | None]
) -> None:
    while True:
        report = run.report
        events = report.accepted + report.duplicates + report.refused + report.failed
        progress.show(
            Advance(
                run.through, run.input.source.size, events, report.refused, report.failed, quota()
            )
        )
        await anyio.sleep(_LOOK)


async def _listen(stop: anyio.Event) -> None:
    """Waits for a person, or whoever runs this, to want it to end."""
    if sys.platform == "win32":
        return  # asyncio takes no signals there; Ctrl-C is an exception, at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.set()


def _report(report: Report, file: str, *, as_json: bool, dry: bool = False) -> None:
    # Whoever does not read it is told by the exit code, as it is.
    with suppress(BrokenPipeError):
        _write_report(report, file, as_json=as_json, dry=dry)


def _write_report(report: Report, file: str, *, as_json: bool, dry: bool) -> None:
    if as_json:
        output.result_json({"file": file, "dry_run": dry, **attrs.asdict(report)})
        return
    done = report.accepted + report.duplicates + report.refused + report.failed
    speed = f", {done / report.seconds:,.0f} events a second" if report.seconds > 1 else ""
    took = output.duration(report.seconds)
    output.result(f"{file}: {report.lines:,} lines in {took}{speed}")
    aside = f", in {report.refused_file} with the reasons" if report.refused_file else ""
    counts = [
        (report.before - report.refused_before, "done in runs before"),
        (report.refused_before, f"refused in runs before{aside}"),
        (report.accepted, "would be sent" if dry else "accepted"),
        (
            report.without_unsupported,
            "of them sent without metadata that the API does not support",
        ),
        (report.duplicates, "duplicates: to Intercom, the same event as one before"),
        (report.refused, f"refused{aside}"),
        (report.failed, "failed for the time being: run the same command again"),
        (report.pending, "not sent, or not answered yet"),
    ]
    for count, what in counts:
        if count or what in ("accepted", "would be sent"):
            output.result(f"{count:>12,} {what}")
    if report.left_to_mend:
        name = report.refused_file or ""
        # As a shell takes it for one name, and nothing else.
        word = shlex.quote(f"./{name}" if name.startswith("-") else name)
        output.message(f"Mend {name}, then import it: intercom-events import {word}")


def _end(report: Report, stopped: bool, again: str = "not all of it was looked at") -> NoReturn:
    if stopped:
        output.message(f"Interrupted: {again}.")
        raise typer.Exit(Exit.INTERRUPTED)
    if report.failed:
        raise typer.Exit(Exit.FAILED)
    if report.refused or report.left_to_mend:
        raise typer.Exit(Exit.REFUSED)
    raise typer.Exit(Exit.DONE)
