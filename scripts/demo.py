"""A tour in one minute: sends, lists and summarises data events against the bundled emulator.

    python scripts/demo.py

The emulator serves on a real socket, so what is shown below "On the wire" is what went over it.
No network, no account and no access token of yours are needed.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx

from intercom_data_events import (
    DataEventsClient,
    MonetaryAmount,
    NotFoundError,
    RichLink,
)
from intercom_data_events.emulator import Emulator, RecordedRequest


def main() -> None:
    emulator = Emulator()
    # Nothing from the environment, neither a proxy nor a switch, shall come between the two.
    own = httpx.Client(trust_env=False)
    with (
        own,
        emulator.serve() as url,
        DataEventsClient("demo-token", base_url=url, http_client=own, enabled=True) as client,
    ):
        print(f"The emulator serves at {url}.")
        now = datetime.now(UTC)

        heading("An order with a rich link, a price and a date")
        client.create(
            "placed-order",
            user_id="314159",
            created_at=now,
            metadata={
                "order_date": now,
                "stripe_invoice": "inv_3434343434",
                "order_number": RichLink(
                    url="https://example.org/orders/3434-3434", value="3434-3434"
                ),
                "price": MonetaryAmount(2999, "usd"),
            },
        )
        print("  accepted")

        heading("Six invitations, an hour apart")
        contact = client.contact(user_id="314159")
        for hours in range(1, 7):
            contact.create(
                "invited-friend",
                created_at=now - timedelta(hours=hours),
                metadata={"invite_code": f"ADDAFRIEND{hours}"},
            )
        print("  accepted")

        heading("All of them, newest first, three to a page")
        for number, page in enumerate(contact.list(per_page=3).pages(), 1):
            print(f"  page {number}")
            for event in page.events:
                metadata = ", ".join(f"{key}={value}" for key, value in event.metadata.items())
                print(f"    {event.created_at:%Y-%m-%d %H:%M:%S}  {event.event_name}  {metadata}")

        heading("Counted by name")
        for item in contact.summary().events:
            print(f"  {item.name}: {item.count}, first {item.first}, last {item.last}")

        heading("Somebody whom Intercom does not know")
        try:
            client.summary(email="nobody@example.org")
        except NotFoundError as error:
            print(f"  {type(error).__name__}: {error}")

        heading("What is left of the rate limit")
        print(f"  {client.rate_limit}")

    heading("On the wire")
    for request in emulator.requests:
        show(request)


def heading(text: str) -> None:
    print(f"\n{text}")


def show(request: RecordedRequest) -> None:
    query = f"?{request.query}" if request.query else ""
    print(f"  {request.method} {request.path}{query}")
    print(f"    Intercom-Version: {request.headers['Intercom-Version']}")
    if request.body:
        print(f"    {json.dumps(request.json)}")


if __name__ == "__main__":
    main()
