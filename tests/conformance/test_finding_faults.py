"""Each tool tells of a fault where there is one; `nox -s conformance` runs these with the tools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import conform
from intercom_data_events.emulator import _endpoints
from needs import require
from tools import with_official_sdk, with_openapi_core, with_prism, with_schemathesis
from tools.reporting import Report
from tools.scenarios import SCENARIOS

DESCRIPTION = Path(__file__).parent.parent.parent / "openapi" / "data-events.yaml"


def of_schemathesis(description: Path) -> Report:
    require("schemathesis")
    return with_schemathesis.run(description, seed=1, examples=10, phases=("examples", "fuzzing"))


def of_prism(description: Path) -> Report:
    require("node", "npm", "prism")
    return with_prism.run(description, Path(os.environ["CONFORMANCE_PACKAGES"]))


def of_the_official_sdk(_: Path) -> Report:
    require("intercom")
    return with_official_sdk.run()


def of_openapi_core(description: Path) -> Report:
    require("openapi_core")
    return with_openapi_core.run(description)


@pytest.fixture(autouse=True)
def _one_kind_of_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for tool in (with_prism, with_openapi_core):
        monkeypatch.setattr(tool, "KINDS", ("blocking",))


@pytest.mark.parametrize(
    "report_of", [of_schemathesis, of_prism, of_the_official_sdk, of_openapi_core]
)
def test_a_field_of_another_type_in_an_answer_is_found(monkeypatch, report_of):
    written = _endpoints._item
    monkeypatch.setattr(
        _endpoints,
        "_item",
        lambda event: {**written(event), "created_at": str(event.created_at)},
    )

    violations = report_of(DESCRIPTION).violations

    assert any("created_at" in violation or "when" in violation for violation in violations)


@pytest.mark.parametrize("report_of", [of_schemathesis, of_prism, of_openapi_core])
def test_a_request_that_the_description_does_not_have_is_found(tmp_path, report_of):
    described = DESCRIPTION.read_text(encoding="utf-8")
    other = tmp_path / "data-events.yaml"
    wanted = "required:\n        - event_name\n        - created_at\n      not:"
    assert wanted in described
    other.write_text(described.replace(wanted, wanted.replace("created_at", "color")), "utf-8")

    assert report_of(other).violations


def test_a_report_counts_and_lists():
    report = Report("Tool 1.0", compared=["7 requests"], violations=["one\nand more of it", "two"])

    assert report.text(2.4).splitlines() == [
        "Tool 1.0: 2 violations (2 s)",
        "  7 requests",
        "  1. one",
        "     and more of it",
        "  2. two",
    ]


def test_prism_is_skipped_where_there_is_no_node(monkeypatch):
    monkeypatch.setenv("PATH", "")

    report = with_prism.run(DESCRIPTION, None)

    assert report.skipped is not None
    assert "skipped: it requires Node 18 or newer, and npm; install both" in report.text(0)


def test_schemathesis_that_does_not_end_is_a_violation(monkeypatch):
    monkeypatch.setattr(with_schemathesis, "_SECONDS", 0.1)

    (violation,) = of_schemathesis(DESCRIPTION).violations

    assert violation.startswith("Schemathesis did not end within 0.1 s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--description", "nonexistent"], "--description must be a file, not nonexistent"),
        (["--examples", "0"], "--examples must be at least 1, not 0"),
        (["--seed", "-1"], "--seed must be at least 0, not -1"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(capsys, arguments, said):
    with pytest.raises(SystemExit, match="2"):
        conform.main(arguments)

    assert said in capsys.readouterr().err


def test_a_package_that_is_not_there_is_named_before_anything_runs(monkeypatch, capsys):
    monkeypatch.setitem(conform.PACKAGES, "official-sdk", ["not-there"])

    with pytest.raises(SystemExit, match="2"):
        conform.main(["--only", "official-sdk"])

    assert "not-there must be installed; run: nox -s conformance" in capsys.readouterr().err


def test_scenarios_are_told_apart_by_their_names():
    names = [scenario.name for scenario in SCENARIOS]

    assert len(set(names)) == len(names)
