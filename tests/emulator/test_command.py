"""`python -m intercom_data_events.emulator`, as its own process."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

import httpx
import pytest

from intercom_data_events.emulator import random_faults
from intercom_data_events.emulator.__main__ import main

COMMAND = [sys.executable, "-m", "intercom_data_events.emulator"]
EVENT: dict[str, Any] = {
    "event_name": "placed-order",
    "created_at": 1671028894,
    "user_id": "314159",
}


@contextmanager
def running(*arguments: str) -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        assert found is not None
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with running("--port", "0") as (process, url), httpx.Client(base_url=url) as client:
        # The client's connection is still open when the signal comes.
        created = client.post("/events", json=EVENT, headers={"Authorization": "Bearer any"})
        assert created.status_code == 202
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert told.splitlines()[-1] == (
        "requests: 1, stored: 1, duplicates: 0, rejected: 0, rate-limited: 0, faults: 0"
    )


def stop(process: subprocess.Popen[str]) -> str:
    """What it says on its way out."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=30)[1]


def post(url: str, second: int = 0, **fields: str) -> httpx.Response:
    event = {**EVENT, "created_at": EVENT["created_at"] + second, **fields}
    return httpx.post(f"{url}/events", json=event, headers={"Authorization": "Bearer any"})


@pytest.mark.processes
def test_it_counts_what_arrives_until_it_stops() -> None:
    with running("--rate-limit", "5", "--window", "86400", "--quiet") as (process, url):
        answers = [post(url, second) for second in (0, 0, 0, 1)]
        answers += [post(url, event_name=""), post(url, 2), post(url, 3)]
        told = stop(process)
    assert [answer.status_code for answer in answers] == [202] * 4 + [400, 429, 429]
    assert (
        told == "requests: 7, stored: 2, duplicates: 2, rejected: 1, rate-limited: 2, faults: 0\n"
    )


@pytest.mark.processes
def test_a_program_reads_where_it_serves_and_what_it_counted_as_json() -> None:
    with running("--rate-limit", "4", "--window", "86400", "--json", "--quiet") as (process, url):
        for second in (0, 0, 1):
            assert post(url, second).status_code == 202
        assert post(url, event_name="").status_code == 400
        assert post(url, 2).status_code == 429
        process.send_signal(signal.SIGINT)
        told, complained = process.communicate(timeout=30)
    assert complained == ""
    assert json.loads(told) == {
        "requests": 5,
        "processed": 3,
        "stored": 2,
        "duplicates": 1,
        "refused": 1,
        "limited": 1,
        "faults": {},
    }


@pytest.mark.processes
def test_as_json_its_first_line_is_an_object_and_its_faults_are_counted_by_name() -> None:
    arguments = [*COMMAND, "--faults", "1", "--seed", "0", "--json"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert post(first["url"]).status_code == 429
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=30)
    assert list(first) == ["url"]
    assert json.loads(told)["faults"] == {"429": 1}
    assert told.count("\n") == 1


@pytest.mark.processes
def test_a_share_of_the_requests_goes_wrong_as_the_seed_has_it() -> None:
    # None of what this seed chooses takes time.
    with (
        running("--faults", "0.5", "--seed", "9", "--quiet") as (process, url),
        httpx.Client(base_url=url, headers={"Authorization": "Bearer any"}) as client,
    ):
        for second in range(12):
            event = {**EVENT, "created_at": EVENT["created_at"] + second}
            with suppress(httpx.TransportError):
                client.post("/events", json=event)
        told = stop(process)
    plan = list(islice(random_faults(0.5, seed=9), 12))
    faults = Counter(fault.name for fault in plan if fault)
    kinds = ", ".join(f"{name} {number}" for name, number in sorted(faults.items()))
    stored = sum(fault is None or fault.processed for fault in plan)
    assert told == (
        f"requests: 12, stored: {stored}, duplicates: 0, rejected: 0, rate-limited: 0, "
        f"faults: {sum(faults.values())} ({kinds})\n"
    )


