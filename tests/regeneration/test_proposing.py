"""A patch and a report that another job left become a pull request, or are refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import propose_update
import pytest

SCRIPT = Path(propose_update.__file__)
BRANCH = "refs/heads/regenerate/upstream"
MODULE = "generated/intercom_data_events_api/models/data_event.py"
#: It notes how it is called, and answers as a file says.
GH = """\
#!{python}
import json, os, sys
state = os.environ["GH_STATE"]
with open(os.path.join(state, "calls"), "a") as calls:
    body = None
    if "--body-file" in sys.argv:
        body = open(sys.argv[sys.argv.index("--body-file") + 1], encoding="utf-8").read()
    print(json.dumps([sys.argv[1:], body]), file=calls)
if sys.argv[1:3] == ["pr", "list"]:
    print(open(os.path.join(state, "open")).read())
"""


def git(folder, *arguments, stdin=None):
    done = subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b.co", *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@dataclass
class Repository:
    """A clone of a bare repository beside it, and a folder with what the first job left."""

    root: Path

    @property
    def clone(self):
        return self.root / "clone"

    @property
    def left(self):
        return self.root / "left"

    def leave(self, change, report="Nothing that callers use changed.\n"):
        """Leaves the patch of a change to another clone, as the first job makes it."""
        work = self.root / "work"
        git(self.root, "clone", "-q", str(self.root / "origin.git"), str(work))
        change(work)
        git(work, "add", "--all")
        patch = git(work, "diff", "--cached", "--binary", "--no-renames", "--no-ext-diff")
        self.left.mkdir(exist_ok=True)
        (self.left / "patch").write_text(patch, encoding="utf-8")
        (self.left / "report.txt").write_text(report, encoding="utf-8")
        subprocess.run(["rm", "-r", str(work)], check=True)

    def opened(self, *requests):
        """Makes these the open pull requests."""
        (self.root / "open").write_text(json.dumps(requests), encoding="utf-8")

    def propose(self, **environment):
        before = git(self.clone, "status", "--porcelain", "--ignored")
        done = subprocess.run(
            [sys.executable, "-I", str(SCRIPT), str(self.left)],
            cwd=self.clone,
            env={
                **os.environ,
                "PATH": f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "GH_STATE": str(self.root),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        # The patch is never checked out.
        assert git(self.clone, "status", "--porcelain", "--ignored") == before
        return done

    def calls(self):
        """How gh was called since the last time, with the bodies that it got."""
        path = self.root / "calls"
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    def branch(self):
        """The commit of the branch; None where there is none."""
        line = git(self.clone, "ls-remote", "origin", BRANCH)
        return line.partition("\t")[0] or None

    def files(self):
        git(self.clone, "fetch", "-q", "origin", BRANCH)
        return git(self.clone, "diff", "--name-only", "HEAD", "FETCH_HEAD").splitlines()


@pytest.fixture
def repository(tmp_path):
    repository = Repository(tmp_path)
    repository.opened()
    gh = tmp_path / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH.format(python=sys.executable), encoding="utf-8")
    gh.chmod(0o755)
    git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", "origin.git")
    git(tmp_path, "clone", "-q", "origin.git", "clone")
    for name in ("openapi/upstream.yaml", "openapi/corrections.yaml", MODULE, "noxfile.py"):
        path = repository.clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\nb\n", encoding="utf-8")
    git(repository.clone, "checkout", "-q", "-b", "main")
    git(repository.clone, "add", "--all")
    git(repository.clone, "commit", "-q", "-m", "Begin")
    git(repository.clone, "push", "-q", "origin", "main")
    return repository


def regenerate(work):
    (work / "openapi/upstream.yaml").write_text("a\nc  \n", encoding="utf-8")
    (work / "openapi/data-events.yaml").write_text("new\n", encoding="utf-8")
    (work / MODULE).unlink()
    (work / "generated/intercom_data_events_api/models/event.py").write_text("x = 1\n", "utf-8")


def test_a_patch_becomes_a_branch_and_a_pull_request(repository):
    repository.leave(regenerate)

    done = repository.propose()

    assert (done.returncode, done.stderr) == (0, "")
    assert repository.files() == [
        MODULE,
        "generated/intercom_data_events_api/models/event.py",
        "openapi/data-events.yaml",
        "openapi/upstream.yaml",
    ]
    (listed, _), (created, body) = repository.calls()
    assert listed[:2] == ["pr", "list"]
    assert created[:4] == ["pr", "create", "--head", "regenerate/upstream"]
    assert "Nothing that callers use changed." in body


def test_an_open_pull_request_is_updated(repository):
    repository.leave(regenerate)
    repository.propose()
    first = repository.branch()
    repository.calls()
    repository.opened({"number": 7, "isCrossRepository": False})

    def more(work):
        regenerate(work)
        (work / "generated/intercom_data_events_api/types.py").write_text("y = 1\n", "utf-8")

    repository.leave(more, report="Breaks callers: yes\n")
    done = repository.propose()

    assert done.returncode == 0, done.stderr
    assert repository.branch() not in (None, first)
    assert len(repository.files()) == 5
    (_, _), (edited, body) = repository.calls()
    assert edited[:3] == ["pr", "edit", "7"]
    assert "Breaks callers: yes" in body


def test_the_same_patch_is_not_pushed_again(repository):
    repository.leave(regenerate)
    repository.propose()
    first = repository.branch()

    later = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2030-01-01T00:00:00Z")
    assert repository.propose(**later).returncode == 0

    assert repository.branch() == first


def test_a_pull_request_of_a_fork_is_not_taken_for_our_own(repository):
    repository.opened({"number": 9, "isCrossRepository": True})
    repository.leave(regenerate)

    repository.propose()

    assert [call[:2] for call, _ in repository.calls()] == [["pr", "list"], ["pr", "create"]]


def test_what_others_have_committed_to_the_branch_is_kept(repository):
    repository.leave(regenerate)
    repository.propose()
    git(repository.clone, "fetch", "-q", "origin", BRANCH)
    git(repository.clone, "checkout", "-q", "-b", "mine", "FETCH_HEAD")
    git(repository.clone, "commit", "-q", "--allow-empty", "-m", "Add a correction")
    git(repository.clone, "push", "-q", "origin", f"HEAD:{BRANCH}")
    git(repository.clone, "checkout", "-q", "main")
    theirs = repository.branch()
    repository.calls()

    done = repository.propose()

    assert done.returncode == 0
    assert "commits by other authors, so it was not changed" in done.stdout
    assert repository.branch() == theirs
    assert repository.calls() == []


def write(name, mode=0o644):
    def change(work):
        regenerate(work)
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n", encoding="utf-8")
        path.chmod(mode)

    return change


def link(name, target):
    def change(work):
        regenerate(work)
        (work / name).unlink(missing_ok=True)
        (work / name).symlink_to(target)

    return change


def with_a_submodule(work):
    regenerate(work)
    head = git(work, "rev-parse", "HEAD").strip()
    (work / "generated/other").mkdir()
    git(work / "generated/other", "init", "-q")
    git(work / "generated/other", "fetch", "-q", str(work), head)
    git(work / "generated/other", "checkout", "-q", "FETCH_HEAD")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (write(".github/workflows/ci.yml"), "writes, not .github/workflows/ci.yml"),
        (write("noxfile.py"), "files that a regeneration writes, not noxfile.py"),
        (write("openapi/corrections.yaml"), "writes, not openapi/corrections.yaml"),
        (write("openapi/templates/model.py.jinja"), "writes, not openapi/templates/model.py.jinja"),
        (write("generated/.gitattributes"), "writes, not generated/.gitattributes"),
        (write("generated/conftest.cfg"), "writes, not generated/conftest.cfg"),
        (write("generated/a b/c.py"), "writes, not generated/a b/c.py"),
        (write("generated/a.py/b.sh"), "writes, not generated/a.py/b.sh"),
        (write("generated/a.pyc"), "writes, not generated/a.pyc"),
        (write("generated/conftest.py"), "writes, not generated/conftest.py"),
        (write("generated/yaml/__init__.py"), "writes, not generated/yaml/__init__.py"),
        (write("openapi/upstream.yaml.orig"), "writes, not openapi/upstream.yaml.orig"),
        (write("generated/intercom_data_events_api/run.py", 0o755), "mode 100755"),
        (write(MODULE, 0o755), "mode 100755"),
        (link("generated/intercom_data_events_api/link.py", "/etc/passwd"), "mode 120000"),
        (link("openapi/upstream.yaml", "../noxfile.py"), "mode 120000"),
        (with_a_submodule, "writes, not generated/other"),
        (lambda work: None, "the patch must change at least one file"),
    ],
)
def test_a_patch_of_anything_else_is_refused_whole(repository, change, words):
    repository.leave(change)

    done = repository.propose()

    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert repository.branch() is None
    assert repository.calls() == []


OUTSIDE = """\
diff --git a/{name} b/{name}
new file mode 100644
--- /dev/null
+++ b/{name}
@@ -0,0 +1 @@
+x
"""


@pytest.mark.parametrize(
    "name", ["../outside.py", "/tmp/outside.py", ".git/hooks/pre-push", "generated/../noxfile.txt"]
)
def test_a_patch_of_places_outside_of_the_repository_is_refused(repository, name):
    repository.leave(regenerate)
    (repository.left / "patch").write_text(OUTSIDE.format(name=name), encoding="utf-8")

    done = repository.propose()

    assert done.returncode == 1
    assert done.stderr.startswith("propose_update: git apply: ")
    assert repository.branch() is None
    assert repository.calls() == []


@pytest.mark.parametrize("what", ["missing", "a link", "too large"])
def test_what_was_left_must_be_two_files_of_bounded_size(repository, what):
    repository.leave(regenerate)
    patch = repository.left / "patch"
    if what == "too large":
        with patch.open("ab") as file:
            file.truncate(16 * 1024 * 1024 + 1)
    else:
        patch.unlink()
    if what == "a link":
        patch.symlink_to(repository.clone / "noxfile.py")

    done = repository.propose()

    assert done.returncode == 1
    assert str(patch) in done.stderr
    assert repository.calls() == []


@pytest.mark.parametrize(
    "report",
    [
        "@frodo, look at this: #1",
        "``` \n@frodo\n",
        "`````\n# A heading\n``````\n",
        "<!-- -->\n<script>\n</details>",
        "\x1b[31mred\x07 \u202edesrever\r\n``` @sam",
        "$(touch owned) `touch owned` ${{ github.token }}",
        "~~~\n</code></pre>\n</div>\n- an item\n\n  - @sam\n# heading",
        "\n\n\nafter nothing\n\n\n[a link]: javascript:alert(1)",
        "x" * 200_000,
        "`" * 100_000,
        "y\n" * 300_000,
        "\u202e" * 100_000,
        "\U0001f600" * 100_000,
    ],
)
def test_a_report_is_shown_as_code_alone(report):
    code = propose_update.as_code(report.encode())

    # Markdown ends an indented block at a line that is not.
    lines = code.splitlines()
    assert lines
    assert all(line.startswith("    ") and line.isprintable() for line in lines)
    # With the introduction, GitHub takes 65,536.
    assert len(code) < 64_000
    for word in re.findall("[a-z]{3,}", report[:100]):
        assert word in code
    assert (lines[-1] == "    [cut]") == (len(report) > 60_000)


def test_a_report_of_any_size_becomes_the_body(repository):
    report = "$(touch owned) `touch owned` ${{ github.token }} @frodo\n"
    repository.leave(regenerate, report=report + "```\n" * 1_000_000)

    done = repository.propose()

    assert done.returncode == 0, done.stderr
    _, body = repository.calls()[-1]
    introduction, code = body.split("\n\n", 1)
    assert "@" not in introduction
    assert code.startswith(f"    {report}    ```\n")
    assert len(body) < 65_536
    assert not list(repository.clone.glob("owned"))


def test_it_says_how_it_is_used_where_it_is_called_wrongly():
    done = subprocess.run(
        [sys.executable, "-I", str(SCRIPT)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 64
    assert "scripts/propose_update.py FOLDER" in done.stderr
