"""Imports and checks of files: nothing is lost, nothing is told wrongly, and it can be stopped."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from intercom_data_events.cli import progress
from intercom_data_events.cli.importer import run as importing
from intercom_data_events.emulator import EmulatedContact, Fault, ManualClock, random_faults

from .conftest import COMMAND, NOON, PATIENCE, Plan, event, no_file_above, times

SLOW = Fault.slow(50)
NOBODY = "http://127.0.0.1:1"
HEADER = "event_name,created_at,user_id,metadata.plan"


def row(number: int, *, name: str = "placed-order", plan: str = "pro") -> str:
    return f"{name},{NOON + number},{number % 50},{plan}"


def table(*rows: str, name: str = "events.csv") -> Path:
    path = Path(name)
    path.write_text("".join(f"{line}\n" for line in (HEADER, *rows)))
    return path


def stamps(path: str) -> list[int]:
    """What a journal says that events are stamped with, also while an import has it."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [line[-1] for line in lines if "read" in line]


# What is sent


def test_a_file_is_sent_and_what_became_of_it_is_told(emulator, command, ndjson):
    done = command("import", ndjson(120))
    assert (done.code, done.err) == (0, "")
    assert "120 events in" in done.out
    assert "120 accepted" in done.out
    assert times(emulator) == [NOON + number for number in range(120)]


def test_the_report_is_for_programs_too(serve, command, ndjson):
    serve(contacts=[EmulatedContact(user_id="1")])
    twice = event(1)
    path = ndjson([twice, twice, event(2), {"event_name": "came", "user_id": "1"}])
    done = command("import", path, "--json")
    assert done.code == 1
    report = done.json
    assert report.pop("seconds") >= 0
    assert report == {
        "file": str(path),
        "dry_run": False,
        "events": 4,
        "lines": 4,
        "accepted": 1,
        "duplicates": 1,
        "refused": 2,
        "failed": 0,
        "pending": 0,
        "before": 0,
        "refused_before": 0,
        "without_unsupported": 0,
        "refused_file": str(path.with_name("events.refused.ndjson")),
    }
    assert "line 3 rejected: 404" in done.err
    assert "line 4 rejected: created_at is missing" in done.err


@pytest.mark.parametrize(
    ("form", "compressed", "through_a_pipe"),
    [
        ("ndjson", False, False),
        ("ndjson", True, True),
        ("csv", False, True),
        ("csv", True, False),
    ],
)
def test_files_and_pipes_are_read_plain_and_compressed(
    form, compressed, through_a_pipe, emulator, command, ndjson
):
    path = ndjson(30) if form == "ndjson" else table(*(row(number) for number in range(30)))
    data = path.read_bytes()
    if compressed:
        # Two members, as `cat a.gz b.gz` makes them.
        half = data.index(b"\n", 500) + 1
        data = gzip.compress(data[:half]) + gzip.compress(data[half:])
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(data)
    done = command("import", *(["-"] if through_a_pipe else [path]), stdin=data)
    assert (done.code, done.err) == (0, "")
    assert times(emulator) == [NOON + number for number in range(30)]


def test_columns_make_metadata(emulator, command):
    Path("events.csv").write_text(
        ""
        "event_name,created_at,email,metadata.price.amount,metadata.price.currency,metadata.n:text\n"
        f"paid,{NOON},a@b.co,2999,usd,007\n"
    )
    assert command("import", "events.csv").code == 0
    [stored] = emulator.events
    assert stored.metadata == {"price": {"amount": 2999, "currency": "usd"}, "n": "007"}


@pytest.mark.parametrize("disabled", [False, True])
def test_a_dry_run_sends_nothing_and_leaves_nothing_behind(
    disabled, emulator, command, ndjson, monkeypatch, tmp_path
):
    if disabled:
        monkeypatch.setenv("INTERCOM_DISABLED", "1")
    path = ndjson([event(0), event(1, user_id=7)])
    done = command("import", path, *([] if disabled else ["--dry-run"]))
    assert done.code == 1
    assert "1 would be sent" in done.out
    assert "line 2 rejected: user_id must be a string, not 7" in done.err
    done = command("import", path, "--json", *([] if disabled else ["--dry-run"]))
    assert (done.json["dry_run"], done.json["accepted"]) == (True, 1)
    assert emulator.counts.requests == 0
    assert list(tmp_path.iterdir()) == [path]


