"""The engine of a disabled client: it sends nothing."""

from __future__ import annotations

import logging

from intercom_data_events._sending.engines import RawResponse, Request

log = logging.getLogger("intercom_data_events")

_EMPTY = b'{"events":[]}'


class DisabledEngine:
    """Answers like a workspace without events, and logs each request instead of sending it."""

    def send(self, request: Request) -> RawResponse:
        """Answers at once."""
        endpoint = request.endpoint
        path = "/" + endpoint.url.partition("://")[2].partition("/")[2]
        log.info("%s %s not sent: the client is disabled", endpoint.method, path)
        if endpoint.method == "GET":
            return RawResponse(200, [(b"Content-Type", b"application/json")], _EMPTY, None)
        return RawResponse(200 if path.endswith("/summaries") else 202, [], b"", None)

    def close(self) -> None:
        """Does nothing."""


class AsyncDisabledEngine:
    """The engine of a disabled async client."""

    async def send(self, request: Request) -> RawResponse:
        """Answers at once."""
        return DisabledEngine().send(request)

    async def aclose(self) -> None:
        """Does nothing."""

    def drop(self) -> None:
        """Does nothing."""
