"""The tools that tests and the benchmark need, and how to install each.

Tests and fixtures call :func:`require`. `python3 tests/needs.py` prints the Debian packages that
this machine lacks, for CI to install.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """A tool that a test may need.

    Attributes:
        is_there: Whether this machine has it.
        remedy: The instruction that is shown if it is missing.
        package: The Debian package that contains it, if there is one.
    """

    is_there: Callable[[], bool]
    remedy: str
    package: str | None = None


def in_ci() -> bool:
    """Returns whether the environment says that this is CI."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false", "no"}


def _program(name: str, package: str) -> Tool:
    return Tool(lambda: shutil.which(name) is not None, f"install Debian's {package}", package)


def _module(name: str) -> Tool:
    return Tool(lambda: importlib.util.find_spec(name) is not None, "run: nox -s conformance")


TOOLS = {
    "cat": _program("cat", "coreutils"),
    "cc": _program("cc", "build-essential"),
    "git": _program("git", "git"),
    "gzip": _program("gzip", "gzip"),
    "intercom": _module("intercom"),
    "nginx": _program("nginx", "nginx"),
    "node": _program("node", "nodejs"),
    "npm": _program("npm", "npm"),
    "openapi_core": _module("openapi_core"),
    # An npm package; the session says where it has installed it.
    "prism": Tool(lambda: bool(os.environ.get("CONFORMANCE_PACKAGES")), "run: nox -s conformance"),
    "redis-server": _program("redis-server", "redis-server"),
    "schemathesis": _module("schemathesis"),
    "sh": _program("sh", "dash"),
    "valgrind": _program("valgrind", "valgrind"),
}


def require(*names: str) -> None:
    """Skips the calling test if a tool is missing; fails it if CI is set in the environment.

    Args:
        names: Tools of :data:`TOOLS`.
    """
    # pytest then lists the skip with the line of the caller.
    __tracebackhide__ = True
    # Imported here, because CI runs this file before it installs pytest.
    import pytest

    missing = [name for name in names if not TOOLS[name].is_there()]
    reason = "; ".join(f"{name} is missing: {TOOLS[name].remedy}" for name in missing)
    if missing and in_ci():
        pytest.fail(f"{reason} (CI is set, so this is not skipped)", pytrace=False)
    if missing:
        pytest.skip(reason)


def _missing_packages() -> list[str]:
    return sorted(
        tool.package for tool in TOOLS.values() if tool.package is not None and not tool.is_there()
    )


if __name__ == "__main__":
    print(*_missing_packages())  # noqa: T201  # a program's output
