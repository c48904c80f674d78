"""The worker pool that bulk sending and trackers share.

A *dispatcher* decides what is sent when; see :class:`Dispatcher`. Its state has one owner at a
time: the thread or task that runs :meth:`Dispatcher.step`, either the dispatcher's or that of a
worker that has just sent. All other code appends news to a deque and wakes the pool. That waits for
nothing, so signal handlers and finalizers can do it, too. *Workers* send, and put the results into
a deque.

``threads`` runs a dispatcher in threads, for the blocking client, and ``tasks`` in tasks of an
event loop, for the async one.
"""

from __future__ import annotations

import os
from contextvars import Context, ContextVar
from functools import partial
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar

from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Iterator

    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events.event import Event

Role: TypeAlias = Literal["", "working", "sending", "reporting"]
#: What a thread or task of a tracker does. The caller's code may run in it: a hook, a transport, a
#: log handler, `on_error`, a finalizer or a signal handler. While the thread works or sends, such
#: code must not wait for the tracker; while it sends, such code must not track.
ROLE: ContextVar[Role] = ContextVar("ROLE", default="")

if hasattr(os, "register_at_fork"):
    # The caller's code may fork, and the child has no role.
    os.register_at_fork(after_in_child=partial(ROLE.set, ""))


def context_of(role: Role) -> Context:
    """Returns a context that has only the role.

    Threads and tasks run in a copy of it from the start: a finalizer may run before any line.
    """
    context = Context()
    context.run(ROLE.set, role)
    return context


class Sendable(Protocol):
    """An event that a dispatcher hands to a worker.

    Attributes:
        event: The event.
        reservation: The quota for sending it.
    """

    event: Event
    reservation: Reservation | None


Item = TypeVar("Item", bound=Sendable)


@define(eq=False)
class Result(Generic[Item]):
    """The outcome of sending an event.

    Attributes:
        item: The event, as the dispatcher handed it out.
        error: Why it was not accepted, or None. An exception that is not an IntercomError comes
            from the caller's code: a hook, a transport, or the function that returns the token.
    """

    item: Item
    error: BaseException | None = field(default=None)


class Workers(Protocol[Item]):
    """The part of its pool that a dispatcher uses within a step."""

    def is_ready(self) -> bool:
        """Whether a worker is free for one more event; starts one if needed."""
        ...

    def submit(self, item: Item, /) -> None:
        """Hands an event to a free worker."""

    def results(self) -> Iterator[Result[Item]]:
        """Yields the results since the last call."""
        ...


class Dispatcher(Protocol[Item]):
    """Decides what is sent when, without waiting for anything."""

    def step(self, workers: Workers[Item], /) -> float | None:
        """Processes all news, and hands out the events that can be sent now.

        Returns:
            The seconds until the next step is due, unless the pool is woken before; None once the
            dispatcher has ended.
        """
