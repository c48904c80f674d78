"""Whatever happens: each tracked event is in the outbox, or stored, or dead; never two of them.

Any interleaving of what an application, a network, Intercom and an operating system can do is
carried out by several processes on one file, step by step, in one thread.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import resource
import sqlite3
import tempfile
from pathlib import Path

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from intercom_data_events import (
    DataEventsClient,
    Event,
    NotFoundError,
    OutboxError,
    OutboxLockedError,
)
from intercom_data_events._sending import operations
from intercom_data_events._sending.client import parts_of
from intercom_data_events._sending.drivers import run
from intercom_data_events._sending.exchange import Exchange
from intercom_data_events.emulator import EmulatedContact, Emulator, Fault, ManualClock
from intercom_data_events.outbox import _queue as outbox_module
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker._scheduler import Scheduler
from profiles import scaled

#: Seconds for which nobody else takes what a process has claimed.
CLAIM = 30

FAULTS = [
    None,
    None,
    Fault.reset(),
    Fault.reset(processed=True),
    Fault.cut_short(),
    Fault.failing(401),
    Fault.failing(500),
    Fault.failing(503, processed=True),
    Fault.rate_limited(),
]


#: Which one of several.
one = st.integers(0, 11)


class SetClock(ManualClock):
    """A clock that can be set, which changes the time of day and not how long something takes."""

    def __init__(self):
        super().__init__()
        self.offset = 0.0

    def time(self):
        return super().time() + self.offset


@define(eq=False)
class Sending:
    """An event on its way: first to be sent, then answered, then settled."""

    entry: object
    taken_at: float
    answered: bool = False
    error: object = None

    @property
    def user(self):
        return self.entry.event.user_id


@define(eq=False)
class Process:
    """What a tracker is in one process, without its threads."""

    box: Outbox
    scheduler: Scheduler
    sending: list[Sending] = field(factory=list)


class Life(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.resources = contextlib.ExitStack()
        enter = self.resources.enter_context
        changes = enter(pytest.MonkeyPatch.context())
        # So that there is something to tidy.
        changes.setattr(outbox_module, "_LONG_LOG", 0)
        changes.setattr(outbox_module, "_TOO_LONG_LOG", 64 * 1024)
        self.path = Path(enter(tempfile.TemporaryDirectory())) / "outbox.db"
        self.clock = SetClock()
        self.faults = []
        self.emulator = Emulator(
            contacts=[EmulatedContact(user_id=f"known {number}") for number in range(200)],
            clock=self.clock,
            rate_limit=None,
            faults=iter(self._fault, ...),
        )
        self.client = enter(
            DataEventsClient(
                "token", transport=self.emulator.transport(), clock=self.clock, max_retries=0
            )
        )
        self.processes = []
        self.numbers = itertools.count()
        self.known = set()
        #: By the names of their users, as each event has its own.
        self.tracked = set()
        #: Those whose acceptance was written down.
        self.recorded = set()
        #: Those that were refused before, or while, somebody made the user known.
        self.mixed = set()
        self.reported = {}
        self.time_was_set = False
        self.locked_steps = self.full_steps = 0
        self.room = resource.getrlimit(resource.RLIMIT_FSIZE)

    @initialize(known=st.lists(st.booleans(), min_size=2, max_size=6))
    def begin(self, known):
        self._open()
        # Without a process, the log stays, as it does where one is killed.
        self.observer = self._connect()
        self.locking = self._connect()
        self._open()
        self._track(self.processes[0], known)

    def teardown(self):
        self._make_room()
        try:
            if self.processes:
                self._drain()
        finally:
            for process in self.processes:
                process.box.close()
            self.resources.close()

    # What can happen

    @rule(process=one, known=st.lists(st.booleans(), min_size=1, max_size=3))
    def something_is_tracked(self, process, known):
        self._track(self._chosen(process), known)

    @rule(process=one, many=st.integers(1, 4))
    def something_is_taken(self, process, many):
        for _ in range(many):
            self._take(self._chosen(process))

    @rule(process=one, faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def something_is_taken_and_sent(self, process, faults):
        chosen = self._chosen(process)
        for fault in faults:
            if (sending := self._take(chosen)) is not None:
                self._send(chosen, sending, fault)

    @precondition(lambda self: self._sending(answered=False))
    @rule(which=one, fault=st.sampled_from(FAULTS))
    def something_is_sent(self, which, fault):
        sending = self._sending(answered=False)
        self._send(*sending[which % len(sending)], fault)

    @precondition(lambda self: self._sending(answered=True))
    @rule(which=one)
    def an_answer_is_written_down(self, which):
        sending = self._sending(answered=True)
        self._settle(*sending[which % len(sending)])

    @rule(process=one, fault=st.sampled_from(FAULTS))
    def a_process_flushes(self, process, fault):
        chosen = self._chosen(process)
        with contextlib.suppress(OutboxLockedError):
            self._flush(chosen, fault)

    @rule(process=one)
    def a_process_looks_around_and_tidies(self, process):
        self._look_around(self._chosen(process))
        with contextlib.suppress(OutboxError if self.full_steps else OutboxLockedError):
            box = self._chosen(process).box
            if box.needs_checkpoint():
                box.checkpoint()

    @precondition(lambda self: not self.locked)
    @rule(process=one)
    def a_process_is_killed_and_another_begins(self, process):
        # Which ends no claim, and writes down nothing.
        self._end(self._chosen(process))
        self._open()

    @precondition(lambda self: not self.locked)
    @rule(process=one)
    def a_process_is_closed_and_another_begins(self, process):
        chosen = self._chosen(process)
        assert list(chosen.scheduler.stop()) == []
        # Nobody waits for what has been sent.
        self._end(chosen)
        self._open()

    @rule(seconds=st.sampled_from([1, 5, 29, 61, 700]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(process=one, fault=st.sampled_from(FAULTS), sent=st.booleans())
    def claims_end_for_those_who_do_not_renew_them(self, process, fault, sent):
        chosen = self._chosen(process)
        self.clock.advance(CLAIM + 1)
        self._look_around(chosen)
        while (sending := self._take(chosen)) is not None:
            if sent:
                self._send(chosen, sending, fault)

    @rule(seconds=st.sampled_from([-86_400, -600, -31, 31, 86_400]))
    def somebody_sets_the_clock(self, seconds):
        self.clock.offset += seconds
        self.time_was_set = True

    @precondition(lambda self: not self.locked)
    @rule(steps=st.integers(1, 4))
    def somebody_locks_the_file_for_some_steps(self, steps):
        self.locking.execute("BEGIN IMMEDIATE")
        self.locked_steps = steps

    @precondition(lambda self: not self.full_steps)
    @rule(steps=st.integers(1, 8), pages=st.sampled_from([0, 0, 1, 4, 12]))
    def the_disk_is_full_for_some_steps(self, steps, pages):
        most = Path(f"{self.path}-wal").stat().st_size + pages * 1048
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, self.room[1]))
        self.full_steps = steps

    @precondition(lambda self: not (self.locked or self.full_steps))
    @rule(
        process=one,
        endings=st.sampled_from([("-wal",), ("-shm",), ("-wal", "-shm")]),
        then=st.sampled_from(["track", "take", "look", "end", "nothing"]),
    )
    def somebody_deletes_the_log(self, process, endings, then):
        # Connections of one process have one index of the log, as long as one of them is open.
        self.observer.close()
        self.locking.close()
        for ending in endings:
            Path(f"{self.path}{ending}").unlink()
        chosen = self._chosen(process)
        if then == "track":
            self._track(chosen, [True])
        elif then == "take":
            self._take(chosen)
        elif then == "look":
            self._look_around(chosen)
        elif then == "end":
            self._end(chosen)
            self._open()
        self._look_around(self._chosen(process + 1))
        self.observer, self.locking = self._connect(), self._connect()

    @precondition(lambda self: not self.full_steps)
    @rule(process=one, others=st.booleans(), looked=st.booleans())
    def somebody_puts_another_outbox_in_its_place_and_puts_it_back(self, process, others, looked):
        aside = Path(tempfile.mkdtemp(dir=self.path.parent))
        self._move(self.path.parent, aside)
        if others:
            with contextlib.closing(Outbox(self.path)) as other:
                other.enqueue(Event("placed-order", user_id="x", created_at=1), 1.0)
        chosen = self._chosen(process)
        if looked:
            with contextlib.suppress(OutboxError):
                self._look_around(chosen)
            event = Event("placed-order", user_id="not tracked", created_at=1_671_028_894)
            with pytest.raises(OutboxError, match=r"was moved or|was replaced|cannot be opened"):
                chosen.box.enqueue(event, self.clock.time())
        # One that has it open sends what is in it; one that has not can not.
        with contextlib.suppress(OutboxError):
            self._take(chosen)
        if others:
            self._move(self.path.parent, Path(tempfile.mkdtemp(dir=self.path.parent)))
        self._move(aside, self.path.parent)

    @precondition(lambda self: self._strangers())
    @rule(which=one)
    def a_stranger_becomes_known(self, which):
        strangers = self._strangers()
        self._make_known(strangers[which % len(strangers)])

    @precondition(lambda self: self._refused())
    @rule(which=one, order=st.sampled_from([-1, 1, 0]))
    def a_stranger_becomes_known_while_two_processes_send(self, which, order):
        process, refused = self._refused()[which % len(self._refused())]
        self._make_known(refused.user)
        other = self.processes.index(process) + 1
        self.claims_end_for_those_who_do_not_renew_them(other, None, sent=True)
        answers = [it for it in self._sending(answered=True) if it[1].user == refused.user]
        # In either order, or both later.
        for it in sorted(answers, key=lambda it: it[1] is refused)[::order] if order else ():
            self._settle(*it)

    # What holds at any time

    @invariant()
    def each_event_is_in_one_place(self):
        waiting, dead, stored = self._places()
        assert waiting | dead | stored == self.tracked
        assert not waiting & dead
        # Stored and waiting is only what nobody has told the outbox of.
        assert not self.recorded & waiting
        assert not self.recorded & dead
        assert self.recorded <= stored
        # Refused and stored is only what got either answer, since its user became known between.
        assert dead & stored <= self.mixed
        assert all(self.reported.get(user) == "NotFoundError" for user in dead)

    @invariant()
    def nobody_locks_the_file_for_ever(self):
        if self.locked:
            self.locked_steps -= 1
            if self.locked_steps < 0:
                self.locking.execute("ROLLBACK")

    @invariant()
    def the_disk_is_not_full_for_ever(self):
        self.full_steps = max(0, self.full_steps - 1)
        if not self.full_steps:
            self._make_room()

    # How it happens

    def _make_room(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.room)

    def _places(self):
        """The users of the events that wait, that are dead, and that are stored."""
        read = "SELECT json_extract(event, '$.user_id') FROM "
        waiting, dead = (
            [user for (user,) in self.observer.execute(read + table)]
            for table in ("events", "dead")
        )
        stored = [one.user_id for one in self.emulator.events]
        for place in (waiting, dead, stored):
            assert len(set(place)) == len(place)
        return set(waiting), set(dead), set(stored)

    def _open(self):
        box = Outbox(self.path, Binding("https://api.intercom.io", "token"), patience=0)
        scheduler = Scheduler(box, self.clock, 4, 0, lambda: None, lambda *_: None)
        self.processes.append(Process(box, scheduler))

    def _connect(self):
        connection = sqlite3.connect(self.path, isolation_level=None)
        return self.resources.enter_context(contextlib.closing(connection))

    @property
    def locked(self):
        return self.locking.in_transaction

    def _move(self, here, there):
        for ending in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                (here / f"{self.path.name}{ending}").rename(there / f"{self.path.name}{ending}")

    def _chosen(self, number):
        return self.processes[number % len(self.processes)]

    def _end(self, process):
        self.processes.remove(process)
        process.box.close()

    def _track(self, process, known):
        for one_known in known:
            user = f"{'known' if one_known else 'stranger'} {next(self.numbers)}"
            event = Event("placed-order", user_id=user, created_at=1_671_028_894)
            try:
                assert process.box.enqueue(event, self.clock.time())
            except OutboxLockedError:
                assert self.locked
            except OutboxError:
                assert self.full_steps
            else:
                self.tracked.add(user)

    def _sending(self, *, answered):
        return [
            (process, sending)
            for process in self.processes
            for sending in process.sending
            if sending.answered is answered
        ]

    def _refused(self):
        """What strangers sent, and whose refusal is not written down."""
        strangers = self._strangers()
        return [
            (process, sending)
            for process, sending in self._sending(answered=True)
            if sending.user in strangers and isinstance(sending.error, NotFoundError)
        ]

    def _make_known(self, user):
        self.emulator.add_contact(EmulatedContact(user_id=user))
        self.known.add(user)
        _, dead, _ = self._places()
        # One that is a dead letter can be in flight still, if its claim ended too early.
        for answered in (True, False) if user in dead else (True,):
            if any(one.user == user for _, one in self._sending(answered=answered)):
                self.mixed.add(user)

    def _strangers(self):
        users = self.tracked - self.known
        return sorted(user for user in users if user.startswith("stranger"))

    def _take(self, process):
        try:
            session, _ = parts_of(self.client)
            quota = session.process_state().limiter.reservation(1, paced=False)
            entry = process.scheduler.next(quota)
        except OutboxLockedError as error:
            process.scheduler.give_in(error)
            return None
        if entry is None:
            return None
        user, now = entry.event.user_id, self.clock.monotonic()
        for _, other in self._sending(answered=False) + self._sending(answered=True):
            # Nobody else has it, as long as clocks go on as they should.
            assert other.user != user or now - other.taken_at >= CLAIM or self.time_was_set
        sending = Sending(entry, now)
        process.sending.append(sending)
        return sending

    def _fault(self):
        return self.faults.pop() if self.faults else None

    def _send(self, process, sending, fault=None):
        self.faults = [fault]
        try:
            session, settings = parts_of(self.client)
            operation = operations.send(sending.entry.event)
            run(Exchange(operation, session, settings).steps(), session)
        except Exception as error:  # noqa: BLE001  # as those who send do
            sending.error = error
        sending.answered = True

    def _settle(self, process, sending):
        process.sending.remove(sending)
        try:
            given_up = process.scheduler.ended(sending.entry, sending.error)
        except OutboxLockedError as failure:
            assert self.locked
            process.scheduler.give_in(failure, sending.entry, accepted=sending.error is None)
            return
        if sending.error is None and not self.full_steps:
            self.recorded.add(sending.user)
        if given_up is not None:
            event, error = given_up
            self.reported[event.user_id] = type(error).__name__

    def _look_around(self, process):
        try:
            return process.scheduler.run_maintenance()
        except OutboxLockedError as error:
            process.scheduler.give_in(error)
            return False

    def _flush(self, process, fault=None):
        """Sends what can be taken now."""
        process.scheduler.release_delayed()
        self._look_around(process)
        while (sending := self._take(process)) is not None:
            self._send(process, sending, fault)
            self._settle(process, sending)

    def _drain(self):
        """All processes end, and one that begins when all is well sends what is left."""
        if self.locked:
            self.locking.execute("ROLLBACK")
        for process in self.processes:
            process.box.close()
        self.processes.clear()
        self._open()
        (process,) = self.processes
        for _ in range(1000):
            self.clock.advance(CLAIM)
            self._flush(process)
            if not process.box.size:
                break
        waiting, dead, stored = self._places()
        assert not waiting
        assert dead | stored == self.tracked
        assert dead & stored <= self.mixed
        assert {user for user in self.tracked if user.startswith("known")} <= stored
        letters = list(process.box.dead_letters())
        assert {letter.event["user_id"] for letter in letters} == dead
        assert {(letter.error, letter.status) for letter in letters} <= {("NotFoundError", 404)}
        assert not process.scheduler.failing


def test_each_event_is_in_the_outbox_or_stored_or_dead_whatever_happens(caplog):
    # What is said at each failure is not what this is about, and takes long to keep.
    caplog.set_level(logging.CRITICAL, logger="intercom_data_events")
    run_state_machine_as_test(
        Life, settings=settings(max_examples=scaled(80), stateful_step_count=50)
    )
