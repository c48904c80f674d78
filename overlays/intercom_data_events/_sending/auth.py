"""Authentication: where the access token comes from."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Coroutine

from intercom_data_events._sending.engines import SendError
from intercom_data_events._sending.engines.kinds import is_failure
from intercom_data_events._sending.settings import AsyncAccessToken, check_token
from intercom_data_events.errors import ConfigurationError


class Secret:
    """An access token that no traceback shows.

    Attributes:
        value: The token.
    """

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value


class BearerToken:
    """The access token, or the caller's function that returns it and is called for each attempt."""

    def __init__(self, token: AsyncAccessToken | None) -> None:
        self._token = token

    @property
    def is_function(self) -> bool:
        """Whether a function returns the token."""
        return callable(self._token)

    @property
    def known_token(self) -> str | None:
        """The token, or None where a function returns it."""
        return self._token if isinstance(self._token, str) else None

    def token(self) -> Secret:
        """Returns the function's token, for a blocking client.

        Raises:
            ConfigurationError: The function failed, is async, or returned something else.
        """
        token = self._current()
        if isinstance(token, Awaitable):
            if isinstance(token, Coroutine):
                token.close()
            must = "access_token must not be an async function"
            raise ConfigurationError(f"{must}; use AsyncDataEventsClient with async functions")
        return Secret(check_token(token))

    async def atoken(self, seconds: float) -> Secret:
        """Returns the function's token, for an async client; the function may be async.

        Args:
            seconds: The seconds that the function may take; infinite for no limit.

        Raises:
            ConfigurationError: The function failed, or returned something else.
            SendError: The function took longer.
        """
        import anyio

        token = self._current()
        if isinstance(token, Awaitable):
            with anyio.move_on_after(None if seconds == math.inf else seconds) as scope:
                try:
                    token = await token
                except Exception as error:
                    if not is_failure(error):
                        raise
                    raise _token_error(error) from error
            if scope.cancelled_caught:
                slow = TimeoutError(f"the access_token function took more than {seconds:g} s")
                raise SendError(slow, possibly_sent=False, timed_out=True)
        return Secret(check_token(token))

    def _current(self) -> object:
        try:
            return self._token() if callable(self._token) else self._token
        except Exception as error:
            if not is_failure(error):
                raise
            raise _token_error(error) from error


def _token_error(error: Exception) -> ConfigurationError:
    # Its own type, because the request that needs the token has not failed.
    return ConfigurationError(
        f"the access_token function failed: {str(error) or type(error).__name__}"
    )
