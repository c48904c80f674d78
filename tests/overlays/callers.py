"""Both clients behind one face, so that each test says once what holds for either."""

from __future__ import annotations

import contextlib
import inspect
import socket
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any

import anyio
import attrs
import httpx
import httpx2
import pytest

from intercom_data_events import AsyncDataEventsClient, Clock, DataEventsClient, EventList
from intercom_data_events.emulator import ManualClock

#: A Wednesday in December 2022, a few seconds after the documentation's example events.
NOW = 1_671_028_900

#: The drivers of an exchange: the blocking one, and the awaiting one on either event loop.
BACKENDS = ("blocking", "asyncio", "trio")

#: Runs a test once for each driver. Without this mark a test uses the blocking driver only, since
#: a decision that is made without I/O is the same for all of them.
every_driver = pytest.mark.parametrize("backend", BACKENDS)

#: Runs a test with threads and with tasks, where what they do does not depend on the event loop.
threads_and_tasks = pytest.mark.parametrize("backend", ["blocking", "asyncio"])

#: The libraries that a caller's own http_client or transport can be of.
LIBRARIES = (httpx, httpx2)

#: Runs a test once for each library. Without this mark a test uses httpx, as clients do that make
#: their own connections.
every_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)


@attrs.frozen
class Caller:
    """Makes a client and uses it: ``call(lambda client: client.create(…), version="2.14")``.

    What the use returns is awaited or iterated to its end, as the kind of client needs.
    """

    backend: str
    defaults: dict[str, Any]
    #: Waits take no time: it tells how long they would have been.
    clock: ManualClock = attrs.field(factory=ManualClock)
    #: What its http_client is of.
    library: ModuleType = httpx

    def __call__(self, use: Callable[[Any], Any], **options: Any) -> Any:
        options = self._options(options)
        if self.backend == "blocking":
            with DataEventsClient(**options) as client:
                return _finished(use(client))
        return anyio.run(self._await, use, options, backend=self.backend)

    def steps(self, use: Callable[[Any], Generator[Any, Any, Any]], **options: Any) -> Any:
        """Uses one client several times: what the generator yields is finished, and given back.

        ``yield client.create(…)`` reads the same for both kinds of client; an error of the step is
        raised at the ``yield``.
        """
        options = self._options(options)
        if self.backend == "blocking":
            with DataEventsClient(**options) as client:
                return _in_turn(use(client))
        return anyio.run(self._await_steps, use, options, backend=self.backend)

    def http_client(self, **options: Any) -> Any:
        """A client of the library, of the kind that this kind of client takes."""
        kind = self.library.Client if self.backend == "blocking" else self.library.AsyncClient
        return kind(**options)

    def hook(self, function: Callable[[Any], object]) -> Callable[[Any], Any]:
        """A hook of the kind that this kind of http_client takes."""

        async def async_hook(subject: Any) -> None:
            function(subject)

        return function if self.backend == "blocking" else async_hook

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        options = {"access_token": "token", "clock": self.clock, **self.defaults, **options}
        if "http_client" in options or options.get("enabled") is False:
            options.pop("transport", None)
        return options

    async def _await(self, use: Callable[[Any], Any], options: dict[str, Any]) -> Any:
        async with AsyncDataEventsClient(**options) as client:
            return await _awaited(use(client))

    async def _await_steps(
        self, use: Callable[[Any], Generator[Any, Any, Any]], options: dict[str, Any]
    ) -> Any:
        async with AsyncDataEventsClient(**options) as client:
            return await _await_in_turn(use(client))


def _finished(found: Any) -> Any:
    return list(found) if isinstance(found, EventList | Iterator) else found


async def _awaited(found: Any) -> Any:
    if hasattr(found, "__aiter__"):
        return [item async for item in found]
    return await found if inspect.isawaitable(found) else found


def _in_turn(steps: Generator[Any, Any, Any]) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                found = _finished(step)
            except Exception as error:  # noqa: BLE001  # the generator decides
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as done:
        return done.value


async def _await_in_turn(steps: Generator[Any, Any, Any]) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                found = await _awaited(step)
            except Exception as error:  # noqa: BLE001  # the generator decides
                step = steps.throw(error)
            else:
                step = steps.send(found)
    except StopIteration as done:
        return done.value


class Answers(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Gives prepared answers one after another, the last one for ever, and keeps the requests.

    The answers can be of any library; :meth:`of` makes it a transport of that.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.requests: list[Any] = []

    def of(self, library: ModuleType) -> Any:
        """A transport of a library that gives these answers."""
        return self if library is httpx else library.MockTransport(self.handle_request)

    def handle_request(self, request: Any) -> Any:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response is used up by being read.
        return type(answer)(answer.status_code, headers=answer.headers.raw, content=answer.content)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


def with_own(call: Caller, use: Callable[[Any], Any], made: dict[str, Any], **options: Any) -> Any:
    """Uses a client of an http_client of the caller's own, and checks that that stays open."""
    own = call.http_client(**made)
    options = {"access_token": "token", "clock": call.clock, "http_client": own, **options}

    async def run() -> None:
        async with own:
            async with AsyncDataEventsClient(**options) as client:
                await use(client)
            assert not own.is_closed
            # The open client can still be used.
            assert (await own.get(f"{options['base_url']}/nowhere")).status_code == 401

    if call.backend != "blocking":
        return anyio.run(run, backend=call.backend)
    with own:
        with DataEventsClient(**options) as client:
            use(client)
        assert not own.is_closed
        assert own.get(f"{options['base_url']}/nowhere").status_code == 401
    return None


class Refusing(contextlib.ExitStack):
    """An address where nothing listens, and which nothing else is given meanwhile."""

    def __enter__(self) -> str:  # type: ignore[override]
        taken = self.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


class NeverClock(Clock):
    """A clock whose waits never end: the server never answers."""

    def async_alarm(self) -> _Never:
        return _Never()


class _Never:
    def set(self) -> None:
        pass

    async def wait(self, seconds: float, /) -> None:
        await anyio.sleep_forever()
