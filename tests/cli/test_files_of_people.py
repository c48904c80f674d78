"""Files that the command line makes have people's data: they are for their owner, and stay it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest.mock import Mock

import pytest

from intercom_data_events import DataEventsClient
from intercom_data_events.tracker import Tracker

from .conftest import event

#: A user that need not exist: to the kernel it is a number.
STRANGER = 23_456


@pytest.fixture
def give_away(monkeypatch):
    """Makes a file or a link another user's; who is not root becomes another user instead."""

    def give(path):
        if os.geteuid() == 0:
            os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
        else:
            mine = os.geteuid()
            monkeypatch.setattr(os, "geteuid", lambda: mine + 1)

    return give


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.fixture
def _given(emulator, command, ndjson):
    """One event of a contact, an outbox with one event, and a file with a line to refuse."""
    assert command("track", "ran", "--user-id", "1").code == 0
    ndjson([event(0, user_id="1"), {"event_name": "", "user_id": "frodo@example.com"}])
    with DataEventsClient("token", transport=emulator.transport()) as client:
        Tracker(client, "outbox.db").close()


#: What writes a file anew: the arguments but for the path, which come last.
ANEW = {
    "export": ["export", "--user-id", "1", "-o"],
    "export as CSV": ["export", "--user-id", "1", "--format", "csv", "-o"],
    "outbox export": ["outbox", "export", "outbox.db", "-o"],
    "list --svg": ["list", "--user-id", "1", "--svg"],
    "summary --svg": ["summary", "--user-id", "1", "--svg"],
}
#: What opens a file to write on.
ON = {
    "journal": ["import", "events.ndjson", "--restart", "--refused", "{}.other", "--journal"],
    "refused": ["import", "events.ndjson", "--restart", "--journal", "{}.other", "--refused"],
}
ALL = ANEW | ON
#: To who is not root and becomes another user, the outbox is another user's, too.
OF_OTHERS = [what for what in ALL if os.geteuid() == 0 or what != "outbox export"]

pytestmark = pytest.mark.usefixtures("_given")


def use(command, what, path):
    return command(*(str(one).format(path) for one in ALL[what]), path)


def used_well(command, what, path):
    """Whether the command did it all; a line is refused of what is imported."""
    return use(command, what, path).code == (1 if what in ON else 0)


@pytest.mark.parametrize("umask", [0o000, 0o077], ids="{:03o}".format)
def test_a_new_file_is_for_its_owner_alone(command, umask):
    before = os.umask(umask)
    try:
        for what in ALL:
            assert used_well(command, what, f"new {what}"), what
            assert mode(f"new {what}") == 0o600, what
    finally:
        os.umask(before)


@pytest.mark.parametrize("kept", [0o640, 0o604, 0o660], ids="{:03o}".format)
def test_a_file_of_ones_own_keeps_its_mode(command, kept):
    for what in ALL:
        path = Path(f"old {what}")
        path.touch()
        path.chmod(kept)
        assert used_well(command, what, path), what
        assert mode(path) == kept, what
        assert path.stat().st_size or "outbox" in what, what


@pytest.mark.parametrize("theirs", [0o644, 0o666], ids="{:03o}".format)
def test_a_file_that_another_user_made_is_refused(command, emulator, give_away, theirs):
    for what in OF_OTHERS:
        path = Path(f"theirs {what}")
        path.touch()
        path.chmod(theirs)
        give_away(path)

        done = use(command, what, path)

        assert done.code == 2, done
        if what in ANEW:
            assert ", who runs this process, not to the user " in done.err
            assert "; delete it, or choose another path" in done.err
        elif theirs == 0o666:
            assert " must not be writable by all users (mode 0666, owned by " in done.err
            assert done.err.endswith(f"if you trust its contents, run: chmod o-w '{path}'\n")
        else:
            assert (
                "run it as the owner, make the file writable by a group that both users belong to"
                in done.err
            )
        assert (path.stat().st_size, mode(path)) == (0, theirs)
    assert emulator.counts.stored == 1  # Nothing was sent before.


def test_a_file_of_ones_own_that_all_may_write_to_is_not_written_on(command):
    for what in ON:
        path = Path(f"open {what}")
        path.touch()
        path.chmod(0o666)
        done = use(command, what, path)
        assert done.code == 2
        assert " must not be writable by all users (mode 0666, owned by " in done.err
        assert path.stat().st_size == 0

        path.chmod(0o600)
        assert used_well(command, what, path)


@pytest.mark.parametrize("leads", ["nowhere", "to a file", "by one of one's own"])
def test_a_link_that_another_user_made_is_not_followed(command, give_away, leads):
    for what in OF_OTHERS:
        target, link = Path(f"target {what}"), Path(f"link {what}")
        if leads != "nowhere":
            target.write_text("precious")
        link.symlink_to(target)
        first = Path(f"first {what}") if leads == "by one of one's own" else link
        if first is not link:
            first.symlink_to(link)
        give_away(link)

        done = use(command, what, first)

        assert done.code == 2, done
        assert "is a symbolic link that the user " in done.err
        assert " created; remove the link, or choose another path" in done.err
        assert link.is_symlink()
        assert not target.exists() if leads == "nowhere" else target.read_text() == "precious"


