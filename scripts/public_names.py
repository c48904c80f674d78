"""The public names of the package: where each is defined, and what the source says about it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from types import FunctionType
from typing import Any, NamedTuple

import attrs

import intercom_data_events

PACKAGE = intercom_data_events.__name__


class Name(NamedTuple):
    """A public name: the module whose page documents it, and the one that defines it.

    The `doc` is the docstring of a class or function, or the ``#:`` comment above an assignment.
    """

    name: str
    home: str
    origin: str
    line: int
    doc: str

    @property
    def path(self) -> str:
        """Its dotted path on the site."""
        return f"{self.home}.{self.name}"

    @property
    def value(self) -> Any:
        """What it names."""
        return getattr(importlib.import_module(self.home), self.name)


@cache
def modules() -> tuple[str, ...]:
    """Returns the public modules: those with no private part in their path."""
    found = pkgutil.walk_packages(intercom_data_events.__path__, f"{PACKAGE}.")
    names = (PACKAGE, *(each.name for each in found))
    return tuple(name for name in names if not re.search(r"\b_", name))


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
    return Name(name, home, module, *definitions(module)[name])


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
def definitions(module: str) -> dict[str, tuple[int, str]]:
    """Returns the line and the documentation of each name that a module defines."""
    source = inspect.getsource(importlib.import_module(module)).splitlines()
    found = {}
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] = node.lineno, ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            above = takewhile(lambda line: line[:2] == "#:", reversed(source[: node.lineno - 1]))
            comment = "\n".join(line[2:].removeprefix(" ") for line in reversed([*above]))
            for to in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found[ast.unparse(to)] = node.lineno, comment
    return found


def kind(name: Name) -> str:
    """Returns what a name is, as the directives of sphinx call it."""
    value = name.value
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    # An alias of a generic type can be called, too.
    is_function = callable(value) and typing.get_origin(value) is None
    return "function" if is_function else "data"


def is_private(base: type) -> bool:
    """Whether a base of a class is of no interest: of a private module, or by its name."""
    base = typing.get_origin(base) or base
    return base in (object, typing.Generic, typing.Protocol) or any(
        part.startswith("_") for part in f"{base.__module__}.{base.__name__}".split(".")
    )


def members(name: Name) -> Iterator[str]:
    """Yields the paths of the methods, properties and fields that the page of a class must have.

    A field that the docstring describes as an argument needs no second description.
    """
    value = name.value
    if not inspect.isclass(value):
        return
    found = set(attrs.fields_dict(value)) if attrs.has(value) else set()
    for each in value.__mro__:
        if each is value or is_private(each):
            kinds = (FunctionType, property, classmethod, staticmethod)
            found |= {member for member, what in vars(each).items() if isinstance(what, kinds)}
    for member in found:
        described = re.search(rf"^ +{member}: ", value.__doc__ or "", re.MULTILINE)
        if not member.startswith("_") and not described:
            yield f"{name.path}.{member}"
