"""What an error of an outbox says to do helps, and no other error is raised."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from intercom_data_events import DataEventsClient, OutboxError, OutboxLockedError
from intercom_data_events.emulator import Emulator
from intercom_data_events.errors import ConfigurationError
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker

#: Seconds after which what was started is stuck.
PATIENCE = 30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@contextlib.contextmanager
def tracking(path):
    emulator = Emulator(rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path, on_error=lambda *_: None) as tracker,
    ):
        yield tracker


def used(path):
    """Tracks and sends an event, looks at the file, and returns what was wrong with that."""
    problems = []
    try:
        with tracking(path) as tracker:
            tracker.track("placed-order", user_id="1")
            tracker.flush(2)
            if tracker.counters.failing is not None:
                problems.append(tracker.counters.failing)
            tracker.close(0)
    except (OutboxError, ConfigurationError) as error:
        problems.append(error)
    try:
        with Outbox(path) as box:
            box.status()
            list(box.waiting())
            list(box.dead_letters())
            box.retry()
    except OutboxError as error:
        problems.append(error)
    return problems


def run(script, *arguments, **options):
    """Runs a script in a process of its own; returns what it printed."""
    head = """
        import os, resource, sys
        from intercom_data_events import DataEventsClient, OutboxError
        from intercom_data_events.emulator import Emulator
        from intercom_data_events.outbox import Outbox
        from intercom_data_events.tracker import Tracker

        client = DataEventsClient("token", transport=Emulator(rate_limit=None).transport())

        def attempt(function):
            try:
                function()
            except OutboxError as error:
                print(error)
            else:
                print("well")
    """
    environment = {name: value for name, value in os.environ.items() if "COV" not in name}
    done = subprocess.run(
        [
            sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script),
            *map(str, arguments),
        ],
        capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment, **options,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# Paths


@pytest.mark.processes
def test_a_relative_path_needs_a_working_directory(tmp_path):
    script = """
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        attempt(lambda: Outbox("outbox.db"))
        attempt(lambda: Tracker(client, "outbox.db").track("placed-order", user_id="1"))
        with Tracker(client, sys.argv[2]) as tracker:
            attempt(lambda: tracker.track("placed-order", user_id="1"))
            attempt(lambda: tracker.flush(10))
        with Outbox(sys.argv[2]) as box:
            print(box.status().queued)
    """
    folder = tmp_path / "folder"
    folder.mkdir()

    *refused, well, flushed, queued = run(script, folder, tmp_path / "outbox.db")
    assert len(refused) == 2
    for message in refused:
        assert message.startswith("the outbox outbox.db cannot be found because the working direct")
        assert message.endswith("; pass an absolute path")
    assert (well, flushed, queued) == ("well", "well", "0")


@pytest.mark.processes
def test_the_command_line_needs_a_working_directory_only_for_a_relative_path(tmp_path):
    with tracking(tmp_path / "outbox.db") as tracker:
        tracker.track("placed-order", user_id="1")
    folder = tmp_path / "folder"
    folder.mkdir()
    script = (
        "import os, sys; os.rmdir(os.getcwd()); from intercom_data_events.cli import main; main()"
    )

    def command(path):
        return subprocess.run(
            # Without the folder among the places of modules, as the installed command.
            [sys.executable, "-P", "-c", script, "outbox", "status", path],
            capture_output=True, text=True, check=False, timeout=PATIENCE, cwd=folder,
            env={"PYTHONPATH": ":".join(map(os.path.abspath, sys.path))},
        )  # fmt: skip

    done = command("outbox.db")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "pass an absolute path" in done.stderr
    folder.mkdir()
    assert command(tmp_path / "outbox.db").returncode == 0


def a_folder(path):
    path.mkdir()


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))


def a_link_to_itself(path):
    path.symlink_to(path)


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_socket, a_link_to_itself])
def test_a_path_of_something_else_is_refused_at_once(path, make):
    make(path)
    begun = time.monotonic()

    for problem in used(path):
        assert "choose a" in str(problem)
    assert len(used(path)) == 2
    assert time.monotonic() - begun < PATIENCE / 3


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 300, "x/" * 3_000, "missing/outbox.db", "outbox.db/below"]
)
def test_a_path_that_cannot_be_is_refused(path, tmp_path, name):
    path.touch(0o600)

    problems = used(f"{tmp_path}/{name}")
    assert len(problems) == 2
    for problem in problems:
        assert "choose a path in an existing folder that this process may write to" in str(problem)


@pytest.mark.parametrize("end", ["-wal", "-shm"])
@pytest.mark.parametrize("make", [a_folder, a_pipe, a_link_to_itself])
def test_a_log_that_is_something_else_is_told(path, make, end):
    with tracking(path) as tracker:
        tracker.track("placed-order", user_id="1")
    Path(f"{path}{end}").unlink(missing_ok=True)
    make(Path(f"{path}{end}"))
    begun = time.monotonic()

    problems = used(path)
    # SQLite replaces a pipe.
    assert problems or make is a_pipe
    for problem in problems:
        assert isinstance(problem, OutboxError)
        assert "; " in str(problem)
    assert time.monotonic() - begun < PATIENCE


# Descriptors


@pytest.mark.costly
@pytest.mark.processes
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("free", [0, 1, 2, 3, 5, 8])
def test_a_process_with_too_many_files_open_is_told_so(path, free, exists):
    if exists:
        with tracking(path) as tracker:
            tracker.track("placed-order", user_id="1")
    script = """
        free = int(sys.argv[2])
        exists = sys.argv[3] == "True"
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(free):
                os.close(taken.pop())
        trackers = []

        def track():
            if not trackers:
                trackers.append(Tracker(client, sys.argv[1]))
            trackers[0].track("placed-order", user_id=os.urandom(8).hex())

        attempt(track)
        if exists:
            attempt(lambda: Outbox(sys.argv[1]).close())
        for descriptor in taken:
            os.close(descriptor)
        print("later")
        attempt(track)
        attempt(lambda: trackers[0].flush(10))
        attempt(lambda: Outbox(sys.argv[1]).close())
        trackers[0].close()
    """

    said = run(script, path, free, exists)
    later = said.index("later")
    for message in said[:later]:
        if message != "well":
            assert "too many files open" in message
            assert "or raise the limit (ulimit -n)" in message
            assert "allow this process to write" not in message
    assert said[later + 1 :] == ["well"] * 3
    assert free > 1 or said[0] != "well"


# Damage


def damaged(path):
    """Makes a file with events and dead letters in both its parts; returns both parts."""
    emulator = Emulator(contacts=[], rate_limit=None)
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, path, unknown_contact_patience=0) as tracker,
    ):
        for number in range(5):
            tracker.track("placed-order", user_id=str(number))
        assert tracker.flush(PATIENCE)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        statement = "INSERT INTO events (event, tracked_at) SELECT event, tracked_at FROM dead"
        connection.execute(statement)
        parts = {"": path.read_bytes()}
        # All pages, schema included, are in the log then.
        connection.execute("VACUUM")
        parts["-wal"] = Path(f"{path}-wal").read_bytes()
    return parts


@pytest.mark.costly
@pytest.mark.parametrize("part", ["", "-wal"])
@pytest.mark.parametrize("turn", range(2))
def test_no_flipped_bit_raises_another_error_or_hangs(tmp_path, part, turn):
    """In each page of the schema and of the rest, from its first byte to its last."""
    parts = damaged(tmp_path / "made.db")
    size = len(parts[part])
    # The header and the schema's page are looked at more closely.
    places = [*range(turn * 7, 1_024, 83), *range(1_024 + turn * 61, size, 331 + turn)]
    found = 0
    for number, place in enumerate(places):
        path = tmp_path / f"{number}.db"
        for end, contents in parts.items():
            if end == part or part == "-wal":
                changed = bytearray(contents)
                if end == part:
                    changed[place] ^= 1 << (place + turn) % 8
                Path(f"{path}{end}").write_bytes(changed)
                Path(f"{path}{end}").chmod(0o600)
        begun = time.monotonic()
        problems = used(path)
        assert time.monotonic() - begun < PATIENCE / 3
        for problem in problems:
            found += 1
            said = str(problem)
            assert not isinstance(problem, OutboxLockedError), said
            assert ".recover" in said or "choose another path" in said or "too large" in said, said
        if part == "-wal":
            # From there on, SQLite takes the log for not written.
            assert not problems or found
    assert found or part == "-wal"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DROP TABLE events", "does not have the schema of an outbox"),
        ("PRAGMA user_version = 99", "was written by a newer version"),
    ],
)
def test_what_becomes_of_a_file_in_use_is_told_as_it_is_opened_again(path, statement, said):
    with tracking(path) as tracker:
        tracker.track("placed-order", user_id="1")
        assert tracker.flush(PATIENCE)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)

    problems = used(path)
    assert len(problems) == 2
    for problem in problems:
        assert said in str(problem)


# Other Pythons


class Nameless(sqlite3.Connection):
    """A connection as PyPy's, whose errors have no names."""

    def execute(self, *arguments):
        try:
            return super().execute(*arguments)
        except sqlite3.Error as error:
            raise type(error)(*error.args) from None


