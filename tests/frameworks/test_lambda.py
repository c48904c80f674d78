"""Lambda: the process is frozen once the handler has returned, so nothing may be left then."""

from __future__ import annotations

import itertools
import json
import os
import signal

import pytest

from intercom_data_events.emulator import Emulator, Fault

pytestmark = [pytest.mark.costly, pytest.mark.processes]

# What the runtime does: one invocation after the other.
RUNTIME = """
import json
import sys

from shop import handler

for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), None)), flush=True)
"""


@pytest.fixture
def emulator() -> Emulator:
    """One with which nothing is sent at the first try."""
    return Emulator(faults=itertools.cycle([Fault.failing(503), None]))


def test_everything_is_sent_when_an_invocation_returns(start, emulator, stored):
    program = start("Lambda", "-c", RUNTIME, pipes=True)

    for invocation in range(1, 4):
        request = {"customer": f"{invocation}", "plan": "pro"}
        program.process.stdin.write(f"{json.dumps(request)}\n")
        program.process.stdin.flush()
        answer = json.loads(program.process.stdout.readline() or "null")
        os.kill(program.process.pid, signal.SIGSTOP)

        assert answer == {"statusCode": 201}, program.said
        assert stored() == list(range(1, invocation + 1))
        os.kill(program.process.pid, signal.SIGCONT)

    assert emulator.counts.duplicates == 0
    assert "not sent yet" not in program.said