def test_faults_lose_nothing(serve, command, ndjson):
    # Slow answers take no time.
    emulator = serve(faults=random_faults(0.2, seed=7), clock=ManualClock(NOON + 86400))
    done = command("import", ndjson(80), "--json")
    assert done.code == 0
    assert times(emulator) == [NOON + number for number in range(80)]
    assert sum(emulator.counts.faults.values()) > 10


def test_no_more_is_sent_than_was_asked_for(serve, command, ndjson):
    serve()
    assert command("import", ndjson(21), "--max-rate", "50", "--json").json["seconds"] >= 20 / 50
    # A fifth of 20 requests a second: one whole second has to go by at least.
    serve(rate_limit=20, window=1, clock=time.time)
    path = ndjson(14, name="others.ndjson")
    assert command("import", path, "--quota-share", "0.2", "--json").json["seconds"] >= 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-rate", "0"],
        ["--max-rate", "nan"],
        ["--quota-share", "2"],
        ["--concurrency", "0"],
        ["--max-retries", "-1"],
        ["--deadline", "0"],
        ["--format", "xml"],
    ],
)
def test_bounds_that_make_no_sense_are_refused(flags, emulator, command, ndjson):
    done = command("import", ndjson(), *flags)
    assert (done.code, done.out) == (2, "")
    assert emulator.counts.requests == 0
    # Nothing stands in the way of the right ones.
    assert command("import", ndjson()).code == 0


def test_the_token_ends_everything_at_once(serve, command, ndjson):
    emulator = serve(tokens=["another"])
    done = command("import", ndjson(500))
    assert done.code == 4
    assert "401" in done.err
    assert "0 accepted" in done.out
    assert emulator.counts.requests < 10


def test_there_is_no_import_without_a_token(emulator, command, ndjson, monkeypatch, tmp_path):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    path = ndjson()
    done = command("import", path)
    assert (done.code, done.out) == (2, "")
    assert "set INTERCOM_ACCESS_TOKEN" in done.err
    assert list(tmp_path.iterdir()) == [path]


# Going on


def test_killed_at_any_moments_it_goes_on_and_repeats_little(serve, begin, command, ndjson):
    plan = Plan()
    emulator = serve(faults=plan)
    moments = random.Random(4)
    path = ndjson(300)
    kills = 2
    for _ in range(kills):
        begun = []
        plan.at[plan.number + moments.randint(1, 120)] = lambda: begun[0].kill()  # noqa: B023
        begun.append(begin("import", path, "--quiet"))
        begun[0].communicate(timeout=PATIENCE)
        assert begun[0].returncode == -signal.SIGKILL
    done = command("import", path, "--json")
    assert done.code == 0
    assert times(emulator) == [NOON + number for number in range(300)]
    assert emulator.counts.duplicates <= kills * 100
    assert done.json["accepted"] + done.json["duplicates"] + done.json["before"] == 300
    assert command("import", path).err.startswith("Nothing was sent, because ")


def test_control_c_in_the_terminal_ends_with_the_report_so_far(serve, terminal, command, ndjson):
    plan = Plan({number: lambda: SLOW for number in range(21, 200)})
    emulator = serve(faults=plan, rate_limit=1000)
    path = ndjson(120)
    begun = terminal("import", path, "--concurrency", "3")
    begun.expect(" · quota ")
    begun.expect("20 events · ")
    assert "/s" in begun.seen
    pressed = time.monotonic()
    begun.interrupt()
    done = begun.finish()
    assert time.monotonic() - pressed < 20
    assert done.code == 130
    assert "20 accepted" in done.out
    assert "not sent, or not answered yet" in done.out
    assert "Interrupted; run the same command again to resume." in done.out
    plan.at.clear()
    done = command("import", path, "--json")
    assert (done.code, done.json["before"], done.json["accepted"]) == (0, 20, 100)
    assert times(emulator) == [NOON + number for number in range(120)]


def test_so_does_a_signal_where_there_is_no_terminal(serve, begin, command, ndjson):
    arrived = threading.Event()
    plan = Plan({number: lambda: arrived.set() or SLOW for number in range(21, 200)})
    serve(faults=plan)
    path = ndjson(120)
    process = begin("import", path, "--concurrency", "1", "--json")
    assert arrived.wait(PATIENCE)
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert json.loads(out)["accepted"] == 20
    assert err == b"Interrupted; run the same command again to resume.\n"
    plan.at.clear()
    assert command("import", path, "--json").json["before"] == 20


