"""The manual page is what its script makes of the help, and the wheel has it."""

from __future__ import annotations

import typer

import man_page
from intercom_data_events.cli.app import app

from .test_screens import names


def test_the_manual_page_is_what_the_script_makes_of_the_help():
    assert man_page.PAGE.read_text(encoding="utf-8") == man_page.page(), "run: nox -s man"


def test_the_manual_page_has_each_command():
    page = man_page.page().replace("\\-", "-")
    for name in names(typer.main.get_command(app)):
        assert f"\n.SS intercom-events {name} [OPTIONS]" in page


def test_nothing_in_the_help_is_taken_for_a_request_of_roff():
    requests = {line.split()[0] for line in man_page.page().splitlines() if line.startswith(".")}
    assert requests <= {'.\\"', ".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi", ".nh", ".ad"}
