"""The arguments of trackers, and what is made of them."""

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

#: What ``track`` does if `max_queued` events wait: drop the event, wait for room, or raise a
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

#: Requests at once.
CONCURRENCY = 20
# Events in memory.
_MOST = 10_000
#: Seconds for which Intercom may not know the contact of an event.
UNKNOWN_CONTACT_PATIENCE = 120.0


@define(eq=False, repr=False)
class Options:
    """The arguments of a tracker, as :class:`~intercom_data_events.tracker.Tracker` says.

    Attributes:
        session: The client's connections.
        settings: The client's settings.
        preparation: What is done with each event before it is stored.
        owns_client: Whether the tracker closes the client.

    Raises:
        ConfigurationError: One of them is not usable.
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
            must = "outbox must be the path of a file"
            raise invalid(ConfigurationError, must, self.outbox)
        workspace = self.workspace
        if workspace is not None and not (isinstance(workspace, str) and workspace.strip()):
            must = "workspace must be a name of your own for the workspace"
            raise invalid(ConfigurationError, must, workspace)
        check_concurrency(self.concurrency)
        most = self.max_queued
        if most is not None and (type(most) is not int or most < 1):
            raise invalid(ConfigurationError, "max_queued must be an integer of at least 1", most)
        if self.when_full not in ("drop", "block", "raise"):
            must = "when_full must be 'drop', 'block' or 'raise'"
            raise invalid(ConfigurationError, must, self.when_full)
        if self.on_error is not None and not callable(self.on_error):
            must = "on_error must be a function of an event and an error"
            raise invalid(ConfigurationError, must, self.on_error)
        self.close_timeout = check_seconds("close_timeout", self.close_timeout)
        self.unknown_contact_patience = check_seconds(
            "unknown_contact_patience", self.unknown_contact_patience
        )
        self.session, self.settings = parts_of(self.client)
        self.preparation = Preparation(self.before_send, self.metadata)
        self.metadata = self.preparation.defaults  # As it was when the tracker was made.

    def closing_seconds(self, timeout: float | None) -> float:
        """Returns the seconds that closing may take, with the argument of `close`."""
        return self.close_timeout if timeout is None else check_seconds("timeout", timeout)

    def observe(self, counters: Callable[[], Counters]) -> Callable[[], None]:
        """Shows counters as metrics; returns what is called as the tracker is closed."""
        if self.meter_provider is None:
            return lambda: None
        from intercom_data_events.tracker._metrics import register

        path = None if self.outbox is None else os.fspath(self.outbox)
        return register(self.meter_provider, counters, outbox=path)

    def open(self, patience: float = 1.0) -> Queue:
        """Opens the queue.

        Args:
            patience: Seconds for which SQLite waits while another process is writing.
        """
        # A disabled client's events go nowhere, and those of an outbox are not to follow them.
        if self.outbox is None or not self.session.enabled:
            return MemoryQueue(self.max_queued or _MOST)
        try:
            from intercom_data_events.outbox._binding import Binding
            from intercom_data_events.outbox._queue import MOST, OutboxQueue
        except OSError as error:
            raise OutboxError(
                f"the outbox {os.fspath(self.outbox)} cannot be opened, because Python cannot read "
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
        """Makes an owner, a blocking or an async one."""
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
        """Returns what a tracker is made of anew in another process: no token, and no events."""
        if self.meter_provider is not None:
            raise TypeError("a tracker with a meter_provider cannot be pickled")
        for name in ("on_error", "before_send"):
            try:
                pickle.dumps(getattr(self, name))
            except _PickleError:
                raise  # It refers to the tracker itself.
            except Exception as error:
                raise _PickleError(
                    f"a tracker with this {name} cannot be pickled; define the function at the top "
                    f"level of a module ({error})"
                ) from error
        given = asdict(self, recurse=False, filter=lambda one, _: one.init and one.name != "client")
        return type(self.client), self.client.__getstate__(), given


class _PickleError(TypeError):
    """A tracker that cannot be pickled."""


def check_seconds(name: str, seconds: object) -> float:
    """Returns a time limit.

    Raises:
        ConfigurationError: It is not a number of seconds.
    """
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not cast("float", seconds) >= 0:
        must = f"{name} must be a number of seconds of at least 0"
        raise invalid(ConfigurationError, must, seconds)
    # What threads can wait for, and a float can hold.
    return float(min(cast("float", seconds), threading.TIMEOUT_MAX))