@pytest.mark.processes
def test_its_access_log_names_each_request_but_neither_token_nor_contact() -> None:
    # What this seed chooses for the first three: 429, another version, 503.
    with running("--faults", "1", "--seed", "0") as (process, url):
        headers = {"Authorization": "Bearer dG9rOnNlY3JldA"}
        query = {"type": "user", "email": "frodo@example.com", "x\x1b": "y", "per_page": "2"}
        httpx.post(f"{url}/events", json=EVENT, headers=headers)
        httpx.get(f"{url}/events", params=query, headers=headers)
        httpx.post(f"{url}/{'long' * 100}", headers=headers)
        lines = stop(process).splitlines()[:-1]

    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    asked = r"GET /events\?type=user&email=…&x\\x1b=…&per_page=2"
    patterns = [
        rf"{when} POST /events 429 \d+ B \d+\.\d ms \(fault: 429\)",
        rf"{when} {asked} 404 \d+ B \d+\.\d ms \(fault: other version\)",
        rf"{when} POST /(long){{49}}lon… 503 \d+ B \d+\.\d ms \(fault: 503\)",
    ]
    assert len(lines) == len(patterns)
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.processes
def test_its_access_log_tells_of_lost_answers_and_of_what_is_not_http() -> None:
    # What this seed chooses for the first two: a reset before and one after processing.
    seed = next(
        seed
        for seed in range(1000)
        if [fault and fault.name for fault in islice(random_faults(1, seed=seed), 2)]
        == ["reset", "reset after processing"]
    )
    with running("--faults", "1", "--seed", str(seed), "--json") as (process, url):
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                post(url)
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            size = len(connection.recv(65536))
        records = [json.loads(line) for line in stop(process).splitlines()]

    for record in records:
        assert re.fullmatch(r"\d{4}(-\d\d){2}T(\d\d:){2}\d\d\.\d{3}Z", record.pop("time"))
        assert record.pop("milliseconds") >= 0
    lost = {"method": "POST", "path": "/events", "status": None, "size": 0}
    assert records == [
        {**lost, "fault": "reset"},
        {**lost, "fault": "reset after processing"},
        {"method": "-", "path": "-", "status": 400, "size": size, "fault": None},
    ]


@pytest.mark.processes
def test_a_reader_of_the_access_log_that_goes_away_does_not_stop_it() -> None:
    headers = {"Authorization": "Bearer any"}
    with running() as (process, url), httpx.Client(base_url=url, headers=headers) as client:
        assert process.stderr is not None
        process.stderr.close()
        answers = [client.post("/events", json=EVENT) for _ in range(3)]
        streams = [answer.extensions["network_stream"] for answer in answers]
        assert len({stream.get_extra_info("client_addr") for stream in streams}) == 1


@pytest.mark.processes
def test_every_request_goes_wrong_where_the_share_is_1() -> None:
    with running("--faults", "1", "--seed", "0") as (_, url):
        assert [post(url).status_code for _ in range(3)] == [429, 202, 503]


