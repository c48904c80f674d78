"""The commands of ``intercom-events`` and their arguments; a module of its own does each."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from intercom_data_events import IntercomError
from intercom_data_events.__about__ import __version__
from intercom_data_events.cli import output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import (
    EXIT_CODES,
    Exit,
    StoppedError,
    UsageError,
    exit_code,
)
from intercom_data_events.cli.help import Command, Group
from intercom_data_events.cli.importer.journal import JournalError, NoJournalError
from intercom_data_events.cli.importer.records import SourceError
from intercom_data_events.cli.options import (
    DeadLettersArgument,
    EmailOption,
    FormatOption,
    IdOption,
    JsonOption,
    OutboxArgument,
    OutputOption,
    PlotOption,
    QuietOption,
    SinceOption,
    StampOption,
    SvgOption,
    UserIdOption,
    Written,
    connecting,
    wants_json,
)
from intercom_data_events.cli.usage import asks_for_help, explained, is_usage_error

_ENVIRONMENT = """\
Environment:
  INTERCOM_ACCESS_TOKEN  the access token; if unset, a terminal is asked for it
  INTERCOM_REGION        us, eu or au
  INTERCOM_BASE_URL      the API's address; --region is an error while it is set
  INTERCOM_ALLOW_HTTP    1 allows http:// to other machines
  INTERCOM_VERSION       the API version
  INTERCOM_DISABLED      1 sends nothing and asks Intercom nothing
  INTERCOM_LOG           debug logs requests and answers, as --verbose does"""


def _closing(*examples: str, codes: Iterable[int] = EXIT_CODES) -> str:
    """What stands at the end of a command's help, each line as it is."""
    lines = ["Examples:", *(f"  {line}" for line in examples), ""] if examples else []
    lines += ["Exit codes:", *(f"  {code:<3}  {EXIT_CODES[Exit(code)]}" for code in codes)]
    return "\n".join(lines)


# The exit codes of commands that do not ask Intercom.
_LOCAL = (Exit.DONE, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED)


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Send, list and summarise Intercom data events.

The access token comes from INTERCOM_ACCESS_TOKEN or is asked for on the terminal; it is never an
argument.
""",
    epilog="\n\n".join(
        (
            _ENVIRONMENT,
            _closing(
                "intercom-events track placed-order --user-id 314159 --metadata plan=pro",
                "intercom-events list --user-id 314159 --since 7d",
                "intercom-events import events.ndjson",
            ),
        )
    ),
)

outbox = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Manage the file that a tracker keeps unsent events in.

Every command is safe while applications use the file.
""",
    epilog=_closing(
        "intercom-events outbox status events.outbox",
        "intercom-events outbox drain events.outbox",
        "intercom-events outbox dead events.outbox",
    ),
)
app.add_typer(outbox, name="outbox")

# Seconds.
_DAY = 24 * 60 * 60


def _check_drawn(*, plot: bool, as_json: bool) -> None:
    if plot and as_json:
        raise UsageError("--plot draws for people and --json writes for programs; leave one out")


