"""What the guides of the tracker and the outbox quote: settings and commands."""

from __future__ import annotations

import configparser
import logging
import re
import shlex
import sys
import types

import pytest

from guides import GUIDES
from intercom_data_events import DataEventsClient
from intercom_data_events.cli.app import run
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker

NAMES = ("tracker", "outbox")


def section(name, heading):
    """What is under a heading in a guide."""
    text = GUIDES[name].read_text(encoding="utf-8")
    return re.split(rf"^#+ {heading}\n", text, flags=re.MULTILINE)[1]


@pytest.mark.parametrize("name", NAMES)
def test_each_row_says_cause_and_remedy(name):
    table = section(name, "Troubleshooting")
    rows = [row for row in table.splitlines() if row.startswith("|")]
    assert len(rows) > 10
    assert {len(row.strip("| ").split(" | ")) for row in rows} == {3}


@pytest.fixture
def warnings_under_uwsgi(monkeypatch, caplog):
    """What a tracker in memory logs when it is made in a worker of uWSGI with some settings."""

    def make(settings):
        options = {name: value.encode() for name, value in settings.items()}
        uwsgi = types.SimpleNamespace(worker_id=lambda: 1, mule_id=lambda: 0, opt=options)
        monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        caplog.clear()
        with (
            DataEventsClient("token", transport=Emulator().transport()) as client,
            Tracker(client) as tracker,
        ):
            tracker.track("placed-order", user_id="314159")
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    return make


def test_the_settings_for_uwsgi_are_those_that_the_tracker_asks_for(warnings_under_uwsgi):
    (block,) = re.findall(r"```ini\n(.*?)```", section("tracker", "uWSGI"), re.DOTALL)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(block)
    settings = dict(parser["uwsgi"])

    assert warnings_under_uwsgi(settings) == []
    hook = settings.pop("hook-master-start")
    (line,) = warnings_under_uwsgi(settings)
    assert f"hook-master-start = {hook}" in line
    assert settings == {"master": "true", "enable-threads": "true"}


def test_the_commands_of_the_outbox_guide_run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with (
        DataEventsClient("token", transport=Emulator().transport()) as client,
        Tracker(client, outbox="events.outbox") as tracker,
    ):
        tracker.track("placed-order", user_id="314159")
    text = section("outbox", "From the command line")
    (line,) = re.findall(r"```console\n\$ intercom-events (.+)\n```", text)
    assert run(shlex.split(line)) == 0
    assert capsys.readouterr().out.startswith("events.outbox:")

    commands = re.findall(r"`outbox (\w+)`", text)
    assert len(commands) > 5
    for command in commands:
        assert run(["outbox", command, "--help"]) == 0
        assert f"outbox {command}" in capsys.readouterr().out
