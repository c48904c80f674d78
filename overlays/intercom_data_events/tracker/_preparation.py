"""Prepares an event before a tracker stores it: adds the tracker's metadata, then asks
``before_send``.

Nothing in here takes a lock, logs, or imports, because an event can be tracked in the garbage
collector and in a signal handler.
"""  # noqa: D205  # one sentence

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, TypeAlias, cast

from attrs import evolve

from intercom_data_events import metadata as _metadata
from intercom_data_events._validation import invalid, short_repr
from intercom_data_events.errors import ConfigurationError, MetadataError, NotSentError
from intercom_data_events.event import Event

if TYPE_CHECKING:
    from types import TracebackType

    from intercom_data_events.metadata import Metadata, MetadataValue

#: A function that a tracker calls with each event. It returns the event to track, or None to drop
#: the event.
#:
#: Example:
#:     >>> from intercom_data_events import DataEventsClient
#:     >>> from intercom_data_events.emulator import Emulator
#:     >>> from intercom_data_events.tracker import Tracker
#:     >>> def without_tests(event):
#:     ...     return None if event.user_id == "test" else event
#:     >>> client = DataEventsClient("token", transport=Emulator().transport())
#:     >>> with Tracker(client, before_send=without_tests) as tracker:
#:     ...     tracker.track("placed-order", user_id="test")
#:     >>> tracker.counters.filtered
#:     1
BeforeSend: TypeAlias = Callable[[Event], Event | None]

# How deep events can be tracked while before_send runs. A finalizer and a signal handler may track
# during it; a before_send that tracks each time would not end.
_DEEPEST = 4
_depth = ContextVar("_depth", default=0)


class Preparation:
    """What a tracker does with each event before it stores it.

    It can be used from several threads, and pickled where `before_send` can be.

    Args:
        before_send: Is called with each event, once it has its default metadata; it returns the
            event to track, or None to drop it.
        metadata: The defaults of every event's metadata.

    Attributes:
        defaults: A copy of them.

    Raises:
        ConfigurationError: `before_send` is not a function, or is an async one.
        MetadataError: The API does not accept `metadata`.
    """

    def __init__(self, before_send: BeforeSend | None, metadata: Metadata | None) -> None:
        _check_function(before_send)
        self._before_send = before_send
        self.defaults = _copied({} if metadata is None else metadata)

    def prepare(
        self, event: Event, *, drop_excess_metadata: bool = False
    ) -> tuple[Event | None, NotSentError | None]:
        """Returns the event to track, or None and why it is not tracked.

        Both are None where `before_send` returned None: the event counts as filtered. With an
        error, `before_send` has failed: the event counts as dropped. The error is for `on_error`;
        its text, without its cause, can be logged, as no personal data is in it.

        Args:
            event: The event; it stays as it is, whatever `before_send` does.
            drop_excess_metadata: Whether to drop keys after the tenth instead of raising an error.

        Raises:
            MetadataError: The event's keys and the tracker's are more than ten.
        """
        if self._before_send is None and not self.defaults:
            return event, None
        prepared = self._with_defaults(event, drop_excess_metadata)
        if self._before_send is None:
            return prepared, None
        depth = _depth.get()
        if depth >= _DEEPEST:
            return None, _not_sent(event, "before_send tracks events itself")
        try:
            # The depth is set in a copy of the context: nothing has to be reset, also after an
            # interrupt.
            result = copy_context().run(_call, self._before_send, prepared, depth + 1)
        except Exception as error:  # noqa: BLE001  # a caller's function may raise anything
            return None, _failed(event, error)
        if result is None:
            return None, None
        return _checked(event, result)

    def _with_defaults(self, event: Event, drop_excess_metadata: bool) -> Event:
        own = event.metadata
        added = {key: value for key, value in self.defaults.items() if key not in own}
        excess = len(own) + len(added) - _metadata.MAX_KEYS
        if excess > 0 and added:
            kept = list(added)[: max(0, len(added) - excess)]
            if not drop_excess_metadata:
                keys = ", ".join(map(short_repr, added))
                raise MetadataError(
                    f"metadata must have at most {_metadata.MAX_KEYS} keys, not "
                    f"{len(own) + len(added)}: {len(own)} of the event and {len(added)} of the "
                    f"tracker's metadata= ({keys}); remove {excess} of them, or pass "
                    "drop_excess_metadata=True to track, which drops the tracker's last ones",
                    key=list(added)[len(kept)],
                )
            added = {key: added[key] for key in kept}
        return evolve(event, metadata={**own, **added})


def _call(before_send: BeforeSend, event: Event, depth: int) -> object:
    _depth.set(depth)
    return before_send(event)


def _checked(event: Event, result: object) -> tuple[Event | None, NotSentError | None]:
    """Returns what `before_send` returned, or None and why that cannot be tracked."""
    if not isinstance(result, Event):
        if inspect.iscoroutine(result):
            result.close()  # Else Python warns that it was never awaited.
        must = f"before_send must return an Event or None, not a {type(result).__name__}"
        return None, _not_sent(event, must)
    try:
        _metadata.encode(result.metadata)  # It may have changed the mapping itself.
    except MetadataError as error:
        problem = _not_sent(event, "before_send returned metadata that the API does not accept")
        problem.__cause__ = error
        return None, problem
    return result, None


def _failed(event: Event, error: Exception) -> NotSentError:
    # Without the frames of this module, which would refer to the error in turn.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    # Not what it says, which may be of a person.
    problem = _not_sent(event, f"before_send raised {type(error).__name__}{_place(traceback)}")
    problem.__cause__ = error
    return problem


def _place(traceback: TracebackType | None) -> str:
    """Says where an exception was raised, without the file's path, which may name a person."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    frame = traceback.tb_frame
    module = frame.f_globals.get("__name__", "?")
    return f" in {module}.{frame.f_code.co_qualname}, line {traceback.tb_lineno}"


def _not_sent(event: Event, reason: str) -> NotSentError:
    return NotSentError(f"event {short_repr(event.event_name)} was dropped: {reason}")


def _check_function(before_send: object) -> None:
    if before_send is None:
        return
    if not callable(before_send):
        must = "before_send must be a function of an event"
        raise invalid(ConfigurationError, must, before_send)
    reason = "an event is prepared without awaiting; pass a plain function"
    check_blocking("before_send", before_send, reason)


def check_blocking(name: str, function: object, reason: str) -> None:
    """Checks that a function need not be awaited.

    Args:
        name: The name of the argument.
        function: The function, or None.
        reason: Why it must not be async, and the remedy.

    Raises:
        ConfigurationError: It is an async function.
    """
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # of an object that can be called
    ):
        raise ConfigurationError(f"{name} must not be an async function, because {reason}")


def _copied(metadata: Metadata) -> dict[str, MetadataValue]:
    """Returns a copy of a tracker's metadata in Python values."""
    if isinstance(metadata, Mapping) and len(metadata) > _metadata.MAX_KEYS:
        raise MetadataError(
            f"a tracker's metadata must have at most {_metadata.MAX_KEYS} keys, not "
            f"{len(metadata)}; remove some, and leave room for the events' own",
            key=list(metadata)[_metadata.MAX_KEYS],
        )
    return cast("dict[str, MetadataValue]", _metadata.decode(_metadata.encode(metadata)))
