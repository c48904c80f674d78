"""Which module may import which: generated code nothing of ours, the core nothing around it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import intercom_data_events
import intercom_data_events_api

PUBLIC = Path(intercom_data_events.__path__[0])
GENERATED = Path(intercom_data_events_api.__path__[0])
#: The parts around the core; the core never imports them.
AROUND = {
    "_dispatch",
    "bulk",
    "celery",
    "cli",
    "emulator",
    "outbox",
    "pytest_plugin",
    "tracker",
}
#: But for create_many and its types, which are imported where they are used, and the program that
#: `python -m` runs, which no module imports.
ALLOWED = {
    ("client.py", "intercom_data_events.bulk"),
    ("__init__.py", "intercom_data_events.bulk"),
    ("__main__.py", "intercom_data_events.cli"),
}
RUN_TIME = {
    "attr",
    "attrs",
    "dateutil",
    "httpx",
    "intercom_data_events",
    "intercom_data_events_api",
}
# What awaits in the core imports anyio when it first waits; httpx2 is for type checkers alone.
CORE_TOO = {"anyio", "httpx2"}
#: What single modules of the core need besides, which are only imported where that is there.
MODULES_TOO = {
    "engines/aiohttp_engine.py": {"aiohttp", "yarl"},
    "engines/connections.py": {"httpcore"},
    "_sending/runtime.py": {"trio"},
}
#: What each part around the core needs besides: what comes with httpx or with an extra.
AROUND_TOO = {
    "_dispatch": {"anyio", "trio"},
    "bulk": {"anyio"},
    "celery": {"celery"},
    "cli": {"anyio", "pyarrow", "rich", "typer"},
    "emulator": {"anyio", "h11", "httpx2"},
    "outbox": set(),
    "pytest_plugin": {"pytest"},
    "tracker": {"anyio", "opentelemetry"},
}


def imports(path):
    """What a module imports, as full names, wherever in it."""
    package = path.parent
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                root = package.parents[node.level - 2] if node.level > 1 else package
                top = PUBLIC if root.is_relative_to(PUBLIC) else GENERATED
                inside = root.relative_to(top.parent).parts
                base = ".".join([*inside, *([base] if base else [])])
            yield from ((base, alias.name) for alias in node.names)


def modules(root, *, leave_out=()):
    return [
        path
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).parts[0].removesuffix(".py") not in leave_out
    ]


CORE = modules(PUBLIC, leave_out=AROUND)


def test_there_is_something_to_look_at():
    assert {path.stem for path in CORE} >= {"client", "event", "errors", "exchange"}
    assert len(modules(GENERATED)) > 20
    assert len(modules(PUBLIC)) > len(CORE)


def roots(path):
    """The packages that a module imports from."""
    return {module.partition(".")[0] for module, _ in imports(path)}


def found(paths, look):
    """What breaks a rule, by the module that does."""
    return {"/".join(path.parts[-2:]): bad for path in paths if (bad := look(path))}


def test_the_generated_package_imports_nothing_of_ours():
    allowed = {"attrs", "httpx", "intercom_data_events_api"} | sys.stdlib_module_names

    assert found(modules(GENERATED), lambda path: roots(path) - allowed) == {}


def test_the_core_imports_run_time_dependencies_alone():
    allowed = RUN_TIME | CORE_TOO | sys.stdlib_module_names

    assert found(CORE, lambda path: roots(path) - allowed) == MODULES_TOO


def test_the_core_imports_none_of_the_parts_around_it():
    def of_the_parts_around(path):
        place = str(path.relative_to(PUBLIC))
        for module, name in imports(path):
            first, second, *_ = f"{module}.{name}".split(".")
            ours = first == "intercom_data_events" and second in AROUND
            if ours and (place, module) not in ALLOWED:
                yield module, name

    assert found(CORE, lambda path: list(of_the_parts_around(path))) == {}


def of_ours(path):
    """The modules of the core that a module imports, also those for type checkers alone."""
    known = {".".join(("intercom_data_events", *place(one))): one for one in CORE}
    for module, name in imports(path):
        found = known.get(f"{module}.{name}") or known.get(module)
        if found is not None and found != PUBLIC / "__init__.py":
            yield found


def place(path):
    return path.relative_to(PUBLIC).with_suffix("").parts


def test_no_modules_of_the_core_import_each_other_in_a_circle():
    needed = {path: set(of_ours(path)) for path in CORE}
    while done := {path for path, needs in needed.items() if not needs & needed.keys()}:
        needed = {path: needs for path, needs in needed.items() if path not in done}

    assert {"/".join(place(path)) for path in needed} == set()


#: What sends uses the vocabulary, and never what is made from it.
VOCABULARY = {"errors", "clock", "event", "metadata", "pagination"}
VOCABULARY |= {
    "timestamps",
    "version",
    "_inflating",
    "_loopback",
    "_validation",
    "_words",
    "__about__",
    "response",
    "_sending",
}


def test_what_sends_imports_the_vocabulary_alone():
    sending = [path for path in CORE if place(path)[0] == "_sending"]

    assert found(sending, lambda path: {place(one)[0] for one in of_ours(path)} - VOCABULARY) == {}


def test_the_parts_around_the_core_need_nothing_more_than_is_listed():
    def unlisted(path):
        part = path.relative_to(PUBLIC).parts[0].removesuffix(".py")
        return roots(path) - RUN_TIME - AROUND_TOO[part] - sys.stdlib_module_names

    assert found([path for path in modules(PUBLIC) if path not in CORE], unlisted) == {}


def test_only_public_names_of_the_generated_package_are_imported():
    def private(path):
        for module, name in imports(path):
            if module.partition(".")[0] != "intercom_data_events_api":
                continue
            parts = [*module.split("."), *([name] if name else [])]
            loaded = importlib.import_module(module)
            public = {*getattr(loaded, "__all__", [name])}
            public |= {one.name for one in pkgutil.iter_modules(getattr(loaded, "__path__", []))}
            if any(part.startswith("_") for part in parts) or name not in {None, *public}:
                yield module, name

    assert found(modules(PUBLIC), lambda path: list(private(path))) == {}


@pytest.mark.processes
def test_importing_the_package_loads_no_part_around_the_core_and_no_pagination():
    code = (
        "import sys\n"
        "from intercom_data_events import DataEventsClient, Event\n"
        "print(*(name for name in sys.modules if name.startswith('intercom_data_events')))\n"
        "print('dateutil' in sys.modules, 'anyio' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, others = done.stdout.splitlines()

    assert "intercom_data_events.client" in loaded.split()
    assert not {*AROUND, "pagination"} & {
        name.split(".")[1] for name in loaded.split() if "." in name
    }
    assert others == "False False"


@pytest.mark.processes
def test_httpx2_is_imported_by_no_one_who_does_not_use_it():
    """It is not a dependency, and an emulator, a tracker and failures need none of it."""
    code = (
        "import sys\n"
        "from intercom_data_events import APIConnectionError, DataEventsClient\n"
        "from intercom_data_events.emulator import Emulator, Fault\n"
        "from intercom_data_events.tracker import Tracker\n"
        "emulator = Emulator(faults=[Fault.failing(503), Fault.reset()])\n"
        "options = dict(access_token='token', base_url='http://127.0.0.1:1', max_retries=0)\n"
        "with DataEventsClient(**options | dict(transport=emulator.transport())) as client:\n"
        "    with Tracker(client.with_options(max_retries=2)) as tracker:\n"
        "        tracker.track('placed-order', user_id='1')\n"
        "    print(len(list(client.list(user_id='1'))), end=' ')\n"
        "with emulator.serve() as url, DataEventsClient('token', base_url=url) as client:\n"
        "    print([one.status for one in client.create_many([{'event_name': 'a', 'user_id': '1',"
        " 'created_at': 1671028894}])], end=' ')\n"
        "try:\n"
        "    DataEventsClient(**options).create('a', user_id='1')\n"
        "except APIConnectionError as error:\n"
        "    print(error.may_have_been_processed, end=' ')\n"
        "print('httpx2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1 ['accepted'] False False"


@pytest.mark.processes
def test_a_program_that_has_httpx2_take_the_place_of_httpx_works():
    """Its `alias_httpx` is for programs whose dependencies still import httpx."""
    code = (
        "import httpx2\n"
        # Before 2.9 it had none, so that both are imported.
        "getattr(httpx2, 'alias_httpx', lambda: None)()\n"
        "from intercom_data_events import DataEventsClient\n"
        "from intercom_data_events.emulator import Emulator\n"
        "emulator = Emulator()\n"
        "for options in (dict(transport=emulator.transport()),\n"
        "                dict(http_client=httpx2.Client(transport=emulator.transport()))):\n"
        "    DataEventsClient('token', **options).create('placed-order', user_id='1')\n"
        "print(len(emulator.requests))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "2\n"
