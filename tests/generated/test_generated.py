"""The generated package stands on its own, and says what the description says."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import typing
from pathlib import Path

import anyio
import httpx
import intercom_data_events_api
import pytest
from intercom_data_events._sending.settings import HOSTS
from intercom_data_events_api import API_VERSION, AuthenticatedClient, Client, errors, models
from intercom_data_events_api.api import data_events
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

    async def summarize():
        return await list_data_events.asyncio(
            client=client(answer), type_="user", user_id="1", summary=True
        )

    found = anyio.run(summarize)

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


OPERATIONS = {
    create_data_event: {
        "body": models.CreateDataEventRequest.from_dict(
            {"event_name": "a", "created_at": 1, "user_id": "1"}
        )
    },
    create_data_event_summaries: {
        "body": models.CreateDataEventSummariesRequest.from_dict(
            {
                "user_id": "1",
                "event_summaries": {"event_name": "a", "count": 1, "first": 1, "last": 2},
            }
        )
    },
    list_data_events: {"type_": "user", "user_id": "1", "per_page": 2},
}


def statuses(operation):
    """The statuses that the description has for a generated operation."""
    name = operation.__name__.rpartition(".")[2].replace("_", "")
    (node,) = [
        node
        for item in DESCRIPTION["paths"].values()
        for node in item.values()
        if node["operationId"].lower() == name
    ]
    return {int(status) for status in node["responses"] if status.isdecimal()}


FAILURE = {"type": "error.list", "request_id": "r", "errors": [{"code": "c", "message": "m"}]}
LISTING = {"type": "event.list", "events": [{"event_name": "a", "created_at": 1}]}
RESPONSES = [
    (create_data_event, 202, None),
    (create_data_event_summaries, 200, None),
    (list_data_events, 200, LISTING),
    (list_data_events, 200, {"type": "event.summary", "events": [None]}),
    *[
        (operation, status, FAILURE)
        for operation in OPERATIONS
        for status in sorted(statuses(operation))
        if status >= 400
    ],
]
responses = pytest.mark.parametrize(("operation", "status", "data"), RESPONSES)
operations = pytest.mark.parametrize("operation", OPERATIONS)


def perform(operation, answer, **options):
    """Sends a request in both ways; returns the response, which has to be the same."""
    made = client(answer)
    made.raise_on_unexpected_status = options.pop("raises", False)
    arguments = OPERATIONS[operation] | options

    async def send():
        return await operation.asyncio_detailed(client=made, **arguments)

    response = operation.sync_detailed(client=made, **arguments)
    assert anyio.run(send) == response
    return response


def answering(status, content=b"", **options):
    return lambda request: httpx.Response(status, content=content, **options)


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(intercom_data_events_api)

    assert result.attempted > 8
    assert result.failed == 0


def test_each_operation_is_tested():
    found = {module.name for module in pkgutil.iter_modules(data_events.__path__)}

    assert {operation.__name__.rpartition(".")[2] for operation in OPERATIONS} == found
    for operation in OPERATIONS:
        assert {status for one, status, _ in RESPONSES if one is operation} == statuses(operation)


@operations
def test_a_request_that_is_built_is_the_one_that_is_sent(operation):
    sent = []

    def answer(request):
        sent.append(request)
        return httpx.Response(500, json=FAILURE)

    perform(operation, answer, intercom_version="2.14")
    built = operation.build_request(**OPERATIONS[operation], intercom_version="2.14")
    expected = client(answer).get_httpx_client().build_request(**built)

    for request in sent:
        assert (request.method, request.url) == (expected.method, expected.url)
        assert request.content == expected.content
        assert request.headers["intercom-version"] == "2.14"
        assert request.headers.get("content-type") == expected.headers.get("content-type")


@responses
def test_what_is_parsed_without_a_client_is_what_a_client_parses(operation, status, data):
    content = b"" if data is None else json.dumps(data).encode()

    response = perform(operation, answering(status, content, headers={"X-Request-Id": "r"}))

    assert response.parsed == operation.parse_response(status, data)
    assert (response.parsed is None) == (data is None)
    assert (response.status_code, response.content) == (status, content)
    assert response.headers["x-request-id"] == "r"


@responses
def test_a_body_is_decoded_only_where_the_status_has_a_schema(operation, status, data):
    html = answering(status, b"<html>")

    if data is None:
        assert perform(operation, html).parsed is None
        assert operation.parse_response(status, ["anything"]) is None
    else:
        with pytest.raises(json.JSONDecodeError):
            perform(operation, html)


@operations
@pytest.mark.parametrize("status", [201, 302, 418, 503])
def test_a_status_that_is_not_described_is_an_error_or_none(operation, status):
    html = answering(status, b"<html>")

    with pytest.raises(errors.UnexpectedStatus) as parsed:
        operation.parse_response(status, FAILURE)
    assert (parsed.value.status_code, parsed.value.content) == (status, b"")

    response = perform(operation, html)
    assert (response.status_code, response.content, response.parsed) == (status, b"<html>", None)

    with pytest.raises(errors.UnexpectedStatus, match="<html>") as raised:
        perform(operation, html, raises=True)
    assert (raised.value.status_code, raised.value.content) == (status, b"<html>")


@operations
def test_a_status_that_python_does_not_know_is_a_value_error_of_the_client_alone(operation):
    for raises in (False, True):
        with pytest.raises(ValueError, match="520"):
            perform(operation, answering(520, b"<html>"), raises=raises)
    with pytest.raises(errors.UnexpectedStatus, match="520"):
        operation.parse_response(520, None)


SECRET = "dG9rOmE5YjE"
HOLDERS = {
    "the token": {"token": SECRET},
    "a header": {"headers": {"Authorization": SECRET}},
    "a cookie": {"cookies": {"session": SECRET}},
    "httpx's arguments": {"httpx_args": {"params": {"token": SECRET}}},
    "the address": {"base_url": f"https://user:{SECRET}@localhost"},
}


class TalkativeClient(httpx.Client):
    def __repr__(self):
        return str(self.headers["Authorization"])


class TalkativeAsyncClient(httpx.AsyncClient):
    def __repr__(self):
        return str(self.headers["Authorization"])


@pytest.mark.parametrize("kind", [AuthenticatedClient, Client])
@pytest.mark.parametrize("holder", HOLDERS)
def test_the_repr_of_a_client_shows_no_secret(kind, holder):
    arguments = {"base_url": "https://localhost", "token": "other"} | HOLDERS[holder]
    if kind is Client and arguments.pop("token") == SECRET:
        arguments["headers"] = {"Authorization": f"Bearer {SECRET}"}
    made = kind(**arguments)

    assert SECRET not in repr(made)

    with made:  # From now on, the token is among the headers.
        made.get_async_httpx_client()
        copies = (
            made.with_headers({"X-Token": SECRET}),
            made.with_cookies({"token": SECRET}),
            made.with_timeout(httpx.Timeout(7)),
        )
        for one in (made, *copies):
            assert SECRET not in f"{one!r} {one}"
            assert SECRET not in repr([one])
    assert "timeout=Timeout(timeout=7)" in repr(copies[2])


def test_the_repr_of_a_client_does_not_show_the_httpx_clients():
    made = AuthenticatedClient(base_url="https://localhost", token=SECRET)
    headers = {"Authorization": SECRET}
    with TalkativeClient(headers=headers) as talkative:
        made.set_httpx_client(talkative)
        made.set_async_httpx_client(TalkativeAsyncClient(headers=headers))

        assert SECRET in repr(talkative)
        assert SECRET not in repr(made)
