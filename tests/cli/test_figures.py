"""The figures of every report add up to the number above them, whatever has ended the command."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from intercom_data_events import Event
from intercom_data_events.cli.commands import draining
from intercom_data_events.emulator import EmulatedContact, Fault
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue

from .conftest import NOON, PATIENCE, TOKEN, Plan, event, no_file_above, times

SLOW = Fault.slow(50)
CONTACTS = [EmulatedContact(user_id=str(number)) for number in range(1, 50)]
FILE = Path("outbox.db")


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    return SLOW


def endlessly(fault):
    return iter(lambda: fault, None)


def text_of(count, *, refused=(), twice=()):
    """Lines of a file: some are refused, and some are there twice."""
    lines = []
    for number in range(count):
        fields = event(number, user_id="0") if number in refused else event(number, user_id="1")
        lines += [json.dumps(fields)] * (2 if number in twice else 1)
    return "".join(f"{line}\n" for line in lines)


def added_up(done, *, as_json):
    """How many events a report is about, after adding them up."""
    if as_json:
        report = json.loads(done.out)
        names = ("before", "accepted", "duplicates", "refused", "failed", "pending")
        if "sent" in report:
            names = ("sent", "refused", "left")
        assert all(report[name] >= 0 for name in names), report
        assert report["events"] == sum(report[name] for name in names), report
        assert report.get("refused_before", 0) <= report.get("before", 0), report
        return report["events"]
    head, *rest = done.out.splitlines()
    counts = [line.split()[0] for line in rest if re.match(r" +[\d,]+ ", line)]
    (events,) = re.findall(r": ([\d,]+) events? ", head)
    numbers = [int(number.replace(",", "")) for number in counts]
    assert all(number >= 0 for number in numbers)
    assert int(events.replace(",", "")) == sum(numbers), done.out
    return sum(numbers)


def cut(path):
    os.truncate(path, 0)


WAYS = {
    # What ends it: what the requests meet, and the exit codes.
    "done": (lambda path: Plan(), (1,)),
    "Ctrl-C": (lambda path: Plan({60: interrupt}, otherwise=endlessly(None)), (130,)),
    "Ctrl-C at the first": (lambda path: Plan({1: interrupt}, otherwise=endlessly(SLOW)), (130,)),
    "an outage": (
        lambda path: Plan(
            dict.fromkeys(range(1, 50), lambda: None), otherwise=endlessly(Fault.failing(503))
        ),
        (3,),
    ),
    "a denied token": (
        lambda path: Plan(
            dict.fromkeys(range(1, 50), lambda: None), otherwise=endlessly(Fault.failing(401))
        ),
        (4,),
    ),
    "input that is cut": (lambda path: Plan({5: lambda: cut(path)}), (0, 1, 3)),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_of_an_import_they_add_up_however_it_ends(way, as_json, serve, command):
    path = Path("events.ndjson")
    path.write_text(text_of(700, refused={3, 7}, twice={8, 9}))
    begin, codes = WAYS[way]
    plan = begin(path)
    emulator = serve(contacts=CONTACTS, faults=plan)
    asked = ["import", path, "--max-retries", "0", *(["--json"] if as_json else [])]

    done = command(*asked)

    assert done.code in codes, done
    events = added_up(done, as_json=as_json)
    assert events <= 702
    assert events == 702 or way != "done"
    if as_json:
        # What Intercom has is accepted, or was not answered.
        report, stored = done.json, len(times(emulator))
        assert report["accepted"] <= stored <= report["accepted"] + report["pending"]
        assert report["accepted"] > 0 or way == "Ctrl-C at the first"
    if way != "input that is cut":
        # What comes after it adds up, too, with what was done before.
        plan.at, plan.otherwise = {}, None
        again = command(*asked)
        assert again.code == 1, again
        assert added_up(again, as_json=as_json) == 702
        if as_json:
            assert again.json["before"] <= again.json["events"]
            assert (again.json["refused"] + again.json["refused_before"]) == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_of_an_import_on_a_full_disk_they_add_up(as_json, serve, command):
    path = Path("events.ndjson")
    path.write_text(text_of(600, refused=range(0, 600, 3)))
    serve(contacts=CONTACTS)
    flags = ["--json"] if as_json else []
    # Of the journal, or of the refused events.
    for name, size in (("own", 9000), ("/dev/full", 10**6)):
        path = path.rename(f"{size}.ndjson")
        refused = ["--refused", name] if name == "/dev/full" else []
        with no_file_above(size):
            done = command("import", path, "--max-retries", "0", *refused, *flags)
        assert done.code == 3, done
        added_up(done, as_json=as_json)


@pytest.mark.parametrize("as_json", [False, True])
def test_of_a_dry_run_they_add_up(as_json, serve, command):
    path = Path("events.ndjson")
    path.write_text(text_of(50, twice={8, 9}) + '{"event_name": "came"}\n\n')
    serve()
    done = command("import", path, "--dry-run", *(["--json"] if as_json else []))
    assert (done.code, added_up(done, as_json=as_json)) == (1, 53)
    # Also where it cannot be read to its end.
    path.write_bytes(path.read_bytes() * 30 + b"\0")
    done = command("import", path, "--dry-run", *(["--json"] if as_json else []))
    assert done.code == 2
    assert added_up(done, as_json=as_json) > 0


def test_of_a_check_they_add_up(command):
    path = Path("events.ndjson")
    path.write_text((text_of(50, twice={8, 9}) + '{"event_name": "came"}\n\n') * 30)
    for end, code in (b"", 1), (b"\0", 2):  # The second cannot be read to its end.
        path.write_bytes(path.read_bytes() + end)
        done = command("validate", path)
        (said,) = (line for line in done.err.splitlines() if line.startswith(str(path)))
        numbers = [int(one.replace(",", "")) for one in re.findall(r"[ ]([\d,]+)[ ]", said)]
        assert (done.code, numbers[0]) == (code, sum(numbers[1:]))
        assert numbers[0] == 53 * 30 or code == 2


def kept(*numbers, users=("1",)):
    with OutboxQueue(FILE, Binding(os.environ["INTERCOM_BASE_URL"], TOKEN)) as queue:
        for number in numbers:
            user = users[number % len(users)]
            queue.enqueue(Event.from_dict(event(number, user_id=user)), time.time())


def track_more():
    kept(*range(1000, 1005), users=("0", "1"))


def send_some():
    """Another process sends some of it."""
    with OutboxQueue(FILE, Binding(os.environ["INTERCOM_BASE_URL"], TOKEN)) as queue:
        for _ in range(5):
            if (taken := queue.claim(time.time())) is not None:
                queue.ack(taken)


DRAINS = {
    "done": (lambda: Plan(), [], (1,)),
    "Ctrl-C": (lambda: Plan({30: interrupt}, otherwise=endlessly(None)), [], (130,)),
    "time": (lambda: Plan({30: lambda: SLOW}), ["--max-time", "0.5"], (3,)),
    "an outage": (
        lambda: Plan(
            dict.fromkeys(range(1, 20), lambda: None), otherwise=endlessly(Fault.failing(503))
        ),
        ["--max-time", "1"],
        (3,),
    ),
    "a denied token": (
        lambda: Plan(
            dict.fromkeys(range(1, 20), lambda: None), otherwise=endlessly(Fault.failing(401))
        ),
        [],
        (4,),
    ),
    "an application that tracks": (lambda: Plan({5: track_more, 9: track_more}), [], (1,)),
    "a process that sends": (lambda: Plan({5: send_some, 9: send_some}), [], (1,)),
    "a process that sends, and Ctrl-C": (
        lambda: Plan({5: send_some, 9: track_more, 12: interrupt}, otherwise=endlessly(None)),
        [],
        (130,),
    ),
}


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("way", DRAINS)
def test_of_a_drained_outbox_they_add_up_to_what_waited(way, as_json, serve, command, monkeypatch):
    monkeypatch.setattr(draining, "GRACE", 0.2)
    plan, flags, codes = DRAINS[way]
    emulator = serve(contacts=CONTACTS, faults=plan())
    kept(*range(60), users=("0", *map(str, range(1, 8))))
    flags = [*flags, "--max-retries", "0", "--concurrency", "1", *(["--json"] if as_json else [])]

    done = command("outbox", "drain", FILE, *flags)

    assert done.code in codes, done
    assert added_up(done, as_json=as_json) == 60
    stored = sum(second < NOON + 60 for second in times(emulator))
    if as_json and "sends" not in way:
        assert done.json["sent"] <= stored <= done.json["sent"] + done.json["left"]
        assert done.json["accepted_and_left"] == 0
    elif as_json:  # The other process has sent ten of them.
        assert done.json["sent"] - 10 <= stored <= done.json["sent"]
    if as_json and way in ("done", "an application that tracks", "a process that sends"):
        assert (done.json["left"], done.json["sent"] > 0, done.json["refused"] > 0) == (0, 1, 1)


@pytest.mark.parametrize("as_json", [False, True])
def test_of_a_drain_that_sends_nothing_they_add_up(as_json, serve, command):
    serve()
    kept(*range(60))
    done = command("outbox", "drain", FILE, "--dry-run", *(["--json"] if as_json else []))
    assert (done.code, added_up(done, as_json=as_json)) == (3, 60)


def test_a_report_that_is_not_read_changes_no_exit_code(serve, begin):
    serve(contacts=CONTACTS)
    Path("events.ndjson").write_text(text_of(30, refused={3}))
    process = begin("import", "events.ndjson")
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
