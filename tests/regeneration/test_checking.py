"""`--check` names every file that is not what the pipeline gives, and writes nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest


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


def test_a_clean_project_passes_and_nothing_is_made_in_it_not_even_for_a_moment(project):
    modified = project.root.stat().st_mtime_ns

    outcome = project.run("--check")

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("No drift")
    assert project.root.stat().st_mtime_ns == modified


def test_each_file_that_is_not_what_it_should_be_is_named_in_order(project):
    package = "generated/intercom_data_events_api"
    changes = [
        (_create, "generated/another_package/__init__.py", "extra"),
        (_link_a_folder, f"{package}/again", "extra"),
        (_tamper, f"{package}/client.py", "differs"),
        (_remove, f"{package}/errors.py", "missing"),
        (_link, f"{package}/models/data_event.py", "differs"),
        (_create, f"{package}/notes.txt", "extra"),
        (_remove, f"{package}/py.typed", "missing"),
        (_tamper, "openapi/data-events.yaml", "differs"),
        (_tamper, "openapi/upstream.yaml", "differs"),
    ]
    for change, name, _ in changes:
        change(project.root / name)
    before = project.files()

    outcome = project.run("--check")

    assert outcome.code == 1
    *lines, last = outcome.err.splitlines()
    assert lines == [f"{said}: {name}" for _, name, said in changes]
    assert last.startswith("regenerate: ")
    assert project.files() == before


def test_files_that_are_not_there_at_all_are_named_one_by_one(project):
    names = sorted([*project.generated(), "openapi/data-events.yaml"])
    shutil.rmtree(project.root / "generated")
    _remove(project.root / "openapi" / "data-events.yaml")

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


def test_what_an_import_leaves_behind_is_no_drift_nor_an_empty_folder_which_git_does_not_keep(
    project,
):
    environment = {**os.environ, "PYTHONPATH": str(project.root / "generated")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(
        [sys.executable, "-c", "import intercom_data_events_api.models"],
        env=environment,
        check=True,
    )
    assert (project.package / "__pycache__").is_dir()
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
