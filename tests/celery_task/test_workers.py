"""Real workers on a real Redis: nothing is lost, whoever is killed, and the rate limit is kept."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest
from celery import group

from intercom_data_events import NotFoundError
from intercom_data_events.celery import send_event
from intercom_data_events.emulator import (
    EmulatedContact,
    Emulator,
    EmulatorServer,
    Fault,
    random_faults,
)

from .conftest import NAME, PATIENCE, TOKEN, event, numbers, until

pytestmark = [pytest.mark.costly, pytest.mark.processes]


def slowly(seconds: float, times: int) -> Emulator:
    """An emulator that dawdles with the first requests."""
    return Emulator(faults=[Fault.slow(seconds)] * times, rate_limit=None)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_sends_what_it_can_and_fails_what_is_refused(planting, pool):
    contacts = [EmulatedContact(user_id=f"{number}") for number in range(20)]
    emulator = Emulator(
        contacts=contacts, faults=random_faults(0.2, seed=1, among=[Fault.failing(503)])
    )
    plant = planting(emulator, results="json")
    plant.start(pool=pool)

    for number in range(20):
        send_event.delay(event(number))
    refused = send_event.delay(event(99, email="frodo@example.com"))

    # What JSON keeps of an error: its name and what it says.
    with pytest.raises(Exception, match=r"NotFoundError.*404"):
        refused.get(timeout=PATIENCE)
    until(lambda: len(emulator.events) == 20, lambda: plant.said)
    assert numbers(emulator) == list(range(20))
    # At first, and when its patience ends.
    assert emulator.counts.refused == 2
    assert emulator.counts.duplicates == 0
    assert TOKEN not in plant.said
    assert "frodo" not in plant.said


def test_a_result_that_is_pickled_is_the_error_itself(planting):
    plant = planting(Emulator(contacts=[]), results="pickle")
    plant.start()

    with pytest.raises(NotFoundError) as caught:
        send_event.delay(event()).get(timeout=PATIENCE)

    assert caught.value.status_code == 404
    assert caught.value.request_id


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_contact_may_be_created_a_little_later_than_its_event(planting, pool):
    emulator = Emulator(contacts=[])
    plant = planting(emulator)
    plant.start(pool=pool)

    send_event.delay(event(7))
    until(lambda: emulator.counts.refused, lambda: plant.said)
    emulator.add_contact(EmulatedContact(user_id="7"))

    until(lambda: numbers(emulator) == [7], lambda: plant.said)
    assert " raised unexpected" not in plant.said


class Firewalled(Emulator):
    """A firewall in front of it refuses the event of number 0."""

    def serve(self) -> EmulatorServer:
        return EmulatorServer(self.answer)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if json.loads(request.read())["user_id"] == "0":
            return httpx.Response(403, content=b"<html>No</html>", request=request)
        return super().answer(request)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_an_event_that_alone_gets_a_systemic_answer_fails(planting, pool):
    emulator = Firewalled()
    soon = {"default_retry_delay": 0.2, "retry_backoff_max": 0.2}
    plant = planting(emulator, task_annotations={NAME: soon})
    plant.start(pool=pool)

    send_event.delay(event(0))
    # As long as no other event is accepted, it may be what all get.
    until(lambda: plant.said.count("no event can be sent") > 5, lambda: plant.said)
    assert " raised unexpected" not in plant.said
    for number in range(1, 21):
        send_event.delay(event(number))

    until(lambda: " raised unexpected" in plant.said, lambda: plant.said)
    until(lambda: len(emulator.events) == 20, lambda: plant.said)
    assert plant.said.count(" raised unexpected: PermissionDeniedError") == 1


def test_what_takes_too_long_is_sent_again(planting):
    emulator = slowly(30, times=2)
    plant = planting(emulator)
    plant.start()

    send_event.apply_async((event(7),), soft_time_limit=1)
    send_event.apply_async((event(8),), time_limit=1)

    # Slow answers are those of requests that were processed.
    until(
        lambda: emulator.counts.duplicates == 2 and numbers(emulator) == [7, 8], lambda: plant.said
    )
    assert "Soft time limit (1s) exceeded" in plant.said
    assert "Hard time limit (1s) exceeded" in plant.said


def test_an_event_whose_process_is_killed_is_sent_again(planting):
    emulator = slowly(30, times=1)
    plant = planting(emulator)
    plant.start()

    send_event.delay(event(7))
    until(lambda: emulator.counts.requests == 1, lambda: plant.said)
    for child in plant.children():
        os.kill(child, signal.SIGKILL)

    until(lambda: emulator.counts.duplicates, lambda: plant.said)
    assert numbers(emulator) == [7]


def test_events_of_a_worker_that_is_killed_are_sent_by_another(planting):
    emulator = Emulator(faults=[*[None] * 4, *[Fault.slow(30)] * 2], rate_limit=None)
    plant = planting(emulator)
    worker = plant.start()

    # By then its processes have clients and connections. On a busy machine, making these can take
    # longer than Redis reserves a message.
    for number in range(4):
        send_event.delay(event(number))
    until(lambda: emulator.counts.stored == 4 and not plant.taken, lambda: plant.said)
    for number in range(4, 54):
        send_event.delay(event(number))
    # Two are in flight, and six are taken out of the queue already. While it takes one out, a
    # worker must not be killed: Celery has done with it at Redis before it notes it there (kombu
    # 5.7).
    until(lambda: emulator.counts.requests == 6 and plant.taken == 8, lambda: plant.said)
    worker.kill()
    plant.start()

    until(lambda: emulator.counts.requests == 56, lambda: plant.said)
    assert numbers(emulator) == list(range(54))


def test_workers_keep_to_one_rate_limit(planting):
    emulator = Emulator(rate_limit=200, window=2)
    plant = planting(emulator)
    for _ in range(2):
        plant.start(pool="threads", concurrency=8)

    group(send_event.s(event(number)) for number in range(400)).delay()

    until(lambda: emulator.counts.stored == 400, lambda: plant.said)
    # Each learns of the other by what answers say. Without that, it is every thread in each window.
    assert emulator.counts.limited <= 5
    assert " retry: " not in plant.said
