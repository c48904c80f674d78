"""Text from outside is printable wherever it comes out: in messages, in the log, on a terminal."""

from __future__ import annotations

import json
import logging
import pickle
import sqlite3
from urllib.parse import quote

import httpx
import pytest
from callers import Answers
from raw_server import RawServer
from secrecy import LOGGER

from intercom_data_events import (
    APIConnectionError,
    ConfigurationError,
    DataEventsClient,
    Event,
    IntercomError,
    MetadataError,
    NotSentError,
    OutboxError,
)
from intercom_data_events.emulator import Emulator
from intercom_data_events.emulator.__main__ import main
from intercom_data_events.outbox import Outbox
from intercom_data_events.tracker import Tracker

HOSTILE = {
    "CSI": "\x1b[2J",
    "OSC 8": "\x1b]8;;http://a.example\x07click\x1b]8;;\x07",
    "OSC 52": "\x1b]52;c;cm0gLXJm\x1b\\",
    "C1": "\x9b31m\x9d0;owned\x9c",
    "carriage return": "\rroot: all is well",
    "line end": "\nERROR root: all is lost",
    "separators": "\u2028\u2029\x85\x0b\x0c\x1c",
    "directions": "\u202egnp.exe\u2066\u200f",
    "backspaces": "\x08\x08\x7f\x00",
    "half": "\ud83d",
    "tags": "\U000e0041\ufeff\u200b",
}
# What a path, an environment variable and a header can hold at all.
TYPED = {name: text for name, text in HOSTILE.items() if name not in ("backspaces", "half")}


def answered(*answers):
    return DataEventsClient("token", transport=Answers(*answers).of(httpx), max_retries=0)


def create(client):
    return client.create("placed-order", user_id="1")


def refused(status, **answer):
    return raised(create, answered(httpx.Response(status, **answer)))


def raised(function, *arguments, **options):
    with pytest.raises(IntercomError) as caught:
        function(*arguments, **options)
    return caught.value


