"""The one worker pool, of bulk sending and of trackers.

A *dispatcher* decides what is sent when; see :class:`Dispatcher`. Its state has one owner at a
time: what runs :meth:`Dispatcher.step`, which is its own thread or task, or a worker that has just
sent. Everything else appends news to a deque and wakes the pool, which waits for nothing, so signal
handlers and finalizers can do it as well. *Workers* send, and put the results into a deque.

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
#: What a thread or task of a tracker does. Code of the caller's may run in it, such as a hook, a
#: transport, a log handler, `on_error`, a finalizer or a signal handler. While the thread works or
#: sends, such code must not wait for the tracker; while it sends, such code must not track.
ROLE: ContextVar[Role] = ContextVar("ROLE", default="")

if hasattr(os, "register_at_fork"):
    # Code of the caller's may fork, and the child does what is its own.
    os.register_at_fork(after_in_child=partial(ROLE.set, ""))


def context_of(role: Role) -> Context:
    """Returns an empty context but for the role.

    Code runs in a copy of it from its first line on: a finalizer may come before any line.
    """
    context = Context()
    context.run(ROLE.set, role)
    return context


class Sendable(Protocol):
    """An event that a dispatcher hands to a worker.

    Attributes:
        event: The event.
        reservation: The quota that it is sent with.
    """

    event: Event
    reservation: Reservation | None


Item = TypeVar("Item", bound=Sendable)


@define(eq=False)
class Result(Generic[Item]):
    """What became of an event.

    Attributes:
        item: The event, as the dispatcher handed it out.
        error: Why it was not accepted, or None. An exception that is not an IntercomError is the
            caller's own: of a hook, a transport, or the function that returns the token.
    """

    item: Item
    error: BaseException | None = field(default=None)


class Workers(Protocol[Item]):
    """What a dispatcher uses of its pool, within a step."""

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
        """Takes in all news, and hands out what can be sent now.

        Returns:
            The seconds until the next step is due, if nothing wakes the pool before; None once
            nothing more will happen.
        """
