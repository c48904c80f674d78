"""Fixtures for testing your own code against the emulator.

pytest loads this module in every run, so the fixtures import the emulator only when they are used.
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
    """A new emulator, which accepts any access token and any contact.

    Example:
        A test that uses it::

            from intercom_data_events import DataEventsClient

            def test_an_order_is_reported(intercom_emulator):
                client = DataEventsClient("token", transport=intercom_emulator.transport())
                client.create("placed-order", user_id="314159")  # Call your own code here.

                assert intercom_emulator.events[0].event_name == "placed-order"
    """
    from intercom_data_events.emulator import Emulator

    return Emulator()


@pytest.fixture
def intercom_emulator_url(
    intercom_emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The base URL of the test's `intercom_emulator`, served on a real socket.

    ``NO_PROXY`` is set during the test, so that proxies of the environment are not used.

    Example:
        A test that uses it::

            from intercom_data_events import DataEventsClient

            def test_an_order_is_reported(intercom_emulator, intercom_emulator_url, monkeypatch):
                monkeypatch.setenv("INTERCOM_BASE_URL", intercom_emulator_url)
                with DataEventsClient("token") as client:
                    client.create("placed-order", user_id="314159")  # Call your own code here.

                assert intercom_emulator.events[0].event_name == "placed-order"
    """
    with intercom_emulator.serve() as url:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield url
