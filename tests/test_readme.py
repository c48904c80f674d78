"""The README's examples run, in their order, against the emulator."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from extract_examples import examples

from intercom_data_events.emulator import Emulator

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = examples(README.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def emulator():
    return Emulator()


@pytest.mark.parametrize(("line", "code"), EXAMPLES, ids=[f"line {line}" for line, _ in EXAMPLES])
def test_an_example_runs(line, code, emulator, monkeypatch, tmp_path):
    before = len(emulator.requests)
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


def test_every_argument_and_variable_of_the_table_is_there():
    import inspect

    from intercom_data_events import DataEventsClient, settings

    table = README.read_text(encoding="utf-8").partition("| argument |")[2].partition("\n\n")[0]
    arguments = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    parameters = set(inspect.signature(DataEventsClient).parameters)

    assert arguments <= parameters
    assert parameters == arguments
    source = Path(settings.__file__).read_text(encoding="utf-8")
    for variable in re.findall(r"INTERCOM_[A-Z_]+", table):
        assert variable in source
