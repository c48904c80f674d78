from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import errors
from ...types import UNSET, Response, Unset

if TYPE_CHECKING:
    import httpx

    from ...client import AuthenticatedClient, Client
    from ...models.create_data_event_summaries_request import CreateDataEventSummariesRequest
    from ...models.error import Error
    from ...models.intercom_version import IntercomVersion


def build_request(
    *,
    body: CreateDataEventSummariesRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> dict[str, Any]:
    """Build the request of: Import a summary of events

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventSummariesRequest): A summary of one contact's events of one name.

    Returns:
        Keyword arguments for httpx.Client.request: method and url, and what the operation has of
        params, cookies, json (or data, files, content) and headers. The url is a path.
    """

    headers: dict[str, Any] = {}
    if not isinstance(intercom_version, Unset):
        headers["Intercom-Version"] = str(intercom_version)

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/events/summaries",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def parse_response(status_code: int, data: Any) -> Any | Error:
    """Parse the body of a response by its status

    Args:
        status_code (int): The status of the response.
        data (Any): The body, decoded from JSON; ignored where the status is described without one.

    Raises:
        errors.UnexpectedStatus: The status is not described. Its content is empty.
        AttributeError, KeyError, TypeError, ValueError: The body is not as described.

    Returns:
        Any | Error
    """

    from ...models.error import Error

    if status_code == 200:
        return None

    if status_code == 400:
        response_400 = Error.from_dict(data)

        return response_400

    if status_code == 401:
        response_401 = Error.from_dict(data)

        return response_401

    if status_code == 403:
        response_403 = Error.from_dict(data)

        return response_403

    if status_code == 404:
        response_404 = Error.from_dict(data)

        return response_404

    if status_code == 409:
        response_409 = Error.from_dict(data)

        return response_409

    if status_code == 422:
        response_422 = Error.from_dict(data)

        return response_422

    if status_code == 429:
        response_429 = Error.from_dict(data)

        return response_429

    if status_code == 500:
        response_500 = Error.from_dict(data)

        return response_500

    raise errors.UnexpectedStatus(status_code, b"")


def _data(response: httpx.Response) -> Any:
    """Returns the data for parse_response; decodes the body only if it has a schema"""
    if response.status_code in {400, 401, 403, 404, 409, 422, 429, 500}:
        return response.json()
    return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Any | Error]:
    from http import HTTPStatus

    status_code = HTTPStatus(response.status_code)
    try:
        parsed = parse_response(response.status_code, _data(response))
    except errors.UnexpectedStatus:
        if client.raise_on_unexpected_status:
            raise errors.UnexpectedStatus(response.status_code, response.content) from None
        parsed = None
    return Response(
        status_code=status_code, content=response.content, headers=response.headers, parsed=parsed
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventSummariesRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[Any | Error]:
    """Import a summary of events

     Adds events that happened elsewhere to a contact's summary, without listing each. The operation is
    not known to be idempotent.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventSummariesRequest): A summary of one contact's events of one name.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error]
    """

    request = build_request(
        body=body,
        intercom_version=intercom_version,
    )
    response = client.get_httpx_client().request(**request)

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventSummariesRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Any | Error | None:
    """Import a summary of events

     Adds events that happened elsewhere to a contact's summary, without listing each. The operation is
    not known to be idempotent.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventSummariesRequest): A summary of one contact's events of one name.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Error
    """

    return sync_detailed(
        client=client,
        body=body,
        intercom_version=intercom_version,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventSummariesRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[Any | Error]:
    """Import a summary of events

     Adds events that happened elsewhere to a contact's summary, without listing each. The operation is
    not known to be idempotent.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventSummariesRequest): A summary of one contact's events of one name.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error]
    """

    request = build_request(
        body=body,
        intercom_version=intercom_version,
    )
    response = await client.get_async_httpx_client().request(**request)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventSummariesRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Any | Error | None:
    """Import a summary of events

     Adds events that happened elsewhere to a contact's summary, without listing each. The operation is
    not known to be idempotent.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventSummariesRequest): A summary of one contact's events of one name.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Any | Error
    """

    return (
        await asyncio_detailed(
            client=client,
            body=body,
            intercom_version=intercom_version,
        )
    ).parsed
