"""Fixtures of all tests, which keep the environment out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import certifi
import pytest

import profiles

profiles.load()

# A shell starts background commands with SIGINT ignored, which programs that tests start inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files of tests that run only lines that other tests run, too. Coverage leaves them out, and tests
#: marked as costly.
UNMEASURED = {
    "test_exits.py",
    "test_import_stopping.py",
    "test_layering.py",
    "test_one_owner.py",
    "test_outbox_owners.py",
    "test_guides.py",
    "test_retrying.py",
    "test_stopped_clocks.py",
    "test_systemic_answers.py",
    "test_unknown_contacts.py",
    "test_vocabulary.py",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Runs tests that add no lines without coverage, which doubles the CPU time."""
    is_left_out = item.path.name in UNMEASURED or item.get_closest_marker("costly")
    pause: AbstractContextManager[None] = _unmeasured() if is_left_out else nullcontext()
    with pause:
        return (yield)


@contextmanager
def _unmeasured() -> Iterator[None]:
    coverage = sys.modules.get("coverage")
    measuring = coverage and coverage.Coverage.current()
    if not measuring:
        yield
        return
    # With this variable, coverage measures the programs that a test starts.
    started = os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()
        if started is not None:
            os.environ["COVERAGE_PROCESS_CONFIG"] = started


@pytest.fixture(autouse=True, scope="session")
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trusts one certificate authority, because each client takes 30 ms to load all."""
    bundle = Path(certifi.where()).read_text("utf-8")
    path = tmp_path_factory.mktemp("authority") / "one.pem"
    first, end, _ = bundle.partition("-----END CERTIFICATE-----\n")
    path.write_text(first + end, "utf-8")
    with pytest.MonkeyPatch.context() as changes:
        changes.setenv("SSL_CERT_FILE", str(path))
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("INTERCOM_") or variable.upper().endswith("_PROXY"):
            monkeypatch.delenv(variable)
