"""The commands `outbox …`, which look after the file that a tracker keeps events in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import attrs
from rich.filesize import decimal
from rich.table import Table

from intercom_data_events.cli import output
from intercom_data_events.cli.commands.exporting import opened, write_ndjson
from intercom_data_events.cli.exit_codes import UsageError
from intercom_data_events.outbox import DeadLetter, Outbox

# Dead letters that a person is shown, unless told otherwise.
_SHOWN = 100


def status(file: Path, *, as_json: bool) -> None:
    """Says what is in an outbox.

    Raises:
        OutboxError: It cannot be used.
    """
    now = time.time()
    with Outbox(file) as box:
        found = box.status(now)
    age = None if found.oldest is None else max(0.0, now - found.oldest)
    if as_json:
        output.result_json({"file": str(file), **attrs.asdict(found), "oldest_age": age})
        return
    whose = "for nobody yet" if found.address is None else f"for {found.address}"
    if found.workspace is not None:
        whose += f", workspace {found.workspace}"
    output.result(f"{file}: {decimal(found.size)}, {whose}")
    for count, what in (
        (found.queued - found.claimed - found.held, "waiting"),
        (found.claimed, "being sent by a process"),
        (found.held, "held back after a failure, until the next try"),
        (found.dead, "refused: dead letters"),
    ):
        output.result(f"{count:>12,} {what}")
    if found.oldest is not None and age is not None:
        output.result(
            f"The oldest was tracked at {_second(found.oldest)} UTC, {output.duration(age)} ago."
        )


def dead(file: Path, *, limit: int | None, as_json: bool) -> None:
    """Shows the dead letters of an outbox, oldest first.

    Args:
        file: The outbox.
        limit: How many at most.
        as_json: Whether to write JSON, all of them if there is no limit.

    Raises:
        OutboxError: It cannot be used.
    """
    with Outbox(file) as box:
        if as_json:
            for letter in islice(box.dead_letters(), limit):
                output.result_json(attrs.asdict(letter))
            return
        letters = list(islice(box.dead_letters(), _SHOWN if limit is None else limit))
        more = box.status().dead - len(letters)
    if letters:
        output.draw(_table(letters))
    else:
        output.message("No dead letters.")
    if letters and more > 0:
        output.message(f"{more:,} more: see them with --limit or --json.")


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
        raise UsageError("say which: numbers, as `outbox dead` shows them, or --all")
    if every:
        return None
    wanted = sorted(set(numbers))
    known = {letter.id for letter in box.dead_letters()}
    unknown = [str(number) for number in wanted if number not in known]
    if unknown:
        raise UsageError(
            f"there is no dead letter {', '.join(unknown)} in {box.path}: nothing was changed; "
            "`outbox dead` shows which there are"
        )
    return wanted


def _check_apart(file: Path, to: Path) -> None:
    """Checks that what is written is not the outbox, nor what SQLite keeps beside it."""
    parts = [file.with_name(f"{file.name}{end}") for end in ("", "-wal", "-shm")]
    if to.exists() and any(part.exists() and part.samefile(to) for part in parts):
        raise UsageError("--output names the outbox itself: name another place")


def _table(letters: Sequence[DeadLetter]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("number", justify="right")
    for heading in ("refused (UTC)", "event", "of", "error"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        fields = letter.event
        who = next((fields[name] for name in ("user_id", "email", "id") if fields.get(name)), "")
        table.add_row(
            str(letter.id),
            _second(letter.died_at),
            *(
                output.cell(text)
                for text in (
                    str(fields.get("event_name", "")),
                    str(who),
                    f"{letter.error}: {letter.message}",
                )
            ),
        )
    return table


def _second(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
