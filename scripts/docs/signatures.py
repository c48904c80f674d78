"""The arguments of classes and functions, as the site shows them."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import typing
from functools import cache
from pathlib import Path
from typing import Any

import attrs
from sphinx.util.inspect import object_description
from sphinx.util.typing import stringify_annotation

import intercom_data_events
from public_names import PACKAGE, public

#: Characters of a default beyond which the site does not show it.
LONGEST_DEFAULT = 40


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
