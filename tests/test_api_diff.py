"""What changed for callers since a revision is named as callers name it, and judged."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

import api_diff
import intercom_data_events
from needs import require

ROOT = Path(__file__).parent.parent
PUBLIC = "overlays/intercom_data_events"
GENERATED = "generated/intercom_data_events_api"
FILES = {
    f"{PUBLIC}/__init__.py": """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from intercom_data_events.client import Client, Region
    from intercom_data_events_api.models import Event

__all__ = ["Client", "Event", "Region"]


def __getattr__(name): ...
""",
    f"{PUBLIC}/client.py": """
from typing import Literal, TypeAlias

Region: TypeAlias = Literal["us", "eu"]


class _Verbs:
    def list(self, per_page: int = 20, **options: int) -> list[str]: ...


class Client(_Verbs):
    def __init__(self, token: str, *, retries: int = 4) -> None: ...

    def create(self, name: str, user_id: str | None = None) -> None: ...

    def _send(self): ...


def helper(): ...
""",
    f"{PUBLIC}/emulator/__init__.py": """
from ._server import Server, serve

__all__ = ["Server", "serve"]
""",
    f"{PUBLIC}/emulator/_server.py": """
class Server:
    def stop(self) -> None: ...


def serve() -> Server: ...
""",
    f"{GENERATED}/__init__.py": "__all__ = ()\n",
    f"{GENERATED}/api/__init__.py": "",
    f"{GENERATED}/api/create.py": """
def _kwargs(body: str): ...


def sync(*, body: str) -> None: ...
""",
    f"{GENERATED}/models/__init__.py": """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .event import Event

__all__ = ("Event",)
""",
    f"{GENERATED}/models/event.py": """
from attrs import define as _attrs_define
from attrs import field as _attrs_field


@_attrs_define
class Event:
    name: str
    id: str | None = None
    rest: dict[str, str] = _attrs_field(init=False, factory=dict)
