"""The commands `outbox …`, which maintain the file that a tracker keeps events in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import attrs
from rich.filesize import decimal
from rich.table import Table

from intercom_data_events import metadata
from intercom_data_events.cli import output
from intercom_data_events.cli.commands.exporting import opened, write_ndjson
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.cli.output import Shape
from intercom_data_events.outbox import DeadLetter, Outbox

# Dead letters that a table shows, unless told otherwise.
_SHOWN = 100
_IDENTITIES = ("user_id", "email", "id")
_LETTERS = {
    "id": "number",
    "died_at": "refused (UTC)",
    "event_name": "event",
    "contact": "contact",
    "reason": "error",
}
_REASON = 26  # Characters: the longest of our own.
_NAME = 30  # Columns, of the names of fields, which others may have made.
_FIELDS = ("id", "tracked_at", "died_at", "error", "status", "request_id", "message", "event")


def status(file: Path, *, shape: Shape) -> None:
    """Says what is in an outbox.

    Raises:
        OutboxError: It cannot be used.
    """
    now = time.time()
    with Outbox(file) as box:
        found = box.status(now)
    age = None if found.oldest is None else max(0.0, now - found.oldest)
    oldest = None if found.oldest is None else _moment(found.oldest)
    if shape is not Shape.TABLE:
        record = {"file": str(file), **attrs.asdict(found), "oldest": oldest, "oldest_age": age}
        output.rows(shape, dict.fromkeys(record, ""), [record])
        return
    whose = f"for {found.address}" if found.address else "not used by a tracker yet"
    if found.workspace is not None:
        whose += f", workspace {found.workspace}"
    output.result(f"{file}: {decimal(found.size)}, {whose}")
    for count, what in (
        (found.queued - found.claimed - found.held, "waiting"),
        (found.claimed, "being sent by a process"),
        (found.held, "delayed after a failure, until the next attempt"),
        (found.dead, "refused: dead letters"),
    ):
        output.result(f"{count:>12,} {what}")
    if age is not None:
        output.result(
            f"The oldest was tracked at {output.moment(oldest)}, {output.duration(age)} ago."
        )


def dead(file: Path, *, limit: int | None, shape: Shape) -> None:
    """Lists the dead letters of an outbox, oldest first; a table has a line for each.

    Args:
        file: The outbox.
        limit: How many at most; None for all, or for as many as a table shows.
        shape: How to write them.

    Raises:
        OutboxError: It cannot be used.
    """
    with Outbox(file) as box:
        if shape is not Shape.TABLE:
            letters = map(_letter, islice(box.dead_letters(), limit))
            output.rows(shape, dict.fromkeys(_FIELDS, ""), letters)
            return
        shown = [*islice(box.dead_letters(), _SHOWN if limit is None else limit)]
        more = box.status().dead - len(shown)
    if not shown:
        output.message("No dead letters.")
        return
    output.rows(shape, _LETTERS, map(_short, shown), cut=("event_name", "contact"))
    if more > 0:
        output.message(f"{more:,} more: see them with --limit or --json.")
    output.message(f"See one whole: intercom-events outbox show {output.word(file)} NUMBER")


def show(file: Path, number: int, *, waiting: bool, as_json: bool) -> None:
    """Shows one dead letter, or one waiting event, with all there is of it.

    Args:
        file: The outbox.
        number: That of a dead letter; or the place of a waiting event, 1 for the oldest.
        waiting: Whether a waiting event is meant.
        as_json: Whether to write JSON.

    Raises:
        UsageError: There is none of that number.
        OutboxError: It cannot be used.
    """
    found: Iterator[dict[str, object]]
    with Outbox(file) as box:
        if waiting:
            found = ({"event": event} for event in islice(box.waiting(), number - 1, number))
        else:
            found = (_letter(letter) for letter in box.dead_letters() if letter.id == number)
        record = next(found, None)
    if record is None:
        kind, see = ("waiting event", "export") if waiting else ("dead letter", "dead")
        raise UsageError(
            f"{file} has no {kind} {number}; see which there are with: "
            f"intercom-events outbox {see} {output.word(file)}"
        )
    if as_json:
        output.result_json(record)
        return
    event = dict(event) if isinstance(event := record.pop("event"), Mapping) else {"event": event}
    if isinstance(inner := event.get("metadata"), Mapping):
        del event["metadata"]
        event |= {f"metadata.{key}": value for key, value in inner.items()}
    known = {name: value for name, value in record.items() if value is not None}
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", overflow="fold", max_width=_NAME)
    grid.add_column(overflow="fold")
    for name, value in {**known, **metadata.decode(event)}.items():
        grid.add_row(output.cell(name), output.cell(output.shown(value)))
    output.draw(grid)
    if not waiting:
        again, away = (
            f"intercom-events outbox {verb} {output.word(file)} {number}"
            for verb in ("retry", "forget")
        )
        output.message(f"Once the cause is gone, send it again: {again}; or delete it: {away}")


def retry(file: Path, numbers: Sequence[int], *, every: bool, as_json: bool) -> None:
    """Puts dead letters back into the queue.

    Args:
        file: The outbox.
        numbers: Which.
        every: Whether to take all instead.
        as_json: Whether to write JSON.

    Raises:
        UsageError: It is not said which, or one of them is not there; nothing is changed.
        OutboxError: It cannot be used.
    """
    with Outbox(file) as box:
        count = box.retry(_chosen(box, numbers, every=every))
    if as_json:
        output.result_json({"file": str(file), "retried": count})
        return
    output.result(f"{output.counted(count)} put back into the queue.")
    if count:
        output.message(
            "A tracker that has the file open sends what is in it; so does: "
            f"intercom-events outbox drain {output.word(file)}"
        )


def forget(file: Path, numbers: Sequence[int], *, every: bool, as_json: bool) -> None:
    """Deletes dead letters; the arguments and errors are those of :func:`retry`."""
    with Outbox(file) as box:
        count = box.forget(_chosen(box, numbers, every=every))
    if as_json:
        output.result_json({"file": str(file), "forgotten": count})
    else:
        output.result(f"{output.counted(count)} deleted.")


def compact(file: Path, *, as_json: bool) -> None:
    """Makes an outbox as small as what is in it, and tells its sizes.

    Args:
        file: The outbox.
        as_json: Whether to write JSON.

    Raises:
        OutboxLockedError: Another process is reading or writing it.
        OutboxError: It cannot be used.
    """
    with Outbox(file) as box:
        before = box.status().size
        after = box.compact()
    if as_json:
        output.result_json({"file": str(file), "size_before": before, "size": after})
        return
    sizes = f"{decimal(before)} before, {decimal(after)} now"
    output.result(f"{file}: {sizes}")


def export(file: Path, *, refused: bool, to: Path | None, quiet: bool) -> None:
    """Writes what is in an outbox as `import` reads it; it stays there.

    Args:
        file: The outbox.
        refused: Whether to write the dead letters instead of what waits.
        to: Where to; None for standard output.
        quiet: Whether nothing is told.

    Raises:
        UsageError: It would be written over the outbox.
        OutboxError: The outbox cannot be used.
        OSError: It cannot be written.
    """
    with Outbox(file) as box:
        if to is not None:
            _check_apart(file, to)
        events: Iterable[Mapping[str, object]] = (
            (letter.event for letter in box.dead_letters()) if refused else box.waiting()
        )
        with opened(to) as target:
            count = write_ndjson(events, target)
    if not quiet:
        where = to if to is not None else "standard output"
        output.message(f"{output.counted(count)} written to {where}.")


def _chosen(box: Outbox, numbers: Sequence[int], *, every: bool) -> list[int] | None:
    """Which dead letters are meant; None for all.

    Raises:
        UsageError: That is not said, or one of them is not there.
    """
    if every == bool(numbers):
        raise UsageError("pass the numbers that `outbox dead` shows, or --all")
    if every:
        return None
    wanted = sorted(set(numbers))
    known = {letter.id for letter in box.dead_letters()}
    unknown = [str(number) for number in wanted if number not in known]
    if unknown:
        raise UsageError(
            f"there is no dead letter {', '.join(unknown)} in {box.path}, so nothing was changed; "
            f"see which there are with: intercom-events outbox dead {output.word(box.path)}"
        )
    return wanted


def _check_apart(file: Path, to: Path) -> None:
    """Checks that what is written is not the outbox, nor what SQLite keeps beside it."""
    parts = [file.with_name(f"{file.name}{end}") for end in ("", "-wal", "-shm")]
    if to.exists() and any(part.exists() and part.samefile(to) for part in parts):
        raise UsageError("--output names the outbox itself: name another place")


def _letter(letter: DeadLetter) -> dict[str, object]:
    """All of a dead letter."""
    times = {name: _moment(getattr(letter, name)) for name in ("tracked_at", "died_at")}
    record = {**attrs.asdict(letter), **times}
    return {name: record[name] for name in _FIELDS}


def _short(letter: DeadLetter) -> dict[str, object]:
    """What a line has room for."""
    who = next((letter.event[name] for name in _IDENTITIES if letter.event.get(name)), None)
    # Words of the error's name, such as "not found".
    reason = re.sub("(?<=[a-z])(?=[A-Z])", " ", letter.error.removesuffix("Error")).lower()
    return {
        "id": str(letter.id),
        "died_at": f"{_moment(letter.died_at):%Y-%m-%d %H:%M}",
        "event_name": letter.event.get("event_name"),
        "contact": who,
        "reason": f"{letter.status or ''} {reason}".strip()[:_REASON],
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
