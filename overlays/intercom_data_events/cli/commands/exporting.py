"""The command `export`: contacts' events, as `import` reads them."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from intercom_data_events import DataEventsClient, ListedEvent
from intercom_data_events._files import replacing
from intercom_data_events._validation import printable
from intercom_data_events.cli import output
from intercom_data_events.cli.commands.events import read_time, recent
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer import columns


def export(
    connection: Connection,
    asked: Sequence[tuple[str, str]],
    *,
    since: str | None,
    as_csv: bool,
    to: Path | None,
    quiet: bool,
) -> None:
    """Writes the events of several contacts.

    Args:
        connection: How to reach Intercom.
        asked: Kinds of identities, and identities.
        since: A time, as a person types it, from which on.
        as_csv: Whether to write CSV instead of NDJSON.
        to: Where to; None for standard output.
        quiet: Whether nothing is told.

    Raises:
        UsageError: Nobody is asked for, or the time cannot be understood.
        IntercomError: Intercom refuses it, or it failed.
        OSError: It cannot be written.
    """
    if not asked:
        raise UsageError("say whose events: --user-id, --email or --id")
    begin = None if since is None else read_time(since, "--since")
    with DataEventsClient(**connection.to_read()) as client, opened(to) as file:
        events = (
            _to_import(event)
            for kind, value in asked
            for event in recent(client, {kind: value}, begin)
        )
        count = _write_csv(events, file) if as_csv else write_ndjson(events, file)
    if not quiet:
        where = to if to is not None else "standard output"
        output.message(f"{count:,} events of {len(asked):,} contacts written to {where}.")


def _to_import(event: ListedEvent) -> dict[str, object]:
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


def _write_csv(events: Iterator[Mapping[str, object]], file: TextIO) -> int:
    """Writes a table; its columns are known when all events are."""
    rows = [columns.flatten(fields) for fields in events]
    names = dict.fromkeys(("event_name", "created_at", *(name for row in rows for name in row)))
    table = io.StringIO(newline="") if file.isatty() else file
    writer = csv.DictWriter(table, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    if isinstance(table, io.StringIO):  # A person looks at it: nothing in it is to steer.
        file.writelines(f"{printable(line, None)}\n" for line in table.getvalue().splitlines())
    return len(rows)


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
