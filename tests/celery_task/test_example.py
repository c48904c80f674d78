"""The tracker's README's example, run by a real worker on a real Redis."""

from __future__ import annotations

import subprocess
import sys

import pytest

from guides import GUIDES, under
from intercom_data_events.emulator import Emulator

from .conftest import PATIENCE, until

README = GUIDES["tracker"]


@pytest.mark.costly
@pytest.mark.processes
def test_the_example_sends_by_a_worker(planting, redis, tmp_path):
    ((_, code),) = under(README.read_text(encoding="utf-8"), "Celery")
    assert "redis://localhost" in code
    # Another address, and nothing else.
    example = code.replace("redis://localhost", f"redis+socket://{redis}")
    (tmp_path / "shop.py").write_text(example, encoding="utf-8")
    emulator = Emulator()
    plant = planting(emulator)
    plant.start(folder=tmp_path)

    subprocess.run(
        [sys.executable, "-c", "import shop; shop.place_order('314159', 'pro')"],
        cwd=tmp_path, env=plant.environment, check=True, timeout=PATIENCE,
    )  # fmt: skip

    until(lambda: emulator.events, lambda: plant.said)
    (event,) = emulator.events
    assert event.event_name == "placed-order"
    assert event.user_id == "314159"
    assert event.metadata == {"plan": "pro"}
