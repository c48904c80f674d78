"""Answers an httpx client in the same process, without a socket."""

from __future__ import annotations

from collections.abc import Callable

import httpx


class EmulatorTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """An httpx transport for `httpx.Client` and `httpx.AsyncClient` alike.

    Closing a client leaves it usable, so that several clients can share it.

    Args:
        answer: The function from a request, its body read, to its answer.

    Example:
        >>> transport = EmulatorTransport(lambda request: httpx.Response(202))
        >>> httpx.Client(transport=transport).post("https://api.intercom.io/events")
        <Response [202 Accepted]>
    """

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Read a body that comes from an iterable, and answer."""
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Read a body that may come from an async iterable, and answer without blocking."""
        await request.aread()
        return self._answer(request)
