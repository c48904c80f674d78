"""Libraries that people mock HTTP with see the client's own connections."""

from __future__ import annotations

import anyio
import httpx
import pytest
import respx

from guides import GUIDES, under
from intercom_data_events import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.emulator import Emulator
from intercom_data_events.tracker import Tracker

TOKEN = "a-token-of-more-than-sixteen-characters"


@respx.mock
def test_respx_sees_what_a_client_and_a_tracker_send():
    route = respx.post("https://api.intercom.io/events").mock(httpx.Response(202))

    with DataEventsClient("token") as client, Tracker(client) as tracker:
        client.create("ran", user_id="1")
        tracker.track("walked", user_id="1")

    assert [b"ran" in call.request.content for call in route.calls] == [True, False]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_respx_sees_what_an_async_client_sends(backend):
    async def main():
        async with AsyncDataEventsClient("token") as client:
            await client.create("ran", user_id="1")

    with respx.mock:
        route = respx.post("https://api.intercom.io/events").mock(httpx.Response(202))
        anyio.run(main, backend=backend)

    assert route.call_count == 1


def test_the_guides_cassette_replays_without_a_server_and_has_no_token(tmp_path, monkeypatch):
    ((_, code),) = under(GUIDES["overlays"].read_text(encoding="utf-8"), "Recording with VCR")
    namespace = {}
    exec(code, namespace)
    emulator = Emulator()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERCOM_ACCESS_TOKEN", TOKEN)
    with emulator.serve() as url:
        monkeypatch.setenv("INTERCOM_BASE_URL", url)
        with DataEventsClient() as client:
            client.create("placed-order", user_id="314159")
        namespace["test_orders_are_listed"]()

    monkeypatch.delenv("INTERCOM_ACCESS_TOKEN")
    namespace["test_orders_are_listed"]()

    assert len(emulator.requests) == 2
    assert TOKEN not in (tmp_path / "cassettes" / "orders.yaml").read_text(encoding="utf-8")
