"""A test whose tool is missing is skipped with the remedy; with CI set, it fails with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from needs import TOOLS

pytest_plugins = ["pytester"]
pytestmark = [pytest.mark.costly, pytest.mark.processes]

TESTS = Path(__file__).parent
SUITE = """
import pytest
from needs import require

@pytest.fixture
def revisions():
    require("git")

def test_by_a_fixture(revisions):
    pass

def test_of_its_own():
    require("gzip", "redis-server")
"""
REASON = "redis-server is missing: install Debian's redis-server"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a PATH of these programs and no others."""

    def make(*programs: str) -> None:
        folder = tmp_path / "programs"
        folder.mkdir()
        for program in programs:
            (folder / program).touch(mode=0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


@pytest.fixture
def run_suite(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    # The others have nothing to do with it, and take long to load.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(SUITE)
    return lambda *arguments: pytester.runpytest_subprocess("-ra", *arguments)


WORKERS = ("-p", "xdist", "--numprocesses=2")


@pytest.mark.parametrize(("ci", "workers"), [(None, ()), ("", WORKERS)])
def test_without_ci_it_is_skipped_and_listed_with_what_brings_the_tool(
    run_suite, install, monkeypatch, ci, workers
):
    install("gzip")
    monkeypatch.delenv("CI", raising=False) if ci is None else monkeypatch.setenv("CI", ci)

    result = run_suite(*workers)

    assert result.ret == 0
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines_random(
        ["SKIPPED *.py:8: git is missing: install Debian's git", f"SKIPPED *.py:12: {REASON}"]
    )


@pytest.mark.parametrize("workers", [(), WORKERS])
def test_with_ci_it_fails_and_says_what_brings_the_tool(run_suite, install, monkeypatch, workers):
    install("gzip")
    monkeypatch.setenv("CI", "true")

    result = run_suite(*workers)

    assert result.ret == 1
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines_random(
        ["ERROR * git is missing: install Debian's git*", f"FAILED *{REASON}*"]
    )


def test_all_that_is_missing_is_named_at_once(run_suite, install, monkeypatch):
    install()
    monkeypatch.setenv("CI", "true")

    result = run_suite("-k", "own")

    result.stdout.fnmatch_lines([f"FAILED *gzip is missing: install Debian's gzip; {REASON}*"])


def test_where_the_tools_are_there_it_runs(run_suite, install, monkeypatch):
    install("git", "gzip", "redis-server")
    monkeypatch.setenv("CI", "true")

    run_suite().assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("programs", "packages"),
    [
        (set(), {tool.package for tool in TOOLS.values()} - {None}),
        ({name for name in TOOLS if name not in {"npm", "redis-server"}}, {"npm", "redis-server"}),
        (set(TOOLS), set()),
    ],
    ids=["of nothing", "of some", "of all"],
)
def test_as_a_program_it_prints_the_packages_that_are_missing(install, programs, packages):
    install(*programs)

    # Without site-packages, as CI runs it before it installs anything.
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(TESTS / "needs.py")],
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(done.stdout.split()) == packages
