"""The commands that look after an outbox: nothing is lost, and nothing is said that is not so."""

from __future__ import annotations

import csv
import json
import logging
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import httpx
import pytest

from intercom_data_events import DataEventsClient, Event
from intercom_data_events.cli.commands import draining as commands
from intercom_data_events.cli.commands import outbox as outbox_commands
from intercom_data_events.clock import Clock
from intercom_data_events.emulator import EmulatedContact, Fault
from intercom_data_events.errors import NotSentError, UnprocessableEntityError
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.response import APIResponse
from intercom_data_events.tracker import Tracker
from memory import peak_below

from .conftest import NOON, PATIENCE, TOKEN, Plan, event, times
from .test_commands import HOSTILE, STEERING

FILE = Path("outbox.db")
SLOW = Fault.slow(50)
ALL = {
    "status": ["status"],
    "drain": ["drain"],
    "dead": ["dead"],
    "retry": ["retry", "--all"],
    "forget": ["forget", "--all"],
    "export": ["export"],
    "compact": ["compact"],
}


@contextmanager
def opened(*, token: str = TOKEN, workspace: str | None = None):
    """The file, as a process of the application has it."""
    binding = Binding(os.environ["INTERCOM_BASE_URL"], token, workspace)
    with closing(Outbox(FILE, binding)) as box:
        yield box


def keep(*events: int | dict[str, object], **binding: str) -> None:
    """Has events wait in the file."""
    with opened(**binding) as box:
        for one in events:
            box.enqueue(Event.from_dict(event(one) if isinstance(one, int) else one), time.time())


def refuse(*events: dict[str, object]) -> None:
    """Has events be refused, by an Intercom that does not know whose they are."""
    with (
        DataEventsClient() as client,
        Tracker(client, FILE, unknown_contact_patience=0) as tracker,
    ):
        for fields in events:
            tracker.track_event(Event.from_dict(fields))


def waiting() -> list[int]:
    """When what is in the file happened."""
    with closing(Outbox(FILE, create=False)) as box:
        return sorted(fields["created_at"] for fields in box.waiting())


def letters() -> list[int]:
    """The numbers of the dead letters."""
    with closing(Outbox(FILE, create=False)) as box:
        return [letter.id for letter in box.dead_letters()]


@pytest.fixture
def nobody_knows(serve):
    """Serves an emulator that refuses the events of all but one."""
    return serve(contacts=[EmulatedContact(user_id="0")])


@pytest.fixture
def later(monkeypatch):
    """Lets go by what a claim lasts."""

    def wait() -> None:
        monkeypatch.setattr(Clock, "time", lambda _: time.time() + 31)

    return wait


# Status


