"""FastAPI under uvicorn: what was tracked is sent before it stops, and before it reloads."""

from __future__ import annotations

import httpx
import pytest

pytestmark = [pytest.mark.costly, pytest.mark.processes]

ORDERS = 60
READY = "Application startup complete."


def order(url: str, customers: range) -> None:
    """Has the application track an event for each."""
    with httpx.Client(base_url=url) as client:
        for customer in customers:
            answer = client.post("/orders", json={"customer": f"{customer}", "plan": "pro"})
            assert answer.status_code == 201, answer.text


def test_what_was_tracked_is_sent_before_it_stops(start, gate, emulator, stored):
    program = start("FastAPI", "-m", "uvicorn", "shop:app", "--port", "0")

    program.until(lambda: READY in program.said)
    order(program.url, range(ORDERS))
    assert not stored()
    gate.set()
    program.stop()

    assert stored() == list(range(ORDERS)), program.said
    assert "Application shutdown complete." in program.said
    assert emulator.events[0].event_name == "placed-order"
    assert emulator.events[0].metadata == {"plan": "pro"}


def test_what_was_tracked_is_sent_before_it_reloads(start, gate, stored, tmp_path):
    program = start("FastAPI", "-m", "uvicorn", "shop:app", "--port", "0", "--reload")

    program.until(lambda: READY in program.said)
    order(program.url, range(ORDERS))
    assert not stored()
    gate.set()
    (tmp_path / "shop.py").touch()
    program.until(lambda: program.said.count(READY) == 2)
    assert stored() == list(range(ORDERS))
    order(program.url, range(ORDERS, 2 * ORDERS))
    program.stop()

    assert stored() == list(range(2 * ORDERS)), program.said
