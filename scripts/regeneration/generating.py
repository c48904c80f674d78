"""Generates a formatted Python package from a corrected description."""

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
#: Names that generated models use internally: a property of the same name would replace them.
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
#: Names that generated endpoint functions use internally.
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

#: Imports a package with all its modules, and checks that it has the functions that our code calls.
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
    """Checks that a document is valid OpenAPI.

    Raises:
        RegenerationError: The document is invalid. The message names the place.
    """
    validators = {"3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
    try:
        errors = list(validators[document["openapi"][:3]](document).iter_errors())
    except RecursionError as error:
        raise RegenerationError(
            f"{name}: #/components/schemas: the schemas must not refer to each other too deeply"
        ) from error
    if errors:
        # The most specific reason. jsonschema's best_match fails on OpenAPI's own keywords.
        error = errors[0]
        while error.context:
            error = max(error.context, key=lambda reason: len(reason.absolute_path))
        place = "/".join(map(escape, error.absolute_path))
        raise RegenerationError(f"{name}: #/{place}: must be valid OpenAPI: {error.message[:300]}")


def generate(
    description: Path,
    settings: Path,
    templates: Path,
    root: Path,
    operations: Operations,
    name: str,
) -> None:
    """Generates and formats the package for a description, below `root`.

    Args:
        description: The corrected description.
        settings: The settings of openapi-python-client.
        templates: The folder with our templates.
        root: The folder that gets the package.
        operations: The operations that the package must have.
        name: The description's name in messages.

    Raises:
        RegenerationError: The generator or the formatter fails or warns, or the package lacks an
            operation or cannot be imported.
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
    except Exception as error:  # The YAML reader and pydantic document no common base class.
        raise RegenerationError(f"{settings}: cannot be used: {error}") from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            complaints = run_generator(config=config, custom_template_path=templates)
    except Exception as error:  # The generator can raise anything on input that it did not expect.
        raise RegenerationError(
            f"{name}: openapi-python-client failed: {type(error).__name__}: {error}"
        ) from error
    if complaints:
        # Warnings count too: the generator only warns when it leaves out an operation.
        said = "; ".join(
            " ".join(f"{complaint.header} {complaint.detail or ''}".split())
            for complaint in complaints
        )
        # The generator's wrappers of strings print memory addresses, which differ in each run.
        said = re.sub(r"<\S+ object at 0x[0-9a-f]+>", "…", said)
        raise RegenerationError(f"{name}: openapi-python-client reported: {said}")
    _check_names(read(str(description)).content, package, name)
    # The generator does not write it without metadata, and type checkers need it.
    (package / "py.typed").touch()
    _parse(package)
    # Without the settings of the project and the user, and without .gitignore, so that the same
    # input always gives the same bytes.
    for command in (
        ("check", "--fix-only", "--extend-select", "I"),
        ("format",),
    ):
        _ruff(package, *command)
    _load(package, operations)


def python_name(name: str) -> str:
    """Returns the name of a property or parameter in the generated code."""
    return PythonIdentifier(name, "field_")


def _check_names(document: dict[str, Any], package: Path, name: str) -> None:
    """Rejects properties and parameters whose names the generated code uses internally."""
    # A model reads an enum with a function of that name.
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
            raise RegenerationError(
                f"{name}: {at}: the generated code reserves this name; remove it with an action in "
                "openapi/corrections.yaml"
            )


def _properties(node: object, at: str, *, named: bool = False) -> Iterator[tuple[str, str]]:
    """Yields the place and the name of each property of a schema and of the schemas inside it."""
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
                f"{module.relative_to(package.parent)}: the generated Python does not parse: "
                f"{error}; add an action to openapi/corrections.yaml"
            ) from error


def _load(package: Path, operations: Operations) -> None:
    """Imports the package in another process and checks that it has every operation."""
    tag = PythonIdentifier(operations.tag, "tag")
    named = [
        f"{package.name}.api.{tag}.{PythonIdentifier(each.name, 'field_')}"
        for each in operations.client
    ]
    done = subprocess.run(
        # This process may have imported another version of the package.
        [sys.executable, "-I", "-c", _LOADING, str(package.parent), package.name, *named],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise RegenerationError(
            "the generated package must be importable and have every operation of "
            f"openapi/operations.yaml, but: {said[-1]}"
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
        raise RegenerationError(f"ruff {command[0]} failed on the generated package: {said[0]}")
