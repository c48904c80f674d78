"""The events to send and to read, in the form that each client needs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any

TOKEN = "t"  # noqa: S105  # any will do
HEADERS = {"Authorization": f"Bearer {TOKEN}", "Intercom-Version": "2.16"}
#: An event as the documentation lists it.
LISTED: dict[str, Any] = {
    "type": "event",
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "id": "8a88a590-e1c3-41e2-a502-e0649dbf721c",
    "intercom_user_id": "63a0979a5eeebeaf28dd56ba",
    "email": "frodo.baggins@example.com",
    "metadata": {
        "order_date": 1392036272,
        "stripe_invoice": "inv_3434343434",
        "order_number": {"value": "3434-3434", "url": "https://example.org/orders/3434-3434"},
        "price": {"currency": "usd", "amount": 2999},
    },
}
#: An event to send.
CREATED: dict[str, Any] = {
    "event_name": "placed-order",
    "created_at": 1389913941,
    "user_id": "314159",
    "metadata": {"stripe_invoice": "inv_3434343434", "load": 3.67},
}


def different(events: int | None = None) -> Iterator[dict[str, Any]]:
    """Yields events of different people; endlessly, if no number is given."""
    numbers = count() if events is None else range(events)
    return ({**CREATED, "user_id": str(number)} for number in numbers)


def official(fields: dict[str, Any]) -> Any:
    """Returns an event of the SDK's type, which rejects metadata that is not a string."""
    from intercom.types.create_data_event_request_with_user_id import (
        CreateDataEventRequestWithUserId,
    )

    metadata = {key: str(value) for key, value in fields["metadata"].items()}
    return CreateDataEventRequestWithUserId(**{**fields, "metadata": metadata})


def installed(distribution: str) -> str | None:
    """Returns the version of a distribution, or None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
