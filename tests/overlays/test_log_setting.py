"""INTERCOM_LOG, with which the package's log goes to stderr."""

from __future__ import annotations

import logging
import pickle
import sys

import httpx
import pytest
from secrecy import EMAIL, LOGGER

from intercom_data_events import AsyncDataEventsClient, ConfigurationError, DataEventsClient
from intercom_data_events.emulator import Emulator, Fault, ManualClock

TOKEN = "a-token-that-nothing-may-show"


@pytest.fixture(autouse=True)
def _as_in_a_new_process():
    """Leaves the loggers as they were, and has the root logger write nothing meanwhile."""
    log, root = logging.getLogger(LOGGER), logging.getLogger()
    kept = {one: (one.handlers[:], one.level) for one in (log, root)}
    log.handlers.clear()
    root.handlers.clear()
    yield
    for logger, (handlers, level) in kept.items():
        logger.handlers[:] = handlers
        logger.setLevel(level)


def use(**options):
    """Sends, lists and meets a failure; returns nothing."""
    faults = [None, None, Fault.failing(503)]
    emulator = Emulator(faults=faults)
    options = {"transport": emulator.transport(), "clock": ManualClock()} | options
    with DataEventsClient(TOKEN, **options) as client:
        client.create("placed-order", email=EMAIL, metadata={"note": "private-note"})
        list(client.list(email=EMAIL))
        client.create("placed-order", email=EMAIL)


@pytest.mark.parametrize("said", ["debug", "DEBUG", " Debug "])
def test_debug_shows_a_line_for_each_request(monkeypatch, capsys, said):
    monkeypatch.setenv("INTERCOM_LOG", said)
    use()

    lines = capsys.readouterr().err.splitlines()
    assert [
        line.partition(" intercom_data_events: ")[2].partition(" in ")[0] for line in lines
    ] == [
        "POST /events 202",
        "GET /events 200",
        "POST /events 503",
        "POST /events: 503, retrying",
        "POST /events 202",
    ]
    assert " DEBUG " in lines[0]


def test_info_shows_retries_alone(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "info")
    use()

    (line,) = capsys.readouterr().err.splitlines()
    assert " INFO " in line
    assert "retrying" in line


def test_lines_hold_no_personal_data(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    use()
    use(enabled=False)

    shown = capsys.readouterr().err
    assert "not sent: the client is disabled" in shown
    for private in (EMAIL, EMAIL.partition("@")[2], "private-note", TOKEN, "email="):
        assert private not in shown


@pytest.mark.parametrize("said", [None, "", "  "])
def test_nothing_is_shown_where_it_is_not_set(monkeypatch, capsys, said):
    if said is not None:
        monkeypatch.setenv("INTERCOM_LOG", said)
    use()

    assert capsys.readouterr().err == ""
    assert not logging.getLogger(LOGGER).handlers


@pytest.mark.parametrize("said", ["warning", "1", "trace", "de bug"])
@pytest.mark.parametrize("kind", [DataEventsClient, AsyncDataEventsClient])
def test_another_value_is_an_error(monkeypatch, kind, said):
    monkeypatch.setenv("INTERCOM_LOG", said)

    with pytest.raises(
        ConfigurationError, match=f"INTERCOM_LOG must be debug or info, not '{said}'"
    ):
        kind(TOKEN)


def test_several_clients_views_and_pickles_write_each_line_once(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    DataEventsClient(TOKEN)
    AsyncDataEventsClient(TOKEN).with_options(timeout=5)
    pickle.loads(pickle.dumps(DataEventsClient(TOKEN)))
    use()

    assert len(capsys.readouterr().err.splitlines()) == 5


def test_a_pickle_is_the_first_client_too(monkeypatch):
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    pickled = pickle.dumps(DataEventsClient(TOKEN))
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    pickle.loads(pickled)

    assert logging.getLogger(LOGGER).level == logging.DEBUG


@pytest.mark.parametrize("is_configured_first", [True, False])
def test_what_the_root_logger_shows_is_not_shown_twice(monkeypatch, capsys, is_configured_first):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    if is_configured_first:
        logging.getLogger().addHandler(logging.StreamHandler())
    DataEventsClient(TOKEN)
    if not is_configured_first:
        logging.getLogger().addHandler(logging.StreamHandler())
    use()

    assert capsys.readouterr().err.count("GET /events 200") == 1


def test_handlers_of_the_root_logger_that_write_elsewhere_stay(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    elsewhere = logging.FileHandler(tmp_path / "log")
    logging.getLogger().addHandler(elsewhere)
    strict = logging.StreamHandler(sys.stderr)
    strict.setLevel(logging.WARNING)
    logging.getLogger().addHandler(strict)
    use()
    elsewhere.close()

    assert (tmp_path / "log").read_text().count("GET /events 200") == 1
    assert capsys.readouterr().err.count("GET /events 200") == 1


def test_what_the_application_set_for_our_logger_stays(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    own = logging.Handler()
    logging.getLogger(LOGGER).addHandler(own)
    use()

    assert logging.getLogger(LOGGER).handlers == [own]
    assert capsys.readouterr().err == ""


def test_a_null_handler_is_not_a_handler(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    logging.getLogger(LOGGER).addHandler(logging.NullHandler())
    use()

    assert "GET /events 200" in capsys.readouterr().err


def test_loggers_of_others_are_left_alone(monkeypatch, capsys):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    names = ("httpx", "httpcore", None)
    before = [
        (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names
    ]
    use()
    with httpx.Client(transport=Emulator().transport()) as bare:
        bare.get("https://api.intercom.io/events", params={"email": EMAIL})

    assert before == [
        (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names
    ]
    assert "HTTP Request" not in capsys.readouterr().err


def test_a_program_without_stderr_goes_on(monkeypatch):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    monkeypatch.setattr(sys, "stderr", None)
    use()


def test_a_stderr_that_fails_does_not_end_a_request(monkeypatch):
    class Broken:
        def write(self, _):
            raise OSError("no space left")

        def flush(self):
            """Does nothing."""

    monkeypatch.setenv("INTERCOM_LOG", "debug")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(sys, "stderr", Broken())
    use()


def test_a_stderr_that_is_closed_does_not_end_a_request(monkeypatch, tmp_path):
    monkeypatch.setenv("INTERCOM_LOG", "debug")
    closed = (tmp_path / "err").open("w")
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    use()
