"""`python -m intercom_data_events.emulator`, as its own process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import httpx
import pytest

COMMAND = [sys.executable, "-m", "intercom_data_events.emulator"]
EVENT = {"event_name": "placed-order", "created_at": 1671028894, "user_id": "314159"}


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    with running("--port", "0") as (process, url), httpx.Client(base_url=url) as client:
        # The client's connection is still open when the signal comes.
        created = client.post("/events", json=EVENT, headers={"Authorization": "Bearer any"})
        assert created.status_code == 202
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


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


def test_a_port_in_use_is_one_sentence_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"Cannot listen on 127\.0\.0\.1:{port}: .+ in use\.\n", done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "http"],
        ["--contact", "name=Frodo"],
        ["--contact", "user_id="],
        ["--contact", "id=1", "--contact", "id=1"],
    ],
)
def test_arguments_that_make_no_sense_are_explained(arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_an_example() -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert "--contact user_id=314159,email=a@b.co" in done.stdout