""",
}


class Repository:
    """A project in a git repository, to change and report on."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        self.git("init", "--quiet")
        for path, text in FILES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        self.commit()

    def git(self, *arguments: str) -> str:
        somebody = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
        done = subprocess.run(
            ["git", *somebody, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Change")

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        code = api_diff.main(["--project", str(self.root), *arguments])
        out, err = self._capsys.readouterr()
        return code, [*out.splitlines(), *err.splitlines()]

    def rows(self) -> list[list[str]]:
        """The rows since the last commit: whether it breaks, the name, the change."""
        _, lines = self.run("HEAD")
        return [line.split(maxsplit=2) for line in lines[2:-1]]


@pytest.fixture
def repository(tmp_path, capsys):
    require("git")
    return Repository(tmp_path, capsys)


def test_every_lazily_loaded_name_is_seen_and_understood():
    facts = api_diff.read(ROOT).facts

    assert {f"intercom_data_events.{name}" for name in intercom_data_events.__all__} <= facts.keys()
    assert "intercom_data_events.emulator.Emulator.transport" in facts
    assert "intercom_data_events.MonetaryAmount.currency" in facts
    assert not [name for name in facts if name.startswith("intercom_data_events_api")]
    assert "from elsewhere" not in facts.values()
    assert not [name for name in facts if "._" in name and "__" not in name]


def test_nothing_to_say(repository):
    (commit,) = repository.git("rev-parse", "--short", "HEAD").split()

    code, (compared, said) = repository.run("HEAD")

    assert code == 0
    assert compared == f"intercom_data_events: HEAD ({commit}) → the working tree"
    assert said == "Nothing changed."


def test_a_function_that_is_gone_breaks_callers(repository):
    repository.change(f"{PUBLIC}/client.py", "    def create", "    def submit")

    code, lines = repository.run("HEAD")

    assert code == 0
    assert [line.split() for line in lines[1:]] == [
        ["breaks", "name", "change"],
        ["yes", "intercom_data_events.Client.create", "removed"],
        ["no", "intercom_data_events.Client.submit", "added:", "function", "->", "None"],
        ["Changes:", "2;", "break", "callers:", "1;", "may", "break", "them:", "0."],
    ]
    assert repository.run("HEAD", "--fail-on-breaking")[0] == 1


@pytest.mark.parametrize(
    ("old", "new", "row"),
    [
        (
            "retries: int = 4",
            "retries: int",
            ["yes", "Client(retries)", "parameter is now required: "],
        ),
        (
            "retries: int = 4",
            "retries: int = 5",
            ["yes", "Client(retries)", "parameter default was changed: "],
        ),
        ("token: str, ", "", ["yes", "Client(token)", "removed"]),
        (
            "name: str, user_id: str",
            "user_id: str, name: str",
            ["yes", "Client.create(name)", "positional parameter was moved"],
        ),
        (
            "name: str, ",
            "name: str, kind: str, ",
            ["yes", "Client.create(kind)", "parameter was added as required: str"],
        ),
        (
            "retries: int = 4",
            "retries: int = 4, pace: bool = True",
            ["no", "Client(pace)", "added: keyword-only, bool = True"],
        ),
        ("token: str", "token: bytes", ["maybe", "Client(token)", "str → bytes"]),
        ("-> list[str]", "-> list[int]", ["maybe", "Client.list", "function -> list[str] → "]),
        (
            "    def list",
            "    async def list",
            ["maybe", "Client.list", "function -> list[str] → "],
        ),
        ("per_page: int = 20", "page: int = 20", ["yes", "Client.list(per_page)", "removed"]),
        ('"us", "eu"', '"us", "au"', ["maybe", "Region", "Literal: - 'eu', + 'au'"]),
    ],
)
def test_a_parameter_or_a_type_that_changed(repository, old, new, row):
    repository.change(f"{PUBLIC}/client.py", old, new)

    breaks, name, change = row
    assert [
        found[2]
        for found in repository.rows()
        if found[:2] == [breaks, f"intercom_data_events.{name}"] and found[2].startswith(change)
    ]


def test_a_parameter_that_further_keywords_take_may_break_nobody(repository):
    repository.change(f"{PUBLIC}/client.py", "per_page: int = 20", "*, per_page: int = 20")
    repository.commit()
    repository.change(f"{PUBLIC}/client.py", "*, per_page: int = 20, ", "")

    assert repository.rows() == [["maybe", "intercom_data_events.Client.list(per_page)", "removed"]]


def test_an_added_name_breaks_nobody(repository):
    repository.change(
        f"{PUBLIC}/client.py", "def helper", "class Tracker:\n    size: int\n\n\ndef helper"
    )
    repository.change(f"{PUBLIC}/__init__.py", "Client, Region", "Client, Region, Tracker")
    repository.change(f"{PUBLIC}/__init__.py", '"Region"]', '"Region", "Tracker"]')

    assert repository.rows() == [["no", "intercom_data_events.Tracker", "added: class"]]
    assert repository.run("HEAD", "--fail-on-breaking")[0] == 0


def test_a_name_that_is_no_longer_listed_is_gone(repository):
    repository.change(f"{PUBLIC}/emulator/__init__.py", '["Server", ', "[")

    assert repository.rows() == [["yes", "intercom_data_events.emulator.Server", "removed"]]


def test_what_is_not_public_is_nothing_to_say(repository):
    repository.change(f"{PUBLIC}/client.py", "def helper", "def other")
    repository.change(f"{PUBLIC}/client.py", "_send", "_submit")
    repository.change(f"{GENERATED}/api/create.py", "_kwargs(body", "_kwargs(words")

    assert repository.run("HEAD")[1][1] == "Nothing changed."


def test_where_a_public_name_is_defined_is_nothing_to_say(repository):
    (repository.root / PUBLIC / "client.py").rename(repository.root / PUBLIC / "clients.py")
    repository.change(f"{PUBLIC}/__init__.py", "events.client", "events.clients")

    assert repository.run("HEAD")[1][1] == "Nothing changed."


def test_what_the_generated_package_keeps_to_itself_is_nothing_to_say(repository):
    repository.change(f"{GENERATED}/api/create.py", "def sync", "def asyncio")
    repository.change(f"{GENERATED}/models/__init__.py", '("Event",)', "()")
    (repository.root / GENERATED / "client.py").write_text("def connect(): ...\n", "utf-8")
    repository.change(f"{GENERATED}/__init__.py", "()", '("client",)')

    assert repository.run("HEAD")[1][1] == "Nothing changed."


def test_a_report_of_the_generated_package_has_its_operations(repository):
    before = api_diff.read(repository.root, ("intercom_data_events_api",))
    repository.change(f"{GENERATED}/api/create.py", "def sync", "def asyncio")
    after = api_diff.read(repository.root, ("intercom_data_events_api",))

    assert [(change.breaks, change.name) for change in api_diff.compare(before, after)] == [
        ("no", "intercom_data_events_api.api.create.asyncio"),
        ("yes", "intercom_data_events_api.api.create.sync"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "rows"),
    [
        (
            "    name: str\n",
            "    name: str\n    at: int\n",
            [
                ["yes", "at", "parameter was added as required: int"],
                ["yes", "id", "positional parameter was moved"],
            ],
        ),
        ("    rest", "    at: int = 0\n    rest", [["no", "at", "added: int"]]),
        ("    id: str | None = None\n", "", [["yes", "id", "removed"]]),
        ("id: str | None = None", "id: str | None", [["yes", "id", "parameter is now required"]]),
        ("id: str | None", "id: int | None", [["maybe", "id", "str | None → int | None"]]),
    ],
)
def test_the_fields_of_a_model_are_what_it_is_made_with(repository, old, new, rows):
    repository.change(f"{GENERATED}/models/event.py", old, new)

    assert repository.rows() == [
        [breaks, f"intercom_data_events.Event.{field}", text] for breaks, field, text in rows
    ]


def test_a_package_that_the_revision_lacks_is_one_change(repository):
    shutil.move(repository.root / PUBLIC, repository.root / "aside")
    repository.commit()
    shutil.move(repository.root / "aside", repository.root / PUBLIC)

    assert repository.rows() == [["no", "intercom_data_events", "added: module"]]


def test_without_a_revision_it_is_the_last_tag_and_without_a_tag_the_commit_before(repository):
    repository.change(f"{PUBLIC}/client.py", "retries", "tries")
    repository.commit()

    assert " HEAD~1 (" in repository.run()[1][0]

    repository.git("tag", "v1")
    repository.change(f"{PUBLIC}/client.py", "token", "key")
    repository.commit()

    _, lines = repository.run()
    assert " v1 (" in lines[0]
    assert "Client(token)" in "".join(lines)
    assert "retries" not in "".join(lines)


def test_the_repository_is_left_as_it_was(repository):
    repository.run("HEAD")

    assert repository.git("status", "--porcelain") == ""
    assert len(repository.git("worktree", "list").splitlines()) == 1
    assert len(repository.git("branch").splitlines()) == 1


@pytest.mark.parametrize("revision", ["nonsense", "HEAD~7", f"HEAD:{PUBLIC}"])
def test_a_revision_that_is_not_there_is_named(repository, revision):
    code, (said,) = repository.run(revision)

    assert code == 2
    assert said == (
        f"api-diff: REV must be a tag, a branch or a commit of {repository.root}, not {revision}; "
        "in a shallow clone, run: git fetch --tags --unshallow"
    )


def test_an_empty_revision_is_refused(repository, capsys):
    with pytest.raises(SystemExit, match="2"):
        repository.run("")

    assert "REV must be a tag, a branch or a commit, not ''" in capsys.readouterr().err


def test_a_project_without_the_packages_is_an_error_and_no_change(repository):
    for folder in (PUBLIC, GENERATED):
        shutil.move(repository.root / folder, repository.root / "aside" / folder)
    repository.commit()

    code, (said,) = repository.run("HEAD")

    assert code == 2
    assert said == (
        f"api-diff: {repository.root / 'overlays'} has no intercom_data_events; "
        "pass the project's root with --project"
    )


@pytest.mark.parametrize("name", ["nonexistent", "file"])
def test_a_project_that_is_no_folder_is_named(tmp_path, capsys, name):
    (tmp_path / "file").touch()

    with pytest.raises(SystemExit, match="2"):
        api_diff.main(["--project", str(tmp_path / name)])

    assert f"--project must be a folder, not {tmp_path / name}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["\x1b[2J\u202e"], ["a", "\x9b2J"], ["--\x1b[2J"]])
def test_what_is_typed_is_repeated_printable(repository, capsys, arguments):
    """Also what git repeats of it."""
    with suppress(SystemExit):
        api_diff.main(["--project", str(repository.root), *arguments])

    said = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert "2J" in said[-1]
    assert all(line.isprintable() for line in said)


@pytest.mark.parametrize("revision", [[], ["HEAD"]])
def test_a_project_outside_of_a_repository_is_named(
    repository, tmp_path_factory, monkeypatch, revision
):
    repository.root = tmp_path_factory.mktemp("outside")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.root.parent))

    code, (said,) = repository.run(*revision)

    assert code == 2
    assert said == (
        f"api-diff: {repository.root} must be a git repository; pass one with --project"
    )


@pytest.mark.parametrize("path", [f"{GENERATED}/__init__.py", f"{PUBLIC}/client.py"])
def test_what_does_not_parse_is_an_error_and_no_change(repository, path):
    repository.change(path, FILES[path], "def (")

    code, lines = repository.run("HEAD")

    assert code == 2
    assert len(lines) == 1
    assert "parse" in lines[0] or "Syntax error" in lines[0]


VERBS = {
    f"{PUBLIC}/_sending/__init__.py": "",
    f"{PUBLIC}/_sending/operations.py": """
from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Operation(Generic[T]): ...


def create(name: str, user_id: str | None = None) -> Operation[None]: ...


def list_page(per_page: int = 20, **options: int) -> Operation[list[str]]: ...


def create_for(contact: str, name: str, /, *, at: int | None = None) -> Operation[None]: ...
""",
    f"{PUBLIC}/_sending/verbs.py": """
from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from intercom_data_events._sending.operations import Operation

if TYPE_CHECKING:
    from intercom_data_events.client import Client, Contact

P = ParamSpec("P")
T = TypeVar("T")


def verb(make: Callable[P, Operation[T]]) -> Callable[Concatenate[Client, P], T]: ...


def averb(
    make: Callable[P, Operation[T]], *, loud: bool = False
) -> Callable[Concatenate[Client, P], Coroutine[Any, Any, T]]: ...


def raw(
    make: Callable[P, Operation[T]],
) -> Callable[Concatenate[Client, P], Awaitable[tuple[int, T]]]: ...


def bound(
    make: Callable[Concatenate[str, P], Operation[T]],
) -> Callable[Concatenate[Contact, P], T]: ...


def bind(
    method: Callable[Concatenate[Client, str, P], T],
) -> Callable[Concatenate[Contact, P], T]: ...


def same(make: Callable[P, T]) -> Callable[P, T]: ...


def named(make: Callable[P, T]) -> str: ...
""",
}
CLASSES = """
class Client:
    def list(self, per_page: int = 20, **options: int) -> list[str]: ...

    async def acreate(self, name: str, user_id: str | None = None) -> None: ...

    async def raw_list(self, per_page: int = 20, **options: int) -> tuple[int, list[str]]: ...

    def create(self, name: str, user_id: str | None = None) -> None: ...

    def loud(self, name: str) -> None: ...


class Contact:
    def create(self, name: str, /, *, at: int | None = None) -> None: ...

    async def acreate(self, name: str, /, *, at: int | None = None) -> None: ...
"""
MADE = """
from intercom_data_events._sending import operations, verbs
from intercom_data_events._sending.operations import create as _create
from intercom_data_events._sending.verbs import averb, bound, verb


def _loud(client, name: str) -> None: ...


class Client:
    list = verb(operations.list_page)
    acreate = averb(operations.create, loud=True)
    raw_list = verbs.raw(operations.list_page)
    create = verb(_create)
    loud = verbs.same(_loud)


class Contact:
    create = bound(operations.create_for)
    acreate = verbs.bind(averb(operations.create_for))
"""


@pytest.fixture
def verbs(repository):
    """The repository, with methods that decorators make of functions, committed as `def`s."""
    (repository.root / PUBLIC / "_sending").mkdir()
    for path, text in VERBS.items():
        (repository.root / path).write_text(text, encoding="utf-8")
    repository.change(f"{PUBLIC}/__init__.py", "Client, Region", "Client, Contact, Region")
    repository.change(f"{PUBLIC}/__init__.py", '["Client", ', '["Client", "Contact", ')
    _, _, written = FILES[f"{PUBLIC}/client.py"].partition("class _Verbs")
    repository.change(f"{PUBLIC}/client.py", f"class _Verbs{written}", CLASSES)
    repository.commit()
    repository.change(f"{PUBLIC}/client.py", CLASSES, MADE)
    return repository


def test_a_method_that_is_made_of_a_function_is_as_one_that_is_written_out(verbs):
    assert verbs.run("HEAD")[1][1] == "Nothing changed."


@pytest.mark.parametrize(
    ("path", "old", "new", "rows"),
    [
        (
            "operations",
            ", user_id: str",
            ", user: str",
            [
                ["yes", "Client.acreate(user_id)", "removed"],
                ["yes", "Client.create(user_id)", "removed"],
            ],
        ),
        (
            "operations",
            "per_page: int = 20",
            "per_page: int",
            [
                ["yes", "Client.list(per_page)", "parameter is now required: int = 20 → int"],
                ["yes", "Client.raw_list(per_page)", "parameter is now required: int = 20 → int"],
            ],
        ),
        (
            "operations",
            "at: int | None = None",
            "at: int",
            [
                ["yes", "Contact.acreate(at)", "parameter is now required: "],
                ["yes", "Contact.create(at)", "parameter is now required: "],
            ],
        ),
        ("operations", "contact: str", "whose: bytes", []),
        (
            "operations",
            "= None) -> Operation[None]: ...\n\n\ndef list",
            "= None) -> Operation[bool]: ...\n\n\ndef list",
            [
                ["maybe", "Client.acreate", "async function -> None → async function -> bool"],
                ["maybe", "Client.create", "function -> None → function -> bool"],
            ],
        ),
        ("verbs", "tuple[int, T]", "T", [["maybe", "Client.raw_list", "async function -> tuple"]]),
        ("client", "    create = verb(_create)\n", "", [["yes", "Client.create", "removed"]]),
        (
            "client",
            "verb(_create)",
            "averb(_create)",
            [["maybe", "Client.create", "function -> None → async function -> None"]],
        ),
        # What is made is no function then, whatever it is made of.
        (
            "client",
            "    create = verb(_create)\n",
            "    create = verb(_create)\n    title = verbs.named(_create)\n",
            [["no", "Client.title", "added: attribute"]],
        ),
    ],
)
def test_a_method_changes_with_the_function_that_it_is_made_of(verbs, path, old, new, rows):
    verbs.commit()
    folder = PUBLIC if path == "client" else f"{PUBLIC}/_sending"
    verbs.change(f"{folder}/{path}.py", old, new)

    found = [
        [breaks, name.removeprefix("intercom_data_events."), text]
        for breaks, name, text in verbs.rows()
        if not text.startswith("added: str | None")
    ]

    assert [row[:2] for row in found] == [row[:2] for row in rows]
    assert all(
        text.startswith(expected) for (*_, text), (*_, expected) in zip(found, rows, strict=True)
    )
