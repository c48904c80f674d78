"""gunicorn with workers that share an outbox: all of it is sent before they stop."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

import pytest

from intercom_data_events import Event
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox

pytestmark = [pytest.mark.costly, pytest.mark.processes]

CUSTOMERS = 60
WORKERS = 2


def order(url: str, customers: range) -> None:
    """Has the application track an event for each, several at once."""

    def answer(customer: int) -> int:
        with urlopen(Request(f"{url}/customers/{customer}", method="POST")) as answered:
            return answered.status

    with ThreadPoolExecutor(WORKERS) as pool:
        assert set(pool.map(answer, customers)) == {201}


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["each on its own", "preloaded"])
def test_what_was_tracked_is_sent_before_the_workers_stop(
    start, gate, emulator, stored, options, tmp_path
):
    program = start(
        "gunicorn", "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", f"{WORKERS}",
        *options, "shop:application",
    )  # fmt: skip
    url = program.url
    program.until(lambda: program.said.count("Booting worker with pid") == WORKERS)

    order(url, range(CUSTOMERS))
    assert not stored()
    gate.set()
    assert program.stop() == 0

    assert stored() == list(range(CUSTOMERS)), program.said
    assert emulator.counts.duplicates == 0
    left = Outbox(tmp_path / "intercom.outbox", create=False)
    assert left.status().queued == 0
    left.close()
    assert "Traceback" not in program.said


def test_what_earlier_workers_left_is_sent_while_new_ones_are_forked(
    start, gate, environment, stored, tmp_path
):
    left = Outbox(tmp_path / "intercom.outbox", Binding(environment["INTERCOM_BASE_URL"], "token"))
    for customer in range(CUSTOMERS):
        left.enqueue(Event("placed-order", user_id=f"{customer}"), time.time())
    left.close()
    gate.set()
    program = start(
        "gunicorn", "-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", f"{WORKERS}",
        "--preload", "shop:application",
    )  # fmt: skip
    order(program.url, range(CUSTOMERS, 2 * CUSTOMERS))
    program.until(lambda: stored() == list(range(2 * CUSTOMERS)))
    assert program.stop() == 0
