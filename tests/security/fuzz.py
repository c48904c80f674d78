"""Gives random inputs to all code that reads data from outside, and reports failures.

    python tests/security/fuzz.py                              # five minutes
    python tests/security/fuzz.py --seconds 60 --target CSV    # a minute, of one target
    python tests/security/fuzz.py --seed 7 --target CSV        # the same inputs once more

`nox -s security` installs the dependencies. The exit code is 1 if a reader breaks a rule of
`searching.py`; `targets.py` lists the readers.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import sys

from intercom_data_events._arguments import ArgumentParser
from intercom_data_events._validation import printable
from searching import Fault, Tally, search

# Seconds beyond --seconds.
_HANGS = 180


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=300,
        help="for all targets together (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, help="seed of the inputs (default: random)")
    parser.add_argument(
        "--target",
        action="append",
        metavar="NAME",
        help="a target to search; repeatable (default: all)",
    )
    options = parser.parse_args(arguments)
    seed = random.randrange(2**32) if options.seed is None else options.seed  # noqa: S311
    for variable in [*os.environ]:
        if variable.startswith("INTERCOM_") or variable.upper().endswith("_PROXY"):
            del os.environ[variable]
    # A loop in C, which no signal ends, ends the program with the stacks.
    faulthandler.dump_traceback_later(options.seconds + _HANGS, exit=True)
    from targets import make  # Imported late, because it takes seconds, which --help does not need.

    with contextlib.ExitStack() as opened:
        targets, left_out = make(opened)
        names = [target.name for target in targets]
        if unknown := set(options.target or ()) - set(names):
            parser.error(f"--target must be one of {', '.join(names)}, not {', '.join(unknown)}")
        chosen = [target for target in targets if target.name in (options.target or names)]
        print(f"seed {seed}, {options.seconds:g} s, {len(chosen)} targets", flush=True)
        tallies = search(chosen, options.seconds, seed, tell=_tell)
    faulthandler.cancel_dump_traceback_later()
    print(table(tallies))
    for each in left_out:
        print(f"  not run: {each}")
    faults = sum(len(tally.faults) for tally in tallies.values())
    advice = f" To repeat the inputs, pass --seed {seed}." if faults else ""
    print(f"\nFaults: {faults}.{advice}")
    return 1 if faults else 0


def table(tallies: dict[str, Tally]) -> str:
    """Returns one line per target."""
    rows = [
        f"\n  {'target':<20}{'inputs':>8}{'seconds':>9}{'4x the length':>15}{'peak':>10}  faults"
    ]
    for name, tally in tallies.items():
        ratio = f"{tally.ratio:.1f} times" if tally.ratio else "-"
        rows.append(
            f"  {name:<20}{tally.examples:>8,}{tally.seconds:>9.1f}{ratio:>15}"
            f"{tally.peak / 1e6:>7.1f} MB{len(tally.faults):>8}"
        )
    return "\n".join(rows)


def _tell(fault: Fault) -> None:
    print()
    for line in f"FAULT {fault}".split("\n"):
        print(printable(line, None), flush=True)


if __name__ == "__main__":
    sys.exit(main())
