"""Outboxes that earlier versions made: all in them is sent, or a dead letter as before."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from intercom_data_events import ConfigurationError, DataEventsClient, OutboxError
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker

PATIENCE = 30
OUTBOXES = Path(__file__).parent / "outboxes"
FILES = ("version-1", "version-1-killed", "version-2", "version-2-killed")
#: What `make.py` gave as the access token.
TOKEN = "the-token"
#: The events of these files are of 2022, and Intercom lists those of the last 90 days.
NOON = 1_671_028_900.0


@pytest.fixture(params=FILES)
def earlier(request, tmp_path):
    """A copy of a file, with its log if there is one, and what `make.py` says is in it."""
    for source in OUTBOXES.glob(f"{request.param}.db*"):
        shutil.copy(source, tmp_path)
    path = tmp_path / f"{request.param}.db"
    path.chmod(0o600)
    held = json.loads((OUTBOXES / f"{request.param.removesuffix('-killed')}.json").read_text())
    return path, held


def emulated():
    return Emulator(rate_limit=None, clock=lambda: NOON)


def by_time(events):
    return sorted(events, key=lambda fields: fields["created_at"])


def received(emulator):
    """The events that Intercom has got, as `make.py` notes events."""
    return by_time(request.json for request in emulator.requests)


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_of_the_versions_that_they_are_named_after(name, tmp_path):
    for source in OUTBOXES.glob(f"{name}.db*"):
        shutil.copy(source, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
        version, vacuum = (
            connection.execute(f"PRAGMA {setting}").fetchone()[0]
            for setting in ("user_version", "auto_vacuum")
        )
    assert (f"version-{version}", vacuum) == (name.removesuffix("-killed"), 0)


def test_a_file_of_an_earlier_version_holds_what_it_held(earlier):
    path, held = earlier

    with Outbox(path) as box:
        status = box.status(NOON)
        assert (status.queued, status.claimed, status.held, status.dead) == (
            len(held["events"]), 1, 1, len(held["dead"]),
        )  # fmt: skip
        assert status.address == "https://api.intercom.io"
        assert by_time(box.waiting()) == held["events"]
        letters = list(box.dead_letters())
        assert [letter.event for letter in letters] == held["dead"]
        for letter in letters:
            assert (letter.tracked_at, letter.died_at) == (NOON - 60, NOON - 30)
            assert {name: getattr(letter, name) for name in held["error"]} == held["error"]


def test_a_tracker_sends_what_an_earlier_version_tracked(earlier):
    path, held = earlier
    emulator = emulated()

    with DataEventsClient(TOKEN, transport=emulator.transport()) as client:
        with Tracker(client, path) as tracker:
            tracker.track("placed-order", user_id="new", created_at=1_671_028_900)
            assert tracker.flush(PATIENCE)
            assert tracker.counters.queued == 0
        *sent, new = received(emulator)
        assert (sent, new["user_id"]) == (held["events"], "new")
        with Outbox(path) as box:
            assert [letter.event for letter in box.dead_letters()] == held["dead"]
            assert box.retry([box.dead_letters().__next__().id]) == 1
            assert box.status().dead == len(held["dead"]) - 1
            assert box.retry() == len(held["dead"]) - 1
        with Tracker(client, path) as tracker:
            assert tracker.flush(PATIENCE)
        assert received(emulator) == by_time([*held["events"], *held["dead"], new])
        with Outbox(path) as box:
            status = box.status(time.time())
            assert (status.queued, status.dead) == (0, 0)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_of_an_earlier_version_is_for_its_workspace(earlier):
    path, held = earlier
    emulator = emulated()

    with (
        DataEventsClient("another-token", transport=emulator.transport()) as client,
        pytest.raises(ConfigurationError, match="is for another access token"),
    ):
        Tracker(client, path).__enter__().track("placed-order", user_id="new")
    assert emulator.counts.requests == 0
    with Outbox(path) as box:
        assert by_time(box.waiting()) == held["events"]


@pytest.mark.costly
@pytest.mark.processes
def test_outbox_drain_sends_what_an_earlier_version_tracked(earlier):
    path, held = earlier
    emulator = emulated()
    with emulator.serve() as url:

        def command(*arguments):
            done = subprocess.run(
                [sys.executable, "-c", "from intercom_data_events.cli import main; main()",
                 "outbox", *map(str, arguments), "--json"],
                capture_output=True, text=True, check=False, timeout=PATIENCE,
                env={"INTERCOM_ACCESS_TOKEN": TOKEN, "PYTHONPATH": ":".join(sys.path)},
            )  # fmt: skip
            return done.returncode, done.stdout, done.stderr

        # For the address that the file is for; this one is another.
        code, _, errors = command("drain", path, "--base-url", url)
        assert code == 2
        assert "is for https://api.intercom.io" in errors
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE binding SET value = ? WHERE name = 'address'", (url,))

        assert command("retry", path, "--all")[0] == 0
        code, report, errors = command("drain", path, "--base-url", url)
        assert (code, errors) == (0, "")
        assert json.loads(report)["sent"] == len(held["events"]) + len(held["dead"])
    assert received(emulator) == by_time([*held["events"], *held["dead"]])


def test_a_file_of_an_earlier_version_is_made_smaller_where_that_is_asked_for(earlier):
    path, held = earlier

    with Outbox(path) as box:
        assert box.compact() == box.status().size
        assert by_time(box.waiting()) == held["events"]
        assert [letter.event for letter in box.dead_letters()] == held["dead"]


def test_a_file_that_says_it_is_earlier_than_it_is_is_refused(earlier):
    path, _ = earlier
    with Outbox(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 1")

    with pytest.raises(
        OutboxError, match="does not have the schema of an outbox: its table 'events'"
    ):
        Outbox(path)
