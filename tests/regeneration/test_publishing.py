"""What is written is written whole or not at all; a target that cannot be written is named."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from regeneration.publishing import alone


class Refusal:
    """Refuses what the operating system would refuse, at a place in a regeneration.

    Root is refused nothing else. An audit hook cannot be removed, so there is one for all tests,
    which does nothing where nothing is to be refused.
    """

    def __init__(self):
        self._here = self._event = None
        sys.addaudithook(self._hook)

    def _hook(self, event, arguments):
        if event != self._event or threading.get_ident() != self._here:
            return
        if any(self._part in str(argument) for argument in arguments):
            self._left -= 1
            if self._left == 0:
                raise self._error(arguments[0])

    @contextlib.contextmanager
    def __call__(self, event, part, error, then=1):
        """Raises what `error` makes of a path, at the `then`-th event with the part in a path."""
        self._part, self._error, self._left = part, error, then
        self._here, self._event = threading.get_ident(), event
        try:
            yield
        finally:
            self._event = None


@pytest.fixture(scope="session")
def refusing():
    return Refusal()


def _denied(path):
    return PermissionError(13, "Permission denied", path)


def _full(path):
    return OSError(28, "No space left on device", path)


RENAMES = [
    # Each part is moved aside (first), and the new one moved in (second).
    ("/openapi/upstream.yaml", 2),
    ("/openapi/data-events.yaml", 2),
    ("/generated", 1),
    ("/generated", 2),
]


@pytest.mark.parametrize(("part", "then"), RENAMES)
def test_a_part_that_cannot_be_replaced_leaves_everything_as_it_was(
    project, describe, refusing, part, then
):
    before = project.files()

    with refusing("os.rename", part, _denied, then):
        done = project.run(describe("2.17"))

    assert done.code == 1
    assert done.err == (
        f"regenerate: cannot write {project.root}{part}: Permission denied; nothing was changed, "
        "so check the permissions and the free space, then retry\n"
    )
    assert project.files() == before


@pytest.mark.parametrize(("part", "then"), RENAMES[1:3])
def test_an_interrupt_leaves_everything_as_it_was(project, describe, refusing, part, then):
    before = project.files()

    with pytest.raises(KeyboardInterrupt), refusing("os.rename", part, KeyboardInterrupt, then):
        project.run(describe("2.17"))

    assert project.files() == before


@pytest.mark.parametrize(
    "part", ["data-events.yaml", "models/data_event.py", "/api/data_events/__init__.py"]
)
def test_a_full_disk_leaves_everything_as_it_was(project, describe, refusing, part):
    before = project.files()

    # The first time that it is opened is for writing it to the folder beside.
    with refusing("open", part, _full):
        done = project.run(describe("2.17"))

    assert done.code == 1, done
    (line,) = done.err.splitlines()
    assert line.startswith("regenerate: ")
    assert "No space left on device" in line
    assert project.files() == before


def test_where_nothing_was_nothing_is_left_behind(project, describe, refusing):
    (project.root / "openapi" / "upstream.yaml").unlink()
    before = project.files()

    with refusing("os.rename", "/generated", _denied, 2):
        assert project.run(describe("2.17")).code == 1

    assert project.files() == before


@pytest.fixture(scope="module")
def shared(make_session_project):
    return make_session_project("shared")


#: Of programs that start: it ends them once a regeneration has staged its files.
ENDING = """
import os, runpy, signal, sys
def hook(event, arguments):
    if event == "os.rename" and str(arguments[0]).endswith("data-events.yaml"):
        os.kill(os.getpid(), signal.{signal})