def test_a_link_of_ones_own_is_followed(command):
    folder = Path("folder")
    folder.mkdir()
    for what in ALL:
        link = Path(f"link {what}")
        link.symlink_to(f"folder/second {what}")
        (folder / f"second {what}").symlink_to(f"target {what}")

        assert used_well(command, what, link), what
        assert link.is_symlink()
        assert mode(folder / f"target {what}") == 0o600
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_links_that_lead_in_a_circle_are_told(command):
    Path("one").symlink_to("two")
    Path("two").symlink_to("one")
    for what in ALL:
        done = use(command, what, "one")
        assert done.code in (2, 3)
        assert "too many levels of symbolic links" in done.err


def test_what_is_not_a_regular_file_is_written_to_as_it_is(command):
    os.mkfifo("pipe")
    for what in ANEW:
        assert used_well(command, what, "/dev/null")
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

        reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
        assert used_well(command, what, "pipe")
        assert os.read(reading, 10) or what == "outbox export"
        os.close(reading)
        assert stat.S_ISFIFO(Path("pipe").stat().st_mode)


def test_a_pipe_that_another_user_made_is_not_written_to(command, give_away):
    """In folders such as /tmp the kernel refuses it, where a file may be made of it."""
    for what in (one for one in OF_OTHERS if one in ANEW):
        path = Path(f"pipe {what}")
        os.mkfifo(path)
        path.chmod(0o666)
        give_away(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

        done = use(command, what, path)

        assert done.code == 2
        assert ", who runs this process, not to the user " in done.err
        assert "; delete it, or choose another path" in done.err
        assert os.read(reading, 10) == b""
        os.close(reading)


@pytest.mark.parametrize("is_member", [True, False], ids=["member", "stranger"])
def test_a_file_of_ones_own_stays_for_its_group_or_for_none(command, monkeypatch, is_member):
    """The group of this process can have other members."""
    group = STRANGER if os.geteuid() == 0 else (os.getgroups() or [os.getegid()])[-1]
    for what in ANEW:
        path = Path(f"old {what}")
        path.touch()
        os.chown(path, -1, group)
        path.chmod(0o664)
    if not is_member:
        # The kernel says so to who is not root.
        monkeypatch.setattr(os, "fchown", Mock(side_effect=PermissionError))
    for what in ANEW:
        path = Path(f"old {what}")
        assert used_well(command, what, path), what
        assert mode(path) == (0o664 if is_member else 0o604), what
        assert not is_member or path.stat().st_gid == group, what


def test_what_the_process_has_open_is_written_to_as_it_is(command):
    """As /dev/stdout is by its links: here by the number of a file that others may read."""
    path = Path("opened")
    path.write_text("before\n")
    path.chmod(0o644)
    inode = path.stat().st_ino
    with path.open("a") as file:
        for number, what in enumerate(ANEW):
            size = path.stat().st_size
            link = Path(f"link {number}")
            link.symlink_to(f"/proc/self/fd/{file.fileno()}")
            assert used_well(command, what, link), what
            assert path.stat().st_size > size or what == "outbox export"
    assert path.read_text().startswith("before\n")
    assert (path.stat().st_ino, mode(path)) == (inode, 0o644)


def test_a_folder_that_is_missing_is_told_with_the_remedy(command):
    for what in ANEW:
        done = use(command, what, "no/such/file")
        assert done.code == 2
        assert (
            done.err == "Error: there is no directory no/such; create it, or choose another path\n"
        )


def test_a_failure_in_between_leaves_the_old_file(serve, command):
    path = Path("old")
    path.write_text("old")
    serve(contacts=[])
    for what in ANEW.keys() - {"outbox export"}:
        assert use(command, what, path).code == 1
        assert path.read_text() == "old"
        assert [found.name for found in Path().iterdir() if found.name.startswith(".old")] == []


def test_a_journal_that_others_may_read_is_used_and_that_is_logged_once(command, caplog):
    Path("log").touch()
    Path("log").chmod(0o640)
    for _ in range(2):
        command("import", "events.ndjson", "--journal", "log")
    (said,) = (one.getMessage() for one in caplog.records if "users other than" in one.getMessage())
    assert said == (
        "the journal log contains personal data, but users other than its owner can access it "
        "(mode 0640)"
    )


def test_a_file_to_read_is_never_refused_for_its_owner_or_mode(command, give_away):
    path = Path("events.ndjson")
    path.chmod(0o666)
    give_away(path)
    assert command("validate", path).code == 1
    assert command("import", path).code == 1
    assert (mode("events.ndjson.journal"), mode("events.refused.ndjson")) == (0o600, 0o600)
