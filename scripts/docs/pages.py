"""Writes what sphinx reads: the guides at their paths, and a page for each public module.

    python scripts/docs/pages.py FOLDER

The folder is made anew. Addresses outside the repository are printed.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import pkgutil
import re
import shutil
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]
import attrs

sys.path[:0] = [str(PROJECT / name) for name in ("scripts", "overlays", "generated")]

import guides  # noqa: E402  # the path is set above
import intercom_data_events  # noqa: E402
import links  # noqa: E402

#: The Markdown files that become pages.
PAGES = [*guides.GUIDES.values(), PROJECT / "CHANGELOG.md"]
PACKAGE = intercom_data_events.__name__


class Name(NamedTuple):
    """A public name: the module whose page documents it, and the one that defines it."""

    name: str
    home: str
    origin: str
    line: int

    @property
    def path(self) -> str:
        """Its dotted path on the site."""
        return f"{self.home}.{self.name}"


def modules() -> list[str]:
    """Returns the public modules: those with no private part in their path."""
    found = pkgutil.walk_packages(intercom_data_events.__path__, f"{PACKAGE}.")
    names = (PACKAGE, *(each.name for each in found))
    return [name for name in names if not any(p.startswith("_") for p in name.split("."))]


def public() -> dict[str, Name]:
    """Returns what each path leads to that an `__all__` lists."""
    return {
        f"{module}.{name}": _find(module, name)
        for module in modules()
        for name in getattr(importlib.import_module(module), "__all__", ())
    }


def _find(module: str, name: str) -> Name:
    """Follows the imports of a name: its home is the last public module that has it."""
    home = module
    while (step := _imports(module).get(name)) is not None:
        module, name = step
        if module in modules():
            home = module
    return Name(name, home, module, _lines(module).get(name, 0))


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(inspect.getsource(importlib.import_module(module)))


@cache
def _imports(module: str) -> dict[str, tuple[str, str]]:
    """Returns the names that a module imports from others of ours, also for type checkers only."""
    package = importlib.import_module(module).__package__
    return {
        alias.asname or alias.name: (source, alias.name)
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.ImportFrom)
        for source in [importlib.util.resolve_name("." * node.level + (node.module or ""), package)]
        if source.startswith(PACKAGE)
        for alias in node.names
    }


@cache
def _lines(module: str) -> dict[str, int]:
    """Returns the lines of what a module defines."""
    lines = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            lines[node.name] = node.lineno
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for to in node.targets if isinstance(node, ast.Assign) else [node.target]:
                lines[ast.unparse(to)] = node.lineno
    return lines


def is_private(base: type) -> bool:
    """Whether a base of a class is of no interest: of a private module, or by its name."""
    kind = typing.get_origin(base) or base
    return kind in (object, typing.Generic, typing.Protocol) or any(
        part.startswith("_") for part in f"{kind.__module__}.{kind.__name__}".split(".")
    )


def members(name: Name) -> Iterator[str]:
    """Yields the paths of the methods, properties and fields that the page of a class must have.

    A field that the docstring describes as an argument needs no second description.
    """
    value = _value(name)
    if not inspect.isclass(value):
        return
    found = set(attrs.fields_dict(value)) if attrs.has(value) else set()
    for kind in value.__mro__:
        if kind is value or is_private(kind):
            kinds = (FunctionType, property, classmethod, staticmethod)
            found |= {member for member, what in vars(kind).items() if isinstance(what, kinds)}
    for member in found:
        described = re.search(rf"^ +{member}: ", value.__doc__ or "", re.MULTILINE)
        if not member.startswith("_") and not described:
            yield f"{name.path}.{member}"


def _value(name: Name) -> object:
    return getattr(importlib.import_module(name.home), name.name)


def kind(name: Name) -> str:
    """Returns what a name is, as the directives of sphinx call it."""
    value = _value(name)
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    # An alias of a generic type can be called, too.
    is_function = callable(value) and typing.get_origin(value) is None
    return "function" if is_function else "data"


def _directive(name: Name) -> str:
    lines = [f".. auto{kind(name)}:: {name.name}"]
    if inspect.isclass(value := _value(name)):
        # What private bases have belongs to the class; the other bases have pages.
        others = [base for base in value.__mro__[1:] if not is_private(base)]
        inherited = ", ".join(base.__name__ for base in others)
        lines += ["   :members:", f"   :inherited-members: {inherited}"]
        if not all(map(is_private, value.__bases__)):
            lines.append("   :show-inheritance:")
    elif kind(name) == "data":
        lines.append("   :no-value:")
    return "\n".join(lines) + "\n"


def _module_page(module: str, names: dict[str, Name]) -> str:
    own = {each for each in names.values() if each.home == module}
    ordered = sorted(own, key=lambda each: (each.origin != module, *each[2:], each.name))
    parts = [
        f"{module}\n{'=' * len(module)}\n",
        f".. automodule:: {module}\n",
        f".. currentmodule:: {module}\n",
        *map(_directive, ordered),
    ]
    elsewhere: dict[str, list[str]] = {}
    for path, name in names.items():
        if path.rpartition(".")[0] == module != name.home:
            elsewhere.setdefault(name.home, []).append(f":py:obj:`~{name.path}`")
    if elsewhere:
        parts.append("These names can be imported from here, too:\n")
    for home, links_ in sorted(elsewhere.items()):
        parts.append(f":py:mod:`{home}`\n    {', '.join(links_)}\n")
    return "\n".join(parts)


def _toctree(caption: str, entries: list[str]) -> str:
    listed = "\n".join(entries)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def write(folder: Path) -> None:
    """Writes all pages, and copies of the files that they show or lead to."""
    shutil.rmtree(folder, ignore_errors=True)
    names = public()
    homes = [module for module in modules() if any(n.home == module for n in names.values())]
    (folder / "api").mkdir(parents=True)
    for module in homes:
        (folder / "api" / f"{module}.rst").write_text(_module_page(module, names), "utf-8")
    for page in PAGES:
        needed = [
            links.target(page, link)
            for link in links.links(page.read_text("utf-8"))
            if not link.is_external
        ]
        for path in (page, *needed):
            if path.is_file():
                copy = folder / path.relative_to(PROJECT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    paths = [page.relative_to(PROJECT).with_suffix("").as_posix() for page in PAGES[1:]]
    contents = [
        ("Guides", [path for path in paths if path.startswith("overlays")]),
        (
            "API reference",
            [f"{module.removeprefix(f'{PACKAGE}.')} <api/{module}>" for module in homes],
        ),
        ("The project", [path for path in paths if not path.startswith("overlays")]),
    ]
    with (folder / "README.md").open("a", encoding="utf-8") as front:
        front.writelines(_toctree(caption, entries) for caption, entries in contents)


def external() -> Iterator[str]:
    """Yields the addresses outside the repository, each with its page."""
    for page in PAGES:
        for link in links.links(page.read_text("utf-8")):
            if link.is_external:
                yield f"{link.path}  {page.relative_to(PROJECT)}:{link.line}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes what sphinx reads.")
    parser.add_argument("folder", type=Path, help="where to; the folder is made anew")
    write(parser.parse_args().folder)
    print("Addresses outside, which are not looked at:", *external(), sep="\n  ")


if __name__ == "__main__":
    main()
