"""What all tests share: nothing of the environment that they run in."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest

import profiles

profiles.load()

# A shell starts background commands with SIGINT ignored, which programs that tests start inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trusts one authority, not a hundred, which each client takes 30 ms to load."""
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
