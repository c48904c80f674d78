"""Regenerates the client from Intercom's OpenAPI description.

    python scripts/regenerate.py                    # from the committed openapi/upstream.yaml
    python scripts/regenerate.py PATH-OR-URL        # from a full description, YAML or JSON
    python scripts/regenerate.py --check            # writes nothing; fails if files differ

The script writes openapi/upstream.yaml, openapi/data-events.yaml and generated/, all or none, and
prints a report: the result, what to review before a release, and what changed.

exit codes:
  0  done, and nothing to review; with --check: the committed files are current
  1  the input was rejected and nothing was written; one sentence names the problem and its place;
     with --check: committed files differ
  2  the command line is invalid
  3  done, but review the report before you release: a change breaks callers, a correction was not
     written against the new description, Intercom has an operation that the client lacks, or
     something that callers use is deprecated or removed

--json prints one object instead of text; keys without a value are omitted:
  a report     `verdict`, `exit_code`, `look`, `breaks`, `changes` (`pointer`, `before`, `after`,
               `words`, `effect`), `python` (`name`, `change`, `breaks`), `versions`, `release`
               (`level`, `before`, `after`, `changelog`), `files`
  an item of `look`
               `kind`, `title`, `place`, `meaning`, `to_do`; a correction also has `correction`,
               `known`, `found`, `as_written`, or a list `corrections` of objects with these keys
  a rejection  `refused`, `exit_code`
  --check      `drift`, `exit_code`
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from running import run

from client_parts import ArgumentParser, sentence
from regeneration import RegenerationError
from regeneration.pipeline import PARTS, report, stage
from regeneration.publishing import alone, differences, publish


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options.project.absolute(), options.source, options)
    except RegenerationError as error:
        said = sentence(str(error))
    except OSError as error:
        said = sentence(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if options.json:
        print(json.dumps({"refused": said, "exit_code": 1}, indent=2))
    else:
        print(f"regenerate: {said}", file=sys.stderr)
    return 1


def _run(project: Path, location: str | None, options: argparse.Namespace) -> int:
    prefix = ".regenerate-"
    if options.check:
        with tempfile.TemporaryDirectory(prefix=prefix) as folder:
            stage(Path(folder), project, location)
            return _check(differences(Path(folder), project, PARTS), as_json=options.json)
    with contextlib.ExitStack() as opened:
        try:
            opened.enter_context(alone(project))
            # On the same file system as the project, so that publishing is a rename.
            folder = opened.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=project))
        except OSError as error:
            raise RegenerationError(
                f"cannot write {project}: {error.strerror}; check the path, its permissions and "
                "the free space"
            ) from error
        staged = Path(folder)
        made = stage(staged, project, location)
        # Before publishing replaces the files that the report compares with.
        said = report(staged, project, made)
        publish(staged, project, PARTS)
    print(json.dumps(said.as_json(), indent=2) if options.json else said.as_text())
    return said.exit_code


def _check(drift: list[str], *, as_json: bool) -> int:
    code = 1 if drift else 0
    if as_json:
        print(json.dumps({"drift": drift, "exit_code": code}, indent=2))
    elif drift:
        print("\n".join(drift), file=sys.stderr)
        print(
            "regenerate: the files above differ from what the description, the corrections and the "
            "generator produce; run: nox -s regenerate",
            file=sys.stderr,
        )
    else:
        print("No drift: openapi/ and generated/ are current.")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="PATH-OR-URL",
        help="Intercom's full description, in any version (default: the committed slice)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; exit with 1 if files differ, and name them",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(__file__).parent.parent,
        metavar="FOLDER",
        help="the project to regenerate (default: the one that contains this script)",
    )
    return parser


if __name__ == "__main__":
    run(main, "regenerate")
