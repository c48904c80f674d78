"""What the tests of the regeneration share: a description of our own, a copy of the project, runs.

The description is shaped like Intercom's (other operations and schemas around the data events,
prose, examples, defaults, extensions), in our own words.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import io
import json
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import openapi_python_client
import pytest
import regenerate
import yaml

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "intercom_data_events_api"
Json = dict[str, Any]
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _versions(version: str) -> list[str]:
    known = [f"1.{minor}" for minor in range(5)] + [f"2.{minor}" for minor in range(17)]
    if version not in known:
        return [*known, version]
    return known[: known.index(version) + 1]


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(description: str, **more: object) -> Json:
    return {"type": "string", "description": description, "example": "for example", **more}


def _seconds(description: str) -> Json:
    return {
        "type": "integer",
        "format": "date-time",
        "description": description,
        "example": 1671028894,
    }


def _operation(name: str, tag: str, responses: Json, **more: object) -> Json:
    return {
        "summary": f"What {name} is for",
        "description": f"A few words about {name}.\n\nAnd more: a colon, # and a dash -.",
        "tags": [tag],
        "operationId": name,
        "parameters": [
            {"name": "Intercom-Version", "in": "header", "schema": _reference("intercom_version")}
        ],
        "responses": responses,
        "x-internal": {"owner": "nobody"},
        **more,
    }


def _answer(schema: str, example: object) -> Json:
    return {
        "description": "It worked",
        "content": {
            "application/json": {
                "examples": {"one": {"value": example}},
                "schema": _reference(schema),
            }
        },
    }


def _body(schema: str) -> Json:
    return {"content": {"application/json": {"schema": _reference(schema), "examples": {}}}}


def _unauthorized() -> Json:
    return _answer("error", {"type": "error.list", "errors": [{"code": "unauthorized"}]})


def _events() -> Json:
    identities = [
        {
            "title": f"by {name}",
            "properties": {name: {"type": "string"}},
            "required": [name],
            "additionalProperties": False,
        }
        for name in ("user_id", "intercom_user_id", "email")
    ]
    listing = _operation(
        "lisDataEvents",
        "Data Events",
        {
            "200": _answer("data_event_summary", {"type": "event.summary", "events": []}),
            "401": _unauthorized(),
        },
    )
    listing["parameters"] += [
        {
            "in": "query",
            "name": "filter",
            "required": True,
            "style": "form",
            "explode": True,
            "schema": {"type": "object", "oneOf": identities},
        },
        {
            "name": "type",
            "in": "query",
            "required": True,
            "description": "Whose events.",
            "schema": {"type": "string"},
        },
        {
            "name": "summary",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean"},
        },
    ]
    return {
        "/events": {
            "post": _operation(
                "createDataEvent",
                "Data Events",
                {"202": {"description": "Taken"}, "401": _unauthorized()},
                requestBody=_body("create_data_event_request"),
            ),
            "get": listing,
        },
        "/events/summaries": {
            "post": _operation(
                "dataEventSummaries",
                "Data Events",
                {"200": {"description": "Taken"}, "401": _unauthorized()},
                requestBody=_body("create_data_event_summaries_request"),
            ),
        },
    }


def _event_schemas() -> Json:
    event = {
        "event_name": _text("What happened."),
        "created_at": _seconds("When it happened."),
        "user_id": _text("Whose it is."),
        "id": _text("Whose it is, to Intercom."),
        "email": _text("Whose it is, by e-mail."),
        "metadata": {
            "type": "object",
            "description": "More about it.",
            "additionalProperties": {"type": "string"},
            "example": {"color": "red"},
        },
    }
    kinds = {
        name: _text("The kind of object.", enum=[name])
        for name in ("event", "event.list", "event.summary")
    }
    return {
        "create_data_event_request": {
            "title": "A new event",
            "description": "",
            "type": "object",
            "properties": copy.deepcopy(event),
            "anyOf": [
                {"title": f"with {name}", "required": ["event_name", "created_at", name]}
                for name in ("id", "user_id", "email")
            ],
        },
        "create_data_event_summaries_request": {
            "title": "New summaries",
            "type": "object",
            "properties": {
                "user_id": _text("Whose they are."),
                "event_summaries": {
                    "type": "object",
                    "description": "What happened, counted.",
                    "properties": {
                        "event_name": _text("What happened."),
                        "count": {"type": "integer", "example": 1},
                        "first": _seconds("The first time."),
                        "last": _seconds("The last time."),
                    },
                },
            },
        },
        "data_event": {
            "title": "An event",
            "type": "object",
            "x-tags": ["Data Events"],
            "properties": {
                "type": kinds["event"],
                **{name: copy.deepcopy(event[name]) for name in list(event)[:4]},
                "intercom_user_id": _text("Whose it is, to Intercom."),
                **{name: copy.deepcopy(event[name]) for name in list(event)[4:]},
            },
            "required": ["event_name", "created_at"],
        },
        "data_event_list": {
            "title": "Events",
            "type": "object",
            "properties": {
                "type": kinds["event.list"],
                "events": {"type": "array", "items": _reference("data_event")},
                "pages": {
                    "type": "object",
                    "properties": {"next": _text("On."), "since": _text("Back.")},
                },
            },
        },
        "data_event_summary": {
            "title": "Events, counted",
            "type": "object",
            "properties": {
                "type": kinds["event.summary"],
                "email": _text("Whose they are."),
                "intercom_user_id": _text("Whose they are."),
                "user_id": _text("Whose they are."),
                "events": {"type": "array", "items": _reference("data_event_summary_item")},
            },
        },
        "data_event_summary_item": {
            "title": "Some events, counted",
            "type": "object",
            "nullable": True,
            "properties": {
                "name": _text("What happened."),
                "first": _text("The first time.", example="2014-01-16T23:12:21.000+00:00"),
                "last": _text("The last time.", example="2014-01-16T23:12:21.000+00:00 "),
                "count": {"type": "integer", "example": 1},
                "description": _text("What it means."),
            },
        },
    }


@functools.cache
def _added() -> Json:
    """Operations that the client has beside those described here, as the committed slice has them.

    So a new operation is part of the description without being described once more.
    """
    sliced = yaml.load((ROOT / "openapi" / "upstream.yaml").read_bytes(), Loader=_LOADER)
    own = _events()
    return {
        "paths": {path: item for path, item in sliced["paths"].items() if path not in own},
        "schemas": sliced["components"]["schemas"],
    }


def _describe(version: str = "2.16") -> Json:
    added = _added()
    error = {
        "type": "object",
        "title": "Failure",
        "properties": {
            "type": _text("Always the same."),
            "request_id": _text("Which request.", nullable=True, format="uuid"),
            "errors": {
                "type": "array",
                "items": {
                    "properties": {
                        "code": _text("For programs."),
                        "message": _text("For people.", nullable=True),
                        "field": _text("Where.", nullable=True),
                    },
                    "required": ["code"],
                },
            },
        },
        "required": ["type", "errors"],
    }
    return copy.deepcopy(
        {
            "openapi": "3.0.1",
            "info": {
                "title": "A conversation platform",
                "version": version,
                "description": "Words, words, words.",
                "contact": {"name": "Someone", "url": "https://example.org"},
                "license": {"name": "Some licence"},
            },
            "paths": {
                "/contacts": {
                    "get": _operation("ListContacts", "Contacts", {"200": _answer("contact", {})}),
                    "post": _operation(
                        "CreateContact",
                        "Contacts",
                        {"200": _answer("contact", {"id": "1"}), "401": _unauthorized()},
                        requestBody=_body("contact"),
                    ),
                },
                **_events(),
                **added["paths"],
                "/articles/{article_id}": {
                    "parameters": [
                        {
                            "name": "article_id",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "integer"},
                        }
                    ],
                    "get": _operation("readArticle", "Articles", {"200": _answer("article", {})}),
                },
            },
            "components": {
                "schemas": {
                    **added["schemas"],
                    "article": {
                        "type": "object",
                        "properties": {
                            "title": _text("Its title."),
                            "author": _reference("contact"),
                            "related": {"type": "array", "items": _reference("article")},
                        },
                    },
                    "contact": {
                        "type": "object",
                        "properties": {
                            "id": _text("Which."),
                            "signed_up_at": _seconds("When."),
                            "role": {"type": "string", "enum": ["user", "lead"], "default": "user"},
                        },
                    },
                    **_event_schemas(),
                    "error": error,
                    "intercom_version": {
                        "description": "A version.</br>By default, the one of the app.",
                        "type": "string",
                        "example": version,
                        "default": version,
                        "enum": _versions(version),
                    },
                },
                "securitySchemes": {"bearerAuth": {"type": "http", "scheme": "bearer"}},
            },
            "servers": [
                {"url": "https://api.intercom.io", "description": "One server"},
                {"url": "https://api.eu.intercom.io", "description": "Another one"},
                {"url": "https://api.au.intercom.io", "description": "A third one"},
            ],
            "security": [{"bearerAuth": []}],
            "tags": [{"name": "Data Events", "description": "What people did."}],
        }
    )


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    code: int
    out: str
    err: str


class Project:
    """A copy of the project's openapi/ and generated/, to regenerate in."""

    def __init__(self, root: Path, work: Path, like: Path = ROOT) -> None:
        self.root = root
        self._work = work
        for part in ("openapi", "generated"):
            shutil.copytree(
                like / part, root / part, ignore=shutil.ignore_patterns("__pycache__", ".*")
            )

    @property
    def package(self) -> Path:
        return self.root / "generated" / PACKAGE

    def write(self, description: object, name: str = "description.yaml") -> Path:
        """Serialises a description beside the project; bytes and text are written as they are."""
        path = self._work / name
        if isinstance(description, bytes):
            path.write_bytes(description)
        elif isinstance(description, str):
            path.write_text(description, encoding="utf-8")
        elif name.endswith(".json"):
            path.write_text(json.dumps(description, indent=1), encoding="utf-8")
        else:
            text = yaml.dump(description, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
            path.write_text(text, encoding="utf-8")
        return path

    def say_version(self, version: str) -> None:
        """Makes the package's version known, which a release follows."""
        about = self.root / "overlays" / "intercom_data_events" / "__about__.py"
        about.parent.mkdir(parents=True)
        about.write_text(f'__version__ = "{version}"\n', encoding="utf-8")

    def run(self, *arguments: object) -> Outcome:
        """Runs the regeneration in this process; a description is written to a file first."""
        words = [
            str(self.write(argument) if isinstance(argument, dict) else argument)
            for argument in arguments
        ]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = regenerate.main(["--project", str(self.root), *words])
        return Outcome(code, out.getvalue(), err.getvalue())

    def files(self) -> dict[str, bytes | None]:
        """Everything below the project, folders included, so that nothing is left over unseen."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(self.root.rglob("*"))
        }

    def generated(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted((self.root / "generated").rglob("*"))
            if path.is_file()
        }

    def names(self) -> set[str]:
        """The Python names of the generated package: modules, functions, classes, fields."""
        return _names(self.package)

    def imports(self, code: str = "") -> Outcome:
        """Compiles and imports every generated module in a fresh process, then runs code there."""
        program = f"""
import compileall, importlib, json, pkgutil, sys, warnings
warnings.simplefilter("error")
sys.dont_write_bytecode = True
import {PACKAGE} as package
for module in pkgutil.walk_packages(package.__path__, "{PACKAGE}."):
    importlib.import_module(module.name)
models = importlib.import_module("{PACKAGE}.models")
for name in models.__all__:
    getattr(models, name)
{code}
"""
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.root / "generated",
            env={**os.environ, "PYTHONPATH": str(self.root / "generated")},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


def _names(package: Path) -> set[str]:
    found = set()
    for path in package.rglob("*.py"):
        module = path.relative_to(package).as_posix()
        found.add(module)
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                found.update(f"{module} {node.name}({each.arg})" for each in arguments)
                found.add(f"{module} {node.name}")
            elif isinstance(node, ast.ClassDef):
                found.update(
                    f"{module} {node.name}.{each.target.id}"
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                )
                found.add(f"{module} {node.name}")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.add(f"{module} {node.targets[0].id}")
    return found


class _Compiled(jinja2.BytecodeCache):
    """Keeps what templates compile to, for as long as they stay the same."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


@pytest.fixture(autouse=True, scope="session")
def _compiled_templates():
    """Compiles the generator's templates once, not in each run, which takes a third of its time."""
    environment = functools.partial(openapi_python_client.Environment, bytecode_cache=_Compiled())
    with pytest.MonkeyPatch.context() as changes:
        changes.setattr(openapi_python_client, "Environment", environment)
        yield


@pytest.fixture(scope="session")
def describe() -> Callable[..., Json]:
    """Makes a full description of a version, a new one each time, to change at will."""
    return _describe


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Project]:
    """Copies the project into a folder of the given name; none of them sees the others."""
    work = tmp_path / "descriptions"
    work.mkdir()

    def make_project(name: str = "project", like: Path = ROOT) -> Project:
        return Project(tmp_path / name, work, like)

    return make_project


@pytest.fixture(scope="session")
def make_session_project(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Project]:
    """Copies the project likewise, for what several tests only look at."""
    return lambda name: Project(
        tmp_path_factory.mktemp(name) / "project", tmp_path_factory.mktemp("descriptions")
    )


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    return make_project()


@pytest.fixture(scope="session")
def committed_names() -> set[str]:
    return _names(ROOT / "generated" / PACKAGE)


@pytest.fixture(scope="session")
def refused() -> Callable[..., None]:
    """Asserts that a run failed with one clear sentence that mentions the given words."""

    def refused(outcome: Outcome, *mentioned: str) -> None:
        assert outcome.code == 1, outcome
        lines = outcome.err.splitlines()
        assert len(lines) == 1, outcome.err
        assert lines[0].startswith("regenerate: ")
        assert lines[0].isprintable()
        assert "Traceback" not in outcome.err
        for words in mentioned:
            assert words in lines[0]
        assert not outcome.out

    return refused


@pytest.fixture(scope="session")
def sources() -> types.SimpleNamespace:
    """Where the tests find the project and, where it is there, the folder that is shared."""
    return types.SimpleNamespace(root=ROOT, upstream=ROOT.parent / "shared" / "upstream")
