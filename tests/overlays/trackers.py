"""Makes trackers of either kind, whose methods are called from the test's own thread."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anyio.from_thread
import pytest
from callers import BACKENDS

from intercom_data_events import AsyncDataEventsClient, DataEventsClient
from intercom_data_events.tracker import AsyncTracker, Tracker

#: Runs a test with a Tracker, and with an AsyncTracker in each event loop.
every_tracker = pytest.mark.parametrize("backend", BACKENDS)


class _Blocking:
    """An AsyncTracker with the methods of a Tracker."""

    def __init__(self, tracker: AsyncTracker, portal: Any) -> None:
        self._tracker = tracker
        self._portal = portal

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._tracker, {"close": "aclose"}.get(name, name))
        return lambda *args, **named: self._portal.call(partial(method, *args, **named))

    @property
    def counters(self) -> Any:
        return self._portal.call(lambda: self._tracker.counters)


@contextlib.contextmanager
def opened(
    backend: str,
    transport: Any,
    outbox: Any = None,
    *,
    client: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Iterator[Any]:
    """Makes a tracker, with these options of the client; closes both at the end."""
    if backend == "blocking":
        blocking_client = DataEventsClient("token", transport=transport, **client)
        with blocking_client, Tracker(blocking_client, outbox, **options) as tracker:
            yield tracker
        return
    with anyio.from_thread.start_blocking_portal(backend) as portal:
        async_client = AsyncDataEventsClient("token", transport=transport, **client)
        async_tracker = AsyncTracker(async_client, outbox, **options)
        with portal.wrap_async_context_manager(async_tracker):
            yield _Blocking(async_tracker, portal)
        portal.call(async_client.aclose)


@contextlib.contextmanager
def unusable(path: Path) -> Iterator[None]:
    """While it lasts, whatever is done with an outbox fails."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema = connection.execute("SELECT sql, name FROM sqlite_schema").fetchall()
        connection.execute("ALTER TABLE events RENAME TO missing")
        try:
            yield
        finally:
            connection.execute("ALTER TABLE missing RENAME TO events")
            # SQLite has written its statements in other words.
            connection.execute("PRAGMA writable_schema = ON")
            connection.executemany("UPDATE sqlite_schema SET sql = ? WHERE name = ?", schema)
