"""A file that other programs write to while it is imported: never a success that lost something.

Each test changes the file before a request arrives, when the first piece of it has been read; then
the next run goes on, or says why it cannot.
"""

from __future__ import annotations

import gzip
import json
import os

import pytest

from intercom_data_events.emulator import Emulator

from .conftest import Plan, event, times

# Of 5 kB each, so many are several pieces, of which the first requests do not need the last.
MANY = 150
NOTE = "x" * 5_000


def text(begin: int, end: int) -> bytes:
    return b"".join(
        f"{json.dumps(event(number, metadata={'note': NOTE}))}\n".encode()
        for number in range(begin, end)
    )


@pytest.fixture
def changing(serve, command, tmp_path):
    """Imports a file that is changed before the third request arrives."""
    path = tmp_path / "events.ndjson"

    def run(change, data: bytes = text(0, MANY), asked=("import",)):
        path.write_bytes(data)
        emulator: Emulator = serve(faults=Plan({3: lambda: change(path)}))
        done = command(*asked, path, "--concurrency", 2)
        return done, emulator

    return run


def lines_of(emulator):
    return [moment - times(emulator)[0] for moment in times(emulator)]


def truncate(path):
    os.truncate(path, 1000)


def copy_truncate(path):
    # As a program that goes on at its own place: zeros are what lies before it.
    os.truncate(path, 0)
    with path.open("r+b") as file:
        file.seek(800_000)
        file.write(text(0, 2))


def shorter_file(path):
    with path.open("wb") as file:
        file.write(text(500, 502))


def longer_file(path):
    with path.open("wb") as file:
        file.write(b"\n" + text(500, 700))


def other_within(path):
    with path.open("r+b") as file:
        file.write(text(500, 501))


def replace(path):
    other = path.with_name("other")
    other.write_bytes(text(500, 502))
    other.replace(path)


def half_a_line(path):
    with path.open("ab") as file:
        file.write(text(MANY, MANY + 1)[:-20])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (truncate, "was truncated to 1,000 bytes after"),
        (shorter_file, "bytes after"),
        (copy_truncate, "was overwritten while it was read"),
        (longer_file, "was overwritten while it was read"),
        (other_within, "was overwritten while it was read"),
        (replace, "was replaced by another file while it was read"),
        (os.remove, "was moved or deleted while it was read"),
        (half_a_line, "grew while it was read, and its last line is incomplete"),
    ],
)
def test_a_file_that_changes_ends_incomplete_and_says_how(change, said, changing, command):
    done, emulator = changing(change)

    assert done.code == 3
    assert said in done.err.replace("\n", " ")
    assert "run the same command again" in done.err
    # What was read is sent once, and nothing of what is half a line.
    sent = lines_of(emulator)
    assert 0 < len(sent) == len(set(sent))
    assert sent == list(range(len(sent)))
    assert " rejected" not in done.out


@pytest.mark.parametrize("change", [truncate, half_a_line])
def test_the_next_run_goes_on_once_the_file_is_whole(change, changing, command, tmp_path):
    _, emulator = changing(change)
    (tmp_path / "events.ndjson").write_bytes(text(0, MANY + 1))

    done = command("import", tmp_path / "events.ndjson")

    assert done.code == 0
    assert lines_of(emulator) == list(range(MANY + 1))


@pytest.mark.parametrize("change", [shorter_file, copy_truncate, longer_file, replace])
def test_the_next_run_says_where_another_file_differs(change, changing, command, tmp_path):
    _, emulator = changing(change)
    before = times(emulator)

    done = command("import", tmp_path / "events.ndjson")

    assert done.code == 2
    assert "was changed after its import began" in done.err
    assert "--restart" in done.err
    assert times(emulator) == before


def test_lines_that_are_appended_meanwhile_are_imported(changing):
    def append(path):
        with path.open("ab") as file:
            file.write(text(MANY, MANY + 20))

    done, emulator = changing(append)

    assert done.code == 0
    assert lines_of(emulator) == list(range(MANY + 20))


def test_a_last_line_without_an_end_of_a_file_at_rest_is_a_line(changing):
    done, emulator = changing(lambda _: None, text(0, MANY)[:-1])

    assert done.code == 0
    assert lines_of(emulator) == list(range(MANY))


def test_gzip_that_is_cut_short_sends_what_is_whole_and_goes_on(emulator, command, tmp_path):
    path = tmp_path / "events.ndjson.gz"
    members = gzip.compress(text(0, 10)) + gzip.compress(text(10, 20))
    path.write_bytes(members[:-15])

    for asked in (["validate"], ["import", "--dry-run"], ["import"]):
        done = command(*asked, path)
        assert done.code == 3
        assert "is truncated gzip data; create or download it again, then run" in done.err
    assert set(range(10)) <= set(lines_of(emulator))
    path.write_bytes(members)

    assert command("import", path).code == 0
    assert lines_of(emulator) == list(range(20))


def test_gzip_that_is_cut_while_it_is_read(changing, tmp_path):
    # Numbers that gzip makes little of, so that there are several pieces to read.
    noise = b"".join(
        f"{json.dumps(event(n, metadata={'noise': os.urandom(5_000).hex()}))}\n".encode()
        for n in range(MANY)
    )
    done, emulator = changing(truncate, gzip.compress(noise))

    assert done.code == 3
    assert "was truncated to 1,000 bytes" in done.err
    assert lines_of(emulator) == list(range(len(emulator.events)))


def test_a_cut_while_it_is_checked_is_told_the_same(command, tmp_path, monkeypatch):
    # Nothing is sent, so it is cut as its first problem is told.
    from intercom_data_events.cli import output

    path = tmp_path / "events.ndjson"
    path.write_bytes(b"{}\n" + text(0, MANY))
    monkeypatch.setattr(output, "result", lambda *_: truncate(path))

    assert command("validate", path).code == 3


def test_a_cut_pipe_of_gzip_is_incomplete(command):
    done = command("validate", "-", stdin=gzip.compress(text(0, 10))[:-9])

    assert done.code == 3
    assert "standard input is truncated gzip data" in done.err
