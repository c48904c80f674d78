"""The commands `outbox …`, which manage the file in which a tracker stores unsent events."""

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
from intercom_data_events._counting import counted
from intercom_data_events.cli import output
from intercom_data_events.cli.commands.exporting import opened, write_ndjson
from intercom_data_events.cli.exit_codes import Exit, UsageError
from intercom_data_events.cli.options import Form, command
from intercom_data_events.cli.output import Shape
from intercom_data_events.outbox import DeadLetter, Outbox

# The exit codes of commands that make no request.
_LOCAL = (Exit.DONE, Exit.USAGE, Exit.FAILED, Exit.INTERRUPTED)
# Dead letters in a table by default.
_SHOWN = 100
_IDENTITIES = ("user_id", "email", "id")
_LETTERS = {
    "id": "number",
    "died_at": "rejected (UTC)",
    "event_name": "event",
    "contact": "contact",
    "reason": "error",
}
_REASON = 26  # Characters; none of our own reasons is longer.
_NAME = 30  # Columns of field names, which may come from elsewhere.
_FIELDS = dict.fromkeys(attrs.fields_dict(DeadLetter), "")


@command("outbox status events.outbox", "outbox status events.outbox --json", codes=_LOCAL)
def status(file: Path, *, form: Form) -> None:
    """Show how many events are waiting, and how many were rejected."""
    shape = form.shape()
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
        (found.claimed, "in flight"),
        (found.held, "delayed after a failure until the next attempt"),
        (found.dead, "rejected (dead letters)"),
    ):
        output.result(f"{count:>12,} {what}")
    if age is not None:
        output.result(
            f"The oldest was tracked at {output.moment(oldest)}, {output.duration(age)} ago."
        )


@command("outbox dead events.outbox", "outbox dead events.outbox --limit 5 --json", codes=_LOCAL)
def dead(file: Path, *, limit: int | None = None, form: Form) -> None:
    """List rejected events (dead letters) and the reasons, oldest first."""
    shape = form.shape()
    with Outbox(file) as box:
        if shape is not Shape.TABLE:
            letters = map(_letter, islice(box.dead_letters(), limit))
            output.rows(shape, _FIELDS, letters)
            return
        shown = [*islice(box.dead_letters(), _SHOWN if limit is None else limit)]
        more = box.status().dead - len(shown)
    if not shown:
        output.message("No dead letters.")
        return
    output.rows(shape, _LETTERS, map(_short, shown), cut=("event_name", "contact"))
    if more > 0:
        output.message(f"{more:,} more; pass --limit or --json to see them.")
    output.message(
        f"To see one in full, run: intercom-events outbox show {output.word(file)} NUMBER"
    )


@command(
    "outbox show events.outbox 17", "outbox show events.outbox 1 --waiting --json", codes=_LOCAL
)
def show(file: Path, number: int, *, waiting: bool = False, as_json: bool = False) -> None:
    """Show one event in full: fields, metadata, error and remedy."""
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
            f"{file} has no {kind} {number}; to list them, run: "
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
        output.message(
            f"To send it again after fixing the cause, run: {again}; to delete it, run: {away}"
        )


@command("outbox retry events.outbox 17 18", "outbox retry events.outbox --all", codes=_LOCAL)
def retry(
    file: Path, numbers: list[int] | None = None, *, every: bool = False, as_json: bool = False
) -> None:
    """Put dead letters back into the queue.

    A tracker that uses the file, or `outbox drain`, sends them again.
    """
    with Outbox(file) as box:
        count = box.retry(_chosen(file, box, numbers, every=every))
    if as_json:
        output.result_json({"file": str(file), "retried": count})
        return
    output.result(f"{counted(count)} put back into the queue.")
    if count:
        output.message(
            "A tracker that uses the file sends the queue; without one, run: "
            f"intercom-events outbox drain {output.word(file)}"
        )


