"""What is published is compared with what is committed; a workflow takes it from there."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import watch_upstream
import yaml

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class Published:
    """A server with what a test puts there: by path, a description, or bytes as they are."""

    def __init__(self, address):
        self.address = address
        self.files = {}
        self.asked = []

    def put(self, path, description):
        if not isinstance(description, bytes):
            description = yaml.dump(description, Dumper=DUMPER, sort_keys=False).encode()
        self.files[path] = description
        return self.address + path


@pytest.fixture
def published():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            published.asked.append(self.path)
            body = published.files.get(self.path.partition("?")[0])
            status = 404 if body is None else 500 if body == b"broken" else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        published = Published(f"http://127.0.0.1:{http.server_port}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield published
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def committed(make_session_project, describe):
    """A project whose slice is of version 2.16; what watches must leave it as it is."""
    project = make_session_project("committed")
    project.run(describe("2.16"))
    return project


@pytest.fixture
def watch(committed):
    def watch(*arguments, project=committed):
        before = project.files()
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = watch_upstream.main(["--project", str(project.root), *map(str, arguments)])
        assert project.files() == before
        return Outcome(code, out.getvalue(), err.getvalue())

    return watch


def test_what_does_not_belong_to_data_events_is_no_change(watch, published, describe):
    description = describe("2.16")
    description["info"]["description"] = "Other words"
    description["paths"]["/admins"] = {"get": {"responses": {"200": {"description": "Some"}}}}
    address = published.put("/api.yaml", description)

    outcome = watch("--url", address)

    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        f"Unchanged: {address}, version 2.16, has the same data events as openapi/upstream.yaml.\n"
    )


def test_a_change_is_reported(watch, published, describe):
    description = describe("2.17")
    schemas = description["components"]["schemas"]
    schemas["data_event"]["properties"]["channel"] = {"type": "string"}
    address = published.put("/api.yaml", description)

    outcome = watch("--url", address)

    assert (outcome.code, outcome.err) == (1, "")
    verdict, *report = outcome.out.splitlines()
    assert verdict.startswith(f"Changed: {address}, version 2.17, has different data events")
    assert "version 2.16" in verdict
    assert any("channel" in line for line in report)


def test_a_program_is_told_in_one_object(watch, published, describe):
    same = published.put("/same.yaml", describe("2.16"))
    another = published.put("/another.yaml", describe("2.17"))

    unchanged, changed = (watch("--json", "--url", address) for address in (same, another))

    told = json.loads(unchanged.out)
    assert (unchanged.code, told["exit_code"], told["report"]) == (0, 0, None)
    told = json.loads(changed.out)
    assert (changed.code, told["exit_code"]) == (1, 1)
    assert told["verdict"].startswith("Changed: ")
    assert "2.17" in json.dumps(told["report"])
    unreachable = watch("--json", "--url", f"{published.address}/nothing.yaml")
    told = json.loads(unreachable.out)
    assert (unreachable.code, told["exit_code"], told["report"]) == (2, 2, None)


def without_an_operation(description):
    del description["paths"]["/events"]["post"]


def of_swagger(description):
    del description["openapi"]
    description["swagger"] = "2.0"


def with_a_version_that_is_a_number(description):
    description["info"]["version"] = 2.17


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_an_operation, "#/paths: must have the operation POST /events"),
        (of_swagger, "#/openapi: must be OpenAPI 3.0 or 3.1, not Swagger 2"),
        (with_a_version_that_is_a_number, "#/info/version: must be a string, not the number 2.17"),
    ],
)
def test_a_description_that_regeneration_refuses_is_a_change(
    watch, published, describe, change, words
):
    description = describe("2.17")
    change(description)
    address = published.put("/api.yaml", description)

    outcome = watch("--url", address)

    assert (outcome.code, outcome.err) == (1, "")
    assert outcome.out.startswith(f"Changed: regeneration rejects it: {address}: ")
    assert words in outcome.out
    assert len(outcome.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be fetched: 404 Not Found"),
        (b"broken", "cannot be fetched: 500 Internal Server Error"),
        (b"<!doctype html><p>A: page</p>", "must be an OpenAPI description"),
        (b"", "must be a mapping at its top level, not an empty document"),
        (b"- a\n- list\n", "must be a mapping at its top level, not a list"),
        (b"message: Not here\n", "must be an OpenAPI description"),
        (b"\xff\xfe", "byte 0 is not UTF-8"),
        (b"a: [b\n", "cannot be read as YAML"),
    ],
)
def test_what_is_not_a_description_is_unreachable(watch, published, content, words):
    address = f"{published.address}/api.yaml"
    if content is not None:
        published.files["/api.yaml"] = content

    outcome = watch("--url", address)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"Unreachable: {address}")
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://example.invalid/", "https://[/"])
def test_an_address_that_leads_nowhere_is_unreachable(watch, url):
    outcome = watch("--url", url)

    assert (outcome.code, outcome.out) == (2, "")
    assert f"Unreachable: {url}: cannot be fetched: " in outcome.err


@pytest.mark.parametrize(
    ("there", "taken", "asked"),
    [
        (["2.16"], "2.16", ["2.17", "3.0", "2.16"]),
        (["2.15", "2.16", "2.17", "2.18"], "2.18", ["2.17", "2.18", "2.19", "3.0"]),
        (["2.16", "3.0", "3.1"], "3.1", ["2.17", "3.0", "3.1", "3.2", "4.0"]),
        (["2.16", "2.17", "3.0"], "3.0", ["2.17", "2.18", "3.0", "3.1", "4.0"]),
        (["2.17"], "2.17", ["2.17", "2.18", "3.0"]),
    ],
)
def test_the_newest_version_is_asked_for_upwards(watch, published, there, taken, asked):
    # Descriptions that are refused at once: which is read is what counts here.
    for version in there:
        published.put(f"/{version}/api.yaml", {"openapi": "3.0.1", "info": {"version": version}})

    outcome = watch("--url", f"{published.address}/{{version}}/api.yaml")

    assert outcome.code == 1
    assert f"{published.address}/{taken}/api.yaml" in outcome.out
    assert [path.split("/")[1] for path in published.asked] == asked


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "/2.16/api.yaml: cannot be fetched: 404 Not Found"),
        ({"/2.17/api.yaml": b"broken"}, "/2.17/api.yaml: cannot be fetched: 500"),
        ({"/2.17/api.yaml": b"- a page\n"}, "/2.17/api.yaml: must be a mapping"),
    ],
)
def test_where_no_newest_can_be_found_it_is_unreachable(watch, published, files, words):
    published.files.update(files)

    outcome = watch("--url", f"{published.address}/{{version}}/api.yaml")

    assert (outcome.code, outcome.out) == (2, "")
    assert f"Unreachable: {published.address}{words}" in outcome.err


def test_a_server_that_has_each_version_is_not_asked_for_ever(watch, published):
    class All(dict):
        def get(self, path):
            return b"openapi: 3.0.1"

    published.files = All()

    outcome = watch("--url", f"{published.address}/{{version}}")

    assert outcome.code == 2
    assert "has more than 20 newer versions" in outcome.err
    assert len(published.asked) == 21


def test_what_may_be_secret_in_the_address_is_not_shown(watch, published, describe):
    description = describe("2.17")
    published.put("/changed.yaml", description)
    description = copy.deepcopy(description)
    del description["paths"]["/events"]
    published.put("/refused.yaml", description)
    published.files["/broken.yaml"] = b"broken"
    begin = published.address.replace("//", "//frodo:mellon@")

    outcomes = [
        watch("--url", f"{begin}/{name}.yaml?token=sesame")
        for name in ("changed", "refused", "broken", "{version}")
    ]

    assert [outcome.code for outcome in outcomes] == [1, 1, 2, 2]
    for outcome in outcomes:
        said = outcome.out + outcome.err
        assert published.address in said
        assert not any(word in said for word in ("frodo", "mellon", "sesame"))


@pytest.mark.parametrize(
    "arguments",
    [["--no-such-option"], ["extra"], ["--url"], ["--url", "api.yaml"], ["--url", "ftp://a/b"]],
)
def test_a_wrong_command_line_has_an_exit_code_of_its_own(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        watch_upstream.main(arguments)

    assert ended.value.code == 64
    assert ": error: " in capsys.readouterr().err


def test_help_says_what_exit_codes_mean(capsys):
    with pytest.raises(SystemExit) as ended:
        watch_upstream.main(["--help"])

    assert ended.value.code == 0
    said = capsys.readouterr().out
    for words in ("unchanged", "changed, or", "unreachable", "64", "nox -s regenerate -- ADDRESS"):
        assert words in said


@pytest.mark.parametrize("damage", ["no project", "no slice", "an edited slice"])
def test_a_project_that_cannot_be_compared_with_is_neither(make_project, tmp_path, damage, capsys):
    project = make_project()
    upstream = project.root / "openapi" / "upstream.yaml"
    root = tmp_path / "nowhere" if damage == "no project" else project.root
    if damage == "no slice":
        upstream.unlink()
    if damage == "an edited slice":
        upstream.write_text(upstream.read_text("utf-8").replace("user_id", "used_id"), "utf-8")

    code = watch_upstream.main(["--project", str(root), "--url", "http://127.0.0.1:1/"])

    assert code == 64
    said = capsys.readouterr().err
    assert said.startswith("Unusable project: ")
    assert Path("openapi", "upstream.yaml").as_posix() in said


@pytest.fixture
def clone(committed, sources, tmp_path):
    """A repository with the scripts, whose checks print and end as a test says."""
    root = tmp_path / "clone"
    for name in ("scripts", "overlays"):
        ignored = shutil.ignore_patterns("__pycache__", "node_modules")
        shutil.copytree(sources.root / name, root / name, ignore=ignored)
    for name in ("openapi", "generated"):
        shutil.copytree(committed.root / name, root / name)
    shutil.copy(sources.root / ".gitignore", root)
    (root / ".ci").mkdir()
    for command in (
        ("init", "-q"),
        ("add", "--all"),
        ("-c", "user.name=A", "-c", "user.email=a@b.co", "commit", "-q", "-m", "Begin"),
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def prepare(clone, address, checks):
    (clone / ".ci" / "run").write_text(checks, encoding="utf-8")
    script = clone / "scripts" / "prepare_update.py"
    return subprocess.run(
        [sys.executable, str(script), "build/upstream", "--url", address],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_workflow_gets_a_patch_and_a_report_also_where_the_checks_fail(
    clone, published, describe
):
    address = published.put("/api.yaml", describe("2.17"))

    done = prepare(clone, address, "echo 1 failed; exit 7")

    assert (done.returncode, done.stderr) == (0, "")
    left = clone / "build" / "upstream"
    report = (left / "report.txt").read_text("utf-8")
    assert report.startswith(
        f".ci/run FAILED (exit code 7)\nChanged: {address}, version 2.17, has different data events"
    )
    assert "2.17" in report.partition("\n\n")[2]
    assert report.endswith("The last lines of .ci/run:\n\n1 failed\n")
    patched = [line for line in (left / "patch").read_text("utf-8").splitlines() if "+++" in line]
    assert "+++ b/openapi/upstream.yaml" in patched
    assert all(line.startswith(("+++ b/openapi/", "+++ b/generated/")) for line in patched)


def test_a_workflow_gets_nothing_where_nothing_changed(clone, published, describe):
    address = published.put("/api.yaml", describe("2.16"))

    done = prepare(clone, address, "exit 9")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Unchanged: ")
    assert not (clone / "build").exists()


def test_a_workflow_is_told_why_it_cannot_compare(clone, published):
    (clone / "openapi" / "upstream.yaml").unlink()

    done = prepare(clone, published.address, "exit 9")

    assert (done.returncode, done.stderr) == (64, "")
    assert done.stdout.startswith("Unusable project: ")
    assert not (clone / "build").exists()
