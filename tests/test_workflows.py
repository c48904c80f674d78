"""What the workflows may do: their permissions, the actions they use, and their shell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / ".github" / "workflows"
if not (PROJECT / ".git").exists():
    pytest.skip("the sdist has no workflows", allow_module_level=True)
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in FOLDER.iterdir()
}
JOBS = {
    f"{name}: {job}": content
    for name, workflow in WORKFLOWS.items()
    for job, content in workflow["jobs"].items()
}
STEPS = [(name, step) for name, job in JOBS.items() for step in job["steps"]]
#: For `permissions`: those of a job, or else of its workflow.
ALLOWED = {
    "ci.yml: checks": {"contents": "read"},
    "release.yml: build": {"contents": "read"},
    "release.yml: publish": {"id-token": "write"},
    "upstream.yml: regenerate": {"contents": "read"},
    "upstream.yml: propose": {"contents": "write", "pull-requests": "write"},
}


def test_each_job_may_do_what_it_needs_and_nothing_else():
    given = {
        f"{name}: {job}": content.get("permissions", workflow["permissions"])
        for name, workflow in WORKFLOWS.items()
        for job, content in workflow["jobs"].items()
    }

    assert given == ALLOWED


def test_each_job_ends():
    assert all(0 < job["timeout-minutes"] <= 120 for job in JOBS.values())


def test_nothing_is_expanded_into_a_shell():
    assert [step["run"] for _, step in STEPS if "${{" in step.get("run", "")] == []


def test_what_is_printed_gives_the_runner_no_commands():
    # A line of a report that begins with "::" or has "##[" would be one.
    printing = [lines for _, step in STEPS if "_update.py" in (lines := step.get("run", ""))]

    assert len(printing) == 2
    for lines in printing:
        assert 'echo "::stop-commands::$(uuidgen)"' in lines.partition("python")[0].splitlines()


def test_a_job_gets_nothing_of_another_but_that_something_changed():
    # Names, places and the token of the workflow: nothing that a description could have chosen.
    constants = {
        "steps.prepare.outputs.changed",
        "github.ref",
        "github.token",
        "runner.temp",
    }
    text = "".join(path.read_text(encoding="utf-8") for path in FOLDER.iterdir())

    assert set(re.findall(r"\$\{\{ *(.*?) *\}\}", text)) == constants


def test_actions_are_of_github_but_for_the_publisher_and_pinned_to_a_commit():
    used = [(name, step["uses"]) for name, step in STEPS if "uses" in step]

    assert [use for _, use in used if not re.fullmatch(r"\S+@[0-9a-f]{40}", use)] == []
    assert {(name, use.partition("@")[0]) for name, use in used if use[:8] != "actions/"} == {
        ("release.yml: publish", "pypa/gh-action-pypi-publish")
    }


def test_an_action_has_one_pin_in_all_workflows():
    text = "".join(path.read_text(encoding="utf-8") for path in FOLDER.iterdir())
    pins = set(re.findall(r"uses: (\S+)@(\S+ # v\S+)", text))

    assert len(pins) == len({action for action, _ in pins})
    assert len(re.findall(r"uses: \S+@\S+ # v\S+", text)) == text.count("uses: ")


def test_no_clone_keeps_the_token():
    clones = {
        name: step for name, step in STEPS if step.get("uses", "").startswith("actions/checkout@")
    }

    assert clones.keys() == JOBS.keys() - {"release.yml: publish"}
    assert all(step["with"]["persist-credentials"] is False for step in clones.values())


def test_the_job_that_can_write_runs_git_gh_and_one_script_without_the_clones_modules():
    steps = JOBS["upstream.yml: propose"]["steps"]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]

    assert lines == [
        'echo "::stop-commands::$(uuidgen)"',
        "gh auth setup-git",
        'python3 -I scripts/propose_update.py "$RUNNER_TEMP/upstream"',
    ]


def test_the_token_is_given_to_the_step_that_needs_it_alone():
    assert [step for _, step in STEPS if "token" in str(step.get("env", {}))] == [
        JOBS["upstream.yml: propose"]["steps"][-1]
    ]
    assert not any("env" in holder for holder in (*WORKFLOWS.values(), *JOBS.values()))


def test_ci_runs_all_checks_for_pushes_and_pull_requests():
    workflow = WORKFLOWS["ci.yml"]

    # YAML 1.1 takes `on` for true.
    assert set(workflow[True]) == {"push", "pull_request"}
    assert "bash .ci/run" in [step.get("run") for step in workflow["jobs"]["checks"]["steps"]]


def test_what_is_published_is_looked_at_weekly():
    events = WORKFLOWS["upstream.yml"][True]

    assert set(events) == {"schedule", "workflow_dispatch"}
    (schedule,) = events["schedule"]
    assert re.fullmatch(r"[0-9]+ [0-9]+ \* \* [0-6]", schedule["cron"])


def test_the_job_that_uploads_a_release_runs_nothing_but_the_publisher():
    job = JOBS["release.yml: publish"]
    got, published = job["steps"]

    assert (job["needs"], job["environment"]) == ("build", "pypi")
    assert got["uses"].startswith("actions/download-artifact@")
    assert published["uses"].startswith("pypa/gh-action-pypi-publish@")
    # The archives alone, in the folder that is uploaded by default.
    assert got["with"] == {"name": "archives", "path": "dist"}
    assert published["with"] == {"attestations": True}
    assert not any({"run", "env"} & step.keys() for step in job["steps"])


def test_a_release_is_built_by_the_session_with_locked_tools_and_of_its_tag():
    steps = JOBS["release.yml: build"]["steps"]
    (lines,) = [step["run"].splitlines() for step in steps if "run" in step]
    uploaded = {step["with"]["name"]: step["with"]["path"] for step in steps[2:]}

    assert lines[1:] == [
        "build/nox/bin/pip install --quiet --require-hashes -r scripts/release-requirements.txt",
        "build/nox/bin/nox -s release -- --tagged",
    ]
    assert uploaded == {"beside": "build/release", "archives": "build/dist"}


def test_a_release_begins_when_the_owner_publishes_it_alone():
    assert WORKFLOWS["release.yml"][True] == {"release": {"types": ["published"]}}


def test_no_workflow_needs_a_secret():
    assert not any("secrets." in path.read_text(encoding="utf-8") for path in FOLDER.iterdir())


def test_the_owner_is_told_how_to_set_up_the_publisher():
    head = (FOLDER / "release.yml").read_text(encoding="utf-8").partition("\nname:")[0]
    said = head.replace("\n# ", " ")

    assert "a trusted publisher for the project intercom-data-events" in said
    assert "Settings → Environments → New environment → pypi" in said


def test_the_owner_is_told_what_to_switch_on():
    head = (FOLDER / "upstream.yml").read_text(encoding="utf-8").partition("\nname:")[0]

    assert "Allow GitHub Actions to create and approve pull requests" in head.replace("\n# ", " ")
    assert "GITHUB_TOKEN start no workflows" in head.replace("\n# ", " ")
