"""Checks whether a commit can be released, and lists what its release would upload.

    python scripts/prepare_release.py check [--tagged]
    python scripts/prepare_release.py finish ARCHIVES FOLDER

`nox -s release` runs the first before it builds, and the second after. `finish` completes the SBOM
in FOLDER, writes SHA256SUMS beside it, and prints the files. Nothing is uploaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
_NAME = "intercom_data_events"
_MOST_SHOWN = 5


@dataclass(frozen=True)
class State:
    """The facts that decide whether a commit can be released.

    Attributes:
        version: The version of the package.
        heading: The first heading of the second level in CHANGELOG.md.
        tags: The tags of the commit that begin with "v".
        changed: The files that differ from the commit, and those that it lacks.
    """

    version: str
    heading: str
    tags: Sequence[str]
    changed: Sequence[str]

    @classmethod
    def of(cls, project: Path) -> State:
        """Reads the state of a clone."""
        about = (project / "overlays" / _NAME / "__about__.py").read_text(encoding="utf-8")
        changelog = (project / "CHANGELOG.md").read_text(encoding="utf-8")
        return cls(
            version=re.findall(r'^__version__ = "(.+)"$', about, re.MULTILINE)[0],
            heading=next(iter(re.findall(r"^## .*$", changelog, re.MULTILINE)), ""),
            tags=_git(project, "tag", "--points-at", "HEAD", "--list", "v*"),
            changed=[line[3:] for line in _git(project, "status", "--porcelain")],
        )

    def problems(self, *, tagged: bool) -> list[str]:
        """Returns the reasons why the commit cannot be released.

        Args:
            tagged: Whether the commit must have its tag. Without a tag, the release is a rehearsal,
                and the changelog needs no date.
        """
        found = []
        tag = f"v{self.version}"
        if self.changed:
            more = ", …" if len(self.changed) > _MOST_SHOWN else ""
            names = ", ".join(self.changed[:_MOST_SHOWN])
            found.append(
                f"the working tree must be clean, but these files differ from HEAD: {names}{more}; "
                "commit or remove them"
            )
        if any(each != tag for each in self.tags):
            found.append(
                f"the only tag of HEAD that begins with v must be {tag}, not "
                f"{', '.join(self.tags)}; delete the tag, or change the version"
            )
        elif tagged and not self.tags:
            found.append(f"HEAD must have the tag {tag}; run: git tag {tag}")
        section = f"## {self.version}"
        day = re.fullmatch(rf"{re.escape(section)} \(\d{{4}}-\d\d-\d\d\)", self.heading)
        is_rehearsal = not tagged and not self.tags
        if not day and not (is_rehearsal and self.heading == f"{section} (unreleased)"):
            other = f" or '{section} (unreleased)'" if is_rehearsal else ""
            found.append(
                f"the first section of CHANGELOG.md must be '{section} (YYYY-MM-DD)'{other}, "
                f"not '{self.heading}'; change the section or the version"
            )
        return found


def _git(project: Path, *arguments: str) -> list[str]:
    command = ("git", "-C", str(project), *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def complete(sbom: dict[str, Any], version: str, archives: Sequence[Path]) -> None:
    """Adds what the SBOM tool does not know: the version, package URL and archives."""
    component = sbom["metadata"]["component"]
    component["version"] = version
    component["purl"] = f"pkg:pypi/{_NAME.replace('_', '-')}@{version}"
    component["externalReferences"] = [
        *component.get("externalReferences", ()),
        *(
            {
                "type": "distribution",
                "url": archive.name,
                "hashes": [{"alg": "SHA-256", "content": _sha256(archive)}],
            }
            for archive in archives
        ),
    ]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def finish(project: Path, archives: Path, folder: Path) -> str:
    """Completes the SBOM, writes SHA256SUMS, and returns what a release would upload.

    Args:
        project: The clone.
        archives: The folder with the sdist and the wheel.
        folder: The folder with the SBOM.

    Raises:
        ValueError: The archives have another version.
    """
    state = State.of(project)
    files = sorted(archives.iterdir())
    wanted = [f"{_NAME}-{state.version}-py3-none-any.whl", f"{_NAME}-{state.version}.tar.gz"]
    if [file.name for file in files] != wanted:
        names = ", ".join(file.name for file in files)
        raise ValueError(
            f"{archives} must contain only {' and '.join(wanted)}, not {names}; run: nox -s build"
        )
    bill = folder / f"{_NAME}-{state.version}.cdx.json"
    sbom = json.loads(bill.read_text(encoding="utf-8"))
    complete(sbom, state.version, files)
    bill.write_text(json.dumps(sbom, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    sums = folder / "SHA256SUMS"
    sums.write_text(
        "".join(f"{_sha256(file)}  {file.name}\n" for file in (*files, bill)), encoding="utf-8"
    )
    (commit,) = _git(project, "rev-parse", "HEAD")
    tag = f"with the tag {state.tags[0]}" if state.tags else "without a tag: this is a rehearsal"
    components = sbom.get("components", ())
    unlicensed = sorted(each["name"] for each in components if not each.get("licenses"))
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    repository = metadata["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    lines = [
        f"intercom-data-events {state.version}, from commit {commit[:12]} {tag}",
        "",
        "A trusted publisher would upload:",
        *(f"  {_line(file)}" for file in files),
        ".github/workflows/release.yml would add a PEP 740 attestation for each.",
        "",
        f"For users, in {folder}:",
        f"  {_line(bill)}",
        f"    the package, and {len(components)} dependencies with all extras, "
        + (f"without a license: {', '.join(unlicensed)}" if unlicensed else "each with a license"),
        f"  {sums.name}  sha256 of the three files above",
        "",
        f"The project's links lead to {repository}."
        if repository
        else "The metadata has no links, because repository in pyproject.toml is empty.",
        "Nothing was uploaded.",
    ]
    return "\n".join(lines)


def _line(file: Path) -> str:
    return f"{file.name}  {file.stat().st_size:,} bytes  sha256 {_sha256(file)}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks and describes a release; uploads nothing.")
    steps = parser.add_subparsers(dest="step", required=True)
    check = steps.add_parser("check", help="fail if HEAD cannot be released")
    check.add_argument("--tagged", action="store_true", help="also fail if HEAD lacks its tag")
    finishing = steps.add_parser("finish", help="complete the SBOM, and list the files to upload")
    finishing.add_argument("archives", type=Path, help="the folder with the sdist and the wheel")
    finishing.add_argument("folder", type=Path, help="the folder with the SBOM")
    options = parser.parse_args(arguments)
    if options.step == "finish":
        print(finish(PROJECT, options.archives, options.folder))
        return 0
    if not (PROJECT / ".git").exists():
        problems = ["the project must be a clone, not an unpacked sdist; clone the repository"]
    else:
        problems = State.of(PROJECT).problems(tagged=options.tagged)
    for problem in problems:
        print(f"not releasable: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
