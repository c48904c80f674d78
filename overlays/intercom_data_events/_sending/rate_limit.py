"""The rate limit for callers; a separate module, because few programs ask for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from intercom_data_events import timestamps
from intercom_data_events._sending.quota import read_date, read_quota


@frozen
class RateLimit:
    """The rate limit in an answer's headers.

    Intercom grants an app a quota for each window of 10 seconds; all clients of the app share it.

    Attributes:
        limit: How many requests the window allows.
        remaining: How many requests it still allows.
        reset_at: When the window ends and the next one begins, by Intercom's clock; an aware
            datetime in UTC.
    """

    limit: int
    remaining: int
    reset_at: datetime

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit | None:
        """Reads ``X-RateLimit-*``; returns None if they are missing or not numbers.

        The documented reset is in Unix seconds. One in milliseconds is read as such, and so are
        seconds from the answer's ``Date`` on, or from now on if it has none.

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
