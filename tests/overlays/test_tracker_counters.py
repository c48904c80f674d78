"""Whatever a tracker is doing: an event that has left its queue is counted."""

from __future__ import annotations

import sys

import pytest
from callers import NOW

from intercom_data_events import Event, MetadataError
from intercom_data_events.emulator import ManualClock
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue
from intercom_data_events.tracker import _scheduler
from intercom_data_events.tracker._memory import MemoryQueue
from intercom_data_events.tracker._scheduler import Scheduler


def queue_in_memory(tmp_path):
    return MemoryQueue(100)


def queue_in_file(tmp_path):
    return OutboxQueue(tmp_path / "outbox", Binding("https://api.intercom.io", "token"))


@pytest.mark.parametrize("queue_of", [queue_in_memory, queue_in_file])
@pytest.mark.parametrize(
    "error", [None, MetadataError("a transport says so")], ids=["accepted", "rejected"]
)
def test_another_thread_finds_each_event_queued_or_counted(queue_of, error, tmp_path):
    queue = queue_of(tmp_path)
    queue.enqueue(Event("placed-order", user_id="4"), NOW)
    scheduler = Scheduler(queue, ManualClock(NOW), 4, 0, lambda: None, lambda *_: None)
    queued = scheduler.next(None)
    seen = []

    def look(frame, kind, argument):
        """Reads, at each line of the scheduler, what another thread could read there."""
        if frame.f_code.co_filename == _scheduler.__file__:
            seen.append((scheduler.queued, scheduler.sent + scheduler.refused))
            return look
        return None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        scheduler.ended(queued, error)
    finally:
        sys.settrace(before)
    queue.close()

    assert len(seen) > 10
    assert set(seen) <= {(1, 0), (1, 1), (0, 1)}
    assert seen[-1] == (0, 1)
