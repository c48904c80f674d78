"""The journal of an import: what was noted is there, whatever happened to the process."""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
from contextlib import suppress
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

from .conftest import no_file_above

MIB = 1024 * 1024
SOURCE = "events.ndjson"
ADDRESS = "https://api.intercom.io"
TOKEN = "dG9rOmE4N2M"
# Of an import of the version before.
HEADER = """{"journal": "intercom-events", "version": 1, "file": "events.ndjson", \
"address": "https://api.intercom.io", "token": "5a17:ad80"}
"""


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


def opened(path: Path, **options) -> Journal:
    return Journal.open(path, SOURCE, ADDRESS, TOKEN, **options)


def write(path: Path, entries) -> None:
    journal = opened(path)
    note(journal, entries)
    journal.close()


def note(journal: Journal, entries) -> None:
    for entry in entries:
        if isinstance(entry, Read):
            journal.note_read(entry, lasting=False)
        else:
            journal.note(*entry)


def said(path: Path, **options):
    """What a journal says: up to where the text was read, and the lines that are done."""
    journal = opened(path, **options)
    last = journal.reads[-1].line if journal.reads else 0
    done = {line for line in range(last + 100) if line in journal.done}
    assert journal.before == len(done)
    found = journal.reads[-1:], done, journal.refused
    journal.close()
    return found


def expected(entries):
    reads = [entry for entry in entries if isinstance(entry, Read)]
    outcomes = [entry for entry in entries if not isinstance(entry, Read)]
    refused = sum(status == "refused" for status, _ in outcomes)
    return reads[-1:], {line for _, line in outcomes}, refused


@given(histories())
def test_what_was_noted_is_said(entries):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, entries)
        assert said(path) == expected(entries)
        # One with nothing in it is gone.
        assert [one.name for one in Path(folder).iterdir()] == (["journal"] if entries else [])


@given(histories().filter(bool), st.data())
def test_what_was_saved_before_a_kill_is_said_and_no_more(entries, data):
    saved = data.draw(st.integers(0, len(entries)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = opened(path)
        note(journal, entries[:saved])
        journal.save()
        for line in (entry[1] for entry in entries[saved:] if not isinstance(entry, Read)):
            journal.note("accepted", line)
        shutil.copy(path, f"{path}2")  # What a process that is killed leaves.
        journal.close()
        assert said(Path(f"{path}2")) == expected(entries[:saved])


@given(histories().filter(bool), st.data())
def test_a_journal_that_was_cut_off_anywhere_says_what_its_whole_lines_say(entries, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write(path, entries)
        whole = path.read_bytes()
        kept = whole[: data.draw(st.integers(0, len(whole)))]
        path.write_bytes(kept)
        lines = max(kept.count(b"\n") - 1, 0)
        assert said(path) == expected(entries[:lines])
        # What is noted next stands on a line of its own.
        write(path, entries[lines:])
        # But for a header that was cut off, which is another then.
        assert path.read_bytes().split(b"\n", 1)[1] == whole.split(b"\n", 1)[1]


@given(histories().filter(bool), st.data())
def test_on_a_disk_that_was_full_for_a_moment_nothing_is_lost_or_torn(entries, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = opened(path)
        note(journal, entries[:1])
        room = path.stat().st_size + data.draw(st.integers(0, 40 * len(entries)))
        with no_file_above(room):
            for entry in entries[1:]:
                # Whatever could not be written, a later write completes.
                with suppress(JournalError):
                    note(journal, [entry])
                    journal.save()
        journal.close()
        assert said(path) == expected(entries)


@given(histories())
def test_a_journal_of_the_version_before_is_one(entries):
    lines = [["read", *entry] if isinstance(entry, Read) else list(entry) for entry in entries]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_text(HEADER + "".join(f"{json.dumps(line)}\n" for line in lines))
        assert said(path, token_renewed=True) == expected(entries)


@pytest.mark.parametrize(
    "damage",
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
        '["read", 9, 2, "5f", 0]',
        '["read", 1, 2, 3, 4]',
        '["read", 1, 2, "5f"]',
        json.dumps(["read", 11, 3, "5f" * 1000, 0]),
        HEADER.strip(),
        "\x00" * 20,
        "\xff",
        "[" * 100_000,
        "9" * 16 * MIB,
        "[" * 16 * MIB,
        " " * 16 * MIB,
    ],
    ids=lambda damage: damage[:20].encode("unicode_escape").decode(),
)
def test_a_line_that_no_import_writes_is_named(damage, tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0)])
    with path.open("ab") as file:
        file.write(damage.encode("latin-1") + b"\n")
    before = path.read_bytes()

    with peak_below(MIB), pytest.raises(NoJournalError, match="is damaged in line 3; move it away"):
        opened(path)

    assert path.read_bytes() == before
    # It can be forgotten, as it is a journal.
    assert said(path, restart=True) == ([], set(), 0)


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
def test_another_file_is_not_a_journal_and_stays_as_it_is(text, restart, tmp_path):
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(NoJournalError, match="is not the journal of an import; move it away"):
        opened(path, restart=restart)
    assert path.read_text() == text


@pytest.mark.costly
def test_many_lines_take_little_memory(tmp_path):
    # Tracing takes long, and one object for each of these lines would take 10 MiB.
    lines = 200_000
    path = tmp_path / "journal"
    with peak_below(MIB):
        journal = opened(path)
        for line in range(1, lines + 1):
            if line % 500 == 1:
                journal.note_read(Read((line + 499) * 130, line + 499, "5f" * 16, 0), lasting=False)
            journal.note("accepted", line)
        journal.close()
    assert path.stat().st_size < 5 * MIB

    journal = opened(path)
    assert all(line in journal.done for line in range(1, lines + 1, 97))
    assert (journal.before, lines + 1 in journal.done) == (lines, False)
    assert len(journal.reads) <= lines / 500
    journal.close()


FAR = 10**15
SPREAD = {
    "lines": lambda number: ["accepted", 1 + number * 50_000],
    "pieces": lambda number: ["read", FAR + number, FAR, "5f", number],
}


@pytest.mark.parametrize("what", SPREAD)
def test_what_a_crafted_journal_takes_is_bounded(what, tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(FAR, FAR, "5f", 0)])
    with path.open("a") as file:
        file.writelines(f"{json.dumps(SPREAD[what](number))}\n" for number in range(200_000))
    # As tracing takes long, by numbers: of pages and pieces of at most 700 bytes each.
    with pytest.raises(NoJournalError, match=r"is damaged in line \d+,"):
        opened(path)


