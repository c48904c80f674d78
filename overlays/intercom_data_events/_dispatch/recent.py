"""Remembers the latest events, to recognize duplicates."""

from __future__ import annotations

from intercom_data_events._identity import Key

_MOST = 10_000


class RecentEvents:
    """The latest events, by the key by which Intercom identifies an event.

    Args:
        most: How many events it remembers, and for how many positions if events have positions.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._positions: dict[Key, int] = {}

    def has(self, key: Key, position: int = 0) -> bool:
        """Whether one of them is the same event to Intercom as an event at this position."""
        known = self._positions.get(key)
        return known is not None and position - known <= self._most

    def add(self, key: Key, position: int = 0) -> None:
        """Adds an event, as the latest one."""
        self._positions.pop(key, None)
        self._positions[key] = position
        if len(self._positions) > self._most:
            del self._positions[next(iter(self._positions))]
