"""What the command line says of its options, and of those that it does not have."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from intercom_data_events.cli.app import app
from intercom_data_events.cli.help import summary
from intercom_data_events.emulator import EmulatedContact, Fault

from .conftest import NOON, PATIENCE, TOKEN, Plan
from .test_screens import names

SECRET = "MyOwnSecretToken"
WHO = ["--user-id", "1"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["track", "ran", "--retries", "3"], "--max-retries"),
        (["track", "ran", "--userid", "3"], "--user-id"),
        (["list", "--frmat", "json"], "--format"),
        (["outbox", "drain", "x", "--max-tme=3"], "--max-time"),
        (["import", "x", "--dryrun"], "--dry-run"),
    ],
)
def test_an_option_that_is_nearly_right_is_named(given, meant, command):
    done = command(*given)
    assert (done.code, done.out) == (2, "")
    wrong = next(one for one in given if one.startswith("--")).partition("=")[0]
    first, second = done.err.splitlines()
    assert first == f"Error: there is no option {wrong}; did you mean {meant}?"
    assert second.startswith(f"For help, run: intercom-events {given[0]} ")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["list", *WHO, "--limit", "0"], "--limit must be an integer of at least 1, not 0"),
        (["list", *WHO, "-n", "x"], "--limit must be an integer of at least 1, not 'x'"),
        (["list", *WHO, "--format", "xml"], "--format must be table, json or csv, not 'xml'"),
        (["import", "x", "--region", "mars"], "--region must be us, eu or au, not 'mars'"),
        (["check", "--timeout", "soon"], "--timeout must be a number, not 'soon'"),
        (["outbox", "show", "x", "y"], "NUMBER must be an integer of at least 1, not 'y'"),
        (
            ["outbox", "drain", "x", "--concurrency", "1001"],
            "--concurrency must be an integer from 1 to 1,000, not 1001",
        ),
        (["outbox", "show", "x"], "NUMBER is missing; add it"),
        (["list", *WHO, "--plot=1"], "--plot must not have a value"),
        (["outbox", "dran"], "there is no command dran; did you mean drain?"),
        (["send"], "there is no command send"),
        (
            ["import", "my", "file.csv"],
            "unexpected arguments: file.csv; remove them, or quote arguments that contain spaces",
        ),
    ],
)
def test_a_value_that_cannot_be_is_told_what_must_be(given, said, command):
    for as_json in ([], ["--json"]):
        done = command(*given, *as_json)
        assert (done.code, done.out) == (2, "")
        assert (done.error["message"] if as_json else done.err.splitlines()[0][7:]) == said


def test_an_option_at_the_end_needs_a_value(command):
    for given in (["track", "ran", "--user-id"], ["track", "ran", "--json", "--user-id"]):
        done = command(*given)
        assert (done.code, done.out) == (2, "")
        assert "--user-id must have a value" in done.err


@pytest.mark.parametrize(
    "given",
    [
        ["--token", SECRET],
        [f"--token={SECRET}"],
        ["--access-token", SECRET],
        [f"--access_token={SECRET}"],
        ["--api-key", SECRET],
        ["-t", SECRET],
        [f"-t{SECRET}"],
    ],
)
def test_a_token_is_not_an_option_and_is_not_repeated(given, command):
    for path in ([], ["track", "ran"], ["list"], ["import", "x"], ["check"], ["outbox", "drain"]):
        for as_json in ([], ["--json"]) if path else ([],):
            done = command(*path, *as_json, *given)
            assert (done.code, done.out) == (2, "")
            assert SECRET not in done.err
            assert "set INTERCOM_ACCESS_TOKEN in the environment, or enter the token" in done.err
            if as_json:
                assert json.loads(done.err)["exit_code"] == 2


def test_every_command_that_asks_intercom_has_the_same_options_for_it():
    program = typer.main.get_command(app)
    asking = {}
    for name in names(program):
        command = program
        for part in name.split():
            command = command.commands[part]
        options = {option.name: option.help for option in command.params}
        if "region" in options:
            asking[name] = options
    shared = ["base_url", "allow_http", "api_version", "timeout", "max_retries", "verbose"]
    assert len(asking) == 7
    for options in asking.values():
        assert options["timeout"] == "Time limit for each attempt of a request."
        assert all(name in options for name in shared)
    with_a_dry_run = [name for name, options in asking.items() if "dry_run" in options]
    assert with_a_dry_run == ["track", "import", "outbox drain"]


def test_a_group_says_of_each_command_what_the_command_says_of_itself():
    program = typer.main.get_command(app)
    for group in (program, program.commands["outbox"]):
        told = {name: summary(one) for name, one in group.commands.items()}
        assert group.commands.summaries == told


def test_verbose_shows_requests_and_retries_without_personal_data(serve, command):
    serve(faults=Plan({2: lambda: Fault.failing(503)}))
    who = ["--email", "frodo@example.com"]
    sent = command("track", "ran", *who, "--created-at", NOON, "-m", "note=secret", "-v")
    assert sent.code == 0
    done = command("list", *who, "--verbose")
    assert done.code == 0
    shown = sent.err + done.err
    lines = [line.split(" ", 1)[1].split(", request id")[0] for line in shown.splitlines()]
    assert [line.split(" in ")[0] for line in lines] == [
        "POST /events 202",
        "GET /events 503",
        "GET /events: 503, retrying",
        "GET /events 200",
    ]
    assert not [one for one in ("frodo", "secret", TOKEN) if one in shown]
    # Once it has ended, nothing is shown any longer.
    assert command("list", *who).err == ""


@pytest.mark.parametrize(
    "given",
    [
        ["check", "--json"],
        ["list", *WHO],
        ["list", *WHO, "--follow"],
        ["summary", *WHO],
        ["export", *WHO, "-o", "events.ndjson"],
        ["track", "ran", *WHO],
    ],
)
def test_control_c_ends_each_command_in_a_word_and_exit_code_130(given, serve, command):
    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        return Fault.slow(PATIENCE)

    serve(faults=Plan({1: interrupt}))
    done = command(*given)
    assert (done.code, done.out, done.err) == (130, "", "Interrupted.\n")
    assert not Path("events.ndjson").exists()


def test_control_c_at_the_question_for_the_token_is_told_too(terminal, emulator, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    asked = terminal("check")
    asked.expect("Access token")
    asked.interrupt()
    done = asked.finish()
    assert done.code == 130
    assert done.out.splitlines()[-1] == "Interrupted."


def test_an_error_for_programs_is_one_line_in_a_narrow_terminal_too(terminal, emulator):
    done = terminal("list", "--json", columns=30).finish()
    [line] = done.out.splitlines()
    assert json.loads(line)["error"] == "UsageError"


def test_a_contact_without_events_is_said_to_have_none(serve, command):
    serve(contacts=[EmulatedContact(user_id="1")])
    for given in (["list"], ["summary"]):
        done = command(*given, *WHO)
        assert (done.code, done.out, done.err) == (0, "", "No events.\n")
        assert command(*given, *WHO, "--format", "csv").out.count("\n") == 1
        assert command(*given, "--user-id", "2", "--format", "csv").out == ""


@pytest.mark.parametrize(
    ("columns", "heading"),
    [
        (80, ["event", "count", "first (UTC)", "last (UTC)"]),
        (50, ["event", "count", "first (UTC)"]),
        (30, ["event", "count"]),
    ],
)
def test_a_table_leaves_out_columns_rather_than_names(
    columns, heading, emulator, command, monkeypatch
):
    command("track", "placed-order", *WHO, "--created-at", NOON)
    monkeypatch.setenv("COLUMNS", str(columns))
    table = command("summary", *WHO).out
    first, row = table.splitlines()
    assert re.split(" {2,}", first.strip()) == heading
    assert row.split()[:2] == ["placed-order", "1"]
    assert max(map(len, table.splitlines())) <= columns


@pytest.mark.processes
def test_python_m_is_the_same_program_under_its_own_name():
    program = [sys.executable, "-m", "intercom_data_events"]
    done = subprocess.run([*program, "lst"], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines()[-1] == (
        "For help, run: python -m intercom_data_events --help"
    )


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        (51044, "usd", "$510.44"),
        (5, "EUR", "€0.05"),
        (51044, "chf", "510.44 CHF"),
        (51044, "jpy", "¥51,044"),
        (51044, "kwd", "51.044 KWD"),
        (1234567, "clf", "123.4567 CLF"),
        (51044, "xbt", "51,044 minor units of XBT"),
        (1, "xbt", "1 minor unit of XBT"),
    ],
)
def test_amounts_are_in_major_units_with_the_decimals_of_the_currency(
    amount, currency, shown, emulator, command
):
    price = ["-m", f"price.amount={amount}", "-m", f"price.currency={currency}"]
    assert command("track", "paid", *WHO, "--created-at", NOON, *price).code == 0
    assert f"price={shown}\n" in command("list", *WHO).out


def test_the_same_records_are_a_table_json_and_csv(emulator, command):
    for number in range(2):
        command("track", f"step-{number}", *WHO, "--created-at", NOON + number)
    table = command("summary", *WHO).out
    assert "step-1" in table
    in_json = command("summary", *WHO, "--format", "json")
    assert command("summary", *WHO, "--json").out == in_json.out
    assert '"2026-01-01T12:00:01Z"' in in_json.out
    heading, *rows = command("summary", *WHO, "--format", "csv").out.splitlines()
    assert heading.startswith("name,count,first,last")
    assert len(rows) == 2
    done = command("summary", *WHO, "--json", "--format", "csv")
    assert (done.code, done.out) == (2, "")
    assert done.error["message"] == "pass either --json or --format csv, not both"


NO_LIMIT = "must be a number of seconds greater than 0"
NO_VERSION = "must be an API version such as '2.16' or 'Preview', not 'x'"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["list", "--timeout", "0"], f"--timeout {NO_LIMIT} and at most 86400, not 0"),
        (
            ["list", "--max-retries", "-1"],
            "--max-retries must be an integer of at least 0, not -1; pass 0 to turn retries off",
        ),
        (
            ["list", "--base-url", "ftp:x"],
            (
                "--base-url must be an http or https URL without a query or fragment, such as "
                "https://api.intercom.io, not 'ftp:x'"
            ),
        ),
        (
            ["list", "--base-url", "https://me@a.example"],
            "--base-url must not contain credentials; set INTERCOM_ACCESS_TOKEN instead",
        ),
        (["list", "--api-version", "x"], f"--api-version {NO_VERSION}"),
        (["summary", "--id", " "], "--id must not be empty; leave it out if it is unknown"),
        (
            ["track", "ran", "-m", "a.amount=x", "-m", "a.currency=usd", "--id", "1"],
            (
                "--metadata a.amount must be an integer from 0 to 9223372036854775807 in minor "
                "currency units, not 'x'; pass 2999 for 29.99"
            ),
        ),
        (
            ["import", "-", "--deadline", "0"],
            f"--deadline {NO_LIMIT}, not 0; pass inf for no deadline",
        ),
        (
            ["import", "-", "--max-rate", "inf"],
            "--max-rate must be a finite number of events per second greater than 0, not inf",
        ),
    ],
)
def test_an_error_of_the_package_names_the_option(given, said, command, monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    identity = WHO if given[0] == "list" else []

    done = command(*given, *identity, stdin=b"")

    assert (done.code, done.out, done.err) == (2, "", f"Error: {said}\n")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("INTERCOM_REGION", "mars", "INTERCOM_REGION must be us, eu or au, not 'mars'"),
        ("INTERCOM_VERSION", "x", f"INTERCOM_VERSION {NO_VERSION}"),
        ("INTERCOM_ALLOW_HTTP", "maybe", "INTERCOM_ALLOW_HTTP must be 1 or 0, not 'maybe'"),
        (
            "INTERCOM_ACCESS_TOKEN",
            "a b",
            (
                "the access token must contain only visible ASCII characters; remove spaces, "
                "line breaks and all other characters"
            ),
        ),
    ],
)
def test_an_error_of_the_package_names_the_variable(variable, value, said, command, monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    monkeypatch.setenv(variable, value)

    done = command("list", *WHO)

    assert (done.code, done.out, done.err) == (2, "", f"Error: {said}\n")
