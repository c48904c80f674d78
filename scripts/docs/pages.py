"""Writes what sphinx reads: the guides at their paths, and pages of the modules and the commands.

    python scripts/docs/pages.py FOLDER

The folder is made anew. Addresses outside the repository are printed.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import typer

from guides import PAGES, PROJECT
from intercom_data_events.cli.app import app
from links import links, target
from public_names import PACKAGE, Name, is_private, kind, modules, public

#: Characters of a constant or an alias beyond which the site does not show it.
LONGEST_VALUE = 120
#: Columns of a command's help.
WIDTH = 90
COMMANDS = "intercom-events"


def write(folder: Path) -> None:
    """Writes all pages, and copies of the files that they show or lead to."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "api").mkdir(parents=True)
    names = public()
    homes = [module for module in modules() if module in {name.home for name in names.values()}]
    for module in homes:
        (folder / "api" / f"{module}.rst").write_text(_module(module, names), encoding="utf-8")
    (folder / "api" / f"{COMMANDS}.rst").write_text("\n".join(_commands()), encoding="utf-8")
    for page in PAGES:
        found = links(page.read_text(encoding="utf-8"))
        # What is not a page is a download on the site.
        for path in (page, *(target(page, link) for link in found if not link.is_external)):
            if path.is_file():
                copy = folder / path.relative_to(PROJECT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    front, *others = [path.relative_to(PROJECT).with_suffix("").as_posix() for path in PAGES]
    contents = {
        "Guides": [path for path in others if path.startswith("overlays")],
        "Reference": [
            *(f"{module.removeprefix(f'{PACKAGE}.')} <api/{module}>" for module in homes),
            f"api/{COMMANDS}",
        ],
        "The project": [path for path in others if not path.startswith("overlays")],
    }
    with (folder / front).with_suffix(".md").open("a", encoding="utf-8") as file:
        for caption, entries in contents.items():
            options = f":hidden:\n:caption: {caption}"
            file.write("\n".join(("\n```{toctree}", options, "", *entries, "```\n")))


def _module(module: str, names: dict[str, Name]) -> str:
    """Returns the page of a module, in reStructuredText."""
    own = {name for name in names.values() if name.home == module}
    # In the order of the source; first what the module itself defines.
    ordered = sorted(own, key=lambda name: (name.origin != module, name.origin, name.line))
    parts = [
        *_title(module),
        f".. automodule:: {module}\n",
        f".. currentmodule:: {module}\n",
        *map(_directive, ordered),
    ]
    elsewhere = defaultdict(list)
    for path, name in names.items():
        if path.rpartition(".")[0] == module != name.home:
            elsewhere[name.home].append(f":py:obj:`~{name.path}`")
    if elsewhere:
        parts.append("These names can also be imported from here:\n")
    for home, references in sorted(elsewhere.items()):
        parts.append(f":py:mod:`{home}`\n    {', '.join(references)}\n")
    return "\n".join(parts)


def _title(title: str, line: str = "=") -> tuple[str, str]:
    return title, f"{line * len(title)}\n"


def _directive(name: Name) -> str:
    lines = [f".. auto{kind(name)}:: {name.name}"]
    if inspect.isclass(name.value):
        # What private bases have belongs to the class; the other bases have pages.
        others = [base.__name__ for base in name.value.__mro__[1:] if not is_private(base)]
        lines += ["   :members:", f"   :inherited-members: {', '.join(others)}"]
        if not all(map(is_private, name.value.__bases__)):
            lines.append("   :show-inheritance:")
    elif kind(name) == "data":
        shown = repr(name.value)
        if len(shown) > LONGEST_VALUE or PACKAGE in shown:
            lines.append("   :no-value:")
    return "\n".join((*lines, ""))


def _commands() -> Iterator[str]:
    """Yields the page of the commands: the help of each, as a terminal shows it."""
    program = typer.main.get_command(app)
    yield from _title(COMMANDS)
    yield from _help(program, typer.Context(program, info_name=COMMANDS, terminal_width=WIDTH))


def _help(command: typer.core.TyperGroup, context: typer.Context) -> Iterator[str]:
    if context.parent is not None:
        yield from _title(context.command_path, "-")
    yield f".. code-block:: text\n\n{indent(command.get_help(context), '   ')}\n"
    for name, each in getattr(command, "commands", {}).items():
        yield from _help(each, typer.Context(each, info_name=name, parent=context))


def external() -> Iterator[str]:
    """Yields the addresses outside the repository, each with the places that name it."""
    places = defaultdict(list)
    for page in PAGES:
        for link in links(page.read_text(encoding="utf-8")):
            if link.is_external:
                places[link.path].append(f"{page.relative_to(PROJECT)}:{link.line}")
    for address, found in sorted(places.items()):
        yield f"{address} ({', '.join(found)})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the source pages of the site.")
    parser.add_argument("folder", type=Path, help="the folder for the pages, which is replaced")
    write(parser.parse_args().folder)
    print("external links, which are not checked:", *external(), sep="\n  ")


if __name__ == "__main__":
    main()