def test_status_tells_what_is_in_the_file(emulator, command, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    now = time.time()
    with opened(workspace="shop") as box:
        for number in range(7):
            box.enqueue(Event.from_dict(event(number)), now - 3605)
        box.dead_letter(box.claim(now), NotSentError("no"), now)
        box.nack(box.claim(now), 600, now)
        box.claim(now)
        box.claim(now)
        done = command("outbox", "status", FILE)
        told = command("outbox", "status", FILE, "--json").json
    assert (done.code, done.err) == (0, "")
    heading, *counts, oldest = done.out.splitlines()
    assert heading.startswith("outbox.db: ")
    assert heading.endswith(f" kB, for {os.environ['INTERCOM_BASE_URL']}, workspace shop")
    assert [line.split()[:2] for line in counts] == [
        ["3", "waiting"],
        ["2", "in"],
        ["1", "delayed"],
        ["1", "rejected"],
    ]
    assert oldest.startswith("The oldest was tracked at 20")
    assert oldest.endswith(" UTC, 1 h 0 min ago.")
    assert told.pop("size") > 10_000
    assert 3605 <= told.pop("oldest_age") < 3605 + PATIENCE
    oldest = datetime.fromisoformat(told["oldest"])
    assert oldest.timestamp() == pytest.approx(now - 3605, abs=0.01)
    assert told.pop("oldest").endswith("Z")
    assert told == {
        "file": "outbox.db",
        "queued": 6,
        "claimed": 2,
        "held": 1,
        "dead": 1,
        "address": os.environ["INTERCOM_BASE_URL"],
        "workspace": "shop",
    }


def test_status_is_a_row_of_csv_too(emulator, command):
    keep(0, 1)
    [row] = csv.DictReader(command("outbox", "status", FILE, "--format", "csv").out.splitlines())
    assert (row["file"], row["queued"], row["dead"]) == ("outbox.db", "2", "0")
    assert row["oldest"].endswith("Z")


def test_what_a_dead_process_had_taken_waits_again(emulator, command):
    keep(0, 1)
    with opened() as box:
        box.claim(time.time() - 31)
        box.nack(box.claim(time.time() - 31), 5, time.time() - 31)
        told = command("outbox", "status", FILE, "--json").json
    assert (told["queued"], told["claimed"], told["held"]) == (2, 0, 0)


def test_status_of_a_file_that_nobody_has_used(command):
    Outbox(FILE).close()
    done = command("outbox", "status", FILE)
    assert done.code == 0
    assert "not used by a tracker yet\n" in done.out
    assert "0 waiting" in done.out
    assert "oldest" not in done.out


# Draining


def test_what_waits_is_sent(emulator, command):
    keep(*range(120))
    done = command("outbox", "drain", FILE)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("outbox.db: 120 events in ")
    # A run of more than a second tells its rate.
    assert re.search(r" s(, [\d,]+ per second)?\n         120 sent\n$", done.out)
    assert times(emulator) == [NOON + number for number in range(120)]
    assert waiting() == []
    done = command("outbox", "drain", FILE)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(" s\n           0 sent\n")


def test_what_is_refused_is_told_and_becomes_a_dead_letter(nobody_knows, command):
    refuse(event(99))
    keep(*(event(number, user_id="0") for number in range(3)))
    keep(*(event(number, user_id="1") for number in range(3, 16)))
    done = command("outbox", "drain", FILE, "--json")
    assert done.code == 1
    report = done.json
    assert report.pop("seconds") > 0
    assert report == {
        "file": "outbox.db",
        "events": 16,
        "sent": 3,
        "refused": 13,
        "left": 0,
        "dead": 14,
        "accepted_and_left": 0,
        "dry_run": False,
    }
    *told, further, why = done.err.splitlines()
    assert len(told) == 10
    assert all(
        line.startswith("placed-order for 1 rejected: 404 for POST /events") for line in told
    )
    assert further == "(further problems are counted, but not shown)"
    assert why == "To see the reasons, run: intercom-events outbox dead outbox.db"
    assert len(letters()) == 14


def test_the_last_refusal_is_told_even_if_its_worker_reports_it_late(
    nobody_knows, command, monkeypatch
):
    closing = threading.Event()
    close = Tracker.close

    class Slow(logging.Handler):
        """Delays a worker between the end of its event and the report, until the tracker closes."""

        def emit(self, record):
            if threading.current_thread() is not threading.main_thread():
                closing.wait(PATIENCE)

    def close_slowly(tracker, *timeout):
        threading.Timer(0.1, closing.set).start()
        return close(tracker, *timeout)

    monkeypatch.setattr(commands, "GRACE", PATIENCE)
    monkeypatch.setattr(Tracker, "close", close_slowly)
    logger, slow = logging.getLogger("intercom_data_events"), Slow(logging.WARNING)
    logger.addHandler(slow)
    keep(event(0, user_id="1"))
    try:
        done = command("outbox", "drain", FILE)
    finally:
        logger.removeHandler(slow)
    assert done.code == 1
    assert "placed-order for 1 rejected: 404 for POST /events" in done.err


def test_those_from_before_are_no_news(nobody_knows, command):
    refuse(event(99))
    keep(0)
    done = command("outbox", "drain", FILE)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("           1 sent\n")


def test_quiet_tells_the_result_alone(nobody_knows, command):
    keep(event(0, user_id="1"))
    done = command("outbox", "drain", FILE, "--quiet")
    assert done.code == 1
    assert done.err == "To see the reasons, run: intercom-events outbox dead outbox.db\n"
    assert done.out.endswith("           1 rejected (now dead letters)\n")


def test_what_is_no_event_is_a_refusal_too(emulator, command):
    keep(0)
    with closing(sqlite3.connect(FILE)) as raw, raw:
        raw.execute("INSERT INTO events (event, tracked_at) VALUES ('no event', 1)")
    done = command("outbox", "drain", FILE, "--json")
    assert (done.code, done.json["sent"], done.json["refused"]) == (1, 1, 1)
    [letter] = command("outbox", "dead", FILE, "--json").lines
    assert letter["event"] == {"event": "no event"}
    assert "the row does not hold an event" in letter["message"]


def test_what_was_held_back_is_sent_at_once(emulator, command):
    keep(0)
    with opened() as box:
        box.nack(box.claim(time.time()), 600, time.time())
    assert command("outbox", "drain", FILE, "--max-time", PATIENCE).code == 0
    assert times(emulator) == [NOON]


def test_what_comes_in_the_meantime_is_not_waited_for(serve, command):
    numbers = iter(range(3, 100_000))

    def track_one_more():
        with opened() as box:
            box.enqueue(Event.from_dict(event(next(numbers))), time.time())

    emulator = serve(faults=Plan(dict.fromkeys(range(1, 1000), track_one_more)))
    keep(0, 1, 2)
    done = command("outbox", "drain", FILE, "--concurrency", "1", "--json")
    assert (done.code, done.json["left"]) == (0, 0)
    assert re.search(
        r"^Still waiting: [\d,]+ events?, tracked in the meantime\.\n\Z", done.err, re.MULTILINE
    )
    assert waiting()
    assert NOON not in waiting()
    assert emulator.counts.requests < 100


def test_time_can_be_limited(serve, command, monkeypatch):
    monkeypatch.setattr(commands, "GRACE", 0)
    emulator = serve(faults=Plan({1: lambda: SLOW}))
    keep(0, 1)
    done = command("outbox", "drain", FILE, "--max-time", "0.5", "--concurrency", "1", "--json")
    assert done.code == 3
    assert done.err == "Time limit reached; the remaining events stay in the outbox.\n"
    assert (done.json["sent"], done.json["left"]) == (0, 2)
    assert 0.5 <= done.json["seconds"] < PATIENCE
    assert waiting() == [NOON, NOON + 1]
    assert emulator.counts.requests == 1


def test_that_intercom_is_away_is_told_and_that_it_is_back(serve, command, monkeypatch):
    monkeypatch.setattr(commands, "_FAILING", 0.2)
    emulator = serve(faults=[Fault.failing(503)] * 3)
    keep(*range(5))
    done = command("outbox", "drain", FILE, "--max-retries", "0", "--concurrency", "1", "--quiet")
    assert done.code == 0
    away, back = done.err.splitlines()
    assert away.startswith("Sending is failing (5 events waiting); retrying: 503 for POST")
    assert back == "Intercom answers again."
    assert times(emulator) == [NOON + number for number in range(5)]


def test_nothing_is_lost_where_intercom_stays_away(serve, command):
    serve(faults=Plan(otherwise=iter(lambda: Fault.failing(503), None)))
    keep(*range(5))
    done = command("outbox", "drain", FILE, "--max-retries", "0", "--max-time", "1.5")
    assert done.code == 3
    assert "Sending is failing (5 events waiting)" in done.err
    assert "5 left" in done.out
    assert len(waiting()) == 5


@pytest.mark.parametrize("as_json", [False, True])
def test_a_token_that_is_not_accepted_ends_it_at_once(as_json, serve, command):
    emulator = serve(tokens=["another"])
    keep(*range(50))
    done = command("outbox", "drain", FILE, *(["--json"] if as_json else []))
    assert done.code == 4
    if as_json:
        assert (done.json["sent"], done.json["left"]) == (0, 50)
        assert (done.error["error"], done.error["exit_code"]) == ("AuthenticationError", 4)
    else:
        assert done.out.endswith("           0 sent\n          50 left\n")
        assert done.err.startswith("Error: 401 for POST /events: the access token is missing")
    assert emulator.counts.requests < 50
    assert len(waiting()) == 50


def test_so_does_a_version_that_intercom_does_not_know(emulator, command):
    keep(0)
    done = command("outbox", "drain", FILE, "--api-version", "9.9")
    assert done.code == 2
    assert "Intercom does not accept the API version 9.9" in done.err
    assert waiting() == [NOON]


def test_the_end_is_known_however_much_was_sent_before_it(serve, command):
    denied = iter(lambda: Fault.failing(401), None)
    serve(faults=Plan(dict.fromkeys(range(1, 21), lambda: None), otherwise=denied))
    keep(*range(50))
    done = command("outbox", "drain", FILE, "--json")
    assert (done.code, done.json["sent"], done.json["left"]) == (4, 20, 30)


@pytest.mark.parametrize("disabled", [False, True])
def test_a_dry_run_sends_nothing_and_does_not_pretend(disabled, emulator, command, monkeypatch):
    keep(0, 1)
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    if disabled:
        monkeypatch.setenv("INTERCOM_DISABLED", "1")
    asked = ["outbox", "drain", FILE, *([] if disabled else ["--dry-run"])]
    done = command(*asked)
    assert (done.code, done.err) == (3, "")
    assert done.out == (
        "outbox.db: 2 events waiting; --dry-run or INTERCOM_DISABLED is set, so none are sent\n"
        "           0 sent\n"
        "           2 left\n"
    )
    done = command(*asked, "--json")
    assert (done.code, done.json["dry_run"], done.json["left"]) == (3, True, 2)
    assert emulator.counts.requests == 0
    assert waiting() == [NOON, NOON + 1]
    FILE.unlink()
    Outbox(FILE).close()
    assert command(*asked).code == 0


# Whose events


def test_another_token_is_taken_for_another_workspace(emulator, command, monkeypatch):
    keep(0)
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-access-token")
    done = command("outbox", "drain", FILE)
    assert (done.code, done.out) == (2, "")
    assert "--token-renewed" in done.err
    assert command("outbox", "drain", FILE, "--token-renewed").code == 0
    # It is known from then on.
    keep(1, token="another-access-token")
    assert command("outbox", "drain", FILE).code == 0
    assert times(emulator) == [NOON, NOON + 1]


def test_a_workspace_of_a_name_outlasts_tokens(emulator, command, monkeypatch):
    keep(0, workspace="shop")
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", "another-access-token")
    done = command("outbox", "drain", FILE, "--workspace", "other")
    assert (done.code, done.out) == (2, "")
    assert "for the workspace 'shop', not 'other'" in done.err
    for _ in range(2):
        assert command("outbox", "drain", FILE, "--workspace", "shop").code == 0
    assert times(emulator) == [NOON]
    assert command("outbox", "status", FILE, "--json").json["workspace"] == "shop"


def test_the_command_that_an_error_names_sends_where_events_were_to_go(
    emulator, command, monkeypatch
):
    keep(0)
    done = command("outbox", "drain", FILE, "--base-url", "https://api.eu.intercom.io")
    assert (done.code, done.out) == (2, "")
    url = os.environ["INTERCOM_BASE_URL"]
    assert "not for https://api.eu.intercom.io" in done.err
    assert f"intercom-events outbox drain {FILE.resolve()} --base-url {url}\n" in done.err
    monkeypatch.setenv("INTERCOM_BASE_URL", "https://api.au.intercom.io")
    assert command(*done.err.strip().partition("intercom-events ")[2].split()).code == 0
    assert waiting() == []


def test_nothing_is_sent_to_another_address(emulator, command):
    keep(0)
    assert command("outbox", "drain", FILE, "--base-url", "https://api.eu.intercom.io").code == 2
    assert waiting() == [NOON]


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-time", "-1"],
        ["--max-time", "nan"],
        ["--concurrency", "0"],
        ["--concurrency", "1001"],
        ["--quota-share", "2"],
        ["--max-retries", "-1"],
        ["--deadline", "0"],
        ["--api-version", "x"],
    ],
)
def test_bounds_that_make_no_sense_are_refused(flags, emulator, command):
    keep(0)
    done = command("outbox", "drain", FILE, *flags)
    assert (done.code, done.out) == (2, "")
    assert flags[0].strip("-").split("-")[-1] in done.err
    assert emulator.counts.requests == 0
    assert waiting() == [NOON]


