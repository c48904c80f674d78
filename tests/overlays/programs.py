"""Programs that track events, each in a process of its own, which is killed where it is stuck."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

#: Seconds without output or an end after which a process is stuck.
PATIENCE = 40

HEAD = """
    import atexit, gc, itertools, logging, multiprocessing, os, random, signal, sys, threading, time
    from intercom_data_events import DataEventsClient, Event
    from intercom_data_events.tracker import Tracker

    url, outbox = sys.argv[1], sys.argv[2] or None
    client = DataEventsClient("token", base_url=url)
    NOW = int(time.time()) - 1000

    def track(tracker, *users):
        for user in users:
            tracker.track("placed-order", user_id=str(user), created_at=NOW)

    def note(*words):
        # Each at once, whatever interrupts it.
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
# Of the programs that these tests run: what measures them takes part in how they end.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


class Program:
    """A process that runs a script, and what became of it."""

    def __init__(self, script, url, outbox, folder):
        path = folder / "program.py"
        path.write_text(textwrap.dedent(HEAD) + textwrap.dedent(script))
        # What Python warns of when there are threads is what is tried; and it is the client that
        # would have to be closed.
        warnings = ("error", "ignore:This process:DeprecationWarning", "ignore::ResourceWarning")
        self._begun = time.monotonic()
        self._process = subprocess.Popen(
            [
                sys.executable, "-Xfaulthandler", *(f"-W{one}" for one in warnings),
                path, url, str(outbox or ""),
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=UNMEASURED,
        )  # fmt: skip
        self._heard = self._begun
        self._ended = threading.Event()
        self._watching = threading.Thread(target=self._watch)
        self._watching.start()
        self.lines = []

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._ended.set()
        self._watching.join()
        self._process.kill()
        self._process.communicate()

    def _watch(self):
        """Kills it where it is stuck, however long all that it does may take on a busy machine."""
        while not self._ended.wait(self._heard + PATIENCE - time.monotonic()):
            if time.monotonic() - self._heard >= PATIENCE:
                # It says where each thread is.
                self._process.send_signal(signal.SIGABRT)
                return

    def _hear(self):
        """The lines that it prints, as they come."""
        for line in self._process.stdout:
            self._heard = time.monotonic()
            yield line.strip()

    def read(self, number):
        """Waits for so many lines."""
        self.lines += itertools.islice(self._hear(), number)

    def terminate(self):
        self._process.send_signal(signal.SIGTERM)

    def end(self, code=0, errors=""):
        """Waits for its end, which is to be as it is said; returns the lines that it printed."""
        # Not communicate(), which does not know what is buffered since lines were read.
        self.lines += self._hear()
        complaints = self._process.stderr.read()
        self._process.wait()
        self.seconds = time.monotonic() - self._begun
        ended = self._process.returncode, complaints
        assert ended == (code, errors), "it ended with {} and: {}".format(*ended)
        return self.lines
