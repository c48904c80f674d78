"""Chooses the engine for bulk sending."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast
from urllib.request import getproxies

import anyio

from intercom_data_events._sending.runtime import running_trio

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import AsyncEngine
    from intercom_data_events._sending.engines.pooled_engine import AsyncPooledEngine
    from intercom_data_events._sending.session import Session

# How many requests may wait for each other; more gain nothing (measured).
_FEW, _FEW_FAST = 2.0, 4.0


@asynccontextmanager
async def bulk_session(
    session: Session[AsyncEngine], most: int
) -> AsyncGenerator[tuple[Session[AsyncEngine], float]]:
    """Yields a session for many requests at once, and how many of them may wait for each other.

    With the ``[fast]`` extra and under asyncio, it sends through aiohttp. With the caller's
    `http_client` or `transport`, or a SOCKS proxy in the environment, it sends through the client's
    engine.

    Args:
        session: The client's session.
        most: The largest number of requests at once.
    """
    if not session.has_own_connections or running_trio():
        yield session, _FEW
        return
    try:
        from intercom_data_events._sending.engines.aiohttp_engine import AiohttpEngine
    except ImportError:
        yield session, _FEW
        return
    if any(address.lower().startswith("socks") for address in getproxies().values()):
        yield session, _FEW  # aiohttp does not support SOCKS.
        return
    own = cast("AsyncPooledEngine", session.process_state().engine)
    engine = AiohttpEngine(most, own.tls)
    try:
        yield session.using(engine), _FEW_FAST
    finally:
        with anyio.CancelScope(shield=True):
            await engine.aclose()
