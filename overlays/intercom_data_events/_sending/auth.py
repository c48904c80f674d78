"""Authentication: puts the access token on requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator

import httpx

from intercom_data_events._sending.settings import AsyncAccessToken, check_token
from intercom_data_events.errors import ConfigurationError


class BearerToken(httpx.Auth):
    """Puts the access token on a request; a function that returns the token is called each time.

    Requests pass it to httpx explicitly, so that neither the authentication of a caller's own
    client nor credentials in an address take its place.
    """

    def __init__(self, token: AsyncAccessToken | None) -> None:
        self._token = token

    @property
    def known_token(self) -> str | None:
        """The token, or None where a function returns it."""
        return self._token if isinstance(self._token, str) else None

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Authenticates for a blocking client."""
        token = self._current()
        if isinstance(token, Awaitable):
            if isinstance(token, Coroutine):
                token.close()
            must = "access_token must not be an async function"
            raise ConfigurationError(f"{must}; use AsyncDataEventsClient with async functions")
        self._authenticate(request, token)
        yield request

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authenticates for an async client."""
        await self.authenticate(request)
        yield request

    async def authenticate(self, request: httpx.Request) -> None:
        """Puts the token on a request; the function that returns it may be async.

        Raises:
            ConfigurationError: The function failed, or returned something other than a token.
        """
        token = self._current()
        if isinstance(token, Awaitable):
            try:
                token = await token
            except (httpx.HTTPError, OSError) as error:
                raise _token_error(error) from error
        self._authenticate(request, token)

    def _current(self) -> object:
        try:
            return self._token() if callable(self._token) else self._token
        except (httpx.HTTPError, OSError) as error:
            # Its own type, because the request that needs the token has not failed.
            raise _token_error(error) from error

    def _authenticate(self, request: httpx.Request, token: object) -> None:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {check_token(token)}"


def _token_error(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the access_token function failed: {str(error) or type(error).__name__}"
    )