@pytest.mark.parametrize("asked", [["validate"], ["import", "--dry-run"], ["import"]])
def test_a_silent_pipe_can_be_left(asked, emulator, begin, monkeypatch):
    process = begin(*asked, "-")
    process.stdin.write(f"{json.dumps(event(0, user_id=7))}\n".encode())
    process.stdin.flush()
    # It has begun to read when it tells of this one.
    stream = process.stdout if asked == ["validate"] else process.stderr
    assert b"user_id must be a string" in stream.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Interrupted; " in err
    assert b"1 rejected" in out or b"1 invalid" in err


def test_what_failed_is_sent_again_and_nothing_else(serve, command, ndjson):
    plan = Plan({2: lambda: Fault.failing(500)})
    emulator = serve(faults=plan)
    path = ndjson(3)
    done = command("import", path, "--max-retries", "0", "--concurrency", "1")
    assert done.code == 3
    assert "1 failed temporarily" in done.out
    assert "failed: 500" in done.err
    done = command("import", path, "--json")
    assert (done.code, done.json["before"], done.json["accepted"]) == (0, 2, 1)
    assert emulator.counts.processed == 3


def test_an_outage_ends_it_soon_and_it_goes_on_later(serve, command, ndjson):
    emulator = serve(faults=[Fault.failing(503)] * 20)
    path = ndjson(300)
    done = command("import", path, "--concurrency", "1", "--max-retries", "0")
    assert done.code == 3
    assert (
        "20 events in a row failed; run the same command again later. The last failure: "
        in done.err
    )
    assert "0 accepted" in done.out
    assert command("import", path).code == 0
    assert len(emulator.events) == 300


def test_what_was_refused_before_is_not_forgotten(serve, command, ndjson):
    serve(contacts=[EmulatedContact(user_id="0")])
    path = ndjson(2)
    for _ in range(2):
        done = command("import", path)
        assert done.code == 1
        assert "Fix the lines in " in done.err
    assert "1 rejected in earlier runs; " in done.out
    assert command("import", path, "--json").json["refused_before"] == 1
    path.with_name("events.refused.ndjson").unlink()
    assert command("import", path).code == 0


def test_another_access_token_is_taken_for_another_workspace(
    emulator, command, ndjson, monkeypatch
):
    path = ndjson(3)
    assert command("import", path).code == 0
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-access-token")
    done = command("import", path)
    assert done.code == 2
    assert "with another access token" in done.err
    assert "--token-renewed" in done.err
    assert b"another-access-token" not in path.with_name("events.ndjson.journal").read_bytes()
    assert command("import", path, "--token-renewed").code == 0
    assert len(emulator.events) == 3


@pytest.mark.parametrize("wrong", [["--max-rate", "0"], ["--concurrency", "0"]])
def test_what_cannot_begin_leaves_everything_as_it_was(wrong, emulator, command, ndjson):
    path = ndjson(3)
    journal = path.with_name("events.ndjson.journal")
    assert command("import", path, *wrong).code == 2
    assert not journal.exists()
    assert command("import", path).code == 0
    before = journal.read_bytes()
    assert command("import", path, "--restart", *wrong).code == 2
    path.with_name("events.refused.ndjson").write_text("mine")
    assert command("import", path, "--restart").code == 2
    assert journal.read_bytes() == before


def test_a_journal_is_kept_in_a_file_alone(emulator, command, ndjson):
    os.mkfifo("pipe")
    done = command("import", ndjson(1), "--journal", "pipe")
    assert done.code == 2
    assert "pipe is not a regular file; choose another path" in done.err


def test_the_name_of_a_file_to_mend_can_be_copied_into_a_shell(serve, command, ndjson):
    serve(contacts=[])
    path = ndjson(1).rename("my $(events).ndjson")
    done = command("import", path)
    assert done.err.endswith("intercom-events import 'my $(events).refused.ndjson'\n")


def test_an_import_that_began_elsewhere_does_not_go_on_here(emulator, command, ndjson):
    path = ndjson(3)
    assert command("import", path).code == 0
    done = command("import", path, "--base-url", NOBODY)
    assert done.code == 2
    assert "is for an import to http://127.0.0.1:" in done.err
    assert f"not to {NOBODY}; move it away" in done.err
    assert len(emulator.events) == 3


