"""Schemathesis generates requests from the description, and validates the emulator's answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from intercom_data_events.emulator import Emulator, EmulatorServer

from .reporting import Report

_HERE = Path(__file__).parent
#: The phases of a whole run.
PHASES = ("examples", "coverage", "fuzzing", "stateful")
_TOKEN = "token"  # noqa: S105  # the one in schemathesis.toml
#: A workspace has at most 120 event names, and each request can add one.
_PROCESSED = 100
#: Schemathesis is killed after these seconds.
_SECONDS = 600
_SECTION = re.compile(r"(?ms)^=+ (?:FAILURES|ERRORS) =+$\n(.*?)(?=^=+ [A-Z]+ =+$)")
_FAILURE = re.compile(r"(?m)^\d+\. Test Case ID: \S+\n")
_OPERATION = re.compile(r"(?m)^_+ (.+) _+$\n")


class Workspace:
    """An emulator that is renewed after many requests; one contact then has many events again."""

    def __init__(self) -> None:
        self._emulator = Emulator(tokens=[_TOKEN], rate_limit=None, record=False)
        self._begin = int(time.time()) - 10_000
        self._refill()

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answers one request."""
        if self._emulator.counts.processed > _PROCESSED:
            self._refill()
        return self._emulator.answer(request)

    def _refill(self) -> None:
        self._emulator.clear()
        for number in range(20):
            event = {
                "event_name": "read-book",
                "created_at": self._begin + number,
                # The contact that the hooks use.
                "user_id": "314159",
                "email": "frodo.baggins@example.com",
                "metadata": {"number": number, "price": {"amount": 2999, "currency": "usd"}},
            }
            headers = {"Authorization": f"Bearer {_TOKEN}"}
            self._emulator.answer(httpx.Request("POST", "/events", headers=headers, json=event))


def run(description: Path, *, seed: int, examples: int, phases: Sequence[str] = PHASES) -> Report:
    """Runs Schemathesis against the emulator.

    Args:
        description: The description for requests and answers.
        seed: The seed, to repeat a run.
        examples: The largest number of generated requests per operation.
        phases: The phases to run.
    """
    report = Report(f"Schemathesis {version('schemathesis')}")
    with tempfile.TemporaryDirectory() as folder:
        found, said = Path(folder, "report.json"), Path(folder, "output.txt")
        with EmulatorServer(Workspace().answer) as url:
            command = [
                sys.executable, "-m", "schemathesis.cli",
                "--config-file", str(_HERE / "schemathesis.toml"), "--no-color",
                "run", str(description.absolute()), "--url", url, "--checks", "all",
                "--seed", str(seed), "--max-examples", str(examples),
                "--phases", ",".join(phases),
                "--report", "json", "--report-json-path", str(found),
            ]  # fmt: skip
            code = _run(command, said)
        output = said.read_text(encoding="utf-8", errors="replace")
        if code is None:
            report.violations.append(f"Schemathesis did not end within {_SECONDS} s:\n{output}")
            return report
        if not found.exists():
            report.violations.append(f"Schemathesis did not run:\n{output}")
            return report
        _read(json.loads(found.read_text(encoding="utf-8")), output, phases, report)
    if code and not report.violations:
        report.violations.append(f"Schemathesis ended with exit code {code}:\n{output}")
    return report


def _run(command: list[str], said: Path) -> int | None:
    """Runs a command with its output in a file; returns None if it had to be killed."""
    # A pipe would give the output before a timeout as bytes.
    with said.open("wb") as output:
        try:
            return subprocess.run(
                command,
                cwd=said.parent,
                env={
                    **os.environ,
                    "SCHEMATHESIS_HOOKS": "tools.schemathesis_hooks",
                    "PYTHONPATH": str(_HERE.parent),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def _read(found: dict[str, Any], output: str, wanted: Sequence[str], report: Report) -> None:
    phases = {name: found["phases"][name] for name in wanted}
    report.compared = [
        f"{found['test_cases']['generated']} requests, generated with the seed {found['seed']}"
    ]
    report.compared += [f"phase {name}: {phase['status']}" for name, phase in phases.items()]
    for operation, rates in sorted(found["valid_rates"].items()):
        told = {
            what: sum(rate[what] for rate in rates.values())
            for what in ("accepted", "rejected", "unreachable", "conflicts")
        }
        report.compared.append(
            f"{operation}: of the valid requests, {', '.join(f'{n} {w}' for w, n in told.items())}"
        )
    for name, phase in phases.items():
        if phase["status"] == "skip":
            # A skipped phase proves nothing.
            report.violations.append(f"the phase {name} was skipped: {phase['skip_reason']}")
    report.violations += list(_failures(output))


def _failures(output: str) -> list[str]:
    found = []
    for section in _SECTION.findall(output):
        operation = ""
        for part in re.split(r"(?m)(?=^_+ .+ _+$)", section):
            if heading := _OPERATION.match(part):
                operation = heading[1]
                part = part[heading.end() :]
            found += [
                f"{operation}: {said.strip()}" for said in _FAILURE.split(part) if said.strip()
            ]
    return found
