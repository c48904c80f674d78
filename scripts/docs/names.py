"""The public names of the package, and how the site shows each."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import attrs
from sphinx.util.inspect import object_description
from sphinx.util.typing import stringify_annotation

import intercom_data_events

PACKAGE = intercom_data_events.__name__
#: Characters of a default beyond which the site does not show it.
LONGEST_DEFAULT = 40


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

    @property
    def value(self) -> Any:
        """What it names."""
        return getattr(importlib.import_module(self.home), self.name)


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


def arguments(value: Any, signature: str) -> str:
    """Returns the arguments as callers know them.

    Those of a class are left out if callers do not make its objects themselves.
    """
    for base in getattr(value, "__orig_bases__", ()):
        variables = getattr(typing.get_origin(base), "__parameters__", ())
        for variable, bound in zip(variables, typing.get_args(base), strict=False):
            name = getattr(bound, "__forward_arg__", None) or stringify_annotation(bound, "smart")
            signature = re.sub(rf"\b{variable.__name__}\b", name, signature)
    if inspect.isclass(value) and attrs.has(value):
        # A converter takes any value; the field says what it is for.
        for name, field in attrs.fields_dict(value).items():
            signature = re.sub(rf"\b{name}: ~?(typing\.)?Any\b", f"{name}: {field.type}", signature)
    is_protocol = signature == "(*args, **kwargs)"
    if inspect.isclass(value) and (is_protocol or _mentions_internals(signature)):
        return ""
    for parameter in inspect.signature(value).parameters.values():
        default = object_description(parameter.default)
        if parameter.default is attrs.NOTHING or len(default) > LONGEST_DEFAULT:
            signature = signature.replace(f"= {default}", "= ...")
    return signature


def _mentions_internals(signature: str) -> bool:
    """Returns whether a signature has a class that is not public."""
    for path in re.findall(r"[\w.]+", signature):
        top, last = path.split(".")[0], path.split(".")[-1]
        is_ours = top in (last, PACKAGE) or top not in sys.modules
        if is_ours and last in _internal_classes():
            return True
    return False


@cache
def _internal_classes() -> set[str]:
    """Returns the names of all classes that are not public."""
    found = {
        node.name
        for path in Path(*intercom_data_events.__path__).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.ClassDef)
    }
    return found - {name.name for name in public().values()}
