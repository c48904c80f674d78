"""The command `demo`: sends, lists and summarises data events against the bundled emulator.

The emulator serves on a real socket, so what is shown below "On the wire" is what went over it. No
network, no account and no access token of anybody's are needed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from intercom_data_events import (
    DataEventsClient,
    MonetaryAmount,
    NotFoundError,
    RichLink,
)
from intercom_data_events.cli import output
from intercom_data_events.emulator import Emulator, RecordedRequest


def show(*, as_json: bool) -> None:
    """Does everything, and shows it; as JSON, the requests alone.

    Raises:
        OSError: No socket can be had.
    """
    emulator = Emulator()
    say: Callable[[str], None] = _hidden if as_json else output.result

    def begin(heading: str) -> None:
        say("")
        say(heading)

    # Nothing from the environment, neither a proxy nor a switch, shall come between the two.
    own = httpx.Client(trust_env=False)
    with (
        own,
        emulator.serve() as url,
        DataEventsClient("demo-token", base_url=url, http_client=own, enabled=True) as client,
    ):
        say(f"The emulator serves at {url}.")
        now = datetime.now(UTC)

        begin("An order with a rich link, a price and a date")
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
        say("  accepted")

        begin("Six invitations, an hour apart")
        contact = client.contact(user_id="314159")
        for hours in range(1, 7):
            contact.create(
                "invited-friend",
                created_at=now - timedelta(hours=hours),
                metadata={"invite_code": f"ADDAFRIEND{hours}"},
            )
        say("  accepted")

        begin("All of them, newest first, three to a page")
        for number, page in enumerate(contact.list(per_page=3).pages(), 1):
            say(f"  page {number}")
            for event in page.events:
                metadata = ", ".join(f"{key}={value}" for key, value in event.metadata.items())
                say(f"    {event.created_at:%Y-%m-%d %H:%M:%S}  {event.event_name}  {metadata}")

        begin("Counted by name")
        for item in contact.summary().events:
            say(f"  {item.name}: {item.count}, first {item.first}, last {item.last}")

        begin("A contact that Intercom does not know")
        try:
            client.summary(email="nobody@example.org")
        except NotFoundError as error:
            say(f"  {type(error).__name__}: {error}")

        begin("What is left of the rate limit")
        say(f"  {client.rate_limit}")

    begin("On the wire")
    for request in emulator.requests:
        _show_request(request, as_json=as_json)


def _hidden(_: str) -> None:
    """Where the words go when a program asks."""


def _show_request(request: RecordedRequest, *, as_json: bool) -> None:
    address = f"{request.path}?{request.query}" if request.query else request.path
    version = request.headers["Intercom-Version"]
    if as_json:
        output.result_json(
            {
                "method": request.method,
                "address": address,
                "intercom_version": version,
                "body": request.json,
            }
        )
        return
    output.result(f"  {request.method} {address}")
    output.result(f"    Intercom-Version: {version}")
    if request.body:
        output.result(f"    {output.to_json(request.json)}")
