"""Checks the arguments of trackers, and opens their queues."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast

from attrs import asdict, define, field

from intercom_data_events._dispatch.concurrency import check_concurrency
from intercom_data_events._sending.client import parts_of
from intercom_data_events._validation import invalid
from intercom_data_events.errors import ConfigurationError, OutboxError
from intercom_data_events.tracker._memory import MemoryQueue
from intercom_data_events.tracker._preparation import BeforeSend, Preparation

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from intercom_data_events._sending.session import Session
    from intercom_data_events._sending.settings import Settings
    from intercom_data_events.metadata import Metadata
    from intercom_data_events.tracker._counters import Counters
    from intercom_data_events.tracker._queue import Queue
    from intercom_data_events.tracker._reporter import OnError

T = TypeVar("T")

#: What ``track`` does if `max_queued` events are waiting: drop the event, wait for room, or raise a
#: QueueFullError.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> from intercom_data_events.emulator import Emulator
#:     >>> from intercom_data_events.tracker import Tracker
#:     >>> client = DataEventsClient("token", transport=Emulator().transport())
#:     >>> with Tracker(client, max_queued=100, when_full="block") as tracker:
#:     ...     tracker.track("placed-order", user_id="314159")
WhenFull: TypeAlias = Literal["drop", "block", "raise"]

#: The largest number of requests in flight.
CONCURRENCY = 20
# The largest number of events in memory.
_MOST = 10_000
#: Seconds for which Intercom may not know the contact of an event.
UNKNOWN_CONTACT_PATIENCE = 120.0


@define(eq=False, repr=False)
class Options:
    """The arguments of a tracker; see :class:`~intercom_data_events.tracker.Tracker`.

    Attributes:
        session: The client's connections.
        settings: The client's settings.
        preparation: Prepares each event before it is stored.
        owns_client: Whether the tracker closes the client.

    Raises:
        ConfigurationError: An argument is invalid.
        MetadataError: The API does not accept `metadata`.
    """

    client: Any
    outbox: str | os.PathLike[str] | None
    workspace: str | None
    concurrency: int
    max_queued: int | None
    when_full: WhenFull
    on_error: OnError | None
    close_timeout: float
    before_send: BeforeSend | None
    metadata: Metadata | None
    unknown_contact_patience: float
    meter_provider: MeterProvider | None
    session: Session[Any] = field(init=False)
    settings: Settings = field(init=False)
    preparation: Preparation = field(init=False)
    owns_client: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.outbox is not None and not isinstance(self.outbox, str | os.PathLike):
            must = "outbox must be a path"
            raise invalid(ConfigurationError, must, self.outbox)
        workspace = self.workspace
        if workspace is not None and not (isinstance(workspace, str) and workspace.strip()):
            must = "workspace must be a non-blank string"
            raise invalid(ConfigurationError, must, workspace)
        check_concurrency(self.concurrency)
        most = self.max_queued
        if most is not None and (type(most) is not int or most < 1):
            raise invalid(ConfigurationError, "max_queued must be an integer of at least 1", most)
        if self.when_full not in ("drop", "block", "raise"):
            must = "when_full must be 'drop', 'block' or 'raise'"
            raise invalid(ConfigurationError, must, self.when_full)
        if self.on_error is not None and not callable(self.on_error):
            must = "on_error must be a function that takes an event and an error"
            raise invalid(ConfigurationError, must, self.on_error)
        self.close_timeout = check_seconds("close_timeout", self.close_timeout)
        self.unknown_contact_patience = check_seconds(
            "unknown_contact_patience", self.unknown_contact_patience
        )
        self.session, self.settings = parts_of(self.client)
        self.preparation = Preparation(self.before_send, self.metadata)
        self.metadata = self.preparation.defaults  # The caller may change its own mapping later.

    def closing_seconds(self, timeout: float | None) -> float:
        """Returns the seconds that closing may take: `timeout`, or by default `close_timeout`."""
        return self.close_timeout if timeout is None else check_seconds("timeout", timeout)

    def observe(self, counters: Callable[[], Counters]) -> Callable[[], None]:
        """Exports the counters as metrics; returns a function to call when the tracker closes."""
        if self.meter_provider is None:
            return lambda: None
        from intercom_data_events.tracker._metrics import register

        path = None if self.outbox is None else os.fspath(self.outbox)
        return register(self.meter_provider, counters, outbox=path)

    def open(self, patience: float = 1.0) -> Queue:
        """Opens the queue; SQLite waits `patience` seconds while another process is writing."""
        # A disabled client discards events, and must not discard those of an outbox.
        if self.outbox is None or not self.session.enabled:
            return MemoryQueue(self.max_queued or _MOST)
        try:
            from intercom_data_events.outbox._binding import Binding
            from intercom_data_events.outbox._queue import MOST, OutboxQueue
        except OSError as error:
            raise OutboxError(
                f"the outbox {os.fspath(self.outbox)} cannot be opened because Python cannot read "
                f"a module ({error.strerror}); if this process has too many files open, close some "
                "or raise the limit (ulimit -n)"
            ) from error

        return OutboxQueue(
            self.outbox,
            Binding(self.settings.base_url, self.session.auth.known_token, self.workspace),
            most=self.max_queued or MOST,
            patience=patience,
        )

    def owner(self, kind: Callable[..., T], queue: Queue) -> T:
        """Creates a blocking or an async owner."""
        return kind(
            queue,
            self.session,
            self.settings,
            self.on_error,
            concurrency=self.concurrency,
            when_full=self.when_full,
            patience=self.unknown_contact_patience,
        )

    def pickled(self) -> tuple[type[Any], dict[str, object], dict[str, Any]]:
        """Returns what another process needs to recreate the tracker, without token and events."""
        if self.meter_provider is not None:
            raise TypeError(
                "a tracker with a meter_provider cannot be pickled; create one in each process"
            )
        for name in ("on_error", "before_send"):
            try:
                pickle.dumps(getattr(self, name))
            except _PickleError:
                raise  # The function refers to the tracker itself.
            except Exception as error:
                raise _PickleError(
                    f"a tracker with this {name} cannot be pickled ({error}); define the function "
                    "at the top level of a module"
                ) from error
        given = asdict(self, recurse=False, filter=lambda one, _: one.init and one.name != "client")
        return type(self.client), self.client.__getstate__(), given


class _PickleError(TypeError):
    """The tracker cannot be pickled."""


def check_seconds(name: str, seconds: object) -> float:
    """Returns a time limit in seconds, or raises a ConfigurationError."""
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not cast("float", seconds) >= 0:
        must = f"{name} must be a number of seconds of at least 0"
        raise invalid(ConfigurationError, must, seconds)
    # The longest wait that threads allow; an integer may be too large for a float.
    return float(min(cast("float", seconds), threading.TIMEOUT_MAX))
