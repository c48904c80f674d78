"""The backfill of the command line's guide, step by step as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from guides import GUIDES, PROJECT
from intercom_data_events import cli

README = Path(cli.__file__).parent / "README.md"
SECTION = re.compile(r"^## A year of events from a file$(.*?)^## ", re.MULTILINE | re.DOTALL)


def steps() -> list[list[str]]:
    """The arguments of the commands of the section, in their order."""
    found = SECTION.search(README.read_text(encoding="utf-8"))
    assert found is not None
    typed = re.findall(r"^ *\$ (.*)$", found[1], re.MULTILINE)
    return [
        line.split("intercom-events ")[1].split()
        for line in map(" ".join, map(shlex.split, typed))
        if "intercom-events " in line
    ]


def write(path: Path) -> None:
    """A file of events as the section shows it, two of which are refused."""
    events = [
        {"event_name": "placed-order", "user_id": "1000", "created_at": 1735689600 + number}
        for number in range(40)
    ]
    events[20]["metadata"] = {"items": ["a", "b"]}
    del events[30]["created_at"]
    path.write_text("".join(f"{json.dumps(one)}\n" for one in events), encoding="utf-8")


def test_each_picture_of_a_guide_is_small_and_needs_no_font_of_the_web():
    named = [
        (guide.parent / target).resolve()
        for guide in GUIDES.values()
        for target in re.findall(r"!\[[^]]*\]\(([^)]+\.svg)\)", guide.read_text(encoding="utf-8"))
    ]

    folder = PROJECT / "overlays" / "intercom_data_events" / "cli" / "screens"
    assert {path for path in named if path.parent == folder} == set(folder.iterdir())
    assert len(list(folder.iterdir())) == 6
    for picture in named:
        assert picture.stat().st_size <= 40_000, picture
        text = picture.read_text(encoding="utf-8")
        assert "@font-face" not in text
        assert "url(http" not in text


def test_each_step_does_what_it_says(serve, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write(Path("2025.ndjson"))
    check, emulator, attempt, send, again = steps()

    assert (check[0], emulator[0], attempt[0]) == ("validate", "emulator", "import")
    assert command(*check).code == 1
    tried = serve()
    assert command(*attempt).code == 1
    assert len(tried.events) == 38
    stored = serve()
    assert command(*send).code == 1
    assert len(stored.events) == 38
    done = command(*again)
    assert done.code == 1
    assert "2 rejected in earlier runs; 2025.refused.ndjson has the lines and reasons" in done.out

    # Step 4, with which the section ends.
    refused = Path("2025.refused.ndjson")
    mended = refused.read_text(encoding="utf-8").replace('["a", "b"]', '"a, b"')
    refused.write_text(mended, encoding="utf-8")
    assert command("import", refused, "--stamp-now").code == 0
    assert len(stored.events) == 40
