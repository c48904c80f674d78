"""The journal of an import: what was noted is there, whatever happened to the process."""

from __future__ import annotations

import json
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events.cli.importer.journal import (
    Done,
    Journal,
    JournalError,
    NoJournalError,
    Read,
)
from memory import peak_below

MIB = 1024 * 1024
SOURCE = "events.ndjson"
ADDRESS = "https://api.intercom.io"
TOKEN = "dG9rOmE4N2M"


@st.composite
def histories(draw):
    """What an import notes: pieces that were read, and of each, what became of its lines."""
    entries = []
    position = line = 0
    for _ in range(draw(st.integers(0, 5))):
        lines = draw(st.integers(0, 9))
        position += draw(st.integers(lines, 10_000))
        entries.append(Read(position, line + lines, "5f", draw(st.integers(0, 2**40))))
        for number in draw(st.sets(st.integers(line + 1, line + lines))) if lines else ():
            status = draw(st.sampled_from(["accepted", "duplicate", "refused"]))
            entries.append((status, number))
        line += lines
    return entries


def write(path: Path, entries) -> None:
    journal = Journal.open(path, SOURCE, ADDRESS, TOKEN)
    for entry in entries:
        if isinstance(entry, Read):
            journal.note_read(entry, lasting=False)
        else:
            journal.note(*entry)
    journal.close()


def said(path: Path):
    """What a journal says: the pieces, and the lines that are done."""
    journal = Journal.open(path, SOURCE, ADDRESS, TOKEN)
    journal.close()
    last = journal.reads[-1].line if journal.reads else 0
    done = {line for line in range(last + 100) if line in journal.done}
    assert journal.done.count == len(done)
    return journal.reads, done


@given(histories())
def test_what_was_noted_is_said(entries):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, entries)
        assert said(path) == (
            [entry for entry in entries if isinstance(entry, Read)],
            {entry[1] for entry in entries if not isinstance(entry, Read)},
        )


@given(histories().filter(bool), st.data())
def test_a_journal_that_was_cut_off_anywhere_says_what_its_whole_lines_say(entries, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, entries)
        whole = path.read_bytes()
        kept = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(kept)
        lines = max(kept.count(b"\n") - 1, 0)
        reads = [entry for entry in entries[:lines] if isinstance(entry, Read)]
        done = {entry[1] for entry in entries[:lines] if not isinstance(entry, Read)}
        assert said(path) == (reads, done)
        # What is noted next stands on a line of its own.
        write(path, entries[lines:])
        # But for a header that was cut off, which is another then.
        assert path.read_bytes().split(b"\n", 1)[1] == whole.split(b"\n", 1)[1]


@given(histories().filter(bool), st.data())
def test_a_line_that_nobody_could_have_noted_is_named(entries, data):
    damage = data.draw(
        st.sampled_from(
            [
                "",
                "[",
                "{}",
                "7",
                "null",
                '["accepted", 0]',
                '["accepted", 1000000]',
                '["accepted", "1"]',
                '["done", 1]',
                '["read", -1, 0, "5f", 0]',
                '["read", 1, 2, 3, 4]',
                '["read", 1, 2, "5f"]',
                "\x00" * 20,
                "\xff",
                "[" * 100_000,
            ]
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, entries)
        lines = path.read_bytes().splitlines(keepends=True)
        number = data.draw(st.integers(2, len(lines) + 1))
        lines.insert(number - 1, damage.encode("latin-1") + b"\n")
        path.write_bytes(b"".join(lines))
        with pytest.raises(NoJournalError, match=rf"is damaged in line {number}: move it away"):
            Journal.open(path, SOURCE, ADDRESS, TOKEN)
        # It can be forgotten, as it is a journal.
        journal = Journal.open(path, SOURCE, ADDRESS, TOKEN, restart=True)
        journal.close()
        assert said(path) == ([], set())


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "\n",
        "{}\n",
        '{"journal": "another", "version": 1}\n',
        '{"journal": "intercom-events", "version": 2, "file": ""}\n',
        '{"journal": "intercom-events", "version": 10, "file": ""}\n',
        '{"event_name": "ran", "user_id": "1"}',
    ],
)
@pytest.mark.parametrize("restart", [False, True])
def test_another_file_is_no_journal_and_stays_as_it_is(text, restart, tmp_path):
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(NoJournalError, match="is no journal of an import: move it away"):
        Journal.open(path, SOURCE, ADDRESS, TOKEN, restart=restart)
    assert path.read_text() == text


