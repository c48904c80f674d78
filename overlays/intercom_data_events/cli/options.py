"""The options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from intercom_data_events.cli.importer.records import Format


class Region(StrEnum):
    """Where a workspace's data is kept."""

    US = "us"
    EU = "eu"
    AU = "au"


class Written(StrEnum):
    """How `export` writes events."""

    NDJSON = "ndjson"
    CSV = "csv"


RegionOption = Annotated[
    Region | None,
    typer.Option(help="Where the workspace's data is kept [env: INTERCOM_REGION; else us]."),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option(help="The API's address, instead of a region's [env: INTERCOM_BASE_URL]."),
]
AllowHttpOption = Annotated[
    bool,
    typer.Option(
        "--allow-http",
        help="Send to other machines over http:// too, which does not encrypt the access token "
        "[env: INTERCOM_ALLOW_HTTP].",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option(
        help="The API version, such as 2.14 [env: INTERCOM_VERSION; else the newest known]."
    ),
]
TimeoutOption = Annotated[
    float | None, typer.Option(help="Seconds that one try of a request may take [else 30].")
]
RetriesOption = Annotated[
    int | None, typer.Option(help="How often a failed request is made again [else 4].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Check everything, and send nothing [env: INTERCOM_DISABLED]."),
]
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
        help="Only events from then on: 7d, 12h, 2026-01-31, or a whole time (UTC where it names "
        "no offset).",
        metavar="TIME",
    ),
]
SvgOption = Annotated[
    Path | None, typer.Option(help="Write the chart to this file, as SVG.", metavar="FILE")
]
PlotOption = Annotated[bool, typer.Option("--plot", help="Draw what happened when.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
FormatOption = Annotated[
    Format | None,
    typer.Option(help="How the file is written [else found out from its beginning]."),
]
QuotaShareOption = Annotated[
    float | None,
    typer.Option(help="The part of the app's rate limit to use, up to 1.", metavar="PART"),
]
NoPaceOption = Annotated[
    bool, typer.Option("--no-pace", help="Send without waiting for room within the rate limit.")
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where to [else standard output].", metavar="FILE"),
]
OutboxArgument = Annotated[
    Path, typer.Argument(help="The outbox: what the tracker was given.", metavar="FILE")
]
DeadLettersArgument = Annotated[
    list[int] | None,
    typer.Argument(help="Their numbers, as `outbox dead` shows them.", metavar="NUMBER"),
]
StampOption = Annotated[
    bool,
    typer.Option(
        "--stamp-now",
        help="Take the present second for events without created_at, which are refused otherwise.",
    ),
]
