"""Regenerates the client from Intercom's OpenAPI description.

    python scripts/regenerate.py                    # from the committed openapi/upstream.yaml
    python scripts/regenerate.py PATH-OR-URL        # from a full description, YAML or JSON
    python scripts/regenerate.py --check            # writes nothing; fails where files differ

Writes openapi/upstream.yaml, openapi/data-events.yaml and generated/, whole or not at all, and
says what changed. Exits with 0, or with 1 and one sentence that says what is wrong and where.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

import api_diff
from client_parts import ArgumentParser, sentence
from regeneration import RegenerationError, document, generating, reporting
from regeneration.pipeline import PARTS, stage
from regeneration.publishing import differences, publish


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options.project.absolute(), options.source, check=options.check)
    except RegenerationError as error:
        print(f"regenerate: {sentence(str(error))}", file=sys.stderr)
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"regenerate: {sentence(said)}", file=sys.stderr)
    return 1


def _run(project: Path, location: str | None, *, check: bool) -> int:
    try:
        # Beside what it replaces, so that publishing is a rename; a check leaves the project alone.
        workspace = tempfile.TemporaryDirectory(
            prefix=".regenerate-", dir=None if check else project
        )
    except OSError as error:
        raise RegenerationError(f"{project}: cannot be written: {error.strerror}") from error
    with workspace as folder:
        staged = Path(folder)
        stage(staged, project, location)
        if check:
            return _compare(staged, project)
        before, surface = _facts(project), _surface(project)
        rewritten = bool(differences(staged, project, ("generated",)))
        publish(staged, project, PARTS)
    python = api_diff.compare(surface, _surface(project))
    print(reporting.changes(before, _facts(project), python, rewritten=rewritten))
    return 0


def _compare(staged: Path, project: Path) -> int:
    found = differences(staged, project, PARTS)
    if found:
        print("\n".join(found), file=sys.stderr)
        print(
            "regenerate: what is committed is not what the description, the corrections and the "
            "generator give; run `nox -s regenerate`",
            file=sys.stderr,
        )
        return 1
    print("No drift: openapi/ and generated/ are what the pipeline gives.")
    return 0


def _facts(project: Path) -> reporting.Facts:
    try:
        sliced = document.read(str(project / "openapi" / "upstream.yaml")).content
        return reporting.facts(sliced)
    except (RegenerationError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        # Nothing there yet, or damaged: everything is new then.
        return reporting.facts(None)


def _surface(project: Path) -> api_diff.Surface:
    try:
        return api_diff.read(project, (generating.PACKAGE,))
    except api_diff.APIDiffError:
        return api_diff.read(project, ())  # Damaged: everything is new then, too.


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="PATH-OR-URL",
        help="Intercom's full description, any version; without it, the committed slice",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 and name what differs"
    )
    parser.add_argument(
        "--project",
        type=Path,
        default=Path(__file__).parent.parent,
        metavar="FOLDER",
        help="the project to regenerate (default: the one that this script is in)",
    )
    return parser


if __name__ == "__main__":
    # What a terminal cannot show must not fail a run that has written everything.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(main())
