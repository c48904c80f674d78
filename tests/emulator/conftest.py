"""What the tests of the emulator share: an emulator at a fixed time, and plain httpx clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from intercom_data_events.emulator import Emulator

NOW = 1_671_028_900
ORIGIN = "https://api.intercom.io"

Connect = Callable[..., httpx.Client]


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(clock=lambda: float(NOW))


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients of an emulator, each with an access token, and closes them."""
    clients: list[httpx.Client] = []

    def connect(emulator: Emulator, token: str = "token") -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        client = httpx.Client(transport=emulator.transport(), base_url=ORIGIN, headers=headers)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(emulator: Emulator, connect: Connect) -> httpx.Client:
    return connect(emulator)
