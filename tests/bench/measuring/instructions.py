"""Counts the instructions of a program: unlike its time, they do not depend on the machine's load.

Valgrind counts them, with its tool cachegrind, which is the fastest of those that do.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# Nothing else: hashes, and with them the work of dictionaries, depend on the seed.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
_OPTIONS = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def count(valgrind: str, python: Path, program: str) -> int:
    """Returns the instructions of a Python process, from its start to its end.

    Args:
        valgrind: The path of valgrind.
        python: The interpreter. Run the program once before, so that its modules are compiled.
        program: What it runs.

    Raises:
        RuntimeError: If the program fails, or valgrind does.
    """
    command = [str(python), "-c", program]
    done = subprocess.run(
        [valgrind, *_OPTIONS, *command],
        check=False, capture_output=True, text=True, env=_ENVIRONMENT, cwd=python.parent,
    )  # fmt: skip
    counted = parse(done.stderr)
    if done.returncode or counted is None:
        raise RuntimeError(f"valgrind failed:\n{done.stderr}")
    return counted


def parse(report: str) -> int | None:
    """Returns the count that is in valgrind's report, or None."""
    found = re.search(r"^==\d+== I +refs: +([\d,]+)$", report, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else None


def unavailable(valgrind: str | None, python: Path) -> str:
    """Returns why instructions cannot be counted on this machine, or an empty string.

    Args:
        valgrind: The path of valgrind, or None if it is not installed.
        python: An interpreter to try it with.
    """
    if valgrind is None:
        return "valgrind is not installed"
    try:
        count(valgrind, python, "pass")
    except (OSError, RuntimeError):
        return f"{valgrind} cannot run this Python"
    return ""
