"""A Celery task that sends an event: for applications that run Celery already.

The queue is the application's own. What an `Event` promises is checked where it is queued; what
fails for the time being is tried again by Celery until it is sent.

    >>> from celery import Celery
    >>> from intercom_data_events import Event
    >>> from intercom_data_events.celery import send_event
    >>> from intercom_data_events.emulator import Emulator
    >>> emulator = Emulator()
    >>> app = Celery("shop", broker="memory://")
    >>> app.conf.intercom_data_events = {
    ...     "access_token": "token", "transport": emulator.transport()
    ... }
    >>> app.conf.task_always_eager = True  # Here only: no broker and no worker.
    >>> send_event.delay(Event("placed-order", user_id="314159")).state
    'SUCCESS'
    >>> emulator.counts.stored
    1

**Settings.** Every worker process makes one client, when it needs it: of the environment, and of
the arguments of `DataEventsClient` in Celery's own configuration, as ``intercom_data_events``
(``CELERY_INTERCOM_DATA_EVENTS`` in Django's settings). How the task is run is set as usual::

    app.conf.task_annotations = {"intercom_data_events.send_event": {"max_retries": 20}}

``max_retries`` is None, for no end of them. ``retry_backoff``, ``default_retry_delay`` and
``retry_backoff_max`` are seconds: the first wait at most, which doubles with each retry; the same
where no event can be sent, as when the access token is not accepted; and where doubling ends.
Waits are random within their second half, and longer where Intercom asks for that; none is longer
than half the broker's ``visibility_timeout``, after which a message would be given out twice.

**What becomes of errors.** Input that Intercom would refuse is an `InvalidInputError` where it is
queued. An event that Intercom refuses fails the task with the `IntercomError`, at once: Celery logs
it, and tells ``task_failure`` and ``link_error``. All other errors of ours are retried, and so are
soft time limits, and clients that cannot be made. Called directly or eagerly, the task raises every
error, as there is no queue to go back to. A result backend that writes JSON keeps of an error no
more than its name and what it says.

**When a worker dies.** A message is acknowledged after its event was sent. One whose process is
killed, or meets the hard time limit, goes back to the queue at once. Those of a whole worker that
is killed are given out again by RabbitMQ at once, and by Redis after its ``visibility_timeout`` (an
hour, if not set). Then an event may be sent twice, which is the same event to Intercom. With Redis,
one message can be lost for each worker that is killed with SIGKILL, at the moment when it takes the
message out of the queue: Celery's transport does that in two steps (kombu 5.7). If the app has time
limits, give the client a ``deadline`` below them (it is 120 seconds).

**The rate limit.** All processes keep to it by what Intercom's answers say, so neither the task's
``rate_limit`` nor a lock is needed. A task waits in its slot of the pool until there is room, for
the rest of a window of 10 seconds as a rule; if many events are sent at once, a queue and a worker
of their own keep other tasks from waiting, too. ``worker_eta_task_limit`` (Celery 5.6) bounds how
many retries a worker holds in memory while Intercom is down.

Tested with the pools prefork, threads and solo. ``map``, ``starmap`` and ``chunks`` make one task
of many events, which cannot be retried for one of them: use a loop or a ``group``.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Any, cast

from celery import Task, shared_task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded

from intercom_data_events._sending import retry
from intercom_data_events._sending.retry import ErrorClass, classify
from intercom_data_events.client import DataEventsClient
from intercom_data_events.errors import (
    APIStatusError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
    MetadataError,
)
from intercom_data_events.event import Event

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import AsyncResult

    from intercom_data_events.bulk import EventLike

    _Task = Task[[EventLike], None]
else:
    _Task = Task

__all__ = ["EventTask", "send_event"]

log = logging.getLogger("intercom_data_events")

# Seconds; where it is not set, it is as many for SQS, as is RabbitMQ's own, and an hour for Redis.
_VISIBILITY = 1800
# Doubling goes on no further, however often it is retried.
_MOST_DOUBLINGS = 30
# What Celery's JSON reads as a value of another type, or fails to read at all (kombu 5.3 to 5.7).
_KOMBU_TYPE = {"__type__", "__value__"}


class EventTask(_Task):
    """A task whose argument is an event: queued as the API's JSON, sent by one client a process.

    Attributes:
        retry_backoff: Seconds that the first wait for a retry takes at most; doubles each time.
        default_retry_delay: The same where no event can be sent, whichever it is.
        retry_backoff_max: Seconds; where doubling ends.
    """

    acks_late = True
    reject_on_worker_lost = True
    # Who meets the hard time limit goes back to the queue. Before Celery 5.7 it is one attribute
    # with what failed, which leaves the queue either way.
    acks_on_failure_or_timeout = False
    acks_on_failure = True
    acks_on_timeout = False
    ignore_result = True
    max_retries = None
    retry_backoff: float = 2
    default_retry_delay = 60
    retry_backoff_max: float = 600

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        **options: Any,
    ) -> AsyncResult[None]:
        """Queues an event; as any task's, with the event as its one argument.

        Raises:
            InvalidInputError: The event is none that the API would take; nothing is queued.
        """
        args, kwargs = _queued(args, kwargs)
        # What monitors show of a task: not whose event it is.
        options.setdefault("argsrepr", "(<event>,)" if args else "()")
        options.setdefault("kwargsrepr", "{'event': <event>}" if kwargs else "{}")
        return super().apply_async(args, kwargs, *positional, **options)

    def signature(self, args: Any = None, *positional: Any, **options: Any) -> Signature[None]:
        """Makes a signature, with an event or, to follow another task in a chain, without one.

        Raises:
            InvalidInputError: The event is none that the API would take.
        """
        kwargs, *others = positional or (options.pop("kwargs", None),)
        return super().signature(*_queued(args, kwargs), *others, **options)

    @property
    def client(self) -> DataEventsClient:
        """The client of this process, of the app's ``intercom_data_events`` and the environment.

        Raises:
            ConfigurationError: It cannot be made so.
        """
        client: DataEventsClient | None = self.__dict__.get("_client")
        if client is not None:
            return client
        options = self.app.conf.get("intercom_data_events") or {}
        try:
            client = DataEventsClient(**options)
        except TypeError as error:
            raise ConfigurationError(f"intercom_data_events for Celery: {error}") from error
        # Of two threads that make one, the first wins; the other's has not connected.
        return cast("DataEventsClient", self.__dict__.setdefault("_client", client))

    @property
    def is_queued(self) -> bool:
        """Whether what is being run came out of a queue, and can go back."""
        return not (self.request.called_directly or self.request.is_eager)

    def again(self, error: Exception, judged: ErrorClass) -> Retry:
        """Puts the event back into the queue, for later.

        Args:
            error: Why.
            judged: Whether it is about this event, or about any.

        Raises:
            Exception: The error, where there is no queue, or there were enough retries.
            Reject: It could not be queued, so that the message itself goes back.
        """
        if not self.is_queued:
            raise error
        general = judged is ErrorClass.SYSTEMIC
        first = self.default_retry_delay if general else self.retry_backoff
        countdown = self._countdown(error, first)
        try:
            queued = self.retry(exc=error, countdown=countdown, throw=False)
        except Reject as rejected:
            # Celery drops a message whose retry cannot be queued.
            raise Reject(str(rejected), requeue=True) from rejected
        if general:
            log.error("no event can be sent, trying again in %.0f s: %s", countdown, error)
        return queued

    def _countdown(self, error: Exception, first: float) -> float:
        doublings = min(self.request.retries, _MOST_DOUBLINGS)
        longest = min(self.retry_backoff_max, first * 2.0**doublings)
        wait = random.uniform(longest / 2, longest)  # noqa: S311  # spreads load, guards nothing
        if isinstance(error, APIStatusError):
            wait += retry.retry_after(error.response.headers, time.time()) or 0.0
        given = self.app.conf.broker_transport_options.get("visibility_timeout")
        return min(wait, (given or _VISIBILITY) / 2)


@shared_task(bind=True, base=EventTask, name="intercom_data_events.send_event")
def send_event(self: EventTask, event: EventLike) -> None:
    """Sends an event: an `Event`, or a mapping of its fields as the API names them.

    Raises:
        IntercomError: The event is refused; or, where there is no queue, whatever went wrong.
        Retry: It is queued again, for later.
    """
    try:
        received = _event(event)
        if self.is_queued and not isinstance(event, Event) and "created_at" not in event:
            raise InvalidInputError(
                "a queued event lacks its created_at, so that it would be another one each time it "
                "is tried: add it where it is queued"
            )
        self.client.send(received)
    except SoftTimeLimitExceeded as error:
        raise self.again(error, ErrorClass.TRANSIENT) from None
    except IntercomError as error:
        judged = classify(error)
        if judged is ErrorClass.PERMANENT:
            raise
        raise self.again(error, judged) from None


def _event(event: EventLike) -> Event:
    return event if isinstance(event, Event) else Event.from_dict(event)


def _queued(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Puts what any serializer takes in the place of an event, if there is one."""
    args, kwargs = tuple(args or ()), dict(kwargs or {})
    if args:
        args = (_fields(args[0]), *args[1:])
    elif "event" in kwargs:
        kwargs["event"] = _fields(kwargs["event"])
    return args, kwargs


def _fields(event: EventLike) -> dict[str, object]:
    fields = _event(event).to_dict()
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and metadata.keys() == _KOMBU_TYPE:
        raise MetadataError(
            "metadata of __type__ and __value__ and nothing else cannot be read back by Celery's "
            "JSON: rename one of them",
            key="__type__",
        )
    return fields
