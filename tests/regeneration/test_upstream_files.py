"""The pipeline on Intercom's own descriptions, where they lie beside the project."""

from __future__ import annotations

import pytest

from regeneration import correcting
from regeneration.document import read
from regeneration.operations import read_operations
from regeneration.slicing import slice_description


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
    assert outcome.out.splitlines() == [
        "Versions:",
        "  - accepted: 2.15",
        "  - accepted: 2.16",
        "  - described: 2.16",
        "  + described: 2.14",
        "Only the versions changed.",
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


@pytest.mark.parametrize("version", [*(f"2.{minor}" for minor in range(7, 17)), "preview"])
def test_the_corrections_were_written_against_every_version(upstream, sources, version):
    openapi = sources.root / "openapi"
    operations = read_operations(read(str(openapi / "operations.yaml")))
    corrections = read(str(openapi / "corrections.yaml"))
    sliced = slice_description(
        read(str(upstream / f"intercom-{version}.yaml")),
        operations.client,
        correcting.referenced_schemas(corrections),
    )

    assert correcting.correct(sliced, corrections, operations).unknown == ()
