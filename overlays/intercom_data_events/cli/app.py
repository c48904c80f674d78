"""The commands of ``intercom-events`` and their arguments; each is done by a module of its own."""

from __future__ import annotations

import io
import json
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

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
from intercom_data_events.cli.importer.journal import JournalError, NoJournalError
from intercom_data_events.cli.importer.records import SourceError
from intercom_data_events.cli.options import (
    DeadLettersArgument,
    DropOption,
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
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=f"""Send, list and summarise Intercom data events.

The access token is INTERCOM_ACCESS_TOKEN in the environment, or asked for on the terminal; it is
never an argument. INTERCOM_REGION, INTERCOM_BASE_URL, INTERCOM_ALLOW_HTTP, INTERCOM_VERSION and
INTERCOM_DISABLED count where their flags are left out; --region is an error while INTERCOM_BASE_URL
is set.

\b
Examples:
  intercom-events track placed-order --user-id 314159 --metadata plan=pro
  intercom-events list --user-id 314159 --since 7d
  intercom-events import events.ndjson

\b
{EXIT_CODES}
""",
)

outbox = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Look after an outbox: the file that a tracker keeps events in until Intercom has them.

All of it is safe while applications are using the file.

\b
Examples:
  intercom-events outbox status events.outbox
  intercom-events outbox drain events.outbox
  intercom-events outbox dead events.outbox
""",
)
app.add_typer(outbox, name="outbox")

# Seconds.
_DAY = 24 * 60 * 60


def _examples(*lines: str) -> str:
    """What stands at the end of a command's help, each line as it is."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def _check_drawn(*, plot: bool, as_json: bool) -> None:
    if plot and as_json:
        raise UsageError("--plot is for people and --json for programs: leave one out")


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
    epilog=_examples(
        "intercom-events track placed-order --user-id 314159 --metadata plan=pro",
        "intercom-events track placed-order --email a@b.co --created-at 2026-01-31T12:00:00Z \\",
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
            help="When it happened: as --since, or Unix seconds [else now].", metavar="TIME"
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            help="A key of the metadata and its value; give it once for each. As in CSV files, a "
            "number is a number unless the key ends in :text, and KEY.amount with KEY.currency, or "
            "KEY.url with KEY.value, make one value.",
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
    epilog=_examples(
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
            "--limit", "-n", min=1, max=10**9, help="Show so many at most [with --follow: 10]."
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on: show what is new, until interrupted."),
    ] = False,
    interval: Annotated[
        float, typer.Option(help="Seconds between two looks of --follow, from 0.1 to a day.")
    ] = 5.0,
    plot: PlotOption = False,
    svg: SvgOption = None,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """List a contact's events of the last 90 days, newest first."""
    from intercom_data_events.cli.commands import events

    if follow and (plot or svg):
        raise UsageError("--follow has no end to draw a chart at: leave out --plot and --svg")
    if not 0.1 <= interval <= _DAY:
        raise UsageError(f"--interval is {interval}: it is seconds, from 0.1 to a day")
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
    epilog=_examples(
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
    """Count a contact's events by name, those older than 90 days included."""
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
    epilog=_examples(
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
        typer.Argument(help="NDJSON, CSV or Parquet; - for standard input.", metavar="FILE"),
    ],
    format: FormatOption = None,
    stamp_now: StampOption = False,
    drop_unsupported: DropOption = False,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="Where to note what is done [else FILE.journal; none for a pipe].", metavar="PATH"
        ),
    ] = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            help="Where refused events go, with the reasons [else beside FILE, as "
            "NAME.refused.ndjson or .csv; for a pipe stdin.refused].",
            metavar="PATH",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget earlier runs, and import all of it.")
    ] = False,
    token_renewed: Annotated[
        bool,
        typer.Option(
            "--token-renewed", help="Go on with another access token, of the same workspace."
        ),
    ] = False,
    max_rate: Annotated[
        float | None, typer.Option(help="Events a second, at most.", metavar="NUMBER")
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(help="Requests at once, at most; fewer where more would not be faster."),
    ] = 100,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Send a file of events, as fast as the rate limit allows.

    It can be stopped at any moment, also killed: the same command goes on where it was, by the
    journal beside the file. What is sent twice then is the same event to Intercom. Lines that are
    refused are written to a file of their own with the reasons: mend them there, and import it.
    """
    from intercom_data_events.cli.commands import importing

    importing.import_file(
        connection,
        file,
        format=format,
        stamp_now=stamp_now,
        drop_unsupported=drop_unsupported,
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
    epilog=_examples(
        "intercom-events validate events.csv",
        "gzip -dc events.ndjson.gz | intercom-events validate - --json",
    ),
)
def validate(
    file: Annotated[
        str,
        typer.Argument(help="NDJSON, CSV or Parquet; - for standard input.", metavar="FILE"),
    ],
    format: FormatOption = None,
    stamp_now: StampOption = False,
    drop_unsupported: DropOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a file of events line by line, without sending any.

    What only Intercom knows, such as who its contacts are, is not checked.
    """
    from intercom_data_events.cli.commands import importing

    importing.validate(
        file,
        format=format,
        stamp_now=stamp_now,
        drop_unsupported=drop_unsupported,
        quiet=quiet,
        as_json=as_json,
    )