class Shown:
    """A value whose repr is hostile."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def metadata_of(key, value):
    return Event("placed-order", user_id="1", metadata={key: value})


def connecting_fails(text):
    def fail(_):
        raise httpx.ConnectError(f"name {text} is not known")

    with DataEventsClient("t", transport=httpx.MockTransport(fail), max_retries=0) as client:
        return raised(create, client)


def encoded(text):
    return text.encode("utf-8", "replace")


def proxy_refuses(text, monkeypatch):
    phrase = encoded(text).replace(b"\r", b"").replace(b"\n", b"")

    def script(connection):
        connection.request()
        connection.send(b"HTTP/1.1 407 " + phrase + b"\r\nContent-Length: 0\r\n\r\n")

    with RawServer(script) as server:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        with DataEventsClient("token", max_retries=0) as client:
            return raised(create, client)


#: Ways for a text to come into a message: each gives the error that it comes to.
WAYS = {
    "an answer's words": lambda text: refused(
        422, content=json.dumps({"errors": [{"code": "x", "message": text}]})
    ),
    "an answer's page": lambda text: refused(404, content=b"<h1>%b</h1>" % encoded(text)),
    "a redirect": lambda text: refused(302, headers={"Location": b"http://" + encoded(text)}),
    "a request id": lambda text: refused(500, headers={"X-Request-Id": encoded(text)}),
    "a failing connection": connecting_fails,
    "a name of an event": lambda text: raised(metadata_of, f"{text}_at", "no time"),
    "a key of metadata": lambda text: raised(metadata_of, text, ["a list"]),
    "a value's own repr": lambda text: raised(metadata_of, "key", Shown(text)),
    "an identity": lambda text: raised(Event, "placed-order", user_id=Shown(text)),
    "a version": lambda text: raised(DataEventsClient, "token", version=text),
    "a region": lambda text: raised(DataEventsClient, "token", region=text),
    "an address": lambda text: raised(DataEventsClient, "token", base_url=f"https://{text}"),
    "a header": lambda text: raised(DataEventsClient, "token", headers={text: text}),
    "a path": lambda text: raised(Outbox, f"no/such/{text}"),
    "a cursor": lambda text: raised(lambda: DataEventsClient("token").list(since=text)),
    "an error of one's own": lambda text: OutboxError(text),
    "an error of a version before": lambda text: pickle.loads(pickle.dumps(NotSentError(text))),
    "the key of an error": lambda text: MetadataError(text, key=text),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_message_quotes_it_printable(way):
    for name, text in HOSTILE.items():
        error = WAYS[way](text)
        assert str(error).isprintable(), name
        assert repr(error).isprintable(), name
        assert (getattr(error, "request_id", None) or "").isprintable(), name
        assert str(pickle.loads(pickle.dumps(error))) == str(error), name


@pytest.mark.parametrize(
    "variable",
    ["INTERCOM_REGION", "INTERCOM_VERSION", "INTERCOM_BASE_URL", "INTERCOM_LOG", "HTTPS_PROXY"],
)
def test_a_variable_of_the_environment_is_quoted_printable(monkeypatch, variable):
    for name, text in TYPED.items():
        monkeypatch.setenv(variable, f"http://{text}:99999")
        error = raised(lambda: create(DataEventsClient("token", max_retries=0)))
        assert isinstance(error, ConfigurationError), name
        assert str(error).isprintable(), name


def test_the_reason_phrase_of_a_proxy_is_quoted_printable(monkeypatch):
    for name, text in HOSTILE.items():
        error = proxy_refuses(text, monkeypatch)
        assert isinstance(error, APIConnectionError)
        while error is not None:  # A traceback has the causes', too.
            assert str(error).isprintable(), name
            error = error.__cause__


def test_what_sqlite_says_of_a_file_is_quoted_printable(tmp_path):
    """It quotes names of tables and indexes, which the file has."""
    path = tmp_path / "outbox.db"
    with DataEventsClient("token", transport=Emulator().transport()) as client:
        Tracker(client, path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = 1")
    connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE \x1b[2J (', name = '\x1b[2J'")
    connection.close()

    error = raised(Outbox, path)
    while error is not None:
        assert str(error).isprintable()
        error = error.__cause__


def test_a_path_is_logged_printable(tmp_path, caplog):
    """Of an outbox that others may read, and of an event in one that cannot be read."""
    path = tmp_path / "".join(TYPED.values()).replace("/", "")
    with DataEventsClient("token", transport=Emulator().transport()) as client:
        Tracker(client, path).close()
        path.chmod(0o644)
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO events (event, tracked_at) VALUES ('no', 1)")
        connection.close()
        with Tracker(client, path, on_error=lambda *_: None) as tracker:
            assert tracker.flush(20)

    said = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len([line for line in said if "outbox" in line]) >= 2
    assert all(line.isprintable() for line in said)


def test_the_log_that_a_variable_shows_has_printable_tracebacks(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    log = logging.getLogger(LOGGER)
    kept = log.handlers[:], log.level
    log.handlers.clear()
    try:
        DataEventsClient("token").close()
        log.propagate = False
        for text in HOSTILE.values():
            log.warning("on_error failed", exc_info=ValueError(text))
    finally:
        log.handlers[:], log.level, log.propagate = *kept, True

    shown = capsys.readouterr().err.split("\n")
    assert len(shown) > 2 * len(HOSTILE)
    assert all(line.isprintable() for line in shown)


def test_the_emulator_repeats_its_arguments_printable(capsys):
    for name, text in HOSTILE.items():
        for arguments in (
            [text],
            [f"--{text}"],
            [f"--json={text}"],
            ["--port", text],
            ["--contact", f"{text}={text}"],
            ["--contact", text],
            ["--faults", text],
        ):
            with pytest.raises(SystemExit) as ended:
                main(arguments, prog="emulator")
            assert ended.value.code == 2
            shown = capsys.readouterr().err
            assert all(line.isprintable() for line in shown.split("\n")), (name, arguments)
    for name in ("C1", "directions"):  # As no name is looked up that is not one.
        assert main(["--host", f"{HOSTILE[name]}.example"]) == 2
        assert capsys.readouterr().err.removesuffix("\n").isprintable(), name


def test_the_emulator_logs_a_path_that_it_cannot_answer_printable(caplog):
    def fail():
        raise ValueError

    with Emulator(faults=iter(fail, None)).serve() as url:
        for text in HOSTILE.values():
            httpx.get(f"{url}/{quote(text, errors='replace')}")

    said = [record.getMessage() for record in caplog.records if record.name.startswith(LOGGER)]
    assert len(said) == len(HOSTILE)
    assert all(line.isprintable() for line in said)
