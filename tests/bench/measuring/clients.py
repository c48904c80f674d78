"""Ways to send many events, one for each client; each imports its library when used."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from measuring.events import HEADERS, TOKEN, different, installed, official
from measuring.figures import AIOHTTP, FAST, HTTPX, OFFICIAL, OURS

# What is imported where the extra is installed.
_ENGINE = "intercom_data_events._sending.engines.aiohttp_engine"
#: Sends a number of events to an address over a number of connections.
Client = Callable[[str, int, int], Coroutine[Any, Any, None]]


def clients() -> dict[str, Client]:
    """Returns the clients whose packages are installed."""
    found: dict[str, Client] = {HTTPX: _by_httpx, OURS: _by_ours}
    if installed(OFFICIAL):
        found[OFFICIAL] = _by_official
    if installed(AIOHTTP):
        found[FAST] = _by_fast
        found[AIOHTTP] = _by_aiohttp
    return found


async def at_once(
    most: int, send: Callable[[dict[str, Any]], Awaitable[object]], events: Iterable[dict[str, Any]]
) -> None:
    """Sends events by a number of tasks; each takes the next event when it is free."""
    waiting = iter(events)

    async def take() -> None:
        for one in waiting:
            await send(one)

    await asyncio.gather(*(take() for _ in range(most)))


async def _by_httpx(url: str, events: int, most: int) -> None:
    import httpx

    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
    async with httpx.AsyncClient(headers=HEADERS, limits=limits) as client:
        await at_once(most, lambda one: client.post(f"{url}/events", json=one), different(events))


async def _by_fast(url: str, events: int, most: int) -> None:
    from intercom_data_events import AsyncDataEventsClient

    async with AsyncDataEventsClient(TOKEN, base_url=url, pace=False) as client:
        async for outcome in client.create_many(different(events), concurrency=most):
            if outcome.error is not None:
                raise outcome.error


async def _by_ours(url: str, events: int, most: int) -> None:
    # Hides the extra.
    there = sys.modules.pop(_ENGINE, None)
    sys.modules[_ENGINE] = None  # type: ignore[assignment]  # which is what does that
    try:
        await _by_fast(url, events, most)
    finally:
        del sys.modules[_ENGINE]
        if there is not None:
            sys.modules[_ENGINE] = there


async def _by_official(url: str, events: int, most: int) -> None:
    import httpx
    from intercom import AsyncIntercom

    limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
    async with httpx.AsyncClient(limits=limits) as http:
        client = AsyncIntercom(token=TOKEN, base_url=url, httpx_client=http)
        await at_once(
            most, lambda one: client.events.create(request=official(one)), different(events)
        )


async def _by_aiohttp(url: str, events: int, most: int) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=most)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:

        async def send(one: dict[str, Any]) -> None:
            async with session.post(f"{url}/events", json=one) as answer:
                await answer.read()

        await at_once(most, send, different(events))
