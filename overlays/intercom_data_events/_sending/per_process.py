"""One value for each process; not in :mod:`runtime`, which must not refer to typing."""

from __future__ import annotations

from typing import Generic, TypeVar

from intercom_data_events._sending.runtime import this_process

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One value for each process; a forked child begins without one.

    A child keeps the values of its ancestors but neither uses nor releases them: their threads,
    locks and connections belong to the other process.
    """

    def __init__(self) -> None:
        self._values: dict[object, T] = {}

    def get(self) -> T | None:
        """Returns the value of this process, or None."""
        return self._values.get(this_process())

    def set(self, value: T) -> None:
        """Replaces the value of this process."""
        self._values[this_process()] = value

    def setdefault(self, value: T) -> T:
        """Returns the value of this process; of several threads' first values, one wins."""
        return self._values.setdefault(this_process(), value)

    @property
    def was_used_before_fork(self) -> bool:
        """Whether an ancestor of this process has a value."""
        return bool(self._values.keys() - {this_process()})
