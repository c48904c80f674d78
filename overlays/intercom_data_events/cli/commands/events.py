"""The commands for one contact: `track`, `list` and `summary`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

from intercom_data_events import (
    DataEventsClient,
    Event,
    InvalidInputError,
    ListedEvent,
)
from intercom_data_events._counting import counted
from intercom_data_events._files import replacing
from intercom_data_events._validation import read_number, short_repr
from intercom_data_events.cli import charts, output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer import columns
from intercom_data_events.cli.options import Contact, Form, command
from intercom_data_events.cli.output import Shape
from intercom_data_events.cli.times import AGO, moment
from intercom_data_events.timestamps import to_unix

# The fields of a listed event, and those of a summary with their headings in a table.
_FIELDS = ("event_name", "created_at", "user_id", "email", "intercom_user_id", "id", "metadata")
_COUNTED = {
    "name": "event",
    "count": "count",
    "first": "first (UTC)",
    "last": "last (UTC)",
    "description": "description",
}
# A compromise between few requests and short waits; no maximum is documented.
_PER_PAGE = 50
# Seconds.
_DAY = 24 * 60 * 60
# Events that --follow shows first.
_FOLLOWED = 10


@command(
    "track placed-order --user-id 314159 --metadata plan=pro",
    "track placed-order --email a@b.co --created-at 2026-01-31 \\\n"
    "    -m price.amount=2999 -m price.currency=usd -m order_number:text=3434",
    sends=True,
)
def track(
    event_name: str,
    *,
    contact: Contact,
    created_at: str | None = None,
    metadata: list[str] | None = None,
    as_json: bool = False,
    connection: Connection,
) -> None:
    """Send one event."""
    fields: dict[str, object] = {"event_name": event_name, **contact.to_send()}
    if created_at is not None:
        fields["created_at"] = _created_at(created_at)
    if metadata:
        fields["metadata"] = _metadata(metadata)
    event = Event.from_dict(fields)
    with DataEventsClient(**connection.options()) as client:
        client.send(event)
    if as_json:
        status = "accepted" if connection.sends else "checked"
        output.result_json({"status": status, "event": event.to_dict()})
    else:
        whose = event.user_id or event.email or event.id or ""
        done = "accepted" if connection.sends else "would be sent"
        output.result(
            f"{event.event_name} for {whose} at {output.moment(event.created_at)}: {done}"
        )
        for key, value in event.metadata.items():
            output.result(f"  {key}: {output.shown(value)}")


@command(
    "list --user-id 314159 --since 7d",
    "list --email a@b.co --limit 10 --json",
    "list --user-id 314159 --plot --svg events.svg",
    "list --user-id 314159 --follow",
)
def list_(
    *,
    contact: Contact,
    since: str | None = None,
    limit: int | None = None,
    follow: bool = False,
    interval: float = 5,
    plot: bool = False,
    svg: Path | None = None,
    form: Form,
    connection: Connection,
) -> None:
    """List a contact's events of the last 90 days, newest first."""
    if follow and (plot or svg):
        chart = "--plot" if plot else "--svg"
        raise UsageError(f"pass either --follow or {chart}, not both")
    if not 0.1 <= interval <= _DAY:
        raise UsageError(f"--interval must be from 0.1 to {_DAY:,} seconds, not {interval:g}")
    shape, whose = form.shape(plot=plot), contact.to_ask()
    begin = None if since is None else read_time(since, "--since")
    with DataEventsClient(**connection.to_read()) as client:
        events: Iterable[ListedEvent]
        if follow:
            events = _followed(client, whose, begin, limit, interval)
        else:
            events = recent(client, whose, begin, limit)
        if plot or svg is not None:
            events = list(events)
            _draw(charts.timeline, _moments(events), whose, plot=plot, svg=svg)
            if shape is Shape.TABLE:
                return
        if shape is Shape.TABLE:
            event = None
            for event in events:
                output.line(output.event_line(event.event_name, event.created_at, event.metadata))
            if event is None:
                output.message("No events.")
            return
        records = (event.to_dict() for event in events)
        if shape is Shape.CSV:
            records = ({**event.to_dict(), "created_at": event.created_at} for event in events)
        output.rows(shape, dict.fromkeys(_FIELDS, ""), records)


def recent(
    client: DataEventsClient,
    identity: Mapping[str, str],
    begin: datetime | None,
    limit: int | None = None,
) -> Iterator[ListedEvent]:
    """Returns a contact's events since a time, newest first, at most `limit`.

    Raises:
        IntercomError: A request failed or was rejected.
    """
    return _until(iter(client.list(**identity, per_page=_PER_PAGE, limit=limit)), begin)


def read_time(text: str, flag: str) -> datetime:
    """Reads a time that the user typed.

    Raises:
        UsageError: It is not a time.
    """
    try:
        return moment(text, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"{flag} {error}") from error


