"""The command `check`: one look tells whether events can be sent, and if not, why not."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from contextlib import closing, contextmanager

import pytest

from intercom_data_events.emulator import Fault
from intercom_data_events.version import API_VERSION

from .conftest import TOKEN
from .test_commands import STEERING

PROXIES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def checked(command):
    """Runs the command for people and for programs, and returns both."""

    def execute(*arguments):
        told, seen = command("check", *arguments), command("check", *arguments, "--json")
        assert told.code == seen.code
        return told, seen

    return execute


@contextmanager
def answering(answer: bytes):
    """A server that gives each request the same answer, or closes the connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with closing(connection):
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def refusing() -> str:
    """An address at which nothing listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("contacts", [None, []])
def test_one_request_tells_that_all_is_well(contacts, serve, checked):
    emulator = serve(contacts=contacts, rate_limit=200, clock=time.time)
    told, seen = checked()
    assert (told.code, told.err, seen.err) == (0, "", "")
    url = os.environ["INTERCOM_BASE_URL"]
    found = seen.json
    assert found.pop("seconds") < 10
    assert found.pop("quota")["reset_at"].endswith("Z")
    assert found == {
        "ok": True,
        "token": "accepted",
        "base_url": url,
        "region": None,
        "proxy": None,
        "version": API_VERSION,
        "answered_version": API_VERSION,
        "clock_ahead": 0.0,
        "failure": None,
    }
    lines = dict(line.split(maxsplit=1) for line in told.out.splitlines())
    assert lines["token"] == "accepted"  # what is said of it
    assert lines["address"] == url
    assert lines["version"] == f"{API_VERSION}, confirmed by the server"
    assert lines["quota"].startswith("199 of 200 requests left until 20")
    assert lines["quota"].endswith(" UTC")
    assert lines["clock"] == "in sync with the server's"
    assert [request.method for request in emulator.requests] == ["GET", "GET"]
    assert list(emulator.events) == []


def test_a_token_that_is_not_accepted_is_told_with_all_else(serve, checked):
    serve(tokens=["another"])
    told, seen = checked()
    assert (told.code, seen.json["ok"], seen.json["token"]) == (4, False, "rejected")
    assert "token   rejected\n" in told.out
    assert f"version {API_VERSION}" in told.out
    assert told.err.startswith("Error: 401 for GET /events")
    assert (seen.error["error"], seen.error["exit_code"]) == ("AuthenticationError", 4)


def test_a_missing_token_is_told_from_a_wrong_one(emulator, checked, monkeypatch):
    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    told, seen = checked()
    assert (told.code, seen.json["token"]) == (2, "missing")
    assert f"address {os.environ['INTERCOM_BASE_URL']}\n" in told.out
    assert "set INTERCOM_ACCESS_TOKEN in the environment" in told.err
    assert emulator.counts.requests == 0


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("INTERCOM_BASE_URL", "nonsense", "INTERCOM_BASE_URL"),
        ("INTERCOM_VERSION", "nonsense", "INTERCOM_VERSION"),
        ("INTERCOM_DISABLED", "1", "INTERCOM_DISABLED turns off all requests"),
        ("HTTP_PROXY", "http://user:pa ss@:x", "HTTP_PROXY must be the address of a proxy"),
    ],
)
def test_settings_that_make_no_sense_are_named(
    setting, value, said, emulator, checked, monkeypatch
):
    if setting == "HTTP_PROXY":
        monkeypatch.setenv("INTERCOM_BASE_URL", "http://intercom.example")
        monkeypatch.setenv("INTERCOM_ALLOW_HTTP", "1")
    monkeypatch.setenv(setting, value)
    told, seen = checked()
    assert (told.code, seen.json["ok"], seen.json["token"]) == (2, False, "unknown")
    assert said in told.err
    assert "pa ss" not in told.err + told.out + seen.out + seen.err
    assert emulator.counts.requests == 0


def test_a_version_that_intercom_does_not_have_is_a_wrong_setting(emulator, checked):
    told, seen = checked("--api-version", "2.99")
    assert (told.code, seen.json["version"]) == (2, "2.99")
    assert "version 2.99" in told.out


@pytest.mark.parametrize(("skew", "side"), [(90, "behind"), (-90, "ahead of")])
def test_a_clock_that_differs_from_the_servers_is_told(skew, side, serve, checked):
    serve(clock=time.time).advance(skew)
    told, seen = checked()
    assert told.code == 0
    # `Date` has whole seconds.
    assert re.search(
        rf"\nclock   1 min (29|3[012]) s {side} the server's; correct it, because",
        told.out,
    )
    assert seen.json["clock_ahead"] == pytest.approx(skew, abs=2)


def test_a_quota_that_is_used_up_is_told(serve, command, checked):
    serve(rate_limit=1, contacts=[])
    assert command("check").code == 0
    told, seen = checked()
    assert (told.code, seen.json["token"]) == (3, "accepted")
    assert "quota   0 of 1 requests left until 20" in told.out
    assert "429" in told.err


def test_a_proxy_is_named_without_its_password(emulator, checked, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", os.environ["INTERCOM_BASE_URL"].replace("//", "//me:secret@"))
    told, seen = checked("--base-url", "http://intercom.example", "--allow-http")
    assert told.code == 0
    assert seen.json["proxy"] == f"{os.environ['INTERCOM_BASE_URL']} (HTTP_PROXY)"
    assert f"proxy   {seen.json['proxy']}\n" in told.out
    assert "secret" not in told.out + told.err + seen.out + seen.err


def test_what_failed_below_http_is_told_apart(checked, monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    with answering(b"") as cut, answering(b"no TLS") as plain:
        monkeypatch.setenv("HTTP_PROXY", "")
        for arguments, failure in (
            (["--base-url", refusing()], "refused"),
            (["--base-url", "https://no-such-host.invalid"], "dns"),
            (["--base-url", plain.replace("http:", "https:")], "tls"),
            (["--base-url", cut], "connection"),
        ):
            told, seen = checked(*arguments)
            assert (told.code, seen.json["failure"]) == (3, failure), told
            assert seen.json["token"] == "unknown"  # what is said of it
            assert told.err.startswith("Error: GET /events: no ")
    monkeypatch.setenv("HTTP_PROXY", refusing())
    _, seen = checked("--base-url", "http://intercom.example", "--allow-http")
    assert (seen.code, seen.json["failure"]) == (3, "proxy")


def test_a_server_that_is_slow_is_told_from_one_that_is_away(serve, checked):
    serve(faults=[Fault.slow(50)] * 2)
    told, seen = checked("--timeout", "0.1")
    assert (told.code, seen.json["failure"]) == (3, "timeout")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (b"200 OK", 3, "the body is not JSON, so the answer is not from Intercom"),
        (b"404 Not Found", 3, "there is nothing at this address"),
        (b"407 Proxy Authentication Required", 3, "407"),
        (b"301 Moved\r\nLocation: https://a.example", 3, "redirects to https://a.example"),
        (b"503 Service Unavailable", 3, "503"),
    ],
)
def test_another_server_is_not_taken_for_intercom(status, code, said, checked, monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    page = b"<html>\x1b[31m</html>"
    head = b"HTTP/1.1 " + status + b"\r\nintercom-version: \x1b[31m\r\nconnection: close\r\n"
    answer = head.replace(b"\x1b", b"") + b"content-length: %d\r\n\r\n%b" % (len(page), page)
    with answering(answer) as url:
        told, seen = checked("--base-url", url)
    assert (told.code, seen.json["ok"], seen.json["token"]) == (code, False, "unknown")
    assert said in told.err
    assert "quota   unknown, because the answer has no rate-limit headers" in told.out
    assert not STEERING.search(told.out + told.err + seen.out + seen.err)
    assert json.loads(seen.err)["exit_code"] == code