@app.command(
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events export --user-id 314159 > events.ndjson",
        "intercom-events export --user-id 314159 --user-id 271828 --format csv -o events.csv",
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
    format: Annotated[Written, typer.Option(help="How to write them.")] = Written.NDJSON,
    to: OutputOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format ndjson.")] = False,
    connection: Connection,
) -> None:
    """Write contacts' events of the last 90 days to a file that `import` reads."""
    from intercom_data_events.cli.commands import exporting

    if as_json and format is not Written.NDJSON:
        raise UsageError("--json and --format csv contradict each other: leave one out")
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
    """Serve a stand-in for Intercom to try things against; see `emulator --help`."""
    from intercom_data_events.emulator.__main__ import main

    raise typer.Exit(main(context.args, prog="intercom-events emulator"))


@app.command(
    epilog=_examples(
        "intercom-events demo",
    )
)
def demo(as_json: JsonOption = False) -> None:
    """Send, list and summarise events against the emulator, and show the requests."""
    from intercom_data_events.cli.commands.demo import show

    show(as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events outbox status events.outbox",
        "intercom-events outbox status events.outbox --json",
    ),
)
def status(file: OutboxArgument, as_json: JsonOption = False) -> None:
    """Say how many events wait, since when, and how many were refused."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.status(file, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_examples(
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
        typer.Option(help="The workspace's name, where the tracker was given one.", metavar="NAME"),
    ] = None,
    token_renewed: Annotated[
        bool,
        typer.Option(
            "--token-renewed", help="Go on with another access token, of the same workspace."
        ),
    ] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1000, help="Requests at once, at most.")
    ] = 20,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
    connection: Connection,
) -> None:
    """Send what waits, until nothing of it is left.

    It can be stopped at any moment, also killed: what has not been accepted stays in the file, and
    the same command sends it. While Intercom is away, it says so, and tries again. What is tracked
    in the meantime is not waited for.
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
    epilog=_examples(
        "intercom-events outbox dead events.outbox",
        "intercom-events outbox dead events.outbox --limit 5 --json",
    ),
)
def dead(
    file: OutboxArgument,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=1, max=10**9, help="Show so many at most [else 100; JSON: all]."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the dead letters: the events that were refused, and why, oldest first."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.dead(file, limit=limit, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events outbox retry events.outbox 17 18",
        "intercom-events outbox retry events.outbox --all",
    ),
)
def retry(
    file: OutboxArgument,
    numbers: DeadLettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put dead letters back into the queue, to be sent again by a tracker or `outbox drain`."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.retry(file, numbers or [], every=every, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events outbox forget events.outbox 17 18",
        "intercom-events outbox forget events.outbox --all",
    ),
)
def forget(
    file: OutboxArgument,
    numbers: DeadLettersArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete dead letters, for good: `outbox export --dead` keeps a copy."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.forget(file, numbers or [], every=every, as_json=as_json)


@outbox.command(
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events outbox compact events.outbox",
        "intercom-events outbox compact events.outbox --json",
    ),
)
def compact(file: OutboxArgument, as_json: JsonOption = False) -> None:
    """Write the file anew, as small as what is in it.

    Outboxes shrink by themselves, but one that an earlier version made does so only after this. It
    needs room on the disk for what is in the file two times more. While it runs, applications that
    use the file wait; events that they track may raise an OutboxLockedError after a second.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.compact(file, as_json=as_json)


@outbox.command(
    "export",
    no_args_is_help=True,
    epilog=_examples(
        "intercom-events outbox export events.outbox > waiting.ndjson",
        "intercom-events outbox export events.outbox --dead -o refused.ndjson",
    ),
)
def export_outbox(
    file: OutboxArgument,
    dead: Annotated[
        bool, typer.Option("--dead", help="Write the dead letters, instead of what waits.")
    ] = False,
    to: OutputOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")] = False,
    as_json: Annotated[  # noqa: ARG001  # every command takes it
        bool, typer.Option("--json", help="NDJSON, as without it.")
    ] = False,
) -> None:
    """Write the events that wait, or the dead letters, as NDJSON that `import` reads.

    They stay in the outbox, too. To send what waits from elsewhere, have nothing use the file: what
    is sent twice is the same event to Intercom.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.export(file, refused=dead, to=to, quiet=quiet)


