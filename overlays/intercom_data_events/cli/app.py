"""The commands of ``intercom-events`` and their arguments; a module of its own does each.

`cli.options` says what the arguments mean. Commands are imported when they run, so that help and
completion are fast.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterable, Sequence
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
from intercom_data_events.cli.help import Command, Group
from intercom_data_events.cli.importer.journal import JournalError, NoJournalError
from intercom_data_events.cli.importer.records import Format, SourceError
from intercom_data_events.cli.options import (
    Written,
    connecting,
    declared,
    done_by,
    shape_of,
    wants_json,
)
from intercom_data_events.cli.output import Shape
from intercom_data_events.cli.usage import asks_for_help, explained, is_usage_error

# Seconds.
_DAY = 24 * 60 * 60
# The exit codes of commands that do not ask Intercom.
_LOCAL = (Exit.DONE, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED)
_ENVIRONMENT = """\
Environment:
  INTERCOM_ACCESS_TOKEN  the access token; if unset, a terminal is asked for it
  INTERCOM_REGION        us, eu or au
  INTERCOM_BASE_URL      the API's address; --region is an error while it is set
  INTERCOM_ALLOW_HTTP    1 allows http:// to other machines
  INTERCOM_VERSION       the API version
  INTERCOM_DISABLED      1 sends nothing and asks Intercom nothing
  INTERCOM_LOG           debug logs requests and answers, as --verbose does

"""


def _closing(*examples: str, codes: Iterable[int] = EXIT_CODES) -> str:
    """What stands at the end of a command's help, each line as it is."""
    lines = ["Examples:", *(f"  intercom-events {line}" for line in examples), ""]
    lines += ["Exit codes:", *(f"  {code:<3}  {EXIT_CODES[Exit(code)]}" for code in codes)]
    return "\n".join(lines)


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
    epilog=_ENVIRONMENT
    + _closing(
        "track placed-order --user-id 314159 --metadata plan=pro",
        "list --user-id 314159 --since 7d",
        "import events.ndjson",
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
        "outbox status events.outbox", "outbox drain events.outbox", "outbox dead events.outbox"
    ),
)
app.add_typer(outbox, name="outbox")


