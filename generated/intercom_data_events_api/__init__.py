"""A client library for accessing Intercom data events

This package is generated, and can be used by itself. `intercom_data_events` is made of it and adds what
most programs need; only that package keeps its names from one release to the next.

An operation is a module. Its `sync_detailed` and `asyncio_detailed` send a request with a client and
return the response, `sync` and `asyncio` only what was parsed:

>>> import httpx
>>> from intercom_data_events_api import API_VERSION, AuthenticatedClient
>>> from intercom_data_events_api.api.data_events import create_data_event
>>> from intercom_data_events_api.models import CreateDataEventRequest
>>> client = AuthenticatedClient(
...     base_url="https://api.intercom.io",
...     token="the access token",
...     timeout=httpx.Timeout(30),
...     # For this example alone: every request is answered without a network.
...     httpx_args={"transport": httpx.MockTransport(lambda request: httpx.Response(202))},
... )
>>> event = CreateDataEventRequest(event_name="placed-order", created_at=1389913941, user_id="1")
>>> with client:
...     response = create_data_event.sync_detailed(
...         client=client, body=event, intercom_version=API_VERSION
...     )
>>> response.status_code
<HTTPStatus.ACCEPTED: 202>

Its `build_request` and `parse_response` do no I/O, for a program that sends requests itself:

>>> request = create_data_event.build_request(body=event, intercom_version=API_VERSION)
>>> request["method"], request["url"], request["json"]["event_name"]
('post', '/events', 'placed-order')
>>> error = create_data_event.parse_response(
...     401, {"type": "error.list", "errors": [{"code": "unauthorized"}]}
... )
>>> error.errors[0].code
'unauthorized'

What it lacks by itself:

- A request has an Intercom-Version header only where `intercom_version` is passed.
- There is no time limit unless the client has a `timeout`.
- Nothing is retried, and no rate limit is kept to.
- A status that `http.HTTPStatus` does not have, such as 520, raises a ValueError.
- A failure whose body is not JSON raises a json.JSONDecodeError instead of telling its status.
- A status that is not described is parsed as None, unless the client is made with
  `raise_on_unexpected_status=True`.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .client import AuthenticatedClient, Client

#: The version of the API that this package was generated from.
API_VERSION: Final = "2.16"

__all__ = (
    "API_VERSION",
    "AuthenticatedClient",
    "Client",
)


def __getattr__(name: str) -> object:
    # On demand: to make these classes takes longer than to send a request.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import client

    value: object = getattr(client, name)
    globals()[name] = value
    return value
