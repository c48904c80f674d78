"""A client library for accessing Intercom data events

This package is generated and can be used by itself. `intercom_data_events` builds on it and adds what
most programs need. Only that package keeps its names stable between releases.

Each operation is a module. Its `sync_detailed` and `asyncio_detailed` send a request with a client and
return the response; `sync` and `asyncio` return only the parsed body:

>>> import httpx
>>> from intercom_data_events_api import API_VERSION, AuthenticatedClient
>>> from intercom_data_events_api.api.data_events import create_data_event
>>> from intercom_data_events_api.models import CreateDataEventRequest
>>> client = AuthenticatedClient(
...     base_url="https://api.intercom.io",
...     token="the access token",
...     timeout=httpx.Timeout(30),
...     # For this example only: a transport without a network answers every request.
...     httpx_args={"transport": httpx.MockTransport(lambda request: httpx.Response(202))},
... )
>>> event = CreateDataEventRequest(event_name="placed-order", created_at=1389913941, user_id="1")
>>> with client:
...     response = create_data_event.sync_detailed(
...         client=client, body=event, intercom_version=API_VERSION
...     )
>>> response.status_code
<HTTPStatus.ACCEPTED: 202>

Its `build_request` and `parse_response` do no I/O; use them to send requests yourself:

>>> request = create_data_event.build_request(body=event, intercom_version=API_VERSION)
>>> request["method"], request["url"], request["json"]["event_name"]
('post', '/events', 'placed-order')
>>> error = create_data_event.parse_response(
...     401, {"type": "error.list", "errors": [{"code": "unauthorized"}]}
... )
>>> error.errors[0].code
'unauthorized'

Its limits without `intercom_data_events`:

- A request has an Intercom-Version header only if `intercom_version` is passed.
- There is no timeout unless the client is created with a `timeout`.
- It does not retry requests and does not limit their rate.
- A status that `http.HTTPStatus` does not have, such as 520, raises a ValueError.
- A failure whose body is not JSON raises a json.JSONDecodeError, which does not have the status.
- A status that is not described is parsed as None, unless the client is created with
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
    # Imported on demand, because creating these classes takes longer than sending a request.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import client

    value: object = getattr(client, name)
    globals()[name] = value
    return value
