"""Counts the instructions of a program, which do not depend on the machine's load.

It uses valgrind's cachegrind, the fastest of its tools that count.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

#: Returns the instructions of an interpreter that runs a program.
Count = Callable[[Path, str], int]

# No other variables. The seed fixes hashes, and so the work of dictionaries.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
_OPTIONS = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def counter() -> tuple[Count | None, str]:
    """Returns a counter of instructions and its description, or None and the reason."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None, "not counted: valgrind is not installed"
    if not works(valgrind):
        return None, f"not counted: {valgrind} cannot run this Python"
    return partial(count, valgrind), "counted once by valgrind's cachegrind"


def works(valgrind: str) -> bool:
    """Returns whether valgrind can run this Python."""
    try:
        count(valgrind, Path(sys.executable), "pass")
    except (OSError, RuntimeError):
        return False
    return True


def count(valgrind: str, python: Path, program: str) -> int:
    """Returns the instructions of a Python process, from its start to its end.

    Args:
        valgrind: The path of valgrind.
        python: The interpreter. Run the program once before, so that its modules are compiled.
        program: The program to run.

    Raises:
        RuntimeError: The program or valgrind failed.
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
    """Returns the count in valgrind's report, or None."""
    found = re.search(r"^==\d+== I +refs: +([\d,]+)$", report, re.MULTILINE)
    return int(found[1].replace(",", "")) if found else None
