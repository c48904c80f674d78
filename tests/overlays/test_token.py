"""Nothing that any failure shows has the access token in it; the failures are in `hunt`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import hunt
import pytest
from hunt import FAILURES, findings


@pytest.mark.parametrize("name", FAILURES)
def test_no_failure_shows_the_access_token(name):
    number, found = findings(FAILURES[name])

    assert number > 0
    assert found == []


def test_sentry_is_not_sent_the_access_token():
    # In a process of its own, because Sentry replaces functions of many libraries for good.
    done = subprocess.run(
        [sys.executable, hunt.__file__],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    shown = json.loads(done.stdout)
    assert shown.keys() == FAILURES.keys()
    assert all(number for number, _ in shown.values())
    assert [found for _, all_found in shown.values() for found in all_found] == []
