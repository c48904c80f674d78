"""The commands, as a person in a terminal and a program through pipes meet them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import closing, redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from intercom_data_events import DataEventsClient, Event, InvalidInputError
from intercom_data_events.cli import main
from intercom_data_events.cli.app import run
from intercom_data_events.cli.commands import events
from intercom_data_events.cli.times import moment
from intercom_data_events.emulator import EmulatedContact, Fault
from intercom_data_events.outbox._binding import Binding
from intercom_data_events.outbox._queue import OutboxQueue as Outbox
from intercom_data_events.tracker import Tracker
from needs import require

from .conftest import COMMAND, NOON, PATIENCE, TOKEN, Plan, event

COMMANDS = [
    "track",
    "list",
    "summary",
    "import",
    "validate",
    "export",
    "check",
    "demo",
    "emulator",
    "outbox",
]
OUTBOX_COMMANDS = ["status", "drain", "dead", "show", "retry", "forget", "export"]
#: What steers terminals: colors, a title, the 8-bit form of both, a bell, a backspace, a return.
HOSTILE = "\x1b[31m\x1b]0;owned\x07\x9b2J\x08\r\u202e\u2028"
STEERING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x7f-\x9f\u202e\u2028]")


def fill(*events: dict[str, object]) -> None:
    with DataEventsClient() as client:
        for fields in events:
            client.create(**fields)


# Sending one


def test_track_sends_an_event_with_its_metadata(emulator, command):
    done = command(
        *("track", "placed-order", "--user-id", "1", "--created-at", "2026-01-01T12:00:00Z"),
        *("-m", "price.amount=2999", "-m", "price.currency=usd", "-m", "number:text=3434"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "placed-order for 1 at 2026-01-01 12:00:00 UTC: accepted",
        "  price: $29.99",
        "  number: 3434",
    ]
    [stored] = emulator.events
    assert (stored.event_name, stored.created_at, stored.user_id) == ("placed-order", NOON, "1")
    assert stored.metadata == {"price": {"amount": 2999, "currency": "usd"}, "number": "3434"}


def test_track_tells_programs_in_json(emulator, command):
    done = command("track", "ran", "--email", "a@b.co", "--created-at", NOON, "--json")
    assert done.json == {
        "status": "accepted",
        "event": {"event_name": "ran", "created_at": NOON, "email": "a@b.co"},
    }
    assert done.err == ""


@pytest.mark.parametrize("disabled", [False, True])
def test_nothing_is_sent_on_a_dry_run_or_where_it_is_disabled(
    disabled, emulator, command, monkeypatch
):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    if disabled:
        monkeypatch.setenv("INTERCOM_DISABLED", "1")
    asked = ["track", "ran", "--user-id", "1", *([] if disabled else ["--dry-run"])]
    assert command(*asked).out.endswith(": would be sent\n")
    assert command(*asked, "--json").json["status"] == "checked"
    assert emulator.counts.requests == 0


def test_questions_are_not_answered_by_silence_where_intercom_is_not_asked(
    emulator, command, monkeypatch
):
    monkeypatch.setenv("INTERCOM_DISABLED", "1")
    Path("kept.ndjson").write_text("kept")
    for asked in (["list"], ["list", "--follow"], ["summary"], ["export", "-o", "kept.ndjson"]):
        done = command(*asked, "--user-id", "1")
        assert (done.code, done.out) == (2, "")
        assert (
            "INTERCOM_DISABLED turns off all requests; unset it to read from Intercom" in done.err
        )
    assert Path("kept.ndjson").read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--created-at", "soon"], 2, "--created-at must be a time such as 7d"),
        (["-m", "plan"], 2, "--metadata must be KEY=VALUE, such as plan=pro, not 'plan'"),
        (["-m", "=pro"], 2, "must be KEY=VALUE"),
        (["-m", "a=1", "-m", "a=2"], 2, "--metadata must have the key 'a' only once; remove one"),
        (["-m", "a="], 2, "metadata.a must not be empty"),
        (["-m", "price.amount=much", "-m", "price.currency=usd"], 2, "minor currency units"),
        (["-m", "link.url=https://a.example"], 2, "metadata.link.url requires metadata.link.value"),
        (["-m", "price.currency=usd"], 2, "pass both, or price.currency:text"),
        (["--email", ""], 2, "--email must not be empty"),
        (["--created-at", "2026-01-31T12:00:00.5Z"], 2, "must be in whole seconds"),
        (["--created-at", "1735689600000"], 2, "if it is in milliseconds"),
        (["--region", "mars"], 2, "mars"),
        (
            ["--region", "eu", "--base-url", "https://a.example"],
            2,
            "pass either --base-url or --region, not both",
        ),
        (["--region", "eu"], 2, "conflicts with INTERCOM_BASE_URL (http"),
        (
            ["--base-url", "http://a.example"],
            2,
            "to send it anyway, pass --allow-http or set INTERCOM_ALLOW_HTTP=1",
        ),
        (["--api-version", "x"], 2, "--api-version must be an API version such as"),
        (["--timeout", "-1"], 2, "greater than 0 and at most 86400, not -1"),
        (["--timeout", "nan"], 2, "greater than 0 and at most 86400, not nan"),
        (["--max-retries", "-1"], 2, "--max-retries must be an integer of at least 0, not -1"),
        (["--nonsense"], 2, "--nonsense"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_track_cannot_understand_is_said_and_not_sent(
    arguments, code, said, as_json, emulator, command
):
    done = command("track", "ran", "--user-id", "1", *arguments, *(["--json"] if as_json else []))
    assert (done.code, done.out) == (code, "")
    assert said in (done.error["message"] if as_json else done.err)
    if as_json:
        assert done.error["exit_code"] == code
    assert emulator.counts.requests == 0


@pytest.mark.parametrize("asked", ["track", "list", "summary", "export", "import", "drain"])
def test_http_to_another_machine_needs_a_flag(asked, emulator, command, monkeypatch):
    Path("events.ndjson").write_text(
        '{"event_name": "ran", "user_id": "1", "created_at": 1671028894}', "utf-8"
    )
    with Tracker(DataEventsClient(base_url="http://a.example", allow_http=True), "outbox") as kept:
        kept.track("ran", user_id="1")
        kept.close(0)
    with emulator.serve() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        arguments = {
            "track": ["track", "ran", "--user-id", "1"],
            "import": ["import", "events.ndjson"],
            "drain": ["outbox", "drain", "outbox"],
        }.get(asked, [asked, "--user-id", "1"])
        arguments = [*arguments, "--base-url", "http://a.example"]
        before = emulator.counts.requests
        done = command(*arguments)
        assert done.code == 2
        assert "--allow-http" in done.err
        assert emulator.counts.requests == before
        done = command(*arguments, "--allow-http")
        assert "--allow-http" not in done.err
        assert emulator.counts.requests > before


def test_an_event_of_nobody_is_refused(emulator, command):
    done = command("track", "ran")
    assert (done.code, done.out) == (2, "")
    assert "has no contact: pass --user-id, --email or --id" in done.err


@pytest.mark.parametrize("name", ["INTERCOM_REGION", "INTERCOM_VERSION", "INTERCOM_DISABLED"])
def test_settings_in_the_environment_are_named_where_they_make_no_sense(
    name, emulator, command, monkeypatch
):
    if name == "INTERCOM_REGION":
        monkeypatch.delenv("INTERCOM_BASE_URL")
    monkeypatch.setenv(name, "nonsense")
    done = command("track", "ran", "--user-id", "1")
    assert (done.code, done.out) == (2, "")
    assert name in done.err


def test_flags_come_before_the_environment(emulator, command, monkeypatch):
    url = os.environ["INTERCOM_BASE_URL"]
    monkeypatch.setenv("INTERCOM_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("INTERCOM_VERSION", "2.10")
    flags = ["--base-url", url, "--api-version", "2.14"]
    assert command("track", "ran", "--user-id", "1", *flags).code == 0
    [request] = emulator.requests
    assert request.headers["Intercom-Version"] == "2.14"


# The access token


def test_a_token_that_is_not_accepted_ends_with_4_and_is_not_shown(serve, command):
    serve(tokens=["another"])
    for asked in (["track", "ran"], ["list"], ["summary"], ["export"]):
        for as_json in ([], ["--json"]):
            done = command(*asked, "--user-id", "1", *as_json)
            assert (done.code, done.out) == (4, "")
            assert "401" in done.err


@pytest.mark.parametrize("asked", [["track", "ran"], ["list"], ["summary"], ["export"]])
def test_without_a_token_and_a_terminal_the_remedy_is_told(asked, emulator, command, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    done = command(*asked, "--user-id", "1")
    assert (done.code, done.out) == (2, "")
    assert "set INTERCOM_ACCESS_TOKEN in the environment" in done.err


def test_a_terminal_is_asked_for_the_token_and_does_not_show_it(
    emulator, terminal, monkeypatch, ndjson
):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    # Not taken for the answer.
    with ndjson(2).open("rb") as events:
        begun = terminal("import", "-", "--quiet", stdin=events)
        begun.expect("Access token of the Intercom workspace: ")
        begun.type(f"{TOKEN}\n")
        done = begun.finish()
    assert done.code == 0
    assert "2 accepted" in done.out
    assert {request.headers["Authorization"] for request in emulator.requests} == {
        f"Bearer {TOKEN}"
    }


@pytest.mark.parametrize(("typed", "code"), [("\x03", 130), ("\x04", 130), ("\n", 2)])
def test_whoever_gives_no_token_gets_no_traceback(typed, code, emulator, terminal, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    begun = terminal("list", "--user-id", "1")
    begun.expect("workspace: ")
    begun.type(typed)
    assert begun.finish().code == code
    assert emulator.counts.requests == 0


# Listing


def test_list_shows_events_newest_first(emulator, command):
    price = {"price": {"amount": 2999, "currency": "usd"}, "plan": "pro", "load": 3.5}
    link = {"link": {"url": "https://a.example", "value": "7"}, "x_at": NOON}
    fill(event(0, user_id="1", metadata=price), event(50, user_id="1", metadata=link))
    done = command("list", "--user-id", "1")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        (
            "2026-01-01 12:00:50 UTC  placed-order  link=7 <https://a.example>  "
            "x_at=2026-01-01 12:00:00 UTC"
        ),
        "2026-01-01 12:00:00 UTC  placed-order  price=$29.99  plan=pro  load=3.5",
    ]
    [newest, oldest] = command("list", "--user-id", "1", "--json").lines
    assert newest["created_at"] == NOON + 50
    assert oldest["metadata"] == price


def test_list_goes_on_over_pages_and_stops_where_it_is_told(emulator, command):
    fill(*(event(number, user_id="1") for number in range(120)))
    assert len(command("list", "--user-id", "1").out.splitlines()) == 120
    assert len(command("list", "--user-id", "1", "-n", "7", "--json").lines) == 7
    begin = "2026-01-01T12:01:50Z"
    assert len(command("list", "--user-id", "1", "--since", begin, "--json").lines) == 10


@pytest.mark.parametrize("asked", ["list", "summary", "export"])
def test_nobody_who_is_asked_for_is_a_refusal_and_no_empty_answer(asked, serve, command):
    serve(contacts=[EmulatedContact(user_id="1")])
    done = command(asked, "--email", "a@b.co", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.error["error"] == "NotFoundError"


@pytest.mark.parametrize("asked", ["list", "summary"])
def test_whose_events_has_to_be_said_once(asked, emulator, command):
    for given in (["--json"], ["--user-id", "1", "--email", "a@b.co"]):
        done = command(asked, *given)
        assert (done.code, done.out) == (2, "")
        assert "pass exactly one of --user-id, --email and --id, not " in done.err


NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("12h", NOW - timedelta(hours=12)),
        (" 7D ", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T12:00:00", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00+02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("1767268800", datetime(2026, 1, 1, 12, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_type_them(text, expected):
    assert moment(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "7y", "yesterday", "999999w", "9" * 30, "-7d"])
def test_what_is_no_time_is_refused(text, emulator, command):
    if text != "7":
        with pytest.raises(ValueError, match="must be a time such as 7d"):
            moment(text, NOW)
    done = command("list", "--user-id", "1", f"--since={text or 'no'}y")
    assert (done.code, done.out) == (2, "")
    assert "--since must be a time such as 7d" in done.err


def test_follow_shows_what_arrives_later(emulator, command, monkeypatch):
    fill(*(event(number, user_id="1") for number in range(20)))
    arriving = iter([[20], [], [21, 22]])

    def arrive(seconds):
        assert seconds == 0.5
        numbers = next(arriving, None)
        if numbers is None:
            raise KeyboardInterrupt
        fill(*(event(number, user_id="1") for number in numbers))

    monkeypatch.setattr(events.time, "sleep", arrive)
    asked = ["list", "--user-id", "1", "--follow", "--interval", "0.5", "--json"]
    done = command(*asked)
    assert done.code == 130
    # Oldest first, as they come; of those from before, the last ten.
    assert [one["created_at"] - NOON for one in done.lines] == list(range(10, 23))


def test_follow_ends_when_a_person_in_the_terminal_says_so(emulator, terminal):
    fill(event(0, user_id="1"))
    begun = terminal("list", "--user-id", "1", "--follow", "--interval", "0.1")
    begun.expect("2026-01-01 12:00:00")
    fill(event(1, user_id="1"))
    begun.expect("12:00:01")
    begun.interrupt()
    assert begun.finish().code == 130


@pytest.mark.parametrize("seconds", ["0", "-1", "inf", "nan", "1e9"])
def test_follow_cannot_be_told_to_look_never_or_all_the_time(seconds, emulator, command):
    done = command("list", "--user-id", "1", "--follow", "--interval", seconds)
    assert (done.code, done.out) == (2, "")
    said = f"--interval must be from 0.1 to 86,400 seconds, not {float(seconds):g}\n"
    assert said in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--follow", "--plot"],
        ["list", "--plot", "--json"],
        ["list", "--format", "csv", "--json"],
        ["summary", "--plot", "--format", "csv"],
        ["export", "--for-spreadsheets"],
        ["summary", "--plot", "--json"],
        ["export", "--json", "--format", "csv"],
    ],
)
def test_flags_that_contradict_each_other_are_refused(arguments, emulator, command):
    done = command(*arguments, "--user-id", "1")
    assert (done.code, done.out) == (2, "")
    alone = "--for-spreadsheets" in arguments
    assert ("requires --format csv; pass both" if alone else ", not both") in done.err
    assert emulator.counts.requests == 0


# Counting, drawing


def test_summary_counts_by_name(emulator, command):
    fill(event(0, user_id="1"), event(50, user_id="1"), event(7, user_id="1", event_name="paid"))
    done = command("summary", "--user-id", "1")
    assert (done.code, done.err) == (0, "")
    heading, *rows = done.out.splitlines()
    assert heading.split()[:2] == ["event", "count"]
    assert sorted(row.split()[:2] for row in rows) == [["paid", "1"], ["placed-order", "2"]]
    [counted] = [
        one
        for one in command("summary", "--user-id", "1", "--json").json["events"]
        if one["name"] == "placed-order"
    ]
    assert counted["count"] == 2
    assert counted["first"] == "2026-01-01T12:00:00Z"


def test_tables_are_written_as_csv_too(emulator, command):
    metadata = {"price": {"amount": 1, "currency": "usd"}}
    fill(event(0, user_id="1", metadata=metadata), event(50, user_id="1", event_name="paid"))
    done = command("list", "--user-id", "1", "--format", "csv")
    assert (done.code, done.err) == (0, "")
    newest, oldest = csv.DictReader(done.out.splitlines())
    assert (newest["event_name"], newest["created_at"]) == ("paid", "2026-01-01T12:00:50Z")
    assert json.loads(oldest["metadata"]) == metadata
    done = command("summary", "--user-id", "1", "--format", "csv")
    counted = {row["name"]: row for row in csv.DictReader(done.out.splitlines())}
    assert counted.keys() == {"paid", "placed-order"}
    assert counted["paid"]["first"] == counted["paid"]["last"] == "2026-01-01T12:00:50Z"
    for asked in ("list", "summary"):
        named = command(asked, "--user-id", "1", "--format", "json").out
        assert named == command(asked, "--user-id", "1", "--json").out


def test_a_summary_has_a_line_of_80_columns_for_each_name(emulator, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    fill(*(event(n, user_id="1", event_name=name * 60) for n, name in enumerate("ab")))
    heading, *rows = command("summary", "--user-id", "1").out.splitlines()
    assert heading.split()[:2] == ["event", "count"]
    assert len(rows) == 2
    assert all(len(row.rstrip()) <= 80 for row in rows)
    for row in rows:
        name, count, *first, _, _ = row.split()
        assert re.fullmatch("a{9,}…|b{9,}…", name)
        assert count == "1"
        assert " ".join(first).startswith("2026-01-01 12:00:0")


def test_a_summary_is_one_object_for_programs(emulator, command):
    fill(event(0, user_id="1"))
    found = command("summary", "--user-id", "1", "--json").json
    assert found["user_id"] == "1"
    assert [one["name"] for one in found["events"]] == ["placed-order"]
    assert "additional_properties" not in str(found)


@pytest.mark.parametrize("asked", ["list", "summary"])
def test_amounts_and_times_are_said_as_people_say_them(asked, emulator, command):
    price = {"amount": 51044, "currency": "usd"}
    fill(event(0, user_id="1", metadata={"price": price, "order_number": 3434, "paid_at": NOON}))
    said = command(asked, "--user-id", "1").out
    if asked == "list":
        assert "price=$510.44" in said
        assert "order_number=3434" in said
        assert "paid_at=2026-01-01 12:00:00 UTC" in said
    assert "UTC" in said


@pytest.mark.parametrize("asked", ["list", "summary"])
def test_charts_are_drawn_where_results_go_and_to_a_file(asked, emulator, command):
    fill(event(0, user_id="1"), event(50, user_id="1"))
    done = command(asked, "--user-id", "1", "--plot", "--svg", "events.svg")
    assert done.code == 0
    assert "\nplaced-order  " in done.out
    assert done.err == "Chart written to events.svg.\n"
    assert ElementTree.parse("events.svg").getroot().get("role") == "img"
    done = command(asked, "--user-id", "1", "--svg", "events.svg", "--json")
    assert "placed-order" in str(done.lines)
    done = command(asked, "--user-id", "1", "--svg", "no/such/folder.svg")
    assert (done.code, done.out) == (2, "")
    assert done.err == "Error: there is no directory no/such; create it, or choose another path\n"


def test_there_is_nothing_to_draw_of_somebody_who_did_nothing(serve, command):
    serve(contacts=[EmulatedContact(user_id="1")])
    done = command("list", "--user-id", "1", "--plot", "--svg", "none.svg")
    assert (done.code, done.out) == (0, "")
    assert "No events; none.svg is not written." in done.err
    assert not Path("none.svg").exists()


def test_charts_do_with_ascii_where_there_is_no_more(emulator, piped, monkeypatch):
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    fill(event(0, user_id="1", event_name="commandé", metadata={"ville": "Orléans"}))
    done = piped("list", "--user-id", "1", "--plot")
    assert (done.code, done.err) == (0, "")
    done = piped("list", "--user-id", "1")
    assert (done.code, done.err) == (0, "")
    assert "command?  ville=Orl?ans" in done.out


# Writing to files


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_is_exported_can_be_imported_and_is_the_same(form, serve, command):
    begun = serve(contacts=[EmulatedContact(id="5f" * 12), EmulatedContact(user_id="1")])
    metadata = {
        "price": {"amount": 2999, "currency": "usd"},
        "order": {"url": "https://a.example", "value": 'a "b", c\nd'},
        "code": "007",
        "load": 3.5,
        "paid_at": NOON,
    }
    fill(
        event(0, user_id="1", metadata=metadata),
        event(1, user_id="1", event_name="Straße, 注文"),
        {"event_name": "came", "created_at": NOON, "id": "5f" * 12},
    )
    whose = ["--user-id", "1", "--id", "5f" * 12]
    done = command("export", *whose, "--format", form, "-o", f"events.{form}")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"3 events of 2 contacts written to events.{form}.\n"
    before = exported(command, whose)
    begun.clear()
    assert command("import", f"events.{form}").code == 0
    assert exported(command, whose) == before
    assert len(before) == 3


def exported(command, whose):
    done = command("export", *whose, "--json", "--quiet")
    assert done.err == ""
    return done.lines


def test_export_begins_where_it_is_told(emulator, command):
    fill(event(0, user_id="1"), event(50, user_id="1"))
    done = command("export", "--user-id", "1", "--since", "2026-01-01T12:00:01Z", "-q")
    assert [one["created_at"] for one in done.lines] == [NOON + 50]


def test_export_needs_somebody(emulator, command):
    done = command("export", "--quiet")
    assert (done.code, done.out) == (2, "")
    assert "no contact is given; pass --user-id, --email or --id" in done.err


def test_a_failed_export_leaves_the_file_from_before(serve, command, tmp_path):
    plan = Plan()
    serve(faults=plan)
    fill(*(event(number, user_id="1") for number in range(60)))
    Path("events.csv").write_text("from before")
    plan.at[plan.number + 2] = lambda: Fault.failing(500)
    done = command("export", "--user-id", "1", "-o", "events.csv", "--max-retries", "0")
    assert (done.code, done.out) == (3, "")
    assert Path("events.csv").read_text() == "from before"
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]


def test_export_writes_into_devices_and_through_links_in_place_of_neither(emulator, command):
    fill(event(0, user_id="1"))
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert command("export", "--user-id", "1", "-o", "pipe").code == 0
    assert json.loads(os.read(reading, 65536))["created_at"] == NOON
    os.close(reading)
    Path("link").symlink_to("events.ndjson")
    assert command("export", "--user-id", "1", "-o", "link").code == 0
    assert Path("link").is_symlink()
    assert json.loads(Path("events.ndjson").read_text())["created_at"] == NOON


def test_a_full_disk_is_told_once_and_without_a_traceback(emulator, begin):
    fill(event(0, user_id="1"))
    for asked in (["list"], ["export", "--format", "csv", "-o", "/dev/full"]):
        with Path("/dev/full").open("wb") as full:
            process = begin(*asked, "--user-id", "1", stdout=full)
        _, err = process.communicate()
        assert process.returncode == 3
        name = "/dev/full" if "-o" in asked else "standard output"
        assert err.decode() == (
            f"Error: cannot use {name}: no space left on device; check the path, its permissions "
            "and the free space\n"
        )


# What is hostile


def test_nothing_that_intercom_says_steers_the_terminal(emulator, terminal):
    name = f"ran{HOSTILE}"
    fill(event(0, user_id=HOSTILE, event_name=name, metadata={f"k{HOSTILE}": HOSTILE}))
    for asked in (["list"], ["list", "--json"], ["summary"], ["export", "--format", "csv"]):
        done = terminal(*asked, "--user-id", HOSTILE).finish()
        assert done.code == 0
        # The terminal's own way of ending lines is a return, and colors are the command's.
        seen = done.out.replace("\r\n", "\n")
        assert not STEERING.search(seen)
        assert set(re.findall(r"\x1b.{,4}?m|\x1b", seen)) <= {
            f"\x1b[{style}m" for style in ("0", "1", "35")
        }, asked


def test_nothing_that_was_typed_steers_the_terminal_either(serve, command):
    serve(contacts=[])
    for asked in (
        ["track", HOSTILE, "--user-id", HOSTILE],
        ["track", HOSTILE, "--user-id", HOSTILE, "--dry-run"],
        ["list", "--user-id", HOSTILE],
        ["list", "--user-id", "1", f"--since={HOSTILE}"],
        ["import", HOSTILE],
        ["validate", HOSTILE],
    ):
        for as_json in ([], ["--json"]):
            done = command(*asked, *as_json)
            assert not STEERING.search((done.out + done.err).replace("\r\n", "\n"))
            assert "\x1b" not in done.out + done.err


def test_half_a_character_from_the_server_is_no_reason_to_fail(emulator, command):
    fill(event(0, user_id="1"))
    # A client does not send it; a server can.
    emulator_says(metadata={"half": "\ud83d"})
    for asked in (["list"], ["list", "--json"], ["export"], ["export", "--format", "csv"]):
        done = command(*asked, "--user-id", "1")
        assert done.code == 0
        assert "half" in done.out


def emulator_says(**fields):
    body = json.dumps(event(1, user_id="1", **fields))
    httpx.post(
        f"{os.environ['INTERCOM_BASE_URL']}/events",
        content=body,
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
    )


# Pipes and terminals


def test_a_reader_who_has_seen_enough_ends_it_quietly(emulator, begin):
    fill(*(event(number, user_id="1", metadata={"text": "x" * 200}) for number in range(150)))
    for asked in (["list"], ["export", "--format", "csv"]):
        reading, writing = os.pipe()
        quiet = ["--quiet"] if "export" in asked else []
        process = begin(*asked, "--user-id", "1", *quiet, stdout=writing)
        os.close(writing)
        assert os.read(reading, 10)
        os.close(reading)
        _, err = process.communicate()
        assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("closed", [[1], [0, 1, 2]])
def test_streams_can_be_closed(closed, emulator, piped):
    fill(event(0, user_id="1"))
    before = "".join(f"os.close({number})\n" for number in closed)
    done = piped("list", "--user-id", "1", before=before)
    assert (done.code, done.err) == (0, "")


def test_each_question_is_answered_through_a_pipe(emulator, piped):
    fill(event(0, user_id="1"))
    assert piped("track", "ran", "--user-id", "2").out.endswith(": accepted\n")
    assert piped("summary", "--user-id", "1", "--json").json["events"][0]["count"] == 1
    done = piped("summary", "--user-id", "1", "--plot")
    assert "\x1b" not in done.out
    assert (done.code, done.err) == (0, "")


def test_each_question_is_answered_in_a_terminal(emulator, terminal):
    assert "accepted" in terminal("track", "ran", "--user-id", "2").finish().out
    listed = terminal("list", "--user-id", "2").finish()
    assert "\x1b[1mran\x1b[0m" in listed.out
    assert "ran" in terminal("summary", "--user-id", "2").finish().out
    drawn = terminal("list", "--user-id", "2", "--plot", columns=60).finish()
    assert "█" in drawn.out
    assert "1 event of 1 contact" in terminal("export", "--user-id", "2").finish().out


def test_control_c_while_intercom_is_slow_ends_a_question(serve, terminal):
    arrived = threading.Event()
    serve(faults=Plan({1: lambda: arrived.set() or Fault.slow(50)}))
    begun = terminal("list", "--user-id", "1")
    assert arrived.wait(PATIENCE)
    begun.interrupt()
    done = begun.finish()
    assert done.code == 130


def test_failures_are_told_from_refusals(serve, command, monkeypatch):
    serve(faults=[Fault.failing(503)] * 3)
    done = command("list", "--user-id", "1", "--max-retries", "0", "--json")
    assert (done.code, done.out, done.error["exit_code"]) == (3, "", 3)
    monkeypatch.setenv("INTERCOM_BASE_URL", "http://127.0.0.1:1")
    assert command("summary", "--user-id", "1", "--max-retries", "0").code == 3


# The emulator


def test_the_emulator_serves_until_interrupted(begin, monkeypatch, command):
    process = begin("emulator", "--json", "--rate-limit", "0")
    monkeypatch.setenv("INTERCOM_BASE_URL", json.loads(process.stdout.readline())["url"])
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    assert command("track", "ran", "--user-id", "1").code == 0
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 0
    assert json.loads(err)["path"] == "/events"
    assert json.loads(out)["stored"] == 1


def test_the_emulator_tells_a_person_where_it_serves(terminal):
    begun = terminal("emulator", "--port", "0")
    begun.expect("Emulating Intercom's data events at http://127.0.0.1:")
    begun.interrupt()
    done = begun.finish()
    assert done.code == 0
    assert "requests: 0" in done.out


def test_the_emulators_own_arguments_are_its_own(command):
    done = command("emulator", "--help")
    assert done.code == 0
    assert "usage: intercom-events emulator" in done.out
    assert "--faults" in done.out
    done = command("emulator", "--nonsense")
    assert (done.code, done.out) == (2, "")


# Help


def test_without_a_command_there_is_help(command):
    done = command()
    assert done.code == 2
    done = command("--help")
    assert done.code == 0
    listed = done.out.partition("Commands:")[2].partition("\n\n")[0]
    assert re.findall(r"^  (\w+)  ", listed, re.MULTILINE) == COMMANDS
    assert "Exit codes:\n  0    success\n  1    an event, line or contact was rejected" in done.out
    assert command("--version").out.startswith("intercom-events ")


def test_an_unknown_command_is_a_mistake(command):
    done = command("tarck")
    assert (done.code, done.out) == (2, "")
    assert "tarck" in done.err


def examples() -> list[str]:
    """The lines below "Examples:" in all helps; one that ends in a backslash goes on."""
    found: list[str] = []
    names = [*COMMANDS, *(f"outbox {name}" for name in OUTBOX_COMMANDS)]
    for name in ["", *(name for name in names if name != "emulator")]:
        with redirect_stdout(StringIO()) as shown:
            assert run([*name.split(), "--help"]) == 0
        block = re.search(r"Examples:\n((?: +.+\n)+)", shown.getvalue())
        assert block is not None
        found += re.findall(r"(?:.*\\\n)*.+", block[1])
    return [line.strip() for line in found]


def test_every_help_has_an_example():
    assert len(examples()) >= 32


def needs_a_process(example: str) -> bool:
    """Whether it takes a shell to run an example, or an interruption to end it."""
    return bool({"|", ">", "<"} & set(example)) or "--follow" in example


EXAMPLES = dict.fromkeys(examples())


@pytest.fixture
def example_files(emulator, tmp_path):
    """What the examples read: a few events of each of their contacts, and files."""
    for identity in ({"user_id": "314159"}, {"user_id": "271828"}, {"email": "a@b.co"}):
        fill({"event_name": "came", "created_at": NOON, **identity})
    prepare(tmp_path)


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not needs_a_process(each)])
def test_every_example_works(example, example_files, command):
    name, *arguments = shlex.split(example.replace("\\\n", ""))
    assert name == "intercom-events"
    assert command(*arguments, stdin=b"").code == 0


@pytest.mark.processes
@pytest.mark.parametrize("example", [each for each in EXAMPLES if needs_a_process(each)])
def test_every_example_of_a_shell_works(example, example_files, monkeypatch, tmp_path):
    require("sh", "cat", "gzip")
    install(tmp_path / "bin", monkeypatch)
    with subprocess.Popen(
        # Replaced by the command, where it is one, the shell does not change its exit code.
        ["sh", "-c", f"exec {example}" if "--follow" in example else example],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        if "--follow" in example:
            assert process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert b"Traceback" not in err
    assert process.returncode == (130 if "--follow" in example else 0)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the command where a shell finds it."""
    folder.mkdir()
    script = folder / "intercom-events"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def prepare(folder: Path) -> None:
    lines = "".join(f"{json.dumps(event(number))}\n" for number in range(3))
    table = f"event_name,user_id,created_at\ncame,1,{NOON}\n"
    (folder / "events.ndjson").write_text(lines)
    (folder / "events.csv").write_text(table)
    (folder / "events.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "events.csv.gz").write_bytes(gzip.compress(table.encode()))
    for month in ("01", "02"):
        (folder / f"2026-{month}.ndjson.gz").write_bytes(gzip.compress(lines.encode()))
    binding = Binding(os.environ["INTERCOM_BASE_URL"], TOKEN)
    with closing(Outbox(folder / "events.outbox", binding)) as box:
        for number in range(18):
            box.enqueue(Event.from_dict(event(number)), NOON)
        for entry in [box.claim(NOON) for _ in range(18)]:
            if entry.id in (17, 18):
                box.dead_letter(entry, InvalidInputError("no"), NOON)


def test_the_shell_completes_commands(piped, monkeypatch):
    monkeypatch.setenv("_INTERCOM_EVENTS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "1")
    for begun, expected in (("", COMMANDS), ("ex", ["export"]), ("im", ["import"])):
        monkeypatch.setenv("COMP_WORDS", f"intercom-events {begun}")
        done = piped()
        assert (done.code, done.err) == (0, "")
        assert sorted(done.out.split()) == sorted(expected)


def test_the_shell_is_told_how_to_complete(command, monkeypatch):
    # Whatever the tests are run from; what is read is the argument.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = command("--show-completion", "bash")
    assert done.code == 0
    assert "_INTERCOM_EVENTS_COMPLETE=complete_bash" in done.out


# Starting


def test_the_extra_is_named_where_it_is_not_installed():
    script = f"import sys; sys.modules['typer'] = None; {COMMAND[-1]}"
    done = subprocess.run([*COMMAND[:-1], script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "intercom-events requires typer; run: pip install 'intercom-data-events[cli]'\n"
    )


def test_control_c_while_it_starts_is_no_traceback(monkeypatch, capsys):
    class Interrupting:
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "intercom_data_events.cli.app", Interrupting())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
