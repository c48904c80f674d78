"""Fixtures to test your own code against the emulator.

pytest imports this module in every run, so the fixtures import the emulator when they need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from intercom_data_events.emulator import Emulator

__all__ = ["intercom_emulator", "intercom_emulator_url"]


@pytest.fixture
def intercom_emulator() -> Emulator:
    """A new emulator; it accepts any access token, and creates contacts when it first sees them.

    Example:
        A test that uses it::

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
    """The base URL of the test's `intercom_emulator`, served on a real socket.

    ``NO_PROXY`` is set while the test runs, so that the environment's proxies are not used.

    Example:
        A test that uses it::

            def test_an_order_is_reported(intercom_emulator, intercom_emulator_url, monkeypatch):
                monkeypatch.setenv("INTERCOM_BASE_URL", intercom_emulator_url)
                place_order()
                assert intercom_emulator.events[0].event_name == "placed-order"
    """
    with intercom_emulator.serve() as url:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield url