@command("summary --user-id 314159", "summary --email a@b.co --plot")
def summary(
    *,
    contact: Contact,
    plot: bool = False,
    svg: Path | None = None,
    form: Form,
    connection: Connection,
) -> None:
    """Count all events of a contact by name, of any age."""
    shape, whose = form.shape(plot=plot), contact.to_ask()
    with DataEventsClient(**connection.to_read()) as client:
        found = client.summary(**whose)
    records = [{name: getattr(one, name) for name in _COUNTED} for one in found]
    if shape is Shape.JSON:
        whole = [
            {**record, **one.additional_properties}
            for record, one in zip(records, found, strict=True)
        ]
        output.result_json({**whose, "events": whole})
    elif shape is Shape.CSV:
        output.rows(shape, _COUNTED, records)
    if plot or svg is not None:
        is_shown = plot and shape is Shape.TABLE
        _draw(charts.counts, found.events, whose, plot=is_shown, svg=svg)
    elif shape is Shape.TABLE and not records:
        output.message("No events.")
    elif shape is Shape.TABLE:
        for record in records:
            record |= {name: output.second(record[name]) for name in ("first", "last")}
        output.rows(shape, _COUNTED, records, cut=("name", "description"))


def _created_at(text: str) -> int:
    """Reads Unix seconds or a time that the user typed; rejects fractions of a second."""
    if text.strip().isdecimal() and (seconds := read_number(text)) is not None:
        return to_unix(seconds, "--created-at")
    read = read_time(text, "--created-at")
    if read.microsecond and not AGO.fullmatch(text.strip().lower()):
        raise UsageError(
            f"--created-at must be in whole seconds, not {short_repr(text)}; leave out the fraction"
        )
    return to_unix(read, "--created-at")


def _metadata(given: Sequence[str]) -> object:
    """Reads KEY=VALUE pairs in the same way as columns ``metadata.KEY`` of a CSV file."""
    pairs: dict[str, str] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign or not key:
            raise UsageError(
                f"--metadata must be KEY=VALUE, such as plan=pro, not {short_repr(one)}"
            )
        if key in pairs:
            raise UsageError(
                f"--metadata must have the key {short_repr(key)} only once; remove one"
            )
        pairs[key] = value
    try:
        return columns.read_metadata(pairs)
    except columns.ColumnError as error:
        raise UsageError(f"--metadata: {error}") from error


def _followed(
    client: DataEventsClient,
    identity: Mapping[str, str],
    begin: datetime | None,
    limit: int | None,
    interval: float,
) -> Iterator[ListedEvent]:
    """Yields the last events, oldest first, then new ones as they arrive, endlessly."""
    pages = client.list(**identity, per_page=_PER_PAGE, limit=None).pages()
    first = next(pages)
    cursor = first.since
    if limit is None and begin is None:
        limit = _FOLLOWED
    events = (event for page in chain([first], pages) for event in page.events)
    kept = list(islice(_until(events, begin), limit))
    while True:
        yield from reversed(kept)
        if cursor is None:
            raise InvalidInputError(
                "--follow requires a cursor for newer events, but Intercom's answer has none; "
                "run the command without --follow"
            )
        time.sleep(interval)
        found = list(client.list(**identity, since=cursor, per_page=None, limit=None).pages())
        # The first page is the newest; the next request needs its cursor.
        cursor = found[0].since or cursor
        kept = [event for page in found for event in page.events]


def _until(events: Iterator[ListedEvent], begin: datetime | None) -> Iterator[ListedEvent]:
    for event in events:
        # Documented: the newest event comes first, so all further ones are older.
        if begin is not None and event.created_at is not None and event.created_at < begin:
            return
        yield event


def _moments(events: Iterable[ListedEvent]) -> list[tuple[str, datetime]]:
    """Returns the names and times for a timeline; reports events without a readable time."""
    times = [(event.event_name or "", event.created_at) for event in events]
    known = [(name, at) for name, at in times if at is not None]
    if unknown := len(times) - len(known):
        output.message(f"Left out of the chart: {counted(unknown)} without a readable time.")
    return known


def _draw(
    draw: Callable[..., charts.Chart],
    found: Sequence[Any],
    identity: Mapping[str, str],
    *,
    plot: bool,
    svg: Path | None,
) -> None:
    """Draws a chart to the terminal, a file, or both."""
    if not found:
        unwritten = f"{svg} is not written" if svg is not None else "there is nothing to draw"
        output.message(f"No events; {unwritten}.")
        return
    if plot:
        output.draw(draw(found, width=output.width(), ascii=output.is_ascii()).drawn)
    if svg is not None:
        [whose] = identity.values()
        with replacing(svg, UsageError) as file:
            file.write(charts.svg(draw(found), f"Events of {whose}"))
        output.message(f"Chart written to {svg}.")
