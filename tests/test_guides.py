"""The examples of all guides run, in their order, against the emulator.

Those of frameworks are run by the frameworks, in tests/frameworks and tests/celery_task.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from guides import GUIDES, PAGES, PROJECT, examples, under
from intercom_data_events import DataEventsClient
from intercom_data_events._sending import settings
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker

TEXTS = {path: path.read_text(encoding="utf-8") for path in GUIDES.values()}
#: The headings above examples that are run elsewhere, and by what.
ELSEWHERE = {
    "Celery": "celery_task/test_example.py",
    "Django": "frameworks/test_django.py",
    "FastAPI": "frameworks/test_fastapi.py",
    "gunicorn": "frameworks/test_gunicorn.py",
    "Lambda": "frameworks/test_lambda.py",
    "Recording with VCR": "overlays/test_mocking_libraries.py",
    "Traces": "overlays/test_tracing.py",
}
#: The name of each guide.
PLACES = {path: name or "readme" for name, path in GUIDES.items()}
EXAMPLES = [
    (path, *example)
    for path, text in TEXTS.items()
    for example in examples(text)
    if example not in [other for heading in ELSEWHERE for other in under(text, heading)]
]


#: Those that are tests, which one run of pytest runs in a separate process.
TESTS = [example for example in EXAMPLES if "def test_" in example[2]]


@pytest.fixture(scope="module")
def emulator():
    return Emulator()


def named(path, line):
    """Returns an example's name: its guide and its line."""
    return f"{PLACES[path]} line {line}"


def parameters(path, line, code):
    """An example as a test's parameters."""
    marks = [pytest.mark.processes] if ".Process(" in code else []
    return pytest.param(path, line, code, id=named(path, line), marks=marks)


@pytest.fixture
def _restored():
    """Restores what examples set: the handler of SIGTERM, and the levels of loggers."""
    handler = signal.getsignal(signal.SIGTERM)
    loggers = [logging.getLogger(name) for name in ("intercom_data_events", "httpx")]
    levels = [logger.level for logger in loggers]
    yield
    signal.signal(signal.SIGTERM, handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(
    ("path", "line", "code"),
    [parameters(*example) for example in EXAMPLES if example not in TESTS],
)
def test_an_example_runs(path, line, code, emulator, monkeypatch, tmp_path):
    before = len(emulator.requests)
    monkeypatch.chdir(tmp_path)  # Some write a file.
    with emulator.serve() as url:
        monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        # A region, where an example names one, would lead away from the emulator.
        code = code.replace('region="eu"', "")
        namespace = {"__name__": "__main__"}
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)
        if "client" in namespace:
            namespace["client"].close()

    # Some make an emulator of their own, and say themselves what is to be seen.
    assert len(emulator.requests) > before or "assert " in code


@pytest.mark.processes
def test_examples_that_are_tests_pass(monkeypatch, tmp_path):
    # Nothing listens there: a request that an example does not intercept fails.
    monkeypatch.setenv("INTERCOM_BASE_URL", "http://127.0.0.1:9")
    for path, line, code in TESTS:
        module = tmp_path / f"test_{named(path, line).replace(' ', '_')}.py"
        module.write_text(code, encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("name", "least"), [("", 4), ("overlays", 14), ("tracker", 12), ("emulator", 4)]
)
def test_a_guide_has_examples(name, least):
    assert len([path for path, *_ in EXAMPLES if path == GUIDES[name]]) >= least


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_every_block_of_python_is_an_example(path):
    text = path.read_text(encoding="utf-8")
    blocks = [
        block.content
        for block in MarkdownIt("commonmark").parse(text)
        if block.type in ("fence", "code_block") and re.match(r"py|$", block.info)
    ]

    assert [code for _, code in examples(text)] == blocks
    assert blocks == [] or path in TEXTS


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_what_is_left_out_here_is_run_elsewhere(heading):
    assert sum(len(under(text, heading)) for text in TEXTS.values()) == 1
    source = (Path(__file__).parent / ELSEWHERE[heading]).read_text(encoding="utf-8")
    assert f'"{heading}"' in source


def quotes(markdown):
    """The messages in the first column of the tables of problems: in quotation marks or code."""
    for table in re.findall(r"^\| (?:error|message)\b.*\n(?:\|.*\n)+", markdown, re.MULTILINE):
        for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE):
            for said, code in re.findall(r'"([^"]+)"|`([^`]+)`', cell):
                # Code of one word is a name.
                quote = said or (code if " " in code else "")
                yield from filter(None, (part.strip(" ,:") for part in quote.split("…")))


@pytest.fixture(scope="module")
def literals():
    """All strings of the code but docstrings; the parts of an f-string are separate."""
    found = []
    for folder in ("overlays", "scripts"):
        for path in (PROJECT / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
            found += [
                node.value
                for node in nodes
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
                if node not in docstrings
            ]
    return "\n".join(found)


#: Messages of others: of Intercom, OpenSSL and asyncio.
OF_OTHERS = {"hosted in", "certificate verify failed", "Event loop is closed"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.parent.name)
def test_the_messages_that_a_guide_explains_are_those_of_the_code(path, literals):
    def is_written(words):
        if len(words) < 2:
            return not words
        return any(
            " ".join(words[:end]) in literals and is_written(words[end:])
            for end in range(len(words), 1, -1)
        )

    quoted = set(quotes(TEXTS[path])) - OF_OTHERS

    assert [
        quote for quote in quoted if quote not in literals and not is_written(quote.split())
    ] == []


def test_the_guide_to_regenerating_names_each_file_and_only_files_that_are_there():
    guide = GUIDES["openapi"]
    text = guide.read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE))
    recipe = text.partition("## A new operation")[2]
    named = re.findall(r"`((?:openapi|overlays|scripts|tests|templates)/[^`]+)`", recipe)

    found = {f"{path.name}/" if path.is_dir() else path.name for path in guide.parent.iterdir()}
    assert listed == found - {guide.name}
    assert [path for path in named if not (PROJECT / path).exists()] == []
    assert len(named) > 10


def table_of_arguments(name):
    """The first table of arguments in a guide, and the names in it."""
    text = GUIDES[name].read_text(encoding="utf-8")
    table = text.partition("| argument |")[2].partition("\n\n")[0]
    return table, set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))


def test_the_tables_of_settings_have_every_argument():
    for name, called in (("overlays", DataEventsClient), ("tracker", Tracker)):
        _, arguments = table_of_arguments(name)
        assert arguments == set(inspect.signature(called).parameters)


def test_every_variable_of_the_table_of_settings_is_read():
    table, _ = table_of_arguments("overlays")
    source = Path(settings.__file__).read_text(encoding="utf-8")
    for variable in re.findall(r"INTERCOM_[A-Z_]+", table):
        assert variable in source
