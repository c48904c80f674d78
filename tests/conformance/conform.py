"""Checks with third-party tools that client, emulator and description agree.

    nox -s conformance [-- --only schemathesis --seed 7]

Schemathesis generates requests from the description, and validates the emulator's answers. Prism is
a validating proxy between both clients and the emulator. openapi-core validates the requests of
both clients and the emulator's answers. Intercom's official SDK sends events that our client reads,
and reads events that our client sent. The exit code is 1 if a tool finds a violation.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from intercom_data_events._arguments import ArgumentParser
from tools import with_official_sdk, with_openapi_core, with_prism, with_schemathesis
from tools.reporting import Report, counted

PROJECT = Path(__file__).parents[2]
#: The packages that each tool needs.
PACKAGES = {
    "schemathesis": ["schemathesis"],
    "prism": ["trio"],
    "official-sdk": ["python-intercom"],
    "openapi-core": ["openapi-core", "pyyaml", "trio"],
}


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    for name in list(os.environ):
        # All requests go to this machine.
        if name.startswith("INTERCOM_") or name.upper().endswith("_PROXY"):
            del os.environ[name]
    # They log every failure that the tools provoke.
    logging.getLogger("intercom_data_events").setLevel(logging.CRITICAL)
    seed = random.randrange(2**32) if options.seed is None else options.seed  # noqa: S311  # guards nothing
    tools: dict[str, Callable[[], Report]] = {
        "schemathesis": lambda: with_schemathesis.run(
            options.description, seed=seed, examples=options.examples
        ),
        "prism": lambda: with_prism.run(options.description, options.packages),
        "official-sdk": with_official_sdk.run,
        "openapi-core": lambda: with_openapi_core.run(options.description),
    }
    reports = []
    for name, run in tools.items():
        if options.only and name not in options.only:
            continue
        begin = time.perf_counter()
        reports.append(run())
        print(f"{reports[-1].text(time.perf_counter() - begin)}\n", flush=True)
    found = sum(len(report.violations) for report in reports)
    skipped = "".join(f" {report.tool} was skipped." for report in reports if report.skipped)
    print(f"{counted(found).capitalize()}.{skipped}")
    return 1 if found else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    """Reads and checks the command line before any tool runs."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.description.is_file():
        parser.error(f"--description must be a file, not {options.description}")
    if options.examples < 1:
        parser.error(f"--examples must be at least 1, not {options.examples}")
    if options.seed is not None and options.seed < 0:
        parser.error(f"--seed must be at least 0, not {options.seed}")
    for tool in options.only or PACKAGES:
        for package in PACKAGES[tool]:
            try:
                version(package)
            except PackageNotFoundError:
                parser.error(f"{package} must be installed; run: nox -s conformance")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", metavar="TOOL",
        choices=list(PACKAGES),
        help="a tool to run: %(choices)s; repeatable (default: all)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, help="seed of Schemathesis (default: random)")
    parser.add_argument(
        "--examples", type=int, default=100, metavar="N",
        help="requests that Schemathesis generates for each operation (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--packages", type=Path, metavar="FOLDER",
        help="the folder that contains the node_modules folder with Prism",
    )  # fmt: skip
    parser.add_argument(
        "--description", type=Path, default=PROJECT / "openapi" / "data-events.yaml",
        metavar="FILE", help="the OpenAPI description to compare with (default: the project's)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    # Characters that the terminal cannot encode must not fail the report.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
