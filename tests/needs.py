"""Tools that tests and benchmark use and a machine may lack: how to find each, what brings it.

A test or a fixture calls :func:`require`. As a program, `python3 tests/needs.py` prints the Debian
packages that are missing here, for `.ci/run` to install.
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
        is_there: Looks for it.
        remedy: What brings it, as an order.
        package: The Debian package that brings it, where one does.
    """

    is_there: Callable[[], bool]
    remedy: str
    package: str | None = None


def _program(name: str, package: str) -> Tool:
    return Tool(lambda: shutil.which(name) is not None, f"install Debian's {package}", package)


def _module(name: str) -> Tool:
    return Tool(lambda: importlib.util.find_spec(name) is not None, "run nox -s conformance")


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
    # npm's; the session says where it has put it.
    "prism": Tool(lambda: bool(os.environ.get("CONFORMANCE_PACKAGES")), "run nox -s conformance"),
    "redis-server": _program("redis-server", "redis-server"),
    "schemathesis": _module("schemathesis"),
    "sh": _program("sh", "dash"),
    "valgrind": _program("valgrind", "valgrind"),
}


def require(*names: str) -> None:
    """Ends a test where a tool is missing: skips it, or fails it where CI is set.

    Args:
        names: Tools of :data:`TOOLS`.
    """
    # Skips are listed by the line that calls this.
    __tracebackhide__ = True
    # As a program, this file runs with a Python that has no pytest.
    import pytest

    missing = [name for name in names if not TOOLS[name].is_there()]
    reason = "; ".join(f"{name} is missing: {TOOLS[name].remedy}" for name in missing)
    if missing and os.environ.get("CI"):
        pytest.fail(f"{reason} (CI is set, so this is not skipped)", pytrace=False)
    if missing:
        pytest.skip(reason)


def _missing_packages() -> list[str]:
    return sorted(
        tool.package for tool in TOOLS.values() if tool.package is not None and not tool.is_there()
    )


if __name__ == "__main__":
    print(*_missing_packages())  # noqa: T201  # it is what a program is for
