"""What an import reads: the records of a source that earlier runs have left to do."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from attrs import define, field

from intercom_data_events.cli.importer.journal import Journal, Read
from intercom_data_events.cli.importer.records import Format, Reader, Record, SourceError
from intercom_data_events.cli.importer.source import Source


@define
class Input:
    """Records of a source, compared with what the journal says was read by earlier runs.

    Args:
        source: What is read.
        format: As told, or None to find out.
        journal: What runs before noted; None for none.
        stamp_now: Whether events without `created_at` are stamped with the present second.

    Attributes:
        reader: What finds the records in the text.
        before: How many records earlier runs have done.
    """

    source: Source
    format: Format | None
    journal: Journal | None
    stamp_now: bool
    reader: Reader = field(init=False)
    before: int = 0

    def __attrs_post_init__(self) -> None:
        self.reader = Reader(self.format)

    async def batches(self) -> AsyncIterator[tuple[Callable[[int], int], list[Record]]]:
        """Reads on, and notes in the journal what is read before it is handed on.

        Yields:
            What gives the second that an event on a line without a time of its own is stamped
            with, and the records that earlier runs have left to do.

        Raises:
            SourceError: The input cannot be read any further, or has changed since.
            JournalError: The journal cannot be written.
        """
        known = deque(self.journal.reads if self.journal is not None else ())
        digest = hashlib.blake2b(digest_size=16)
        read = line = 0
        async for piece in self._pieces():
            rest = piece
            while rest:
                if line > self.reader.lines and not rest.startswith((b"\n", b"\r")):
                    raise self._changed(
                        f"its last line then, {line:,}, had no end, and has been written on"
                    )
                # No further than to the next place where the text can be compared.
                part = rest[: known[0].position - read] if known else rest
                rest = rest[len(part) :]
                digest.update(part)
                read += len(part)
                now = int(time.time())
                batches = list(self.reader.feed(part))
                while known and known[0].position == read:
                    if known[0].digest != digest.hexdigest():
                        raise self._changed(
                            f"something in its lines {line + 1:,} to {known[0].line:,}, which was "
                            "read then, is different"
                        )
                    line = known.popleft().line
                if not known and self.journal is not None and read > self.journal.position:
                    self._note_read(read, digest.hexdigest(), now)
                for batch in batches:
                    yield self._stamp(now), self._undone(batch)
        if known:
            raise self._changed(
                f"it ends after {read:,} bytes of text, and {known[-1].position:,} were read then"
            )
        now = int(time.time())
        for batch in self.reader.close():
            self._note_read(read, digest.hexdigest(), now)
            yield self._stamp(now), self._undone(batch)

    async def _pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.source:
                yield piece
        except SourceError as error:
            raise SourceError(f"line {self.reader.lines + 1:,}: {error}") from error

    def _note_read(self, position: int, digest: str, now: int) -> None:
        if self.journal is not None:
            self.journal.note_read(
                Read(position, self.reader.lines, digest, now), lasting=self.stamp_now
            )

    def _stamp(self, now: int) -> Callable[[int], int]:
        journal = self.journal
        if journal is None:
            return lambda _: now
        return lambda line: journal.stamp(line) or now

    def _undone(self, batch: list[Record]) -> list[Record]:
        if self.journal is None:
            return batch
        done = self.journal.done
        undone = [record for record in batch if record.line not in done]
        self.before += len(batch) - len(undone)
        return undone

    def _changed(self, how: str) -> SourceError:
        path = self.journal.path if self.journal is not None else ""
        return SourceError(
            f"{self.source.name} has changed since its import began: {how}. Undo that, to go on; "
            f"or, to import all of it anew, use --restart, which forgets {path}"
        )
