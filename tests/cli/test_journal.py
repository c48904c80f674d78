"""The journal of an import: what was noted is there, whatever happened to the process."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intercom_data_events._sending.secret import Secret
from intercom_data_events.cli.importer.journal import (
    Done,
    Journal,
    JournalError,
    NoJournalError,
    Read,
)
from intercom_data_events.outbox._binding import token_digest
from memory import peak_below

MIB = 1024 * 1024
SOURCE = "events.ndjson"
ADDRESS = "https://api.intercom.io"
TOKEN = "dG9rOmE4N2M"
HEADER = {
    "journal": "intercom-events",
    "version": 1,
    "file": SOURCE,
    "address": ADDRESS,
    "token": token_digest(Secret(TOKEN), "5a17"),
}


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
            journal.note_read(entry, lasting=True)
        else:
            journal.note(*entry)


def write_as_before(path: Path, entries) -> None:
    """Writes a journal as the version before did: as text."""
    lines = [["read", *entry] if isinstance(entry, Read) else list(entry) for entry in entries]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [HEADER, *lines]))


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
        # It is one file.
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
        # What a process that is killed leaves: the file and its log, as they stand.
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{path}2{suffix}")
        # Without its log, as in a copy of the one file, it is a journal that says less.
        shutil.copy(path, f"{path}3")
        journal.close()
        assert said(Path(f"{path}2")) == expected(entries[:saved])
        assert said(Path(f"{path}3"))[1] <= expected(entries[:saved])[1]


def test_the_log_of_a_journal_that_was_deleted_counts_for_nothing(tmp_path):
    path = tmp_path / "journal"
    journal = opened(path)
    note(journal, [Read(10, 2, "5f", 0), ("accepted", 1)])
    journal.save()
    log = Path(f"{path}-wal").read_bytes()  # As a kill leaves it.
    journal.close()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)

    assert said(path) == ([], set(), 0)


@given(histories(), st.data())
def test_a_journal_of_the_version_before_is_taken_over(entries, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        write_as_before(path, entries)
        whole = path.read_bytes()
        # A crash may have cut it off anywhere.
        kept = whole[: data.draw(st.integers(1, len(whole)))]
        path.write_bytes(kept)
        path.chmod(0o640)
        lines = max(kept.count(b"\n") - 1, 0)
        for _ in range(2):
            assert said(path) == expected(entries[:lines])
        if path.exists():  # One with nothing in it is gone.
            assert path.read_bytes().startswith(b"SQLite format 3")
            assert stat.S_IMODE(path.stat().st_mode) == 0o640


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
        f'["read", {2**70}, 3, "5f", {2**70}]',
        json.dumps(HEADER),
        "\x00" * 20,
        "\xff",
        "[" * 100_000,
        "9" * 16 * MIB,
    ],
    ids=lambda damage: damage[:20].encode("unicode_escape").decode(),
)
def test_a_damaged_journal_of_the_version_before_is_refused_and_stays(damage, tmp_path):
    path = tmp_path / "journal"
    write_as_before(path, [Read(10, 2, "5f", 0)])
    with path.open("ab") as file:
        file.write(damage.encode("latin-1") + b"\n")
    before = path.read_bytes()

    with peak_below(MIB), pytest.raises(NoJournalError, match="is damaged in line 3: move it away"):
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
    with pytest.raises(NoJournalError, match="is not a journal of an import: move it away"):
        opened(path, restart=restart)
    assert path.read_text() == text


ENDLESS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
CRAFTED = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON done BEGIN DELETE FROM reads; END",
    "a view": f"DROP TABLE done; CREATE VIEW done AS {ENDLESS} i AS page, x'00' AS bits, 0 AS "
    "refused FROM n",
    "another table": "CREATE TABLE more (x)",
    "no table": "DROP TABLE import",
    "another database": "PRAGMA application_id = 7",
    "a later version": "PRAGMA user_version = 99",
    "two headers": "INSERT INTO import SELECT * FROM import",
    "no header": "DELETE FROM import",
    "a page that is text": "INSERT INTO done VALUES (0, 'x', 0)",
    "a short page": "INSERT INTO done VALUES (0, x'00', 0)",
    "a huge page": "INSERT INTO done VALUES (0, zeroblob(50000000), 0)",
    "a huge digest": "UPDATE reads SET digest = CAST(zeroblob(50000000) AS TEXT)",
    "a page beyond what was read": "INSERT INTO done VALUES (7, zeroblob(64), 0)",
    "a count of text": "INSERT INTO done VALUES (0, zeroblob(64), 'x')",
    "a piece before the last": "INSERT INTO reads VALUES (9, 2, '', 0)",
    "a line beyond its bytes": "INSERT INTO reads VALUES (11, 20, '', 0)",
    "a piece of text": "INSERT INTO reads VALUES ('x', 'x', 0, 0)",
    "a piece of nothing": "INSERT INTO reads VALUES (NULL, NULL, NULL, NULL)",
    "endless pieces": f"INSERT INTO reads {ENDLESS} i + 10, 2, '', 0 FROM n LIMIT 400000",
}


@pytest.mark.parametrize("how", CRAFTED)
def test_a_crafted_journal_is_refused_with_the_remedy(how, tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0)])
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(CRAFTED[how])
        raw.commit()
    with peak_below(8 * MIB), pytest.raises(NoJournalError, match="move it away to begin anew"):
        opened(path)


def test_a_journal_whose_bytes_are_damaged_is_refused(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(10, 2, "5f", 0), ("accepted", 1)])
    whole = path.read_bytes()
    for kept in (whole[:20], whole[:1024], whole[:100] + b"\xa5" * 900 + whole[1000:]):
        path.write_bytes(kept)
        with pytest.raises(NoJournalError, match=r"is damaged.* move it away to begin anew"):
            opened(path)
        assert path.read_bytes() == kept


def test_a_million_lines_take_little_memory_and_disk(tmp_path):
    path = tmp_path / "journal"
    journal = opened(path)
    with peak_below(MIB):
        for line in range(1, 1_000_001):
            if line % 500 == 1:
                journal.note_read(Read(line * 130, line + 499, "5f" * 16, 0), lasting=False)
            journal.note("accepted", line)
        journal.close()
    assert path.stat().st_size < MIB

    with peak_below(MIB):
        journal = opened(path)
        assert all(line in journal.done for line in range(1, 1_000_001, 97))
    assert (journal.before, 1_000_001 in journal.done) == (1_000_000, False)
    journal.close()


def test_small_pieces_of_a_pipe_become_few(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(line * 100, line, "5f", 7) for line in range(1, 2001)])
    journal = opened(path)
    journal.close()
    assert (len(journal.reads), journal.position) == (4, 200_000)


def test_only_its_owner_can_read_it(tmp_path):
    path = tmp_path / "journal"
    write(path, [Read(1, 1, "5f", 0)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert TOKEN.encode() not in path.read_bytes()


def test_a_link_beside_it_is_not_written_through(tmp_path):
    path, precious = tmp_path / "journal", tmp_path / "precious"
    write(path, [Read(1, 1, "5f", 0)])
    precious.write_text("precious")
    for suffix in ("-wal", "-journal"):
        link = Path(f"{path}{suffix}")
        link.symlink_to(precious)
        with pytest.raises(NoJournalError, match=f"{suffix}, .* is a symbolic link: remove it"):
            opened(path)
        link.unlink()
    assert precious.read_text() == "precious"


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
    with pytest.raises(JournalError, match=r"cannot be written .*name another place"):
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
