"""Exports trackers' counters as OpenTelemetry metrics.

OpenTelemetry cannot remove an instrument, and exports only one of two instruments with the same
name. So all trackers of a meter provider share one set of instruments. Their counters are the sums
of all trackers that the process has had, because a falling sum would look like a restart.

The callbacks may run at any time in an exporter's thread, and also in a forked child, which counts
from 0. They never raise.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from intercom_data_events.__about__ import __version__
from intercom_data_events._sending.runtime import this_process
from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider, Observation

    from intercom_data_events.tracker import Counters

# Names and units follow OpenTelemetry's semantic conventions.
_COUNTERS = {
    "sent": "Events that Intercom has accepted.",
    "refused": "Events that Intercom has rejected.",
    "dropped": "Events that were dropped, for example because the queue was full.",
    "filtered": "Events for which before_send returned None.",
    "collisions": "Events that Intercom treats as duplicates of one tracked shortly before.",
}
_GAUGES = {
    "queued": (
        "events.queued",
        "{event}",
        "Events that are waiting or in flight, across all processes of an outbox.",
    ),
    "oldest_age": ("oldest_age", "s", "Time since the oldest waiting event was tracked."),
    "failing": ("failing", "1", "1 while nothing can be sent, with the error's type; otherwise 0."),
}

# By the provider's id, because a provider may not be hashable; deleted with its provider.
_published: dict[int, _Published] = {}


def register(
    meter_provider: MeterProvider, counters: Callable[[], Counters], *, outbox: str | None
) -> Callable[[], None]:
    """Exports a tracker's counters through a meter provider, which does not keep it alive.

    Args:
        meter_provider: A MeterProvider of OpenTelemetry's API.
        counters: A bound method of the tracker. While it raises, the tracker's counters keep their
            values, and its gauges are not exported.
        outbox: The path of the tracker's outbox, or None.

    Returns:
        A function to call from any thread when the tracker is closed, so that its counts are
        exported even if it is deleted before. Its gauges are exported until it is deleted.

    Raises:
        ConfigurationError: `meter_provider` is not one, or opentelemetry-api is not installed.
    """
    try:
        from opentelemetry.metrics import MeterProvider
    except ImportError as error:
        raise ConfigurationError(
            "meter_provider needs opentelemetry-api; install it with: "
            "pip install 'intercom-data-events[otel]'"
        ) from error
    if not isinstance(meter_provider, MeterProvider):
        must = "meter_provider must be an OpenTelemetry MeterProvider"
        remedy = "for example, pass opentelemetry.metrics.get_meter_provider()"
        raise invalid(ConfigurationError, must, meter_provider, remedy)
    identity = id(meter_provider)
    new = _Published(weakref.ref(meter_provider, lambda _: _published.pop(identity, None)))
    published = _published.setdefault(identity, new)
    if published is new:
        try:
            published.create_instruments(meter_provider)
        except BaseException:
            del _published[identity]
            raise
    path = None if outbox is None else Path(outbox).absolute()
    tracker = _Tracker(weakref.WeakMethod(counters), path)
    published.trackers[tracker] = None
    return partial(published.close, tracker)


@define(eq=False)
class _Tracker:
    """A tracker: the method that returns its counters, and the path of its outbox."""

    counters: weakref.WeakMethod[Callable[[], Counters]]
    path: Path | None

    @property
    def file(self) -> str | None:
        """The file name of its outbox, without the folders, which may name a person."""
        if self.path is None:
            return None
        # Exporters encode it as UTF-8.
        return os.fsencode(self.path.name).decode(errors="backslashreplace")


@define(eq=False)
class _Process:
    """What one process has counted.

    Attributes:
        lock: Only callbacks hold it, so a finalizer can close a tracker.
        seen: The counts of each tracker when they were last read.
        closed: The counts of each tracker when it was closed.
        gone: The sums of the counts of deleted trackers, by file name.
        pending: What each instrument exports next; an export reads all instruments at once.
    """

    lock: threading.Lock = field(factory=threading.Lock)
    seen: dict[_Tracker, Counter[str]] = field(factory=dict)
    closed: dict[_Tracker, Counter[str]] = field(factory=dict)
    gone: dict[str | None, Counter[str]] = field(factory=dict)
    pending: dict[str, list[Observation]] = field(factory=dict)


@define(eq=False)
class _Published:
    """The instruments of a meter provider, and the trackers whose counters they export."""

    provider: weakref.ref[MeterProvider]
    trackers: dict[_Tracker, None] = field(factory=dict, init=False)
    # One for each process, because another thread may hold the lock during a fork.
    _processes: dict[object, _Process] = field(factory=dict, init=False)

    def create_instruments(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("intercom_data_events", __version__)
        for name, description in _COUNTERS.items():
            meter.create_observable_counter(
                f"intercom.tracker.events.{name}",
                [partial(self._observe, name)],
                unit="{event}",
                description=description,
            )
        for name, (full_name, unit, description) in _GAUGES.items():
            meter.create_observable_gauge(
                f"intercom.tracker.{full_name}",
                [partial(self._observe, name)],
                unit=unit,
                description=description,
            )

    def close(self, tracker: _Tracker) -> None:
        """Stores the final counts of a tracker, without a lock."""
        if (counters := _read(tracker.counters())) is not None:
            self._process().closed[tracker] = _counted(counters)

    def _process(self) -> _Process:
        return self._processes.setdefault(this_process(), _Process())

    def _observe(self, name: str, _: object) -> list[Observation]:
        """Returns the observations of an instrument."""
        process = self._process()
        with process.lock:
            if name not in process.pending:
                process.pending = self._look(process)
            return process.pending.pop(name)

    def _look(self, process: _Process) -> dict[str, list[Observation]]:
        """Reads each tracker once; returns the observations of each instrument."""
        from opentelemetry.metrics import Observation

        sums = {file: gone.copy() for file, gone in process.gone.items()}
        queued: dict[tuple[str | None, object], int] = {}
        oldest: dict[str | None, float] = {}
        failing: dict[str | None, set[str]] = {}
        used = {each.path for each in list(self.trackers) if each not in process.closed}
        for tracker in list(self.trackers):
            file = tracker.file
            method = tracker.counters()
            counters = _read(method)
            if counters is not None:
                process.seen[tracker] = _counted(counters)
            is_outdated = tracker in process.closed and tracker.path in used - {None}
            if counters is not None and not is_outdated:
                # The queue of an outbox is the same for all trackers that share it.
                place = file, tracker.path or tracker
                queued[place] = max(queued.get(place, 0), counters.queued)
                oldest[file] = max(oldest.get(file, 0.0), counters.oldest_age)
                errors = failing.setdefault(file, set())
                if counters.failing is not None:
                    errors.add(type(counters.failing).__name__)
            # The larger of each, because either may be newer.
            counted = process.seen.get(tracker, Counter()) | process.closed.get(tracker, Counter())
            sums[file] = sums.get(file, Counter()) + counted
            if method is None:
                process.gone[file] = process.gone.get(file, Counter()) + counted
                for known in (self.trackers, process.seen, process.closed):
                    known.pop(tracker, None)

        shown: dict[str, list[Observation]] = {name: [] for name in (*_COUNTERS, *_GAUGES)}
        for file, counted in sums.items():
            for name in _COUNTERS:
                shown[name].append(Observation(counted[name], _attributes(file)))
        waiting: dict[str | None, int] = {}
        for (file, _), events in queued.items():
            waiting[file] = waiting.get(file, 0) + events
        shown["queued"] = [Observation(waiting[file], _attributes(file)) for file in waiting]
        shown["oldest_age"] = [Observation(oldest[file], _attributes(file)) for file in oldest]
        shown["failing"] = [
            Observation(int(error is not None), _attributes(file, error))
            for file, errors in failing.items()
            for error in errors or (None,)
        ]
        return shown


def _read(counters: Callable[[], Counters] | None) -> Counters | None:
    """Returns a tracker's counters, or None if it was deleted or they cannot be read."""
    try:
        return None if counters is None else counters()
    except Exception:  # noqa: BLE001  # an exporter's thread must continue
        return None


def _counted(counters: Counters) -> Counter[str]:
    return Counter({name: getattr(counters, name) for name in _COUNTERS})


def _attributes(file: str | None, error: str | None = None) -> dict[str, str]:
    """Returns the attributes, named as in the semantic conventions."""
    given = {"file.name": file, "error.type": error}
    return {name: value for name, value in given.items() if value is not None}
