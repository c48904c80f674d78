"""What all tests share: nothing of the environment that they run in."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines are noisy, and how long something takes is the benchmark's business.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("local", _UNTIMED)
settings.register_profile("ci", _UNTIMED, max_examples=50, print_blob=True)
settings.register_profile("nightly", _UNTIMED, max_examples=2_000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# A shell starts background commands with SIGINT ignored, which programs that tests start inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("INTERCOM_") or variable.upper().endswith("_PROXY"):
            monkeypatch.delenv(variable)