def test_a_pipe_goes_on_by_a_journal_of_ones_own(serve, command):
    plan = Plan({2: lambda: Fault.failing(500)})
    serve(faults=plan)
    text = "".join(f"{json.dumps(event(number))}\n" for number in range(3)).encode()
    asked = ["import", "-", "--journal", "own.journal", "--max-retries", "0", "--json"]
    assert command(*asked, stdin=text).code == 3
    done = command(*asked, stdin=text)
    assert (done.code, done.json["before"], done.json["accepted"]) == (0, 2, 1)
    done = command(*asked, stdin=text.replace(b"placed", b"signed"))
    assert done.code == 2
    assert "standard input was changed after its import began" in done.err


def test_without_a_journal_an_interrupted_pipe_says_so(serve, begin):
    arrived = threading.Event()
    serve(faults=Plan({2: lambda: arrived.set() or SLOW}))
    process = begin("import", "-", "--concurrency", "1")
    process.stdin.write("".join(f"{json.dumps(event(number))}\n" for number in range(3)).encode())
    process.stdin.flush()
    assert arrived.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"it cannot be resumed without --journal" in err


def test_what_is_appended_is_imported_and_no_more(emulator, command, ndjson):
    path = ndjson(3)
    assert command("import", path).code == 0
    with path.open("a") as file:
        file.write(f"{json.dumps(event(3))}\n")
    done = command("import", path, "--json")
    assert (done.code, done.json["before"], done.json["accepted"]) == (0, 3, 1)


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (
            lambda text: text.replace("placed-order", "signed-order"),
            "lines 1 to 3 are no longer the same",
        ),
        (lambda text: text[: len(text) // 2], "its text has"),
        (lambda text: "", "its text has 0 bytes"),
        (
            lambda text: text[:-1] + json.dumps(event(9)),
            "line 3 had no line ending and was continued",
        ),
    ],
)
def test_a_file_that_has_changed_is_not_gone_on_with(change, how, emulator, command, ndjson):
    path = ndjson(3)
    text = path.read_text()
    if "no line ending" in how:
        path.write_text(text[:-1])
    assert command("import", path).code == 0
    path.write_text(change(text))
    done = command("import", path)
    assert (done.code, emulator.counts.requests) == (2, 3)
    assert f"{path} was changed after its import began" in done.err
    assert how in done.err
    assert "pass --restart" in done.err


def test_a_single_changed_line_is_named_as_one(emulator, command, ndjson):
    path = ndjson(1)
    assert command("import", path).code == 0
    path.write_text(path.read_text().replace("placed-order", "signed-order"))
    done = command("import", path)
    assert (done.code, emulator.counts.requests) == (2, 1)
    assert "began: line 1 is no longer the same; undo the change" in done.err


def test_a_last_line_without_an_end_can_be_given_one(emulator, command, ndjson):
    path = ndjson(3)
    path.write_text(path.read_text()[:-1])
    assert command("import", path).code == 0
    with path.open("a") as file:
        file.write(f"\n{json.dumps(event(3))}")
    done = command("import", path, "--json")
    assert (done.code, done.json["before"], done.json["accepted"]) == (0, 3, 1)
    assert command("import", path, "--json").json["before"] == 4


def test_restart_imports_all_of_it_anew(emulator, command, ndjson):
    path = ndjson(3)
    assert command("import", path).code == 0
    path.write_text(path.read_text().replace("placed", "signed"))
    done = command("import", path, "--restart", "--json")
    assert (done.code, done.json["accepted"]) == (0, 3)
    assert len(emulator.events) == 6


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("secret", []),
        ("secret\n", []),
        ("{}\n", ["--restart"]),
        ('{"journal": 1}\n', []),
        ('{"journal": 1}\n', ["--restart"]),
    ],
)
def test_what_is_no_journal_is_left_as_it_is(text, flags, emulator, command, ndjson):
    Path("own").write_text(text)
    done = command("import", ndjson(), "--journal", "own", *flags)
    assert (done.code, done.out) == (2, "")
    assert "own is not the journal of an import" in done.err
    assert Path("own").read_text() == text


