"""The endurance programs' harness reports claims, child processes and packages that fail."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from itertools import repeat
from pathlib import Path

import httpx
import pytest

import harness

pytestmark = pytest.mark.costly

PARTS = {"sound": lambda options: True, "broken": lambda options: False}


@pytest.fixture(autouse=True)
def _log_level():
    """Restores the level that `run` sets for the whole process."""
    logger = logging.getLogger("intercom_data_events")
    level = logger.level
    yield
    logger.setLevel(level)


# What runs in child processes.


def print_environment(*arguments):
    for name in list(os.environ):
        if not any(part in name.upper() for part in ("INTERCOM_", "_PROXY", "MY_OTHER")):
            del os.environ[name]
    print(json.dumps(dict(os.environ)))
    print(json.dumps(arguments))


def fail():
    print("printed before")
    raise LookupError("nothing to find")


def hang():
    # Again and again: a signal that comes just before a wait does not interrupt it.
    while not threading.Event().wait(1):
        pass


def end_well():
    """Without a line."""


def hold_a_process_group(folder):
    def hold(_):
        server = ("http.server", "0", "--bind", "127.0.0.1")
        log = Path(folder, "log")
        with harness.process_group(*server, url="http://127.0.0.1:1", log=log) as leader:
            print(leader.pid, flush=True)
            hang()

    harness.run({"hold": hold}, options())


def options(*arguments, parts=PARTS):
    return harness.make_parser("What it does.", parts, seed_of="the kills").parse_args(arguments)


def test_claims_that_all_hold_are_exit_code_0(capsys):
    code = harness.run({"one": lambda _: True, "two": lambda _: True}, options())

    assert code == 0
    assert capsys.readouterr().out.endswith("\nAll parts passed.\n")


def test_a_claim_that_fails_is_exit_code_1_and_its_part_is_named(capsys):
    code = harness.run(PARTS, options())

    assert code == 1
    assert capsys.readouterr().out.endswith("\nThese parts failed: broken.\n")


def test_a_part_after_one_that_fails_runs_as_well():
    ran = []

    harness.run({"broken": lambda _: False, "next": lambda _: ran.append("next")}, options())

    assert ran == ["next"]


@pytest.mark.parametrize(
    ("only", "ran"),
    [([], "abc"), (["--only", "b"], "b"), (["--only", "c", "--only", "a"], "ac")],
)
def test_only_runs_the_parts_that_it_names(only, ran):
    found = []
    parts = {name: lambda _, name=name: found.append(name) or True for name in "abc"}

    harness.run(parts, options(*only, parts=parts))

    assert "".join(found) == ran


def test_only_refuses_a_part_that_does_not_exist(capsys):
    with pytest.raises(SystemExit) as ended:
        options("--only", "sounds")

    assert ended.value.code == 2
    assert "choose from 'sound', 'broken'" in capsys.readouterr().err


def test_a_program_of_one_part_has_no_only():
    with pytest.raises(SystemExit):
        options("--only", "sound", parts={"sound": PARTS["sound"]})


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("1_000", 1000), ("0", None), ("-3", None), ("2.5", None)]
)
def test_a_number_is_a_positive_integer_where_its_default_is_one(text, number, capsys):
    assert parse_number(20, text) == number
    error = f"error: --amount must be a positive integer, not {text}\n"
    assert capsys.readouterr().err.endswith("" if number else error)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.5", 0.5), ("3", 3), ("0", None), ("-1", None), ("nan", None), ("inf", None), ("x", None)],
)
def test_a_number_is_a_positive_number_where_its_default_is_a_float(text, number, capsys):
    assert parse_number(20.0, text) == number
    error = f"error: --amount must be a positive number, not {text}\n"
    assert capsys.readouterr().err.endswith("" if number else error)


def test_what_is_typed_is_repeated_printable(capsys):
    with pytest.raises(SystemExit, match="2"):
        harness.make_parser(None, PARTS).parse_args(["--\x1b[2J", "\x9b\u202e"])
    assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())


def parse_number(default, text):
    parser = harness.make_parser(None, PARTS)
    harness.add_number(parser, "--amount", default)
    try:
        return parser.parse_args(["--amount", text]).amount
    except SystemExit:
        return None


@pytest.mark.parametrize(
    ("program", "option", "wanted"),
    [
        ("backfill", "--events", "integer"),
        ("backfill", "--kills", "integer"),
        ("celery_load", "--events", "integer"),
        ("celery_load", "--limit", "integer"),
        ("celery_load", "--window", "number"),
        ("celery_load", "--children", "integer"),
        ("crashes", "--rounds", "integer"),
        ("crashes", "--outage", "number"),
        ("stress", "--events", "integer"),
        ("stress", "--speed", "number"),
    ],
)
def test_programs_refuse_numbers_that_are_not_positive(
    program, option, wanted, monkeypatch, capsys
):
    path = Path(harness.__file__).with_name(f"{program}.py")
    monkeypatch.setattr(sys, "argv", [str(path), option, "-1"])

    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(program).main()

    assert capsys.readouterr().err.endswith(
        f"{program}.py: error: {option} must be a positive {wanted}, not -1\n"
    )


def test_sigterm_ends_a_program_with_its_process_groups(tmp_path):
    process = harness.start(hold_a_process_group, str(tmp_path))
    harness.read_line(process)  # the versions
    leader = int(harness.read_line(process))

    try:
        process.send_signal(signal.SIGTERM)
        harness.finish(process, well=False)

        assert process.returncode == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(leader, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def test_after_a_run_sigterm_does_what_it_did_before():
    before = signal.getsignal(signal.SIGTERM)
    during = []

    harness.run({"part": lambda _: during.append(signal.getsignal(signal.SIGTERM))}, options())

    assert during != [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_seed_and_the_versions_are_printed_first(capsys):
    harness.run({}, options("--seed", "7"), requires=["httpx"], optional=["no-such-package"])

    first, *_ = capsys.readouterr().out.splitlines()
    assert f"seed 7, httpx {httpx.__version__}, no-such-package not installed" in first


def test_seeds_differ_where_none_is_given():
    assert len({options().seed for _ in range(3)}) > 1


def test_a_package_that_is_missing_ends_the_program_with_the_command_that_installs_it():
    with pytest.raises(SystemExit) as ended:
        harness.run(PARTS, options(), requires=["httpx", "no-such-package"])

    assert ended.value.code == "not installed: no-such-package; run: pip install no-such-package"


@pytest.mark.processes
def test_redis_that_is_missing_ends_celery_load_with_the_command_that_installs_it(tmp_path):
    program = Path(harness.__file__).with_name("celery_load.py")

    ended = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr == (
        "redis-server is not installed; on Debian run: apt install redis-server\n"
    )


@pytest.mark.processes
def test_a_child_gets_its_arguments_and_an_environment_without_settings_and_proxies(monkeypatch):
    for name in ("INTERCOM_REGION", "INTERCOM_BASE_URL", "HTTPS_PROXY", "no_proxy", "MY_OTHER"):
        monkeypatch.setenv(name, "eu")

    found, arguments = harness.call(print_environment, 1, None, "a", url="http://127.0.0.1:1")

    assert json.loads(found) == {
        "INTERCOM_BASE_URL": "http://127.0.0.1:1",
        "INTERCOM_ACCESS_TOKEN": "token",
        "MY_OTHER": "eu",
    }
    assert json.loads(arguments) == [1, None, "a"]


@pytest.mark.processes
def test_a_child_that_fails_ends_the_program_and_says_why_in_one_line(capfd):
    process = harness.start(fail)

    with pytest.raises(SystemExit) as ended:
        harness.finish(process)

    assert ended.value.code == "Child process fail failed with exit code 1; see above."
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"fail: LookupError: nothing to find ({__file__}:")


@pytest.mark.processes
def test_a_child_that_may_fail_does_not_end_the_program():
    assert harness.finish(harness.start(fail), well=False) == ["printed before"]


@pytest.mark.processes
def test_a_child_that_hangs_ends_the_program():
    process = harness.start(hang)

    with pytest.raises(SystemExit) as ended:
        harness.finish(process, timeout=0.1)

    assert ended.value.code == "Child process hang did not end within 0.1 s."
    assert process.returncode == -signal.SIGKILL


@pytest.mark.processes
def test_a_child_that_ends_before_it_answers_ends_the_program():
    with pytest.raises(SystemExit) as ended:
        harness.read_line(harness.start(end_well))

    assert ended.value.code == "A child process ended before it printed a line; see above."


def test_a_wait_that_takes_too_long_ends_the_program():
    with pytest.raises(SystemExit) as ended:
        harness.until(lambda: None, "an answer", seconds=0.01)

    assert ended.value.code == "Timed out after 0.01 s while waiting for an answer."


@pytest.mark.processes
def test_an_emulator_in_a_child_process_counts_what_arrives():
    with harness.serving(limit=1, window=60) as server:
        statuses = [
            httpx.post(
                f"{server.url}/events",
                headers={"Authorization": "Bearer token"},
                json=harness.event(number),
            ).status_code
            for number in (0, 20)
        ]

        assert statuses == [202, 429]
        assert [(number, status) for number, _, status in server.arrivals()] == [(0, 202), (1, 429)]
        assert server.accepted() == {0: 1}
        assert (server.counts()["stored"], server.counts()["limited"]) == (1, 1)


@pytest.mark.processes
def test_an_emulator_that_does_not_end_is_killed_and_hides_no_error(monkeypatch):
    ended = []

    def use():
        with harness.serving() as server:
            ended.append(server.process)
            monkeypatch.setattr(harness, "PATIENCE", 0.1)
            server.process.send_signal(signal.SIGSTOP)
            raise LookupError

    with pytest.raises(LookupError):
        use()

    (process,) = ended
    assert process.returncode == -signal.SIGKILL


def test_the_share_of_the_quota_is_of_whole_windows(monkeypatch):
    monkeypatch.setattr(harness, "LIMIT", 20)

    async def send(client):
        for number in range(45):
            await client.create(**harness.event(number))

    emulator, shares, seconds = harness.at_rate_limit(send, repeat(0.1), quota_share=0.5)

    assert emulator.counts.stored == 45
    # All but the first window and the last, in which 5 were sent.
    assert shares == [0.5] * 3
    assert seconds >= 30


def test_a_table_has_columns_as_wide_as_their_names(capsys):
    table = harness.Table("What is counted", "", "a name that is long", "short")
    table.row("first", 12345, "6 s")

    assert capsys.readouterr().out.splitlines() == [
        "",
        "What is counted",
        "",
        "                              a name that is long         short",
        "  first                                    12,345           6 s",
    ]
