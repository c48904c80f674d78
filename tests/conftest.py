"""Keeps the environment out of all tests, and marks and measures them by their files."""

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


#: Files of tests that run no line, or almost none, which others leave out. They are not measured,
#: nor are tests that are marked as costly.
UNMEASURED = {
    "test_contract.py",
    "test_exits.py",
    "test_figures.py",
    "test_hostile_input.py",
    "test_import_stopping.py",
    "test_layering.py",
    "test_one_owner.py",
    "test_outbox_owners.py",
    "test_guides.py",
    "test_processes.py",
    "test_retrying.py",
    "test_searching.py",
    "test_stopped_clocks.py",
    "test_successes.py",
    "test_systemic_answers.py",
    "test_unknown_contacts.py",
    "test_vocabulary.py",
    "test_whose_context.py",
}
#: Files of tests that are marked as "libraries": bytes and types that libraries read and write.
LIBRARIES = {
    f"test_{name}.py"
    for name in (
        "addresses", "bounds", "libraries", "logging", "metadata", "misplaced_answers", "reading",
        "reading_leniently", "said_by_failures", "settings", "successes", "token",
        "tracker_metrics",
    )
}  # fmt: skip
#: Files of tests that are marked as "once": rules of our own, by simulated time or in a file.
ONCE = {
    f"test_{name}.py"
    for name in (
        "failure_classes", "outbox_crafted", "outbox_full_disk", "outbox_remedies",
        "outbox_rescue", "outbox_size", "outbox_states", "outbox_taken", "pacing", "retrying",
        "systemic_answers", "tracker_preparation", "unknown_contacts",
    )
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in LIBRARIES:
            item.add_marker(pytest.mark.libraries)
        if item.path.name in ONCE:
            item.add_marker(pytest.mark.once)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Does not measure tests of no line of their own: coverage doubles their CPU time."""
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
    """Trusts one certificate authority: each client would take 30 ms to load a hundred."""
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