def test_two_imports_of_a_file_keep_out_of_each_others_way(serve, begin, command, ndjson):
    arrived = threading.Event()
    serve(faults=Plan({1: lambda: arrived.set() or SLOW}))
    path = ndjson()
    process = begin("import", path)
    assert arrived.wait(PATIENCE)
    for flags in ([], ["--restart"]):
        done = command("import", path, *flags)
        assert (done.code, done.out) == (3, "")
        assert "another import is using the journal" in done.err
    process.kill()
    process.communicate()
    assert command("import", path).code == 0


# Times


def test_events_without_a_time_are_refused_unless_they_are_stamped(emulator, command, ndjson):
    path = ndjson([{"event_name": "came", "user_id": "1"}])
    done = command("import", path)
    assert done.code == 1
    assert "--stamp-now" in done.err
    assert emulator.counts.requests == 0


def test_a_stamp_is_noted_before_it_is_sent_and_stays_the_same(serve, command, ndjson, monkeypatch):
    found = []

    def look():
        found.extend(stamps("events.ndjson.journal"))
        return Fault.failing(500)

    plan = Plan({1: look})
    emulator = serve(faults=plan)
    now = [NOON + 100.5]
    monkeypatch.setattr(importing.time, "time", lambda: now[0])
    path = ndjson([{"event_name": "came", "user_id": "1"}])
    asked = ["import", path, "--stamp-now", "--max-retries", "0"]
    assert command(*asked).code == 3
    assert found == [NOON + 100]
    now[0] += 50
    with path.open("a") as file:
        file.write(json.dumps({"event_name": "came", "user_id": "1"}))
    assert command(*asked).code == 0
    assert times(emulator) == [NOON + 100, NOON + 150]


# What is refused


