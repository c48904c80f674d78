"""Where an outbox's files are deleted, moved or replaced while processes have them open."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_outbox import (
    FORKING,
    NOW,
    Process,
    at_each_line,
    box,
    event,
    everything,
    here,
    is_sound,
    log_of,
    opened,
    path,
    refusal,
    tidy,
    users,
)

from intercom_data_events import DataEventsClient, OutboxError
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox as Look
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import Tracker

__all__ = ["box", "opened", "path", "refusal"]  # fixtures

#: What is taken away, by the endings of the files.
TAKEN = [("-wal",), ("-shm",), ("-wal", "-shm")]

taken = pytest.mark.parametrize("endings", TAKEN, ids="+".join)


def files(path, endings):
    return [Path(f"{path}{ending}") for ending in endings]


def delete(path, endings):
    for one in files(path, endings):
        one.unlink()


def rows(path, table="events"):
    """What any other program finds in the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = f"SELECT json_extract(event, '$.user_id') FROM {table} ORDER BY 1"
        return sorted(int(user) for (user,) in connection.execute(query))


#: Another process, which opens the file when it is told, and says what it did.
OTHER = """
    box = Outbox(sys.argv[1], patience=5)
    for line in sys.stdin:
        what, *numbers = line.split()
        numbers = list(map(int, numbers))
        if what == "track":
            for number in range(*numbers):
                box.enqueue(event(number), NOW)
        elif what == "send":
            sent = []
            for _ in range(*numbers):
                entry = box.claim(NOW)
                box.ack(entry)
                sent.append(entry.event.user_id)
            say(*sent)
        elif what == "look":
            box.run_maintenance(NOW, ())
        elif what == "checkpoint":
            with contextlib.closing(__import__("sqlite3").connect(sys.argv[1])) as connection:
                assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        elif what == "close":
            box.close()
        elif what == "end":
            break
        say("done")
"""


class Another(Process):
    """Another process that has the file open."""

    def __init__(self, path):
        super().__init__(OTHER, path)

    def do(self, what, *numbers):
        print(what, *numbers, file=self._process.stdin, flush=True)
        said = []
        while (line := self.said()) != "done":
            said += map(int, line.split())
        return said


@taken
@pytest.mark.parametrize("many", [1, 383])
@pytest.mark.parametrize("then", ["track", "look", "close", "status", "claim"])
def test_what_was_tracked_is_in_the_file_that_others_see(opened, path, endings, many, then):
    box = opened(binding=here)
    for number in range(many):
        box.enqueue(event(number), NOW)
    delete(path, endings)

    if then == "track":
        box.enqueue(event(many), NOW)
        many += 1
    elif then == "look":
        box.run_maintenance(NOW, ())
    elif then == "status":
        assert box.status().queued == many
    elif then == "claim":
        assert box.claim(NOW).event.user_id == "0"
    else:
        box.close()
    assert rows(path) == [*range(many)]
    box.close()
    assert rows(path) == [*range(many)]
    assert users(opened().waiting()) == [*range(many)]


@taken
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("ends", ["goes on", "closes", "ends", "is killed"])
@pytest.mark.parametrize("mine", [3, 344])
@pytest.mark.parametrize("theirs", [2, 470])
@pytest.mark.processes
def test_nothing_is_lost_beside_a_process_that_opened_the_file_afterwards(
    opened, path, endings, checkpointed, ends, mine, theirs
):
    box = opened(binding=here)
    for number in range(mine):
        box.enqueue(event(number), NOW)
    if checkpointed:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        for number in range(mine, mine + 5):
            box.enqueue(event(number), NOW)
        mine += 5
    delete(path, endings)
    if endings == ("-wal",):
        # Nobody can open it as long as the index of the log is there.
        box.run_maintenance(NOW, ())
    with Another(path) as other:
        other.do("track", 1000, 1000 + theirs)
        other.do("checkpoint")
        if ends == "closes":
            other.do("close")
        elif ends == "ends":
            print("end", file=other._process.stdin, flush=True)
            other.end()
        elif ends == "is killed":
            other.kill()
        box.enqueue(event(999), NOW)
        if ends == "goes on":
            other.do("track", 2000, 2001)
        expected = {*range(mine), 999, *range(1000, 1000 + theirs)}
        if ends == "goes on":
            expected.add(2000)
        assert rows(path) == sorted(expected)
        sent = everything(box)
        assert sorted(sent) == sorted(expected)
