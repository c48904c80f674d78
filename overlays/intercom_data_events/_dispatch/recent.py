"""What tells the latest events apart."""

from __future__ import annotations

from typing import TypeAlias

#: What :func:`intercom_data_events.event.key` returns.
Key: TypeAlias = tuple[str, str, str, float]

_MOST = 10_000


class RecentEvents:
    """The latest events, by what Intercom tells events apart by; one window for all that compare.

    Args:
        most: How many events it remembers.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._keys: dict[Key, None] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether one of them is the same event to Intercom."""
        return key in self._keys

    def add(self, key: Key) -> None:
        """Adds an event, as the latest one."""
        self._keys.pop(key, None)
        self._keys[key] = None
        if len(self._keys) > self._most:
            del self._keys[next(iter(self._keys))]