def test_refused_lines_are_mended_and_imported_again(emulator, command, ndjson):
    path = ndjson([event(0), event(1, user_id=7), event(2)])
    with path.open("a") as file:
        file.write("{broken\n")
    done = command("import", path)
    assert done.code == 1
    refused = Path("events.refused.ndjson")
    assert f"intercom-events import {path.with_name(refused.name)}" in done.err
    lines = refused.read_text().splitlines()
    reasons = dict(zip(lines[::2], lines[1::2], strict=True))
    [broken, number] = sorted(reasons, reverse=True)
    assert number.startswith("# line 2: user_id must be a string, not 7")
    assert json.loads(reasons[number]) == event(1, user_id=7)
    assert broken.startswith("# line 4: the line is not valid JSON")
    assert stat.S_IMODE(refused.stat().st_mode) == 0o600
    mended = refused.read_text().replace('"user_id": 7', '"user_id": "7"')
    refused.write_text(mended.replace("{broken", json.dumps(event(3))))
    done = command("import", refused)
    assert (done.code, done.err) == (0, "")
    assert times(emulator) == [NOON + number for number in range(4)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_refused_rows_are_mended_and_imported_again(delimiter, emulator, command):
    rows = [row(0), row(1, name=""), row(2), row(3, name='"two\nlines ""quoted"""') + ",extra"]
    path = table(*(line.replace(",", delimiter) for line in rows))
    path.write_text(path.read_text().replace(HEADER, HEADER.replace(",", delimiter)))
    assert command("import", path).code == 1
    refused = Path("events.refused.csv")
    with refused.open(newline="") as file:
        heading, *found = csv.reader(file, delimiter=delimiter)
    assert heading == ["refused_because", *HEADER.split(",")]
    reasons = {cells[0].split(":")[0]: cells[1:] for cells in found}
    # The header is line 1.
    assert reasons["line 3"] == ["", str(NOON + 1), "1", "pro"]
    assert reasons["line 5"] == ['two\nlines "quoted"', str(NOON + 3), "3", "pro", "extra"]
    mended = refused.read_text().replace(f"{delimiter}extra", "")
    refused.write_text(mended.replace(f"{delimiter}{delimiter}", f"{delimiter}came{delimiter}"))
    done = command("import", refused)
    assert (done.code, done.err) == (0, "")
    assert times(emulator) == [NOON + number for number in range(4)]


def test_refused_events_from_before_are_not_touched(emulator, command, ndjson):
    Path("events.refused.ndjson").write_text("being mended")
    path = ndjson([event(0, user_id=7)])
    done = command("import", path)
    assert (done.code, done.out) == (2, "")
    assert "already has rejected events of an earlier import; import it, move it away" in done.err
    assert Path("events.refused.ndjson").read_text() == "being mended"
    assert command("import", path, "--refused", "other").code == 1
    assert Path("other").read_text().startswith("# line 1: ")


def test_refused_events_are_not_written_into_what_is_read(emulator, command, ndjson):
    path = ndjson(2)
    assert command("import", path).code == 0
    before = path.read_text() + "{broken\n"
    path.write_text(before)
    done = command("import", path, "--refused", path)
    assert (done.code, done.out) == (2, "")
    assert path.read_text() == before


@pytest.mark.parametrize("amount", ["29,99", "much", ""])
def test_what_is_wrong_with_a_pair_of_cells_is_told_once(amount, command):
    header = "event_name,user_id,metadata.price.amount,metadata.price.currency,created_at"
    Path("events.csv").write_text(f'{header}\nordered,1,"{amount}",usd,yesterday\n')
    done = command("validate", "events.csv")
    assert done.code == 1
    assert done.out.count("price") == 1, done.out
    assert "created_at must be an ISO 8601 time" in done.out


@pytest.mark.parametrize("other", ["notes", "./notes"])
def test_the_journal_and_the_refused_events_are_two_files(other, emulator, command, ndjson):
    done = command("import", ndjson(1), "--journal", "notes", "--refused", other)
    assert (done.code, done.out) == (2, "")
    assert "--refused and --journal must be different files; choose another path" in done.err
    assert not Path("notes").exists()


def test_a_file_without_one_line_that_can_be_read_leaves_no_journal(emulator, command):
    path = Path("events")
    path.write_bytes(b"lines that end\ras they did long ago\r")
    assert command("import", path).code == 2
    assert list(Path().iterdir()) == [path]
    path.write_text(f"{json.dumps(event(0))}\n")
    assert command("import", path).code == 0
    assert len(emulator.events) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has this file")
def test_a_file_that_cannot_be_read_is_named(emulator, command):
    done = command("import", "/proc/self/mem")
    assert (done.code, done.err) == (
        2,
        "Error: cannot read /proc/self/mem: input/output error\n",
    )


def test_a_run_that_goes_on_adds_to_what_was_refused(serve, command, ndjson):
    plan = Plan({1: lambda: Fault.failing(500)})
    serve(faults=plan)
    path = ndjson([event(0, user_id=7), event(1)])
    assert command("import", path, "--max-retries", "0").code == 3
    with path.open("a") as file:
        file.write(f"{json.dumps(event(2, user_id=7))}\n")
    refused = Path("events.refused.ndjson")
    # Its last line was cut off.
    refused.write_text(refused.read_text()[:-1])
    assert command("import", path).code == 1
    lines = refused.read_text().splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == ["# line 1", "# line 3"]


def test_ten_problems_are_told_and_all_of_them_written(emulator, command, ndjson):
    path = ndjson([event(number, user_id=7) for number in range(30)])
    done = command("import", path)
    assert done.err.count("rejected: user_id must be a string, not 7") == 10
    assert "further problems are counted" in done.err
    assert Path("events.refused.ndjson").read_text().count("# line ") == 30
    path = ndjson([event(number, user_id=7) for number in range(30)], name="other.ndjson")
    done = command("import", path, "--quiet")
    assert done.err.splitlines() == [done.err.splitlines()[0]]
    assert done.err.startswith("Fix the lines in ")


def test_nothing_in_a_file_steers_the_terminal(emulator, command, ndjson, terminal):
    hostile = "\x1b]0;owned\x07\x9b31m"
    path = ndjson([event(0, user_id="", **{hostile: hostile}), event(1, user_id=hostile * 2)])
    with path.open("ab") as file:
        file.write(b'{"\x1b[31m\n\x1b[31m\n')
    finished = [terminal(asked, path).finish() for asked in ("import", "validate")]
    for done in [*finished, command("validate", "--json", path)]:
        assert done.code == 1
        for steering in ("\x1b]", "\x07", "\x9b", "\x1b[31m"):
            assert steering not in done.out
    assert "\x1b" not in Path("events.refused.ndjson").read_text().split("\n")[0]


# What cannot be read


#: Runs a command from a small process and prints the command's peak memory in KiB last. Started by
#: the tests, the command would be charged with their memory.
MEASURING = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], check=False)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def validated(megabytes: int) -> tuple[list[str], bytes, int]:
    """Validates two good lines and a long one between them; returns output, counts and memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", MEASURING, *COMMAND, "validate", "-", "--quiet"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        line = f"{json.dumps(event(0))}\n".encode()
        process.stdin.write(line)
        for _ in range(megabytes):
            process.stdin.write(b"a" * 1024 * 1024)
        process.stdin.write(b"\n" + line.replace(b"placed", b"signed"))
        process.stdin.close()
        *said, most = process.stdout.read().decode().splitlines()
        counted = process.stderr.read()
    assert process.returncode == (1 if said else 0)
    return said, counted, int(most)


@pytest.mark.costly
@pytest.mark.processes
def test_a_line_of_hundreds_of_megabytes_takes_little_memory_and_is_named():
    nothing, _, little = validated(0)
    said, counted, most = validated(256)
    assert nothing == []
    assert said == [
        "-:2: the line must have at most 1,048,576 bytes (1 MiB), not 268,435,456; shorten it"
    ]
    assert b"3 events, 2 valid" in counted
    assert most - little < 32 * 1024


ZIPPED = gzip.compress(f"{json.dumps(event(0))}\n".encode() * 2000, mtime=0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty; choose another file"),
        (b"\n \n\r\n", "contains no events"),
        (
            "id,event_name\n1,a\n".encode("utf-16"),
            "events: line 1: the file is UTF-16; convert it with: iconv",
        ),
        (b"PK\x03\x04whatever", "looks like a zip archive"),
        (b"event_name,created_at\nran,1\n", "add user_id, id or email"),
        (b"name,user_id\nran,1\n", "events: line 1: the CSV header is invalid"),
        (b'[{"event_name": "ran"}]', "single JSON document; write one event per line"),
        (
            b"event_name,user_id," + b",".join(b"metadata.k%d" % n for n in range(16_000)),
            "events: line 1: the CSV header is invalid: there must be at most 1,000 columns, not",
        ),
        (ZIPPED[:-9], "events is truncated gzip data"),
        (ZIPPED[:60] + b"damaged" + ZIPPED[67:], "events is damaged gzip data"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (
            f"{json.dumps(event(0))}\n".encode() + b"\0",
            "events: line 2: the text must not contain a NUL byte",
        ),
    ],
)
def test_files_that_are_no_events_are_told_of_with_a_remedy(data, said, emulator, command):
    path = Path("events")
    path.write_bytes(data)
    for asked in ([("validate", path)], [("import", path, "--json")], [("import", path)]):
        done = command(*asked[0])
        # What can be read before it ends has been sent, and running it again goes on.
        is_incomplete = '"accepted": 1' in done.out or "truncated" in said
        assert done.code == (3 if is_incomplete else 2)
        assert said in done.err


def test_a_latin_1_line_is_named_and_the_others_are_sent(emulator, command, ndjson):
    path = ndjson(2)
    with path.open("ab") as file:
        file.write(json.dumps(event(2, user_id="é"), ensure_ascii=False).encode("latin-1") + b"\n")
    done = command("import", path)
    assert done.code == 1
    assert "line 3 rejected: the text must be UTF-8, but has byte 0xe9" in done.err
    assert "iconv -f LATIN1 -t UTF-8" in done.err
    assert b"\xe9" in Path("events.refused.ndjson").read_bytes()
    assert len(emulator.events) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".", "cannot read .: is a directory"),
        ("missing.ndjson", "cannot read missing.ndjson: no such file or directory"),
        ("x" * 300, "x: file name too long"),
        ("a\0b", "cannot read a"),
    ],
)
def test_what_cannot_be_opened_is_told_of(name, said, emulator, command):
    for asked in ("import", "validate"):
        done = command(asked, name)
        assert (done.code, done.out) == (2, "")
        assert said in done.err


def test_a_name_of_no_characters_is_a_name_like_any_other(emulator, piped, ndjson):
    name = os.fsdecode(b"caf\xe9.ndjson")
    ndjson(2).rename(name)
    done = piped("import", name, "--json")
    assert (done.code, done.json["accepted"]) == (0, 2)


# Where there is no room


def test_a_full_disk_under_the_journal_ends_it_and_it_goes_on(emulator, command, ndjson):
    assert command("import", ndjson(60, name="event-.ndjson")).code == 0
    # What has to be noted before anything is sent.
    first = [len(line) for line in Path("event-.ndjson.journal").read_bytes().split(b"\n")[:2]]
    for number, size in enumerate([0, 10, first[0], first[0] + 9, sum(first), sum(first) + 300]):
        emulator.clear()
        path = ndjson(60, name=f"event{number}.ndjson")
        with no_file_above(size):
            done = command("import", path, "--concurrency", "1")
        assert done.code == 3
        assert (
            f"cannot write the journal {path}.journal: file too large; check the "
            f"free space and permissions" in done.err
        )
        assert (emulator.counts.processed > 0) is (size > sum(first) + 2)
        done = command("import", path, "--json")
        assert done.code == 0
        assert done.json["before"] + done.json["accepted"] == done.json["events"] == 60
        assert times(emulator) == [NOON + number for number in range(60)]


def test_a_full_disk_under_the_refused_events_ends_it_and_it_goes_on(emulator, command):
    # Its quotes would swallow what follows, were it left half written.
    rows = [row(number, name='"a ""b"" c"', plan="x" * 9000) + ",extra" for number in range(9)]
    assert command("import", table(*rows, name="a.csv")).code == 1
    whole = Path("a.refused.csv").read_text()
    path = table(*rows)
    for less in (1, 30, 60):
        with no_file_above(len(whole) - less):
            done = command("import", path, "--restart")
        assert done.code == 3
        assert "refused.csv: file too large; check the free space and permissions" in done.err
        assert command("import", path).code == 1
        assert Path("events.refused.csv").read_text() == whole
        Path("events.refused.csv").unlink()
    done = command("import", table(row(9, name=""), name="c.csv"), "--refused", "/dev/full")
    assert done.code == 3
    assert "no space left on device" in done.err


# How far it is


def test_through_a_pipe_progress_is_lines_now_and_then(serve, command, ndjson, monkeypatch):
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    plan = Plan({number: lambda: Fault.slow(0.3) for number in (30, 60)})
    serve(rate_limit=1000, faults=plan)
    path = ndjson(90)
    done = command("import", path, "--concurrency", "1")
    assert done.code == 0
    told = [line for line in done.err.splitlines() if "quota" in line]
    assert told
    for line in told:
        assert line.startswith("events.ndjson: ")
        found = re.search(r": (\d+)%, (\d+) events, \d+/s, quota \d+ left, \d+:\d\d to go$", line)
        # All is read, long before it is sent.
        assert abs(int(found[1]) - int(found[2]) / 0.9) <= 1
    done = command("import", path, "--restart", "--quiet")
    assert (done.code, done.err) == (0, "")


def test_in_a_pipe_and_a_terminal_the_same_becomes_of_a_file(emulator, piped, terminal, ndjson):
    path = ndjson(3)
    done = piped("import", path)
    assert (done.code, done.err) == (0, "")
    assert "3 accepted" in done.out
    done = terminal("import", path, "--restart").finish()
    assert done.code == 0
    assert "3 accepted" in done.out


def test_nobody_who_listens_is_no_reason_to_stop(emulator, begin, ndjson):
    path = ndjson([event(number, user_id=7) for number in range(20)] + [event(0)])
    reading, writing = os.pipe()
    os.close(reading)
    process = begin("import", path, stdout=writing, stderr=writing)
    os.close(writing)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert len(emulator.events) == 1


# Checking


def test_validate_names_every_line_and_sends_nothing(emulator, command):
    path = table(row(0), row(1, name=""), row(0), "ran,yesterday,1,pro", "ran,1")
    done = command("validate", path)
    assert done.code == 1
    assert [line.split(" ")[0] for line in done.out.splitlines()] == [
        f"{path}:{line}:" for line in (3, 5, 6)
    ]
    assert "5 events, 1 valid, 3 invalid, 1 duplicate." in done.err
    done = command("validate", path, "--json")
    assert [one["line"] for one in done.lines] == [3, 5, 6]
    assert (done.code, done.err) == (1, "")
    assert emulator.counts.requests == 0


def test_validate_needs_neither_a_token_nor_a_journal(command, ndjson, tmp_path):
    path = ndjson([{"event_name": "came", "user_id": "1"}])
    assert command("validate", path).code == 1
    done = command("validate", path, "--stamp-now")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{path}: 1 event, 1 valid, 0 invalid.\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_read_as_it_is_told_to_be(command, ndjson):
    assert command("validate", ndjson(3), "--format", "ndjson").code == 0
    assert command("validate", ndjson(3), "--format", "csv").code == 2
