"""Prepares an event before a tracker stores it: adds metadata, then calls ``before_send``.

Nothing here takes a lock, logs or imports, because finalizers and signal handlers can track events.
"""

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

# How deeply events may be tracked while before_send runs. A finalizer or a signal handler may track
# during it, but a before_send that always tracks would not end.
_DEEPEST = 4
_depth = ContextVar("_depth", default=0)


class Preparation:
    """Prepares each event before the tracker stores it.

    It is thread-safe, and can be pickled if `before_send` can be.

    Args:
        before_send: A function that is called with each event, with the tracker's metadata; it
            returns the event to track, or None to drop it.
        metadata: The metadata that every event gets.

    Attributes:
        defaults: A copy of `metadata`.

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
        """Returns the event to track, or None and the error that prevents it.

        If `before_send` returned None, both are None, and the event counts as filtered. If it
        failed, the event counts as dropped. The error is for `on_error`. Its message can be logged,
        because only its cause may contain personal data.

        Args:
            event: The event; it stays unchanged, whatever `before_send` does.
            drop_excess_metadata: Whether to drop keys after the tenth instead of raising an error.

        Raises:
            MetadataError: The event and the tracker have more than ten keys in total.
        """
        if self._before_send is None and not self.defaults:
            return event, None
        prepared = self._with_defaults(event, drop_excess_metadata)
        if self._before_send is None:
            return prepared, None
        depth = _depth.get()
        if depth >= _DEEPEST:
            return None, _not_sent(event, "before_send must not track events recursively")
        try:
            # The depth is set in a copy of the context, so nothing has to be reset, even after an
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
                    f"{len(own) + len(added)}: {len(own)} from the event and {len(added)} from the "
                    f"tracker's metadata= ({keys}); remove {excess} of them, or pass "
                    "drop_excess_metadata=True to track(), which drops the tracker's last keys",
                    key=list(added)[len(kept)],
                )
            added = {key: added[key] for key in kept}
        return evolve(event, metadata={**own, **added})


def _call(before_send: BeforeSend, event: Event, depth: int) -> object:
    _depth.set(depth)
    return before_send(event)


def _checked(event: Event, result: object) -> tuple[Event | None, NotSentError | None]:
    """Returns the result of `before_send`, or None and the error if it cannot be tracked."""
    if not isinstance(result, Event):
        if inspect.iscoroutine(result):
            result.close()  # Otherwise, Python would warn that it was never awaited.
        kind = f"a value of type {type(result).__name__}"
        return None, _not_sent(event, f"before_send must return an Event or None, not {kind}")
    try:
        _metadata.encode(result.metadata)  # The function may have changed the mapping in place.
    except MetadataError as error:
        problem = _not_sent(event, "before_send returned metadata that the API does not accept")
        problem.__cause__ = error
        return None, problem
    return result, None


def _failed(event: Event, error: Exception) -> NotSentError:
    # Without the frames of this module, which would refer back to the error.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    # Not its message, which may contain personal data.
    problem = _not_sent(event, f"before_send raised {type(error).__name__}{_place(traceback)}")
    problem.__cause__ = error
    return problem


def _place(traceback: TracebackType | None) -> str:
    """Returns where an exception was raised, without the file's path, which may name a person."""
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
        must = "before_send must be a function that takes an event"
        raise invalid(ConfigurationError, must, before_send)
    reason = "track does not await it; pass a plain function"
    check_blocking("before_send", before_send, reason)


def check_blocking(name: str, function: object, reason: str) -> None:
    """Raises a ConfigurationError, with the reason and the remedy, if a function is async."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # of an object that can be called
    ):
        raise ConfigurationError(f"{name} must not be an async function, because {reason}")


def _copied(metadata: Metadata) -> dict[str, MetadataValue]:
    """Returns a copy of a tracker's metadata in Python values."""
    if isinstance(metadata, Mapping) and len(metadata) > _metadata.MAX_KEYS:
        raise MetadataError(
            f"a tracker's metadata must have at most {_metadata.MAX_KEYS} keys, not "
            f"{len(metadata)}; remove some, to leave room for the events' own keys",
            key=list(metadata)[_metadata.MAX_KEYS],
        )
    return cast("dict[str, MetadataValue]", _metadata.decode(_metadata.encode(metadata)))