def _show_version(wanted: bool) -> None:
    if wanted:
        output.result(f"intercom-events {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events track placed-order --user-id 314159 --metadata plan=pro",
        "intercom-events track placed-order --email a@b.co --created-at 2026-01-31 \\",
        "  -m price.amount=2999 -m price.currency=usd -m order_number:text=3434",
    ),
)
@connecting(sends=True)
def track(
    *,
    event_name: Annotated[
        str, typer.Argument(help="What happened, such as placed-order.", metavar="EVENT_NAME")
    ],
    user_id: UserIdOption = None,
    email: EmailOption = None,
    id: IdOption = None,
    created_at: Annotated[
        str | None,
        typer.Option(
            help="When it happened: as --since, or Unix seconds. [default: now]", metavar="TIME"
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            help="A key of the metadata and its value; can be repeated. As in CSV files, numbers "
            "are numbers unless the key ends in :text; KEY.amount with KEY.currency, or KEY.url "
            "with KEY.value, make one value.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Send one event."""
    from intercom_data_events.cli.commands import events

    events.track(
        connection,
        event_name,
        {"user_id": user_id, "email": email, "id": id},
        created_at,
        metadata or [],
        as_json=as_json,
    )


@app.command(
    "list",
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events list --user-id 314159 --since 7d",
        "intercom-events list --email a@b.co --limit 10 --json",
        "intercom-events list --user-id 314159 --plot --svg events.svg",
        "intercom-events list --user-id 314159 --follow",
    ),
)
@connecting()
def list_(
    *,
    user_id: UserIdOption = None,
    email: EmailOption = None,
    id: IdOption = None,
    since: SinceOption = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=10**9,
            help="Show at most this many. [with --follow: 10]",
            metavar="NUMBER",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Keep running and show new events, until interrupted."),
    ] = False,
    interval: Annotated[
        float,
        typer.Option(
            help="How often --follow asks for new events, from 0.1 to 86400.", metavar="SECONDS"
        ),
    ] = 5,
    plot: PlotOption = False,
    svg: SvgOption = None,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """List a contact's events of the last 90 days, newest first."""
    from intercom_data_events.cli.commands import events

    if follow and (plot or svg):
        raise UsageError(
            "--follow never ends, so no chart can be drawn; leave out --plot and --svg"
        )
    if not 0.1 <= interval <= _DAY:
        raise UsageError(f"--interval must be from 0.1 to {_DAY} seconds, not {interval}")
    _check_drawn(plot=plot, as_json=as_json)
    events.list_events(
        connection,
        {"user_id": user_id, "email": email, "intercom_user_id": id},
        since=since,
        limit=limit,
        follow=interval if follow else None,
        plot=plot,
        svg=svg,
        as_json=as_json,
    )


@app.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events summary --user-id 314159",
        "intercom-events summary --email a@b.co --plot",
    ),
)
@connecting()
def summary(
    *,
    user_id: UserIdOption = None,
    email: EmailOption = None,
    id: IdOption = None,
    plot: PlotOption = False,
    svg: SvgOption = None,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Count all events of a contact by name, however old."""
    from intercom_data_events.cli.commands import events

    _check_drawn(plot=plot, as_json=as_json)
    events.summarise(
        connection,
        {"user_id": user_id, "email": email, "intercom_user_id": id},
        plot=plot,
        svg=svg,
        as_json=as_json,
    )


@app.command(
    "import",
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events import events.ndjson",
        "intercom-events import events.csv.gz --quota-share 0.5",
        "cat 2026-*.ndjson.gz | intercom-events import - --journal 2026.journal",
    ),
)
@connecting(sends=True, paces=True, deadline=600, max_retries=10)
def import_(
    *,
    file: Annotated[
        str,
        typer.Argument(help="NDJSON or CSV, also as .gz; - is standard input.", metavar="FILE"),
    ],
    format: FormatOption = None,
    stamp_now: StampOption = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Where to note finished lines. [default: FILE.journal; none for a pipe]",
            metavar="PATH",
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            help="Where rejected events go, with the reasons. [default: NAME.refused.ndjson or "
            ".csv beside FILE; for a pipe stdin.refused]",
            metavar="PATH",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget earlier runs and import the whole file.")
    ] = False,
    token_renewed: Annotated[
        bool,
        typer.Option(
            "--token-renewed", help="Resume with another access token of the same workspace."
        ),
    ] = False,
    max_rate: Annotated[
        float | None, typer.Option(help="At most this many events a second.", metavar="NUMBER")
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            help="At most this many requests at once; fewer where more would not be faster.",
            metavar="NUMBER",
        ),
    ] = 100,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Send a file of events, as fast as the rate limit allows.

    It can be stopped or killed at any moment: the same command resumes from the journal beside the
    file. To Intercom, an event that is sent twice is one event. Rejected lines are written to a
    file of their own with the reasons: fix them there, then import that file.
    """
    from intercom_data_events.cli.commands import importing

    importing.import_file(
        connection,
        file,
        format=format,
        stamp_now=stamp_now,
        journal=journal,
        refused=refused,
        restart=restart,
        token_renewed=token_renewed,
        max_rate=max_rate,
        concurrency=concurrency,
        quiet=quiet,
        as_json=as_json,
    )


@app.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events validate events.csv",
        "gzip -dc events.ndjson.gz | intercom-events validate - --json",
        codes=(Exit.DONE, Exit.REFUSED, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED),
    ),
)
def validate(
    file: Annotated[
        str,
        typer.Argument(help="NDJSON or CSV, also as .gz; - is standard input.", metavar="FILE"),
    ],
    format: FormatOption = None,
    stamp_now: StampOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a file of events line by line, without sending any.

    It cannot check what only Intercom knows, such as which contacts exist.
    """
    from intercom_data_events.cli.commands import importing

    importing.validate(file, format=format, stamp_now=stamp_now, quiet=quiet, as_json=as_json)


@app.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events export --user-id 314159 > events.ndjson",
        "intercom-events export --user-id 314159 --email a@b.co --format csv -o both.csv",
    ),
)
@connecting()
def export(
    *,
    user_id: Annotated[
        list[str] | None,
        typer.Option(help="A contact, by your own identifier; can be repeated.", metavar="ID"),
    ] = None,
    email: Annotated[
        list[str] | None,
        typer.Option(help="A contact, by e-mail address; can be repeated.", metavar="ADDRESS"),
    ] = None,
    id: Annotated[
        list[str] | None,
        typer.Option(
            "--id", help="A contact, by Intercom's identifier; can be repeated.", metavar="ID"
        ),
    ] = None,
    since: SinceOption = None,
    format: Annotated[
        Written, typer.Option(help="How to write the events.", metavar="ndjson|csv")
    ] = Written.NDJSON,
    to: OutputOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format ndjson.")] = False,
    connection: Connection,
) -> None:
    """Write events of the last 90 days for `import` to read."""
    from intercom_data_events.cli.commands import exporting

    if as_json and format is not Written.NDJSON:
        raise UsageError("--json means --format ndjson, but --format is csv; leave one out")
    asked = [
        *(("user_id", value) for value in user_id or ()),
        *(("email", value) for value in email or ()),
        *(("intercom_user_id", value) for value in id or ()),
    ]
    exporting.export(
        connection,
        asked,
        since=since,
        as_csv=format is Written.CSV,
        to=to,
        quiet=quiet,
    )


@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    },
    add_help_option=False,
)
def emulator(context: typer.Context) -> None:
    """Serve a stand-in for Intercom on this machine."""
    from intercom_data_events.emulator.__main__ import main

    raise typer.Exit(main(context.args, prog="intercom-events emulator"))


@app.command(
    epilog=_closing(
        "intercom-events demo",
        "intercom-events demo --json",
        codes=(Exit.DONE, Exit.FAILED, Exit.INTERRUPTED),
    )
)
def demo(as_json: JsonOption = False) -> None:
    """Show the client at work against the emulator."""
    from intercom_data_events.cli.commands.demo import show

    show(as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox status events.outbox",
        "intercom-events outbox status events.outbox --json",
        codes=_LOCAL,
    ),
)
def status(file: OutboxArgument, as_json: JsonOption = False) -> None:
    """Show how many events are waiting, and how many were rejected."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.status(file, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox drain events.outbox",
        "intercom-events outbox drain events.outbox --max-time 60 --json",
    ),
)
@connecting(sends=True, paces=True)
def drain(
    *,
    file: OutboxArgument,
    max_time: Annotated[
        float | None,
        typer.Option(
            help="Time limit for the whole run; unsent events stay in the outbox.",
            metavar="SECONDS",
        ),
    ] = None,
    workspace: Annotated[
        str | None,
        typer.Option(help="The workspace's name, if the tracker has one.", metavar="NAME"),
    ] = None,
    token_renewed: Annotated[
        bool,
        typer.Option(
            "--token-renewed", help="Resume with another access token of the same workspace."
        ),
    ] = False,
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=1000, help="At most this many requests at once.", metavar="NUMBER"),
    ] = 20,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Send all waiting events.

    It can be stopped or killed at any moment: unsent events stay in the file, and the same command
    sends them. While Intercom does not answer, it says so and keeps trying. It does not wait for
    events that are tracked after it began.
    """
    from intercom_data_events.cli.commands import draining

    draining.drain(
        connection,
        file,
        workspace=workspace,
        token_renewed=token_renewed,
        concurrency=concurrency,
        timeout=max_time,
        quiet=quiet,
        as_json=as_json,
    )


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox dead events.outbox",
        "intercom-events outbox dead events.outbox --limit 5 --json",
        codes=_LOCAL,
    ),
)
def dead(
    file: OutboxArgument,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            max=10**9,
            help="Show at most this many. [default: 100; JSON: all]",
            metavar="NUMBER",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List rejected events (dead letters) and why, oldest first."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.dead(file, limit=limit, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox retry events.outbox 17 18",
        "intercom-events outbox retry events.outbox --all",
        codes=_LOCAL,
    ),
)
def retry(
    file: OutboxArgument,
    numbers: DeadLettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into the queue.

    A tracker that uses the file, or `outbox drain`, sends them again.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.retry(file, numbers or [], every=every, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox forget events.outbox 17 18",
        "intercom-events outbox forget events.outbox --all",
        codes=_LOCAL,
    ),
)
def forget(
    file: OutboxArgument,
    numbers: DeadLettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters for good.

    To keep a copy, run `outbox export --dead` first.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.forget(file, numbers or [], every=every, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox compact events.outbox",
        "intercom-events outbox compact events.outbox --json",
        codes=_LOCAL,
    ),
)
def compact(file: OutboxArgument, as_json: JsonOption = False) -> None:
    """Rewrite the file as small as its contents.

    Outboxes shrink by themselves, but one from an earlier version does so only after this. It needs
    free disk space for twice the contents. While it runs, applications that use the file wait;
    tracking an event may raise an OutboxLockedError after a second.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.compact(file, as_json=as_json)


