"""The records of a source that earlier runs of an import have not done."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

import anyio.lowlevel
from attrs import define, field

from intercom_data_events import Event
from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer import events, parquet
from intercom_data_events.cli.importer.journal import Journal, Read
from intercom_data_events.cli.importer.records import Format, Reader, Record, SourceError
from intercom_data_events.cli.importer.source import Source
from intercom_data_events.errors import InvalidInputError


async def _attentively(batches: Iterable[list[Record]]) -> AsyncIterator[list[Record]]:
    """Yields batches, and lets the caller cancel between them; short records give many."""
    for batch in batches:
        await anyio.lowlevel.checkpoint()
        yield batch


@define
class Input:
    """Records of a source, which is compared with what earlier runs read by their journal.

    Args:
        source: The input.
        format: The format, or None to detect it.
        journal: The journal of earlier runs, if there is one.
        stamp_now: Whether events without `created_at` get the current second.
        drop_unsupported: Whether to leave out metadata that the API does not support.

    Attributes:
        reader: The reader that finds the records in the text.
        before: How many records earlier runs have done.
    """

    source: Source
    format: Format | None
    journal: Journal | None
    stamp_now: bool
    drop_unsupported: bool = False
    reader: Reader = field(init=False)
    before: int = 0
    _is_parquet: bool = field(init=False)
    _begun: int = field(factory=lambda: int(time.time()), init=False)

    def __attrs_post_init__(self) -> None:
        self._is_parquet = self.format is Format.PARQUET or (
            self.format is None and self.source.begins_with(parquet.MAGIC)
        )
        if self._is_parquet and self.source.size is None:
            raise SourceError(f"{self.source.name} cannot be Parquet; pass the path of a file")
        self.reader = Reader(Format.NDJSON if self._is_parquet else self.format)

    async def batches(self) -> AsyncIterator[list[Record]]:
        """Reads the input, and records in the journal how far, before it yields the records.

        Yields:
            The records that earlier runs have not done, each with its event or a problem.

        Raises:
            SourceError: The input can no longer be read, or was changed between runs.
            StoppedError: The input was changed during this run, or is truncated.
            JournalError: The journal cannot be written.
        """
        known = deque(self.journal.reads if self.journal is not None else ())
        digest = hashlib.blake2b(digest_size=16)
        read = line = 0
        async for piece in self._pieces():
            rest = piece
            while rest:
                if line > self.reader.lines and not rest.startswith((b"\n", b"\r")):
                    raise self._changed(f"line {line:,} had no line ending and was continued")
                # A journal can have many positions, and each takes a while.
                await anyio.lowlevel.checkpoint()
                # Up to the next position at which the text can be compared.
                part = rest[: known[0].position - read] if known else rest
                rest = rest[len(part) :]
                digest.update(part)
                read += len(part)
                compared = line
                while known and known[0].position == read:
                    if known[0].digest != digest.hexdigest():
                        first, last = compared + 1, known[0].line
                        lines = f"lines {first:,} to {last:,} are"
                        if first == last:
                            lines = f"line {last:,} is"
                        raise self._changed(f"{lines} no longer the same")
                    compared = known.popleft().line
                now = self._now()
                batches = [
                    batch async for batch in _attentively(self._named(self.reader.feed(part)))
                ]
                line = compared
                if not known and self.journal is not None and read > self.journal.position:
                    self._note_read(read, digest.hexdigest(), now)
                async for batch in _attentively(batches):
                    yield list(self._checked(batch, now))
        if known:
            raise self._changed(
                f"its text has {read:,} bytes, but earlier runs read {known[-1].position:,}"
            )
        now = self._now()
        async for batch in _attentively(self._named(self.reader.close())):
            self._note_read(read, digest.hexdigest(), now)
            yield list(self._checked(batch, now))

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in parquet.lines(self.source) if self._is_parquet else self.source:
                yield piece
        except (SourceError, StoppedError) as error:
            if not self.reader.lines:
                raise
            raise type(error)(f"after line {self.reader.lines:,}: {error}") from error

    def _named(self, batches: Iterator[list[Record]]) -> Iterator[list[Record]]:
        """Yields the reader's batches; names the input in its errors."""
        try:
            yield from batches
        except SourceError as error:
            raise SourceError(f"{self.source.name}: {error}") from error

    def _now(self) -> int:
        """The second to stamp events with; constant without --stamp-now, to keep journals short."""
        return int(time.time()) if self.stamp_now else self._begun

    def _note_read(self, position: int, digest: str, now: int) -> None:
        # Before the first line ending, nothing was sent, so there is nothing to compare.
        if self.journal is not None and self.reader.lines:
            self.journal.note_read(
                Read(position, self.reader.lines, digest, now), lasting=self.stamp_now
            )

    def _checked(self, batch: list[Record], now: int) -> Iterator[Record]:
        done = self.journal.done if self.journal is not None else ()
        for record in batch:
            if record.line in done:
                self.before += 1
            elif record.fields is None:
                yield record
            else:
                yield self._read(record, events.of_listing(record.fields), now)

    def _read(self, record: Record, fields: dict[str, object], now: int) -> Record:
        """Returns the record with its event, or with all its problems."""
        line, raw, _, problem, _, _ = record
        if self.stamp_now and fields.get("created_at") is None:
            stamp = self.journal.stamp(line) if self.journal is not None else None
            fields["created_at"] = stamp or now
        dropped = False
        if problem is None and fields.get("created_at") is not None:
            try:
                return Record(line, raw, fields, None, Event.from_dict(fields))
            except InvalidInputError:
                if self.drop_unsupported:
                    kept = events.without_unsupported(fields)
                    dropped, fields = kept != fields, kept
        found = events.problems(fields)
        if not found and problem is None:
            return Record(line, raw, fields, None, Event.from_dict(fields), dropped)
        return Record(line, raw, fields, "; ".join(filter(None, (problem, found))))

    def _changed(self, how: str) -> SourceError:
        path = self.journal.path if self.journal is not None else ""
        return SourceError(
            f"{self.source.name} was changed after its import began: {how}; undo the change to "
            f"resume, or pass --restart to discard {path} and import the whole file"
        )
