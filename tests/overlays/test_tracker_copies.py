"""Copies of a tracker are the tracker; a pickle holds its settings, without the token."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import json
import multiprocessing
import pickle
import time

import anyio
import pytest
from programs import Program

from intercom_data_events import (
    AsyncDataEventsClient,
    ConfigurationError,
    DataEventsClient,
    QueueFullError,
)
from intercom_data_events.emulator import Emulator, Fault
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Seconds after which whatever has not happened is stuck.
PATIENCE = 20
TOKEN = "very-secret-token"

METHODS = {"forkserver", "spawn"} & {*multiprocessing.get_all_start_methods()}

each_copy = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
each_event_loop = pytest.mark.parametrize("event_loop", ["asyncio", "trio"])


@pytest.fixture
def emulator():
    return Emulator(rate_limit=None)


@pytest.fixture(params=["memory", "file"])
def outbox(request, tmp_path):
    """Where events wait."""
    return None if request.param == "memory" else tmp_path / "outbox"


@pytest.fixture
def other_token(monkeypatch):
    """What a process that unpickles has in its environment."""
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-token")


def track(tracker, *users):
    for user in users:
        tracker.track("placed-order", user_id=str(user))


def users_of(emulator):
    return sorted(event.user_id for event in emulator.events)


def tokens_of(emulator):
    return {request.headers["authorization"] for request in emulator.requests}


#: What the function below was called with.
TOLD = []


def tell(event, error):
    """Stands for an application's function, which a pickle refers to by its name."""
    TOLD.append((event.user_id, type(error).__name__))


@pytest.fixture
def told():
    TOLD.clear()
    yield TOLD
    TOLD.clear()


# Copies.


@each_copy
def test_a_copy_is_the_tracker_itself(emulator, outbox, copied):
    with DataEventsClient("token", transport=emulator.transport()) as client:
        tracker = Tracker(client, outbox)
        service = {"tracker": tracker, "track": tracker.track}
        assert copied(tracker) is tracker
        track(copied(tracker), *range(5))
        copied(service)["track"]("placed-order", user_id="bound")
        assert tracker.flush(PATIENCE)
        assert tracker.counters.sent == 6
        assert copied(service)["tracker"].close(PATIENCE)
        with pytest.raises(RuntimeError, match="closed"):
            track(tracker, "late")

    assert users_of(emulator) == [*map(str, range(5)), "bound"]


@each_event_loop
@each_copy
def test_a_copy_of_an_async_tracker_is_the_tracker_itself(emulator, event_loop, copied):
    async def main():
        async with AsyncDataEventsClient("token", transport=emulator.transport()) as client:
            tracker = AsyncTracker(client)
            assert copied(tracker) is tracker
            async with copied(tracker):
                assert copied(tracker) is tracker
                await copied(tracker).track("placed-order", user_id="1")
                await copied({"track": tracker.track})["track"]("placed-order", user_id="2")
                assert await tracker.flush(PATIENCE)

    anyio.run(main, backend=event_loop)

    assert users_of(emulator) == ["1", "2"]


# Pickles.


@pytest.mark.parametrize("of", [lambda one: one, lambda one: one.track, lambda one: [one.close]])
def test_a_pickle_holds_no_token_and_no_event(outbox, of):
    with DataEventsClient(TOKEN, base_url="http://127.0.0.1:9") as client:
        tracker = Tracker(client, outbox, close_timeout=0)
        track(tracker, "a-private-user")
        pickled = pickle.dumps(of(tracker))
        tracker.close()

    assert TOKEN.encode() not in pickled
    assert b"a-private-user" not in pickled
    assert b"127.0.0.1:9" in pickled


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_unpickled_tracker_sends_with_the_token_of_the_environment(
    emulator, other_token, protocol
):
    with emulator.serve() as url, DataEventsClient(TOKEN, base_url=url) as client:
        tracker = Tracker(client)
        track(tracker, "before")
        assert tracker.flush(PATIENCE)
        twin = pickle.loads(pickle.dumps(tracker, protocol))
        # It has its own queue, threads and figures.
        assert twin.counters.sent == 0
        track(twin, 1, 2)
        assert twin.flush(PATIENCE)
        assert twin.counters.sent == 2
        assert tracker.counters.sent == 1
        assert twin.close()
        track(tracker, "after")
        assert tracker.close(PATIENCE)

    assert users_of(emulator.workspace("another-token")) == ["1", "2"]
    assert users_of(emulator.workspace(TOKEN)) == ["after", "before"]


def test_so_does_its_bound_method(emulator, other_token):
    with (
        emulator.serve() as url,
        DataEventsClient(TOKEN, base_url=url) as client,
        Tracker(client) as tracker,
    ):
        bound = pickle.loads(pickle.dumps(tracker.track))
        bound("placed-order", user_id="1")
        assert bound.__self__.close(PATIENCE)

    assert tokens_of(emulator) == {"Bearer another-token"}


def test_a_tracker_that_was_closed_can_be_pickled_and_is_open_again(emulator, other_token):
    with emulator.serve() as url, DataEventsClient(TOKEN, base_url=url) as client:
        with Tracker(client) as tracker:
            pass
        with pickle.loads(pickle.dumps(tracker)) as twin:
            track(twin, "1")

    assert users_of(emulator.workspace("another-token")) == ["1"]