@outbox.command(
    "export",
    no_args_is_help=True,
    epilog=_closing(
        "intercom-events outbox export events.outbox > waiting.ndjson",
        "intercom-events outbox export events.outbox --dead -o refused.ndjson",
        codes=_LOCAL,
    ),
)
def export_outbox(
    file: OutboxArgument,
    dead: Annotated[
        bool, typer.Option("--dead", help="Write the dead letters instead of the waiting events.")
    ] = False,
    to: OutputOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
    as_json: Annotated[  # noqa: ARG001  # every command takes it
        bool, typer.Option("--json", help="NDJSON, as without it.")
    ] = False,
) -> None:
    """Write waiting events or dead letters for `import` to read.

    They are written as NDJSON and stay in the outbox. Stop all use of the file before you send its
    events from elsewhere; to Intercom, an event that is sent twice is one event.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.export(file, refused=dead, to=to, quiet=quiet)


def program() -> Any:
    """Returns the commands as one program, whose help is laid out as `cli.help` does."""
    for group in (app, outbox):
        for registered in group.registered_commands:
            registered.cls = Command
    return typer.main.get_command(app)


def run(arguments: Sequence[str], prog: str = "intercom-events") -> int:
    """Runs a command; returns the exit code.

    Args:
        arguments: Those of the command line.
        prog: What the program was called as.
    """
    try:
        code = program().main(
            list(arguments),
            prog_name=prog,
            complete_var="_INTERCOM_EVENTS_COMPLETE",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        output.message("Interrupted.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.DONE
    except SystemExit as end:
        # The emulator's own, completion's, or typer's when the reader of a pipe has gone.
        enough = isinstance(end.__context__, BrokenPipeError)
        if end.code == Exit.INTERRUPTED:
            output.message("Interrupted.")
        return end.code if isinstance(end.code, int) and not enough else Exit.DONE
    except Exception as error:  # noqa: BLE001  # every error becomes a message and an exit code
        return _failed(error, as_json=wants_json(arguments))
    return code if isinstance(code, int) else Exit.DONE


def _failed(error: Exception, *, as_json: bool) -> Exit:
    """Says what went wrong; returns the exit code for it."""
    text, code, more = " ".join(str(error).split("\n")), Exit.FAILED, None
    match error:
        case SourceError() | UsageError() | NoJournalError():
            code = Exit.USAGE
        case StoppedError() | JournalError():
            pass
        case IntercomError():
            code = exit_code(error)
        case OSError():
            text = f"{error.filename}: " if error.filename else ""
            text += error.strerror or str(error)
            if isinstance(
                error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError
            ):
                code = Exit.USAGE
        case _ if is_usage_error(error):
            code = Exit.USAGE
            if asks_for_help(error):
                output.page(str(error))
                return code
            text, more = explained(error)
        case _:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            text = f"{type(error).__name__} at {where}: {text}; this is a bug, please report it"
    if as_json:
        kind = type(error).__name__
        output.message(json.dumps({"error": kind, "message": text, "exit_code": code}))
        return code
    output.error(text)
    if more:
        output.message(f"For help, run: {more}")
    return code
