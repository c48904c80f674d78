"""The command `export`: contacts' events, as `import` reads them."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from intercom_data_events import DataEventsClient, ListedEvent, MetadataError
from intercom_data_events._files import replacing
from intercom_data_events._validation import printable
from intercom_data_events.cli import output
from intercom_data_events.cli.commands.events import read_time, recent
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer import columns
from intercom_data_events.cli.options import Written, command
from intercom_data_events.metadata import encode

# What a cell begins with that a spreadsheet may take for a formula, by OWASP; the last four are the
# wide forms of the first.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")

_NUMBER = re.compile(r"-[0-9.]+(e[+-]?[0-9]+)?")


@command(
    "export --user-id 314159 > events.ndjson",
    "export --user-id 314159 --format csv -o events.csv",
)
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
    given = {"user_id": user_id, "email": email, "intercom_user_id": id}
    asked = [{kind: value} for kind, values in given.items() for value in values or ()]
    if not asked:
        raise UsageError("pass contacts by --user-id, --email or --id")
    as_csv = format is Written.CSV
    if as_csv and as_json:
        raise UsageError("--json means --format json, but --format is csv; leave out one")
    if for_spreadsheets and not as_csv:
        raise UsageError("--for-spreadsheets is for CSV; pass --format csv, or leave it out")
    begin = None if since is None else read_time(since, "--since")
    unsupported = 0

    def fetched(client: DataEventsClient) -> Iterator[Mapping[str, object]]:
        nonlocal unsupported
        for contact in asked:
            for event in recent(client, contact, begin):
                yield (fields := to_import(event))
                unsupported += _is_unsupported(fields)

    with DataEventsClient(**connection.to_read()) as client, opened(to) as file:
        events = fetched(client)
        count = (
            write_csv(events, file, guarded=for_spreadsheets)
            if as_csv
            else write_ndjson(events, file)
        )
    if not quiet:
        where = to if to is not None else "standard output"
        contacts = output.counted(len(asked), "contact")
        output.message(f"{output.counted(count)} of {contacts} written to {where}.")
        if unsupported:
            output.message(
                f"{output.counted(unsupported)} with metadata that others have sent and `import` "
                "does not send, such as lists, bools or null."
            )


def _is_unsupported(fields: Mapping[str, object]) -> bool:
    try:
        encode(fields.get("metadata", {}))  # type: ignore[arg-type]  # what it checks
    except MetadataError:
        return True
    return False


def to_import(event: ListedEvent) -> dict[str, object]:
    """The fields that an event to send has; the `id` of a listed one is not the contact's."""
    listed = event.to_dict()
    names = ("event_name", "created_at", "user_id", "email", "metadata")
    fields = {name: listed[name] for name in names if name in listed}
    if not fields.keys() & {"user_id", "email"} and event.intercom_user_id is not None:
        fields["id"] = event.intercom_user_id
    return fields


def write_ndjson(events: Iterable[Mapping[str, object]], file: TextIO) -> int:
    """Writes events one by one, as they come; returns how many."""
    count = 0
    for fields in events:
        file.write(f"{output.to_json(fields)}\n")
        count += 1
    return count


def write_csv(
    events: Iterator[Mapping[str, object]], file: TextIO, *, guarded: bool = False
) -> int:
    """Writes a table; its columns are known when all events are."""
    rows = [columns.flatten(fields) for fields in events]
    if guarded:
        rows = [{name: _guarded(cell) for name, cell in row.items()} for row in rows]
    # Without events, a contact's column too, so that `import` finds a header.
    first = ("event_name", "created_at") if rows else ("event_name", "created_at", "user_id")
    names = dict.fromkeys((*first, *(name for row in rows for name in row)))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table if file.isatty() else file, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    # Nothing in it may control a terminal.
    file.writelines(f"{printable(line, None)}\n" for line in table.getvalue().splitlines())
    return len(rows)


def _guarded(cell: str) -> str:
    """A cell that spreadsheets show as it is."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


@contextmanager
def opened(to: Path | None) -> Iterator[TextIO]:
    """Where to write; a file is there when it is whole, and not before."""
    if to is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # All that `import` reads.
        yield sys.stdout
        sys.stdout.flush()
        return
    with replacing(to, UsageError) as file:
        yield file
