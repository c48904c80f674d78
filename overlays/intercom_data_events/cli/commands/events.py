"""The commands about one contact: `track`, `list`, `summary`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

from rich.table import Table

from intercom_data_events import (
    DataEventsClient,
    Event,
    InvalidInputError,
    ListedEvent,
)
from intercom_data_events._files import replacing
from intercom_data_events._validation import read_number, short_repr
from intercom_data_events.cli import charts, output
from intercom_data_events.cli.connection import Connection
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.importer import columns
from intercom_data_events.cli.times import AGO, moment
from intercom_data_events.timestamps import to_unix

# Few requests, and no page so large that it takes long; no maximum is documented.
_PER_PAGE = 50
# What --follow begins with.
_FOLLOWED = 10


def track(
    connection: Connection,
    event_name: str,
    identity: Mapping[str, str | None],
    created_at: str | None,
    metadata: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Sends one event.

    Raises:
        UsageError: A time or a piece of metadata that cannot be understood.
        IntercomError: It is refused, or failed.
    """
    if not any(identity.values()):
        raise UsageError("say whose event it is: --user-id, --email or --id")
    fields: dict[str, object] = {"event_name": event_name}
    fields.update((name, value) for name, value in identity.items() if value is not None)
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
            f"{event.event_name} of {whose} at {event.created_at:%Y-%m-%d %H:%M:%S} UTC: {done}"
        )