def run(arguments: Sequence[str]) -> int:
    """Runs a command; returns the exit code."""
    command = typer.main.get_command(app)
    try:
        code = command.main(list(arguments), prog_name="intercom-events", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        output.message("Interrupted.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.DONE
    except SystemExit as end:
        # The emulator's own, completion's, or typer's where whoever reads has seen enough.
        enough = isinstance(end.__context__, BrokenPipeError)
        if end.code == Exit.INTERRUPTED:
            output.message("Interrupted.")
        return end.code if isinstance(end.code, int) and not enough else Exit.DONE
    except (SourceError, UsageError, NoJournalError) as error:
        return _failed(arguments, error, str(error), Exit.USAGE)
    except (StoppedError, JournalError) as error:
        return _failed(arguments, error, str(error), Exit.FAILED)
    except IntercomError as error:
        return _failed(arguments, error, str(error), exit_code(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        lasting = isinstance(
            error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError
        )
        code = Exit.USAGE if lasting else Exit.FAILED
        return _failed(arguments, error, f"{where}{error.strerror or error}", code)
    except Exception as error:  # noqa: BLE001  # all that is left is told
        # Of click's, or of typer's copy of it: by what it can do, as there are two.
        show, say = getattr(error, "show", None), getattr(error, "format_message", None)
        if show is None or say is None:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            text = f"{type(error).__name__} at {where}: {error}; this is a bug, please report it"
            return _failed(arguments, error, text, Exit.FAILED)
        if "--json" in arguments:
            return _failed(arguments, error, say(), Exit.USAGE)
        show(shown := io.StringIO())
        for line in shown.getvalue().rstrip("\n").split("\n"):
            output.message(line)  # Escaped, as it repeats arguments.
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.DONE


def _failed(arguments: Sequence[str], error: Exception, text: str, code: Exit) -> Exit:
    text = text.replace("\n", " ")
    if "--json" in arguments:
        kind = type(error).__name__
        output.message(json.dumps({"error": kind, "message": text, "exit_code": code}))
    else:
        output.message(f"Error: {text}")
    return code
