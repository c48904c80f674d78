"""Looks up published advisories for exact versions of packages, with pip-audit.

    python tests/security/auditing.py lowest.txt newest.txt [PIP-AUDIT'S OPTIONS]

The exit code is 1 if a version has an advisory or could not be looked up. It is 3 if nothing was
audited, because the advisory service is unreachable or is a mirror without data.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from attrs import frozen

FINE, FOUND, NOT_RUN = 0, 1, 3
# The errors of requests, which pip-audit uses, and the messages that pip-audit makes of them.
_UNREACHABLE = re.compile(r"requests\.exceptions\.\w+|Could not connect|is not redirecting")


@frozen
class Verdict:
    """The meaning of pip-audit's output.

    Attributes:
        code: The exit code.
        said: The meaning in words.
    """

    code: int
    said: str


def judge(out: str, err: str) -> Verdict:
    """Returns the meaning of pip-audit's JSON and standard error."""
    try:
        found = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = err.strip().rpartition("\n")[2]
        if _UNREACHABLE.search(last):
            return Verdict(NOT_RUN, f"not run: the advisory service is not reachable\n  {last}")
        return Verdict(FOUND, f"failed: {last or 'pip-audit gave no reason'}")
    skipped = [one["name"] for one in found if "skip_reason" in one]
    advisories = [
        f"{one['name']} {one['version']}: {vulnerability['id']} "
        f"({', '.join(vulnerability.get('aliases', ())) or 'no alias'}), fixed in "
        f"{', '.join(vulnerability.get('fix_versions', ())) or 'no version'}"
        for one in found
        for vulnerability in one.get("vulns", ())
    ]
    if advisories:
        return Verdict(FOUND, "; ".join(advisories))
    if skipped and len(skipped) == len(found):
        return Verdict(NOT_RUN, "not run: the advisory service knows none of the packages")
    if skipped or not found:
        return Verdict(
            FOUND,
            f"failed: the advisory service does not know {', '.join(skipped) or 'any package'}",
        )
    return Verdict(FINE, f"no advisory for any of {len(found)} packages")


def main(arguments: list[str]) -> int:
    """Audits each file of pins; returns the exit code, the worst first: found, not run, fine."""
    files = [Path(one) for one in arguments if one.endswith(".txt")]
    options = [one for one in arguments if not one.endswith(".txt")]
    codes = set()
    for file in files:
        audit = subprocess.run(
            [
                *(sys.executable, "-m", "pip_audit", "--requirement", str(file), "--no-deps"),
                *("--disable-pip", "--progress-spinner", "off", "--format", "json", *options),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        verdict = judge(audit.stdout, audit.stderr)
        codes.add(verdict.code)
        print(f"pip-audit, {file.stem}: {verdict.said}", flush=True)
    return next((code for code in (FOUND, NOT_RUN, FINE) if code in codes), FOUND)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
