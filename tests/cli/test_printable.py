"""Text from outside is printable in all that the command line writes, but in data for programs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from .conftest import event

#: Of all kinds; the last one is what Python has for bytes of an argument that are not UTF-8.
TEXTS = [
    "\x1b[2J",
    "\x1b]8;;http://a.example\x07click\x1b]8;;\x07",
    "\x9b31m\x9d0;owned\x9c",
    "\rroot: all is well",
    "\nError: all is lost",
    "\u2028\u2029\x85\x0b\x0c\x1c",
    "\u202egnp.exe\u2066\u200f",
    "\x08\x08\x7f",
    "\udc9b",
]
HOSTILE = "".join(TEXTS)

#: Arguments that repeat a text, and are wrong, or ask for what is not there.
WRONG = {
    "a command": lambda text: [text],
    "a command of outbox": lambda text: ["outbox", text],
    "an option": lambda text: [f"--{text}"],
    "a command's option": lambda text: ["list", f"--{text}"],
    "an option's value": lambda text: ["list", "--user-id", "1", "--limit", text],
    "an option that takes none": lambda text: ["list", f"--plot={text}"],
    "a choice": lambda text: ["list", "--user-id", "1", "--region", text],
    "an argument too many": lambda text: ["track", "ran", text],
    "a number": lambda text: ["outbox", "retry", "no.db", text],
    "a time": lambda text: ["list", "--user-id", "1", "--since", text],
    "metadata": lambda text: ["track", "ran", "--user-id", "1", "--metadata", text],
    "an address": lambda text: ["list", "--user-id", "1", "--base-url", f"http://{text}:99999"],
    "a version": lambda text: ["list", "--user-id", "1", "--api-version", text],
    "a file": lambda text: ["import", f"no/{text}"],
    "a file to check": lambda text: ["validate", f"no/{text}"],
    "an outbox": lambda text: ["outbox", "status", f"no/{text}"],
    "a journal": lambda text: ["import", "events.ndjson", "--journal", f"no/{text}"],
    "a file to write": lambda text: ["export", "--user-id", "1", "-o", f"no {text}/file"],
    "a chart": lambda text: ["list", "--user-id", "1", "--svg", f"no {text}/file"],
    "the emulator's option": lambda text: ["emulator", f"--{text}"],
}


def lines(text):
    return text.removesuffix("\n").split("\n")


@pytest.mark.parametrize("way", WRONG)
def test_wrong_arguments_are_repeated_printable(way, emulator, command, ndjson, capsys):
    ndjson(1)
    assert command("track", "ran", "--user-id", "1").code == 0
    for as_json in ([], ["--json"]):
        try:
            done = command(*WRONG[way](HOSTILE), *as_json)
        except SystemExit:  # The emulator's argparse.
            said = capsys.readouterr().err
        else:
            assert done.code == 2, done
            said = done.err
        assert said
        assert all(line.isprintable() for line in lines(said)), said


def test_a_mistake_and_where_help_is_are_lines_of_their_own(command):
    # Not ESC, whose sequences old versions of click leave out.
    assert command("list", "--no\x07").err.splitlines() == [
        "Error: there is no option --no\\x07",
        "For help, run: intercom-events list --help",
    ]


def test_names_of_files_are_told_printable(emulator, command, ndjson):
    assert command("track", "ran", "--user-id", "1").code == 0
    text = HOSTILE.replace("/", "")
    path = ndjson([event(0), {"event_name": ""}], name=f"events {text}.ndjson")
    for asked in (
        ["import", path],
        ["import", path],
        ["validate", path],
        ["export", "--user-id", "1", "-o", f"out {text}"],
        ["list", "--user-id", "1", "--svg", f"chart {text}"],
        ["summary", "--user-id", "1", "--svg", f"chart {text}"],
    ):
        done = command(*asked)
        assert done.code in (0, 1), done
        assert all(line.isprintable() for line in lines(done.out + done.err)), asked


def test_what_is_for_programs_is_exact(emulator, command):
    texts = TEXTS[:-1]
    events = [event(at, user_id="1", metadata={"text": text}) for at, text in enumerate(texts)]
    given = "".join(f"{json.dumps(one)}\n" for one in events)
    assert command("import", "-", stdin=given.encode()).code == 0

    listed = command("list", "--user-id", "1", "--json")
    assert [one["metadata"]["text"] for one in reversed(listed.lines)] == texts
    assert all(line.isprintable() for line in lines(listed.out))
    assert command("export", "--user-id", "1", "--format", "csv", "-o", "events.csv").code == 0
    with Path("events.csv").open(newline="", encoding="utf-8") as file:
        assert {one["metadata.text"] for one in csv.DictReader(file)} == set(texts)
