from http import HTTPStatus
from typing import Any, cast

import httpx

from ... import errors
from ...client import AuthenticatedClient, Client
from ...models.create_data_event_request import CreateDataEventRequest
from ...models.error import Error
from ...models.intercom_version import IntercomVersion
from ...types import UNSET, Response, Unset


def _get_kwargs(
    *,
    body: CreateDataEventRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if not isinstance(intercom_version, Unset):
        headers["Intercom-Version"] = str(intercom_version)

    _kwargs: dict[str, Any] = {
        "method": "post",
        "url": "/events",
    }

    _kwargs["json"] = body.to_dict()

    headers["Content-Type"] = "application/json"

    _kwargs["headers"] = headers
    return _kwargs


def _parse_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Any | Error | None:
    if response.status_code == 202:
        response_202 = cast(Any, None)
        return response_202

    if response.status_code == 400:
        response_400 = Error.from_dict(response.json())

        return response_400

    if response.status_code == 401:
        response_401 = Error.from_dict(response.json())

        return response_401

    if response.status_code == 403:
        response_403 = Error.from_dict(response.json())

        return response_403

    if response.status_code == 404:
        response_404 = Error.from_dict(response.json())

        return response_404

    if response.status_code == 409:
        response_409 = Error.from_dict(response.json())

        return response_409

    if response.status_code == 422:
        response_422 = Error.from_dict(response.json())

        return response_422

    if response.status_code == 429:
        response_429 = Error.from_dict(response.json())

        return response_429

    if response.status_code == 500:
        response_500 = Error.from_dict(response.json())

        return response_500

    if client.raise_on_unexpected_status:
        raise errors.UnexpectedStatus(response.status_code, response.content)
    else:
        return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[Any | Error]:
    return Response(
        status_code=HTTPStatus(response.status_code),
        content=response.content,
        headers=response.headers,
        parsed=_parse_response(client=client, response=response),
    )


def sync_detailed(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[Any | Error]:
    """Submit a data event

     Records that a contact did something. Answers 202 with an empty body once the event is accepted,
    also where it was taken for a duplicate of one that was sent before: same contact, name and
    created_at.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventRequest): An event to submit; at least one of user_id, id and email
            is needed.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error]
    """

    kwargs = _get_kwargs(
        body=body,
        intercom_version=intercom_version,
    )

    response = client.get_httpx_client().request(
        **kwargs,
    )

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Any | Error | None:
    """Submit a data event

     Records that a contact did something. Answers 202 with an empty body once the event is accepted,
    also where it was taken for a duplicate of one that was sent before: same contact, name and
    created_at.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventRequest): An event to submit; at least one of user_id, id and email
            is needed.

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
    body: CreateDataEventRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[Any | Error]:
    """Submit a data event

     Records that a contact did something. Answers 202 with an empty body once the event is accepted,
    also where it was taken for a duplicate of one that was sent before: same contact, name and
    created_at.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventRequest): An event to submit; at least one of user_id, id and email
            is needed.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[Any | Error]
    """

    kwargs = _get_kwargs(
        body=body,
        intercom_version=intercom_version,
    )

    response = await client.get_async_httpx_client().request(**kwargs)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    body: CreateDataEventRequest,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Any | Error | None:
    """Submit a data event

     Records that a contact did something. Answers 202 with an empty body once the event is accepted,
    also where it was taken for a duplicate of one that was sent before: same contact, name and
    created_at.

    Args:
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.
        body (CreateDataEventRequest): An event to submit; at least one of user_id, id and email
            is needed.

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
