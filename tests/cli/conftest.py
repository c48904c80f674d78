"""The command, run in this process, through pipes and in a terminal, against a served emulator."""

from __future__ import annotations

import fcntl
import io
import json
import os
import resource
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from attrs import define, field, frozen

from intercom_data_events.cli.app import run
from intercom_data_events.emulator import Emulator, Fault

COMMAND = [sys.executable, "-c", "from intercom_data_events.cli import main; main()"]
TOKEN = "dG9rOnNlY3JldA=="
NOON = 1_767_268_800  # 2026-01-01 12:00:00 UTC
# Seconds after which something hangs, however slow the machine.
PATIENCE = 60


@contextmanager
def no_file_above(size: int):
    """As on a disk that is full: Python does not heed the signal that comes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@frozen
class Finished:
    """What became of a command."""

    code: int
    out: str
    err: str

    def __attrs_post_init__(self) -> None:
        for text in (self.out, self.err):
            assert "Traceback" not in text, text
            assert TOKEN not in text

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self) -> list:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self):
        return json.loads(self.err.splitlines()[-1])


@define
class Plan:
    """What befalls each request: nothing, but for what is done before the nth that arrives."""

    at: dict[int, Callable[[], Fault | None]] = field(factory=dict)
    otherwise: Iterator[Fault | None] | None = None
    number: int = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        if self.number in self.at:
            return self.at.pop(self.number)()
        return None if self.otherwise is None else next(self.otherwise)


@define
class Terminal:
    """A command in a terminal of 100 columns, which somebody looks at and types into."""

    process: subprocess.Popen
    master: int
    seen: str = ""
    _ended: bool = False

    def expect(self, text: str) -> None:
        """Waits until something is to be seen."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert not self._ended, f"{text!r} is not in {self.seen!r}"
            self._read(end)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        self.type("\x03")

    def finish(self) -> Finished:
        end = time.monotonic() + PATIENCE
        while not self._ended:
            self._read(end)
        return Finished(self.process.wait(PATIENCE), self.seen, "")

    def _read(self, end: float) -> None:
        ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"nothing more after {self.seen!r}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # What a terminal's other end says on Linux when nobody is there.
            data = b""
        self._ended = not data
        self.seen += data.decode(errors="replace")


#: Modules about rules of our own, which neither a Python nor a library changes.
ONCE = {
    f"test_{name}.py"
    for name in (
        "changing_input", "demo", "figures", "hostile_input", "import_stopping", "importing",
        "journal", "outbox", "records",
    )
}  # fmt: skip


def pytest_collection_modifyitems(items):
    starting = {"begin", "piped", "terminal"}
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        if starting & set(item.fixturenames):
            item.add_marker(pytest.mark.processes)
        if item.path.name in ONCE:
            item.add_marker(pytest.mark.once)


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch, tmp_path):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PYTHONIOENCODING", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("PYTHONUTF8", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def serve(monkeypatch):
    """Serves an emulator, and tells the environment of it."""
    with ExitStack() as serving:

        def begin(**options) -> Emulator:
            # Intercom lists what is not older than 90 days.
            day_after = {"clock": lambda: NOON + 86400.0, "rate_limit": None}
            made = Emulator(**{**day_after, **options})
            url = serving.enter_context(made.serve())
            monkeypatch.setenv("INTERCOM_BASE_URL", url)
            monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
            return made

        yield begin


@pytest.fixture
def emulator(serve) -> Emulator:
    return serve()


@pytest.fixture
def command(capsys, monkeypatch):
    """Runs a command in this process."""

    def execute(*arguments: object, stdin: bytes | None = None) -> Finished:
        if stdin is not None:
            reading, writing = os.pipe()
            os.write(writing, stdin)
            os.close(writing)
            file = os.fdopen(reading, "rb")
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        code = run([str(argument) for argument in arguments])
        if stdin is not None:
            sys.stdin.close()
        return Finished(code, *capsys.readouterr())

    capsys.readouterr()
    return execute


@pytest.fixture
def begin():
    """Begins a command with pipes."""
    with ExitStack() as running:

        def execute(*arguments: object, before: str = "", **options) -> subprocess.Popen:
            program = [*COMMAND, *map(str, arguments)]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            process = subprocess.Popen(
                prepared(before, program) if before else program, **{**pipes, **options}
            )
            running.enter_context(process)
            running.callback(_end, process)
            return process

        yield execute


def prepared(before: str, program: list[str]) -> list[str]:
    """The command that runs Python code, then executes a program in the same process."""
    code = f"import os, sys\n{before}\nos.execv(sys.argv[1], sys.argv[1:])"
    # Without site-packages: it starts quickly, and no coverage is measured.
    return [sys.executable, "-I", "-S", "-c", code, *program]


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        process.kill()


@pytest.fixture
def piped(begin):
    """Runs a command with pipes to its end."""

    def execute(*arguments: object, stdin: bytes = b"", **options) -> Finished:
        process = begin(*arguments, **options)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return Finished(process.returncode, (out or b"").decode(), (err or b"").decode())

    return execute


@pytest.fixture
def terminal():
    """Begins a command in a terminal."""
    with ExitStack() as opened:

        def execute(*arguments: object, stdin=None, stdout=None, columns: int = 100) -> Terminal:
            master, slave = os.openpty()
            opened.callback(os.close, master)
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
            # The first terminal that the leader of a session opens becomes the session's.
            opening = f"os.close(os.open({os.ttyname(slave)!r}, os.O_RDONLY))"
            process = subprocess.Popen(
                prepared(opening, [*COMMAND, *map(str, arguments)]),
                start_new_session=True,
                stdin=slave if stdin is None else stdin,
                stdout=slave if stdout is None else stdout,
                stderr=slave,
            )
            os.close(slave)
            opened.enter_context(process)
            opened.callback(_end, process)
            return Terminal(process, master)

        yield execute


def event(number: int = 0, **fields: object) -> dict[str, object]:
    """An event like no other of its number."""
    return {
        "event_name": "placed-order",
        "created_at": NOON + number,
        "user_id": str(number % 50),
        **fields,
    }


@pytest.fixture
def ndjson(tmp_path):
    """Writes events as a file."""

    def write(events=3, name: str = "events.ndjson") -> Path:
        if isinstance(events, int):
            events = [event(number) for number in range(events)]
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(one)}\n" for one in events))
        return path

    return write


def times(emulator: Emulator) -> list[int]:
    """When what is stored happened, in order, which tells events of `event` apart."""
    return sorted(int(stored.created_at) for stored in emulator.events)
