"""Fixtures for people who test their own code against the emulator.

pytest imports this module in every run, so the emulator is imported by the fixtures that need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from intercom_data_events.emulator import Emulator


@pytest.fixture
def intercom_emulator() -> Emulator:
    """A fresh emulator, which takes any access token and creates contacts on sight.

    Example:
        A test that asks for it::

            def test_an_order_is_reported(intercom_emulator):
                client = DataEventsClient("token", transport=intercom_emulator.transport())
                place_order(client)
                assert intercom_emulator.events[0].event_name == "placed-order"
    """
    from intercom_data_events.emulator import Emulator

    return Emulator()


@pytest.fixture
def intercom_emulator_url(
    intercom_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The base URL at which the test's `intercom_emulator` is served on a real socket.

    Proxies of the environment are kept out of the way (``NO_PROXY``) while the test runs.

    Example:
        A test that asks for it::

            def test_an_order_is_reported(intercom_emulator, intercom_emulator_url, monkeypatch):
                monkeypatch.setenv("INTERCOM_BASE_URL", intercom_emulator_url)
                place_order()
                assert intercom_emulator.events[0].event_name == "placed-order"
    """
    with intercom_emulator.serve() as url:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield url
