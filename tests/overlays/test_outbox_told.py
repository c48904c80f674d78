"""What an outbox says of a system that refuses it a file, and of files that it does not trust."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import sqlite3
import time

import pytest
from test_outbox import NOW, box, event, everything, here, opened, path, refusal

from intercom_data_events import OutboxError
from intercom_data_events.outbox import Outbox
from intercom_data_events.outbox._queue import OutboxQueue

__all__ = ["box", "opened", "path", "refusal"]  # fixtures

#: A user that no system has.
STRANGER = 3_999_999_999


@pytest.fixture
def used(path):
    """The path of an outbox that has an event."""
    with contextlib.closing(OutboxQueue(path, here)) as box:
        box.enqueue(event(1), NOW)
    return path


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EMFILE, "too many files open"),
        (errno.ENFILE, "too many files open"),
        (errno.ENOSPC, "because the disk is full; free some space"),
        (errno.EDQUOT, "because the disk is full; free some space"),
        (errno.EACCES, "choose a path in an existing folder that this process may write to"),
    ],
)
def test_why_a_file_cannot_be_made_is_told(path, monkeypatch, number, said):
    def refuse(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutboxError, match=said):
        OutboxQueue(path, here)


def test_a_process_without_descriptors_is_told_so_and_goes_on_with_some(used):
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OutboxError, match="too many files open; close some, or raise the"):
            Outbox(used)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with Outbox(used) as box:
        assert box.status().queued == 1


def test_a_folder_that_is_gone_is_told_where_a_path_is_relative(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(
        OutboxError, match="the working directory of this process was deleted; pass an"
    ):
        Outbox("outbox.db")


def test_a_file_of_another_user_is_refused_and_says_whose_it_is(used, monkeypatch):
    if os.geteuid() == 0:
        os.chown(used, STRANGER, -1)
        owner = f"the user {STRANGER}"
    else:
        owner = "the user "
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER - 1)
    with pytest.raises(OutboxError, match=f", who runs this process, not to {owner}") as raised:
        Outbox(used)
    assert f"must belong to the user {STRANGER - 1}, who runs this process" in str(raised.value)


def test_a_link_that_another_user_made_is_refused_and_says_who(used, monkeypatch):
    link = used.with_name("link.db")
    link.symlink_to(used)
    Outbox(link).close()
    if os.geteuid() == 0:
        os.chown(link, STRANGER, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER - 1)
    with pytest.raises(OutboxError, match=r"link\.db is a symbolic link that the user .* created"):
        Outbox(link)


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o777])
def test_a_file_that_all_may_write_to_is_refused_with_the_command_that_helps(used, mode):
    used.chmod(mode)
    with pytest.raises(OutboxError, match=f"mode 0{mode:o}, owned by") as raised:
        Outbox(used)
    assert str(raised.value).endswith(f"if you trust its contents, run: chmod o-w {used}")
    used.chmod(0o600)
    Outbox(used).close()


def test_that_others_may_read_a_file_is_logged_once(used, caplog):
    used.chmod(0o644)
    for _ in range(2):
        Outbox(used).close()
    (line,) = [record.getMessage() for record in caplog.records]
    assert "personal data, but users other than its owner can access it (mode 0644)" in line
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tracked_at": "9e999"}, "tracked_at must be a time in Unix seconds"),
        ({"tracked_at": "-1e300"}, "tracked_at must be a time in Unix seconds"),
        ({"tries": "-1"}, "tries must be an integer from 0 to 1,000,000"),
        ({"tries": "1e6 + 1"}, "tries must be an integer from 0 to 1,000,000"),
        ({"rejected_at": "9e999"}, "rejected_at must be a time in Unix seconds"),
        ({"event": "printf('%.*c', 17000000, 'x') || ?"}, "must have at most 16,777,216 bytes"),
    ],
)
def test_a_row_that_is_no_event_becomes_a_dead_letter_with_the_reason(opened, used, columns, said):
    text = json.dumps(event(2).to_dict())
    with contextlib.closing(sqlite3.connect(used, isolation_level=None)) as other:
        values = {"event": "?", "tracked_at": str(NOW), "tries": "0", "rejected_at": "NULL"}
        values |= columns
        places = text if "?" in values["event"] else None
        other.execute(
            f"INSERT INTO events ({', '.join(values)}) VALUES ({', '.join(values.values())})",
            () if places is None else (places,),
        )
    box = opened(used)
    assert everything(box) == [1]
    (letter,) = box.dead_letters()
    assert said in letter.message
    assert letter.died_at <= time.time()
