"""The tracker's README: its examples for frameworks, each run by the framework, as a program."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import pytest
from attrs import define

from guides import GUIDES, under
from intercom_data_events.emulator import Emulator, Fault

README = GUIDES["tracker"]
# Seconds after which something hangs, however slow the machine.
PATIENCE = 60

#: An answer after which a request is tried again, a second later.
LATER = Fault(name="later", processed=False, status=503, headers={"Retry-After": "1"}, body=b"")


def example(heading: str) -> str:
    """The one example of the tracker's README under a heading."""
    found = under(README.read_text(encoding="utf-8"), heading)
    assert len(found) == 1, f"the tracker's README has {len(found)} examples under ### {heading}"
    return found[0][1]


@define
class Program:
    """A program that runs the example, and the file that it writes to."""

    process: subprocess.Popen[str]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def url(self) -> str:
        """Where it serves, as soon as it says so."""
        address = re.compile(r"http://127\.0\.0\.1:\d+")
        self.until(lambda: address.search(self.said))
        return address.findall(self.said)[0]

    def until(self, happens: Callable[[], object]) -> None:
        """Waits until something is so."""
        end = time.monotonic() + PATIENCE
        while not happens():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.02)

    def stop(self) -> int:
        """Asks it to end, as a container's supervisor does; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Ends it, and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def gate() -> threading.Event:
    """Is set as soon as events may be sent."""
    return threading.Event()


@pytest.fixture
def emulator(gate: threading.Event) -> Emulator:
    """One with which events can only be sent from some moment on."""
    return Emulator(faults=(None if gate.is_set() else LATER for _ in count()))


@pytest.fixture
def environment(emulator: Emulator, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of programs that send to the emulator, and whatever they write to somebody's home."""
    with emulator.serve() as url:
        yield {
            **os.environ,
            "HOME": str(tmp_path),
            "INTERCOM_BASE_URL": url,
            "INTERCOM_ACCESS_TOKEN": "token",
        }


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts Python with the example under a heading as the module `shop`; ends it with the test.

    Both ends of a conversation with it are pipes, if asked for.
    """
    with ExitStack() as running:

        def begin(heading: str, *arguments: str, pipes: bool = False) -> Program:
            (tmp_path / "shop.py").write_text(example(heading), encoding="utf-8")
            log = tmp_path / "log"
            with log.open("w", encoding="utf-8") as written:
                process = subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=tmp_path,
                    env=environment,
                    text=True,
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else written,
                    stderr=written,
                    start_new_session=True,
                )
            program = Program(process, log)
            running.callback(program.kill)
            return program

        yield begin


@pytest.fixture
def stored(emulator: Emulator) -> Callable[[], list[int]]:
    """Says which customers' events are stored."""
    return lambda: sorted(int(event.user_id or "") for event in emulator.events)