sys.addaudithook(hook)
sys.argv = {argv}
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("signal", "code", "said"),
    [
        ("SIGINT", 130, "regenerate: interrupted; run the same command again\n"),
        ("SIGTERM", 143, ""),
    ],
)
def test_ended_while_it_publishes_it_leaves_everything_as_it_was(
    shared, describe, sources, signal, code, said
):
    before = shared.files()
    script, description = sources.root / "scripts/regenerate.py", shared.write(describe("2.17"))
    argv = [str(script), str(description), "--project", str(shared.root)]

    done = subprocess.run(
        [sys.executable, "-c", ENDING.format(signal=signal, argv=argv)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
    assert shared.files() == before


def test_one_regeneration_at_a_time(shared, describe, refused):
    before = shared.files()

    with alone(shared.root):
        refused(shared.run(describe("2.17")), f"{shared.root}: another regeneration is running")
        assert shared.run("--check").code in (0, 1)

    assert shared.files() == before
    with alone(shared.root):
        pass


def test_an_empty_name_is_not_taken_for_the_committed_slice(shared, refused):
    before = shared.files()

    refused(shared.run(""), "cannot be read")

    assert shared.files() == before


@pytest.fixture
def elsewhere(tmp_path):
    """A folder on another file system than the project."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{memory} is not a file system apart from that of {tmp_path.parent}")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_a_target_on_another_file_system_is_refused(project, describe, refused, elsewhere):
    shutil.move(project.root / "openapi", elsewhere)
    (project.root / "openapi").symlink_to(elsewhere / "openapi")
    before = project.files()
    outside = {path: path.read_bytes() for path in elsewhere.rglob("*.yaml")}

    refused(project.run(describe("2.17")), "upstream.yaml", "nothing was changed")

    assert project.files() == before
    assert {path: path.read_bytes() for path in elsewhere.rglob("*.yaml")} == outside


def test_a_project_that_is_not_there_is_refused(project, describe, refused):
    refused(project.run("--project", project.root / "nowhere", describe()), "nowhere", "No such")


def test_a_project_that_is_a_file_is_refused(project, describe, refused):
    file = project.write("", "file")

    refused(project.run("--project", file, describe()), "cannot write", "file: Not a directory")

    assert file.read_bytes() == b""


def test_stale_files_and_strange_targets_give_way(project, describe):
    (project.package / "models" / "stale.py").write_text("", encoding="utf-8")
    (project.root / "generated" / "stale").mkdir()
    (project.root / "openapi" / "data-events.yaml").unlink()
    (project.root / "openapi" / "data-events.yaml").mkdir()

    assert project.run(describe("2.17")).code == 0

    assert not (project.package / "models" / "stale.py").exists()
    assert not (project.root / "generated" / "stale").exists()
    assert (project.root / "openapi" / "data-events.yaml").is_file()


def test_a_link_is_replaced_and_what_it_points_to_left_alone(project, describe, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (project.root / "generated").rename(elsewhere)
    (project.root / "generated").symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*.py")}

    assert project.run(describe("2.17")).code == 0

    assert {path: path.read_bytes() for path in elsewhere.rglob("*.py")} == before
    assert not (project.root / "generated").is_symlink()


def test_nothing_but_the_three_parts_is_written(project, describe):
    before = project.files()

    project.run(describe("2.17"))

    after = project.files()
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {
        "openapi/upstream.yaml",
        "openapi/data-events.yaml",
        "generated/intercom_data_events_api/__init__.py",
        "generated/intercom_data_events_api/models/intercom_version.py",
    }


def test_the_command_line_says_how_it_is_used(project, sources):
    done = subprocess.run(
        [sys.executable, str(sources.root / "scripts" / "regenerate.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "PATH-OR-URL" in done.stdout
    assert "--check" in done.stdout


def test_a_report_that_the_terminal_cannot_show_is_still_written(project, describe, sources):
    description = describe("2.17")
    properties = description["components"]["schemas"]["data_event"]["properties"]
    properties["color"] = {"type": "string", "enum": ["červená", "赤"]}

    done = subprocess.run(
        [
            *(sys.executable, str(sources.root / "scripts" / "regenerate.py")),
            *("--project", str(project.root), str(project.write(description))),
        ],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u8d64" in done.stdout
