"""The program: the table of its commands, and the message and exit code of each error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from intercom_data_events import IntercomError
from intercom_data_events.__about__ import __version__
from intercom_data_events.cli import output
from intercom_data_events.cli.exit_codes import Exit, StoppedError, UsageError, exit_code
from intercom_data_events.cli.help import Group, summary
from intercom_data_events.cli.importer.journal import JournalError, NoJournalError
from intercom_data_events.cli.importer.records import SourceError
from intercom_data_events.cli.options import closing, option_of, wants_json
from intercom_data_events.cli.usage import asks_for_help, explained, is_usage_error, worded

_ENVIRONMENT = """\
Environment:
  INTERCOM_ACCESS_TOKEN  the access token; if unset, the terminal asks for it
  INTERCOM_REGION        us, eu or au
  INTERCOM_BASE_URL      the API's address; cannot be combined with --region
  INTERCOM_ALLOW_HTTP    1 allows unencrypted http:// to other machines
  INTERCOM_VERSION       the API version
  INTERCOM_DISABLED      1 turns off all requests to Intercom
  INTERCOM_LOG           debug logs requests and answers, as --verbose does

"""


# Each command's function, and the first sentence of its docstring, for the help of its group.
_PROGRAM = """\
track     events.track        Send one event.
list      events.list_        List a contact's events of the last 90 days, newest first.
summary   events.summary      Count all events of a contact by name, of any age.
import    importing.import_   Send the events of a file as fast as the rate limit allows.
validate  importing.validate  Check the events of a file, without sending any.
export    exporting.export    Write events of the last 90 days in a format that `import` reads.
check     checking.check      Check the token, address, version, quota and clock with one request.
demo      demo.demo           Show retries, crash recovery and charts against the emulator.
"""
_OUTBOX = """\
status    outbox.status       Show how many events are waiting, and how many were rejected.
drain     draining.drain      Send all waiting events.
dead      outbox.dead         List rejected events (dead letters) and the reasons, oldest first.
show      outbox.show         Show one event in full: fields, metadata, error and remedy.
retry     outbox.retry        Put dead letters back into the queue.
forget    outbox.forget       Delete dead letters permanently.
compact   outbox.compact      Shrink the file to the size of its contents.
export    outbox.export       Write waiting events or dead letters in a format that `import` reads.
"""


class _Commands(Mapping[str, Any]):
    """Commands by name; each is imported when it is used, so that help is fast.

    Args:
        table: The commands of other modules.
        others: The commands of this module.

    Attributes:
        summaries: What each command does, in a sentence.
    """

    def __init__(self, table: str, others: Mapping[str, Any]) -> None:
        rows = [line.split(maxsplit=2) for line in table.splitlines()]
        self.summaries = {name: text for name, _, text in rows}
        self.summaries |= {name: summary(one) for name, one in others.items()}
        self._places = {name: place.split(".") for name, place, _ in rows}
        self._others = others

    def __getitem__(self, name: str) -> Any:
        if name in self._others:
            return self._others[name]
        module, function = self._places[name]
        return getattr(import_module(f"intercom_data_events.cli.commands.{module}"), function)

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)


class _Program(Group):
    """A group of commands from a table."""

    table = _PROGRAM

    def __init__(self, *, commands: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands(self.table, commands)

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # Typer passes it
        """Returns the names of the commands."""
        return [*self.commands]


class _Outbox(_Program):
    table = _OUTBOX


def _show_version(wanted: bool) -> None:
    if wanted:
        output.result(f"intercom-events {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Send, list and summarize Intercom data events.

The access token comes from the environment variable INTERCOM_ACCESS_TOKEN, or from a prompt on the
terminal. It is never an argument.
""",
    epilog=_ENVIRONMENT
    + closing(
        "track placed-order --user-id 314159 --metadata plan=pro",
        "list --user-id 314159 --since 7d",
        "import events.ndjson",
    ),
)
outbox = typer.Typer(
    cls=_Outbox,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Manage an outbox, the file in which a tracker stores unsent events.

All commands are safe to run while applications use the file.
""",
    epilog=closing(
        "outbox status events.outbox", "outbox drain events.outbox", "outbox dead events.outbox"
    ),
)
app.add_typer(outbox, name="outbox")


@outbox.callback()
def _outbox() -> None:
    pass


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": [],
    },
    add_help_option=False,
)
def emulator(context: typer.Context) -> None:
    """Run a mock server of Intercom's data events on this machine."""
    from intercom_data_events.emulator.__main__ import main

    raise typer.Exit(main(context.args, prog="intercom-events emulator"))


def run(arguments: Sequence[str], prog: str = "intercom-events") -> int:
    """Runs a command line; returns the exit code."""
    try:
        code = typer.main.get_command(app).main(
            list(arguments),
            prog_name=prog,
            complete_var="_INTERCOM_EVENTS_COMPLETE",
            standalone_mode=False,
        )
    except (KeyboardInterrupt, typer.Abort):
        if sys.stderr.isatty():
            output.page("")  # Ends the line on which the terminal shows ^C or the prompt.
        output.message("Interrupted.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        return Exit.DONE
    except SystemExit as end:
        # From the emulator, from completion, or from Typer when the reader of a pipe has gone.
        enough = isinstance(end.__context__, BrokenPipeError)
        return end.code if isinstance(end.code, int) and not enough else Exit.DONE
    except Exception as error:  # noqa: BLE001  # every error becomes a message and an exit code
        return _failed(error, as_json=wants_json(arguments))
    return code if isinstance(code, int) else Exit.DONE


def _failed(error: Exception, *, as_json: bool) -> Exit:
    """Reports an error; returns its exit code."""
    text, code, more = " ".join(worded(error, option_of).split("\n")), Exit.FAILED, None
    match error:
        case SourceError() | UsageError() | NoJournalError():
            code = Exit.USAGE
        case StoppedError() | JournalError():
            pass
        case IntercomError():
            code = exit_code(error)
        case OSError():
            text = error.strerror or str(error)
            if error.filename:
                name, why = error.filename, text.lower()
                text = (
                    f"cannot use {name}: {why}; check the path, its permissions and the free space"
                )
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
            text = f"{type(error).__name__} at {where}: {text}; this is a bug; please report it"
    if as_json:
        kind = type(error).__name__
        output.page(json.dumps({"error": kind, "message": text, "exit_code": code}))
        return code
    output.error(text)
    if more:
        output.message(f"For help, run: {more}")
    return code
