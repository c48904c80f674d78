"""Environments with only a package and its dependencies, as its users have.

The benchmark's own environment cannot measure a cold start, because it has click, rich and
pygments: with these, `import httpx` also loads the command line of httpx.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path


def needed(*names: str) -> dict[str, Distribution]:
    """Returns installed distributions and all their dependencies, without extras, by name."""
    from packaging.requirements import Requirement

    wanted, found = list(names), dict[str, Distribution]()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is not installed.")
        needs = map(Requirement, found[name].requires or ())
        wanted += [
            one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return found


def create(folder: Path, *names: str) -> Path:
    """Makes an environment with copies of installed distributions, and returns its Python.

    Copies need no package index and have the same versions as the rest of the run.

    Args:
        folder: The folder of the environment; existing files are removed.
        names: The distributions; their dependencies are copied too.
    """
    venv.create(folder, clear=True, symlinks=os.name == "posix")
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    for each in needed(*names).values():
        for file in each.files or ():
            # Scripts are outside the packages, and compiled files name their old folder.
            if ".." in file.parts or file.suffix == ".pyc":
                continue
            copy = packages / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(each.locate_file(file)), copy)
    scripts = Path(sysconfig.get_path("scripts", "venv", paths))
    return scripts / ("python.exe" if os.name == "nt" else "python")
