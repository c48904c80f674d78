"""The options and arguments of all commands, and how a function becomes a command.

A parameter of a command has the option or argument that is declared for its name; one that is a
class of settings, such as a `Connection`, has those of the class, and is handed over whole.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any

import attrs
import typer
from attrs import frozen

from intercom_data_events._sending.logs import shown_requests
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import EXIT_CODES, Exit, UsageError
from intercom_data_events.cli.help import Command
from intercom_data_events.cli.output import Shape, message
from intercom_data_events.cli.usage import column
from intercom_data_events.version import API_VERSION

# The name of a parameter, after a command's where it is not the same everywhere; the option or
# argument as help shows it; what it means. Defaults are those of the parameters.
_DECLARED = f"""
event_name        EVENT_NAME               What happened, such as placed-order.
file              FILE                     The outbox: the path that the tracker has.
import.file       FILE                     NDJSON or CSV, also as .gz, or Parquet; - is standard \
input.
validate.file     FILE                     NDJSON or CSV, also as .gz, or Parquet; - is standard \
input.
numbers           NUMBER                   The numbers that `outbox dead` shows.
number            NUMBER                   The number that `outbox dead` shows.

user_id           --user-id ID             The contact, by your own identifier.
email             --email ADDRESS          The contact, by e-mail address.
id                --id ID                  The contact, by Intercom's identifier, as for leads.
export.user_id    --user-id ID             A contact, by your own identifier; can be repeated.
export.email      --email ADDRESS          A contact, by e-mail address; can be repeated.
export.id         --id ID                  A contact, by Intercom's identifier; can be repeated.
created_at        --created-at TIME        When it happened: as --since, or Unix seconds. \
[default: now]
metadata          --metadata -m KEY=VALUE  A key of the metadata and its value; can be repeated. \
As in CSV files, numbers are numbers unless the key ends in :text; KEY.amount with KEY.currency, \
or KEY.url with KEY.value, make one value.
since             --since TIME             Only events from then on: 7d, 12h, 2026-01-31 or \
2026-01-31T12:00:00Z (UTC unless it has an offset).
limit             --limit -n NUMBER        Show at most this many. [with --follow: 10]
dead.limit        --limit -n NUMBER        Show at most this many. [default: 100; JSON, CSV: all]
follow            --follow -f              Keep running and show new events, until interrupted.
interval          --interval SECONDS       How often --follow asks for events, from 0.1 to 86400.
plot              --plot                   Draw a chart.
svg               --svg FILE               Write the chart to this file, as SVG.
format            --format table|json|csv  How to write the result. [default: table]
import.format     --format ndjson|csv|parquet  How the file is written. [default: found out]
validate.format   --format ndjson|csv|parquet  How the file is written. [default: found out]
export.format     --format json|csv        An object in each line, or a table.
for_spreadsheets  --for-spreadsheets       Put an apostrophe before cells of CSV that a \
spreadsheet would take for a formula. Not the default, because `import` keeps the apostrophes.
to                --output -o FILE         Where to write it. [default: standard output]
stamp_now         --stamp-now              Use the current time for events without created_at.
drop_unsupported  --drop-unsupported       Leave out bools, nulls and nested values of metadata.
journal           --journal PATH           Where to note finished lines. [default: FILE.journal; \
none for a pipe]
refused           --refused PATH           Where rejected events go, with the reasons. [default: \
NAME.refused.ndjson or .csv beside FILE; for a pipe stdin.refused]
restart           --restart                Forget earlier runs and import the whole file.
token_renewed     --token-renewed          Resume with another access token of the same workspace.
max_rate          --max-rate NUMBER        At most this many events a second.
concurrency       --concurrency NUMBER     At most this many requests at once.
max_time          --max-time SECONDS       Time limit for the run; unsent events stay there.
workspace         --workspace NAME         The workspace's name, if the tracker has one.
every             --all                    All dead letters.
dead              --dead                   Write the dead letters instead of the waiting events.
waiting           --waiting                Show a waiting event instead; the oldest has number 1.
quiet             --quiet -q               Show errors and the result only.
as_json           --json                   Write JSON for programs.

region            --region us|eu|au        Where the workspace's data is kept. \
[env: INTERCOM_REGION] [default: us]
base_url          --base-url URL           The API's address. [env: INTERCOM_BASE_URL]
allow_http        --allow-http             Also send over http://, which does not encrypt the \
access token. [env: INTERCOM_ALLOW_HTTP]
api_version       --api-version VERSION    The API version. [env: INTERCOM_VERSION] \
[default: {API_VERSION}]
timeout           --timeout SECONDS        Time limit for each attempt of a request.
deadline          --deadline SECONDS       Time limit for all attempts of an event.
max_retries       --max-retries NUMBER     How often a failed request is repeated.
quota_share       --quota-share PART       The part of the app's rate limit to use.
no_pace           --no-pace                Send without waiting for room within the rate limit.
dry_run           --dry-run                Check all and send nothing. [env: INTERCOM_DISABLED]
verbose           --verbose -v             Show each request and its answer on standard error.
"""
_WRITTEN = dict(re.findall(r"^(\S+) +(\S.*)$", _DECLARED, re.MULTILINE))
# What a client calls Intercom's identifier, by the name that events have for it.
_ASKED = {"id": "intercom_user_id"}
# The option for an argument of the package, which errors name.
_OPTIONS = {name: one.split()[0] for name, one in _WRITTEN.items() if one.startswith("--")} | {
    "access_token": "the access token",
    "event_name": "EVENT_NAME",
    "intercom_user_id": "--id",
    "version": "--api-version",
}
_BOUNDS = {"limit": (1, 10**9), "drain.concurrency": (1, 1000), "number": (1, 2**63 - 1)}
# Options that only commands which send have, and those which send much.
_SENDING = {"dry_run"}
_PACING = {"deadline", "quota_share", "no_pace"}


class Written(StrEnum):
    """How `export` writes events; "ndjson" is another name for "json"."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