def nameless(monkeypatch):
    connect = sqlite3.connect

    def connect_nameless(*arguments, **named):
        try:
            return connect(*arguments, **{**named, "factory": Nameless})
        except sqlite3.Error as error:
            raise type(error)(*error.args) from None

    monkeypatch.setattr(sqlite3, "connect", connect_nameless)


def a_text(path):
    path.write_text("What is left to do:\n" * 1_000)


def half_a_file(path):
    damaged(path)
    path.write_bytes(path.read_bytes()[:3_000])


def no_schema(path):
    damaged(path)
    contents = path.read_bytes()
    path.write_bytes(contents[:100] + b"\xff" * 1_000 + contents[1_100:])


def a_log_that_is_a_folder(path):
    damaged(path)
    Path(f"{path}-wal").unlink(missing_ok=True)
    Path(f"{path}-wal").mkdir()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (a_text, "is damaged or not an outbox; move it aside, or choose another path"),
        (half_a_file, "is damaged; move it and its -wal file aside"),
        (no_schema, "is damaged; move it and its -wal file aside"),
        (a_log_that_is_a_folder, "cannot be opened; allow this process to write to it"),
    ],
)
def test_remedies_are_the_same_where_errors_of_sqlite_have_no_names(path, make, said, monkeypatch):
    make(path)
    path.chmod(0o600)
    messages = [str(problem) for problem in used(path)]
    nameless(monkeypatch)

    assert messages
    for message, with_names in zip(map(str, used(path)), messages, strict=True):
        assert said in message
        assert message == with_names


