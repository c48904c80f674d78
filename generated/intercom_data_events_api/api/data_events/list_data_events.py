from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import errors
from ...types import UNSET, Response, Unset

if TYPE_CHECKING:
    import httpx

    from ...client import AuthenticatedClient, Client
    from ...models.data_event_list import DataEventList
    from ...models.data_event_summary import DataEventSummary
    from ...models.error import Error
    from ...models.intercom_version import IntercomVersion
    from ...models.list_data_events_type import ListDataEventsType


def build_request(
    *,
    type_: ListDataEventsType,
    user_id: str | Unset = UNSET,
    email: str | Unset = UNSET,
    intercom_user_id: str | Unset = UNSET,
    per_page: int | Unset = UNSET,
    summary: bool | Unset = UNSET,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> dict[str, Any]:
    """Build the request of: List or summarize a contact's data events

    Args:
        type_ (ListDataEventsType):
        user_id (str | Unset):
        email (str | Unset):
        intercom_user_id (str | Unset):
        per_page (int | Unset):
        summary (bool | Unset):
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.

    Returns:
        Keyword arguments for httpx.Client.request: method and url, and what the operation has of
        params, cookies, json (or data, files, content) and headers. The url is a path.
    """

    headers: dict[str, Any] = {}
    if not isinstance(intercom_version, Unset):
        headers["Intercom-Version"] = str(intercom_version)

    params: dict[str, Any] = {}

    json_type_: str = type_
    params["type"] = json_type_

    params["user_id"] = user_id

    params["email"] = email

    params["intercom_user_id"] = intercom_user_id

    params["per_page"] = per_page

    params["summary"] = summary

    params = {k: v for k, v in params.items() if v is not UNSET and v is not None}

    _kwargs: dict[str, Any] = {
        "method": "get",
        "url": "/events",
        "params": params,
    }

    _kwargs["headers"] = headers
    return _kwargs


def parse_response(status_code: int, data: Any) -> DataEventList | DataEventSummary | Error:
    """Parse the body of a response by its status

    Args:
        status_code (int): The status of the response.
        data (Any): The body, decoded from JSON; ignored where the status is described without one.

    Raises:
        errors.UnexpectedStatus: The status is not described. Its content is empty.
        AttributeError, KeyError, TypeError, ValueError: The body is not as described.

    Returns:
        DataEventList | DataEventSummary | Error
    """

    from ...models.data_event_list import DataEventList
    from ...models.data_event_summary import DataEventSummary
    from ...models.error import Error

    if status_code == 200:

        def _parse_response_200(data: object) -> DataEventList | DataEventSummary:
            try:
                if not isinstance(data, dict):
                    raise TypeError()
                response_200_type_0 = DataEventList.from_dict(data)

                return response_200_type_0
            except (TypeError, ValueError, AttributeError, KeyError):
                pass
            if not isinstance(data, dict):
                raise TypeError()
            response_200_type_1 = DataEventSummary.from_dict(data)

            return response_200_type_1

        response_200 = _parse_response_200(data)

        return response_200

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
    if response.status_code in {200, 400, 401, 403, 404, 409, 422, 429, 500}:
        return response.json()
    return None


def _build_response(
    *, client: AuthenticatedClient | Client, response: httpx.Response
) -> Response[DataEventList | DataEventSummary | Error]:
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
    type_: ListDataEventsType,
    user_id: str | Unset = UNSET,
    email: str | Unset = UNSET,
    intercom_user_id: str | Unset = UNSET,
    per_page: int | Unset = UNSET,
    summary: bool | Unset = UNSET,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[DataEventList | DataEventSummary | Error]:
    """List or summarize a contact's data events

     Lists a contact's events of the last 90 days page by page, newest first, or summarizes all of them
    by name. Exactly one of user_id, email and intercom_user_id names the contact.

    Args:
        type_ (ListDataEventsType):
        user_id (str | Unset):
        email (str | Unset):
        intercom_user_id (str | Unset):
        per_page (int | Unset):
        summary (bool | Unset):
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[DataEventList | DataEventSummary | Error]
    """

    request = build_request(
        type_=type_,
        user_id=user_id,
        email=email,
        intercom_user_id=intercom_user_id,
        per_page=per_page,
        summary=summary,
        intercom_version=intercom_version,
    )
    response = client.get_httpx_client().request(**request)

    return _build_response(client=client, response=response)


def sync(
    *,
    client: AuthenticatedClient | Client,
    type_: ListDataEventsType,
    user_id: str | Unset = UNSET,
    email: str | Unset = UNSET,
    intercom_user_id: str | Unset = UNSET,
    per_page: int | Unset = UNSET,
    summary: bool | Unset = UNSET,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> DataEventList | DataEventSummary | Error | None:
    """List or summarize a contact's data events

     Lists a contact's events of the last 90 days page by page, newest first, or summarizes all of them
    by name. Exactly one of user_id, email and intercom_user_id names the contact.

    Args:
        type_ (ListDataEventsType):
        user_id (str | Unset):
        email (str | Unset):
        intercom_user_id (str | Unset):
        per_page (int | Unset):
        summary (bool | Unset):
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        DataEventList | DataEventSummary | Error
    """

    return sync_detailed(
        client=client,
        type_=type_,
        user_id=user_id,
        email=email,
        intercom_user_id=intercom_user_id,
        per_page=per_page,
        summary=summary,
        intercom_version=intercom_version,
    ).parsed


async def asyncio_detailed(
    *,
    client: AuthenticatedClient | Client,
    type_: ListDataEventsType,
    user_id: str | Unset = UNSET,
    email: str | Unset = UNSET,
    intercom_user_id: str | Unset = UNSET,
    per_page: int | Unset = UNSET,
    summary: bool | Unset = UNSET,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> Response[DataEventList | DataEventSummary | Error]:
    """List or summarize a contact's data events

     Lists a contact's events of the last 90 days page by page, newest first, or summarizes all of them
    by name. Exactly one of user_id, email and intercom_user_id names the contact.

    Args:
        type_ (ListDataEventsType):
        user_id (str | Unset):
        email (str | Unset):
        intercom_user_id (str | Unset):
        per_page (int | Unset):
        summary (bool | Unset):
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        Response[DataEventList | DataEventSummary | Error]
    """

    request = build_request(
        type_=type_,
        user_id=user_id,
        email=email,
        intercom_user_id=intercom_user_id,
        per_page=per_page,
        summary=summary,
        intercom_version=intercom_version,
    )
    response = await client.get_async_httpx_client().request(**request)

    return _build_response(client=client, response=response)


async def asyncio(
    *,
    client: AuthenticatedClient | Client,
    type_: ListDataEventsType,
    user_id: str | Unset = UNSET,
    email: str | Unset = UNSET,
    intercom_user_id: str | Unset = UNSET,
    per_page: int | Unset = UNSET,
    summary: bool | Unset = UNSET,
    intercom_version: IntercomVersion | Unset = UNSET,
) -> DataEventList | DataEventSummary | Error | None:
    """List or summarize a contact's data events

     Lists a contact's events of the last 90 days page by page, newest first, or summarizes all of them
    by name. Exactly one of user_id, email and intercom_user_id names the contact.

    Args:
        type_ (ListDataEventsType):
        user_id (str | Unset):
        email (str | Unset):
        intercom_user_id (str | Unset):
        per_page (int | Unset):
        summary (bool | Unset):
        intercom_version (IntercomVersion | Unset): The versions of the API that this description
            knows.

    Raises:
        errors.UnexpectedStatus: If the server returns an undocumented status code and Client.raise_on_unexpected_status is True.
        httpx.TimeoutException: If the request takes longer than Client.timeout.

    Returns:
        DataEventList | DataEventSummary | Error
    """

    return (
        await asyncio_detailed(
            client=client,
            type_=type_,
            user_id=user_id,
            email=email,
            intercom_user_id=intercom_user_id,
            per_page=per_page,
            summary=summary,
            intercom_version=intercom_version,
        )
    ).parsed
