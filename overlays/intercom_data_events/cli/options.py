"""The options and arguments of all commands, and how commands get them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from enum import StrEnum
from functools import wraps
from importlib import import_module
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any

import typer

from intercom_data_events._sending.logs import shown_requests
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.output import Shape, message
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
_BOUNDS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"limit": (1, 10**9), "drain.concurrency": (1, 1000), "number": (1, 2**63 - 1)}
)
# Options that only commands which send have, and those which send much.
_SENDING = {"dry_run"}
_PACING = {"deadline", "quota_share", "no_pace"}


class Written(StrEnum):
    """How `export` writes events; "ndjson" is another name for "json"."""

    JSON = "json"
    CSV = "csv"
    NDJSON = "ndjson"


def shape_of(format: Shape | None, *, as_json: bool) -> Shape:
    """Returns how to write a result, by --format and --json, which is short for --format json.

    Raises:
        UsageError: They contradict each other.
    """
    if as_json and format not in (None, Shape.JSON):
        raise UsageError(f"--json means --format json, but --format is {format}; leave out one")
    return Shape.JSON if as_json else format or Shape.TABLE


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether arguments ask for JSON, also where the rest of them cannot be understood."""
    asked = "--json" in arguments or "--format=json" in arguments
    return asked or ("--format", "json") in pairwise(arguments)


def declared(function: Callable[..., None], name: str) -> Callable[..., None]:
    """Gives a command's parameters the options and arguments that are declared here.

    Args:
        function: The command.
        name: The command's name.
    """

    def option(one: inspect.Parameter) -> inspect.Parameter:
        panel = "Connection options" if hasattr(Connection, one.name) else None
        return one.replace(annotation=Annotated[one.annotation, _declared(one.name, name, panel)])

    signature = inspect.signature(function, eval_str=True)
    return _signed(function, map(option, signature.parameters.values()))


def connecting(
    *, sends: bool = False, paces: bool = False, **defaults: object
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the settings of a connection, behind its own, and hands it the Connection.

    Args:
        sends: Whether the command sends events, so that it has --dry-run.
        paces: Whether it sends many: it has --deadline, --quota-share and --no-pace, too.
        **defaults: Defaults of settings that are others than those of a Connection.

    Returns:
        A decorator for a command whose parameter ``connection`` is a Connection.
    """
    left_out = (set() if sends else _SENDING) | (set() if paces else _PACING)
    settings = [
        one.replace(default=defaults.get(one.name, one.default))
        for one in inspect.signature(Connection, eval_str=True).parameters.values()
        if one.name not in left_out
    ]

    def merge(command: Callable[..., None]) -> Callable[..., None]:
        def merged(**given: Any) -> None:
            connection = Connection(**{one.name: given.pop(one.name) for one in settings})
            with shown_requests(message) if connection.verbose else nullcontext():
                command(connection=connection, **given)

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [*(one for one in own if one.name != "connection"), *settings]
        return _signed(wraps(command)(merged), parameters)

    return merge


def done_by(function: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Has a command done by a function, as ``importing.validate``, which is imported when it runs.

    The function takes the command's parameters by their names.
    """
    module, _, attribute = function.rpartition(".")

    def replace(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def done(**given: object) -> None:
            commands = import_module(f"intercom_data_events.cli.commands.{module}")
            getattr(commands, attribute)(**given)

        return done

    return replace


def _signed(
    function: Callable[..., None], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """A function with the signature that Typer is to see."""

    @wraps(function)
    def signed(**given: object) -> None:
        function(**given)

    del signed.__wrapped__
    signature = inspect.Signature(list(parameters), return_annotation=None)
    signed.__signature__ = signature  # type: ignore[attr-defined]  # inspect reads it
    signed.__annotations__ = {one.name: one.annotation for one in signature.parameters.values()}
    return signed


def _declared(name: str, command: str, panel: str | None) -> Any:
    """The option or argument of a parameter."""
    for key in (f"{command}.{name}", name):
        if found := re.search(
            rf"^{re.escape(key)} +(\S+(?: \S+)*)  +(.+)$", _DECLARED, re.MULTILINE
        ):
            break
    else:
        raise LookupError(f"no option is declared for {name}")
    *flags, metavar = found[1].split(" ")
    least, most = _BOUNDS.get(f"{command}.{name}", _BOUNDS.get(name, (None, None)))
    if not found[1].startswith("-"):
        return typer.Argument(help=found[2], metavar=metavar, min=least, max=most)
    if metavar.startswith("-"):
        flags, metavar = [*flags, metavar], ""
    return typer.Option(
        *flags, help=found[2], metavar=metavar or None, min=least, max=most, rich_help_panel=panel
    )
