"""Acquires quota for a dispatcher, which must not wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intercom_data_events._sending.pacing import Reservation
    from intercom_data_events._sending.session import ProcessState, Session
    from intercom_data_events._sending.settings import Settings


class Waker:
    """An alarm that calls a function instead of ending a wait."""

    __slots__ = ("_wake",)

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake

    def set(self) -> None:
        """Calls the function."""
        self._wake()


class Quota:
    """Acquires quota for one event at a time, before the dispatcher chooses the event.

    Args:
        session: The connections that will send it.
        settings: The settings of the requests.
        wake: Called when there may be quota.
        announce: Called with the seconds when a wait for the rate limit begins.
    """

    def __init__(
        self,
        session: Session[Any],
        settings: Settings,
        wake: Callable[[], object],
        announce: Callable[[float], object],
    ) -> None:
        self._session = session
        self._settings = settings
        self._waker = Waker(wake)
        self._announce = announce
        self._state: ProcessState[Any] | None = None
        self._reservation: Reservation | None = None
        self._is_announced = False

    def acquire(self) -> float:
        """Asks for quota for one event.

        Returns:
            0 if there is quota, which :meth:`take` returns; otherwise the seconds after which to
            ask again, unless `wake` is called before.

        Raises:
            RuntimeError: The client is closed.
            ConfigurationError: Its connections cannot be set up.
        """
        if self._state is None or self._reservation is None:
            state = self._session.enter()
            self._state = state
            self._reservation = state.limiter.reservation(
                self._settings.quota_share, paced=self._settings.pace, waker=self._waker
            )
            self._is_announced = False
        seconds = self._state.limiter.acquire(self._reservation)
        if 0 < seconds < math.inf and not self._is_announced:
            self._is_announced = True
            self._announce(seconds)
        return seconds

    def take(self) -> Reservation:
        """Returns the quota that was acquired."""
        reservation, self._reservation = self._reservation, None
        state, self._state = self._state, None
        assert reservation is not None and state is not None  # noqa: S101, PT018  # acquired
        state.leave()
        reservation.waker = None  # A retry waits for quota in the worker.
        return reservation

    def cancel(self) -> None:
        """Releases the acquired quota, or the place in the queue."""
        if self._reservation is not None and self._state is not None:
            self._state.limiter.release(self._reservation)
            self._state.leave()
            self._state = self._reservation = None
