"""Compares the client with bare httpx and the official SDK in one run, as ratios.

    nox -s bench [-- --rounds 9] [--only sending] [--json PATH] [--markdown PATH] [--svg PATH]
    nox -s bench -- --quick

Machines are noisy: every subject is measured in every round, in turn, and the medians are compared.
Compare figures of one run only. If valgrind is installed, it counts instructions, which do not
depend on the machine's load. The printed table also shows goals, but a missed goal does not fail
the run; --markdown writes the table for the README, without goals. A run that ends early writes its
figures to the file of --json, and leaves those of --markdown and --svg unchanged.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from attrs import frozen

from intercom_data_events._arguments import ArgumentParser
from measuring import (
    backlog,
    chart,
    figures,
    instructions,
    reading,
    sending,
    servers,
    starting,
    tracking,
)
from measuring.events import installed
from measuring.figures import HTTPX, OFFICIAL, Question, Run

PARTS = ("starting", "reading", "sending", "quota", "tracking", "regeneration")


@frozen
class Amounts:
    """The amounts of a round."""

    listed: int = 10_000
    pages: int = 1_000
    creates: int = 300
    sent: int = 1_000
    windows: int = 4
    tracked: int = 2_500
    waiting: int = 1_000_000
    shared: float = 2.0


QUICK = Amounts(listed=500, pages=20, creates=20, sent=100, windows=3, tracked=100,
    waiting=10_000, shared=0.2,
)  # fmt: skip


def main() -> int:
    options = _options()
    logging.disable()
    servers.leave_environment_out()
    # Characters that the terminal cannot encode must not end the run.
    for stream in (sys.stdout, sys.stderr):
        cast("TextIOWrapper", stream).reconfigure(errors="backslashreplace")
    parts = options.only or PARTS
    count, how = (
        instructions.counter() if "starting" in parts else (None, "not counted in these parts")
    )
    run = Run({**_machine(options.rounds), "instructions": how})
    print("\n".join(f"- {name}: {said}" for name, said in run.machine.items()), end="\n\n")
    print(figures.row(figures.HEADINGS), figures.rule(), sep="\n", flush=True)
    code, complete = 0, False
    try:
        with ExitStack() as stack:
            for question in _questions(parts, options.amounts, count, stack):
                _progress(f"measuring: {question.title}")
                answer = question.answer(options.rounds)
                _progress("")
                run.figures += answer
                print("\n".join(figures.rows(answer)), flush=True)
            complete = True
    except KeyboardInterrupt:
        print("\nInterrupted; the figures above are complete.", file=sys.stderr)
        code = 130
    finally:
        _write(run, options, complete=complete)
    return code


def _write(run: Run, options: argparse.Namespace, *, complete: bool) -> None:
    for path, text, of_part in (
        (options.json, run.to_json, True),
        (options.markdown, run.to_markdown, False),
        (options.svg, lambda: chart.svg(run), False),
    ):
        if path is None:
            continue
        if run.figures and (complete or of_part):
            _replace(path, text())
            print(f"\n{path} is written.")
        else:
            why = "the run is incomplete" if run.figures else "nothing was measured"
            print(f"{path} is not written: {why}.", file=sys.stderr)


def _replace(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all; devices and pipes cannot be replaced."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()
    beside = path.with_name(f"{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _check_writable(path: Path) -> None:
    """Raises OSError if a file cannot be written; does not create or change it."""
    if path.exists():
        path.open("a", encoding="utf-8").close()
    if path.is_file() or not path.exists():
        tempfile.TemporaryFile(dir=path.resolve().parent).close()


def _progress(text: str) -> None:
    """Prints the current step."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_const",
        const=QUICK,
        default=Amounts(),
        dest="amounts",
        help="one short round that checks that the benchmark runs; its figures mean nothing",
    )
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="a part to run; repeatable (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures as JSON")
    parser.add_argument(
        "--markdown", type=Path, metavar="PATH", help="write the README's table, without goals"
    )
    parser.add_argument("--svg", type=Path, metavar="PATH", help="draw the table as a chart")
    options = parser.parse_args()
    if options.amounts is QUICK:
        options.rounds = 1
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    for name in ("json", "markdown", "svg"):
        path = getattr(options, name)
        if path is None:
            continue
        try:
            # Checked now, not after everything has been measured.
            _check_writable(path)
        except OSError as error:
            parser.error(f"--{name}: cannot write {path} ({error.strerror}); choose another path")
    return options


def _questions(
    parts: Collection[str], amounts: Amounts, count: instructions.Count | None, stack: ExitStack
) -> Iterator[Question]:
    @cache
    def accepting() -> str:
        return stack.enter_context(servers.accepting())

    if "starting" in parts:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield from starting.questions(accepting(), folder, count, quick=amounts is QUICK)
    if "reading" in parts:
        yield from reading.questions(amounts.listed, amounts.pages)
    if "sending" in parts:
        runner = stack.enter_context(asyncio.Runner())
        yield from sending.questions(accepting(), runner, amounts.creates, amounts.sent)
    if "quota" in parts:
        from measuring import quota

        yield from quota.questions(amounts.windows)
    if "tracking" in parts:
        url = stack.enter_context(servers.emulating(servers.LIMIT, servers.LATENCY))
        yield from tracking.questions(url, servers.unused(), amounts.tracked)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield from backlog.questions(
            url, accepting(), folder, amounts.tracked, amounts.waiting, amounts.shared
        )
    if "regeneration" in parts:
        yield from starting.regeneration()


def _machine(rounds: int) -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "beside": ", ".join(
            f"{name} {installed(name) or '(not installed)'}"
            for name in (HTTPX, "attrs", OFFICIAL, "aiohttp")
        ),
        "server": servers.accepting_server(),
        "command": "nox -s bench" + "".join(f" {one}" for one in _arguments()),
        "medians of rounds": f"{rounds} at most",
    }


def _arguments() -> list[str]:
    return ["--", *sys.argv[1:]] if sys.argv[1:] else []


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
