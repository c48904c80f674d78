"""The pipeline on Intercom's own descriptions, where they lie beside the project."""

from __future__ import annotations

import json

import pytest
from steps import correct, slice_of

from regeneration.document import read

#: What the descriptions differ in from that of 2.16, beside their versions.
_DIFFERENCES = {
    "2.11": {
        "GET /events: new query parameter `per_page`, integer": "levelled",
        "data_event_list: fields `type`, `events` are required now": "read tolerantly",
        (
            "data_event_summary: fields `type`, `email`, `intercom_user_id`, `user_id`, `events` "
            "are required now"
        ): "read tolerantly",
        "data_event_summary_item can no longer be null": "read tolerantly",
        (
            "data_event_summary_item: fields `name`, `first`, `last`, `count` are required now"
        ): "read tolerantly",
    },
    "Preview": {
        "create_data_event_request.metadata.*: string → anything": "levelled",
        "data_event.metadata.*: string → anything": "read tolerantly",
    },
}


@pytest.fixture
def upstream(sources):
    if not sources.upstream.is_dir():
        pytest.skip(
            f"Intercom's own descriptions, which are not part of this repository, are not in "
            f"{sources.upstream}"
        )
    return sources.upstream


def test_2_16_changes_nothing(project, upstream):
    before = project.files()

    outcome = project.run(upstream / "intercom-2.16.yaml")

    assert (outcome.code, outcome.out, outcome.err) == (0, "Nothing changed.\n", "")
    assert project.files() == before


def test_2_14_changes_only_the_versions_and_says_so(project, upstream):
    before = project.files()

    outcome = project.run(upstream / "intercom-2.14.yaml")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[:6] == [
        "Nothing that callers use changed, except the default version (now 2.14).",
        "",
        "Python: no name and no signature changed.",
        "",
        "Versions: no longer listed: 2.15, 2.16.",
        "Default Intercom-Version: 2.14 (before: 2.16).",
    ]
    after = project.files()
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "openapi/upstream.yaml",
        "openapi/data-events.yaml",
        "generated/intercom_data_events_api/__init__.py",
        "generated/intercom_data_events_api/models/intercom_version.py",
    }
    assert project.imports("print(package.API_VERSION)").out == "2.14\n"
    assert project.run("--check").code == 0


@pytest.mark.parametrize(
    "version", ["2.7", "2.8", "2.9", "2.10", "2.11", "2.12", "2.13", "2.15", "Preview"]
)
def test_a_published_description_needs_no_decision_and_nothing_of_it_is_denied(
    project, upstream, version
):
    outcome = project.run("--json", upstream / f"intercom-{version.lower()}.yaml")

    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert report["verdict"] == (
        f"Nothing that callers use changed, except the default version (now {version})."
    )
    assert report["look"] == report["breaks"] == report["python"] == []
    assert report["versions"]["default"] == {"before": "2.16", "after": version}
    assert {
        each["words"]: each["effect"]
        for each in report["changes"]
        if each["pointer"] != "#/info/version" and "/intercom_version/" not in each["pointer"]
    } == _DIFFERENCES.get(version, {})


@pytest.mark.parametrize("version", [*(f"2.{minor}" for minor in range(7, 17)), "preview"])
def test_the_corrections_were_written_against_every_version(upstream, version):
    description = read(str(upstream / f"intercom-{version}.yaml")).content

    assert correct(slice_of(description)).unknown == ()