@command("outbox forget events.outbox 17 18", "outbox forget events.outbox --all", codes=_LOCAL)
def forget(
    file: Path, numbers: list[int] | None = None, *, every: bool = False, as_json: bool = False
) -> None:
    """Delete dead letters permanently.

    To keep a copy, run `outbox export --dead` first.
    """
    with Outbox(file) as box:
        count = box.forget(_chosen(file, box, numbers, every=every))
    if as_json:
        output.result_json({"file": str(file), "forgotten": count})
    else:
        output.result(f"{counted(count)} deleted.")


@command("outbox compact events.outbox", "outbox compact events.outbox --json", codes=_LOCAL)
def compact(file: Path, *, as_json: bool = False) -> None:
    """Shrink the file to the size of its contents.

    An outbox shrinks automatically, but one from an earlier version does so only after this
    command. It needs free disk space of twice the size of the contents. While it runs,
    applications that use the file wait; tracking an event may raise OutboxLockedError after 1 s.
    """
    with Outbox(file) as box:
        before = box.status().size
        after = box.compact()
    if as_json:
        output.result_json({"file": str(file), "size_before": before, "size": after})
        return
    sizes = f"{decimal(before)} before, {decimal(after)} now"
    output.result(f"{file}: {sizes}")


@command(
    "outbox export events.outbox > waiting.ndjson",
    "outbox export events.outbox --dead -o refused.ndjson",
    codes=_LOCAL,
)
def export(
    file: Path,
    *,
    dead: bool = False,
    to: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,  # noqa: ARG001  # it writes NDJSON in any case
) -> None:
    """Write waiting events or dead letters in a format that `import` reads.

    The format is NDJSON. The events stay in the outbox: before you import them, stop all processes
    that use the outbox. Sending is idempotent: an event that is sent twice is stored once.
    """
    with Outbox(file) as box:
        if to is not None:
            _check_apart(file, to)
        events: Iterable[Mapping[str, object]] = (
            (letter.event for letter in box.dead_letters()) if dead else box.waiting()
        )
        with opened(to) as target:
            count = write_ndjson(events, target)
    if not quiet:
        where = to if to is not None else "standard output"
        output.message(f"{counted(count)} written to {where}.")


def _chosen(
    file: Path, box: Outbox, numbers: Sequence[int] | None, *, every: bool
) -> list[int] | None:
    """Returns the numbers of the chosen dead letters; None for all.

    Raises:
        UsageError: None is chosen, or one of them does not exist.
    """
    if every == bool(numbers):
        raise UsageError("pass either numbers that `outbox dead` shows, or --all")
    if every:
        return None
    wanted = sorted(set(numbers or ()))
    known = {letter.id for letter in box.dead_letters()}
    unknown = [str(number) for number in wanted if number not in known]
    if unknown:
        raise UsageError(
            f"{file} has no dead letter {', '.join(unknown)}, so nothing was changed; to list "
            f"them, run: intercom-events outbox dead {output.word(file)}"
        )
    return wanted


def _check_apart(file: Path, to: Path) -> None:
    """Checks that the output is neither the outbox nor one of SQLite's files beside it."""
    parts = [file.with_name(f"{file.name}{end}") for end in ("", "-wal", "-shm")]
    if to.exists() and any(part.exists() and part.samefile(to) for part in parts):
        raise UsageError("--output must not be the outbox itself; choose another path")


def _letter(letter: DeadLetter) -> dict[str, object]:
    """Returns a dead letter in full."""
    times = {name: _moment(getattr(letter, name)) for name in ("tracked_at", "died_at")}
    return {**attrs.asdict(letter), **times}


def _short(letter: DeadLetter) -> dict[str, object]:
    """Returns the parts of a dead letter that fit on a line."""
    who = next((letter.event[name] for name in _IDENTITIES if letter.event.get(name)), None)
    # The error's name as words, such as "not found".
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
