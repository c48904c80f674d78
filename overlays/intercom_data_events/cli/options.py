"""The options and arguments of all commands, and the decorator that makes a function a command.

The name of a parameter decides its option or argument. A parameter whose type is a class of
settings, such as `Connection`, gets one option for each attribute of the class.
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

# The name of a parameter, after a command's name if it differs between commands; the option or
# argument as help shows it; its meaning. The parameters have the defaults.
_DECLARED = f"""
event_name        EVENT_NAME               The name of the event, such as placed-order.
file              FILE                     The path of the outbox, as the tracker uses it.
import.file       FILE                     NDJSON or CSV, plain or gzipped, or Parquet; - reads \
standard input.
validate.file     FILE                     NDJSON or CSV, plain or gzipped, or Parquet; - reads \
standard input.
numbers           NUMBER                   Numbers of dead letters, as shown by `outbox dead`.
number            NUMBER                   The event's number, as shown by `outbox dead`.

user_id           --user-id ID             The contact's identifier in your system.
email             --email ADDRESS          The contact's e-mail address.
id                --id ID                  The contact's identifier in Intercom, for example of a \
lead.
export.user_id    --user-id ID             A contact's identifier in your system; can be repeated.
export.email      --email ADDRESS          A contact's e-mail address; can be repeated.
export.id         --id ID                  A contact's identifier in Intercom; can be repeated.
created_at        --created-at TIME        When the event happened: 2026-01-31T12:00:00Z or \
2026-01-31 (UTC unless it has an offset), how long ago, such as 7d or 12h, or Unix seconds. \
[default: now]
metadata          --metadata -m KEY=VALUE  A metadata key and its value; can be repeated. As in \
CSV files, digits make a number unless the key ends in :text. KEY.amount and KEY.currency make a \
monetary amount; KEY.url and KEY.value make a rich link.
since             --since TIME             Only events since this time: 2026-01-31T12:00:00Z or \
2026-01-31 (UTC unless it has an offset), or how long ago, such as 7d or 12h.
limit             --limit -n NUMBER        Show at most this many. [with --follow: 10]
dead.limit        --limit -n NUMBER        Show at most this many. [default: 100; JSON, CSV: all]
follow            --follow -f              Keep running and show new events, until interrupted.
interval          --interval SECONDS       Time between the requests of --follow, from 0.1 to \
86400.
plot              --plot                   Draw a chart.
svg               --svg FILE               Write the chart to this file as SVG.
format            --format table|json|csv  The format of the output. [default: table]
import.format     --format ndjson|csv|parquet  The format of the file. [default: detected]
validate.format   --format ndjson|csv|parquet  The format of the file. [default: detected]
export.format     --format json|csv        The format of the output: one JSON object per line, or \
CSV.
for_spreadsheets  --for-spreadsheets       Put an apostrophe before CSV cells that a spreadsheet \
would run as a formula. Off by default, because `import` keeps the apostrophes.
to                --output -o FILE         The file to write. [default: standard output]
stamp_now         --stamp-now              Use the current time for events without created_at.
drop_unsupported  --drop-unsupported       Leave out metadata keys whose value is true, false, \
null or nested.
journal           --journal PATH           The file that records finished lines. [default: \
FILE.journal; none for a pipe]
refused           --refused PATH           The file for rejected events and the reasons. [default: \
NAME.refused.ndjson or .csv beside FILE; for a pipe stdin.refused]
restart           --restart                Forget earlier runs and import the whole file.
token_renewed     --token-renewed          Resume with a new access token for the same workspace.
max_rate          --max-rate NUMBER        Send at most this many events per second.
concurrency       --concurrency NUMBER     Send at most this many requests at once.
max_time          --max-time SECONDS       Time limit for the run; unsent events stay in the outbox.
workspace         --workspace NAME         The name of the workspace, if the tracker sets one.
every             --all                    Select all dead letters.
dead              --dead                   Write the dead letters instead of the waiting events.
waiting           --waiting                Show a waiting event instead; the oldest is number 1.
quiet             --quiet -q               Show only errors and the result.
as_json           --json                   Write JSON, for programs.

