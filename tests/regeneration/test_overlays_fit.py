"""After regenerating from another version, the hand-written overlays fit and pin that version."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: What happens between the generated functions and the network is the same whatever the version.
VERSIONLESS = {
    "test_bulk",
    "test_connecting",
    "test_logging",
    "test_outbox",
    "test_outbox_states",
    "test_pacing",
    "test_processes",
    "test_retrying",
    "test_tracing",
    "test_tracker",
    "test_tracker_processes",
}


@pytest.mark.parametrize("version", ["2.7", "2.11", "Preview", "2.17"])
def test_the_overlays_pass_their_tests_on_every_version(project, describe, sources, version):
    description = describe(version)
    assert project.run(description).code == 0

    # Found before the installed package, which was generated from the committed description.
    environment = {**os.environ, "PYTHONPATH": str(project.root / "generated")}
    pinned = subprocess.run(
        [sys.executable, "-c", "import intercom_data_events as p; print(p.API_VERSION)"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    tests = [
        path
        for path in sorted((sources.root / "tests/overlays").glob("test_*.py"))
        if path.stem not in VERSIONLESS
    ]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=sources.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert pinned.stdout.strip() == version
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert " passed" in tested.stdout
