"""Regenerates from Intercom's newest description and leaves a patch and a report, for a workflow.

    python scripts/prepare_update.py FOLDER [--url ADDRESS]

Writes FOLDER/patch and FOLDER/report.txt where the description has changed, and nothing else where
it has not. Runs .ci/run on what was regenerated; where that fails, the report says so.
scripts/propose_update.py makes a pull request of them, in a job of its own.

exit codes:
  0   unchanged, or the patch and the report are there
  1   regeneration refuses the description
  2   the description is unreachable
  64  the command line or the project cannot be used
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: What a regeneration writes.
PARTS = ("openapi", "generated")
_DONE = (0, 3)
#: Lines of what .ci/run prints last, which has a line for each part.
_LAST_LINES = 60


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    found = _run(
        sys.executable, "scripts/watch_upstream.py", "--json", *_given("--url", options.url)
    )
    sys.stderr.write(found.stderr)
    if not found.stdout:
        # A wrong command line.
        return found.returncode
    said = json.loads(found.stdout)
    print(said["verdict"])
    if said["address"] is None or found.returncode != 1:
        return found.returncode
    regenerated = _run(sys.executable, "scripts/regenerate.py", said["address"])
    print(regenerated.stdout, regenerated.stderr, sep="", flush=True)
    if regenerated.returncode not in _DONE:
        return 1
    _run("git", "add", "--all", "--", *PARTS, check=True)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    # Before generated code runs. Written by git, as what it prints is bytes.
    patch = f"--output={folder.absolute() / 'patch'}"
    _run("git", "diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", patch, check=True)
    checks = _run("bash", ".ci/run")
    last = checks.stdout.splitlines()[-_LAST_LINES:]
    print(*last, sep="\n", flush=True)
    report = regenerated.stdout.rstrip()
    verdict = "passed" if checks.returncode == 0 else f"FAILED (exit code {checks.returncode})"
    lines = [f".ci/run {verdict}", said["verdict"], "", report]
    if checks.returncode != 0:
        lines += ["", "What .ci/run printed last:", "", *last]
    (folder / "report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return 0


def _given(name: str, value: str | None) -> list[str]:
    return [] if value is None else [name, value]


def _run(*command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        check=check,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        stdin=subprocess.DEVNULL,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to write both files")
    parser.add_argument("--url", metavar="ADDRESS", help="that of scripts/watch_upstream.py")
    return parser


if __name__ == "__main__":
    sys.exit(main())