region            --region us|eu|au        The region that hosts the workspace's data. \
[env: INTERCOM_REGION] [default: us]
base_url          --base-url URL           The API's address. [env: INTERCOM_BASE_URL]
allow_http        --allow-http             Allow http:// to other machines, which does not encrypt \
the access token. [env: INTERCOM_ALLOW_HTTP]
api_version       --api-version VERSION    The API version. [env: INTERCOM_VERSION] \
[default: {API_VERSION}]
timeout           --timeout SECONDS        Time limit for each attempt of a request.
deadline          --deadline SECONDS       Time limit for all attempts of an event.
max_retries       --max-retries NUMBER     Retry a failed request at most this many times.
quota_share       --quota-share SHARE      The share of the app's rate limit to use, up to 1.
no_pace           --no-pace                Send without waiting for the rate limit.
dry_run           --dry-run                Check everything, send nothing. [env: INTERCOM_DISABLED]
verbose           --verbose -v             Log each request and its answer on standard error.
"""
_WRITTEN = dict(re.findall(r"^(\S+) +(\S.*)$", _DECLARED, re.MULTILINE))
# The field of an event, and the client's argument for the same identifier.
_ASKED = {"id": "intercom_user_id"}
# The option for an argument of the package, which errors name.
_OPTIONS = {name: one.split()[0] for name, one in _WRITTEN.items() if one.startswith("--")} | {
    "access_token": "the access token",
    "event_name": "EVENT_NAME",
    "intercom_user_id": "--id",
    "version": "--api-version",
}
_BOUNDS = {"limit": (1, 10**9), "drain.concurrency": (1, 1000), "number": (1, 2**63 - 1)}
# Options of commands that send events, and of those that send many.
_SENDING = {"dry_run"}
_PACING = {"deadline", "quota_share", "no_pace"}


class Written(StrEnum):
    """The formats of `export`; "ndjson" is an alias of "json"."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


@frozen(kw_only=True)
class Contact:
    """The contact, as given by options."""

    user_id: str | None = None
    email: str | None = None
    id: str | None = None

    def to_send(self) -> dict[str, str]:
        """Returns the identities of an event's contact.

        Raises:
            UsageError: There is none.
        """
        if not (given := _given(self)):
            raise UsageError("the event has no contact: pass --user-id, --email or --id")
        return given

    def to_ask(self) -> dict[str, str]:
        """Returns the client's argument for reading the contact's events.

        Raises:
            UsageError: There is not exactly one identity.
        """
        if len(given := _given(self)) != 1:
            raise UsageError(
                f"pass exactly one of --user-id, --email and --id, not {len(given) or 'none'}"
            )
        return {_ASKED.get(name, name): value for name, value in given.items()}


@frozen(kw_only=True)
class Form:
    """The format of the output, as given by options."""

    format: Shape | None = None
    as_json: bool = False

    def shape(self, *, plot: bool = False) -> Shape:
        """Returns the format of the output; --json is short for --format json.

        Raises:
            UsageError: Options contradict each other.
        """
        if self.as_json and self.format not in (None, Shape.JSON):
            raise UsageError(f"pass either --json or --format {self.format}, not both")
        shape = Shape.JSON if self.as_json else self.format or Shape.TABLE
        if plot and shape is not Shape.TABLE:
            other = "--json" if self.as_json else f"--format {shape}"
            raise UsageError(f"pass either --plot or {other}, not both")
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
    """Whether arguments ask for JSON, even if the others are invalid."""
    asked = "--json" in arguments or "--format=json" in arguments
    return asked or ("--format", "json") in pairwise(arguments)


def closing(*examples: str, codes: Iterable[int] = EXIT_CODES) -> str:
    """Returns the last lines of a command's help: examples and exit codes."""
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
        examples: Command lines for its help, without the program's name.
        codes: Its exit codes.
        no_args_is_help: Whether it shows its help if it has no arguments.
        sends: Whether it sends events: adds --dry-run.
        paces: Whether it sends many events: adds --deadline, --quota-share and --no-pace.
        **defaults: Defaults that differ from those of `Connection`.
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
            except KeyboardInterrupt:  # Typer would end the process without a message.
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
    """Returns the option or argument of a parameter."""
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