def test_nobody_is_asked_for_a_token_in_vain(emulator, command, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    assert "does not exist" in command("outbox", "drain", FILE).err
    keep(0)
    done = command("outbox", "drain", FILE)
    assert (done.code, done.out) == (2, "")
    assert "set INTERCOM_ACCESS_TOKEN in the environment" in done.err


# Being stopped


def test_control_c_in_the_terminal_ends_with_the_report_so_far(serve, terminal, command, later):
    plan = Plan({number: lambda: SLOW for number in range(21, 200)})
    emulator = serve(faults=plan, rate_limit=1000)
    keep(*range(60))
    begun = terminal("outbox", "drain", FILE, "--concurrency", "3")
    begun.expect("20 events · ")
    begun.expect(" · quota ")
    begun.interrupt()
    done = begun.finish()
    assert done.code == 130
    assert "20 sent" in done.out
    assert "40 left" in done.out
    assert "Interrupted; the remaining events stay in the outbox." in done.out
    plan.at.clear()
    later()
    assert command("outbox", "drain", FILE, "--json").json["sent"] == 40
    assert times(emulator) == [NOON + number for number in range(60)]


def test_so_does_a_signal_where_there_is_no_terminal(serve, begin):
    arrived = threading.Event()
    serve(faults=Plan({21: lambda: arrived.set() or SLOW}))
    keep(*range(60))
    process = begin("outbox", "drain", FILE, "--concurrency", "1", "--json")
    assert arrived.wait(PATIENCE)
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert (json.loads(out)["sent"], json.loads(out)["left"]) == (20, 40)
    assert err == b"Interrupted; the remaining events stay in the outbox.\n"


def test_what_is_on_its_way_gets_a_moment(serve, begin):
    arrived = threading.Event()
    emulator = serve(faults=Plan({1: lambda: arrived.set() or Fault.slow(0.2)}))
    keep(0, 1)
    process = begin("outbox", "drain", FILE, "--concurrency", "1", "--json")
    assert arrived.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert (json.loads(out)["sent"], json.loads(out)["left"]) == (1, 1)
    with opened() as box:
        assert box.status().claimed == 0
    assert times(emulator) == [NOON]


def test_killed_at_any_moments_it_loses_nothing(serve, begin, command, later):
    plan = Plan()
    emulator = serve(faults=plan)
    keep(*range(200))
    moments = random.Random(4)
    kills = 2
    for _ in range(kills):
        begun = []
        plan.at[plan.number + moments.randint(1, 80)] = lambda: begun[0].kill()  # noqa: B023
        begun.append(begin("outbox", "drain", FILE, "--quiet"))
        begun[0].communicate(timeout=PATIENCE)
        assert begun[0].returncode == -signal.SIGKILL
    assert waiting()
    later()
    assert command("outbox", "drain", FILE).code == 0
    assert waiting() == []
    assert times(emulator) == [NOON + number for number in range(200)]
    assert emulator.counts.duplicates <= kills * 20


# Beside others


@pytest.mark.processes
def test_an_application_can_be_running_meanwhile(emulator, command):
    keep(*range(200))
    application = """
import sys
from intercom_data_events import DataEventsClient
from intercom_data_events.response import APIResponse
from intercom_data_events.tracker import Tracker
with DataEventsClient() as client, Tracker(client, sys.argv[1]) as tracker:
    print("begun", flush=True)
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        tracker.track("placed-order", user_id=str(number % 50), created_at=number)
    sys.stdin.read()
"""
    numbers = [str(NOON + 200), str(NOON + 300)]
    with subprocess.Popen(
        [sys.executable, "-c", application, FILE, *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "begun\n"
        done = command("outbox", "drain", FILE, "--json")
        process.stdin.close()
    assert (process.returncode, done.code) == (0, 0)
    assert done.json["left"] == 0
    # What the application sent of it is told, too.
    assert done.json["sent"] >= 200
    assert times(emulator) == [NOON + number for number in range(300)]


def test_what_another_process_is_sending_is_waited_for_and_told(emulator, command, monkeypatch):
    monkeypatch.setattr(commands, "_STANDSTILL", 0.2)
    keep(0, 1)
    with opened() as box:
        taken = box.claim(time.time())
        done = command("outbox", "drain", FILE, "--max-time", "1.5")
        assert done.code == 3
        assert done.err.count("Waiting for the last events: 1 in flight") == 1
        assert times(emulator) == [NOON + 1]
        box.ack(taken)
    assert command("outbox", "drain", FILE).code == 0


# Dead letters


def test_dead_letters_are_listed_for_people_and_programs(nobody_knows, command):
    who = [{"user_id": "1"}, {"email": "a@b.co"}, {"id": "5f" * 12}]
    for number, whose in enumerate(who):
        fields = {**event(number), **whose}
        if "user_id" not in whose:
            del fields["user_id"]
        refuse(fields)
    done = command("outbox", "dead", FILE)
    assert done.code == 0
    assert done.err == "To see one in full, run: intercom-events outbox show outbox.db NUMBER\n"
    heading, *lines = done.out.splitlines()
    assert heading.split() == ["number", "rejected", "(UTC)", "event", "contact", "error"]
    assert [re.split(r"\s{2,}", line.strip())[2:] for line in lines] == [
        ["placed-order", "1", "404 not found"],
        ["placed-order", "a@b.co", "404 not found"],
        ["placed-order", "5f" * 12, "404 not found"],
    ]
    listed = command("outbox", "dead", FILE, "--json").lines
    assert [letter["id"] for letter in listed] == [1, 2, 3]
    for letter, whose in zip(listed, who, strict=True):
        assert letter["event"].items() >= {"event_name": "placed-order", **whose}.items()
        tracked, died = letter["tracked_at"], letter["died_at"]
        assert "2026" < tracked <= died <= datetime.now(UTC).isoformat()
        assert tracked.endswith("Z")
        assert (letter["error"], letter["status"]) == ("NotFoundError", 404)
        assert letter["message"].startswith("404 for POST /events")
        assert letter["request_id"] in letter["message"]
    table = list(
        csv.DictReader(command("outbox", "dead", FILE, "--format", "csv").out.splitlines())
    )
    assert [json.loads(row["event"]) for row in table] == [letter["event"] for letter in listed]
    assert [row["message"] for row in table] == [letter["message"] for letter in listed]


def test_a_dead_letter_has_one_line_of_80_columns_however_long_it_is(
    command, emulator, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    keep(
        event(0),
        event(1, event_name="n" * 200, user_id="u" * 200),
        event(2, event_name="n " * 100, user_id="u " * 100),
    )
    with opened() as box:
        for _ in range(3):
            error = UnprocessableEntityError("no", APIResponse(422, httpx.Headers(), b"", None))
            box.dead_letter(box.claim(time.time()), error, time.time())
    first, *lines = command("outbox", "dead", FILE).out.splitlines()
    assert len(lines) == 3
    assert all(len(line.rstrip()) <= 80 for line in [first, *lines])
    number, _, _, name, who, *reason = lines[1].split()
    assert (number, reason) == ("2", ["422", "unprocessable", "entity"])
    assert re.fullmatch("n{5,}…", name)
    assert re.fullmatch("u{5,}…", who)


def test_one_dead_letter_is_shown_whole(nobody_knows, command, monkeypatch):
    metadata = {
        "price": {"amount": 51044, "currency": "usd"},
        "paid_at": NOON,
        "long": "x" * 200,
    }
    refuse(event(0, user_id="1"), event(1, user_id="1", metadata=metadata))
    number = letters()[1]
    narrow = command("outbox", "show", FILE, number).out.splitlines()
    assert max(map(len, narrow)) <= 80
    assert "".join(line[16:].strip() for line in narrow).count("x" * 200) == 1
    monkeypatch.setenv("COLUMNS", "1000")
    done = command("outbox", "show", FILE, number)
    assert done.code == 0
    told = dict(line.strip().split(maxsplit=1) for line in done.out.splitlines())
    assert told["id"] == str(number)
    assert (told["event_name"], told["user_id"]) == ("placed-order", "1")
    assert told["created_at"] == "2026-01-01 12:00:01 UTC"
    assert told["metadata.price"] == "$510.44"
    assert told["metadata.paid_at"] == "2026-01-01 12:00:00 UTC"
    assert told["metadata.long"] == "x" * 200
    assert told["message"].startswith("404 for POST /events: there is no contact")
    assert told["died_at"].endswith(" UTC")
    for verb in ("retry", "forget"):
        assert f"intercom-events outbox {verb} outbox.db {number}" in done.err
    [_, whole] = command("outbox", "dead", FILE, "--json").lines
    assert command("outbox", "show", FILE, number, "--json").json == whole


def test_one_waiting_event_is_shown_whole(emulator, command):
    keep(*range(3))
    done = command("outbox", "show", FILE, 2, "--waiting")
    assert (done.code, done.err) == (0, "")
    assert re.search("created_at  2026-01-01 12:00:01 UTC *\n", done.out)
    shown = command("outbox", "show", FILE, 3, "--waiting", "--json").json
    assert shown == {"event": event(2)}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["4"], "no dead letter 4; to list them, run: intercom-events outbox dead"),
        (
            ["4", "--waiting"],
            "no waiting event 4; to list them, run: intercom-events outbox",
        ),
        (["0"], "NUMBER"),
        (["9" * 18], "no dead letter 999"),
        (["9" * 18, "--waiting"], "no waiting event 999"),
        (["9" * 30], "NUMBER"),
        (["one"], "NUMBER"),
    ],
)
def test_what_is_to_be_shown_has_to_be_there(asked, said, emulator, command):
    keep(*range(3))
    for as_json in ([], ["--json"]):
        done = command("outbox", "show", FILE, *asked, *as_json)
        assert (done.code, done.out) == (2, "")
        assert said in (done.error["message"] if as_json else done.err)


def test_only_some_of_many_are_shown(nobody_knows, command, monkeypatch):
    assert command("outbox", "dead", FILE).code == 2
    keep()
    done = command("outbox", "dead", FILE)
    assert (done.code, done.out, done.err) == (0, "", "No dead letters.\n")
    assert command("outbox", "dead", FILE, "--json").out == ""
    refuse(*(event(number, user_id="1") for number in range(5)))
    monkeypatch.setattr(outbox_commands, "_SHOWN", 3)
    done = command("outbox", "dead", FILE)
    assert done.out.count("404 not found") == 3
    assert done.err.startswith("2 more; pass --limit or --json to see them.\n")
    done = command("outbox", "dead", FILE, "--limit", "5")
    assert done.out.count("404 not found") == 5
    assert "more" not in done.err
    assert len(command("outbox", "dead", FILE, "--json").lines) == 5
    assert len(command("outbox", "dead", FILE, "-n", "2", "--json").lines) == 2


def test_dead_letters_are_sent_after_all(serve, command):
    emulator = serve(faults=[Fault.failing(422)] * 4)
    refuse(*(event(number) for number in range(4)))
    first, second, *rest = letters()
    done = command("outbox", "retry", FILE, second, first, second)
    assert (done.code, done.out) == (0, "2 events put back into the queue.\n")
    assert done.err.endswith("without one, run: intercom-events outbox drain outbox.db\n")
    assert letters() == rest
    assert waiting() == [NOON, NOON + 1]
    done = command("outbox", "retry", FILE, "--all", "--json")
    assert (done.code, done.json, done.err) == (0, {"file": "outbox.db", "retried": 2}, "")
    assert command("outbox", "drain", FILE).code == 0
    assert times(emulator) == [NOON + number for number in range(4)]


def test_dead_letters_can_be_forgotten(nobody_knows, command):
    refuse(*(event(number, user_id="1") for number in range(4)))
    first, *rest = letters()
    done = command("outbox", "forget", FILE, first)
    assert (done.code, done.out, done.err) == (0, "1 event deleted.\n", "")
    assert letters() == rest
    done = command("outbox", "forget", FILE, "--all", "--json")
    assert (done.code, done.json) == (0, {"file": "outbox.db", "forgotten": 3})
    assert letters() == []
    assert command("outbox", "forget", FILE, "--all").out == "0 events deleted.\n"


@pytest.mark.parametrize(
    ("which", "said"),
    [
        (
            ["1", "77", "99999999999999999999"],
            f"{FILE} has no dead letter 77, 99999999999999999999, so ",
        ),
        (["1", "one"], "NUMBER"),
        ([], "pass either numbers"),
        (["1", "--all"], "pass either numbers"),
    ],
)
def test_which_dead_letters_has_to_be_right(which, said, nobody_knows, command):
    refuse(event(0, user_id="1"))
    for asked, as_json in product(("retry", "forget"), ([], ["--json"])):
        done = command("outbox", asked, FILE, *which, *as_json)
        assert (done.code, done.out) == (2, "")
        assert said in (done.error["message"] if as_json else done.err)
    assert letters() == [1]
    assert waiting() == []


# The size


def sizes() -> int:
    return sum(Path(f"{FILE}{end}").stat().st_size for end in ("", "-wal"))


def keep_and_send(kept: int, sent: int) -> None:
    """Has events wait in the file that are left of many."""
    keep(*range(sent + kept))
    with opened() as box:
        for _ in range(sent):
            box.ack(box.claim(time.time()))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_is_made_as_small_as_what_is_in_it(as_json, emulator, command, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    keep_and_send(kept=3, sent=600)
    with opened():
        before = sizes()
        done = command("outbox", "compact", FILE, *(["--json"] if as_json else []))
        after = sizes()
    assert (done.code, done.err) == (0, "")
    assert after < 20_000 < before
    if as_json:
        assert done.json == {"file": "outbox.db", "size_before": before, "size": after}
    else:
        assert re.fullmatch(r"outbox\.db: [\d.]+ kB before, [\d.]+ kB now\n", done.out)
    assert waiting() == [NOON + number for number in (600, 601, 602)]


@pytest.mark.parametrize("use", ["BEGIN", "BEGIN IMMEDIATE"])
def test_a_file_that_another_process_reads_or_writes_is_not_made_smaller(use, emulator, command):
    keep_and_send(kept=3, sent=60)
    with closing(sqlite3.connect(FILE, isolation_level=None)) as raw:
        raw.execute(use)
        raw.execute("SELECT count(*) FROM events").fetchall()
        done = command("outbox", "compact", FILE, "--json")
        raw.execute("ROLLBACK")
    assert (done.code, done.out) == (3, "")
    assert done.error["error"] == "OutboxLockedError"
    assert "must not be in use while it is compacted, but another process" in done.error["message"]
    assert command("outbox", "compact", FILE).code == 0
    assert waiting() == [NOON + number for number in (60, 61, 62)]


# Writing to files


def test_what_waits_can_be_imported(emulator, command):
    metadata = {"price": {"amount": 2999, "currency": "usd"}, "city": "Orléans"}
    keep(0, event(1, metadata=metadata))
    done = command("outbox", "export", FILE, "-o", "events.ndjson")
    assert (done.code, done.out) == (0, "")
    assert done.err == "2 events written to events.ndjson.\n"
    assert stat.S_IMODE(Path("events.ndjson").stat().st_mode) == 0o600
    assert command("outbox", "export", FILE, "--json", "-q").lines == [
        event(0),
        event(1, metadata=metadata),
    ]
    assert len(waiting()) == 2
    assert command("import", "events.ndjson").code == 0
    assert [stored.metadata for stored in emulator.events if stored.metadata] == [metadata]
    assert times(emulator) == [NOON, NOON + 1]


def test_so_can_dead_letters(nobody_knows, command):
    refuse(event(0, user_id="1"), event(1, user_id="2"))
    keep(2)
    Path("events.ndjson").write_text("from before")
    assert command("outbox", "export", FILE, "--dead", "-o", "events.ndjson", "-q").err == ""
    found = [json.loads(line) for line in Path("events.ndjson").read_text().splitlines()]
    assert found == [event(0, user_id="1"), event(1, user_id="2")]
    assert len(letters()) == 2


def test_an_outbox_is_not_written_over(emulator, command):
    keep(0)
    Path("link").symlink_to(FILE)
    with opened() as box:
        box.enqueue(Event.from_dict(event(1)), time.time())
        for place in (FILE, "link", "outbox.db-wal", "outbox.db-shm"):
            done = command("outbox", "export", FILE, "-o", place)
            assert (done.code, done.out) == (2, "")
            assert "--output must not be the outbox itself" in done.err
    assert waiting() == [NOON, NOON + 1]


def test_no_more_than_some_events_are_held_at_once(emulator, command):
    text = "x" * 2000
    keep(*(event(number, metadata={"text": text}) for number in range(4000)))
    command("outbox", "export", FILE, "-o", "/dev/null")
    with peak_below(4_000_000):  # Of 8,000,000.
        assert command("outbox", "export", FILE, "-o", "/dev/null").code == 0


def test_who_has_seen_enough_ends_it_quietly(nobody_knows, begin):
    refuse(*(event(n, user_id="1", metadata={"text": "x" * 2000}) for n in range(60)))
    for asked in (["dead", "--json"], ["export", "--dead", "--quiet"]):
        reading, writing = os.pipe()
        process = begin("outbox", asked[0], FILE, *asked[1:], stdout=writing)
        os.close(writing)
        assert os.read(reading, 10)
        os.close(reading)
        _, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, err) == (0, b"")


# What cannot be used


def nothing() -> None:
    pass


def folder() -> None:
    FILE.mkdir()


def pipe() -> None:
    os.mkfifo(FILE)


def empty() -> None:
    FILE.touch()


def text() -> None:
    FILE.write_text("event_name,user_id\n" * 100)


def database() -> None:
    with closing(sqlite3.connect(FILE)) as raw:
        raw.execute("CREATE TABLE orders (id)")


def newer() -> None:
    keep(0)
    with closing(sqlite3.connect(FILE)) as raw:
        raw.execute("PRAGMA user_version = 99")


def damaged() -> None:
    keep(*range(200))
    size = FILE.stat().st_size
    with FILE.open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "does not exist; check the path"),
        (folder, "is not a regular file"),
        (pipe, "is not a regular file"),
        (empty, "is empty; choose a file that a tracker has used"),
        (text, "is damaged or not an outbox"),
        (database, "is an SQLite database but not an outbox"),
        (newer, "was written by a newer version"),
        (damaged, "damaged"),
    ],
)
def test_what_is_no_outbox_is_told_in_a_line_and_left_alone(make, said, emulator, command):
    make()
    before = FILE.read_bytes() if FILE.is_file() else None
    for (one, *rest), as_json in product([*ALL.values(), ["show", "1"]], ([], ["--json"])):
        done = command("outbox", one, FILE, *rest, *as_json)
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert said in done.err
        if as_json:
            assert (done.error["error"], done.error["exit_code"]) == ("OutboxError", 2)
    assert (FILE.read_bytes() if FILE.is_file() else None) == before
    assert emulator.counts.requests == 0