def test_a_line_far_beyond_all_others_takes_little_memory(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(FAR, FAR, "5f", 0), ("accepted", FAR), ("refused", 7)])

    with peak_below(MIB):
        journal = opened(path)
    journal.close()

    assert [line in journal.done for line in (FAR, FAR - 1, 7)] == [True, False, True]
    assert (journal.before, journal.refused) == (2, 1)


def test_small_pieces_of_a_pipe_become_few(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(line * 100, line, "5f", 7) for line in range(1, 2001)])
    journal = opened(path)
    journal.close()
    assert (len(journal.reads), journal.position) == (4, 200_000)


def test_pieces_come_in_their_order(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0)])
    whole = path.read_text()
    for entry in (Read(9, 3, "5f", 0), Read(11, 1, "5f", 0)):
        path.write_text(f"{whole}{json.dumps(['read', *entry])}\n")
        with pytest.raises(NoJournalError, match="is damaged in line 3"):
            opened(path)


def test_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(1, 1, "5f", 0)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    header = json.loads(path.read_text().splitlines()[0])
    assert TOKEN not in header.pop("token")
    said = {"journal": "intercom-events", "version": 1, "file": SOURCE, "address": ADDRESS}
    assert header == said


@pytest.mark.parametrize("restart", [False, True])
def test_one_import_at_a_time_has_it(restart, tmp_path):
    path = tmp_path / "journal"
    first = opened(path)
    first.note_read(Read(10, 2, "5f", 0), lasting=True)
    with pytest.raises(JournalError, match="another import is using the journal"):
        opened(path, restart=restart)
    first.note("accepted", 2)
    first.close()
    first.close()  # Nothing happens.
    assert said(path) == ([Read(10, 2, "5f", 0)], {2}, 0)


@pytest.mark.parametrize("name", [".", "no/such/journal", "x" * 300])
def test_where_it_cannot_be_is_told_with_a_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError, match=r"cannot write the journal .*choose another path"):
        opened(Path(name))


def test_each_line_has_the_stamp_of_the_piece_that_completed_it(tmp_path):
    path = tmp_path / "journal"
    # The second piece completes no line.
    pieces = [Read(10, 2, "a", 100), Read(20, 2, "b", 200), Read(30, 5, "c", 300)]
    write(path, pieces)
    journal = opened(path)
    assert [journal.stamp(line) for line in range(1, 7)] == [100, 100, 300, 300, 300, None]
    assert journal.position == 30
    journal.close()


@given(st.sets(st.integers(0, 10_000)))
def test_lines_that_are_done_are_a_set(lines):
    done = Done()
    for line in [*lines, *lines]:
        done.add(line)
    assert {line for line in range(10_010) if line in done} == lines