def test_a_lock_is_a_lock_where_errors_of_sqlite_have_no_names(path, monkeypatch):
    nameless(monkeypatch)
    with tracking(path) as tracker:
        tracker.track("placed-order", user_id="1")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as another:
            another.execute("BEGIN IMMEDIATE")
            with pytest.raises(OutboxLockedError, match="end the program that holds the lock"):
                tracker.track("placed-order", user_id="2")
        tracker.track("placed-order", user_id="3")
        assert tracker.flush(PATIENCE)


# Disks


def on_a_disk(options):
    """Mounts a file system at a folder, visible to this process alone; executes a program then."""
    return f"""
import ctypes, os, sys
from pathlib import Path

def call(function, *arguments):
    if function(*arguments):
        raise OSError(number := ctypes.get_errno(), os.strerror(number), function.__name__)

folder, *program = sys.argv[1:]
user, group = os.geteuid(), os.getegid()
libc = ctypes.CDLL(None, use_errno=True)
try:
    call(libc.unshare, 0x20000 | 0x10000000)  # CLONE_NEWNS | CLONE_NEWUSER
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{{user}} {{user}} 1")
    Path("/proc/self/gid_map").write_text(f"{{group}} {{group}} 1")
    call(libc.mount, None, b"/", None, ctypes.c_ulong(0x4000 | 0x40000), None)
    call(libc.mount, b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), {options!r})
except (AttributeError, OSError) as error:  # Other systems; containers that forbid it.
    sys.exit(f"forbidden: {{error}}")
os.execv(program[0], program)
"""


