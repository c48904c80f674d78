"""After regenerating from another version, the hand-written overlays fit and pin that version."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: The tests of what touches generated code: making its requests, reading into its models, the pin.
#: What happens between them and the network does not depend on the version.
FITTED = (
    "test_contract",
    "test_event",
    "test_founding_documents",
    "test_listing",
    "test_options",
    "test_reading",
)


# The oldest, and one that is not a number; test_variants.py shows that others give the same code.
@pytest.mark.parametrize("version", ["2.7", "Preview"])
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
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = [sources.root / "tests" / "overlays" / f"{name}.py" for name in FITTED]
    tested = subprocess.run(
        # The drivers send in the same way for all versions.
        [*pytest_command, "-k", "not asyncio and not trio", *tests],
        cwd=sources.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert pinned.stdout.strip() == version
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert " passed" in tested.stdout
