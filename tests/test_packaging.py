"""What is installed: both packages, typed, with the dependencies that were promised."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import distribution
from itertools import chain
from pathlib import Path

import pytest

import intercom_data_events
import intercom_data_events_api

PROJECT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def test_both_packages_are_typed():
    for package in (intercom_data_events, intercom_data_events_api):
        assert Path(package.__path__[0], "py.typed").exists()


def test_the_installed_version_is_that_of_the_source():
    assert distribution("intercom-data-events").version == intercom_data_events.__version__


def test_four_packages_are_needed_at_run_time_and_no_more():
    required = distribution("intercom-data-events").requires or []

    assert {re.split(r"[<>=!~; \[]", need)[0] for need in required if "extra ==" not in need} == {
        "anyio",
        "attrs",
        "httpx",
        "python-dateutil",
    }


def test_every_dependency_names_the_lowest_version_that_the_wheel_is_tested_with():
    project = PYPROJECT["project"]
    for needs in (project["dependencies"], *project["optional-dependencies"].values()):
        for need in needs:
            assert re.fullmatch(r"[a-z][a-z0-9-]*(\[[a-z]+\])?>=[\d.]+(,<\d+)?", need)


def test_the_pytest_fixtures_are_announced():
    (plugin,) = distribution("intercom-data-events").entry_points.select(group="pytest11")

    assert plugin.load().intercom_emulator


@pytest.mark.parametrize(
    ("group", "file", "makers"),
    [
        ("generate", "requirements.txt", {"openapi-python-client", "ruff"}),
        ("build", "build-requirements.txt", {"build", "hatchling", "twine"}),
        ("release", "release-requirements.txt", {"cyclonedx-bom", "nox", "uv"}),
    ],
)
def test_what_makes_committed_or_published_bytes_is_pinned_and_locked(group, file, makers):
    pins = PYPROJECT["dependency-groups"][group]
    locked = (PROJECT / "scripts" / file).read_text(encoding="utf-8")

    assert makers <= {pin.split("==")[0] for pin in pins}
    for pin in pins:
        assert re.fullmatch(r"[a-z-]+==[\d.]+", pin)
        assert f"\n{pin}" in f"\n{locked}"
    for line in locked.splitlines():
        assert line.startswith("    --hash=sha256:") or re.match(r"[a-z0-9-]+==\S+", line)


def test_a_package_has_one_pin_wherever_it_is_pinned():
    ci = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    pins = [
        *PYPROJECT["build-system"]["requires"],
        *chain(*PYPROJECT["dependency-groups"].values()),
        *re.findall(r"[a-z]+==[\d.]+", ci),
    ]
    versions = {}
    for pin in pins:
        name, equal, version = pin.partition("==")
        if equal and ";" not in version:
            versions.setdefault(name, []).append(version)
    several = {name: found for name, found in versions.items() if len(found) > 1}

    assert {name: found for name, found in several.items() if len(set(found)) > 1} == {}
    assert several.keys() >= {"hatchling", "nox", "uv"}
    assert len(several["hatchling"]) == 3


def test_one_environment_can_have_both_locks_of_a_release():
    build, release = (
        dict(
            re.findall(
                r"^([a-z0-9-]+)==(\S+)", (PROJECT / "scripts" / name).read_text(), re.MULTILINE
            )
        )
        for name in ("build-requirements.txt", "release-requirements.txt")
    )
    shared = build.keys() & release.keys()

    assert shared
    assert {name: build[name] for name in shared} == {name: release[name] for name in shared}


def test_all_that_the_package_does_not_depend_on_is_pinned():
    project = PYPROJECT["project"]
    needs = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    ranges = {re.split(r"[<>=;\[]", need)[0] for need in needs}
    # They require one version of what the package depends on; Celery's transport is its own.
    ranges |= {"kombu", "opentelemetry-instrumentation-httpx", "opentelemetry-sdk"}

    for name, group in PYPROJECT["dependency-groups"].items():
        for need in group:
            pin = re.fullmatch(r"([a-z0-9-]+)(\[[a-z]+\])?==[^<>;]+(; .+)?", need)
            assert pin or re.split(r"[<>=;\[]", need)[0] in ranges, f"{name}: {need}"


def test_ci_pins_what_runs_the_sessions():
    ci = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    (installed,) = re.findall(r"nox/bin/pip\" install --quiet (.+)", ci)

    assert re.fullmatch(r"nox==[\d.]+ uv==[\d.]+", installed)


def test_every_python_of_the_metadata_is_at_least_the_required_one():
    lowest = re.fullmatch(r">=3\.(\d+)", PYPROJECT["project"]["requires-python"])
    minors = [
        int(found[1])
        for classifier in PYPROJECT["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", classifier))
    ]

    assert lowest is not None
    assert min(minors) == int(lowest[1])


def policy():
    """The rows of the support policy: what is supported, and how."""
    page = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")
    section = page.partition("\n## Supported versions\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE))


def classified(beginning):
    classifiers = PYPROJECT["project"]["classifiers"]
    return {each.removeprefix(beginning) for each in classifiers if each.startswith(beginning)}


def test_the_pythons_of_the_support_policy_are_those_of_the_metadata():
    named = policy()["Python"].partition(";")[0]
    versions = {each for each in classified("Programming Language :: Python :: ") if "." in each}

    assert set(re.findall(r"\d+\.\d+", named)) == versions
    assert classified("Programming Language :: Python :: Implementation :: ") == {"CPython"}


def test_what_the_support_policy_calls_untested_has_no_classifier():
    untested = {name for name, said in policy().items() if said.startswith("untested")}

    assert untested == {"macOS", "Windows", "free-threaded Python, PyPy"}
    assert policy()["Linux"] == "tested"
    assert classified("Operating System :: ") == {"POSIX :: Linux"}
    assert classified("Programming Language :: Python :: Free Threading") == set()


def test_the_support_policy_names_the_bounds_of_the_dependencies():
    project = PYPROJECT["project"]
    needs = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]

    assert set(re.findall(r"`([a-z0-9]+<\d+)`", policy()["dependencies"])) == {
        re.sub(r">=.*,", "", need) for need in needs if ",<" in need
    }


def test_ci_runs_the_front_pages_test_command():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    ci = (PROJECT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line for line in readme.splitlines() if line.endswith("nox -s tests")]

    assert len(commands) == 1
    assert commands[0] in ci


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "noxfile.py",
        "openapi/upstream.yaml",
    ],
)
def test_the_project_has_what_its_readme_speaks_of(name):
    assert (PROJECT / name).stat().st_size > 200


def test_the_tests_that_the_sessions_name_are_there():
    sessions = ast.parse((PROJECT / "noxfile.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(sessions) if isinstance(node, ast.Constant)]
    named = [text.split("::") for text in texts if re.match(r"tests/\S+\.py(::|$)", str(text))]

    assert len(named) > 10
    for path, *function in named:
        source = (PROJECT / path).read_text(encoding="utf-8")
        assert all(f"\ndef {name}(" in source for name in function), (path, function)


def test_what_security_says_is_tested_somewhere():
    said = (PROJECT / "SECURITY.md").read_text(encoding="utf-8")

    for path in re.findall(r"`(tests/[^`]+)`", said):
        assert (PROJECT / path).exists(), path


def test_the_changelog_has_a_section_for_this_version():
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert f"## {intercom_data_events.__version__}" in changelog
