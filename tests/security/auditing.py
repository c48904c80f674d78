"""Has pip-audit look up published advisories for exact versions of packages.

    python tests/security/auditing.py lowest.txt newest.txt [PIP-AUDIT'S OPTIONS]

It exits with 1 where a version has an advisory, or not all could be looked up. Where no advisory
service can be reached, or a mirror stands for it that knows no package, nothing was audited, which
is no fault of these versions: it says so, and exits with 3.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from attrs import frozen

FINE, FOUND, NOT_RUN = 0, 1, 3
# What requests raises, which pip-audit uses, and what pip-audit makes of that.
_UNREACHABLE = re.compile(r"requests\.exceptions\.\w+|Could not connect|is not redirecting")


@frozen
class Verdict:
    """What pip-audit's output means.

    Attributes:
        code: What to exit with.
        said: The same in words.
    """

    code: int
    said: str


def judge(out: str, err: str) -> Verdict:
    """Returns what an output of pip-audit means: its JSON, and what it said on standard error."""
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
