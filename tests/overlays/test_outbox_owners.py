"""Who may own and write the files of an outbox: others than its users plant nothing."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pwd
import sqlite3
import stat
import tempfile
from pathlib import Path

import pytest
from children import Child
from secrecy import LOGGER

from intercom_data_events import DataEventsClient, OutboxError
from intercom_data_events.cli.app import run
from intercom_data_events.emulator import Emulator
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker

PATIENCE = 20
#: Users and groups that need not exist: to the kernel they are numbers.
OURS, ANOTHER, NOBODY = 23_001, 23_002, 65_534
SHARED, OTHERS = 23_101, 23_102

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0,
        reason="only root may give files to other users, and become them",
    ),
]


@pytest.fixture
def folder():
    """A folder of our user, which others may look into."""
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, OURS, SHARED)
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def path(folder):
    return folder / "outbox.db"


def as_user(user, function, groups=()):
    """Calls a function in a process of a user; returns what it returned or raised."""

    def become():
        os.setgroups(groups)
        # Its own group has its number.
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        # As most services' users have it.
        os.umask(0o022)
        return function()

    return Child(become).said()


@contextlib.contextmanager
def tracking(path):
    emulator = Emulator(rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path, on_error=lambda *_: None) as tracker,
    ):
        yield tracker


def use(path):
    """Tracks and sends an event; returns how many were sent."""

    def used():
        with tracking(path) as tracker:
            tracker.track("placed-order", user_id=str(os.getuid()))
            assert tracker.flush(PATIENCE)
            return tracker.counters.sent

    return used


def look(path):
    """Looks at the file as a health check does."""

    def looked():
        with Outbox(path) as box:
            return box.status().queued

    return looked


def make(path, user=OURS, mode=0o600, group=None):
    """Has a user make an outbox, which gets a mode, an owner and a group then."""
    assert as_user(OURS, use(path)) == {"returned": 1}
    for end in ("", "-wal", "-shm"):
        if (part := Path(f"{path}{end}")).exists():
            os.chown(part, user, user if group is None else group)
            part.chmod(mode)


def refusal(said):
    """The message of an OutboxError."""
    assert said.get("raised") == "OutboxError", said
    return said["message"]


@pytest.mark.parametrize("purpose", [use, look])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640, 0o660, 0o666])
def test_a_file_of_another_user_is_refused(path, mode, purpose):
    make(path, ANOTHER, mode)
    path.parent.chmod(0o777)

    message = refusal(as_user(OURS, purpose(path)))
    assert str(path) in message
    assert f"the user {ANOTHER}" in message
    if mode == 0o666:
        assert f"chmod o-w {path}" in message
    else:
        assert (
            "run it as the owner, make the file writable by a group that both users belong to"
            in message
        )
    # Nothing was made beside it that would be as open as it.
    assert not any(Path(f"{path}{end}").exists() for end in ("-wal", "-shm")) or mode != 0o666
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_an_owner_that_has_a_name_is_named(path):
    name = pwd.getpwuid(NOBODY).pw_name
    make(path, NOBODY)

    assert f"who runs this process, not to the user {name};" in refusal(as_user(OURS, use(path)))


@pytest.mark.parametrize("mode", [0o606, 0o622, 0o666, 0o777, 0o602])
def test_a_file_of_ours_that_all_may_write_to_is_refused_until_they_may_not(path, mode):
    make(path, OURS, mode)

    message = refusal(as_user(OURS, use(path)))
    assert f"(mode {mode:04o}, owned by the user {OURS})" in message
    command = message.rpartition("run: ")[2]
    assert as_user(OURS, lambda: os.system(command)) == {"returned": 0}
    assert as_user(OURS, use(path)) == {"returned": 1}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660])
def test_a_file_of_ours_is_used_and_its_log_is_as_closed_as_it(path, mode):
    make(path, OURS, mode)

    def modes():
        with tracking(path) as tracker:
            tracker.track("placed-order", user_id="1")
            return [
                stat.S_IMODE(Path(f"{path}{end}").stat().st_mode) for end in ("", "-wal", "-shm")
            ]

    assert as_user(OURS, modes) == {"returned": [mode] * 3}


def test_a_file_of_root_that_ours_may_use_is_used(path):
    make(path, 0, 0o660, SHARED)
    path.parent.chmod(0o775)

    assert as_user(OURS, use(path), [SHARED]) == {"returned": 1}


def test_root_is_told_to_be_the_owner(path):
    make(path)

    message = refusal(as_user(0, look(path)))
    assert (
        f"must belong to the user root, who runs this process, not to the user {OURS};" in message
    )
    assert as_user(0, lambda: run(["outbox", "status", str(path)])) == {"returned": 2}


@pytest.mark.parametrize("group", [SHARED, OTHERS])
def test_a_group_shares_a_file_with_its_own_members_alone(path, group):
    make(path, ANOTHER, 0o660, group)
    path.parent.chmod(0o2775)

    said = as_user(OURS, use(path), [SHARED])
    if group == SHARED:
        assert said == {"returned": 1}
    else:
        assert "make the file writable by a group that both users belong to" in refusal(said)


def test_a_group_that_may_only_read_shares_no_file(path):
    make(path, ANOTHER, 0o640, SHARED)
    path.parent.chmod(0o2775)

    assert "make the file writable by a group that both users belong to" in refusal(
        as_user(OURS, use(path), [SHARED])
    )


def test_two_services_share_a_file_by_their_group_at_once_and_in_turn(path):
    """Each finds the log that the other has made."""
    make(path, OURS, 0o660, SHARED)
    path.parent.chmod(0o2775)
    os.chown(path.parent, OURS, SHARED)

    for user in (OURS, ANOTHER, OURS, ANOTHER):
        assert as_user(user, use(path), [SHARED]) == {"returned": 1}

    def many(user):
        def tracked():
            os.setgroups([SHARED])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            with tracking(path) as tracker:
                for number in range(50):
                    tracker.track("placed-order", user_id=f"{user}-{number}")
                assert tracker.flush(PATIENCE)
            # One that the other has tracked may have been in flight until then.
            return tracker.counters.sent

        return tracked

    children = [Child(many(user)) for user in (OURS, ANOTHER)]
    assert sum(child.said()["returned"] for child in children) == 100
    assert as_user(ANOTHER, look(path), [SHARED]) == {"returned": 0}


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_a_log_that_another_user_has_planted_is_not_read(path, end, mode):
    make(path)
    planted = Path(f"{path}{end}")
    planted.unlink(missing_ok=True)
    planted.write_bytes(b"\xa5" * 4_152)
    os.chown(planted, ANOTHER, ANOTHER)
    planted.chmod(mode)

    for purpose in (use, look):
        message = refusal(as_user(OURS, purpose(path)))
        assert str(planted) in message
        assert f"the user {ANOTHER}" in message
    planted.unlink()
    assert as_user(OURS, use(path)) == {"returned": 1}


@pytest.mark.parametrize("leads", ["nowhere", "to a file", "to a log"])
@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_log_that_leads_elsewhere_is_not_followed(path, folder, end, leads):
    make(path)
    target = folder / "precious"
    if leads != "nowhere":
        target.write_bytes(b"" if leads == "to a log" else b"precious")
        os.chown(target, OURS, OURS)
        target.chmod(0o600)
    link = Path(f"{path}{end}")
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    os.chown(link, ANOTHER, ANOTHER, follow_symlinks=False)

    message = refusal(as_user(OURS, use(path)))
    assert f"{link} is a symbolic link created by the user {ANOTHER}; remove the link" in message
    if leads == "nowhere":
        assert not target.exists()
    else:
        assert target.read_bytes() == (b"" if leads == "to a log" else b"precious")
    link.unlink()
    assert as_user(OURS, use(path)) == {"returned": 1}


def test_a_link_leads_to_a_file_whose_owner_counts(path, folder):
    make(path, ANOTHER)
    link = folder / "link.db"
    link.symlink_to(path)
    os.chown(link, OURS, OURS, follow_symlinks=False)

    assert f"the user {ANOTHER}" in refusal(as_user(OURS, use(link)))
    os.chown(path, OURS, OURS)
    assert as_user(OURS, use(link)) == {"returned": 1}


def test_a_folder_for_all_with_a_file_of_another_user_is_no_trap(path):
    """As /tmp, where another user has made the file before us."""
    path.parent.chmod(0o1777)

    def plant():
        os.umask(0)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE planted (a)")
        path.chmod(0o666)

    assert as_user(ANOTHER, plant) == {"returned": None}
    message = refusal(as_user(OURS, use(path)))
    assert f"the outbox {path} must not be writable by all users" in message
    path.chmod(0o600)
    assert f"not to the user {ANOTHER};" in refusal(as_user(OURS, use(path)))


def test_our_own_file_in_a_folder_for_all_is_used(path):
    path.parent.chmod(0o1777)
    make(path)

    assert as_user(OURS, use(path)) == {"returned": 1}


def test_a_file_that_is_opened_to_all_later_is_refused_by_the_next_process(path):
    make(path)

    def used():
        with tracking(path) as tracker:
            tracker.track("placed-order", user_id="1")
            path.chmod(0o666)
            with pytest.raises(
                OutboxError, match=r"the outbox .* must not be writable by all users"
            ):
                Outbox(path)
            # What uses it already goes on.
            tracker.track("placed-order", user_id="2")
            return tracker.flush(PATIENCE)

    assert as_user(OURS, used) == {"returned": True}


@pytest.mark.parametrize(
    ("mode", "is_told"), [(0o600, False), (0o640, True), (0o660, True), (0o604, True)]
)
def test_that_others_may_use_a_file_is_logged_once(path, mode, is_told):
    make(path, OURS, mode)

    def records():
        found = []

        class Handler(logging.Handler):
            def emit(self, record):
                found.append((record.levelname, record.getMessage()))

        logging.getLogger(LOGGER).addHandler(Handler())
        for _ in range(2):
            use(path)()
            look(path)()
        return [record for record in found if "users other than its owner" in record[1]]

    told = as_user(OURS, records)["returned"]
    assert len(told) == is_told
    for level, message in told:
        assert level == "WARNING"
        assert str(path) in message
        assert f"{mode:04o}" in message


def test_what_is_logged_of_a_file_is_logged_while_no_lock_is_held(path):
    """A handler that tracks waits for nothing of its own thread, nor for another's."""
    make(path, OURS, 0o640)

    def tracked():
        other = tracking(path)
        tracked_too = []

        class Handler(logging.Handler):
            def emit(self, record):
                if "users other than its owner" in record.getMessage():
                    tracker = other.__enter__()
                    tracker.track("placed-order", user_id="handler")
                    tracked_too.append(tracker.flush(PATIENCE))

        logging.getLogger(LOGGER).addHandler(Handler())
        use(path)()
        other.__exit__(None, None, None)
        return tracked_too

    assert as_user(OURS, tracked) == {"returned": [True]}


def test_the_command_line_names_the_owner_and_the_remedy(path):
    make(path, ANOTHER, 0o644)

    def said():
        with (
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as errors,
        ):
            code = run(["outbox", "status", str(path), "--json"])
        return code, out.getvalue(), json.loads(errors.getvalue())["message"]

    code, out, message = as_user(OURS, said)["returned"]
    assert (code, out) == (2, "")
    assert str(path) in message
    assert (
        f"must belong to the user {OURS}, who runs this process, not to the user {ANOTHER}"
        in message
    )