@frozen(kw_only=True)
class Contact:
    """Whose events."""

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def to_send(self) -> dict[str, str]:
        """Returns the fields of an event that name its contact.

        Raises:
            UsageError: There is none.
        """
        if not (given := _given(self)):
            raise UsageError("the event has no contact: pass --user-id, --email or --id")
        return given

    def to_ask(self) -> dict[str, str]:
        """Returns the argument that a client asks for the contact's events with.

        Raises:
            UsageError: There is not exactly one.
        """
        if len(given := _given(self)) != 1:
            raise UsageError(f"pass one of --user-id, --email and --id, not {len(given) or 'none'}")
        return {_ASKED.get(name, name): value for name, value in given.items()}


@frozen(kw_only=True)
class Form:
    """How a result is written."""

    format: Shape | None = None
    as_json: bool = False

    def shape(self, *, plot: bool = False) -> Shape:
        """Returns how to write a result; --json is short for --format json.

        Raises:
            UsageError: Options contradict each other.
        """
        if self.as_json and self.format not in (None, Shape.JSON):
            raise UsageError(
                f"--json means --format json, but --format is {self.format}; leave out one"
            )
        shape = Shape.JSON if self.as_json else self.format or Shape.TABLE
        if plot and shape is not Shape.TABLE:
            raise UsageError(
                "--plot is for people and --json or --format for programs; leave one out"
            )
        return shape


def option_of(path: Sequence[str]) -> str:
    """Returns what the command line calls an argument of the package.

    Example:
        >>> option_of(["max_retries"]), option_of(["metadata", "price", "amount"])
        ('--max-retries', '--metadata price.amount')
    """
    name, keys = column(path[:1]), column(path[1:])
    return f"{_OPTIONS.get(name, name)} {keys}".rstrip()


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether arguments ask for JSON, also where the rest of them cannot be understood."""
    asked = "--json" in arguments or "--format=json" in arguments
    return asked or ("--format", "json") in pairwise(arguments)


def closing(*examples: str, codes: Iterable[int] = EXIT_CODES) -> str:
    """What stands at the end of a command's help, each line as it is."""
    lines = ["Examples:", *(f"  intercom-events {line}".rstrip() for line in examples), ""]
    lines += ["Exit codes:", *(f"  {code:<3}  {EXIT_CODES[Exit(code)]}" for code in codes)]
    return "\n".join(lines)


def command(
    *examples: str,
    codes: Iterable[int] = EXIT_CODES,
    no_args_is_help: bool = True,
    sends: bool = False,
    paces: bool = False,
    **defaults: object,
) -> Callable[[Callable[..., None]], Any]:
    """Makes a function a command, whose help is the function's docstring.

    Args:
        examples: Command lines to show below its help, without the program's name.
        codes: Its exit codes.
        no_args_is_help: Whether it shows its help where it is given nothing.
        sends: Whether it sends events, so that it has --dry-run.
        paces: Whether it sends many: it has --deadline, --quota-share and --no-pace, too.
        **defaults: Defaults of settings that are others than those of a Connection.
    """
    left_out = (set() if sends else _SENDING) | (set() if paces else _PACING)

    def make(function: Callable[..., None]) -> Any:
        name = function.__name__.strip("_")
        parameters: list[inspect.Parameter] = []
        kinds: dict[str, tuple[Any, list[str]]] = {}
        for one in _parameters(function):
            settings = [one]
            if attrs.has(one.annotation):
                settings = [
                    each for each in _parameters(one.annotation) if each.name not in left_out
                ]
                kinds[one.name] = one.annotation, [each.name for each in settings]
            panel = "Connection options" if one.annotation is Connection else None
            parameters += (
                each.replace(
                    annotation=Annotated[each.annotation, _declared(each.name, name, panel)],
                    default=defaults.get(each.name, each.default),
                )
                for each in settings
            )

        def called(**given: Any) -> None:
            for group, (kind, names) in kinds.items():
                given[group] = kind(**{each: given.pop(each) for each in names})
            is_verbose = "connection" in given and given["connection"].verbose
            try:
                with shown_requests(message) if is_verbose else nullcontext():
                    function(**given)
            except KeyboardInterrupt:  # Typer would end with its exit code and not say so.
                raise typer.Abort from None

        called.__doc__ = function.__doc__
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        called.__annotations__ = {one.name: one.annotation for one in parameters}
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(
            name,
            cls=Command,
            epilog=closing(*examples, codes=codes),
            no_args_is_help=no_args_is_help,
        )(called)
        return typer.main.get_command(alone)

    return make


def _parameters(of: Callable[..., object]) -> Iterable[inspect.Parameter]:
    return inspect.signature(of, eval_str=True).parameters.values()


def _given(contact: Contact) -> dict[str, str]:
    return {name: value for name, value in attrs.asdict(contact).items() if value is not None}


def _declared(name: str, command: str, panel: str | None) -> Any:
    """The option or argument of a parameter."""
    own = f"{command}.{name}"
    flags, meaning = re.split(" {2,}", _WRITTEN.get(own) or _WRITTEN[name], maxsplit=1)
    least, most = _BOUNDS.get(own, _BOUNDS.get(name, (None, None)))
    *names, metavar = flags.split(" ")
    if not names and not metavar.startswith("-"):
        return typer.Argument(help=meaning, metavar=metavar, min=least, max=most)
    if metavar.startswith("-"):
        names, metavar = [*names, metavar], ""
    return typer.Option(
        *names, help=meaning, metavar=metavar or None, min=least, max=most, rich_help_panel=panel
    )
