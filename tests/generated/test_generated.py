"""The generated package stands on its own, and says what the description says."""

from __future__ import annotations

import importlib
import pkgutil
import typing
from pathlib import Path

import anyio
import httpx
import intercom_data_events_api
import pytest
from intercom_data_events.settings import HOSTS
from intercom_data_events_api import API_VERSION, AuthenticatedClient, models
from intercom_data_events_api.api.data_events import (
    create_data_event,
    create_data_event_summaries,
    list_data_events,
)
from intercom_data_events_api.models import IntercomVersion
from intercom_data_events_api.models.intercom_version import INTERCOM_VERSION_VALUES
from regeneration import document

DESCRIPTION = document.read(
    str(Path(__file__).parents[2] / "openapi" / "data-events.yaml")
).content


def client(answer):
    made = AuthenticatedClient(base_url="https://api.intercom.io", token="token")
    transport = httpx.MockTransport(answer)
    made.set_httpx_client(httpx.Client(base_url="https://api.intercom.io", transport=transport))
    made.set_async_httpx_client(
        httpx.AsyncClient(base_url="https://api.intercom.io", transport=transport)
    )
    return made


def test_every_module_imports():
    for found in pkgutil.walk_packages(
        intercom_data_events_api.__path__, "intercom_data_events_api."
    ):
        assert importlib.import_module(found.name)


def test_every_model_is_there_by_name_and_no_other():
    for name in models.__all__:
        assert getattr(models, name) is not None
    with pytest.raises(AttributeError, match="Nonsense"):
        models.Nonsense  # noqa: B018  # asking is the test


def test_the_version_is_that_of_the_description():
    assert DESCRIPTION["info"]["version"] == API_VERSION


def test_the_known_versions_are_those_of_the_description():
    described = DESCRIPTION["components"]["schemas"]["intercom_version"]["enum"]

    assert set(typing.get_args(IntercomVersion)) == INTERCOM_VERSION_VALUES == set(described)


def test_the_regions_are_the_servers_of_the_description():
    assert sorted(HOSTS.values()) == sorted(server["url"] for server in DESCRIPTION["servers"])


def test_an_event_is_submitted_without_any_overlay():
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(202)

    event = {
        "event_name": "placed-order",
        "created_at": 1389913941,
        "user_id": "314159",
        "metadata": {
            "load": 3.67,
            "source": "desktop",
            "order_number": {"url": "https://example.org/orders/3434", "value": "3434"},
            "price": {"amount": 2999, "currency": "usd"},
        },
    }
    body = models.CreateDataEventRequest.from_dict(event)
    response = create_data_event.sync_detailed(client=client(answer), body=body)

    assert response.status_code == 202
    assert body.to_dict() == event
    assert isinstance(body.metadata["price"], models.MonetaryAmount)
    assert isinstance(body.metadata["order_number"], models.RichLink)
    assert requests[0].url == "https://api.intercom.io/events"


def test_a_listing_is_asked_for_by_flat_parameters_and_read():
    requests = []

    def answer(request):
        requests.append(request)
        event = {"event_name": "a", "created_at": 1671028894, "user_id": None, "unknown": 1}
        return httpx.Response(200, json={"type": "event.list", "events": [event], "pages": None})

    listed = list_data_events.sync(
        client=client(answer), type_="user", email="a+b@example.org", per_page=2
    )

    assert isinstance(listed, models.DataEventList)
    assert listed.events[0].additional_properties == {"unknown": 1}
    assert str(requests[0].url.query, "ascii") == "type=user&email=a%2Bb%40example.org&per_page=2"


def test_a_summary_is_told_from_a_listing_by_its_type():
    def answer(request):
        assert request.url.params["summary"] == "true"
        return httpx.Response(200, json={"type": "event.summary", "events": [{"name": "a"}, None]})

    async def summarise():
        return await list_data_events.asyncio(
            client=client(answer), type_="user", user_id="1", summary=True
        )

    found = anyio.run(summarise)

    assert isinstance(found, models.DataEventSummary)
    assert found.events[0].name == "a"
    assert found.events[1] is None


def test_a_summary_is_imported_without_any_overlay():
    summary = {
        "user_id": "314159",
        "event_summaries": {"event_name": "a", "count": 1, "first": 1, "last": 2},
    }
    body = models.CreateDataEventSummariesRequest.from_dict(summary)
    response = create_data_event_summaries.sync_detailed(
        client=client(lambda request: httpx.Response(200)), body=body
    )

    assert response.status_code == 200
    assert body.to_dict() == summary
