"""Whatever is in a file, a journal or a header: no traceback, bounded memory, a hearing for Ctrl-C.

What is handled between two looks at whether a person wants it to end is bounded, in bytes or in
events: that holds on every machine, where seconds do not.
"""

from __future__ import annotations

import gzip
import json

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from intercom_data_events.cli.exit_codes import StoppedError
from intercom_data_events.cli.importer.input import Input
from intercom_data_events.cli.importer.journal import Journal, JournalError
from intercom_data_events.cli.importer.records import LONGEST, SourceError
from intercom_data_events.cli.importer.source import Source
from memory import peak_below
from profiles import scaled

ADDRESS = "https://api.intercom.io"
HEADER = {"journal": "intercom-events", "version": 1, "file": "f", "address": ADDRESS, "token": "x"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    "event_name created_at user_id id email metadata type events event properties intercom_user_id "
    "metadata.a metadata.a.amount metadata.a.currency metadata.b:number metadata.c_at sep=; "
    "refused_because".split()
)
LINES = (
    st.dictionaries(NAMES | st.text(max_size=5), VALUES, max_size=8).map(json.dumps)
    | st.lists(NAMES | st.text('",;\t\n\r a1', max_size=6), max_size=8).map(",".join)
    | st.sampled_from(["{}", "[", '"', "x" * 3_000, '{"a":' * 2_000, "sep=;", "\0", "9" * 5_000])
)
# A line may be repeated, up to a few pieces of a file.
TEXTS = st.lists(st.tuples(LINES, st.sampled_from([1, 1, 1, 40, 20_000])), max_size=8).map(
    lambda lines: "\n".join(
        (line + "\n") * min(times, 70_000 // (len(line) + 1) + 1) for line, times in lines
    ).encode(errors="replace")
)
NOTES = st.lists(
    st.tuples(st.just("read"), st.integers(0, 200), st.integers(0, 50), st.text(), st.integers())
    | st.tuples(st.sampled_from(["accepted", "refused", "x"]), st.integers(-1, 60))
    | VALUES,
    max_size=8,
)


async def read(path, journal, options) -> int:
    """Reads a file whole, and returns the most bytes and records between two looks."""
    most = handled = 0
    checkpoint = anyio.lowlevel.checkpoint

    async def look():
        nonlocal most, handled
        most, handled = max(most, handled), 0
        await checkpoint()

    with Source(str(path)) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(anyio.lowlevel, "checkpoint", look)
        reading = Input(source, None, journal, *options)
        async for records in reading.batches():
            for record in records:
                assert (record.event is None) == (record.problem is not None)
                assert len(record.problem or "") < 20_000
            handled += sum(len(record.raw) + 100 for record in records)
    return max(most, handled)


@settings(max_examples=scaled(30), suppress_health_check=list(HealthCheck))
@given(TEXTS, NOTES, st.booleans(), st.tuples(st.booleans(), st.booleans()), st.data())
@example(b"{}\n" * 12_000, [], False, (False, False), None)
@example(b'x","\n' * 12_000, [], False, (False, False), None)
@example(b"event_name,id\n" + b'x","\n' * 12_000, [], True, (False, False), None)
@example(b'{"metadata": {' + b'"a": 1,' * 100_000 + b'"b":1}}\n', [], False, (False, True), None)
@example(b"PAR1" + b"x" * 100, [], False, (False, False), None)
@example(b"a" * 2_000, [["read", n, 0, "", 0] for n in range(1, 2_000)], False, (True, True), None)
def test_anything_is_read_or_ends_in_a_sentence(
    tmp_path_factory, text, notes, packed, options, data
):
    path = tmp_path_factory.mktemp("hostile") / "events"
    content = gzip.compress(text, 1, mtime=0) if packed else text
    if data is not None and packed:
        content = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(content)
    journal_path = path.with_name("journal")
    if notes:
        lines = [HEADER, *notes]
        journal_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        journal_path.chmod(0o600)
    with peak_below(100_000_000):
        try:
            journal = (
                Journal.open(journal_path, "f", ADDRESS, "token", token_renewed=True)
                if notes
                else None
            )
            try:
                most = anyio.run(read, path, journal, options)
            finally:
                if journal is not None:
                    journal.close()
        except (SourceError, StoppedError, JournalError) as error:
            said, most = str(error), 0
        else:
            said = "nothing"
    assert said.isprintable()
    assert 0 < len(said) < 5_000
    # A thousand records, or one that is as long as lines go.
    assert most < 2 * LONGEST