def test_a_pickle_holds_the_outbox_and_all_settings(tmp_path, other_token, told):
    path = tmp_path / "outbox"
    emulator = Emulator(rate_limit=None, faults=itertools.repeat(Fault.failing(503)))
    with emulator.serve() as url:
        client = DataEventsClient(TOKEN, base_url=url, max_retries=0)
        tracker = Tracker(
            client, path, workspace="shop", concurrency=1, max_queued=3, when_full="raise",
            on_error=tell, close_timeout=0.05,
        )  # fmt: skip
        track(tracker, "earlier")
        tracker.close()
        # Without the workspace's name, another token would be refused.
        twin = pickle.loads(pickle.dumps(tracker))
        track(twin, 2, 3)
        with pytest.raises(QueueFullError, match=r"the queue is full \(3 events\)"):
            track(twin, 4)
        begin = time.monotonic()
        assert not twin.close()
        assert time.monotonic() - begin < 5
        client.close()

    with contextlib.closing(Outbox(path)) as box:
        assert [fields["user_id"] for fields in box.waiting()] == ["earlier", "2", "3"]
    assert told == []


def test_a_pickle_refers_to_on_error_by_its_name(other_token, told):
    emulator = Emulator(faults=[Fault.failing(422)])
    with emulator.serve() as url, DataEventsClient(TOKEN, base_url=url) as client:
        pickled = pickle.dumps(Tracker(client, on_error=tell))
        assert b"tell" in pickled
        with pickle.loads(pickled) as twin:
            track(twin, "1")
            assert twin.flush(PATIENCE)

    assert tokens_of(emulator) == {"Bearer another-token"}
    assert told == [("1", "UnprocessableEntityError")]


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_an_on_error_that_no_pickle_can_refer_to_is_an_error_that_says_so(kind):
    client_kind, tracker_kind = {
        "blocking": (DataEventsClient, Tracker),
        "async": (AsyncDataEventsClient, AsyncTracker),
    }[kind]
    tracker = tracker_kind(client_kind(TOKEN), on_error=lambda *_: None)

    with pytest.raises((TypeError, ConfigurationError, pickle.PicklingError)) as caught:
        pickle.dumps(tracker)

    assert "on_error" in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_tracker_of_a_client_that_cannot_be_pickled_cannot_be_either(emulator):
    with (
        DataEventsClient(TOKEN, transport=emulator.transport()) as client,
        Tracker(client) as tracker,
        pytest.raises(TypeError, match="a client with a transport, http_client or clock cannot"),
    ):
        pickle.dumps(tracker)


def test_a_tracker_cannot_be_unpickled_where_there_is_no_token():
    with DataEventsClient(TOKEN) as client, Tracker(client) as tracker:
        pickled = pickle.dumps(tracker)

    with pytest.raises(ConfigurationError, match="INTERCOM_ACCESS_TOKEN"):
        pickle.loads(pickled)


@each_event_loop
def test_a_pickle_of_an_async_tracker_is_one_that_can_be_entered(
    emulator, event_loop, other_token, tmp_path
):
    async def use(url):
        async with (
            AsyncDataEventsClient(TOKEN, base_url=url) as client,
            AsyncTracker(client, tmp_path / "outbox", workspace="shop") as tracker,
        ):
            await tracker.track("placed-order", user_id="before")
            assert await tracker.flush(PATIENCE)
            pickled = pickle.dumps(tracker)
            assert TOKEN.encode() not in pickled
            twin = pickle.loads(pickled)
            with pytest.raises(RuntimeError, match="the tracker must be entered first"):
                await twin.track("placed-order", user_id="too early")
            async with twin:
                await twin.track("placed-order", user_id="1")
                assert await twin.flush(PATIENCE)
                assert twin.counters.sent + tracker.counters.sent == 2

    with emulator.serve() as url:
        anyio.run(functools.partial(use, url), backend=event_loop)

    assert len(emulator.requests) == 2
    assert {json.loads(request.body)["user_id"] for request in emulator.requests} == {
        "before", "1"
    }  # fmt: skip


# Processes.


@pytest.mark.processes
@pytest.mark.costly
@pytest.mark.parametrize("given", ["tracker", "tracker.track"])
@pytest.mark.parametrize(
    "method",
    [one for one in ("forkserver", "spawn") if one in multiprocessing.get_all_start_methods()],
)
def test_a_process_that_is_given_the_tracker_sends_what_it_tracks(
    emulator, outbox, tmp_path, method, given
):
    script = f"""
        def work(given, number):
            track = getattr(given, "track", given)
            for n in range(20):
                track("placed-order", user_id=f"{{number}} {{n}}")

        def on_error(event, error):
            note(event.user_id, error)

        if __name__ == "__main__":
            os.environ["INTERCOM_ACCESS_TOKEN"] = "token"
            context = multiprocessing.get_context("{method}")
            tracker = Tracker(client, outbox, on_error=on_error)
            track(tracker, "parent")
            processes = [
                context.Process(target=work, args=({given}, number)) for number in range(2)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0]
    """
    with emulator.serve() as url, Program(script, url, outbox, tmp_path) as program:
        assert program.end() == []

    expected = [f"{number} {n}" for number in range(2) for n in range(20)]
    assert users_of(emulator) == sorted(["parent", *expected])
