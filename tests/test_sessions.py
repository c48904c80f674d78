"""The table of sessions in tests/README.md has every session of the noxfile."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.once


def sessions():
    """The names that `nox -s` takes."""
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "nox.session":
                options = {one.arg: one.value for one in decorator.keywords}
                yield options["name"].value if "name" in options else node.name


def test_the_guide_lists_each_session():
    listed = set(
        re.findall(r"`nox -s ([a-z-]+)`", (ROOT / "tests" / "README.md").read_text("utf-8"))
    )

    found = set(sessions())

    assert {"tests", "api-diff", "celery-load"} <= found
    assert found - listed == set()
