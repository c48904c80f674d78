"""Regenerates from Intercom's newest description, and writes a patch and a report for a workflow.

    python scripts/prepare_update.py FOLDER [--url ADDRESS]

If the description has changed, the script writes FOLDER/patch and FOLDER/report.txt; otherwise, it
writes nothing. It runs .ci/run on the regenerated files, and the report says whether that passed.
scripts/propose_update.py makes a pull request from both files, in a separate job.

exit codes:
  0   unchanged, or the patch and the report were written
  1   regeneration rejects the description
  2   the description is unreachable
  64  the command line or the project is invalid
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The folders that a regeneration writes.
PARTS = ("openapi", "generated")
_DONE = (0, 3)
#: Lines from the end of .ci/run's output, where each part has its result.
_LAST_LINES = 60


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    found = _run(
        sys.executable, "scripts/watch_upstream.py", "--json", *_given("--url", options.url)
    )
    sys.stderr.write(found.stderr)
    if not found.stdout:
        # The command line is invalid.
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
    # Before generated code runs. git writes the file, because its output is bytes.
    patch = f"--output={folder.absolute() / 'patch'}"
    _run("git", "diff", "--cached", "--binary", "--no-renames", "--no-ext-diff", patch, check=True)
    checks = _run("bash", ".ci/run")
    last = checks.stdout.splitlines()[-_LAST_LINES:]
    print(*last, sep="\n", flush=True)
    report = regenerated.stdout.rstrip()
    verdict = "passed" if checks.returncode == 0 else f"FAILED (exit code {checks.returncode})"
    lines = [f".ci/run {verdict}", said["verdict"], "", report]
    if checks.returncode != 0:
        lines += ["", "The last lines of .ci/run:", "", *last]
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
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder for both files")
    parser.add_argument("--url", metavar="ADDRESS", help="passed to scripts/watch_upstream.py")
    return parser


if __name__ == "__main__":
    sys.exit(main())
