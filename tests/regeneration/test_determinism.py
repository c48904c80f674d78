"""The same description gives the same bytes, wherever and however the pipeline runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def plain(make_session_project, describe):
    """A project that was regenerated from 2.17, to look at."""
    project = make_session_project("plain")
    assert project.run(describe("2.17")).code == 0
    return project


def _parts(project):
    return {
        name: data
        for name, data in project.files().items()
        if data is not None and name.startswith(("openapi/", "generated/"))
    }


def _in_a_process(project, sources, *arguments, cwd=None, **environment):
    return subprocess.run(
        [
            sys.executable,
            str(sources.root / "scripts" / "regenerate.py"),
            "--project",
            str(project.root),
            *map(str, arguments),
        ],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("named", [[], ["generated/../openapi/upstream.yaml"]])
def test_from_the_committed_slice_nothing_changes_by_whatever_path(project, named):
    before = project.files()

    outcome = project.run(*(project.root / path for path in named))

    assert (outcome.code, outcome.out, outcome.err) == (0, "Nothing changed.\n", "")
    assert project.files() == before


def test_twice_gives_identical_bytes(plain, make_project, describe):
    project = make_project(like=plain.root)
    first = project.files()
    assert project.run(describe("2.17")).out == "Nothing changed.\n"
    assert project.files() == first
    assert project.run().out == "Nothing changed.\n"
    assert project.files() == first


def test_there_and_back_gives_identical_bytes(plain, make_project, describe):
    project = make_project(like=plain.root)
    first = project.files()
    project.run(describe("2.9"))
    assert project.files() != first
    project.run(describe("2.17"))
    assert project.files() == first


def test_yaml_and_json_give_the_same(project, make_project, describe):
    other = make_project("other")
    description = describe("2.17")
    # A level to be kept, a number of each kind, and text that YAML folds.
    description["components"]["schemas"]["data_event"]["properties"]["size"] = {
        "type": "number",
        "minimum": 1.5,
        "maximum": 10**20,
    }

    assert project.run(project.write(description, "description.yaml")).code == 0
    assert other.run(other.write(description, "description.json")).code == 0

    yaml, json = _parts(project), _parts(other)
    assert yaml.keys() == json.keys()
    differing = {name for name in yaml if yaml[name] != json[name]}
    assert differing == {"openapi/upstream.yaml", "openapi/data-events.yaml"}
    for name in differing:
        lines = zip(yaml[name].splitlines(), json[name].splitlines(), strict=True)
        assert all(one.lstrip().startswith(b"sha256: ") for one, another in lines if one != another)


def test_yaml_with_anchors_gives_what_it_gives_without(project, plain, describe):
    description = describe("2.17")
    responses = description["paths"]["/events"]["get"]["responses"]
    shared = responses["401"]
    for path in ("/events", "/events/summaries"):
        description["paths"][path]["post"]["responses"]["401"] = shared
    text = project.write(description).read_text(encoding="utf-8")
    assert "&id001" in text

    project.run(project.write(text, "anchors.yaml"))

    assert project.generated() == plain.generated()


def test_the_order_of_hashes_does_not_matter(project, make_project, describe, sources):
    other = make_project("other")
    path = project.write(describe("2.17"))

    for each, seed in ((project, "1"), (other, "2")):
        done = _in_a_process(each, sources, path, PYTHONHASHSEED=seed)
        assert (done.returncode, done.stderr) == (0, "")

    assert _parts(project) == _parts(other)


def test_settings_of_the_user_and_of_the_place_do_not_matter(
    plain, make_project, describe, sources, tmp_path
):
    # A name that ruff leaves out by itself, below settings and ignored files that are not ours.
    (tmp_path / "home" / ".config" / "git").mkdir(parents=True)
    (tmp_path / "home" / ".config" / "ruff").mkdir()
    settings = 'line-length = 40\nindent-width = 2\n[format]\nquote-style = "single"\n'
    (tmp_path / "home" / ".config" / "ruff" / "ruff.toml").write_text(settings, "utf-8")
    (tmp_path / "home" / ".config" / "git" / "ignore").write_text("*.py\n", "utf-8")
    (tmp_path / "ruff.toml").write_text(settings, encoding="utf-8")
    (tmp_path / ".gitignore").write_text("*\n", encoding="utf-8")
    (tmp_path / ".git").mkdir()
    other = make_project("build")
    path = other.write(describe("2.17"))
    (other.root / "ruff.toml").write_text(settings, encoding="utf-8")
    (other.root / ".gitignore").write_text(".regenerate-*\n*.py\n", encoding="utf-8")

    done = _in_a_process(
        other,
        sources,
        path,
        cwd=other.root,
        HOME=str(tmp_path / "home"),
        XDG_CONFIG_HOME=str(tmp_path / "home" / ".config"),
        RUFF_OUTPUT_FORMAT="nonsense",
        LC_ALL="C",
        TZ="Asia/Kathmandu",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert plain.generated() == other.generated()


def test_nothing_of_this_machine_is_in_what_is_written(plain):
    for data in _parts(plain).values():
        for word in (str(plain.root.parent), os.path.expanduser("~"), ".regenerate-"):  # noqa: PTH111
            assert word.encode() not in data


def test_versions_are_listed_as_text_not_as_numbers(plain):
    code = "known = models.IntercomVersion.__args__; print(known.count('2.1'), known.count('2.10'))"
    assert plain.imports(code).out == "1 1\n"
