"""The workspaces for the scenarios, and a record of all requests and answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from threading import Lock

import attrs
import httpx

from intercom_data_events.emulator import EmulatedContact, Emulator, EmulatorServer, Fault

#: The contact of the documentation, a lead (which has only Intercom's identifier), and two contacts
#: with the same e-mail address.
CONTACTS: Sequence[EmulatedContact] = (
    EmulatedContact(user_id="314159", email="frodo.baggins@example.com", id="63a0979a5eeebeaf28dd"),
    EmulatedContact(user_id="20413", email="customer@example.org"),
    EmulatedContact(id="63a0979a5eeebeaf28dd56ba"),
    EmulatedContact(user_id="merry", email="shared@example.org"),
    EmulatedContact(user_id="pippin", email="shared@example.org"),
)

#: The beginnings of access tokens: of a normal workspace, and of one that gets as many event names
#: as it can have.
GOOD, FULL = "good", "full"
#: Tokens with these beginnings get errors: 403, 500, or 429 after the first request.
FORBIDDEN, BROKEN, LIMITED = "forbidden", "broken", "limited"
#: A token that no workspace has.
WRONG = "wrong"


@attrs.frozen
class Exchange:
    """A request as it arrived, its answer, and the scenario."""

    doing: str
    request: httpx.Request
    response: httpx.Response


class Fixture:
    """Answers as an emulator does, and records the exchanges.

    Separate access tokens get the documented answers that the emulator does not give by itself
    (403, 500), or not at once (429).

    Attributes:
        doing: The name of the current scenario, for the exchanges.
        exchanges: All exchanges so far.
    """

    def __init__(self) -> None:
        self.doing = ""
        self.exchanges: list[Exchange] = []
        self._lock = Lock()
        self._others = {
            FORBIDDEN: Emulator(faults=repeat(_failing(403, "forbidden", "Not allowed"))),
            BROKEN: Emulator(faults=repeat(_failing(500, "server_error", "Server Error"))),
            # Each token may send one request, because the window never ends.
            LIMITED: Emulator(contacts=CONTACTS, rate_limit=1, clock=lambda: 1_671_028_900.0),
        }
        self._emulator = Emulator(contacts=CONTACTS, rate_limit=None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answers one request, and records both."""
        request.read()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token == WRONG:
            # An emulator with an empty list of tokens rejects every token.
            emulator = Emulator(tokens=[])
        else:
            emulator = self._others.get(token.partition("-")[0], self._emulator)
        response = emulator.answer(request)
        with self._lock:
            self.exchanges.append(Exchange(self.doing, request, response))
        return response

    def serve(self) -> AbstractContextManager[str]:
        """Serves on a real socket, and yields the base URL."""
        return EmulatorServer(self.answer)


def _failing(status: int, code: str, message: str) -> Fault:
    document = {"type": "error.list", "request_id": "b3ae", "errors": [
        {"code": code, "message": message}
    ]}  # fmt: skip
    return Fault(
        name=code,
        processed=False,
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8"},
        body=json.dumps(document).encode(),
    )
