"""Checks whether Intercom's description of data events has changed; writes nothing.

    python scripts/watch_upstream.py                    # the newest that Intercom has published
    python scripts/watch_upstream.py --url ADDRESS      # the description at an https address

The script regenerates from the description as scripts/regenerate.py does, but in a temporary
folder, and compares the slice with the committed openapi/upstream.yaml.

Without --url, the script searches Intercom's repository Intercom-OpenAPI for the newest
description. From the committed version, it requests the next minor version, then the next major
one, until the server has neither.

exit codes:
  0   unchanged: the slice is the same
  1   changed, or regeneration rejects the description; the report says what changed, or why
  2   unreachable: the description cannot be fetched, or the address has something else
  64  the command line or the project is invalid

To regenerate from a changed description, run: nox -s regenerate -- ADDRESS
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from running import run

from client_parts import ArgumentParser, sentence
from regeneration import RegenerationError, document, downloading, newest, slicing
from regeneration.pipeline import Staged, report, stage

Json = dict[str, Any]

UNCHANGED, CHANGED, UNREACHABLE, UNUSABLE = 0, 1, 2, 64
_PUBLISHED = (
    "https://raw.githubusercontent.com/intercom/Intercom-OpenAPI/main/descriptions/"
    f"{newest.VERSION}/api.intercom.io.yaml"
)


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        code: The exit code.
        verdict: The result in one sentence.
        address: The address of the description, if one was compared.
        text: The report in plain text.
        report: The report as JSON.
    """

    code: int
    verdict: str
    address: str | None = None
    text: str = ""
    report: Json | None = None

    def as_text(self) -> str:
        """Returns the result, followed by the report."""
        return f"{self.verdict}\n{self.text}".rstrip()

    def as_json(self) -> Json:
        """Returns the result as JSON."""
        return {
            "exit_code": self.code,
            "verdict": self.verdict,
            "address": self.address,
            "report": self.report,
        }


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    finding = _watch(options.project.absolute(), options.url)
    if options.json:
        print(json.dumps(finding.as_json(), indent=2))
    else:
        found = finding.code in (UNCHANGED, CHANGED)
        print(finding.as_text(), file=sys.stdout if found else sys.stderr)
    return finding.code


def _watch(project: Path, address: str) -> Finding:
    try:
        committed = document.read(str(project / "openapi" / "upstream.yaml"))
        slicing.recorded_source(committed)
    except RegenerationError as error:
        return Finding(UNUSABLE, f"Unusable project: {sentence(str(error))}")
    try:
        source = _fetch(address, committed.content["info"]["version"])
    except RegenerationError as error:
        return Finding(UNREACHABLE, f"Unreachable: {sentence(str(error))}")
    try:
        with tempfile.TemporaryDirectory(prefix="watch-upstream-") as folder:
            made = stage(Path(folder), project, source)
            return _compare(Path(folder), project, committed, made)
    except RegenerationError as error:
        return Finding(CHANGED, f"Changed: regeneration rejects it: {sentence(str(error))}")
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Finding(UNUSABLE, f"Unusable: {sentence(said)}")


def _fetch(address: str, committed: str) -> document.Source:
    if newest.VERSION in address:
        source = newest.find(address, committed)
    else:
        source = document.read(address)
    if not source.content.keys() & {"openapi", "swagger"}:
        raise RegenerationError(f"{source.name}: must be an OpenAPI description; check the address")
    return source


def _compare(staged: Path, project: Path, committed: document.Source, made: Staged) -> Finding:
    """Compares slices by their digests, because the full description changes more often."""
    before, after = committed.content["info"], made.sliced["info"]
    address = made.source.name
    where = sentence(f"{address}, version {after['version']},")
    if before["x-source"]["slice-sha256"] == after["x-source"]["slice-sha256"]:
        verdict = f"Unchanged: {where} has the same data events as openapi/upstream.yaml."
        return Finding(UNCHANGED, verdict, address)
    verdict = (
        f"Changed: {where} has different data events from openapi/upstream.yaml, version "
        f"{before['version']}."
    )
    said = report(staged, project, made)
    return Finding(CHANGED, verdict, address, said.as_text(), said.as_json())


class _Parser(ArgumentParser):
    """A parser that exits with 64 for invalid arguments, because 2 means unreachable."""

    def exit(self, status: int = 0, message: str | None = None) -> None:
        super().exit(UNUSABLE if status else status, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--url",
        type=_address,
        default=_PUBLISHED,
        metavar="ADDRESS",
        help="the address of the description; the search above replaces {version} in it",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object instead: `exit_code`, `verdict`, `address`, `report`",
    )
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(__file__).parent.parent,
        metavar="FOLDER",
        help="the project to compare with (default: the one that contains this script)",
    )
    return parser


def _address(text: str) -> str:
    if not downloading.is_address(text):
        raise argparse.ArgumentTypeError(f"must begin with https://, not {text!r}")
    return text


if __name__ == "__main__":
    run(main, "watch_upstream")
