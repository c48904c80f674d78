"""From a corrected description to a formatted Python package."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from openapi_python_client import generate as run_generator
from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_python_client.strings import PythonIdentifier
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from ruff import find_ruff_bin

from regeneration import RegenerationError
from regeneration.document import read
from regeneration.operations import Operations
from regeneration.pointers import escape

PACKAGE = "intercom_data_events_api"
#: What generated models call things for themselves: a property of such a name would replace them.
_NAMES_OF_MODELS = {
    "additional_keys",
    "additional_properties",
    "cast",
    "cls",
    "d",
    "field_dict",
    "from_dict",
    "to_dict",
}
#: What generated endpoint functions call things for themselves.
_NAMES_OF_ENDPOINTS = {
    "asyncio_detailed",
    "body",
    "build_request",
    "cast",
    "client",
    "cookies",
    "errors",
    "headers",
    "params",
    "quote",
    "sync_detailed",
}

#: Imports a package and all in it, and looks for what our code calls; run in a process of its own.
_LOADING = """
import importlib, pkgutil, sys
sys.dont_write_bytecode = True
root, package, *named = sys.argv[1:]
sys.path.insert(0, root)
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    importlib.import_module(module.name)
for name in named:
    operation = importlib.import_module(name)
    operation.build_request, operation.parse_response
"""


def validate(document: dict[str, Any], name: str) -> None:
    """Checks a document against OpenAPI's own rules.

    Raises:
        RegenerationError: It breaks one; names the place.
    """
    validators = {"3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
    try:
        errors = list(validators[document["openapi"][:3]](document).iter_errors())
    except RecursionError as error:
        raise RegenerationError(
            f"{name}: #/components/schemas: they refer to each other too deeply"
        ) from error
    if errors:
        # The most particular of the reasons; best_match fails on OpenAPI's own keywords.
        error = errors[0]
        while error.context:
            error = max(error.context, key=lambda reason: len(reason.absolute_path))
        place = "/".join(map(escape, error.absolute_path))
        raise RegenerationError(f"{name}: #/{place}: not valid OpenAPI: {error.message[:300]}")


def generate(
    description: Path,
    settings: Path,
    templates: Path,
    root: Path,
    operations: Operations,
    name: str,
) -> None:
    """Writes the package for a description, called `name` in errors, below `root`, formatted.

    Raises:
        RegenerationError: The generator or the formatter complains, or leaves something out, or
            what they write cannot be imported.
    """
    package = root / PACKAGE
    try:
        config = Config.from_sources(
            ConfigFile.load_from_path(settings),
            MetaType.NONE,
            description,
            file_encoding="utf-8",
            overwrite=False,
            output_path=package,
        )
    except Exception as error:  # whatever a reader of YAML and pydantic can raise
        raise RegenerationError(f"{settings}: cannot be used: {error}") from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            complaints = run_generator(config=config, custom_template_path=templates)
    except Exception as error:  # whatever a generator can raise that did not expect its input
        raise RegenerationError(
            f"{name}: openapi-python-client fails: {type(error).__name__}: {error}"
        ) from error
    if complaints:
        # Warnings too: to the generator, an operation that it leaves out is a warning.
        said = "; ".join(
            " ".join(f"{complaint.header} {complaint.detail or ''}".split())
            for complaint in complaints
        )
        # Its own wrappers of text from outside show themselves by their addresses.
        said = re.sub(r"<\S+ object at 0x[0-9a-f]+>", "…", said)
        raise RegenerationError(f"{name}: openapi-python-client: {said}")
    _check_names(read(str(description)).content, package, name)
    # `--meta none` writes none; type checkers look for it.
    (package / "py.typed").touch()
    _parse(package)
    # Never our own settings, nor the user's, nor what they have git ignore: same input, same bytes.
    for command in (
        ("check", "--fix-only", "--extend-select", "I"),
        ("format",),
    ):
        _ruff(package, *command)
    _load(package, operations)


def python_name(name: str) -> str:
    """Returns what the generated code calls a property or parameter."""
    return PythonIdentifier(name, "field_")


def _check_names(document: dict[str, Any], package: Path, name: str) -> None:
    """Refuses properties and parameters with names that the generated code needs for itself."""
    # Reading an enum is a function of that name.
    taken = _NAMES_OF_MODELS | {f"check_{path.stem}" for path in (package / "models").glob("*.py")}
    parts = {
        "#/paths": document["paths"],
        **{f"#/components/schemas/{k}": v for k, v in document["components"]["schemas"].items()},
    }
    found = [
        (at, key, taken) for start, part in parts.items() for at, key in _properties(part, start)
    ]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            at = f"{method.upper()} {path}: parameter"
            found += [
                (f"{at} {parameter['name']}", parameter["name"], _NAMES_OF_ENDPOINTS)
                for parameter in operation["parameters"]
            ]
    for at, key, names in found:
        if python_name(key) in names:
            raise RegenerationError(f"{name}: {at}: the generated code needs this name for itself")


def _properties(node: object, at: str, *, named: bool = False) -> Iterator[tuple[str, str]]:
    """The properties of a schema and of those inside it, each with its place."""
    children: Iterable[tuple[object, object]] = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, value in children:
        place = f"{at}/{escape(key)}"
        if named:
            yield place, str(key)
        yield from _properties(value, place, named=key == "properties" and not named)


def _parse(package: Path) -> None:
    for module in sorted(package.rglob("*.py")):
        try:
            compile(module.read_bytes(), module.name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise RegenerationError(
                f"{module.relative_to(package.parent)}: the generator wrote Python that does not "
                f"parse: {error}; the description needs a correction"
            ) from error


def _load(package: Path, operations: Operations) -> None:
    """Imports what our code is made of: every operation by its name, with every model."""
    tag = PythonIdentifier(operations.tag, "tag")
    named = [
        f"{package.name}.api.{tag}.{PythonIdentifier(each.name, 'field_')}"
        for each in operations.client
    ]
    done = subprocess.run(
        # Apart from this process, which may have imported another such package.
        [sys.executable, "-I", "-c", _LOADING, str(package.parent), package.name, *named],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise RegenerationError(
            "the generated package does not load, or lacks an operation that "
            f"openapi/operations.yaml names: {said[-1]}"
        )


def _ruff(package: Path, *command: str) -> None:
    done = subprocess.run(
        [
            find_ruff_bin(),
            *command,
            "--isolated",
            "--no-cache",
            "--no-respect-gitignore",
            "--quiet",
            "--target-version=py311",
            "--line-length=100",
            ".",
        ],
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("RUFF_")},
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RegenerationError(f"ruff {command[0]} fails on the generated package: {said[0]}")
