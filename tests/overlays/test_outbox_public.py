"""`Outbox`, as health checks and admin pages use it, beside the tracker that uses the file."""

from __future__ import annotations

import inspect
import pickle
import threading
from pathlib import Path

import httpx
import pytest

import intercom_data_events.outbox
from intercom_data_events import DataEventsClient, OutboxError
from intercom_data_events.emulator import EmulatedContact, Emulator
from intercom_data_events.outbox import DeadLetter, Outbox, Status
from intercom_data_events.tracker import Tracker


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.outbox"


@pytest.fixture
def emulator():
    return Emulator(contacts=[EmulatedContact(user_id="known")])


@pytest.fixture
def left(path, emulator):
    """An outbox in which one event waits and two are dead letters."""
    with (
        DataEventsClient("token", transport=emulator.transport(), max_retries=0) as client,
        Tracker(client, path, workspace="shop", unknown_contact_patience=0) as tracker,
    ):
        for user in ("unknown 1", "known", "unknown 2"):
            tracker.track("placed-order", user_id=user, created_at=1671028894)
        assert tracker.flush(20)
    away = httpx.MockTransport(lambda _: httpx.Response(503))
    with (
        DataEventsClient("token", transport=away, max_retries=0) as client,
        Tracker(client, path, workspace="shop", close_timeout=0) as tracker,
    ):
        tracker.track("placed-order", user_id="known", created_at=1671028895)
    return path


def test_what_is_public_is_documented():
    assert intercom_data_events.outbox.__all__ == ["DeadLetter", "Outbox", "Status"]
    for name, method in inspect.getmembers(Outbox, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(method), name
    assert inspect.signature(Outbox).parameters.keys() == {"path"}


@pytest.mark.parametrize("kind", [Path, str])
def test_it_says_what_is_in_the_file(left, kind):
    with Outbox(kind(left)) as outbox:
        status = outbox.status()
        letters = list(outbox.dead_letters())
        waiting = list(outbox.waiting())

    assert outbox.path == left
    assert isinstance(status, Status)
    assert (status.queued, status.dead, status.workspace) == (1, 2, "shop")
    assert status.address == "https://api.intercom.io"
    assert status.size > 0
    assert status.oldest is not None
    assert [fields["created_at"] for fields in waiting] == [1671028895]
    assert all(isinstance(letter, DeadLetter) for letter in letters)
    assert [letter.event["user_id"] for letter in letters] == ["unknown 1", "unknown 2"]
    assert {letter.error for letter in letters} == {"NotFoundError"}
    assert {letter.status for letter in letters} == {404}
    assert letters[0].tracked_at <= letters[0].died_at
    assert pickle.loads(pickle.dumps(letters)) == letters


def test_a_tracker_sends_what_is_retried_while_it_runs(left, emulator):
    with (
        DataEventsClient("token", transport=emulator.transport()) as client,
        Tracker(client, left, workspace="shop") as tracker,
        Outbox(left) as outbox,
    ):
        first, second = outbox.dead_letters()
        emulator.add_contact(EmulatedContact(user_id="unknown 1"))
        assert outbox.retry([first.id, 12_345]) == 1
        assert tracker.flush(20)
        assert [letter.id for letter in outbox.dead_letters()] == [second.id]
        assert outbox.forget() == 1
        assert outbox.status().dead == 0
        assert tracker.counters.queued == 0

    users = [event.user_id for event in emulator.events]
    assert sorted(users) == ["known", "known", "unknown 1"]


def test_it_makes_nothing_and_changes_nothing(path, left):
    missing = path.parent / "missing"
    with pytest.raises(OutboxError, match="does not exist"):
        Outbox(missing)
    assert not missing.exists()

    before = left.read_bytes()
    with Outbox(left) as outbox:
        outbox.status()
        list(outbox.dead_letters())
    assert left.read_bytes() == before


def test_it_is_shared_between_threads(left):
    with Outbox(left) as outbox:
        seen = []
        threads = [
            threading.Thread(
                target=lambda: seen.append((outbox.status().dead, len([*outbox.dead_letters()])))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert seen == [(2, 2)] * 8


def test_a_closed_one_says_so(left):
    outbox = Outbox(left)
    outbox.close()
    outbox.close()

    for use in (outbox.status, outbox.retry, outbox.forget, outbox.compact):
        with pytest.raises(RuntimeError, match="is closed; open it again"):
            use()
    for use in (outbox.waiting, outbox.dead_letters):
        with pytest.raises(RuntimeError, match="is closed; open it again"):
            list(use())


def test_letters_come_one_by_one_and_may_be_deleted_meanwhile(left):
    with Outbox(left) as outbox:
        for letter in outbox.dead_letters():
            assert outbox.forget([letter.id]) == 1
        assert outbox.status().dead == 0
