"""What Intercom's answers say of the app's rate limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from intercom_data_events import timestamps


@frozen
class RateLimit:
    """The rate limit as an answer's headers had it.

    Intercom deals an app's quota out in windows of 10 seconds; all its clients share it.

    Attributes:
        limit: Requests that the window allows.
        remaining: Requests that it still allows.
        reset_at: When the window ends and the next begins, an aware datetime in UTC, by
            Intercom's clock.
    """

    limit: int
    remaining: int
    reset_at: datetime

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> RateLimit | None:
        """Reads ``X-RateLimit-*``; None where they are missing or no numbers.

        Example:
            >>> RateLimit.from_headers({"x-ratelimit-limit": "1667"}) is None
            True
        """
        limit = headers.get("x-ratelimit-limit")
        if limit is None:
            return None
        try:
            return cls(
                int(limit),
                int(headers["x-ratelimit-remaining"]),
                timestamps.from_unix(int(headers["x-ratelimit-reset"])),
            )
        except (KeyError, ValueError):
            return None