def test_a_line_far_beyond_all_others_takes_little_memory(tmp_path):
    path = tmp_path / "journal"
    far = 10**9
    write(path, [Read(far, far, "5f", 0), ("accepted", far), ("refused", 7)])

    with peak_below(MIB):
        journal = Journal.open(path, SOURCE, ADDRESS, TOKEN)
    journal.close()

    assert (far in journal.done, far - 1 in journal.done, 7 in journal.done) == (True, False, True)
    assert journal.done.count == 2


@pytest.mark.parametrize("byte", [b"[", b"9", b" ", b"\0"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_an_end_is_not_read_to_it(byte, end, tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0)])
    with path.open("ab") as file:
        file.write(byte * 16 * MIB + end)

    with peak_below(MIB), pytest.raises(NoJournalError, match="is damaged in line 3: move it"):
        Journal.open(path, SOURCE, ADDRESS, TOKEN)


def test_pieces_come_in_their_order(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0)])
    for entry in (Read(9, 3, "5f", 0), Read(11, 1, "5f", 0)):
        whole = path.read_text()
        path.write_text(f"{whole}{json.dumps(['read', *entry])}\n")
        with pytest.raises(NoJournalError, match="is damaged in line 3"):
            Journal.open(path, SOURCE, ADDRESS, TOKEN)
        path.write_text(whole)


def test_nobody_else_can_read_it(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(1, 1, "5f", 0)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header = json.loads(path.read_text().splitlines()[0])
    assert TOKEN not in header.pop("token")
    assert header == {
        "journal": "intercom-events",
        "version": 1,
        "file": SOURCE,
        "address": ADDRESS,
    }


@pytest.mark.parametrize("restart", [False, True])
def test_one_import_at_a_time_has_it(restart, tmp_path):
    path = tmp_path / "journal"
    first = Journal.open(path, SOURCE, ADDRESS, TOKEN)
    first.note_read(Read(10, 2, "5f", 0), lasting=True)
    with pytest.raises(JournalError, match="another import is using the journal"):
        Journal.open(path, SOURCE, ADDRESS, TOKEN, restart=restart)
    first.note("accepted", 2)
    first.close()
    first.close()  # Nothing happens.
    assert said(path) == ([Read(10, 2, "5f", 0)], {2})


@pytest.mark.parametrize("name", [".", "no/such/journal", "x" * 300])
def test_where_it_cannot_be_is_told_with_a_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match=r"cannot be written .*name another place"):
        Journal.open(Path(name), SOURCE, ADDRESS, TOKEN)


def test_each_line_has_the_stamp_of_the_piece_that_completed_it(tmp_path):
    path = tmp_path / "journal"
    # The second piece completes no line.
    pieces = [Read(10, 2, "a", 100), Read(20, 2, "b", 200), Read(30, 5, "c", 300)]
    write(path, pieces)
    journal = Journal.open(path, SOURCE, ADDRESS, TOKEN)
    assert [journal.stamp(line) for line in range(1, 7)] == [100, 100, 300, 300, 300, None]
    assert journal.position == 30
    journal.close()


@given(st.sets(st.integers(0, 10_000)))
def test_lines_that_are_done_are_a_set(lines):
    done = Done()
    for line in [*lines, *lines]:
        done.add(line)
    assert done.count == len(lines)
    assert {line for line in range(10_010) if line in done} == lines
