"""Authentication: where the access token comes from."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Coroutine
from typing import Any, cast

from intercom_data_events._sending.engines import SendError
from intercom_data_events._sending.engines.kinds import is_failure
from intercom_data_events._sending.secret import Secret
from intercom_data_events._sending.settings import AsyncAccessToken, check_token
from intercom_data_events.errors import ConfigurationError


class BearerToken:
    """The access token, or the caller's function that returns it for each attempt.

    Args:
        token: The client's checked token or function; None for a client that sends nothing.

    Attributes:
        is_function: Whether a function returns the token.
        known_token: The token, or None if a function returns it.
    """

    def __init__(self, token: Secret[AsyncAccessToken] | None) -> None:
        self._given = token
        self.is_function = token is not None and callable(token.value)
        self.known_token = cast("Secret[str] | None", None if self.is_function else token)

    def token(self) -> Secret[str]:
        """Returns the function's token, for a blocking client.

        Raises:
            ConfigurationError: The function failed, is async, or returned something else.
        """
        token = self._current()
        if isinstance(token.value, Awaitable):
            if isinstance(token.value, Coroutine):
                token.value.close()
            raise ConfigurationError(
                "access_token must not be an async function; use AsyncDataEventsClient instead"
            )
        return check_token(token)

    async def atoken(self, seconds: float) -> Secret[str]:
        """Returns the function's token, for an async client; the function may be async.

        Args:
            seconds: The seconds that the function may take; infinite for no limit.

        Raises:
            ConfigurationError: The function failed, or returned something else.
            SendError: The function took longer.
        """
        import anyio

        token = self._current()
        if isinstance(token.value, Awaitable):
            with anyio.move_on_after(None if seconds == math.inf else seconds) as scope:
                try:
                    token = Secret(await token.value)
                except Exception as error:
                    if not is_failure(error):
                        raise
                    raise _token_error(error) from error
            if scope.cancelled_caught:
                slow = TimeoutError(
                    f"the access_token function took more than {seconds:g} s; speed it up, or pass "
                    "a longer timeout"
                )
                raise SendError(slow, possibly_sent=False, timed_out=True)
        return check_token(token)

    def _current(self) -> Secret[Any]:
        """Calls the function; its result is held, because the repr of a Future would show it."""
        try:
            return Secret(cast("Any", self._given).value())
        except Exception as error:
            if not is_failure(error):
                raise
            raise _token_error(error) from error


def _token_error(error: Exception) -> ConfigurationError:
    # Imported after a failure only, so that programs start faster.
    from intercom_data_events._sending.causes import place_of

    # Not an error of the request, which has not failed.
    return ConfigurationError(
        f"the access_token function failed{place_of(error)}: {str(error) or type(error).__name__}"
    )
