"""The options that several commands have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from enum import StrEnum
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from attrs import fields

from intercom_data_events._sending.logs import shown_requests
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer.records import Format
from intercom_data_events.cli.output import Shape


class Written(StrEnum):
    """How `export` writes events."""

    NDJSON = "ndjson"
    CSV = "csv"


ShapeOption = Annotated[
    Shape | None,
    typer.Option(
        "--format", help="How to write the result. [default: table]", metavar="table|json|csv"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
UserIdOption = Annotated[
    str | None, typer.Option(help="The contact, by your own identifier.", metavar="ID")
]
EmailOption = Annotated[
    str | None, typer.Option(help="The contact, by e-mail address.", metavar="ADDRESS")
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", help="The contact, by Intercom's identifier, as for leads.", metavar="ID"),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Only events from then on: 7d, 12h, 2026-01-31 or 2026-01-31T12:00:00Z (UTC unless it "
        "has an offset).",
        metavar="TIME",
    ),
]
SvgOption = Annotated[
    Path | None, typer.Option(help="Write the chart to this file, as SVG.", metavar="FILE")
]
PlotOption = Annotated[bool, typer.Option("--plot", help="Draw a chart.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        help="How the file is written. [default: found out from its beginning]",
        metavar="|".join(Format),
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Where to write it. [default: standard output]", metavar="FILE"
    ),
]
OutboxArgument = Annotated[
    Path, typer.Argument(help="The outbox: the path that the tracker has.", metavar="FILE")
]
DeadLettersArgument = Annotated[
    list[int] | None,
    typer.Argument(help="The numbers that `outbox dead` shows.", metavar="NUMBER"),
]
StampOption = Annotated[
    bool,
    typer.Option(
        "--stamp-now",
        help="Use the current time for events without created_at, which are rejected otherwise.",
    ),
]


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
    return (
        "--json" in arguments
        or "--format=json" in arguments
        or (("--format", "json") in pairwise(arguments))
    )


# Options that only commands which send have, and those which send much.
_SENDING = {"dry_run"}
_PACING = {"deadline", "quota_share", "no_pace"}


def connecting(
    *, sends: bool = False, paces: bool = False, **defaults: object
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a connection, behind its own, and hands it the Connection.

    Args:
        sends: Whether the command sends events, so that it has --dry-run.
        paces: Whether it sends many: it has --deadline, --quota-share and --no-pace, too.
        **defaults: Defaults of settings that are others than those of a Connection.

    Returns:
        A decorator for a command whose parameter ``connection`` is a Connection.
    """
    left_out = (set() if sends else _SENDING) | (set() if paces else _PACING)
    hints = get_type_hints(Connection, include_extras=True)
    settings = [
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(one.name, one.default),
            annotation=hints[one.name],
        )
        for one in fields(Connection)
        if one.name not in left_out
    ]

    def merge(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.name != "connection"]

        @wraps(command)
        def merged(*_: object, **given: Any) -> None:
            connection = Connection(**{one.name: given.pop(one.name) for one in settings})
            with shown_requests() if connection.verbose else nullcontext():
                command(connection=connection, **given)

        del merged.__wrapped__
        merged.__signature__ = signature.replace(parameters=[*own, *settings])  # type: ignore[attr-defined]
        merged.__annotations__ = {one.name: one.annotation for one in (*own, *settings)}
        return merged

    return merge
