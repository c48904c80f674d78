"""`--check` names every file that is not what the pipeline gives, and writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

INTERPRETED = "generated/intercom_data_events_api/models/data_event.py"


def _tamper(path):
    path.write_bytes(path.read_bytes() + b"# more\n")


def _remove(path):
    path.unlink()


def _create(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"pass\n")


def _link(path):
    elsewhere = path.parent.parent.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _link_a_folder(path):
    path.symlink_to(path.parent)


def test_a_clean_project_passes(project):
    outcome = project.run("--check")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("No drift")


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (_tamper, INTERPRETED, "differs"),
        (_remove, INTERPRETED, "missing"),
        (_remove, "generated/intercom_data_events_api/py.typed", "missing"),
        (_create, "generated/intercom_data_events_api/notes.txt", "extra"),
        (_create, "generated/another_package/__init__.py", "extra"),
        (_link, INTERPRETED, "differs"),
        (_link_a_folder, "generated/intercom_data_events_api/again", "extra"),
        (_tamper, "openapi/data-events.yaml", "differs"),
        (_remove, "openapi/data-events.yaml", "missing"),
        (_tamper, "openapi/upstream.yaml", "differs"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(project, change, name, said):
    change(project.root / name)
    before = project.files()

    outcome = project.run("--check")

    assert outcome.code == 1
    first, *more = outcome.err.splitlines()
    assert first == f"{said}: {name}"
    assert len(more) == 1
    assert more[0].startswith("regenerate: ")
    assert project.files() == before


def test_all_of_them_are_named_in_order(project):
    _create(project.package / "zebra.py")
    _remove(project.package / "errors.py")
    _tamper(project.root / "openapi" / "data-events.yaml")

    outcome = project.run("--check")

    assert outcome.err.splitlines()[:3] == [
        "missing: generated/intercom_data_events_api/errors.py",
        "extra: generated/intercom_data_events_api/zebra.py",
        "differs: openapi/data-events.yaml",
    ]


def test_a_package_that_is_not_there_at_all_is_named_file_by_file(project):
    names = sorted(project.generated())
    shutil.rmtree(project.root / "generated")

    outcome = project.run("--check")

    assert outcome.code == 1
    assert outcome.err.splitlines()[:-1] == [f"missing: {name}" for name in names]


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        # What the corrections level, and what comes through; a record; a file without any.
        ("operationId: lisDataEvents", "operationId: anotherName"),
        ("type: string\n          enum:\n            - event.list", "type: string"),
        ("        - '2.16'\n", "        - '2.16'\n        - '2.99'\n"),
        ("    sha256: ", "    sha256: 0"),
        ("  x-source:", "  x-other:"),
    ],
    ids=["a levelled name", "a levelled enum", "a version", "the source", "no record"],
)
def test_a_slice_that_was_edited_is_named(project, refused, said, instead):
    slice_ = project.root / "openapi" / "upstream.yaml"
    text = slice_.read_text(encoding="utf-8")
    assert said in text
    slice_.write_text(text.replace(said, instead, 1), encoding="utf-8")
    before = project.files()

    refused(project.run("--check"), str(slice_), "#/info/x-source", "full description")
    refused(project.run(), str(slice_), "#/info/x-source", "full description")

    assert project.files() == before


def test_a_slice_that_was_edited_is_mended_by_a_full_description(project, describe):
    slice_ = project.root / "openapi" / "upstream.yaml"
    slice_.write_text("[", encoding="utf-8")

    assert project.run(describe("2.17")).code == 0

    assert project.run("--check").code == 0


def test_what_an_import_leaves_behind_is_no_drift(project):
    environment = {**os.environ, "PYTHONPATH": str(project.root / "generated")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(
        [sys.executable, "-c", "import intercom_data_events_api.models"],
        env=environment,
        check=True,
    )
    assert (project.package / "__pycache__").is_dir()

    assert project.run("--check").code == 0


def test_an_empty_folder_is_no_drift_since_git_does_not_keep_it(project):
    (project.package / "empty").mkdir()

    assert project.run("--check").code == 0


def test_a_description_can_be_checked_against_what_is_committed(project, describe):
    before = project.files()

    outcome = project.run("--check", describe("2.17"))

    assert outcome.code == 1
    assert outcome.err.splitlines()[:-1] == [
        "differs: generated/intercom_data_events_api/__init__.py",
        "differs: generated/intercom_data_events_api/models/intercom_version.py",
        "differs: openapi/data-events.yaml",
        "differs: openapi/upstream.yaml",
    ]
    assert project.files() == before


def test_a_check_makes_nothing_in_the_project_not_even_for_a_moment(project):
    modified = project.root.stat().st_mtime_ns

    assert project.run("--check").code == 0

    assert project.root.stat().st_mtime_ns == modified
