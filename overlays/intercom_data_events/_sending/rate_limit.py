"""The rate limit as callers see it. Few programs read it, so most do not load this module."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from intercom_data_events import timestamps
from intercom_data_events._sending.quota import read_date, read_quota


@frozen
class RateLimit:
    """The rate limit of the app, from the headers of an answer.

    Intercom documents a quota for each window of 10 seconds, which all clients of the app share.

    Attributes:
        limit: The number of requests that the window allows.
        remaining: The number of requests that are left in the window.
        reset_at: When the next window begins, by Intercom's clock: an aware datetime in UTC.

    Example:
        >>> from intercom_data_events import DataEventsClient
        >>> from intercom_data_events.emulator import Emulator
        >>> client = DataEventsClient("token", transport=Emulator(rate_limit=1000).transport())
        >>> client.create("placed-order", user_id="314159")
        >>> client.rate_limit.limit, client.rate_limit.remaining
        (1000, 999)
    """

    limit: int
    remaining: int
    reset_at: datetime

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit | None:
        """Reads the headers ``X-RateLimit-*``; returns None if they are missing or not numbers.

        Intercom documents a reset in Unix seconds. A reset in milliseconds is accepted, too, and so
        are seconds after the answer's ``Date``, or from now if it has none.

        Args:
            headers: The headers of an answer.

        Example:
            >>> RateLimit.from_headers({"x-ratelimit-limit": "1667"}) is None
            True
        """
        sent = read_date(headers.get("date"))
        said = read_quota(headers, time.time() if sent is None else sent)
        try:
            return said and cls(said.limit, said.remaining, timestamps.from_unix(said.reset))
        except ValueError:
            return None