def _command(
    group: typer.Typer,
    *examples: str,
    name: str | None = None,
    codes: Iterable[int] = EXIT_CODES,
    no_args_is_help: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds a function to a group as a command, with examples and exit codes below its help."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        called = name or function.__name__.strip("_")
        path = called if group is app else f"outbox {called}"
        closing = _closing(*(f"{path} {one}".rstrip() for one in examples), codes=codes)
        register = group.command(
            called, cls=Command, epilog=closing, no_args_is_help=no_args_is_help
        )
        return register(declared(function, called))

    return add


def _drawn(format: Shape | None, *, plot: bool, as_json: bool) -> Shape:
    shape = shape_of(format, as_json=as_json)
    if plot and shape is not Shape.TABLE:
        raise UsageError("--plot is for people and --json or --format for programs; leave one out")
    return shape


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


@_command(
    app,
    "placed-order --user-id 314159 --metadata plan=pro",
    "placed-order --email a@b.co --created-at 2026-01-31 \\\n"
    "    -m price.amount=2999 -m price.currency=usd -m order_number:text=3434",
)
@connecting(sends=True)
def track(
    event_name: str,
    *,
    user_id: str | None = None,
    email: str | None = None,
    id: str | None = None,
    created_at: str | None = None,
    metadata: list[str] | None = None,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Send one event."""
    from intercom_data_events.cli.commands import events

    identity = {"user_id": user_id, "email": email, "id": id}
    events.track(connection, event_name, identity, created_at, metadata or [], as_json=as_json)


@_command(
    app,
    "--user-id 314159 --since 7d",
    "--email a@b.co --limit 10 --json",
    "--user-id 314159 --plot --svg events.svg",
    "--user-id 314159 --follow",
)
@connecting()
def list_(
    *,
    user_id: str | None = None,
    email: str | None = None,
    id: str | None = None,
    since: str | None = None,
    limit: int | None = None,
    follow: bool = False,
    interval: float = 5,
    plot: bool = False,
    svg: Path | None = None,
    format: Shape | None = None,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """List a contact's events of the last 90 days, newest first."""
    from intercom_data_events.cli.commands import events

    if follow and (plot or svg):
        raise UsageError("--follow has no end to draw a chart at; leave out --plot and --svg")
    if not 0.1 <= interval <= _DAY:
        raise UsageError(f"--interval must be from 0.1 to {_DAY:,} seconds, not {interval}")
    events.list_events(
        connection,
        {"user_id": user_id, "email": email, "intercom_user_id": id},
        since=since,
        limit=limit,
        follow=interval if follow else None,
        plot=plot,
        svg=svg,
        shape=_drawn(format, plot=plot, as_json=as_json),
    )


@_command(app, "--user-id 314159", "--email a@b.co --plot")
@connecting()
def summary(
    *,
    user_id: str | None = None,
    email: str | None = None,
    id: str | None = None,
    plot: bool = False,
    svg: Path | None = None,
    format: Shape | None = None,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Count all events of a contact by name, however old."""
    from intercom_data_events.cli.commands import events

    identity = {"user_id": user_id, "email": email, "intercom_user_id": id}
    shape = _drawn(format, plot=plot, as_json=as_json)
    events.summarise(connection, identity, plot=plot, svg=svg, shape=shape)


@_command(
    app,
    "events.ndjson",
    "events.csv.gz --quota-share 0.5",
    "- --journal 2026.journal < events.ndjson",
)
@connecting(sends=True, paces=True, deadline=600, max_retries=10)
@done_by("importing.import_file")
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


@_command(
    app,
    "events.csv",
    "- --json < events.ndjson",
    codes=(Exit.DONE, Exit.REFUSED, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED),
)
@done_by("importing.validate")
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


@_command(app, "--user-id 314159 > events.ndjson", "--user-id 314159 --format csv -o events.csv")
@connecting()
def export(
    *,
    user_id: list[str] | None = None,
    email: list[str] | None = None,
    id: list[str] | None = None,
    since: str | None = None,
    format: Written = Written.JSON,
    for_spreadsheets: bool = False,
    to: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Write events of the last 90 days for `import` to read."""
    from intercom_data_events.cli.commands import exporting

    if as_json and format is Written.CSV:
        raise UsageError("--json means --format json, but --format is csv; leave out one")
    given = {"user_id": user_id, "email": email, "intercom_user_id": id}
    exporting.export(
        connection,
        [(kind, value) for kind, values in given.items() for value in values or ()],
        since=since,
        as_csv=format is Written.CSV,
        guarded=for_spreadsheets,
        to=to,
        quiet=quiet,
    )


@_command(app, "", "--json", no_args_is_help=False)
@connecting(timeout=10, max_retries=0)
@done_by("checking.check")
def check(*, as_json: bool = False, connection: Connection) -> None:
    """Check the token, address, version, quota and clock by one request.

    The request changes nothing: it asks for a contact that does not exist.
    """


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


@_command(
    app, "", "--json", codes=(Exit.DONE, Exit.FAILED, Exit.INTERRUPTED), no_args_is_help=False
)
@done_by("demo.show")
def demo(*, as_json: bool = False) -> None:
    """Show events, failures, a kill and a chart against the emulator."""


@_command(outbox, "events.outbox", "events.outbox --json", codes=_LOCAL)
def status(file: Path, *, format: Shape | None = None, as_json: bool = False) -> None:
    """Show how many events are waiting, and how many were rejected."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.status(file, shape=shape_of(format, as_json=as_json))


@_command(outbox, "events.outbox", "events.outbox --max-time 60 --json")
@connecting(sends=True, paces=True)
@done_by("draining.drain")
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


@_command(outbox, "events.outbox", "events.outbox --limit 5 --json", codes=_LOCAL)
def dead(
    file: Path, *, limit: int | None = None, format: Shape | None = None, as_json: bool = False
) -> None:
    """List rejected events (dead letters) and why, oldest first."""
    from intercom_data_events.cli.commands import outbox as doing

    doing.dead(file, limit=limit, shape=shape_of(format, as_json=as_json))


@_command(outbox, "events.outbox 17", "events.outbox 1 --waiting --json", codes=_LOCAL)
@done_by("outbox.show")
def show(file: Path, number: int, *, waiting: bool = False, as_json: bool = False) -> None:
    """Show one event whole: fields, metadata, error and what to do."""


@_command(outbox, "events.outbox 17 18", "events.outbox --all", codes=_LOCAL)
@done_by("outbox.retry")
def retry(
    file: Path, numbers: list[int] | None = None, *, every: bool = False, as_json: bool = False
) -> None:
    """Put dead letters back into the queue.

    A tracker that uses the file, or `outbox drain`, sends them again.
    """


@_command(outbox, "events.outbox 17 18", "events.outbox --all", codes=_LOCAL)
@done_by("outbox.forget")
def forget(
    file: Path, numbers: list[int] | None = None, *, every: bool = False, as_json: bool = False
) -> None:
    """Delete dead letters for good.

    To keep a copy, run `outbox export --dead` first.
    """


@_command(outbox, "events.outbox", "events.outbox --json", codes=_LOCAL)
@done_by("outbox.compact")
def compact(file: Path, *, as_json: bool = False) -> None:
    """Rewrite the file as small as its contents.

    Outboxes shrink by themselves, but one from an earlier version does so only after this. It needs
    free disk space for twice the contents. While it runs, applications that use the file wait;
    tracking an event may raise an OutboxLockedError after a second.
    """


@_command(
    outbox,
    "events.outbox > waiting.ndjson",
    "events.outbox --dead -o refused.ndjson",
    name="export",
    codes=_LOCAL,
)
def export_outbox(
    file: Path,
    *,
    dead: bool = False,
    to: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,  # noqa: ARG001  # it writes NDJSON in any case
) -> None:
    """Write waiting events or dead letters for `import` to read.

    They are written as NDJSON and stay in the outbox. Stop all use of the file before you send its
    events from elsewhere; to Intercom, an event that is sent twice is one event.
    """
    from intercom_data_events.cli.commands import outbox as doing

    doing.export(file, refused=dead, to=to, quiet=quiet)


def run(arguments: Sequence[str], prog: str = "intercom-events") -> int:
    """Runs a command; returns the exit code.

    Args:
        arguments: Those of the command line.
        prog: What the program was called as.
    """
    try:
        code = typer.main.get_command(app).main(
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
