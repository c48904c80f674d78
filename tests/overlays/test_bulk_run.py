"""create_many that is run at once, that is shown, and that is forgotten."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings

import anyio
import pytest
from callers import threads_and_tasks

from intercom_data_events import (
    AsyncDataEventsClient,
    AuthenticationError,
    Counts,
    DataEventsClient,
    Event,
    InvalidInputError,
    NotFoundError,
)
from intercom_data_events.emulator import EmulatedContact, Emulator, Fault

NEVER = r"create_many\(...\) was never iterated, so no event was sent; iterate over it"


def events(number, **fields):
    return [Event("placed-order", user_id=str(one), **fields) for one in range(number)]


# Run.


@threads_and_tasks
@pytest.mark.parametrize("number", [0, 1, 250])
def test_run_sends_all_and_returns_the_counts(call, emulator, number):
    def use(client):
        counts = yield client.create_many(events(number)).run()
        assert counts == Counts(accepted=number)
        assert counts.total == number

    call.steps(use)
    assert len(emulator.requests) == number


@threads_and_tasks
def test_run_counts_each_status_and_keeps_the_first_problems(call):
    emulator = Emulator(contacts=[EmulatedContact(user_id="known")])
    known = Event("placed-order", user_id="known", created_at=1671028894)
    wrong = {"event_name": "placed-order", "created_at": 1671028894}

    def use(client):
        given = [known, known, Event("placed-order", user_id="unknown"), *[wrong] * 20]
        many = client.create_many(given)
        counts = yield many.run()
        assert counts == Counts(accepted=1, duplicate=1, refused=21, problems=counts.problems)
        assert counts.total == len(given)
        assert len(counts.problems) == 10
        assert {type(one.error).__name__ for one in counts.problems} <= {
            "IdentityError", "NotFoundError",
        }  # fmt: skip
        assert many.counts == counts

    call.steps(use, transport=emulator.transport())


@threads_and_tasks
def test_run_counts_what_failed(call):
    emulator = Emulator(faults=[Fault.failing(503)])

    def use(client):
        counts = yield client.create_many(events(1)).run()
        assert (counts.failed, counts.accepted) == (1, 0)
        assert counts.problems[0].status == "failed"
        assert counts.problems[0].error.status_code == 503

    call.steps(use, transport=emulator.transport(), max_retries=0)


def test_run_raises_what_iterating_raises_and_the_counts_say_how_far_it_came():
    def given():
        yield from events(3)
        raise LookupError("the input ended")

    client = DataEventsClient("token", transport=Emulator().transport())
    many = client.create_many(given())
    with pytest.raises(LookupError, match="the input ended"):
        many.run()
    assert many.counts == Counts(accepted=3)


def test_run_raises_a_failure_of_every_event():
    refusing = Emulator(faults=[Fault.failing(401)] * 20)
    client = DataEventsClient("token", transport=refusing.transport())
    many = client.create_many(events(9))

    with pytest.raises(AuthenticationError):
        many.run()
    assert many.counts.accepted == 0


def test_run_sends_what_a_loop_left(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    many = client.create_many(events(20))
    next(many)

    assert many.run() == Counts(accepted=20)
    assert many.run() == Counts(accepted=20)
    assert len(emulator.requests) == 20


def test_counts_show_no_events():
    wrong = {"event_name": "a", "email": "secret@example.org", "more": 1}
    client = DataEventsClient("token", transport=Emulator().transport())
    many = client.create_many([wrong])
    counts = many.run()

    assert "secret@example.org" not in f"{counts} {many}"
    assert counts.problems[0].item is wrong


# Shown.


@threads_and_tasks
def test_create_many_shows_its_state_and_the_counts(call):
    def use(client):
        many = client.create_many(events(3))
        name = type(many).__name__
        nothing = "Counts(accepted=0, refused=0, failed=0, duplicate=0)"
        assert repr(many) == f"<{name}: not started, {nothing}>"
        counts = yield many.run()
        assert repr(many) == f"<{name}: ended, {counts}>"

    call.steps(use)


def test_create_many_that_is_iterated_says_that_it_sends(emulator):
    client = DataEventsClient("token", transport=emulator.transport())
    with client.create_many(events(500)) as many:
        next(many)
        assert "Outcomes: sending" in repr(many)
    assert "Outcomes: ended" in repr(many)


# Forgotten.


@pytest.mark.parametrize("kind", [DataEventsClient, AsyncDataEventsClient])
@pytest.mark.parametrize(
    "given", [[], [Event("a", user_id="1")], [{"event_name": "a"}], "generator"]
)
def test_create_many_that_is_forgotten_warns_at_its_line(kind, given):
    client = kind("token", transport=Emulator().transport())
    given = (event for event in events(3)) if given == "generator" else given

    with pytest.warns(RuntimeWarning, match=NEVER) as caught:
        client.create_many(given)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def left_by_closing(client):
    client.create_many(events(2)).close()


def left_by_a_block(client):
    with client.create_many(events(2)):
        pass


def left_by_a_break(client):
    for _ in client.create_many(events(2)):
        break


def left_at_the_end(client):
    assert len(list(client.create_many(events(2)))) == 2


def left_empty(client):
    assert not list(client.create_many([]))


def left_by_run(client):
    client.create_many(events(2)).run()


def left_by_an_error(client):
    with pytest.raises(InvalidInputError):
        client.create_many("an event")


@pytest.mark.parametrize(
    "leave",
    [
        left_by_closing, left_by_a_block, left_by_a_break, left_at_the_end, left_empty,
        left_by_run, left_by_an_error,
    ],
)  # fmt: skip
def test_create_many_that_is_used_or_closed_does_not_warn(leave):
    client = DataEventsClient("token", transport=Emulator().transport())

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        leave(client)
        gc.collect()
    assert not caught


def test_a_block_of_the_async_client_does_not_warn():
    async def use():
        async with AsyncDataEventsClient("token", transport=Emulator().transport()) as client:
            async with client.create_many(events(2)):
                pass
            assert len([one async for one in client.create_many(events(2))]) == 2

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anyio.run(use)
        gc.collect()
    assert not caught


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks")
def test_a_forked_child_does_not_warn_of_what_its_parent_has():
    program = """if True:
        import os
        from intercom_data_events import DataEventsClient, Event
        from intercom_data_events.emulator import Emulator
        client = DataEventsClient("token", transport=Emulator().transport())
        many = client.create_many([Event("a", user_id="1")])
        if os.fork() == 0:
            del many
            os._exit(0)
        os.wait()
        print(many.run())
    """
    done = subprocess.run(
        [sys.executable, "-W", "always::RuntimeWarning", "-c", program],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert done.stderr == ""
    assert "accepted=1" in done.stdout


@pytest.mark.parametrize("kind", ["DataEventsClient", "AsyncDataEventsClient"])
def test_create_many_that_is_forgotten_until_the_program_ends_warns(kind):
    # As of a coroutine: most scripts keep it in a variable of their module.
    program = f"""if True:
        import intercom_data_events as package
        from intercom_data_events.emulator import Emulator
        client = package.{kind}("token", transport=Emulator().transport())
        forgotten = client.create_many([package.Event("a", user_id="1")])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "create_many(...) was never iterated, so no event was sent; iterate over it"
    )


def test_run_of_a_missing_contact_names_it_in_its_problem():
    client = DataEventsClient("token", transport=Emulator(contacts=[]).transport())
    counts = client.create_many(events(1)).run()

    assert isinstance(counts.problems[0].error, NotFoundError)
