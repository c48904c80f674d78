"""The command `demo`: what it shows, what it counts, and how it ends if a claim does not hold."""

from __future__ import annotations

import re

import pytest


def test_each_screen_of_the_demo_fits_a_terminal_of_24_lines_and_80_columns(terminal):
    done = terminal("demo", columns=80).finish()

    assert done.code == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", done.out)
    screens = re.split(r"^(?=\d/4  )", shown, flags=re.MULTILINE)[1:]
    assert [len(screen.strip().splitlines()) <= 24 for screen in screens] == [True] * 4
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    send, storm, kill, plot = screens
    assert len(re.findall(r"^  202 +\d+\.\d ms  POST /events\r?$", send, re.MULTILINE)) == 4
    assert re.search(r"^  404 +\d+\.\d ms  GET /events\?", send, re.MULTILINE)
    assert "placed-order  order_date=" in send
    assert "price=$29.99" in send
    assert "NotFoundError" in send
    assert re.search(r"200 events sent in \d+\.\d s, 0 lost, \d+ retries, 0 over the quota", storm)
    assert re.search(r"and was killed \(SIGKILL\)\.", kill)
    assert re.search(r"\d+ events tracked, 0 lost", kill)
    assert re.search(r"logged-in .*█ +60\b", plot)


@pytest.mark.processes
def test_the_demo_for_programs_counts_what_it_claims_whatever_the_environment(command, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "INTERCOM_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("INTERCOM_DISABLED", "1")

    done = command("demo", "--json")

    assert (done.code, done.err) == (0, "")
    send, storm, kill, plot = (done.json[name] for name in ("send", "storm", "kill", "plot"))
    assert [answer["status"] for answer in send] == [202] * 4 + [200] * 3 + [404]
    assert storm["stored"] == 200
    assert storm["retries"] == storm["requests"] - 200 > 0
    assert storm["limited"] == storm["lost"] == 0
    assert sum(storm["faults"].values()) >= storm["retries"]
    assert kill["tracked"] >= 400
    assert kill["queued"] > 0
    assert kill["lost"] == 0
    assert plot["listed"] == sum(plot["counts"].values())


def test_a_claim_of_the_demo_that_does_not_hold_is_a_sentence_and_exit_code_3(command, monkeypatch):
    contact = "intercom_data_events.emulator._workspace.Contact"
    monkeypatch.setattr(f"{contact}.count", lambda *_: None)  # A server that counts nothing.

    done = command("demo")

    assert done.code == 3
    assert done.err == ("Error: a check of the demo failed: 4 events must be counted\n")
    assert "2/4" not in done.out
