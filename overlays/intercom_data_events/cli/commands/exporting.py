"""The command `export`: contacts' events in a format that `import` reads."""

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
from intercom_data_events._counting import counted
from intercom_data_events._files import replacing
from intercom_data_events._validation import printable
from intercom_data_events.cli import output
from intercom_data_events.cli.commands.events import read_time, recent
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer import columns
from intercom_data_events.cli.options import Written, command
from intercom_data_events.metadata import encode

# Spreadsheets may run cells that begin with one of these as formulas (OWASP); the last four are
# the full-width forms of the first four.
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
    """Write events of the last 90 days in a format that `import` reads."""
    given = {"user_id": user_id, "email": email, "intercom_user_id": id}
    asked = [{kind: value} for kind, values in given.items() for value in values or ()]
    if not asked:
        raise UsageError("no contact is given; pass --user-id, --email or --id at least once")
    as_csv = format is Written.CSV
    if as_csv and as_json:
        raise UsageError("pass either --json or --format csv, not both")
    if for_spreadsheets and not as_csv:
        raise UsageError("--for-spreadsheets requires --format csv; pass both")
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
        contacts = counted(len(asked), "contact")
        output.message(f"{counted(count)} of {contacts} written to {where}.")
        if unsupported:
            output.message(
                f"{counted(unsupported)} with metadata that `import` rejects, such as a "
                "list, true, false or null; pass --drop-unsupported to `import` to leave it out."
            )


def _is_unsupported(fields: Mapping[str, object]) -> bool:
    try:
        encode(fields.get("metadata", {}))  # type: ignore[arg-type]  # what it checks
    except MetadataError:
        return True
    return False


def to_import(event: ListedEvent) -> dict[str, object]:
    """Returns the fields to send; the `id` of a listed event is not the contact's."""
    listed = event.to_dict()
    names = ("event_name", "created_at", "user_id", "email", "metadata")
    fields = {name: listed[name] for name in names if name in listed}
    if not fields.keys() & {"user_id", "email"} and event.intercom_user_id is not None:
        fields["id"] = event.intercom_user_id
    return fields


def write_ndjson(events: Iterable[Mapping[str, object]], file: TextIO) -> int:
    """Writes events one by one as they arrive; returns how many."""
    count = 0
    for fields in events:
        file.write(f"{output.to_json(fields)}\n")
        count += 1
    return count


def write_csv(
    events: Iterator[Mapping[str, object]], file: TextIO, *, guarded: bool = False
) -> int:
    """Writes a table once all events, and so all columns, are known; returns how many events."""
    rows = [columns.flatten(fields) for fields in events]
    if guarded:
        rows = [{name: _guarded(cell) for name, cell in row.items()} for row in rows]
    # Without events, also a column for the contact, so that `import` accepts the header.
    first = ("event_name", "created_at") if rows else ("event_name", "created_at", "user_id")
    names = dict.fromkeys((*first, *(name for row in rows for name in row)))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table if file.isatty() else file, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    # No control character may reach a terminal.
    file.writelines(f"{printable(line, None)}\n" for line in table.getvalue().splitlines())
    return len(rows)


def _guarded(cell: str) -> str:
    """Returns a cell that spreadsheets do not run as a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


@contextmanager
def opened(to: Path | None) -> Iterator[TextIO]:
    """Opens the output; a file appears only when it is complete."""
    if to is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # As `import` reads it.
        with output.standard_output() as file:
            yield file
        return
    with replacing(to, UsageError) as file:
        yield file
