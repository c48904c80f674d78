"""The workspaces that the clients are exercised in, and everything that is said in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from threading import Lock

import attrs
import httpx

from intercom_data_events.emulator import EmulatedContact, Emulator, EmulatorServer, Fault

#: The documentation's person, a lead (who has Intercom's identifier alone), and two contacts who
#: share an e-mail address.
CONTACTS: Sequence[EmulatedContact] = (
    EmulatedContact(user_id="314159", email="frodo.baggins@example.com", id="63a0979a5eeebeaf28dd"),
    EmulatedContact(user_id="20413", email="customer@example.org"),
    EmulatedContact(id="63a0979a5eeebeaf28dd56ba"),
    EmulatedContact(user_id="merry", email="shared@example.org"),
    EmulatedContact(user_id="pippin", email="shared@example.org"),
)

#: What the access tokens of workspaces begin with: of one that is as it should be, and of one that
#: gets all the names that it can have.
GOOD, FULL = "good", "full"
#: Tokens that begin so are answered so, whatever they ask for.
FORBIDDEN, BROKEN, LIMITED = "forbidden", "broken", "limited"
#: No workspace has it.
WRONG = "wrong"


@attrs.frozen
class Exchange:
    """A request as it arrived and its answer, with what was being done at the time."""

    doing: str
    request: httpx.Request
    response: httpx.Response


class Fixture:
    """Answers as an emulator does, and keeps what was said.

    What the API documents and the emulator does not do by itself (403, 500), or not at once (429),
    has access tokens of its own.

    Attributes:
        doing: What is being done now, for the exchanges.
        exchanges: All that was said so far.
    """

    def __init__(self) -> None:
        self.doing = ""
        self.exchanges: list[Exchange] = []
        self._lock = Lock()
        self._others = {
            FORBIDDEN: Emulator(faults=repeat(_failing(403, "forbidden", "Not allowed"))),
            BROKEN: Emulator(faults=repeat(_failing(500, "server_error", "Server Error"))),
            # One request in a window that never ends, for each token.
            LIMITED: Emulator(contacts=CONTACTS, rate_limit=1, clock=lambda: 1_671_028_900.0),
        }
        self._emulator = Emulator(contacts=CONTACTS, rate_limit=None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answers one request, and keeps both."""
        request.read()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token == WRONG:
            # An emulator that knows no token refuses this one as it refuses any.
            emulator = Emulator(tokens=[])
        else:
            emulator = self._others.get(token.partition("-")[0], self._emulator)
        response = emulator.answer(request)
        with self._lock:
            self.exchanges.append(Exchange(self.doing, request, response))
        return response

    def serve(self) -> AbstractContextManager[str]:
        """Serves it on a real socket, and yields the base URL."""
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