@pytest.mark.processes
def test_a_share_and_a_rate_limit_of_0_are_none() -> None:
    with running("--faults", "0", "--seed", "0", "--rate-limit", "0") as (_, url):
        answers = [post(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert "X-RateLimit-Limit" not in answers[0].headers


@pytest.mark.processes
@pytest.mark.parametrize("skew", ["-3600", "7200.5"])
def test_its_windows_and_its_clock_are_as_it_is_told(skew: str) -> None:
    with running("--rate-limit", "1", "--window", "86400", "--skew", skew) as (_, url):
        headers = post(url).headers
    assert headers["X-RateLimit-Limit"] == "1"
    assert int(headers["X-RateLimit-Reset"]) % 86400 == 0
    said = parsedate_to_datetime(headers["Date"])
    assert said.timestamp() - time.time() == pytest.approx(float(skew), abs=60)


@pytest.mark.processes
def test_it_knows_the_tokens_contacts_and_version_given() -> None:
    with running(
        *("--token", "one", "--token", "two", "--version", "2.14"),
        *("--contact", "user_id=314159,email=a@b.co", "--contact", "id=63a0"),
    ) as (_, url):

        def create(token: str, **identity: str) -> httpx.Response:
            event = {"event_name": "placed-order", "created_at": 1671028894, **identity}
            headers = {"Authorization": f"Bearer {token}"}
            return httpx.post(f"{url}/events", json=event, headers=headers)

        assert create("one", email="a@b.co").status_code == 202
        assert create("two", id="63a0").headers["Intercom-Version"] == "2.14"
        assert create("two", user_id="271828").status_code == 404
        assert create("three", user_id="314159").status_code == 401


@pytest.mark.processes
def test_a_port_in_use_is_one_sentence_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"Cannot listen on 127\.0\.0\.1:{port}: .+ in use; choose another port or host\.\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "65536"], "argument --port: must be a port from 0 to 65535, not '65536'"),
        (["--port", "http"], "argument --port: must be a port from 0 to 65535, not 'http'"),
        (
            ["--contact", "name=Frodo"],
            (
                "argument --contact: must be FIELD=VALUE,... with the fields "
                "user_id, email, id, not 'name=Frodo'"
            ),
        ),
        (
            ["--contact", "user_id="],
            (
                "argument --contact: must be FIELD=VALUE,... with the fields "
                "user_id, email, id, not 'user_id='"
            ),
        ),
        (["--contact", "id=1", "--contact", "id=1"], "user_id and id of a contact must be unique"),
        (["--faults", "20%"], "argument --faults: must be from 0 to 1, not '20%'"),
        (["--faults", "1.01"], "argument --faults: must be from 0 to 1, not '1.01'"),
        (["--faults", "-0.1"], "argument --faults: must be from 0 to 1, not '-0.1'"),
        (["--faults", "nan"], "argument --faults: must be from 0 to 1, not 'nan'"),
        (["--seed", "1"], "argument --seed: requires --faults; pass both"),
        (["--faults", "0.1", "--seed", "one"], "argument --seed: must be an integer, not 'one'"),
        (
            ["--rate-limit", "-1"],
            "argument --rate-limit: must be a positive integer, or 0 for no limit, not '-1'",
        ),
        (
            ["--rate-limit", "1.5"],
            "argument --rate-limit: must be a positive integer, or 0 for no limit, not '1.5'",
        ),
        (["--window", "0"], "argument --window: must be greater than 0 seconds, not '0'"),
        (["--window", "inf"], "argument --window: must be greater than 0 seconds, not 'inf'"),
        (["--window", "minute"], "argument --window: must be greater than 0 seconds, not 'minute'"),
        (
            ["--skew", "inf"],
            "argument --skew: must be from -1,000,000,000 to 1,000,000,000 seconds, not 'inf'",
        ),
        (
            ["--skew", "nan"],
            "argument --skew: must be from -1,000,000,000 to 1,000,000,000 seconds, not 'nan'",
        ),
        (
            ["--skew", "1e10"],
            "argument --skew: must be from -1,000,000,000 to 1,000,000,000 seconds, not '1e10'",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_explained(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert f"error: {complaint}" in capsys.readouterr().err


@pytest.mark.processes
def test_a_complaint_is_exit_code_2_and_no_traceback() -> None:
    arguments = [*COMMAND, "--port", "http"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: argument --port: must be a port from 0 to 65535, not 'http'" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example_and_fits_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for prog in ("python -m intercom_data_events.emulator", "intercom-events emulator"):
        with pytest.raises(SystemExit):
            main(["--help"], prog=prog)
        helped = capsys.readouterr().out
        assert [line for line in helped.splitlines() if len(line) > 80] == []
    assert "--contact user_id=314159,email=a@b.co" in helped
    assert "--faults 0.2 --seed 1" in helped


def test_help_and_complaints_name_the_command_that_delegates_to_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["--help"], ["--port", "http"]):
        with pytest.raises(SystemExit):
            main(arguments, prog="intercom-data-events emulate")
    helped, complained = capsys.readouterr()
    assert helped.startswith("usage: intercom-data-events emulate [-h]")
    assert "\n  intercom-data-events emulate --port 8125 \\\n    --contact user_id=" in helped
    assert "\n  intercom-data-events emulate --port 8125 \\\n    --faults 0.2" in helped
    assert '-d \'{"event_name": "placed-order"' in helped
    assert "python -m" not in helped
    assert "intercom-data-events emulate: error: argument --port" in complained


def test_help_says_what_each_option_is_without(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    helped = capsys.readouterr().out
    for option, default in [
        ("faults", "0"),
        ("seed", "random"),
        ("rate-limit", "1667"),
        ("window", "10"),
        ("skew", "0"),
    ]:
        told = helped.partition(f"\n  --{option} ")[2].partition("\n  --")[0]
        assert f"(default: {default})" in " ".join(told.split())