def test_a_locked_file_is_worth_another_try(emulator, command, monkeypatch):
    monkeypatch.setattr("intercom_data_events.outbox._file.OPENING", 0.05)
    keep(0)
    with closing(sqlite3.connect(FILE)) as raw, raw:
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        raw.execute("DELETE FROM dead")
        for one, *rest in [*ALL.values(), ["show", "1"]]:
            done = command("outbox", one, FILE, *rest, "--json")
            assert (done.code, done.out) == (3, "")
            assert done.error["error"] == "OutboxLockedError"
            assert "is locked by another program" in done.error["message"]
    for one, *rest in ALL.values():
        assert command("outbox", one, FILE, *rest).code == 0


def test_a_file_that_may_not_be_written_is_told(emulator, command):
    # Below no folder that is for its owner alone, as those of tests are.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        keep(0)
        path = FILE.rename(Path(name, FILE))
        assert command("outbox", "status", path).code == 0
        path.chmod(0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            finished = [command("outbox", one, path, *rest) for one, *rest in ALL.values()]
        finally:
            os.seteuid(user)
    for done in finished:
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1
        assert "allow this process to write" in done.err


def test_a_file_that_breaks_meanwhile_ends_it(serve, command):
    def destroy():
        for path in (FILE, Path("outbox.db-wal")):
            with path.open("r+b") as file:
                file.write(b"\xa5" * path.stat().st_size)

    serve(faults=Plan({30: destroy}))
    keep(*range(2000))
    done = command("outbox", "drain", FILE, "--json", "--concurrency", "1")
    assert done.code == 3
    assert "2000" in done.out or done.json["left"] > 0
    assert done.error["error"] == "StoppedError"
    assert "damaged" in done.error["message"]


def test_on_a_full_disk_it_goes_on_and_sends_nothing_twice(emulator, piped, monkeypatch):
    # What measures it could not write either.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    keep(*range(60))
    # The write-ahead log would grow to more than 100 KiB.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))"
    done = piped("outbox", "drain", FILE, "--json", before=limit)
    assert (done.code, done.json["sent"], done.json["left"]) == (0, 60, 0)
    assert times(emulator) == [NOON + number for number in range(60)]


# What is hostile


def test_nothing_in_an_event_steers_the_terminal(serve, terminal, command):
    serve(contacts=[])
    fields = event(
        0, event_name=f"ran{HOSTILE}", user_id=HOSTILE, metadata={f"k{HOSTILE}": HOSTILE}
    )
    keep(fields, workspace=f"shop{HOSTILE}")
    shown = [
        command("outbox", *asked)
        for asked in (["status", FILE], ["status", FILE, "--json"], ["export", FILE])
    ]
    sent = terminal("outbox", "drain", FILE, "--workspace", f"shop{HOSTILE}").finish()
    shown += [
        command("outbox", *asked)
        for asked in (
            ["dead", FILE, "--json"],
            ["dead", FILE, "--format", "csv"],
            ["show", FILE, 1],
        )
    ]
    shown += [
        command("outbox", *asked)
        for asked in (["show", FILE, 1, "--json"], ["export", FILE, "--dead"])
    ]
    assert all("owned" in done.out for done in shown)
    shown += [command("outbox", "dead", FILE), terminal("outbox", "dead", FILE).finish()]
    for done in shown:
        # The terminal's own way of ending lines is a return, and bold letters are the table's.
        seen = (done.out + done.err).replace("\r\n", "\n")
        assert not STEERING.search(seen)
        assert set(re.findall(r"\x1b.{,4}?m|\x1b", seen)) <= {"\x1b[1m", "\x1b[0m"}
    # Of the bar, which comes and goes, colors and movements are the command's.
    assert sent.code == 1
    assert "owned" in sent.out
    for one in HOSTILE.split("owned")[0], "\x1b]", "\x07", "\x9b", "\x08", "\u202e", "\u2028":
        assert one not in sent.out


def test_nothing_in_a_name_of_a_file_does_either(emulator, command):
    keep(0, 1)
    with opened() as box:
        box.dead_letter(box.claim(time.time()), NotSentError("no"), time.time())
    path = FILE.rename(f"{HOSTILE} $(x)")
    for one, *rest in ALL.values():
        for name in (path, "/no/such\x1b[31m"):
            done = command("outbox", one, name, *rest)
            assert done.code == (0 if name == path else 2)
            assert not STEERING.search(done.out + done.err)
            assert "\x1b" not in done.out + done.err