@pytest.fixture
def disk(tmp_path):
    """Runs a script that has a file system of 200 kB to itself."""
    command = [
        sys.executable, "-I", "-S", "-c", on_a_disk(b"size=200k"), str(tmp_path), sys.executable,
    ]  # fmt: skip
    tried = subprocess.run([*command, "-c", ""], capture_output=True, text=True, check=False)
    if tried.stderr.startswith("forbidden: "):
        pytest.skip(f"a process cannot mount a file system of its own here: {tried.stderr.strip()}")

    def run_(script):
        head = """
            import ctypes, os, sys
            from intercom_data_events import DataEventsClient, OutboxError
            from intercom_data_events.emulator import Emulator
            from intercom_data_events.outbox import Outbox
            from intercom_data_events.tracker import Tracker

            client = DataEventsClient("token", transport=Emulator(rate_limit=None).transport())
            folder = sys.argv[1]
            path = os.path.join(folder, "outbox.db")

            def use(read_only=False):
                try:
                    with Tracker(client, path) as tracker:
                        tracker.track("placed-order", user_id="1")
                        tracker.flush(10)
                        return "well"
                except OutboxError as error:
                    return error
        """
        environment = {name: value for name, value in os.environ.items() if "COV" not in name}
        done = subprocess.run(
            [*command, "-c", textwrap.dedent(head) + textwrap.dedent(script), str(tmp_path)],
            capture_output=True, text=True, check=False, timeout=PATIENCE, env=environment,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return run_


@pytest.mark.processes
def test_a_disk_that_is_full_while_a_file_is_made_is_told(disk):
    *said, well = disk(
        """
        # Room for each number of pages, so that it is full at each step.
        ballast = os.path.join(folder, "ballast")
        for kilobytes in range(0, 200, 8):
            try:
                with open(ballast, "wb") as file:
                    file.write(bytes(1024 * (200 - kilobytes)))
            except OSError:
                pass
            print(use())
            for end in ("", "-wal", "-shm"):
                if os.path.exists(path + end):
                    os.unlink(path + end)
            os.unlink(ballast)
        print(use())
        """
    )
    assert well == "well"
    assert len(said) == 25
    for one in said:
        assert one == "well" or "free some space" in one or "too small" in one, one
    assert any("because the disk is full; free some space" in one for one in said)


@pytest.mark.processes
def test_a_file_system_that_is_read_only_is_told(disk):
    made, *said = disk(
        """
        import ctypes
        print(use())
        libc = ctypes.CDLL(None, use_errno=True)
        # MS_REMOUNT | MS_RDONLY
        if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(33), None):
            sys.exit(os.strerror(ctypes.get_errno()))
        print(use())
        try:
            Outbox(path)
        except OutboxError as error:
            print(error)
        path += "2"
        print(use())
        """
    )
    assert made == "well"
    there, looked_at, new = said
    for one in (there, looked_at):
        assert "allow this process to write to it, to its -wal and -shm files" in one
    assert "(Read-only file system); choose a path in an existing folder" in new


# Forks


@pytest.mark.processes
def test_a_package_that_is_imported_while_a_process_forks_says_nothing():
    script = """
        # Those of the standard library that do say something then, first.
        import concurrent.futures.thread, logging, os, random, warnings

        warnings.simplefilter("ignore")

        def import_it():
            import intercom_data_events.tracker
            import intercom_data_events.outbox

        # As another thread does whose turn comes within the fork.
        os.register_at_fork(before=import_it)
        for _ in range(3):
            process = os.fork()
            if not process:
                os._exit(0)
            os.waitpid(process, 0)
        print("well")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("well\n", "")


@pytest.mark.processes
def test_forks_say_nothing_while_other_threads_open_and_close_outboxes(path):
    script = """
        import threading, warnings

        warnings.simplefilter("ignore")
        ended = threading.Event()

        def work(number):
            while not ended.is_set():
                with Tracker(client, f"{sys.argv[1]}{number}") as tracker:
                    tracker.track("placed-order", user_id="1")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            process = os.fork()
            if not process:
                os._exit(0)
            _, status = os.waitpid(process, 0)
            assert not status
        ended.set()
        for thread in threads:
            thread.join()
        print("well")
    """
    assert run(script, path) == ["well"]
