"""What all tests share: nothing of the environment that they run in."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Machines are noisy, and how long something takes is the benchmark's business.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Shells start background commands with SIGINT ignored; programs that tests start would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("INTERCOM_") or variable.upper().endswith("_PROXY"):
            monkeypatch.delenv(variable)
