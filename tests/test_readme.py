"""The README's examples run, in their order, against the emulator.

Those of frameworks are run by the frameworks, in tests/frameworks and tests/celery_task.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from extract_examples import examples, under
from intercom_data_events.emulator import Emulator

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
#: The headings above examples that are run elsewhere, and by what.
ELSEWHERE = {
    "Celery": "celery_task/test_example.py",
    "Django": "frameworks/test_django.py",
    "FastAPI": "frameworks/test_fastapi.py",
    "gunicorn": "frameworks/test_gunicorn.py",
    "Lambda": "frameworks/test_lambda.py",
}
EXAMPLES = [
    example
    for example in examples(TEXT)
    if example not in [other for heading in ELSEWHERE for other in under(TEXT, heading)]
]


@pytest.fixture(scope="module")
def emulator():
    return Emulator()


def parameters(line, code):
    """An example as a test's parameters; one that is a test is run by pytest in another process."""
    marks = [pytest.mark.processes] if "\ndef test_" in code else []
    return pytest.param(line, code, id=f"line {line}", marks=marks)


@pytest.mark.parametrize(("line", "code"), [parameters(*example) for example in EXAMPLES])
def test_an_example_runs(line, code, emulator, monkeypatch, tmp_path):
    before = len(emulator.requests)
    monkeypatch.chdir(tmp_path)  # Some write a file.
    with emulator.serve() as url:
        monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "token")
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        if "\ndef test_" in code:
            module = tmp_path / "test_example.py"
            module.write_text(code, encoding="utf-8")
            subprocess.run([sys.executable, "-m", "pytest", module], cwd=tmp_path, check=True)
            return
        # A region, where an example names one, would lead away from the emulator.
        code = re.sub(r'region="eu"', "", code)
        namespace = {"__name__": "__main__"}
        exec(compile("\n" * (line - 1) + code, str(README), "exec"), namespace)
        if "client" in namespace:
            namespace["client"].close()

    # Some make an emulator of their own, and say themselves what is to be seen.
    assert len(emulator.requests) > before or "assert " in code


def test_the_readme_has_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("heading", ELSEWHERE)
def test_what_is_left_out_here_is_run_elsewhere(heading):
    assert under(TEXT, heading)
    assert (Path(__file__).parent / ELSEWHERE[heading]).exists()


def test_every_argument_and_variable_of_the_table_is_there():
    import inspect

    from intercom_data_events import DataEventsClient
    from intercom_data_events._sending import settings

    table = README.read_text(encoding="utf-8").partition("| argument |")[2].partition("\n\n")[0]
    arguments = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    parameters = set(inspect.signature(DataEventsClient).parameters)

    assert arguments <= parameters
    assert parameters == arguments
    source = Path(settings.__file__).read_text(encoding="utf-8")
    for variable in re.findall(r"INTERCOM_[A-Z_]+", table):
        assert variable in source
