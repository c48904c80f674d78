"""The ways to send an emulator requests, and what a client met on each of them.

Each way is a function from an emulator and some requests to one `Met` for each request. They are
sent one after the other by one client: in the same process, with httpx or httpx2, or over a socket;
by a thread, or by a task of asyncio or trio.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Protocol

import anyio
import attrs
import httpx
import httpx2

from intercom_data_events.emulator import Emulator

from .conftest import NOW, ORIGIN

EVENT = {"event_name": "placed-order", "created_at": NOW, "user_id": "314159"}
HEADERS = {"Authorization": "Bearer token"}

# Of a socket nothing else is ever waited for so long; a test that gets there has failed.
PATIENCE = 10.0


@attrs.frozen(kw_only=True)
class Ask:
    """A request, how long its sender waits for each byte, and what is done before each."""

    method: str = "POST"
    path: str = "/events"
    json: object = None
    content: bytes | None = None
    headers: Sequence[tuple[str, str]] = ()
    query: Mapping[str, str] | None = None
    patience: float | None = PATIENCE
    before_part: Callable[[], object] = lambda: None

    def options(self, library: ModuleType = httpx) -> dict[str, Any]:
        timeout = library.Timeout(PATIENCE, read=self.patience)
        return {
            "method": self.method,
            "url": self.path,
            "json": self.json,
            "content": self.content,
            "headers": self.headers,
            "params": self.query,
            "timeout": timeout,
        }


def create(second: int = 0, *, patience: float | None = PATIENCE, **fields: str) -> Ask:
    event = {"event_name": "placed-order", "created_at": NOW + second, "user_id": "314159"}
    return Ask(json={**event, **fields}, patience=patience)


def ask_list(**query: str) -> Ask:
    return Ask(method="GET", query={"type": "user", "user_id": "314159", **query})


@attrs.define
class Met:
    """What a client saw of an answer, and what ended it, as httpx names it."""

    status: int | None = None
    headers: httpx.Headers = attrs.field(factory=httpx.Headers)
    parts: list[bytes] = attrs.field(factory=list[bytes])
    failure: httpx.TransportError | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Drive(Protocol):
    def __call__(self, emulator: Emulator, *asks: Ask) -> list[Met]: ...


class DriveSocket(Drive, Protocol):
    def __call__(
        self,
        emulator: Emulator,
        *asks: Ask,
        tls: ssl.SSLContext | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> list[Met]: ...


def named(failure: Exception) -> httpx.TransportError:
    """The same failure of httpx, whichever library it is of."""
    kind = getattr(httpx, type(failure).__name__)
    return failure if isinstance(failure, kind) else kind(str(failure))


def meet(client: Any, ask: Ask, library: ModuleType = httpx) -> Met:
    met = Met()
    try:
        with client.stream(**ask.options(library)) as response:
            met.status, met.headers = response.status_code, httpx.Headers(response.headers.raw)
            ask.before_part()
            # httpx reads beforehand what comes in one piece; no such answer is encoded.
            read = response.is_stream_consumed
            for part in response.iter_bytes() if read else response.iter_raw():
                met.parts.append(part)
                ask.before_part()
    except library.TransportError as failure:
        met.failure = named(failure)
    return met


async def meet_async(client: Any, ask: Ask, library: ModuleType = httpx) -> Met:
    met = Met()
    try:
        async with client.stream(**ask.options(library)) as response:
            met.status, met.headers = response.status_code, httpx.Headers(response.headers.raw)
            ask.before_part()
            read = response.is_stream_consumed
            async for part in response.aiter_bytes() if read else response.aiter_raw():
                met.parts.append(part)
                ask.before_part()
    except library.TransportError as failure:
        met.failure = named(failure)
    return met


def in_process(library: ModuleType, emulator: Emulator, *asks: Ask) -> list[Met]:
    transport = emulator.transport()
    with library.Client(transport=transport, base_url=ORIGIN, headers=HEADERS) as client:
        return [meet(client, ask, library) for ask in asks]


def in_process_async(
    library: ModuleType, backend: str, emulator: Emulator, *asks: Ask
) -> list[Met]:
    async def run() -> list[Met]:
        transport = emulator.transport()
        async with library.AsyncClient(
            transport=transport, base_url=ORIGIN, headers=HEADERS
        ) as client:
            return [await meet_async(client, ask, library) for ask in asks]

    return anyio.run(run, backend=backend)


def over_a_socket(
    emulator: Emulator,
    *asks: Ask,
    tls: ssl.SSLContext | None = None,
    verify: ssl.SSLContext | bool = True,
) -> list[Met]:
    with (
        emulator.serve(tls=tls) as url,
        httpx.Client(base_url=url, headers=HEADERS, verify=verify) as client,
    ):
        return [meet(client, ask) for ask in asks]


def over_a_socket_async(
    backend: str,
    emulator: Emulator,
    *asks: Ask,
    tls: ssl.SSLContext | None = None,
    verify: ssl.SSLContext | bool = True,
) -> list[Met]:
    async def run() -> list[Met]:
        async with (
            emulator.serve(tls=tls) as url,
            httpx.AsyncClient(base_url=url, headers=HEADERS, verify=verify) as client,
        ):
            return [await meet_async(client, ask) for ask in asks]

    return anyio.run(run, backend=backend)


SOCKETS: dict[str, DriveSocket] = {
    "socket": over_a_socket,
    "socket, asyncio": partial(over_a_socket_async, "asyncio"),
    "socket, trio": partial(over_a_socket_async, "trio"),
}
DRIVERS: dict[str, Drive] = {
    "in process": partial(in_process, httpx),
    "in process, asyncio": partial(in_process_async, httpx, "asyncio"),
    "in process, trio": partial(in_process_async, httpx, "trio"),
    "in process, httpx2": partial(in_process, httpx2),
    "in process, httpx2, asyncio": partial(in_process_async, httpx2, "asyncio"),
    "in process, httpx2, trio": partial(in_process_async, httpx2, "trio"),
    **SOCKETS,
}
