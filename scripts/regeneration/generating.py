"""From a corrected description to a formatted Python package."""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path
from typing import Any

from jsonschema.exceptions import best_match
from openapi_python_client import generate as run_generator
from openapi_python_client.config import Config, ConfigFile, MetaType
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator
from ruff import find_ruff_bin

from regeneration import RegenerationError

PACKAGE = "intercom_data_events_api"


def validate(document: dict[str, Any], name: str) -> None:
    """Checks a document against OpenAPI's own rules.

    Raises:
        RegenerationError: It breaks one; names the place.
    """
    validators = {"3.0": OpenAPIV30SpecValidator, "3.1": OpenAPIV31SpecValidator}
    errors = list(validators[document["openapi"][:3]](document).iter_errors())
    if errors:
        error = best_match(errors)
        place = "/".join(
            str(part).replace("~", "~0").replace("/", "~1") for part in error.absolute_path
        )
        raise RegenerationError(f"{name}: #/{place}: not valid OpenAPI: {error.message[:300]}")


def generate(description: Path, settings: Path, templates: Path, root: Path) -> None:
    """Writes the package for a description below `root`, formatted.

    Raises:
        RegenerationError: The generator or the formatter complains, or leaves something out.
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
    with contextlib.redirect_stdout(io.StringIO()):
        complaints = run_generator(config=config, custom_template_path=templates)
    if complaints:
        # Warnings too: to the generator, an operation that it leaves out is a warning.
        said = "; ".join(
            " ".join(f"{complaint.header} {complaint.detail or ''}".split())
            for complaint in complaints
        )
        raise RegenerationError(f"{description.name}: openapi-python-client: {said}")
    # `--meta none` writes none; type checkers look for it.
    (package / "py.typed").touch()
    _parse(package)
    # Never our own settings, nor the user's: same input, same bytes.
    for command in (
        ("check", "--fix-only", "--extend-select", "I"),
        ("format",),
    ):
        _ruff(package, *command)
    # The formatter leaves its cache out with --no-cache; nothing else may be here but Python.


def _parse(package: Path) -> None:
    for module in sorted(package.rglob("*.py")):
        try:
            compile(module.read_bytes(), module.name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise RegenerationError(
                f"{module.relative_to(package.parent)}: the generator wrote Python that does not "
                f"parse: {error}; the description needs a correction"
            ) from error


def _ruff(package: Path, *command: str) -> None:
    done = subprocess.run(
        [
            find_ruff_bin(),
            *command,
            "--isolated",
            "--no-cache",
            "--quiet",
            "--target-version=py311",
            "--line-length=100",
            ".",
        ],
        cwd=package,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise RegenerationError(f"ruff {command[0]} fails on the generated package: {said[0]}")
