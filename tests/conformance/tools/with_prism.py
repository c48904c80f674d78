"""Both clients talk to the emulator through Prism, which validates each request and answer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, Timer
from typing import IO

import attrs
import httpx

from .fixture import Fixture
from .reporting import Report
from .scenarios import KINDS, perform

_HERE = Path(__file__).parent
_COMMAND = Path("node_modules", "@stoplight", "prism-cli", "dist", "index.js")
_PACKAGE = "@stoplight/prism-cli"
_START_SECONDS = 60
_LISTENING = re.compile(r"Prism is listening on (http://\S+)")
#: The lines of Prism's log about violations that it rejected or let through.
_LOGGED = re.compile(r"terminated with error|Violation")


class PrismError(Exception):
    """Prism did not start."""


@attrs.define
class _Proxy:
    """A running Prism.

    Attributes:
        url: The address on which it listens.
        lines: Its output so far.
    """

    url: str
    lines: list[str]


def run(description: Path, packages: Path | None) -> Report:
    """Runs all scenarios through Prism.

    Args:
        description: The description that Prism validates against.
        packages: The folder that contains the `node_modules` folder with Prism.
    """
    pinned = json.loads((_HERE / "package.json").read_text(encoding="utf-8"))
    report = Report(f"Prism {pinned['dependencies'][_PACKAGE]}")
    node = shutil.which("node")
    if node is None:
        report.skipped = "it requires Node 18 or newer, and npm; install both"
        return report
    if packages is None or not (packages / _COMMAND).exists():
        report.skipped = "it is not installed; run: nox -s conformance, which installs it with npm"
        return report
    counts = Counter[str]()
    fixture = Fixture()
    command = [node, str(packages / _COMMAND)]
    try:
        with fixture.serve() as upstream, _proxy(command, description, upstream) as proxy:
            for kind in KINDS:
                _through(proxy.url, kind, report, counts)
    except PrismError as error:
        report.violations.append(str(error))
        return report
    logged = [line for line in proxy.lines if _LOGGED.search(line)]
    # Prism also logs each violation, which shows that none was missed.
    if len(logged) != counts["refusals"]:
        report.violations.append(
            f"Prism logged {len(logged)} violations, but reported {counts['refusals']}:\n"
            + "\n".join(logged)
        )
    report.compared = [
        f"{counts['scenarios']} scenarios of both clients ({', '.join(KINDS)})",
        f"{counts['answers']} requests of these scenarios, with their answers",
        f"{counts['beyond']} requests that are not described, and were rejected",
    ]
    return report


def _through(url: str, kind: str, report: Report, counts: Counter[str]) -> None:
    seen: list[httpx.Response] = []
    for outcome in perform(url, kind, lambda _: seen.clear(), seen.append):
        refusals = [found for answer in seen if (found := _refusal(answer)) is not None]
        counts["scenarios"] += 1
        counts["answers"] += len(seen)
        counts["refusals"] += len(refusals)
        if outcome.scenario.beyond is None:
            said = refusals or ([] if outcome.wrong is None else [outcome.wrong])
            report.violations += [f"{outcome.name}: {one}" for one in said]
        elif not refusals:
            report.violations.append(f"{outcome.name}: Prism must reject it, but accepted it")
        else:
            counts["beyond"] += 1


def _refusal(answer: httpx.Response) -> str | None:
    """Returns Prism's objection to a request or an answer, or None."""
    if "sl-violations" in answer.headers:
        return f"sl-violations: {answer.headers['sl-violations']}"
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        sent = answer.request.content.decode()
        return f"{answer.request.method} {answer.request.url} {sent}\n{answer.text}"
    return None


@contextmanager
def _proxy(command: list[str], description: Path, upstream: str) -> Iterator[_Proxy]:
    # Prism also reads settings from the environment.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PRISM_") and not name.upper().endswith("_PROXY")
    }
    with subprocess.Popen(
        [*command, "proxy", "--errors", "--port", "0", str(description), upstream],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=environment,
    ) as process:
        assert process.stdout is not None  # noqa: S101  # it was asked for
        lines: list[str] = []
        reader = Thread(target=_read, args=(process.stdout, lines), daemon=True)
        # A Prism that never reports its address prints no last line until it is killed.
        patience = Timer(_START_SECONDS, process.kill)
        patience.start()
        try:
            url = _listening(process.stdout, lines)
            patience.cancel()
            # Prism blocks if nothing reads its output.
            reader.start()
            yield _Proxy(url, lines)
        finally:
            patience.cancel()
            process.kill()
        reader.join()


def _listening(output: IO[str], lines: list[str]) -> str:
    for line in output:
        lines.append(line.rstrip())
        if found := _LISTENING.search(line):
            return found[1]
    raise PrismError("\n".join(["Prism did not start:", *lines]))


def _read(output: IO[str], lines: list[str]) -> None:
    for line in output:
        lines.append(line.rstrip())  # noqa: PERF401  # as they come
