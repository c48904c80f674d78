"""The examples of all guides run, in their order, against the emulator.

Those of frameworks are run by the frameworks, in tests/frameworks and tests/celery_task.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guides import GUIDES, PROJECT, examples, under
from intercom_data_events.emulator import Emulator

TEXTS = {path: path.read_text(encoding="utf-8") for path in GUIDES.values()}
#: The headings above examples that are run elsewhere, and by what.
ELSEWHERE = {
    "Celery": "celery_task/test_example.py",
    "Django": "frameworks/test_django.py",
    "FastAPI": "frameworks/test_fastapi.py",
    "gunicorn": "frameworks/test_gunicorn.py",
    "Lambda": "frameworks/test_lambda.py",
    "Traces": "overlays/test_tracing.py",
}
EXAMPLES = [
    (path, *example)
    for path, text in TEXTS.items()
    for example in examples(text)
    if example not in [other for heading in ELSEWHERE for other in under(text, heading)]
]


@pytest.fixture(scope="module")
def emulator():
    return Emulator()


def parameters(path, line, code):
    """An example as a test's parameters; one that is a test is run by pytest in another process."""
    starts_process = "def test_" in code or ".Process(" in code
    marks = [pytest.mark.processes] if starts_process else []
    name = path.relative_to(PROJECT).parent.name
    return pytest.param(path, line, code, id=f"{name} line {line}".strip(), marks=marks)


@pytest.fixture
def _sigterm():
    """Restores the handler of SIGTERM, which an example sets."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("_sigterm")
@pytest.mark.parametrize(("path", "line", "code"), [parameters(*example) for example in EXAMPLES])
def test_an_example_runs(path, line, code, emulator, monkeypatch, tmp_path):
    before = len(emulator.requests)
    monkeypatch.chdir(tmp_path)  # Some write a file.
    with emulator.serve() as url:
        monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        if "def test_" in code:
            module = tmp_path / "test_example.py"
            module.write_text(code, encoding="utf-8")
            subprocess.run([sys.executable, "-m", "pytest", module], cwd=tmp_path, check=True)
            return
        # A region, where an example names one, would lead away from the emulator.
        code = re.sub(r'region="eu"', "", code)
        namespace = {"__name__": "__main__"}
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)
        if "client" in namespace:
            namespace["client"].close()

    # Some make an emulator of their own, and say themselves what is to be seen.
    assert len(emulator.requests) > before or "assert " in code


@pytest.mark.parametrize(
    ("name", "least"), [("", 4), ("overlays", 6), ("tracker", 12), ("emulator", 4)]
)
def test_a_guide_has_examples(name, least):
    assert len([path for path, *_ in EXAMPLES if path == GUIDES[name]]) >= least


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_what_is_left_out_here_is_run_elsewhere(heading):
    assert sum(len(under(text, heading)) for text in TEXTS.values()) == 1
    assert (Path(__file__).parent / ELSEWHERE[heading]).exists()


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


def test_every_argument_and_variable_of_the_table_is_there():
    import inspect

    from intercom_data_events import DataEventsClient
    from intercom_data_events._sending import settings

    text = GUIDES["overlays"].read_text(encoding="utf-8")
    table = text.partition("| argument |")[2].partition("\n\n")[0]
    arguments = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    parameters = set(inspect.signature(DataEventsClient).parameters)

    assert arguments <= parameters
    assert parameters == arguments
    source = Path(settings.__file__).read_text(encoding="utf-8")
    for variable in re.findall(r"INTERCOM_[A-Z_]+", table):
        assert variable in source
