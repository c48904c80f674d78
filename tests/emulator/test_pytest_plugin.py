"""The fixtures that the package brings to people's own tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import httpx

def send(url, **options):
    event = {"event_name": "placed-order", "created_at": 1671028894, "user_id": "314159"}
    with httpx.Client(headers={"Authorization": "Bearer token"}, **options) as client:
        return client.post(f"{url}/events", json=event)

def test_in_process(intercom_emulator):
    send("https://api.intercom.io", transport=intercom_emulator.transport())
    assert [event.event_name for event in intercom_emulator.events] == ["placed-order"]

def test_on_a_socket(intercom_emulator, intercom_emulator_url):
    assert intercom_emulator.events == ()
    assert send(intercom_emulator_url).status_code == 202
    assert len(intercom_emulator.events) == 1
"""


@pytest.mark.processes
def test_each_test_gets_a_fresh_emulator_and_the_url_of_the_same_one(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(SUITE)
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


@pytest.mark.processes
def test_importing_the_plugin_does_not_import_the_emulator() -> None:
    code = (
        "import sys, intercom_data_events.pytest_plugin;"
        "sys.exit('intercom_data_events.emulator' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_no_other() -> None:
    import intercom_data_events.emulator as package

    assert package.__all__ == sorted(package.__all__)
    named = [name for name in package.__all__ if not name.isupper()]
    assert [getattr(package, name).__name__ for name in named] == named
