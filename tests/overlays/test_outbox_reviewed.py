"""What reviewers tried on an outbox, and what did not hold at first."""

from __future__ import annotations

import shutil

import pytest
from test_outbox import NOW, box, event, everything, opened, path

from intercom_data_events import OutboxError

__all__ = ["box", "opened", "path"]  # fixtures


# A folder that is moved or deleted with the whole outbox in it


@pytest.fixture
def folder(tmp_path):
    """A folder for an outbox alone."""
    made = tmp_path / "folder"
    made.mkdir()
    return made


def put(box, *numbers):
    for number in numbers:
        assert box.enqueue(event(number), NOW)


def test_what_was_sent_from_a_moved_file_is_not_sent_again_when_it_is_back(opened, folder):
    box = opened(folder / "outbox.db")
    put(box, *range(10))
    folder.rename(folder.with_name("moved"))
    for _ in range(8):
        box.ack(box.claim(NOW))
    box.close()
    folder.with_name("moved").rename(folder)

    assert everything(opened(folder / "outbox.db")) == [8, 9]


def test_no_event_is_tracked_to_a_file_that_is_gone_also_not_the_first_one(opened, folder, caplog):
    box = opened(folder / "outbox.db")
    put(box, 0)
    shutil.rmtree(folder)

    with pytest.raises(OutboxError, match="was moved or deleted while it was in use"):
        box.enqueue(event(1), NOW)
    box.run_maintenance(NOW, ())
    box.run_maintenance(NOW, ())
    (line,) = caplog.records
    assert "so no event is tracked; put it back" in line.getMessage()
    assert everything(box) == [0]


@pytest.mark.parametrize("noticed", [False, True])
def test_what_a_file_that_is_gone_held_unsent_is_told_at_the_end(opened, folder, noticed, caplog):
    box = opened(folder / "outbox.db")
    put(box, *range(3))
    box.ack(box.claim(NOW))
    shutil.rmtree(folder)
    if noticed:
        box.run_maintenance(NOW, ())
    box.close()

    assert "2 events of the outbox" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 1 + noticed


def test_the_end_of_a_file_that_is_gone_and_held_nothing_is_silent(opened, folder, caplog):
    box = opened(folder / "outbox.db")
    shutil.rmtree(folder)
    box.run_maintenance(NOW, ())
    caplog.clear()
    box.close()

    assert not caplog.records
