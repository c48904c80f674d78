"""A Celery task that sends an event, for applications that already run Celery.

It uses the application's queue. An event is checked where it is queued. Celery retries it after
transient failures until it is sent.

    >>> from celery import Celery
    >>> from intercom_data_events import Event
    >>> from intercom_data_events.celery import send_event
    >>> from intercom_data_events.emulator import Emulator
    >>> emulator = Emulator()
    >>> app = Celery("shop", broker="memory://")
    >>> app.conf.intercom_data_events = {
    ...     "access_token": "token", "transport": emulator.transport()
    ... }
    >>> app.conf.task_always_eager = True  # For this example only: no broker and no worker.
    >>> send_event.delay(Event("placed-order", user_id="314159")).state
    'SUCCESS'
    >>> emulator.counts.stored
    1

**Settings.** Each worker process makes one client, when it first needs one. The client's settings
come from the environment and from Celery's configuration: ``intercom_data_events`` holds the
arguments of `DataEventsClient` (``CELERY_INTERCOM_DATA_EVENTS`` in Django's settings). Change the
settings of the task as usual in Celery::

    app.conf.task_annotations = {"intercom_data_events.send_event": {"max_retries": 20}}

============================  =======  =============================================================
Setting                       Default  Meaning
============================  =======  =============================================================
``max_retries``               None     retries before the task fails; None means no limit
``retry_backoff``             2        longest first wait in seconds; each is twice the last
``default_retry_delay``       60       the same after a systemic failure, such as a revoked token
``retry_backoff_max``         600      longest wait in seconds
``unknown_contact_patience``  120      seconds for which events of an unknown contact are retried
============================  =======  =============================================================

The second half of each wait is random (jitter). A wait is longer if Intercom asks for that, but
never longer than half the broker's ``visibility_timeout``, after which the broker delivers a
message again.

**Errors.** An event that breaks a documented rule raises an `InvalidInputError` where it is queued.
If Intercom rejects an event, the task fails at once with the `IntercomError`: Celery logs it and
calls ``task_failure`` and ``link_error``. After all other errors of this package, after soft time
limits, and if no client can be made, the task is retried. Two cases are in between:

- Intercom may not know a contact that was created a moment ago (observed). If the answer is 404
  with the code ``not_found``, the task is retried for ``unknown_contact_patience`` seconds from the
  first such answer; then it fails with the `NotFoundError`. With 0 it fails at once.
- A systemic answer, such as 402 or 404 in HTML, is not about the event, so the task is retried, and
  a log line at ERROR names the failure by type, status and Intercom's codes. The task fails if the
  answer seems to be about the event after all: if the worker process has sent three other events
  since this event's first systemic answer in the same worker, and the event is rejected once more.
  With a small ``--max-tasks-per-child``, no process lives long enough for that: limit
  ``max_retries``.

If the task is called directly or eagerly, it raises every error, because there is no queue to put
the event back into. A result backend that writes JSON keeps only the name and the message of an
error.

**If a worker is killed.** A message is acknowledged after its event was sent. If a process of a
worker is killed or exceeds the hard time limit, its message goes back to the queue at once. If a
whole worker is killed, RabbitMQ delivers its messages again at once, and Redis after its
``visibility_timeout`` (an hour by default). An event may then be sent twice; Intercom counts both
as one event. With Redis, a worker that is killed with SIGKILL can lose the one message that it is
taking out of the queue at that moment, because Celery's transport does that in two steps (kombu
5.7). If the app has time limits, give the client a ``deadline`` below them (the default is 120
seconds).

**The rate limit.** All processes keep to the rate limit, which they learn from Intercom's answers,
so neither the task's ``rate_limit`` nor a lock is needed. A task waits for room in its slot of the
worker's pool, usually for the rest of a window of 10 seconds. If many events are sent at once, give
them a separate queue and worker, so that other tasks do not wait. ``worker_eta_task_limit`` (Celery
5.6) bounds the number of retries that a worker holds in memory while Intercom is down.

**Personal data.** Monitors such as ``celery events``, Flower and ``celery inspect`` (``active``,
``scheduled``, ``reserved``) show ``<event>`` instead of the event, also for retries. Celery's log
lines about retries and failures contain the message of the error: e-mail addresses are shortened in
it, other identities are not, and the message of the answer is quoted. Three things show up to 1,024
characters of a message itself: the log of a worker at DEBUG; the log of a worker that gets the task
without having imported it (import this module in each worker of the queue); and every program that
reads the broker.

Tested with the pools prefork, threads and solo. ``map``, ``starmap`` and ``chunks`` make one task
of many events, which cannot be retried for one of them: use a loop or a ``group``.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from celery import Task, shared_task
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded
from celery.worker.request import Request

from intercom_data_events._sending import retry
from intercom_data_events._sending.client import parts_of
from intercom_data_events._sending.logs import reason_of
from intercom_data_events._sending.quota import retry_after
from intercom_data_events._sending.retry import ErrorClass
from intercom_data_events.client import DataEventsClient
from intercom_data_events.clock import SYSTEM
from intercom_data_events.errors import (
    APIResponseError,
    ConfigurationError,
    IntercomError,
    InvalidInputError,
    MetadataError,
)
from intercom_data_events.event import Event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from celery.canvas import Signature
    from celery.result import AsyncResult

    from intercom_data_events.clock import Clock

    # Rows of a database cannot be queued.
    _Queued: TypeAlias = Event | Mapping[str, object]
    _Task = Task[[_Queued], None]
else:
    _Task = Task

__all__ = ["EventTask", "send_event"]

log = logging.getLogger("intercom_data_events")

# Seconds. Without a setting, RabbitMQ and SQS wait for 1,800, and Redis for an hour.
_VISIBILITY = 1800
# The part of a wait that is random: half, because ``max_retries`` may allow only a few.
_JITTER = 0.5
# Celery's JSON reads such an object as a value of another type, or fails to read it (kombu 5.3 to
# 5.7).
_KOMBU_TYPE = {"__type__", "__value__"}
# The header of a message that says how its earlier attempts failed. Celery keeps headers that it
# does not know when it retries a task (5.6 and 5.7: `Context._get_custom_headers`).
_HEADER = "intercom_data_events"


class _Request(Request):
    """A message that a worker has taken; it hides its event from monitors."""

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002  # as Celery has it
        """Returns what ``celery inspect`` shows.

        Celery shows the arguments themselves, of all waiting and running tasks; with `safe`, the
        texts that `EventTask.apply_async` gives for them.
        """
        return super().info(safe=True)


class EventTask(_Task):
    """The class of :func:`send_event`, a task whose argument is an event.

    The event is queued as the API's JSON. One client per process sends it.

    Attributes:
        retry_backoff: The longest first wait after a transient failure, in seconds. Each wait is
            twice the one before.
        default_retry_delay: The longest first wait after a systemic failure, in seconds.
        retry_backoff_max: The longest wait, in seconds.
        unknown_contact_patience: Seconds for which an event of an unknown contact is retried, from
            the first such answer. 0 rejects it at once.

    Example:
        >>> from celery import Celery
        >>> from intercom_data_events import Event
        >>> from intercom_data_events.celery import send_event
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> app = Celery("shop", broker="memory://")
        >>> app.conf.intercom_data_events = {
        ...     "access_token": "token", "transport": emulator.transport()
        ... }
        >>> app.conf.task_always_eager = True  # For this example only: no broker and no worker.
        >>> event = Event("placed-order", user_id="314159")
        >>> send_event.apply_async([event], countdown=60).state
        'SUCCESS'
        >>> send_event.signature([event], countdown=60).delay().state
        'SUCCESS'
        >>> emulator.counts.stored, emulator.counts.duplicates
        (1, 1)
    """

    Request = f"{__name__}:_Request"
    acks_late = True
    reject_on_worker_lost = True
    # A message that exceeds the hard time limit goes back to the queue, and one that failed does
    # not. Before Celery 5.7 one attribute decides both; a failed message leaves the queue anyway.
    acks_on_failure_or_timeout = False
    acks_on_failure = True
    acks_on_timeout = False
    ignore_result = True
    max_retries = None
    retry_backoff: float = 2
    default_retry_delay = 60
    retry_backoff_max: float = 600
    unknown_contact_patience: float = 120

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        **options: Any,
    ) -> AsyncResult[None]:
        """Queues an event.

        Args:
            args: The event, as the only item of a list or tuple.
            kwargs: ``{"event": event}``, instead of `args`.
            positional: Further arguments of Celery's method.
            options: The options of Celery's method, such as ``countdown`` in seconds.

        Raises:
            InvalidInputError: The event breaks a documented rule; it is not queued.
        """
        args, kwargs = _queued(args, kwargs)
        # Monitors show these, so they hold no personal data.
        options.setdefault("argsrepr", "(<event>,)" if args else "()")
        options.setdefault("kwargsrepr", "{'event': <event>}" if kwargs else "{}")
        return super().apply_async(args, kwargs, *positional, **options)

    def signature(self, args: Any = None, *positional: Any, **options: Any) -> Signature[None]:
        """Makes a signature with an event, or without one to follow another task in a chain.

        Args:
            args: The event, as the only item of a list or tuple; or nothing.
            positional: Further arguments of Celery's method.
            options: The options of Celery's method.

        Raises:
            InvalidInputError: The event breaks a documented rule.
        """
        kwargs, *others = positional or (options.pop("kwargs", None),)
        return super().signature(*_queued(args, kwargs), *others, **options)

    @property
    def client(self) -> DataEventsClient:
        """The client of this process, made from Celery's configuration and the environment.

        Raises:
            ConfigurationError: The client cannot be made with these settings.
        """
        client: DataEventsClient | None = self.__dict__.get("_client")
        if client is not None:
            return client
        try:
            # Not in a variable, because the access token may be among them.
            client = DataEventsClient(**(self.app.conf.get("intercom_data_events") or {}))
        except TypeError as error:
            raise ConfigurationError(
                f"the Celery setting intercom_data_events must hold arguments of DataEventsClient: "
                f"{error}"
            ) from error
        # When two threads each make a client, both use the first; the second has not connected.
        return cast("DataEventsClient", self.__dict__.setdefault("_client", client))

    @property
    def is_queued(self) -> bool:
        """Whether the current message came from a queue, and can go back to it."""
        return not (self.request.called_directly or self.request.is_eager)

    def _requeue(self, error: Exception, error_class: ErrorClass) -> Retry:
        """Puts the event back into the queue, for a later attempt.

        Args:
            error: The failure of this attempt.
            error_class: Its class, transient or systemic.

        Raises:
            Exception: The error itself, if there is no queue or no retry is left.
            celery.exceptions.Reject: The event could not be queued again, so its message goes back
                to the queue.
        """
        if not self.is_queued:
            raise error
        is_systemic = error_class is ErrorClass.SYSTEMIC
        first = self.default_retry_delay if is_systemic else self.retry_backoff
        attempts, longest, asked = self.request.retries + 1, math.inf, 0.0
        state = self._state
        if isinstance(error, APIResponseError):
            asked = retry_after(error.response.headers, self._clock.time()) or 0.0
            if is_systemic:
                since = self._systemic_since() or SYSTEM.monotonic()
                state["systemic"] = [self.request.hostname, since]
            elif retry.is_unknown_contact(error):
                since, answers = self._unknown()
                attempts, longest = answers + 1, max(0.0, self._patience_left())
                state["unknown"] = [since, attempts]
        wait = retry.backoff(attempts, first, self.retry_backoff_max, jitter=_JITTER)
        visibility = self.app.conf.broker_transport_options.get("visibility_timeout") or _VISIBILITY
        countdown = min(min(wait, longest) + asked, visibility / 2)
        headers = {**self.request.as_execution_options()["headers"], _HEADER: state}
        try:
            queued = self.retry(exc=error, countdown=countdown, headers=headers, throw=False)
        except Reject as rejected:
            # Celery drops a message whose retry cannot be queued.
            raise Reject(str(rejected), requeue=True) from rejected
        if is_systemic:
            log.error("no event can be sent, retrying in %.0f s: %s", countdown, reason_of(error))
        return queued

    def _classify(self, error: IntercomError, *, others_passed: bool) -> ErrorClass:
        """Returns the class of an attempt's failure, as this message's earlier ones change it."""
        error_class = retry.classify(error)
        if retry.is_unknown_contact(error) and self._patience_left() > 0:
            return ErrorClass.TRANSIENT
        # A client that cannot be made is never the event's fault.
        if others_passed and isinstance(error, APIResponseError):
            return ErrorClass.PERMANENT if error_class is ErrorClass.SYSTEMIC else error_class
        return error_class

    @property
    def _clock(self) -> Clock:
        return parts_of(self.client)[0].clock

    @property
    def _accepted(self) -> deque[float]:
        """When this process sent its last events, by the monotonic clock of its machine."""
        # Threads append to one deque, which is atomic; and a fork meets no lock.
        sent: deque[float] = deque(maxlen=retry.OTHERS)
        return cast("deque[float]", self.__dict__.setdefault("_sent", sent))

    @property
    def _state(self) -> dict[str, object]:
        """How this message's earlier attempts failed; empty if none did, or if the form is unknown.

        "unknown" is when Intercom first did not know the contact, in Unix seconds, and how often.
        "systemic" is the worker that got the first systemic answer, and when by its own clock.
        """
        state = (self.request.headers or {}).get(_HEADER)
        return dict(state) if isinstance(state, dict) else {}

    def _unknown(self) -> tuple[float, int]:
        """When Intercom first did not know the contact, and how often; before that, now and 0."""
        now = self._clock.time()
        match self._state.get("unknown"):
            case [int() | float() as since, int() as answers]:
                # The clock of another machine may be ahead.
                return min(since, now), answers
        return now, 0

    def _patience_left(self) -> float:
        """Seconds until the event is rejected because its contact is unknown."""
        since, _ = self._unknown()
        return since + self.unknown_contact_patience - self._clock.time()

    def _systemic_since(self) -> float | None:
        """When this worker first got a systemic answer for this event; None if it did not.

        Only a worker's own times are compared: its processes share a machine, and so a monotonic
        clock. A time in the future is from before the machine was restarted.
        """
        match self._state.get("systemic"):
            case [str(worker), int() | float() as since] if worker == self.request.hostname:
                return since if since <= SYSTEM.monotonic() else None
        return None

    def _have_others_passed(self) -> bool:
        """Whether this process sent enough other events since this one's systemic answer.

        If so, and the next attempt is rejected too, the answer is about this event alone.
        """
        since, accepted = self._systemic_since(), self._accepted
        return since is not None and len(accepted) == retry.OTHERS and accepted[0] > since


@shared_task(bind=True, base=EventTask, name="intercom_data_events.send_event")
def send_event(self: EventTask, event: _Queued) -> None:
    """A task that sends an event. Its method ``delay`` queues one.

    The event is an :class:`~intercom_data_events.Event`, or a mapping of its fields as the API
    names them.

    Raises:
        IntercomError: The event is rejected. Without a queue, any failure raises it.
        celery.exceptions.Retry: The event is queued again, for a later attempt.

    Example:
        >>> from celery import Celery
        >>> from intercom_data_events import Event
        >>> from intercom_data_events.emulator import Emulator
        >>> emulator = Emulator()
        >>> app = Celery("shop", broker="memory://")
        >>> app.conf.intercom_data_events = {
        ...     "access_token": "token", "transport": emulator.transport()
        ... }
        >>> app.conf.task_always_eager = True  # For this example only: no broker and no worker.
        >>> send_event.delay(Event("placed-order", user_id="314159")).state
        'SUCCESS'
    """
    # Before the attempt: what is accepted during it may have been sent later, after an outage.
    others_passed = self._have_others_passed()
    try:
        received = _event(event)
        if self.is_queued and not isinstance(event, Event) and "created_at" not in event:
            raise InvalidInputError(
                "created_at is missing from the queued event, so each attempt would count as "
                "another event; add it before you queue the event"
            )
        self.client.send(received)
    except SoftTimeLimitExceeded as error:
        raise self._requeue(error, ErrorClass.TRANSIENT) from None
    except IntercomError as error:
        error_class = self._classify(error, others_passed=others_passed)
        if error_class is ErrorClass.PERMANENT:
            raise
        raise self._requeue(error, error_class) from None
    self._accepted.append(SYSTEM.monotonic())


def _event(event: _Queued) -> Event:
    return event if isinstance(event, Event) else Event.from_dict(event)


def _queued(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replaces the event, if there is one, with its fields, which any serializer can write."""
    args, kwargs = tuple(args or ()), dict(kwargs or {})
    if args:
        args = (_fields(args[0]), *args[1:])
    elif "event" in kwargs:
        kwargs["event"] = _fields(kwargs["event"])
    return args, kwargs


def _fields(event: _Queued) -> dict[str, object]:
    fields = _event(event).to_dict()
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and metadata.keys() == _KOMBU_TYPE:
        raise MetadataError(
            "metadata must not have only the keys __type__ and __value__, because Celery's JSON "
            "cannot decode it; rename one of them",
            key="__type__",
        )
    return fields