def list_events(
    connection: Connection,
    identity: Mapping[str, str | None],
    *,
    since: str | None,
    limit: int | None,
    follow: float | None,
    plot: bool,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Lists a contact's events, or draws them, or goes on showing new ones.

    Args:
        connection: How to reach Intercom.
        identity: Exactly one of user_id, email and intercom_user_id.
        since: A time, as a person types it, from which on.
        limit: How many at most.
        follow: Seconds between two looks for new ones; None to end.
        plot: Whether to draw what happened when.
        svg: Where to write that as SVG.
        as_json: Whether to write JSON.

    Raises:
        UsageError: A time that cannot be understood.
        IntercomError: Intercom refuses it, or it failed.
    """
    _check_one(identity)
    begin = None if since is None else read_time(since, "--since")
    with DataEventsClient(**connection.to_read()) as client:
        if follow is not None:
            _follow(client, identity, begin, limit, follow, as_json=as_json)
            return
        events: Iterable[ListedEvent] = recent(client, identity, begin, limit)
        if plot or svg is not None:
            events = list(events)
            _draw_list(events, _whose(identity), plot=plot, svg=svg)
            if not as_json:
                return
        for event in events:
            _show(event, as_json=as_json)


def recent(
    client: DataEventsClient,
    identity: Mapping[str, str | None],
    begin: datetime | None,
    limit: int | None = None,
) -> Iterator[ListedEvent]:
    """A contact's events from a time on, newest first, at most so many.

    Raises:
        IntercomError: Intercom refuses it, or it failed.
    """
    return _until(iter(client.list(**identity, per_page=_PER_PAGE, limit=limit)), begin)


def read_time(text: str, flag: str) -> datetime:
    """Reads a time as a person types it.

    Raises:
        UsageError: It is none.
    """
    try:
        return moment(text, datetime.now(UTC))
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def summarise(
    connection: Connection,
    identity: Mapping[str, str | None],
    *,
    plot: bool,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Counts a contact's events by name.

    Raises:
        IntercomError: Intercom refuses it, or it failed.
    """
    _check_one(identity)
    with DataEventsClient(**connection.to_read()) as client:
        found = client.summary(**identity)
    if as_json:
        output.result_json(
            [
                {
                    "name": one.name,
                    "count": one.count,
                    "first": one.first,
                    "last": one.last,
                    "description": one.description,
                    **one.additional_properties,
                }
                for one in found
            ]
        )
    if plot or svg is not None:
        spans = [charts.Span(one.name or "", one.count, one.first, one.last) for one in found]
        if plot and not as_json:
            drawn = charts.counts(spans, width=output.width(), ascii=output.is_ascii())
            output.draw(drawn.drawn)
        if svg is not None:
            _write(svg, charts.counts(spans), _whose(identity))
    elif not as_json:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("event", "count", "first (UTC)", "last (UTC)", "description"):
            table.add_column(heading, justify="right" if heading == "count" else "left")
        for one in found:
            table.add_row(
                output.cell(one.name or "-"),
                "-" if one.count is None else f"{one.count:,}",
                output.second(one.first),
                output.second(one.last),
                output.cell(one.description or "-"),
            )
        output.draw(table)


def _check_one(identity: Mapping[str, str | None]) -> None:
    given = sum(value is not None for value in identity.values())
    if given != 1:
        said = "none is given" if given == 0 else f"{given} are given"
        raise UsageError(f"say whose events, by one of --user-id, --email and --id: {said}")


def _created_at(text: str) -> int:
    """Reads Unix seconds, or a time as a person types it; not one with parts of a second."""
    if text.strip().isdecimal() and (seconds := read_number(text)) is not None:
        return to_unix(seconds, "--created-at")
    read = read_time(text, "--created-at")
    if read.microsecond and not AGO.fullmatch(text.strip().lower()):
        raise UsageError(
            f"--created-at is {short_repr(text)}, and the API counts whole seconds: leave out the "
            "fraction"
        )
    return to_unix(read, "--created-at")


def _metadata(given: Sequence[str]) -> object:
    """Reads KEY=VALUE as columns ``metadata.KEY`` of a CSV file are read."""
    pairs: dict[str, str] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign or not key:
            raise UsageError(f"--metadata {short_repr(one)} is not KEY=VALUE, as plan=pro")
        if key in pairs:
            raise UsageError(f"--metadata has the key {short_repr(key)} twice")
        pairs[key] = value
    try:
        return columns.read_metadata(pairs)
    except columns.ColumnError as error:
        raise UsageError(f"--metadata: {error}") from error


def _follow(
    client: DataEventsClient,
    identity: Mapping[str, str | None],
    begin: datetime | None,
    limit: int | None,
    interval: float,
    *,
    as_json: bool,
) -> None:
    """Shows the last events, oldest first, and then new ones as they come."""
    pages = client.list(**identity, per_page=_PER_PAGE, limit=None).pages()
    first = next(pages)
    cursor = first.since
    if limit is None and begin is None:
        limit = _FOLLOWED
    events = (event for page in chain([first], pages) for event in page.events)
    kept = list(islice(_until(events, begin), limit))
    while True:
        for event in reversed(kept):
            _show(event, as_json=as_json)
        if cursor is None:
            raise InvalidInputError(
                "Intercom's answer has no cursor to ask with for what is new, so there is nothing "
                "to follow by"
            )
        time.sleep(interval)
        found = list(client.list(**identity, since=cursor, per_page=None, limit=None).pages())
        # The first page is the newest, and its cursor the next to ask with.
        cursor = found[0].since or cursor
        kept = [event for page in found for event in page.events]


def _until(events: Iterator[ListedEvent], begin: datetime | None) -> Iterator[ListedEvent]:
    for event in events:
        # Newest first (documented): nothing younger follows.
        if begin is not None and event.created_at is not None and event.created_at < begin:
            return
        yield event


def _show(event: ListedEvent, *, as_json: bool) -> None:
    if as_json:
        output.result_json(event.to_dict())
    else:
        output.line(output.event_line(event.event_name, event.created_at, event.metadata))


def _draw_list(events: Sequence[ListedEvent], whose: str, *, plot: bool, svg: Path | None) -> None:
    moments = [
        (event.event_name or "", event.created_at)
        for event in events
        if event.created_at is not None
    ]
    if unknown := len(events) - len(moments):
        output.message(f"{unknown:,} events have no time that can be read; they are not drawn.")
    if not moments:
        unwritten = f"{svg} is not written" if svg is not None else "there is nothing to draw"
        output.message(f"No events: {unwritten}.")
        return
    if plot:
        chart = charts.timeline(moments, width=output.width(), ascii=output.is_ascii())
        output.draw(chart.drawn)
    if svg is not None:
        _write(svg, charts.timeline(moments), whose)


def _write(path: Path, chart: charts.Chart, whose: str) -> None:
    with replacing(path, UsageError) as file:
        file.write(charts.svg(chart, f"Events of {whose}"))
    output.message(f"Written: {path}")


def _whose(identity: Mapping[str, str | None]) -> str:
    return next((value for value in identity.values() if value), "")
