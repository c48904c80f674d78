"""Libraries that people mock HTTP with see the client's own connections."""

from __future__ import annotations

import aiohttp
import anyio
import httpx
import pytest
import respx
import vcr

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


def outcome_of_one(**settings):
    """The outcome of an event that create_many sends through aiohttp."""

    async def main():
        async with AsyncDataEventsClient(TOKEN, max_retries=0, **settings) as client:
            event = {"event_name": "ran", "user_id": "1", "created_at": 1_767_268_800}
            [outcome] = [each async for each in client.create_many([event])]
            return outcome

    return anyio.run(main)


def test_a_cassette_of_aiohttp_is_replayed(tmp_path):
    path = str(tmp_path / "events.yaml")
    with Emulator().serve() as url, vcr.use_cassette(path):
        assert outcome_of_one(base_url=url).status == "accepted"

    with vcr.use_cassette(path, record_mode="none") as cassette:
        assert outcome_of_one(base_url=url).status == "accepted"

    assert cassette.play_count == 1


@pytest.mark.parametrize("error", [aiohttp.ClientConnectionError, TimeoutError])
def test_an_event_that_a_replaced_session_fails_for_was_possibly_sent(monkeypatch, error):
    async def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "_request", fail)

    outcome = outcome_of_one()

    assert outcome.status == "failed"
    assert outcome.error.may_have_been_processed
