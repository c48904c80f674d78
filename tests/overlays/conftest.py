"""Both clients behind one face, so that each test says once what holds for either."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import httpx
import pytest

from intercom_data_events import AsyncDataEventsClient, DataEventsClient, EventList
from intercom_data_events.emulator import Emulator, ManualClock

#: A Wednesday in December 2022, a few seconds after the documentation's example events.
NOW = 1_671_028_900


@attrs.frozen
class Caller:
    """Makes a client and uses it: ``call(lambda client: client.create(…), version="2.14")``.

    What the use returns is awaited or iterated to its end, as the kind of client needs.
    """

    backend: str
    defaults: dict[str, Any]
    #: Waits take no time: it tells how long they would have been.
    clock: ManualClock = attrs.field(factory=ManualClock)

    def __call__(self, use: Callable[[Any], Any], **options: Any) -> Any:
        options = {"access_token": "token", "clock": self.clock, **self.defaults, **options}
        if "http_client" in options or options.get("enabled") is False:
            options.pop("transport", None)
        if self.backend == "blocking":
            with DataEventsClient(**options) as client:
                found = use(client)
                return list(found) if isinstance(found, EventList | Iterator) else found
        return anyio.run(self._await, use, options, backend=self.backend)

    async def _await(self, use: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        async with AsyncDataEventsClient(**options) as client:
            found = use(client)
            if hasattr(found, "__aiter__"):
                return [item async for item in found]
            return await found if inspect.isawaitable(found) else found

    def http_client(self, **options: Any) -> Any:
        """An httpx client of the kind that this kind of client takes."""
        kind = httpx.Client if self.backend == "blocking" else httpx.AsyncClient
        return kind(**options)


@pytest.fixture(params=["blocking", "asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(clock=lambda: float(NOW))


@pytest.fixture
def calling(backend: str) -> Callable[..., Caller]:
    """Makes a client of either kind that sends through a transport."""
    return lambda transport: Caller(backend, {"transport": transport})


@pytest.fixture
def call(calling: Callable[..., Caller], emulator: Emulator) -> Caller:
    """A client of the emulator, of either kind."""
    return calling(emulator.transport())


class Answers(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Gives prepared answers one after another, the last one for ever, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response is used up by being read.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.fixture
def answering(calling: Callable[..., Caller]) -> Callable[..., tuple[Caller, Answers]]:
    """Makes a client that is given prepared answers, and the place where its requests end."""

    def make(*answers: httpx.Response | Exception) -> tuple[Caller, Answers]:
        transport = Answers(*answers)
        return calling(transport), transport

    return make
